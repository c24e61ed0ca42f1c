"""Moving a store between backends: the same rows in another file, then a swap.

    snap/db (LMDB) --rows, table by table, verified by HashKV--> snap/db.tmp (SQLite) --rename--> snap/db

The log stays as it is, because the applied index is a row like any other. After a crash the store is either on the old
backend, with a temporary file that the next opening removes, or on the new one. Snapshots stay as they are: each names
its backend.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, Progress, find_backend
from kvstore.directory import take_lock
from kvstore.errors import Corruption, DiskFull, NotAStore, OpenError
from kvstore.files import Disk, OSDisk, disk_full_is_typed, free_bytes
from kvstore.held import HeldDisk
from kvstore.layout import DataDir
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from kvstore.options import BadOption, Options
from kvstore.recognition import backend_of
from kvstore.recovery import open_engine
from kvstore.snapshot.transfer import copy_rows


@dataclass(frozen=True, slots=True)
class Moved:
    data_dir: Path
    old_backend: str
    new_backend: str
    revision: int
    hash: int
    """HashKV at that revision, the same on both."""
    old_bytes: int
    new_bytes: int


@disk_full_is_typed()
def move_backend(
    data_dir: str | os.PathLike[str],
    backend: str,
    *,
    wal_dir: str | os.PathLike[str] = "",
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Moved:
    """``wal_dir``: the log directory, as at opening.

    Raises ``StoreLocked``, ``NotAStore``, ``BadOption``, ``DiskFull``, ``Corruption``.
    """
    disk = disk or OSDisk()
    directory = DataDir.at(data_dir, wal_dir)
    old, new = _kind_at(directory), find_backend(backend)
    if not (old.persistent and new.persistent) or old.name == new.name:
        raise BadOption(
            f"a store on {old.name} cannot be moved to {new.name}: use `kvstore snapshot restore` to make a new store"
        )
    if not layout.segments(directory.wal):
        raise OpenError(f"{directory.wal} holds no log; if it is elsewhere, set the option wal_dir")
    options = Options(backend=old.name, background=False, wal_dir=os.fspath(wal_dir or ""))
    open_engine(directory.root, options, disk).close()
    lock = take_lock(directory)
    try:
        return _move(HeldDisk(disk, directory), directory, old, new, progress)
    finally:
        lock.release()


def _kind_at(directory: DataDir) -> type[Backend]:
    kind = backend_of(directory)
    if kind is None:
        raise NotAStore(f"{directory.root} holds no store with a backend file", directory.root)
    return kind


def _move(
    disk: Disk, directory: DataDir, old: type[Backend], new: type[Backend], progress: Progress | None
) -> Moved:
    for path in layout.temporaries(directory.snap):
        disk.remove(path)
    try:
        moved = _copy(directory, old, new, progress)
        disk.sync_file(directory.db_temp)
        for path in (*layout.helpers(directory.db), *layout.helpers(directory.db_temp)):
            disk.remove(path)  # side files of closed backends: they hold nothing
        disk.sync_dir(directory.snap)
        disk.rename(directory.db_temp, directory.db)
        disk.sync_dir(directory.snap)
    except BaseException:
        for path in layout.temporaries(directory.snap):
            disk.remove(path)
        raise
    return moved


def _copy(directory: DataDir, old: type[Backend], new: type[Backend], progress: Progress | None) -> Moved:
    source = old.open(directory.db, TABLES)
    try:
        needed, free = source.in_use_bytes(), free_bytes(directory.snap)
        if free < needed:
            raise DiskFull(f"moving needs about {needed} bytes; {directory.snap} has room for {free}")
        target = new.open(directory.db_temp, TABLES)
        try:
            copy_rows(source, target, progress)
            target.sync()
            revision, hashed = _compare(source, target, directory)
            return Moved(
                directory.root,
                old.name,
                new.name,
                revision,
                hashed,
                source.size_bytes(),
                target.size_bytes(),
            )
        finally:
            target.close()
    finally:
        source.close()


def _compare(source: Backend, target: Backend, directory: DataDir) -> tuple[int, int]:
    """(revision, HashKV) of both. Every row of every table was copied; this checks what can be read from them."""
    before, after = State(source), State(target)
    hashes = []
    for state in (before, after):
        oldest = max(state.head_compacted, 1)
        hashes.append({at: hash_kv(state, at, state.head_compacted) for at in (oldest, state.head)})
    if hashes[0] != hashes[1] or before.head != after.head:
        raise Corruption("HashKV differs after moving", directory.db_temp, last_good_revision=before.head)
    return before.head, hashes[0][before.head]
