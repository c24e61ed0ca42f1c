"""etcd's request messages as requests of ``kvstore.model``, and back.

Most have the same fields on both sides. Some say more than the model can express; code that needs that takes it from
the message itself: ``serializable``, and ``watch_id`` and ``fragment`` of a watch.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from kvstore.errors import BadArgument
from kvstore.implementation import native
from kvstore.model import (
    AlarmRequest,
    CompactionRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    Op,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)

from .messages import MESSAGES, etcdserverpb, shallow

NESTING_MAX = 150
"""How deep transactions may be nested; a server with its default limit of ops lets 128 levels into its log."""

OPS = {
    RangeRequest: "request_range",
    PutRequest: "request_put",
    DeleteRangeRequest: "request_delete_range",
    TxnRequest: "request_txn",
}
"""The member of a ``RequestOp`` for each kind of op."""

OPERANDS = ("version", "create_revision", "mod_revision", "value", "lease")
"""By target: the member of a ``Compare`` that is its operand."""

_PUT_FIELDS = attrgetter(*PutRequest._fields)
_RANGE_FIELDS = attrgetter(*RangeRequest._fields)
_SPELT = {"id": "ID", "ttl": "TTL"}
_ALARMS = MESSAGES.enum("etcdserverpb.AlarmType")
_ACTIVATE, _DEACTIVATE = etcdserverpb.AlarmRequest.ACTIVATE, etcdserverpb.AlarmRequest.DEACTIVATE
_NO_PUT, _NO_DELETE = etcdserverpb.WatchCreateRequest.NOPUT, etcdserverpb.WatchCreateRequest.NODELETE


def from_message(message: Any) -> Any:
    """The request of ``kvstore.model`` that a message asks for; ``BadArgument`` if it asks for none."""
    try:
        read = _READ[message.DESCRIPTOR.name]
    except KeyError:
        raise BadArgument(f"{message.DESCRIPTOR.name} is no request of the store's") from None
    return read(message)


def to_message(request: Any) -> Any:
    """The message that asks for a request; ``BadArgument`` if etcd's API cannot express it."""
    try:
        write = _WRITE[type(request)]
    except KeyError:
        raise BadArgument(f"etcd's API has no {type(request).__name__}") from None
    return write(request)


# --- from bytes ----------------------------------------------------------------------------------


_KEY_TAG = etcdserverpb.RangeRequest.DESCRIPTOR.fields_by_name["key"].number << 3 | 2


@native
def lone_key(message: bytes) -> bytes | None:
    """The key of a range that asks for a short one, and says nothing else; None of any other message."""
    if len(message) > 2 and message[0] == _KEY_TAG and message[1] == len(message) - 2 < 0x80:
        return message[2:]
    return None


@native
def put_fields(message: bytes) -> tuple[Any, ...]:
    """The fields of a ``PutRequest``. Raises protobuf's ``DecodeError``."""
    fields: tuple[Any, ...] = _PUT_FIELDS(etcdserverpb.PutRequest.FromString(message))
    return fields


@native
def txn_request(message: bytes, _kinds: Any) -> TxnRequest:
    """The ``TxnRequest`` of a message. Raises ``DecodeError``, and what ``from_message`` raises.

    ``_kinds``: ``TXN_KINDS``, of which C makes it.
    """
    return _from_txn(etcdserverpb.TxnRequest.FromString(message))


TXN_KINDS = TxnRequest, Compare, PutRequest, RangeRequest(b"key")


# --- transactions --------------------------------------------------------------------------------


def _from_txn(txn: Any, nesting: int = 0) -> TxnRequest:
    if nesting > NESTING_MAX:
        raise BadArgument(f"transactions are nested more than {NESTING_MAX} deep")
    return TxnRequest(
        tuple([_from_compare(compare) for compare in txn.compare]),
        tuple([_from_op(op, nesting) for op in txn.success]),
        tuple([_from_op(op, nesting) for op in txn.failure]),
    )


def _from_op(op: Any, nesting: int) -> Op:
    kind = op.WhichOneof("request")
    if kind is None:
        return None
    if kind == "request_txn":
        return _from_txn(nested_txn(op), nesting + 1)
    request: Op = _READ_OP[kind](getattr(op, kind))
    return request


def nested_txn(op: Any) -> Any:
    """The transaction, as an op of another."""
    txn = op.request_txn
    return shallow.TxnRequest.FromString(txn) if isinstance(txn, bytes) else txn


def _to_txn(request: TxnRequest) -> Any:
    return etcdserverpb.TxnRequest(
        compare=map(_to_compare, request.compare),
        success=map(_to_op, request.success),
        failure=map(_to_op, request.failure),
    )


def _to_op(op: Op) -> Any:
    return etcdserverpb.RequestOp(**{} if op is None else {OPS[type(op)]: to_message(op)})


def _from_compare(compare: Any) -> Compare:
    """Read a compare as etcd does, even with numbers that it has no name for: an unknown target counts as 0 compared
    with 0, an unknown result is true of any key that exists. An operand that is not the target's counts as absent."""
    target, result = compare.target, compare.result
    key, range_end = compare.key, compare.range_end
    if not 0 <= result <= CompareResult.NOT_EQUAL:
        if target == CompareTarget.VALUE:
            return Compare(key, CompareTarget.VERSION, CompareResult.GREATER, 0, range_end)
        return _always(True, key)
    if not 0 <= target < len(OPERANDS):
        return _always(result == CompareResult.EQUAL, key)
    name = OPERANDS[target]
    operand = getattr(compare, name)  # its default, if it has another's
    return Compare(key, target, result, operand, range_end)


def _always(holds: bool, key: bytes) -> Compare:
    """A compare that always, or never, holds, whatever the key: no version is -1."""
    return Compare(key, CompareTarget.VERSION, CompareResult.NOT_EQUAL if holds else CompareResult.EQUAL, -1)


def _to_compare(compare: Compare) -> Any:
    key, target, result, operand, range_end = compare
    return etcdserverpb.Compare(
        key=key, target=target, result=result, range_end=range_end, **{OPERANDS[target]: operand}
    )


def _from_range(found: Any) -> RangeRequest:
    """Most ranges say nothing but a key."""
    if len(found.ListFields()) == 1 and (key := found.key):
        return RangeRequest(key)
    return RangeRequest(*_RANGE_FIELDS(found))


# --- watches and alarms --------------------------------------------------------------------------


def _from_watch(create: Any) -> WatchRequest:
    return WatchRequest(
        create.key,
        create.range_end,
        create.start_revision,
        prev_kv=create.prev_kv,
        no_put=_NO_PUT in create.filters,
        no_delete=_NO_DELETE in create.filters,
        progress_notify=create.progress_notify,
    )


def _to_watch(watch: WatchRequest) -> Any:
    if watch.start_sub:
        raise BadArgument(
            f"start_sub: etcd's watches begin with a whole revision, not at change {watch.start_sub}"
        )
    return etcdserverpb.WatchCreateRequest(
        key=watch.key,
        range_end=watch.range_end,
        start_revision=watch.start_revision,
        prev_kv=watch.prev_kv,
        filters=[_NO_PUT] * watch.no_put + [_NO_DELETE] * watch.no_delete,
        progress_notify=watch.progress_notify,
    )


def _from_alarm(alarm: Any) -> AlarmRequest | None:
    """None if it only queries, or names an alarm that does not exist."""
    if alarm.action not in (_ACTIVATE, _DEACTIVATE) or not 0 < alarm.alarm < len(_ALARMS):
        return None
    return AlarmRequest(alarm.memberID, _ALARMS[alarm.alarm], alarm.action == _ACTIVATE)


def _to_alarm(request: AlarmRequest) -> Any:
    action = _ACTIVATE if request.on else _DEACTIVATE
    return etcdserverpb.AlarmRequest(action=action, memberID=request.member_id, alarm=request.alarm)


# --- by kind -------------------------------------------------------------------------------------

_READ: dict[str, Callable[[Any], Any]] = {
    "TxnRequest": _from_txn,
    "WatchCreateRequest": _from_watch,
    "AlarmRequest": _from_alarm,
}
_WRITE: dict[type, Callable[[Any], Any]] = {
    TxnRequest: _to_txn,
    WatchRequest: _to_watch,
    AlarmRequest: _to_alarm,
}


def _add_plain(kind: Any) -> None:
    """Register a request whose fields are the message's."""
    names = [_SPELT.get(name, name) for name in kind._fields]
    message = getattr(etcdserverpb, kind.__name__)
    if len(names) > 1:
        fields = attrgetter(*names)
        _READ[kind.__name__] = lambda found: kind(*fields(found))
    else:
        _READ[kind.__name__] = lambda found: kind(*[getattr(found, name) for name in names])
    _WRITE[kind] = lambda request: message(**dict(zip(names, request, strict=True)))


for _kind in (
    RangeRequest,
    PutRequest,
    DeleteRangeRequest,
    CompactionRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest,
    LeaseLeasesRequest,
):
    _add_plain(_kind)

_READ["RangeRequest"] = _from_range
_READ_OP = {member: _READ[kind.__name__] for kind, member in OPS.items()}
"""By the member of a ``RequestOp``."""
