"""The backend against what it should be: rebuilt from a snapshot and the log, and compared row by row.

    oldest snapshot     log up to the applied index
    (or nothing)   ------------------------------------>  scratch backend      +
                                                          live backend         =  rows that differ

Both sides are on this machine, so the rows themselves are compared, a batch at a time, not hashes of them: that costs
the same reads, misses nothing, and names every row that differs. Each row belongs to a revision, the one that wrote
the version; the lowest one is where the backend went wrong first.

The oldest base is used, not the newest: a snapshot is a copy of the backend, and copies what was already wrong. Rows
that a compaction may have deleted count on neither side. The scratch file is beside the live one and has a temporary
name: if this run is interrupted, the next opening removes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, ReadTx
from kvstore.errors import Corruption, DiskFull
from kvstore.files import Disk, free_bytes
from kvstore.keyvalue import row_mod_revision
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    ALARM,
    ATTACHMENT,
    CHANGES,
    HISTORY,
    LATEST,
    LEASE,
    META,
    META_APPLIED_INDEX,
    META_CARRIED,
    META_COMPACT_SCHEDULED,
    META_REVISION,
    REVISION_BYTES,
    TABLES,
    parse_revision,
    split_history_key,
)
from kvstore.mvcc.state import State
from kvstore.replay import CHECKPOINT_BYTES, Point, apply_log
from kvstore.snapshot.point import covers
from kvstore.snapshot.reader import SnapshotInfo, open_backend
from kvstore.snapshot.transfer import copy_bytes, copy_rows
from kvstore.verification.report import BACKEND, Collector
from kvstore.verification.small import read_marks
from kvstore.wal.archive import log_segments
from kvstore.wal.format import Batch
from kvstore.wal.replay import Replay, segments_from
from kvstore.wire import WireError

BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Sources:
    """What the backend can be built from."""

    snapshots: Sequence[SnapshotInfo]
    """The intact ones, oldest first."""
    log_folders: Sequence[Path]


def check_deep(
    kind: type[Backend], tx: ReadTx, sources: Sources, scratch_dir: Path, disk: Disk, found: Collector
) -> None:
    """Compare the commit of a ``kind`` of backend that ``tx`` sees with what it should be."""
    marks = read_marks(tx)
    segments = log_segments(list(sources.log_folders), marks.cluster_id)
    base = _choose_base(sources, segments, marks)
    if base is None and not covers(segments, 0):
        found.notes.append(
            "nothing to compare the backend with: the log reaches back neither to the first entry nor to a "
            "snapshot; take a snapshot now, and later damage will show"
        )
        return
    origin = f"snapshot {base.path.name} (revision {base.revision})" if base else "the first log entry"
    try:
        with _scratch(kind, scratch_dir, disk, base, segments) as scratch:
            _replay(scratch, segments, marks.applied_index, found)
            with scratch.read() as rebuilt:
                _compare(rebuilt, tx, marks.compacted, found)
    except Corruption as damage:
        found.notes.append(f"the backend could not be rebuilt from {origin}: {damage}")
    else:
        found.notes.append(f"compared with {origin} and the log after it, up to entry {marks.applied_index}")
        if base is not None:
            found.notes.append(f"damage older than {origin} would be in it too and would not show")


def _choose_base(sources: Sources, segments: list[layout.NumberedFile], marks: Marks) -> SnapshotInfo | None:
    """The oldest snapshot that the log continues; None if the log has everything, or if there is no such snapshot."""
    if covers(segments, 0):
        return None
    for info in sources.snapshots:
        same_store = info.cluster_id == marks.cluster_id
        if same_store and info.index <= marks.applied_index and covers(segments, info.index):
            return info
    return None


# --- rebuilding it -----------------------------------------------------------------------


@contextmanager
def _scratch(
    kind: type[Backend],
    folder: Path,
    disk: Disk,
    base: SnapshotInfo | None,
    segments: list[layout.NumberedFile],
) -> Iterator[Backend]:
    """A backend with the content of ``base``, in a temporary file."""
    path = layout.temporary(folder / "verify")
    needed = (base.backend_bytes if base else 0) + sum(file.path.stat().st_size for file in segments)
    if free_bytes(folder) < 2 * needed:
        raise DiskFull(f"rebuilding the backend may take {2 * needed} bytes, which {folder} does not have")
    _remove(disk, path)
    backend: Backend | None = None
    try:
        backend = _filled(kind, path, disk, base)
        yield backend
    finally:
        if backend is not None:
            backend.close()
        _remove(disk, path)


def _filled(kind: type[Backend], path: Path, disk: Disk, base: SnapshotInfo | None) -> Backend:
    if base is None:
        return kind.open(path, TABLES)
    if base.backend == kind.name:
        copy_bytes(disk, base, path)
        return kind.open(path, TABLES)
    source = open_backend(base)
    backend = kind.open(path, TABLES)
    try:
        copy_rows(source, backend)
        return backend
    except BaseException:
        backend.close()
        raise
    finally:
        source.close()


def _remove(disk: Disk, path: Path) -> None:
    for file in (path, *layout.helpers(path)):
        disk.remove(file)


def _replay(scratch: Backend, segments: list[layout.NumberedFile], index: int, found: Collector) -> None:
    """Bring the scratch backend to log entry ``index``."""
    state = State(scratch)
    if state.index == index:
        return
    batches = _batches(state.index, segments, index, found)
    until = Point(index=index)
    last_ms = apply_log(
        batches, state, Lessor.loaded(scratch), until=until, checkpoint_bytes=CHECKPOINT_BYTES
    )
    if state.index != index:
        wal_dir = segments[0].path.parent
        raise Corruption(
            f"the log ends with entry {state.index}, the backend has entries up to {index}", wal_dir
        )
    write_now(state, last_ms)


def _batches(
    after_index: int, segments: list[layout.NumberedFile], index: int, found: Collector
) -> Iterator[Batch]:
    wal_dir = segments[0].path.parent
    needed = segments_from(wal_dir, after_index, segments)
    for batch in Replay(None, wal_dir, after_index, None, needed).batches():
        yield batch
        found.step("replaying the log", batch.last_index, index)


# --- comparing ---------------------------------------------------------------------------


def _compare(rebuilt: ReadTx, live: ReadTx, compacted: int, found: Collector) -> None:
    _compare_marks(rebuilt, live, found)
    tables = (CHANGES, HISTORY, LATEST, LEASE, ATTACHMENT, ALARM, META)
    total = sum(map(rebuilt.count, tables))
    done = 0
    for table in tables:
        for rows, differing in _differences(rebuilt, live, table):
            done += rows
            found.step("comparing", min(done, total), total)
            for key, wanted, there in differing:
                is_mark = table == META and not key.startswith(META_CARRIED)
                if not (is_mark or _may_be_compacted(table, key, compacted)):
                    _report(table, key, wanted, there, found)


def _compare_marks(rebuilt: ReadTx, live: ReadTx, found: Collector) -> None:
    wanted, there = read_marks(rebuilt), read_marks(live)
    for name, said, is_there in (
        (META_APPLIED_INDEX, wanted.applied_index, there.applied_index),
        (META_REVISION, wanted.revision, there.revision),
        (META_COMPACT_SCHEDULED, wanted.compacted, there.compacted),
    ):
        if said != is_there:
            problem = f"{name.decode()} is {is_there}, the log says {said}"
            found.add(BACKEND, problem, table=META)


Difference = tuple[bytes, bytes | None, bytes | None]
"""(key, the value it should have, the value it has); None: there is no such row."""


def _differences(left: ReadTx, right: ReadTx, table: str) -> Iterator[tuple[int, list[Difference]]]:
    """Batch by batch: how many rows there were on the left, and what differs on the right."""
    at = b""
    while True:
        wanted, there = (tx.scan(table, at, limit=BATCH_ROWS) for tx in (left, right))
        if wanted == there:
            yield len(wanted), []
            if len(wanted) < BATCH_ROWS:
                return
            at = wanted[-1][0] + b"\0"
            continue
        ends = [rows[-1][0] for rows in (wanted, there) if len(rows) == BATCH_ROWS]
        horizon = min(ends, default=None)  # up to here both batches are complete
        ours, theirs = (
            {key: value for key, value in rows if horizon is None or key <= horizon}
            for rows in (wanted, there)
        )
        differing = [
            (key, ours.get(key), theirs.get(key))
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        yield len(ours), differing
        if horizon is None:
            return
        at = horizon + b"\0"


def _may_be_compacted(table: str, key: bytes, compacted: int) -> bool:
    """Whether a compaction deletes this row sooner or later."""
    if table not in (CHANGES, HISTORY) or len(key) < REVISION_BYTES:
        return False
    main: int = parse_revision(key[-REVISION_BYTES:])[0]
    return main <= compacted


def _report(table: str, key: bytes, wanted: bytes | None, there: bytes | None, found: Collector) -> None:
    user_key, revision = _place(table, key, wanted if wanted is not None else there or b"")
    if wanted is None:
        problem = "the row was never written"
    elif there is None:
        problem = "the row is missing"
    else:
        problem = f"the row has {len(there)} bytes that are not the {len(wanted)} that were written"
    found.add(BACKEND, problem, table=table, key=user_key, revision=revision)
    if revision:
        found.diverged(revision)


def _place(table: str, key: bytes, value: bytes) -> tuple[bytes, int]:
    """The (user key, revision) of a row, as far as it has them."""
    if table == CHANGES and len(key) == REVISION_BYTES:
        return value[1:], parse_revision(key)[0]
    if table == ATTACHMENT:
        return key[8:], 0
    if table not in (LATEST, HISTORY):
        return key, 0
    ended = 0
    if table == HISTORY and len(key) >= REVISION_BYTES:
        key, ended, _ = split_history_key(key)
    try:
        revision: int = row_mod_revision(value) or ended
        return key, revision
    except WireError:
        return key, ended
