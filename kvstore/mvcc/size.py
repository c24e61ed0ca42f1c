"""How large a request may be.

``max_request_bytes`` limits what etcd counts (``kvstore.etcdpb.sizes``). A request is only measured if a nearly free
upper bound does not settle the question.

Whatever ``max_request_bytes`` says, a write that could not be kept is refused:

    row     a version of a key. One limit for all backends, because a store can be moved to another: SQLite's rows end
            at 1,000,000,000 bytes, and a row of ``history`` has the key in it, and once more, at up to twice its length
    entry   what one write puts into the log, where a record has at most 1 GiB. A deletion of a range or a transaction
            that takes more is refused; a lease with that many keys is revoked piece by piece
"""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import RequestTooLarge
from kvstore.model import DeleteRangeRequest, Op, PutRequest, TxnRequest
from kvstore.shelter import import_sheltered
from kvstore.wal.format import MAX_RECORD_BYTES

ROW_BYTES_MAX = 990_000_000
ENTRY_BYTES_MAX = MAX_RECORD_BYTES - 4096
REMOVAL_BYTES_MAX = 64 << 20
"""How much log one piece takes of a removal that does not fit one entry."""

_OVERHEAD_BYTES = 128
"""More than any one op or compare takes in addition to its keys and its value."""

_REMOVAL_OVERHEAD_BYTES = 40
"""More than a removal takes for its tags, lengths and lease id."""

Write = PutRequest | DeleteRangeRequest | TxnRequest


def check_size(request: Write, max_bytes: int) -> None:
    """Refuse a request that is larger than ``max_bytes``, or puts a row that no backend is sure to hold."""
    at_most = _at_most_bytes(request)
    if at_most > max_bytes and (size := _request_bytes(request)) > max_bytes:
        raise RequestTooLarge(size, max_bytes, key=request.key if isinstance(request, PutRequest) else b"")
    if at_most * 3 > ROW_BYTES_MAX:
        _check_rows(request)


def is_surely_small(puts: int, size_bytes: int, max_bytes: int) -> bool:
    """Whether ``check_size`` passes this many puts, with keys and values of ``size_bytes`` in all."""
    at_most = size_bytes + _OVERHEAD_BYTES * (puts + 1)
    return at_most <= max_bytes and at_most * 3 <= ROW_BYTES_MAX


def _request_bytes(request: Write) -> int:
    import_sheltered("kvstore.etcdpb.sizes")
    from kvstore.etcdpb.sizes import request_bytes

    return request_bytes(request)


def _check_rows(request: Op) -> None:
    if isinstance(request, TxnRequest):
        for op in (*request.success, *request.failure):
            _check_rows(op)
    elif isinstance(request, PutRequest):
        size = 3 * len(request.key) + len(request.value)
        if size > ROW_BYTES_MAX:
            raise RequestTooLarge(size, ROW_BYTES_MAX, "a row (the value, and three times the key)")


def check_entry(size_bytes: int) -> None:
    """Refuse a write that would take more than a record of the log holds."""
    if size_bytes > ENTRY_BYTES_MAX:
        raise RequestTooLarge(size_bytes, ENTRY_BYTES_MAX, "a record of the log")


def first_piece(keys: Sequence[bytes]) -> int:
    """How many of a lease's keys to delete in one entry: all, unless they do not fit."""
    if sum(map(removal_bytes, keys)) <= ENTRY_BYTES_MAX - _OVERHEAD_BYTES:
        return len(keys)
    taken = 0
    for count, key in enumerate(keys):
        taken += removal_bytes(key)
        if taken > REMOVAL_BYTES_MAX:
            return max(count, 1)
    return len(keys)


def removal_bytes(key: bytes) -> int:
    """The most log that removing a key from the store and from its lease can take."""
    return 2 * len(key) + _REMOVAL_OVERHEAD_BYTES


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
