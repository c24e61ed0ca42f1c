"""Barriers and double barriers."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

import kvstore
from kvstore.recipes import (
    AsyncBarrier,
    AsyncDoubleBarrier,
    AsyncSession,
    Barrier,
    DoubleBarrier,
    NotHeld,
    Session,
    TooManyClients,
)
from kvstore.testing.fake_clock import FakeClock
from tests.recipes.holders import TTL_SECONDS, Beside, all_of, killed, pass_time, until


def test_a_barrier_holds_until_it_is_released(store: kvstore.Store) -> None:
    """By anybody; when it is down nobody waits."""
    barrier = Barrier(store, b"b")
    barrier.wait()
    assert barrier.hold() and not barrier.hold()
    with pytest.raises(TimeoutError):
        barrier.wait(timeout=0.01)
    waiting = [Beside(barrier.wait) for _ in range(2)]
    until(lambda: store.status().watchers == 2)
    assert Barrier(store, b"b").release() and not barrier.release()
    for beside in waiting:
        beside.result()


def test_a_barrier_of_a_session_goes_with_it(store: kvstore.Store, clock: FakeClock) -> None:
    """Its holder is killed: who waits goes on when the lease has ended."""
    session = Session(store, TTL_SECONDS)
    session.open()
    Barrier(session, b"b").hold()
    killed(session)
    waiting = Beside(Barrier(store, b"b").wait)
    until(lambda: store.status().watchers == 1)
    pass_time(store, clock)
    waiting.result()


def test_all_enter_together_and_leave_together_round_after_round(store: kvstore.Store) -> None:
    """Three sessions, ten rounds: whoever is in has all companions of its round, and nobody of another one."""
    came = [0, 0, 0]
    checking = threading.Lock()

    def client(number: int) -> None:
        with Session(store, 60) as session:
            for turn in range(10):
                came[number] = turn
                with DoubleBarrier(session, b"d", count=3), checking:
                    assert came == [turn] * 3

    all_of([partial(client, number) for number in range(3)])
    assert store.count(prefix=b"d") == 0


def test_one_that_does_not_get_in_is_out(store: kvstore.Store) -> None:
    """Too few came in time; one came too many, and the round goes on without it."""
    with Session(store, 60) as first, Session(store, 60) as second, Session(store, 60) as third:
        with pytest.raises(TimeoutError):
            DoubleBarrier(first, b"d", count=2).enter(timeout=0.01)
        assert store.count(prefix=b"d/") == 0
        entering = Beside(DoubleBarrier(first, b"d", count=2).enter)
        until(lambda: store.count(prefix=b"d/waiters/") == 1)
        with DoubleBarrier(second, b"d", count=1 + 1):
            entering.result()
            with pytest.raises(TooManyClients):
                DoubleBarrier(third, b"d", count=2).enter()
            store.delete(b"d/waiters/%x" % first.lease)
        with pytest.raises(NotHeld):
            DoubleBarrier(third, b"d", count=2).leave()


def test_the_dead_are_not_waited_for(store: kvstore.Store, clock: FakeClock) -> None:
    """One dies inside: the other leaves when its lease has ended, and the next round begins from nothing."""
    dead = Session(store, TTL_SECONDS)
    dead.open()
    with Session(store, 10 * TTL_SECONDS) as session:
        entering = Beside(DoubleBarrier(dead, b"d", count=2).enter)
        barrier = DoubleBarrier(session, b"d", count=2)
        barrier.enter()
        entering.result()
        killed(dead)
        leaving = Beside(barrier.leave)
        until(lambda: store.count(prefix=b"d/waiters/") == 1)
        assert not leaving.is_over
        pass_time(store, clock)
        leaving.result()
        assert store.count(prefix=b"d/") == 0


def test_what_a_round_of_the_dead_has_left_is_no_invitation(store: kvstore.Store, clock: FakeClock) -> None:
    """All died inside: the first of the next round waits for a second."""
    dead = Session(store, TTL_SECONDS)
    dead.open()
    DoubleBarrier(dead, b"d", count=1).enter()
    killed(dead)
    pass_time(store, clock)
    assert store.get(b"d/ready") is not None
    with Session(store, TTL_SECONDS) as session, pytest.raises(TimeoutError):
        DoubleBarrier(session, b"d", count=2).enter(timeout=0.01)


def test_barriers_for_tasks(scratch: Path) -> None:
    """The same, awaited."""

    async def client(store: kvstore.AsyncStore) -> None:
        async with AsyncSession(store, 60) as session, AsyncDoubleBarrier(session, b"d", count=3):
            pass

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store:
            await asyncio.gather(*(client(store) for _ in range(3)))
            barrier = AsyncBarrier(store, b"b")
            await barrier.hold()
            waiting = asyncio.create_task(barrier.wait())
            await barrier.release()
            await waiting

    asyncio.run(main())
