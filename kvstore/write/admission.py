"""The checks a request has to pass before it is planned: is it well formed, is it small enough, what does it cost?

``check`` looks only at the request and the options, so it needs no lock. Whether there is room for that cost is for
``write/room.py`` to say, and whether the store can carry the request out, for the planner.

    cost   put: 256 + key + value · txn: the dearer branch, nested ones included · lease: 64 · anything else: 0

A request that costs nothing is never refused for lack of room.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kvstore.errors import BadArgument, LeaseProvided
from kvstore.model import (
    ALARMS,
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    GuardedRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    Op,
    PutRequest,
    PutWithTTLRequest,
    Request,
    RowsRequest,
    TxnRequest,
)
from kvstore.mvcc.plan import is_read_only
from kvstore.mvcc.size import check_size, is_surely_small
from kvstore.mvcc.validate import (
    PLAIN_KINDS,
    check_delete,
    check_int64,
    check_put,
    check_txn,
    plain_parts_bytes,
    plain_puts_bytes,
)
from kvstore.options import Options

PUT_COST_BYTES = 256
GRANT_COST_BYTES = 64


def check(request: Request, options: Options) -> int:
    """The bytes of room that a request takes. Raises ``RequestError`` or ``TypeError`` if it is refused as it stands.

    Requests that the store makes only for itself do not come through here: ``TypeError``.
    """
    try:
        look = _CHECKS[request.__class__]
    except KeyError:
        raise TypeError(f"a {type(request).__name__} is no request that a caller makes") from None
    return look(request, options)


def _put(request: PutRequest, options: Options) -> int:
    key, value, lease, _, ignore_value, ignore_lease = request
    is_plain = (
        type(key) is bytes and type(value) is bytes and key and not (lease or ignore_value or ignore_lease)
    )
    if not is_plain:
        check_put(request)
    size_bytes = len(key) + len(value)
    if not is_surely_small(1, size_bytes, options.max_request_bytes):
        check_size(request, options.max_request_bytes)
    return PUT_COST_BYTES + size_bytes


def _put_with_ttl(request: PutWithTTLRequest, options: Options) -> int:
    put = request.put
    ttl_seconds: object = request.ttl_seconds
    cost_bytes = _put(put, options) + GRANT_COST_BYTES
    if not isinstance(ttl_seconds, float):
        check_int64("ttl", ttl_seconds)
    elif not 0 < ttl_seconds < math.inf:
        raise BadArgument(f"ttl must be more than 0 seconds, not {ttl_seconds}")
    if put.lease or put.ignore_lease:
        raise LeaseProvided
    return cost_bytes


def _delete(request: DeleteRangeRequest, options: Options) -> int:
    check_delete(request)
    check_size(request, options.max_request_bytes)
    return 0


def _txn(request: TxnRequest, options: Options) -> int:
    puts, size_bytes = len(request.success), plain_puts_bytes(request)
    if (
        size_bytes > 0
        and puts <= options.max_txn_ops
        and is_surely_small(puts, size_bytes, options.max_request_bytes)
    ):
        return PUT_COST_BYTES * puts + size_bytes
    parts = len(request.compare) + puts + len(request.failure)
    size_bytes = plain_parts_bytes(request.compare, request[1:], PLAIN_KINDS)
    if (
        size_bytes >= 0
        and parts <= options.max_txn_ops
        and is_surely_small(parts, size_bytes, options.max_request_bytes)
    ):
        return txn_cost(request)
    check_txn(request, options.max_txn_ops)
    if is_read_only(request):
        return 0
    check_size(request, options.max_request_bytes)
    return txn_cost(request)


def txn_cost(request: TxnRequest) -> int:
    """What the puts of the dearer branch cost."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))


def _branch_cost(ops: tuple[Op, ...]) -> int:
    total = 0
    for op in ops:
        if isinstance(op, PutRequest):
            total += PUT_COST_BYTES + len(op.key) + len(op.value)
        elif isinstance(op, TxnRequest):
            total += txn_cost(op)
    return total


def _compact(request: CompactionRequest, _: Options) -> int:
    check_int64("revision", request.revision)
    return 0


def _grant(request: LeaseGrantRequest, _: Options) -> int:
    check_int64("ttl", request.ttl)
    check_int64("lease", request.id)
    return GRANT_COST_BYTES


def _lease(request: LeaseRevokeRequest | LeaseKeepAliveRequest | LeaseTimeToLiveRequest, _: Options) -> int:
    check_int64("lease", request.id)
    return 0


def _alarm(request: AlarmRequest, _: Options) -> int:
    if request.alarm not in ALARMS:
        raise BadArgument(f"alarm must be one of {', '.join(ALARMS)}, not {request.alarm!r:.80}")
    return 0


def _rows(request: RowsRequest, _: Options) -> int:
    if not callable(request.decide):
        raise TypeError(f"decide must be a function, not {request.decide!r:.80}")
    return 0


def _guarded(request: GuardedRequest, options: Options) -> int:
    inner = request.request
    cost_bytes = check(inner, options)
    if isinstance(inner, (PutRequest, DeleteRangeRequest, TxnRequest)):
        check_size(inner, options.max_request_bytes - request.header_bytes)
    return cost_bytes


def _free(_request: Request, _options: Options) -> int:
    return 0


_CHECKS: dict[type, Callable[[Any, Options], int]] = {
    PutRequest: _put,
    PutWithTTLRequest: _put_with_ttl,
    DeleteRangeRequest: _delete,
    TxnRequest: _txn,
    CompactionRequest: _compact,
    LeaseGrantRequest: _grant,
    LeaseRevokeRequest: _lease,
    LeaseKeepAliveRequest: _lease,
    LeaseTimeToLiveRequest: _lease,
    LeaseLeasesRequest: _free,
    AlarmRequest: _alarm,
    RowsRequest: _rows,
    GuardedRequest: _guarded,
}
