"""Planning: how a write is decided.

    request --check--> plan against head --> effects --apply--> state
                                               '--encode--> log entry

A plan looks at everything planned before it, durable or not, and is applied to the state at once, so that the
next plan sees it. It is all or nothing: whatever can be refused is refused before the first effect.

One transaction has one main revision (head + 1); each put and each deleted key is one sub revision. A write
that changes nothing has no revision and no log entry.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.errors import (
    Compacted,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseTTLTooLarge,
)
from kvstore.keyvalue import KeyValue, KeyValues, encode_key_value, make_row, row_numbers
from kvstore.lessor import TTL_MAX_SECONDS, Lessor
from kvstore.model import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    TxnRequest,
    TxnResponse,
)
from kvstore.mvcc import effects
from kvstore.mvcc.read import answer_range, scan_keys
from kvstore.mvcc.state import State
from kvstore.mvcc.validate import Interval, any_inside, range_bounds


class Planned(NamedTuple):
    """A decided write: the log entry (None: nothing changed) and the answer."""

    entry: bytes | None
    response: object


class Path(NamedTuple):
    """Which way a transaction went: the branch, and the paths of its nested transactions by position."""

    succeeded: bool
    ops: tuple[object, ...]
    nested: dict[int, Path]


class Planner:
    """Turns requests into log entries. One caller at a time: the engine holds the lock."""

    def __init__(self, state: State, lessor: Lessor) -> None:
        self._state = state
        self._lessor = lessor

    # --- single writes ----------------------------------------------------------------

    def put(self, request: PutRequest) -> Planned:
        key, value, lease, want_prev, ignore_value, ignore_lease = request
        state = self._state
        if lease and lease not in self._lessor.leases:
            raise LeaseNotFound
        old = state.head_row(key)
        if old is None and (ignore_value or ignore_lease):
            raise KeyNotFound
        main = state.head + 1
        create_revision, _, version, old_lease = (main, 0, 0, 0) if old is None else row_numbers(old)
        if lease or ignore_value or ignore_lease or old_lease:
            return self._put_in_full(request)
        row = encode_key_value(key, create_revision, main, version + 1, value, 0)
        state.change((main, 0, key, row))
        state.head = main
        state.index += 1
        prev_kv = KeyValue.from_row(old) if want_prev and old is not None else None
        return Planned(effects.revision(main) + effects.put(row), PutResponse(main, prev_kv))

    def _put_in_full(self, request: PutRequest) -> Planned:
        run = _Run(self._state, self._lessor)
        response = run.put(request)
        return Planned(run.finish(), response)

    def put_for(self, request: PutRequest, lease: int, ttl_seconds: int, now_ms: int) -> Planned:
        """A put with a new lease of its own, in one log entry: both are there, or neither."""
        if ttl_seconds > TTL_MAX_SECONDS:
            raise LeaseTTLTooLarge
        if (request.ignore_value or request.ignore_lease) and self._state.head_row(request.key) is None:
            raise KeyNotFound
        run = _Run(self._state, self._lessor)
        run.grant(lease, ttl_seconds, now_ms + ttl_seconds * 1000)
        response = run.put(request._replace(lease=lease))
        return Planned(run.finish(), response)

    def delete(self, request: DeleteRangeRequest) -> Planned:
        run = _Run(self._state, self._lessor)
        response = run.delete(request)
        return Planned(run.finish(), response)

    # --- transactions -----------------------------------------------------------------

    def txn(self, request: TxnRequest) -> Planned:
        path = self.choose(request)
        if not is_read_only(request):
            self._check_puts(path)
        self._check_ranges(path)
        run = _Run(self._state, self._lessor)
        responses = self._run_path(run, path)
        return Planned(run.finish(), TxnResponse(run.revision, path.succeeded, responses))

    def choose(self, request: TxnRequest) -> Path:
        """Evaluate every compare along the chosen branches, all against the state before the transaction."""
        succeeded = all(self._holds(compare) for compare in request.compare)
        ops = request.success if succeeded else request.failure
        nested = {at: self.choose(op) for at, op in enumerate(ops) if isinstance(op, TxnRequest)}
        return Path(succeeded, ops, nested)

    def _holds(self, compare: Compare) -> bool:
        if not compare.range_end:
            row = self._state.head_row(compare.key)
            kvs = [] if row is None else [KeyValue.from_row(row)]
        else:
            start, end = range_bounds(compare.key, compare.range_end)
            kvs = list(scan_keys(self._state, start, end, self._state.head))
        if not kvs:
            return compare.target != CompareTarget.VALUE and _compare(compare, None)
        return all(_compare(compare, kv) for kv in kvs)

    def _check_puts(self, path: Path, deleted: list[Interval] | None = None) -> None:
        """Refuse a put that could not be carried out. ``deleted``: what earlier ops will have deleted.

        A put may follow a delete of its key, as far as etcd's check of duplicate keys overlooks it. If it is to
        keep the deleted value or lease, etcd finds out half-way and stops its process; it is refused here.
        """
        deleted = [] if deleted is None else deleted
        for at, op in enumerate(path.ops):
            if isinstance(op, PutRequest):
                keeps = op.ignore_value or op.ignore_lease
                if keeps and (self._state.head_row(op.key) is None or any_inside((op.key,), deleted)):
                    raise KeyNotFound
                if op.lease and op.lease not in self._lessor.leases:
                    raise LeaseNotFound
            elif isinstance(op, DeleteRangeRequest):
                deleted.append(range_bounds(op.key, op.range_end))
            elif at in path.nested:
                self._check_puts(path.nested[at], deleted)

    def _check_ranges(self, path: Path) -> None:
        for at, op in enumerate(path.ops):
            if isinstance(op, RangeRequest):
                if op.revision > self._state.head:
                    raise FutureRevision
                if op.revision != 0 and op.revision < self._state.head_compacted:
                    raise Compacted(self._state.head_compacted)
            elif at in path.nested:
                self._check_ranges(path.nested[at])

    def _run_path(self, run: _Run, path: Path) -> tuple[object, ...]:
        responses: list[object] = []
        for at, op in enumerate(path.ops):
            if isinstance(op, PutRequest):
                responses.append(run.put(op))
            elif isinstance(op, DeleteRangeRequest):
                responses.append(run.delete(op))
            elif isinstance(op, RangeRequest):
                responses.append(run.range(op))
            else:
                nested = path.nested[at]
                responses.append(TxnResponse(0, nested.succeeded, self._run_path(run, nested)))
        return tuple(responses)

    # --- leases, compaction, alarms ---------------------------------------------------

    def grant(self, lease: int, ttl_seconds: int, ttl_min_seconds: int, now_ms: int) -> tuple[bytes, int]:
        """(entry, effective ttl)."""
        if ttl_seconds > TTL_MAX_SECONDS:
            raise LeaseTTLTooLarge
        if lease in self._lessor.leases:
            raise LeaseExists
        ttl_seconds = max(ttl_seconds, ttl_min_seconds)
        deadline_ms = now_ms + ttl_seconds * 1000
        self._lessor.apply_grant(self._state.active, lease, ttl_seconds, deadline_ms)
        self._state.index += 1
        return effects.grant(lease, ttl_seconds, deadline_ms), ttl_seconds

    def renew(self, lease: int, now_ms: int) -> tuple[bytes, int]:
        """(entry, ttl) of a lease that is not yet due; ``LeaseNotFound`` otherwise."""
        found = self._lessor.leases.get(lease)
        if found is None or found.deadline_ms <= now_ms:
            raise LeaseNotFound
        deadline_ms = now_ms + found.ttl_seconds * 1000
        self._lessor.apply_renew(self._state.active, lease, deadline_ms)
        self._state.index += 1
        return effects.renew(lease, deadline_ms), found.ttl_seconds

    def shift(self, by_ms: int) -> bytes:
        """Move every deadline, as one entry."""
        entry = []
        for ident, lease in self._lessor.leases.items():
            deadline_ms = lease.deadline_ms + by_ms
            self._lessor.apply_renew(self._state.active, ident, deadline_ms)
            entry.append(effects.renew(ident, deadline_ms))
        self._state.index += 1
        return b"".join(entry)

    def revoke(self, lease: int) -> tuple[bytes, int]:
        """(entry, revision): the attached keys go in one revision, in key order."""
        found = self._lessor.leases.get(lease)
        if found is None:
            raise LeaseNotFound
        run = _Run(self._state, self._lessor)
        for key in sorted(found.keys):
            run.delete_key(key, lease)
        run.revoke(lease)
        entry = run.finish()
        return entry or b"", run.revision

    def compact(self, revision: int) -> bytes:
        if revision <= self._state.head_compacted:
            raise Compacted(self._state.head_compacted)
        if revision > self._state.head:
            raise FutureRevision
        self._state.compact(revision)
        self._state.index += 1
        return effects.compact(revision)

    def alarm(self, member_id: int, name: str, on: bool) -> bytes:
        self._state.set_alarm(member_id, name, on)
        self._state.index += 1
        return effects.alarm(on, member_id, name)


class _Run:
    """One transaction being carried out: its revision, and its effects so far."""

    def __init__(self, state: State, lessor: Lessor) -> None:
        self._state = state
        self._lessor = lessor
        self._begin = state.head
        self._main = state.head + 1
        self._sub = 0
        self._effects: list[bytes] = []

    @property
    def revision(self) -> int:
        """What a response header of this moment says."""
        return self._main if self._sub else self._begin

    def put(self, request: PutRequest) -> PutResponse:
        key, value, lease, want_prev, ignore_value, ignore_lease = request
        main, sub = self._main, self._sub
        old = self._state.head_row(key)
        create_revision, version, old_lease = main, 0, 0
        if old is not None:
            create_revision, _, version, old_lease = row_numbers(old)
            if ignore_value:
                value = KeyValue.from_row(old).value
            if ignore_lease:
                lease = old_lease
        elif ignore_value or ignore_lease:
            raise KeyNotFound
        key_value = encode_key_value(key, create_revision, main, version + 1, value, lease)
        self._effects.append(effects.put(key_value))
        self._state.change((main, sub, key, make_row(key_value, sub) if sub else key_value))
        self._sub = sub + 1
        if old_lease != lease:
            self._attach(key, old_lease, attached=False)
            self._attach(key, lease, attached=True)
        return PutResponse(main, KeyValue.from_row(old) if want_prev and old is not None else None)

    def delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        start, end = range_bounds(request.key, request.range_end)
        if request.range_end:
            gone = list(scan_keys(self._state, start, end, self._main))
        else:
            row = self._state.head_row(request.key)
            gone = [] if row is None else [KeyValue.from_row(row)]
        for kv in gone:
            self.delete_key(kv.key, kv.lease)
        prev_kvs = KeyValues([kv.row for kv in gone] if request.prev_kv else [])
        return DeleteRangeResponse(self.revision, len(gone), prev_kvs)

    def delete_key(self, key: bytes, lease: int) -> None:
        self._effects.append(effects.delete(key))
        self._state.change((self._main, self._sub, key, None))
        self._sub += 1
        self._attach(key, lease, attached=False)

    def grant(self, lease: int, ttl_seconds: int, deadline_ms: int) -> None:
        self._lessor.apply_grant(self._state.active, lease, ttl_seconds, deadline_ms)
        self._effects.append(effects.grant(lease, ttl_seconds, deadline_ms))

    def revoke(self, lease: int) -> None:
        self._lessor.apply_revoke(self._state.active, lease)
        self._effects.append(effects.revoke(lease))

    def range(self, request: RangeRequest) -> object:
        revision = request.revision if request.revision > 0 else self.revision
        return answer_range(self._state, request, revision, self.revision)

    def _attach(self, key: bytes, lease: int, *, attached: bool) -> None:
        if lease:
            self._effects.append((effects.attach if attached else effects.detach)(lease, key))
            self._lessor.apply_attachment(self._state.active, lease, key, attached=attached)

    def finish(self) -> bytes | None:
        """The log entry; None if nothing was changed."""
        if not self._effects:
            return None
        self._state.index += 1
        if not self._sub:
            return b"".join(self._effects)
        self._state.head = self._main
        return effects.revision(self._main) + b"".join(self._effects)


def is_read_only(request: TxnRequest) -> bool:
    """Only ranges at the top level of both branches (a nested transaction makes it a write, as in etcd)."""
    return all(isinstance(op, RangeRequest) for op in (*request.success, *request.failure))


def _compare(compare: Compare, kv: KeyValue | None) -> bool:
    mine: int | bytes
    theirs: int | bytes = compare.operand
    if compare.target == CompareTarget.VALUE:
        mine = kv.value if kv is not None else b""
        theirs = theirs if isinstance(theirs, bytes) else b""
    elif kv is None:
        mine = 0
    else:
        mine = (kv.version, kv.create_revision, kv.mod_revision, b"", kv.lease)[compare.target]
    order = (mine > theirs) - (mine < theirs)  # type: ignore[operator]  # same types: validate checked
    if compare.result == CompareResult.EQUAL:
        return order == 0
    if compare.result == CompareResult.NOT_EQUAL:
        return order != 0
    return order > 0 if compare.result == CompareResult.GREATER else order < 0
