"""Transactions as functions, and sequences: alone in the world, whatever others do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import BadArgument
from kvstore.recipes import (
    AsyncSequence,
    AsyncTransaction,
    Sequence,
    TooManyConflicts,
    Transaction,
    transact,
    transact_async,
)
from tests.harness.checkers.linearizability import (
    IMPOSSIBLE,
    UNKNOWN,
    Impossible,
    Operation,
    Unknown,
    check,
)
from tests.harness.watching import BACKENDS
from tests.recipes.holders import all_of


def test_a_transaction_sees_its_own_writes_and_nobody_else_does(store: kvstore.Store) -> None:
    """Until it has returned; then all are there, at one revision."""
    store.put(b"a/1", b"one")
    store.put(b"a/2", b"two")

    def change(txn: Transaction) -> dict[bytes, bytes]:
        txn.put(b"a/3", b"three")
        txn.delete(b"a/1")
        assert (txn.get(b"a/3"), txn.get(b"a/1"), txn.get(b"a/2")) == (b"three", None, b"two")
        assert store.get(b"a/3") is None
        return txn.range(b"a/")

    revision = store.revision
    assert transact(store, change) == {b"a/2": b"two", b"a/3": b"three"}
    assert store.revision == revision + 1
    assert store.get(b"a/1") is None


def test_all_reads_are_of_one_revision(store: kvstore.Store) -> None:
    """A write between two of them shows in neither, and the commit notices it."""
    store.put(b"a", b"1")
    store.put(b"b", b"1")
    seen: list[tuple[bytes | None, bytes | None]] = []

    def move(txn: Transaction) -> None:
        a = txn.get(b"a")
        if not seen:
            store.txn(success=[kvstore.ops.put(b"a", b"2"), kvstore.ops.put(b"b", b"2")])
        seen.append((a, txn.get(b"b")))
        txn.put(b"sum", b"done")

    transact(store, move)
    assert seen == [(b"1", b"1"), (b"2", b"2")]


def test_a_key_that_comes_into_a_range_or_goes_is_a_conflict(store: kvstore.Store) -> None:
    """No phantoms."""
    store.put(b"a/1")
    interruptions: list[Callable[[], object]] = [
        lambda: store.put(b"a/2"),
        lambda: store.delete(b"a/1"),
        lambda: None,
    ]
    seen: list[int] = []

    def count(txn: Transaction) -> None:
        found = len(txn.range(b"a/"))
        interruptions.pop(0)()
        seen.append(found)
        txn.put(b"count", b"%d" % found)

    transact(store, count)
    assert seen == [1, 2, 1]


def test_what_only_reads_commits_nothing_and_what_fails_writes_nothing(store: kvstore.Store) -> None:
    """The revision stays."""
    store.put(b"a", b"1")
    revision = store.revision

    def fail(txn: Transaction) -> None:
        txn.put(b"a", b"2")
        raise ZeroDivisionError

    assert transact(store, lambda txn: txn.get(b"a")) == b"1"
    with pytest.raises(ZeroDivisionError):
        transact(store, fail)
    assert store.revision == revision


def test_it_gives_up_after_its_tries(store: kvstore.Store) -> None:
    """Somebody always was faster; nothing of it is written."""

    def race(txn: Transaction) -> None:
        txn.get(b"a")
        store.put(b"a")
        txn.put(b"b", b"")

    with pytest.raises(TooManyConflicts):
        transact(store, race, tries=3)
    assert store.get(b"b") is None


def test_a_compaction_in_the_middle_begins_it_anew(store: kvstore.Store) -> None:
    """What it read is gone."""
    store.put(b"a", b"1")
    runs = []

    def read_twice(txn: Transaction) -> None:
        txn.get(b"a")
        runs.append(1)
        if len(runs) == 1:
            store.compact(store.put(b"c").revision)
        txn.get(b"b")

    transact(store, read_twice)
    assert len(runs) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_money_is_neither_made_nor_lost(scratch: Path, backend: str) -> None:
    """Four threads transfer between three accounts; every reader sees the same sum."""
    with kvstore.open(scratch / "data", backend) as store:
        for account in range(3):
            store.put(b"accounts/%d" % account, b"100")

        def transfer(txn: Transaction, source: int, target: int) -> None:
            names = b"accounts/%d" % source, b"accounts/%d" % target
            amounts = [int(txn.get(name) or 0) for name in names]
            txn.put(names[0], b"%d" % (amounts[0] - 1))
            txn.put(names[1], b"%d" % (amounts[1] + 1))

        def client(number: int) -> None:
            for turn in range(10):
                source, target = (number + turn) % 3, (number + turn + 1) % 3
                transact(store, lambda txn: transfer(txn, source, target))  # noqa: B023  # called at once
                values = transact(store, lambda txn: txn.range(b"accounts/")).values()
                assert sum(map(int, values)) == 300

        all_of([partial(client, number) for number in range(4)])


class Counter:
    """What one client alone sees of a counter: the next number each time."""

    initial = 0

    def step(self, state: int, request: None, answer: int | Unknown) -> int | Impossible:
        return state + 1 if answer in (UNKNOWN, state + 1) else IMPOSSIBLE


@pytest.mark.parametrize("how", ["transact", "sequence"])
def test_counting_is_linearizable(store: kvstore.Store, how: str) -> None:
    """By a transaction and by a sequence: each number once, in an order that agrees with time."""
    history: list[Operation[None, int]] = []

    def count(txn: Transaction) -> int:
        number = int(txn.get(b"n") or 0) + 1
        txn.put(b"n", b"%d" % number)
        return number

    def client(number: int) -> None:
        for _ in range(8):
            called = time.monotonic()
            answer = transact(store, count, tries=1000) if how == "transact" else Sequence(store, b"s").next()
            history.append(Operation(None, answer, called, time.monotonic(), number))

    all_of([partial(client, number) for number in range(3)])
    assert check(Counter(), history)


def test_transactions_of_tasks(scratch: Path) -> None:
    """The function is a coroutine; ten tasks add one each."""

    async def add(txn: AsyncTransaction) -> None:
        txn.put(b"n", b"%d" % (int(await txn.get(b"n") or 0) + 1))

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store:
            await asyncio.gather(*(transact_async(store, add, tries=1000) for _ in range(10)))
            kv = await store.get(b"n")
            assert kv is not None and kv.value == b"10"
            assert await AsyncSequence(store, b"s").next() == 1

    asyncio.run(main())


# --- sequences -----------------------------------------------------------------------------------


def test_a_sequence_counts_from_one_without_a_gap(store: kvstore.Store) -> None:
    """One by one, many at once, and across objects."""
    sequence = Sequence(store, b"s")
    assert sequence.last() == 0
    assert [sequence.next(), *sequence.reserve(3), Sequence(store, b"s").next()] == [1, 2, 3, 4, 5]
    assert sequence.last() == 5
    with pytest.raises(BadArgument):
        sequence.reserve(0)


def test_a_key_that_holds_something_else_is_no_sequence(store: kvstore.Store) -> None:
    """It is refused, and left as it is."""
    store.put(b"s", b"mine")
    with pytest.raises(BadArgument, match="counter"):
        Sequence(store, b"s").next()
    kv = store.get(b"s")
    assert kv is not None and kv.value == b"mine"
