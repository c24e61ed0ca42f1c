"""Elections: who leads, what it says, and what onlookers see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import BadArgument
from kvstore.recipes import AsyncElection, AsyncSession, Election, LeaseLost, NotHeld, Session
from kvstore.testing.fake_clock import FakeClock
from tests.recipes.holders import TTL_SECONDS, Beside, killed, pass_time, until, waits_in_line


@pytest.fixture
def sessions(store: kvstore.Store) -> Iterator[list[Session]]:
    opened = [Session(store, TTL_SECONDS) for _ in range(2)]
    for session in opened:
        session.open()
    yield opened
    for session in opened:
        if not session.is_lost:
            session.close()


def test_the_first_candidate_leads_and_the_next_follows(
    store: kvstore.Store, sessions: list[Session]
) -> None:
    """By resigning; the key is etcd's, with what the leader says as its value."""
    first, second = (Election(session, b"e") for session in sessions)
    assert first.leader() is None
    token = first.campaign(b"first")
    leader = second.leader()
    assert leader is not None
    assert (leader.key, leader.value, leader.lease) == (
        b"e/%x" % sessions[0].lease,
        b"first",
        sessions[0].lease,
    )
    waiting = Beside(lambda: second.campaign(b"second"))
    waits_in_line(store, b"e/", 2)
    first.check()
    first.resign()
    assert waiting.result() > token
    leader = first.leader()
    assert leader is not None and leader.value == b"second"
    with pytest.raises(NotHeld):
        first.proclaim(b"again")


def test_a_campaign_may_be_given_up(store: kvstore.Store, sessions: list[Session]) -> None:
    """After its timeout the candidate is out of the line."""
    first, second = (Election(session, b"e") for session in sessions)
    first.campaign()
    with pytest.raises(TimeoutError):
        second.campaign(timeout=0.01)
    assert store.count(prefix=b"e/") == 1


def test_a_leader_paused_for_longer_than_its_lease_can_do_nothing(
    store: kvstore.Store, clock: FakeClock, sessions: list[Session]
) -> None:
    """Neither proclaim nor a guarded transaction; a new one leads."""
    old = Election(sessions[0], b"e")
    old.campaign(b"old")
    was_leader = old.is_leader
    killed(sessions[0])
    pass_time(store, clock)
    with Session(store, TTL_SECONDS) as session:
        Election(session, b"e").campaign(b"new")
        assert not store.txn([was_leader], [kvstore.ops.put(b"k")]).succeeded
        with pytest.raises(LeaseLost):
            old.proclaim(b"I am still here")


def test_onlookers_see_who_leads_and_what_it_says(store: kvstore.Store, sessions: list[Session]) -> None:
    """They need no session; one who looks from before the first sees leaders come, in order, down to the last."""
    first, second = (Election(session, b"e") for session in sessions)
    onlooker = Election(store, b"e")
    seen: list[bytes] = []

    def look_on() -> None:
        for kv in onlooker.observe():
            seen.append(kv.value)
            if kv.value == b"c":
                return

    looking = Beside(look_on)
    until(lambda: store.status().watchers == 1)
    first.campaign(b"a")
    until(lambda: seen == [b"a"])
    first.proclaim(b"b")
    waiting = Beside(lambda: second.campaign(b"c"))
    until(lambda: store.count(prefix=b"e/") == 2)
    first.resign()
    waiting.result()
    looking.result()
    assert seen in ([b"a", b"b", b"c"], [b"a", b"c"])
    with pytest.raises(BadArgument, match="session"):
        onlooker.campaign()


def test_an_onlooker_that_a_compaction_overtakes_goes_on(
    store: kvstore.Store, sessions: list[Session]
) -> None:
    """It looks who leads by then."""
    election = Election(sessions[0], b"e")
    election.campaign(b"a")
    seen = Election(store, b"e").observe()
    assert next(seen).value == b"a"
    for value in (b"b", b"c"):
        store.compact(election.proclaim(value))
    until(lambda: next(seen).value == b"c")
    seen.close()  # type: ignore[attr-defined]  # a generator


def test_elections_for_tasks(scratch: Path) -> None:
    """The same, awaited."""

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store, AsyncSession(store, 60) as session:
            election = AsyncElection(session, b"e")
            await election.campaign(b"a")
            seen = AsyncElection(store, b"e").observe()
            assert (await anext(seen)).value == b"a"
            await election.proclaim(b"b")
            assert (await anext(seen)).value == b"b"
            await seen.aclose()
            await election.resign()
            assert await election.leader() is None

    asyncio.run(main())
