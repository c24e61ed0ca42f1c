"""Which other processes read a backend's file: locks on its directory, kept by the kernel.

A lock on a byte of an open directory changes nothing on the disk. It can be taken on a read-only mount, it ends with
the process, however that ends, and it means the same in every pid namespace. Readers take shared locks, so none waits
for another; the writer only asks which bytes are locked:

    commit << 22 | pid       a view of that commit of the backend, or of a later one
    HANDLE | pid             a handle that has the file open
    FROZEN | pid             a handle that reads the file as if it were never written
    WRITER | pid             the process that writes the file (FROZEN handles ask for it)

The pid is that of the reader's own namespace, and only for display. Each lock belongs to a descriptor
of its own ("open file description" locks), so closing other descriptors of the same folder does not release it.
A forked child has the descriptors too: it gives them up, and so neither keeps its parent's locks nor releases them.

Only Linux is known to have such locks (``ARE_SEEN``). Elsewhere one process at a time has a store open, for reading or
for writing, so there is none to be seen.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kvstore.errors import OpenError
from kvstore.files import let_go

PID_BITS = 22
HANDLE = 1 << 62
FROZEN = HANDLE + (1 << PID_BITS)
WRITER = FROZEN + (1 << PID_BITS)
_END = WRITER + (1 << PID_BITS)

_LOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid

ARE_SEEN = hasattr(fcntl, "F_OFD_SETLK")
"""Whether a writer can see readers in other processes."""


class ReadCommit(NamedTuple):
    """A view in another process. ``commit``: the backend's number of the commit it reads, or a lower one."""

    commit: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForeignReader:
    """A process that has the store's backend open, and what it keeps from being reused."""

    pid: int
    """The pid in its own pid namespace."""
    commits_behind: int
    """How many commits are newer than the oldest one it is reading now; -1: it is reading none."""


class ByteLock:
    """A lock on at most one byte of a directory, and the descriptor it belongs to. Released with the object."""

    __slots__ = ("__weakref__", "_byte", "_fd")

    def __init__(self, folder: Path) -> None:
        self._fd = self._byte = -1
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _locks.add(self)

    def take(self, byte: int) -> None:
        """Lock ``byte``, then release the previous one. Raises ``OpenError`` if folders cannot be locked."""
        if byte == self._byte or not ARE_SEEN:
            return
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        except OSError as error:
            raise OpenError(
                f"directories of this file system cannot be locked ({error.strerror}), so a reader would not be safe "
                "from the writer: take a snapshot and open that"
            ) from error
        self.release()
        self._byte = byte

    def release(self) -> None:
        byte, self._byte = self._byte, -1
        if byte >= 0:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))

    def let_go(self) -> None:
        """In a forked child: the lock is the parent's."""
        self._byte = -1
        if self._fd >= 0:
            let_go(self._fd)

    def close(self) -> None:
        fd, self._fd, self._byte = self._fd, -1, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


_locks: weakref.WeakSet[ByteLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_locks):
        lock.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


class Readers:
    """The locks of other processes on a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = ByteLock(folder)

    def oldest(self) -> int | None:
        """The lowest commit that a view in another process may be reading; None if there are no views."""
        byte = self._lowest(0, HANDLE)
        return None if byte is None else byte >> PID_BITS

    def commits(self) -> list[ReadCommit]:
        """The views in other processes, oldest first; several of one commit in one process count once."""
        return [ReadCommit(byte >> PID_BITS, _pid(byte)) for byte in self._all(0, HANDLE)]

    def handles(self) -> list[int]:
        """Processes that have the file open for reading."""
        return sorted({_pid(byte) for byte in self._all(HANDLE, WRITER)})

    def frozen(self) -> int | None:
        """The process, if any, that reads the file as if it were never written."""
        byte = self._lowest(FROZEN, WRITER)
        return None if byte is None else _pid(byte)

    def writer(self) -> int | None:
        """The process that writes the file, if it has said so here."""
        byte = self._lowest(WRITER, _END)
        return None if byte is None else _pid(byte)

    def foreign(self, newest: int) -> list[ForeignReader]:
        """Every process that has the file open, with what it reads; ``newest`` is the newest commit."""
        behind = dict.fromkeys(self.handles(), -1)
        for commit, pid in self.commits():
            behind[pid] = max(behind.get(pid, -1), newest - commit, 0)
        return [ForeignReader(pid, commits) for pid, commits in sorted(behind.items())]

    def close(self) -> None:
        self._folder.close()

    def _all(self, first: int, end: int) -> list[int]:
        found = []
        while (byte := self._lowest(first, end)) is not None:
            found.append(byte)
            first = byte + 1
        return found

    def _lowest(self, first: int, end: int) -> int | None:
        """The lowest locked byte in [first, end). The kernel names any one of them, so ask again below it."""
        lowest = None
        while first < end and ARE_SEEN:
            asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, end - first, 0)
            kind, _, start, _, _ = _LOCK.unpack(fcntl.fcntl(self._folder._fd, fcntl.F_OFD_GETLK, asked))
            if kind == fcntl.F_UNLCK:
                break
            lowest = end = start
        return lowest


def view_byte(commit: int) -> int:
    """The byte that a view of ``commit`` locks."""
    return commit << PID_BITS | own_pid()


def own_pid() -> int:
    return os.getpid() & ((1 << PID_BITS) - 1)


def held(folder: Path, role: int) -> ByteLock:
    """This process's lock in a role (``HANDLE``, ``FROZEN``, ``WRITER``), held until it is closed or dropped."""
    lock = ByteLock(folder)
    lock.take(role | own_pid())
    return lock


def has_readers(folder: Path) -> bool:
    """Whether any handle, of this process or another, has the backend's file in ``folder`` open for reading."""
    readers = Readers(folder)
    try:
        return bool(readers.handles())
    finally:
        readers.close()


def _pid(byte: int) -> int:
    return byte & ((1 << PID_BITS) - 1)
