"""Users, roles and permissions, as an etcd or a served store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvstore.auth.store import Rules
from kvstore.etcdpb.json import base64_text

from ..command import readable

_KINDS = ("read", "write", "read and write")
_FROM_KEY = b"\0"


@dataclass(frozen=True, slots=True)
class Access:
    """Who there is, and what the roles allow, in words."""

    enabled: bool
    users: dict[bytes, list[bytes]]
    roles: dict[bytes, list[str]]

    def as_json(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "users": [
                {"name": base64_text(name), "roles": list(map(base64_text, roles))}
                for name, roles in self.users.items()
            ],
            "roles": [
                {"name": base64_text(name), "permissions": permissions}
                for name, permissions in self.roles.items()
            ],
        }


def access_of(carried: Mapping[bytes, bytes]) -> Access:
    """``carried``: the rows that a store keeps for servers of etcd's API. Raises ``Corruption``."""
    rules = Rules(carried)
    users = {name: list(rules.user(name).roles) for name in rules.users()}
    roles = {name: list(map(_permission, rules.role(name).keyPermission)) for name in rules.roles()}
    return Access(rules.enabled, users, roles)


def _permission(found: Any) -> str:
    kind = _KINDS[found.permType] if 0 <= found.permType < len(_KINDS) else f"permission {found.permType} for"
    key, end = bytes(found.key), bytes(found.range_end)
    if not end:
        return f"{kind} {readable(key, 200)}"
    if end == _FROM_KEY:
        return (
            f"{kind} everything"
            if key in (b"", _FROM_KEY)
            else f"{kind} {readable(key, 200)} and all after it"
        )
    if key and end == key[:-1] + bytes((min(key[-1] + 1, 255),)) and key[-1] < 255:
        return f"{kind} {readable(key, 200)}*"
    return f"{kind} [{readable(key, 200)}, {readable(end, 200)})"
