"""etcd's messages and their numbers, 3.0 to 3.7, in the notation of ``kvstore.protobuf``.

The API (etcdserverpb, mvccpb, authpb, v3lockpb, v3electionpb), the contents of etcd's log and files (raftpb, walpb,
snappb, leasepb, membershippb), and variants of our own, ``shallow``, which leave some messages in a message as bytes:
a nested transaction, because protobuf decodes 100 levels and a server's log may hold more; a watch's keys and values,
because a store keeps them so, and most are never looked at.
"""

from __future__ import annotations

from kvstore.keyvalue import KEY_VALUE_FIELDS

TABLE = f"""
package mvccpb
KeyValue: {KEY_VALUE_FIELDS}
Event: type=1 EventType, kv=2 KeyValue, prev_kv=3 KeyValue
enum Event.EventType: PUT, DELETE

package authpb
UserAddOptions: no_password=1 bool
User: name=1 bytes, password=2 bytes, roles=3 string*, options=4 UserAddOptions
Permission: permType=1 Type, key=2 bytes, range_end=3 bytes
enum Permission.Type: READ, WRITE, READWRITE
Role: name=1 bytes, keyPermission=2 Permission*

package membershippb
Attributes: name=1 string, client_urls=2 string*
ClusterVersionSetRequest: ver=1 string
ClusterMemberAttrSetRequest: member_ID=1 uint64, member_attributes=2 Attributes
DowngradeInfoSetRequest: enabled=1 bool, ver=2 string

package leasepb
Lease: ID=1 int64, TTL=2 int64, RemainingTTL=3 int64

package raftpb
Entry: Type=1 EntryType, Term=2 uint64, Index=3 uint64, Data=4 bytes
enum EntryType: EntryNormal, EntryConfChange, EntryConfChangeV2
HardState: term=1 uint64, vote=2 uint64, commit=3 uint64
ConfState: voters=1 uint64*, learners=2 uint64*, voters_outgoing=3 uint64*, learners_next=4 uint64*, auto_leave=5 bool
SnapshotMetadata: conf_state=1 ConfState, index=2 uint64, term=3 uint64
Snapshot: data=1 bytes, metadata=2 SnapshotMetadata
ConfChange: id=1 uint64, type=2 ConfChangeType, node_id=3 uint64, context=4 bytes
ConfChangeSingle: type=1 ConfChangeType, node_id=2 uint64
ConfChangeV2: transition=1 ConfChangeTransition, changes=2 ConfChangeSingle*, context=3 bytes
enum ConfChangeType: ConfChangeAddNode, ConfChangeRemoveNode, ConfChangeUpdateNode, ConfChangeAddLearnerNode
enum ConfChangeTransition: ConfChangeTransitionAuto, ConfChangeTransitionJointImplicit,
    ConfChangeTransitionJointExplicit

package walpb
Snapshot: index=1 uint64, term=2 uint64, conf_state=3 raftpb.ConfState

package snappb
Snapshot: crc=1 uint32, data=2 bytes

package etcdserverpb
ResponseHeader: cluster_id=1 uint64, member_id=2 uint64, revision=3 int64, raft_term=4 uint64

RangeRequest: key=1 bytes, range_end=2 bytes, limit=3 int64, revision=4 int64, sort_order=5 SortOrder,
    sort_target=6 SortTarget, serializable=7 bool, keys_only=8 bool, count_only=9 bool, min_mod_revision=10 int64,
    max_mod_revision=11 int64, min_create_revision=12 int64, max_create_revision=13 int64
enum RangeRequest.SortOrder: NONE, ASCEND, DESCEND
enum RangeRequest.SortTarget: KEY, VERSION, CREATE, MOD, VALUE
RangeResponse: header=1 ResponseHeader, kvs=2 mvccpb.KeyValue*, more=3 bool, count=4 int64
RangeStreamResponse: range_response=1 RangeResponse
PutRequest: key=1 bytes, value=2 bytes, lease=3 int64, prev_kv=4 bool, ignore_value=5 bool, ignore_lease=6 bool
PutResponse: header=1 ResponseHeader, prev_kv=2 mvccpb.KeyValue
DeleteRangeRequest: key=1 bytes, range_end=2 bytes, prev_kv=3 bool
DeleteRangeResponse: header=1 ResponseHeader, deleted=2 int64, prev_kvs=3 mvccpb.KeyValue*
Compare oneof target_union: result=1 CompareResult, target=2 CompareTarget, key=3 bytes, version=4 int64?,
    create_revision=5 int64?, mod_revision=6 int64?, value=7 bytes?, lease=8 int64?, range_end=64 bytes
enum Compare.CompareResult: EQUAL, GREATER, LESS, NOT_EQUAL
enum Compare.CompareTarget: VERSION, CREATE, MOD, VALUE, LEASE
RequestOp oneof request: request_range=1 RangeRequest?, request_put=2 PutRequest?,
    request_delete_range=3 DeleteRangeRequest?, request_txn=4 TxnRequest?
ResponseOp oneof response: response_range=1 RangeResponse?, response_put=2 PutResponse?,
    response_delete_range=3 DeleteRangeResponse?, response_txn=4 TxnResponse?
TxnRequest: compare=1 Compare*, success=2 RequestOp*, failure=3 RequestOp*
TxnResponse: header=1 ResponseHeader, succeeded=2 bool, responses=3 ResponseOp*
CompactionRequest: revision=1 int64, physical=2 bool
CompactionResponse: header=1 ResponseHeader

WatchRequest oneof request_union: create_request=1 WatchCreateRequest?, cancel_request=2 WatchCancelRequest?,
    progress_request=3 WatchProgressRequest?
WatchCreateRequest: key=1 bytes, range_end=2 bytes, start_revision=3 int64, progress_notify=4 bool, filters=5
    FilterType*, prev_kv=6 bool, watch_id=7 int64, fragment=8 bool
enum WatchCreateRequest.FilterType: NOPUT, NODELETE
WatchCancelRequest: watch_id=1 int64
WatchProgressRequest:
WatchResponse: header=1 ResponseHeader, watch_id=2 int64, created=3 bool, canceled=4 bool, compact_revision=5 int64,
    cancel_reason=6 string, fragment=7 bool, events=11 mvccpb.Event*

LeaseGrantRequest: TTL=1 int64, ID=2 int64
LeaseGrantResponse: header=1 ResponseHeader, ID=2 int64, TTL=3 int64, error=4 string
LeaseRevokeRequest: ID=1 int64
LeaseRevokeResponse: header=1 ResponseHeader
LeaseCheckpoint: ID=1 int64, remaining_TTL=2 int64
LeaseCheckpointRequest: checkpoints=1 LeaseCheckpoint*
LeaseCheckpointResponse: header=1 ResponseHeader
LeaseKeepAliveRequest: ID=1 int64
LeaseKeepAliveResponse: header=1 ResponseHeader, ID=2 int64, TTL=3 int64
LeaseTimeToLiveRequest: ID=1 int64, keys=2 bool
LeaseTimeToLiveResponse: header=1 ResponseHeader, ID=2 int64, TTL=3 int64, grantedTTL=4 int64, keys=5 bytes*
LeaseLeasesRequest:
LeaseStatus: ID=1 int64
LeaseLeasesResponse: header=1 ResponseHeader, leases=2 LeaseStatus*

Member: ID=1 uint64, name=2 string, peerURLs=3 string*, clientURLs=4 string*, isLearner=5 bool
MemberAddRequest: peerURLs=1 string*, isLearner=2 bool
MemberAddResponse: header=1 ResponseHeader, member=2 Member, members=3 Member*
MemberRemoveRequest: ID=1 uint64
MemberRemoveResponse: header=1 ResponseHeader, members=2 Member*
MemberUpdateRequest: ID=1 uint64, peerURLs=2 string*
MemberUpdateResponse: header=1 ResponseHeader, members=2 Member*
MemberListRequest: linearizable=1 bool
MemberListResponse: header=1 ResponseHeader, members=2 Member*
MemberPromoteRequest: ID=1 uint64
MemberPromoteResponse: header=1 ResponseHeader, members=2 Member*

enum AlarmType: NONE, NOSPACE, CORRUPT
AlarmRequest: action=1 AlarmAction, memberID=2 uint64, alarm=3 AlarmType
enum AlarmRequest.AlarmAction: GET, ACTIVATE, DEACTIVATE
AlarmMember: memberID=1 uint64, alarm=2 AlarmType
AlarmResponse: header=1 ResponseHeader, alarms=2 AlarmMember*
StatusRequest:
StatusResponse: header=1 ResponseHeader, version=2 string, dbSize=3 int64, leader=4 uint64, raftIndex=5 uint64,
    raftTerm=6 uint64, raftAppliedIndex=7 uint64, errors=8 string*, dbSizeInUse=9 int64, isLearner=10 bool,
    storageVersion=11 string, dbSizeQuota=12 int64, downgradeInfo=13 DowngradeInfo
DowngradeInfo: enabled=1 bool, targetVersion=2 string
DefragmentRequest:
DefragmentResponse: header=1 ResponseHeader
HashRequest:
HashResponse: header=1 ResponseHeader, hash=2 uint32
HashKVRequest: revision=1 int64
HashKVResponse: header=1 ResponseHeader, hash=2 uint32, compact_revision=3 int64, hash_revision=4 int64
SnapshotRequest:
SnapshotResponse: header=1 ResponseHeader, remaining_bytes=2 uint64, blob=3 bytes, version=4 string
MoveLeaderRequest: targetID=1 uint64
MoveLeaderResponse: header=1 ResponseHeader
DowngradeRequest: action=1 DowngradeAction, version=2 string
enum DowngradeRequest.DowngradeAction: VALIDATE, ENABLE, CANCEL
DowngradeResponse: header=1 ResponseHeader, version=2 string

AuthEnableRequest:
AuthEnableResponse: header=1 ResponseHeader
AuthDisableRequest:
AuthDisableResponse: header=1 ResponseHeader
AuthStatusRequest:
AuthStatusResponse: header=1 ResponseHeader, enabled=2 bool, authRevision=3 uint64
AuthenticateRequest: name=1 string, password=2 string
AuthenticateResponse: header=1 ResponseHeader, token=2 string
AuthUserAddRequest: name=1 string, password=2 string, options=3 authpb.UserAddOptions, hashedPassword=4 string
AuthUserAddResponse: header=1 ResponseHeader
AuthUserGetRequest: name=1 string
AuthUserGetResponse: header=1 ResponseHeader, roles=2 string*
AuthUserListRequest:
AuthUserListResponse: header=1 ResponseHeader, users=2 string*
AuthUserDeleteRequest: name=1 string
AuthUserDeleteResponse: header=1 ResponseHeader
AuthUserChangePasswordRequest: name=1 string, password=2 string, hashedPassword=3 string
AuthUserChangePasswordResponse: header=1 ResponseHeader
AuthUserGrantRoleRequest: user=1 string, role=2 string
AuthUserGrantRoleResponse: header=1 ResponseHeader
AuthUserRevokeRoleRequest: name=1 string, role=2 string
AuthUserRevokeRoleResponse: header=1 ResponseHeader
AuthRoleAddRequest: name=1 string
AuthRoleAddResponse: header=1 ResponseHeader
AuthRoleGetRequest: role=1 string
AuthRoleGetResponse: header=1 ResponseHeader, perm=2 authpb.Permission*
AuthRoleListRequest:
AuthRoleListResponse: header=1 ResponseHeader, roles=2 string*
AuthRoleDeleteRequest: role=1 string
AuthRoleDeleteResponse: header=1 ResponseHeader
AuthRoleGrantPermissionRequest: name=1 string, perm=2 authpb.Permission
AuthRoleGrantPermissionResponse: header=1 ResponseHeader
AuthRoleRevokePermissionRequest: role=1 string, key=2 bytes, range_end=3 bytes
AuthRoleRevokePermissionResponse: header=1 ResponseHeader

Metadata: NodeID=1 uint64, ClusterID=2 uint64
Request: ID=1 uint64, Method=2 string, Path=3 string, Val=4 string, Dir=5 bool, PrevValue=6 string, PrevIndex=7 uint64,
    PrevExist=8 bool, Expiration=9 int64, Wait=10 bool, Since=11 uint64, Recursive=12 bool, Sorted=13 bool,
    Quorum=14 bool, Time=15 int64, Stream=16 bool, Refresh=17 bool
RequestHeader: ID=1 uint64, username=2 string, auth_revision=3 uint64
InternalAuthenticateRequest: name=1 string, password=2 string, simple_token=3 string
DowngradeVersionTestRequest: ver=1 string
InternalRaftRequest: ID=1 uint64, v2=2 Request, range=3 RangeRequest, put=4 PutRequest, delete_range=5
    DeleteRangeRequest, txn=6 TxnRequest, compaction=7 CompactionRequest, lease_grant=8 LeaseGrantRequest,
    lease_revoke=9 LeaseRevokeRequest, alarm=10 AlarmRequest, lease_checkpoint=11 LeaseCheckpointRequest,
    header=100 RequestHeader, auth_enable=1000 AuthEnableRequest, auth_disable=1011 AuthDisableRequest,
    authenticate=1012 InternalAuthenticateRequest, auth_status=1013 AuthStatusRequest,
    auth_user_add=1100 AuthUserAddRequest, auth_user_delete=1101 AuthUserDeleteRequest,
    auth_user_get=1102 AuthUserGetRequest, auth_user_change_password=1103 AuthUserChangePasswordRequest,
    auth_user_grant_role=1104 AuthUserGrantRoleRequest, auth_user_revoke_role=1105 AuthUserRevokeRoleRequest,
    auth_user_list=1106 AuthUserListRequest, auth_role_list=1107 AuthRoleListRequest,
    auth_role_add=1200 AuthRoleAddRequest, auth_role_delete=1201 AuthRoleDeleteRequest,
    auth_role_get=1202 AuthRoleGetRequest, auth_role_grant_permission=1203 AuthRoleGrantPermissionRequest,
    auth_role_revoke_permission=1204 AuthRoleRevokePermissionRequest,
    cluster_version_set=1300 membershippb.ClusterVersionSetRequest,
    cluster_member_attr_set=1301 membershippb.ClusterMemberAttrSetRequest,
    downgrade_info_set=1302 membershippb.DowngradeInfoSetRequest,
    downgrade_version_test=9900 DowngradeVersionTestRequest

package v3lockpb
LockRequest: name=1 bytes, lease=2 int64
LockResponse: header=1 etcdserverpb.ResponseHeader, key=2 bytes
UnlockRequest: key=1 bytes
UnlockResponse: header=1 etcdserverpb.ResponseHeader

package v3electionpb
LeaderKey: name=1 bytes, key=2 bytes, rev=3 int64, lease=4 int64
CampaignRequest: name=1 bytes, lease=2 int64, value=3 bytes
CampaignResponse: header=1 etcdserverpb.ResponseHeader, leader=2 LeaderKey
ProclaimRequest: leader=1 LeaderKey, value=2 bytes
ProclaimResponse: header=1 etcdserverpb.ResponseHeader
LeaderRequest: name=1 bytes
LeaderResponse: header=1 etcdserverpb.ResponseHeader, kv=2 mvccpb.KeyValue
ResignRequest: leader=1 LeaderKey
ResignResponse: header=1 etcdserverpb.ResponseHeader

package shallow
RequestOp oneof request: request_range=1 etcdserverpb.RangeRequest?, request_put=2 etcdserverpb.PutRequest?,
    request_delete_range=3 etcdserverpb.DeleteRangeRequest?, request_txn=4 bytes?
TxnRequest: compare=1 etcdserverpb.Compare*, success=2 RequestOp*, failure=3 RequestOp*
InternalRaftRequest: ID=1 uint64, txn=6 TxnRequest, header=100 etcdserverpb.RequestHeader
WatchResponse: header=1 etcdserverpb.ResponseHeader, watch_id=2 int64, created=3 bool, canceled=4 bool,
    compact_revision=5 int64, cancel_reason=6 bytes, fragment=7 bool, events=11 Event*
Event: type=1 int32, kv=2 bytes, prev_kv=3 bytes
"""
