"""Carrying the content of a snapshot into a new backend file: as bytes, or row by row to another kind of backend."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kvstore.backend import Backend, Progress, ReadTx, Row
from kvstore.errors import Corruption
from kvstore.files import Disk
from kvstore.mvcc.schema import TABLES
from kvstore.snapshot.reader import SnapshotInfo, chunks

SCAN_ROWS = 128
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
            raise Corruption("the backend copy does not have the SHA-256 of the manifest", info.path, 0)
        file.sync()
    finally:
        file.close()


def copy_rows(source: Backend, target: Backend, progress: Progress | None = None) -> None:
    """Every row of one backend into another, empty one, in batches of bounded size."""
    total, done = source.in_use_bytes(), 0
    with source.read() as tx:
        for table in TABLES:
            start: bytes | None = b""
            while start is not None:
                rows, start = _batch(tx, table, start)
                with target.write() as batch:
                    batch.put_many(table, rows, append=True)
                done += sum(len(key) + len(value) for key, value in rows)
                if progress is not None:
                    progress(min(done, total), total)


def _batch(tx: ReadTx, table: str, start: bytes) -> tuple[list[Row], bytes | None]:
    """About ``BATCH_BYTES`` of rows, and where to go on."""
    rows: list[Row] = []
    size_bytes = 0
    while size_bytes < BATCH_BYTES:
        found = tx.scan(table, start, limit=SCAN_ROWS)
        rows += found
        if len(found) < SCAN_ROWS:
            return rows, None
        size_bytes += sum(len(key) + len(value) for key, value in found)
        start = found[-1][0] + b"\0"
    return rows, start
