"""Leases as calls: grant, revoke, keep alive, look, and the expiry that runs in the background.

    grant ----> [ lives: keep_alive starts its time anew ] ----> due ----> revoked: its keys go in one revision
                                                                 |
                                                  from here on keep_alive answers ttl 0

A lease that is due is never renewed any more, also before it has been revoked. Expiry goes the way of any write
(plan, log, publish), many leases to a sync, a few at a time, so that writers keep their turn.

A restart: deadlines are wall-clock times in the log and the backend. With the policy ``count_downtime`` they stand.
With ``pause`` each is moved by the time the store was closed (``resume``), and that is logged as a renewal of
every lease, so that the next restart starts from there. When the store was last alive is known from its last log
record and from the mark ``closed_ms``, which a clean close and, while there are leases, a beat a minute leave (in a
backend that keeps it: the memory backend has its log records only, so what was idle at the end does not count).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kvstore.commit import Ticket
from kvstore.errors import LeaseNotFound
from kvstore.model import (
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
)
from kvstore.mvcc.checkpoint import Pacer
from kvstore.mvcc.plan import Planned
from kvstore.mvcc.schema import META, META_CLOSED_MS, pack_u64, parse_u64
from kvstore.mvcc.validate import check_number

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

GRANT_COST_BYTES = 64
EXPIRY_INTERVAL_SECONDS = 0.5
EXPIRED_PER_PASS = 1000
EXPIRED_PER_SYNC = 50
BEAT_MS = 60_000


class Leasing:
    """The lease calls of one engine."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._lessor = engine.lessor
        self._last_beat_ms = engine.now_ms()
        self.expired: int = 0
        """Leases that ran out since the store was opened."""

    # --- calls ------------------------------------------------------------------------

    def grant(self, ttl_seconds: int, lease: int) -> LeaseGrantResponse:
        check_number("ttl", ttl_seconds)
        check_number("lease", lease)
        engine = self._engine

        def plan() -> tuple[bytes, LeaseGrantResponse]:
            ident = lease or self.new_id()
            entry, ttl = engine.planner.grant(
                ident, ttl_seconds, engine.options.lease_min_ttl_seconds, engine.now_ms()
            )
            return entry, LeaseGrantResponse(engine.state.head, ident, ttl)

        response: LeaseGrantResponse = engine.planned(plan, cost_bytes=GRANT_COST_BYTES)
        return response

    def new_id(self) -> int:
        """A positive id that no lease has. Call it under the planner's lock."""
        while True:
            ident = random.getrandbits(63)
            if ident and ident not in self._lessor.leases:
                return ident

    def revoke(self, lease: int) -> LeaseRevokeResponse:
        check_number("lease", lease)

        def plan() -> tuple[bytes, LeaseRevokeResponse]:
            entry, revision = self._engine.planner.revoke(lease)
            return entry, LeaseRevokeResponse(revision)

        response: LeaseRevokeResponse = self._engine.planned(plan)
        return response

    def keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        check_number("lease", lease)
        engine = self._engine

        def plan() -> tuple[bytes, LeaseKeepAliveResponse]:
            revision = engine.state.published
            entry, ttl = engine.planner.renew(lease, engine.now_ms())
            return entry, LeaseKeepAliveResponse(revision, lease, ttl)

        try:
            response: LeaseKeepAliveResponse = engine.planned(plan)
        except LeaseNotFound:
            return LeaseKeepAliveResponse(engine.state.published, lease, 0)
        return response

    def time_to_live(self, lease: int, keys: bool) -> LeaseTimeToLiveResponse:
        check_number("lease", lease)
        engine = self._engine
        engine.check_readable()
        engine.barrier()
        with engine.planning:
            found = self._lessor.leases.get(lease)
            if found is None:
                return LeaseTimeToLiveResponse(engine.state.published, lease, -1, 0, ())
            left = int((found.deadline_ms - engine.now_ms()) / 1000)
            attached = tuple(sorted(found.keys)) if keys else ()
            return LeaseTimeToLiveResponse(engine.state.published, lease, left, found.ttl_seconds, attached)

    def leases(self) -> LeaseLeasesResponse:
        engine = self._engine
        engine.check_readable()
        engine.barrier()
        with engine.planning:
            revision, leases = engine.state.published, list(self._lessor.leases.values())
        leases.sort(key=lambda lease: lease.deadline_ms)
        return LeaseLeasesResponse(revision, tuple([lease.id for lease in leases]))

    # --- expiry -----------------------------------------------------------------------

    def expire(self, limit: int = EXPIRED_PER_PASS) -> int:
        """Revoke up to ``limit`` leases that are due, most overdue first; how many."""
        engine = self._engine
        pace = Pacer()
        ticket: Ticket | None = None
        expired = 0
        while expired < limit and self._due_in_ms() == 0:
            try:
                ticket = engine.submit(self._plan_expiry)
            except LeaseNotFound:  # revoked meanwhile
                continue
            expired += 1
            self.expired += 1
            if expired % EXPIRED_PER_SYNC == 0:
                engine.wait(ticket)
            pace()
        if ticket is not None:
            engine.wait(ticket)
        return expired

    def _plan_expiry(self) -> Planned:
        due = self._lessor.next_deadline()
        if due is None or due[0] > self._engine.now_ms():
            raise LeaseNotFound
        entry, revision = self._engine.planner.revoke(due[1])
        return Planned(entry, LeaseRevokeResponse(revision))

    def tend(self) -> float:
        """Expire what is due; seconds until it should be called again."""
        now_ms = self._engine.now_ms()
        if self._lessor.leases and now_ms - self._last_beat_ms >= BEAT_MS:
            self.beat()
        if self.expire() == EXPIRED_PER_PASS:
            return 0.0
        wait_ms = self._due_in_ms()
        if wait_ms is None:
            return EXPIRY_INTERVAL_SECONDS
        return min(max(wait_ms, 1) / 1000, EXPIRY_INTERVAL_SECONDS)

    def _due_in_ms(self) -> int | None:
        """How long until a lease is due: 0 if one is, None if there is none."""
        with self._engine.planning:
            due = self._lessor.next_deadline()
        return None if due is None else max(due[0] - self._engine.now_ms(), 0)

    # --- restarts ---------------------------------------------------------------------

    def resume(self, closed_ms: int) -> None:
        """Policy ``pause``: the time since ``closed_ms`` did not count."""
        engine = self._engine
        downtime_ms = engine.now_ms() - closed_ms
        if downtime_ms > 0 and self._lessor.leases:
            engine.planned(lambda: (engine.planner.shift(downtime_ms), None))

    def beat(self) -> None:
        """Note in the backend that the store is alive now."""
        engine = self._engine
        if engine.options.lease_restart_policy != "pause" or not self._lessor.leases:
            return
        self._last_beat_ms = engine.now_ms()
        with engine.checkpointing, engine.backend.write() as tx:
            tx.put_many(META, [(META_CLOSED_MS, pack_u64(self._last_beat_ms))])


def last_alive_ms(engine: LocalEngine, last_record_ms: int) -> int:
    """When the store was last known to be open; now, if nothing tells."""
    with engine.backend.read() as tx:
        closed_ms = parse_u64(tx.get(META, META_CLOSED_MS))
    return max(closed_ms, last_record_ms) or engine.now_ms()
