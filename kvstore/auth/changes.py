"""Changes of users and roles: the rows that each puts, or why it is refused.

    rules, request --changed--> rows, with the revision of the rules among them

A request is one of etcd's messages as its log has them: ``string`` fields are bytes, and passwords are hashed already.
None of this asks whose request it is.
"""

from __future__ import annotations

import base64
import binascii
from bisect import insort
from collections.abc import Callable
from typing import Any

from kvstore.auth.store import ENABLED, REVISION, ROLES, ROOT, USERS, Refused, Rules
from kvstore.etcdpb.logged import authpb
from kvstore.mvcc.schema import pack_u64

Changed = dict[bytes, bytes | None]
"""By name: what is put. None: the row is deleted."""


def changed(rules: Rules, request: Any) -> Changed:
    """The rows that a request changes; none, if all is so already. Raises ``Refused``."""
    rows = _CHANGES[request.DESCRIPTOR.name](rules, request)
    if rows and rows.get(ENABLED) != b"\x01":
        rows[REVISION] = pack_u64(rules.revision + 1)
    return rows


# --- on and off ------------------------------------------------------------------------------------


def _enable(rules: Rules, _request: Any) -> Changed:
    """Which leaves the rules, and their revision, as they are."""
    if rules.enabled:
        return {}
    root = rules.user(ROOT)
    if root is None:
        raise Refused("root user does not exist")
    if ROOT not in root.roles:
        raise Refused("root user does not have root role")
    return {ENABLED: b"\x01"}


def _disable(rules: Rules, _request: Any) -> Changed:
    return {ENABLED: b"\x00"} if rules.enabled else {}


# --- users -----------------------------------------------------------------------------------------


def _user_add(rules: Rules, request: Any) -> Changed:
    if not request.name:
        raise Refused("user name is empty")
    if rules.user(request.name) is not None:
        raise Refused("user name already exists")
    user = authpb.User(name=request.name, options=request.options)
    user.password = _hash_of(request)
    return _user_row(user)


def _user_change_password(rules: Rules, request: Any) -> Changed:
    user = _known_user(rules, request.name)
    user.password = b"" if user.options.no_password else _hash_of(request)
    return _user_row(user)


def _hash_of(request: Any) -> bytes:
    try:
        return base64.b64decode(request.hashedPassword)
    except binascii.Error:
        return b""


def _user_delete(rules: Rules, request: Any) -> Changed:
    if rules.enabled and request.name == ROOT:
        raise Refused("invalid auth management")
    _known_user(rules, request.name)
    return {USERS + request.name: None}


def _user_grant_role(rules: Rules, request: Any) -> Changed:
    user = _known_user(rules, request.user)
    if request.role != ROOT:
        _known_role(rules, request.role)
    if request.role in user.roles:
        return {}
    names = list(user.roles)
    insort(names, request.role)
    user.roles[:] = names
    return _user_row(user)


def _user_revoke_role(rules: Rules, request: Any) -> Changed:
    if rules.enabled and request.name == ROOT and request.role == ROOT:
        raise Refused("invalid auth management")
    user = _known_user(rules, request.name)
    if request.role not in user.roles:
        raise Refused("role is not granted to the user")
    user.roles.remove(request.role)
    return _user_row(user)


def _known_user(rules: Rules, name: bytes) -> Any:
    user = rules.user(name)
    if user is None:
        raise Refused("user name not found")
    return user


def _user_row(user: Any) -> Changed:
    return {USERS + user.name: user.SerializeToString()}


# --- roles -----------------------------------------------------------------------------------------


def _role_add(rules: Rules, request: Any) -> Changed:
    if not request.name:
        raise Refused("role name is empty")
    if rules.role(request.name) is not None:
        raise Refused("role name already exists")
    return _role_row(authpb.Role(name=request.name))


def _role_delete(rules: Rules, request: Any) -> Changed:
    if rules.enabled and request.role == ROOT:
        raise Refused("invalid auth management")
    _known_role(rules, request.role)
    rows: Changed = {ROLES + request.role: None}
    for name in rules.users():
        user = rules.user(name)
        if request.role in user.roles:
            user.roles.remove(request.role)
            rows |= _user_row(user)
    return rows


def _role_grant_permission(rules: Rules, request: Any) -> Changed:
    role = _known_role(rules, request.name)
    wanted = request.perm
    for permission in role.keyPermission:
        if (permission.key, permission.range_end) == (wanted.key, wanted.range_end):
            permission.permType = wanted.permType
            break
    else:
        permissions = sorted([*role.keyPermission, wanted], key=lambda each: each.key)
        del role.keyPermission[:]
        role.keyPermission.extend(permissions)
    return _role_row(role)


def _role_revoke_permission(rules: Rules, request: Any) -> Changed:
    role = _known_role(rules, request.role)
    gone = request.key, request.range_end
    kept = [each for each in role.keyPermission if (each.key, each.range_end) != gone]
    if len(kept) == len(role.keyPermission):
        raise Refused("permission is not granted to the role")
    del role.keyPermission[:]
    role.keyPermission.extend(kept)
    return _role_row(role)


def _known_role(rules: Rules, name: bytes) -> Any:
    role = rules.role(name)
    if role is None:
        raise Refused("role name not found")
    return role


def _role_row(role: Any) -> Changed:
    return {ROLES + role.name: role.SerializeToString()}


_CHANGES: dict[str, Callable[[Rules, Any], Changed]] = {
    "AuthEnableRequest": _enable,
    "AuthDisableRequest": _disable,
    "AuthUserAddRequest": _user_add,
    "AuthUserDeleteRequest": _user_delete,
    "AuthUserChangePasswordRequest": _user_change_password,
    "AuthUserGrantRoleRequest": _user_grant_role,
    "AuthUserRevokeRoleRequest": _user_revoke_role,
    "AuthRoleAddRequest": _role_add,
    "AuthRoleDeleteRequest": _role_delete,
    "AuthRoleGrantPermissionRequest": _role_grant_permission,
    "AuthRoleRevokePermissionRequest": _role_revoke_permission,
}
