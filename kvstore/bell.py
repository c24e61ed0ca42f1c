"""Waking threads that wait: a bell for one, a gate for many.

Their whole state is in locks and single assignments, so they may be used anywhere at any moment, even in a signal
handler or a finalizer, and an exception at any step leaves nothing locked. ``threading.Event`` and ``Condition`` are
Python code around a lock, which an exception on the way in leaves locked forever: the library uses neither.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Ringing(Protocol):
    """What other threads ring: a ``Bell``, or an object that makes its owner look for work."""

    def ring(self) -> None:
        """Called by any thread, once the work is there; often for nothing. Quick, and raises nothing."""


class Bell:
    """For one waiter. Look for work, then ``wait``, and look again: a ring comes after the work it announces.

    A ring is remembered until a ``wait`` has returned for it; ringing again before that costs only a look at a lock.
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

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Return when rung since the last ``wait`` (then true), or when the time is up."""
        return self._lock.acquire(timeout=-1 if timeout_seconds is None else max(timeout_seconds, 0.0))


class Gate:
    """For any number of waiters; once open, it stays open."""

    __slots__ = ("_waiters", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._waiters: list[Bell] = []

    def open(self) -> None:
        self.is_open = True
        for waiter in tuple(self._waiters):  # a later waiter sees that it is open
            waiter.ring()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until it is open or the time is up. Returns whether it is open."""
        if not self.is_open:
            waiter = Bell()
            self._waiters.append(waiter)
            if not self.is_open:
                waiter.wait(timeout_seconds)
            self._waiters.remove(waiter)
        return self.is_open
