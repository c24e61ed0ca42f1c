"""What is backed up: a store that is open in this process, or a data directory that another process may be writing.

Or a copy of a cluster, which a replica keeps (``kvstore.replica``): its log is what goes to the target, and what it
says of when it was complete is about the cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kvstore import layout
from kvstore.core import BackupStatus
from kvstore.errors import NotAStore, StoreUnreachable, Unsupported
from kvstore.layout import DataDir
from kvstore.options import Options
from kvstore.recognition import backend_of
from kvstore.recovery import open_engine
from kvstore.replica.replica import Replica
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.store import Store


class Source(Protocol):
    @property
    def directory(self) -> DataDir: ...
    @property
    def cluster_id(self) -> int: ...
    @property
    def watched_by(self) -> list[Callable[[], BackupStatus]]:
        """Where the store looks how far its backups are."""

    def as_of_ms(self, now_ms: int) -> int:
        """What was written by then is in the directory's log, durably or about to be synced; asked before a look."""

    def snapshot(self, path: Path) -> SnapshotInfo: ...


class OpenStore:
    """A store that is open in this process, for writing or reading."""

    def __init__(self, store: Store) -> None:
        directory = getattr(store.engine, "directory", None)
        if directory is None:
            raise Unsupported("a backup follows a store with a data directory; this one has none")
        self._store = store
        self.directory: DataDir = directory
        self.cluster_id: int = store.engine.cluster_id
        self.watched_by: list[Callable[[], BackupStatus]] = store.engine.core.backups

    def as_of_ms(self, now_ms: int) -> int:
        return now_ms

    def snapshot(self, path: Path) -> SnapshotInfo:
        return self._store.snapshot(path)


class Directory:
    """A data directory. It is opened, for reading only, while a snapshot is taken."""

    def __init__(self, path: str | os.PathLike[str], options: dict[str, Any]) -> None:
        chosen = Options.load({**options, "read_only": True})
        self.directory = DataDir.at(path, chosen.wal_dir or None)
        segments = layout.segments(self.directory.wal)
        if not segments:
            raise NotAStore(f"{self.directory.root} is not a store: it has no log", self.directory.root)
        kind = backend_of(self.directory)
        self._options = chosen if kind is None or "backend" in options else chosen.with_(backend=kind.name)
        self.cluster_id = segments[-1].cluster_id
        self.watched_by: list[Callable[[], BackupStatus]] = []

    def as_of_ms(self, now_ms: int) -> int:
        return now_ms

    def snapshot(self, path: Path) -> SnapshotInfo:
        with Store(open_engine(self.directory.root, self._options)) as store:
            return store.snapshot(path)


class Copy:
    """The store of a replica, which has the cluster id of its source. It is there once the replica has caught up."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.directory: DataDir = replica.directory
        self.cluster_id = replica.source_cluster_id
        self.watched_by: list[Callable[[], BackupStatus]] = []

    def as_of_ms(self, now_ms: int) -> int:
        return min(self._replica.complete_at_ms, now_ms)

    def snapshot(self, path: Path) -> SnapshotInfo:
        store = self._replica.store
        if store is None:
            raise StoreUnreachable(self.directory.root, "is made anew")
        return store.snapshot(path)


def source_of(source: Store | str | os.PathLike[str], options: dict[str, Any]) -> Source:
    if isinstance(source, Store):
        return OpenStore(source)
    return Directory(source, options)
