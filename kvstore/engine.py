"""The local engine: one data directory, one writing process.

    put:       prepare, admit -> ask; the group's leader: [lock: plan all against head] log, sync, publish -> answer
    range:     published revision -> generations, then backend
    recovery:  (recovery.py) open the backend, replay the log after its applied index through ``effects.apply``

Locks, in the order in which they may be taken:

    checkpointing   one checkpoint, copy or compaction step at a time; held by background work only
    planning        plan and queue; never held across a sync
    (group commit's mutex and a generation's sorting lock: leaves, held for a few instructions)
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kvstore.backend import Backend, Progress
from kvstore.checkpointing import Checkpointer
from kvstore.commit import GroupCommit, Ticket
from kvstore.compaction import Compaction
from kvstore.defragment import Defragmented, Defragmenter
from kvstore.errors import (
    DiskFull,
    ForkedStore,
    KVStoreError,
    LeaseProvided,
    ReadOnly,
    RequestError,
    StoreClosed,
)
from kvstore.files import Disk, FileLock
from kvstore.keyvalue import KeyValue
from kvstore.layout import DataDir
from kvstore.leasing import Leasing
from kvstore.lessor import Lessor
from kvstore.maintenance import Background
from kvstore.model import (
    Alarm,
    Change,
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
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)
from kvstore.mvcc.changes import changed_keys
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.plan import Planned, Planner, is_read_only
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
from kvstore.options import Options
from kvstore.quota import Space, put_cost, txn_cost
from kvstore.replay import reload
from kvstore.snapshot.keeper import SnapshotKeeper
from kvstore.status import Health, Status, health_of, status_of
from kvstore.wal import Log

if TYPE_CHECKING:
    from kvstore.watch import Hub, Watch, WatchStream

T = TypeVar("T")
logger = logging.getLogger("kvstore")


class Prepared(NamedTuple):
    """A write that was checked: how to plan it, and the room it takes."""

    plan: Callable[[], Planned]
    cost_bytes: int
    patient: bool = True
    """Whether it may wait for room, and be refused for want of it."""


class LocalEngine:
    """An open data directory. Thread-safe. Made by ``recovery.open_engine``."""

    def __init__(
        self,
        options: Options,
        disk: Disk,
        directory: DataDir | None,
        lock: FileLock | None,
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
        self.planner = Planner(state, lessor)
        self.planning = threading.Lock()
        self.checkpointing = threading.RLock()
        self._clock = options.clock or time.time
        self._read_refusal: Callable[[], KVStoreError] | None = None
        self._write_refusal: Callable[[], KVStoreError] | None = ReadOnly if log is None else None
        self._commit = GroupCommit(
            log or _NoLog(), self._publish, self.now_ms, options.wal_buffer_size, self.planning, self._plan
        )
        self._on_publish: list[Callable[[int], None]] = []
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

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

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
        last = read_revision(last_revision, self.state.published, self.state.compacted)
        return self._guarded(key_history(self.state, key, first_revision, last))

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
        self.check_readable()
        newest, compacted = self.state.published, self.state.compacted
        revision = read_revision(revision, newest, compacted)
        return HashKVResponse(newest, hash_kv(self.state, revision, compacted), compacted, revision)

    def _guarded(self, rows: Iterator[T]) -> Iterator[T]:
        for row in rows:
            yield row
            self.check_readable()

    # --- writes -----------------------------------------------------------------------
    #
    # Each kind of write is prepared (checked, before any lock is taken), admitted (there is room for it), and then
    # either asked for, which blocks until it is durable, or submitted, which plans it at once and returns a ticket.

    def put(self, request: PutRequest, ttl_seconds: int = 0) -> PutResponse:
        response: PutResponse = self._ask(self.prepare_put(request, ttl_seconds))
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response: DeleteRangeResponse = self._ask(self.prepare_delete(request))
        return response

    def txn(self, request: TxnRequest) -> TxnResponse:
        if self.log is None and is_read_only(request):
            response: TxnResponse = self.wait(self.submit_txn(request))
        else:
            response = self._ask(self.prepare_txn(request))
        return response

    def submit_put(self, request: PutRequest, ttl_seconds: int = 0) -> Ticket:
        """Plan a put; it is durable once ``wait`` has returned for the ticket.

        With ``ttl_seconds`` the same log entry grants a lease of its own to the key.
        """
        return self._submit(self.prepare_put(request, ttl_seconds))

    def submit_delete(self, request: DeleteRangeRequest) -> Ticket:
        return self._submit(self.prepare_delete(request))

    def submit_txn(self, request: TxnRequest) -> Ticket:
        prepared = self.prepare_txn(request)
        if self.log is None and is_read_only(request):
            return self._read_txn(request)
        return self._submit(prepared)

    def submit(self, plan: Callable[[], Planned]) -> Ticket:
        """Plan something that is no KV request and costs no room. Never waits: background work uses it."""
        return self._submit(Prepared(plan, 0, patient=False))

    def planned(self, plan: Callable[[], tuple[bytes | None, Any]], *, cost_bytes: int = 0) -> Any:
        """Plan something that is no KV request, and wait for it."""
        return self._ask(Prepared(lambda: Planned(*plan()), cost_bytes, patient=cost_bytes > 0))

    def wait(self, ticket: Ticket) -> Any:
        return self._commit.wait(ticket)

    def flush_soon(self) -> None:
        self._commit.flush_soon()

    def prepare_put(self, request: PutRequest, ttl_seconds: int) -> Prepared:
        check_put(request)
        check_size(request, self.options.max_request_bytes)
        if not ttl_seconds:
            return Prepared(partial(self.planner.put, request), put_cost(request))
        check_number("ttl", ttl_seconds)
        if request.lease or request.ignore_lease:
            raise LeaseProvided
        ttl_seconds = max(ttl_seconds, self.options.lease_min_ttl_seconds)

        def plan() -> Planned:
            return self.planner.put_for(request, self.leasing.new_id(), ttl_seconds, self.now_ms())

        return Prepared(plan, put_cost(request, ttl_seconds))

    def prepare_delete(self, request: DeleteRangeRequest) -> Prepared:
        check_delete(request)
        check_size(request, self.options.max_request_bytes)
        return Prepared(partial(self.planner.delete, request), 0)

    def prepare_txn(self, request: TxnRequest) -> Prepared:
        check_txn(request, self.options.max_txn_ops)
        if not is_read_only(request):
            check_size(request, self.options.max_request_bytes)
        return Prepared(partial(self.planner.txn, request), txn_cost(request))

    def _read_txn(self, request: TxnRequest) -> Ticket:
        """A transaction of ranges on a read-only engine: no sooner asked than done."""
        self.check_readable()
        ticket = Ticket()
        ticket.response, ticket.done = self.planner.txn(request).response, True
        return ticket

    def _ask(self, prepared: Prepared) -> Any:
        self._admit(prepared)
        return self._commit.ask(Ticket(prepared.plan))

    def _submit(self, prepared: Prepared) -> Ticket:
        self._admit(prepared)
        ticket = Ticket(prepared.plan)
        with self.planning:
            self._plan(ticket)
        return ticket

    def _admit(self, prepared: Prepared) -> None:
        """Refuse a write that there is no room for; wait until there is, where that is a matter of moments."""
        _, cost_bytes, patient = prepared
        if self._write_refusal is not None:
            raise self._write_refusal()
        if self.background.at_rest:
            self.background.begin()
        if patient:
            if self.stalled:
                self.space.end_stall()
            if self.state.generations[0].size_bytes + cost_bytes >= self.space.unchecked_bytes:
                self.check_room(cost_bytes)

    def _plan(self, ticket: Ticket) -> None:
        """Plan a ticket and queue it for the log. Under the planner's lock."""
        if self._write_refusal is not None:
            raise self._write_refusal()
        if self._commit.stalled is not None:
            self._commit.check()
        state = self.state
        try:
            ticket.entry, ticket.response = ticket.plan()
        except RequestError:
            raise
        except BaseException as failure:  # the plan may be half applied: what is in memory is unusable
            self.poison(failure)
            raise
        ticket.plan, ticket.revision, ticket.compacted = None, state.head, state.head_compacted
        self._commit.enqueue(ticket)
        if len(state.generations[0].changes) >= self.checkpointer.batch_limit:
            self.background.want_work()

    def check_room(self, cost_bytes: int = 0) -> None:
        """Wait while the overlay is full; refuse when the quota or the disk is."""
        if self.overloaded:
            self.checkpointer.wait_for_room()
        if cost_bytes:
            self.space.check(cost_bytes)

    @property
    def stalled(self) -> bool:
        """Whether the log met a full disk, and planned writes wait to be dropped."""
        return self._commit.stalled is not None

    def reload(self) -> None:
        """End a stall, if no background work is in the way: make memory from the backend and the log again."""
        if not self.checkpointing.acquire(blocking=False):
            return
        try:
            with self.planning:
                if self.stalled:
                    reload(self)
                    self._commit.resume()
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
        from kvstore.watch import Watch

        return Watch(self.watch_stream(), request)

    def watch_stream(self) -> WatchStream:
        """A stream of responses that any number of watches share."""
        self.check_readable()
        return self._watch_hub().open_stream(self.options.watch_progress_notify_interval_seconds)

    def _watch_hub(self) -> Hub:
        """Made for the first watch: until then nothing here costs anything."""
        with self._closing:
            self.check_readable()
            if self.hub is None:
                from kvstore.watch import Hub

                self.hub = Hub(self.state, self.check_readable, self.options.watch_buffer)
                self._on_publish.append(self.hub.published)
            return self.hub

    def _publish(self, revision: int, compacted: int) -> None:
        before = self.state.published
        self.state.publish(revision, compacted)
        if revision != before:
            for listener in self._on_publish:
                listener(revision)

    def barrier(self) -> None:
        """Wait until everything planned so far is durable."""
        if self.log is None:
            return
        with self.planning:
            ticket = Ticket()
            ticket.revision, ticket.compacted = self.state.head, self.state.head_compacted
            self._commit.enqueue(ticket)
        self._commit.wait(ticket)

    # --- compaction -------------------------------------------------------------------

    def compact(
        self, revision: int, physical: bool = False, progress: Progress | None = None
    ) -> CompactionResponse:
        """Forget versions superseded at or before ``revision``. ``physical``: wait until the rows are gone."""
        check_number("revision", revision)

        def plan() -> tuple[bytes, int]:
            return self.planner.compact(revision), self.state.head

        newest: int = self.planned(plan)
        self.background.want_work()
        if physical:
            self.run_compaction(progress)
        return CompactionResponse(newest)

    def run_compaction(self, progress: Progress | None = None) -> None:
        """Delete what scheduled compactions have made garbage."""
        self.checkpoint()
        self.compaction.run(progress)

    def defragment(self, progress: Progress | None = None) -> Defragmented:
        """Give free pages back to the file system, while everything goes on."""
        return self.defragmenter.run(progress)

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

    def checkpoint(self) -> bool:
        """Move what waits in memory into the backend; whether there was anything."""
        return self.checkpointer.run()

    def sync_log(self) -> None:
        """Make durable what durability ``interval`` or ``off`` left unsynced."""
        if self.log is not None:
            try:
                with self._commit.log_lock:
                    self.log.sync()
            except BaseException:
                if self.log.failure is not None:
                    self.poison(self.log.failure)
                raise

    @property
    def log_lock(self) -> threading.Lock:
        """Held while the log is asked or told anything by others than the leader of a commit."""
        return self._commit.log_lock

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
        return status_of(self)

    def health(self) -> Health:
        """Whether writes are accepted, and if not, why."""
        return health_of(self)

    @property
    def refuses_writes(self) -> bool:
        """Whether every write is refused: the store is read-only, poisoned, or closed."""
        return self._write_refusal is not None

    @property
    def failure(self) -> BaseException | None:
        """What poisoned the store, if anything did."""
        return self._commit.failure

    def error_of(self, ticket: Ticket) -> BaseException:
        """Why a ticket failed."""
        return self._commit.error_of(ticket)

    def poison(self, failure: BaseException) -> None:
        """Refuse writes until the store is reopened: memory and disk may disagree."""
        self._commit.poison(failure)
        if self._write_refusal is None:
            self._write_refusal = self._commit.poisoned

    def refuse_in_child(self) -> None:
        """Called in a forked child: this handle belongs to the parent."""
        self._read_refusal = self._write_refusal = ForkedStore
        _kept_in_child.append(self)
        if self._lock is not None:
            self._lock.release()  # only the child's copy of the descriptor

    def close(self) -> None:
        """Checkpoint, close the files, give the lock back. Idempotent."""
        with self._closing:
            if self._read_refusal is not None:
                return
            self.background.stop()
            self.snapshots.stop()
            try:
                if self.log is not None and self.failure is None and not self.stalled:
                    self._finish_writing()
            finally:
                self._read_refusal = self._write_refusal = StoreClosed
                self._commit.stop()
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

    def _finish_writing(self) -> None:
        with self.planning:
            self._write_refusal = StoreClosed
        try:
            while self.checkpoint():
                pass
            self.leasing.beat()
            self.backend.sync()
        except DiskFull as full:
            logger.warning("closed without a checkpoint: %s; the log has everything", full)


class _NoLog:
    failure: BaseException | None = None

    def append(self, entries: list[bytes], time_ms: int) -> int:
        raise ReadOnly


_open_engines: weakref.WeakSet[LocalEngine] = weakref.WeakSet()
_kept_in_child: list[LocalEngine] = []
"""Engines of the parent, in a forked child: never collected, for closing their files could hurt the parent."""


def _after_fork() -> None:
    for engine in list(_open_engines):
        engine.refuse_in_child()


os.register_at_fork(after_in_child=_after_fork)
