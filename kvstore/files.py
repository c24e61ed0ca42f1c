"""The seam at the disk: everything that changes a file or a directory goes through here.

A ``Disk`` makes, renames, removes and syncs; a ``File`` writes, truncates and syncs. Reading
needs no seam (open and mmap are used directly). Tests replace it with a ``Disk`` that records
every call, cuts the power at the Nth, or fails it.

Rules that hold for every user of this module:

* running out of descriptors is ``NoDescriptor``, a path that this user may not use is ``StoreUnreachable``; nothing
  was touched then;
* a write that raises leaves the file's state unknown: stop using it (never retry a sync);
* a created or renamed file is durable only after ``sync_dir`` of its directory;
* files are 0600 and directories 0700.

Not every system has every call. Without ``O_DIRECT`` and ``posix_fadvise`` (macOS) data goes through the page cache;
where ``fsync`` only reaches the disk's own cache (macOS again), ``F_FULLFSYNC`` takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posix
import stat
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from kvstore.errors import DiskFailed, DiskFull, KVStoreError, NoDescriptor, StoreUnreachable

Path = str | os.PathLike[str]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_SCARCE = NO_DESCRIPTORS | {errno.ENOMEM, errno.EAGAIN}
DISK_FAILURES = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ENXIO", "ENODEV", "EREMOTEIO", "ESTALE", "EUCLEAN")
    if hasattr(errno, name)
)
"""The errno values for a disk or file system that does not work any more."""
OUT_OF_REACH = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""The errno values for a path that this user may not use, or not in this way."""


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
    """The operations that may change the file system.

    Raises ``DiskFull`` for ENOSPC, ``NoDescriptor`` if no file can be opened, ``StoreUnreachable`` if this user has no
    right to, ``OSError`` otherwise.
    """

    def create(self, path: Path, *, direct: bool = False) -> File:
        """A new, empty file; ``FileExistsError`` if it exists.

        ``direct``: write past the page cache, where the file system can. Each write but the last must then be
        of whole blocks, from a page-aligned buffer.
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
        """Make a file durable that something else wrote (a backend's copy)."""


def is_disk_failure(error: BaseException) -> bool:
    """Whether the operating system failed a call. After a write or sync that failed so, nothing is known.

    After other exceptions (no memory, or one raised by a signal handler, such as a ``TimeoutError`` without a number)
    it is open how far the call got, and it may be repeated. So may a call that was refused for lack of descriptors,
    memory or permission.
    """
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _SCARCE and not _is_out_of_reach(error)
    return isinstance(error, DiskFull)


@contextmanager
def disk_full_is_typed() -> Iterator[None]:
    """Turn the operating system's "no room" errors into ``DiskFull``, those of a dead disk into ``DiskFailed``, those
    for lack of descriptors into ``NoDescriptor``, and those for lack of permission into ``StoreUnreachable``.
    """
    try:
        yield
    except OSError as error:
        known = typed(error)
        if (
            known is error
        ):  # as its own cause it would stay, with all its frames, until the next garbage collection
            raise
        raise known from error


def typed(error: OSError) -> KVStoreError | OSError:
    """Our error for an error of the operating system, if there is one."""
    if error.errno in _NO_ROOM:
        return DiskFull(str(error))
    if error.errno in NO_DESCRIPTORS:
        return NoDescriptor(error.filename or "")
    if error.errno is not None and error.errno in DISK_FAILURES and not isinstance(error, KVStoreError):
        return DiskFailed(str(error), error.errno)
    if _is_out_of_reach(error):
        return unreachable(error.filename, error.errno or errno.EACCES)
    return error


def _is_out_of_reach(error: OSError) -> bool:
    """Whether this user may not use a path. (An error from an open file has no name.)"""
    return error.errno in OUT_OF_REACH and error.filename is not None


def unreachable(path: Path, number: int) -> StoreUnreachable:
    """The error for a path that this user may not use, from the system's errno."""
    if number == errno.EROFS:
        remedy = "mount it for writing, or open the store with read_only=True"
    else:
        remedy = f"give the user of this process (uid {os.geteuid()}) the right to read and write it"
    return StoreUnreachable(os.fsdecode(path), os.strerror(number), remedy)


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
            raise typed(error) from error

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
        try:
            _sync_data(self._fd)
        except OSError as error:
            raise typed(error) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


BLOCK_BYTES = 4096


class DirectFile(OSFile):
    """A file whose writes bypass the page cache, as long as they are whole blocks."""

    __slots__ = ()

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        if len(data) % BLOCK_BYTES:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        super().pwrite(data, offset)


def is_direct(file: File) -> bool:
    """Whether what was written to ``file`` is on the disk, not only in the page cache."""
    return isinstance(file, DirectFile)


class OSDisk:
    """The real file system."""

    def create(self, path: Path, *, direct: bool = False) -> OSFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        if not direct or not hasattr(os, "O_DIRECT"):
            return OSFile(path, flags)
        try:
            return DirectFile(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        self.remove(path)  # some file systems create the file before they report that they cannot
        return OSFile(path, flags)

    def open(self, path: Path) -> OSFile:
        return OSFile(path, os.O_RDWR)

    def rename(self, source: Path, target: Path) -> None:
        with disk_full_is_typed():
            os.replace(source, target)

    def remove(self, path: Path) -> None:
        with suppress(FileNotFoundError), disk_full_is_typed():
            os.unlink(path)

    def make_dir(self, path: Path) -> None:
        with disk_full_is_typed():
            os.makedirs(path, mode=0o700, exist_ok=True)

    def remove_dir(self, path: Path) -> None:
        with suppress(FileNotFoundError), disk_full_is_typed():
            os.rmdir(path)

    def sync_dir(self, path: Path) -> None:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync_file(self, path: Path) -> None:
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    with disk_full_is_typed():
        fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        _sync_all(fd)
    finally:
        os.close(fd)


F_FULLFSYNC: int = getattr(fcntl, "F_FULLFSYNC", 0)
"""The call, on systems that have it."""


def _full_sync(fd: int) -> None:
    """As far as the disk's medium. Where the file system cannot (a network's, mostly), as far as ``fsync`` goes."""
    try:
        fcntl.fcntl(fd, F_FULLFSYNC)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
            raise
        os.fsync(fd)


def _sync_data(fd: int) -> None:
    """Make the data of an open file durable, and of the rest of it what is needed to read that."""
    if F_FULLFSYNC:
        _full_sync(fd)
    else:
        os.fdatasync(fd)


def _sync_all(fd: int) -> None:
    """Make an open file or directory durable, its attributes too."""
    if F_FULLFSYNC:
        _full_sync(fd)
    else:
        os.fsync(fd)


def forget_cached(fd: int) -> None:
    """Have the page cache let go of a file, where the system can be asked to: the next read is from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def check_descriptors(count: int) -> None:
    """Raise ``NoDescriptor`` unless so many files can be opened now: before work that must not stop half way."""
    with disk_full_is_typed(), ExitStack() as opened:
        for _ in range(count):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def read_ahead(fd: int) -> None:
    """Say that a file will be read from beginning to end."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def hand_over(path: Path) -> None:
    """Give what root has created in another user's directory to that user: upkeep as root must not lock the owner out.

    Only for files that belong to root and are not links. Nothing is opened: closing a file would drop its locks.
    """
    if os.geteuid():
        return
    owner = os.stat(os.path.dirname(os.path.abspath(path)))
    made = os.lstat(path)
    is_file = stat.S_ISREG(made.st_mode) or stat.S_ISSOCK(made.st_mode)
    is_single = stat.S_ISDIR(made.st_mode) or (is_file and made.st_nlink == 1)
    if is_single and made.st_uid == 0 and (owner.st_uid, owner.st_gid) != (made.st_uid, made.st_gid):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def hand_over_all(folder: Path) -> None:
    """``hand_over`` for everything in a directory."""
    if os.geteuid() == 0:
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                hand_over(os.path.join(folder, name))


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the file system of ``path``."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


_NO_LOCKS_ON_FOLDERS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})


_locks: weakref.WeakSet[FolderLock | FileLock] = weakref.WeakSet()
"""All that were ever taken here."""


def _let_go_in_child() -> None:
    """A forked child has the parent's descriptors, and with them its locks, which would outlive the parent."""
    for lock in list(_locks):
        lock.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


def let_go(descriptor: int) -> None:
    """Give up a descriptor that a forked child has from its parent. Its number stays taken: it may be closed later."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


class FolderLock:
    """An exclusive advisory lock (flock) on a directory itself: unlike a lock file, it cannot be removed.

    Network file systems lock only what is open for writing, which a directory never is: there it locks nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._fd = -1

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock if it is free, or ``wait`` for it. Returns whether it was taken."""
        with disk_full_is_typed():
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _locks.add(self)
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in _NO_LOCKS_ON_FOLDERS:
                return True
            self.release()
            if isinstance(error, BlockingIOError):
                return False
            raise
        return True

    def let_go(self) -> None:
        """In a forked child: the lock is the parent's."""
        if self._fd >= 0:
            let_go(self._fd)

    def release(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)  # at once: gevent's os.close puts off closing what is no regular file
            self._fd = -1


class FileLock:
    """An exclusive advisory lock (flock) on a file that names its holder, and on the directory the file is in.

    The kernel drops it when the process dies, so a stale file never blocks anyone. If the file is removed, the lock on
    the directory remains; the file is for the holder's name, and for file systems that cannot lock directories.
    The holder's text is padded to ``HOLDER_BYTES``, so one write covers the text of any earlier holder.
    """

    HOLDER_BYTES = 512

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._folder = FolderLock(os.path.dirname(self._path) or ".")
        self._fd = -1
        self.before = b""
        """The previous holder's text, once the lock is acquired."""

    def acquire(self, holder: bytes) -> bytes | None:
        """Take the lock and write ``holder`` into the file; else return the holder's text (empty: unknown)."""
        try:
            if not self._folder.acquire():
                return self.read()
            self._fd = self._locked()
            if self._fd < 0:
                self._folder.release()
                return self.read()
            _locks.add(self)
            self.before = os.pread(self._fd, self.HOLDER_BYTES, 0)
            hand_over(self._path)
            self.write(holder)
        except BaseException:
            self.release()
            raise
        return None

    def _locked(self) -> int:
        """A locked descriptor of the file under this name; -1 if another process holds it."""
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                        return fd
            except BlockingIOError:
                os.close(fd)
                return -1
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # removed between the two calls

    def read(self) -> bytes:
        """The holder's text; empty if there is none."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(fd, self.HOLDER_BYTES, 0)
        finally:
            os.close(fd)

    def let_go(self) -> None:
        """In a forked child: the lock is the parent's."""
        if self._fd >= 0:
            let_go(self._fd)

    def write(self, holder: bytes) -> None:
        """Record the holder."""
        os.pwrite(self._fd, holder[: self.HOLDER_BYTES - 1].ljust(self.HOLDER_BYTES - 1) + b"\n", 0)

    def release(self) -> None:
        """Release the lock. The file stays: unlinking it would race with the next holder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._folder.release()
