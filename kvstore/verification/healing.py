"""Healing a store that verification found damaged. Nothing is thrown away: what is replaced is set aside.

    the backend is damaged     it is rebuilt from a snapshot and the log after it, or the whole log (snapshot/rescue.py)
    it is ahead of its log     it is sound, and the log ends before it: the log was cut, or entries never reached it.
                               The backend has everything that is left, so it stays; a new log begins after it
                               (wal/restart.py)

A backend that is ahead and damaged is rebuilt too; what only it held is lost then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, check_closed
from kvstore.directory import take_lock
from kvstore.errors import Corruption, KVStoreError, NotAStore, OpenError
from kvstore.files import Disk, OSDisk, disk_full_is_typed
from kvstore.held import HeldDisk
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import TABLES
from kvstore.options import Options
from kvstore.snapshot import rescue
from kvstore.verification.log import check_log
from kvstore.verification.report import Collector
from kvstore.verification.run import kind_of
from kvstore.verification.small import read_marks
from kvstore.verification.snapshots import check_tables
from kvstore.wal.restart import begin_anew


@dataclass(frozen=True, slots=True)
class Healed:
    """What was done."""

    what: str
    """In a sentence, with what it cost."""
    aside: tuple[Path, ...]
    """The files that were replaced, where they are now."""


@disk_full_is_typed()
def heal(
    data_dir: str | os.PathLike[str], *, options: Options | None = None, disk: Disk | None = None
) -> Healed:
    """Put a damaged backend, or a log that ends before its backend, right; the next opening replays the log.

    The store must not be open. Raises ``Corruption``, and has changed nothing, where what is left does not suffice.
    """
    options = options or Options()
    directory = DataDir.at(data_dir, options.wal_dir or None)
    if not directory.snap.is_dir():
        raise NotAStore(f"{directory.root} is not a store", directory.root)
    lock = take_lock(directory)
    try:
        kind, held = kind_of(directory, options), HeldDisk(disk or OSDisk(), directory)
        if not kind.persistent:
            raise OpenError(
                f"{directory.root} is a store on {kind.name}, which has no file to heal", directory.root
            )
        ahead = _sound_and_ahead(directory, kind)
        if ahead is not None:
            return _begin_log_anew(held, directory, *ahead)
        damage = Corruption("the backend cannot be rebuilt: neither snapshots nor log suffice", directory.db)
        rescue.replace_backend(directory, kind, held, damage)
    finally:
        lock.release()
    return Healed(
        f"the backend is rebuilt; the damaged one is now {directory.db_broken}", (directory.db_broken,)
    )


def _sound_and_ahead(directory: DataDir, kind: type[Backend]) -> tuple[Marks, int] | None:
    """What a whole backend says of itself, and the last entry of a whole log, where that is an earlier one."""
    log = check_log(directory.wal, Collector(), is_live=False)
    if log is None or not log.is_sound or not (directory.db.is_file() and directory.db.stat().st_size):
        return None
    try:
        check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
    except KVStoreError:
        return None
    try:
        with backend.read() as tx:
            marks = read_marks(tx)
        if marks.applied_index <= log.last_index or marks.cluster_id != log.cluster_id:
            return None
        found = Collector()
        backend.check()
        check_tables(backend, found)
        return None if found.total else (marks, log.last_index)
    except KVStoreError:
        return None
    finally:
        backend.close()


def _begin_log_anew(disk: Disk, directory: DataDir, marks: Marks, last_index: int) -> Healed:
    old = [str(file.path) + layout.BROKEN_SUFFIX for file in layout.segments(directory.wal)]
    begin_anew(disk, directory.wal, marks.applied_index, marks.cluster_id, marks.member_id)
    return Healed(
        f"the log ended with entry {last_index}; a new one begins after entry {marks.applied_index}, up to which the "
        f"backend has everything (revision {marks.revision}), so nothing is lost. Older snapshots and archives "
        "cannot be continued with the new log: take a snapshot now",
        tuple(map(Path, old)),
    )
