"""The local engine: one data directory, written by one process. This module puts its parts together.

    put        check (write/admission.py), admit -> the writer (write/writer.py): plan, log, publish, settle -> answer
    range      as in every engine (reads.py)
    recovery   (recovery.py) opens the backend, replays the log after its applied index, and makes one of these

    Core ---> Writer ---> Room ---> Checkpointer ---> Leasing, Compaction, Defragmenter, SnapshotKeeper ---> Background

Each part is given what it needs of the parts to its left, and knows nothing of those to its right.

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
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvstore.backend import Progress
from kvstore.core import Core
from kvstore.errors import Busy, Corruption, DiskFull, KVStoreError, NoDescriptor, SpaceError, said_of
from kvstore.files import disk_full_is_typed
from kvstore.life import Phase
from kvstore.model import (
    Alarm,
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    PutWithTTLRequest,
    Request,
    RowsRequest,
    TxnRequest,
    TxnResponse,
)
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.schema import META_RAFT_TERM, pack_u64, parse_u64
from kvstore.observe.estimates import CompactionEstimate
from kvstore.observe.status import Health, Status, health_of
from kvstore.reads import Reads
from kvstore.shelter import Sheltered, run_with_progress, sheltered, start
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.upkeep.background import Background
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.upkeep.compaction import Compaction
from kvstore.upkeep.defragment import Defragmented, Defragmenter
from kvstore.upkeep.leasing import Leasing
from kvstore.upkeep.snapshots import SnapshotKeeper
from kvstore.write.admission import check
from kvstore.write.room import Room
from kvstore.write.ticket import Notify, Ticket
from kvstore.write.writer import Writer, holds

if TYPE_CHECKING:
    from kvstore.watch import Hub

logger = logging.getLogger("kvstore")


class LocalEngine(Reads):
    """An open data directory. Thread-safe. Made by ``recovery.open_engine``."""

    core: Core
    _planner_kind: type[Planner] = Planner
    _leasing_kind = Leasing

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.planner = self._make_planner(core)
        self.writer = writer = Writer(
            core.log,
            core.state,
            self.planner,
            core.life,
            core.clock.now_ms,
            core.options.wal_buffer_size,
            self._planned,
        )
        self.room = room = Room(core, writer)
        self.checkpointer = checkpointer = Checkpointer(core, writer, room)
        self.leasing = self._leasing_kind(core, writer)
        self.compaction = Compaction(core, writer, checkpointer, room)
        self.defragmenter = Defragmenter(core, writer, checkpointer, room)
        self.snapshots = SnapshotKeeper(core, writer, checkpointer, room)
        self.background = Background(
            core,
            writer,
            checkpointer,
            room,
            self.leasing,
            self.compaction,
            self.defragmenter,
            self.snapshots,
        )

    def _make_planner(self, core: Core) -> Planner:
        return self._planner_kind(
            core.state,
            core.lessor,
            core.clock.lease_ms,
            core.options.lease_min_ttl_seconds,
            core.options.nospace_policy,
        )

    def _listen(self, hub: Hub) -> None:
        self.writer.listeners.append(hub.published)

    # --- writes -----------------------------------------------------------------------
    #
    # Each request is checked before any lock is taken (write/admission.py) and admitted (there is room for it). ``ask``
    # then blocks until it is durable; ``submit`` plans it at once and returns a ticket; ``ask_soon`` puts it down for
    # the flusher, which plans it. The rest is the writer's.

    def put(self, request: PutRequest, ttl_seconds: float = 0) -> PutResponse:
        """Write a key. With ``ttl_seconds`` the same log entry grants the key a lease of its own."""
        response: PutResponse = self.ask(PutWithTTLRequest(request, ttl_seconds) if ttl_seconds else request)
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response: DeleteRangeResponse = self.ask(request)
        return response

    def txn(self, request: TxnRequest) -> TxnResponse:
        response: TxnResponse = self.ask(request)
        return response

    def ask(self, request: Request) -> Any:
        """Plan, log and publish a request; returns its response."""
        self._admit(check(request, self.options))
        return self.writer.ask(request)

    def submit(self, request: Request) -> Ticket:
        """Plan a request and return its ticket; the write is durable once ``wait`` has returned for the ticket."""
        self._admit(check(request, self.options))
        return self.writer.submit(request)

    def ask_soon(
        self,
        request: Request,
        notify: Notify,
        future: Any = None,
        *,
        at_once: bool = True,
        waits: bool = False,
    ) -> Ticket | None:
        """Put a request down, and go on: nothing is planned here, and nothing is waited for.

        ``notify`` is called once, with a list that has the ticket in it, by the thread that leads or plans: when the
        ticket is durable, or has failed (``error_of`` says why), which includes being refused by the planner. It may be
        called before this returns; and twice, if an exception comes before it is noted that it was (from a signal
        handler, or for lack of memory). ``future`` is kept in the ticket for the caller. A caller that gives up may set
        ``ticket.withdrawn``: a request that is not planned by then is dropped without a notification. Not ``at_once``:
        the flusher is not told before ``flush_soon``, so that several requests go to it together.

        Returns None, with nothing put down, if there is no room before a checkpoint has been made, or background work
        has to begin first. Then call ``ask`` in a thread: it waits, or raises the reason. With ``waits``, this does.

        Raises what refuses the request as it stands, what refuses every write (``StorePoisoned``, ``StoreClosed``), and
        ``NoThread`` if there is no other thread to lead; ``ask`` then leads by itself.
        """
        cost_bytes = check(request, self.options)
        if waits:
            self._admit(cost_bytes)
        elif self.life.write_refusal is not None:
            if cost_bytes and self.life.is_stalled:
                return None  # a stall that may end there
            raise self.life.write_refusal()
        elif self.background.at_rest or (
            cost_bytes and self.state.generations[0].size_bytes + cost_bytes >= self.room.unchecked_bytes
        ):
            return None
        ticket = Ticket(request)
        ticket.notify, ticket.future = notify, future
        self.writer.ask_soon(ticket, at_once=at_once)
        return ticket

    def lead_alone(self, ticket: Ticket) -> bool:
        """Serve a ticket that was put down, but not ``at_once``, on this thread, if it is the only one.

        Nothing is waited for but the sync. Returns whether it is done; ``notify`` may not be called then. If it is not,
        ``flush_soon`` has to follow.
        """
        return self.writer.lead_alone(ticket)

    def wait(self, ticket: Ticket) -> Any:
        return self.writer.wait(ticket)

    def error_of(self, ticket: Ticket) -> BaseException:
        """Why a ticket failed."""
        return self.writer.error_of(ticket)

    def barrier(self) -> None:
        """Wait until everything planned so far is durable."""
        self.writer.barrier()

    def flush_soon(self) -> bool:
        """Have planned writes made durable. Returns false if no thread is available for that."""
        return self.writer.flush_soon()

    def _admit(self, cost_bytes: int) -> None:
        """Refuse a write that there is no room for, or wait if room is only moments away.

        Writes that cost nothing never wait here: background work relies on that.
        """
        if self.life.write_refusal is not None:
            self._refuse_write(cost_bytes)
        if self.background.at_rest:
            self._begin_background()
        if cost_bytes and self.state.generations[0].size_bytes + cost_bytes >= self.room.unchecked_bytes:
            self.check_room(cost_bytes)

    def _refuse_write(self, cost_bytes: int) -> None:
        """Raise the reason why writes are refused, unless it is a stall that can be ended here."""
        if cost_bytes and self.life.is_stalled:
            self._end_stall()
        if self.life.write_refusal is not None:
            raise self.life.write_refusal()

    @sheltered
    def _begin_background(self) -> None:
        self.background.begin()

    @sheltered
    def _end_stall(self) -> None:
        self.room.end_stall()

    def _planned(self) -> None:
        """Called after each planned write."""
        if len(self.state.generations[0].changes) >= self.checkpointer.batch_limit:
            self.core.want_work()

    @sheltered
    def check_room(self, cost_bytes: int = 0) -> None:
        """Wait while the overlay is full; refuse the write if the quota or the disk is."""
        if self.overloaded:
            if self.options.background and not self.background.at_rest:
                self.checkpointer.wait_for_room()
            else:
                self.checkpointer.run()
        if cost_bytes:
            self.room.check(cost_bytes)

    @property
    def overloaded(self) -> bool:
        """Whether a write would have to wait for a checkpoint."""
        return self.checkpointer.overloaded

    # --- compaction -------------------------------------------------------------------

    def compact(
        self, revision: int, physical: bool = False, progress: Progress | None = None
    ) -> CompactionResponse:
        """Drop versions superseded at or before ``revision``. ``physical``: wait until the rows are deleted."""
        response: CompactionResponse = self.ask(CompactionRequest(revision, physical))
        self.core.want_work()
        if physical:
            run_with_progress(self.run_compaction, progress)
        return response

    def run_compaction(self, progress: Progress | None = None) -> None:
        """Delete the rows that scheduled compactions have made garbage."""
        with disk_full_is_typed():
            self.checkpointer.run()
            self.compaction.run(progress)

    def compaction_estimate(self, revision: int) -> CompactionEstimate:
        """What ``compact(revision)`` would delete."""
        return self.compaction.estimate(revision)

    def defragment(self, progress: Progress | None = None) -> Defragmented:
        """Give free pages back to the file system while readers and writers go on."""
        with disk_full_is_typed():
            return run_with_progress(self.defragmenter.run, progress)

    def snapshot(self, path: str | os.PathLike[str] | None, progress: Progress | None) -> SnapshotInfo:
        """Write a snapshot of everything durable now, to ``path`` or to the store's own folder."""
        with disk_full_is_typed():
            return run_with_progress(lambda tell: self.snapshots.take(path, tell), progress)

    # --- leases -----------------------------------------------------------------------

    def lease_grant(self, ttl_seconds: int, lease: int = 0) -> LeaseGrantResponse:
        """Grant a lease; ``lease`` 0 picks an id. The TTL is raised to the smallest allowed."""
        response: LeaseGrantResponse = self.ask(LeaseGrantRequest(ttl_seconds, lease))
        return response

    def lease_revoke(self, lease: int) -> LeaseRevokeResponse:
        """End a lease and delete its keys, in one revision; in several if one log entry cannot hold them.

        Raises ``LeaseNotFound``.
        """
        response: LeaseRevokeResponse = self.ask(LeaseRevokeRequest(lease))
        return response

    def lease_keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        """Renew a lease for its full TTL; ``ttl`` 0 in the response: no such lease, or it is due."""
        response: LeaseKeepAliveResponse = self.ask(LeaseKeepAliveRequest(lease))
        return response

    def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Seconds left, and the attached keys on request."""
        response: LeaseTimeToLiveResponse = self._look(LeaseTimeToLiveRequest(lease, keys))
        return response

    def lease_leases(self) -> LeaseLeasesResponse:
        """Ids of all leases, the next to expire first."""
        response: LeaseLeasesResponse = self._look(LeaseLeasesRequest())
        return response

    def _look(self, request: Request) -> Any:
        """Answer from the planned state, once that is durable."""
        self.check_readable()
        check(request, self.options)
        return self.writer.ask(request)

    # --- upkeep -----------------------------------------------------------------------

    def raise_alarm(self, alarm: Alarm) -> None:
        """Raise an alarm, unless it is raised already. ``CORRUPT`` refuses whatever changes keys (``CorruptCluster``).

        Raises ``BadArgument`` for an alarm that etcd does not have.
        """
        self.ask(AlarmRequest(alarm.member_id, alarm.alarm, on=True))

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        """Clear an alarm. Returns the alarms that were cleared."""
        if alarm not in self.alarms():
            return ()
        response: AlarmResponse = self.ask(AlarmRequest(alarm.member_id, alarm.alarm, on=False))
        return response.alarms

    def begin_term(self) -> int:
        """Begin a new term: the store is served once more. Returns the term, which is 2 the first time."""
        term: int = self.ask(RowsRequest(_next_term))
        return term

    @sheltered
    def checkpoint(self) -> bool:
        """Move the changes held in memory into the backend. Returns whether there were any."""
        with disk_full_is_typed():
            return self.checkpointer.run()

    def start(self) -> None:
        """Begin background work, unless the option ``background`` is off.

        What ran out while the store was closed is deleted first, up to ``EXPIRED_PER_PASS`` leases: whoever opens the
        store does not see it, and a store that is only ever open for a moment loses it as well.
        """
        if self.options.background:
            with suppress(KVStoreError):  # background work tries again, and says what is in its way
                self.leasing.expire()
            self.background.start()
            self.clock.when_moved(self.leasing.catch_up)

    # --- the handle -------------------------------------------------------------------

    def status(self) -> Status:
        """Facts about the store: sizes, revisions, files, alarms, errors."""
        with disk_full_is_typed():
            return replace(
                super().status(),
                compaction_debt=self.compaction.debt_revisions,
                pending=max(self.state.index - self.core.log.last_index, 0),
                errors=tuple(self._errors()),
            )

    def health(self) -> Health:
        """Whether writes are accepted, and the reason if not."""
        return health_of(self.state, self._errors())

    def _errors(self) -> list[str]:
        found = self.life.reasons()
        if self.snapshots.last_error is not None:
            found.append(f"no snapshot was taken: {self.snapshots.last_error}")
        if self.snapshots.archive_error is not None:
            found.append(f"the log grows, its segments cannot be archived: {self.snapshots.archive_error}")
        return [*found, *self.background.errors, *self.core.backup_errors]

    def refuse_in_child(self) -> None:
        super().refuse_in_child()
        self.core.lock.release()  # only the child's copy of the descriptor

    def close(self) -> None:
        """Checkpoint, close the files, release the lock. Idempotent.

        In a signal handler or finalizer that interrupted work of this store on the same thread, this only begins to
        close; the store closes once that work has ended. If the interrupted write returns an answer, it is durable.
        """
        if self.writer.is_inside or holds(self.core.checkpointing):
            start(threading.Thread(target=self._close, name="kvstore-close"))
        else:
            Sheltered(self._close).run()

    def _close(self) -> None:
        core, life = self.core, self.life
        with self._closing, disk_full_is_typed():
            if life.read_refusal is not None:
                return
            self.background.stop()
            self.snapshots.stop()
            try:
                if life.failure is None and not life.is_stalled:
                    with suppress(SpaceError):
                        self.leasing.follow_clock()
                    if core.state.alarms:
                        with suppress(
                            SpaceError, Corruption
                        ):  # of a row that is no alarm, which verify reports
                            self.room.tend()
                    self._finish_writing()
            finally:
                life.move(Phase.CLOSED)
                with ExitStack() as rest:  # from the last to the first, also if one of them fails
                    rest.callback(core.lock.release)
                    rest.callback(self._close_files)
                    rest.callback(self._close_watches)
                    rest.callback(self.writer.stop)

    def _close_files(self) -> None:
        with self.core.checkpointing, ExitStack() as files:
            files.callback(self.core.backend.close)
            files.callback(self.core.log.close)

    def _finish_writing(self) -> None:
        core = self.core
        with self.writer.still():
            self.life.move(Phase.CLOSING)
        try:
            while self.checkpointer.run():
                pass
            self.leasing.beat()
            core.backend.sync()
            core.lock.note_closed(core.state.applied_index)
        except (Busy, DiskFull, NoDescriptor, MemoryError) as error:
            logger.warning("closed without a checkpoint: %s; the log has everything", said_of(error))


def _next_term(rows: Mapping[bytes, bytes]) -> tuple[dict[bytes, bytes | None], int]:
    term = parse_u64(rows.get(META_RAFT_TERM), 1) + 1
    return {META_RAFT_TERM: pack_u64(term)}, term
