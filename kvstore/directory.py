"""A data directory before anything in it is opened: making it, locking it, and refusing what is not a store."""

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
    """Make the data directory with its two folders. A directory with other things in it is not ours."""
    if directory.root.is_dir():
        strangers = sorted(set(os.listdir(directory.root)) - layout.OURS - layout.NOT_OURS)
        if strangers and not directory.snap.is_dir():
            raise NotAStore(
                f"{directory.root} is not empty and not a store (it contains {strangers[0]!r}): a new store takes an "
                "empty directory, or one that is not there yet",
                directory.root,
            )
    refuse_files(directory)
    refuse_links(directory)
    for path in (directory.root, directory.snap, directory.wal):
        if not path.is_dir():
            disk.make_dir(path)
            if path.parent == directory.root:
                hand_over(path)
            disk.sync_dir(path.parent)


def refuse_files(directory: DataDir) -> None:
    """Refuse what is there but is no directory, such as a snapshot."""
    root = directory.root
    if root.exists() and not root.is_dir():
        raise NotAStore(
            f"{root} is not a directory: a snapshot file is opened with kvstore.open_snapshot, and looked into with "
            "`kvstore inspect`",
            root,
        )


def refuse_links(directory: DataDir) -> None:
    """Refuse symbolic links: one could lead a write, here or in a backend, to a file outside the store."""
    if directory.root.is_dir() and not (directory.snap.exists() or directory.wal.exists()):
        return  # not a store, which is what is to be said of it
    for path in directory.links():
        raise NotAStore(f"{path} is a symbolic link", path)


def hold_still(directory: DataDir) -> Callable[[], None]:
    """Keep writers out while the files of a closed store are examined. Returns the call that ends that.

    If the lock file cannot be written (a read-only mount), it is locked as it is; if it cannot even be created, there
    was never a writer. Raises ``StoreLocked``.
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
    """Lock a store that is not open, for work on its files. Raises ``StoreLocked``; ``NotAStore`` for links."""
    refuse_links(directory)
    lock = StoreLock(directory)
    lock.acquire()
    return lock


def check_backend(directory: DataDir, kind: type[Backend]) -> None:
    """Refuse any backend but the one that the store is kept in."""
    there = backend_of(directory)
    if there is not None and there.name != kind.name:
        raise WrongStore(
            f"{directory.root} is a store on {there.name}, not on {kind.name}: open it with "
            f"backend={there.name!r}",
            directory.root,
        )


def check_format(backend: Backend, path: Path) -> Marks:
    """The marks of a backend whose rows are in our format.

    Raises ``TooNew`` or ``TooOld`` for another format, ``Corruption`` if the format mark is missing.
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
