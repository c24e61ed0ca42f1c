"""The gateway's tables: which path of HTTP leads to which method, and with which status its errors come back."""

from __future__ import annotations

from functools import cache

from kvstore.errors import Code
from kvstore.network.dialect import V3_5, Dialect

_PATHS = """
etcdserverpb.KV           Range /kv/range, Put /kv/put, DeleteRange /kv/deleterange, Txn /kv/txn
etcdserverpb.KV           Compact /kv/compaction
etcdserverpb.Watch        Watch /watch
etcdserverpb.Lease        LeaseGrant /lease/grant, LeaseKeepAlive /lease/keepalive
etcdserverpb.Lease        LeaseRevoke /lease/revoke, LeaseTimeToLive /lease/timetolive, LeaseLeases /lease/leases
etcdserverpb.Lease        LeaseRevoke /kv/lease/revoke, LeaseTimeToLive /kv/lease/timetolive
etcdserverpb.Lease        LeaseLeases /kv/lease/leases
etcdserverpb.Cluster      MemberAdd /cluster/member/add, MemberRemove /cluster/member/remove
etcdserverpb.Cluster      MemberUpdate /cluster/member/update, MemberList /cluster/member/list
etcdserverpb.Cluster      MemberPromote /cluster/member/promote
etcdserverpb.Maintenance  Alarm /maintenance/alarm, Status /maintenance/status, Defragment /maintenance/defragment
etcdserverpb.Maintenance  Hash /maintenance/hash, Snapshot /maintenance/snapshot
etcdserverpb.Maintenance  MoveLeader /maintenance/transfer-leadership
etcdserverpb.Auth         AuthEnable /auth/enable, AuthDisable /auth/disable, Authenticate /auth/authenticate
etcdserverpb.Auth         UserAdd /auth/user/add, UserGet /auth/user/get, UserList /auth/user/list
etcdserverpb.Auth         UserDelete /auth/user/delete, UserChangePassword /auth/user/changepw
etcdserverpb.Auth         UserGrantRole /auth/user/grant, UserRevokeRole /auth/user/revoke
etcdserverpb.Auth         RoleAdd /auth/role/add, RoleGet /auth/role/get, RoleList /auth/role/list
etcdserverpb.Auth         RoleDelete /auth/role/delete, RoleGrantPermission /auth/role/grant
etcdserverpb.Auth         RoleRevokePermission /auth/role/revoke
v3lockpb.Lock             Lock /lock/lock, Unlock /lock/unlock
v3electionpb.Election     Campaign /election/campaign, Proclaim /election/proclaim, Leader /election/leader
v3electionpb.Election     Observe /election/observe, Resign /election/resign
"""
_PATHS_SINCE_3_5 = """
etcdserverpb.Maintenance  HashKV /maintenance/hashkv, Downgrade /maintenance/downgrade
etcdserverpb.Auth         AuthStatus /auth/status
"""


@cache
def methods_by_path(dialect: Dialect) -> dict[str, str]:
    """``/v3/kv/range`` -> ``/etcdserverpb.KV/Range``."""
    found = {}
    for line in (_PATHS + (_PATHS_SINCE_3_5 if dialect >= V3_5 else "")).split("\n"):
        service, _blanks, methods = line.partition(" ")
        for method in filter(None, methods.split(",")):
            name, path = method.split()
            found[f"/v3{path}"] = f"/{service}/{name}"
    return found


_STATUSES = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_STATUSES_BEFORE_3_5 = {Code.CANCELLED: 408, Code.FAILED_PRECONDITION: 412}


def http_status(code: Code, dialect: Dialect) -> int:
    """The status of HTTP that stands for a code of gRPC."""
    if dialect < V3_5 and code in _STATUSES_BEFORE_3_5:
        return _STATUSES_BEFORE_3_5[code]
    return _STATUSES.get(code, 500)
