"""Work off the event loop: how a task gets something done that waits for a disk, a lock or another process.

    in_thread(call)    in the loop's executor, which everything shares: reads, and writes that take a while
    Awaited(work)      in a thread of its own: opening, closing, upkeep. The executor has few threads, and others may
                       hold all of them for long, perhaps until the store is closed
    pages(rows)        the items of a lazy iterator, fetched a page at a time with ``in_thread``

Canceling a task does not stop its call, which goes on in its thread. If no thread can be started, or it does not
begin, the loop does the work itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from kvstore import shelter
from kvstore.shelter import Sheltered, carry_out, has_taken_back, start

T = TypeVar("T")
PAGE_ITEMS = 256


class Awaited(Sheltered[T]):
    """Work in a thread of its own, for a task. If the task ends first, ``undo`` gets the answer of the work."""

    async def wait(self) -> T:
        """Do the work; return its answer, or raise what it raised."""
        loop = asyncio.get_running_loop()
        done = _Done(loop)
        call: list[Sheltered[T]] = [self]
        run = contextvars.copy_context().run
        worker = threading.Thread(target=run, args=(carry_out, call, done), name="kvstore-async")
        try:
            try:
                start(worker)
            except RuntimeError:  # no thread available
                return self._do()
            while not (await asyncio.wait([done.future], timeout=shelter.BEGIN_SECONDS))[0]:
                if has_taken_back(call):
                    return self._do()
        except BaseException:
            self.abandon()
            raise
        return self._outcome()


class _Done:
    """Released by ``Sheltered`` like a lock, when its work has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future = loop.create_future()

    def release(self) -> None:
        call_soon(self._loop, self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Have a loop call something. Does nothing if the loop is closed: no task is left to be told."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def in_thread(call: Callable[[], T]) -> T:
    """Make a call in the loop's executor; if that has no thread, in a thread of its own, or here."""
    is_wanted = True

    def run() -> Any:
        return call() if is_wanted else None

    try:
        future = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, run)
    except RuntimeError:  # it may have queued the call for a later thread
        is_wanted = False
        return await Awaited(call).wait()
    answer: T = await future
    return answer


async def pages(rows: Iterator[T]) -> AsyncIterator[T]:
    """The items of a lazy iterator, fetched a page at a time in a thread."""
    while page := await in_thread(lambda: list(islice(rows, PAGE_ITEMS))):
        for row in page:
            yield row
