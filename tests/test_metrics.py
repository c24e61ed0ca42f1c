"""Metrics, status and health: what a store says about itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvstore
from kvstore import metrics
from kvstore.engine import LocalEngine
from kvstore.files import OSDisk

prometheus = pytest.importorskip("prometheus_client")


def values(text: str) -> dict[str, float]:
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"
    }


@pytest.fixture(params=["lmdb", "sqlite", "memory"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_calls_and_durations_are_counted_under_etcds_names(tmp_path: Path, backend: str) -> None:
    """With metrics on, every kind of call and every background job shows in the counters and histograms."""
    with kvstore.open(tmp_path / "data", backend, metrics=True, background=False) as store:
        before = values(metrics.render(store))["etcd_disk_wal_fsync_duration_seconds_count"]
        for number in range(5):
            store.put(b"k%d" % number, b"v")
        store.get(b"k1")
        store.range(prefix=b"k")
        store.delete(b"k0")
        store.txn(success=[kvstore.put(b"t", b"v")])
        store.checkpoint()
        store.snapshot()
        store.defragment()
        shown = values(metrics.render(store))
        assert shown["etcd_mvcc_put_total"] == 5
        assert shown["etcd_mvcc_range_total"] == 2
        assert shown["etcd_mvcc_delete_total"] == shown["etcd_mvcc_txn_total"] == 1
        assert shown["etcd_disk_wal_fsync_duration_seconds_count"] == before + 7
        assert shown["etcd_wal_fsync_duration_seconds_count"] == before + 7
        assert shown["etcd_disk_backend_commit_duration_seconds_count"] == 1
        assert shown["etcd_server_snapshot_save_total_duration_seconds_count"] == 1
        assert shown["etcd_debugging_mvcc_current_revision"] == store.revision == 8
        assert shown["etcd_mvcc_db_total_size_in_bytes"] == store.status().size_bytes
        assert shown["etcd_disk_wal_write_bytes_total"] > 0
        assert shown["kvstore_healthy"] == 1


def test_off_means_that_nothing_is_measured(tmp_path: Path) -> None:
    """Without the option the engine and the disk are the plain ones, and sizes and revisions are there all the same."""
    with kvstore.open(tmp_path / "data") as store:
        assert type(store.engine) is LocalEngine
        assert type(store.engine.disk) is OSDisk
        store.put(b"k", b"v")
        shown = values(metrics.render(store))
        assert shown["etcd_debugging_mvcc_current_revision"] == 2
        assert not any(name.startswith("etcd_disk") for name in shown)


def test_histogram_counts_are_cumulative() -> None:
    """A bucket holds everything at or below its bound, the last one everything."""
    histogram = metrics.Histogram((0.1, 1.0))
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
        store.engine.poison(OSError("the disk said no"))
        assert not store.health().healthy
        assert "the disk said no" in store.health().reasons[0]


def test_a_full_quota_is_unhealthy(tmp_path: Path) -> None:
    """The alarm shows in health and status."""
    options = {"quota_backend_bytes": 1, "low_disk_bytes": 0, "background": False}
    with kvstore.open(tmp_path / "data", **options) as store:
        with pytest.raises(kvstore.QuotaExceeded):
            store.put(b"k", b"v")
        assert store.health().reasons == ("alarm NOSPACE",)
        assert store.status().alarms[0].startswith("NOSPACE")
