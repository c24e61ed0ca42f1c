"""The local engine: one data directory, one writing process.

    put:       check, admit -> the writer (write/writer.py): plan, log, publish, settle -> answer
    range:     published revision -> generations, then backend
    recovery:  (recovery.py) open the backend, replay the log after its applied index through ``effects.apply``

Locks, in the order in which they may be taken:

    checkpointing   one checkpoint, copy or compaction step at a time; held by background work only
    lead            one leader at a time (the writer's)
    planning        plan and queue; never held across a sync
    log lock        one change of the log at a time
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from kvstore.backend import Backend, Progress
from kvstore.clock import Clock
from kvstore.errors import (
    Busy,
    Compacted,
    DiskFull,
    ForkedStore,
    KVStoreError,
    LeaseProvided,
    NoDescriptor,
    ReadOnly,
    SpaceError,
    StoreClosed,
)
from kvstore.files import Disk, disk_full_is_typed
from kvstore.held import check_held
from kvstore.keyvalue import KeyValue
from kvstore.layout import DataDir
from kvstore.model import (
    Alarm,
    Change,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    PutWithTTLRequest,
    RangeRequest,
    RangeResponse,
    Request,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)
from kvstore.mvcc.changes import changed_keys
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.plan import Planner, is_read_only
from kvstore.mvcc.read import answer_range, difference, key_history, read_revision, scan_keys
from kvstore.mvcc.size import check_size
from kvstore.mvcc.state import State
from kvstore.mvcc.validate import (
    check_delete,
    check_key,
    check_number,
    check_put,
    check_range,
    check_txn,
    range_bounds,
)
from kvstore.observe.status import Health, Status, health_of, status_of
from kvstore.options import Options
from kvstore.replay import reload
from kvstore.shelter import Sheltered, import_sheltered, run_with_progress, sheltered, start
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.store_lock import StoreLock
from kvstore.upkeep.background import Background, said_of
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.upkeep.compaction import Compaction
from kvstore.upkeep.defragment import Defragmented, Defragmenter
from kvstore.upkeep.snapshots import SnapshotKeeper
from kvstore.wal import Log
from kvstore.write.leasing import Leasing
from kvstore.write.room import Space, put_cost, txn_cost
from kvstore.write.ticket import Ticket
from kvstore.write.writer import Writer, holds

if TYPE_CHECKING:
    from kvstore.watch import Hub, Watch, WatchStream

T = TypeVar("T")
logger = logging.getLogger("kvstore")


class LocalEngine:
    """An open data directory. Thread-safe. Made by ``recovery.open_engine``."""

    def __init__(
        self,
        options: Options,
        disk: Disk,
        directory: DataDir | None,
        lock: StoreLock | None,
        log: Log | None,
        state: State,
        lessor: Lessor,
        cluster_id: int,
        member_id: int,
    ) -> None:
        self.options = options
        self.disk = disk
        self.directory = directory
        self.log = log
        self.state = state
        self.lessor = lessor
        self.cluster_id = cluster_id
        self.member_id = member_id
        self._lock = lock
        self.clock = Clock(options.clock)
        self.planner = self._make_planner()
        self.writer = Writer(
            log or _NoLog(), state, self.planner, self.now_ms, options.wal_buffer_size, self._planned
        )
        if log is None:
            self.writer.refusal = ReadOnly
        self.checkpointing = threading.RLock()
        self._read_refusal: Callable[[], KVStoreError] | None = None
        self.hub: Hub | None = None
        """The watches, once there has been one."""
        self._closing = threading.Lock()
        self.checkpointer = Checkpointer(self)
        self.background = Background(self)
        self.leasing = Leasing(self)
        self.compaction = Compaction(self)
        self.defragmenter = Defragmenter(self)
        self.space = Space(self)
        self.snapshots = SnapshotKeeper(self)
        _open_engines.add(self)

    def _make_planner(self) -> Planner:
        return Planner(self.state, self.lessor, self.clock.lease_ms, self.options.lease_min_ttl_seconds)

    def now_ms(self) -> int:
        """The time of day, for time stamps."""
        return self.clock.now_ms()

    @property
    def backend(self) -> Backend:
        return self.state.backend

    # --- reads ------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        """The newest version of ``key``: the short form of a range over one key."""
        if self._read_refusal is not None:
            raise self._read_refusal()
        if not key or type(key) is not bytes:
            check_key(key)
        state = self.state
        row = state.row_at(key, state.published)
        return None if row is None else KeyValue.decoded(row)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        """``key`` as it was at ``revision``."""
        self.check_readable()
        check_key(key)
        revision = read_revision(revision, self.state.published, self.state.compacted)
        row = self.state.row_at(key, revision)
        return None if row is None else KeyValue.decoded(row)

    def range(self, request: RangeRequest) -> RangeResponse:
        self.check_readable()
        check_range(request)
        newest = self.state.published
        revision = read_revision(request.revision, newest, self.state.compacted)
        return answer_range(self.state, request, revision, newest)

    def scan(
        self, key: bytes, range_end: bytes, revision: int = 0, page_rows: int = 1000
    ) -> Iterator[KeyValue]:
        """The keys of a range at one revision, lazily, a page at a time."""
        self.check_readable()
        revision = read_revision(revision, self.state.published, self.state.compacted)
        start, end = range_bounds(key, range_end)
        return self._guarded(scan_keys(self.state, start, end, revision, page_rows))

    def history(self, key: bytes, first_revision: int = 0, last_revision: int = 0) -> Iterator[KeyValue]:
        """Kept versions of ``key``, oldest first; a delete shows as version 0."""
        self.check_readable()
        check_key(key)
        compacted = self.state.compacted
        last = read_revision(last_revision, self.state.published, compacted)
        return self._guarded(key_history(self.state, key, first_revision, last, compacted))

    def diff(self, older: int, newer: int, key: bytes, range_end: bytes) -> Iterator[Change]:
        """Keys of a range that differ between two revisions, ascending."""
        self.check_readable()
        published, compacted = self.state.published, self.state.compacted
        older = read_revision(older, published, compacted)
        newer = read_revision(newer, published, compacted)
        start, end = range_bounds(key, range_end)
        keys = changed_keys(self.state, min(older, newer) + 1, max(older, newer))
        return self._guarded(difference(self.state, start, end, older, newer, iter(keys)))

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """etcd's HashKV at ``revision`` (0: newest)."""
        while True:
            self.check_readable()
            newest, compacted = self.state.published, self.state.compacted
            at = read_revision(revision, newest, compacted)
            try:
                return HashKVResponse(newest, hash_kv(self.state, at, compacted), compacted, at)
            except Compacted:  # a compaction has overtaken it: the revision may be kept all the same
                if self.state.compacted == compacted:
                    raise

    def _guarded(self, rows: Iterator[T]) -> Iterator[T]:
        for row in rows:
            yield row
            self.check_readable()

    # --- writes -----------------------------------------------------------------------
    #
    # Each write is checked before any lock is taken, admitted (there is room for it), and then either asked for, which
    # blocks until it is durable, or submitted, which plans it at once and returns a ticket. The rest is the writer's.

    def put(self, request: PutRequest, ttl_seconds: int = 0) -> PutResponse:
        """Write a key. With ``ttl_seconds`` the same log entry grants a lease of its own to the key."""
        response: PutResponse = self.ask(
            self._checked_put(request, ttl_seconds), put_cost(request, ttl_seconds)
        )
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response: DeleteRangeResponse = self.ask(self._checked_delete(request))
        return response

    def txn(self, request: TxnRequest) -> TxnResponse:
        self._check_txn(request)
        if self.log is None and is_read_only(request):
            self.check_readable()
            response: TxnResponse = self.planner.decide(request).response
        else:
            response = self.ask(request, txn_cost(request))
        return response

    def submit_put(self, request: PutRequest, ttl_seconds: int = 0) -> Ticket:
        """Plan a put; it is durable once ``wait`` has returned for the ticket."""
        return self.submit(self._checked_put(request, ttl_seconds), put_cost(request, ttl_seconds))

    def submit_delete(self, request: DeleteRangeRequest) -> Ticket:
        return self.submit(self._checked_delete(request))

    def submit_txn(self, request: TxnRequest) -> Ticket:
        self._check_txn(request)
        if self.log is None and is_read_only(request):
            self.check_readable()
            ticket = Ticket(request)
            ticket.response, ticket.done = self.planner.decide(request).response, True
            return ticket
        return self.submit(request, txn_cost(request))

    def ask(self, request: Request, cost_bytes: int = 0) -> Any:
        """Have a checked request planned, logged and published; its response."""
        self._admit(cost_bytes)
        return self.writer.ask(request)

    def submit(self, request: Request, cost_bytes: int = 0) -> Ticket:
        """Plan a checked request, and return."""
        self._admit(cost_bytes)
        return self.writer.submit(request)

    def wait(self, ticket: Ticket) -> Any:
        return self.writer.wait(ticket)

    def flush_soon(self) -> bool:
        """Have planned writes made durable; false if no thread can be had for that."""
        return self.writer.flush_soon()

    def _checked_put(self, request: PutRequest, ttl_seconds: int) -> PutRequest | PutWithTTLRequest:
        check_put(request)
        check_size(request, self.options.max_request_bytes)
        if not ttl_seconds:
            return request
        check_number("ttl", ttl_seconds)
        if request.lease or request.ignore_lease:
            raise LeaseProvided
        return PutWithTTLRequest(request, ttl_seconds)

    def _checked_delete(self, request: DeleteRangeRequest) -> DeleteRangeRequest:
        check_delete(request)
        check_size(request, self.options.max_request_bytes)
        return request

    def _check_txn(self, request: TxnRequest) -> None:
        check_txn(request, self.options.max_txn_ops)
        if not is_read_only(request):
            check_size(request, self.options.max_request_bytes)

    def _admit(self, cost_bytes: int) -> None:
        """Refuse a write that there is no room for; wait until there is, where that is a matter of moments.

        What costs nothing never waits here: background work relies on that.
        """
        if self.writer.refusal is not None:
            raise self.writer.refusal()
        if self.background.at_rest:
            self._begin_background()
        if cost_bytes:
            if self.writer.stalled is not None:
                self._end_stall()
            if self.state.generations[0].size_bytes + cost_bytes >= self.space.unchecked_bytes:
                self.check_room(cost_bytes)

    @sheltered
    def _begin_background(self) -> None:
        self.background.begin()

    @sheltered
    def _end_stall(self) -> None:
        self.space.end_stall()

    def _planned(self) -> None:
        """Called after each planned write."""
        if len(self.state.generations[0].changes) >= self.checkpointer.batch_limit:
            self.background.want_work()

    @sheltered
    def check_room(self, cost_bytes: int = 0) -> None:
        """Wait while the overlay is full; refuse when the quota or the disk is."""
        if self.overloaded:
            self.checkpointer.wait_for_room()
        if cost_bytes:
            self.space.check(cost_bytes)

    @property
    def stalled(self) -> bool:
        """Whether the log took nothing (a full disk, mostly), and planned writes wait to be dropped."""
        return self.writer.stalled is not None

    def reload(self) -> None:
        """End a stall, if no background work is in the way: make memory from the backend and the log again."""
        if not self.checkpointing.acquire(blocking=False):
            return
        try:
            with disk_full_is_typed():
                check_held(self.disk)
                self.writer.resume(lambda: reload(self))
        finally:
            self.checkpointing.release()
        self.space.measure()

    @property
    def overloaded(self) -> bool:
        """Whether a write would have to wait for a checkpoint."""
        return self.checkpointer.overloaded

    # --- watch ------------------------------------------------------------------------

    def watch(self, request: WatchRequest) -> Watch:
        """An iterator of the events that ``request`` asks for."""
        import_sheltered("kvstore.watch")
        from kvstore.watch import Watch

        return Watch(self.watch_stream(), request)

    def watch_stream(self) -> WatchStream:
        """A stream of responses that any number of watches share."""
        from kvstore.watch import WatchStream

        self.check_readable()
        if self.hub is None:
            self._make_hub()
        assert self.hub is not None
        return WatchStream(self.hub, self.options.watch_progress_notify_interval_seconds)

    @sheltered
    def _make_hub(self) -> None:
        """Made for the first watch: until then nothing here costs anything."""
        from kvstore.watch import Hub

        with self._closing:
            self.check_readable()
            if self.hub is None:
                hub = Hub(self.state, self.check_readable, self.options.watch_buffer)
                self.writer.listeners.append(hub.published)
                self.hub = hub

    def barrier(self) -> None:
        """Wait until everything planned so far is durable."""
        if self.log is not None:
            self.writer.barrier()

    # --- compaction -------------------------------------------------------------------

    def compact(
        self, revision: int, physical: bool = False, progress: Progress | None = None
    ) -> CompactionResponse:
        """Forget versions superseded at or before ``revision``. ``physical``: wait until the rows are gone."""
        check_number("revision", revision)
        response: CompactionResponse = self.ask(CompactionRequest(revision))
        self.background.want_work()
        if physical:
            run_with_progress(self.run_compaction, progress)
        return response

    def run_compaction(self, progress: Progress | None = None) -> None:
        """Delete what scheduled compactions have made garbage."""
        with disk_full_is_typed():
            self.checkpointer.run()
            self.compaction.run(progress)

    def defragment(self, progress: Progress | None = None) -> Defragmented:
        """Give free pages back to the file system, while everything goes on."""
        with disk_full_is_typed():
            return run_with_progress(self.defragmenter.run, progress)

    def snapshot(self, path: str | os.PathLike[str] | None, progress: Progress | None) -> SnapshotInfo:
        """Write a snapshot of everything durable now, to ``path`` or into the store's own place."""
        with disk_full_is_typed():
            return run_with_progress(lambda tell: self.snapshots.take(path, tell), progress)

    # --- leases (leasing.py) ----------------------------------------------------------

    def lease_grant(self, ttl_seconds: int, lease: int = 0) -> LeaseGrantResponse:
        """A new lease; ``lease`` 0 draws an id. The TTL is raised to the smallest allowed."""
        return self.leasing.grant(ttl_seconds, lease)

    def lease_revoke(self, lease: int) -> LeaseRevokeResponse:
        """End a lease; its keys are deleted in one revision. Raises ``LeaseNotFound``."""
        return self.leasing.revoke(lease)

    def lease_keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        """Start the lease's TTL anew; ``ttl`` 0 in the answer: no such lease, or it is due."""
        return self.leasing.keep_alive(lease)

    def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Seconds left, and the attached keys if asked for."""
        return self.leasing.time_to_live(lease, keys)

    def lease_leases(self) -> LeaseLeasesResponse:
        """Ids of all leases, the next to expire first."""
        return self.leasing.leases()

    # --- alarms -----------------------------------------------------------------------

    def alarms(self) -> tuple[Alarm, ...]:
        """Alarms that are raised."""
        self.check_readable()
        return self.space.alarms()

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        """Put an alarm out; what was put out."""
        return self.space.disarm(alarm)

    # --- upkeep -----------------------------------------------------------------------

    @sheltered
    def checkpoint(self) -> bool:
        """Move what waits in memory into the backend; whether there was anything."""
        with disk_full_is_typed():
            return self.checkpointer.run()

    def sync_log(self) -> None:
        """Make durable what durability ``interval`` or ``off`` left unsynced."""
        if self.log is not None:
            try:
                with self.writer.log_lock:
                    self.log.sync()
            except BaseException:
                if self.log.failure is not None:
                    self.poison(self.log.failure)
                raise

    def start(self) -> None:
        """Begin background work, unless the option ``background`` is off."""
        if self.options.background and self.log is not None:
            self.background.start()

    # --- the handle -------------------------------------------------------------------

    def check_readable(self) -> None:
        if self._read_refusal is not None:
            raise self._read_refusal()

    def timed(self, _work: str) -> AbstractContextManager[None]:
        """Around background work whose duration is a metric: nothing, unless metrics are on (metrics.py)."""
        return nullcontext()

    def status(self) -> Status:
        """Facts about the store: sizes, revisions, files, alarms, errors."""
        with disk_full_is_typed():
            return status_of(self)

    def health(self) -> Health:
        """Whether writes are accepted, and if not, why."""
        return health_of(self)

    @property
    def refuses_writes(self) -> bool:
        """Whether every write is refused: the store is read-only, poisoned, or closed."""
        return self.writer.refusal is not None

    @property
    def failure(self) -> BaseException | None:
        """What poisoned the store, if anything did."""
        return self.writer.failure

    def error_of(self, ticket: Ticket) -> BaseException:
        """Why a ticket failed."""
        return self.writer.error_of(ticket)

    def poison(self, failure: BaseException) -> None:
        """Refuse writes until the store is reopened: memory and disk may disagree."""
        self.writer.poison(failure)

    def refuse_in_child(self) -> None:
        """Called in a forked child: this handle belongs to the parent."""
        self._read_refusal = self.writer.refusal = ForkedStore
        _kept_in_child.append(self)
        if self._lock is not None:
            self._lock.release()  # only the child's copy of the descriptor

    def close(self) -> None:
        """Checkpoint, close the files, give the lock back. Idempotent.

        In a signal handler or finalizer that interrupted work of this store on the same thread, closing begins, and
        ends once that work has ended: its write, if it comes to an answer, is durable.
        """
        if self.writer.is_inside or holds(self.checkpointing):
            start(threading.Thread(target=self._close, name="kvstore-close"))
        else:
            Sheltered(self._close).run()

    def _close(self) -> None:
        with self._closing, disk_full_is_typed():
            if self._read_refusal is not None:
                return
            self.background.stop()
            self.snapshots.stop()
            try:
                if self.log is not None and self.failure is None and not self.stalled:
                    with suppress(SpaceError):
                        self.leasing.follow_clock()
                    self._finish_writing()
            finally:
                self._read_refusal = self.writer.refusal = StoreClosed
                self.writer.stop()
                if self.hub is not None:
                    self.hub.close()
                with (
                    self.checkpointing,
                    ExitStack() as files,
                ):  # whichever of them fails, the others are closed
                    if self._lock is not None:
                        files.callback(self._lock.release)
                    files.callback(self.backend.close)
                    if self.log is not None:
                        files.callback(self.log.close)

    def note_open(self) -> None:
        """Another file has become the backend: it is the one that was written here."""
        if self._lock is not None:
            self._lock.note_open()

    def _finish_writing(self) -> None:
        with self.writer.still():
            self.writer.refusal = StoreClosed
        try:
            while self.checkpointer.run():
                pass
            self.leasing.beat()
            self.backend.sync()
            if self._lock is not None:
                self._lock.note_closed(self.state.applied_index)
        except (Busy, DiskFull, NoDescriptor, MemoryError) as error:
            logger.warning("closed without a checkpoint: %s; the log has everything", said_of(error))


class _NoLog:
    """The log of an engine that only reads; its writer refuses everything."""

    failure: BaseException | None = None
    unfinished: Any = None
    last_index = 0

    def has_place_for(self, size_bytes: int) -> bool:
        return True

    def append(self, entries: list[bytes], time_ms: int) -> int:
        raise ReadOnly

    def resume(self) -> None:
        pass


_open_engines: weakref.WeakSet[LocalEngine] = weakref.WeakSet()
_kept_in_child: list[LocalEngine] = []
"""Engines of the parent, in a forked child: never collected, for closing their files could hurt the parent."""


def _after_fork() -> None:
    for engine in list(_open_engines):
        engine.refuse_in_child()


os.register_at_fork(after_in_child=_after_fork)
