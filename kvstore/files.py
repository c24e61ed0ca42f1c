"""The seam at the disk: everything that changes a file or a directory goes through here.

A ``Disk`` makes, renames, removes and syncs; a ``File`` writes, truncates and syncs. Reading
needs no seam (open and mmap are used directly). Tests put another ``Disk`` in its place:
one that records every call, cuts the power at the Nth, or fails it.

Rules that hold for every user of this module:

* a moment without descriptors is ``ResourceExhausted``, and nothing was touched;
* a write that raises leaves the file's state unknown: stop using it (never retry a sync);
* a created or renamed file is durable only after ``sync_dir`` of its directory;
* files are 0600 and directories 0700.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kvstore.errors import Corruption, DiskFull, ResourceExhausted

Path = str | os.PathLike[str]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def is_disk_failure(error: BaseException) -> bool:
    """Whether the disk failed: what is on it is unknown, or known to be damaged.

    Everything else that may end a write (no room, no memory, no thread or descriptor, a lock of somebody else's, an
    exception of the caller's) leaves the disk as it was, and the same write may be tried again.
    """
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _SCARCE
    return isinstance(error, Corruption)


class File(Protocol):
    """A file open for writing."""

    @property
    def path(self) -> str: ...

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset`` (bytes), or raise."""

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend the file; an extension reads as zeros."""

    def sync(self) -> None:
        """Make the data written so far durable (fdatasync)."""

    def close(self) -> None: ...


class Disk(Protocol):
    """What may change the file system.

    Raises ``DiskFull`` for ENOSPC, ``ResourceExhausted`` where there is no descriptor, ``OSError`` otherwise.
    """

    def create(self, path: Path, *, direct: bool = False) -> File:
        """A new, empty file; ``FileExistsError`` if it exists.

        ``direct``: write past the page cache, where the file system can. Each write but the last is then of whole
        blocks, from a buffer that begins where a page does.
        """

    def open(self, path: Path) -> File:
        """An existing file, for writing in place."""

    def rename(self, source: Path, target: Path) -> None:
        """Atomically put ``source`` in the place of ``target`` (same file system).

        A directory can only take the place of nothing, or of an empty directory.
        """

    def remove(self, path: Path) -> None:
        """Unlink a file; no error if it is gone already."""

    def make_dir(self, path: Path) -> None:
        """Make the directory and its missing parents; no error if it exists."""

    def remove_dir(self, path: Path) -> None:
        """Remove an empty directory; no error if it is gone already."""

    def sync_dir(self, path: Path) -> None:
        """Make the directory's entries durable."""

    def sync_file(self, path: Path) -> None:
        """Make durable a file that somebody else wrote (a backend's copy)."""


@contextmanager
def disk_full_is_typed() -> Iterator[None]:
    """Turn the operating system's "no room" into ``DiskFull``, its "no descriptors" into ``ResourceExhausted``."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(str(error)) from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceExhausted(str(error)) from error
        raise


class OSFile:
    """A real file."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: Path, flags: int) -> None:
        self._path = os.fspath(path)
        with disk_full_is_typed():
            self._fd = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @property
    def path(self) -> str:
        return self._path

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        try:
            written = os.pwrite(self._fd, data, offset)
            if written != len(data):
                self._pwrite_rest(memoryview(data)[written:], offset + written)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskFull(str(error)) from error
            raise

    def _pwrite_rest(self, rest: memoryview, offset: int) -> None:
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            if not written:
                raise OSError(errno.EIO, "short write", self._path)
            rest, offset = rest[written:], offset + written

    def truncate(self, size_bytes: int) -> None:
        with disk_full_is_typed():
            os.ftruncate(self._fd, size_bytes)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


BLOCK_BYTES = 4096


class DirectFile(OSFile):
    """A file whose writes go past the page cache, as long as they are of whole blocks."""

    __slots__ = ()

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        if len(data) % BLOCK_BYTES:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        super().pwrite(data, offset)


def is_direct(file: File) -> bool:
    """Whether what was written to ``file`` is on the disk, and not in the page cache."""
    return isinstance(file, DirectFile)


class OSDisk:
    """The real file system."""

    def create(self, path: Path, *, direct: bool = False) -> OSFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        if not direct:
            return OSFile(path, flags)
        try:
            return DirectFile(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        self.remove(path)  # some file systems make the file before they say that they cannot
        return OSFile(path, flags)

    def open(self, path: Path) -> OSFile:
        return OSFile(path, os.O_RDWR)

    def rename(self, source: Path, target: Path) -> None:
        with disk_full_is_typed():
            os.replace(source, target)

    def remove(self, path: Path) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def make_dir(self, path: Path) -> None:
        with disk_full_is_typed():
            os.makedirs(path, mode=0o700, exist_ok=True)

    def remove_dir(self, path: Path) -> None:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass

    def sync_dir(self, path: Path) -> None:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync_file(self, path: Path) -> None:
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    with disk_full_is_typed():
        fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the file system of ``path``."""
    return shutil.disk_usage(path).free


class FileLock:
    """An exclusive advisory lock (flock) on a file that names its holder.

    The kernel drops it when the process dies, so a stale file never blocks anybody. The holder's text is padded
    to ``HOLDER_BYTES``, so that one write covers the text of any holder before.
    """

    HOLDER_BYTES = 512

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._fd = -1

    def acquire(self, holder: bytes) -> bytes | None:
        """Take the lock and write ``holder`` into the file; else return the holder's text."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, self.HOLDER_BYTES, 0)
            os.close(fd)
            return text
        os.pwrite(fd, holder[: self.HOLDER_BYTES - 1].ljust(self.HOLDER_BYTES - 1) + b"\n", 0)
        self._fd = fd
        return None

    def release(self) -> None:
        """Give the lock back. The file stays: unlinking it would race with the next holder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
