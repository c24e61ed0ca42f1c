"""Metrics for Prometheus, under etcd's names where the meaning is etcd's, so that its dashboards work.

    store = kvstore.open("data", metrics=True)
    print(kvstore.metrics.render(store))                  # the text format, without a server
    registry.register(kvstore.metrics.collector(store))   # or into a registry of your own

Numbers that the store has anyway (sizes, revisions, counts) are read when asked for. Durations and call counts
have to be measured as they happen: only with the option ``metrics`` is the engine a ``MeasuredEngine`` and its
disk a ``MeasuredDisk``; without it not one instruction is spent on them. Needs the package prometheus-client.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from kvstore import layout
from kvstore.engine import LocalEngine, Prepared
from kvstore.errors import MissingDependency
from kvstore.files import Disk, File, Path
from kvstore.maintenance import COMMIT, DEFRAGMENT, SNAPSHOT
from kvstore.model import DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, TxnRequest
from kvstore.status import Status, status_of

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    from kvstore.keyvalue import KeyValue
    from kvstore.store import Store

_SYNC_BOUNDS = tuple(0.001 * 2**step for step in range(14))
_LONG_BOUNDS = tuple(0.01 * 2**step for step in range(17))
_HISTOGRAMS = {
    "etcd_disk_wal_fsync_duration_seconds": ("Syncs of the log.", _SYNC_BOUNDS),
    "etcd_disk_backend_commit_duration_seconds": ("Checkpoints into the backend.", _SYNC_BOUNDS),
    "etcd_disk_backend_defrag_duration_seconds": ("Defragmentations.", _LONG_BOUNDS),
    "etcd_disk_backend_snapshot_duration_seconds": ("Snapshots, verified.", _LONG_BOUNDS),
}
_TIMED = {
    COMMIT: "etcd_disk_backend_commit_duration_seconds",
    DEFRAGMENT: "etcd_disk_backend_defrag_duration_seconds",
    SNAPSHOT: "etcd_disk_backend_snapshot_duration_seconds",
}
_ALIASES = {
    "etcd_disk_wal_fsync_duration_seconds": "etcd_wal_fsync_duration_seconds",
    "etcd_disk_backend_snapshot_duration_seconds": "etcd_server_snapshot_save_total_duration_seconds",
}
_COUNTERS = {
    "etcd_mvcc_put": "Puts.",
    "etcd_mvcc_delete": "Delete ranges.",
    "etcd_mvcc_range": "Reads of a key or a range.",
    "etcd_mvcc_txn": "Transactions.",
}


class Histogram:
    """Counts of durations by upper bound, as Prometheus wants them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._lock = threading.Lock()
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect_left(self._bounds, seconds)] += 1
            self.sum_seconds += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, how many were at most that), the last being +Inf."""
        with self._lock:
            counts = list(self._counts)
        total, rows = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


class Measured:
    """What was measured since the store was opened."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in _HISTOGRAMS.items()}
        self.counts = dict.fromkeys(_COUNTERS, 0)
        self.log_bytes = 0
        self._lock = threading.Lock()

    def count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.histograms[name].observe(time.perf_counter() - began)


class MeasuredFile:
    """A log segment whose syncs are timed."""

    def __init__(self, file: File, measured: Measured) -> None:
        self._file = file
        self._measured = measured
        self.truncate = file.truncate
        self.close = file.close

    @property
    def path(self) -> str:
        return self._file.path

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._file.pwrite(data, offset)
        self._measured.log_bytes += len(data)

    def sync(self) -> None:
        with self._measured.time("etcd_disk_wal_fsync_duration_seconds"):
            self._file.sync()


class MeasuredDisk:
    """A disk that measures what the log does on it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.measured = Measured()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def create(self, path: Path, *, direct: bool = False) -> File:
        return self._watched(self._disk.create(path, direct=direct))

    def open(self, path: Path) -> File:
        return self._watched(self._disk.open(path))

    def _watched(self, file: File) -> File:
        return MeasuredFile(file, self.measured) if file.path.endswith(layout.SEGMENT_SUFFIX) else file


class MeasuredEngine(LocalEngine):
    """An engine that counts its calls and times its background work."""

    @property
    def measured(self) -> Measured:
        assert isinstance(self.disk, MeasuredDisk)
        return self.disk.measured

    def get(self, key: bytes) -> KeyValue | None:
        self.measured.count("etcd_mvcc_range")
        return super().get(key)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        self.measured.count("etcd_mvcc_range")
        return super().get_at(key, revision)

    def range(self, request: RangeRequest) -> RangeResponse:
        self.measured.count("etcd_mvcc_range")
        return super().range(request)

    def prepare_put(self, request: PutRequest, ttl_seconds: int) -> Prepared:
        self.measured.count("etcd_mvcc_put")
        return super().prepare_put(request, ttl_seconds)

    def prepare_delete(self, request: DeleteRangeRequest) -> Prepared:
        self.measured.count("etcd_mvcc_delete")
        return super().prepare_delete(request)

    def prepare_txn(self, request: TxnRequest) -> Prepared:
        self.measured.count("etcd_mvcc_txn")
        return super().prepare_txn(request)

    def timed(self, work: str) -> AbstractContextManager[None]:
        return self.measured.time(_TIMED[work])


# --- exposition ------------------------------------------------------------------------

_GAUGES: dict[str, tuple[str, Any]] = {
    "etcd_mvcc_db_total_size_in_bytes": ("Size of the backend's files.", lambda s: s.size_bytes),
    "etcd_db_total_size_in_bytes": ("Size of the backend's files.", lambda s: s.size_bytes),
    "etcd_mvcc_db_total_size_in_use_in_bytes": ("Live part of the backend.", lambda s: s.in_use_bytes),
    "etcd_server_quota_backend_bytes": ("Quota on live bytes; 0: none.", lambda s: s.quota_bytes),
    "etcd_debugging_mvcc_current_revision": ("Newest durable revision.", lambda s: s.revision),
    "etcd_debugging_mvcc_compact_revision": ("Oldest readable revision.", lambda s: s.compact_revision),
    "etcd_debugging_mvcc_watcher_total": ("Watches.", lambda s: s.watchers),
    "etcd_debugging_server_alarms": ("Alarms that are raised.", lambda s: len(s.alarms)),
    "etcd_server_proposals_applied_total": ("Log entries in the backend.", lambda s: s.applied_index),
    "etcd_server_proposals_committed_total": ("Log entries.", lambda s: s.last_index),
    "kvstore_leases": ("Leases.", lambda s: s.leases),
    "kvstore_waiting_bytes": ("Changes in memory before their checkpoint.", lambda s: s.waiting_bytes),
    "kvstore_compaction_debt_revisions": (
        "Revisions a compaction has still to sweep.",
        lambda s: s.compaction_debt,
    ),
    "kvstore_wal_files": ("Log segments.", lambda s: len(s.wal)),
    "kvstore_wal_size_in_bytes": ("Size of the log.", lambda s: sum(file.size_bytes for file in s.wal)),
    "kvstore_snapshot_files": ("Snapshots in the data directory.", lambda s: len(s.snapshots)),
    "kvstore_healthy": ("1: writes are accepted.", lambda s: int(not s.alarms and not s.errors)),
}


class StoreCollector:
    """A Prometheus collector of one store."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        yield from _gauges(status_of(self._engine))
        if isinstance(self._engine, MeasuredEngine):
            yield from _measurements(self._engine.measured)


def _gauges(status: Status) -> Iterable[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    for name, (text, value) in _GAUGES.items():
        yield GaugeMetricFamily(name, text, value=value(status))


def _measurements(measured: Measured) -> Iterable[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(name, text, value=measured.counts[name])
    yield GaugeMetricFamily(
        "etcd_disk_wal_write_bytes_total", "Bytes written to the log.", measured.log_bytes
    )
    for name, (text, _) in _HISTOGRAMS.items():
        histogram = measured.histograms[name]
        for shown in (name, *([_ALIASES[name]] if name in _ALIASES else [])):
            yield HistogramMetricFamily(
                shown, text, buckets=histogram.cumulative(), sum_value=histogram.sum_seconds
            )


def collector(store: Store) -> Collector:
    """A collector to register with a Prometheus registry."""
    _require()
    return StoreCollector(store.engine)


def render(store: Store) -> str:
    """All metrics of a store in Prometheus' text format."""
    _require()
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(collector(store))
    return generate_latest(registry).decode()


def _require() -> None:
    try:
        import prometheus_client  # noqa: F401  # only to see whether it is there
    except ModuleNotFoundError:
        raise MissingDependency(
            "metrics need one more package: pip install 'kvstore-mvcc[metrics]'"
        ) from None
