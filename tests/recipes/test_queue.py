"""Queues: order, claims, retries, the dead; every job at least once, and acknowledged once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore.errors import BadArgument
from kvstore.recipes import AsyncQueue, AsyncSession, LeaseLost, Queue, Session
from kvstore.testing.fake_clock import FakeClock
from tests.harness.checkers.linearizability import (
    IMPOSSIBLE,
    UNKNOWN,
    Impossible,
    Operation,
    Unknown,
    check,
)
from tests.harness.watching import BACKENDS
from tests.recipes.holders import TTL_SECONDS, Beside, all_of, killed, pass_time, until


@pytest.fixture
def session(store: kvstore.Store) -> Iterator[Session]:
    with Session(store, 10 * TTL_SECONDS) as session:
        yield session


@pytest.mark.parametrize("backend", BACKENDS)
def test_jobs_come_in_the_order_of_priority_and_put(scratch: Path, backend: str) -> None:
    """Lower numbers first; nothing is left but the number of the last."""
    with kvstore.open(scratch / "data", backend) as store, Session(store, 60) as session:
        queue = Queue(session, b"q")
        for payload, priority in ((b"3", 100), (b"4", 100), (b"1", 0), (b"5", 65535), (b"2", 7)):
            queue.put(payload, priority=priority)
        assert queue.count() == 5
        done = []
        while (job := queue.try_claim()) is not None:
            done.append(job.payload)
            job.acknowledge()
        assert done == [b"1", b"2", b"3", b"4", b"5"]
        assert [kv.key for kv in store.scan(prefix=b"")] == [b"q/last"]


def test_a_claimed_job_is_another_ones(store: kvstore.Store, session: Session) -> None:
    """Each claim takes the next; many claimed ones in front do not hide a free one."""
    queue = Queue(session, b"q")
    for number in range(100):
        queue.put(b"%d" % number)
    with Session(store, TTL_SECONDS) as other:
        claimed = [Queue(of, b"q").claim().payload for of in [session, other] * 50]
    assert claimed == [b"%d" % number for number in range(100)]


def test_a_worker_waits_for_a_job(session: Session) -> None:
    """Until one is put, or the time is up."""
    queue = Queue(session, b"q")
    with pytest.raises(TimeoutError):
        queue.claim(timeout=0.01)
    waiting = Beside(queue.claim)
    until(lambda: session.access.store.status().watchers == 1)  # type: ignore[union-attr]  # it is synchronous
    queue.put(b"job")
    assert waiting.result().payload == b"job"


def test_a_block_acknowledges_or_gives_back(session: Session) -> None:
    """At its end, or with its error."""
    queue = Queue(session, b"q")
    queue.put(b"job")
    with pytest.raises(ZeroDivisionError), queue.claim() as job:
        _ = 1 / 0
    with queue.claim() as job:
        assert (job.payload, job.tries) == (b"job", 2)
    assert queue.count() == 0
    with pytest.raises(BadArgument):
        job.acknowledge()


def test_a_job_is_tried_so_often_and_is_dead_then(store: kvstore.Store, session: Session) -> None:
    """Given back by its worker; people may look at it, revive it or discard it."""
    queue = Queue(session, b"q", tries_max=2)
    ident = queue.put(b"job")
    for tries in (1, 2):
        job = queue.claim()
        assert job.tries == tries
        job.retry()
    assert queue.try_claim() is None
    assert [(dead.ident, dead.payload) for dead in queue.dead()] == [(ident, b"job")]
    assert queue.revive(ident) and not queue.revive(ident)
    assert queue.claim().tries == 1
    store.delete(prefix=b"q/claims/")
    queue.claim().retry()
    assert queue.discard(ident) and not queue.discard(ident)
    assert (queue.count(), queue.dead()) == (0, [])


def test_a_job_that_kills_its_workers_is_dead_after_its_tries(store: kvstore.Store, clock: FakeClock) -> None:
    """Nobody gives it back: the leases end, and the next one to look puts it to the dead."""
    Queue(store, b"q").put(b"poison")
    for tries in (1, 2):
        worker = Session(store, TTL_SECONDS)
        worker.open()
        assert Queue(worker, b"q", tries_max=2).claim().tries == tries
        killed(worker)
        pass_time(store, clock)
    with Session(store, TTL_SECONDS) as session:
        queue = Queue(session, b"q", tries_max=2)
        assert queue.try_claim() is None
        assert [dead.payload for dead in queue.dead()] == [b"poison"]
        assert queue.count() == 0


def test_a_worker_paused_for_longer_than_its_lease_acknowledges_nothing(
    store: kvstore.Store, clock: FakeClock, session: Session
) -> None:
    """Another one has the job by then; fencing keeps what the first one did out of the store."""
    Queue(store, b"q").put(b"job")
    slow_session = Session(store, TTL_SECONDS)
    slow_session.open()
    slow = Queue(slow_session, b"q").claim()
    killed(slow_session)
    session.renew()
    pass_time(store, clock)
    job = Queue(session, b"q").claim()
    assert (job.tries, job.token > slow.token) == (2, True)
    assert not store.txn([slow.is_owner], [kvstore.ops.put(b"result", b"slow")]).succeeded
    assert store.txn([job.is_owner], [kvstore.ops.put(b"result", b"next")]).succeeded
    with pytest.raises(LeaseLost):
        slow.acknowledge()
    job.acknowledge()
    assert Queue(store, b"q").count() == 0


def test_a_delay_hides_a_job_for_its_time(store: kvstore.Store, clock: FakeClock, session: Session) -> None:
    """From the start, or given back; a waiting worker gets it when the time has come."""
    queue = Queue(session, b"q")
    queue.put(b"later", delay=TTL_SECONDS)
    assert queue.try_claim() is None
    waiting = Beside(queue.claim)
    until(lambda: store.status().watchers == 1)
    pass_time(store, clock)
    job = waiting.result()
    job.retry(delay=TTL_SECONDS)
    assert not store.txn([job.is_owner]).succeeded
    assert queue.try_claim() is None
    pass_time(store, clock)
    assert queue.claim().tries == 2


def test_every_job_is_acknowledged_once_though_workers_are_killed(
    store: kvstore.Store, clock: FakeClock
) -> None:
    """At least once: 40 jobs, workers that die with one in three of them; acknowledged exactly once each."""
    for number in range(40):
        Queue(store, b"q").put(b"%d" % number)
    worked: Counter[bytes] = Counter()
    acknowledged: Counter[bytes] = Counter()

    def work(number: int) -> None:
        while True:
            session = Session(store, TTL_SECONDS)
            session.open()
            queue = Queue(session, b"q")
            for turn in range(5):
                job = queue.try_claim()
                if job is None:
                    session.close()
                    return
                worked[job.payload] += 1
                if turn % 3 == 2:
                    killed(session)
                    break
                job.acknowledge()
                acknowledged[job.payload] += 1
            else:
                session.close()

    rounds = 0
    while Queue(store, b"q").count():
        all_of([partial(work, number) for number in range(3)])
        pass_time(store, clock)
        rounds += 1
    assert rounds > 1
    assert acknowledged == Counter(b"%d" % number for number in range(40))
    assert min(worked.values()) == 1 and max(worked.values()) > 1
    assert Queue(store, b"q").dead() == []


class Fifo:
    """What one client alone sees of a queue: the puts, and what each claim takes."""

    initial: tuple[int, ...] = ()

    def step(
        self, state: tuple[int, ...], request: int | None, answer: int | Unknown | None
    ) -> tuple[int, ...] | Impossible:
        if request is not None:
            return (*state, request)
        if answer is UNKNOWN or not state:
            return state if answer in (UNKNOWN, None) else IMPOSSIBLE
        return state[1:] if answer == state[0] else IMPOSSIBLE


def test_puts_and_claims_are_linearizable(store: kvstore.Store, session: Session) -> None:
    """Three producers and a worker: there is an order in which each claim took the oldest job."""
    history: list[Operation[int | None, int | None]] = []

    def produce(number: int) -> None:
        for job in range(10 * number, 10 * number + 8):
            called = time.monotonic()
            Queue(store, b"q").put(b"%d" % job)
            history.append(Operation(job, None, called, time.monotonic(), number))

    def work() -> None:
        taken = 0
        while taken < 24:
            called = time.monotonic()
            job = Queue(session, b"q").try_claim()
            history.append(
                Operation(None, None if job is None else int(job.payload), called, time.monotonic(), "worker")
            )
            taken += job is not None

    all_of([*(partial(produce, number) for number in range(3)), work])
    assert check(Fifo(), history)


def test_what_makes_no_sense_is_refused(store: kvstore.Store, session: Session) -> None:
    """A priority out of range, a worker without a session, a queue without a name."""
    queue = Queue(session, b"q")
    for priority in (-1, 65536):
        with pytest.raises(BadArgument, match="priority"):
            queue.put(b"job", priority=priority)
    with pytest.raises(BadArgument, match="session"):
        Queue(store, b"q").try_claim()
    with pytest.raises(BadArgument, match="name"):
        Queue(store, b"")


def test_queues_for_tasks(scratch: Path) -> None:
    """The same, awaited; a canceled worker leaves nothing claimed."""

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store, AsyncSession(store, 60) as session:
            queue = AsyncQueue(session, b"q")
            waiting = asyncio.create_task(queue.claim())
            await asyncio.sleep(0.01)
            waiting.cancel()
            await queue.put(b"job")
            async with await queue.claim(timeout=60) as job:
                assert job.payload == b"job"
            assert await queue.try_claim() is None

    asyncio.run(main())


def test_payloads_are_objects_with_a_codec(store: kvstore.Store) -> None:
    """On the way in and out, for workers and among the dead; what does not fit is refused by name."""
    with Session(store, ttl=60) as session:
        queue = Queue(session, b"q", tries_max=1, codec=kvstore.JSON)
        queue.put({"to": "ann", "cc": [1, None]})
        with queue.claim() as job:
            assert job.payload == {"to": "ann", "cc": [1, None]} and job.data == b'{"cc":[1,null],"to":"ann"}'
        queue.put("later")
        queue.claim().retry()
        assert [dead.payload for dead in queue.dead()] == ["later"]
        assert Queue(store, b"q", codec=kvstore.TEXT).dead()[0].payload == '"later"'
        wrong: Any = queue
        with pytest.raises(TypeError, match=r"payload \{1\} does not fit this queue.*\(codec=...\)"):
            wrong.put({1})
        with pytest.raises(TypeError, match=r"payload 'text' does not fit .*takes bytes, not str"):
            Queue(store, b"q").put(cast(Any, "text"))
        with pytest.raises(TypeError, match=r"codec must be a kvstore.Codec, not"):
            Queue(store, b"q", codec=cast(Any, str))


def test_what_a_worker_cannot_read_ends_among_the_dead(store: kvstore.Store) -> None:
    """Somebody else's payload is tried as often as any other, and its bytes are still there."""
    with Session(store, ttl=60) as session:
        Queue(store, b"q").put(b"\xff")
        queue = Queue(session, b"q", tries_max=2, codec=kvstore.TEXT)
        for _ in range(2):
            with (
                pytest.raises(kvstore.UndecodableValue, match=r"its payload b'.xff' cannot be decoded"),
                queue.claim() as job,
            ):
                print(job.payload)
        assert queue.count() == 0 and [dead.data for dead in queue.dead()] == [b"\xff"]
