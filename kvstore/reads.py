"""Reads: everything that an engine answers without writing.

    get, range, scan, history, diff    published revision -> generations, then backend (mvcc/state.py, mvcc/read.py)
    watch                              the hub (watch/), made for the first watch

``Reads`` is the part that all engines have. ``ReadEngine`` is nothing more: a snapshot, a store that is open read-only,
an etcd file. It refuses every write, and answers requests that change nothing (lease queries, a transaction that only
reads) from the state. ``LocalEngine`` (engine.py) adds writing.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from kvstore.backend import Backend, Progress
from kvstore.core import ReadCore
from kvstore.errors import Compacted, ReadOnly
from kvstore.files import disk_full_is_typed
from kvstore.following import Following
from kvstore.keyvalue import KeyValue
from kvstore.life import Phase
from kvstore.model import (
    Alarm,
    Change,
    HashKVResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    RangeRequest,
    RangeResponse,
    Request,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)
from kvstore.mvcc.changes import changed_keys
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.pages import Encode, RangePages
from kvstore.mvcc.plan import Planner, is_read_only
from kvstore.mvcc.read import answer_range, difference, key_history, past_keys, read_revision, scan_keys
from kvstore.mvcc.schema import LATEST
from kvstore.mvcc.validate import check_int64, check_key, check_range, check_txn, range_bounds
from kvstore.shelter import Sheltered, import_sheltered, run_with_progress, sheltered
from kvstore.write.admission import check
from kvstore.write.ticket import Notify, Ticket

if TYPE_CHECKING:
    from kvstore.observe.estimates import DefragmentEstimate
    from kvstore.observe.status import Health, Status
    from kvstore.snapshot.reader import SnapshotInfo
    from kvstore.watch import Hub, Watch, WatchStream

T = TypeVar("T")


class Reads:
    """The reading half of every engine. Thread-safe."""

    def __init__(self, core: ReadCore) -> None:
        self.core = core
        self.options = core.options
        self.disk = core.disk
        self.directory = core.directory
        self.state = core.state
        self.lessor = core.lessor
        self.clock = core.clock
        self.cluster_id = core.cluster_id
        self.member_id = core.member_id
        self.life = core.life
        self.hub: Hub | None = None
        """The watch hub; None until the first watch."""
        self._closing = threading.Lock()
        open_engines.add(self)

    @property
    def backend(self) -> Backend:
        return self.state.backend

    @property
    def carried(self) -> Mapping[bytes, bytes]:
        """The rows of etcd's that are kept beside the keys, by name."""
        return self.state.carried

    def check(self, request: Request) -> None:
        """Raise what refuses a request as it stands, whatever the store holds."""
        check(request, self.options)

    def now_ms(self) -> int:
        """The time of day, for timestamps."""
        return self.clock.now_ms()

    # --- reads ------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        """The newest version of ``key``: the fast path of a range over one key."""
        if self.life.read_refusal is not None:
            raise self.life.read_refusal()
        if not key or type(key) is not bytes:
            check_key(key)
        state = self.state
        revision = state.published
        # The usual case of ``State.row_at``, written out: a call would make a get 5 % dearer (tools/lab/instructions).
        for generation in state.generations:
            if key in generation.newest:
                row = state.row_at(key, revision)
                break
        else:
            row = state.backend.get(LATEST, key)
            if state.backend_revision > revision:
                row = state.row_at(key, revision)
        return None if row is None else KeyValue.decoded(row)

    def row(self, key: bytes) -> tuple[int, bytes | None]:
        """As ``get``, without an object: the newest revision, and the key's row as it is stored (``keyvalue``)."""
        if self.life.read_refusal is not None:
            raise self.life.read_refusal()
        if not key or type(key) is not bytes:
            check_key(key)
        state = self.state
        revision = state.published
        return revision, state.row_at(key, revision)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        """``key`` as it was at ``revision``."""
        self.check_readable()
        check_key(key)
        revision = read_revision(revision, self.state.published, self.state.compacted)
        row = self.state.row_at(key, revision)
        return None if row is None else KeyValue.decoded(row)

    def range(self, request: RangeRequest) -> RangeResponse:
        """The keys of a range at one revision."""
        self.check_readable()
        check_range(request)
        newest = self.state.published
        revision = read_revision(request.revision, newest, self.state.compacted)
        return answer_range(self.state, request, revision, newest)

    def page(self, request: RangeRequest) -> RangeResponse:
        """As ``range``, but what is beyond the limit is not counted (``count`` -1)."""
        self.check_readable()
        check_range(request)
        newest = self.state.published
        revision = read_revision(request.revision, newest, self.state.compacted)
        return answer_range(self.state, request, revision, newest, counted=False)

    def range_pages(self, request: RangeRequest, encode: Encode) -> RangePages:
        """The same keys, encoded a page at a time: for large answers, whose size is known before they are sent."""
        self.check_readable()
        check_range(request)
        newest = self.state.published
        revision = read_revision(request.revision, newest, self.state.compacted)
        return RangePages(self.state, request, revision, newest, encode, self.check_readable)

    def scan(
        self, key: bytes, range_end: bytes, revision: int = 0, page_rows: int = 1000
    ) -> Iterator[KeyValue]:
        """The keys of a range at one revision, as a lazy iterator, a page at a time."""
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

    def past_keys(self, key: bytes, range_end: bytes, limit: int) -> list[bytes]:
        """The first keys of a range that have a past, the deleted ones among them."""
        while True:
            self.check_readable()
            compacted = self.state.compacted
            try:
                return past_keys(self.state, *range_bounds(key, range_end), limit)
            except Compacted:  # a compaction overtook it
                if self.state.compacted == compacted:
                    raise

    def diff(self, older: int, newer: int, key: bytes, range_end: bytes) -> Iterator[Change]:
        """The keys of a range that differ between two revisions, ascending."""
        self.check_readable()
        published, compacted = self.state.published, self.state.compacted
        older = read_revision(older, published, compacted)
        newer = read_revision(newer, published, compacted)
        start, end = range_bounds(key, range_end)
        keys = changed_keys(self.state, min(older, newer) + 1, max(older, newer))
        return self._guarded(difference(self.state, start, end, older, newer, keys))

    def time_of(self, revision: int) -> int:
        """The time of day in ms at which ``revision`` was written."""
        import_sheltered("kvstore.times")
        from kvstore import times

        self.check_readable()
        return times.time_of(self.core, read_revision(revision, self.state.published, -1))

    def revision_at(self, time_ms: int) -> int:
        """The newest revision at a time of day in ms."""
        import_sheltered("kvstore.times")
        from kvstore import times

        self.check_readable()
        return min(times.revision_at(self.core, time_ms), self.state.published)

    def times(self, first_revision: int, last_revision: int) -> Iterator[tuple[int, int]]:
        """(revision, time of day in ms) of the revisions between two that the log still has, ascending."""
        import_sheltered("kvstore.times")
        from kvstore import times

        self.check_readable()
        last = read_revision(last_revision, self.state.published, -1)
        return self._guarded(times.times(self.core, first_revision, last))

    def key_count(self) -> int:
        """How many keys there are, or were a while ago (``KeyCount``)."""
        self.check_readable()
        return self.core.keys.of(self.state)

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """etcd's HashKV at ``revision`` (0: newest)."""
        while True:
            self.check_readable()
            newest, compacted = self.state.published, self.state.compacted
            at = read_revision(revision, newest, compacted)
            try:
                return HashKVResponse(newest, hash_kv(self.state, at, compacted), compacted, at)
            except Compacted:  # a compaction overtook it; the revision may still be kept
                if self.state.compacted == compacted:
                    raise

    def _guarded(self, rows: Iterator[T]) -> Iterator[T]:
        for row in rows:
            yield row
            self.check_readable()

    # --- watch ------------------------------------------------------------------------

    def watch(self, request: WatchRequest) -> Watch:
        """An iterator over the events that ``request`` asks for."""
        import_sheltered("kvstore.watch")
        from kvstore.watch import Watch

        return Watch(self.watch_stream(), request)

    def watch_stream(self) -> WatchStream:
        """A stream of responses, shared by any number of watches."""
        from kvstore.watch import WatchStream

        self.check_readable()
        hub = self.hub or self._make_hub()
        return WatchStream(hub, self.options.watch_progress_notify_interval_seconds)

    @sheltered
    def _make_hub(self) -> Hub:
        """Make the hub for the first watch: until then watching costs nothing."""
        from kvstore.watch import Hub

        with self._closing:
            self.check_readable()
            if self.hub is None:
                hub = Hub(self.state, self.check_readable, self.options.watch_buffer)
                self._listen(hub)
                self.hub = hub
            return self.hub

    def _listen(self, hub: Hub) -> None:
        """Have the hub told of each revision that is published. Nothing is published here."""

    # --- the handle -------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The newest durable revision."""
        return self.state.published

    def refresh(self) -> int:
        """Move to the newest durable revision, and return it: here it is the newest already."""
        self.check_readable()
        return self.state.published

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; -1 if nothing was ever compacted."""
        return self.state.compacted

    @property
    def where(self) -> str:
        """What is open, in words for people."""
        place = self.directory.root if self.directory else "snapshot"
        return f"{place} ({self.backend.name}) at revision {self.revision}"

    def check_readable(self) -> None:
        """Raise ``StoreClosed`` or ``ForkedStore`` if reads are refused."""
        if self.life.read_refusal is not None:
            raise self.life.read_refusal()

    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms that are raised."""
        import_sheltered("kvstore.observe.status")
        from kvstore.observe.status import alarms_of

        self.check_readable()
        return alarms_of(self.state)

    def defragment_estimate(self) -> DefragmentEstimate:
        """What a defragmentation would reclaim, and the room it would need."""
        import_sheltered("kvstore.observe.estimates")
        from kvstore.observe.estimates import estimate_defragment

        return estimate_defragment(self.backend, self.directory)

    def status(self) -> Status:
        """Facts about the store: sizes, revisions, files, alarms, errors."""
        import_sheltered("kvstore.observe.status")
        from kvstore.observe.status import status_of

        with disk_full_is_typed():
            self.check_readable()
            return status_of(self.core, self.hub)

    def health(self) -> Health:
        """Whether writes are accepted, and the reason if not."""
        import_sheltered("kvstore.observe.status")
        from kvstore.observe.status import health_of

        return health_of(self.state, self.life.reasons())

    def refuse_in_child(self) -> None:
        """Called in a forked child: this handle belongs to the parent."""
        self.life.move(Phase.FORKED)
        _kept_in_child.append(self)

    def close(self) -> None:
        """Release what the engine holds. Idempotent."""
        Sheltered(self._close).run()

    def _close(self) -> None:
        with self._closing:
            if self.life.read_refusal is None:
                self.life.move(Phase.CLOSED)
                with ExitStack() as rest:  # from the last to the first, also if one of them fails
                    rest.callback(self._release)
                    rest.callback(self.backend.close)
                    rest.callback(self._close_watches)
                    rest.callback(self._stop_moving)

    def _release(self) -> None:
        """Let go of what was held besides."""

    def _stop_moving(self) -> None:
        """Nothing moves here but by writing."""

    def _close_watches(self) -> None:
        if self.hub is not None:
            self.hub.close()


_NO_WATCH = (
    "this read-only handle does not move, so a watch would now wait for ever: open it with "
    "refresh_interval_seconds=0.05, or call refresh() and history() or diff()",
    "nothing changes in this file, so a watch would now wait for ever: history() and diff() have its past",
)


class ReadEngine(Reads):
    """An engine that only reads. Every write raises ``ReadOnly``."""

    def __init__(self, core: ReadCore, following: Following | None = None) -> None:
        """``following``: what moves a handle of a store that another process may be writing."""
        super().__init__(core)
        self.following = following
        self.lock: Callable[[], None] | None = None
        """Releases the store's lock, on a system where readers have to hold it."""
        self._planner = Planner(
            core.state, core.lessor, core.clock.lease_ms, core.options.lease_min_ttl_seconds
        )

    # --- requests that change nothing, answered from the state ------------------------

    def txn(self, request: TxnRequest) -> TxnResponse:
        """A transaction that only reads."""
        check_txn(request, self.options.max_txn_ops)
        if not is_read_only(request):
            self._refuse()
        response: TxnResponse = self._answer(request)
        return response

    def submit(self, request: Request) -> Ticket:
        """The same, as a finished ticket."""
        ticket = Ticket(request)
        ticket.response, ticket.done = self.ask(request), True
        return ticket

    def ask_soon(
        self,
        request: Request,
        notify: Notify,
        future: Any = None,
        *,
        at_once: bool = True,
        waits: bool = False,
    ) -> Ticket | None:
        """The same, and ``notify`` is called at once."""
        ticket = self.submit(request)
        ticket.notify, ticket.future = notify, future
        notify([ticket])
        return ticket

    def lead_alone(self, ticket: Ticket) -> bool:
        """It is done already."""
        return ticket.done

    def ask(self, request: Request) -> Any:
        """The answer to a request that changes nothing."""
        if isinstance(request, TxnRequest):
            return self.txn(request)
        if not isinstance(request, (LeaseTimeToLiveRequest, LeaseLeasesRequest)):
            self._refuse()
        return self._answer(request)

    def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Seconds left, and the attached keys on request."""
        check_int64("lease", lease)
        response: LeaseTimeToLiveResponse = self._answer(LeaseTimeToLiveRequest(lease, keys))
        return response

    def lease_leases(self) -> LeaseLeasesResponse:
        """Ids of all leases, the next to expire first."""
        response: LeaseLeasesResponse = self._answer(LeaseLeasesRequest())
        return response

    def _release(self) -> None:
        if self.lock is not None:
            self.lock()

    def _answer(self, request: Request) -> Any:
        self.check_readable()
        if self.following is None:
            return self._planner.decide(request).response
        return self.following.at_rest(lambda: self._planner.decide(request).response)

    # --- moving -----------------------------------------------------------------------

    def refresh(self) -> int:
        """Move to the newest durable revision of the store that another process writes, and return it.

        Nothing has changed if this raises, and it may be called again.
        """
        return super().refresh() if self.following is None else self.following.refresh()

    def status(self) -> Status:
        """Facts about the store; ``errors`` say why the handle does not move, if it is to move by itself."""
        return replace(super().status(), errors=tuple(self._errors()))

    def health(self) -> Health:
        """Whether everything works that a handle for reading has to do."""
        import_sheltered("kvstore.observe.status")
        from kvstore.observe.status import health_of

        return health_of(self.state, self._errors())

    def _errors(self) -> list[str]:
        following = self.following.errors if self.following is not None else []
        return [*self.life.reasons(), *following, *self.core.backup_errors]

    def watch_stream(self) -> WatchStream:
        """A stream of responses. Unless the handle moves by itself, of those that are there (``watch/standing.py``)."""
        if self.following is not None and self.following.is_automatic:
            return super().watch_stream()
        from kvstore.watch.standing import StandingStream

        self.check_readable()
        hub = self.hub or self._make_hub()
        return StandingStream(
            hub, self.options.watch_progress_notify_interval_seconds, _NO_WATCH[self.following is None]
        )

    def _listen(self, hub: Hub) -> None:
        if self.following is not None:
            self.following.listeners.append(hub.published)

    def _stop_moving(self) -> None:
        if self.following is not None:
            self.following.stop()

    def wait(self, ticket: Ticket) -> Any:
        """The response of a ticket."""
        return ticket.response

    def barrier(self) -> None:
        """Does nothing: everything visible here is durable."""

    def flush_soon(self) -> bool:
        return True

    def snapshot(self, path: str | os.PathLike[str] | None, progress: Progress | None = None) -> SnapshotInfo:
        """Write a snapshot of what is durable now, while another process writes the store."""
        self.check_readable()
        disk, directory, backend = self.disk, self.directory, self.backend
        reads_back = self.options.snapshot_read_back
        if path is None or directory is None:
            raise ReadOnly

        def take(tell: Progress | None) -> SnapshotInfo:
            from kvstore.snapshot.live_copy import take_beside

            return take_beside(disk, directory, backend, self.now_ms, Path(path), tell, reads_back=reads_back)

        with disk_full_is_typed():
            return run_with_progress(take, progress)

    # --- refused ----------------------------------------------------------------------

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        refusal = self.life.write_refusal or ReadOnly
        raise refusal()

    put = delete_range = compact = _refuse
    lease_grant = lease_revoke = lease_keep_alive = raise_alarm = disarm = begin_term = _refuse
    checkpoint = defragment = compaction_estimate = check_room = _refuse
    overloaded = False

    def error_of(self, ticket: Ticket) -> BaseException:
        """Never called: no ticket fails here."""
        return ticket.error or ReadOnly()


open_engines: weakref.WeakSet[Reads] = weakref.WeakSet()
"""The engines of this process, and those that were closed a moment ago."""
_kept_in_child: list[Reads] = []
"""The parent's engines, in a forked child. Never collected, because closing their files could hurt the parent."""


def _after_fork() -> None:
    for engine in list(open_engines):
        engine.refuse_in_child()


os.register_at_fork(after_in_child=_after_fork)
