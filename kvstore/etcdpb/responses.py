"""Responses of ``kvstore.model`` as etcd's response messages, encoded.

Frequent ones are encoded by hand, with rows as they are stored; the rest by protobuf.

An outermost response carries the server's whole header, a response inside a transaction's only the revision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.keyvalue import KeyValues, split_row
from kvstore.model import (
    CompactionResponse,
    DeleteRangeResponse,
    Event,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    PutResponse,
    RangeResponse,
    TxnResponse,
    WatchResponse,
)
from kvstore.wire import BYTES, VARINT, varint

from .messages import etcdserverpb, mvccpb


def _tag(message: Any, field: str) -> bytes:
    found = message.DESCRIPTOR.fields_by_name[field]
    is_number = found.cpp_type not in (found.CPPTYPE_STRING, found.CPPTYPE_MESSAGE)
    return varint(found.number << 3 | (VARINT if is_number else BYTES))


def _tags(message: Any, *fields: str) -> list[bytes]:
    return [_tag(message, field) for field in fields]


_CLUSTER_ID, _MEMBER_ID, _REVISION, _RAFT_TERM = _tags(
    etcdserverpb.ResponseHeader, "cluster_id", "member_id", "revision", "raft_term"
)
_HEADER = _tag(etcdserverpb.PutResponse, "header")
_KVS, _MORE, _COUNT = _tags(etcdserverpb.RangeResponse, "kvs", "more", "count")
_PREV_KV = _tag(etcdserverpb.PutResponse, "prev_kv")
_DELETED, _PREV_KVS = _tags(etcdserverpb.DeleteRangeResponse, "deleted", "prev_kvs")
_SUCCEEDED, _RESPONSES = _tags(etcdserverpb.TxnResponse, "succeeded", "responses")
_OP_TAGS = dict(
    zip(
        (RangeResponse, PutResponse, DeleteRangeResponse, TxnResponse),
        _tags(
            etcdserverpb.ResponseOp, "response_range", "response_put", "response_delete_range", "response_txn"
        ),
        strict=True,
    )
)
_WATCH_ID, _CREATED, _CANCELED, _COMPACT_REVISION, _CANCEL_REASON, _FRAGMENT, _EVENTS = _tags(
    etcdserverpb.WatchResponse,
    *("watch_id", "created", "canceled", "compact_revision", "cancel_reason", "fragment", "events"),
)
_KEY = _tag(mvccpb.KeyValue, "key")[0]
"""How a row begins that is a KeyValue without a prefix."""
_TYPE, _KV, _EVENT_PREV_KV = _tags(mvccpb.Event, "type", "kv", "prev_kv")


def _data(tag: bytes, data: bytes) -> bytes:
    return b"%b%b%b" % (tag, varint(len(data)), data)


def _number(tag: bytes, value: int) -> bytes:
    return tag + varint(value) if value else b""


class Header:
    """What a server says about itself in every response, besides the revision."""

    def __init__(self, cluster_id: int = 0, member_id: int = 0, raft_term: int = 0) -> None:
        self._ids = _number(_CLUSTER_ID, cluster_id) + _number(_MEMBER_ID, member_id)
        self._term = _number(_RAFT_TERM, raft_term)

    def at(self, revision: int) -> bytes:
        """The header, as a field of a response."""
        return _data(_HEADER, b"%b%b%b" % (self._ids, _number(_REVISION, revision), self._term))


_INNER = Header()


def encode(response: Any, header: Header) -> bytes:
    """The message of a response of ``kvstore.model``, encoded; ``TypeError`` if it is not one."""
    try:
        body = _BODIES[type(response)]
    except KeyError:
        raise TypeError(f"not an answer: {response!r}") from None
    return header.at(response.revision) + body(response)


def encode_watch(
    response: WatchResponse, watch_id: int, header: Header, *, is_fragment: bool = False
) -> bytes:
    """The message of a watch's response. ``is_fragment``: more of the same response follows."""
    return b"".join(
        [
            header.at(response.revision),
            _number(_WATCH_ID, watch_id),
            _number(_CREATED, response.created),
            _number(_CANCELED, response.canceled),
            _number(_COMPACT_REVISION, response.compact_revision),
            _data(_CANCEL_REASON, response.cancel_reason.encode()) if response.cancel_reason else b"",
            _number(_FRAGMENT, is_fragment),
            *[_data(_EVENTS, encode_event(event)) for event in response.events],
        ]
    )


def encode_event(event: Event) -> bytes:
    """The message of a watch's event."""
    changed = _number(_TYPE, event.type) + _data(_KV, event.kv.to_protobuf())
    return changed if event.prev_kv is None else changed + _data(_EVENT_PREV_KV, event.prev_kv.to_protobuf())


def to_message(response: Any, header: Header) -> Any:
    """The message of a response, decoded."""
    return getattr(etcdserverpb, type(response).__name__).FromString(encode(response, header))


# --- by hand -------------------------------------------------------------------------------------


def _range(response: RangeResponse) -> bytes:
    _revision, kvs, more, count = response
    return b"%b%b%b" % (_key_values(_KVS, kvs), _number(_MORE, more), _number(_COUNT, count))


def _put(response: PutResponse) -> bytes:
    return b"" if response.prev_kv is None else _data(_PREV_KV, response.prev_kv.to_protobuf())


def _delete_range(response: DeleteRangeResponse) -> bytes:
    return _number(_DELETED, response.deleted) + _key_values(_PREV_KVS, response.prev_kvs)


def _txn(response: TxnResponse) -> bytes:
    parts = [_number(_SUCCEEDED, response.succeeded)]
    for each in response.responses:
        parts.append(_data(_RESPONSES, _data(_OP_TAGS[type(each)], encode(each, _INNER))))
    return b"".join(parts)


def _key_values(tag: bytes, kvs: KeyValues) -> bytes:
    return b"".join([_data(tag, row if row[0] == _KEY else split_row(row)[1]) for row in kvs.rows])


# --- by protobuf ---------------------------------------------------------------------------------


def _encoded(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _lease_grant(response: LeaseGrantResponse) -> bytes:
    return _encoded(etcdserverpb.LeaseGrantResponse(ID=response.id, TTL=response.ttl))


def _lease_keep_alive(response: LeaseKeepAliveResponse) -> bytes:
    return _encoded(etcdserverpb.LeaseKeepAliveResponse(ID=response.id, TTL=response.ttl))


def _lease_time_to_live(response: LeaseTimeToLiveResponse) -> bytes:
    _revision, lease, ttl, granted_ttl, keys = response
    return _encoded(
        etcdserverpb.LeaseTimeToLiveResponse(ID=lease, TTL=ttl, grantedTTL=granted_ttl, keys=keys)
    )


def _lease_leases(response: LeaseLeasesResponse) -> bytes:
    return _encoded(etcdserverpb.LeaseLeasesResponse(leases=[{"ID": lease} for lease in response.leases]))


def _hash_kv(response: HashKVResponse) -> bytes:
    _revision, hash_, compact_revision, hash_revision = response
    return _encoded(
        etcdserverpb.HashKVResponse(
            hash=hash_, compact_revision=compact_revision, hash_revision=hash_revision
        )
    )


_BODIES: dict[type, Callable[[Any], bytes]] = {
    RangeResponse: _range,
    PutResponse: _put,
    DeleteRangeResponse: _delete_range,
    TxnResponse: _txn,
    CompactionResponse: lambda _response: b"",
    LeaseGrantResponse: _lease_grant,
    LeaseRevokeResponse: lambda _response: b"",
    LeaseKeepAliveResponse: _lease_keep_alive,
    LeaseTimeToLiveResponse: _lease_time_to_live,
    LeaseLeasesResponse: _lease_leases,
    HashKVResponse: _hash_kv,
}
"""What follows the header."""
