"""The clock of an open store: the time of day, and a clock that cannot be set.

    now_ms       the system's clock, for timestamps and for what a restart has to know
    elapsed_ms   since some fixed moment; setting the system's clock does not change it
    lease_ms     the time of day without the jumps since the store was opened: deadlines are in this time

Intervals (retention, snapshots) and leases count elapsed time. A deadline is also in the log, where the next opening
compares it with the time of day; so when that jumps, all deadlines are moved by the same amount (``drift_ms``,
``following``), and each lease keeps the time it had left.

Elapsed time is ``time.monotonic``. The caller's own clock (the option ``clock``) has no such counterpart, so there
elapsed time is the sum of the steps from one reading to the next; a step back, or ahead by more than an hour, is a jump
during which no time has passed.

A time of day before 1970 or after ``END_MS`` is replaced by the nearest one that files can hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STEP_MS_MAX = 3_600_000
END_MS = 1 << 62


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Clock:
    """``wall``: seconds since 1970; None: the system's clock."""

    def __init__(self, wall: Callable[[], float] | None = None) -> None:
        self._wall = wall or time.time
        self._steps = None if wall is None else _Steps()
        self._base_ms = self.now_ms() - self.elapsed_ms()

    def now_ms(self) -> int:
        now_ms = _in_ms(self._wall())
        if self._steps is not None:
            self._steps.see(now_ms)
        return now_ms

    def elapsed_ms(self) -> int:
        return _monotonic_ms() if self._steps is None else self._steps.see(_in_ms(self._wall()))

    def lease_ms(self) -> int:
        return self._base_ms + self.elapsed_ms()

    @property
    def drift_ms(self) -> int:
        """How far the time of day is ahead of ``lease_ms``."""
        return self.now_ms() - self.lease_ms()

    def when_moved(self, follow: Callable[[], object]) -> None:
        """Have a method called whenever a clock that tests move (``testing.fake_clock``) has been moved."""
        followed_by = getattr(self._wall, "followed_by", None)
        if followed_by is not None:
            followed_by(self.elapsed_ms, follow)

    def following(self, drift_ms: int) -> Callable[[], None]:
        """A call that moves ``lease_ms`` by that much, at most once. The caller moves all deadlines with it."""
        base_ms = self._base_ms + drift_ms

        def follow() -> None:
            self._base_ms = base_ms

        return follow


class _Steps:
    """The steps of a clock from one reading to the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms: int | None = None
        self._elapsed_ms = 0

    def see(self, now_ms: int) -> int:
        """Take a reading. Returns how much time has elapsed."""
        with self._lock:
            step_ms = 0 if self._last_ms is None else now_ms - self._last_ms
            self._last_ms = now_ms
            if 0 < step_ms <= STEP_MS_MAX:
                self._elapsed_ms += step_ms
            return self._elapsed_ms


def _in_ms(seconds: float) -> int:
    """A time within what files can hold; NaN is 1970."""
    return int(min(seconds * 1000, END_MS)) if seconds > 0 else 0
