"""The contents of etcd's buckets: names of buckets, keys of rows, and values as Python objects.

    key     revision (17 or 18 bytes)      mvccpb.KeyValue
            | main i64 big-endian | _ | sub i64 big-endian | [t] |     t: a tombstone, whose value has only the key
    meta    consistent_index, term         u64 big-endian
            scheduledCompactRev,           a revision of 17 bytes
            finishedCompactRev
            confState                      JSON     storageVersion   ASCII
    lease   lease id, u64 big-endian       leasepb.Lease
    alarm   AlarmMember                    nothing
    cluster clusterVersion                 ASCII    downgrade        JSON
    members member id, hex                 JSON     members_removed  same key, "removed"
    auth    authEnabled                    one byte authRevision     u64 big-endian
    authUsers, authRoles   name            authpb.User, authpb.Role

Decoders raise ``RowError``; the reader of the file adds the place.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from kvstore.errors import Corruption

from . import messages
from .bbolt_page import Buffer

KEY, META, LEASE, ALARM, CLUSTER = b"key", b"meta", b"lease", b"alarm", b"cluster"
MEMBERS, MEMBERS_REMOVED = b"members", b"members_removed"
AUTH, AUTH_USERS, AUTH_ROLES = b"auth", b"authUsers", b"authRoles"
BUCKETS = (ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META)

CONSISTENT_INDEX, TERM, CONF_STATE = b"consistent_index", b"term", b"confState"
SCHEDULED_COMPACT, FINISHED_COMPACT = b"scheduledCompactRev", b"finishedCompactRev"
STORAGE_VERSION = b"storageVersion"
CLUSTER_VERSION, DOWNGRADE = b"clusterVersion", b"downgrade"
AUTH_ENABLED, AUTH_REVISION = b"authEnabled", b"authRevision"
REMOVED = b"removed"

REVISION_BYTES = 17
ROW_KEY = struct.Struct(">qcq")
"""main, ``b"_"``, sub: the key of a row that is not a tombstone."""
_TOMBSTONE = b"t"
_SEPARATOR = b"_"
_U64 = struct.Struct(">Q")
_MASK = (1 << 64) - 1
_KEY_FIELD = 0x0A  # field 1, length-delimited: how every KeyValue with a key begins


class RowError(ValueError):
    """A row that does not fit its bucket."""


class Revision(NamedTuple):
    """A point in history (main) and a change within it (sub)."""

    main: int
    sub: int = 0


def encode_revision(main: int, sub: int = 0, tombstone: bool = False) -> bytes:
    return ROW_KEY.pack(main, _SEPARATOR, sub) + (_TOMBSTONE if tombstone else b"")


def decode_revision(key: bytes) -> tuple[int, int, bool]:
    """(main, sub, whether a tombstone) of a row's key."""
    size = len(key)
    if size != REVISION_BYTES and (size != REVISION_BYTES + 1 or key[-1:] != _TOMBSTONE):
        raise RowError(f"invalid revision length {size}")
    main, separator, sub = ROW_KEY.unpack_from(key)
    if separator != _SEPARATOR or main < 0 or sub < 0:
        raise RowError(f"invalid revision {key.hex()}")
    return main, sub, size != REVISION_BYTES


def decode_u64(value: bytes) -> int:
    if len(value) != _U64.size:
        raise RowError(f"a number of {len(value)} bytes instead of {_U64.size}")
    (number,) = _U64.unpack(value)
    return int(number)


def encode_u64(number: int) -> bytes:
    """Encode a number; negative ones (lease ids) as two's complement."""
    return _U64.pack(number & _MASK)


class KeyValueRow(NamedTuple):
    """One row of the ``key`` bucket: a put, or the tombstone of a delete."""

    main: int
    sub: int
    is_tombstone: bool
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


def decode_key_value(row_key: bytes, row_value: bytes) -> KeyValueRow:
    main, sub, is_tombstone = decode_revision(row_key)
    try:
        kv = messages.KeyValue.FromString(row_value)
    except DecodeError:
        raise RowError(f"revision {main}.{sub} holds no KeyValue") from None
    return KeyValueRow(
        main, sub, is_tombstone, kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
    )


def encode_key_value(row: KeyValueRow) -> tuple[bytes, bytes]:
    """The row as etcd writes it: (key, value) of the bucket."""
    if row.is_tombstone:
        value = messages.KeyValue(key=row.key)
    else:
        value = messages.KeyValue(
            key=row.key,
            create_revision=row.create_revision,
            mod_revision=row.mod_revision,
            version=row.version,
            value=row.value,
            lease=row.lease,
        )
    return encode_revision(row.main, row.sub, row.is_tombstone), value.SerializeToString()


def user_key(buffer: Buffer, start: int, end: int) -> bytes | None:
    """The key of the KeyValue at ``start``, without decoding the rest; None if the key does not come first."""
    if end - start < 2 or buffer[start] != _KEY_FIELD:
        return None
    length = shift = 0
    for at in range(start + 1, min(end, start + 6)):
        byte = buffer[at]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return buffer[at + 1 : at + 1 + length] if at + 1 + length <= end else None
        shift += 7
    return None


def encoded_key(key: bytes) -> bytes:
    """The bytes with which the KeyValue of ``key`` begins: etcd writes fields in ascending order."""
    return bytes(messages.KeyValue(key=key).SerializeToString())


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease. ``remaining_ttl_seconds`` is 0 if the server kept no checkpoint."""

    id: int
    granted_ttl_seconds: int
    remaining_ttl_seconds: int = 0
    keys: tuple[bytes, ...] = ()


def decode_lease(row_key: bytes, row_value: bytes) -> Lease:
    try:
        lease = messages.Lease.FromString(row_value)
    except DecodeError:
        raise RowError("the row holds no Lease") from None
    if encode_u64(lease.ID) != row_key:
        raise RowError(f"lease {lease.ID} is stored under key {row_key.hex()}")
    return Lease(lease.ID, lease.TTL, lease.RemainingTTL)


def encode_lease(lease: Lease) -> tuple[bytes, bytes]:
    value = messages.Lease(
        ID=lease.id, TTL=lease.granted_ttl_seconds, RemainingTTL=lease.remaining_ttl_seconds
    )
    return encode_u64(lease.id), value.SerializeToString()


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster, from the JSON of its row or of a configuration change."""

    id: int
    name: str = ""
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False


def decode_member(value: bytes) -> Member:
    found = decode_json(value)
    try:
        return Member(
            id=int(found["id"]),
            name=_text(found.get("name", "")),
            peer_urls=tuple(map(_text, found.get("peerURLs") or ())),
            client_urls=tuple(map(_text, found.get("clientURLs") or ())),
            is_learner=bool(found.get("isLearner", False)),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise RowError("the row holds no member") from None


def _text(value: object) -> str:
    """Text that can be written: JSON may escape half a character, which Go reads as U+FFFD."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode_member(member: Member) -> tuple[bytes, bytes]:
    found: dict[str, Any] = {"id": member.id, "peerURLs": list(member.peer_urls)}
    if member.is_learner:
        found["isLearner"] = True
    if member.name:
        found["name"] = member.name
    if member.client_urls:
        found["clientURLs"] = list(member.client_urls)
    return b"%x" % member.id, json.dumps(found, separators=(",", ":")).encode()


def decode_json(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise RowError("the row holds no JSON") from None
    if not isinstance(found, dict):
        raise RowError("the row holds no JSON object")
    return found


@dataclass(frozen=True, slots=True)
class Alarm:
    member_id: int
    alarm: str


def decode_alarm(row_key: bytes) -> Alarm:
    """Decode an alarm. A kind without a name here is named by its number."""
    try:
        found = messages.AlarmMember.FromString(row_key)
    except DecodeError:
        raise RowError("the row holds no alarm") from None
    return Alarm(found.memberID, messages.enum_name("Alarm", found.alarm))


def encode_alarm(alarm: Alarm) -> tuple[bytes, bytes]:
    names = messages.NAMES["Alarm"]
    if alarm.alarm not in names and not (alarm.alarm.isascii() and alarm.alarm.isdigit()):
        raise Corruption(f"there is no alarm {alarm.alarm!r:.80}")
    number = names.index(alarm.alarm) if alarm.alarm in names else int(alarm.alarm)
    return messages.AlarmMember(memberID=alarm.member_id, alarm=number).SerializeToString(), b""


@dataclass(frozen=True, slots=True)
class User:
    """``password`` is the bcrypt hash as stored."""

    name: bytes
    password: bytes = field(default=b"", repr=False)
    roles: tuple[bytes, ...] = ()
    no_password: bool = False


def decode_user(value: bytes) -> User:
    try:
        found = messages.User.FromString(value)
    except DecodeError:
        raise RowError("the row holds no user") from None
    return User(found.name, found.password, tuple(found.roles), found.options.no_password)


@dataclass(frozen=True, slots=True)
class Permission:
    """What a role may do; ``range_end`` as in a range request."""

    kind: str
    key: bytes
    range_end: bytes


@dataclass(frozen=True, slots=True)
class Role:
    name: bytes
    permissions: tuple[Permission, ...] = ()


def decode_role(value: bytes) -> Role:
    try:
        found = messages.Role.FromString(value)
    except DecodeError:
        raise RowError("the row holds no role") from None
    permissions = (
        Permission(messages.enum_name("Permission", each.permType), each.key, each.range_end)
        for each in found.keyPermission
    )
    return Role(found.name, tuple(permissions))
