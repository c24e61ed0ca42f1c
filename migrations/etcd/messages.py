"""The etcd messages in its log and its files, read as Go reads them: ``string`` fields are bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from kvstore.etcdpb.logged import MESSAGES as _MESSAGES

_mvccpb, _leasepb, _authpb, _raftpb, _etcdserverpb, _shallow = map(
    _MESSAGES.package, ("mvccpb", "leasepb", "authpb", "raftpb", "etcdserverpb", "shallow")
)

KeyValue = _mvccpb.KeyValue
Lease = _leasepb.Lease
User = _authpb.User
Role = _authpb.Role
Entry = _raftpb.Entry
HardState = _raftpb.HardState
RaftSnapshot = _raftpb.Snapshot
ConfChange = _raftpb.ConfChange
ConfChangeV2 = _raftpb.ConfChangeV2
WalSnapshot = _MESSAGES.package("walpb").Snapshot
SnapFile = _MESSAGES.package("snappb").Snapshot
Metadata = _etcdserverpb.Metadata
V2Request = _etcdserverpb.Request
AlarmMember = _etcdserverpb.AlarmMember
InternalRaftRequest = _etcdserverpb.InternalRaftRequest

NAMES = {
    "Alarm": _MESSAGES.enum("etcdserverpb.AlarmType"),
    "Permission": _MESSAGES.enum("authpb.Permission.Type"),
    "EntryType": _MESSAGES.enum("raftpb.EntryType"),
    "ConfChangeType": _MESSAGES.enum("raftpb.ConfChangeType"),
}
"""etcd's names for the numbers of its enums."""


def enum_name(enum: str, number: int) -> str:
    """The name of an enum's number; the number itself if etcd has no name for it."""
    names = NAMES[enum]
    return names[number] if 0 <= number < len(names) else str(number)


def decode_request(data: bytes) -> Any:
    """The content of a normal log entry: an InternalRaftRequest, or an older server's bare v2 Request.

    If an InternalRaftRequest is too deep for protobuf, its outermost transaction (``kvstore.etcdpb.requests``
    continues from there). ``DecodeError`` if it is none of these.
    """
    try:
        return InternalRaftRequest.FromString(data)
    except DecodeError:
        pass
    old = V2Request.FromString(data)
    if old.Method:
        return old
    found = _shallow.InternalRaftRequest.FromString(data)
    if not found.HasField("txn"):
        raise DecodeError("neither a request of v3 nor one of v2")
    return found


def request_kind(request: Any) -> str:
    """``put``, ``txn``, ``lease_grant``, ...: the field that an InternalRaftRequest carries; else ``""``."""
    if isinstance(request, V2Request):
        return "v2"
    kinds = [field.name for field, _value in request.ListFields() if field.name not in ("ID", "header")]
    return kinds[0] if len(kinds) == 1 else ""
