"""How large a request is, counted as in etcd: the bytes of the message that its log would hold.

    InternalRaftRequest = header {ID}, and one of: put, delete_range, txn

Computed from the fields' sizes, without making the message: a large request is not copied just to be refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvstore.model import Compare, DeleteRangeRequest, Op, PutRequest, RangeRequest, TxnRequest
from kvstore.wire import varint

from .messages import etcdserverpb
from .requests import OPERANDS, OPS

_ID_BYTES = 9
"""For the request's id; in etcd it has ten bytes in every second cluster."""

_LOGGED = {PutRequest: "put", DeleteRangeRequest: "delete_range", TxnRequest: "txn"}


def _tag_bytes(message: str, *names: str) -> list[int]:
    """How many bytes the tags of these fields take."""
    numbers = getattr(etcdserverpb, message).DESCRIPTOR.fields_by_name
    return [len(varint(numbers[name].number << 3)) for name in names]


(_HEADER_TAG,) = _tag_bytes("InternalRaftRequest", "header")
(_ID_TAG,) = _tag_bytes("RequestHeader", "ID")
_LOGGED_TAGS = dict(zip(_LOGGED, _tag_bytes("InternalRaftRequest", *_LOGGED.values()), strict=True))
_OP_TAGS = dict(zip(OPS, _tag_bytes("RequestOp", *OPS.values()), strict=True))
_OPERAND_TAGS = _tag_bytes("Compare", *OPERANDS)
_COMPARE_TAGS = _tag_bytes("Compare", "key", "target", "result", "range_end")
_TXN_TAGS = _tag_bytes("TxnRequest", *TxnRequest._fields)
_PLAIN_TAGS = {
    kind: _tag_bytes(kind.__name__, *kind._fields) for kind in (RangeRequest, PutRequest, DeleteRangeRequest)
}


def request_bytes(request: PutRequest | DeleteRangeRequest | TxnRequest) -> int:
    """The size of the message in the log."""
    header = _sized(_HEADER_TAG, _ID_TAG + _ID_BYTES)
    return header + _sized(_LOGGED_TAGS[type(request)], _message(request))


def _message(message: Op) -> int:
    if isinstance(message, TxnRequest):
        return _txn(message)
    return 0 if message is None else _fields(_PLAIN_TAGS[type(message)], message)


def _txn(txn: TxnRequest) -> int:
    compare_tag, success_tag, failure_tag = _TXN_TAGS
    total = sum(_sized(compare_tag, _compare(compare)) for compare in txn.compare)
    for tag, ops in ((success_tag, txn.success), (failure_tag, txn.failure)):
        total += sum(_sized(tag, 0 if op is None else _sized(_OP_TAGS[type(op)], _message(op))) for op in ops)
    return total


def _compare(compare: Compare) -> int:
    """The operand is a member of a oneof, and so present even if it is zero or empty."""
    key, target, result, operand, range_end = compare
    fields = _fields(_COMPARE_TAGS, (key, target, result, range_end))
    return fields + (_field(_OPERAND_TAGS[target], operand) or _OPERAND_TAGS[target] + 1)


def _fields(tags: Iterable[int], values: Iterable[Any]) -> int:
    return sum(map(_field, tags, values))


def _field(tag: int, value: int | bytes) -> int:
    if not value:
        return 0
    return _sized(tag, len(value)) if isinstance(value, bytes) else tag + len(varint(value))


def _sized(tag: int, size: int) -> int:
    return tag + len(varint(size)) + size
