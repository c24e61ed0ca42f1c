"""Locks and semaphores: who has the turn, in which order, and what a holder that was too slow can still do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import kvstore
from kvstore.recipes import (
    AlreadyHeld,
    AsyncLock,
    AsyncSemaphore,
    AsyncSession,
    KeyLost,
    LeaseLost,
    Lock,
    NotHeld,
    Semaphore,
    Session,
)
from kvstore.testing.fake_clock import FakeClock
from tests.harness.checkers.linearizability import Operation, check
from tests.harness.checkers.recordings import CompareAndSet, Register, RegisterAnswer, RegisterRequest, Write
from tests.harness.watching import BACKENDS
from tests.recipes.holders import TTL_SECONDS, Beside, all_of, killed, pass_time, until, waits_in_line


@pytest.fixture
def sessions(store: kvstore.Store) -> Iterator[list[Session]]:
    """Three of them."""
    opened = [Session(store, TTL_SECONDS) for _ in range(3)]
    for session in opened:
        session.open()
    yield opened
    for session in opened:
        if not session.is_lost:
            session.close()


def test_a_lock_is_a_key_of_its_lease(store: kvstore.Store, sessions: list[Session]) -> None:
    """Named as etcd names it; the token is the revision that made it."""
    with Lock(sessions[0], b"lock") as lock:
        (kv,) = store.range(prefix=b"lock/").kvs
        assert kv.key == lock.key == b"lock/%x" % sessions[0].lease
        assert (kv.value, kv.lease, kv.create_revision) == (b"", sessions[0].lease, lock.token)
    assert store.count(prefix=b"lock/") == 0
    with pytest.raises(NotHeld):
        _ = lock.token


def test_it_is_given_in_the_order_of_asking_with_rising_tokens(
    store: kvstore.Store, sessions: list[Session]
) -> None:
    """Each when the one before gives it back."""
    locks = [Lock(session, b"l") for session in sessions]
    token = locks[0].acquire()
    waiting = []
    for count, lock in enumerate(locks[1:], 2):
        waiting.append(Beside(lock.acquire))
        waits_in_line(store, b"l/", count)
    for lock, beside in zip(locks, waiting, strict=False):
        assert not beside.is_over
        lock.release()
        assert beside.result() > token
        token = beside.result()


def test_one_that_gives_up_leaves_the_line(store: kvstore.Store, sessions: list[Session]) -> None:
    """After its timeout, and at once for a try."""
    first, second, third = (Lock(session, b"l") for session in sessions)
    assert first.try_acquire()
    assert not second.try_acquire()
    with pytest.raises(TimeoutError):
        third.acquire(timeout=0.01)
    assert store.count(prefix=b"l/") == 1
    first.release()
    assert second.try_acquire()
    second.release()


def test_one_in_the_middle_that_goes_lets_nobody_in(store: kvstore.Store, sessions: list[Session]) -> None:
    """The third waits for the first, once the second is gone; the second is told when its turn would have come."""
    first, second, third = (Lock(session, b"l") for session in sessions)
    first.acquire()
    middle = Beside(second.acquire)
    waits_in_line(store, b"l/", 2)
    last = Beside(third.acquire)
    waits_in_line(store, b"l/", 3)
    store.delete(second.key)
    until(lambda: store.status().watchers == 2)
    assert not last.is_over
    first.release()
    last.result()
    with pytest.raises(KeyLost):
        middle.result()


def test_a_session_gets_a_lock_once(sessions: list[Session]) -> None:
    """Neither a second object nor the same one: two threads would both think that they hold it."""
    with Lock(sessions[0], b"l") as lock:
        for again in (lock, Lock(sessions[0], b"l")):
            with pytest.raises(AlreadyHeld):
                again.try_acquire()
    assert Lock(sessions[0], b"l").try_acquire()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_counter_that_is_read_and_written_under_a_lock_counts_right(scratch: Path, backend: str) -> None:
    """Four threads; a checker looks on that never two are in."""
    inside = threading.Lock()

    def count(session: Session) -> None:
        for _ in range(10):
            with Lock(session, b"l"):
                assert inside.acquire(blocking=False), "two hold it"
                kv = store.get(b"n")
                store.put(b"n", b"%d" % (int(kv.value if kv else 0) + 1))
                inside.release()

    def client() -> None:
        with Session(store, 60) as session:
            count(session)

    with kvstore.open(scratch / "data", backend) as store:
        all_of([client] * 4)
        kv = store.get(b"n")
        assert kv is not None and kv.value == b"40"


def test_locking_is_linearizable(store: kvstore.Store, sessions: list[Session]) -> None:
    """There is an order in which each acquisition found it free and each release freed it."""
    history: list[Operation[RegisterRequest, RegisterAnswer]] = []

    def client(number: int) -> None:
        lock = Lock(sessions[number], b"l")
        for turn in range(8):
            called = time.monotonic()
            has_it = lock.try_acquire() if turn % 2 else bool(lock.acquire())
            returned = time.monotonic()
            if not has_it:
                continue  # others in line are as good as a holder to it
            history.append(Operation(CompareAndSet(0, number + 1), True, called, returned, number))
            called = time.monotonic()
            lock.release()
            history.append(Operation(Write(0), None, called, time.monotonic(), number))

    all_of([partial(client, number) for number in range(3)])
    assert len(history) >= 24
    assert check(Register(initial=0), history)


def test_a_holder_paused_for_longer_than_its_lease_changes_nothing(
    store: kvstore.Store, clock: FakeClock, sessions: list[Session]
) -> None:
    """Fencing: its transactions compare what it has lost, and its token is lower than the next one's."""
    slow = Lock(sessions[0], b"l")
    slow.acquire()
    is_owner, token = slow.is_owner, slow.token
    pass_time(store, clock)
    with Session(store, TTL_SECONDS) as session, Lock(session, b"l") as lock:
        assert lock.token > token
        assert not store.txn([is_owner], [kvstore.ops.put(b"k", b"slow")]).succeeded
        assert store.txn([lock.is_owner], [kvstore.ops.put(b"k", b"next")]).succeeded
        for use in (slow.check, slow.release):
            with pytest.raises(LeaseLost):
                use()
        lock.check()


def test_a_block_whose_lock_was_lost_says_so_at_its_end(
    store: kvstore.Store, sessions: list[Session]
) -> None:
    """Also where only the key is gone, and the session lives on."""
    with pytest.raises(KeyLost), Lock(sessions[0], b"l") as lock:
        lock.check()
        store.delete(lock.key)
        with pytest.raises(KeyLost):
            lock.check()
    sessions[0].check()


def test_killed_holders_do_not_stop_the_others(store: kvstore.Store, clock: FakeClock) -> None:
    """Holder and next in line both die: the third gets it when their leases have ended."""
    dead = [Session(store, TTL_SECONDS) for _ in range(2)]
    for session in dead:
        session.open()
    Lock(dead[0], b"l").acquire()
    Beside(Lock(dead[1], b"l").acquire)
    waits_in_line(store, b"l/", 2)
    for session in dead:
        killed(session)
    with Session(store, 2 * TTL_SECONDS) as session:
        waiting = Beside(Lock(session, b"l").acquire)
        waits_in_line(store, b"l/", 3)
        pass_time(store, clock)
        waiting.result()


def test_a_compaction_while_waiting_does_no_harm(store: kvstore.Store, sessions: list[Session]) -> None:
    """The watch goes on or begins anew, and the turn comes."""
    first, second = (Lock(session, b"l") for session in sessions[:2])
    first.acquire()
    waiting = Beside(second.acquire)
    waits_in_line(store, b"l/", 2)
    store.compact(store.put(b"k").revision)
    first.release()
    waiting.result()


# --- asyncio -------------------------------------------------------------------------------------


def test_tasks_take_turns_too(scratch: Path) -> None:
    """Ten tasks with a session each; a canceled one leaves the line."""

    async def client(store: kvstore.AsyncStore, inside: list[int]) -> None:
        async with AsyncSession(store, 60) as session, AsyncLock(session, b"l"):
            inside.append(1)
            assert len(inside) == 1
            await asyncio.sleep(0)
            inside.pop()

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store:
            await asyncio.gather(*(client(store, []) for _ in range(10)))
            async with AsyncSession(store, 60) as session, AsyncLock(session, b"l"):
                waiting = asyncio.create_task(client(store, []))
                while await store.count(prefix=b"l/") < 2:
                    await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert await store.count(prefix=b"l/") == 1

    asyncio.run(main())


def test_a_class_of_the_other_kind_is_refused(scratch: Path) -> None:
    """A blocking recipe over an asynchronous store names the mistake instead of hanging."""

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store:
            with pytest.raises(TypeError, match="asynchronous"):
                Session(store, 60).open()  # type: ignore[arg-type]

    asyncio.run(main())


# --- semaphores ----------------------------------------------------------------------------------


def test_a_semaphore_lets_in_as_many_as_it_has_places(store: kvstore.Store) -> None:
    """Six threads, two places: never more than two inside, and twice two at once."""
    inside: list[int] = []
    most: list[int] = []
    both = threading.Barrier(2)

    def client() -> None:
        with Session(store, 60) as session, Semaphore(session, b"s", places=2):
            inside.append(1)
            most.append(len(inside))
            both.wait(60)
            inside.pop()

    all_of([client] * 6)
    assert max(most) == 2
    assert store.count(prefix=b"s/") == 0


def test_a_place_comes_back_from_the_dead(store: kvstore.Store, clock: FakeClock) -> None:
    """When the lease of one that died has ended."""
    dead = Session(store, TTL_SECONDS)
    dead.open()
    Semaphore(dead, b"s", places=1).acquire()
    killed(dead)
    with Session(store, 2 * TTL_SECONDS) as session:
        semaphore = Semaphore(session, b"s", places=1)
        assert not semaphore.try_acquire()
        pass_time(store, clock)
        assert semaphore.try_acquire()
        semaphore.release()


def test_a_semaphore_for_tasks(scratch: Path) -> None:
    """The same, awaited."""

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store, AsyncSession(store, 60) as session:
            async with AsyncSemaphore(session, b"s", places=1) as semaphore:
                await semaphore.check()
            assert await semaphore.try_acquire()
            await semaphore.release()

    asyncio.run(main())
