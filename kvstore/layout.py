"""The place and name of every file in a data directory. No other module spells a name.

    <data-dir>/LOCK                                   exclusive lock: pid and host of the holder
    <data-dir>/SOCKET                                 where the process that serves a shared store listens
    <data-dir>/wal/<cluster-id>-<first-index>.wal     log segments (the folder may be elsewhere: --wal-dir)
    <data-dir>/wal/<...>.wal.tmp                      the next segment, being zero-filled; removed at open
    <data-dir>/wal/<...>.wal.broken                   a copy of a segment whose torn tail was cut
    <data-dir>/snap/db                                the live backend (with its side files: db-lock, db-wal, ...);
                                                      for the memory backend an empty marker file (recognition.py)
    <data-dir>/snap/db.tmp                            a defragmented copy in the making; removed at open
    <data-dir>/snap/db.broken                         a damaged backend that was set aside
    <data-dir>/snap/<cluster-id>-<index>.snap         snapshots
    <data-dir>/snap/<...>.snap.tmp                    a snapshot in the making; removed at open
    <data-dir>/snap/etcd.<number>.tmp                 a snapshot for an etcd client, until it is open; removed at open
    <data-dir>/tls/cert.pem, key.pem                  a server's own certificate (network/self_signed.py)
    <data-dir>/replica/source                         what the store is a replica of (replica/mark.py)
    <data-dir>/replica/LOCK, seed                     who follows it; a snapshot of the source, until it is in
    <data-dir>.restoring, <data-dir>/.restoring       a restore in the making (snapshot/building.py)

Ids and indexes are 16 lower-case hex digits, so names sort like numbers.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kvstore.files import disk_full_is_typed

SEGMENT_SUFFIX = ".wal"
SNAPSHOT_SUFFIX = ".snap"
TEMP_SUFFIX = ".tmp"
BROKEN_SUFFIX = ".broken"

LOCK, WAL, SNAP, REPLICA = "LOCK", "wal", "snap", "replica"
OURS = frozenset({LOCK, WAL, SNAP})
NOT_OURS = frozenset({"lost+found", REPLICA})
"""What a directory without a store may contain: it is the root of a file system, or is to become a replica."""

_TEMPORARY = re.compile(r"\.tmp(-[a-z]+)?$")  # with the side files that a backend keeps
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})(\.wal|\.snap)")
_KEPT_APART = re.compile(r"([0-9a-f]{16}-[0-9a-f]{16})\.[0-9a-f]{8}(\.wal)")


@dataclass(frozen=True, slots=True)
class NumberedFile:
    """A segment or snapshot: ``index`` is a segment's first log index, a snapshot's last."""

    path: Path
    cluster_id: int
    index: int
    descriptor: int = -1
    """An open descriptor of the file, if it might be removed meanwhile; else -1."""


@dataclass(frozen=True)
class DataDir:
    """The places in one data directory."""

    root: Path
    wal: Path

    @classmethod
    def at(cls, data_dir: str | os.PathLike[str], wal_dir: str | os.PathLike[str] | None = None) -> DataDir:
        """Absolute, with links on the way resolved: changing the working directory or a link moves nothing."""
        root = Path(os.path.realpath(data_dir))
        if not wal_dir:
            return cls(root, root / WAL)
        parent, name = os.path.split(os.path.abspath(wal_dir))
        return cls(root, Path(os.path.realpath(parent), name))

    @cached_property
    def lock(self) -> Path:
        return self.root / LOCK

    @cached_property
    def socket(self) -> Path:
        return self.root / "SOCKET"

    @cached_property
    def snap(self) -> Path:
        return self.root / SNAP

    @cached_property
    def db(self) -> Path:
        return self.snap / "db"

    @cached_property
    def tls(self) -> Path:
        return self.root / "tls"

    @cached_property
    def replica(self) -> Path:
        return self.root / REPLICA

    @cached_property
    def replica_mark(self) -> Path:
        return self.replica / "source"

    @cached_property
    def replica_lock(self) -> Path:
        return self.replica / LOCK

    @cached_property
    def replica_seed(self) -> Path:
        return self.replica / "seed"

    @cached_property
    def db_temp(self) -> Path:
        return self.snap / ("db" + TEMP_SUFFIX)

    def etcd_snapshot(self, number: int) -> Path:
        return self.snap / f"etcd.{number}{TEMP_SUFFIX}"

    @cached_property
    def db_broken(self) -> Path:
        return self.snap / ("db" + BROKEN_SUFFIX)

    def segment(self, cluster_id: int, first_index: int) -> Path:
        return self.wal / segment_name(cluster_id, first_index)

    def snapshot(self, cluster_id: int, index: int) -> Path:
        return self.snap / f"{cluster_id:016x}-{index:016x}{SNAPSHOT_SUFFIX}"

    def links(self) -> list[Path]:
        """The symbolic links among the two folders and everything inside the store."""
        found = [path for path in (self.snap, self.wal) if path.is_symlink()]
        for folder in (self.root, self.snap, self.wal):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                found += [Path(entry.path) for entry in entries if entry.is_symlink()]
        return found

    def set_aside(self) -> list[Path]:
        """Damaged files that were renamed or copied, and are the user's to delete."""
        files = [file for folder in (self.snap, self.wal) for file in _files(folder)]
        return sorted(Path(file.path) for file in files if BROKEN_SUFFIX in file.name)

    def snapshots(self) -> list[NumberedFile]:
        """Finished snapshots, oldest first."""
        return _numbered(self.snap, SNAPSHOT_SUFFIX)


def is_in_a_store(folder: Path) -> bool:
    """Whether ``folder`` is a data directory, or one of the two directories in one."""
    return any(
        DataDir.at(root).lock.is_file() and DataDir.at(root).snap.is_dir()
        for root in (folder, *([folder.parent] if folder.name in (WAL, SNAP) else []))
    )


def segment_name(cluster_id: int, first_index: int) -> str:
    return f"{cluster_id:016x}-{first_index:016x}{SEGMENT_SUFFIX}"


def segments(wal_dir: Path) -> list[NumberedFile]:
    """The log segments in a directory, in index order; files with other names are ignored."""
    return _numbered(wal_dir, SEGMENT_SUFFIX)


def archived(folder: Path) -> list[NumberedFile]:
    """The segments in an archive, in index order, including those that had to be kept under another name."""
    files = (segment_at(file.path) for file in _files(folder) if not file.name.endswith(BROKEN_SUFFIX))
    return sorted((file for file in files if file is not None), key=lambda file: (file.index, file.path))


def kept_apart(path: Path, checksum: int) -> Path:
    """Another name for a segment in an archive, for when its own is taken."""
    return path.with_name(f"{path.stem}.{checksum:08x}{SEGMENT_SUFFIX}")


def segment_at(path: str | os.PathLike[str]) -> NumberedFile | None:
    """What the name of a segment, or of a copy set aside, says; None for any other name."""
    match = _NAME.fullmatch(_KEPT_APART.sub(r"\1\2", Path(path).name.removesuffix(BROKEN_SUFFIX)))
    if match is None or match[3] != SEGMENT_SUFFIX:
        return None
    return NumberedFile(Path(path), int(match[1], 16), int(match[2], 16))


def temporary(path: Path) -> Path:
    """The name of a file that is to become ``path``."""
    return path.with_name(path.name + TEMP_SUFFIX)


def temporaries(directory: Path) -> list[Path]:
    """Files that an interrupted run left half made."""
    return sorted(Path(file.path) for file in _files(directory) if _TEMPORARY.search(file.name))


def helpers(path: Path) -> list[Path]:
    """The side files of a backend at ``path``: ``<name>-wal``, ``<name>-lock`` and the like."""
    prefix = path.name + "-"
    return sorted(Path(file.path) for file in _files(path.parent) if file.name.startswith(prefix))


def building(data_dir: Path) -> Path:
    """Where a restore builds a ``data_dir`` that does not exist yet."""
    return data_dir.with_name(data_dir.name + ".restoring")


def building_inside(data_dir: Path) -> Path:
    """Where a restore builds inside a ``data_dir`` that exists."""
    return data_dir / ".restoring"


def _numbered(directory: Path, suffix: str) -> list[NumberedFile]:
    found = []
    for file in _files(directory):
        match = _NAME.fullmatch(file.name)
        if match and match[3] == suffix:
            found.append(NumberedFile(Path(file.path), int(match[1], 16), int(match[2], 16)))
    return sorted(found, key=lambda file: file.index)


def _files(directory: Path) -> list[os.DirEntry[str]]:
    with (
        suppress(FileNotFoundError, NotADirectoryError),
        disk_full_is_typed(),
        os.scandir(directory) as entries,
    ):
        return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    return []
