"""How large a request is, counted as etcd does: the bytes of the message that its log would hold.

    InternalRaftRequest = 100 header {1 id}, and one of: 4 put, 5 delete_range, 6 txn

A request is measured only where a bound that costs next to nothing does not settle the matter.
"""

from __future__ import annotations

from kvstore.errors import RequestTooLarge
from kvstore.model import Compare, DeleteRangeRequest, Op, PutRequest, TxnRequest
from kvstore.wire import varint

_HEADER_BYTES = 13
"""With an id of nine bytes; etcd's has ten in every second cluster."""

_OVERHEAD_BYTES = 128
"""More than any one op or compare takes besides its keys and its value."""

Write = PutRequest | DeleteRangeRequest | TxnRequest


def check_size(request: Write, max_bytes: int) -> None:
    """Refuse a request that is larger than ``max_bytes``."""
    if _at_most_bytes(request) > max_bytes and request_bytes(request) > max_bytes:
        raise RequestTooLarge


def _at_most_bytes(request: Write) -> int:
    if isinstance(request, PutRequest):
        return _OVERHEAD_BYTES + len(request.key) + len(request.value)
    if isinstance(request, DeleteRangeRequest):
        return _OVERHEAD_BYTES + len(request.key) + len(request.range_end)
    total = _OVERHEAD_BYTES
    for compare in request.compare:
        operand = compare.operand
        total += _OVERHEAD_BYTES + len(compare.key) + len(compare.range_end)
        total += len(operand) if isinstance(operand, bytes) else 0
    for op in (*request.success, *request.failure):
        if isinstance(op, TxnRequest):
            total += _at_most_bytes(op)
        elif op is not None:
            total += (
                _OVERHEAD_BYTES + len(op.key) + len(op.value if isinstance(op, PutRequest) else op.range_end)
            )
    return total


def request_bytes(request: Write) -> int:
    """The size itself."""
    return _HEADER_BYTES + _field(_message(request))


def _message(message: Op) -> int:
    if message is None:
        return 0
    if isinstance(message, TxnRequest):
        parts = [_compare(compare) for compare in message.compare]
        parts += [
            _field(_message(op)) if op is not None else 0 for op in (*message.success, *message.failure)
        ]
        return sum(map(_field, parts))
    key, value_or_end, *numbers = message
    return _data(key) + _data(value_or_end) + sum(map(_number, numbers))


def _compare(compare: Compare) -> int:
    """Its operand is a member of a oneof, and there also where it is zero or empty; range_end has number 64."""
    key, target, result, operand, range_end = compare
    size = _data(key) + _number(target) + _number(result)
    size += _field(len(operand)) if isinstance(operand, bytes) else 1 + len(varint(operand))
    return size + _data(range_end) + bool(range_end)


def _field(size: int) -> int:
    return 1 + len(varint(size)) + size


def _data(data: bytes) -> int:
    return _field(len(data)) if data else 0


def _number(number: int) -> int:
    return 1 + len(varint(number)) if number else 0
