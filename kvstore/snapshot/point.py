"""Any point in a store's past: a snapshot before it, and the log from there up to it.

    snapshots     s1          s2                     s3
    log       ----|-----------|-----------*----------|------
                              +---replay-->  point

A ``Point`` (replay.py) is a revision R, a time T, or, without either, the end of the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from kvstore import layout
from kvstore.backend import Progress
from kvstore.errors import OpenError
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.state import State
from kvstore.replay import CHECKPOINT_BYTES, Point, apply_log
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.wal.format import Batch
from kvstore.wal.replay import Replay, segments_from


def covers(segments: list[layout.NumberedFile], index: int) -> bool:
    """Whether the segments begin early enough to continue from entry ``index``."""
    return bool(segments) and segments[0].index <= index + 1


def _admits(point: Point, info: SnapshotInfo) -> bool:
    """Whether the snapshot was taken at or before the point."""
    if point.revision and info.revision > point.revision:
        return False
    return not point.time_ms or info.created_ms <= point.time_ms


def choose_base(
    snapshots: list[SnapshotInfo], segments: list[layout.NumberedFile], point: Point
) -> list[SnapshotInfo]:
    """Snapshots to begin with, best first: the newest before the point that the log continues.

    One exactly at revision R comes last: it may hold a compaction that came after R was written.
    """
    usable = [
        info
        for info in snapshots
        if _admits(point, info) and (covers(segments, info.index) or point.is_reached(info.revision))
    ]
    return sorted(usable, key=lambda info: (not point.is_reached(info.revision), info.index), reverse=True)


def replay_to(
    point: Point,
    state: State,
    lessor: Lessor,
    segments: list[layout.NumberedFile],
    progress: Progress | None = None,
) -> None:
    """Apply the log after ``state`` up to the point, and move everything into the backend."""
    if segments and not point.is_reached(state.head):
        batches = _batches(state.index, segments, progress)
        last_ms = apply_log(batches, state, lessor, until=point, checkpoint_bytes=CHECKPOINT_BYTES)
        if state.index != state.applied_index:
            write_now(state, last_ms)
    if state.head < point.revision:
        raise OpenError(f"revision {point.revision} is not covered: the log ends at revision {state.head}")


def _batches(index: int, segments: list[layout.NumberedFile], progress: Progress | None) -> Iterator[Batch]:
    """The log after entry ``index``. Each batch has been applied when the next one is asked for."""
    wal_dir = segments[0].path.parent
    needed = segments_from(wal_dir, index, segments)
    total_bytes, begins = _places(needed)
    replay = Replay(None, wal_dir, index, None, needed)
    for batch in replay.batches():
        yield batch
        if progress is not None and replay.last_mark is not None:
            progress(begins[replay.last_mark.segment_index] + replay.last_mark.offset, total_bytes)


def _places(segments: list[layout.NumberedFile]) -> tuple[int, dict[int, int]]:
    """The total bytes of all segments, and how many come before each one, by its index."""
    total_bytes, begins = 0, {}
    for file in segments:
        begins[file.index] = total_bytes
        total_bytes += os.stat(file.path if file.descriptor < 0 else file.descriptor).st_size
    return total_bytes, begins
