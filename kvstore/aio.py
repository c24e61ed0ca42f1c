"""``AsyncStore``: the asynchronous twin of ``Store``.

Writes are planned on the event loop (some ten microseconds, no waiting), made durable by whoever leads the
writers, and all coroutines of a group are woken by one call into each loop that waits. Reads that may touch many
rows run in a thread of the loop's executor; point reads answer at once.

A store belongs to no loop. A call belongs to the loop it is made in, and that one may end, or close, at any moment:
what was planned becomes durable all the same, and nobody is left to be told. A task that is canceled leaves its
call, which goes on in its thread; what an abandoned ``open_async`` comes to open is closed again.

Opening, closing and upkeep run in threads of their own: the executor has few, and others may hold all of them for
long, perhaps until the store is closed. Where no thread can be had the loop does the work itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kvstore import ops
from kvstore.arguments import Seconds, check_number, whole_seconds
from kvstore.errors import KVStoreError
from kvstore.keyvalue import KeyValue
from kvstore.model import (
    Alarm,
    Change,
    CompactionResponse,
    Compare,
    DeleteRangeResponse,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeResponse,
    TxnResponse,
    WatchRequest,
)
from kvstore.observe.estimates import CompactionEstimate, DefragmentEstimate
from kvstore.observe.status import Health, Status
from kvstore.shelter import Sheltered, start
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.store import Store, View
from kvstore.upkeep.defragment import Defragmented
from kvstore.write.ticket import Ticket

if TYPE_CHECKING:
    from kvstore.recovery import Engine
    from kvstore.watch.asynchronous import AsyncWatch, AsyncWatchStream

T = TypeVar("T")
_PAGE_ROWS = 256


class Awaited(Sheltered[T]):
    """Work in a thread of its own, for a task. If the task goes, the work goes on; then ``undo`` gets the answer."""

    async def wait(self) -> T:
        """Do the work; return its answer, or raise what it raised."""
        loop = asyncio.get_running_loop()
        done = _Done(loop)
        run = contextvars.copy_context().run
        worker = threading.Thread(target=run, args=(self._carry_out, done), name="kvstore-async")
        try:
            try:
                start(worker)
            except RuntimeError:  # no thread can be had
                return self._kept(self._work())
            await done.future
        except BaseException:
            self.abandon()
            raise
        if self._errors:
            raise self._errors.pop()
        return self._answers[0]


class _Done:
    """What ``Sheltered`` releases when its work has ended, as it would a lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future = loop.create_future()

    def release(self) -> None:
        call_soon(self._loop, self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Have a loop call something; nothing, where it is closed: nobody is left to be told."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


def close_soon(store: AsyncStore) -> None:
    """Close a store without waiting for it."""
    try:
        start(threading.Thread(target=store._store.close, name="kvstore-close"))
    except RuntimeError:  # no thread can be had
        store._store.close()


class AsyncStore:
    """An open store for asyncio. Made by ``kvstore.open_async``; may be used from any loop, also from several."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._store = Store(engine)
        self._notify = self._wake_soon
        self._unwoken: list[Ticket] = []
        """Settled tickets whose futures the loops may not have heard of."""

    # --- writing ----------------------------------------------------------------------

    async def put(
        self,
        key: bytes,
        value: bytes = b"",
        *,
        lease: int = 0,
        ttl: Seconds | None = None,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> PutResponse:
        """As ``Store.put``."""
        request = PutRequest(key, value, lease, prev_kv, ignore_value, ignore_lease)
        seconds = 0 if ttl is None else whole_seconds("ttl", ttl)
        if self.engine.overloaded:
            await self._in_thread(self.engine.check_room)
        response: PutResponse = await self._durable(self.engine.submit_put(request, seconds))
        return response

    async def delete(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        prev_kv: bool = False,
    ) -> DeleteRangeResponse:
        """As ``Store.delete``."""
        request = ops.delete(key, range_end=range_end, prefix=prefix, prev_kv=prev_kv)
        if request.range_end:  # may be large: not on the loop
            return await self._in_thread(lambda: self.engine.delete_range(request))
        response: DeleteRangeResponse = await self._durable(self.engine.submit_delete(request))
        return response

    async def txn(
        self, compare: Iterable[Compare] = (), success: Iterable[Any] = (), failure: Iterable[Any] = ()
    ) -> TxnResponse:
        """As ``Store.txn``."""
        if self.engine.overloaded:
            await self._in_thread(self.engine.check_room)
        request = ops.txn(compare, success, failure)
        response: TxnResponse = await self._durable(self.engine.submit_txn(request))
        return response

    def _durable(self, ticket: Ticket) -> asyncio.Future[Any]:
        """A future that is done when the ticket is durable."""
        future = asyncio.get_running_loop().create_future()
        ticket.future = future
        ticket.notify = self._notify
        if not ticket.done and not self.engine.flush_soon():  # no thread can be had: we lead
            try:
                self.engine.wait(ticket)
            except KVStoreError:
                pass  # the future tells
        if ticket.done:  # perhaps with a group that went out before anybody could be told
            self._settle([ticket])
        return future

    def _wake_soon(self, tickets: list[Ticket]) -> None:
        """Have the futures of these tickets set, with one call into each loop. Called by whoever leads the writers.

        If that fails, for want of memory perhaps, the next call does it again.
        """
        self._unwoken = unwoken = self._unwoken + tickets
        by_loop: dict[asyncio.AbstractEventLoop, list[Ticket]] = {}
        for ticket in unwoken:
            by_loop.setdefault(ticket.future.get_loop(), []).append(ticket)
        for loop, theirs in by_loop.items():
            call_soon(loop, self._settle, theirs)
        self._unwoken = []

    def _settle(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            future = ticket.future
            if future.done():
                continue  # canceled, or told before
            if ticket.error is None:
                future.set_result(ticket.response)
            else:
                future.set_exception(self.engine.error_of(ticket))

    # --- reading ----------------------------------------------------------------------

    async def get(self, key: bytes, *, revision: int = 0) -> KeyValue | None:
        """As ``Store.get``."""
        return self._store.get(key, revision=revision)

    async def range(
        self, key: bytes | None = None, range_end: bytes | None = None, **options: Any
    ) -> RangeResponse:
        """As ``Store.range``."""
        return await self._in_thread(lambda: self._store.range(key, range_end, **options))

    async def scan(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        revision: int = 0,
    ) -> AsyncIterator[KeyValue]:
        """As ``Store.scan``."""
        rows = self._store.scan(key, range_end, prefix=prefix, revision=revision, page_rows=_PAGE_ROWS)
        async for kv in self._stream(rows):
            yield kv

    async def history(self, key: bytes, *, since: int = 0, until: int = 0) -> AsyncIterator[KeyValue]:
        """As ``Store.history``."""
        async for kv in self._stream(self._store.history(key, since=since, until=until)):
            yield kv

    async def diff(self, older: int, newer: int = 0, **where: Any) -> AsyncIterator[Change]:
        """As ``Store.diff``."""
        changes = await self._in_thread(lambda: self._store.diff(older, newer, **where))
        async for change in self._stream(changes):
            yield change

    def at(self, revision: int) -> View:
        """As ``Store.at``."""
        return self._store.at(revision)

    async def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """As ``Store.hash_kv``."""
        return await self._in_thread(lambda: self._store.hash_kv(revision))

    async def count(
        self, key: bytes | None = None, range_end: bytes | None = None, *, prefix: bytes | None = None
    ) -> int:
        """As ``Store.count``."""
        return await self._in_thread(lambda: self._store.count(key, range_end, prefix=prefix))

    @property
    def revision(self) -> int:
        return self._store.revision

    @property
    def compact_revision(self) -> int:
        return self._store.compact_revision

    # --- watching ---------------------------------------------------------------------

    def watch(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        start_revision: int = 0,
        resume: tuple[int, int] | None = None,
        prev_kv: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
        progress_notify: bool = False,
    ) -> AsyncWatch:
        """As ``Store.watch``: ``async with store.watch(...) as events: async for event in events``."""
        from kvstore.watch.asynchronous import AsyncWatch

        start, end = ops.watch_range(key, range_end, prefix)
        check_number("start_revision", start_revision)
        revision, sub = ops.watch_start(start_revision, resume)
        request = WatchRequest(start, end, revision, prev_kv, no_put, no_delete, progress_notify, sub)
        return AsyncWatch(self.watch_stream(), request)

    def watch_stream(self) -> AsyncWatchStream:
        """As ``Store.watch_stream``; ``next`` is awaited."""
        from kvstore.watch.asynchronous import AsyncWatchStream

        return AsyncWatchStream(self.engine.watch_stream())

    # --- leases, keeping house, the end ------------------------------------------------

    async def grant_lease(self, ttl: Seconds, lease: int = 0) -> LeaseGrantResponse:
        """As ``Store.grant_lease``."""
        return await self._in_thread(lambda: self._store.grant_lease(ttl, lease))

    async def revoke_lease(self, lease: int) -> LeaseRevokeResponse:
        return await self._in_thread(lambda: self.engine.lease_revoke(lease))

    async def keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        return await self._in_thread(lambda: self.engine.lease_keep_alive(lease))

    async def lease_time_to_live(self, lease: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        return await self._in_thread(lambda: self.engine.lease_time_to_live(lease, keys))

    async def leases(self) -> tuple[int, ...]:
        return await self._in_thread(self._store.leases)

    async def compact(self, revision: int, *, physical: bool = False) -> CompactionResponse:
        return await Awaited(lambda: self._store.compact(revision, physical=physical)).wait()

    async def compaction_estimate(self, revision: int) -> CompactionEstimate:
        """As ``Store.compaction_estimate``."""
        return await self._in_thread(lambda: self._store.compaction_estimate(revision))

    async def defragment(self) -> Defragmented:
        """As ``Store.defragment``."""
        return await Awaited(self.engine.defragment).wait()

    async def defragment_estimate(self) -> DefragmentEstimate:
        """As ``Store.defragment_estimate``."""
        return await self._in_thread(self._store.defragment_estimate)

    async def checkpoint(self) -> bool:
        """As ``Store.checkpoint``."""
        return await Awaited(self._store.checkpoint).wait()

    async def snapshot(self, path: str | os.PathLike[str] | None = None) -> SnapshotInfo:
        """As ``Store.snapshot``."""
        return await Awaited(lambda: self._store.snapshot(path)).wait()

    async def status(self) -> Status:
        """As ``Store.status``."""
        return await self._in_thread(self._store.status)

    async def health(self) -> Health:
        """As ``Store.health``."""
        return await self._in_thread(self._store.health)

    async def metrics(self) -> str:
        """As ``Store.metrics``."""
        return await self._in_thread(self._store.metrics)

    async def alarms(self) -> tuple[Alarm, ...]:
        """As ``Store.alarms``."""
        return self._store.alarms()

    async def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        """As ``Store.disarm``."""
        return await self._in_thread(lambda: self._store.disarm(alarm))

    async def close(self) -> None:
        """As ``Store.close``. A task that is canceled meanwhile leaves it going on."""
        await Awaited(self.engine.close).wait()
        self._wake_soon([])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._store).replace("kvstore.Store", "kvstore.AsyncStore")

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Make a call in the loop's executor; where that has no thread, in one of our own, or here."""
        is_wanted = True

        def run() -> Any:
            return call() if is_wanted else None

        try:
            future = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, run)
        except RuntimeError:  # it may have queued the call for a thread to come
            is_wanted = False
            return await Awaited(call).wait()
        answer: T = await future
        return answer

    async def _stream(self, rows: Iterator[T]) -> AsyncIterator[T]:
        """Items of a lazy iterator, fetched a handful at a time in a thread."""

        def some() -> list[T]:
            return [row for _, row in zip(range(_PAGE_ROWS), rows, strict=False)]

        while page := await self._in_thread(some):
            for row in page:
                yield row
