"""What the option ``metrics`` measures as it happens: calls, bytes, durations. Shown by ``metrics``.

Only then is the engine a ``MeasuredEngine`` with a ``MeasuredPlanner`` and a ``MeasuredDisk``: without the option not
one instruction is spent on it. Counting follows etcd: each operation counts, also inside a transaction, and a lease
that ends deletes its keys one by one; a transaction counts as one if it has more than one operation. (As in etcd, the
reads that compares need are not counted.)
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kvstore import layout
from kvstore.core import COMMIT, DEFRAGMENT, SNAPSHOT, Core
from kvstore.engine import LocalEngine
from kvstore.files import Disk, File, Path
from kvstore.model import (
    DeleteRangeRequest,
    ExpireRequest,
    HashKVResponse,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    Op,
    PutRequest,
    PutWithTTLRequest,
    RangeRequest,
    RangeResponse,
    Request,
    TxnRequest,
    TxnResponse,
)
from kvstore.mvcc.pages import Encode, RangePages
from kvstore.mvcc.plan import Plan, Planner
from kvstore.reads import ReadEngine, Reads

if TYPE_CHECKING:
    from kvstore.keyvalue import KeyValue

SYNC, WRITE, HASH = "sync", "write", "hash"
"""Durations that are measured in addition to those of ``engine.timed``."""

TTL_BOUNDS = tuple(2.0**step for step in range(24))
SHORT_BOUNDS = tuple(0.001 * 2**step for step in range(14))
LONG_BOUNDS = tuple(0.01 * 2**step for step in range(17))
BOUNDS = {
    SYNC: SHORT_BOUNDS,
    WRITE: SHORT_BOUNDS,
    COMMIT: SHORT_BOUNDS,
    DEFRAGMENT: LONG_BOUNDS,
    SNAPSHOT: LONG_BOUNDS,
    HASH: LONG_BOUNDS,
}


class Histogram:
    """Counts of durations (in ``ttls``, of lengths) by upper bound, as Prometheus expects them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._lock = threading.RLock()
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect_left(self._bounds, seconds)] += 1
            self.sum_seconds += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, number of durations up to it), the last bound being +Inf."""
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
        self.durations = {work: Histogram(bounds) for work, bounds in BOUNDS.items()}
        self.under_way = dict.fromkeys(BOUNDS, 0)
        self.puts = self.deletes = self.txns = 0
        """Counted under the planner's lock."""
        self.put_bytes = 0
        self.granted = self.renewed = self.revoked = 0
        self.ttls = Histogram(TTL_BOUNDS)
        """Seconds, of leases granted."""
        self.ranges = 0
        self.log_bytes = 0
        self._lock = threading.RLock()

    def count_range(self) -> None:
        with self._lock:
            self.ranges += 1

    @contextmanager
    def time(self, work: str) -> Iterator[None]:
        began = time.perf_counter()
        self.under_way[work] += 1
        try:
            yield
        finally:
            self.under_way[work] -= 1
        self.durations[work].observe(time.perf_counter() - began)


class MeasuredFile:
    """A log segment whose writes and syncs are timed."""

    def __init__(self, file: File, measured: Measured) -> None:
        self._file = file
        self._measured = measured
        self.truncate = file.truncate
        self.close = file.close

    @property
    def path(self) -> str:
        return self._file.path

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        with self._measured.time(WRITE):
            self._file.pwrite(data, offset)
        self._measured.log_bytes += len(data)

    def sync(self) -> None:
        with self._measured.time(SYNC):
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


class MeasuredPlanner(Planner):
    """A planner that counts what it decides. Its callers hold the planner's lock."""

    measured: Measured

    def decide(self, request: Request) -> Plan:
        plan = super().decide(request)
        self._count(request, plan)
        return plan

    def decide_puts(self, requests: list[PutRequest]) -> list[Plan]:
        plans = super().decide_puts(requests)
        for request, plan in zip(requests, plans, strict=False):
            self._count(request, plan)
        return plans

    def _count(self, request: Request, plan: Plan) -> None:
        measured = self.measured
        if isinstance(request, PutRequest):
            self._count_ops((request,), (plan.response,))
        elif isinstance(request, PutWithTTLRequest):
            measured.granted += 1
            measured.ttls.observe(request.ttl_seconds)
            self._count_ops((request.put,), (plan.response,))
        elif isinstance(request, DeleteRangeRequest):
            measured.deletes += 1
        elif isinstance(request, TxnRequest):
            measured.txns += self._count_txn(request, plan.response) > 1
        elif isinstance(request, LeaseGrantRequest):
            measured.granted += 1
            measured.ttls.observe(plan.response.ttl)
        elif isinstance(request, LeaseKeepAliveRequest):
            measured.renewed += plan.entry is not None
        elif isinstance(request, (LeaseRevokeRequest, ExpireRequest)):
            measured.revoked += 1
            measured.deletes += len(plan.changes)
            measured.txns += len(plan.changes) > 1

    def _count_txn(self, request: TxnRequest, response: TxnResponse) -> int:
        return self._count_ops(request.success if response.succeeded else request.failure, response.responses)

    def _count_ops(self, ops: tuple[Op, ...], responses: tuple[Any, ...]) -> int:
        """Count what was carried out. Returns the number of operations."""
        measured, count = self.measured, 0
        for op, response in zip(ops, responses, strict=True):
            if isinstance(op, TxnRequest):
                count += self._count_txn(op, response)
                continue
            count += 1
            if isinstance(op, PutRequest):
                measured.puts += 1
                measured.put_bytes += len(op.key) + len(op.value)
            elif isinstance(op, DeleteRangeRequest):
                measured.deletes += 1
            else:
                measured.count_range()
        return count


class MeasuredReads(Reads):
    """Counts the reads: a mixin for either kind of engine."""

    @property
    def measured(self) -> Measured:
        assert isinstance(self.disk, MeasuredDisk)
        return self.disk.measured

    def get(self, key: bytes) -> KeyValue | None:
        self.measured.count_range()
        return super().get(key)

    def row(self, key: bytes) -> tuple[int, bytes | None]:
        self.measured.count_range()
        return super().row(key)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        self.measured.count_range()
        return super().get_at(key, revision)

    def range(self, request: RangeRequest) -> RangeResponse:
        self.measured.count_range()
        return super().range(request)

    def page(self, request: RangeRequest) -> RangeResponse:
        self.measured.count_range()
        return super().page(request)

    def range_pages(self, request: RangeRequest, encode: Encode) -> RangePages:
        self.measured.count_range()
        return super().range_pages(request, encode)

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        with self.measured.time(HASH):
            return super().hash_kv(revision)


class MeasuredReadEngine(MeasuredReads, ReadEngine):
    """A read-only engine that counts its calls."""


class MeasuredEngine(MeasuredReads, LocalEngine):
    """An engine that counts its calls. (Its work is timed through ``Core.timed``.)"""

    _planner_kind: type[Planner] = MeasuredPlanner

    def _make_planner(self, core: Core) -> Planner:
        planner = super()._make_planner(core)
        assert isinstance(planner, MeasuredPlanner)
        planner.measured = self.measured
        return planner
