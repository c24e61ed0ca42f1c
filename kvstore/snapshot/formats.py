"""A snapshot as a read-only store: any file that holds one, opened where it lies.

Our own snapshots are opened by the backend that wrote them, through mmap where it can. Other files (an etcd
server's snapshot, say) are opened by a ``SnapshotFormat``, a package's entry in the group ``kvstore.snapshots``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from kvstore.backend import Backend, Progress, view
from kvstore.clock import Clock
from kvstore.core import ReadCore
from kvstore.files import OSDisk
from kvstore.keyvalue import value_view
from kvstore.life import Life, Phase
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import LATEST
from kvstore.mvcc.state import State
from kvstore.mvcc.validate import check_key
from kvstore.options import Options
from kvstore.reads import ReadEngine
from kvstore.snapshot.manifest import Member, has_footer
from kvstore.snapshot.reader import SnapshotInfo, open_backend, read_info, read_tail, verify
from kvstore.store import Store

ENTRY_POINT_GROUP = "kvstore.snapshots"


class SnapshotFormat(Protocol):
    """Reads snapshot files of another kind as if they were a backend of ours."""

    def recognizes(self, path: Path) -> bool:
        """Whether the file is of this kind; damage deeper inside does not matter."""

    def inspect(self, path: Path, progress: Progress | None = None, *, verify: bool = False) -> SnapshotInfo:
        """What the file holds; with ``verify`` held against every checksum that it has."""

    def open(self, path: Path) -> Backend:
        """A read-only backend with the tables of ``kvstore.mvcc.schema``."""


def find_format(path: Path) -> SnapshotFormat | None:
    """Who reads the file, if it is none of ours."""
    if has_footer(read_tail(path)[0]):
        return None
    for point in entry_points(group=ENTRY_POINT_GROUP):
        kind: SnapshotFormat = point.load()
        if kind.recognizes(path):
            return kind
    return None


def inspect(
    path: str | os.PathLike[str], progress: Progress | None = None, *, verified: bool = True
) -> SnapshotInfo:
    """What a snapshot file holds, after a look at every byte of it (unless not ``verified``)."""
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
    """Backends of snapshots that are open, each with its number of users: LMDB opens a file once in a process."""

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
    """A backend that others may be reading too: closing it closes the file when nobody else is left."""

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


class Snapshot(Store):
    """A snapshot file as a store. Every write raises ``ReadOnly``."""

    def __init__(self, engine: ReadEngine, info: SnapshotInfo) -> None:
        super().__init__(engine)
        self.info = info

    @property
    def members(self) -> tuple[Member, ...]:
        """Those of the cluster that the snapshot was taken from."""
        return self.info.members

    def view(self, key: bytes) -> memoryview | None:
        """The value of ``key`` at the snapshot's revision without a copy, or None: for values of many kilobytes.

        It looks into the file where the backend allows (LMDB, keys of up to 511 bytes), elsewhere into a copy. It
        stays valid as long as anybody holds it or a slice of it, also when the snapshot is closed.
        """
        self.engine.check_readable()
        check_key(key)
        row = view(self.engine.backend, LATEST, key)
        return None if row is None else value_view(row)

    def __repr__(self) -> str:
        return f"<kvstore.Snapshot {self.info.path} at revision {self.info.revision}>"


def file_core(state: State, lessor: Lessor, cluster_id: int, member_id: int) -> ReadCore:
    """What is read from a file that is no data directory."""
    return ReadCore(
        options=Options(read_only=True, background=False),
        disk=OSDisk(),
        directory=None,
        state=state,
        lessor=lessor,
        cluster_id=cluster_id,
        member_id=member_id,
        clock=Clock(),
        life=Life(Phase.READ_ONLY),
    )


def open_snapshot(path: str | os.PathLike[str], *, verify: bool = False) -> Snapshot:
    """Open a snapshot file read-only. ``verify``: look at every byte first.

    Raises ``NotAStore``, ``TooNew``, ``Corruption``, ``MissingDependency``.
    """
    info = inspect(path, verified=verify)
    backend = open_any(info.path)
    try:
        state = State(backend)
        lessor = LeasesOnDemand(backend)
        engine = ReadEngine(file_core(state, lessor, info.cluster_id, info.member_id))
    except BaseException:
        backend.close()
        raise
    return Snapshot(engine, info)


class LeasesOnDemand(Lessor):
    """The leases of a file that nobody writes, read when they are first asked for: most readers never do."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        """Reached only while they have not been read."""
        if name not in ("leases", "_deadlines"):
            raise AttributeError(name)
        self.leases = {}
        self.adopt(Lessor.loaded(self._backend))
        return getattr(self, name)
