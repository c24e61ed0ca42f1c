"""Where the log ends, and whether what is there may be cut.

The log ends at the first zero length field after which the file holds nothing but zeros. Anything
else that is not a valid frame has one of two causes, and they must not be confused:

* **torn**: the last write did not finish. It was never acknowledged, so it may be cut;
* **damaged**: something that was durable has changed. Cutting would silently lose it and everything
  that follows, so opening is refused, and the error says where.

A bad frame at offset B is damage if any of this holds, and torn otherwise:

1. its segment is not the last: a segment is synced before its successor gets its name;
2. a later valid frame in the segment says that everything before an offset > B was synced;
3. it does not look like an unfinished write. The disk writes sectors of 512 bytes whole or not at
   all, onto zeros; a write that stops early (a full disk, a killed process) leaves zeros from some
   byte on. So an unfinished frame runs past the end of the file, or ends in zeros, or has a
   sector's worth of zeros. A frame that is complete except for its length field, or for one bit,
   is not unfinished (unless the field or the bit is all of it that a sector has: that sector may
   never have been written).

What rule 3 cannot distinguish counts as torn: the very last frame, with a sector of it zeroed on the
disk afterwards, looks exactly like a write that was never finished.

In the zeros after the end a bit may flip too. It is the only one set there, and no frame has so few,
so nothing is lost: it is cut like a torn frame.

Cutting: the segment is copied aside (``.broken``), the tail is overwritten with zeros and synced. After
a crash in between, the frame at B is still bad, still torn, and is cut by the next open.
"""

from __future__ import annotations

import logging
import os
from struct import Struct

from kvstore import layout
from kvstore.errors import DiskFull
from kvstore.files import Disk
from kvstore.wal import format as fmt
from kvstore.wal.bit_flip import Flip, find_flip, flip_in_zeros
from kvstore.wal.reader import SegmentReader
from kvstore.wal.writer import write_zeros

logger = logging.getLogger(__name__)

SECTOR_BYTES = 512
_COPY_BYTES = 1 << 20
_U64 = Struct("<Q")


def why_damaged(reader: SegmentReader, offset: int) -> str | None:
    """The evidence that the bad frame at ``offset`` of the last segment was durable; None if it is torn."""
    for later, synced in reader.later_frames(offset):
        if synced > offset:
            return f"the record at byte {later} shows that it was durable"
    if reader.only_length_is_bad(offset) and not _length_is_unwritten(reader, offset):
        return "the record is complete"
    flip = find_flip(reader, offset)
    if flip is not None and flip.is_in_zeros:
        return None
    if flip is not None and not _sector_is_unwritten(reader, flip):
        return "the record is complete but for one bit"
    if not _unfinished(reader, offset):
        return "it is not an unfinished write"
    return None


def what_is_cut(reader: SegmentReader, offset: int) -> str:
    """What is at ``offset`` of the last segment, if ``why_damaged`` found nothing."""
    flip = flip_in_zeros(reader, offset)
    return f"{flip} has flipped, where nothing was written" if flip else "a write was not finished"


def _length_is_unwritten(reader: SegmentReader, offset: int) -> bool:
    """Whether the length field is in a sector of its own (8 bytes at its end) that was not written."""
    return (offset + 8) % SECTOR_BYTES == 0 and not any(reader.read(offset, 8))


def _sector_is_unwritten(reader: SegmentReader, flip: Flip) -> bool:
    """Whether nothing else of the frame is in the sector of the bit."""
    start = flip.offset // SECTOR_BYTES * SECTOR_BYTES
    start, end = max(start, flip.start), min(start + SECTOR_BYTES, flip.end)
    return not any(reader.read(start, end - start))


def _unfinished(reader: SegmentReader, offset: int) -> bool:
    """Whether the frame at ``offset`` has a hole or no end: the signs of a write that stopped."""
    content_end = reader.content_end(offset)
    if content_end <= offset + 8:
        return True  # at most a length field, or part of one
    try:
        size = fmt.frame_size(_U64.unpack(reader.read(offset, 8))[0], offset)
    except fmt.BadFrame:
        size = content_end - offset
    end = offset + size
    if end > reader.size_bytes or content_end < end - 7:
        return True
    return _has_empty_sector(reader, offset, end)


def _has_empty_sector(reader: SegmentReader, start: int, end: int) -> bool:
    """Whether the part of any sector within [start, end) is all zeros."""
    while start < end:
        stop = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, end)
        if not any(reader.read(start, stop - start)):
            return True
        start = stop
    return False


def cut(disk: Disk, reader: SegmentReader, offset: int) -> None:
    """Zero the segment from ``offset`` on, with a copy of it set aside first."""
    content_end = reader.content_end(offset)
    try:
        copy_file(disk, reader.path, reader.path + layout.BROKEN_SUFFIX, content_end)
    except DiskFull as error:
        logger.warning("%s: no room for a copy of the torn segment: %s", reader.path, error)
    file = disk.open(reader.path)
    try:
        write_zeros(file, offset, content_end)
        file.sync()
    finally:
        file.close()


def copy_file(disk: Disk, source: str, target: str, size_bytes: int) -> None:
    """Copy the first ``size_bytes``, durably. After a crash: the old target, or the whole new one."""
    temporary = target + layout.TEMP_SUFFIX
    disk.remove(temporary)
    file = disk.create(temporary)
    try:
        with open(source, "rb") as original:
            offset = 0
            while chunk := original.read(min(_COPY_BYTES, size_bytes - offset)):
                file.pwrite(chunk, offset)
                offset += len(chunk)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, target)
    disk.sync_dir(os.path.dirname(target) or ".")
