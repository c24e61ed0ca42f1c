"""Lock and Election: turns in a queue of keys."""

from __future__ import annotations

import gc
from typing import Any
from unittest.mock import patch

import pytest

import kvstore
from kvstore.errors import Code
from kvstore.etcdpb.messages import v3electionpb, v3lockpb
from kvstore.model import LeaseKeepAliveRequest
from kvstore.network import turns
from tests.network.fake_call import Client, FakeCall, Refused

LOCK, UNLOCK = "/v3lockpb.Lock/Lock", "/v3lockpb.Lock/Unlock"
ELECTION = "/v3electionpb.Election/"


def lock(client: Client, name: bytes, lease: int = 0) -> Any:
    return client.ask(LOCK, v3lockpb.LockRequest(name=name, lease=lease))


def begin_lock(client: Client, name: bytes, lease: int) -> FakeCall:
    """A call that waits for its turn."""
    call = client.begin(LOCK, v3lockpb.LockRequest(name=name, lease=lease))
    store = client.endpoint.engine
    client.until(lambda: store.get(name + b"/%x" % lease) is not None)
    watches(client, 1)
    assert call.alive
    return call


def watches(client: Client, count: int) -> None:
    """Wait until that many watches are open."""
    client.until(lambda: client.endpoint.engine.status().watchers >= count)


def campaign(client: Client, name: bytes, lease: int, value: bytes) -> Any:
    request = v3electionpb.CampaignRequest(name=name, lease=lease, value=value)
    return client.ask(ELECTION + "Campaign", request)


def begin_campaign(client: Client, name: bytes, lease: int, value: bytes) -> FakeCall:
    request = v3electionpb.CampaignRequest(name=name, lease=lease, value=value)
    call = client.begin(ELECTION + "Campaign", request)
    client.until(lambda: client.endpoint.engine.get(name + b"/%x" % lease) is not None)
    watches(client, 1)
    assert call.alive
    return call


def refusal(client: Client, path: str, request: Any) -> str:
    """The text of a refusal; its code is UNKNOWN, always."""
    with pytest.raises(Refused) as raised:
        client.ask(path, request)
    assert raised.value.code == Code.UNKNOWN
    return raised.value.text


def finished(client: Client, call: FakeCall) -> Any:
    client.until(lambda: not call.alive)
    call.check()
    (answer,) = call.answers
    return answer


@pytest.fixture
def leases(store: kvstore.Store) -> list[int]:
    return [store.grant_lease(1000, number).id for number in (0x37, 0x38, 0x39)]


# --- lock ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_who_goes_before_it_has_begun_leaves_nothing(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """A call that is reset in the turn in which it came: no key, no watch, and no warning of a coroutine."""
    for path, request in (
        (LOCK, v3lockpb.LockRequest(name=b"l", lease=leases[0])),
        (ELECTION + "Campaign", v3electionpb.CampaignRequest(name=b"e", lease=leases[0])),
    ):
        client.begin(path, request).go()
    client.turn()
    gc.collect()
    client.until(lambda: not client.endpoint._tasks)
    assert store.count(prefix=b"") == 0 and client.endpoint.engine.status().watchers == 0


def test_a_free_lock_is_taken_at_once(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """Its key is the name and the lease; taking it again under the same lease changes nothing."""
    answer = lock(client, b"l", leases[0])
    assert (answer.key, answer.header.revision) == (b"l/37", 2)
    held = store.get(b"l/37")
    assert held is not None
    assert (held.value, held.lease) == (b"", leases[0])
    assert lock(client, b"l", leases[0]) == answer


def test_a_lock_without_a_lease_gets_one(store: kvstore.Store, client: Client) -> None:
    """Of a minute; the key says which."""
    key = lock(client, b"l").key
    found = store.get(key)
    assert found is not None
    assert key == b"l/%x" % found.lease
    assert store.lease_time_to_live(found.lease).granted_ttl == turns.LEASE_SECONDS


def test_a_lock_keeps_its_lease_alive_once(client: Client, leases: list[int]) -> None:
    """From then on its owner has to."""
    asked = []
    ask_for = client.endpoint.ask_for

    def noted(request: Any, finish: Any) -> None:
        asked.append(request)
        ask_for(request, finish)

    with patch.object(client.endpoint, "ask_for", noted):
        lock(client, b"l", leases[0])
    assert [request for request in asked if isinstance(request, LeaseKeepAliveRequest)] == [
        LeaseKeepAliveRequest(leases[0])
    ]


def test_locks_are_given_in_the_order_they_were_asked_for(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """Each by the unlocking of the one before."""
    first = lock(client, b"l", leases[0])
    second, third = (begin_lock(client, b"l", lease) for lease in leases[1:])
    unlocked = client.ask(UNLOCK, v3lockpb.UnlockRequest(key=first.key))
    answer = finished(client, second)
    assert (answer.key, answer.header.revision) == (b"l/38", unlocked.header.revision)
    assert third.alive
    store.delete(b"l/38")
    assert finished(client, third).key == b"l/39"


def test_an_expired_holder_gives_way(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """The end of its lease is the end of its key."""
    lock(client, b"l", leases[0])
    waiting = begin_lock(client, b"l", leases[1])
    store.revoke_lease(leases[0])
    assert finished(client, waiting).key == b"l/38"


def test_one_in_the_middle_that_goes_lets_nobody_pass(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """The third waits for the first once the second is gone."""
    lock(client, b"l", leases[0])
    second, third = (begin_lock(client, b"l", lease) for lease in leases[1:])
    second.go()
    client.until(lambda: store.get(b"l/38") is None)
    client.turn(100)
    assert third.alive
    store.delete(b"l/37")
    assert finished(client, third).key == b"l/39"


def test_a_client_that_goes_leaves_the_queue(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """Waiting, or in the very moment of entering."""
    lock(client, b"l", leases[0])
    begin_lock(client, b"l", leases[1]).go()
    client.until(lambda: store.get(b"l/38") is None)
    for steps in range(6):
        call = client.begin(LOCK, v3lockpb.LockRequest(name=b"m", lease=leases[2]))
        client.turn(steps)
        call.go()
        client.until(lambda: not client.endpoint._tasks)
        store.put(b"after", b"")
        if not call.answers:
            client.until(lambda: store.get(b"m/39") is None)
        store.delete(b"m/39")


def test_a_session_that_ended_while_it_waited_holds_nothing(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """Its key is gone when its turn comes."""
    lock(client, b"l", leases[0])
    waiting = begin_lock(client, b"l", leases[1])
    store.revoke_lease(leases[1])
    store.delete(b"l/37")
    with pytest.raises(Refused) as raised:
        finished(client, waiting)
    assert (raised.value.code, raised.value.text) == (Code.UNKNOWN, "mutex: session is expired")


def test_a_wait_goes_on_over_a_compaction(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """What is waited for is looked up again."""
    lock(client, b"l", leases[0])
    waiting = begin_lock(client, b"l", leases[1])
    store.put(b"other", b"")
    store.compact(store.revision)
    store.delete(b"l/37")
    assert finished(client, waiting).key == b"l/38"


def test_locks_are_refused_as_etcd_does(client: Client) -> None:
    """An unknown lease, an empty key: UNKNOWN, with etcd's text."""
    assert (
        refusal(client, LOCK, v3lockpb.LockRequest(name=b"l", lease=5))
        == refusal(client, LOCK, v3lockpb.LockRequest(name=b"l", lease=-5))
        == "etcdserver: requested lease not found"
    )
    assert refusal(client, UNLOCK, v3lockpb.UnlockRequest()) == "etcdserver: key is not provided"


def test_a_closed_store_ends_who_waits(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """With an error."""
    lock(client, b"l", leases[0])
    waiting = begin_lock(client, b"l", leases[1])
    store.close()
    with pytest.raises(Refused, match="server stopped"):
        finished(client, waiting)


# --- election ------------------------------------------------------------------------------------


def test_who_comes_first_leads(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """The answer names the key, and what it takes to prove that it is still held."""
    answer = campaign(client, b"e", leases[0], b"v")
    leader = answer.leader
    assert (leader.name, leader.key, leader.rev, leader.lease) == (b"e", b"e/37", 2, leases[0])
    assert answer.header.revision == 2
    found = client.ask(ELECTION + "Leader", v3electionpb.LeaderRequest(name=b"e"))
    assert (found.kv.key, found.kv.value, found.kv.lease) == (b"e/37", b"v", leases[0])
    assert found.header.revision == store.revision


def test_campaigning_again_proclaims_another_value(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """The same value changes nothing."""
    first = campaign(client, b"e", leases[0], b"v")
    assert campaign(client, b"e", leases[0], b"v").leader == first.leader
    assert store.revision == 2
    assert campaign(client, b"e", leases[0], b"w").leader == first.leader
    found = store.get(b"e/37")
    assert found is not None
    assert found.value == b"w"


def test_the_next_leads_when_the_first_resigns(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """Its answer has the revision at which it stood for election."""
    leader = campaign(client, b"e", leases[0], b"v").leader
    waiting = begin_campaign(client, b"e", leases[1], b"w")
    client.ask(ELECTION + "Resign", v3electionpb.ResignRequest(leader=leader))
    answer = finished(client, waiting)
    assert (answer.leader.key, answer.leader.rev, answer.header.revision) == (b"e/38", 3, 3)
    assert store.get(b"e/37") is None


def test_a_leader_proclaims_until_it_has_lost(client: Client, leases: list[int]) -> None:
    """With the revision of its key it proves that it leads."""
    leader = campaign(client, b"e", leases[0], b"v").leader
    request = v3electionpb.ProclaimRequest(leader=leader, value=b"w")
    assert client.ask(ELECTION + "Proclaim", request).header.revision == 3
    resigned = client.ask(ELECTION + "Resign", v3electionpb.ResignRequest(leader=leader))
    assert resigned.header.revision == 4
    assert refusal(client, ELECTION + "Proclaim", request) == "election: not leader"
    again = client.ask(ELECTION + "Resign", v3electionpb.ResignRequest(leader=leader))
    assert again.header.revision == 4


def test_elections_are_refused_as_etcd_does(client: Client) -> None:
    """UNKNOWN, with etcd's text."""
    missing = '"leader" field must be provided'
    assert refusal(client, ELECTION + "Proclaim", v3electionpb.ProclaimRequest()) == missing
    assert refusal(client, ELECTION + "Resign", v3electionpb.ResignRequest()) == missing
    assert (
        refusal(client, ELECTION + "Leader", v3electionpb.LeaderRequest(name=b"e")) == "election: no leader"
    )
    unknown = v3electionpb.CampaignRequest(name=b"e", lease=5)
    assert refusal(client, ELECTION + "Campaign", unknown) == "etcdserver: requested lease not found"


def test_a_candidate_that_goes_does_not_stand_any_more(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """Its key is deleted."""
    campaign(client, b"e", leases[0], b"v")
    begin_campaign(client, b"e", leases[1], b"w").go()
    client.until(lambda: store.get(b"e/38") is None)


def observing(client: Client, name: bytes) -> FakeCall:
    return client.begin(ELECTION + "Observe", v3electionpb.LeaderRequest(name=name))


def seen(call: FakeCall) -> list[tuple[bytes, bytes]]:
    return [(answer.kv.key, answer.kv.value) for answer in call.answers]


def test_an_observer_sees_every_leader(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """From before there is one; what each proclaims, and who follows. It ends only with its client."""
    observer = observing(client, b"e")
    watches(client, 1)
    leader = campaign(client, b"e", leases[0], b"v").leader
    client.until(lambda: len(observer.answers) == 1)
    campaign(client, b"e", leases[0], b"w")
    begin_campaign(client, b"e", leases[1], b"x")
    client.until(lambda: len(observer.answers) == 2)
    client.ask(ELECTION + "Resign", v3electionpb.ResignRequest(leader=leader))
    client.until(lambda: len(observer.answers) == 3)
    store.delete(b"e/38")
    watches(client, 1)
    store.put(b"e/anybody", b"y")
    client.until(lambda: len(observer.answers) == 4)
    assert seen(observer) == [(b"e/37", b"v"), (b"e/37", b"w"), (b"e/38", b"x"), (b"e/anybody", b"y")]
    assert [answer.header.revision for answer in observer.answers] == [2, 3, 5, 7]
    assert observer.alive
    observer.go()
    client.until(lambda: store.status().watch_streams == 0)


def test_an_observer_that_a_compaction_overtakes_goes_on(
    store: kvstore.Store, client: Client, leases: list[int]
) -> None:
    """It sees who leads by then."""
    campaign(client, b"e", leases[0], b"v")
    observer = observing(client, b"e")
    observer.is_blocked = True
    client.until(lambda: len(observer.answers) == 1)
    for value in (b"1", b"2"):
        campaign(client, b"e", leases[0], value)
    store.compact(store.revision)
    observer.take()
    client.until(lambda: seen(observer)[-1:] == [(b"e/37", b"2")])
    campaign(client, b"e", leases[0], b"3")
    client.until(lambda: seen(observer)[-1:] == [(b"e/37", b"3")])


def test_nothing_is_left_open(store: kvstore.Store, client: Client, leases: list[int]) -> None:
    """No watch outlives the call that needed it."""
    lock(client, b"l", leases[0])
    waiting = begin_lock(client, b"l", leases[1])
    store.delete(b"l/37")
    finished(client, waiting)
    client.until(lambda: store.status().watch_streams == 0)
    assert not client.endpoint._tasks
