"""When a revision was written, and which was the newest at a time: from the times in the log.

Each batch of the log carries the time of day at which it was written. So what can be told is what the log still has:
its kept segments (``max_wals``) and those in ``archive_dir``. Asking costs the reading of one segment, whose first
revision or first time says that it is the one. The clock may have been set back: as in a restore to a time, the first
batch that is later ends the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kvstore import layout
from kvstore.core import ReadCore
from kvstore.errors import TimeUnknown
from kvstore.mvcc.effects import REVISION
from kvstore.wal.inspect import scan_segment
from kvstore.wire import fields

Written = Iterator[tuple[int, list[int]]]
"""(time of day in ms, revisions) of the batches that wrote any."""


def time_of(core: ReadCore, revision: int) -> int:
    """The time of day in ms at which ``revision`` was written. Raises ``TimeUnknown``."""
    for path in reversed(_segments(core)):
        first = next(_written(path), None)
        if first is None or first[1][0] > revision:
            continue
        for time_ms, revisions in _written(path):
            if revisions[-1] >= revision:
                return time_ms
    raise TimeUnknown(f"the log of revision {revision} is not kept")


def revision_at(core: ReadCore, time_ms: int) -> int:
    """The newest revision that was written at or before a time of day. Raises ``TimeUnknown``."""
    for path in reversed(_segments(core)):
        newest = 0
        for written_ms, revisions in _written(path):
            if written_ms > time_ms:
                break
            newest = revisions[-1]
        if newest:
            return newest
    raise TimeUnknown("the log of that time is not kept")


def times(core: ReadCore, first_revision: int, last_revision: int) -> Iterator[tuple[int, int]]:
    """(revision, time of day in ms) of every revision between two that the kept log has, ascending."""
    for path in _segments(core):
        for time_ms, revisions in _written(path):
            for revision in revisions:
                if revision > last_revision:
                    return
                if revision >= first_revision:
                    yield revision, time_ms


def _segments(core: ReadCore) -> list[Path]:
    """The segments that are kept, oldest first; of two of one number the log's own."""
    directory, archive_dir = core.directory, core.options.archive_dir
    if directory is None:
        raise TimeUnknown("a file without a log does not know its times")
    kept = layout.archived(Path(archive_dir)) if archive_dir and Path(archive_dir).is_dir() else []
    mine = [file for file in (*kept, *layout.segments(directory.wal)) if file.cluster_id == core.cluster_id]
    return [path for _, path in sorted({file.index: file.path for file in mine}.items())]


def _written(path: Path) -> Written:
    """(time in ms, revisions) of the batches of a segment that wrote any, up to where it is being written."""
    with suppress(FileNotFoundError):  # released meanwhile
        for found in scan_segment(path):
            if found.problem:
                return
            if found.batch is not None:
                revisions = [revision for entry in found.batch.entries if (revision := _revision_of(entry))]
                if revisions:
                    yield found.batch.time_ms, revisions


def _revision_of(entry: bytes) -> int:
    """The revision of an entry, which is its first field; 0 if it wrote no key."""
    number, value = next(fields(entry))
    return value if number == REVISION and isinstance(value, int) else 0
