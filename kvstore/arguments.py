"""Refuses arguments that would silently mean something else, before they become a request.

etcd takes revision -1 for the newest, limit -1 for none, and a TTL of -5 for two seconds. The engine keeps etcd's rules
(it is compared with recorded conversations), so the faces check their callers' arguments here first. A wrong type is a
``TypeError``, a wrong value a ``BadArgument``; both name the argument and the value.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from kvstore.errors import BadArgument

Seconds = int | float | timedelta
"""A time to live, more than zero; fractions count."""

Data = bytes | bytearray | memoryview
"""What a value may be given as; what is kept is a copy."""


def check_bytes(name: str, value: object) -> None:
    if type(value) is not bytes:
        raise wrong_type(name, value)


def wrong_type(name: str, value: object) -> TypeError:
    """For what should be bytes."""
    hint = ': use a view with a codec (kvstore.MapView), or b"…"' if isinstance(value, str) else ""
    return TypeError(f"{name} must be bytes, not {type(value).__name__}{hint}")


def as_bytes(name: str, value: object) -> bytes:
    """A value as bytes, also if it was given in a buffer of another kind."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise wrong_type(name, value)


def check_number(name: str, value: object, least: int = 0) -> None:
    """Check that ``value`` is an int (not a bool) of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r:.80}")
    if value < least:
        raise BadArgument(f"{name} must be at least {least}, not {value}")


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
