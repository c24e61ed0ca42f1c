"""A lease that is kept alive, and tells when it is lost."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

import kvstore
from kvstore.recipes import AlreadyHeld, AsyncSession, LeaseLost, Lock, NotHeld, Session
from kvstore.testing.fake_clock import FakeClock
from tests.recipes.holders import TTL_SECONDS, Beside, killed, pass_time, until, waits_in_line


def test_a_session_has_a_lease_while_its_block_runs(store: kvstore.Store) -> None:
    """Granted on the way in, revoked on the way out, with its keys."""
    with Session(store, TTL_SECONDS) as session:
        assert store.leases() == (session.lease,)
        store.put(b"k", lease=session.lease)
        session.check()
        assert not session.is_lost
    assert store.leases() == ()
    assert store.get(b"k") is None
    assert not session.is_lost
    with pytest.raises(NotHeld):
        session.check()


def test_a_session_is_opened_once(store: kvstore.Store) -> None:
    """Before that it has no lease."""
    session = Session(store, TTL_SECONDS)
    with pytest.raises(NotHeld):
        _ = session.lease
    with session, pytest.raises(AlreadyHeld):
        session.open()


def test_it_is_renewed_without_being_asked(scratch: Path) -> None:
    """In real time: a lease of two seconds has more than it had, after a while."""
    with kvstore.open(scratch / "data") as store, Session(store, 2) as session:
        first = session._until_seconds
        until(lambda: session._until_seconds > first)
        session.check()


def test_a_lease_that_is_gone_is_told_everywhere(
    store: kvstore.Store, caplog: pytest.LogCaptureFixture
) -> None:
    """To the callback, once, to the log, by the next use, and at the end of the block."""
    told: list[LeaseLost] = []
    with (
        caplog.at_level(logging.WARNING, "kvstore"),
        pytest.raises(LeaseLost),
        Session(store, TTL_SECONDS, on_lost=told.append) as session,
    ):
        store.revoke_lease(session.lease)
        with pytest.raises(LeaseLost):
            session.renew()
        with pytest.raises(LeaseLost):
            session.check()
        with pytest.raises(LeaseLost):
            Lock(session, b"l").acquire()
        assert session.is_lost
    assert [loss.lease for loss in told] == [session.lease]
    assert f"{session.lease:x}" in caplog.text


def test_the_keeper_notices_by_itself(scratch: Path) -> None:
    """Nobody uses the session: the callback comes all the same."""
    told: list[LeaseLost] = []
    with kvstore.open(scratch / "data") as store:
        session = Session(store, 2, on_lost=told.append)
        session.open()
        store.revoke_lease(session.lease)
        until(lambda: told)
        with pytest.raises(LeaseLost):
            session.close()


def test_a_session_that_was_not_renewed_for_its_ttl_is_lost_though_nobody_said_so(
    store: kvstore.Store, clock: FakeClock
) -> None:
    """The process was paused: it may not count on the lease any more, whether the store has ended it or not."""
    with pytest.raises(LeaseLost), Session(store, TTL_SECONDS) as session:
        clock.advance(TTL_SECONDS - 1)
        session.check()
        clock.advance(1)
        assert store.leases() == (session.lease,)
        with pytest.raises(LeaseLost):
            session.check()


def test_a_renewal_counts_from_before_it_was_asked_for(
    store: kvstore.Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its way took 20 seconds: the session has 20 less than the store gave."""
    with Session(store, TTL_SECONDS) as session:
        keep_alive = store.engine.lease_keep_alive

        def slow(lease: int) -> object:
            clock.advance(20)
            return keep_alive(lease)

        monkeypatch.setattr(store.engine, "lease_keep_alive", slow)
        session.renew()
        assert session.left_seconds() == TTL_SECONDS - 20


@pytest.mark.parametrize("jump_seconds", [-86_400, 86_400])
def test_a_jump_of_the_time_of_day_neither_ends_a_session_nor_keeps_it(
    store: kvstore.Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, jump_seconds: int
) -> None:
    """Store and session count elapsed time: the lease ends when its TTL has passed, and not before."""
    elapsed = FakeClock(0)
    monkeypatch.setattr("kvstore.recipes.session.elapsed_seconds", elapsed)
    with pytest.raises(LeaseLost), Session(store, TTL_SECONDS) as session:
        clock.advance(jump_seconds)
        store.engine.leasing.tend()
        assert store.leases() == (session.lease,)
        session.check()
        for _ in range(2):
            assert store.leases() == (session.lease,)
            elapsed.advance(TTL_SECONDS / 2)
            pass_time(store, clock, TTL_SECONDS / 2)
        assert store.leases() == ()
        with pytest.raises(LeaseLost):
            session.check()


def test_an_error_of_the_block_comes_out_and_says_that_the_lease_was_lost(store: kvstore.Store) -> None:
    """The loss does not hide it."""
    with pytest.raises(ZeroDivisionError) as raised, Session(store, TTL_SECONDS) as session:
        store.revoke_lease(session.lease)
        _ = 1 / 0
    assert any("lease" in note for note in raised.value.__notes__)


def test_who_waits_is_told_at_once(store: kvstore.Store) -> None:
    """A lock that is waited for under a lost lease will not come."""
    with Session(store, TTL_SECONDS) as holder, Lock(holder, b"l"):
        session = Session(store, TTL_SECONDS)
        session.open()
        waiting = Beside(Lock(session, b"l").acquire)
        waits_in_line(store, b"l/", 2)
        store.revoke_lease(session.lease)
        with pytest.raises(LeaseLost):
            session.renew()
        with pytest.raises(LeaseLost):
            waiting.result()


def test_a_store_that_is_closed_under_a_session_loses_it(scratch: Path) -> None:
    """It is closed loudly, not in silence."""
    with kvstore.open(scratch / "data") as store:
        session = Session(store, 60)
        session.open()
    with pytest.raises(LeaseLost):
        session.close()


def test_a_killed_holder_is_followed_when_its_lease_has_ended(store: kvstore.Store, clock: FakeClock) -> None:
    """Not before."""
    dead = Session(store, TTL_SECONDS)
    dead.open()
    Lock(dead, b"l").acquire()
    killed(dead)
    with Session(store, 2 * TTL_SECONDS) as session:
        waiting = Beside(Lock(session, b"l").acquire)
        waits_in_line(store, b"l/", 2)
        pass_time(store, clock, TTL_SECONDS - 1)
        assert not waiting.is_over
        pass_time(store, clock, 1)
        assert waiting.result() > 0


def test_an_asynchronous_session_keeps_itself_and_tells(scratch: Path) -> None:
    """The task renews it; a lease that is gone is told to the callback and raised at the block's end."""
    told: list[LeaseLost] = []

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store:
            async with AsyncSession(store, 2, on_lost=told.append) as session:
                first = session._until_seconds
                while session._until_seconds == first:
                    await asyncio.sleep(0.01)
            assert await store.leases() == ()
            with pytest.raises(LeaseLost):
                async with AsyncSession(store, 2, on_lost=told.append) as session:
                    await store.revoke_lease(session.lease)
                    while not told:
                        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert len(told) == 1
