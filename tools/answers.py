"""The engine's answers as JSON values, with the field names of etcd's messages.

Two places spell them, and differ in three things:

                      bytes      the answer to an op of a transaction           header
    recordings        latin-1    {"response_put": {…}}                          revision
    etcdctl -w json   base64     {"Response": {"ResponsePut": {…}}}             cluster_id, member_id, revision

In both a field at its default (0, false, empty) is left out; empty messages stay.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvstore.keyvalue import KeyValue
from kvstore.model import (
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
)

Json = Any
Message = dict[str, Any]

_OPS: dict[type[Any], str] = {
    RangeResponse: "range",
    PutResponse: "put",
    DeleteRangeResponse: "delete_range",
    TxnResponse: "txn",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How answers are spelt."""

    text: Callable[[bytes], str]
    op: Callable[[str, Message], Message]
    identity: Mapping[str, int] = field(default_factory=dict)
    """What the outermost header says besides the revision."""

    def answer(self, response: object) -> Message:
        message = self._message(response)
        message["header"] = {**self.identity, **message["header"]}
        recorded: Message = without_defaults(message)
        return recorded

    def key_value(self, kv: KeyValue) -> Message:
        message: Message = without_defaults(self._kv(kv))
        return message

    def events(self, events: Sequence[Event]) -> list[Message]:
        return [without_defaults(self._event(event)) for event in events]

    def _message(self, response: object) -> Message:
        match response:
            case RangeResponse(revision, kvs, more, count):
                return _headed(revision, kvs=self._kvs(kvs), more=more, count=count)
            case PutResponse(revision, prev_kv):
                return _headed(revision, prev_kv=self._kv(prev_kv))
            case DeleteRangeResponse(revision, deleted, prev_kvs):
                return _headed(revision, deleted=deleted, prev_kvs=self._kvs(prev_kvs))
            case TxnResponse(revision, succeeded, responses):
                ops = [self.op(_OPS[type(response)], self._message(response)) for response in responses]
                return _headed(revision, succeeded=succeeded, responses=ops)
            case LeaseGrantResponse(revision, lease, ttl) | LeaseKeepAliveResponse(revision, lease, ttl):
                return _headed(revision, ID=lease, TTL=ttl)
            case LeaseTimeToLiveResponse(revision, lease, ttl, granted_ttl, keys):
                names = [self.text(key) for key in keys]
                return _headed(revision, ID=lease, TTL=ttl, grantedTTL=granted_ttl, keys=names)
            case LeaseLeasesResponse(revision, leases):
                return _headed(revision, leases=[{"ID": lease} for lease in leases])
            case HashKVResponse(revision, hash_, compact_revision, hash_revision):
                return _headed(
                    revision, hash=hash_, compact_revision=compact_revision, hash_revision=hash_revision
                )
            case CompactionResponse(revision) | LeaseRevokeResponse(revision):
                return _headed(revision)
        raise TypeError(f"not an answer: {response!r}")

    def _kvs(self, kvs: Sequence[KeyValue]) -> list[Message | None]:
        return [self._kv(kv) for kv in kvs]

    def _kv(self, kv: KeyValue | None) -> Message | None:
        if kv is None:
            return None
        return {
            "key": self.text(kv.key),
            "create_revision": kv.create_revision,
            "mod_revision": kv.mod_revision,
            "version": kv.version,
            "value": self.text(kv.value),
            "lease": kv.lease,
        }

    def _event(self, event: Event) -> Message:
        kind = "DELETE" if event.type == EventType.DELETE else ""
        return {"type": kind, "kv": self._kv(event.kv), "prev_kv": self._kv(event.prev_kv)}


def _headed(revision: int, **fields: Json) -> Message:
    return {"header": {"revision": revision}, **fields}


def without_defaults(value: Json) -> Json:
    """The value without fields that are None, zero, false or empty; empty messages stay, for they were set."""
    if isinstance(value, dict):
        kept = {name: without_defaults(field) for name, field in value.items()}
        return {name: field for name, field in kept.items() if field or isinstance(field, dict)}
    if isinstance(value, list):
        return [without_defaults(item) for item in value]
    return value


def latin_1(data: bytes) -> str:
    return data.decode("latin-1")


def base_64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _etcdctl_op(name: str, body: Message) -> Message:
    camel = "".join(word.capitalize() for word in name.split("_"))
    return {"Response": {f"Response{camel}": body}}


RECORDED = Style(latin_1, lambda name, body: {f"response_{name}": body})


def etcdctl_style(cluster_id: int, member_id: int) -> Style:
    return Style(base_64, _etcdctl_op, {"cluster_id": cluster_id, "member_id": member_id})
