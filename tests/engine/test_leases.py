"""Leases: what they promise while the store is open, when they run out, and across restarts."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import LeaseExists, LeaseNotFound, LeaseProvided, LeaseTTLTooLarge
from kvstore.model import EventType
from kvstore.mvcc.lessor import STALE_DEADLINES_MAX
from kvstore.mvcc.schema import ATTACHMENT
from kvstore.store import Store
from kvstore.testing.fake_clock import FakeClock
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, open_store, settle

PERSISTENT = ("lmdb", "sqlite")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path, clock: FakeClock) -> Iterator[Store]:
    with open_store(scratch, request.param, clock=clock) as store:
        yield store


def crashed_copy(path: Path) -> Path:
    """What a process that dies now leaves behind (the data directory is under ``path``)."""
    copy = path / "crashed"
    shutil.copytree(path / "data", copy / "data")
    return copy


# --- while the store is open -------------------------------------------------------------


def test_a_lease_that_runs_out_takes_its_keys_in_one_revision(store: Store, clock: FakeClock) -> None:
    """All attached keys are deleted at once, in key order, and the lease is gone; other keys stay."""
    lease = store.grant_lease(10).id
    for key in (b"b", b"a", b"c"):
        store.put(key, b"v", lease=lease)
    before = store.put(b"free", b"v").revision
    clock.advance(9.999)
    assert store.engine.leasing.expire() == 0
    clock.advance(0.001)
    assert store.engine.leasing.expire() == 1
    assert store.revision == before + 1
    assert [kv.key for kv in store.scan(prefix=b"")] == [b"free"]
    assert store.leases() == ()
    with store.watch(prefix=b"", start_revision=before + 1) as events:
        gone = [events.get(TIMEOUT_SECONDS) for _ in range(3)]
    assert [(event.type, event.kv.key) for event in gone] == [
        (EventType.DELETE, key) for key in (b"a", b"b", b"c")
    ]
    assert {event.kv.mod_revision for event in gone} == {before + 1}


@pytest.mark.parametrize("how", ["revoked", "deleted"])
@pytest.mark.parametrize("backend", PERSISTENT)
def test_very_many_keys_of_a_lease_go_in_one_revision_and_leave_nothing(
    tmp_path: Path, backend: str, how: str
) -> None:
    """Neither a key nor its attachment is there afterwards, also where the log is replayed; the entry is small."""
    count = 3000
    with open_store(tmp_path, backend) as store:
        lease, other = store.grant_lease(60).id, store.grant_lease(60).id
        for number in range(count):
            store.put_nowait(b"key/%04d" % number, b"v", lease=lease if number % 3 else other)
        revision = store.put(b"stays", b"v", lease=other).revision
        before = store.engine.core.log.appended_bytes
        if how == "revoked":
            store.revoke_lease(lease)
            assert store.engine.core.log.appended_bytes - before < 12 * count
            store.revoke_lease(other)
        else:
            assert store.delete(prefix=b"").deleted == count + 1
            assert store.lease_time_to_live(lease, keys=True).keys == ()
        assert store.revision == revision + (2 if how == "revoked" else 1)
        crashed = crashed_copy(tmp_path)
        store.checkpoint()
        assert attachments(store) == []
    with open_store(crashed, backend) as store:
        assert store.count(prefix=b"") == 0
        assert store.lease_time_to_live(other, keys=True).keys == ()
        store.checkpoint()
        assert attachments(store) == []


def attachments(store: Store) -> list[tuple[bytes, bytes]]:
    with store.engine.backend.read() as tx:
        return tx.scan(ATTACHMENT)


def test_a_lease_without_keys_runs_out_without_a_revision(store: Store, clock: FakeClock) -> None:
    """Nothing was deleted, so there is no new revision."""
    store.grant_lease(5)
    before = store.revision
    clock.advance(5)
    assert store.engine.leasing.expire() == 1
    assert store.revision == before


def test_keep_alive_starts_the_time_anew(store: Store, clock: FakeClock) -> None:
    """A renewed lease lives a whole TTL from then on; its old deadline means nothing."""
    lease = store.grant_lease(10).id
    clock.advance(8)
    assert store.keep_alive(lease).ttl == 10
    clock.advance(8)
    assert store.engine.leasing.expire() == 0
    assert store.lease_time_to_live(lease).ttl == 2
    clock.advance(2)
    assert store.engine.leasing.expire() == 1


def test_a_lease_that_is_due_is_never_renewed(store: Store, clock: FakeClock) -> None:
    """Between the deadline and the revocation keep_alive finds none, and the keys still go."""
    lease = store.grant_lease(10).id
    store.put(b"k", b"v", lease=lease)
    clock.advance(10)
    with pytest.raises(LeaseNotFound, match=f"lease {lease}"):
        store.keep_alive(lease)
    assert store.lease_time_to_live(lease, keys=True)[2:] == (0, 10, (b"k",))
    clock.advance(1.5)
    assert store.lease_time_to_live(lease).ttl == -1
    store.engine.leasing.expire()
    assert store.get(b"k") is None
    assert store.lease_time_to_live(lease) == (store.revision, lease, -1, 0, ())


def test_ttls_outside_the_bounds(store: Store) -> None:
    """A TTL below the smallest allowed is raised to it, one above the largest is refused."""
    assert [store.grant_lease(ttl).ttl for ttl in (1, 2, 3)] == [2, 2, 3]
    assert [store.engine.lease_grant(ttl).ttl for ttl in (-1, 0)] == [
        2,
        2,
    ]  # as etcd; the store's face refuses
    with pytest.raises(LeaseTTLTooLarge):
        store.grant_lease(9_000_000_001)
    assert store.grant_lease(9_000_000_000).ttl == 9_000_000_000


@pytest.mark.parametrize("ident", [1, -1, -(2**63), 2**63 - 1])
def test_12535_ids_may_be_any_number_but_zero(tmp_path: Path, clock: FakeClock, ident: int) -> None:
    """Negative and extreme ids work, survive reopening, and can be used again once revoked (#12535)."""
    for backend in BACKENDS:
        with open_store(tmp_path / backend, backend, clock=clock) as store:
            assert store.grant_lease(60, ident).id == ident
            with pytest.raises(LeaseExists):
                store.grant_lease(60, ident)
            store.put(b"k", b"v", lease=ident)
        with open_store(tmp_path / backend, backend, clock=clock) as store:
            assert store.leases() == (ident,)
            assert store.lease_time_to_live(ident, keys=True).keys == (b"k",)
            store.revoke_lease(ident)
            assert store.get(b"k") is None
            store.grant_lease(60, ident)
            assert store.lease_time_to_live(ident, keys=True).keys == ()


def test_only_keys_attached_now_go(store: Store, clock: FakeClock) -> None:
    """A key that was put again without the lease, under another, or deleted, is not taken along."""
    lease, other = store.grant_lease(10).id, store.grant_lease(100).id
    for key in (b"stays", b"moved", b"deleted", b"again"):
        store.put(key, b"v", lease=lease)
    store.put(b"stays", b"v2")
    store.put(b"moved", b"v2", lease=other)
    store.delete(b"deleted")
    store.delete(b"again")
    store.put(b"again", b"v2", lease=lease)
    settle(store)
    clock.advance(10)
    store.engine.leasing.expire()
    assert [kv.key for kv in store.scan(prefix=b"")] == [b"moved", b"stays"]
    assert store.lease_time_to_live(other, keys=True).keys == (b"moved",)


def test_unknown_leases(store: Store) -> None:
    """Attaching to or revoking a lease that is not there is refused, and writes nothing."""
    before = store.revision
    with pytest.raises(LeaseNotFound):
        store.put(b"k", b"v", lease=5)
    with pytest.raises(LeaseNotFound):
        store.revoke_lease(5)
    with pytest.raises(LeaseNotFound):
        store.keep_alive(5)
    assert store.engine.lease_keep_alive(5).ttl == 0  # as on the wire
    assert store.revision == before


def test_leases_are_listed_by_what_runs_out_first(store: Store, clock: FakeClock) -> None:
    """The order is that of the deadlines, renewals counted in."""
    for ident, ttl in ((1, 30), (2, 10), (3, 20)):
        store.grant_lease(ttl, ident)
    assert store.leases() == (2, 3, 1)
    clock.advance(5)
    store.keep_alive(2)
    assert store.leases() == (2, 3, 1)
    clock.advance(6)
    store.keep_alive(2)
    assert store.leases() == (3, 1, 2) or store.leases() == (3, 2, 1)
    assert store.leases()[0] == 3


def test_a_pass_is_bounded(store: Store, clock: FakeClock) -> None:
    """One pass takes as many as it is told, the most overdue first; the rest is due at the next."""
    for ident in range(1, 8):
        store.grant_lease(10 + ident, ident)
    clock.advance(100)
    assert store.engine.leasing.expire(limit=3) == 3
    assert store.leases() == (4, 5, 6, 7)
    assert store.engine.leasing.expire(limit=10) == 4


def test_the_next_turn_is_at_the_next_deadline(store: Store, clock: FakeClock) -> None:
    """With a lease that runs out sooner than the usual interval, the background comes back just then."""
    assert store.engine.leasing.tend() == 0.5
    store.grant_lease(10)
    clock.advance(9.9)
    assert store.engine.leasing.tend() == pytest.approx(0.1, abs=0.002)


def test_renewing_for_ever_takes_no_memory(store: Store, clock: FakeClock) -> None:
    """Deadlines that renewals have made void are dropped."""
    lease = store.grant_lease(3000).id
    for _ in range(3 * STALE_DEADLINES_MAX):
        clock.advance(0.001)
        store.keep_alive(lease)
    assert len(store.engine.lessor._deadlines) <= STALE_DEADLINES_MAX + 2
    clock.advance(3000)
    assert store.engine.leasing.expire() == 1


def test_keep_alive_against_expiry(store: Store, clock: FakeClock) -> None:
    """However they race, a lease whose renewal was answered with a TTL has not been revoked."""
    for round_number in range(1, 30):
        lease = store.grant_lease(2).id
        clock.advance(1.999)
        answers: list[int] = []
        both = threading.Barrier(2)

        def renew(lease: int = lease, answers: list[int] = answers, both: threading.Barrier = both) -> None:
            both.wait()
            answers.append(store.engine.lease_keep_alive(lease).ttl)

        thread = threading.Thread(target=renew)
        thread.start()
        both.wait()
        if round_number % 2:
            clock.advance(0.001)
        store.engine.leasing.expire()
        thread.join()
        assert (lease in store.leases()) == (answers[0] == 2) or answers[0] == 0
        store.engine.leasing.expire()
        assert (lease in store.leases()) == (answers[0] == 2)
        clock.advance(100)
        store.engine.leasing.expire()


# --- put with a time to live -------------------------------------------------------------


def test_put_with_a_ttl(store: Store, clock: FakeClock) -> None:
    """The key goes after its time; a later put without one makes it stay."""
    store.put(b"k", b"v", ttl=30)
    store.put(b"kept", b"v", ttl=30)
    kv = store.get(b"k")
    assert kv is not None and store.lease_time_to_live(kv.lease, keys=True)[2:] == (30, 30, (b"k",))
    store.put(b"kept", b"v2")
    clock.advance(30)
    store.engine.leasing.expire()
    assert [kv.key for kv in store.scan(prefix=b"")] == [b"kept"]


def test_put_with_a_ttl_is_one_log_entry(store: Store) -> None:
    """Lease and key come together: one entry, one revision."""
    index, revision = store.engine.state.index, store.revision
    answer = store.put(b"k", b"v", ttl=30, prev_kv=True)
    assert (store.engine.state.index, answer.revision, answer.prev_kv) == (index + 1, revision + 1, None)


def test_a_key_that_is_refreshed_for_ever_has_one_lease(store: Store, clock: FakeClock) -> None:
    """Each put with a TTL ends the lease of the one before; a put without, a delete and an expiry leave none."""
    for number in range(200):
        store.put(b"k", b"%d" % number, ttl=30)
        clock.advance(1)
    kv = store.get(b"k")
    assert kv is not None and store.leases() == (kv.lease,)
    store.put(b"k", b"stays")
    assert store.leases() == ()
    store.put(b"k", b"v", ttl=30)
    store.delete(prefix=b"k")
    assert store.leases() == ()
    store.put(b"k", b"v", ttl=30)
    store.engine.checkpoint()
    clock.advance(30)
    assert store.engine.leasing.expire() == 1
    assert store.leases() == () and b"k" not in store


def test_a_lease_of_a_keys_own_stays_while_others_hold_it(store: Store) -> None:
    """Whoever attaches more keys keeps it; within one transaction it is the end that counts."""
    store.put(b"k", b"v", ttl=30)
    own = store.leases()[0]
    store.put(b"other", b"v", lease=own)
    store.put(b"k", b"without")
    assert store.leases() == (own,)
    store.txn(success=[kvstore.ops.delete(b"other"), kvstore.ops.put(b"k", lease=own)])
    assert store.lease_time_to_live(own, keys=True).keys == (b"k",)
    granted = store.grant_lease(30).id
    store.put(b"l", lease=granted)
    store.delete(b"l")
    assert granted in store.leases()  # somebody granted it, and may still want it


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ttl_may_be_a_fraction_of_a_second(tmp_path: Path, backend: str) -> None:
    """As long as ``lease_min_ttl`` allows it; a lease that is granted by itself has whole seconds, rounded up."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock, lease_min_ttl=0) as store:
        store.put(b"short", b"v", ttl=0.25)
        store.put(b"long", b"v", ttl=timedelta(seconds=1.5))
        assert store.grant_lease(1.5).ttl == 2
        clock.advance(0.24)
        assert store.engine.leasing.expire() == 0
        clock.advance(0.02)
        store.engine.leasing.expire()
        assert [kv.key for kv in store.scan(prefix=b"")] == [b"long"]
        clock.advance(1.3)
        store.engine.leasing.expire()
        assert store.count(prefix=b"") == 0
        assert len(store.leases()) == 1


def test_a_ttl_that_cannot_be(store: Store) -> None:
    """A TTL beside a lease, or one too large, is refused and leaves no lease behind."""
    lease = store.grant_lease(10).id
    with pytest.raises(LeaseProvided):
        store.put(b"k", b"v", ttl=5, lease=lease)
    with pytest.raises(LeaseTTLTooLarge):
        store.put(b"k", b"v", ttl=9_000_000_001)
    assert store.leases() == (lease,)


def test_put_with_a_ttl_in_asyncio(tmp_path: Path, clock: FakeClock) -> None:
    """The asynchronous twin does the same."""

    async def run() -> None:
        async with kvstore.open_async(tmp_path / "data", background=False, clock=clock) as store:
            await store.put(b"k", b"v", ttl=30)
            kv = await store.get(b"k")
            assert kv is not None
            assert (await store.lease_time_to_live(kv.lease)).ttl == 30

    asyncio.run(run())


# --- restarts ----------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_downtime_counts(tmp_path: Path, backend: str, checkpointed: bool) -> None:
    """By default a restart neither renews nor forgets: time goes on while the store is closed, or crashed."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        store.grant_lease(100, 7)
        store.put(b"k", b"v", lease=7)
        clock.advance(30)
        store.keep_alive(7)
        if checkpointed:
            settle(store)
        crash = crashed_copy(tmp_path)
    clock.advance(60)
    for path in (tmp_path, crash):
        with open_store(path, backend, clock=clock) as store:
            assert store.lease_time_to_live(7, keys=True)[2:] == (40, 100, (b"k",))
    clock.advance(40)
    for path in (tmp_path, crash):
        with open_store(path, backend, clock=clock) as store:
            assert store.engine.leasing.expire() == 1
            assert store.get(b"k") is None


@pytest.mark.parametrize("backend", PERSISTENT)
def test_whoever_opens_a_store_does_not_see_what_ran_out_meanwhile(tmp_path: Path, backend: str) -> None:
    """It is gone when the store is open, not only when background work has come round to it."""
    clock = FakeClock()
    with kvstore.open(tmp_path / "data", backend, clock=clock) as store:
        store.put(b"fleeting", b"v", ttl=10)
        store.put(b"kept", b"v", ttl=100)
    clock.advance(20)
    with kvstore.open(tmp_path / "data", backend, clock=clock) as store:
        assert [kv.key for kv in store.scan(prefix=b"")] == [b"kept"]


@pytest.mark.parametrize("backend", PERSISTENT)
def test_downtime_does_not_count_with_pause(tmp_path: Path, backend: str) -> None:
    """With ``pause`` leases keep what they had left, through several restarts, idle sessions counted in."""
    clock = FakeClock()
    options = {"clock": clock, "lease_restart_policy": "pause"}
    with open_store(tmp_path, backend, **options) as store:
        store.grant_lease(100, 7)
        clock.advance(30)
    clock.advance(1000)
    for left in (70, 50, 30):
        with open_store(tmp_path, backend, **options) as store:
            assert store.lease_time_to_live(7).ttl == left
            clock.advance(20)  # nothing is written in this session
        clock.advance(1000)
    with open_store(tmp_path, backend, **options) as store:
        assert store.lease_time_to_live(7).ttl == 10
        clock.advance(10)
        assert store.engine.leasing.expire() == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_opening_renews_with_renew(tmp_path: Path, backend: str) -> None:
    """Every lease has its TTL again, one that was due before the end too, in one entry: the next crash finds it."""
    clock = FakeClock()
    options = {"clock": clock, "lease_restart_policy": "renew"}
    with open_store(tmp_path, backend, **options) as store:
        assert store.engine.state.index == 0  # nothing to renew, nothing logged
        store.grant_lease(100, 7)
        store.put(b"k", lease=7)
        store.grant_lease(20, 8)
        clock.advance(30)
        index = store.engine.state.index
    clock.advance(1000)
    with open_store(tmp_path, backend, **options) as store:
        assert store.engine.state.index == index + 1
        assert [store.lease_time_to_live(lease).ttl for lease in (7, 8)] == [100, 20]
        assert store.engine.leasing.expire() == 0 and store.get(b"k") is not None
        clock.advance(19)
        crashed = crashed_copy(tmp_path)
    with open_store(crashed, backend, clock=clock) as store:
        assert [store.lease_time_to_live(lease).ttl for lease in (7, 8)] == [81, 1]


@pytest.mark.parametrize("backend", PERSISTENT)
def test_pause_after_a_crash_goes_by_the_last_sign_of_life(tmp_path: Path, backend: str) -> None:
    """A crashed store was alive at its last log record, and at its last beat while it was idle."""
    clock = FakeClock()
    options = {"clock": clock, "lease_restart_policy": "pause"}
    with open_store(tmp_path, backend, **options) as store:
        store.grant_lease(200, 7)
        clock.advance(30)
        store.put(b"k", b"v")
        by_record = crashed_copy(tmp_path / "")
        clock.advance(70)
        settle(store)
        store.engine.leasing.tend()
        by_beat = tmp_path / "beat"
        shutil.copytree(tmp_path / "data", by_beat / "data")
    clock.advance(1000)
    for path, left in ((by_record, 170), (by_beat, 100)):
        with open_store(path, backend, **options) as store:
            assert store.lease_time_to_live(7).ttl == left


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_expired_stays_expired(tmp_path: Path, backend: str) -> None:
    """A revocation is in the log: after a crash neither the lease nor its keys come back."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        store.put(b"k", b"v", ttl=10)
        settle(store)
        clock.advance(10)
        store.engine.leasing.expire()
        crash = crashed_copy(tmp_path)
    with open_store(crash, backend, clock=clock) as store:
        assert store.leases() == ()
        assert store.get(b"k") is None


def test_the_background_expires_leases(tmp_path: Path) -> None:
    """With background work on, nobody needs to call anything."""
    clock = FakeClock()
    with kvstore.open(tmp_path / "data", clock=clock) as store:
        store.put(b"k", b"v", ttl=10)
        with store.watch(b"k", start_revision=store.revision + 1) as events:
            clock.advance(10)
            assert events.get(TIMEOUT_SECONDS).type == EventType.DELETE
