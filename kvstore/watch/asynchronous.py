"""Watches for asyncio: a stream of many, and one as an asynchronous iterator of events.

Live events are taken on the event loop; whatever reads the store runs in a thread and leaves its response in the
stream, so that a canceled task loses nothing. One call into the loop wakes the consumer, however many events wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from kvstore.errors import WatchCanceled
from kvstore.model import Event, WatchRequest, WatchResponse
from kvstore.watch.bell import Bell
from kvstore.watch.iterators import OneWatch
from kvstore.watch.stream import Numbered, WatchStream


class LoopBell(Bell):
    """A bell whose waiter is a task: the first ring since it last waited is one call into its loop."""

    __slots__ = ("_loop", "_ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._ready = asyncio.Event()

    def ring(self) -> None:
        if self._rung:
            return
        self._rung = True
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to wake

    async def rung(self, timeout_seconds: float | None = None) -> None:
        """As ``wait``, without blocking the loop."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_seconds)
        except TimeoutError:
            pass
        finally:
            self._ready.clear()
            self._rung = False


class AsyncWatchStream:
    """Many watches with one consumer, a task: ``create``, ``cancel``, and ``await next()`` as in ``WatchStream``."""

    def __init__(self, stream: WatchStream) -> None:
        self.stream = stream
        self.create = stream.create
        self.cancel = stream.cancel
        self.request_progress = stream.request_progress
        self.close = stream.close
        self._reader: asyncio.Future[None] | None = None
        stream.bell = self._bell = LoopBell(asyncio.get_running_loop())

    async def next(self) -> Numbered:
        """The next (watch id, response). A task that is canceled while it waits loses nothing.

        Raises ``WatchCanceled`` once the stream is closed, ``StoreClosed`` once the store is.
        """
        stream = self.stream
        while True:
            if self._reader is not None:
                await self._read_in_thread()
            found = stream.step(may_read=False)
            if found is not None:
                return found
            if stream.needs_store():
                await self._read_in_thread()
                continue
            if stream.idle():
                await self._bell.rung(stream.until_tick(None))

    async def _read_in_thread(self) -> None:
        """Let a thread read; if this task is canceled meanwhile, the next one waits for the same read."""
        if self._reader is None:
            self._reader = asyncio.ensure_future(asyncio.to_thread(self.stream.read_ahead))
        try:
            await asyncio.shield(self._reader)
        finally:
            if self._reader.done():
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
        self._next = stream.next
        super().__init__(stream.stream, request)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while True:
            for event in self._left:
                return event
            response = await self._next_response()
            if response is None:
                raise StopAsyncIteration
            self._left = iter(response.events)

    async def responses(self) -> AsyncIterator[WatchResponse]:
        """Whole responses instead of events: all changes of one or more revisions, or a progress notice."""
        while True:
            response = await self._next_response()
            if response is None:
                return
            yield response

    async def _next_response(self) -> WatchResponse | None:
        """None: closed by its owner."""
        if self._end is not None:
            raise self._end
        while True:
            try:
                found = await self._next()
            except WatchCanceled:
                return None
            if self._take(found[1]):
                return found[1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
