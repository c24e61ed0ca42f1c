"""A new log for a backend that holds more than the damaged log can still prove.

    segments    1..40 | 41..87 | 88..        damaged somewhere before entry 95; the backend holds entries up to 95
    after it    1..40.broken | 41..87.broken | 88...broken | 96..

The backend only ever gets what the log has made durable, so it is right up to its index; what the old log may have had
after that is lost. After a crash there is either the old log, still refused, or the new one, with some of the old
segments not yet set aside; those are not read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from kvstore import layout
from kvstore.files import Disk
from kvstore.wal.format import Metadata
from kvstore.wal.writer import install_segment, prepare_segment


def begin_anew(
    disk: Disk, wal_dir: str | os.PathLike[str], after_index: int, cluster_id: int, member_id: int
) -> list[Path]:
    """Start a closed log over, with the entry after ``after_index``. Returns the segments that were set aside."""
    wal_dir = Path(wal_dir)
    old = [file for file in layout.segments(wal_dir) if file.cluster_id == cluster_id]
    later = [file.path for file in old if file.index > after_index]
    set_aside(disk, later)
    path = str(wal_dir / layout.segment_name(cluster_id, after_index + 1))
    metadata = Metadata(cluster_id, member_id, after_index + 1, time.time_ns() // 1_000_000)
    prepare_segment(disk, path, metadata, 0, 0)
    install_segment(disk, path)
    earlier = [file.path for file in old if file.index <= after_index]
    set_aside(disk, earlier)
    return earlier + later


def set_aside(disk: Disk, segments: Sequence[Path]) -> None:
    """Rename the segments, newest first, so that the rest never has a gap."""
    for path in reversed(segments):
        disk.rename(path, str(path) + layout.BROKEN_SUFFIX)
        disk.sync_dir(path.parent)
