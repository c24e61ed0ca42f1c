"""Room: the quota, the low-disk mark, and the alarm that shows that one of them refuses writes.

    used   = live bytes of the backend (free pages do not count) + bytes of changes waiting in memory
    a write of cost c is accepted if   used + c < quota   and   free bytes of the disk >= low-disk mark

``admission.py`` says what a write costs. What costs nothing (reads, deletes, compaction, revoking a lease) is never
refused here. The low-disk mark keeps room for its log records; if the disk is full all the same, there is the log's
reserve (wal/writer.py), which a write that costs something may not touch. The decision comes before the write is
planned, so a refused write leaves no trace.

Nothing is dropped to make room unless the options say so: the past stays readable until it is compacted, and a store
that forgot some of it by itself would break that. So there is a warning (``NearlyFull``, also logged) at ``WARN_SHARE``
of the quota, which names the remedy, as the refusal does.

``NOSPACE`` is raised with the first refusal and clears itself once there is room again; it shows the state and does
not cause it. (With the option ``nospace_policy`` "sticky" it does: it stays until it is cleared, and until then the
planner refuses what puts or grants.) The backend is asked for its live bytes in the background and after each
checkpoint; what was written since is added to that. A write compares one number, ``unchecked_bytes``, and looks
further only beyond it.

While the disk is short of room, log segments that are not needed are released at once, whatever ``max_wals`` says.

If the log is full in spite of all this, the store stalls (write/writer.py): writes are refused with ``DiskFull``,
whatever was planned but not logged is dropped by reading the state again from backend and log, and then writes go on.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress

from kvstore import files
from kvstore.core import Core
from kvstore.errors import DiskFull, NearlyFull, QuotaExceeded, SpaceError
from kvstore.held import check_held
from kvstore.model import NOSPACE, Alarm, AlarmRequest
from kvstore.observe.status import alarms_of
from kvstore.replay import reload
from kvstore.write.writer import Writer

logger = logging.getLogger("kvstore")

POLL_INTERVAL_SECONDS = 1.0
WARN_SHARE = 0.8
CALM_SHARE = 0.7
CLEAR_SHARE = 0.95
CLEAR_LOG_BYTES = 1 << 16
RESUME_BYTES = 1 << 20


class Room:
    """How much room there is, and the alarm."""

    def __init__(self, core: Core, writer: Writer) -> None:
        self._core = core
        self._writer = writer
        self._quota_bytes = core.options.quota_bytes
        self._low_disk_bytes = core.options.low_disk_bytes
        self._live_bytes = 0
        """Live bytes of the backend when last asked."""
        self._is_warned = False
        self._disk_is_low = False
        self._log_is_full = False
        self.backend_is_full = False
        """Whether the last checkpoint found the disk full."""
        self.unchecked_bytes = 0
        """While the active generation is smaller than this, no write needs a check."""
        self.measure()

    # --- measuring --------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """The number that is compared with the quota."""
        return self._live_bytes + sum(generation.size_bytes for generation in self._core.state.generations)

    def measure(self) -> None:
        """Ask the backend and the disk."""
        self._live_bytes = self._core.backend.in_use_bytes()
        self._disk_is_low = self._low_disk_bytes > 0 and self.free_bytes() < self._low_disk_bytes
        self._warn_of_the_quota()
        self.reckon()

    def _warn_of_the_quota(self) -> None:
        """Say once that the quota will be reached, long before it is, and what to do."""
        used, quota = self.used_bytes, self._quota_bytes
        if self._is_warned:
            self._is_warned = used > CALM_SHARE * quota
        elif quota and used > WARN_SHARE * quota:
            self._is_warned = True
            warning = NearlyFull(used, quota)
            logger.warning("%s", warning)
            with suppress(NearlyFull):  # where warnings are made errors: this is no place for one
                warnings.warn(warning, stacklevel=2)

    def reckon(self) -> None:
        """Work out how far writes may go without another check."""
        core, state = self._core, self._core.state
        waiting = sum(generation.size_bytes for generation in state.generations[1:])
        unchecked = core.options.overlay_limit
        if self._quota_bytes:
            unchecked = min(unchecked, self._quota_bytes - self._live_bytes - waiting)
        unchecked = min(unchecked, state.active.size_bytes + core.log.room_bytes)
        self.unchecked_bytes = -1 if self._disk_is_low else unchecked

    def free_bytes(self) -> int:
        """Room on the file system of the log or of the backend, whichever has less."""
        directory = self._core.directory
        try:
            return min(files.free_bytes(directory.wal), files.free_bytes(directory.snap))
        except (
            FileNotFoundError,
            NotADirectoryError,
            PermissionError,
        ):  # unreachable by name: open files are still written to
            return 1 << 62

    # --- refusing ---------------------------------------------------------------------

    def check(self, cost_bytes: int) -> None:
        """Raise ``QuotaExceeded`` or ``DiskFull`` if there is no room for a write of this cost."""
        self.measure()
        refusal = self._refusal(cost_bytes) or self._log_refusal(cost_bytes)
        if refusal is not None:
            self._set_alarm(on=True)
            raise refusal
        self.reckon()

    def _refusal(self, cost_bytes: int) -> SpaceError | None:
        if self._disk_is_low:
            return DiskFull(
                f"{self.free_bytes()} bytes are free on the store's file system, fewer than "
                f"low_disk_bytes={self._low_disk_bytes}; deletes and compaction still work"
            )
        used = self.used_bytes
        if self._quota_bytes and used + cost_bytes >= self._quota_bytes:
            return QuotaExceeded(used, self._quota_bytes)
        return None

    def _log_refusal(self, cost_bytes: int) -> SpaceError | None:
        """Why the log cannot take a write of this cost. If it can, its zeros are there afterwards."""
        log = self._core.log
        self._log_is_full = False
        try:
            if log.failure is None:
                log.lay(cost_bytes)
        except DiskFull as full:
            self._log_is_full = True
            return DiskFull(f"the log cannot grow: {full}; deletes and compaction still work")
        return None

    @property
    def is_short(self) -> bool:
        """Whether the disk has too little room, by any of the signs."""
        is_stalled = isinstance(self._core.life.stalled_by, DiskFull)
        return self._disk_is_low or self._log_is_full or self.backend_is_full or is_stalled

    # --- the alarm --------------------------------------------------------------------

    def tend(self) -> None:
        """Measure; end a stall, and clear the alarm, if there is room again."""
        self.measure()
        if self._core.life.is_stalled:
            self.end_stall()
        elif self._core.state.alarms and self._core.options.nospace_policy == "heals":
            margin_bytes = int(self._quota_bytes * (1 - CLEAR_SHARE))
            if self._refusal(margin_bytes) is None and self._log_refusal(CLEAR_LOG_BYTES) is None:
                self._set_alarm(on=False)

    def end_stall(self) -> None:
        """If there is room and no background work in the way, rebuild the memory state from the backend and the log."""
        core = self._core
        is_full = isinstance(core.life.stalled_by, DiskFull)
        if is_full and self.free_bytes() < max(RESUME_BYTES, self._low_disk_bytes):
            return
        if not core.checkpointing.acquire(blocking=False):
            return
        try:
            with files.disk_full_is_typed():
                check_held(core.disk)
                self._writer.resume(lambda: reload(core))
        finally:
            core.checkpointing.release()
        self.measure()

    def _set_alarm(self, *, on: bool) -> None:
        alarm = Alarm(self._core.member_id, NOSPACE)
        if (alarm in alarms_of(self._core.state)) == on or self._core.life.is_stalled:
            return
        logger.log(
            logging.WARNING if on else logging.INFO,
            "no room: writes are refused (%d bytes used, %d free)" if on else "there is room again",
            *((self.used_bytes, self.free_bytes()) if on else ()),
        )
        self._writer.ask(AlarmRequest(alarm.member_id, alarm.alarm, on))
