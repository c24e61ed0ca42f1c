"""etcd's snapshots for ``kvstore.open_snapshot`` and restore: how they are recognized, and what they hold.

An entry point in the group ``kvstore.snapshots``. A file of ``etcdctl snapshot save`` ends with the SHA-256 of
everything before; a database file from a data directory has none, and ``verify`` then checks it against bbolt's rules.
"""

from __future__ import annotations

import time
from pathlib import Path

from kvstore.backend import Progress
from kvstore.errors import Corruption
from kvstore.snapshot.manifest import Member
from kvstore.snapshot.reader import SnapshotInfo

from .bbolt_check import check
from .bbolt_read import is_bbolt
from .beside_keys import identity
from .etcd_file import EtcdFile
from .view import EtcdView

NOT_COUNTED = -1
"""Keys and changes, before anything has walked through the file."""


class EtcdSnapshots:
    """The format, as ``kvstore.snapshot.formats.SnapshotFormat`` describes it."""

    @staticmethod
    def recognizes(path: Path) -> bool:
        return is_bbolt(path)

    @staticmethod
    def inspect(path: Path, progress: Progress | None = None, *, verify: bool = False) -> SnapshotInfo:
        with EtcdFile(path) as file:
            keys = changes = NOT_COUNTED
            said: dict[str, int | str] = {}
            if verify:
                check_file(file)
                _check_rows(file)
                said = _as_etcdctl(file)
                index = EtcdView(file, 0).index(progress)
                keys, changes = sum(map(index.is_live, index.keys)), index.count_changes()
            return _info(file, path, keys, changes, said)

    @staticmethod
    def open(path: Path) -> EtcdView:
        return EtcdView(EtcdFile(path), time.time_ns() // 1_000_000)


def check_file(file: EtcdFile) -> None:
    """Raise ``Corruption`` at the first damage that a checksum or bbolt's rules can show."""
    file.file.verify_hash()
    for damage in check(file.file):
        raise damage


def _as_etcdctl(file: EtcdFile) -> dict[str, int | str]:
    """What ``etcdctl snapshot status`` prints besides the revision. Its total of keys is the rows of all buckets up to
    3.5, the live keys from 3.6 on."""
    status = file.status()
    said = {
        "hash": f"{status['hash']:x}",
        "total_keys": status["totalKey"],
        "total_size": status["totalSize"],
    }
    return said | ({"version": status["version"]} if status["version"] else {})


def _check_rows(file: EtcdFile) -> None:
    """Raise ``Corruption`` at the first row that does not fit its bucket."""
    for row in file.rows():
        if row.key and not row.is_tombstone and row.mod_revision != row.main:
            raise Corruption(
                f"revision {row.main} holds a KeyValue of revision {row.mod_revision}", file.path
            )
    for read in (file.bare_leases, file.members, file.removed_members, file.alarms, file.users, file.roles):
        read()


def _info(file: EtcdFile, path: Path, keys: int, changes: int, said: dict[str, int | str]) -> SnapshotInfo:
    cluster_id, member_id, _name = identity(file)
    return SnapshotInfo(
        backend=EtcdView.name,
        index=file.consistent_index,
        revision=file.revision,
        compact_revision=file.compact_revision,
        created_ms=path.stat().st_mtime_ns // 1_000_000,
        cluster_id=cluster_id,
        member_id=member_id,
        members=tuple(Member(member.id, member.name) for member in file.members()),
        keys=keys,
        changes=changes,
        leases=len(file.bare_leases()),
        backend_bytes=file.file.meta.size_bytes,
        sha256=file.file.trailer or b"",
        path=path,
        size_bytes=file.file.file_bytes,
        said_by_others=said,
    )
