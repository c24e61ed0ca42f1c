"""A data directory before anything in it is opened: made, locked, and refused where it is not what it should be."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend
from kvstore.errors import Corruption, NotAStore, StoreLocked, TooNew, TooOld, WrongStore
from kvstore.files import Disk, hand_over
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import FORMAT_VERSION, META
from kvstore.recognition import backend_of
from kvstore.store_lock import StoreLock


def make_directories(directory: DataDir, disk: Disk) -> None:
    """The data directory with its two folders. A directory with other things in it is not ours."""
    if directory.root.is_dir():
        known = {"LOCK", "wal", "snap"} | layout.NOT_OURS
        strangers = sorted(set(os.listdir(directory.root)) - known)
        if strangers and not directory.snap.is_dir():
            raise NotAStore(
                f"{directory.root} is not empty and not a store (it contains {strangers[0]!r})",
                directory.root,
            )
    elif directory.root.exists() and not directory.root.is_dir():  # not made by somebody in between
        raise NotAStore(f"{directory.root} is not a directory", directory.root)
    refuse_links(directory)
    for path in (directory.root, directory.snap, directory.wal):
        if not path.is_dir():
            disk.make_dir(path)
            if path.parent == directory.root:
                hand_over(path)
            disk.sync_dir(path.parent)


def refuse_links(directory: DataDir) -> None:
    """Nothing in a store is a link: it could lead a write, here or in a backend, to a file of somebody else."""
    for path in directory.links():
        raise NotAStore(f"{path} is a symbolic link", path)


def hold_still(directory: DataDir) -> Callable[[], None]:
    """Keep writers out while the files of a store that nobody has open are looked at; what ends that.

    Where the lock's file cannot be written (a mount that is read-only), it is locked as it is; where it cannot
    even be made, there was never a writer. Raises ``StoreLocked``.
    """
    try:
        return take_lock(directory).release
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
    try:
        fd = os.open(directory.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return lambda: None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreLocked(directory.root) from None
    return lambda: os.close(fd)


def take_lock(directory: DataDir) -> StoreLock:
    """For work on the files of a store that nobody has open. Raises ``StoreLocked``; ``NotAStore`` for links."""
    refuse_links(directory)
    lock = StoreLock(directory)
    lock.acquire()
    return lock


def check_backend(directory: DataDir, kind: type[Backend]) -> None:
    """Refuse another backend than the one that keeps the store."""
    there = backend_of(directory)
    if there is not None and there.name != kind.name:
        raise WrongStore(
            f"{directory.root} is a store on {there.name}, not on {kind.name}: open it with "
            f"backend={there.name!r}",
            directory.root,
        )


def check_format(backend: Backend, path: Path) -> Marks:
    """The marks of a backend whose rows are of our format.

    Raises ``TooNew`` or ``TooOld`` for another format, ``Corruption`` where the format is not told.
    """
    with backend.read() as tx:
        marks = Marks.read(tx)
        if marks.format is None and tx.scan(META, limit=1):
            raise Corruption("the format mark is missing from the backend", path)
    if marks.format is not None and marks.format > FORMAT_VERSION:
        raise TooNew(f"{path} has format {marks.format}; this version reads {FORMAT_VERSION}", path)
    if marks.format is not None and marks.format < FORMAT_VERSION:
        raise TooOld(f"{path} has format {marks.format}: see `kvstore migrate format`", path)
    return marks
