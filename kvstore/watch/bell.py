"""A bell: wake one waiting thread, cheaply, without ever losing a ring.

A ring is remembered until it has been waited for; ringing again before that costs one look at a lock.
"""

from __future__ import annotations

import threading


class Bell:
    """For one waiter. Look for work, then ``wait``, and look again: a ring comes after the work it announces.

    Its whole state is a lock, which is free after a ring. So it may be rung by anybody at any moment, a signal
    handler or a finalizer among them, and an exception at any step leaves it either rung or not.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Make the current or the next ``wait`` return."""
        if self._lock.locked():
            try:
                self._lock.release()
            except RuntimeError:
                pass  # another thread rang at the same moment

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when rung since the last ``wait``, or when the time is up."""
        self._lock.acquire(timeout=-1 if timeout_seconds is None else max(timeout_seconds, 0.0))
