"""Snapshot files of any kind: what they hold, and their content as a backend, read in place.

Our own snapshots are opened by the backend that wrote them, through mmap where it can. Other files (an etcd server's
snapshot, say) are opened by a ``SnapshotFormat``, a package's entry point in the group ``kvstore.snapshots``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from kvstore import plugins
from kvstore.backend import Backend, Progress
from kvstore.files import disk_full_is_typed
from kvstore.snapshot.manifest import has_footer
from kvstore.snapshot.reader import SnapshotInfo, open_backend, read_info, read_tail, verify


class SnapshotFormat(Protocol):
    """Reads snapshot files of another kind as if they were one of our backends."""

    def recognizes(self, path: Path) -> bool:
        """Whether the file is of this kind; damage further inside does not matter."""

    def inspect(self, path: Path, progress: Progress | None = None, *, verify: bool = False) -> SnapshotInfo:
        """What the file holds; with ``verify``, checked against every checksum it has."""

    def open(self, path: Path) -> Backend:
        """A read-only backend with the tables of ``kvstore.mvcc.schema``."""


def find_format(path: Path) -> SnapshotFormat | None:
    """The format that reads the file, unless it is ours."""
    if has_footer(read_tail(path)[0]):
        return None
    kind: SnapshotFormat
    for kind in plugins.each(plugins.SNAPSHOTS):
        if kind.recognizes(path):
            return kind
    return None


@disk_full_is_typed()
def inspect(
    path: str | os.PathLike[str], progress: Progress | None = None, *, verified: bool = True
) -> SnapshotInfo:
    """What a snapshot file holds. ``verified``: every byte of it is checked first."""
    path = Path(path)
    kind = find_format(path)
    if kind is not None:
        return kind.inspect(path, progress, verify=verified)
    return verify(path, progress) if verified else read_info(path)


def open_any(path: Path) -> Backend:
    """The content of a snapshot file of any known kind."""
    status = os.stat(path)
    return _shared.open((status.st_dev, status.st_ino, status.st_mtime_ns), partial(_open_any, path))


def _open_any(path: Path) -> Backend:
    kind = find_format(path)
    return open_backend(read_info(path)) if kind is None else kind.open(path)


class _Shared:
    """Backends of open snapshots, each with its number of users: LMDB opens a file only once in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[tuple[int, ...], int] = {}
        self._backends: dict[tuple[int, ...], Backend] = {}

    def open(self, file: tuple[int, ...], opener: Callable[[], Backend]) -> Backend:
        with self._lock:
            if file not in self._backends:
                self._backends[file], self._users[file] = opener(), 0
            self._users[file] += 1
            shared: Any = _SharedBackend(self._backends[file], partial(self.close, file))
            return cast(Backend, shared)

    def close(self, file: tuple[int, ...]) -> None:
        with self._lock:
            self._users[file] -= 1
            if not self._users[file]:
                self._backends.pop(file).close()
                del self._users[file]


class _SharedBackend:
    """A backend with several readers: the last one to close it closes the file."""

    def __init__(self, backend: Backend, close: Callable[[], None]) -> None:
        self._backend = backend
        self._close: Callable[[], None] | None = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()


_shared = _Shared()
