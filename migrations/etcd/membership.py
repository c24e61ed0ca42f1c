"""The members of a cluster, as a server knows them after applying the entries of its log.

    AddNode {id, peerURLs}           a new member, unless its id or an address is taken, or was removed before
    AddNode {id, isPromote}          a learner becomes a voter
    AddLearnerNode {id, isLearner}   a new member without a vote; one at a time
    UpdateNode {id, peerURLs}        other addresses, unless another member has one of them
    RemoveNode                       removed for good: its id never comes back
    attributes {name, clientURLs}    what a member publishes about itself once it runs

None of this is decided before the entry is in the log. A refused change is there like one that is carried out, and
does not count for the voters either.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol

from . import messages, rows

LEARNERS_MAX = 1
"""etcd's default; 3.4 allows no other."""

MemberRows = dict[bytes, dict[bytes, bytes]]
"""Rows of the buckets ``members`` and ``members_removed``."""


class Table(Protocol):
    """The place of the rows."""

    def get(self, bucket: bytes, key: bytes) -> bytes | None: ...

    def set(self, bucket: bytes, key: bytes, value: bytes | None) -> None: ...

    def all(self, bucket: bytes) -> dict[bytes, bytes]: ...


class MemberTable:
    """Rows in memory."""

    def __init__(self, found: MemberRows | None = None) -> None:
        self._rows = found or {rows.MEMBERS: {}, rows.MEMBERS_REMOVED: {}}

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._rows[bucket].get(key)

    def set(self, bucket: bytes, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._rows[bucket].pop(key, None)
        else:
            self._rows[bucket][key] = value

    def all(self, bucket: bytes) -> dict[bytes, bytes]:
        return self._rows[bucket]


class Membership:
    """Carries changes out on the rows of members. ``known``: ids in the database, which may be learners beyond the
    limit, if the server was allowed more. Raises ``RowError`` if a change or row is not JSON."""

    def __init__(self, table: Table, known: Collection[bytes] = ()) -> None:
        self._table = table
        self._known = known

    def replace(self, found: MemberRows) -> None:
        """Replace the members in the table by these."""
        for bucket, members in found.items():
            for key in set(self._table.all(bucket)) - set(members):
                self._table.set(bucket, key, None)
            for key, value in members.items():
                self._table.set(bucket, key, value)

    def change(self, change: Any) -> bool:
        """Apply a configuration change; False if it is refused."""
        key = b"%x" % change.node_id
        if self._table.get(rows.MEMBERS_REMOVED, key) is not None:
            return False
        kind = messages.enum_name("ConfChangeType", change.type)
        if kind == "ConfChangeRemoveNode":
            return self._remove(key)
        if not change.context:
            return True  # not from a server: its own changes all have a context
        said = rows.decode_json(change.context)
        if kind == "ConfChangeUpdateNode":
            return self._update(key, said)
        if said.get("isPromote"):
            return self._promote(key)
        return self._add(key, change.node_id, said)

    def set_attributes(self, key: bytes, name: object, client_urls: object) -> None:
        """Set the attributes of an existing member; those of others are ignored."""
        member = self._get(key)
        if member is not None:
            self._put(key, member | {"name": name, "clientURLs": client_urls})

    def _remove(self, key: bytes) -> bool:
        if self._get(key) is None:
            return False
        self._table.set(rows.MEMBERS, key, None)
        self._table.set(rows.MEMBERS_REMOVED, key, rows.REMOVED)
        return True

    def _update(self, key: bytes, said: dict[str, Any]) -> bool:
        member = self._get(key)
        if member is None or self._are_taken(said.get("peerURLs"), but_by=key):
            return False
        self._put(key, member | {"peerURLs": said.get("peerURLs"), "isLearner": said.get("isLearner")})
        return True

    def _promote(self, key: bytes) -> bool:
        member = self._get(key)
        if member is None or not member.get("isLearner"):
            return False
        self._put(key, member | {"isLearner": False})
        return True

    def _add(self, key: bytes, node_id: int, said: dict[str, Any]) -> bool:
        if self._get(key) is not None or self._are_taken(said.get("peerURLs")):
            return False
        if said.get("isLearner") and key not in self._known:
            learners = sum(bool(member.get("isLearner")) for _, member in self._members())
            if learners >= LEARNERS_MAX:
                return False
        self._put(key, said | {"id": node_id})
        return True

    def _are_taken(self, urls: Iterable[str] | None, but_by: bytes = b"") -> bool:
        wanted = set(map(str, urls or ()))
        return any(
            not wanted.isdisjoint(map(str, member.get("peerURLs") or ()))
            for key, member in self._members()
            if key != but_by
        )

    def _members(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for key, value in self._table.all(rows.MEMBERS).items():
            yield key, rows.decode_json(value)

    def _get(self, key: bytes) -> dict[str, Any] | None:
        value = self._table.get(rows.MEMBERS, key)
        return None if value is None else rows.decode_json(value)

    def _put(self, key: bytes, member: dict[str, Any]) -> None:
        """Write it as etcd does: empty fields are omitted."""
        order = ("id", "peerURLs", "isLearner", "name", "clientURLs")
        row = json.dumps(
            {name: member[name] for name in order if member.get(name)}, separators=(",", ":")
        ).encode()
        rows.decode_member(row)
        self._table.set(rows.MEMBERS, key, row)


def v2_members(store: bytes) -> MemberRows | None:
    """The members in the JSON of a v2 store; None if it is not one."""
    try:
        cluster = json.loads(store)["Root"]["Children"]["0"]["Children"]
        members, removed = _children(cluster["members"]), _children(cluster.get("removed_members"))
        return {
            rows.MEMBERS: {name.encode(): _v2_member(name, node) for name, node in members.items()},
            rows.MEMBERS_REMOVED: {name.encode(): rows.REMOVED for name in removed},
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _children(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = (node["Children"] if node else None) or {}
    return found


def _v2_member(name: str, node: Any) -> bytes:
    member = {"id": int(name, 16)}
    for part in ("raftAttributes", "attributes"):
        if part in node["Children"]:
            member |= json.loads(node["Children"][part]["Value"])
    row = json.dumps(member, separators=(",", ":")).encode()
    rows.decode_member(row)
    return row
