"""Requests of ``kvstore.model`` as bytes of etcd's messages, and its answers as responses of ``kvstore.model``.

The two requests that nearly all calls are made of, a put and a get of one key, are written by hand (and in C).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kvstore.errors import Corruption
from kvstore.etcdpb.messages import MESSAGES
from kvstore.etcdpb.requests import to_message
from kvstore.implementation import native
from kvstore.keyvalue import KeyValue, KeyValues
from kvstore.model import (
    Alarm,
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
    TxnRequest,
    TxnResponse,
)
from kvstore.mvcc.validate import check_delete, check_key, check_put, check_range, check_txn
from kvstore.network.remote.answers import PutBody, RangeBody, put_body, range_body
from kvstore.network.remote.messages import remote
from kvstore.wire import varint

OPS_MAX = 1 << 31
"""How many operations a transaction may have is for the server to say."""
_ALARMS = MESSAGES.enum("etcdserverpb.AlarmType")
_put_response: Any = partial(tuple.__new__, PutResponse)
_SERIALIZABLE = b"\x38\1"

# --- requests ---------------------------------------------------------------------------------------


def encode(request: Any) -> bytes:
    data: bytes = to_message(request).SerializeToString()
    return data


@native
def get_message(key: bytes) -> bytes:
    """A range over one key."""
    if not key or type(key) is not bytes:
        check_key(key)
    return b"\n%b%b" % (varint(len(key)), key)


def range_request(request: RangeRequest) -> bytes:
    check_range(request)
    return encode(request)


def serializable(message: bytes) -> bytes:
    """The same range, answered from what the server has."""
    return message + _SERIALIZABLE


@native
def put_message(request: PutRequest) -> bytes:
    key, value, lease, prev_kv, ignore_value, ignore_lease = request
    is_plain = type(key) is type(value) is bytes and not (lease or prev_kv or ignore_value or ignore_lease)
    if not (is_plain and key and value):
        check_put(request)
        return encode(request)
    return b"\n%b%b\x12%b%b" % (varint(len(key)), key, varint(len(value)), value)


def delete_request(request: DeleteRangeRequest) -> bytes:
    check_delete(request)
    return encode(request)


def txn_request(request: TxnRequest) -> bytes:
    check_txn(request, OPS_MAX)
    return encode(request)


# --- answers ----------------------------------------------------------------------------------------


def one_row(body: RangeBody) -> KeyValue | None:
    rows = body[1]
    return KeyValue.decoded(rows[0]) if rows else None


def range_response(body: RangeBody) -> RangeResponse:
    revision, rows, more, count = body
    return RangeResponse(revision, KeyValues(rows), more, count)


def put_response(body: PutBody) -> PutResponse:
    revision, row = body
    made: PutResponse = _put_response((revision, None if row is None else KeyValue.from_row(row)))
    return made


def delete_response(answer: Any) -> DeleteRangeResponse:
    return DeleteRangeResponse(answer.header.revision, answer.deleted, KeyValues(list(answer.prev_kvs)))


def txn_response(answer: Any) -> TxnResponse:
    return TxnResponse(
        answer.header.revision, answer.succeeded, tuple([_op_response(each) for each in answer.responses])
    )


def _op_response(answer: Any) -> Any:
    kind = answer.WhichOneof("response")
    if kind == "response_range":
        return range_response(range_body(answer.response_range))
    if kind == "response_put":
        return put_response(put_body(answer.response_put))
    if kind == "response_delete_range":
        return delete_response(answer.response_delete_range)
    if kind == "response_txn":
        return txn_response(remote.Txn.FromString(answer.response_txn))
    raise Corruption("an answer to an operation of a transaction is of no known kind", "the server's answer")


def compaction_response(answer: Any) -> CompactionResponse:
    return CompactionResponse(answer.header.revision)


def hash_kv_response(asked: int, answer: Any) -> HashKVResponse:
    """Servers before 3.6 do not say which revision they took: the one that was asked for, or that of the header."""
    revision = answer.header.revision
    return HashKVResponse(
        revision, answer.hash, answer.compact_revision, answer.hash_revision or asked or revision
    )


def grant_response(answer: Any) -> LeaseGrantResponse:
    return LeaseGrantResponse(answer.header.revision, answer.ID, answer.TTL)


def revoke_response(answer: Any) -> LeaseRevokeResponse:
    return LeaseRevokeResponse(answer.header.revision)


def keep_alive_response(answer: Any) -> LeaseKeepAliveResponse:
    return LeaseKeepAliveResponse(answer.header.revision, answer.ID, answer.TTL)


def time_to_live_response(answer: Any) -> LeaseTimeToLiveResponse:
    return LeaseTimeToLiveResponse(
        answer.header.revision, answer.ID, answer.TTL, answer.grantedTTL, tuple(answer.keys)
    )


def leases_response(answer: Any) -> LeaseLeasesResponse:
    return LeaseLeasesResponse(answer.header.revision, tuple([lease.ID for lease in answer.leases]))


def alarms(answer: Any) -> tuple[Alarm, ...]:
    return tuple(
        Alarm(each.memberID, _ALARMS[each.alarm]) for each in answer.alarms if each.alarm < len(_ALARMS)
    )
