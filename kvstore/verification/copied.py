"""A backend that may be a copy made while the store was in use: whole, or pages of different moments?

    its pages        checked with plain reads, before the file is mapped; then by the backend's own check
    its tables       against each other, as ``kvstore verify`` does
    the log          what its newest part says of each key, up to the applied index, is what the backend holds

Only the last finds a page of ``latest`` that is older than the rest when the changes since are compacted and nothing
else is left of them. The log is released only when the backend is synced, so what is left of it reaches back to before
any page that can be too old.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, ReadTx, check_closed
from kvstore.directory import check_format
from kvstore.errors import Corruption, KVStoreError, ReadOnly
from kvstore.keyvalue import row_mod_revision
from kvstore.layout import DataDir
from kvstore.mvcc.effects import DELETE, PUT, REVISION
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import LATEST, TABLES
from kvstore.verification.report import Collector
from kvstore.verification.small import read_marks
from kvstore.verification.snapshots import check_tables
from kvstore.wal.format import Mark
from kvstore.wal.replay import Replay
from kvstore.wire import WireError, fields

LOG_BYTES = 128 << 20
BATCH_KEYS = 512

WHAT_IT_IS = (
    "the files are a copy that was made while the store was in use, or have changed outside of it; "
    "such a copy is not whole. Take a snapshot of the store itself (kvstore snapshot save), and restore that"
)


def check_copied(directory: DataDir, kind: type[Backend]) -> None:
    """Raise ``Corruption`` unless the backend, which must be closed, is of one moment."""
    try:
        check_closed(kind, directory.db)
        backend = _opened(kind, directory.db)
        try:
            check_format(backend, directory.db)
            with backend.read() as tx:
                marks = read_marks(tx)
            if not _log_reaches(directory.wal, marks.applied_index):
                return  # opening the log refuses that: a backend is not given up for a log that has less
            backend.check()
            found = Collector()
            check_tables(backend, found)
            found.report(directory.db).raise_if_damaged()
            with backend.read() as tx:
                _check_against_log(tx, marks, directory.wal)
        finally:
            backend.close()
    except Corruption as damage:
        raise Corruption(
            f"{damage.reason} ({WHAT_IT_IS})", damage.path or directory.db, damage.offset
        ) from damage


def _opened(kind: type[Backend], path: Path) -> Backend:
    try:
        return kind.open(path, TABLES, read_only=True)
    except ReadOnly:  # a change was left half made, which only a writer can undo
        return kind.open(path, TABLES)


def is_closed(directory: DataDir, backend: Backend, closed: int) -> bool:
    """Whether the backend holds all of the log, which ends with entry ``closed`` (-1: unknown)."""
    with backend.read() as tx:
        marks = read_marks(tx)
    index = marks.applied_index
    if closed not in (-1, index):
        return False
    replay = Replay(None, directory.wal, index, Mark.decode(marks.log_mark))
    with suppress(KVStoreError):
        for _ in replay.batches():
            return False
    return replay.last_index == index


def _log_reaches(wal_dir: Path, index: int) -> bool:
    """Whether the log can be read from its beginning to that entry."""
    segments = layout.segments(wal_dir)
    try:
        return (
            any(
                batch.last_index >= index
                for batch in Replay(None, wal_dir, segments[0].index - 1, None, segments).batches()
            )
            or index < segments[0].index
        )
    except KVStoreError:
        return False


def _check_against_log(tx: ReadTx, marks: Marks, wal_dir: Path) -> None:
    segments = layout.segments(wal_dir)
    if not segments:
        return
    start, size_bytes = len(segments) - 1, segments[-1].path.stat().st_size
    while start and (size_bytes := size_bytes + segments[start - 1].path.stat().st_size) <= LOG_BYTES:
        start -= 1
    revision, newest = _newest_changes(wal_dir, segments[start:], marks.applied_index)
    if revision and revision != marks.revision:
        raise Corruption(
            f"the backend is at revision {marks.revision}, but entry {marks.applied_index} wrote revision {revision}"
        )
    keys = sorted(newest)
    for at in range(0, len(keys), BATCH_KEYS):
        some = keys[at : at + BATCH_KEYS]
        for key, row in zip(some, tx.get_many(LATEST, some), strict=True):
            there = row_mod_revision(row) if row is not None else 0
            if there != newest[key]:
                raise Corruption(
                    f"key {key!r} is at revision {there}, but the log says {newest[key]} (0: none)"
                )


def _newest_changes(
    wal_dir: Path, segments: list[layout.NumberedFile], index: int
) -> tuple[int, dict[bytes, int]]:
    """The last revision up to entry ``index``, and the one that wrote each key (0: it was deleted)."""
    last_revision, newest = 0, {}
    for batch in Replay(None, wal_dir, segments[0].index - 1, None, segments).batches():
        for entry in batch.entries[: max(0, index - batch.first_index + 1)]:
            try:
                for number, value in fields(entry):
                    if number == REVISION and isinstance(value, int):
                        last_revision = value
                    elif number == PUT and isinstance(value, bytes):
                        key = dict(fields(value)).get(1)
                        if isinstance(key, bytes):
                            newest[key] = last_revision
                    elif number == DELETE and isinstance(value, bytes):
                        newest[value] = 0
            except WireError as error:
                raise Corruption(f"a log entry: {error}", wal_dir) from None
        if batch.last_index >= index:
            break
    return last_revision, newest
