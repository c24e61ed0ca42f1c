"""Any point of a store's past: a snapshot before it, and the log from there up to it.

    snapshots     s1          s2                     s3
    log       ----|-----------|-----------*----------|------
                              +---replay-->  point

A point is a revision R (the store as it was when R had just been written), a time T (as it was before the first
batch of the log that was written after T), or, without either, the end of the log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from kvstore import layout
from kvstore.backend import Progress
from kvstore.errors import Corruption, OpenError
from kvstore.mvcc import effects
from kvstore.mvcc.checkpoint import no_pause, write_generation
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.overlay import Generation
from kvstore.mvcc.state import State
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.wal.replay import Replay, segments_from

CHECKPOINT_BYTES = 32 << 20
"""Replayed changes held in memory before they are moved into the backend."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where to stop; both zero: at the end."""

    revision: int = 0
    time_ms: int = 0

    def admits(self, info: SnapshotInfo) -> bool:
        """Whether the snapshot was taken before the point, or at it."""
        if self.revision and info.revision > self.revision:
            return False
        return not self.time_ms or info.created_ms <= self.time_ms

    def is_reached(self, revision: int) -> bool:
        return bool(self.revision) and revision >= self.revision


def covers(segments: list[layout.NumberedFile], index: int) -> bool:
    """Whether the segments begin early enough to go on from entry ``index``."""
    return bool(segments) and segments[0].index <= index + 1


def choose_base(
    snapshots: list[SnapshotInfo], segments: list[layout.NumberedFile], point: Point
) -> list[SnapshotInfo]:
    """Snapshots to begin with, the best first: the newest before the point that the log goes on from.

    One exactly at revision R comes last: it may hold a compaction that came after R was written.
    """
    usable = [
        info
        for info in snapshots
        if point.admits(info) and (covers(segments, info.index) or point.is_reached(info.revision))
    ]
    return sorted(usable, key=lambda info: (not point.is_reached(info.revision), info.index), reverse=True)


def replay_to(
    point: Point,
    state: State,
    lessor: Lessor,
    segments: list[layout.NumberedFile],
    progress: Progress | None = None,
) -> None:
    """Apply the log after ``state`` up to the point, and bring everything into the backend."""
    if segments and not point.is_reached(state.head):
        last_ms = _apply_to(point, state, lessor, segments, progress)
        _checkpoint(state, last_ms)
    if state.head < point.revision:
        raise OpenError(f"revision {point.revision} is not covered: the log ends at revision {state.head}")


def _apply_to(
    point: Point,
    state: State,
    lessor: Lessor,
    segments: list[layout.NumberedFile],
    progress: Progress | None,
) -> int:
    """The time of the last batch that was applied."""
    last_ms = 0
    wal_dir = segments[0].path.parent
    needed = segments_from(wal_dir, state.index, segments)
    replay = Replay(None, wal_dir, state.index, None, needed)
    total_bytes, begins = _places(needed)
    for batch in replay.batches():
        if point.time_ms and batch.time_ms > point.time_ms:
            break
        last_ms = batch.time_ms
        if batch.first_index != state.index + 1:
            raise Corruption(f"log entry {batch.first_index} follows entry {state.index}", wal_dir)
        for entry in batch.entries:
            effects.apply(entry, state, lessor)
            if point.is_reached(state.head):
                return last_ms
        if state.active.size_bytes > CHECKPOINT_BYTES:
            _checkpoint(state, batch.time_ms)
        if progress is not None and replay.last_mark is not None:
            progress(begins[replay.last_mark.segment_index] + replay.last_mark.offset, total_bytes)
    return last_ms


def _places(segments: list[layout.NumberedFile]) -> tuple[int, dict[int, int]]:
    """The bytes of all segments together, and how many lie before each, by its index."""
    total_bytes, begins = 0, {}
    for file in segments:
        begins[file.index] = total_bytes
        total_bytes += os.stat(file.path if file.descriptor < 0 else file.descriptor).st_size
    return total_bytes, begins


def _checkpoint(state: State, now_ms: int) -> None:
    if state.index == state.applied_index:
        return
    generation = state.active
    generation.last_index, generation.last_revision = state.index, state.head
    write_generation(state.backend, generation, now_ms, no_pause)
    state.backend_revision, state.applied_index = state.head, state.index
    state.generations = (Generation(),)
