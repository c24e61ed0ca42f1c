"""The engine of a replica: a store like any other, whose only writer is what it follows.

callers     every write is refused (``IsReplica``); reads, watches, snapshots, defragmentation as always
replicate   the one way in: requests of ``planning``, through the writer, so with log, sync, publication and watches
leases      are kept, and do not expire: the source deletes their keys
"""

from __future__ import annotations

from typing import Any

from kvstore.core import Core
from kvstore.engine import LocalEngine
from kvstore.errors import IsReplica
from kvstore.model import (
    BarrierRequest,
    GuardedRequest,
    LeaseLeasesRequest,
    LeaseTimeToLiveRequest,
    Request,
    TxnRequest,
)
from kvstore.mvcc.plan import is_read_only
from kvstore.mvcc.schema import META_RAFT_TERM, parse_u64
from kvstore.observe.measuring import MeasuredEngine, MeasuredPlanner
from kvstore.options import Options
from kvstore.replica.planning import ReplicaPlanner
from kvstore.upkeep.leasing import EXPIRY_INTERVAL_SECONDS, Leasing
from kvstore.write.admission import check
from kvstore.write.ticket import Notify, Ticket

OVERHEAD_BYTES = 256
_READS = (LeaseLeasesRequest, LeaseTimeToLiveRequest, BarrierRequest)


def replica_options(options: Options) -> Options:
    """The options, without what would make a store write by itself."""
    return options.with_(
        lease_restart_policy="count_downtime",
        auto_compaction_retention="0",
        quota_backend_bytes=-1,
        low_disk_bytes=0,
        nospace_policy="heals",
    )


class _Held(Leasing):
    """Leases whose time is the source's to count."""

    def expire(self, limit: int = 0) -> int:
        return 0

    def catch_up(self) -> None:
        """Nothing is due."""

    def tend(self) -> float:
        return EXPIRY_INTERVAL_SECONDS

    def follow_clock(self) -> None:
        """The next answer of the source sets deadlines right."""

    def clamp(self) -> None:
        """The same."""


class ReplicaEngine(LocalEngine):
    """A replica that is open. ``replicate`` is called by whoever follows the source, one thread at a time."""

    _planner_kind = ReplicaPlanner
    _leasing_kind: type[Leasing] = _Held

    def replicate(self, request: Request, cost_bytes: int = 0) -> Ticket:
        """Plan what the source has done; ``wait`` for the last of several tickets."""
        self._admit(cost_bytes and cost_bytes + OVERHEAD_BYTES)
        return self.writer.submit(request)

    def ask(self, request: Request) -> Any:
        self._check_reads(request)
        return super().ask(request)

    def submit(self, request: Request) -> Ticket:
        self._check_reads(request)
        return super().submit(request)

    def ask_soon(
        self,
        request: Request,
        notify: Notify,
        future: Any = None,
        *,
        at_once: bool = True,
        waits: bool = False,
    ) -> Ticket | None:
        self._check_reads(request)
        return super().ask_soon(request, notify, future, at_once=at_once, waits=waits)

    def _check_reads(self, request: Request) -> None:
        """Raise what refuses the request, unless it changes nothing."""
        check(request, self.options)
        self.check_readable()
        inner = request.request if isinstance(request, GuardedRequest) else request
        if not (isinstance(inner, _READS) or (isinstance(inner, TxnRequest) and is_read_only(inner))):
            raise IsReplica

    def begin_term(self) -> int:
        """The source's term, or the first: a replica counts none."""
        return parse_u64(self.carried.get(META_RAFT_TERM), 2)


class _MeasuredPlanner(ReplicaPlanner, MeasuredPlanner):
    """Plans what a replica takes over, and counts it."""


class MeasuredReplica(ReplicaEngine, MeasuredEngine):
    """One that counts its calls."""

    _planner_kind = _MeasuredPlanner


def replica_engine(core: Core) -> ReplicaEngine:
    """The engine over a core."""
    return MeasuredReplica(core) if core.options.metrics else ReplicaEngine(core)
