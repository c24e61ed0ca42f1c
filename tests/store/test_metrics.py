"""Metrics, status and health: what a store says about itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import metrics
from kvstore.engine import LocalEngine
from kvstore.mvcc.key_count import KeyCount
from kvstore.observe.measuring import Histogram, MeasuredDisk
from kvstore.testing import faults
from kvstore.testing.fake_clock import FakeClock

prometheus = pytest.importorskip("prometheus_client")


def values(text: str) -> dict[str, float]:
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"
    }


def test_whole_numbers_are_written_as_go_does(tmp_path: Path) -> None:
    """Scripts look for ``etcd_mvcc_put_total 1``; what a label says stays as it is."""
    with kvstore.open(tmp_path / "data", "memory", metrics=True) as store:
        store.put(b"k", b"v")
        lines = metrics.render(store).splitlines()
    assert "etcd_mvcc_put_total 1" in lines
    buckets = prometheus.Histogram("h", "1.0", ["a"], buckets=(1, 2.5), registry=None)
    buckets.labels("1.0").observe(1.5)
    shown = metrics.exposition(buckets).decode().splitlines()
    assert 'h_bucket{a="1.0",le="1"} 0' in shown
    assert 'h_bucket{a="1.0",le="2.5"} 1' in shown
    assert 'h_sum{a="1.0"} 1.5' in shown


@pytest.fixture(params=["lmdb", "sqlite", "memory"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_calls_and_durations_are_counted_under_etcds_names(tmp_path: Path, backend: str) -> None:
    """With metrics on, every kind of work shows in the counters and histograms."""
    with kvstore.open(tmp_path / "data", backend, metrics=True, background=False) as store:
        before = values(metrics.render(store))["etcd_disk_wal_fsync_duration_seconds_count"]
        for number in range(5):
            store.put(b"k%d" % number, b"v")
        store.get(b"k1")
        store.range(prefix=b"k")
        store.delete(b"k0")
        store.txn(success=[kvstore.ops.put(b"t", b"v")])
        store.checkpoint()
        store.snapshot()
        store.defragment()
        shown = values(metrics.render(store))
        assert shown["etcd_mvcc_put_total"] == 6
        assert shown["etcd_mvcc_range_total"] == 2
        assert shown["etcd_mvcc_delete_total"] == 1
        assert shown["etcd_disk_wal_fsync_duration_seconds_count"] == before + 7
        assert shown["etcd_wal_fsync_duration_seconds_count"] == before + 7
        assert shown["etcd_disk_backend_commit_duration_seconds_count"] == 1
        assert shown["etcd_server_snapshot_save_total_duration_seconds_count"] == 1
        assert shown["etcd_debugging_mvcc_current_revision"] == store.revision == 8
        assert shown["etcd_mvcc_db_total_size_in_bytes"] == store.status().size_bytes
        assert shown["etcd_disk_wal_write_bytes_total"] > 0
        assert shown["etcd_disk_wal_write_duration_seconds_count"] > 0
        assert shown["etcd_disk_defrag_inflight"] == 0
        store.hash_kv()
        assert values(store.metrics())["etcd_mvcc_hash_rev_duration_seconds_count"] == 1
        assert shown["kvstore_healthy"] == 1


def test_off_means_that_nothing_is_measured(tmp_path: Path) -> None:
    """Without the option the engine and the disk are the plain ones, and sizes and revisions are there all the same."""
    with kvstore.open(tmp_path / "data") as store:
        assert type(store.engine) is LocalEngine
        assert not isinstance(store.engine.disk, MeasuredDisk)
        store.put(b"k", b"v")
        shown = values(metrics.render(store))
        assert shown["etcd_debugging_mvcc_current_revision"] == 2
        assert not any(name.startswith("etcd_disk") for name in shown)


COUNTED = ("put", "delete", "range", "txn")


def test_operations_are_counted_as_etcd_counts_them(tmp_path: Path) -> None:
    """After the same requests the same numbers as a real etcd 3.4.23 (but for the reads that compares take)."""
    with kvstore.open(tmp_path / "data", "memory", metrics=True, background=False) as store:

        def counted() -> list[float]:
            shown = values(store.metrics())
            return [shown[f"etcd_mvcc_{name}_total"] for name in COUNTED]

        store.put(b"a", b"1")
        store.get(b"a")
        assert counted() == [1, 0, 1, 0]
        puts = [kvstore.ops.put(b"b", b"1"), kvstore.ops.put(b"c", b"2")]
        store.txn(success=[*puts, kvstore.ops.get(b"a"), kvstore.ops.delete(b"zzz")])
        assert counted() == [3, 1, 2, 1]
        store.txn(compare=[kvstore.version(b"a") > 0], success=[kvstore.ops.put(b"b", b"1")])
        assert counted() == [4, 1, 2, 1]
        store.delete(prefix=b"")
        assert counted() == [4, 2, 2, 1]
        lease = store.grant_lease(60).id
        store.put(b"l", b"1", lease=lease)
        store.put(b"l2", b"1", lease=lease)
        store.keep_alive(lease)
        store.revoke_lease(lease)
        assert counted() == [6, 4, 2, 2]
        shown = values(store.metrics())
        assert shown["etcd_debugging_mvcc_total_put_size_in_bytes"] == 13
        leases = [shown[f"etcd_debugging_lease_{what}_total"] for what in ("granted", "renewed", "revoked")]
        assert leases == [1, 1, 1]
        nested = kvstore.ops.txn(success=[kvstore.ops.put(b"n", b"1"), kvstore.ops.get(b"n")])
        store.txn(success=[nested])
        assert counted() == [7, 4, 3, 3]


def test_compaction_leases_and_watches_have_their_metrics(tmp_path: Path) -> None:
    """Debt and progress of a compaction, leases that ran out, watches that are behind."""
    clock = FakeClock()
    options: dict[str, Any] = {"metrics": True, "background": False, "clock": clock}
    with kvstore.open(tmp_path / "data", "memory", **options) as store:
        for number in range(20):
            store.put(b"k", b"%d" % number)
        store.checkpoint()
        store.compact(store.revision)
        store.checkpoint()
        shown = values(store.metrics())
        assert shown["kvstore_compaction_debt_revisions"] == 19
        assert shown["kvstore_compaction_swept_revision"] == 2
        assert shown["etcd_debugging_mvcc_db_compaction_last"] == 0
        store.engine.compaction.run()
        shown = values(store.metrics())
        assert shown["kvstore_compaction_debt_revisions"] == 0
        assert shown["kvstore_compaction_swept_revision"] == store.revision
        assert shown["etcd_debugging_mvcc_db_compaction_last"] == int(clock())
        assert shown["kvstore_compaction_rows_deleted_total"] > 19
        rows = shown["kvstore_compaction_rows_deleted_total"]
        assert shown["etcd_debugging_mvcc_db_compaction_keys_total"] == rows
        store.put(b"short", ttl=5)
        store.grant_lease(700)
        clock.advance(10)
        store.engine.leasing.tend()
        shown = values(store.metrics())
        assert shown["etcd_debugging_server_lease_expired_total"] == 1
        assert shown["etcd_debugging_lease_revoked_total"] == 1
        assert shown["etcd_debugging_lease_ttl_total_sum"] == 705
        assert shown['etcd_debugging_lease_ttl_total_bucket{le="8"}'] == 1
        assert shown['etcd_debugging_lease_ttl_total_bucket{le="1024"}'] == 2
        with store.watch(b"k"), store.watch(b"k", start_revision=store.revision):
            shown = values(store.metrics())
            assert shown["etcd_debugging_mvcc_watch_stream_total"] == 2
            assert shown["etcd_debugging_mvcc_watcher_total"] == 2
            assert shown["etcd_debugging_mvcc_slow_watcher_total"] == 1


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "memory"])
def test_keys_are_counted_wherever_they_are(tmp_path: Path, backend: str) -> None:
    """In memory, in the backend, written over, deleted; also where nothing else is measured."""
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        for key in (b"a", b"b", b"c"):
            store.put(key, b"1")
        store.checkpoint()
        store.put(b"a", b"2")
        store.put(b"d", b"1")
        store.delete(b"b")
        assert values(store.metrics())["etcd_debugging_mvcc_keys_total"] == 3


def test_keys_are_counted_again_once_that_was_a_hundredth_of_the_time(tmp_path: Path) -> None:
    """So a store that counts slowly is not kept busy by who asks often."""
    times = iter([0.0, 2.0, 3.0, 201.0, 202.0, 202.0, 202.0, 202.0])
    with kvstore.open_memory() as store:
        counted = KeyCount(lambda: next(times))
        state = store.engine.state
        store.put(b"a", b"1")
        assert counted.of(state) == 1  # which takes 2 s
        store.put(b"b", b"1")
        assert (counted.of(state), counted.of(state), counted.of(state)) == (1, 1, 2)
        store.put(b"c", b"1")
        assert counted.of(state) == 3  # it took no time


DASHBOARD = {
    "etcd_server_has_leader": 1,
    "etcd_mvcc_db_total_size_in_bytes": 1,
    "etcd_mvcc_db_total_size_in_use_in_bytes": 1,
    "etcd_server_quota_backend_bytes": 2 << 30,
    "etcd_debugging_mvcc_db_total_size_in_bytes": 1,
    "etcd_db_total_size_in_bytes": 1,
    "etcd_server_proposals_committed_total": 1,
    "etcd_server_proposals_applied_total": 0,
    "etcd_server_proposals_pending": 0,
    'etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}': 0,
    'etcd_disk_backend_commit_duration_seconds_bucket{le="+Inf"}': 0,
    'etcd_server_snapshot_save_total_duration_seconds_bucket{le="+Inf"}': 0,
    'etcd_wal_fsync_duration_seconds_bucket{le="+Inf"}': 0,
}
"""What the storage panels and alerts of etcd's own dashboards (contrib/mixin, and those of 3.4 and before) ask for, and
the least that a store with one put shows."""


@pytest.mark.parametrize("beside", [False, True])
def test_etcds_dashboards_find_what_they_ask_for(tmp_path: Path, beside: bool) -> None:
    """Every name is there, in the process that has the store open and in another that looks at it."""
    with kvstore.open(tmp_path / "data", metrics=True, background=False) as store:
        store.put(b"k", b"v")
        if beside:
            command = [
                sys.executable,
                "-m",
                "kvstore.tools.main",
                "metrics",
                "--data-dir",
                str(tmp_path / "data"),
            ]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        else:
            text = store.metrics()
    shown = values(text)
    assert [name for name, least in DASHBOARD.items() if shown.get(name, -1) < least] == []
    assert f'backend="lmdb",cluster_id="{store.engine.cluster_id:016x}"' in text


def test_no_quota_is_shown_as_an_infinite_one(tmp_path: Path) -> None:
    """No share of it is near, and nothing grows towards it: none of etcd's alerts fires."""
    with kvstore.open(tmp_path / "data", quota_backend_bytes=-1) as store:
        assert values(store.metrics())["etcd_server_quota_backend_bytes"] == float("inf")


def test_a_poisoned_store_has_no_leader(tmp_path: Path) -> None:
    """What refuses writes until somebody reopens it looks on etcd's dashboard like a member without a leader."""
    with kvstore.open(tmp_path / "data", background=False) as store:
        store.engine.life.poison(OSError("the disk said no"))
        shown = values(store.metrics())
        assert (shown["etcd_server_has_leader"], shown["kvstore_healthy"]) == (0, 0)
        assert "the disk said no" in store.status().failure


def test_writes_that_did_not_reach_the_disk_are_failed_proposals(tmp_path: Path) -> None:
    """What was planned when the sync failed; what is refused before it is planned is no proposal."""
    with kvstore.open(tmp_path / "data", background=False) as store:
        store.put(b"k", b"v")
        with pytest.raises(kvstore.EmptyKey):
            store.put(b"", b"v")
        assert values(store.metrics())["etcd_server_proposals_failed_total"] == 0
        with faults.failed_sync(), pytest.raises(kvstore.KVStoreError):
            store.put(b"k", b"w")
        assert values(store.metrics())["etcd_server_proposals_failed_total"] == 1


def test_histogram_counts_are_cumulative() -> None:
    """A bucket holds everything at or below its bound, the last one everything."""
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.sum_seconds == pytest.approx(7.65)


def test_status_tells_files_watches_leases_and_marks(tmp_path: Path, backend: str) -> None:
    """Each fact follows what was done to the store."""
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        store.put(b"k", b"v", lease=store.grant_lease(60).id)
        store.put(b"k", b"w")
        assert store.status().waiting_bytes > 0
        store.checkpoint()
        store.compact(3)
        store.snapshot()
        with store.watch(b"k"):
            status = store.status()
        assert status.backend == backend
        assert (status.revision, status.compact_revision) == (3, 3)
        assert (status.leases, status.watchers) == (1, 1)
        assert [file.index for file in status.snapshots] == [status.applied_index]
        assert status.wal[0].index == 1
        assert status.wal[0].size_bytes > 0
        assert status.errors == status.alarms == ()


def test_a_poisoned_store_is_unhealthy_and_says_why(tmp_path: Path) -> None:
    """Health names the first failure."""
    with kvstore.open(tmp_path / "data", background=False) as store:
        assert store.health().healthy
        store.engine.life.poison(OSError("the disk said no"))
        assert not store.health().healthy
        assert "the disk said no" in store.health().reasons[0]


def test_a_full_quota_is_unhealthy(tmp_path: Path) -> None:
    """The alarm shows in health and status."""
    options: dict[str, Any] = {"quota_backend_bytes": 1, "low_disk_bytes": 0, "background": False}
    with kvstore.open(tmp_path / "data", **options) as store:
        with pytest.raises(kvstore.QuotaExceeded):
            store.put(b"k", b"v")
        assert store.health().reasons == ("alarm NOSPACE",)
        assert store.status().alarms[0].startswith("NOSPACE")


def test_several_stores_share_a_registry(tmp_path: Path) -> None:
    """Under the values of a label; one that is closed is left out, and breaks no scrape."""
    registry = prometheus.CollectorRegistry(auto_describe=True)
    with kvstore.open(tmp_path / "jobs", metrics=True) as jobs:
        with kvstore.open(tmp_path / "cache", "sqlite", metrics=True) as cache:
            registry.register(metrics.collector(jobs=jobs, cache=cache))
            cache.put(b"k")
            told = values(prometheus.generate_latest(registry).decode())
            for name, revision, puts in (("jobs", 1, 0), ("cache", 2, 1)):
                assert told[f'etcd_debugging_mvcc_current_revision{{store="{name}"}}'] == revision
                assert told[f'etcd_mvcc_put_total{{store="{name}"}}'] == puts
                assert f'etcd_disk_wal_fsync_duration_seconds_count{{store="{name}"}}' in told
        text = prometheus.generate_latest(registry).decode()
        assert 'store="jobs"' in text and 'store="cache"' not in text
    assert 'store="' not in prometheus.generate_latest(registry).decode()
    with pytest.raises(kvstore.BadArgument, match="one store, or several by name"):
        metrics.collector(jobs, cache=cache)


def test_a_closed_store_has_no_metrics_of_its_own(tmp_path: Path) -> None:
    """Asked itself it says that it is closed, as for everything else."""
    store = kvstore.open(tmp_path / "data")
    store.close()
    with pytest.raises(kvstore.StoreClosed):
        store.metrics()
