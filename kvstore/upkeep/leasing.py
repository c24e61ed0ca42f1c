"""The life of leases: how they expire, and what a restart or a change of the clock does to the time they have left.

    grant ----> [ lives: keep_alive renews it for its full TTL ] ----> due ----> revoked: its keys are deleted
                                                                       |         in one revision
                                                                       from here on keep_alive answers ttl 0

A lease that is due is never renewed again, even before it has been revoked (except by an opening with ``renew``).
Expiry takes the path of any write (plan, log, publish), many leases to a sync, a few at a time, so that writers keep
their turn.

While the store is open, leases count time that cannot be set (clock.py). When the system's clock is set or corrected,
the deadlines are moved with it (``follow_clock``), so the next opening finds what each lease has left.

A restart: deadlines are times of day in the log and the backend. With the policy ``count_downtime`` they stay.
With ``pause`` each is moved by the time the store was closed (``resume``), and that is logged as a renewal of
every lease, so that the next restart starts from there. When the store was last alive is known from its last log
record and from the mark ``closed_ms``, which is written by a clean close and, while there are leases, by a heartbeat
every minute. (The memory backend keeps no mark and has only its log records, so idle time at the end does not count.)

With ``renew`` each opening gives every lease its whole TTL again, even one that is due and not revoked yet, as a
restart of etcd does; that is logged as the renewals it is.

If the clock was behind at an opening, or ahead before, no lease has more left than its TTL (``clamp``). If it is
ahead, leases end early: that looks the same as time that has passed.
"""

from __future__ import annotations

from contextlib import suppress

from kvstore.core import Core
from kvstore.errors import LeaseNotFound, SpaceError
from kvstore.model import ClampRequest, ExpireRequest, RenewAllRequest, ShiftRequest
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import META, META_CLOSED_MS, pack_u64
from kvstore.pacing import Pacer
from kvstore.write.ticket import UNPLANNED, Ticket
from kvstore.write.writer import Writer

EXPIRY_INTERVAL_SECONDS = 0.5
EXPIRED_PER_PASS = 1000
EXPIRED_PER_SYNC = 50
BEAT_MS = 60_000
DRIFT_MS = 1000


class Leasing:
    """The expiry of one store's leases."""

    def __init__(self, core: Core, writer: Writer) -> None:
        self._core = core
        self._writer = writer
        self._lessor = core.lessor
        self._last_beat_ms = core.clock.elapsed_ms()
        self.expired: int = 0
        """Leases that ran out since the store was opened."""

    # --- expiry -----------------------------------------------------------------------

    def expire(self, limit: int = EXPIRED_PER_PASS) -> int:
        """Revoke up to ``limit`` leases that are due, most overdue first. Returns how many."""
        pace = Pacer()
        ticket: Ticket | None = None
        expired = 0
        while expired < limit and self._due_in_ms() == 0:
            try:
                ticket = self._writer.submit(ExpireRequest())
                if ticket.revision == UNPLANNED:  # it goes piece by piece
                    self._writer.wait(ticket)
            except LeaseNotFound:  # revoked meanwhile
                ticket = None
                continue
            expired += 1
            self.expired += 1
            if expired % EXPIRED_PER_SYNC == 0:
                self._writer.wait(ticket)
            pace()
        if ticket is not None:
            self._writer.wait(ticket)
        return expired

    def catch_up(self) -> None:
        """Revoke all that is due, and return once no reader sees it any more."""
        if self._core.life.refuses_writes:
            return
        with suppress(SpaceError):  # background work tries again
            while self.expire() == EXPIRED_PER_PASS:
                pass
            self._writer.barrier()

    def tend(self) -> float:
        """Expire what is due. Returns the seconds until it should be called again."""
        expired = self.expire()
        self.follow_clock()
        if self._lessor.leases and self._core.clock.elapsed_ms() - self._last_beat_ms >= BEAT_MS:
            self.beat()
        if expired == EXPIRED_PER_PASS:
            return 0.0
        wait_ms = self._due_in_ms()
        if wait_ms is None:
            return EXPIRY_INTERVAL_SECONDS
        return min(max(wait_ms, 1) / 1000, EXPIRY_INTERVAL_SECONDS)

    def _due_in_ms(self) -> int | None:
        """Milliseconds until a lease is due: 0 if one is now, None if there is no lease."""
        with self._writer.still():
            due = self._lessor.next_deadline()
        return None if due is None else max(due[0] - self._core.clock.lease_ms(), 0)

    def follow_clock(self) -> None:
        """If the time of day has jumped, move all deadlines with it."""
        clock = self._core.clock
        drift_ms = clock.drift_ms
        if abs(drift_ms) < DRIFT_MS:
            return
        stay = clock.following(0)
        try:
            self._writer.ask(ShiftRequest(drift_ms, clock.following(drift_ms)))
        except BaseException:  # the disk is full: the deadlines are read again, as they were
            stay()
            raise

    # --- restarts ---------------------------------------------------------------------

    def resume(self, closed_ms: int) -> None:
        """Policy ``pause``: do not count the time since ``closed_ms``."""
        downtime_ms = self._core.clock.now_ms() - closed_ms
        if downtime_ms > 0 and self._lessor.leases:
            self._writer.ask(ShiftRequest(downtime_ms))

    def renew(self) -> None:
        """Policy ``renew``: every lease starts over with its full TTL."""
        if self._lessor.leases:
            self._writer.ask(RenewAllRequest())

    def clamp(self) -> None:
        """Cut what each lease has left to its TTL: the clock may have been ahead when the deadlines were set."""
        now_ms = self._core.clock.lease_ms()
        if not all(lease.has_at_most_its_ttl(now_ms) for lease in self._lessor.leases.values()):
            self._writer.ask(ClampRequest())

    def beat(self) -> None:
        """Note in the backend that the store is alive now."""
        core = self._core
        if core.options.lease_restart_policy != "pause" or not self._lessor.leases:
            return
        self._last_beat_ms = core.clock.elapsed_ms()
        with core.checkpointing, core.backend.write() as tx:
            tx.put_many(META, [(META_CLOSED_MS, pack_u64(core.clock.now_ms()))])


def last_alive_ms(core: Core, last_record_ms: int) -> int:
    """When the store was last known to be open; now, if that is not known."""
    with core.backend.read() as tx:
        closed_ms = Marks.read(tx).closed_ms
    return max(closed_ms, last_record_ms) or core.clock.now_ms()
