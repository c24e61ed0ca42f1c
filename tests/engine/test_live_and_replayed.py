"""Two interpreters, one state: what a live write leaves in memory is what replaying its log entry leaves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kvstore.backend import find_backend
from kvstore.errors import RequestError
from kvstore.model import (
    AlarmRequest,
    CompactionRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    PutRequest,
    PutWithTTLRequest,
    RangeRequest,
    RenewAllRequest,
    Request,
    RowsRequest,
    ShiftRequest,
    TxnRequest,
)
from kvstore.mvcc import effects
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.plan import Plan, Planner
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from tests.harness.line_steps import Interruption, raise_at

KEYS = [b"a", b"b", b"c", b"a\0", b"d" * 600, b"\xff"]
REQUESTS = 3000


class Requests:
    """Random requests of every kind, most of which a store accepts."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def _op(self, depth: int = 0) -> Any:
        chance = self._chance
        kind, key = chance.random(), chance.choice(KEYS)
        if kind < 0.5:
            value, lease = chance.randbytes(chance.choice((0, 3, 300))), chance.choice((0, 0, 1, 2))
            return PutRequest(key, value, lease, ignore_lease=not lease and chance.random() < 0.1)
        if kind < 0.8:
            return DeleteRangeRequest(key, chance.choice((b"", b"\0", b"c")))
        if depth < 2:
            compare = Compare(key, CompareTarget.VERSION, CompareResult.GREATER, 0)
            success = tuple(self._op(depth + 1) for _ in range(chance.randrange(3)))
            return TxnRequest((compare,), success, tuple(self._op(depth + 1) for _ in range(2)))
        return RangeRequest(key, b"\0")

    def _rows(self) -> RowsRequest:
        chance = self._chance
        values = {b"etcd/%c" % chance.choice(b"abc"): chance.choice((None, b"", b"x")) for _ in range(3)}
        return RowsRequest(lambda _rows: (values, None))

    def next(self, head: int) -> Request:
        chance = self._chance
        key = chance.choice(KEYS)
        kind = chance.random()
        if kind < 0.4:
            return PutRequest(key, chance.randbytes(4), chance.choice((0, 0, 1, 2)))
        if kind < 0.5:
            return PutWithTTLRequest(PutRequest(key, b"x"), 5)
        if kind < 0.6:
            return DeleteRangeRequest(key, chance.choice((b"", b"\0")))
        if kind < 0.8:
            return TxnRequest((), tuple(self._op() for _ in range(chance.randrange(4))), ())
        lease = chance.randrange(1, 9)
        return chance.choice(
            (
                LeaseGrantRequest(5, lease),
                LeaseGrantRequest(5, lease),
                LeaseKeepAliveRequest(lease),
                LeaseRevokeRequest(lease),
                CompactionRequest(head - chance.randrange(50)),
                AlarmRequest(7, "NOSPACE", chance.random() < 0.5),
                ShiftRequest(chance.randrange(5000)),
                RenewAllRequest(),
                self._rows(),
            )
        )


def new_state(path: Path) -> tuple[State, Lessor]:
    return State(find_backend("memory").open(path / "none", TABLES)), Lessor()


def all_of(state: State, lessor: Lessor) -> tuple[Any, ...]:
    generation = state.active
    leases = {
        ident: (lease.ttl_seconds, lease.deadline_ms, sorted(lease.keys))
        for ident, lease in lessor.leases.items()
    }
    return (
        (state.head, state.index, state.head_compacted, sorted(state.alarms), state.carried),
        (generation.changes, generation.newest, generation.earlier, generation.rows),
        (sorted(set(generation.order)), leases),
    )


def applied(entry: bytes | None, state: State, lessor: Lessor) -> None:
    if entry is not None:
        effects.apply(entry, state, lessor)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_live_write_and_its_replay_leave_the_same(tmp_path: Path, seed: int) -> None:
    """Head, index, changes, rows and leases are equal after thousands of requests of every kind."""
    live, leases = new_state(tmp_path)
    replayed, replayed_leases = new_state(tmp_path)
    planner, requests, entries = Planner(live, leases), Requests(seed), 0
    for number in range(REQUESTS):
        try:
            plan = planner.plan(requests.next(live.head))
        except RequestError:
            continue
        entries += plan.entry is not None
        applied(plan.entry, replayed, replayed_leases)
        if number % 100 == 0:
            assert all_of(live, leases) == all_of(replayed, replayed_leases)
    assert all_of(live, leases) == all_of(replayed, replayed_leases)
    assert entries > REQUESTS / 2


def test_a_plan_carried_out_in_part_is_carried_out_again(tmp_path: Path) -> None:
    """Interrupted at any line and begun anew, it leaves what its log entry leaves; deciding alone leaves nothing."""
    live, leases = new_state(tmp_path)
    replayed, replayed_leases = new_state(tmp_path)
    planner, requests, interrupted = Planner(live, leases), Requests(3), 0
    for number in range(REQUESTS):
        before = all_of(live, leases) if number % 100 == 0 else None
        try:
            plan: Plan = planner.decide(requests.next(live.head))
        except RequestError:
            continue
        assert before is None or all_of(live, leases) == before
        with raise_at(number % 40 + 1) as steps:
            try:
                planner.carry_out(plan)
            except Interruption:
                interrupted += 1
        assert steps.acted_in is None or interrupted
        planner.carry_out_again(plan)
        applied(plan.entry, replayed, replayed_leases)
        if number % 100 == 0:
            assert all_of(live, leases) == all_of(replayed, replayed_leases)
    assert all_of(live, leases) == all_of(replayed, replayed_leases)
    assert interrupted > REQUESTS / 4
