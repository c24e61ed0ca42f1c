"""Restore: a new data directory from a snapshot, and from the log after it up to any point.

    source    a snapshot file (ours, or of a kind that ``formats`` knows), or a data directory: then the best of its
              snapshots (``point``), or none if its log begins with the first entry
    log       the segments in the source directory and in any number of archives

The new store is a different store: it has its own cluster id, member id and log, which begins with the next entry.
With ``bump_revision`` N its revision is N higher and the past is marked as compacted, so that no revision means two
things to a watcher of the old store. The bump counts as an entry that is in no log, so that the log is not taken for
the whole history. Alarms are not restored.

It is built apart, and put in place when it is complete and synced (``building``). After a crash there is either no
store at that place, only a ``.restoring`` that the next restore removes, or all of it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from kvstore import layout
from kvstore.backend import (
    Backend,
    Progress,
    backend_names,
    check_closed,
    find_backend,
)
from kvstore.errors import Corruption, DiskFull, KVStoreError, NotAStore, OpenError, WrongStore
from kvstore.files import Disk, OSDisk, disk_full_is_typed, free_bytes
from kvstore.layout import DataDir
from kvstore.model import prefix_end
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    ALARM,
    FORMAT_VERSION,
    META,
    META_CARRIED,
    REVISION_END,
    TABLES,
)
from kvstore.mvcc.state import State
from kvstore.options import BadOption, Options, check_bounds
from kvstore.recognition import backend_of, leave_mark
from kvstore.replay import Point
from kvstore.snapshot import formats as opened
from kvstore.snapshot.building import building_directory, check_target
from kvstore.snapshot.point import choose_base, covers, replay_to
from kvstore.snapshot.reader import SnapshotInfo, read_info
from kvstore.snapshot.transfer import copy_bytes, copy_rows
from kvstore.snapshot.writer import write_snapshot
from kvstore.wal import Log
from kvstore.wal.archive import log_segments

TO_TIME_MAX = 1e12
"""Seconds: no clock goes further, and in milliseconds it fits 64 bits."""
KEPT_OPEN = 64
ATTEMPTS = 20
"""If another process writes the source, it may remove a file before that has been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStore:
    """The identity of the restored store. Zero or empty: random, or the default."""

    backend: str = ""
    """Empty: that of the source, or the default if that one cannot be written."""
    cluster_id: int = 0
    member_id: int = 0
    name: str = "default"
    bump_revision: int = 0
    mark_compacted: bool = False

    def check(self) -> None:
        Options(cluster_id=self.cluster_id, member_id=self.member_id, name=self.name)
        check_bounds("bump_revision", self.bump_revision, 0, REVISION_END)
        if bool(self.bump_revision) != self.mark_compacted:
            raise BadOption(
                "bump_revision and mark_compacted must be given together: one without the other hides a gap"
            )


class RestoreOptions(TypedDict, total=False):
    """The identity of the new store, as ``kvstore.restore`` takes it: the fields of ``NewStore``."""

    backend: str
    cluster_id: int
    member_id: int
    name: str
    bump_revision: int
    mark_compacted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored."""

    data_dir: Path
    """The new store's directory."""
    backend: str
    """Its backend."""
    base: Path | None
    """The snapshot it was made from; None if from the log alone."""
    index: int
    """The last entry of the log that is in it."""
    revision: int
    """Its newest revision."""
    compact_revision: int
    """The revision below which its past is gone."""
    cluster_id: int
    """Its cluster's id."""
    member_id: int
    """Its member's id."""


@dataclass(slots=True)
class Source:
    """What a store can be restored from."""

    path: Path
    snapshots: list[SnapshotInfo] = field(default_factory=list)
    segments: list[layout.NumberedFile] = field(default_factory=list)
    backend: str = ""

    @classmethod
    def at(cls, path: Path, archives: Sequence[Path]) -> Source:
        if not path.is_dir():
            info = opened.inspect(path, verified=False)
            backend = info.backend if info.backend in backend_names() else ""
            return cls(path, [info], log_segments(list(archives), info.cluster_id), backend)
        directory = DataDir.at(path)
        snapshots = list_snapshots(path)
        segments = log_segments([directory.wal, *archives], _cluster_of(directory, snapshots))
        if not segments and not snapshots:
            raise NotAStore(f"{path} has neither snapshots nor a log", path)
        there = backend_of(directory)
        backend = there.name if there else snapshots[-1].backend if snapshots else ""
        return cls(path, snapshots, segments, backend)

    def _too_far(self, point: Point) -> str:
        """Why nothing leads from the one snapshot to that point."""
        info = self.snapshots[0]
        holds = f"{self.path} holds revision {info.revision}"
        if 0 < point.revision < info.revision or 0 < point.time_ms < info.created_ms:
            return f"{holds} and is newer than the requested point: begin with an earlier snapshot"
        return f"{holds}, and the log after it is missing: name the folders that have it (archives=[...], --archive)"

    def base(self, point: Point) -> SnapshotInfo | None:
        """The snapshot to begin with; None to begin with the log's first entry."""
        usable = choose_base(self.snapshots, self.segments, point)
        if not self.path.is_dir():
            if usable or (self.snapshots and point == Point()):
                return self.snapshots[0]
            raise OpenError(self._too_far(point))
        for info in usable:
            with suppress(KVStoreError):
                return opened.inspect(info.path)
        if covers(self.segments, 0):
            return None
        raise OpenError(f"{self.path} has no good snapshot before that point that its log continues")


def _cluster_of(directory: DataDir, snapshots: list[SnapshotInfo]) -> int:
    """The cluster whose segments to look for in the archives; 0 if nothing says."""
    own = {file.cluster_id for file in layout.segments(directory.wal)}
    if len(own) > 1:
        raise WrongStore(f"{directory.wal} holds segments of {len(own)} stores", directory.wal)
    return own.pop() if own else snapshots[-1].cluster_id if snapshots else 0


@disk_full_is_typed()
def list_snapshots(data_dir: str | os.PathLike[str]) -> list[SnapshotInfo]:
    """The snapshots in a store's own folder whose manifests can be read, oldest first."""
    found = []
    for file in DataDir.at(data_dir).snapshots():
        with suppress(KVStoreError, FileNotFoundError):
            found.append(read_info(file.path))
    return found


@disk_full_is_typed()
def restore(
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    new: NewStore | None = None,
    *,
    archives: Sequence[str | os.PathLike[str]] = (),
    to_revision: int = 0,
    to_time: float = 0.0,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Restored:
    """Make the new data directory ``data_dir``; it must be absent or empty.

    ``archives``: folders with log segments. ``to_revision``, ``to_time`` (seconds since 1970): stop there.
    ``progress``: (done, total) bytes of the snapshot, then of the log after it. Raises ``NotAStore``, ``Corruption``,
    ``OpenError`` (the target exists; the point is not covered), ``DiskFull``, ``BadOption``.
    """
    new = new or NewStore()
    new.check()
    check_bounds("to_revision", to_revision, 0, REVISION_END)
    check_bounds("to_time", to_time, 0, TO_TIME_MAX)
    disk = disk or OSDisk()
    target = Path(os.path.abspath(data_dir))
    check_target(target)
    point = Point(to_revision, round(to_time * 1000))
    origin = Path(os.path.abspath(source))
    folders = [Path(os.path.abspath(archive)) for archive in archives]
    attempt = 1
    while True:
        there = _files(origin, folders)
        try:
            with _kept_open(Source.at(origin, folders)) as found:
                return _restore(found, target, new, point, progress, disk)
        except (Corruption, FileNotFoundError, OpenError):
            # a process that writes the source may have removed a segment or a snapshot meanwhile
            if attempt == ATTEMPTS or _files(origin, folders) == there:
                raise
        attempt += 1


@contextmanager
def _kept_open(source: Source) -> Iterator[Source]:
    """Keep the newest segments open from now on, so that a process that releases them takes nothing away."""
    kept = []
    try:
        for file in source.segments[-KEPT_OPEN:]:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            kept.append(replace(file, descriptor=descriptor))
        yield replace(source, segments=source.segments[:-KEPT_OPEN] + kept)
    finally:
        for file in kept:
            os.close(file.descriptor)


def _files(source: Path, folders: list[Path]) -> list[Path]:
    """The segments and snapshots available to restore from."""
    directory = DataDir.at(source)
    files = [file for folder in (directory.wal, *folders) for file in layout.archived(folder)]
    return [file.path for file in (*files, *directory.snapshots())]


def _restore(
    found: Source, target: Path, new: NewStore, point: Point, progress: Progress | None, disk: Disk
) -> Restored:
    base = found.base(point)
    kind = find_backend(new.backend or found.backend or Options().backend)
    with building_directory(disk, target) as directory:
        backend = _load(disk, directory, kind, base, progress)
        try:
            state = State(backend)
            replay_to(point, state, Lessor.loaded(backend), found.segments, progress)
            restored = _become(state, new, target, base)
            _keep(disk, directory, backend, restored)
        finally:
            backend.close()
        if backend.persistent:
            disk.sync_file(directory.db)
        for path in layout.helpers(directory.db):  # of the closed file, with nothing in them
            disk.remove(path)
        Log.create(
            disk,
            directory.wal,
            restored.cluster_id,
            restored.member_id,
            first_index=restored.index + 1,
            extra=new.name.encode(),
        ).close()
        for folder in (directory.snap, directory.wal, directory.root):
            disk.sync_dir(folder)
    return restored


# --- the content -------------------------------------------------------------------------


def _load(
    disk: Disk, directory: DataDir, kind: type[Backend], base: SnapshotInfo | None, progress: Progress | None
) -> Backend:
    """A backend in the new directory with the content of the snapshot."""
    if base is None:
        return kind.open(directory.db, TABLES)
    free = free_bytes(directory.root)
    if free < base.backend_bytes:
        raise DiskFull(f"the snapshot has {base.backend_bytes} bytes; {directory.root} has room for {free}")
    if base.backend == kind.name:
        copy_bytes(disk, base, directory.db, progress)
        check_closed(kind, directory.db)
        return kind.open(directory.db, TABLES)
    source = opened.open_any(opened.inspect(base.path).path)
    try:
        backend = kind.open(directory.db, TABLES)
        try:
            copy_rows(source, backend, progress)
        except BaseException:
            backend.close()
            raise
    finally:
        source.close()
    return backend


def _has_rows(backend: Backend) -> bool:
    """Whether there is anything in it but marks. If so, it has an index: a log from entry 1 on, as a file of another
    program begins it that has none, would be taken for all of the history."""
    with backend.read() as tx:
        tables = (table for table in TABLES if table != META)
        return any(tx.scan(table, limit=1) for table in tables) or bool(
            tx.scan(META, META_CARRIED, prefix_end(META_CARRIED), limit=1)
        )


def _become(state: State, new: NewStore, target: Path, base: SnapshotInfo | None) -> Restored:
    """Record the new store's identity, and its place in history."""
    cluster_id = new.cluster_id or random.getrandbits(63) + 1
    member_id = new.member_id or random.getrandbits(63) + 1
    index = state.index or int(_has_rows(state.backend))
    revision, compacted = state.head, state.head_compacted
    if new.bump_revision:
        index += 1
        revision = compacted = revision + new.bump_revision
        if revision > REVISION_END // 2:
            raise BadOption(
                f"bump_revision must leave room for further revisions: with {new.bump_revision} the new store would "
                f"begin at {revision}, and at most {REVISION_END // 2} is allowed"
            )
    marks = Marks(
        format=FORMAT_VERSION,
        cluster_id=cluster_id,
        member_id=member_id,
        name=new.name,
        applied_index=index,
        revision=revision,
        compacted=compacted,
    )
    with state.backend.write() as tx:
        tx.put_many(META, marks.rows())
        tx.delete_many(ALARM, [key for key, _ in tx.scan(ALARM)])
    return Restored(
        data_dir=target,
        backend=state.backend.name,
        base=base.path if base else None,
        index=index,
        revision=revision,
        compact_revision=compacted,
        cluster_id=cluster_id,
        member_id=member_id,
    )


def _keep(disk: Disk, directory: DataDir, backend: Backend, restored: Restored) -> None:
    """Make the content durable. For a backend that keeps nothing on disk, as a snapshot, which is what it opens."""
    if backend.persistent:
        backend.sync()
        return
    path = directory.snapshot(restored.cluster_id, restored.index)
    write_snapshot(disk, backend, path, time.time_ns() // 1_000_000)
    disk.remove(directory.db)
    leave_mark(directory, type(backend), disk)
