"""Plain puts that wait together are planned together: each is answered, logged and kept as if it had come alone."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store
from kvstore.errors import LeaseNotFound
from kvstore.model import DeleteRangeRequest, LeaseGrantRequest, PutRequest, Request, TxnRequest
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.state import State
from kvstore.testing.fake_clock import FakeClock
from kvstore.write.ticket import Ticket
from tests.engine.answers import Answers, wait_until
from tests.harness.line_steps import Interruption, every_step
from tests.harness.watching import BACKENDS, open_store

LEASE = 7
KEYS = (b"a", b"b", b"c")
SEEDS = range(20)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param, clock=FakeClock()) as store:
        store.engine.ask(LeaseGrantRequest(3600, LEASE))
        yield store


def drawn(chance: random.Random) -> Request:
    """Mostly plain puts, on few keys."""
    key, value = chance.choice(KEYS), b"%d" % chance.randrange(9)
    others: tuple[Request, ...] = (
        PutRequest(key, value, prev_kv=True),
        PutRequest(key, value, lease=LEASE),
        PutRequest(key, value, lease=LEASE + 1),
        PutRequest(key, ignore_value=True),
        DeleteRangeRequest(key),
        TxnRequest(success=(PutRequest(key, value),)),
    )
    return chance.choice(others) if chance.randrange(4) == 0 else PutRequest(key, value)


def asked_together(store: Store, requests: list[Request]) -> list[Any]:
    """What each is answered, when all of them wait for the flusher at once."""
    answers = Answers(store.engine)
    with store.engine.writer.planning:
        tickets = [answers.ask(request) for request in requests]
    return [answers.of(ticket) for ticket in tickets]


def asked_alone(store: Store, request: Request) -> Any:
    try:
        return store.engine.ask(request)
    except kvstore.KVStoreError as error:
        return error


def content(store: Store) -> list[Any]:
    """Every version of every key."""
    return [(kv.key, kv.value, kv.mod_revision, kv.version) for key in KEYS for kv in store.history(key)]


def comparable(answers: list[Any]) -> list[Any]:
    return [(type(each), str(each)) if isinstance(each, Exception) else each for each in answers]


@pytest.mark.parametrize("seed", SEEDS)
def test_together_as_one_after_the_other(store: Store, tmp_path: Path, seed: int) -> None:
    """Whatever lies between them: the same answers and the same versions. (A twin replays each, ``twin.py``.)"""
    chance = random.Random(seed)
    requests = [drawn(chance) for _ in range(30)]
    with open_store(tmp_path / "other", "memory", clock=FakeClock()) as other:
        other.engine.ask(LeaseGrantRequest(3600, LEASE))
        alone = [asked_alone(other, request) for request in requests]
        assert comparable(asked_together(store, requests)) == comparable(alone)
        assert store.hash_kv().hash == other.hash_kv().hash and content(store) == content(other)


def test_puts_that_wait_are_decided_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the planner for all of them, a put over another one of them included."""
    groups: list[int] = []
    decide_puts = Planner.decide_puts

    def counted(planner: Planner, requests: list[PutRequest]) -> Any:
        plans = decide_puts(planner, requests)
        groups.append(len(plans))
        return plans

    monkeypatch.setattr(Planner, "decide_puts", counted)
    answers = asked_together(store, [PutRequest(b"k%d" % (number % 10)) for number in range(20)])
    assert [answer.revision for answer in answers] == list(range(2, 22))
    assert groups == [20]
    found = store.get(b"k3")
    assert found is not None and found.version == 2


def test_a_put_over_a_leased_key_ends_the_lease_there(store: Store) -> None:
    """It is planned by itself, and those before and after it are not held up."""
    store.put(b"b", b"leased", lease=LEASE)
    answers = asked_together(store, [PutRequest(b"a"), PutRequest(b"b"), PutRequest(b"c"), PutRequest(b"b")])
    assert [answer.revision for answer in answers] == [3, 4, 5, 6]
    assert store.lease_time_to_live(LEASE, keys=True).keys == ()


def test_a_put_that_nobody_wants_any_more_is_left_out(store: Store) -> None:
    """Those around it are planned."""
    answers = Answers(store.engine)
    with store.engine.writer.planning:
        tickets = [answers.ask(PutRequest(key)) for key in (*KEYS, b"d")]
        tickets[1].withdrawn = tickets[2].withdrawn = True
    assert [answers.of(tickets[at]).revision for at in (0, 3)] == [2, 3]
    assert store.count(prefix=b"") == 2


def test_a_refused_write_among_them_is_refused_alone(store: Store) -> None:
    answers = asked_together(store, [PutRequest(b"a"), PutRequest(b"b", lease=99), PutRequest(b"c")])
    assert isinstance(answers[1], LeaseNotFound)
    assert [answers[at].revision for at in (0, 2)] == [2, 3]


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError(5, "unreadable"), MemoryError()], ids=repr)
def test_what_goes_wrong_for_all_is_met_again_by_each(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Who is fine alone is answered, who is not is told; the store goes on."""
    row_of = State.head_row

    def rows(state: State, keys: list[bytes]) -> Any:
        raise error

    def row(state: State, key: bytes) -> Any:
        if key == b"b":
            raise error
        return row_of(state, key)

    with monkeypatch.context() as failing:
        failing.setattr(State, "head_rows", rows)
        failing.setattr(State, "head_row", row)
        answers = asked_together(store, [PutRequest(key) for key in KEYS])
    assert [answers[at].revision for at in (0, 2)] == [2, 3]
    assert answers[1] is error
    assert store.put(b"b").revision == 4


def half(planner: Planner, plans: list[Any]) -> None:
    planner.carry_out(plans[0])


def whole(planner: Planner, plans: list[Any]) -> None:
    for plan in plans:
        planner.carry_out(plan)


@pytest.mark.parametrize("done", [lambda *_: None, half, whole], ids=["nothing", "half", "whole"])
def test_what_was_half_carried_out_is_finished(
    store: Store, scratch: Path, monkeypatch: pytest.MonkeyPatch, done: Callable[..., None]
) -> None:
    """No memory in the middle: every put is answered all the same, once, in its order."""
    failures: list[int] = []
    carry_out_puts = Planner.carry_out_puts

    def fail_once(planner: Planner, plans: list[Any]) -> None:
        if failures or len(plans) < 2:
            return carry_out_puts(planner, plans)
        failures.append(1)
        done(planner, plans)
        raise MemoryError

    monkeypatch.setattr(Planner, "carry_out_puts", fail_once)
    store.put(b"a", b"before")
    answers = asked_together(store, [PutRequest(b"%d" % (number % 4)) for number in range(9)])
    assert failures and [answer.revision for answer in answers] == list(range(3, 12))
    wait_until(lambda: not store.engine.writer.asked)
    assert [len(list(store.history(b"%d" % number))) for number in range(4)] == [3, 2, 2, 2]


def test_an_exception_at_any_line_of_leading_a_group(store: Store, scratch: Path) -> None:
    """The main thread leads for others and is interrupted: their puts are answered, and what was planned is logged."""
    answers = Answers(store.engine)
    wanted: list[Any] = []

    def lead() -> None:
        with store.engine.writer.planning:
            wanted.extend(
                store.engine.ask_soon(PutRequest(key, b"soon"), answers.notify, at_once=False) for key in KEYS
            )
        store.put(b"a", b"mine")

    lead()
    for _ in every_step(lead, Interruption, stride=5):
        for ticket in wanted:
            if ticket is not None:
                store.engine.flush_soon()
                wait_until(ticket.is_done)
                assert ticket.error is None and ticket.response.revision > 0
        wanted.clear()
    backend = type(store.engine.core.backend).name
    there, revision = content(store), store.revision
    if backend != "memory":
        store.close()
        with open_store(scratch, backend) as store:
            assert (content(store), store.revision) == (there, revision)


def test_they_are_counted_as_any_others(scratch: Path) -> None:
    """By the store's metrics, each with its bytes."""
    with open_store(scratch, "memory", metrics=True) as store:
        measured: Any = getattr(store.engine.planner, "measured")  # noqa: B009  # of a planner that measures
        asked_together(store, [PutRequest(b"k%d" % number, b"v") for number in range(9)])
        assert (measured.puts, measured.put_bytes) == (9, 27)


class Garbage:
    """Collected only by the collector; the collection asks for a put."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.itself = self
        self.ask = ask

    def __del__(self) -> None:
        self.ask()


def test_one_more_that_is_asked_for_in_the_middle(store: Store) -> None:
    """Wherever garbage is collected while a group is planned, and asks for a put: nobody fails. (Seen in 3.11.)"""
    writer, threshold = store.engine.writer, gc.get_threshold()
    tickets: list[Ticket] = []

    def ask() -> None:
        tickets.append(Ticket(PutRequest(b"k")))
        writer.ask_soon(tickets[-1])

    for allocations in range(1, 60):
        with writer._lead:
            for _ in range(30):  # more than Python keeps a tuple ready for
                ask()
            Garbage(ask)
            gc.set_threshold(gc.get_count()[0] + allocations)
            try:
                writer._plan_asked()
            finally:
                gc.set_threshold(*threshold)
        gc.collect()
    assert writer.flush_soon()  # the flusher may have looked while it was kept from leading
    wait_until(lambda: all(ticket.done for ticket in tickets))
    assert not any(ticket.error for ticket in tickets)
