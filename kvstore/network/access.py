"""Who may do what: one table, by etcd's names of requests.

    since 3.5 | before            keys        what the user's roles allow of the keys that the request touches
                                  user        anybody who has logged in
                                  root        who has the role ``root``
                                  known       anybody; but who shows a token that is none is told so
                                  open        anybody, with any token

A request that is logged is checked when it is planned (``users``), so that no change of the rules can come in between;
what is only read, before and after; the rest when it comes. Whatever fails validation is told that first.

Of four methods etcd's refusals lose their code on the way out before 3.6, and begin with ``auth:`` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kvstore.auth.permissions import needs
from kvstore.auth.store import Caller, Refused, Rules
from kvstore.errors import Code
from kvstore.model import KeysOfLease
from kvstore.network.call import Failed
from kvstore.network.dialect import V3_5, V3_6, Dialect

Check = Callable[[Rules, Caller, Any, KeysOfLease], None]
"""Raises ``Refused``. The request is one of the model's, or etcd's message."""


class Rule(NamedTuple):
    check: Check
    is_bare: bool = False
    """Whether a refusal is told without a code."""


def _keys(rules: Rules, caller: Caller, request: Any, keys_of_lease: KeysOfLease) -> None:
    rules.check(caller, needs(request, keys_of_lease))


def _user(rules: Rules, caller: Caller, _request: Any, _keys_of_lease: KeysOfLease) -> None:
    rules.check_user(caller)


def _user_and_keys(rules: Rules, caller: Caller, request: Any, keys_of_lease: KeysOfLease) -> None:
    rules.check_user(caller)
    rules.check(caller, needs(request, keys_of_lease))


def _root(rules: Rules, caller: Caller, _request: Any, _keys_of_lease: KeysOfLease) -> None:
    rules.check_root(caller)


def _known(_rules: Rules, _caller: Caller, _request: Any, _keys_of_lease: KeysOfLease) -> None:
    pass


def _own_user(rules: Rules, caller: Caller, request: Any, _keys_of_lease: KeysOfLease) -> None:
    if request.name.encode() != caller.name:
        rules.check_root(caller)


def _own_role(rules: Rules, caller: Caller, request: Any, _keys_of_lease: KeysOfLease) -> None:
    user = rules.user(caller.name)
    if user is None or request.role.encode() not in user.roles:
        rules.check_root(caller)


KEYS, USER, USER_AND_KEYS, ROOT, KNOWN = map(Rule, (_keys, _user, _user_and_keys, _root, _known))
OWN_USER, OWN_ROLE = Rule(_own_user), Rule(_own_role)
BARE_ROOT, BARE_KNOWN = Rule(_root, is_bare=True), Rule(_known, is_bare=True)
OPEN = None

_RULES: dict[str, tuple[Rule | None, Rule | None]] = {
    "RangeRequest": (KEYS, KEYS),
    "PutRequest": (KEYS, KEYS),
    "DeleteRangeRequest": (KEYS, KEYS),
    "TxnRequest": (KEYS, KEYS),
    "WatchRequest": (KEYS, KEYS),
    "CompactionRequest": (ROOT, KNOWN),
    "LeaseGrantRequest": (USER, KNOWN),
    "LeaseRevokeRequest": (USER_AND_KEYS, KEYS),
    "LeaseKeepAliveRequest": (USER_AND_KEYS, OPEN),
    "LeaseTimeToLiveRequest": (USER_AND_KEYS, OPEN),
    "LeaseLeasesRequest": (USER_AND_KEYS, OPEN),
    "MemberListRequest": (USER, OPEN),
    "MemberAddRequest": (ROOT, ROOT),
    "MemberRemoveRequest": (ROOT, ROOT),
    "MemberUpdateRequest": (ROOT, ROOT),
    "MemberPromoteRequest": (ROOT, ROOT),
    "StatusRequest": (USER, OPEN),
    "AlarmRequest": (USER, BARE_KNOWN),  # that raises an alarm, or puts one out: see ALARM_CHANGE
    "HashRequest": (BARE_ROOT, BARE_ROOT),
    "HashKVRequest": (BARE_ROOT, BARE_ROOT),
    "DefragmentRequest": (BARE_ROOT, BARE_ROOT),
    "SnapshotRequest": (BARE_ROOT, BARE_ROOT),
    "MoveLeaderRequest": (ROOT, OPEN),
    "DowngradeRequest": (ROOT, OPEN),
    "AuthEnableRequest": (ROOT, ROOT),
    "AuthDisableRequest": (ROOT, ROOT),
    "AuthStatusRequest": (ROOT, ROOT),
    "AuthenticateRequest": (OPEN, OPEN),
    "AuthUserAddRequest": (ROOT, ROOT),
    "AuthUserGetRequest": (OWN_USER, OWN_USER),
    "AuthUserListRequest": (ROOT, ROOT),
    "AuthUserDeleteRequest": (ROOT, ROOT),
    "AuthUserChangePasswordRequest": (ROOT, ROOT),
    "AuthUserGrantRoleRequest": (ROOT, ROOT),
    "AuthUserRevokeRoleRequest": (ROOT, ROOT),
    "AuthRoleAddRequest": (ROOT, ROOT),
    "AuthRoleGetRequest": (OWN_ROLE, OWN_ROLE),
    "AuthRoleListRequest": (ROOT, ROOT),
    "AuthRoleDeleteRequest": (ROOT, ROOT),
    "AuthRoleGrantPermissionRequest": (ROOT, ROOT),
    "AuthRoleRevokePermissionRequest": (ROOT, ROOT),
    "ALARM_CHANGE": (ROOT, BARE_KNOWN),
}
_SINCE_3_6: dict[str, Rule | None] = {
    "HashRequest": ROOT,
    "HashKVRequest": ROOT,
    "DefragmentRequest": ROOT,
    "SnapshotRequest": ROOT,
}


def rules_of(dialect: Dialect) -> dict[str, Rule | None]:
    """The table of one release: by name of the request."""
    found = {name: pair[dialect < V3_5] for name, pair in _RULES.items()}
    return found | (_SINCE_3_6 if dialect >= V3_6 else {})


def bare(refusal: Refused) -> Failed:
    """The refusal as those methods tell it."""
    return Failed(Code.UNKNOWN, str(refusal).replace("etcdserver: ", "auth: ", 1))
