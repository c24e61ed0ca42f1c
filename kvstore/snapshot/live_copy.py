"""A snapshot of a store that another process is writing.

    copy       the backend's newest commit: a reader may copy it at any time
    catch up   replay what the log holds after it into the copy
    seal       as with every snapshot

So it holds every write that was durable when it began. If the writer releases a segment between the first two steps,
the copy is too old for the log, and is made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, Progress
from kvstore.errors import Corruption
from kvstore.files import Disk
from kvstore.layout import DataDir
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from kvstore.replay import Point
from kvstore.snapshot.point import replay_to
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.snapshot.writer import Copy, check_target, copy_backend, describe, given_up_on_failure, seal
from kvstore.wal.archive import log_segments

ATTEMPTS = 5


def take_beside(
    disk: Disk,
    directory: DataDir,
    backend: Backend,
    now_ms: Callable[[], int],
    target: Path,
    progress: Progress | None = None,
    *,
    reads_back: bool = True,
) -> SnapshotInfo:
    """Write a snapshot of what is durable now, from a store that is open read-only."""
    check_target(directory, target)
    attempt = 1
    while True:
        copy = copy_backend(disk, backend, target, now_ms(), progress, is_final=False, reads_back=reads_back)
        try:
            with given_up_on_failure(disk, copy):
                copy = _catch_up(disk, copy, directory.wal)
            return seal(disk, copy, target)
        except Corruption:
            if attempt == ATTEMPTS:
                raise
            attempt += 1


def _catch_up(disk: Disk, copy: Copy, wal_dir: Path) -> Copy:
    backend = copy.kind.open(copy.path, TABLES)
    try:
        replay_to(Point(), State(backend), Lessor.loaded(backend), log_segments([wal_dir]))
        backend.sync()
        marks, counts = describe(backend)
    finally:
        backend.close()
        for path in layout.helpers(copy.path):
            disk.remove(path)
    return replace(copy, marks=marks, counts=counts)
