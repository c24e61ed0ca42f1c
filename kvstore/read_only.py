"""Opening for reading only: what is durable now, backend plus log, without a lock and without changing a byte.

Meanwhile another process may write the store: release log segments, replace the backend's file, write the very record
that is being read. A look that meets such a thing is made again; real damage is still there at the next one. The same
look is taken by a handle that moves (following.py) when the log does not continue where the handle is.

Where a writer could not see this reader (``readers.ARE_SEEN``), the store's lock is held after all, and one that is
open elsewhere is refused.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kvstore import layout, readers
from kvstore.backend import Backend, find_backend
from kvstore.clock import Clock
from kvstore.core import ReadCore
from kvstore.directory import check_backend, check_format, hold_still, refuse_files, refuse_links
from kvstore.errors import Corruption, NotAStore
from kvstore.files import Disk
from kvstore.following import FileId, Following, Look, file_id, sync_log
from kvstore.layout import DataDir
from kvstore.life import Life, Phase
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from kvstore.options import Options
from kvstore.reads import ReadEngine
from kvstore.replay import apply_log
from kvstore.store_lock import StoreLock
from kvstore.wal.format import Mark
from kvstore.wal.replay import Replay


def open_read_only(directory: DataDir, options: Options, disk: Disk) -> ReadEngine:
    """A handle of what is durable now, which moves as ``Options.refresh_interval_seconds`` says."""
    if readers.ARE_SEEN:
        return _opened(directory, options, disk)
    release = hold_still(directory)
    try:
        engine = _opened(directory, options, disk)
    except BaseException:
        release()
        raise
    engine.lock = release
    return engine


def _opened(directory: DataDir, options: Options, disk: Disk) -> ReadEngine:
    refuse_files(directory)
    found = _look(directory, options, disk, None)
    try:
        metadata = found.replay.metadata
        assert metadata is not None  # a replay that has come to its end has read a segment
        core = ReadCore(
            options=options,
            disk=disk,
            directory=directory,
            state=found.state,
            lessor=found.lessor,
            cluster_id=metadata.cluster_id,
            member_id=metadata.member_id,
            clock=Clock(options.clock),
            life=Life(Phase.READ_ONLY),
        )
        following = Following(core, directory, found, partial(_look, directory, options, disk))
        engine = _read_engine(core, following)
        following.begin()
    except BaseException:
        found.state.backend.close()
        raise
    return engine


def _look(directory: DataDir, options: Options, disk: Disk, before: Look | None) -> Look:
    """What there is now. A backend that still has its place since the look ``before`` is not opened again."""
    said = ""
    while True:
        segments = layout.segments(directory.wal)
        try:
            return _look_once(directory, options, disk, before)
        except (Corruption, FileNotFoundError) as error:
            if str(error) == said and layout.segments(directory.wal) == segments:
                raise
            said = str(error)


def _look_once(directory: DataDir, options: Options, disk: Disk, before: Look | None) -> Look:
    refuse_links(directory)
    file = file_id(directory.db) if find_backend(options.backend).persistent else None
    if before is not None and file is not None and file == before.file:
        return _state_of(directory, disk, before.state.backend, file)
    _check_known(directory, find_backend(options.backend))
    backend = _open_backend(directory, options)
    try:
        if file is not None and file_id(directory.db) != file:
            raise FileNotFoundError(2, "another file has taken its place", str(directory.db))
        return _state_of(directory, disk, backend, file)
    except BaseException:
        backend.close()
        raise


def _state_of(directory: DataDir, disk: Disk, backend: Backend, file: FileId | None) -> Look:
    marks = check_format(backend, directory.db)
    state = State(backend, marks=marks, written_elsewhere=file is not None)
    lessor = Lessor.loaded(backend)
    replay = Replay(None, directory.wal, state.applied_index, Mark.decode(marks.log_mark))
    apply_log(replay.batches(), state, lessor)
    if state.index != state.applied_index:
        sync_log(disk, directory.wal)
    state.publish(state.head, state.head_compacted)
    return Look(state, lessor, replay, file)


def _check_known(directory: DataDir, kind: type[Backend]) -> None:
    """Check a backend that may be a copy, if no process writes it: a writer has checked it when it opened the store."""
    said = StoreLock.said(directory)
    if not said.place or not kind.persistent or not directory.db.is_file():
        return
    if said.is_known(directory) or StoreLock.is_held(directory) or StoreLock.said(directory) != said:
        return
    from kvstore.verification.copied import check_copied

    check_backend(directory, kind)
    check_copied(directory, kind)


def _open_backend(directory: DataDir, options: Options) -> Backend:
    """The backend's file, or one in memory if there is none: the snapshot and the log have everything."""
    kind = find_backend(options.backend)
    check_backend(directory, kind)
    if not kind.persistent:
        return kind.open(_memory_file(directory, kind), TABLES)
    if directory.db.is_file():
        return kind.open(directory.db, TABLES, read_only=True)
    if not layout.segments(directory.wal):
        why = "it has no log" if directory.root.is_dir() else "there is no such directory"
        raise NotAStore(f"{directory.root} is not a store: {why}", directory.root)
    kind = find_backend("memory")
    return kind.open(_memory_file(directory, kind), TABLES)


def _memory_file(directory: DataDir, kind: type[Backend]) -> Path:
    from kvstore.snapshot.rescue import memory_file  # not loaded where there is a backend's file

    return memory_file(directory, kind)


def _read_engine(core: ReadCore, following: Following) -> ReadEngine:
    if not core.options.metrics:
        return ReadEngine(core, following)
    from kvstore.observe.measuring import MeasuredReadEngine

    return MeasuredReadEngine(core, following)
