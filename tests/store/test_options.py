"""Every option: that it has an effect, and that code, environment and command line mean the same by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from kvstore.tools.command import Settings

import kvstore
from kvstore import options
from kvstore.model import Alarm
from kvstore.mvcc.schema import CHANGES
from kvstore.network.endpoint import Settings as Served
from kvstore.network.remote.options import ClientOptions
from kvstore.network.tls import TLSSettings
from kvstore.options import BadOption, OpenOptions, Options
from kvstore.served import ConnectOptions, ServeOptions
from kvstore.snapshot.restore import NewStore, RestoreOptions
from kvstore.store import Store
from kvstore.testing.fake_clock import FakeClock
from kvstore.wal.inspect import scan_segment
from tests.harness.watching import TIMEOUT_SECONDS, open_store, settle

NEVER = 1e6
"""Seconds, of an interval that does not pass while a test runs."""

VALUE = b"v" * 1000


def until(condition: Callable[[], bool]) -> bool:
    """Whether background work makes it true."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def fill(store: Store, count: int, value: bytes = VALUE) -> None:
    for number in range(count):
        store.put(b"k%04d" % number, value)


def segments(path: Path) -> int:
    return len(list(path.glob("*.wal")))


def snapshots(store: Store) -> int:
    return len(store.status().snapshots)


# --- one effect of each, by name -------------------------------------------------------------------


def backend(path: Path) -> None:
    with open_store(path, "sqlite"):
        assert (path / "data" / "snap" / "db").read_bytes().startswith(b"SQLite format 3")


def wal_dir(path: Path) -> None:
    with open_store(path, "lmdb", wal_dir=path / "log") as store:
        store.put(b"k")
    assert (segments(path / "log"), segments(path / "data" / "wal")) == (1, 0)
    with pytest.raises(kvstore.Corruption, match="wal_dir"):
        open_store(path, "lmdb")


def archive_dir(path: Path) -> None:
    with open_store(path, "lmdb", archive_dir=path / "archive", wal_file_size=2000, max_wals=1) as store:
        fill(store, 10)
        settle(store)
        released = store.engine.snapshots.release()
    assert segments(path / "archive") == len(released) > 0


def read_only(path: Path) -> None:
    open_store(path, "lmdb").close()
    with open_store(path, "lmdb", read_only=True) as store, pytest.raises(kvstore.ReadOnly):
        store.put(b"k")


def refresh_interval_seconds(path: Path) -> None:
    with open_store(path, "sqlite") as store:
        with open_store(path, "sqlite", read_only=True, refresh_interval_seconds=0.01) as reader:
            store.put(b"k")
            assert until(lambda: reader.revision == 2)
        with open_store(path, "sqlite", read_only=True) as reader, pytest.raises(kvstore.Unsupported):
            reader.watch(prefix=b"")


def lock_timeout_seconds(path: Path) -> None:
    with open_store(path, "lmdb"), pytest.raises(kvstore.StoreLocked):
        open_store(path, "lmdb", lock_timeout_seconds=0.01)
    holder = open_store(path, "lmdb")
    threading.Timer(0.05, holder.close).start()
    open_store(path, "lmdb", lock_timeout_seconds=TIMEOUT_SECONDS).close()


def durability(path: Path) -> None:
    with open_store(path, "lmdb", durability="off", metrics=True) as store:
        assert syncs_of(store, lambda: fill(store, 5)) == 0
    with open_store(path, "lmdb", metrics=True) as store:
        assert syncs_of(store, lambda: fill(store, 5)) == 5


def syncs_of(store: Store, call: Callable[[], None]) -> int:
    histogram = store.engine.measured.durations["sync"]  # type: ignore[attr-defined]
    before = histogram.cumulative()[-1][1]
    call()
    return int(histogram.cumulative()[-1][1] - before)


def sync_interval_seconds(path: Path) -> None:
    lazy = {"durability": "interval", "background": True, "backend_batch_interval_seconds": NEVER}
    with open_store(path / "a", "lmdb", **lazy, sync_interval_seconds=NEVER) as store:
        store.put(b"k")
        assert store.engine.core.log is not None and store.engine.core.log.synced_index == 0
    with open_store(path / "b", "lmdb", **lazy, sync_interval_seconds=0.01) as store:
        store.put(b"k")
        log = store.engine.core.log
        assert until(lambda: log is not None and log.synced_index == 1)


def wal_file_size(path: Path) -> None:
    with open_store(path, "lmdb", wal_file_size=3000) as store:
        fill(store, 10)
    assert segments(path / "data" / "wal") > 2


def wal_buffer_size(path: Path) -> None:
    for folder, size_bytes, records in (("a", 32_000_000, 1), ("b", 2500, 3)):
        with open_store(path / folder, "lmdb", wal_buffer_size=size_bytes) as store:
            tickets = [store.engine.submit(kvstore.ops.put(b"%d" % number, VALUE)) for number in range(6)]
            store.wait(tickets[-1])
            segment = next((path / folder / "data" / "wal").glob("*.wal"))
            assert sum(found.kind == "batch" for found in scan_segment(segment)) == records


def max_wals(path: Path) -> None:
    with open_store(path, "lmdb", wal_file_size=2000, max_wals=4) as store:
        fill(store, 20)
        settle(store)
        store.engine.snapshots.release()
        assert len(store.status().wal) == 4


def snapshot_count(path: Path) -> None:
    with open_store(path, "lmdb", snapshot_count=50) as store:
        fill(store, 49, VALUE * 10)
        assert not store.engine.snapshots.due()
        store.put(b"k", VALUE)
        assert store.engine.snapshots.due()


def snapshot_interval_seconds(path: Path) -> None:
    clock = FakeClock()
    with open_store(path, "lmdb", snapshot_interval="1h", clock=clock) as store:
        store.put(b"k")
        assert not store.engine.snapshots.due()
        clock.advance(3600)
        assert store.engine.snapshots.due()


def snapshot_size(path: Path) -> None:
    with open_store(path, "lmdb", snapshot_size=5000) as store:
        fill(store, 3)
        assert not store.engine.snapshots.due()
        fill(store, 3)
        assert store.engine.snapshots.due()


def snapshot_read_back(path: Path) -> None:
    with open_store(path, "lmdb", snapshot_read_back=False) as store:
        seen: list[int] = []
        info = store.snapshot(progress=lambda done, total: seen.append(total))
        assert seen[-1] == 2 * info.backend_bytes  # copied and written; three times with reading back


def max_snapshots(path: Path) -> None:
    with open_store(path, "lmdb", max_snapshots=2) as store:
        for number in range(4):
            store.put(b"k", b"%d" % number)
            store.snapshot()
        assert snapshots(store) == 2


def backend_batch_interval_seconds(path: Path) -> None:
    with open_store(path, "lmdb", background=True, backend_batch_interval="10ms") as store:
        store.put(b"k")
        assert until(lambda: store.engine.state.applied_index == 1)


def backend_batch_limit(path: Path) -> None:
    options = {"background": True, "backend_batch_interval_seconds": NEVER, "sync_interval_seconds": NEVER}
    with open_store(path, "lmdb", **options, backend_batch_limit=5) as store:
        fill(store, 5)
        assert until(lambda: store.engine.state.applied_index >= 5)


def overlay_limit(path: Path) -> None:
    with open_store(path, "lmdb", overlay_limit=5000) as store:
        fill(store, 20)
        assert store.engine.state.applied_index > 0
        assert store.status().waiting_bytes < 8000


def auto_compaction_retention(path: Path) -> None:
    clock = FakeClock()
    with open_store(path, "lmdb", compaction_retention="1h", clock=clock) as store:
        store.put(b"k")
        clock.advance(3600)
        store.put(b"k")
        store.engine.background.tend_upkeep()
        assert store.compact_revision == 1


def auto_compaction_mode(path: Path) -> None:
    clock = FakeClock()
    options = {"auto_compaction_mode": "revision", "auto_compaction_retention": 3, "clock": clock}
    with open_store(path, "lmdb", **options) as store:
        fill(store, 9)
        clock.advance(300)
        store.engine.background.tend_upkeep()
        assert store.compact_revision == store.revision - 3


def compaction_batch_limit(path: Path) -> None:
    for folder, limit, is_one in (("a", 100_000, True), ("b", 20, False)):
        with open_store(path / folder, "lmdb", compaction_batch_limit=limit) as store:
            for number in range(200):
                store.put(b"k%d" % (number % 7), b"%d" % number)
            store.compact(store.revision - 90)  # more stays than the smaller limit, so what goes is deleted
            settle(store)
            store.engine.compaction.step()
            with store.engine.backend.read() as tx:
                assert (tx.count(CHANGES) <= 91) is is_one


def compaction_sleep_interval_seconds(path: Path) -> None:
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvstore.upkeep.compaction.time.sleep", slept.append)
        with open_store(path, "lmdb", compaction_sleep_interval="7s") as store:
            fill(store, 3)
            fill(store, 3)
            store.compact(store.revision, physical=True)
    assert 7.0 in slept


def auto_defragment_ratio(path: Path) -> None:
    for folder, ratio, happens in (("a", 0.0, False), ("b", 0.99, False), ("c", 0.3, True)):
        with open_store(
            path / folder, "lmdb", auto_defragment_ratio=ratio, auto_defragment_min=100_000
        ) as store:
            waste(store)
            assert (store.engine.defragmenter.run_if_worthwhile() is not None) is happens


def auto_defragment_min(path: Path) -> None:
    for folder, least, happens in (("a", 100_000, True), ("b", 100_000_000, False)):
        with open_store(path / folder, "lmdb", auto_defragment_min=least) as store:
            waste(store)
            assert (store.engine.defragmenter.run_if_worthwhile() is not None) is happens


def waste(store: Store) -> None:
    """Leave most of the backend's file free, but not all."""
    fill(store, 800)
    settle(store)
    store.delete(prefix=b"k00")
    store.delete(prefix=b"k01")
    store.delete(prefix=b"k02")
    store.delete(prefix=b"k03")
    store.delete(prefix=b"k04")
    store.compact(store.revision, physical=True)
    settle(store)


def quota_backend_bytes(path: Path) -> None:
    with open_store(path, "lmdb", quota_backend_bytes=1) as store, pytest.raises(kvstore.QuotaExceeded):
        store.put(b"k")


def low_disk_bytes(path: Path) -> None:
    with open_store(path, "lmdb", low_disk_bytes=1 << 60) as store, pytest.raises(kvstore.DiskFull):
        store.put(b"k")


def nospace_policy(path: Path) -> None:
    for policy, refuses in (("heals", False), ("sticky", True)):
        with open_store(path / policy, "memory", nospace_policy=policy, low_disk_bytes=0) as store:
            store.engine.raise_alarm(Alarm(1, "NOSPACE"))
            with pytest.raises(kvstore.QuotaExceeded) if refuses else nullcontext():
                store.put(b"k")


def max_txn_ops(path: Path) -> None:
    with open_store(path, "memory", max_txn_ops=1) as store, pytest.raises(kvstore.TooManyOps):
        store.txn(success=[kvstore.ops.put(b"a"), kvstore.ops.put(b"b")])


def max_request_bytes(path: Path) -> None:
    with open_store(path, "memory", max_request_bytes=1000) as store, pytest.raises(kvstore.RequestTooLarge):
        store.put(b"k", VALUE)


def lease_min_ttl_seconds(path: Path) -> None:
    with open_store(path, "memory", lease_min_ttl=60) as store:
        assert store.grant_lease(1).ttl == 60


def lease_restart_policy(path: Path) -> None:
    for policy, left in (("count_downtime", 80), ("pause", 90), ("renew", 100)):
        clock = FakeClock()
        options = {"clock": clock, "lease_restart_policy": policy}
        with open_store(path / policy, "lmdb", **options) as store:
            lease = store.grant_lease(100).id
            clock.advance(10)
            store.put(b"k")
        clock.advance(10)
        with open_store(path / policy, "lmdb", **options) as store:
            assert store.lease_time_to_live(lease).ttl == left


def watch_buffer(path: Path) -> None:
    with open_store(path, "memory", watch_buffer=2000) as store, store.watch(prefix=b"k") as events:
        hub = store.engine.hub
        assert hub is not None
        store.put(b"k")
        assert until(lambda: hub.buffered_bytes > 0)  # into an empty buffer goes whatever comes at once
        fill(store, 50)
        assert until(lambda: events.lag > 0)
        assert hub.buffered_bytes < 2000


def watch_progress_notify_interval_seconds(path: Path) -> None:
    with (
        open_store(path, "memory", watch_progress_notify_interval="50ms") as store,
        store.watch(b"quiet", progress_notify=True) as events,
    ):
        assert not events.get_response(TIMEOUT_SECONDS).events


def cluster_id(path: Path) -> None:
    with open_store(path, "lmdb", cluster_id=0xAB) as store:
        assert store.status().cluster_id == f"{0xAB:016x}"
    with pytest.raises(kvstore.WrongStore):
        open_store(path, "lmdb", cluster_id=0xAC)


def member_id(path: Path) -> None:
    with open_store(path, "lmdb", member_id=0xCD) as store:
        assert store.status().member_id == f"{0xCD:016x}"


def name(path: Path) -> None:
    with open_store(path, "lmdb", name="one") as store:
        assert store.status().name == "one"


def metrics(path: Path) -> None:
    with open_store(path, "memory", metrics=True) as store:
        store.put(b"k")
        assert store.engine.measured.puts == 1  # type: ignore[attr-defined]


def background(path: Path) -> None:
    with open_store(path, "lmdb", background=True, backend_batch_interval_seconds=0.01) as store:
        store.put(b"k")
        assert until(lambda: not store.status().waiting_bytes)


def clock(path: Path) -> None:
    now = FakeClock()
    with open_store(path, "memory", clock=now) as store:
        lease = store.grant_lease(50).id
        now.advance(20)
        assert store.lease_time_to_live(lease).ttl == 30


EFFECTS: list[Callable[[Path], None]] = [
    globals()[field.name] for field in fields(Options)
]  # a field without a function above is a KeyError here


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: effect.__name__)
def test_an_option_has_its_effect(tmp_path: Path, effect: Callable[[Path], None]) -> None:
    """What the option's description says happens with it, and not without."""
    effect(tmp_path)


# --- names, texts and defaults -----------------------------------------------------------------------

ETCDS_DEFAULTS = {
    "wal_dir": "",
    "snapshot_count": 100_000,
    "max_snapshots": 5,
    "max_wals": 5,
    "wal_file_size": 64_000_000,
    "wal_buffer_size": 32_000_000,
    "auto_compaction_mode": "periodic",
    "auto_compaction_retention": "0",
    "quota_backend_bytes": 0,
    "backend_batch_interval": 0.5,  # etcd: 0.1 (ARCHITECTURE.md, Decisions)
    "backend_batch_limit": 10_000,
    "max_txn_ops": 128,
    "max_request_bytes": 1_572_864,
    "watch_progress_notify_interval": 600.0,
}


def value_of(options: Options, name: str) -> object:
    """By etcd's name, which leaves the unit out."""
    return getattr(options, name) if hasattr(options, name) else getattr(options, name + "_seconds")


def test_defaults_are_etcds() -> None:
    """Where etcd (3.4 and 3.5) has the option, ours has its name and its default; a quota of 0 is 2 GiB."""
    options = Options.load({}, {})
    assert {name: value_of(options, name) for name in ETCDS_DEFAULTS} == ETCDS_DEFAULTS
    assert options.quota_bytes == 2 << 30


TEXTS = [
    ("wal-dir", "/fast/wal", "/fast/wal"),
    ("snapshot-count", "1000", 1000),
    ("max-wals", "7", 7),
    ("wal-file-size", "0x1000", 4096),
    ("auto-compaction-retention", "10m", "10m"),
    ("compaction-retention", "10m", "10m"),
    ("backend-batch-interval", "250ms", 0.25),
    ("backend-batch-interval-seconds", "0.25", 0.25),
    ("watch-progress-notify-interval", "1m30s", 90.0),
    ("lease-min-ttl", "5", 5),
    ("metrics", "yes", True),
    ("auto-defragment-ratio", "0.25", 0.25),
]


@pytest.mark.parametrize(("given", "text", "value"), TEXTS)
def test_code_environment_and_command_line_mean_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, text: str, value: object
) -> None:
    """The same text under the same name, in whichever of the three ways."""
    known = given.replace("-", "_")
    name = "auto_compaction_retention" if known == "compaction_retention" else known
    in_code = Options.load({known: text}, {})
    in_environment = Options.load({}, {f"KVSTORE_{known.upper()}": text})
    on_command_line = Settings(data_dir=str(tmp_path), options=[f"{given}={text}"]).load_options()
    assert [value_of(options, name) for options in (in_code, in_environment)] == [value, value]
    assert value_of(on_command_line, name) == value


def test_the_nearer_place_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line goes before the environment, as code does."""
    monkeypatch.setenv("KVSTORE_MAX_WALS", "3")
    assert Options.load({"max_wals": 2}).max_wals == 2
    assert Settings(data_dir=str(tmp_path), options=["max-wals=4"]).load_options().max_wals == 4
    assert Settings(data_dir=str(tmp_path)).load_options().max_wals == 3


@pytest.mark.parametrize(
    ("wrong", "value"),
    [
        ("max_wals", "many"),
        ("max_wals", 1.5),
        ("metrics", "perhaps"),
        ("backend_batch_interval", "10 parsecs"),
        ("backend_batch_interval", "nan"),
        ("watch_progress_notify_interval_seconds", 0),
        ("compaction_retentions", "1"),
        ("clocks", None),
    ],
)
def test_what_means_nothing_is_refused(wrong: str, value: object) -> None:
    """An unknown name, a text of the wrong kind, a value out of range."""
    with pytest.raises(BadOption):
        Options.load({wrong: value}, {})


def test_what_type_checkers_know_are_the_options() -> None:
    """``OpenOptions`` has every field, and etcd's name of those in seconds; the words of a choice are its choices."""
    known = get_type_hints(OpenOptions)
    names = {field.name for field in fields(Options)} - {"backend"}
    short = {name.removesuffix("_seconds") for name in names if name.endswith("_seconds")}
    assert set(known) == names | short | {"compaction_retention"}
    for name, choices in (
        ("durability", options.DURABILITIES),
        ("auto_compaction_mode", options.COMPACTION_MODES),
        ("lease_restart_policy", options.LEASE_POLICIES),
        ("nospace_policy", options.NOSPACE_POLICIES),
    ):
        assert get_args(known[name]) == choices


@pytest.mark.parametrize(
    ("known", "owners", "without"),
    [
        (ConnectOptions, [ClientOptions], set()),
        (
            ServeOptions,
            [Served, TLSSettings],
            {"dialect", "name", "max_request_bytes", "auto", "auto_years", "etcd_version"},
        ),
        (RestoreOptions, [NewStore], set()),
    ],
)
def test_what_type_checkers_know_of_other_calls_is_what_they_take(
    known: type, owners: list[Any], without: set[str]
) -> None:
    """Neither an option that there is not, nor one that is missing."""
    taken = {field.name for owner in owners for field in fields(owner)}
    assert set(get_type_hints(known)) ^ taken == without


def test_a_misspelt_option_is_told_what_it_may_have_been() -> None:
    """By whoever opens, and by whoever serves."""
    with pytest.raises(BadOption, match=r"unknown option 'snapshot_cuont': did you mean snapshot_count"):
        kvstore.open("data", snapshot_cuont=5)  # type: ignore[call-arg]
    with (
        kvstore.open_memory() as store,
        pytest.raises(BadOption, match="'cert_flie': did you mean cert_file"),
    ):
        kvstore.serve(store, "http://127.0.0.1:0", cert_flie="x")  # type: ignore[call-arg]
    with pytest.raises(BadOption, match=r"'zzz'$"):
        Options.load({"zzz": 1}, {})


@pytest.mark.parametrize("backend", ["sqlite", "memory", "lmdb"])
def test_a_store_is_opened_with_the_backend_that_it_has(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If none is named, by an argument or in the environment; one that is named must be the right one."""
    monkeypatch.delenv("KVSTORE_BACKEND", raising=False)
    with kvstore.open(tmp_path / "data", backend) as store:
        store.put(b"k", b"v")
    with kvstore.open(tmp_path / "data") as store:
        assert store.status().backend == backend and b"k" in store
    other = "lmdb" if backend == "sqlite" else "sqlite"
    with pytest.raises(kvstore.WrongStore, match=backend):
        kvstore.open(tmp_path / "data", other)
    monkeypatch.setenv("KVSTORE_BACKEND", other)
    with pytest.raises(kvstore.WrongStore):
        kvstore.open(tmp_path / "data")
