"""Users and roles while etcd's log is replayed: changed by it, and asked whether a logged request was allowed.

With authentication on, etcd logs a request before it checks the permission. What became of the request is decided by
the same rules here (``kvstore.auth``): the request names its user, and the revision of the rules by which that user
logged in.

Up to 3.4 the log has passwords in clear text, and every member salts its own hash: such a user arrives without one.
"""

from __future__ import annotations

from typing import Any

from kvstore.auth.changes import changed
from kvstore.auth.permissions import needs
from kvstore.auth.store import Caller, Rules
from kvstore.model import KeysOfLease, PutRequest, TxnRequest
from kvstore.mvcc.state import State

_WITHOUT_CHANGE = (
    "authenticate",
    "auth_status",
    "auth_user_get",
    "auth_user_list",
    "auth_role_get",
    "auth_role_list",
)


class Auth:
    """The rules of a state, as its log goes on."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._rules = Rules(state.carried)
        self.notes: list[str] = []

    @property
    def rules(self) -> Rules:
        if self._rules.rows is not self._state.carried:
            self._rules = Rules(self._state.carried)
        return self._rules

    def check(self, header: Any, request: Any, keys_of_lease: KeysOfLease) -> None:
        """Raise ``RequestError`` if the user whom the header names may not make a request."""
        self.rules.check(_caller(header), needs(_as_checked(request), keys_of_lease))

    def apply(self, kind: str, request: Any) -> None:
        """Change users and roles; ``RequestError`` if the request's user may not, or there is nothing to change."""
        if kind in _WITHOUT_CHANGE:
            return
        self.rules.check_root(_caller(request.header))
        change = getattr(request, kind)
        for name, value in changed(self.rules, change).items():
            self._state.set_carried(name, value)
        if getattr(change, "password", b"") and not change.hashedPassword:
            self.notes.append(f"user {change.name.decode('utf-8', 'replace')!r} needs a new password")


def _as_checked(op: Any) -> Any:
    """A request as etcd looks at it: a put within a transaction may give back the value before to anybody."""
    if not isinstance(op, TxnRequest):
        return op
    success, failure = (
        tuple(
            [
                each._replace(prev_kv=False) if isinstance(each, PutRequest) else _as_checked(each)
                for each in branch
            ]
        )
        for branch in (op.success, op.failure)
    )
    return TxnRequest(op.compare, success, failure)


def _caller(header: Any) -> Caller:
    return Caller(header.username, header.auth_revision)
