"""Verifying a data directory or a snapshot file.

    the store is closed          the lock is held meanwhile, so nothing changes during the check
    another process has it open  read-only, beside it: one commit of the backend, and the log up to there

A damaged file must not bring down the process that looks for damage: if a backend maps its file, the pages are
checked with plain reads first, and a file that fails is not opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore import layout, readers
from kvstore.backend import Backend, check_closed, find_backend
from kvstore.directory import hold_still
from kvstore.errors import NotAStore, StoreLocked
from kvstore.files import OSDisk, disk_full_is_typed
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import TABLES
from kvstore.options import Options
from kvstore.recognition import backend_of
from kvstore.snapshot import rescue
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.verification.deep import Sources, check_deep
from kvstore.verification.log import LogFacts, check_log
from kvstore.verification.report import AHEAD, BACKEND, DAMAGE, LOG, Collector, Report, Steps
from kvstore.verification.small import newer_format, read_marks
from kvstore.verification.snapshots import check_snapshot, check_snapshots, check_tables

AnyPath = str | os.PathLike[str]


@disk_full_is_typed()
def verify(
    path: AnyPath,
    *,
    deep: bool = False,
    options: Options | None = None,
    scratch_dir: AnyPath | None = None,
    progress: Steps | None = None,
) -> Report:
    """Check everything in a data directory or a snapshot file. The store is not changed.

    ``deep``: also rebuild the backend from snapshot and log (in ``scratch_dir``, or beside the live one), and
    compare every row. Damage is reported, not raised. Raises ``NotAStore``, ``TooNew``, ``DiskFull``, and
    ``StoreLocked`` if this process itself has the store open.
    """
    found = Collector(progress)
    path = Path(path)
    if path.is_file():
        check_snapshot(path, found, with_tables=True)
        return found.report(path)
    options = options or Options()
    directory = DataDir.at(path, options.wal_dir or None)
    if not directory.snap.is_dir() and not layout.segments(directory.wal):
        raise NotAStore(f"{path} is not a store", path)
    scratch = Path(os.path.abspath(scratch_dir or directory.snap))
    with _lock_if_free(directory) as is_locked:
        _check_store(directory, options, found, deep, scratch, is_live=not is_locked)
    return found.report(path)


@contextmanager
def _lock_if_free(directory: DataDir) -> Iterator[bool]:
    """Hold the store's lock if it is free. Yields whether it is held."""
    try:
        release = hold_still(directory)
    except StoreLocked as held:
        if held.pid == os.getpid() or not readers.ARE_SEEN:
            raise  # opening and closing its files again could drop the first handle's locks; or nobody would see us
        yield False
        return
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        release()


def _check_store(
    directory: DataDir, options: Options, found: Collector, deep: bool, scratch_dir: Path, *, is_live: bool
) -> None:
    if is_live:
        found.notes.append("the store is open elsewhere: what is durable at this moment was checked")
    log = check_log(directory.wal, found, is_live=is_live)
    snapshots = check_snapshots(directory, found, with_tables=deep)
    is_newer = False
    with _opened(directory, options, found, is_live=is_live) as backend:
        if backend is not None:
            check_tables(backend, found)
            with backend.read() as tx:
                marks, is_newer = read_marks(tx), bool(newer_format(tx))
                if is_live and log is not None and log.is_sound and marks.applied_index > log.last_index:
                    log = check_log(directory.wal, Collector(), is_live=True)  # it has grown since
                _check_against_log(marks, log, directory, found)
                if deep:
                    folders = [directory.wal, *([Path(options.archive_dir)] if options.archive_dir else [])]
                    sources = Sources(snapshots, folders)
                    check_deep(type(backend), tx, sources, scratch_dir, OSDisk(), found)
    if is_newer:
        found.notes.append(
            "a newer version wrote the store, or that mark alone is damaged: it is left alone; a version that reads "
            "the format can verify and heal it"
        )
    else:
        _note_what_can_heal(log, snapshots, found)


# --- the backend -------------------------------------------------------------------------


@contextmanager
def _opened(
    directory: DataDir, options: Options, found: Collector, *, is_live: bool
) -> Iterator[Backend | None]:
    """The backend, with its own structure checked; None if it cannot be opened, which is reported."""
    kind = kind_of(directory, options)
    if not kind.persistent or not (directory.db.exists() and directory.db.stat().st_size):
        _report_absent(directory, kind, found)
        yield None
        return
    backend: Backend | None = None
    try:
        if not is_live:
            check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
        backend.check(lambda done, total: found.step("backend", done, total))
    except BaseException as error:
        if backend is not None:
            backend.close()
        if not isinstance(error, DAMAGE):
            raise
        found.add_error(BACKEND, error, directory.db)
        yield None
        return
    try:
        yield backend
    finally:
        backend.close()


def kind_of(directory: DataDir, options: Options) -> type[Backend]:
    """The store's backend: the one that its files name, otherwise the option's."""
    return backend_of(directory) or find_backend(options.backend)


def _report_absent(directory: DataDir, kind: type[Backend], found: Collector) -> None:
    missing = rescue.check_missing(directory) if kind.persistent else None
    if missing is not None:
        found.add_error(BACKEND, missing)
    elif not kind.persistent:
        found.notes.append("the backend keeps nothing on disk: snapshots and log are all there is")
    else:
        found.notes.append("there is no backend yet: the next opening builds it from the log")


def _check_against_log(marks: Marks, log: LogFacts | None, directory: DataDir, found: Collector) -> None:
    if log is None:
        if marks.applied_index:
            found.add(
                LOG,
                f"the log is gone, but the backend has {marks.applied_index} entries of it",
                path=directory.wal,
            )
        return
    for what, ours, theirs in (
        ("cluster", log.cluster_id, marks.cluster_id),
        ("member", log.member_id, marks.member_id),
    ):
        if ours and theirs and ours != theirs:
            problem = f"the log of {what} {ours:016x} lies beside a backend of {theirs:016x}"
            found.add(LOG, problem, path=directory.wal)
    if marks.applied_index < log.first_index - 1:
        problem = f"entries {marks.applied_index + 1} to {log.first_index - 1} are in neither the backend nor the log"
        found.add(LOG, problem, path=directory.wal)
    elif log.is_sound and marks.applied_index > log.last_index:
        problem = (
            f"the log ends with entry {log.last_index}, the backend has entries up to {marks.applied_index}"
        )
        found.add(AHEAD, problem, path=directory.wal)


def _note_what_can_heal(log: LogFacts | None, snapshots: list[SnapshotInfo], found: Collector) -> None:
    areas = {finding.area for finding in found.findings}
    if areas == {AHEAD}:
        found.notes.append(
            "the backend is whole and holds all that the log does: kvstore verify --heal starts a new log after it"
        )
    if LOG in areas and BACKEND not in areas:
        found.notes.append(
            "the backend is whole: kvstore verify --heal puts the log right if the backend, or a snapshot, makes up "
            "for what is missing; kvstore wal repair says what is lost otherwise"
        )
    if log is None or not log.is_sound or BACKEND not in areas:
        return
    if log.first_index == 1 or any(info.index + 1 >= log.first_index for info in snapshots):
        found.notes.append("the backend can be rebuilt from snapshot and log: kvstore verify --heal")
