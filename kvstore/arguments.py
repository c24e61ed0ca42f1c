"""Refuses arguments that would silently mean something else, before they become a request.

etcd takes revision -1 for the newest, limit -1 for none, and a TTL of -5 for two seconds. The engine keeps etcd's rules
(it is compared with recorded conversations), so the faces check their callers' arguments here first. A wrong type is a
``TypeError``, a wrong value a ``BadArgument``; both name the argument and the value.
"""

from __future__ import annotations

import math
from datetime import timedelta

from kvstore.errors import BadArgument

Seconds = int | float | timedelta
"""A time to live: whole seconds, at least one."""


def check_bytes(name: str, value: object) -> None:
    if type(value) is not bytes:
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}")


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


def whole_seconds(name: str, value: Seconds) -> int:
    """``value`` in seconds. Raises ``BadArgument`` unless it is a whole number, at least 1."""
    given: object = value
    if isinstance(given, timedelta):
        given = given.total_seconds()
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{name} must be seconds (an int, a float or a timedelta), not {value!r:.80}")
    if not math.isfinite(given) or given != int(given):
        raise BadArgument(f"{name} must be whole seconds, not {value!r}")
    if given < 1:
        raise BadArgument(f"{name} must be at least one second, not {value!r}")
    return int(given)
