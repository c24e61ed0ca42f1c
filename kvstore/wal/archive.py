"""The archive: where released segments are moved, and which of its segments are the past of a log.

    <cluster>-<first>.wal              a segment under the name that it had in the log
    <cluster>-<first>.<crc>.wal        another segment of that name: a copy of the store used the same archive

A restored store has a cluster id of its own, so its segments have names of their own; a copied store's do not. So
nothing in an archive is ever overwritten: a segment that is already there, byte for byte, is not moved again, and one
that differs is kept under another name.

The chain of checksums tells which of two belongs to a log: each segment's head holds the checksum that the previous
one ended with. The chain is followed from the log's newest segment back to the oldest. That reads all of them, so it
is only done if there are two of one name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from kvstore import layout, wire
from kvstore.checksum import crc32c
from kvstore.errors import KVStoreError, OpenError, WrongStore
from kvstore.files import Disk, FolderLock
from kvstore.layout import NumberedFile
from kvstore.wal import format as fmt
from kvstore.wal import tail
from kvstore.wal.reader import SegmentReader

_CHUNK_BYTES = 1 << 20


def archive_segment(
    disk: Disk, path: Path, archive_dir: Path, check_open: Callable[[], None] = lambda: None
) -> None:
    """Move a segment into the archive, through a synced copy if that is on another file system.

    That may take long. ``check_open`` raises if the segment is no longer ours to move.
    """
    if not archive_dir.is_dir():
        disk.make_dir(archive_dir)
        disk.sync_dir(archive_dir.parent)
    lock = FolderLock(archive_dir)  # another store may be looking for a free name at the same time
    lock.acquire(wait=True)
    try:
        for target in (archive_dir / path.name, layout.kept_apart(archive_dir / path.name, _checksum(path))):
            if not os.path.lexists(target):
                _move(disk, path, target, check_open)
                return
            if _has_same_content(path, target):
                disk.sync_file(target)
                disk.sync_dir(archive_dir)
                check_open()
                disk.remove(path)
                return
    finally:
        lock.release()
    raise WrongStore(
        f"{archive_dir} already holds other segments named {path.name}; choose another archive_dir", path
    )


def _move(disk: Disk, path: Path, target: Path, check_open: Callable[[], None]) -> None:
    check_open()
    try:
        disk.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        tail.copy_file(disk, str(path), str(target), path.stat().st_size)
        disk.sync_dir(target.parent)
        check_open()
        disk.remove(path)
    disk.sync_dir(target.parent)


def _checksum(path: Path) -> int:
    """The checksum of the content, without the zeros at its end."""
    crc, zeros = 0, 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            content = chunk.rstrip(b"\0")
            if content:
                while zeros:
                    some = min(zeros, _CHUNK_BYTES)
                    crc, zeros = crc32c(bytes(some), crc), zeros - some
                crc = crc32c(content, crc)
            zeros += len(chunk) - len(content)
    return crc


def _has_same_content(one: Path, other: Path) -> bool:
    """Whether two segments are the same, except for zeros at the end."""
    if not other.is_file() or other.is_symlink():
        return False
    with open(one, "rb") as ours, open(other, "rb") as theirs:
        while True:
            chunks = ours.read(_CHUNK_BYTES), theirs.read(_CHUNK_BYTES)
            if chunks == (b"", b""):
                return True
            size = min(map(len, chunks))
            if chunks[0][:size] != chunks[1][:size] or any(chunk[size:].strip(b"\0") for chunk in chunks):
                return False


# --- reading -----------------------------------------------------------------------------


def log_segments(folders: list[Path], cluster_id: int = 0) -> list[NumberedFile]:
    """The segments of one store's log in several directories, oldest first.

    The first directory that holds any has the newest part of the log. Raises ``WrongStore`` if they belong to several
    stores and no ``cluster_id`` says which is meant, ``OpenError`` if they belong to two histories of the same store.
    """
    places = [
        [file for file in layout.archived(folder) if not cluster_id or file.cluster_id == cluster_id]
        for folder in folders
    ]
    files = [file for place in places for file in place]
    if len({file.cluster_id for file in files}) > 1:
        clusters = len({file.cluster_id for file in files})
        raise WrongStore(f"the log folders hold segments of {clusters} stores", folders[0])
    found: dict[int, NumberedFile] = {}
    are_two = False
    for file in files:
        first = found.setdefault(file.index, file)
        are_two = are_two or not (first is file or _has_same_content(first.path, file.path))
    if are_two:
        return _continued_by(_newest(places, folders), files)
    return [found[index] for index in sorted(found)]


def _newest(places: list[list[NumberedFile]], folders: list[Path]) -> NumberedFile:
    """The segment that the log ends with."""
    own = next(place for place in places if place)
    if len({file.index for file in own}) != len(own):
        folder = folders[places.index(own)]
        raise OpenError(
            f"{folder} holds two histories of one store, for a copy of it has been archived there too; "
            "restore from the data directory whose history is meant",
            folder,
        )
    return own[-1]


def _continued_by(newest: NumberedFile, files: list[NumberedFile]) -> list[NumberedFile]:
    """``newest`` and those before it, where each one ends with the checksum that the next begins with."""
    chosen = [newest]
    while (before := _before(chosen[0], files)) is not None:
        chosen.insert(0, before)
    return chosen


def _before(segment: NumberedFile, files: list[NumberedFile]) -> NumberedFile | None:
    with SegmentReader(segment.path) as reader:
        chain, metadata = reader.head(segment.cluster_id, segment.index)
    older = sorted((file for file in files if file.index < segment.index), key=lambda file: -file.index)
    wanted = metadata.first_index - 1, chain
    return next((file for file in older if _end(file) == wanted), None)


def _end(segment: NumberedFile) -> tuple[int, int] | None:
    """The last entry of a segment and the chain after it; None if it cannot be read to its end."""
    try:
        with SegmentReader(segment.path) as reader:
            reader.head(segment.cluster_id, segment.index)
            last = None
            for frame in reader.frames():
                last = frame
            last_index = fmt.decode_batch(last.data).last_index if last else segment.index - 1
            return last_index, reader.chain
    except (KVStoreError, fmt.BadFrame, wire.WireError):
        return None
