"""etcd's users and roles: kept as rows, changed by the log, and asked whether a logged request was allowed.

Our stores have no users; they are kept so that an export writes them back. But with authentication on, etcd logs a
request before it checks the permission. To know what became of the request, the rule is needed here as well:

    the request names its user, and the revision of the rules that the user was checked against when logging in
    refused: no user; rules that have changed since; a user who was deleted; a key that the user's roles do not allow
    the role ``root`` may do everything

Up to 3.4 the log has passwords in clear text, and every member salts its own hash: such a user arrives without one.
"""

from __future__ import annotations

import base64
from bisect import insort
from collections.abc import Callable, Iterator
from typing import Any

from kvstore.etcdpb.requests import nested_txn

from . import messages, rows
from .carried import Carried

ROOT = b"root"
READ, WRITE, READWRITE = 0, 1, 2
_FROM_KEY = b"\0"

Span = tuple[bytes, bytes | None]
"""[start, end); None: to the last key."""


class Refused(Exception):
    """etcd refuses the request when it applies it."""


class Auth:
    """Users, roles, whether they count, and the revision of all that."""

    def __init__(self, carried: Carried) -> None:
        self._carried = carried
        self.notes: list[str] = []

    @property
    def enabled(self) -> bool:
        return self._carried.get(rows.AUTH, rows.AUTH_ENABLED) == b"\x01"

    @property
    def revision(self) -> int:
        value = self._carried.get(rows.AUTH, rows.AUTH_REVISION)
        return rows.decode_u64(value) if value else 0

    # --- permission checks ---------------------------------------------------------------------

    def check(self, kind: str, request: Any, keys_of_lease: Callable[[int], list[bytes]]) -> None:
        """Raise ``Refused`` if the request's user may not make it."""
        if not self.enabled or kind not in ("put", "delete_range", "txn", "lease_revoke"):
            return
        body = getattr(request, kind)
        if kind == "lease_revoke":
            needed = [(WRITE, point(key)) for key in keys_of_lease(body.ID)]
        else:
            needed = list(_NEEDED[kind](body))
            if kind == "put" and body.lease:
                needed += [(WRITE, point(key)) for key in keys_of_lease(body.lease)]
        if needed:
            allowed = self._allowed(request.header)
            if allowed is not None and not all(_covers(allowed[what], span) for what, span in needed):
                raise Refused

    def _allowed(self, header: Any) -> dict[int, list[Span]] | None:
        """The ranges that the user may read and write; None: everything."""
        user = self._user(header)
        if ROOT in user.roles:
            return None
        spans: dict[int, list[Span]] = {READ: [], WRITE: []}
        for name in user.roles:
            role = self._get(rows.AUTH_ROLES, messages.Role, name)
            for permission in role.keyPermission if role else ():
                for what in (READ, WRITE):
                    if permission.permType in (what, READWRITE):
                        spans[what].append(span_of(permission.key, permission.range_end))
        return {what: merged(found) for what, found in spans.items()}

    def _user(self, header: Any) -> Any:
        if not header.username or header.auth_revision < self.revision:
            raise Refused
        user = self._get(rows.AUTH_USERS, messages.User, header.username)
        if user is None:
            raise Refused
        return user

    # --- changes -------------------------------------------------------------------------------

    def apply(self, kind: str, request: Any) -> None:
        change = _CHANGES.get(kind)
        if change is None:
            return
        if self.enabled and ROOT not in self._user(request.header).roles:
            raise Refused
        change(self, getattr(request, kind))

    def _enable(self, _request: Any) -> None:
        root = self._get(rows.AUTH_USERS, messages.User, ROOT)
        if root is None or ROOT not in root.roles:
            raise Refused
        self._carried.set(rows.AUTH, rows.AUTH_ENABLED, b"\x01")

    def _disable(self, _request: Any) -> None:
        if self.enabled:
            self._carried.set(rows.AUTH, rows.AUTH_ENABLED, b"\x00")
            self._changed()

    def _user_add(self, request: Any) -> None:
        if not request.name or self._get(rows.AUTH_USERS, messages.User, request.name):
            raise Refused
        user = messages.User(name=request.name, options=request.options)
        user.password = self._password(request)
        self._put(rows.AUTH_USERS, user)

    def _user_change_password(self, request: Any) -> None:
        user = self._known_user(request.name)
        user.password = self._password(request)
        self._put(rows.AUTH_USERS, user)

    def _password(self, request: Any) -> bytes:
        if request.hashedPassword:
            return base64.b64decode(request.hashedPassword)
        if request.password:
            self.notes.append(f"user {request.name.decode('utf-8', 'replace')!r} needs a new password")
        return b""

    def _user_delete(self, request: Any) -> None:
        self._known_user(request.name)
        if self.enabled and request.name == ROOT:
            raise Refused
        self._carried.set(rows.AUTH_USERS, request.name, None)
        self._changed()

    def _user_grant_role(self, request: Any) -> None:
        user = self._known_user(request.user)
        if request.role != ROOT and self._get(rows.AUTH_ROLES, messages.Role, request.role) is None:
            raise Refused
        if request.role in user.roles:
            return
        names = list(user.roles)
        insort(names, request.role)
        user.roles[:] = names
        self._put(rows.AUTH_USERS, user)

    def _user_revoke_role(self, request: Any) -> None:
        if self.enabled and request.name == ROOT and request.role == ROOT:
            raise Refused
        user = self._known_user(request.name)
        if request.role not in user.roles:
            raise Refused
        user.roles.remove(request.role)
        self._put(rows.AUTH_USERS, user)

    def _role_add(self, request: Any) -> None:
        if not request.name or self._get(rows.AUTH_ROLES, messages.Role, request.name):
            raise Refused
        self._put(rows.AUTH_ROLES, messages.Role(name=request.name))

    def _role_delete(self, request: Any) -> None:
        if self.enabled and request.role == ROOT:
            raise Refused
        self._known_role(request.role)
        self._carried.set(rows.AUTH_ROLES, request.role, None)
        for name in self._carried.all(rows.AUTH_USERS):
            user = self._known_user(name)
            if request.role in user.roles:
                user.roles.remove(request.role)
                self._carried.set(rows.AUTH_USERS, name, user.SerializeToString())
        self._changed()

    def _role_grant_permission(self, request: Any) -> None:
        role = self._known_role(request.name)
        wanted = request.perm
        for permission in role.keyPermission:
            if (permission.key, permission.range_end) == (wanted.key, wanted.range_end):
                permission.permType = wanted.permType
                break
        else:
            permissions = sorted([*role.keyPermission, wanted], key=lambda each: each.key)
            del role.keyPermission[:]
            role.keyPermission.extend(permissions)
        self._put(rows.AUTH_ROLES, role)

    def _role_revoke_permission(self, request: Any) -> None:
        role = self._known_role(request.role)
        kept = [
            each
            for each in role.keyPermission
            if (each.key, each.range_end) != (request.key, request.range_end)
        ]
        if len(kept) == len(role.keyPermission):
            raise Refused
        del role.keyPermission[:]
        role.keyPermission.extend(kept)
        self._put(rows.AUTH_ROLES, role)

    # --- rows ----------------------------------------------------------------------------------

    def _get(self, bucket: bytes, message: Any, name: bytes) -> Any:
        value = self._carried.get(bucket, name)
        return None if value is None else message.FromString(value)

    def _known_user(self, name: bytes) -> Any:
        return self._known(rows.AUTH_USERS, messages.User, name)

    def _known_role(self, name: bytes) -> Any:
        return self._known(rows.AUTH_ROLES, messages.Role, name)

    def _known(self, bucket: bytes, message: Any, name: bytes) -> Any:
        found = self._get(bucket, message, name)
        if found is None:
            raise Refused
        return found

    def _put(self, bucket: bytes, message: Any) -> None:
        self._carried.set(bucket, message.name, message.SerializeToString())
        self._changed()

    def _changed(self) -> None:
        self._carried.set(rows.AUTH, rows.AUTH_REVISION, rows.encode_u64(self.revision + 1))


_CHANGES: dict[str, Callable[[Auth, Any], None]] = {
    "auth_enable": Auth._enable,
    "auth_disable": Auth._disable,
    "auth_user_add": Auth._user_add,
    "auth_user_delete": Auth._user_delete,
    "auth_user_change_password": Auth._user_change_password,
    "auth_user_grant_role": Auth._user_grant_role,
    "auth_user_revoke_role": Auth._user_revoke_role,
    "auth_role_add": Auth._role_add,
    "auth_role_delete": Auth._role_delete,
    "auth_role_grant_permission": Auth._role_grant_permission,
    "auth_role_revoke_permission": Auth._role_revoke_permission,
}


# --- what a request touches ------------------------------------------------------------------------

Needed = Iterator[tuple[int, Span]]


def point(key: bytes) -> Span:
    return key, key + b"\0"


def span_of(key: bytes, range_end: bytes) -> Span:
    if not range_end:
        return point(key)
    return key, None if range_end == _FROM_KEY else range_end


def _put_needs(put: Any) -> Needed:
    yield WRITE, point(put.key)
    if put.prev_kv:
        yield READ, point(put.key)


def _delete_needs(delete: Any) -> Needed:
    span = span_of(delete.key, delete.range_end)
    yield WRITE, span
    if delete.prev_kv:
        yield READ, span


def _txn_needs(txn: Any) -> Needed:
    for compare in txn.compare:
        yield READ, span_of(compare.key, compare.range_end)
    for op in (*txn.success, *txn.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range":
            yield READ, span_of(op.request_range.key, op.request_range.range_end)
        elif kind == "request_put":
            yield from _put_needs(op.request_put)
        elif kind == "request_delete_range":
            yield from _delete_needs(op.request_delete_range)
        elif kind == "request_txn":
            yield from _txn_needs(nested_txn(op))


_NEEDED: dict[str, Callable[[Any], Needed]] = {
    "put": _put_needs,
    "delete_range": _delete_needs,
    "txn": _txn_needs,
}


def merged(spans: list[Span]) -> list[Span]:
    """The same keys in as few spans as possible, ascending."""
    found: list[Span] = []
    for start, end in sorted(spans, key=lambda span: span[0]):
        if found and (found[-1][1] is None or start <= found[-1][1]):
            last = found[-1][1]
            found[-1] = found[-1][0], None if last is None or end is None else max(last, end)
        else:
            found.append((start, end))
    return found


def _covers(spans: list[Span], wanted: Span) -> bool:
    start, end = wanted
    return any(low <= start and (high is None or (end is not None and end <= high)) for low, high in spans)
