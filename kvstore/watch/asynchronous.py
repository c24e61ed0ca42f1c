"""Watches for asyncio: a stream of many, and one as an asynchronous iterator of events.

Live events are taken on the event loop; whatever reads the store runs in a thread and leaves its response in the
stream, so a canceled task loses nothing. One call into the loop wakes the consumer, however many events wait.
A watch belongs to no loop: each wait is in the loop that awaits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, overload

from kvstore.arguments import check_timeout
from kvstore.bell import Bell
from kvstore.errors import WatchCanceled, WatchTimeout
from kvstore.loops import call_soon
from kvstore.model import Event, WatchRequest, WatchResponse
from kvstore.twins import Twin, plain, twin
from kvstore.watch.iterators import OneWatch, ResponseStream, Watch
from kvstore.watch.stream import Numbered, WatchStream


class LoopBell(Bell):
    """A bell whose waiter is a task: the first ring since its last wait makes one call into its loop."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        super().__init__()
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self._rung:
            return
        try:
            self._rung = True  # set before looking for a waiter, who looks at it after registering
            waiter = self._waiter
            if waiter is not None:
                call_soon(waiter.get_loop(), _wake, waiter)
        except BaseException:
            self._rung = False
            raise

    async def rung(self, timeout_seconds: float | None = None) -> None:
        """Like ``wait``, without blocking the loop."""
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
    """Retrieve a read's error: the next read meets it too, so there is nothing to report if this one is not awaited."""
    if not reader.cancelled():
        reader.exception()


class AsyncWatchStream(Twin):
    """Many watches with one consumer, a task: ``create``, ``cancel``, and ``await next()`` as in ``WatchStream``."""

    def __init__(self, stream: ResponseStream) -> None:
        self._twin: ResponseStream = stream
        self._reader: asyncio.Future[Any] | None = None
        stream.bell = self._bell = LoopBell()

    create = plain(WatchStream.create)
    cancel = plain(WatchStream.cancel)
    request_progress = plain(WatchStream.request_progress)
    lag = plain(WatchStream.lag)
    close = plain(WatchStream.close)

    @overload
    async def next(self, timeout_seconds: None = None) -> Numbered: ...
    @overload
    async def next(self, timeout_seconds: float) -> Numbered | None: ...
    async def next(self, timeout_seconds: float | None = None) -> Numbered | None:
        """The next response; None when the time is up.

        Raises ``WatchCanceled`` once the stream is closed, ``StoreClosed`` once the store is.
        """
        return self._twin.next(0) if await self.wait(timeout_seconds) else None

    @twin(WatchStream.wait)
    async def wait(self, timeout_seconds: float | None = None) -> bool:
        if timeout_seconds is None:
            await self._wait()
            return True
        try:
            async with asyncio.timeout(timeout_seconds) as limit:
                await self._wait()
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    async def _wait(self) -> None:
        stream = self._twin
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
        """Read in a thread; if this task is canceled meanwhile, the next one waits for the same read."""
        loop = asyncio.get_running_loop()
        reader = self._reader
        if reader is None or reader.get_loop() is not loop:
            try:
                reader = loop.run_in_executor(None, self._twin.fill)
            except RuntimeError:  # no thread available
                self._twin.fill()
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
        super().__init__(stream._twin, request)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while True:
            left = self._left
            if left.whole and left.events:
                return left.events.popleft()
            if not await self._advance(None):
                raise StopAsyncIteration

    @twin(Watch.get)
    async def get(self, timeout: float | None = None) -> Event:
        while True:
            left = self._left
            if left.whole and left.events:
                return left.events.popleft()
            if not await self._advance(timeout):
                raise WatchCanceled

    @twin(Watch.responses)
    async def responses(self) -> AsyncIterator[WatchResponse]:
        while True:
            try:
                response = await self.get_response()
            except WatchCanceled:
                if self._left.response.canceled:
                    raise
                return
            yield response

    @twin(Watch.get_response)
    async def get_response(self, timeout: float | None = None) -> WatchResponse:
        while True:
            left = self._left
            if left.has_whole():
                left.whole[:] = [left.rest()]
                return left.whole.pop()
            if not await self._advance(timeout):
                raise WatchCanceled

    async def _advance(self, timeout_seconds: float | None) -> bool:
        """Wait for the next response and take it. False if the watch was closed by its owner."""
        check_timeout("timeout", timeout_seconds)
        if self._go_on():
            return True
        try:
            if not await self._wait(timeout_seconds):
                raise WatchTimeout(timeout_seconds or 0)
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
