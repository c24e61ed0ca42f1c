"""A bell: wake one waiting thread, cheaply, without ever losing a ring.

A ring is remembered until somebody has waited for it; ringing again before that costs a look at a flag.
"""

from __future__ import annotations

import threading


class Bell:
    """For one waiter. ``wait`` first, then look for work: a ring always comes after the work it announces."""

    __slots__ = ("_lock", "_rung")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._rung = False

    def ring(self) -> None:
        """Make the current or the next ``wait`` return."""
        if self._rung:
            return
        self._rung = True
        try:
            self._lock.release()
        except RuntimeError:
            pass  # somebody else rang at the same moment

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when rung since the last ``wait``, or when the time is up."""
        self._lock.acquire(timeout=-1 if timeout_seconds is None else max(timeout_seconds, 0.0))
        self._rung = False
