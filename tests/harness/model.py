"""The store as a pure model: a list of dictionaries, one for each revision.

    states[r]    every live key at revision r
    changes      (main, sub, key, KV or None for a delete), in order

It answers the requests of ``kvstore.model`` with plain tuples and raises the errors of ``kvstore.errors``. What
it takes from the engine is the shape of the messages, the checks of a request's form, and the encoding of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from crc32c import crc32c

from kvstore import (
    Compacted,
    Compare,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseProvided,
)
from kvstore.keyvalue import encode_key_value
from kvstore.model import (
    DeleteRangeRequest,
    EventType,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)
from kvstore.mvcc import validate
from kvstore.mvcc.lessor import is_own_lease


class Lease(NamedTuple):
    ttl: int
    deadline: int
    """In seconds of ``Model.now``."""


Answer = TypeVar("Answer")
Range = DeleteRangeRequest | RangeRequest | Compare | WatchRequest
LEASE_MIN_TTL_SECONDS = 2


class KV(NamedTuple):
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


def in_range(key: bytes, request: Range) -> bool:
    if not request.range_end:
        return key == request.key
    return key >= request.key and (request.range_end == b"\0" or key < request.range_end)


class Model:
    def __init__(self, max_txn_ops: int = 128) -> None:
        self.states: list[dict[bytes, KV]] = [{}, {}]
        self.changes: list[tuple[int, int, bytes, KV | None]] = []
        self.leases: dict[int, Lease] = {}
        self.carried: dict[bytes, bytes] = {}
        self.now = 0
        self.compacted = -1
        self.max_txn_ops = max_txn_ops

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    # --- writes: each begins a transaction, and makes a revision if anything changed ---------

    def put(self, request: PutRequest) -> tuple[Any, ...]:
        validate.check_put(request)
        if request.lease and request.lease not in self.leases:
            raise LeaseNotFound
        if (request.ignore_value or request.ignore_lease) and request.key not in self.states[-1]:
            raise KeyNotFound
        return self._write(lambda run: run.put(request))

    def put_for(self, request: PutRequest, lease: int, ttl: int) -> tuple[Any, ...]:
        """A put, and the grant of its lease, or neither."""
        validate.check_put(request)
        if request.lease or request.ignore_lease:
            raise LeaseProvided
        if request.ignore_value and request.key not in self.states[-1]:
            raise KeyNotFound
        self.grant(lease, ttl)
        return self.put(request._replace(lease=lease))

    def delete(self, request: DeleteRangeRequest) -> tuple[Any, ...]:
        validate.check_delete(request)
        return self._write(lambda run: run.delete(request))

    def txn(self, request: TxnRequest) -> tuple[Any, ...]:
        validate.check_txn(request, self.max_txn_ops)
        path = self._choose(request)
        self._check(path)
        answers = self._write(lambda run: (run.path(path), run.revision))
        return (answers[1], *answers[0][1:])

    def revoke(self, lease: int) -> int:
        if lease not in self.leases:
            raise LeaseNotFound
        keys = sorted(key for key, kv in self.states[-1].items() if kv.lease == lease)
        del self.leases[lease]
        self._write(lambda run: [run.delete(DeleteRangeRequest(key)) for key in keys])
        return self.revision

    def grant(self, lease: int, ttl: int) -> tuple[int, int, int]:
        if lease in self.leases:
            raise LeaseExists
        ttl = max(ttl, LEASE_MIN_TTL_SECONDS)
        self.leases[lease] = Lease(ttl, self.now + ttl)
        return self.revision, lease, ttl

    def keep_alive(self, lease: int) -> tuple[int, int, int]:
        if lease not in self.leases:
            return self.revision, lease, 0
        ttl = self.leases[lease].ttl
        self.leases[lease] = Lease(ttl, self.now + ttl)
        return self.revision, lease, ttl

    def time_to_live(self, lease: int) -> tuple[int, int, int, int, tuple[bytes, ...]]:
        if lease not in self.leases:
            return self.revision, lease, -1, 0, ()
        ttl, deadline = self.leases[lease]
        attached = tuple(sorted(key for key, kv in self.states[-1].items() if kv.lease == lease))
        return self.revision, lease, deadline - self.now, ttl, attached

    def pass_time(self, seconds: int, *, counts: bool = True) -> None:
        """What is due goes, most overdue first. Unless it ``counts``, leases do not notice."""
        self.now += seconds
        if not counts:
            self.leases = {
                lease: Lease(ttl, deadline + seconds) for lease, (ttl, deadline) in self.leases.items()
            }
        due = [(deadline, lease) for lease, (_, deadline) in self.leases.items() if deadline <= self.now]
        for _, lease in sorted(due):
            self.revoke(lease)

    def compact(self, revision: int) -> int:
        if revision <= self.compacted:
            raise Compacted(self.compacted)
        if revision > self.revision:
            raise FutureRevision
        self.compacted = revision
        return self.revision

    def _write(self, write: Callable[[Run], Answer]) -> Answer:
        run = Run(self)
        answer = write(run)
        if run.changes:
            self.changes += run.changes
            self.states.append(run.state)
            held = {kv.lease for kv in run.state.values()}
            self.leases = {
                lease: rest for lease, rest in self.leases.items() if lease in held or not is_own_lease(lease)
            }
        return answer

    def _choose(self, request: TxnRequest) -> tuple[bool, list[Any]]:
        succeeded = all(self._holds(compare) for compare in request.compare)
        ops = request.success if succeeded else request.failure
        return succeeded, [self._choose(op) if isinstance(op, TxnRequest) else op for op in ops]

    def _holds(self, compare: Compare) -> bool:
        found = [kv for key, kv in self.states[-1].items() if in_range(key, compare)]
        pairs: list[tuple[Any, Any]]
        if compare.target == 3:
            pairs = [(kv.value, compare.operand or b"") for kv in found]
            if not found:
                return False
        else:
            field = ("version", "create_revision", "mod_revision", "", "lease")[compare.target]
            pairs = [(getattr(kv, field), compare.operand) for kv in found] or [(0, compare.operand)]
        test = (lambda a, b: a == b, lambda a, b: a > b, lambda a, b: a < b, lambda a, b: a != b)
        return all(test[compare.result](mine, theirs) for mine, theirs in pairs)

    def _check(self, path: tuple[bool, list[Any]]) -> None:
        """Everything that may refuse the chosen path; puts come before ranges."""
        ops = list(_flat(path[1]))
        for op in ops:
            if isinstance(op, PutRequest):
                if (op.ignore_value or op.ignore_lease) and op.key not in self.states[-1]:
                    raise KeyNotFound
                if op.lease and op.lease not in self.leases:
                    raise LeaseNotFound
        for op in ops:
            if isinstance(op, RangeRequest):
                if op.revision > self.revision:
                    raise FutureRevision
                if op.revision != 0 and op.revision < self.compacted:
                    raise Compacted(self.compacted)

    # --- reads -------------------------------------------------------------------------------

    def at(self, revision: int) -> dict[bytes, KV]:
        if revision > self.revision:
            raise FutureRevision
        if 0 < revision < self.compacted:
            raise Compacted(self.compacted)
        return self.states[revision if revision > 0 else self.revision]

    def range(self, request: RangeRequest) -> tuple[Any, ...]:
        validate.check_range(request)
        return answer(request, self.at(request.revision), self.revision)

    def diff(self, older: int, newer: int) -> list[tuple[bytes, KV | None, KV | None]]:
        before, after = self.at(older), self.at(newer)
        keys = sorted(before.keys() | after.keys())
        both = [(key, before.get(key), after.get(key)) for key in keys]
        return [change for change in both if change[1] != change[2]]

    def events(self, request: WatchRequest, first_revision: int) -> list[tuple[EventType, KV, KV | None]]:
        """What a watch delivers from a revision on, if it is read now."""
        found = []
        for main, _, key, kv in self.changes:
            if main < first_revision or not in_range(key, request):
                continue
            if request.no_delete if kv is None else request.no_put:
                continue
            has_before = (
                request.prev_kv and main > self.compacted and (kv is None or kv.create_revision < main)
            )
            before = self.states[main - 1].get(key) if has_before else None
            kind = EventType.DELETE if kv is None else EventType.PUT
            found.append((kind, kv or KV(key, b"", 0, main, 0, 0), before))
        return found

    def history(self, key: bytes) -> list[KV]:
        """Every version ever; a delete has version 0."""
        return [kv or KV(key, b"", 0, main, 0, 0) for main, _, name, kv in self.changes if name == key]

    def hash_kv(self, revision: int) -> int:
        """etcd's HashKV: rows up to the compaction count only if they live at ``revision`` (or, where nothing
        at all lives there, at the compaction)."""
        live = self.at(revision) or self.states[max(self.compacted, 0)]
        value = crc32c(b"key")
        for main, sub, key, kv in self.changes:
            if main <= revision and (main > self.compacted or (kv is not None and live.get(key) is kv)):
                row = kv if kv is not None else KV(key, b"", 0, 0, 0, 0)
                encoded = encode_key_value(
                    key, row.create_revision, row.mod_revision, row.version, row.value, row.lease
                )
                name = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + b"t" * (kv is None)
                value = crc32c(encoded, crc32c(name, value))
        return value


def _flat(ops: list[Any]) -> Any:
    for op in ops:
        yield from _flat(op[1]) if type(op) is tuple else [op]


class Run:
    """One transaction in the making."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.state = dict(model.states[-1])
        self.changes: list[tuple[int, int, bytes, KV | None]] = []

    @property
    def revision(self) -> int:
        return self.model.revision + bool(self.changes)

    def put(self, put: PutRequest) -> tuple[Any, ...]:
        main, old = self.model.revision + 1, self.state.get(put.key)
        value = old.value if old and put.ignore_value else put.value
        lease = (old.lease if old else 0) if put.ignore_lease else put.lease
        created, version = (old.create_revision, old.version + 1) if old else (main, 1)
        self._change(put.key, KV(put.key, value, created, main, version, lease))
        return main, old if put.prev_kv else None

    def delete(self, request: DeleteRangeRequest) -> tuple[Any, ...]:
        gone = sorted(kv for key, kv in self.state.items() if in_range(key, request))
        for kv in gone:
            self._change(kv.key, None)
        return self.revision, len(gone), gone if request.prev_kv else []

    def path(self, path: tuple[bool, list[Any]]) -> tuple[Any, ...]:
        return 0, path[0], [self._op(op) for op in path[1]]

    def _op(self, op: Any) -> tuple[Any, ...]:
        if isinstance(op, PutRequest):
            return self.put(op)
        if isinstance(op, DeleteRangeRequest):
            return self.delete(op)
        if isinstance(op, RangeRequest):
            state = self.state if op.revision <= 0 else self.model.states[op.revision]
            return answer(op, state, self.revision)
        return self.path(op)

    def _change(self, key: bytes, kv: KV | None) -> None:
        self.changes.append((self.model.revision + 1, len(self.changes), key, kv))
        self.state.pop(key, None)
        if kv is not None:
            self.state[key] = kv


def answer(r: RangeRequest, state: dict[bytes, KV], header: int) -> tuple[Any, ...]:
    """(revision, kvs, more, count) of a range over one state."""
    found = sorted(kv for key, kv in state.items() if in_range(key, r))
    count, limit = len(found), max(r.limit, 0)
    if r.count_only:
        return header, [], False, count
    filters = r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision
    if limit and not r.sort_order and not any(filters):
        found = found[: limit + 1]
    for field, least, most in (("mod_revision", *filters[:2]), ("create_revision", *filters[2:])):
        found = [
            kv for kv in found if getattr(kv, field) >= least and not (most and getattr(kv, field) > most)
        ]
    field = ("key", "version", "create_revision", "mod_revision", "value")[r.sort_target]
    found.sort(key=lambda kv: getattr(kv, field), reverse=r.sort_order == 2)
    more = bool(limit and len(found) > limit)
    found = found[:limit] if limit else found
    return header, [kv._replace(value=b"") for kv in found] if r.keys_only else found, more, count
