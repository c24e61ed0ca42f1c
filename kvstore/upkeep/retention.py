"""Automatic compaction: which revision to compact to, and when, by etcd's rules.

    revision   keep R revisions: every 5 minutes compact to (newest - R)

    periodic   keep a period P. Ten times in an interval, min(P, 1 hour), note the newest revision; the oldest of
               the floor(P / tick) + 1 notes kept is about P old and the candidate. The first compaction comes after
               P, the next ones an interval after the last that succeeded.

    retention  "5"     hours, or revisions          "10m", "1h30m"     a duration (periodic only)          "0"   off

Pure: ``due`` is given the time and the newest revision, ``done`` is told that the compaction it asked for succeeded.
The time cannot be set (clock.py) and starts over with each opening of the store, as etcd's does: after a restart a
period is kept in full before the next compaction.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from kvstore.options import BadOption, parse_duration

RETENTION_HOURS_MAX = 24 * 366 * 100
RETENTION_REVISIONS_MAX = (1 << 63) - 1
REVISION_INTERVAL_SECONDS = 300.0
INTERVAL_SECONDS_MAX = 3600.0
TICKS = 10


class Policy(Protocol):
    """When to compact to which revision."""

    def due(self, now_seconds: float, newest: int) -> int:
        """The revision to compact to now; 0: none."""

    def done(self, now_seconds: float, revision: int) -> None:
        """The compaction to ``revision`` succeeded, or had happened already."""


class RevisionPolicy:
    """Keep a number of revisions."""

    def __init__(self, keep: int, now_seconds: float) -> None:
        self._keep = keep
        self._next_seconds = now_seconds + REVISION_INTERVAL_SECONDS
        self._last = 0

    def due(self, now_seconds: float, newest: int) -> int:
        if now_seconds < self._next_seconds:
            return 0
        self._next_seconds = now_seconds + REVISION_INTERVAL_SECONDS
        candidate = newest - self._keep
        return candidate if candidate > 0 and candidate != self._last else 0

    def done(self, now_seconds: float, revision: int) -> None:
        self._last = revision


class PeriodicPolicy:
    """Keep a period of time."""

    def __init__(self, period_seconds: float, now_seconds: float, newest: int) -> None:
        self._interval_seconds = min(period_seconds, INTERVAL_SECONDS_MAX)
        self._tick_seconds = self._interval_seconds / TICKS
        self._next_seconds = now_seconds + self._tick_seconds
        self._wait_seconds = period_seconds
        self._done_seconds = now_seconds
        notes = int(period_seconds / self._tick_seconds + 1e-9) + 1
        self._notes: deque[int] = deque([newest], maxlen=notes)
        self._last = 0

    def due(self, now_seconds: float, newest: int) -> int:
        if now_seconds < self._next_seconds:
            return 0
        self._next_seconds = now_seconds + self._tick_seconds
        candidate = self._notes[0]
        self._notes.append(newest)
        if now_seconds - self._done_seconds < self._wait_seconds or candidate == self._last:
            return 0
        self._wait_seconds = self._interval_seconds
        return candidate

    def done(self, now_seconds: float, revision: int) -> None:
        self._last, self._done_seconds = revision, now_seconds


def policy(mode: str, retention: str, now_seconds: float, newest: int) -> Policy | None:
    """The policy that the options ask for; None: automatic compaction is off. Raises ``BadOption``."""
    number = _number(retention, RETENTION_REVISIONS_MAX if mode == "revision" else RETENTION_HOURS_MAX)
    if number == 0:
        return None
    if mode == "revision":
        if number is None:
            raise BadOption(f"auto_compaction_retention must be a number of revisions, not {retention!r}")
        return RevisionPolicy(number, now_seconds)
    seconds = _period_seconds(retention) if number is None else number * 3600.0
    return PeriodicPolicy(seconds, now_seconds, newest) if seconds else None


def _number(retention: str, most: int) -> int | None:
    """A bare number of ASCII digits; None if it is anything else."""
    text = retention.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 20 or int(text) > most:
        raise BadOption(f"auto_compaction_retention must be at most {most}, not {retention!r:.80}")
    return int(text)


def _period_seconds(retention: str) -> float:
    try:
        seconds = parse_duration(retention.strip())
    except BadOption:
        raise BadOption(
            f"auto_compaction_retention must be hours or a duration like 10m, not {retention!r}"
        ) from None
    if seconds > RETENTION_HOURS_MAX * 3600.0:
        raise BadOption(
            f"auto_compaction_retention must be at most {RETENTION_HOURS_MAX}h, not {retention!r}"
        )
    return seconds
