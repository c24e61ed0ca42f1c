"""A clock that stands still until it is advanced. What has run out by then is gone when ``advance`` returns.

    clock = FakeClock()
    store = kvstore.open_memory(clock=clock)
    store.put(b"session", b"x", ttl=60)
    clock.advance(61)
    assert store.get(b"session") is None

Every open store follows the clock that it was given: it counts the time, and ends the leases that are due, in the
caller's thread. That holds on an event loop as well, where the call takes as long as the deletes. (With the option
``background`` off a store does not follow: to it a step of more than an hour is a jump of the time of day.)
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

STEP_SECONDS = 3600.0
"""A longer step would count as a clock that was set (``kvstore.clock``)."""


class FakeClock:
    """Pass it as the option ``clock``; one clock may serve many stores."""

    def __init__(self, now_seconds: float = 1_000_000.0) -> None:
        self.now_seconds = now_seconds
        self._moving = threading.Lock()
        self._readers: list[weakref.WeakMethod[Callable[[], object]]] = []
        self._followers: list[weakref.WeakMethod[Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now_seconds

    def advance(self, seconds: float) -> None:
        """Let time pass. Negative: the same as ``jump``."""
        with self._moving:
            is_followed = self._call(self._readers)
            end_seconds = self.now_seconds + seconds
            while is_followed and end_seconds - self.now_seconds > STEP_SECONDS:
                self.now_seconds += STEP_SECONDS
                self._call(self._readers)
            self.now_seconds = end_seconds
            self._call(self._readers)
            self._call(self._followers)

    def jump(self, seconds: float) -> None:
        """Set the clock, as the system's may be set: by more than an hour, or back, no time has passed."""
        self.now_seconds += seconds

    def followed_by(self, read: Callable[[], object], follow: Callable[[], object]) -> None:
        """Have a store's methods called: ``read`` after each step, ``follow`` when ``advance`` has arrived."""
        self._readers.append(weakref.WeakMethod(read))
        self._followers.append(weakref.WeakMethod(follow))

    def _call(self, methods: list[weakref.WeakMethod[Callable[[], object]]]) -> bool:
        """Call those whose stores are still there. Returns whether there are any."""
        alive = [method for reference in methods if (method := reference()) is not None]
        if len(alive) < len(methods):
            methods[:] = [weakref.WeakMethod(method) for method in alive]
        for method in alive:
            method()
        return bool(alive)
