"""How background work gives way to writers and readers.

Python runs one thread at a time, and a thread that computes keeps the others waiting for up to 5 ms. So long work calls
a ``Pause`` every few rows:

    no_pause     no pause: nothing else waits
    Pacer        a short sleep after every 0.1 ms of work
    Courtesy     half of the time while there are writes, otherwise briefly every 2 ms
    GivesWay     the same, and gives the work up before writers have to wait for memory

Work that loads the disk instead asks ``Traffic`` whether there are writes at the moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from kvstore.errors import Overloaded

RUN_SECONDS = 0.0001
HURRIED_RUN_SECONDS = 0.001
PAUSE_SECONDS = 0.0001
BUSY_SECONDS = 0.02
BREATH_SECONDS = 0.00005
BREATH_EVERY_SECONDS = 0.002

Pause = Callable[[], None]


class Load(Protocol):
    """Tells how many writes there are: a ``State``."""

    index: int

    @property
    def waiting_bytes(self) -> int:
        """Bytes that writes have put into memory since the last checkpoint began."""


def no_pause() -> None:
    """For work during which nothing waits for the GIL or the disk, or everything waits anyway."""


class Pacer:
    """Yields the GIL whenever this thread has held it for a while, which is longer when it is in a hurry."""

    def __init__(self) -> None:
        self._resumed = time.perf_counter()

    def __call__(self, *, hurry: bool = False) -> None:
        if time.perf_counter() - self._resumed > (HURRIED_RUN_SECONDS if hurry else RUN_SECONDS):
            time.sleep(PAUSE_SECONDS)
            self._resumed = time.perf_counter()


class Traffic:
    """Whether background work should slow down: there are writes, and the memory for them is far from full."""

    def __init__(self, load: Load, limit_bytes: int) -> None:
        """``limit_bytes``: the amount of memory at which writers wait (``overlay_limit``)."""
        self._load = load
        self._limit_bytes = limit_bytes
        self._index = load.index
        self._busy_until = 0.0

    def __call__(self) -> bool:
        load = self._load
        if load.index != self._index:
            self._index = load.index
            self._busy_until = time.monotonic() + BUSY_SECONDS
        if 2 * load.waiting_bytes > self._limit_bytes:
            return False  # writers will have to wait for this work to end
        return time.monotonic() < self._busy_until


class Courtesy:
    """Yields the GIL: half of the time under write load, otherwise briefly every 2 ms."""

    def __init__(self, load: Load, limit_bytes: int) -> None:
        self._is_busy = Traffic(load, limit_bytes)
        self._resumed = time.perf_counter()

    def __call__(self) -> None:
        is_busy = self._is_busy()
        if time.perf_counter() - self._resumed > (RUN_SECONDS if is_busy else BREATH_EVERY_SECONDS):
            time.sleep(PAUSE_SECONDS if is_busy else BREATH_SECONDS)
            self._resumed = time.perf_counter()


class GivesWay(Courtesy):
    """Like ``Courtesy``, but raises ``Overloaded`` once writers would have to wait for memory."""

    def __init__(self, load: Load, limit_bytes: int) -> None:
        super().__init__(load, limit_bytes)
        self._load = load
        self._limit_bytes = limit_bytes

    def __call__(self) -> None:
        if self._load.waiting_bytes > self._limit_bytes:
            raise Overloaded
        super().__call__()
