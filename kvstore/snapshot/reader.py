"""Reading a snapshot file: what it says about itself, whether its bytes are intact, and opening it.

    read_info(path)       manifest and footer, checked: reads a few kilobytes
    verify(path)          also the SHA-256 of the whole backend copy, and its structure: after that it is safe to
                          open, even if an attacker made it
    open_backend(path)    the backend copy, read-only, in place

Three errors, as everywhere: ``NotAStore`` (not ours), ``TooNew``, ``Corruption`` (ours, damaged).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from kvstore.backend import Backend, Progress, check_closed, find_backend, packed_hint, recognize_backend
from kvstore.errors import Corruption, NotAStore, TooNew
from kvstore.files import disk_full_is_typed, read_ahead
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import FORMAT_VERSION, TABLES
from kvstore.snapshot.manifest import (
    FOOTER_BYTES,
    TAIL_BYTES_MAX,
    BadTail,
    LaterFormat,
    Manifest,
    decode_tail,
    has_footer,
)

CHUNK_BYTES = 4 << 20  # large: a thread releases the GIL once per chunk, and may have to wait to get it back


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo(Manifest):
    """A manifest and the file that it describes."""

    path: Path
    """The file."""
    size_bytes: int
    """How long it is."""
    said_by_others: dict[str, int | str] = field(default_factory=dict)
    """What the program that wrote the file prints about it, under that program's names; empty for our own files."""

    @classmethod
    def of(cls, manifest: Manifest, path: Path, size_bytes: int) -> SnapshotInfo:
        """What a manifest says of the file at ``path``."""
        known = {field.name: getattr(manifest, field.name) for field in fields(Manifest)}
        return cls(**known, path=path, size_bytes=size_bytes)


def read_info(path: str | os.PathLike[str]) -> SnapshotInfo:
    """What the file's manifest says; the backend copy is not read."""
    path = Path(path)
    tail, size_bytes = read_tail(path)
    if not has_footer(tail):
        raise _not_ours(path, size_bytes)
    try:
        return SnapshotInfo.of(decode_tail(tail, size_bytes), path, size_bytes)
    except BadTail as bad:
        raise Corruption(str(bad), path, max(0, size_bytes - FOOTER_BYTES)) from None
    except LaterFormat as later:
        raise TooNew(f"{path}: {later}", path) from None


def read_tail(path: Path) -> tuple[bytes, int]:
    """(the last bytes, size) of a regular file."""
    status = os.stat(path)
    if not S_ISREG(status.st_mode):
        hint = ": a store's directory is opened with kvstore.open" if S_ISDIR(status.st_mode) else ""
        raise NotAStore(f"{path} is not a regular file{hint}", path)
    with open(path, "rb", buffering=0) as file:
        length = min(status.st_size, TAIL_BYTES_MAX)
        return os.pread(file.fileno(), length, status.st_size - length), status.st_size


def _not_ours(path: Path, size_bytes: int) -> Corruption | NotAStore:
    """The error for a file without our footer: cut short if it begins like a backend, otherwise not ours."""
    backend = recognize_backend(path)
    if backend is None:
        return NotAStore(f"{path} is not a snapshot{packed_hint(path)}", path)
    return Corruption(
        f"a file of the {backend.name} backend without a snapshot's footer: it was cut short, or it is a live file",
        path,
        size_bytes,
    )


@disk_full_is_typed()
def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> SnapshotInfo:
    """Check the whole file against its manifest."""
    info = read_info(path)
    digest = hashlib.sha256()
    for _, chunk in chunks(info.path, info.backend_bytes, progress):
        digest.update(chunk)
    if digest.digest() != info.sha256:
        raise Corruption("the backend copy's SHA-256 does not match the manifest", info.path, 0)
    check_closed(find_backend(info.backend), info.path)
    return info


def chunks(path: Path, size_bytes: int, progress: Progress | None = None) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of the first ``size_bytes`` of a file; each piece is valid until the next one."""
    buffer = memoryview(bytearray(min(CHUNK_BYTES, max(size_bytes, 1))))
    with open(path, "rb", buffering=0) as file:
        read_ahead(file.fileno())
        offset = 0
        while offset < size_bytes:
            count = file.readinto(buffer[: min(CHUNK_BYTES, size_bytes - offset)])
            if not count:
                raise Corruption("the file is cut short", path, offset)
            yield offset, buffer[:count]
            offset += count
            if progress is not None:
                progress(offset, size_bytes)


def open_backend(info: SnapshotInfo) -> Backend:
    """The backend copy of a snapshot, read-only."""
    kind = find_backend(info.backend)
    check_closed(kind, info.path, only_small=True)
    backend = kind.open(info.path, TABLES, immutable=True)
    try:
        check_content(backend, info)
    except BaseException:
        backend.close()
        raise
    return backend


def check_content(backend: Backend, manifest: Manifest, path: str | os.PathLike[str] = "") -> None:
    """Check that the copy is at the index that the manifest names, and in a format that we read."""
    path = path or getattr(manifest, "path", "")
    with backend.read() as tx:
        marks = Marks.read(tx)
    if marks.format is not None and marks.format > FORMAT_VERSION:
        raise TooNew(
            f"{os.fspath(path)} holds format {marks.format}; this version reads {FORMAT_VERSION}", path
        )
    if marks.applied_index != manifest.index:
        raise Corruption(
            f"the copy is at log entry {marks.applied_index}, the manifest says {manifest.index}", path
        )
