"""The entries of etcd's log that its database does not hold yet, decided again as etcd decides them when it starts.

    LogEntry -> request -> the planner of ``kvstore.mvcc``, which has etcd's semantics -> generation

etcd logs what was asked, not what came of it. A request that etcd refuses when it applies it (an unknown lease, a
compaction of the past, no room, no permission) is in the log all the same; it is refused here too, and leaves no trace.
Revisions therefore come out as they did there. That is also why ``kvstore.replay.apply_log`` does not do here: entries
of ours say what came of a write. What it checks, that entries follow each other without a gap, is checked here as well.

Besides keys: leases, alarms, users and roles (``auth``), members and the cluster's version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.errors import Corruption, RequestError
from kvstore.model import (
    AlarmRequest,
    CompactionRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    Op,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.schema import META
from kvstore.mvcc.state import State

from . import messages, rows
from .auth import Auth, Refused
from .beside_keys import MIN_TTL_SECONDS, carried_key, deadline_ms
from .data_dir import EtcdDataDir
from .membership import Membership
from .wal_content import LogEntry

_ALARM_ACTIVATE, _ALARM_DEACTIVATE = 1, 2
_OF_MEMBERS = frozenset({"conf_change", "v2", "cluster_member_attr_set", "cluster_version_set"})
_CAPPED = frozenset({"put", "txn", "lease_grant"})
"""What a server without room refuses."""


class LogReplay:
    """Applies entries to a state. One at a time, in order."""

    def __init__(self, state: State, lessor: Lessor, now_ms: int) -> None:
        self._state = state
        self._lessor = lessor
        self._planner = Planner(state, lessor, lambda: self._now_ms, MIN_TTL_SECONDS)
        self._now_ms = now_ms
        self._carried = Carried(state)
        self._members = Membership(self._carried, frozenset(self._carried.all(rows.MEMBERS)))
        self._auth = Auth(self._carried)
        self.notes: list[str] = self._auth.notes
        self.refused = 0

    def recover_members(self, directory: EtcdDataDir) -> None:
        """Have the members that the server finds when it starts (``data_dir``)."""
        found, entries = directory.members_beside_database()
        if found is not None:
            self._members.replace(found)
        for entry in entries:
            if (kind := entry.kind) in _OF_MEMBERS:
                self._guarded(kind, entry)

    def members(self) -> list[rows.Member]:
        """As they are after what was applied, by id."""
        try:
            found = [rows.decode_member(row) for row in self._carried.all(rows.MEMBERS).values()]
        except rows.RowError as error:
            raise Corruption(f"bucket members: {error}") from None
        return sorted(found, key=lambda member: member.id)

    def apply(self, entry: LogEntry) -> None:
        kind = entry.kind
        if not kind:
            reason = (
                f"entry {entry.index} holds no request that is known here: it is a later etcd's, or damaged"
            )
            raise Corruption(reason, entry.path, entry.offset)
        if entry.index != self._state.index + 1:
            reason = f"entry {entry.index} follows entry {self._state.index}: those between are missing"
            raise Corruption(reason, entry.path, entry.offset)
        if kind != "empty":
            self._guarded(kind, entry)
        self._state.reached(entry.index)

    def _guarded(self, kind: str, entry: LogEntry) -> None:
        try:
            self._apply(kind, entry)
        except (RequestError, Refused):
            self.refused += 1
        except (DecodeError, rows.RowError, ValueError, TypeError) as error:
            raise Corruption(f"entry {entry.index}: {error}", entry.path, entry.offset) from None

    def _apply(self, kind: str, entry: LogEntry) -> None:
        request = entry.request()
        if kind.startswith("conf_change"):
            self._conf_change(entry.type, request)
        elif kind == "v2":
            self._v2(request if hasattr(request, "Path") else request.v2)
        elif kind.startswith("auth"):
            self._auth.apply(kind, request)
        elif kind in _HANDLERS:
            self._check_alarms(kind, request)
            self._auth.check(kind, request, self._keys_of_lease)
            _HANDLERS[kind](self, getattr(request, kind))

    def _keys_of_lease(self, lease: int) -> list[bytes]:
        found = self._lessor.leases.get(lease)
        return sorted(found.keys) if found else []

    def _check_alarms(self, kind: str, request: Any) -> None:
        raised = {key[8:] for key in self._state.alarms}
        if b"CORRUPT" in raised and kind != "alarm":
            raise Refused
        if b"NOSPACE" in raised and kind in _CAPPED and not (kind == "txn" and not _puts(request.txn)):
            raise Refused

    # --- keys ----------------------------------------------------------------------------

    def _put(self, put: Any) -> None:
        self._planner.plan(put_request(put))

    def _delete_range(self, delete: Any) -> None:
        self._planner.plan(DeleteRangeRequest(delete.key, delete.range_end))

    def _txn(self, txn: Any) -> None:
        self._planner.plan(txn_request(txn))

    def _compaction(self, compaction: Any) -> None:
        self._planner.plan(CompactionRequest(compaction.revision))

    # --- leases and alarms -----------------------------------------------------------------

    def _lease_grant(self, grant: Any) -> None:
        if not grant.ID:
            raise Refused
        self._planner.plan(LeaseGrantRequest(grant.TTL, grant.ID))

    def _lease_revoke(self, revoke: Any) -> None:
        self._planner.plan(LeaseRevokeRequest(revoke.ID))

    def _lease_checkpoint(self, request: Any) -> None:
        for each in request.checkpoints:
            lease = self._lessor.leases.get(each.ID)
            if lease is not None:
                due = deadline_ms(lease.ttl_seconds, each.remaining_TTL, self._now_ms)
                self._lessor.apply_renew(self._state.active, each.ID, due)

    def _alarm(self, alarm: Any) -> None:
        name = messages.enum_name("Alarm", alarm.alarm)
        if name in ("NOSPACE", "CORRUPT") and alarm.action in (_ALARM_ACTIVATE, _ALARM_DEACTIVATE):
            self._planner.plan(AlarmRequest(alarm.memberID, name, alarm.action == _ALARM_ACTIVATE))

    # --- the cluster -------------------------------------------------------------------------

    def _cluster_version_set(self, request: Any) -> None:
        self._carried.set(rows.CLUSTER, rows.CLUSTER_VERSION, request.ver)

    def _cluster_member_attr_set(self, request: Any) -> None:
        attributes = request.member_attributes
        urls = [url.decode("utf-8", "replace") for url in attributes.client_urls]
        name = attributes.name.decode("utf-8", "replace")
        self._members.set_attributes(b"%x" % request.member_ID, name, urls)

    def _downgrade_info_set(self, request: Any) -> None:
        info = {"target-version": request.ver.decode("utf-8", "replace"), "enabled": request.enabled}
        self._carried.set(rows.CLUSTER, rows.DOWNGRADE, _json(info))

    def _v2(self, request: Any) -> None:
        """How 3.4 publishes a member's name and addresses, and the cluster's version."""
        path = request.Path.decode("utf-8", "replace").split("/")
        if request.Method != b"PUT":
            return
        if path[1:] == ["0", "version"]:
            self._carried.set(rows.CLUSTER, rows.CLUSTER_VERSION, request.Val)
        elif len(path) == 5 and path[2] == "members" and path[4] == "attributes":
            found = rows.decode_json(request.Val)
            key = b"%x" % int(path[3], 16)
            self._members.set_attributes(key, found.get("name"), found.get("clientURLs"))

    def _conf_change(self, entry_type: str, change: Any) -> None:
        if entry_type != "EntryConfChange" or change is None:
            return  # voters of joint configurations; members come with the simple kind
        self._members.change(change)


_HANDLERS: dict[str, Callable[[LogReplay, Any], None]] = {
    "put": LogReplay._put,
    "delete_range": LogReplay._delete_range,
    "txn": LogReplay._txn,
    "compaction": LogReplay._compaction,
    "lease_grant": LogReplay._lease_grant,
    "lease_revoke": LogReplay._lease_revoke,
    "lease_checkpoint": LogReplay._lease_checkpoint,
    "alarm": LogReplay._alarm,
    "cluster_version_set": LogReplay._cluster_version_set,
    "cluster_member_attr_set": LogReplay._cluster_member_attr_set,
    "downgrade_info_set": LogReplay._downgrade_info_set,
}


class Carried:
    """The rows of etcd's buckets that a store of ours keeps verbatim, read and changed."""

    def __init__(self, state: State) -> None:
        self._state = state
        with state.backend.read() as tx:
            self._rows = dict(tx.scan(META, carried_key(b"", b"")[:-1], carried_key(b"\xff", b"")))

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._rows.get(carried_key(bucket, key))

    def set(self, bucket: bytes, key: bytes, value: bytes | None) -> None:
        name = carried_key(bucket, key)
        if value is None:
            self._rows.pop(name, None)
        else:
            self._rows[name] = value
        self._state.active.set_row(META, name, value)

    def all(self, bucket: bytes) -> dict[bytes, bytes]:
        prefix = carried_key(bucket, b"")
        return {key[len(prefix) :]: value for key, value in self._rows.items() if key.startswith(prefix)}


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- requests of etcd as requests of ours ------------------------------------------------------


def put_request(put: Any) -> PutRequest:
    if not put.key:
        raise rows.RowError("a put of the empty key, which no server lets into its log")
    return PutRequest(put.key, put.value, put.lease, False, put.ignore_value, put.ignore_lease)


def range_request(asked: Any) -> RangeRequest:
    """As far as a transaction that is replayed can depend on it: what it may be refused for."""
    return RangeRequest(asked.key, asked.range_end, limit=1, revision=asked.revision)


NESTING_MAX = 150
"""Transactions inside of one another; a server with its default limit of ops lets 128 into its log."""


def txn_request(txn: Any, nesting: int = 0) -> TxnRequest:
    """An op without a kind is left out: a server's API refuses it, its log is carried out without it."""
    if nesting > NESTING_MAX:
        raise rows.RowError(f"transactions are nested more than {NESTING_MAX} deep")
    success, failure = (
        tuple([_op(each, nesting) for each in branch if each.WhichOneof("kind")])
        for branch in (txn.success, txn.failure)
    )
    return TxnRequest(tuple(map(compare_request, txn.compare)), success, failure)


_OPERANDS = ("version", "create_revision", "mod_revision", "value", "lease")
"""What each target is compared with; another one that the request may carry counts as absent."""


def compare_request(compare: Any) -> Compare:
    """As etcd judges it, numbers included that it has no name for: an unknown target counts as 0 beside 0, an
    unknown result is true of whatever exists."""
    target, result = compare.target, compare.result
    key, range_end = compare.key, compare.range_end
    is_known = 0 <= target < len(_OPERANDS)
    if not 0 <= result <= CompareResult.NOT_EQUAL:
        if target == CompareTarget.VALUE:
            return Compare(key, CompareTarget.VERSION, CompareResult.GREATER, 0, range_end)
        return _always(True, key)
    if not is_known:
        return _always(result == CompareResult.EQUAL, key)
    name = _OPERANDS[target]
    operand = getattr(compare, name) if compare.HasField(name) else b"" if name == "value" else 0
    return Compare(key, target, result, operand, range_end)


def _always(holds: bool, key: bytes) -> Compare:
    """A compare that holds, or does not, whatever the key is: no version is -1."""
    return Compare(key, CompareTarget.VERSION, CompareResult.NOT_EQUAL if holds else CompareResult.EQUAL, -1)


def _op(operation: Any, nesting: int) -> Op:
    kind = operation.WhichOneof("kind")
    request = getattr(operation, kind)
    match kind:
        case "request_put":
            return put_request(request)
        case "request_delete_range":
            return DeleteRangeRequest(request.key, request.range_end)
        case "request_txn":
            return txn_request(messages.nested_txn(operation), nesting + 1)
    return range_request(request)


def _puts(txn: Any) -> bool:
    """Whether either branch puts; nested transactions do not count, as in 3.4 to 3.6."""
    return any(op.HasField("request_put") for op in (*txn.success, *txn.failure))
