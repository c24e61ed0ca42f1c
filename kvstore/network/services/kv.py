"""KV: put, range, delete, transactions, compaction.

Both kinds of range, serializable or not, read the newest published revision: whatever was acknowledged is in it.
"""

from __future__ import annotations

from functools import partial

from google.protobuf.message import DecodeError

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import shallow
from kvstore.etcdpb.requests import TXN_KINDS, from_message, lone_key, put_fields, txn_request
from kvstore.etcdpb.responses import encode, encode_row
from kvstore.model import CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from kvstore.mvcc.plan import is_read_only
from kvstore.network.call import Call, Kind, Method, Running, decoded, malformed, methods
from kvstore.network.endpoint import Endpoint
from kvstore.network.paged import PagedRange

_put_request = partial(tuple.__new__, PutRequest)
"""``PutRequest._make`` without its Python code."""

ROWS_ON_THE_LOOP = 200
"""The most rows that are read between two looks at the sockets."""


def get(endpoint: Endpoint, message: bytes) -> bytes | None:
    """The answer to a range that asks for a key, and no more."""
    key = None if endpoint.users_are_on else lone_key(message)
    if key is None:
        return None
    revision, row = endpoint.engine.row(key)
    return encode_row(revision, row, endpoint.header)


def range_(endpoint: Endpoint, call: Call, message: bytes) -> Running | None:
    request: RangeRequest = from_message(decoded(pb.RangeRequest, message))
    if not _is_short(request):
        return PagedRange(endpoint, call, request)
    read = endpoint.reading(call, request, partial(endpoint.engine.range, request))
    call.answer(encode(read(), endpoint.header))
    return None


def _is_short(request: RangeRequest) -> bool:
    """Whether it looks at few rows. With a sort order, or bounds, every row of the range is looked at."""
    if not request.range_end:
        return True
    has_bounds = any(request[9 + 1 :]) or request.sort_order or request.sort_target
    return 0 < request.limit <= ROWS_ON_THE_LOOP and not has_bounds


def put(endpoint: Endpoint, call: Call, message: bytes) -> None:
    try:
        fields = put_fields(message)
    except DecodeError as error:
        raise malformed(error) from None
    endpoint.ask(call, _put_request(fields))


def delete_range(endpoint: Endpoint, call: Call, message: bytes) -> None:
    request: DeleteRangeRequest = from_message(decoded(pb.DeleteRangeRequest, message))
    endpoint.ask(call, request)


def txn(endpoint: Endpoint, call: Call, message: bytes) -> None:
    request = _decoded_txn(message)
    if is_read_only(request):
        read = endpoint.reading(call, request, partial(_read_txn, endpoint, request))
        endpoint.in_thread(call, read)
    else:
        endpoint.ask(call, request)


def _read_txn(endpoint: Endpoint, request: TxnRequest) -> bytes:
    return encode(endpoint.engine.txn(request), endpoint.header)


def _decoded_txn(message: bytes) -> TxnRequest:
    """protobuf decodes 100 levels of messages; what is nested deeper is decoded a transaction at a time."""
    try:
        return txn_request(message, TXN_KINDS)
    except DecodeError:
        request: TxnRequest = from_message(decoded(shallow.TxnRequest, message))
        return request


def compact(endpoint: Endpoint, call: Call, message: bytes) -> None:
    request = from_message(decoded(pb.CompactionRequest, message))
    if request.physical:
        if endpoint.users_are_on:
            endpoint.users.check(call, request)
        endpoint.in_thread(call, partial(_compact, endpoint, request.revision), slow=True)
    else:
        endpoint.ask(call, request)


def _compact(endpoint: Endpoint, revision: int) -> bytes:
    response: CompactionResponse = endpoint.engine.compact(revision, physical=True)
    return encode(response, endpoint.header)


METHODS = [
    Method("etcdserverpb.KV", "Range", Kind.UNARY, range_, pb.RangeRequest, pb.RangeResponse, get),
    *methods("etcdserverpb.KV", pb, Put=put, DeleteRange=delete_range, Txn=txn),
    Method("etcdserverpb.KV", "Compact", Kind.UNARY, compact, pb.CompactionRequest, pb.CompactionResponse),
]
