"""Where a new data directory is built, and how it gets its place: complete, or not at all.

    the target is absent             built in <target>.restoring beside it, and renamed
    it is there, and empty           built in <target>/.restoring inside it: it may be a mount point, or be in a
                                     directory that may not be written. Then ``wal`` moves up, and ``snap`` after it

After a crash nothing has the name of a store: the target is absent, or has a ``.restoring`` and no ``snap``, which
opening refuses. The next restore removes what is left. (A crash after ``snap`` has moved leaves the complete store,
perhaps with an empty ``.restoring`` in it.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvstore import layout
from kvstore.errors import KVStoreError, OpenError, StoreLocked, WrongStore
from kvstore.files import Disk, FileLock, FolderLock, hand_over, hand_over_all
from kvstore.layout import DataDir


def check_target(target: Path) -> None:
    """Raise ``WrongStore`` unless ``target`` is absent, or a directory with nothing but the remains of a restore."""
    if not os.path.lexists(target):
        if not target.parent.is_dir():
            raise FileNotFoundError(2, "no such directory", os.fspath(target.parent))
        return
    if not target.is_dir() or target.is_symlink() or not _is_empty(target):
        raise WrongStore(f"{target} exists; nothing is restored over it", target)


def _is_empty(target: Path) -> bool:
    names = set(os.listdir(target)) - layout.NOT_OURS
    inside = layout.building_inside(target).name
    return not names or (inside in names and names <= {inside, DataDir.at(target).wal.name})


@contextmanager
def building_directory(disk: Disk, target: Path) -> Iterator[DataDir]:
    """A directory to build in. Its content becomes ``target`` on success, and is removed otherwise."""
    if target.is_symlink():
        raise OpenError(f"{target} is a symbolic link", target)
    if target.is_dir():
        with _inside(disk, target) as directory:
            yield directory
        return
    with _built_in(disk, layout.building(target)) as directory:
        yield directory
        _finish(disk, directory)
        disk.rename(directory.root, target)
        disk.sync_dir(target.parent)


@contextmanager
def _inside(disk: Disk, target: Path) -> Iterator[DataDir]:
    lock = FolderLock(target)
    if not lock.acquire():
        raise StoreLocked(target)
    try:
        place = DataDir(target, target / "wal")
        if place.snap.exists():
            raise WrongStore(f"{target} exists; nothing is restored over it", target)
        with _built_in(disk, layout.building_inside(target), place) as directory:
            yield directory
            _finish(disk, directory)
            for folder, final in ((directory.wal, place.wal), (directory.snap, place.snap)):
                disk.rename(folder, final)
                disk.sync_dir(target)
            disk.remove_dir(directory.root)
    finally:
        lock.release()


@contextmanager
def _built_in(disk: Disk, root: Path, place: DataDir | None = None) -> Iterator[DataDir]:
    """An empty data directory ``root``, locked. If the work fails, it and the log's ``place`` are emptied again."""
    directory = DataDir(root, root / "wal")
    for link in [
        path for path in (root, *([place.wal] if place else [])) if path.is_symlink()
    ] + directory.links():
        raise OpenError(f"{link} is a symbolic link", link)
    disk.make_dir(directory.root)
    hand_over(directory.root)
    lock = FileLock(directory.lock)
    if lock.acquire(b"restore") is not None:
        raise StoreLocked(directory.root)
    try:
        _empty(disk, directory, place)
        disk.make_dir(directory.snap)
        disk.make_dir(directory.wal)
        yield directory
    except BaseException:
        with suppress(OSError, KVStoreError):
            _empty(disk, directory, place)
            disk.remove(directory.lock)
            disk.remove_dir(directory.root)
        raise
    finally:
        lock.release()


def _finish(disk: Disk, directory: DataDir) -> None:
    """Give the files, complete and synced, to the owner of the directory."""
    disk.remove(directory.lock)
    for folder in (directory.root, directory.snap, directory.wal):
        hand_over_all(folder)


def _empty(disk: Disk, directory: DataDir, place: DataDir | None) -> None:
    """Remove what an earlier attempt has made."""
    for folder in (
        directory.snap,
        directory.wal,
        *([place.wal] if place and not place.snap.exists() else []),
    ):
        if folder.is_dir():
            for name in sorted(os.listdir(folder)):
                disk.remove(folder / name)
            disk.remove_dir(folder)
