"""Metrics for Prometheus, under etcd's names where the meaning is etcd's, so that its dashboards and alerts work.

    store = kvstore.open("data", metrics=True)
    print(store.metrics())                                # the text format, without a server
    registry.register(kvstore.metrics.collector(store))   # or into a registry of your own
    registry.register(kvstore.metrics.collector(jobs=a, cache=b))     # several stores, each with its label ``store``

A store that is closed is left out from then on. Numbers that the store has anyway (sizes, revisions, counts) are read
when asked for. Calls and durations have to be measured as they happen (observe/measuring.py): they are there only with
the option ``metrics``, and count from the opening of the store. Needs the package prometheus-client.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from kvstore.core import COMMIT, DEFRAGMENT, SNAPSHOT, BackupStatus, ReplicaStatus
from kvstore.engine import LocalEngine
from kvstore.errors import BadArgument, ForkedStore, MissingDependency, StoreClosed
from kvstore.observe.measuring import HASH, SYNC, WRITE, Histogram, Measured, MeasuredReads
from kvstore.observe.status import Status
from kvstore.reads import Reads

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector


# --- what there is: name -> (help, source) -----------------------------------------------

GAUGES: dict[str, tuple[str, Callable[[Status], float]]] = {
    "etcd_mvcc_db_total_size_in_bytes": ("Size of the backend's files.", lambda s: s.size_bytes),
    "etcd_debugging_mvcc_db_total_size_in_bytes": ("Size of the backend's files.", lambda s: s.size_bytes),
    "etcd_db_total_size_in_bytes": ("Size of the backend's files.", lambda s: s.size_bytes),
    "etcd_mvcc_db_total_size_in_use_in_bytes": ("Live part of the backend.", lambda s: s.in_use_bytes),
    "etcd_server_quota_backend_bytes": (
        "Quota on live bytes; +Inf: none (etcd says -1, and its alert on growth then always fires).",
        lambda s: s.quota_bytes or math.inf,
    ),
    "etcd_server_has_leader": ("1: not refusing writes until it is reopened.", lambda s: not s.failure),
    "etcd_server_proposals_committed_total": ("Log entries.", lambda s: s.last_index),
    "etcd_server_proposals_applied_total": ("Log entries in the backend.", lambda s: s.applied_index),
    "etcd_server_proposals_pending": ("Writes that are not durable yet.", lambda s: s.pending),
    "etcd_debugging_mvcc_current_revision": ("Newest durable revision.", lambda s: s.revision),
    "etcd_debugging_mvcc_compact_revision": ("Oldest readable revision.", lambda s: s.compact_revision),
    "etcd_debugging_mvcc_watch_stream_total": ("Streams of watches.", lambda s: s.watch_streams),
    "etcd_debugging_mvcc_watcher_total": ("Watches.", lambda s: s.watchers),
    "etcd_debugging_mvcc_slow_watcher_total": ("Watches that read the past.", lambda s: s.slow_watchers),
    "etcd_debugging_server_alarms": ("Alarms that are raised.", lambda s: len(s.alarms)),
    "kvstore_leases": ("Leases.", lambda s: s.leases),
    "kvstore_readers": ("Other processes that have the backend open.", lambda s: len(s.readers)),
    "kvstore_reader_commits_behind": (
        "How far behind the slowest of them reads; what it may see is not reused.",
        lambda s: max((reader.commits_behind for reader in s.readers), default=0),
    ),
    "kvstore_waiting_bytes": ("Changes in memory before their checkpoint.", lambda s: s.waiting_bytes),
    "kvstore_compaction_debt_revisions": ("Revisions still to be swept.", lambda s: s.compaction_debt),
    "kvstore_compaction_swept_revision": (
        "Revision below which nothing is left to sweep.",
        lambda s: s.compact_revision - s.compaction_debt,
    ),
    "kvstore_wal_files": ("Log segments.", lambda s: len(s.wal)),
    "kvstore_wal_size_in_bytes": ("Size of the log.", lambda s: sum(file.size_bytes for file in s.wal)),
    "kvstore_snapshot_files": ("Snapshots in the data directory.", lambda s: len(s.snapshots)),
    "kvstore_healthy": (
        "1: writes are accepted and background work succeeds.",
        lambda s: not s.alarms and not s.errors,
    ),
}
BACKUPS: dict[str, tuple[str, Callable[[BackupStatus], float]]] = {
    "kvstore_backup_lag_seconds": (
        "What was durable that long ago is in the backup.",
        lambda b: b.lag_seconds,
    ),
    "kvstore_backup_last_success_timestamp_seconds": (
        "When the backup was complete last; 0: never.",
        lambda b: b.complete_at_ms / 1000,
    ),
    "kvstore_backup_revision": ("Newest revision in the backup.", lambda b: b.revision),
    "kvstore_backup_held_bytes": ("Released log kept until the backup has it.", lambda b: b.held_bytes),
    "kvstore_backup_failing": ("1: the last step failed.", lambda b: bool(b.error)),
    "kvstore_backup_last_verified_timestamp_seconds": (
        "When the backup was restored and checked last; 0: never.",
        lambda b: b.verified_at_ms / 1000,
    ),
    "kvstore_backup_damaged": ("1: that found damage.", lambda b: bool(b.damage)),
}
"""Only with a backup that goes on in this process; of several, the one that lags most."""
REPLICA: dict[str, tuple[str, Callable[[ReplicaStatus], float]]] = {
    "kvstore_replica_lag_seconds": ("What the source had that long ago is here.", lambda r: r.lag_seconds),
    "kvstore_replica_last_complete_timestamp_seconds": (
        "When everything that the source had was here last; 0: not known yet.",
        lambda r: r.complete_at_ms / 1000,
    ),
    "kvstore_replica_revision": ("Newest revision here.", lambda r: r.revision),
    "kvstore_replica_source_revision": (
        "Newest revision that the source was seen to have.",
        lambda r: r.source_revision,
    ),
    "kvstore_replica_failing": ("1: the last step failed.", lambda r: bool(r.error)),
}
"""Only of a replica."""
NOW: dict[str, tuple[str, Callable[[Reads], float]]] = {
    "etcd_debugging_mvcc_keys_total": (
        "Keys; counted again once counting took a hundredth of the time.",
        lambda e: e.key_count(),
    ),
    "etcd_debugging_mvcc_pending_events_total": (
        "Events that wait for who watches.",
        lambda e: e.hub.pending_events if e.hub is not None else 0,
    ),
}
"""Gauges that are counted when asked for."""
LATEST: dict[str, tuple[str, Callable[[LocalEngine], float]]] = {
    "etcd_debugging_mvcc_db_compaction_last": (
        "Unix time when a compaction was through last; 0: none since the store was opened.",
        lambda e: e.compaction.last_ms // 1000,
    ),
}
"""Gauges of what is kept anyway, since the store was opened."""
DONE: dict[str, tuple[str, Callable[[LocalEngine], float]]] = {
    "etcd_server_proposals_failed": (
        "Writes that were planned and did not reach the disk.",
        lambda e: e.writer.failed,
    ),
    "etcd_debugging_server_lease_expired": ("Leases that ran out.", lambda e: e.leasing.expired),
    "etcd_debugging_mvcc_db_compaction_keys": (
        "Rows that compaction deleted.",
        lambda e: e.compaction.rows_deleted,
    ),
    "kvstore_compaction_rows_deleted": ("Rows that compaction deleted.", lambda e: e.compaction.rows_deleted),
    "kvstore_defragmentations": ("Defragmentations.", lambda e: e.defragmenter.count),
}
"""Counters that are kept anyway, since the store was opened. Prometheus adds ``_total``."""
COUNTERS: dict[str, tuple[str, Callable[[Measured], float]]] = {
    "etcd_mvcc_put": ("Puts.", lambda m: m.puts),
    "etcd_mvcc_delete": ("Deletes of a key or a range.", lambda m: m.deletes),
    "etcd_mvcc_range": ("Reads of a key or a range.", lambda m: m.ranges),
    "etcd_mvcc_txn": ("Transactions of more than one operation.", lambda m: m.txns),
    "etcd_debugging_mvcc_put": ("Puts, under etcd's former name.", lambda m: m.puts),
    "etcd_debugging_mvcc_delete": ("Deletes, under etcd's former name.", lambda m: m.deletes),
    "etcd_debugging_mvcc_range": ("Reads, under etcd's former name.", lambda m: m.ranges),
    "etcd_debugging_mvcc_txn": ("Transactions, under etcd's former name.", lambda m: m.txns),
    "etcd_debugging_lease_granted": ("Leases granted.", lambda m: m.granted),
    "etcd_debugging_lease_renewed": ("Leases kept alive.", lambda m: m.renewed),
    "etcd_debugging_lease_revoked": ("Leases that ended.", lambda m: m.revoked),
}
"""Counters that have to be measured. Prometheus adds ``_total``."""
TOTALS: dict[str, tuple[str, Callable[[Measured], float]]] = {
    "etcd_disk_wal_write_bytes_total": ("Bytes written to the log.", lambda m: m.log_bytes),
    "etcd_debugging_mvcc_total_put_size_in_bytes": ("Keys and values put.", lambda m: m.put_bytes),
    "etcd_disk_defrag_inflight": ("1: a defragmentation is under way.", lambda m: m.under_way[DEFRAGMENT]),
}
"""etcd's gauges that have to be measured."""
HISTOGRAMS = {
    "etcd_disk_wal_fsync_duration_seconds": ("Syncs of the log.", SYNC),
    "etcd_wal_fsync_duration_seconds": ("Syncs of the log.", SYNC),
    "etcd_disk_wal_write_duration_seconds": ("Writes to the log.", WRITE),
    "etcd_disk_backend_commit_duration_seconds": ("Checkpoints into the backend.", COMMIT),
    "etcd_disk_backend_defrag_duration_seconds": ("Defragmentations.", DEFRAGMENT),
    "etcd_disk_backend_snapshot_duration_seconds": ("Snapshots, verified.", SNAPSHOT),
    "etcd_debugging_snap_save_total_duration_seconds": ("Snapshots, verified.", SNAPSHOT),
    "etcd_server_snapshot_save_total_duration_seconds": ("Snapshots, verified.", SNAPSHOT),
    "etcd_mvcc_hash_rev_duration_seconds": ("HashKV.", HASH),
}

# --- exposition ------------------------------------------------------------------------


class Reporting(Protocol):
    """An engine, as far as it is needed here."""

    def status(self) -> Status: ...


class StoreCollector:
    """A Prometheus collector of one store, or of several under the values of a label ``store``.

    Registries want each metric from one place, so stores that share a registry share a collector.
    """

    def __init__(self, engine: Reporting | None = None, **engines: Reporting) -> None:
        self._labels = [] if engine is not None else ["store"]
        self._engines = dict(engines)
        if engine is not None:
            self._engines[""] = engine

    def collect(self) -> Iterable[Metric]:
        families = _Families(self._labels)
        for name, engine in self._engines.items():
            try:
                status = engine.status()
                now = _counted(engine)
            except (StoreClosed, ForkedStore):
                continue
            families.of = [name] if self._labels else []
            _facts(families, status)
            for metric, number in now.items():
                families.gauge(metric, NOW[metric][0], number)
            if isinstance(engine, LocalEngine):
                for metric, (text, value) in DONE.items():
                    families.counter(metric, text, value(engine))
                for metric, (text, value) in LATEST.items():
                    families.gauge(metric, text, value(engine))
            if isinstance(engine, MeasuredReads):
                _measurements(families, engine.measured)
        return families.made.values()


class _Families:
    """Metrics by name; each has a sample from every store that has one."""

    def __init__(self, labels: list[str]) -> None:
        self.made: dict[str, Any] = {}
        self.of: list[str] = []
        """The values of the labels for what comes next."""
        self._labels = labels

    def _family(self, kind: str, name: str, text: str) -> Any:
        from prometheus_client import metrics_core

        if name not in self.made:
            self.made[name] = getattr(metrics_core, kind)(name, text, labels=self._labels)
        return self.made[name]

    def info(self, name: str, text: str, value: dict[str, str]) -> None:
        self._family("InfoMetricFamily", name, text).add_metric(self.of, value)

    def gauge(self, name: str, text: str, value: float) -> None:
        self._family("GaugeMetricFamily", name, text).add_metric(self.of, value)

    def counter(self, name: str, text: str, value: float) -> None:
        self._family("CounterMetricFamily", name, text).add_metric(self.of, value)

    def histogram(self, name: str, text: str, durations: Histogram) -> None:
        family = self._family("HistogramMetricFamily", name, text)
        family.add_metric(self.of, durations.cumulative(), durations.sum_seconds)


def _facts(families: _Families, status: Status) -> None:
    names = ("version", "backend", "cluster_id", "member_id", "name")
    families.info("kvstore", "What is open.", {label: str(getattr(status, label)) for label in names})
    for name, (text, value) in GAUGES.items():
        families.gauge(name, text, value(status))
    for name, (text, of) in BACKUPS.items():
        if status.backups:
            families.gauge(name, text, of(max(status.backups, key=lambda backup: backup.lag_seconds)))
    for name, (text, look) in REPLICA.items():
        if status.replica is not None:
            families.gauge(name, text, look(status.replica))


def _counted(engine: Reporting) -> dict[str, float]:
    return {name: count(engine) for name, (_text, count) in NOW.items()} if isinstance(engine, Reads) else {}


def _measurements(families: _Families, measured: Measured) -> None:
    for name, (text, value) in COUNTERS.items():
        families.counter(name, text, value(measured))
    for name, (text, value) in TOTALS.items():
        families.gauge(name, text, value(measured))
    for name, (text, work) in HISTOGRAMS.items():
        families.histogram(name, text, measured.durations[work])
    families.histogram("etcd_debugging_lease_ttl_total", "TTLs of the leases granted.", measured.ttls)


class Opened(Protocol):
    """A ``Store``, or an ``AsyncStore``."""

    @property
    def engine(self) -> Reads: ...


def collector(store: Opened | None = None, /, **stores: Opened) -> Collector:
    """A collector to register with a Prometheus registry: of one store, or of several by name (label ``store``)."""
    _require()
    for each in (*([] if store is None else [store]), *stores.values()):
        if not hasattr(each, "engine"):
            raise TypeError(f"collector takes open stores, not {each!r:.80}")
    if store is not None:
        if stores:
            raise BadArgument("collector takes one store, or several by name: collector(jobs=a, cache=b)")
        return StoreCollector(store.engine)
    return StoreCollector(**{name: each.engine for name, each in stores.items()})


def render(store: Opened) -> str:
    """All metrics of a store in Prometheus' text format."""
    store.engine.check_readable()
    return exposition(StoreCollector(store.engine)).decode()


_FLOAT_OF_INTEGER = re.compile(rb'(?m)(?:(?<= )(?=\d+\.0$)|(?<=le=")(?=\d+\.0"))(\d+)\.0')
"""Values and buckets that the client for Python writes as 1.0, and that for Go, as scripts know it from etcd, as 1."""


def exposition(*collectors: Collector) -> bytes:
    """What collectors say, in Prometheus' text format."""
    _require()
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)
    return _FLOAT_OF_INTEGER.sub(rb"\1", generate_latest(registry))


def _require() -> None:
    try:
        import prometheus_client  # noqa: F401  # only to see whether it is there
    except ModuleNotFoundError:
        raise MissingDependency(
            "metrics need one more package: pip install 'kvstore-mvcc[metrics]'"
        ) from None
