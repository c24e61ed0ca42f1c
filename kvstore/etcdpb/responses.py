"""Responses of ``kvstore.model`` as etcd's response messages, encoded.

Frequent ones are encoded by hand, with rows as they are stored; the rest by protobuf. Events that many watches share
are encoded once (``SharedEvents``).

An outermost response carries the server's whole header, a response inside a transaction's only the revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol, cast

from kvstore.implementation import native
from kvstore.keyvalue import KeyValue, KeyValues, encode_key_value, split_row
from kvstore.model import (
    AlarmResponse,
    CompactionResponse,
    DeleteRangeResponse,
    Event,
    EventType,
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
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.pages import RangePages
from kvstore.wire import BYTES, VARINT, counter, varint

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
_IS_FRAGMENT = _FRAGMENT + varint(True)
_DELETED_EVENT = _TYPE + varint(EventType.DELETE)


def _data(tag: bytes, data: bytes) -> bytes:
    return b"%b%b%b" % (tag, varint(len(data)), data)


def _number(tag: bytes, value: int) -> bytes:
    return tag + varint(value) if value else b""


class Header:
    """What a server says about itself in every response, besides the revision."""

    def __init__(self, cluster_id: int = 0, member_id: int = 0, raft_term: int = 0) -> None:
        self._ids = _number(_CLUSTER_ID, cluster_id) + _number(_MEMBER_ID, member_id)
        self._term = _number(_RAFT_TERM, raft_term)

        self._last = (-1, b"")

    def at(self, revision: int) -> bytes:
        """The header, as a field of a response."""
        last, encoded = self._last
        if last != revision:
            encoded = header_field(self._ids, revision, self._term)
            self._last = revision, encoded
        return encoded


@native
def header_field(ids: bytes, revision: int, term: bytes) -> bytes:
    """The field that every response begins with."""
    number = _REVISION + counter(revision) if revision > 0 else _number(_REVISION, revision)
    return _data(_HEADER, b"%b%b%b" % (ids, number, term))


_INNER = Header()


def encode(response: Any, header: Header) -> bytes:
    """The message of a response of ``kvstore.model``, encoded; ``TypeError`` if it is not one."""
    if type(response) is PutResponse and response.prev_kv is None:  # most of all
        return header.at(response.revision)
    try:
        body = _BODIES[type(response)]
    except KeyError:
        raise TypeError(f"not an answer: {response!r}") from None
    return header.at(response.revision) + body(response)


def encode_row(revision: int, row: bytes | None, header: Header) -> bytes:
    """The answer to a range over one key, from the key's row as it is stored; None: there is none."""
    head = header.at(revision)
    return head if row is None else found_row(head, row)


@native
def found_row(head: bytes, row: bytes) -> bytes:
    """The answer to a range over one key that is there, from the header's field and the key's row."""
    return b"%b%b%b\1" % (head, _data(_KVS, row if row[0] == _KEY else split_row(row)[1]), _COUNT)


def encode_pages(range_pages: RangePages, header: Header) -> tuple[int, Iterator[bytes]]:
    """The message of a range that was made with ``encode_rows``: its size, and it, piece by piece."""
    head = header.at(range_pages.revision)
    tail = _number(_MORE, range_pages.more) + _number(_COUNT, range_pages.count)
    return len(head) + range_pages.size_bytes + len(tail), chain((head,), range_pages, (tail,))


def encode_rows(rows: list[bytes]) -> bytes:
    """Stored rows as the ``kvs`` of a range's answer."""
    return b"".join([_data(_KVS, row if row[0] == _KEY else split_row(row)[1]) for row in rows])


def encode_watch(
    response: WatchResponse,
    watch_id: int,
    header: Header,
    events: list[bytes] | None = None,
    *,
    is_fragment: bool = False,
) -> bytes:
    """The message of a watch's response.

    ``events``: those of the response, encoded (``SharedEvents``), or some of them. ``is_fragment``: more follow.
    """
    events = encode_events(response.events) if events is None else events
    (message,) = encode_watches(response, (watch_id,), header, events, is_fragment=is_fragment)
    return message


def encode_watches(
    response: WatchResponse,
    watch_ids: Iterable[int],
    header: Header,
    events: list[bytes],
    *,
    is_fragment: bool = False,
) -> list[bytes]:
    """The messages of a response that several watches are told, as ``encode_watch`` makes each."""
    revision, _, canceled, compact_revision, cancel_reason, created = response
    parts = []
    if created or canceled or compact_revision or cancel_reason:
        parts = [
            _number(_CREATED, created),
            _number(_CANCELED, canceled),
            _number(_COMPACT_REVISION, compact_revision),
            _data(_CANCEL_REASON, cancel_reason.encode()) if cancel_reason else b"",
        ]
    if is_fragment:
        parts.append(_IS_FRAGMENT)
    head, rest = header.at(revision), b"".join(parts + events)
    return [b"%b%b%b" % (head, _watch_id(watch_id), rest) for watch_id in watch_ids]


@lru_cache(1024)
def _watch_id(watch_id: int) -> bytes:
    return _number(_WATCH_ID, watch_id)


def encode_event(event: Event) -> bytes:
    """The message of a watch's event."""
    changed = _number(_TYPE, event.type) + _data(_KV, event.kv.to_protobuf())
    return changed if event.prev_kv is None else changed + _data(_EVENT_PREV_KV, event.prev_kv.to_protobuf())


class LazyEvents(Protocol):
    """Events that were not made yet (``kvstore.watch.events``)."""

    changes: list[ChangedRow]
    before: list[KeyValue | None] | None
    """The ``prev_kv`` of each, where they were asked for."""


def encode_events(events: Sequence[Event]) -> list[bytes]:
    """Each event as a field of a watch's response: of lazy ones, none is made."""
    if not hasattr(events, "changes"):
        return [_data(_EVENTS, encode_event(event)) for event in events]
    lazy = cast(LazyEvents, events)
    if lazy.before is None:
        return [_data(_EVENTS, _changed(change)) for change in lazy.changes]
    return [
        _data(_EVENTS, _changed(change) + (b"" if kv is None else _data(_EVENT_PREV_KV, kv.to_protobuf())))
        for change, kv in zip(lazy.changes, lazy.before, strict=True)
    ]


def _changed(change: ChangedRow) -> bytes:
    main, _, key, row = change
    if row is None:
        return _DELETED_EVENT + _data(_KV, encode_key_value(key, 0, main, 0, b"", 0))
    return _data(_KV, row if row[0] == _KEY else split_row(row)[1])


class SharedEvents:
    """Encodes events as ``encode_events`` does, and those that several watches are told of once.

    Lazy events of one revision are made of the same changes in every watch. What a change was encoded to is kept until
    ``ROOM_BYTES`` have come together, which is long enough for all that are told of it now. For one thread.
    """

    ROOM_BYTES = 1 << 20

    def __init__(self) -> None:
        self._fields: dict[int, tuple[ChangedRow, bytes]] = {}
        """By ``id`` of the change, which is kept, so that no other can have it."""
        self._size_bytes = 0

    def encode(self, events: Sequence[Event]) -> list[bytes]:
        """Each event as a field of a watch's response."""
        changes: list[ChangedRow] | None = getattr(events, "changes", None)
        if changes is None or events.before is not None:  # type: ignore[attr-defined]  # lazy ones have it
            return encode_events(events)
        kept, add = self._fields.get, self._add
        return [(kept(id(change)) or add(change))[1] for change in changes]

    def _add(self, change: ChangedRow) -> tuple[ChangedRow, bytes]:
        field = _data(_EVENTS, _changed(change))
        self._size_bytes += len(field) + len(change[3] or change[2])
        if self._size_bytes > self.ROOM_BYTES:
            self._fields.clear()
            self._size_bytes = 0
        added = self._fields[id(change)] = change, field
        return added


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


def _alarm(response: AlarmResponse) -> bytes:
    alarms = [{"memberID": member_id, "alarm": name} for member_id, name in response.alarms]
    return _encoded(etcdserverpb.AlarmResponse(alarms=alarms))


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
    AlarmResponse: _alarm,
}
"""What follows the header."""
