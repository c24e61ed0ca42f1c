"""Writing a snapshot: copy, seal, read back, rename.

    checkpoint     everything written so far reaches the backend, which is then at a known index
    copy           backend.copy_to(<name>.tmp), without the GIL; writers go on, into the overlay
    seal           SHA-256 and a CRC-32C per chunk of what was written, while the file is being synced; then
                   manifest and footer, synced
    read back      the chunks are read from the disk and compared: what is there is what was meant to be
    rename         to the final name, and the directory is synced

In a crash there is nothing, a temporary file, or the whole verified snapshot. Checkpoints and compaction
pause while the backend is copied, and only then.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crc32c import crc32c

from kvstore import layout
from kvstore.backend import Backend, Progress
from kvstore.errors import Corruption, DiskFull, KVStoreError, WrongStore
from kvstore.files import Disk, free_bytes
from kvstore.mvcc.schema import (
    CHANGES,
    LATEST,
    LEASE,
    META,
    META_APPLIED_INDEX,
    META_CLUSTER_ID,
    META_COMPACT_SCHEDULED,
    META_MEMBER_ID,
    META_NAME,
    META_REVISION,
    TABLES,
    parse_u64,
)
from kvstore.snapshot.manifest import TAIL_BYTES_MAX, Manifest, Member, encode_tail
from kvstore.snapshot.reader import SnapshotInfo, check_content, chunks

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

POLL_SECONDS = 0.05


def take_snapshot(engine: LocalEngine, path: Path | None, progress: Progress | None = None) -> SnapshotInfo:
    """Write a snapshot of everything durable now to ``path`` (None: the store's own place and name)."""
    assert engine.directory is not None
    meter = Meter(progress)
    with engine.checkpointing:
        engine.checkpoint()
        target = path or engine.directory.snapshot(engine.cluster_id, engine.state.applied_index)
        _check_target(engine, target, given=path is not None)
        copy = copy_backend(engine.disk, engine.backend, target, engine.now_ms(), meter)
    return seal(engine.disk, copy, target, meter)


def write_snapshot(
    disk: Disk, backend: Backend, target: Path, now_ms: int, progress: Progress | None = None
) -> SnapshotInfo:
    """A snapshot of a backend that nobody writes to."""
    meter = Meter(progress)
    return seal(disk, copy_backend(disk, backend, target, now_ms, meter), target, meter)


def _check_target(engine: LocalEngine, target: Path, *, given: bool) -> None:
    """A name given by hand must not be that of one of the store's own files."""
    directory = engine.directory
    if given and directory is not None:
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
    meta: dict[bytes, bytes]
    counts: tuple[int, int, int]
    created_ms: int

    def manifest(self, backend_bytes: int, sha256: bytes) -> Manifest:
        meta, (keys, changes, leases) = self.meta, self.counts
        member_id = parse_u64(meta.get(META_MEMBER_ID))
        return Manifest(
            backend=self.kind.name,
            index=parse_u64(meta.get(META_APPLIED_INDEX)),
            revision=parse_u64(meta.get(META_REVISION), 1),
            compact_revision=parse_u64(meta.get(META_COMPACT_SCHEDULED), -1),
            created_ms=self.created_ms,
            cluster_id=parse_u64(meta.get(META_CLUSTER_ID)),
            member_id=member_id,
            members=(Member(member_id, meta.get(META_NAME, b"").decode(errors="replace")),),
            keys=keys,
            changes=changes,
            leases=leases,
            backend_bytes=backend_bytes,
            sha256=sha256,
        )


def describe(backend: Backend) -> tuple[dict[bytes, bytes], tuple[int, int, int]]:
    """The meta rows of the newest commit, and how many keys, changes and leases it has."""
    with backend.read() as tx:
        return dict(tx.scan(META)), (tx.count(LATEST), tx.count(CHANGES), tx.count(LEASE))


def copy_backend(disk: Disk, backend: Backend, target: Path, now_ms: int, meter: Meter) -> Copy:
    """Copy the backend beside ``target``. Nobody commits to it meanwhile."""
    temporary = layout.temporary(target)
    about_bytes = _check_room(backend, target)
    copy = Copy(temporary, type(backend), *describe(backend), now_ms)
    disk.remove(temporary)
    with removed_on_failure(disk, temporary), meter.watching(temporary, about_bytes):
        backend.copy_to(temporary)
    return copy


def seal(disk: Disk, copy: Copy, target: Path, meter: Meter) -> SnapshotInfo:
    """Turn a finished copy into a snapshot."""
    temporary = copy.path
    with removed_on_failure(disk, temporary):
        backend_bytes = temporary.stat().st_size
        with _beside(lambda: disk.sync_file(temporary)):
            sha256, crcs = _digest(temporary, backend_bytes, meter)
        manifest = copy.manifest(backend_bytes, sha256)
        tail = encode_tail(manifest)
        _append(disk, temporary, tail, backend_bytes)
        _read_back(temporary, crcs, tail, backend_bytes, meter)
        _check_opens(copy, manifest)
        disk.rename(temporary, target)
        disk.sync_dir(target.parent)
    return SnapshotInfo.of(manifest, target, backend_bytes + len(tail))


def _append(disk: Disk, path: Path, tail: bytes, offset: int) -> None:
    file = disk.open(path)
    try:
        file.pwrite(tail, offset)
        file.sync()
    finally:
        file.close()


def _check_opens(copy: Copy, manifest: Manifest) -> None:
    if copy.kind.persistent:  # others would load it whole
        backend = copy.kind.open(copy.path, TABLES, immutable=True)
        try:
            check_content(backend, manifest, copy.path)
        finally:
            backend.close()


def _digest(path: Path, size_bytes: int, meter: Meter) -> tuple[bytes, list[int]]:
    sha256 = hashlib.sha256()
    crcs = []
    for _, chunk in chunks(path, size_bytes, meter.next_pass()):
        sha256.update(chunk)
        crcs.append(crc32c(chunk))
    return sha256.digest(), crcs


def _read_back(path: Path, crcs: list[int], tail: bytes, backend_bytes: int, meter: Meter) -> None:
    """Compare what is on the disk with what was written."""
    found = chunks(path, backend_bytes, meter.next_pass(), from_disk=True)
    for (offset, chunk), crc in zip(found, crcs, strict=True):
        if crc32c(chunk) != crc:
            raise Corruption("what is read back is not what was written", path, offset)
    with open(path, "rb", buffering=0) as file:
        file.seek(backend_bytes)
        if file.read() != tail:
            raise Corruption("what is read back is not what was written", path, backend_bytes)


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Run ``work`` on another thread meanwhile; what it raises is raised here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="kvstore-snapshot-sync")
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def removed_on_failure(disk: Disk, temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError, KVStoreError):
            disk.remove(temporary)
        raise


PASSES = 3


class Meter:
    """Progress over the passes of the same bytes: copied, hashed, read back. The callback may raise, to give up."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._pass = 0

    def next_pass(self) -> Progress | None:
        if self._progress is None:
            return None
        self._pass += 1
        return partial(self._report, self._pass)

    def _report(self, number: int, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(number * total + done, PASSES * total)

    @contextmanager
    def watching(self, path: Path, about_bytes: int) -> Iterator[None]:
        """Report the growth of a file that a backend is writing."""
        if self._progress is None:
            yield
            return
        done = threading.Event()
        with _beside(lambda: self._watch(path, about_bytes, done)):
            try:
                yield
            finally:
                done.set()

    def _watch(self, path: Path, about_bytes: int, done: threading.Event) -> None:
        while not done.wait(POLL_SECONDS):
            with suppress(FileNotFoundError):
                self._report(0, min(path.stat().st_size, about_bytes), about_bytes)
