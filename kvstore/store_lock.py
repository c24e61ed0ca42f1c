"""The lock of a store, and what its file says: which process holds it, and which backend was written beside it.

    {"pid": 4242, "host": "db1", "place": "2f1c-1a40-1a52", "closed": 8812}

A copy of a directory, made file by file while the store is in use, has files of different moments. Nothing in the files
shows that, but a copy is in another place: ``place`` is the file system, the directory and the backend's file (inode
numbers), written once the store is open and the backend has been found sound. ``closed`` is the last entry of a store
that was closed: nothing changes after that, and a copy is as good as the original. So a backend is *known* if it is
where it was written, or was closed and holds exactly that entry. Any other is checked before it is used
(``verification.copied``): a copy, or the original on a file system whose numbers have changed since a crash.

The text is not synced. If it is lost or old, a backend may be checked unnecessarily.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from kvstore.errors import StoreLocked
from kvstore.files import FileLock, FolderLock
from kvstore.layout import DataDir
from kvstore.wal import Log


class Said(NamedTuple):
    """What the lock file says about the store."""

    place: str = ""
    closed: int = -1
    """The last entry, if the store was closed; else -1."""

    @classmethod
    def by(cls, text: bytes) -> Said:
        said = _parse(text)
        place, closed = said.get("place"), said.get("closed")
        return cls(place if isinstance(place, str) else "", closed if isinstance(closed, int) else -1)

    def is_known(self, directory: DataDir) -> bool:
        """Whether the backend is where it was written, or the store was closed.

        A store that was closed must hold entry ``closed``, which only opening it can show. An older version wrote
        neither; then the end of the log tells whether it was closed.
        """
        if self.place:
            return self.place == place_of(directory) or (self.closed >= 0 and Log.was_closed(directory.wal))
        return Log.was_closed(directory.wal)


def place_of(directory: DataDir) -> str:
    """The numbers of the backend's file system, folder and file."""
    numbers = os.statvfs(directory.snap).f_fsid, os.stat(directory.root).st_ino, os.stat(directory.db).st_ino
    return "-".join(f"{number:x}" for number in numbers)


class StoreLock:
    """The lock of one data directory."""

    def __init__(self, directory: DataDir) -> None:
        self._directory = directory
        self._file = FileLock(directory.lock)
        self.before = Said()
        """What the file said before it was locked."""

    def acquire(self) -> None:
        """Take the lock. Raises ``StoreLocked``, which names the holder."""
        holder = self._file.acquire(own_text())
        if holder is not None:
            raise StoreLocked(self._directory.root, *holder_in(holder))
        self.before = Said.by(self._file.before)
        self._file.write(_text(self.before))

    def note_open(self) -> None:
        """Note that the backend now in place is sound and being written."""
        self._file.write(_text(Said(place_of(self._directory) if os.path.exists(self._directory.db) else "")))

    @classmethod
    def said(cls, directory: DataDir) -> Said:
        """What the file says now, read without locking it."""
        return Said.by(FileLock(directory.lock).read())

    @classmethod
    def is_held(cls, directory: DataDir) -> bool:
        """Whether a process has the store open for writing at this moment."""
        lock = FolderLock(directory.root)
        is_free = lock.acquire()
        lock.release()
        return not is_free

    def note_closed(self, index: int) -> None:
        """Note that the backend holds everything up to that entry and will not be written any more."""
        if os.path.exists(self._directory.db):  # otherwise it is out of reach, and will be checked
            self._file.write(_text(Said(place_of(self._directory), index)))

    def release(self) -> None:
        self._file.release()


def own_text() -> bytes:
    """What names this process in a lock's file."""
    return _text(Said())


def holder_in(text: bytes) -> tuple[int, str]:
    """(process, host) that a lock's file names; 0 and empty if it names none."""
    said = _parse(text)
    pid, host = said.get("pid"), said.get("host")
    return (pid, host) if isinstance(pid, int) and isinstance(host, str) else (0, "")


def _parse(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _text(said: Said) -> bytes:
    holder: dict[str, Any] = {"pid": os.getpid(), "host": os.uname().nodename}
    if said.place:
        holder["place"] = said.place
    if said.closed >= 0:
        holder["closed"] = said.closed
    return json.dumps(holder).encode()
