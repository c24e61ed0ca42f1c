"""Refuses arguments that would silently mean something else, before they become a request.

etcd takes revision -1 for the newest, limit -1 for none, and a TTL of -5 for two seconds. The engine keeps etcd's rules
(it is compared with recorded conversations), so the faces check their callers' arguments here first. A wrong type is a
``TypeError``, a wrong value a ``BadArgument``; both name the argument and the value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from kvstore.errors import BadArgument

K = TypeVar("K")
P = TypeVar("P", bound=str | os.PathLike[str])
V = TypeVar("V")

Seconds = int | float | timedelta
"""A time to live, more than zero; fractions count."""

PLACES = ("wal_dir", "archive_dir", "ca", "cert", "key")
"""Options that name files or folders."""

SOCKET_PATH_BYTES_MAX = 103
"""Of the path of a Unix socket, on every system."""

Data = bytes | bytearray | memoryview
"""What a value may be given as; what is kept is a copy."""


def check_bytes(name: str, value: object) -> None:
    if type(value) is not bytes:
        raise wrong_type(name, value)


def wrong_type(name: str, value: object) -> TypeError:
    """For what should be bytes."""
    or_bytes = ', or b"…"' if isinstance(value, str) else ""
    return TypeError(
        f"{name} must be bytes, not {type(value).__name__}: use a view with a codec (kvstore.MapView){or_bytes}"
    )


def as_bytes(name: str, value: object) -> bytes:
    """A value as bytes, also if it was given in a buffer of another kind."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise wrong_type(name, value)


def check_number(name: str, value: object, least: int = 0) -> None:
    """Check that ``value`` is an int (not a bool) of at least ``least``."""
    number = check_int(name, value)
    if number < least:
        raise BadArgument(f"{name} must be at least {least}, not {value}")
    if number >> 63:
        raise BadArgument(f"{name} must fit into 64 bits, not {value}")


def pairs(name: str, items: Mapping[K, V] | Iterable[tuple[K, V]]) -> Iterator[tuple[K, V]]:
    """The keys and values of a mapping, or of an iterable of pairs."""
    given: object = items.items() if isinstance(items, Mapping) else items
    wanted = f"{name} must be a mapping, or pairs of key and value"
    if not isinstance(given, Iterable):
        raise TypeError(f"{wanted}, not {items!r:.80}")
    for pair in given:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{wanted}: {pair!r:.80} is no pair")
        yield pair[0], pair[1]


def check_path(name: str, value: str | os.PathLike[str]) -> None:
    """Check that ``value`` can be the name of a file or directory."""
    given: object = value
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise TypeError(f"{name} must be a str or a path (os.PathLike), not {value!r:.80}")
    if "\0" in os.fspath(value):
        raise BadArgument(f"{name} must not hold a null byte: {value!r:.200}")


def as_it_is_now(path: P) -> P | str:
    """``path``, absolute, for a call that looks at it later: the working directory may be another by then.

    What is no path, or a URL other than that of a socket, is left to the call to refuse.
    """
    given: object = path
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str) or not text:
        return path
    scheme, separator, rest = text.partition("://")
    if not separator:
        return os.path.abspath(text)
    if scheme in ("unix", "unixs") and rest:
        return f"{scheme}://{socket_path(rest)}"
    return path


def places_as_they_are_now(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an opening or a connection, with the names of files and folders held in the same way."""
    return {name: as_it_is_now(given) if name in PLACES else given for name, given in options.items()}


def socket_path(path: str) -> str:
    """The absolute path of a socket; the path as it is if that is longer than the name of a socket may be."""
    absolute = os.path.abspath(path)
    return absolute if len(os.fsencode(absolute)) <= SOCKET_PATH_BYTES_MAX else path


def check_callable(name: str, value: Callable[..., object] | None, *, is_optional: bool = False) -> None:
    """Check that ``value`` can be called, or is None where it is optional."""
    if not callable(value) and not (is_optional and value is None):
        raise TypeError(f"{name} must be a function, not {value!r:.80}")


def check_int(name: str, value: object) -> int:
    """``value``, an int (not a bool) of any size."""
    if not isinstance(value, int) or isinstance(value, bool):
        part = f": give its .{name}" if hasattr(value, name) else ""
        raise TypeError(f"{name} must be an int, not {value!r:.80}{part}")
    return value


def check_timeout(name: str, value: object) -> None:
    """Check that ``value`` is a number of seconds, or None."""
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise TypeError(f"{name} must be seconds (an int or a float) or None, not {value!r:.80}")


def check_bounds(**bounds: int) -> None:
    """Check the revisions and the limit of a range, where 0 means none."""
    for name, value in bounds.items():
        check_number(name, value)


def seconds(name: str, value: Seconds) -> float:
    """``value`` in seconds. Raises ``BadArgument`` unless it is a finite number greater than 0."""
    given: object = value
    if isinstance(given, timedelta):
        given = given.total_seconds()
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{name} must be seconds (an int, a float or a timedelta), not {value!r:.80}")
    if not math.isfinite(given) or given <= 0:
        raise BadArgument(f"{name} must be more than 0 seconds, not {value!r}")
    return int(given) if given == int(given) else given


def time_ms(name: str, value: float | datetime) -> int:
    """A time of day in ms since 1970. A datetime without a zone is local time, as in ``datetime.timestamp``."""
    given: object = value
    if isinstance(given, datetime):
        given = given.timestamp()
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{name} must be seconds since 1970 or a datetime, not {value!r:.80}")
    if not 0 <= given < 1 << 40:
        raise BadArgument(f"{name} must be seconds since 1970, not {value!r}")
    return int(given * 1000)


def whole_seconds(name: str, value: Seconds) -> int:
    """The same, rounded up: a lease has whole seconds."""
    return math.ceil(seconds(name, value))
