"""The rules: users, roles, whether they count, and the revision of all that, as some rows say it.

``Rules`` never change; other rows are other rules. So they can be asked from any thread, and remember what each user's
roles come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from kvstore.auth.permissions import READ, READWRITE, WRITE, Need, Span, covers, merged, span_of
from kvstore.errors import Corruption, RequestError
from kvstore.etcdpb.logged import authpb
from kvstore.etcdpb.status import CODES
from kvstore.mvcc.schema import META_CARRIED, parse_u64

ENABLED = META_CARRIED + b"auth/authEnabled"
REVISION = META_CARRIED + b"auth/authRevision"
USERS = META_CARRIED + b"authUsers/"
ROLES = META_CARRIED + b"authRoles/"

ROOT = b"root"
"""The user without whom users cannot count, and the role that may do everything."""
FIRST_REVISION = 1

Rows = Mapping[bytes, bytes]


class Refused(RequestError):
    """Users and roles refuse it, in etcd's words."""

    def __init__(self, what: str) -> None:
        text = f"etcdserver: {what}"
        super().__init__(text)
        self.code = CODES[text]


class Caller(NamedTuple):
    """Whose request it is, and the revision of the rules by which that was found out."""

    name: bytes = b""
    revision: int = 0
    """0: it is nobody's."""


NOBODY = Caller()


class Permissions(NamedTuple):
    """What the roles of a user come to."""

    is_root: bool
    spans: Mapping[int, list[Span]]
    """By ``READ`` and ``WRITE``: merged."""


class Rules:
    """What some rows say about users and roles."""

    def __init__(self, rows: Rows) -> None:
        """Raises ``Corruption`` for rows that say nothing."""
        self.rows = rows
        self.enabled = rows.get(ENABLED) == b"\x01"
        self.revision = parse_u64(rows.get(REVISION), FIRST_REVISION)
        self._permissions: dict[bytes, Permissions] = {}

    # --- who there is -----------------------------------------------------------------

    def user(self, name: bytes) -> Any:
        """authpb.User; None if there is none of that name."""
        return self._decoded(authpb.User, USERS + name)

    def role(self, name: bytes) -> Any:
        """authpb.Role; None if there is none of that name."""
        return self._decoded(authpb.Role, ROLES + name)

    def users(self) -> list[bytes]:
        """Their names, in order."""
        return self._names(USERS)

    def roles(self) -> list[bytes]:
        """Their names, in order."""
        return self._names(ROLES)

    def _names(self, prefix: bytes) -> list[bytes]:
        return sorted(name[len(prefix) :] for name in self.rows if name.startswith(prefix))

    def _decoded(self, message: Any, name: bytes) -> Any:
        value = self.rows.get(name)
        try:
            return None if value is None else message.FromString(value)
        except DecodeError:
            raise Corruption(f"the row {name!r:.80} holds no {message.DESCRIPTOR.name.lower()}") from None

    # --- what they may do -------------------------------------------------------------
    #
    # Each raises ``Refused``, and nothing as long as users do not count.

    def check(self, caller: Caller, needed: Iterable[Need]) -> None:
        """Refuse what the caller's roles do not allow."""
        for what, span in needed:
            if not self.enabled:
                return
            permissions = self._current(caller)
            if permissions.is_root:
                return
            if not covers(permissions.spans[what], span):
                raise Refused("permission denied")

    def spans(self, caller: Caller, what: int = READ) -> list[Span]:
        """The keys that the caller may read, or write, ascending."""
        if not self.enabled:
            return [(b"", None)]
        permissions = self._current(caller)
        return [(b"", None)] if permissions.is_root else list(permissions.spans[what])

    def check_user(self, caller: Caller) -> None:
        """Refuse who is nobody, or a user no more."""
        if self.enabled:
            self._of(caller)

    def check_root(self, caller: Caller) -> None:
        """Refuse who has not the role ``root``. It counts by whichever rules the caller was found out."""
        if self.enabled and not self._of(caller).is_root:
            raise Refused("permission denied")

    def _current(self, caller: Caller) -> Permissions:
        if 0 < caller.revision < self.revision:
            raise Refused("revision of auth store is old")
        return self._of(caller)

    def _of(self, caller: Caller) -> Permissions:
        if not (caller.name and caller.revision):
            raise Refused("user name is empty")
        found = self._permissions.get(caller.name)
        if found is None:
            user = self.user(caller.name)
            if user is None:
                raise Refused("permission denied")
            found = self._permissions[caller.name] = self._permissions_of(user)
        return found

    def _permissions_of(self, user: Any) -> Permissions:
        spans: dict[int, list[Span]] = {READ: [], WRITE: []}
        for name in user.roles:
            role = self.role(name)
            for permission in role.keyPermission if role else ():
                if not permission.key:
                    continue  # an etcd 3.4 takes it, and lets nobody do anything by it
                for what in (READ, WRITE):
                    if permission.permType in (what, READWRITE):
                        spans[what].append(span_of(permission.key, permission.range_end))
        return Permissions(ROOT in user.roles, {what: merged(found) for what, found in spans.items()})
