"""etcd's protobuf messages, from one table.

The classes are built in a descriptor pool of their own: a program that also loads etcd's generated
modules gets no clash. Every file is proto3, where an absent number reads as 0, as Go reads etcd's proto2
messages; sub-messages and the members of a oneof know whether they are set. ``string`` fields are
declared ``bytes``: Go never checks their encoding, so a decoder that does would refuse good files.

An entry of the table is ``message: field=number type, ...`` where a type is a scalar or a message, with
``*`` if repeated and ``?`` if a member of the message's oneof. Messages without a package are those of
etcdserverpb. Enums are read as numbers; their names stand in ``NAMES``.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

TABLE = """
mvccpb.KeyValue: key=1 bytes, create_revision=2 int64, mod_revision=3 int64, version=4 int64, value=5
    bytes, lease=6 int64
mvccpb.Event: type=1 int32, kv=2 mvccpb.KeyValue, prev_kv=3 mvccpb.KeyValue
leasepb.Lease: ID=1 int64, TTL=2 int64, RemainingTTL=3 int64

raftpb.Entry: Type=1 int32, Term=2 uint64, Index=3 uint64, Data=4 bytes
raftpb.HardState: term=1 uint64, vote=2 uint64, commit=3 uint64
raftpb.ConfState: voters=1 uint64*, learners=2 uint64*, voters_outgoing=3 uint64*, learners_next=4
    uint64*, auto_leave=5 bool
raftpb.SnapshotMetadata: conf_state=1 raftpb.ConfState, index=2 uint64, term=3 uint64
raftpb.Snapshot: data=1 bytes, metadata=2 raftpb.SnapshotMetadata
raftpb.ConfChange: id=1 uint64, type=2 int32, node_id=3 uint64, context=4 bytes
raftpb.ConfChangeSingle: type=1 int32, node_id=2 uint64
raftpb.ConfChangeV2: transition=1 int32, changes=2 raftpb.ConfChangeSingle*, context=3 bytes
walpb.Snapshot: index=1 uint64, term=2 uint64, conf_state=3 raftpb.ConfState
snappb.Snapshot: crc=1 uint32, data=2 bytes

authpb.UserAddOptions: no_password=1 bool
authpb.User: name=1 bytes, password=2 bytes, roles=3 bytes*, options=4 authpb.UserAddOptions
authpb.Permission: permType=1 int32, key=2 bytes, range_end=3 bytes
authpb.Role: name=1 bytes, keyPermission=2 authpb.Permission*

Metadata: NodeID=1 uint64, ClusterID=2 uint64
Request: ID=1 uint64, Method=2 bytes, Path=3 bytes, Val=4 bytes, Dir=5 bool, PrevValue=6 bytes,
    PrevIndex=7 uint64, PrevExist=8 bool, Expiration=9 int64, Wait=10 bool, Since=11 uint64,
    Recursive=12 bool, Sorted=13 bool, Quorum=14 bool, Time=15 int64, Stream=16 bool, Refresh=17 bool
RequestHeader: ID=1 uint64, username=2 bytes, auth_revision=3 uint64
RangeRequest: key=1 bytes, range_end=2 bytes, limit=3 int64, revision=4 int64, sort_order=5 int32,
    sort_target=6 int32, serializable=7 bool, keys_only=8 bool, count_only=9 bool, min_mod_revision=10
    int64, max_mod_revision=11 int64, min_create_revision=12 int64, max_create_revision=13 int64
PutRequest: key=1 bytes, value=2 bytes, lease=3 int64, prev_kv=4 bool, ignore_value=5 bool,
    ignore_lease=6 bool
DeleteRangeRequest: key=1 bytes, range_end=2 bytes, prev_kv=3 bool
Compare: result=1 int32, target=2 int32, key=3 bytes, version=4 int64?, create_revision=5 int64?,
    mod_revision=6 int64?, value=7 bytes?, lease=8 int64?, range_end=64 bytes
RequestOp: request_range=1 RangeRequest?, request_put=2 PutRequest?, request_delete_range=3
    DeleteRangeRequest?, request_txn=4 TxnRequest?
TxnRequest: compare=1 Compare*, success=2 RequestOp*, failure=3 RequestOp*
Shallow.RequestOp: request_range=1 RangeRequest?, request_put=2 PutRequest?, request_delete_range=3
    DeleteRangeRequest?, request_txn=4 bytes?
Shallow.TxnRequest: compare=1 Compare*, success=2 Shallow.RequestOp*, failure=3 Shallow.RequestOp*
Shallow.InternalRaftRequest: ID=1 uint64, txn=6 Shallow.TxnRequest, header=100 RequestHeader
CompactionRequest: revision=1 int64, physical=2 bool
LeaseGrantRequest: TTL=1 int64, ID=2 int64
LeaseRevokeRequest: ID=1 int64
LeaseCheckpoint: ID=1 int64, remaining_TTL=2 int64
LeaseCheckpointRequest: checkpoints=1 LeaseCheckpoint*
AlarmMember: memberID=1 uint64, alarm=2 int32
AlarmRequest: action=1 int32, memberID=2 uint64, alarm=3 int32
Empty:
InternalAuthenticateRequest: name=1 bytes, password=2 bytes, simple_token=3 bytes
AuthUserAddRequest: name=1 bytes, password=2 bytes, options=3 authpb.UserAddOptions, hashedPassword=4
    bytes
AuthNameRequest: name=1 bytes
AuthUserChangePasswordRequest: name=1 bytes, password=2 bytes, hashedPassword=3 bytes
AuthUserGrantRoleRequest: user=1 bytes, role=2 bytes
AuthUserRevokeRoleRequest: name=1 bytes, role=2 bytes
AuthRoleRequest: role=1 bytes
AuthRoleGrantPermissionRequest: name=1 bytes, perm=2 authpb.Permission
AuthRoleRevokePermissionRequest: role=1 bytes, key=2 bytes, range_end=3 bytes
ClusterVersionSetRequest: ver=1 bytes
MemberAttributes: name=1 bytes, client_urls=2 bytes*
ClusterMemberAttrSetRequest: member_ID=1 uint64, member_attributes=2 MemberAttributes
DowngradeInfoSetRequest: enabled=1 bool, ver=2 bytes
InternalRaftRequest: ID=1 uint64, v2=2 Request, range=3 RangeRequest, put=4 PutRequest, delete_range=5
    DeleteRangeRequest, txn=6 TxnRequest, compaction=7 CompactionRequest, lease_grant=8
    LeaseGrantRequest, lease_revoke=9 LeaseRevokeRequest, alarm=10 AlarmRequest, lease_checkpoint=11
    LeaseCheckpointRequest, header=100 RequestHeader, auth_enable=1000 Empty, auth_disable=1011 Empty,
    authenticate=1012 InternalAuthenticateRequest, auth_status=1013 Empty, auth_user_add=1100
    AuthUserAddRequest, auth_user_delete=1101 AuthNameRequest, auth_user_get=1102 AuthNameRequest,
    auth_user_change_password=1103 AuthUserChangePasswordRequest, auth_user_grant_role=1104
    AuthUserGrantRoleRequest, auth_user_revoke_role=1105 AuthUserRevokeRoleRequest, auth_user_list=1106
    Empty, auth_role_list=1107 Empty, auth_role_add=1200 AuthNameRequest, auth_role_delete=1201
    AuthRoleRequest, auth_role_get=1202 AuthRoleRequest, auth_role_grant_permission=1203
    AuthRoleGrantPermissionRequest, auth_role_revoke_permission=1204 AuthRoleRevokePermissionRequest,
    cluster_version_set=1300 ClusterVersionSetRequest, cluster_member_attr_set=1301
    ClusterMemberAttrSetRequest, downgrade_info_set=1302 DowngradeInfoSetRequest
"""

NAMES: dict[str, tuple[str, ...]] = {
    "Alarm": ("NONE", "NOSPACE", "CORRUPT"),
    "AlarmAction": ("GET", "ACTIVATE", "DEACTIVATE"),
    "Permission": ("READ", "WRITE", "READWRITE"),
    "CompareResult": ("EQUAL", "GREATER", "LESS", "NOT_EQUAL"),
    "CompareTarget": ("VERSION", "CREATE", "MOD", "VALUE", "LEASE"),
    "SortOrder": ("NONE", "ASCEND", "DESCEND"),
    "SortTarget": ("KEY", "VERSION", "CREATE", "MOD", "VALUE"),
    "EntryType": ("EntryNormal", "EntryConfChange", "EntryConfChangeV2"),
    "ConfChangeType": (
        "ConfChangeAddNode",
        "ConfChangeRemoveNode",
        "ConfChangeUpdateNode",
        "ConfChangeAddLearnerNode",
    ),
}
"""etcd's names of the numbers of its enums."""

_SCALARS = ("bytes", "bool", "int32", "int64", "uint32", "uint64")

PROTO_FILE = "kvstore/etcd.proto"
PROTO_PACKAGE = "kvstore.etcd"


def enum_name(enum: str, number: int) -> str:
    """The name of an enum's number; the number itself where etcd has no name for it."""
    names = NAMES[enum]
    return names[number] if 0 <= number < len(names) else str(number)


def _file() -> FileDescriptorProto:
    """The table as one protobuf file; ``raftpb.Entry`` is the message ``raftpb_Entry``."""
    file = FileDescriptorProto(name=PROTO_FILE, package=PROTO_PACKAGE, syntax="proto3")
    for line in TABLE.replace("\n    ", " ").split("\n"):
        name, colon, fields = line.partition(":")
        if not colon:
            continue
        message = file.message_type.add(name=name.replace(".", "_"))
        for spec in filter(None, fields.strip().split(", ")):
            left, _space, kind = spec.strip().partition(" ")
            field_name, _equals, number = left.partition("=")
            field = message.field.add(name=field_name, number=int(number))
            _set_type(field, kind.rstrip("*?"))
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if kind == "uint64*":
                field.options.packed = False
            if kind.endswith("?"):
                field.oneof_index = 0
                if not message.oneof_decl:
                    message.oneof_decl.add(name="kind")
    return file


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind not in _SCALARS:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PROTO_PACKAGE}.{kind.replace('.', '_')}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


_pool = DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())


def _class(name: str) -> Any:  # a class made at run time: its fields are known to the table alone
    return GetMessageClass(_pool.FindMessageTypeByName(f"{PROTO_PACKAGE}.{name.replace('.', '_')}"))


KeyValue = _class("mvccpb.KeyValue")
Event = _class("mvccpb.Event")
Lease = _class("leasepb.Lease")
Entry = _class("raftpb.Entry")
HardState = _class("raftpb.HardState")
ConfState = _class("raftpb.ConfState")
RaftSnapshot = _class("raftpb.Snapshot")
ConfChange = _class("raftpb.ConfChange")
ConfChangeV2 = _class("raftpb.ConfChangeV2")
WalSnapshot = _class("walpb.Snapshot")
SnapFile = _class("snappb.Snapshot")
User = _class("authpb.User")
Role = _class("authpb.Role")
Metadata = _class("Metadata")
V2Request = _class("Request")
AlarmMember = _class("AlarmMember")
InternalRaftRequest = _class("InternalRaftRequest")
ShallowRequest = _class("Shallow.InternalRaftRequest")
"""A transaction whose nested ones are not decoded yet: protobuf goes 100 levels deep at most, a server's log deeper."""
_ShallowTxn = _class("Shallow.TxnRequest")


def decode_request(data: bytes) -> Any:
    """What a normal log entry carries: an InternalRaftRequest, or an older server's bare v2 Request.

    ``DecodeError`` if it is neither.
    """
    try:
        return InternalRaftRequest.FromString(data)
    except DecodeError:
        pass
    old = V2Request.FromString(data)
    if old.Method:
        return old
    found = ShallowRequest.FromString(data)
    if not found.HasField("txn"):
        raise DecodeError("neither a request of v3 nor one of v2")
    return found


def nested_txn(op: Any) -> Any:
    """The transaction that is an op of another."""
    txn = op.request_txn
    return _ShallowTxn.FromString(txn) if isinstance(txn, bytes) else txn


def request_kind(request: Any) -> str:
    """``put``, ``txn``, ``lease_grant``, ...: the field that an InternalRaftRequest carries; else ``""``."""
    if isinstance(request, V2Request):
        return "v2"
    kinds = [field.name for field, _value in request.ListFields() if field.name not in ("ID", "header")]
    return kinds[0] if len(kinds) == 1 else ""
