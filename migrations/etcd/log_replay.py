"""The entries of etcd's log that its database does not hold yet, applied again as etcd does when it starts.

    LogEntry -> request -> the planner of ``kvstore.mvcc``, which has etcd's semantics -> generation

etcd logs what was asked, not what came of it. A request that etcd refuses when it applies it (an unknown lease, a
compaction of the past, no room, no permission) is in the log all the same; it is refused here too, and leaves no trace.
So revisions come out as they did there. That is also why ``kvstore.replay.apply_log`` cannot be used here: our entries
say what came of a write. What it checks, that entries follow each other without a gap, is checked here as well.

Besides keys: leases, alarms, users and roles (``auth``), members and the cluster's version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.errors import BadArgument, CorruptCluster, Corruption, LeaseNotFound, RequestError
from kvstore.etcdpb.requests import from_message
from kvstore.model import PutRequest, RangeRequest, TxnRequest
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.state import State

from . import rows
from .auth import Auth
from .beside_keys import MIN_TTL_SECONDS, deadline_ms
from .carried import Carried
from .data_dir import EtcdDataDir
from .membership import Membership
from .wal_content import LogEntry

_OF_MEMBERS = frozenset({"conf_change", "v2", "cluster_member_attr_set", "cluster_version_set"})
_OF_KEYS = frozenset({"put", "delete_range", "txn", "lease_revoke"})
"""What takes permissions of keys."""
_CAPPED = frozenset({"put", "txn", "lease_grant"})
"""What a server without room refuses."""


class LogReplay:
    """Applies entries to a state, one at a time, in order."""

    def __init__(self, state: State, lessor: Lessor, now_ms: int) -> None:
        self._state = state
        self._lessor = lessor
        self._planner = Planner(state, lessor, lambda: self._now_ms, MIN_TTL_SECONDS)
        self._now_ms = now_ms
        self._carried = Carried(state)
        self._members = Membership(self._carried, frozenset(self._carried.all(rows.MEMBERS)))
        self._auth = Auth(state)
        self.notes: list[str] = self._auth.notes
        self.refused = 0

    def recover_members(self, directory: EtcdDataDir) -> None:
        """Set the members that the server finds when it starts (``data_dir``)."""
        found, entries = directory.members_beside_database()
        if found is not None:
            self._members.replace(found)
        for entry in entries:
            if (kind := entry.kind) in _OF_MEMBERS:
                self._guarded(kind, entry)

    def members(self) -> list[rows.Member]:
        """The members after what was applied, by id."""
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
        except (RequestError, CorruptCluster):
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
            if self._auth.rules.enabled and kind in _OF_KEYS:
                # A log does not say which etcd wrote it. To 3.4.43, 3.5.29, 3.6.10 leases were free in transactions.
                keys_of_lease = _no_keys if kind == "txn" else self._keys_of_lease
                self._auth.check(request.header, _request(getattr(request, kind)), keys_of_lease)
            _HANDLERS[kind](self, getattr(request, kind))

    def _keys_of_lease(self, lease: int | None) -> list[bytes]:
        found = self._lessor.leases.get(lease) if lease else None
        return sorted(found.keys) if found else []

    def _check_alarms(self, kind: str, request: Any) -> None:
        raised = {key[8:] for key in self._state.alarms}
        if b"CORRUPT" in raised and kind != "alarm":
            raise CorruptCluster
        if b"NOSPACE" in raised and kind in _CAPPED and not (kind == "txn" and not _puts(request.txn)):
            raise RequestError("there was no room")

    # --- keys ----------------------------------------------------------------------------

    def _planned(self, message: Any) -> None:
        self._planner.plan(_request(message))

    def _op(self, message: Any) -> None:
        self._planner.plan(_op_as_applied(_request(message)))

    # --- leases and alarms -----------------------------------------------------------------

    def _lease_grant(self, grant: Any) -> None:
        if not grant.ID:
            raise LeaseNotFound
        self._planned(grant)

    def _lease_checkpoint(self, request: Any) -> None:
        for each in request.checkpoints:
            lease = self._lessor.leases.get(each.ID)
            if lease is not None:
                due = deadline_ms(lease.ttl_seconds, each.remaining_TTL, self._now_ms)
                self._lessor.apply_renew(self._state.active, each.ID, due)

    def _alarm(self, alarm: Any) -> None:
        request = _request(alarm)
        if request is not None:
            self._planner.plan(request)

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
        """The way in which 3.4 publishes a member's name and addresses, and the cluster's version."""
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
            return  # voters of joint configurations; members come in the simple kind
        self._members.change(change)


_HANDLERS: dict[str, Callable[[LogReplay, Any], None]] = {
    "put": LogReplay._op,
    "delete_range": LogReplay._op,
    "txn": LogReplay._op,
    "compaction": LogReplay._planned,
    "lease_grant": LogReplay._lease_grant,
    "lease_revoke": LogReplay._planned,
    "lease_checkpoint": LogReplay._lease_checkpoint,
    "alarm": LogReplay._alarm,
    "cluster_version_set": LogReplay._cluster_version_set,
    "cluster_member_attr_set": LogReplay._cluster_member_attr_set,
    "downgrade_info_set": LogReplay._downgrade_info_set,
}


def _no_keys(_lease: int | None) -> tuple[bytes, ...]:
    return ()


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- requests ----------------------------------------------------------------------------------


def _request(message: Any) -> Any:
    try:
        return from_message(message)
    except BadArgument as error:
        raise rows.RowError(str(error)) from None


def _as_applied(txn: TxnRequest) -> TxnRequest:
    """A transaction of the log that reads only what it may be refused for.

    An op without a kind is left out: a server's API refuses it, but its log is carried out without it.
    """
    success, failure = (
        tuple([_op_as_applied(op) for op in branch if op is not None])
        for branch in (txn.success, txn.failure)
    )
    return TxnRequest(txn.compare, success, failure)


def _op_as_applied(op: Any) -> Any:
    match op:
        case TxnRequest():
            return _as_applied(op)
        case RangeRequest():
            return RangeRequest(op.key, op.range_end, limit=1, revision=op.revision)
        case PutRequest(key=b""):
            raise rows.RowError("a put of the empty key, which no server lets into its log")
    return op._replace(prev_kv=False)


def _puts(txn: Any) -> bool:
    """Whether either branch puts; nested transactions do not count, as in 3.4 to 3.6."""
    return any(op.HasField("request_put") for op in (*txn.success, *txn.failure))
