"""``AsyncStore``: the asynchronous twin of ``Store``, and ``AsyncView`` of ``View``.

Each method is made from its twin's, so it means the same, takes the same arguments and has the same docstring;
``twins`` lists the kinds. Writes are put down on the event loop, and awaited until they are durable. Reads run in a
thread of the loop's executor, except the one that never takes long: ``get`` of an embedded store answers at once.
Opening, closing and upkeep run in threads of their own; a ``progress`` function is called there.

A store belongs to no loop. A call belongs to the loop it is made in, and that loop may stop or close at any moment:
what was put down becomes durable all the same, only nothing is notified. Canceling a task does not stop its call,
which finishes in its thread; a store that an abandoned ``open_async`` opens is closed again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from kvstore import ops
from kvstore.arguments import as_it_is_now, check_number
from kvstore.awaited_writes import AwaitedWrites
from kvstore.loops import Awaited, in_thread
from kvstore.model import LeaseKeepAliveResponse
from kvstore.protocol import EmbeddedEngine, Engine
from kvstore.scans import AsyncScan
from kvstore.shelter import start
from kvstore.store import Reader, Store, View, renewed
from kvstore.twins import Twin, apart, at_once, composed, plain, streamed, threaded, twin, written

if TYPE_CHECKING:
    from kvstore.backend import Progress
    from kvstore.engine import LocalEngine
    from kvstore.snapshot.reader import SnapshotInfo
    from kvstore.watch.asynchronous import AsyncWatch, AsyncWatchStream


def close_soon(store: AsyncStore) -> None:
    """Close a store without waiting for it."""
    try:
        start(threading.Thread(target=store._twin.close, name="kvstore-close"))
    except RuntimeError:  # no thread available
        store._twin.close()


class AsyncReader(Twin):
    """The reads, at the newest revision or at a past one. Base of ``AsyncStore`` and ``AsyncView``."""

    _twin: Reader

    @property
    def engine(self) -> LocalEngine:
        """The engine of an embedded store, for a look behind the API. Raises ``Unsupported`` for other stores.

        A read-only store has a ``kvstore.reads.ReadEngine``, the reading half.
        """
        return self._twin.engine

    range = threaded(Reader.range)
    count = threaded(Reader.count)

    @twin(Reader.scan)
    def scan(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        revision: int = 0,
        reverse: bool = False,
        limit: int = 0,
        keys_only: bool = False,
        page_rows: int = 1000,
    ) -> AsyncScan:
        return AsyncScan(
            self._twin.scan(
                key,
                range_end,
                prefix=prefix,
                revision=revision,
                reverse=reverse,
                limit=limit,
                keys_only=keys_only,
                page_rows=page_rows,
            )
        )


class AsyncView(AsyncReader):
    """The store as it was at one revision. Holds no resources; usable until that revision is compacted.

    ``await`` it right after ``at`` where that asks a server: the revision is then checked.
    """

    def __init__(self, view: View) -> None:
        self._twin: View = view

    def __await__(self) -> Generator[Any, None, AsyncView]:
        return self._checked().__await__()

    async def _checked(self) -> AsyncView:
        await in_thread(self._twin.check)
        return self

    get = threaded(View.get)
    check = threaded(View.check)
    diff = streamed(View.diff)

    @property
    def revision(self) -> int:
        """The revision of this view."""
        return self._twin.revision

    def __repr__(self) -> str:
        return repr(self._twin).replace("kvstore.View", "kvstore.AsyncView")


class AsyncStore(AsyncReader):
    """An open store for asyncio. Made by ``kvstore.open_async``; may be used from any loop, or from several."""

    def __init__(self, engine: Engine) -> None:
        self._twin: Store = Store(engine)
        self._answers: AwaitedWrites | None = None
        if hasattr(engine, "submit"):  # otherwise every call has to wait for others
            self._answers = AwaitedWrites(cast(EmbeddedEngine, engine))
            self._writes = Store(cast(Engine, self._answers))
        awaiting = getattr(engine, "awaiting", None)
        if awaiting is not None:  # a store elsewhere
            self._calls = self._writes = Store(awaiting)

    # --- reading ----------------------------------------------------------------------

    get = at_once(Store.get)

    @twin(Store.at)
    def at(self, revision: int) -> AsyncView:
        if self._answers is not None:
            return AsyncView(self._twin.at(revision))
        check_number("revision", revision, 1)
        return AsyncView(View(self._twin._engine, revision))  # awaiting it asks

    history = streamed(Store.history)
    diff = streamed(Store.diff)
    time_of = threaded(Store.time_of)
    revision_at = threaded(Store.revision_at)
    times = streamed(Store.times)
    hash_kv = threaded(Store.hash_kv)

    @property
    def revision(self) -> int:
        """The newest durable revision; 1 for an empty store."""
        return self._twin.revision

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; -1 if nothing was ever compacted."""
        return self._twin.compact_revision

    refresh = apart(Store.refresh)

    # --- writing ----------------------------------------------------------------------

    put = written(Store.put)
    delete = written(Store.delete)
    txn = written(Store.txn)
    put_many = composed(Store.put_many)
    incr = composed(Store.incr)
    put_nowait = plain(Store.put_nowait)
    wait = threaded(Store.wait)

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
        """Changes of a key, ``[key, range_end)`` or a prefix, in order, as they happen: an iterator of events.

        ``start_revision``: the first revision wanted, past or future (0: the next one). ``resume``: use this instead
        to continue where another watch stopped (``Watch.resume``), even in the middle of a revision. ``prev_kv``: each
        event carries the previous version, unless that is compacted. Iteration raises ``Compacted`` if a compaction
        has passed the watch, ``StoreClosed`` if the store is closed. Raises ``NoThread`` if no thread can be started.
        """
        from kvstore.watch.asynchronous import AsyncWatch

        request = ops.watch(
            key, range_end, prefix, start_revision, resume, prev_kv, no_put, no_delete, progress_notify
        )
        return AsyncWatch(self.watch_stream(), request)

    @twin(Store.watch_stream)
    def watch_stream(self) -> AsyncWatchStream:
        from kvstore.watch.asynchronous import AsyncWatchStream

        return AsyncWatchStream(self._twin.watch_stream())

    # --- leases -----------------------------------------------------------------------

    grant_lease = threaded(Store.grant_lease)
    revoke_lease = threaded(Store.revoke_lease)
    _renew = threaded(Store._renew)

    @twin(Store.keep_alive)
    async def keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        return renewed(lease, await self._renew(lease))

    lease_time_to_live = threaded(Store.lease_time_to_live)
    leases = threaded(Store.leases)

    # --- upkeep -----------------------------------------------------------------------

    compact = apart(Store.compact)
    compaction_estimate = threaded(Store.compaction_estimate)
    defragment = apart(Store.defragment)
    defragment_estimate = threaded(Store.defragment_estimate)
    checkpoint = apart(Store.checkpoint)
    _snapshot = apart(Store.snapshot)

    @twin(Store.snapshot)
    async def snapshot(
        self, path: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
    ) -> SnapshotInfo:
        return await self._snapshot(None if path is None else as_it_is_now(path), progress=progress)

    status = threaded(Store.status)
    health = threaded(Store.health)
    metrics = threaded(Store.metrics)
    alarms = at_once(Store.alarms)
    disarm = threaded(Store.disarm)

    @twin(Store.close)
    async def close(self) -> None:
        await Awaited(self._twin.close).wait()
        if self._answers is not None:
            self._answers.wake_all()

    def __copy__(self) -> NoReturn:
        self._twin.__copy__()

    def __deepcopy__(self, _: object) -> NoReturn:
        self._twin.__copy__()

    def __reduce__(self) -> NoReturn:
        self._twin.__reduce__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._twin).replace("kvstore.Store", "kvstore.AsyncStore")
