"""Planning: how a write is decided, and how a decision is carried out.

    request --decide--> Plan: log entry, answer, changes --carry_out--> state and leases in memory

``decide`` sees everything planned before it, durable or not, and changes nothing. It is all or nothing: whatever can
be refused is refused there. ``carry_out`` puts the changes into memory, so that the next plan sees them. A signal
handler can raise an exception between any two steps of the main thread, so carrying out can be repeated: the thread
that finds a plan half carried out runs ``carry_out_again``, and the state is as if nothing had happened.

Live writes and replay are two interpreters: a live write is carried out from its plan, a recovered one from
its log entry (``effects.apply``). Tests compare the two for every write (twin.py).

One transaction has one main revision (head + 1); each put and each deleted key is one sub revision. A write
that changes nothing has no revision and no log entry.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from kvstore import invariants
from kvstore.errors import (
    BadArgument,
    Compacted,
    CorruptCluster,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseTTLTooLarge,
    QuotaExceeded,
)
from kvstore.keyvalue import KeyValue, KeyValues, encode_key_value, make_row, row_lease, row_numbers
from kvstore.model import (
    CORRUPT,
    NOSPACE,
    Alarm,
    AlarmRequest,
    AlarmResponse,
    BarrierRequest,
    ClampRequest,
    CompactionRequest,
    CompactionResponse,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    ExpireRequest,
    GuardedRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    Op,
    OpResponse,
    PutRequest,
    PutResponse,
    PutWithTTLRequest,
    RangeRequest,
    RangeResponse,
    RenewAllRequest,
    Request,
    RowsRequest,
    ShiftRequest,
    TxnRequest,
    TxnResponse,
)
from kvstore.mvcc import effects, size
from kvstore.mvcc.lessor import TTL_MAX_SECONDS, Lessor, is_own_lease, own_lease_id
from kvstore.mvcc.overlay import ChangedRow, Generation
from kvstore.mvcc.puts import lone_puts, plain_put, plain_puts
from kvstore.mvcc.read import answer_range, scan_keys, scan_rows
from kvstore.mvcc.schema import META_CARRIED
from kvstore.mvcc.state import State
from kvstore.mvcc.twin import Twin
from kvstore.mvcc.validate import Interval, any_inside, plain_ops_bytes, range_bounds

Step = tuple[Callable[..., None], tuple[Any, ...]]
"""A change of leases, marks or alarms: a function that may be called twice, and its arguments."""


class Plan(NamedTuple):
    """A decided write."""

    entry: bytes | None
    """The log entry; None if nothing changes."""
    response: Any
    head: int
    """``State.head`` once the plan is carried out."""
    last_index: int
    """``State.index`` once the plan is carried out: that of its entry, if it has one."""
    changes: Sequence[ChangedRow] = ()
    steps: Sequence[Step] = ()
    """Carried out after the changes, in order."""
    is_part: bool = False
    """Whether more of the request is left, to be planned after this: there is no response yet."""


_plan: Any = partial(tuple.__new__, Plan)
_put_response: Any = partial(tuple.__new__, PutResponse)
"""``Plan._make`` and ``PutResponse._make`` without their Python code."""
_key_of: Any = itemgetter(PutRequest._fields.index("key"))
NO_OPTIONS = PutRequest(b"")[2:]
"""What a plain put has after its key and its value."""
_prev_kv_of: Any = itemgetter(PutRequest._fields.index("prev_kv"))


class Path(NamedTuple):
    """The way a transaction went: the branch, and the paths of its nested transactions by position."""

    succeeded: bool
    ops: tuple[object, ...]
    nested: dict[int, Path]


class Planner:
    """Turns requests into plans. For one caller at a time: the writer holds the lock."""

    def __init__(
        self,
        state: State,
        lessor: Lessor,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        ttl_min_seconds: float = 0,
        nospace_policy: str = "heals",
    ) -> None:
        self._state = state
        self._lessor = lessor
        self._now_ms = now_ms
        self._ttl_min_seconds = ttl_min_seconds
        self._nospace_is_sticky = nospace_policy == "sticky"
        self._deciders: dict[type, Callable[[Any], Plan]] = {
            PutRequest: self._put,
            PutWithTTLRequest: self._put_with_ttl,
            DeleteRangeRequest: self._delete,
            TxnRequest: self._txn,
            CompactionRequest: self._compact,
            LeaseGrantRequest: self._grant,
            LeaseRevokeRequest: self._revoke,
            LeaseKeepAliveRequest: self._keep_alive,
            LeaseTimeToLiveRequest: self._time_to_live,
            LeaseLeasesRequest: self._leases,
            AlarmRequest: self._alarm,
            RowsRequest: self._rows,
            GuardedRequest: self._guarded,
            ExpireRequest: self._expire,
            ShiftRequest: self._shift,
            ClampRequest: self._clamp,
            RenewAllRequest: self._renew_all,
            BarrierRequest: self._barrier,
        }

    def decide(self, request: Request) -> Plan:
        """What ``request`` would do now. Changes nothing; raises what refuses it."""
        if self._state.alarms:
            self._check_alarms(request)
        return self._deciders[request.__class__](request)

    def carry_out(self, plan: Plan) -> None:
        """Put a plan, the one decided last, into memory."""
        state = self._state
        twin = self._twin_of(plan) if invariants.ON else None
        if plan.changes:
            state.generations[0].add(plan.changes)
        for function, arguments in plan.steps:
            function(*arguments)
        state.head = plan.head
        state.index = plan.last_index
        if twin is not None:
            twin.compare(state, self._lessor, tuple(plan.changes))

    def decide_puts(self, requests: list[PutRequest]) -> list[Plan]:
        """The plans of plain puts, one after the other: of as many from the first on as can be decided together.

        The caller has made sure that they are plain (``NO_OPTIONS``), and decides the others one at a time.
        """
        state = self._state
        if state.alarms:
            return []
        made = lone_puts(state.head + 1, requests, state.head_rows([*map(_key_of, requests)]))
        return [
            _plan((entry, _put_response((change[0], None)), change[0], index, (change,), (), False))
            for index, (change, entry) in enumerate(made, state.index + 1)
        ]

    def carry_out_puts(self, plans: list[Plan]) -> None:
        """Put the plans of puts that were decided together into memory."""
        state = self._state
        twin = self._twin_of(*plans) if invariants.ON else None
        changes = [plan.changes[0] for plan in plans]
        state.generations[0].add(changes)
        state.head, state.index = plans[-1].head, plans[-1].last_index
        if twin is not None:
            twin.compare(state, self._lessor, tuple(changes))

    def _twin_of(self, *plans: Plan) -> Twin | None:
        """A twin to which the entries of the plans have been replayed."""
        entries = [plan.entry for plan in plans if plan.entry is not None]
        if not entries:
            return None
        twin = Twin(self._state, self._lessor)
        for entry in entries:
            twin.take(entry)
        return twin

    def carry_out_again(self, plan: Plan) -> None:
        """Put a plan into memory that may be there in part already."""
        self._state.generations[0].add_missing(plan.changes)
        self.carry_out(plan._replace(entry=None, changes=()))

    def plan(self, request: Request) -> Plan:
        """Decide and carry out at once: for replayers, which nothing interrupts."""
        plan = self.decide(request)
        self.carry_out(plan)
        return plan

    def _unchanged(self, response: Any) -> Plan:
        return Plan(None, response, self._state.head, self._state.index)

    # --- single writes ----------------------------------------------------------------

    def _put(self, request: PutRequest) -> Plan:
        key, value, lease, want_prev, ignore_value, ignore_lease = request
        state = self._state
        if lease and lease not in self._lessor.leases:
            raise LeaseNotFound(lease)
        old = state.head_row(key)
        if old is None and (ignore_value or ignore_lease):
            raise KeyNotFound(key=key)
        main = state.head + 1
        made = None if lease or ignore_value or ignore_lease else plain_put(main, key, value, old)
        if made is None:
            draft = self._draft()
            return draft.plan(draft.put(request))
        row, entry = made
        prev_kv = KeyValue.from_row(old) if want_prev and old is not None else None
        response = _put_response((main, prev_kv))
        plan: Plan = _plan((entry, response, main, state.index + 1, ((main, 0, key, row),), (), False))
        return plan

    def _put_with_ttl(self, request: PutWithTTLRequest) -> Plan:
        """A put with a new lease of its own, in one log entry: both exist, or neither."""
        put, ttl_seconds = request.put, max(request.ttl_seconds, self._ttl_min_seconds)
        if ttl_seconds > TTL_MAX_SECONDS:
            raise LeaseTTLTooLarge(ttl_seconds, TTL_MAX_SECONDS)
        if (put.ignore_value or put.ignore_lease) and self._state.head_row(put.key) is None:
            raise KeyNotFound(key=put.key)
        draft = self._draft()
        lease = self._new_lease_id(is_own=True)
        draft.grant(lease, math.ceil(ttl_seconds), self._now_ms() + math.ceil(ttl_seconds * 1000))
        return draft.plan(draft.put(put._replace(lease=lease)))

    def _delete(self, request: DeleteRangeRequest) -> Plan:
        draft = self._draft()
        return draft.plan(draft.delete(request))

    def _draft(self) -> _Draft:
        return _Draft(self._state, self._lessor)

    # --- transactions -----------------------------------------------------------------

    def _txn(self, request: TxnRequest) -> Plan:
        succeeded = self._succeeds(request)
        plan = self._plain_puts(request.success if succeeded else request.failure, succeeded)
        if plan is not None:
            return plan
        path = self._path(request, succeeded)
        if not is_read_only(request):
            self._check_puts(path)
        self._check_ranges(path)
        draft = self._draft()
        responses = self._run_path(draft, path)
        return draft.plan(TxnResponse(draft.revision, path.succeeded, responses))

    def _plain_puts(self, ops: tuple[Op, ...], succeeded: bool) -> Plan | None:
        """The plan of a branch of plain puts of different keys: the usual one, made in one pass.

        None if the ops are anything else, or one of the keys has a lease.
        """
        if plain_ops_bytes(ops, PutRequest) <= 0:
            return None
        puts: list[Any] = [*ops]
        state, main = self._state, self._state.head + 1
        olds = state.head_rows([*map(_key_of, puts)])
        made = plain_puts(main, puts, olds)
        if made is None:
            return None
        changes, entry = made
        size.check_entry(len(entry))
        responses: list[PutResponse] = [_put_response((main, None))] * len(puts)
        if any(map(_prev_kv_of, puts)):
            for at, (op, old) in enumerate(zip(puts, olds, strict=True)):
                if op.prev_kv and old is not None:
                    responses[at] = _put_response((main, KeyValue.from_row(old)))
        return Plan(entry, TxnResponse(main, succeeded, tuple(responses)), main, state.index + 1, changes)

    def choose(self, request: TxnRequest) -> Path:
        """Evaluate every compare along the chosen branches, all against the state before the transaction."""
        return self._path(request, self._succeeds(request))

    def _succeeds(self, request: TxnRequest) -> bool:
        return all(map(self._holds, request.compare))

    def _path(self, request: TxnRequest, succeeded: bool) -> Path:
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

        A put may follow a delete of its key where etcd's check for duplicate keys overlooks it. If the put is to keep
        the deleted value or lease, etcd finds out half way and stops its process; here it is refused.
        """
        deleted = [] if deleted is None else deleted
        for at, op in enumerate(path.ops):
            if isinstance(op, PutRequest):
                keeps = op.ignore_value or op.ignore_lease
                if keeps and (self._state.head_row(op.key) is None or any_inside((op.key,), deleted)):
                    raise KeyNotFound(key=op.key)
                if op.lease and op.lease not in self._lessor.leases:
                    raise LeaseNotFound(op.lease)
            elif isinstance(op, DeleteRangeRequest):
                deleted.append(range_bounds(op.key, op.range_end))
            elif at in path.nested:
                self._check_puts(path.nested[at], deleted)

    def _check_ranges(self, path: Path) -> None:
        for at, op in enumerate(path.ops):
            if isinstance(op, RangeRequest):
                if op.revision > self._state.head:
                    raise FutureRevision(op.revision, self._state.head)
                if op.revision != 0 and op.revision < self._state.head_compacted:
                    raise Compacted(self._state.head_compacted, op.revision)
            elif at in path.nested:
                self._check_ranges(path.nested[at])

    def _run_path(self, draft: _Draft, path: Path) -> tuple[OpResponse, ...]:
        responses: list[OpResponse] = []
        for at, op in enumerate(path.ops):
            if isinstance(op, PutRequest):
                responses.append(draft.put(op))
            elif isinstance(op, DeleteRangeRequest):
                responses.append(draft.delete(op))
            elif isinstance(op, RangeRequest):
                responses.append(draft.range(op))
            else:
                nested = path.nested[at]
                responses.append(TxnResponse(0, nested.succeeded, self._run_path(draft, nested)))
        return tuple(responses)

    # --- leases -----------------------------------------------------------------------

    def _new_lease_id(self, *, is_own: bool = False) -> int:
        """A positive id that no lease has; ``is_own``: for a lease that belongs to one key."""
        while True:
            ident = own_lease_id(random.getrandbits(31)) if is_own else random.getrandbits(63)
            if ident and ident not in self._lessor.leases and is_own_lease(ident) == is_own:
                return ident

    def _grant(self, request: LeaseGrantRequest) -> Plan:
        if request.ttl > TTL_MAX_SECONDS:
            raise LeaseTTLTooLarge(request.ttl, TTL_MAX_SECONDS)
        if request.id in self._lessor.leases:
            raise LeaseExists(request.id)
        lease = request.id or self._new_lease_id()
        ttl_seconds = math.ceil(max(request.ttl, self._ttl_min_seconds))
        draft = self._draft()
        draft.grant(lease, ttl_seconds, self._now_ms() + ttl_seconds * 1000)
        return draft.plan(LeaseGrantResponse(self._state.head, lease, ttl_seconds))

    def _keep_alive(self, request: LeaseKeepAliveRequest) -> Plan:
        """A lease that is due cannot be renewed: the answer is ttl 0, as for a lease that does not exist."""
        found, now_ms = self._lessor.leases.get(request.id), self._now_ms()
        if found is None or found.deadline_ms <= now_ms:
            return self._unchanged(LeaseKeepAliveResponse(self._state.head, request.id, 0))
        state, deadline_ms = self._state, now_ms + found.ttl_seconds * 1000
        entry = effects.renewed(found.ident, deadline_ms)
        response = LeaseKeepAliveResponse(state.head, request.id, found.ttl_seconds)
        step = self._lessor.apply_renew, (state.active, request.id, deadline_ms)
        return Plan(entry, response, state.head, state.index + 1, (), (step,))

    def _shift(self, request: ShiftRequest) -> Plan:
        """Move every deadline, as one entry."""
        draft = self._draft()
        for ident, lease in self._lessor.leases.items():
            draft.renew(ident, max(lease.deadline_ms + request.by_ms, 0))
        plan = draft.plan(None)
        if request.move_clock is not None:
            plan = plan._replace(steps=(*plan.steps, (request.move_clock, ())))
        return plan

    def _clamp(self, _: ClampRequest) -> Plan:
        draft, now_ms = self._draft(), self._now_ms()
        for ident, lease in self._lessor.leases.items():
            if not lease.has_at_most_its_ttl(now_ms):
                draft.renew(ident, now_ms + lease.ttl_seconds * 1000)
        return draft.plan(None)

    def _renew_all(self, _: RenewAllRequest) -> Plan:
        draft, now_ms = self._draft(), self._now_ms()
        for ident, lease in self._lessor.leases.items():
            draft.renew(ident, now_ms + lease.ttl_seconds * 1000)
        return draft.plan(None)

    def _revoke(self, request: LeaseRevokeRequest) -> Plan:
        """Delete the attached keys in one revision, in key order; if one entry cannot hold them, piece by piece.

        The last piece also deletes the lease.
        """
        found = self._lessor.leases.get(request.id)
        if found is None:
            raise LeaseNotFound(request.id)
        keys = sorted(found.keys)
        piece = size.first_piece(keys)
        draft = self._draft()
        draft.delete_keys(keys[:piece])
        if piece < len(keys):
            draft.detach(request.id, keys[:piece])
            return draft.plan(None)._replace(is_part=True)
        draft.revoke(request.id)  # this also detaches its keys
        return draft.plan(LeaseRevokeResponse(draft.revision))

    def _expire(self, _: ExpireRequest) -> Plan:
        due = self._lessor.next_deadline()
        if due is None or due[0] > self._now_ms():
            raise LeaseNotFound
        return self._revoke(LeaseRevokeRequest(due[1]))

    def _time_to_live(self, request: LeaseTimeToLiveRequest) -> Plan:
        found, revision = self._lessor.leases.get(request.id), self._state.head
        if found is None:
            return self._unchanged(LeaseTimeToLiveResponse(revision, request.id, -1, 0, ()))
        left = int((found.deadline_ms - self._now_ms()) / 1000)
        keys = tuple(sorted(found.keys)) if request.keys else ()
        return self._unchanged(LeaseTimeToLiveResponse(revision, request.id, left, found.ttl_seconds, keys))

    def _leases(self, _: LeaseLeasesRequest) -> Plan:
        leases = sorted(self._lessor.leases.values(), key=lambda lease: lease.deadline_ms)
        return self._unchanged(LeaseLeasesResponse(self._state.head, tuple([lease.id for lease in leases])))

    # --- compaction, alarms, rows beside the keys -------------------------------------

    def _compact(self, request: CompactionRequest) -> Plan:
        state, revision = self._state, request.revision
        if revision <= state.head_compacted:
            raise Compacted(state.head_compacted, revision)
        if revision > state.head:
            raise FutureRevision(revision, state.head)
        return self._step(effects.compact(revision), CompactionResponse(state.head), state.compact, revision)

    def _alarm(self, request: AlarmRequest) -> Plan:
        member_id, name, on = request
        state, alarm = self._state, Alarm(member_id, name)
        was_on = state.has_alarm(member_id, name)
        response = AlarmResponse(state.head, (alarm,) if on or was_on else ())
        if was_on == on:
            return self._unchanged(response)
        return self._step(effects.alarm(on, *alarm), response, state.set_alarm, *alarm, on)

    def _rows(self, request: RowsRequest) -> Plan:
        state = self._state
        rows, response = request.decide(state.carried)
        for name in rows:
            if not name.startswith(META_CARRIED):
                raise BadArgument(
                    f"a carried row has a name that begins with {META_CARRIED!r}, not {name!r:.80}"
                )
        changed = [(name, value) for name, value in rows.items() if state.carried.get(name) != value]
        if not changed:
            return self._unchanged(response)
        entry = b"".join([effects.row(name, value) for name, value in changed])
        size.check_entry(len(entry))
        steps = [(state.set_carried, change) for change in changed]
        return Plan(entry, response, state.head, state.index + 1, (), steps)

    def _check_alarms(self, request: Request) -> None:
        """Refuse what the alarms that are raised do not let through, whichever member raised them: as etcd."""
        raised = {key[8:] for key in self._state.alarms}
        if CORRUPT.encode() in raised and isinstance(request, _CHANGES) and not _only_reads(request):
            raise CorruptCluster
        if self._nospace_is_sticky and NOSPACE.encode() in raised and _takes_room(request):
            refusal = QuotaExceeded()
            refusal.add_note("the alarm NOSPACE is on, and stays until it is cleared: `kvstore alarm disarm`")
            raise refusal

    def _step(self, entry: bytes, response: Any, function: Callable[..., None], *arguments: Any) -> Plan:
        return Plan(entry, response, self._state.head, self._state.index + 1, (), ((function, arguments),))

    def _guarded(self, request: GuardedRequest) -> Plan:
        request.guard(request.request, self._state.carried, self._keys_of_lease)
        return self.decide(request.request)

    def _keys_of_lease(self, lease: int | None) -> Iterable[bytes]:
        leases = self._lessor.leases
        if lease is None:
            return chain.from_iterable(each.keys for each in leases.values())
        found = leases.get(lease)
        return found.keys if found is not None else ()

    def _barrier(self, _: BarrierRequest) -> Plan:
        return self._unchanged(None)


class _Draft:
    """A transaction being decided: its revision, its changes so far, and reads that see them."""

    def __init__(self, state: State, lessor: Lessor) -> None:
        self._state = state
        self._lessor = lessor
        self._main = state.head + 1
        self._changes: list[ChangedRow] = []
        self._rows: dict[bytes, bytes | None] = {}
        """The rows that the changes have left at their keys."""
        self._steps: list[Step] = []
        self._effects: list[bytes] = []
        self._above: State | None = None
        """The state with the changes on top, once a range has asked for it."""
        self._own: dict[int, set[bytes]] = {}
        """The keys that each touched lease of a key's own (lessor.py) is left with."""

    @property
    def revision(self) -> int:
        """The revision for a response header at this moment."""
        return self._main if self._changes else self._state.head

    def put(self, request: PutRequest) -> PutResponse:
        key, value, lease, want_prev, ignore_value, ignore_lease = request
        main, sub, rows = self._main, len(self._changes), self._rows
        old = rows[key] if key in rows else self._state.head_row(key)
        create_revision, version, old_lease = main, 0, 0
        if old is not None:
            create_revision, _, version, old_lease = row_numbers(old)
            if ignore_value:
                value = KeyValue.from_row(old).value
            if ignore_lease:
                lease = old_lease
        elif ignore_value or ignore_lease:
            raise KeyNotFound(key=key)
        key_value = encode_key_value(key, create_revision, main, version + 1, value, lease)
        self._effects.append(effects.put(key_value))
        row = rows[key] = make_row(key_value, sub) if sub else key_value
        self._changes.append((main, sub, key, row))
        if old_lease != lease:
            if old_lease:
                self.detach(old_lease, [key])
            if lease:
                self._attach(lease, key)
        response: PutResponse = _put_response(
            (main, KeyValue.from_row(old) if want_prev and old is not None else None)
        )
        return response

    def delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        start, end = range_bounds(request.key, request.range_end)
        if request.range_end:
            gone = list(scan_rows(self._seen(), start, end, self._main))
        else:
            rows = self._rows
            row = rows[request.key] if request.key in rows else self._state.head_row(request.key)
            gone = [] if row is None else [(request.key, row)]
        self.delete_keys([key for key, _ in gone])
        if self._lessor.leases:
            self._detach_all(gone)
        prev_kvs = KeyValues([row for _, row in gone] if request.prev_kv else [])
        return DeleteRangeResponse(self.revision, len(gone), prev_kvs)

    def delete_keys(self, keys: list[bytes]) -> None:
        """Delete keys, possibly very many: any work for each key delays every writer."""
        main = self._main
        if keys:
            self._effects.append(effects.delete(*keys))
        self._changes += [(main, sub, key, None) for sub, key in enumerate(keys, len(self._changes))]
        self._rows.update(dict.fromkeys(keys))

    def _detach_all(self, gone: list[tuple[bytes, bytes]]) -> None:
        """Detach keys, given with their rows, from their leases."""
        attached: dict[int, list[bytes]] = {}
        for key, row in gone:
            if lease := row_lease(row):
                attached.setdefault(lease, []).append(key)
        for lease, keys in attached.items():
            self.detach(lease, keys)

    def range(self, request: RangeRequest) -> RangeResponse:
        revision = request.revision if request.revision > 0 else self.revision
        return answer_range(self._seen(), request, revision, self.revision)

    def grant(self, lease: int, ttl_seconds: int, deadline_ms: int) -> None:
        self._effects.append(effects.grant(lease, ttl_seconds, deadline_ms))
        self._step(self._lessor.apply_grant, lease, ttl_seconds, deadline_ms)

    def renew(self, lease: int, deadline_ms: int) -> None:
        self._effects.append(effects.renew(lease, deadline_ms))
        self._step(self._lessor.apply_renew, lease, deadline_ms)

    def revoke(self, lease: int) -> None:
        self._effects.append(effects.revoke(lease))
        self._step(self._lessor.apply_revoke, lease)

    def plan(self, response: Any) -> Plan:
        """The finished plan."""
        state = self._state
        for lease, left in self._own.items():
            if not left and lease in self._lessor.leases:
                self.revoke(lease)
        if not self._effects:
            return Plan(None, response, state.head, state.index)
        size.check_entry(sum(map(len, self._effects)))
        entry = b"".join(self._effects)
        if self._changes:
            entry = effects.revision(self._main) + entry
        return Plan(entry, response, self.revision, state.index + 1, self._changes, self._steps)

    def _seen(self) -> State:
        """The state as this transaction sees it."""
        if not self._changes:
            return self._state
        if self._above is None:
            self._above = copy.copy(self._state)
            self._above.generations = (Generation(), *self._state.generations)
        self._above.active.add_missing(self._changes)
        return self._above

    def _keys_of_own(self, lease: int) -> set[bytes]:
        found = self._lessor.leases.get(lease)
        return self._own.setdefault(lease, set(found.keys) if found is not None else set())

    def _attach(self, lease: int, key: bytes) -> None:
        if is_own_lease(lease):
            self._keys_of_own(lease).add(key)
        self._effects.append(effects.attach(lease, key))
        self._step(self._lessor.apply_attach, lease, key)

    def detach(self, lease: int, keys: list[bytes]) -> None:
        if is_own_lease(lease):
            self._keys_of_own(lease).difference_update(keys)
        self._effects.append(effects.detach(lease, *keys))
        self._step(self._lessor.apply_detach, lease, keys)

    def _step(self, function: Callable[..., None], *arguments: Any) -> None:
        self._steps.append((function, (self._state.active, *arguments)))


def is_read_only(request: TxnRequest) -> bool:
    """Whether both branches hold only ranges (a nested transaction makes it a write, as in etcd)."""
    return all(isinstance(op, RangeRequest) for op in (*request.success, *request.failure))


_CHANGES = (
    PutRequest,
    PutWithTTLRequest,
    DeleteRangeRequest,
    TxnRequest,
    CompactionRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    ExpireRequest,
)
"""What changes keys, or makes and ends leases."""


def _only_reads(request: Request) -> bool:
    return isinstance(request, TxnRequest) and is_read_only(request)


def _takes_room(request: Any) -> bool:
    """Whether it puts, in whichever branch, or grants a lease."""
    if isinstance(request, TxnRequest):
        return any(map(_takes_room, (*request.success, *request.failure)))
    return isinstance(request, (PutRequest, PutWithTTLRequest, LeaseGrantRequest))


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
    order = (mine > theirs) - (mine < theirs)  # type: ignore[operator]  # same types: checked by validate
    if compare.result == CompareResult.EQUAL:
        return order == 0
    if compare.result == CompareResult.NOT_EQUAL:
        return order != 0
    return order > 0 if compare.result == CompareResult.GREATER else order < 0
