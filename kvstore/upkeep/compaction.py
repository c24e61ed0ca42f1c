"""Compaction: deleting the rows that no kept revision needs.

    compact(C)    the log says so; reads below C are refused from then on          (engine, plan)
    checkpoint    carries the mark ``compact_scheduled`` = C, and every change up to it, into the backend
    sweep         here: chunk by chunk, one backend commit each, until ``compact_finished`` = C

What is deleted, at the mark C (see mvcc/schema.py):

    changes   every row below C; rows at C stay, for a watch that starts there
    history   of each key that these changes (and those at C) name: all versions that ended at or before C

The work is proportional to what is deleted or to what stays, whichever is less. If little stays (a compaction to the
newest revision, or nearly), that is read, both tables are emptied, which is quick, and it is put back: one commit.

Otherwise ``changes`` is walked from its front. One pass:

    collect   read changes below and at C until some 200,000 different keys are known (no lock, nothing written)
    history   delete the ended versions of those keys, in key order: whole pages become free
    changes   delete the rows that were read

The last two go chunk by chunk, each one backend commit. A change outlives the history it names, so after a crash the
next pass finds what is not deleted yet. Both marks are in the backend, and a sweep that finds them unequal goes on. A
reader that may still look below C either has an older transaction open or is refused (State.check_kept).

Between chunks the lock of background work is free and checkpoints have their turn. While there are writes the sweep
sleeps as long as it works; without writes it only takes short breaks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from kvstore.backend import Progress, ReadTx, Row, WriteTx
from kvstore.core import Core
from kvstore.errors import Compacted, FutureRevision
from kvstore.model import CompactionRequest
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    CHANGES,
    CREATE,
    HISTORY,
    META,
    META_COMPACT_FINISHED,
    escape,
    history_key,
    pack_u64,
    parse_revision,
    revision_key,
)
from kvstore.mvcc.state import State
from kvstore.observe.estimates import CompactionEstimate
from kvstore.pacing import Courtesy
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.upkeep.retention import policy
from kvstore.write.room import Room
from kvstore.write.writer import Writer

T = TypeVar("T")

SLICE_ROWS = 64
SLICE_KEYS = 16
PASS_KEYS = 200_000
PAGE_ROWS = 1000


class _Pass:
    """What one pass deletes, and how far it has come."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.keys: list[bytes] = []
        self.stops: list[bytes] = []
        """Keys in ``changes``, one slice apart, up to which rows are to be deleted."""
        self.is_last = False
        """Whether this pass reaches the target."""

    def collect(self, view: ReadTx, pause: Callable[[], None]) -> None:
        """Read the front of ``changes``."""
        keys: set[bytes] = set()
        floor, end, at = revision_key(self.target, 0), revision_key(self.target + 1, 0), b""
        while not self.is_last and (
            len(keys) < PASS_KEYS or at > floor
        ):  # a pass that reaches the rows at the target reads all of them
            rows = view.scan(CHANGES, at, end, limit=PAGE_ROWS)
            keys.update([value[1:] for _, value in rows if value[:1] != CREATE])
            self.stops += [row[0] for row in rows[SLICE_ROWS - 1 :: SLICE_ROWS] if row[0] < floor]
            self.is_last = len(rows) < PAGE_ROWS
            at = rows[-1][0] + b"\0" if rows else at
            pause()
        self.stops.append(min(at, floor))
        self.keys = sorted(keys, reverse=True)
        self.stops.reverse()

    def delete_some(self, tx: WriteTx, limit: int, pause: Callable[[], None]) -> int:
        """Delete about ``limit`` rows. Returns how many were deleted."""
        deleted = 0
        while deleted < limit and (self.keys or self.stops):
            if self.keys:
                some = self.keys[: -SLICE_KEYS - 1 : -1]
                del self.keys[-SLICE_KEYS:]
                ranges = [(escape(key), history_key(key, self.target + 1, 0)) for key in some]
                deleted += tx.delete_ranges(HISTORY, ranges)
            else:
                deleted += tx.delete_ranges(CHANGES, [(b"", self.stops.pop())])
            pause()
        return deleted

    @property
    def is_done(self) -> bool:
        return not self.keys and not self.stops


class _Remainder:
    """What a compaction leaves of ``changes`` and ``history`` if that is little: kept, while all else goes at once."""

    is_last = True

    def __init__(self, target: int, changes: list[Row], history: list[Row]) -> None:
        self.target = target
        self.is_done = False
        self._rows = {CHANGES: changes, HISTORY: history}

    @classmethod
    def read(cls, view: ReadTx, target: int, rows_max: int, pause: Callable[[], None]) -> _Remainder | None:
        """The remainder, or None if more changes stay than ``rows_max``, or than are deleted."""
        floor = at = revision_key(target, 0)
        changes: list[Row] = []
        while page := view.scan(CHANGES, at, limit=PAGE_ROWS):
            changes += page
            if len(changes) > rows_max:
                return None
            at = page[-1][0] + b"\0"
            pause()
        if len(view.scan(CHANGES, b"", floor, limit=len(changes))) < len(changes):
            return None
        ended = [(value[1:], *parse_revision(key)) for key, value in changes if value[:1] != CREATE]
        keys = sorted([history_key(key, main, sub) for key, main, sub in ended if main > target])
        history: list[Row] = []
        for some in _slices(keys):
            rows = zip(some, view.get_many(HISTORY, some), strict=True)
            history += [(key, row) for key, row in rows if row is not None]
            pause()
        return cls(target, changes, history)

    def delete_some(self, tx: WriteTx, _limit: int, pause: Callable[[], None]) -> int:
        """Delete everything else. Returns how many rows were deleted."""
        deleted = 0
        for table, rows in self._rows.items():
            deleted += tx.delete_all(table) - len(rows)
            for some in _slices(rows):
                tx.put_many(table, some, append=True)
                pause()
        self.is_done = True
        return deleted


class Compaction:
    """The sweep of one store."""

    def __init__(self, core: Core, writer: Writer, checkpointer: Checkpointer, room: Room) -> None:
        self._core = core
        self._writer = writer
        self._checkpointer = checkpointer
        self._room = room
        self._pass: _Pass | _Remainder | None = None
        options = core.options
        self._policy = policy(
            options.auto_compaction_mode,
            options.auto_compaction_retention,
            core.clock.elapsed_ms() / 1000,
            core.state.published,
        )
        self.rows_deleted: int = 0
        self.last_ms: int = 0
        """When a compaction was through last, since the store was opened; 0: not yet."""

    @property
    def debt_revisions(self) -> int:
        """How many revisions below the mark still have rows."""
        with self._core.backend.read() as tx:
            marks = Marks.read(tx)
            first = tx.scan(CHANGES, limit=1) if marks.compacted > marks.finished else []
        return max(marks.compacted - parse_revision(first[0][0])[0], 0) if first else 0

    @property
    def is_automatic(self) -> bool:
        return self._policy is not None

    def tend(self) -> int:
        """Compact automatically if it is time to. Returns the revision it compacted to (0: not now)."""
        core = self._core
        if self._policy is None:
            return 0
        revision = self._policy.due(core.clock.elapsed_ms() / 1000, core.state.published)
        if not revision:
            return 0
        with suppress(Compacted):  # compacted by hand meanwhile
            self._writer.ask(CompactionRequest(revision))
            core.want_work()
        self._policy.done(core.clock.elapsed_ms() / 1000, revision)
        return revision

    def estimate(self, revision: int) -> CompactionEstimate:
        """Count what ``compact(revision)`` would delete, once everything is in the backend."""
        state = self._core.state
        self._core.life.check_readable()
        if revision <= state.compacted:
            raise Compacted(state.compacted, revision)
        if revision > state.published:
            raise FutureRevision(revision, state.published)
        self._checkpointer.run()
        floor, swept = revision_key(revision, 0), revision_key(state.compact_finished + 1, 0)
        changes = versions = 0
        for rows in _pages(state, revision_key(revision + 1, 0)):
            changes += sum(1 for key, _ in rows if key < floor)
            versions += sum(1 for key, value in rows if value[:1] != CREATE and key >= swept)
        return CompactionEstimate(revision, changes, versions)

    def run(self, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Sweep until nothing is left or ``stop`` says so. Returns whether anything was done."""
        total = self.debt_revisions
        worked = False
        pause_seconds = self._core.options.compaction_sleep_interval_seconds
        while not stop() and self.step():
            worked = True
            if progress is not None:
                progress(max(total - self.debt_revisions, 0), total)
            time.sleep(pause_seconds)
        return worked

    def step(self) -> bool:
        """Delete one chunk, in one commit. Returns false if there was nothing to do."""
        core = self._core
        with core.checkpointing:
            pause = Courtesy(core.state, core.options.overlay_limit)
            with core.backend.read() as view:
                marks = Marks.read(view)
                target = marks.compacted
                if target <= marks.finished:
                    return False
                now = self._pass
                if now is None or now.target != target:
                    now = self._begin(view, target, pause)
            self._pass = None  # if the commit fails, start over
            is_last = self._commit_chunk(now, pause)
            self._pass = None if now.is_done else now
            if is_last:
                core.state.swept(target)
                self.last_ms = core.clock.now_ms()
            self._room.measure()
            return True

    def _begin(self, view: ReadTx, target: int, pause: Callable[[], None]) -> _Pass | _Remainder:
        stays = _Remainder.read(view, target, self._core.options.compaction_batch_limit, pause)
        if stays is not None:
            return stays
        goes = _Pass(target)
        goes.collect(view, pause)
        return goes

    def _commit_chunk(self, now: _Pass | _Remainder, pause: Callable[[], None]) -> bool:
        with self._core.backend.write() as tx:
            self.rows_deleted += now.delete_some(tx, self._core.options.compaction_batch_limit, pause)
            is_last = now.is_done and now.is_last
            if is_last:
                tx.put_many(META, [(META_COMPACT_FINISHED, pack_u64(now.target))])
        return is_last


def _slices(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), SLICE_ROWS):
        yield items[start : start + SLICE_ROWS]


def _pages(state: State, end: bytes) -> Iterator[list[Row]]:
    """The changes below ``end``."""
    at = b""
    while True:
        with state.backend.read() as tx:
            rows = tx.scan(CHANGES, at, end, limit=PAGE_ROWS)
        yield rows
        if len(rows) < PAGE_ROWS:
            return
        at = rows[-1][0] + b"\0"
