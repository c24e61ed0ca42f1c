"""kvstore.testing: what others' tests get, where they find it, and what it costs those who do not ask for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import kvstore
from kvstore.model import Compare, Op
from kvstore.testing import plugin, strategies
from kvstore.testing.fake_clock import FakeClock
from kvstore.testing.faults import disk_full, every_power_cut, failed_sync, power_cut, slow_sync

HOUR, DAY, YEAR = 3600, 86400, 366 * 86400


# --- fixtures ------------------------------------------------------------------------------------


def test_a_store_is_at_hand_and_time_passes_when_told(
    kvstore_store: kvstore.Store, kvstore_dir: Path, kvstore_clock: FakeClock
) -> None:
    """The fixtures come without an import: a store in its folder, on a clock that stands still."""
    lease = kvstore_store.grant_lease(60).id
    kvstore_store.put(b"session", b"x", lease=lease)
    assert kvstore_store.lease_time_to_live(lease).ttl == 60
    kvstore_clock.advance(45)
    assert kvstore_store.lease_time_to_live(lease).ttl == 15
    kvstore_clock.advance(15)
    assert kvstore_store.get(b"session") is None
    assert (kvstore_dir / "wal").is_dir()


def test_the_asynchronous_store_is_the_same_one(
    kvstore_async_store: kvstore.AsyncStore, kvstore_store: kvstore.Store, kvstore_clock: FakeClock
) -> None:
    """It needs no plugin for asyncio; the clock ends leases on a loop as well."""

    async def scenario() -> None:
        await kvstore_async_store.put(b"session", b"x", ttl=60)
        assert kvstore_store.get(b"session") is not None
        kvstore_clock.advance(61)
        assert await kvstore_async_store.get(b"session") is None

    asyncio.run(scenario())


def test_pytest_finds_the_fixtures_by_itself(pytestconfig: pytest.Config) -> None:
    """The distribution names the plugin, and it is the one that gave the fixtures above."""
    (point,) = {each.value for each in entry_points(group="pytest11") if each.name == "kvstore"}
    assert point == plugin.__name__
    assert pytestconfig.pluginmanager.hasplugin("kvstore")


def test_the_plugin_loads_no_store(project: Path) -> None:
    """pytest loads it at every start, whether a test asks for a store or not."""
    heavy = "('kvstore.store', 'kvstore.testing.faults', 'hypothesis', 'unittest.mock', 'lmdb', 'apsw')"
    code = f"import sys, kvstore.testing.plugin; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=project, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"


# --- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [60, HOUR, DAY, YEAR])
def test_a_lease_ends_when_the_clock_is_moved_past_it(ttl: int) -> None:
    """At once, not when background work next looks; by however much the clock is moved."""
    clock = FakeClock()
    with kvstore.open_memory(clock=clock) as store:
        watch = store.watch(b"k")
        store.put(b"k", b"v", ttl=ttl)
        clock.advance(ttl - 1)
        assert store.get(b"k") is not None
        clock.advance(1)
        assert store.get(b"k") is None
        assert [event.type.name for event in (next(watch), next(watch))] == ["PUT", "DELETE"]
        watch.close()


def test_one_clock_serves_many_stores_also_closed_ones(tmp_path: Path) -> None:
    """Each that is open follows; one that is closed or gone is left alone."""
    clock = FakeClock()
    closed = kvstore.open_memory(clock=clock)
    closed.put(b"k", b"v", ttl=10)
    closed.close()
    with kvstore.open_memory(clock=clock) as one, kvstore.open(tmp_path, clock=clock) as other:
        for store in (one, other):
            store.put(b"k", b"v", ttl=10)
        clock.advance(10)
        assert one.get(b"k") is None and other.get(b"k") is None
    clock.advance(10)


def test_many_leases_end_in_one_move() -> None:
    """More than background work takes in one turn."""
    clock = FakeClock()
    with kvstore.open_memory(clock=clock) as store:
        for number in range(1100):
            store.put(b"%d" % number, b"v", ttl=10)
        clock.advance(10)
        assert store.count(prefix=b"") == 0


def test_a_clock_that_is_set_ends_nothing() -> None:
    """``jump`` is what an administrator does to the system's clock, not time that passes."""
    clock = FakeClock()
    with kvstore.open_memory(clock=clock) as store:
        store.put(b"k", b"v", ttl=10)
        clock.jump(YEAR)
        clock.advance(9)
        assert store.get(b"k") is not None
        clock.advance(1)
        assert store.get(b"k") is None


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_full_disk_refuses_writes_while_the_block_runs(tmp_path: Path, where: str) -> None:
    """From its first line to its last: reads and deletes go on, and afterwards writes and health are back."""
    store = kvstore.open_memory() if where == "memory" else kvstore.open(tmp_path)
    with store:
        store.put(b"k", b"v")
        with disk_full():
            with pytest.raises(kvstore.DiskFull):
                store.put(b"k", b"w")
            assert store.get(b"k") is not None
            store.delete(b"k")
            assert not store.health().healthy
        store.put(b"k", b"x")
        assert store.health().healthy


def test_a_full_disk_refuses_stores_that_are_opened_in_the_block() -> None:
    """A program that opens its store by itself meets the same disk."""
    with disk_full(), kvstore.open_memory() as store, pytest.raises(kvstore.DiskFull):
        store.put(b"k", b"v")


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_failed_sync_poisons_until_the_store_is_opened_again(tmp_path: Path, backend: str) -> None:
    """What was acknowledged before is there."""
    with kvstore.open(tmp_path, backend) as store:
        store.put(b"before", b"v")
        with failed_sync(number=2):
            store.put(b"first", b"v")
            with pytest.raises(kvstore.StorePoisoned):
                store.put(b"second", b"v")
        with pytest.raises(kvstore.StorePoisoned):
            store.put(b"after", b"v")
    with kvstore.open(tmp_path, backend) as store:
        assert store.get(b"before") is not None and store.get(b"first") is not None
        store.put(b"after", b"v")


def test_the_store_of_the_fixture_can_fail_too(kvstore_store: kvstore.Store) -> None:
    """Its syncs wait for no disk, but they are made."""
    with failed_sync(), pytest.raises(kvstore.StorePoisoned):
        kvstore_store.put(b"k", b"v")


def test_a_slow_sync_takes_its_time(kvstore_store: kvstore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write waits for one, in the block and nowhere else."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with slow_sync(0.25):
        kvstore_store.put(b"k", b"v")
    kvstore_store.put(b"k", b"v")
    assert waited.count(0.25) == 1


def _writes(path: Path, acknowledge: Callable[[bytes], None], count: int = 3) -> None:
    with kvstore.open(path) as store:
        for number in range(count):
            store.put(b"%d" % number, b"v")
            acknowledge(b"%d" % number)


def test_a_power_cut_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    """The block ends where the power goes, whatever the program raises; each state that may be left can be opened."""
    acknowledged: list[bytes] = []
    with power_cut(tmp_path / "data", at=17) as power:
        _writes(tmp_path / "data", acknowledged.append)
    assert power.is_off and 0 < len(acknowledged) < 3
    for path in power.left(tmp_path):
        with kvstore.open(path) as store:
            assert all(store.get(key) is not None for key in acknowledged)


def test_errors_before_the_power_goes_are_the_programs_own(tmp_path: Path) -> None:
    """Only what follows from the cut is dropped."""
    with pytest.raises(ZeroDivisionError), power_cut(tmp_path / "data", at=0):
        _ = 1 // 0


def test_every_power_cut_of_a_program(tmp_path: Path) -> None:
    """Each of its calls is tried, up to the end."""
    calls = set()
    for crash in every_power_cut(tmp_path, partial(_writes, count=1)):
        calls.add(crash.call)
        with kvstore.open(crash.directory) as store:
            assert all(store.get(key) is not None for key in crash.acknowledged), crash
    assert len(calls) > 10


# --- strategies ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.transactions(), strategies.ranges(), strategies.operations(), strategies.leases())
def test_what_is_drawn_is_accepted(
    txn: tuple[list[Compare], list[Op], list[Op]], span: tuple[bytes, bytes], operation: Op, ttl: int
) -> None:
    """No transaction, range, operation or TTL that a store would refuse."""
    with kvstore.open_memory() as store:
        store.put(b"k1", b"v", ttl=ttl)
        store.txn(*txn)
        store.range(*span)
        store.txn(success=[operation])


# --- a store in memory ---------------------------------------------------------------------------


def test_a_store_in_memory_touches_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is opened, made, renamed or synced, from opening to closing, whatever it is asked for."""
    kvstore.open_memory().close()  # modules are loaded from files
    touched: list[str] = []

    def audit(event: str, args: tuple[object, ...]) -> None:
        if (
            _watching
            and (event == "open" or event.startswith("os."))
            and event not in ("os.listdir", "os.scandir")
        ):
            touched.append(f"{event} {args!r}")

    _watching: list[bool] = [True]
    sys.addaudithook(audit)
    clock = FakeClock()
    try:
        with kvstore.open_memory(clock=clock) as store:
            for number in range(100):
                store.put(b"%d" % number, bytes(1000), ttl=60)
            store.checkpoint()
            store.compact(store.revision, physical=True)
            store.defragment()
            clock.advance(60)
            store.status()
            store.health()
    finally:
        _watching.clear()
    assert touched == []


def test_a_store_in_memory_has_the_past_transactions_leases_and_watches() -> None:
    """All that ``open`` gives but files."""
    with kvstore.open_memory() as store:
        first = store.put(b"k", b"v").revision
        watch = store.watch(b"k", start_revision=first)
        store.txn(compare=[kvstore.version(b"k") == 1], success=[kvstore.ops.put(b"k", b"w")])
        old = store.get(b"k", revision=first)
        assert old is not None and old.value == b"v"
        assert [event.kv.value for event in (next(watch), next(watch))] == [b"v", b"w"]
        watch.close()
        store.checkpoint()
        assert [version.value for version in store.history(b"k")] == [b"v", b"w"]
        store.compact(first + 1)
        with pytest.raises(kvstore.Compacted):
            store.get(b"k", revision=first)


def test_a_store_in_memory_is_served_and_snapshot_to_a_path(tmp_path: Path) -> None:
    """What leaves memory goes where the caller says."""
    with kvstore.open_memory() as store:
        store.put(b"k", b"v")
        with (
            kvstore.serve(store, "http://127.0.0.1:0") as server,
            kvstore.connect(server.endpoints[0]) as client,
        ):
            assert client.get(b"k") == store.get(b"k")
        with pytest.raises(kvstore.Unsupported, match="give a path"):
            store.snapshot()
        with pytest.raises(kvstore.TimeUnknown):
            store.time_of(store.revision)
        store.snapshot(tmp_path / "s.snap")
    with kvstore.open_snapshot(tmp_path / "s.snap") as snapshot:
        assert snapshot.get(b"k") is not None


def test_a_store_in_memory_for_asyncio() -> None:
    """The twin."""

    async def scenario() -> None:
        async with kvstore.open_memory_async() as store:
            await store.put(b"k", b"v")
            assert await store.get(b"k") is not None

    asyncio.run(scenario())


def test_stores_in_memory_are_apart_and_gone_when_closed() -> None:
    """Nothing joins two of them, and a closed one refuses."""
    with kvstore.open_memory() as one, kvstore.open_memory() as other:
        one.put(b"k", b"v")
        assert other.get(b"k") is None
    with pytest.raises(kvstore.StoreClosed):
        one.get(b"k")


@pytest.mark.parametrize("name", ["wal_dir", "durability", "sync_interval", "snapshot_count", "read_only"])
def test_options_about_files_are_refused_in_memory(name: str) -> None:
    """An option that would do nothing says so."""
    with pytest.raises(kvstore.BadOption, match=name):
        kvstore.open_memory(**{name: "1"})  # type: ignore[arg-type]


def test_a_store_in_memory_can_be_measured() -> None:
    """Metrics count there too."""
    with kvstore.open_memory(metrics=True) as store:
        store.put(b"k", b"v")
        assert "kvstore" in store.metrics()


def test_the_environment_does_not_put_a_store_in_memory_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """``KVSTORE_BACKEND`` and the like are for stores with files."""
    monkeypatch.setitem(os.environ, "KVSTORE_BACKEND", "sqlite")
    monkeypatch.setitem(os.environ, "KVSTORE_DURABILITY", "off")
    with kvstore.open_memory() as store:
        assert store.status().backend == "memory"
