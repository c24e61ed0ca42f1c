"""A wall clock that jumps: what counts intervals and leases does not notice, and what a restart makes of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from kvstore.clock import END_MS, STEP_MS_MAX, Clock
from kvstore.model import EventType
from kvstore.testing.fake_clock import FakeClock
from tests.harness.watching import open_store

DAY = 86_400.0
YEAR = 365 * DAY
BACKENDS = ("lmdb", "sqlite", "memory")


def test_the_systems_clock_may_be_set_and_nothing_elapses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elapsed time is the monotonic clock's; the drift says how far the time of day has gone elsewhere."""
    wall, monotonic = [1e9], [5_000_000_000]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    monkeypatch.setattr(time, "monotonic_ns", lambda: monotonic[0])
    clock = Clock()
    assert clock.lease_ms() == clock.now_ms() == 10**12
    wall[0] -= YEAR
    monotonic[0] += 2_000_000_000
    assert clock.lease_ms() == 10**12 + 2000
    assert clock.drift_ms == -int(YEAR * 1000) - 2000
    follow = clock.following(clock.drift_ms)
    follow()
    follow()
    assert clock.drift_ms == 0
    assert clock.lease_ms() == clock.now_ms()


def test_a_clock_of_the_callers_counts_its_steps() -> None:
    """Up to an hour from one look to the next has passed; anything else is a jump, in which nothing has."""
    wall = FakeClock(2e9)
    clock = Clock(wall)
    begin_ms = clock.elapsed_ms()
    for step_seconds, elapsed_ms in (
        (1.5, 1500),
        (-10.0, 1500),
        (3600.0, 1500 + STEP_MS_MAX),
        (3600.5, 1500 + STEP_MS_MAX),
        (DAY, 1500 + STEP_MS_MAX),
        (-YEAR, 1500 + STEP_MS_MAX),
        (0.5, 2000 + STEP_MS_MAX),
    ):
        wall.advance(step_seconds)
        assert clock.elapsed_ms() - begin_ms == elapsed_ms, step_seconds


@pytest.mark.parametrize(
    ("seconds", "expected_ms"),
    [(-5.0, 0), (0.0, 0), (math.nan, 0), (2.5e11, 250_000_000_000_000), (1e20, END_MS), (math.inf, END_MS)],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_clocks(tmp_path: Path, backend: str, seconds: float, expected_ms: int) -> None:
    """What no file can hold is taken for the nearest that it can: writes, leases and restarts work."""

    def clock() -> float:
        return seconds

    with open_store(tmp_path, backend, clock=clock) as store:
        assert store.engine.now_ms() == expected_ms
        lease = store.grant_lease(100).id
        store.put(b"k", b"v", lease=lease)
        assert store.keep_alive(lease).ttl == 100
        store.checkpoint()
        store.snapshot()
    with open_store(tmp_path, backend, clock=clock) as store:
        assert store.engine.leasing.expire() == 0
        assert store.lease_time_to_live(lease).ttl == 100
        assert store.get(b"k") is not None


@pytest.mark.parametrize("jump_seconds", [DAY, YEAR, -DAY, -YEAR])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_jump_neither_ends_a_lease_nor_keeps_it(tmp_path: Path, backend: str, jump_seconds: float) -> None:
    """It has left what it had, before and after the deadlines have followed, and after a restart."""
    clock = FakeClock(2e9)
    with open_store(tmp_path, backend, clock=clock) as store:
        store.put(b"session", b"x", ttl=100)
        lease = store.leases()[0]
        clock.advance(10)
        assert store.lease_time_to_live(lease).ttl == 90
        clock.advance(jump_seconds)
        assert store.engine.leasing.expire() == 0
        assert store.lease_time_to_live(lease).ttl == 90
        store.engine.leasing.tend()
        assert store.engine.clock.drift_ms == 0
        assert store.lease_time_to_live(lease).ttl == 90
        clock.advance(-jump_seconds)  # put right again; closing follows it
    with open_store(tmp_path, backend, clock=clock) as store:
        assert store.lease_time_to_live(lease).ttl == 90
        clock.advance(89)
        assert store.engine.leasing.expire() == 0
        clock.advance(1)
        assert store.engine.leasing.expire() == 1
        assert store.get(b"session") is None


def test_deadlines_follow_in_one_step(tmp_path: Path) -> None:
    """Moved by one log entry together with the clock: whoever looks finds both, or neither."""
    clock = FakeClock(2e9)
    with open_store(tmp_path, "lmdb", clock=clock) as store:
        leases = [store.grant_lease(100 + number).id for number in range(3)]
        clock.advance(-DAY)
        index = store.engine.state.index
        store.engine.leasing.follow_clock()
        store.engine.leasing.follow_clock()
        assert store.engine.state.index == index + 1
        for number, lease in enumerate(leases):
            assert store.lease_time_to_live(lease).ttl == 100 + number
            deadline_ms = store.engine.lessor.leases[lease].deadline_ms
            assert deadline_ms == int((2e9 - DAY + 100 + number) * 1000)


def test_the_clock_stays_where_its_move_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that could not be moved are held against the clock as it was."""
    clock = FakeClock(2e9)
    with open_store(tmp_path, "lmdb", clock=clock) as store:
        lease = store.grant_lease(100).id
        clock.advance(DAY)
        original = store.engine.writer.ask

        def refused(request: object) -> object:
            original(request)  # type: ignore[arg-type]
            raise MemoryError

        monkeypatch.setattr(store.engine.writer, "ask", refused)
        with pytest.raises(MemoryError):
            store.engine.leasing.follow_clock()
        assert store.engine.clock.drift_ms == int(DAY * 1000)
        monkeypatch.undo()
        store.engine.leasing.follow_clock()
        assert store.engine.clock.drift_ms == 0
        assert store.lease_time_to_live(lease).ttl > 0


@pytest.mark.parametrize("policy", ["count_downtime", "pause"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_lease_has_more_left_than_its_ttl_after_a_restart(
    tmp_path: Path, backend: str, policy: str
) -> None:
    """A store that was written with a clock far ahead is opened with the right one."""
    clock = FakeClock(4e9)
    options = {"clock": clock, "lease_restart_policy": policy}
    with open_store(tmp_path, backend, **options) as store:
        lease = store.grant_lease(100).id
        store.put(b"k", b"v", lease=lease)
    clock.now_seconds = 1.7e9
    with open_store(tmp_path, backend, **options) as store:
        assert store.lease_time_to_live(lease).ttl == 100
        clock.advance(100)
        assert store.engine.leasing.expire() == 1
    with open_store(tmp_path, backend, **options) as store:
        assert store.get(b"k") is None


def test_a_period_is_kept_in_full_though_the_clock_jumps(tmp_path: Path) -> None:
    """Periodic compaction: nothing that is younger goes; nor is anything kept for ever."""
    clock = FakeClock(1.7e9)
    options = {"clock": clock, "auto_compaction_mode": "periodic", "auto_compaction_retention": "1h"}
    with open_store(tmp_path, "lmdb", **options) as store:

        def minutes(count: int) -> None:
            for _ in range(count):
                clock.advance(60)
                store.put(b"k", b"v")
                store.engine.background.tend_upkeep()

        minutes(30)
        clock.advance(DAY)
        minutes(25)
        assert store.compact_revision == -1, "55 minutes have passed"
        clock.advance(-YEAR)
        minutes(70)
        assert store.revision - 75 <= store.compact_revision <= store.revision - 60


@pytest.mark.parametrize("mode", ["periodic", "revision"])
def test_compaction_goes_on_after_the_clock_was_put_right(tmp_path: Path, mode: str) -> None:
    """The store was opened in the future."""
    clock = FakeClock(4e9)
    retention = {"periodic": "10m", "revision": "10"}[mode]
    options = {"clock": clock, "auto_compaction_mode": mode, "auto_compaction_retention": retention}
    with open_store(tmp_path, "lmdb", **options) as store:
        clock.now_seconds = 1.7e9
        for _ in range(40):
            store.put(b"k", b"v")
            clock.advance(60)
            store.engine.background.tend_upkeep()
        assert store.compact_revision > 1


def test_a_retention_begins_anew_with_each_opening(tmp_path: Path) -> None:
    """What was written before is kept for the whole period after it."""
    clock = FakeClock(1.7e9)
    options = {"clock": clock, "auto_compaction_mode": "periodic", "auto_compaction_retention": "1h"}
    for _ in range(2):
        with open_store(tmp_path, "lmdb", **options) as store:
            for _ in range(55):
                clock.advance(60)
                store.put(b"k", b"v")
                store.engine.background.tend_upkeep()
            assert store.compact_revision == -1


@pytest.mark.parametrize("taken_seconds", [4e9, 1.7e9 - DAY])
def test_snapshots_by_interval_after_one_of_another_time(tmp_path: Path, taken_seconds: float) -> None:
    """One from the future counts as taken at the opening; one that is old is followed at once."""
    clock = FakeClock(taken_seconds)
    options = {"clock": clock, "snapshot_interval_seconds": 3600, "snapshot_count": 0}
    with open_store(tmp_path, "lmdb", **options) as store:
        store.put(b"k", b"v")
        store.snapshot()
        clock.advance(3599)
        store.put(b"k", b"v")
        assert not store.engine.snapshots.due()
    clock.now_seconds = 1.7e9
    with open_store(tmp_path, "lmdb", **options) as store:
        assert store.engine.snapshots.due() == (taken_seconds < 1.7e9)
        clock.advance(3600)
        assert store.engine.snapshots.due()
        store.snapshot()
        store.put(b"k", b"v")
        for jump_seconds in (DAY, -YEAR, YEAR):
            clock.advance(jump_seconds)
            assert not store.engine.snapshots.due()
        clock.advance(3600)
        assert store.engine.snapshots.due()


def test_events_of_an_expiry_come_once_however_the_clock_jumps(tmp_path: Path) -> None:
    """A lease that ran out before a jump is gone, and stays so after a restart in the past."""
    clock = FakeClock(2e9)
    with open_store(tmp_path, "lmdb", clock=clock) as store:
        watch = store.watch(prefix=b"")
        store.put(b"k", b"v", ttl=10)
        clock.advance(10)
        clock.advance(-YEAR)
        assert store.engine.leasing.expire() == 0, "nobody has looked at the clock between the two"
        clock.advance(10)
        assert store.engine.leasing.expire() == 1
        assert [event.type for event in (next(watch), next(watch))] == [EventType.PUT, EventType.DELETE]
        watch.close()
    with open_store(tmp_path, "lmdb", clock=clock) as store:
        assert store.get(b"k") is None
