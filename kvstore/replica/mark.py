"""What makes a data directory a replica's: a file in it that says whose.

    <data-dir>/replica/source     this, as a line of JSON: written beside its name, synced, renamed

While it is there the store is opened for writing by nobody but ``Replica``; promotion removes it. It comes first:
before there is a store in the directory, and before one is replaced, it says that the store is not whole
(``is_seeded``), and which cluster id it will have, so that nothing but a half-made replica is ever removed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from kvstore import layout
from kvstore.errors import Corruption, StoreLocked, TooNew
from kvstore.files import Disk, FileLock
from kvstore.layout import DataDir
from kvstore.store_lock import holder_in, own_text

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a store is a replica of."""

    source: str
    """URL of the source."""
    source_cluster_id: int
    store_cluster_id: int
    """The cluster id of the replica itself."""
    is_seeded: bool = False
    """Whether the store is there, whole."""
    had_revision: int = 0
    """The newest revision of the store that was removed, until another one is there."""
    follows_entries: bool = False
    """Whether its log has the source's entries under their numbers (``Upstream.follows_entries``)."""
    is_promoted: bool = False
    """Whether promotion has begun: it follows nobody any more."""
    missing: tuple[tuple[int, int], ...] = ()
    """Revisions, first and last, that the source had compacted before they came here."""


def read(directory: DataDir) -> Mark | None:
    """The mark; None: the directory is no replica's. Raises ``Corruption``, ``TooNew``."""
    path = directory.replica_mark
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        said: dict[str, Any] = json.loads(text)
        version = said["kvstore-replica"]
        if isinstance(version, int) and version > VERSION:
            raise TooNew(f"{path} has format {version}; this version reads up to {VERSION}", path)
        return Mark(
            source=str(said["source"]),
            source_cluster_id=int(said["source_cluster_id"], 16),
            store_cluster_id=int(said["store_cluster_id"], 16),
            is_seeded=said["is_seeded"] is True,
            had_revision=int(said["had_revision"]),
            follows_entries=said["follows_entries"] is True,
            is_promoted=said["is_promoted"] is True,
            missing=tuple((int(first), int(last)) for first, last in said["missing"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corruption(f"it does not say what this is a replica of: {error!r}", path) from error


def write(disk: Disk, directory: DataDir, mark: Mark) -> None:
    """Put the mark in place, durably."""
    content = {"kvstore-replica": VERSION, **asdict(mark)}
    for name in ("source_cluster_id", "store_cluster_id"):
        content[name] = f"{content[name]:016x}"
    temporary = layout.temporary(directory.replica_mark)
    disk.remove(temporary)
    file = disk.create(temporary)
    try:
        file.pwrite(json.dumps(content).encode() + b"\n", 0)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, directory.replica_mark)
    disk.sync_dir(directory.replica)


def remove(disk: Disk, directory: DataDir) -> None:
    """From now on the store is like any other."""
    disk.remove(directory.replica_mark)
    disk.sync_dir(directory.replica)


def locked(directory: DataDir) -> FileLock:
    """The lock of whoever follows, or promotes. Raises ``StoreLocked``."""
    lock = FileLock(directory.replica_lock)
    holder = lock.acquire(own_text())
    if holder is not None:
        raise StoreLocked(directory.root, *holder_in(holder), is_replica=True)
    return lock
