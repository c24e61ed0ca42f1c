"""Watches for asyncio: a stream of many, and one as an asynchronous iterator of events.

Live events are taken on the event loop; whatever reads the store runs in a thread and leaves its response in the
stream, so that a canceled task loses nothing. One call into the loop wakes the consumer, however many events wait.
A watch belongs to no loop: each wait is in the loop that it is awaited in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from kvstore.aio import call_soon
from kvstore.bell import Bell
from kvstore.errors import WatchCanceled
from kvstore.model import Event, WatchRequest, WatchResponse
from kvstore.watch.iterators import OneWatch
from kvstore.watch.stream import Numbered, WatchStream


class LoopBell(Bell):
    """A bell whose waiter is a task: the first ring since it last waited is one call into its loop."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        super().__init__()
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self._rung:
            return
        try:
            self._rung = True  # before looking for a waiter, who looks for it after having come
            waiter = self._waiter
            if waiter is not None:
                call_soon(waiter.get_loop(), _wake, waiter)
        except BaseException:
            self._rung = False
            raise

    async def rung(self, timeout_seconds: float | None = None) -> None:
        """As ``wait``, without blocking the loop."""
        try:
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            if not self._rung:
                await asyncio.wait_for(waiter, timeout_seconds)
        except TimeoutError:
            pass
        finally:
            self._waiter = None
            self._rung = False


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _look_at(reader: asyncio.Future[Any]) -> None:
    """Whatever a read failed with, the next one meets it too: it is nothing to report if nobody waits for it."""
    if not reader.cancelled():
        reader.exception()


class AsyncWatchStream:
    """Many watches with one consumer, a task: ``create``, ``cancel``, and ``await next()`` as in ``WatchStream``."""

    def __init__(self, stream: WatchStream) -> None:
        self.stream = stream
        self.create = stream.create
        self.cancel = stream.cancel
        self.request_progress = stream.request_progress
        self.close = stream.close
        self._reader: asyncio.Future[Any] | None = None
        stream.bell = self._bell = LoopBell()

    async def next(self) -> Numbered:
        """The next (watch id, response). A task that is canceled while it waits loses nothing.

        Raises ``WatchCanceled`` once the stream is closed, ``StoreClosed`` once the store is.
        """
        await self.wait()
        found = self.stream.next(0)
        assert found is not None
        return found

    async def wait(self) -> None:
        """Wait until there is a response to hand out."""
        stream = self.stream
        while True:
            if self._reader is not None:
                await self._read_in_thread()
            if stream.fill(may_read=False):
                return
            if stream.needs_store():
                await self._read_in_thread()
            elif stream.idle():
                await self._bell.rung(stream.until_tick(None))

    async def _read_in_thread(self) -> None:
        """Let a thread read; if this task is canceled meanwhile, the next one waits for the same read."""
        loop = asyncio.get_running_loop()
        reader = self._reader
        if reader is None or reader.get_loop() is not loop:
            try:
                reader = loop.run_in_executor(None, self.stream.fill)
            except RuntimeError:  # no thread can be had
                self.stream.fill()
                return
            reader.add_done_callback(_look_at)
            self._reader = reader
        try:
            await asyncio.shield(reader)
        finally:
            if reader.done():
                self._reader = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncWatch(OneWatch):
    """An asynchronous iterator of events; one consumer at a time.

    async with store.watch(prefix=b"jobs/") as events:
        async for event in events: ...
    """

    def __init__(self, stream: AsyncWatchStream, request: WatchRequest) -> None:
        self._wait = stream.wait
        super().__init__(stream.stream, request)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while True:
            left = self._left
            if left.whole and left.events:
                return left.events.popleft()
            if not await self._advance():
                raise StopAsyncIteration

    async def responses(self) -> AsyncIterator[WatchResponse]:
        """Whole responses instead of events: all changes of one or more revisions, or a progress notice."""
        while True:
            left = self._left
            if left.has_whole():
                left.whole[:] = [left.rest()]
                yield left.whole.pop()
            elif not await self._advance():
                return

    async def _advance(self) -> bool:
        """Wait for the next response and take it; false: closed by its owner."""
        self._check_end()
        try:
            await self._wait()
        except WatchCanceled:
            return False
        self._take()
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
