"""What the faces of a store need from its engine: two protocols.

    Engine             what an etcd can answer too: etcd's RPCs as Python calls. ``Store``, ``View`` and
      |                ``AsyncStore`` work on anything that has these
    EmbeddedEngine     adds what only a store on this machine's disk can do: the kept past as a whole, its upkeep,
                       and writes that are begun now and waited for later

``LocalEngine`` is an ``EmbeddedEngine``. Another engine may also have some methods of ``EmbeddedEngine``; for one that
it lacks, the face raises ``Unsupported``, which says what to do instead (``embedded``).

Every call may raise the errors of ``kvstore.errors``. The faces have already refused arguments that make no sense
(``arguments``); whatever depends on the store is the engine's to check. A revision of 0 means the newest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from kvstore.backend import Progress
from kvstore.errors import Unsupported
from kvstore.keyvalue import KeyValue
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
    Request,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)

if TYPE_CHECKING:
    from kvstore.mvcc.pages import Encode, RangePages
    from kvstore.observe.estimates import CompactionEstimate, DefragmentEstimate
    from kvstore.observe.status import Health, Status
    from kvstore.snapshot.reader import SnapshotInfo
    from kvstore.upkeep.defragment import Defragmented
    from kvstore.watch import Hub, Watch, WatchStream
    from kvstore.watch.iterators import ResponseStream
    from kvstore.write.ticket import Notify, Ticket


class Engine(Protocol):
    """A store's content, wherever it is kept. Thread-safe; a call waits for its answer."""

    # --- what it is -------------------------------------------------------------------

    @property
    def cluster_id(self) -> int: ...

    @property
    def member_id(self) -> int: ...

    @property
    def where(self) -> str:
        """What is open, in a few words for people. Does no I/O."""

    @property
    def revision(self) -> int:
        """The newest durable revision."""

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; -1 if nothing was ever compacted."""

    # --- reads ------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        """The newest version of ``key``."""

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        """``key`` as it was at ``revision``."""

    def range(self, request: RangeRequest) -> RangeResponse: ...

    def scan(
        self, key: bytes, range_end: bytes, revision: int = 0, page_rows: int = 1000
    ) -> Iterator[KeyValue]:
        """The keys of a range, ascending, all at one revision. Lazy: reading starts when the first key is asked for."""

    def hash_kv(self, revision: int = 0) -> HashKVResponse: ...

    # --- writes, durable on return ----------------------------------------------------

    def put(self, request: PutRequest, ttl_seconds: float = 0) -> PutResponse:
        """Write a key; with ``ttl_seconds`` under a lease of its own. Fractions are kept, or rounded up."""

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse: ...

    def txn(self, request: TxnRequest) -> TxnResponse: ...

    def compact(
        self, revision: int, physical: bool = False, progress: Progress | None = None
    ) -> CompactionResponse:
        """Drop versions superseded at or before ``revision``. ``physical``: wait until the rows are deleted.

        ``progress`` is called with (done, total) revisions; ``Unsupported`` where that is not known.
        """

    # --- leases -----------------------------------------------------------------------

    def lease_grant(self, ttl_seconds: int, lease: int = 0) -> LeaseGrantResponse:
        """Grant a lease; ``lease`` 0 picks an id."""

    def lease_revoke(self, lease: int) -> LeaseRevokeResponse: ...

    def lease_keep_alive(self, lease: int) -> LeaseKeepAliveResponse: ...

    def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse: ...

    def lease_leases(self) -> LeaseLeasesResponse: ...

    # --- watches ----------------------------------------------------------------------

    def watch(self, request: WatchRequest) -> Watch:
        """One watch, on a stream of its own."""

    def watch_stream(self) -> ResponseStream: ...

    # --- the handle -------------------------------------------------------------------

    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms that are raised."""

    def raise_alarm(self, alarm: Alarm) -> None:
        """Raise an alarm, unless it is raised already."""

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        """Clear an alarm. Returns the alarms that were cleared."""

    def status(self) -> Status: ...

    def health(self) -> Health: ...

    def check_readable(self) -> None:
        """Raise ``StoreClosed`` or ``ForkedStore``, as any call would. Does no I/O."""

    def close(self) -> None:
        """Close. Idempotent."""


class EmbeddedEngine(Engine, Protocol):
    """A store in this process, on a disk of this machine."""

    hub: Hub | None
    """Its watches, once there has been one."""

    def watch_stream(self) -> WatchStream: ...

    @property
    def carried(self) -> Mapping[bytes, bytes]:
        """The rows of etcd's that are kept beside the keys (users, members), by name. As planned: a moment ahead of
        what is durable."""

    def refresh(self) -> int:
        """Move to the newest durable revision of the process that writes the store, and return it."""

    def check(self, request: Request) -> None:
        """Raise what refuses a request as it stands, whatever the store holds."""

    def row(self, key: bytes) -> tuple[int, bytes | None]:
        """Like ``get``, without an object: the newest revision, and the key's row as it is stored (``keyvalue``)."""

    def page(self, request: RangeRequest) -> RangeResponse:
        """Like ``range``, but what is beyond the limit is not counted (``count`` -1): that takes a step for each."""

    def range_pages(self, request: RangeRequest, encode: Encode) -> RangePages:
        """Like ``range``, encoded a page at a time, as often as needed; the size of all pages is known beforehand."""

    # --- the kept past: lazy, like ``scan`` -------------------------------------------

    def history(self, key: bytes, first_revision: int = 0, last_revision: int = 0) -> Iterator[KeyValue]:
        """Kept versions of ``key``, oldest first; a delete shows as version 0."""

    def past_keys(self, key: bytes, range_end: bytes, limit: int) -> list[bytes]:
        """The first ``limit`` keys of a range that have a past: deleted ones, as long as anything of them is kept, and
        live ones whose earlier versions are."""

    def diff(self, older: int, newer: int, key: bytes, range_end: bytes) -> Iterator[Change]:
        """Keys of a range that differ between two revisions, ascending."""

    def time_of(self, revision: int) -> int:
        """The time of day in ms at which ``revision`` was written."""

    def revision_at(self, time_ms: int) -> int:
        """The newest revision at a time of day in ms."""

    def times(self, first_revision: int, last_revision: int) -> Iterator[tuple[int, int]]:
        """(revision, time of day in ms) of the revisions between two that the log still has, ascending."""

    # --- writes that are begun now and waited for later -------------------------------
    #
    # If ``notify`` is set on a ticket before it is done, it is called once, when the ticket is done.

    def submit(self, request: Request) -> Ticket:
        """Check and plan a write of any kind. Never waits, except for room."""

    def ask(self, request: Request) -> Any:
        """The same, but waits until it is durable and returns its response."""

    def ask_soon(
        self,
        request: Request,
        notify: Notify,
        future: Any = None,
        *,
        at_once: bool = True,
        waits: bool = False,
    ) -> Ticket | None:
        """Check a request and put it down, with a ticket: another thread plans it. Never waits, except with ``waits``.

        Not ``at_once``: it is not told before ``flush_soon``. ``waits``: for room, as ``submit`` does.

        Returns None if it cannot be put down now: call ``ask`` in a thread. Raises ``NoThread`` if there is no thread
        to plan it.
        """

    def lead_alone(self, ticket: Ticket) -> bool:
        """Serve the only ticket that was put down, on this thread. Returns whether it is done."""

    def flush_soon(self) -> bool:
        """Have planned writes made durable. Returns false if no thread is available: call ``wait`` instead."""

    def wait(self, ticket: Ticket) -> Any:
        """Wait until a ticket is durable; returns its response. Raises the error it failed with."""

    def error_of(self, ticket: Ticket) -> BaseException:
        """Why a ticket failed."""

    @property
    def overloaded(self) -> bool:
        """Whether a write would have to wait for room."""

    def check_room(self, cost_bytes: int = 0) -> None:
        """Wait for room; raise ``SpaceError`` if waiting does not help."""

    # --- what the store carries for a server of etcd's API: ``carried``, ``RowsRequest`` --

    def begin_term(self) -> int:
        """Begin a new term: the store is served once more. Returns the term."""

    # --- upkeep -----------------------------------------------------------------------

    def checkpoint(self) -> bool:
        """Move the changes held in memory into the backend. Returns whether there were any."""

    def compaction_estimate(self, revision: int) -> CompactionEstimate:
        """What ``compact(revision)`` would delete."""

    def defragment(self, progress: Progress | None = None) -> Defragmented:
        """Give free pages back to the file system."""

    def defragment_estimate(self) -> DefragmentEstimate:
        """What that would reclaim."""

    def snapshot(self, path: str | os.PathLike[str] | None, progress: Progress | None) -> SnapshotInfo:
        """Write a verified copy to ``path``, or to the store's own folder (None)."""


_OPEN_A_SNAPSHOT = "save a snapshot where it runs, and open that: kvstore.open_snapshot(path).{}(...)"
_PUT_BESIDE = "call put, from as many threads or tasks as are to be under way at once"
_TIMES_ARE_THERE = (
    "times are in its log: open it read-only where that is, with kvstore.open(..., read_only=True)"
)
_LOCAL_WAY = {
    "history": _OPEN_A_SNAPSHOT.format("history"),
    "diff": _OPEN_A_SNAPSHOT.format("diff"),
    "time_of": _TIMES_ARE_THERE,
    "revision_at": _TIMES_ARE_THERE,
    "times": _TIMES_ARE_THERE,
    "refresh": "every read asks the server, and is at its newest revision",
    "put_nowait": _PUT_BESIDE,
    "wait": _PUT_BESIDE,
    "checkpoint": "a server makes its own, and need not be told",
    "compaction_estimate": "open the store itself, on its machine, with kvstore.open",
    "defragment": "run `kvstore defragment`, or `etcdctl defrag`, where it runs",
    "defragment_estimate": "status() says how many of its bytes are in use",
    "snapshot": "run `kvstore snapshot save`, or `etcdctl snapshot save`, where it runs",
    "engine": "there is nothing of it here to look into; a server shows its metrics under /metrics",
}
"""What to do instead, by the method of ``Store`` that an engine cannot serve."""
_NEEDED = {"put_nowait": "submit"}
"""The engine method that a call needs, where its name differs."""


def is_embedded(engine: Engine) -> bool:
    """Whether it is a store in this process, which knows its revision and reads pages without asking a server."""
    return hasattr(engine, "page")


def embedded(engine: Engine, call: str) -> EmbeddedEngine:
    """The engine, for the method ``call`` of ``Store``. Raises ``Unsupported`` if it lacks what the call needs."""
    if not hasattr(engine, _NEEDED.get(call, call)):
        raise unsupported(engine, call)
    return cast(EmbeddedEngine, engine)


def unsupported(engine: Engine, call: str) -> Unsupported:
    return Unsupported(f"{engine.where}: only a store on this machine has {call!r}; {_LOCAL_WAY[call]}")
