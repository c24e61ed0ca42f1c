"""Requests and responses, shaped like etcd's RPC messages, as immutable named tuples.

A range ``[key, range_end)``: ``range_end`` empty means the single key, ``b"\\0"`` means from ``key`` to the last
key, and ``prefix_end(prefix)`` ends a prefix. Revision 0 means the newest.

Annotations are evaluated here: of those kept as text a named tuple compiles each one, which every import would pay for.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple, NoReturn

from kvstore.keyvalue import KeyValue, KeyValues

FROM_KEY = b"\0"
"""As ``range_end``: to the last key. As ``key`` and ``range_end``: every key."""


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` that makes ``[prefix, end)`` all keys that begin with ``prefix``."""
    if not isinstance(prefix, bytes):
        raise TypeError(f"prefix must be bytes, not {type(prefix).__name__}")
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else FROM_KEY


class SortOrder(IntEnum):
    """Which way a range is sorted."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """By what a range is sorted."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareResult(IntEnum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(IntEnum):
    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class EventType(IntEnum):
    """What an event says."""

    PUT = 0
    DELETE = 1


# --- requests --------------------------------------------------------------------------


class RangeRequest(NamedTuple):
    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: int = SortOrder.NONE
    sort_target: int = SortTarget.KEY
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class PutRequest(NamedTuple):
    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


put_request: Any = partial(tuple.__new__, PutRequest)
"""``PutRequest._make`` without its Python code."""


class DeleteRangeRequest(NamedTuple):
    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class Compare(NamedTuple):
    """True if ``result`` holds between every key of the range (a missing key counts as zeros) and ``operand``."""

    key: bytes
    """The key, or the first of a range."""
    target: int = CompareTarget.VERSION
    """What of it is compared: a ``CompareTarget``."""
    result: int = CompareResult.EQUAL
    """How: a ``CompareResult``."""
    operand: int | bytes = 0
    """With what: bytes for a value, else a number."""
    range_end: bytes = b""
    """The end of a range; empty: the one key."""


class TxnRequest(NamedTuple):
    """Run ``success`` if all of ``compare`` hold, else ``failure``. ``None`` stands for an op that was not set."""

    compare: tuple[Compare, ...] = ()
    success: "tuple[Op, ...]" = ()
    failure: "tuple[Op, ...]" = ()


Op = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest | None


class WatchPosition(NamedTuple):
    """Where a watch continues: at change ``sub`` (counted from 0) of ``revision``.

    Two numbers, which can be stored anywhere. Positions compare in the order of the changes they point at.
    """

    revision: int
    """The revision."""
    sub: int = 0
    """The change in it."""


class WatchRequest(NamedTuple):
    """``start_sub``: skip the changes of ``start_revision`` before this one (etcd has no such field)."""

    key: bytes = FROM_KEY
    """The key, or the first of a range."""
    range_end: bytes = b""
    """The end of the range."""
    start_revision: int = 0
    """The first revision to tell; 0: from now on."""
    prev_kv: bool = False
    """Whether events carry what was before."""
    no_put: bool = False
    """Leave out puts."""
    no_delete: bool = False
    """Leave out deletes."""
    progress_notify: bool = False
    """Say now and then how far it is, though nothing happens."""
    start_sub: int = 0
    """The first change to tell of ``start_revision``."""


def _refuse_truth(of: object) -> NoReturn:
    """Compares and ops have no truth value: ``a and b``, ``not a``, ``0 < a < 5`` would silently drop a part."""
    if isinstance(of, Compare):
        raise TypeError(
            "a compare is neither true nor false, so `a and b`, `not a` and `1 < version(k) < 5` have no meaning: "
            "write compare=[version(k) > 1, version(k) < 5]"
        )
    raise TypeError(
        f"a {type(of).__name__} is neither true nor false: write each op of a transaction into its list"
    )


for _kind in (RangeRequest, PutRequest, DeleteRangeRequest, Compare, TxnRequest):
    _kind.__bool__ = _refuse_truth  # type: ignore[union-attr]  # named tuples take no method by assignment, says mypy


KeysOfLease = Callable[[int | None], Iterable[bytes]]
"""The keys that are attached to a lease; none, if there is no such lease. None: those of all leases."""


class PutWithTTLRequest(NamedTuple):
    """A put with a lease of its own, of ``ttl_seconds``."""

    put: PutRequest
    ttl_seconds: float


class CompactionRequest(NamedTuple):
    """``physical``: answer only when the rows are deleted. (It makes no difference to the planner.)"""

    revision: int
    physical: bool = False


class HashKVRequest(NamedTuple):
    """A read; revision 0 means the newest."""

    revision: int = 0


class LeaseGrantRequest(NamedTuple):
    """``id`` 0: pick one."""

    ttl: int
    id: int = 0


class LeaseRevokeRequest(NamedTuple):
    id: int


class LeaseKeepAliveRequest(NamedTuple):
    id: int


class LeaseTimeToLiveRequest(NamedTuple):
    id: int
    keys: bool = False


class LeaseLeasesRequest(NamedTuple):
    pass


NOSPACE = "NOSPACE"
CORRUPT = "CORRUPT"
ALARMS = (NOSPACE, CORRUPT)


class AlarmRequest(NamedTuple):
    """Raise an alarm, or clear it. Nothing changes where it is so already."""

    member_id: int
    alarm: str
    on: bool


class ExpireRequest(NamedTuple):
    """Revoke the lease that is due first."""


class ShiftRequest(NamedTuple):
    """Move the deadline of every lease, and the clock they are compared with."""

    by_ms: int
    move_clock: Callable[[], None] | None = None
    """May be called twice."""


class ClampRequest(NamedTuple):
    """Shorten every lease that has more time left than its TTL."""


class RenewAllRequest(NamedTuple):
    """Every lease starts over with its full TTL, also one that is due."""


class RevisionRequest(NamedTuple):
    """A replica's: make the next revision what it was at the source, or raise ``WrongStore``.

    ``changes``: (main, sub, key, KeyValue bytes or None) in order. ``leases``: those that the changes name and that are
    not known here, as in ``LeasesCopyRequest``.
    """

    revision: int
    changes: Sequence[tuple[int, int, bytes, bytes | None]]
    leases: Mapping[int, tuple[int, int]]


class LeasesCopyRequest(NamedTuple):
    """A replica's: have the leases of the source, as id -> (granted TTL, seconds left).

    ``gone``: those that the source has no more. One with keys stays until the source's deletes have come.
    """

    leases: Mapping[int, tuple[int, int]]
    gone: Collection[int] = ()


class EntryRequest(NamedTuple):
    """A replica's: take over an entry of the source's log, which has number ``at`` there and here."""

    at: int
    entry: bytes


class RowsRequest(NamedTuple):
    """Change rows that the store only carries (``META_CARRIED``): users, members, a term.

    ``decide`` is called when the request is planned, with the present rows by name. It returns the rows to change, by
    name (None: deleted), and the response; or raises the reason to refuse. It changes nothing itself, and may be called
    twice.
    """

    decide: Callable[[Mapping[bytes, bytes]], tuple[Mapping[bytes, bytes | None], Any]]


class GuardedRequest(NamedTuple):
    """A request that is planned only if ``guard`` lets it through at that moment; it raises the reason if not.

    ``guard`` gets the request, the rows that are kept beside the keys, and a function that gives the keys of a lease.
    """

    request: Any
    guard: Callable[[Any, Mapping[bytes, bytes], KeysOfLease], None]
    header_bytes: int = 0
    """What the name of its user adds to its size."""


class BarrierRequest(NamedTuple):
    """Changes nothing; answered when everything planned before it is durable."""


Request = (
    PutRequest
    | PutWithTTLRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactionRequest
    | LeaseGrantRequest
    | LeaseRevokeRequest
    | LeaseKeepAliveRequest
    | LeaseTimeToLiveRequest
    | LeaseLeasesRequest
    | AlarmRequest
    | ExpireRequest
    | ShiftRequest
    | ClampRequest
    | RenewAllRequest
    | RevisionRequest
    | LeasesCopyRequest
    | EntryRequest
    | RowsRequest
    | GuardedRequest
    | BarrierRequest
)
"""What the planner decides."""


# --- responses -------------------------------------------------------------------------


class RangeResponse(NamedTuple):
    """``revision`` is the newest one; ``count`` is the number of keys in the range, whatever limit and filters say."""

    revision: int
    """The store's revision when it answered."""
    kvs: KeyValues
    """The keys with their values, in order."""
    more: bool
    """Whether ``limit`` left some out."""
    count: int  # type: ignore[assignment]  # etcd's field name; it hides tuple.count
    """How many keys the range has."""


class PutResponse(NamedTuple):
    """The answer to a put."""

    revision: int
    """The revision of the write; the store's, if it changed nothing."""
    prev_kv: KeyValue | None = None
    """What was there before, if it was asked for and there was something."""


class DeleteRangeResponse(NamedTuple):
    """The answer to a delete."""

    revision: int
    """The revision of the write; the store's, if it changed nothing."""
    deleted: int
    """How many keys were deleted."""
    prev_kvs: KeyValues
    """What they were, if it was asked for."""


class TxnResponse(NamedTuple):
    """``responses`` match the ops of the branch that ran. A nested response has revision 0, as in etcd."""

    revision: int
    """The revision of the write; the store's, if it changed nothing."""
    succeeded: bool
    """Whether all compares held, so that ``success`` was run."""
    responses: "tuple[OpResponse, ...]"
    """One for each op that was run, in order."""


OpResponse = RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse


class CompactionResponse(NamedTuple):
    """The answer to a compaction."""

    revision: int
    """The store's revision when it answered."""


class LeaseGrantResponse(NamedTuple):
    """The answer to ``grant_lease``."""

    revision: int
    """The store's revision when it answered."""
    id: int
    """The lease's id: what keys are put with."""
    ttl: int
    """Its length in seconds, which may be longer than what was asked for."""


class LeaseRevokeResponse(NamedTuple):
    """The answer to ``revoke_lease``: its keys are deleted."""

    revision: int
    """The revision of the write; the store's, if it changed nothing."""


class LeaseKeepAliveResponse(NamedTuple):
    """``ttl`` 0: there is no such lease, or it has expired."""

    revision: int
    """The store's revision when it answered."""
    id: int
    """The lease's id."""
    ttl: int
    """The seconds that it has from now on."""


class LeaseTimeToLiveResponse(NamedTuple):
    """``ttl``: whole seconds left, -1 for an unknown lease; ``keys`` only on request."""

    revision: int
    """The store's revision when it answered."""
    id: int
    """The lease's id."""
    ttl: int
    """The seconds left."""
    granted_ttl: int
    """The seconds that it was granted."""
    keys: tuple[bytes, ...]
    """The keys that hang on it."""


class LeaseLeasesResponse(NamedTuple):
    revision: int
    leases: tuple[int, ...]


class HashKVResponse(NamedTuple):
    """``hash``: etcd's HashKV, a CRC-32C over the rows that etcd would keep at ``hash_revision``."""

    revision: int
    """The store's revision when it answered."""
    hash: int
    """The hash."""
    compact_revision: int
    """The revision below which the past is gone, as it was hashed."""
    hash_revision: int
    """The revision up to which it goes."""


class Alarm(NamedTuple):
    """``alarm``: "NOSPACE" or "CORRUPT"."""

    member_id: int
    """Whose alarm it is."""
    alarm: str
    """Which one."""


class AlarmResponse(NamedTuple):
    """``alarms``: those of the request that are raised now, or that were cleared."""

    revision: int
    alarms: tuple[Alarm, ...]


class Event(NamedTuple):
    """One change. A delete's ``kv`` carries only key and mod_revision."""

    type: EventType
    """PUT or DELETE."""
    kv: KeyValue
    """The key as it is since."""
    prev_kv: KeyValue | None = None
    """The key as it was before, if it was asked for and was there."""


class WatchResponse(NamedTuple):
    """All events of one or more revisions, never part of one.

    ``revision``: everything up to it has been delivered once this response has been seen (a response without
    events is a progress notification). ``canceled`` ends the watch; ``compact_revision`` says why if non-zero.
    ``created`` marks a stream's first response for a watch.
    """

    revision: int
    """How far the watch is."""
    events: Sequence[Event] = ()
    """What changed, in order."""
    canceled: bool = False
    """Whether this is the last response."""
    compact_revision: int = 0
    """If what it was to tell is gone: the first revision that is kept."""
    cancel_reason: str = ""
    """Why it ended."""
    created: bool = False
    """Whether this is the first response of a stream's watch."""


class Change(NamedTuple):
    """A key that differs between two revisions; ``before`` or ``after`` is None if it did not exist."""

    key: bytes
    """The key."""
    before: KeyValue | None
    """Its version at the earlier revision."""
    after: KeyValue | None
    """Its version at the later one."""
