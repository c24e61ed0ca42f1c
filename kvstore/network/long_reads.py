"""Reads that take long and keep much: few at a time, in the order in which they come, while who asked has room."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from kvstore.network import limits
from kvstore.network.call import Call


class LongRead(Protocol):
    call: Call

    @property
    def measure(self) -> Callable[[], None]:
        """Reads, in a thread."""

    def measured(self, error: BaseException | None) -> None:
        """On the loop: it has been read, or why not."""


class LongReads:
    """Those of one endpoint. ``call_soon`` has something called on its loop, from any thread."""

    def __init__(self, call_soon: Callable[..., None]) -> None:
        self._call_soon = call_soon
        self._threads = ThreadPoolExecutor(limits.PAGED_THREADS, "kvstore-serve-long")
        self._waiting: deque[LongRead] = deque()
        self._busy = 0

    def put(self, read: LongRead) -> None:
        self._waiting.append(read)
        self.look()

    def look(self) -> None:
        """Begin what there is room for."""
        passed_over: list[LongRead] = []
        while self._waiting and self._busy < limits.PAGED_THREADS:
            read = self._waiting.popleft()
            if not read.call.alive:
                continue
            if read.call.has_room:
                self._begin(read)
            else:
                passed_over.append(read)
        self._waiting.extendleft(reversed(passed_over))

    def _begin(self, read: LongRead) -> None:
        self._busy += 1

        def done(future: Future[Any]) -> None:
            self._call_soon(self._finish, read, future.exception())

        self._threads.submit(read.measure).add_done_callback(done)

    def _finish(self, read: LongRead, error: BaseException | None) -> None:
        self._busy -= 1
        read.measured(error)
        self.look()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
