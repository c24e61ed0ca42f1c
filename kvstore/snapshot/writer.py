"""Writing a snapshot: copy, seal, read back, rename.

    checkpoint     everything written so far reaches the backend, which is then at a known index
    copy           the backend writes its copy to <name>.tmp, without the GIL; writers go on, into the overlay.
                   It is hashed on the way and read back right behind, where the backend allows (``copying``)
    seal           manifest and footer, synced, and read back with the rest
    rename         to the final name, and the directory is synced

After a crash there is nothing, a temporary file, or the whole verified snapshot. Checkpoints and compaction pause
while the backend is copied, and only then.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, Progress
from kvstore.errors import DiskFull, KVStoreError, WrongStore
from kvstore.files import Disk, free_bytes
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    CHANGES,
    LATEST,
    LEASE,
    TABLES,
)
from kvstore.snapshot.copying import Copying, IsBusy, Meter, nobody
from kvstore.snapshot.manifest import TAIL_BYTES_MAX, Manifest, Member, encode_tail
from kvstore.snapshot.reader import SnapshotInfo, check_content


def write_snapshot(
    disk: Disk, backend: Backend, target: Path, now_ms: int, progress: Progress | None = None
) -> SnapshotInfo:
    """A snapshot of a backend that nothing writes."""
    return seal(disk, copy_backend(disk, backend, target, now_ms, progress), target)


def check_target(directory: DataDir, target: Path) -> None:
    """Refuse a name given by hand if it is that of a folder, or of one of the store's own files."""
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "a snapshot is one file, and this is a directory", os.fspath(target)
        )
    folder = target.resolve().parent
    if folder in (directory.root.resolve(), directory.snap.resolve(), directory.wal.resolve()):
        raise WrongStore(f"{target} lies among the store's own files; choose another place", target)


def _check_room(backend: Backend, target: Path) -> int:
    needed = backend.in_use_bytes()
    free = free_bytes(target.parent)
    if free < needed + TAIL_BYTES_MAX:
        raise DiskFull(f"a snapshot takes about {needed} bytes; {target.parent} has room for {free}")
    return needed


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy, and what the backend said of itself at the commit that was copied."""

    path: Path
    kind: type[Backend]
    marks: Marks
    counts: tuple[int, int, int]
    created_ms: int
    copying: Copying

    def manifest(self, backend_bytes: int, sha256: bytes) -> Manifest:
        marks, (keys, changes, leases) = self.marks, self.counts
        return Manifest(
            backend=self.kind.name,
            index=marks.applied_index,
            revision=marks.revision,
            compact_revision=marks.compacted,
            created_ms=self.created_ms,
            cluster_id=marks.cluster_id,
            member_id=marks.member_id,
            members=(Member(marks.member_id, marks.name),),
            keys=keys,
            changes=changes,
            leases=leases,
            backend_bytes=backend_bytes,
            sha256=sha256,
        )


def describe(backend: Backend) -> tuple[Marks, tuple[int, int, int]]:
    """The marks of the newest commit, and the number of keys, changes and leases."""
    with backend.read() as tx:
        return Marks.read(tx), (tx.count(LATEST), tx.count(CHANGES), tx.count(LEASE))


def copy_backend(
    disk: Disk,
    backend: Backend,
    target: Path,
    now_ms: int,
    progress: Progress | None = None,
    *,
    is_busy: IsBusy = nobody,
    is_final: bool = True,
    reads_back: bool = True,
) -> Copy:
    """Copy the backend beside ``target``, without commits meanwhile. ``is_final``: the copy is not changed later."""
    temporary = layout.temporary(target)
    meter = Meter(progress, _check_room(backend, target), reads_back=reads_back)
    copying = Copying(disk, temporary, meter, is_busy, reads_back=reads_back)
    copy = Copy(temporary, type(backend), *describe(backend), now_ms, copying)
    disk.remove(temporary)
    with given_up_on_failure(disk, copy):
        if not (is_final and backend.streams and copying.fill(backend.copy_into)):
            backend.copy_to(temporary)
    return copy


def seal(disk: Disk, copy: Copy, target: Path) -> SnapshotInfo:
    """Turn a finished copy into a snapshot."""
    with given_up_on_failure(disk, copy):
        backend_bytes, sha256 = copy.copying.digest()
        manifest = copy.manifest(backend_bytes, sha256)
        tail = encode_tail(manifest)
        _append(disk, copy.path, tail, backend_bytes)
        copy.copying.finish(tail)
        _check_opens(copy, manifest)
        disk.rename(copy.path, target)
        disk.sync_dir(target.parent)
    return SnapshotInfo.of(manifest, target, backend_bytes + len(tail))


def _append(disk: Disk, path: Path, tail: bytes, offset: int) -> None:
    disk.sync_file(path)
    file = disk.open(path)
    try:
        file.pwrite(tail, offset)
        file.sync()
    finally:
        file.close()


def _check_opens(copy: Copy, manifest: Manifest) -> None:
    if copy.kind.persistent:  # other backends would load it whole
        backend = copy.kind.open(copy.path, TABLES, immutable=True)
        try:
            check_content(backend, manifest, copy.path)
        finally:
            backend.close()


@contextmanager
def given_up_on_failure(disk: Disk, copy: Copy) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError, KVStoreError):
            disk.remove(copy.path)
        raise
