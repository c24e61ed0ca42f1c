"""Writes without an answer: no recipe does anything twice, and none stops short."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from itertools import chain
from unittest.mock import patch

import pytest

import kvstore
from kvstore.errors import OutcomeUnknown
from kvstore.recipes import (
    Barrier,
    DoubleBarrier,
    Election,
    Lock,
    Queue,
    Semaphore,
    Sequence,
    Session,
    Transaction,
    access,
    transact,
)
from tests.recipes.doubtful import FATES, Doubtful, at_random
from tests.recipes.holders import all_of

SEEDS = range(4)


@pytest.fixture(autouse=True)
def _no_pauses() -> object:
    """Nobody else needs the time."""
    with patch.object(access, "backoff_seconds", lambda tries: random.uniform(0, 0.0003)):
        yield


@pytest.mark.parametrize("fate", FATES)
def test_a_session_opens_once_and_ends_its_lease(store: kvstore.Store, fate: str) -> None:
    """Whichever became of the grant and the revocation: one lease while it is open, and none after that."""
    with Session(Doubtful(store, [fate, "answered", fate]), 60) as session:
        store.put(b"other", b"")
        assert store.leases() == (session.lease,)
        assert store.lease_time_to_live(session.lease).granted_ttl == session.ttl_seconds
    store.put(b"other", b"")
    assert store.leases() == ()


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("step", range(3))
def test_a_lock_is_held_once_whichever_step_is_in_doubt(store: kvstore.Store, fate: str, step: int) -> None:
    """Entering, looking and leaving: one key while it is held, none afterwards, and the next one gets it."""
    with Session(store, 60) as other, Session(store, 60) as bad:
        bad.access.store = Doubtful(store, ["answered"] * step + [fate])
        lock = Lock(bad, b"lock")
        lock.acquire()
        kv = store.get(lock.key)
        assert kv is not None and kv.create_revision == lock.token
        assert not Lock(other, b"lock").try_acquire()
        lock.release()
        assert store.count(prefix=b"lock/") == 0
        assert Lock(other, b"lock").try_acquire()


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_stay_dense_and_unique(store: kvstore.Store, seed: int) -> None:
    """Three askers over bad lines: every number once, without a gap."""
    lines = [Doubtful(store, at_random(10 * seed + line)) for line in range(3)]

    def ask(line: Doubtful) -> list[int]:
        return [Sequence(line, b"s").next() for _ in range(30)]

    numbers = all_of([partial(ask, line) for line in lines])
    assert sorted(chain(*numbers)) == list(range(1, 91))
    assert all(line.doubts for line in lines)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_transaction_with_a_mark_is_carried_out_once(store: kvstore.Store, seed: int) -> None:
    """Three clients add one, 20 times each: 60, though all write the same values."""
    lines = [Doubtful(store, at_random(10 * seed + line)) for line in range(3)]

    def add(txn: Transaction) -> None:
        txn.put(b"n", b"%d" % (int(txn.get(b"n") or 0) + 1))

    def client(number: int) -> None:
        for _ in range(20):
            transact(lines[number], add, mark=b"marks/%d" % number, tries=1000)

    all_of([partial(client, number) for number in range(3)])
    found = store.get(b"n")
    assert found is not None and found.value == b"60"
    assert all(line.doubts for line in lines)


def test_a_transaction_without_a_mark_says_when_it_cannot_tell(store: kvstore.Store) -> None:
    """It was made, and its answer lost: another one may have written the same. Where nobody did, it is made now."""
    store.put(b"n", b"1")

    def set_two(txn: Transaction) -> None:
        txn.get(b"n")
        txn.put(b"n", b"2")

    with pytest.raises(OutcomeUnknown):
        transact(Doubtful(store, ["made"]), set_two)
    found = store.get(b"n")
    assert found is not None and found.version == 2
    transact(Doubtful(store, ["lost"]), set_two)
    found = store.get(b"n")
    assert found is not None and found.version == 3


def test_a_transaction_overtaken_in_doubt_runs_again(store: kvstore.Store) -> None:
    """It was lost, and another one wrote something else: that it was not made is certain."""
    store.put(b"n", b"1")
    line = Doubtful(store, ["lost"])
    runs: list[int] = []

    def double(txn: Transaction) -> None:
        value = int(txn.get(b"n") or 0)
        if not runs:
            store.put(b"n", b"5")
        runs.append(value)
        txn.put(b"n", b"%d" % (2 * value))

    transact(line, double)
    found = store.get(b"n")
    assert found is not None and found.value == b"10"
    assert runs == [1, 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_is_acknowledged_once(store: kvstore.Store, seed: int) -> None:
    """Two producers, two workers, all over bad lines: each job comes in once, and is acknowledged once."""
    done: list[bytes] = []

    def produce(line: Doubtful, number: int) -> None:
        queue = Queue(line, b"q")
        for job in range(10):
            queue.put(b"%d/%d" % (number, job))

    def work(line: Doubtful) -> None:
        with Session(store, 60) as session:
            session.access.store = line
            queue = Queue(session, b"q", tries_max=1000)
            while len(done) < 20:
                try:
                    job = queue.claim(timeout=0.05)
                except TimeoutError:
                    continue
                job.acknowledge()
                done.append(job.payload)
            session.access.store = store

    lines = [Doubtful(store, at_random(10 * seed + line)) for line in range(4)]
    all_of(
        [partial(produce, lines[number], number) for number in range(2)]
        + [partial(work, line) for line in lines[2:]]
    )
    assert Counter(done) == Counter(b"%d/%d" % (number, job) for number in range(2) for job in range(10))
    assert [kv.key for kv in store.scan(prefix=b"q/")] == [b"q/last"]


@pytest.mark.parametrize("fate", FATES)
def test_a_job_is_given_back_once(store: kvstore.Store, fate: str) -> None:
    """At once, after a delay, or to the dead."""
    with Session(store, 60) as session:
        queue = Queue(session, b"q", tries_max=3)
        queue.put(b"job")
        for delay, is_free in ((None, True), (10, False)):
            job = queue.claim()
            session.access.store = Doubtful(store, ["answered"] * bool(delay) + [fate])
            job.retry(delay)
            session.access.store = store
            assert (store.count(prefix=b"q/claims/") == 0) is is_free
        store.delete(prefix=b"q/claims/")
        job = queue.claim()
        assert job.tries == 3
        session.access.store = Doubtful(store, [fate])
        job.retry()
        session.access.store = store
        assert [dead.payload for dead in queue.dead()] == [b"job"]
        assert queue.count() == 0


@pytest.mark.parametrize("fate", FATES)
def test_elections_semaphores_and_barriers_go_on(store: kvstore.Store, fate: str) -> None:
    """Each with every second write in doubt."""
    with Session(store, 60) as session:
        session.access.store = Doubtful(store, [fate, "answered"] * 50)
        election = Election(session, b"e")
        election.campaign(b"me")
        election.proclaim(b"still me")
        election.resign()
        with Semaphore(session, b"s", places=2):
            assert store.count(prefix=b"s/") == 1
        Barrier(session, b"b").hold()
        Barrier(session, b"b").release()
        with DoubleBarrier(session, b"d", count=1):
            assert store.count(prefix=b"d/") == 2
        session.access.store = store
        assert [kv.key for kv in store.scan(prefix=b"")] == []
