"""Copying the content of a snapshot into a new backend file: as bytes, or row by row into another kind of backend."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kvstore.backend import Backend, Progress, ReadTx, WriteTx
from kvstore.errors import Corruption
from kvstore.files import Disk
from kvstore.mvcc.schema import TABLES
from kvstore.pacing import Pause, no_pause
from kvstore.snapshot.reader import SnapshotInfo, chunks

SCAN_ROWS = 64
BATCH_BYTES = 16 << 20


def copy_bytes(disk: Disk, info: SnapshotInfo, target: Path, progress: Progress | None = None) -> None:
    """Write the backend copy of a snapshot, verified on the way, to the new file ``target``, and sync it."""
    digest = hashlib.sha256()
    file = disk.create(target)
    try:
        for offset, chunk in chunks(info.path, info.backend_bytes, progress):
            digest.update(chunk)
            file.pwrite(chunk, offset)
        if digest.digest() != info.sha256:
            raise Corruption("the backend copy's SHA-256 does not match the manifest", info.path, 0)
        file.sync()
    finally:
        file.close()


def copy_rows(
    source: Backend,
    target: Backend,
    progress: Progress | None = None,
    *,
    pause: Pause = no_pause,
    batch_bytes: int = BATCH_BYTES,
) -> None:
    """Copy every row of one backend into another, empty one. In order, so that its pages are full.

    ``pause`` is called every few rows; about ``batch_bytes`` are written and synced at a time.
    """
    total, done = source.in_use_bytes(), 0
    with source.read() as tx:
        for table in TABLES:
            start: bytes | None = b""
            while start is not None:
                with target.write() as batch:
                    copied_bytes, start = _copy_some(tx, batch, table, start, batch_bytes, pause)
                target.sync()
                done += copied_bytes
                if progress is not None:
                    progress(min(done, total), total)


def _copy_some(
    tx: ReadTx, batch: WriteTx, table: str, start: bytes, batch_bytes: int, pause: Pause
) -> tuple[int, bytes | None]:
    """Copy rows of about this many bytes. Returns the bytes copied, and where to continue."""
    copied_bytes = 0
    while copied_bytes < batch_bytes:
        rows = tx.scan(table, start, limit=SCAN_ROWS)
        batch.put_many(table, rows, append=True)
        pause()
        copied_bytes += sum([len(key) + len(value) for key, value in rows])
        if len(rows) < SCAN_ROWS:
            return copied_bytes, None
        start = rows[-1][0] + b"\0"
    return copied_bytes, start
