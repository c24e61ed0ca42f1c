"""A damaged or missing backend at opening: replaced by a good one, if the log makes up the difference.

    the newest intact snapshot that the log continues, without a gap, to its end
    else an empty backend, if the log begins with the first entry: all of it is replayed
    else the damage stands: opening raises it

Everything is checked before anything is changed, and nothing is thrown away:

    1  db.tmp        the snapshot's copy, synced                         in a crash: removed, and started over
    2  db, db-*   -> db.broken, db.broken-*; the directory is synced     in a crash: db is missing, started over
    3  db.tmp     -> db; the directory is synced                         in a crash: one of the two

The side files of the damaged file (SQLite's log) move with it: applied to another file they would destroy it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend
from kvstore.errors import Corruption, KVStoreError, StateError
from kvstore.files import Disk, disk_full_is_typed
from kvstore.layout import DataDir
from kvstore.snapshot.reader import SnapshotInfo, read_info, verify
from kvstore.snapshot.transfer import copy_bytes
from kvstore.wal.replay import Replay

logger = logging.getLogger("kvstore")


def check_missing(directory: DataDir) -> Corruption | None:
    """The damage, if the backend file is missing and the log alone cannot make a new one."""
    if directory.db.exists() and directory.db.stat().st_size:
        return None
    segments = layout.segments(directory.wal)
    if segments and segments[0].index > 1:
        return Corruption(
            f"the backend is missing, and the log begins with entry {segments[0].index}", directory.db
        )
    if not segments and directory.snapshots():
        return Corruption("backend and log are gone; only snapshots are left: restore one", directory.db)
    return None


def replace_backend(directory: DataDir, kind: type[Backend], disk: Disk, damage: KVStoreError) -> None:
    """Replace the damaged backend by a good one (or by none, for the log to fill); otherwise raise ``damage``."""
    logger.error("%s cannot be opened: %s", directory.db, damage)
    base = newest_usable(directory, kind)
    if base is not None:
        disk.remove(directory.db_temp)
        copy_bytes(disk, base, directory.db_temp)
    elif not _log_goes_on_from(directory, 0):
        raise damage
    _set_aside(directory, disk)
    if base is not None:
        disk.rename(directory.db_temp, directory.db)
        disk.sync_dir(directory.snap)
    logger.warning(
        "%s was rebuilt from %s; the damaged file is kept as %s",
        directory.db,
        f"{base.path} (revision {base.revision}) and the log after it" if base else "the whole log",
        directory.db_broken,
    )


def _set_aside(directory: DataDir, disk: Disk) -> None:
    for path in layout.helpers(directory.db_broken):  # from earlier damage
        disk.remove(path)
    for path in layout.helpers(directory.db):
        disk.rename(path, path.with_name(path.name.replace(directory.db.name, directory.db_broken.name, 1)))
    if directory.db.exists():
        disk.rename(directory.db, directory.db_broken)
    disk.sync_dir(directory.snap)


def newest_usable(directory: DataDir, kind: type[Backend]) -> SnapshotInfo | None:
    """The newest intact snapshot of that kind that the log continues."""
    for file in reversed(directory.snapshots()):
        try:
            with disk_full_is_typed():
                info = read_info(file.path)
                if info.backend == kind.name and _log_goes_on_from(directory, info.index, info.cluster_id):
                    return verify(info.path)
        except StateError:  # it could not be read, but may well be good
            raise
        except (KVStoreError, OSError) as error:
            logger.warning("a snapshot cannot be used: %s", error)
    return None


def _log_goes_on_from(directory: DataDir, index: int, cluster_id: int = 0) -> bool:
    """Whether the log can be read from the entry after ``index`` to its end."""
    segments = layout.segments(directory.wal)
    if not segments or (cluster_id and segments[0].cluster_id != cluster_id):
        return False
    with suppress(KVStoreError):
        for _ in Replay(None, directory.wal, index, None).batches():
            pass
        return True
    return False


def memory_file(directory: DataDir, kind: type[Backend]) -> Path:
    """What a backend that keeps nothing on disk loads at open: the newest snapshot, if there is one."""
    base = newest_usable(directory, kind)
    return base.path if base is not None else directory.db
