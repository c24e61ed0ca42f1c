"""Looking at a log without opening it: a dump of one segment, and a repair of the whole log.

``scan_segment`` shows every frame, and describes what is wrong where ``Log.open`` refuses.

``repair`` is for a log that is refused. If a single flipped bit is to blame, it is flipped back, and nothing is
lost. Otherwise the longest sound prefix is kept, and what follows it is set aside in files ending in
``.broken``: that gives up acknowledged entries, so it never happens automatically. The report names them; with
``dry_run`` nothing is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvstore import layout, wire
from kvstore.checksum import crc32c
from kvstore.errors import Corruption, NotAStore
from kvstore.files import Disk, disk_full_is_typed
from kvstore.wal import format as fmt
from kvstore.wal import tail
from kvstore.wal.bit_flip import Flip
from kvstore.wal.reader import SegmentReader
from kvstore.wal.replay import Replay, segments_from
from kvstore.wal.restart import set_aside

# --- dump ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A frame, what is wrong with it, or (with no ``kind``) what is wrong where a frame should be."""

    offset: int
    size_bytes: int = 0
    kind: str = ""
    crc: int = 0
    synced: int = 0
    metadata: fmt.Metadata | None = None
    batch: fmt.Batch | None = None
    problem: str = ""


def scan_segment(path: str | os.PathLike[str]) -> Iterator[Found]:
    """Everything in the file, in order; after a bad place, it continues with the next sound header."""
    file = layout.segment_at(path)
    if file is None:
        raise NotAStore(f"{os.fspath(path)} does not have the name of a segment", path)
    with SegmentReader(path) as reader:
        reader.expect(file.cluster_id, file.index)
        offset, chain = 0, None
        while True:
            try:
                frame = reader.frame_anew(offset)
            except fmt.BadFrame as bad:
                yield Found(offset, problem=bad.reason)
                offset, chain = next(reader.later_frames(offset), (-1, 0))[0], None
                if offset < 0:
                    return
                continue
            if frame is None:
                return
            yield _describe(frame, chain)
            offset, chain = frame.end, frame.crc


def _describe(frame: fmt.Frame, chain: int | None) -> Found:
    metadata, batch, problem = None, None, ""
    if frame.kind not in fmt.KINDS:
        problem = f"unknown type {frame.kind}"
    elif frame.kind != fmt.CRC and chain is not None and crc32c(frame.data, chain) != frame.crc:
        problem = "the crc does not match"
    else:
        try:
            metadata = fmt.decode_metadata(frame.data) if frame.kind == fmt.METADATA else None
            batch = fmt.decode_batch(frame.data) if frame.kind == fmt.BATCH else None
        except wire.WireError as error:
            problem = str(error)
    kind = fmt.KINDS.get(frame.kind, str(frame.kind))
    return Found(frame.offset, frame.size_bytes, kind, frame.crc, frame.synced, metadata, batch, problem)


# --- repair -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does, or would do. ``reason`` is empty if the log needs none."""

    last_good_index: int
    reason: str = ""
    is_torn: bool = False
    """Whether only an unfinished write is cut, which was never acknowledged."""
    path: Path | None = None
    offset: int = 0
    last_lost_index: int = 0
    """The last entry found after the bad place; 0 if none is readable there."""
    set_aside: tuple[Path, ...] = ()
    """Segments that are lost entirely; the first of them may be ``path``."""
    flip: Flip | None = None
    """The single bit that was flipped back. Run the check again to see whether the log is now sound."""


@disk_full_is_typed()
def repair(
    disk: Disk,
    wal_dir: str | os.PathLike[str],
    *,
    after_index: int = 0,
    mark: bytes = b"",
    dry_run: bool = False,
) -> Repair:
    """Flip one bit back, or cut the log after its longest sound prefix that begins with the entry after
    ``after_index`` (where ``mark`` is, see ``Log.open``).

    The store must not be open. After a crash the log is either still refused, or repaired.
    """
    wal_dir = Path(wal_dir)
    plan = _plan(wal_dir, after_index, fmt.Mark.decode(mark))
    if not plan.reason or dry_run:
        return plan
    if plan.flip is not None and plan.path is not None:
        flip_back(disk, plan.path, plan.flip)
        return plan
    set_aside(disk, plan.set_aside)
    if plan.path is not None and plan.path not in plan.set_aside:
        with SegmentReader(plan.path) as reader:
            tail.cut(disk, reader, plan.offset)
    return plan


def flip_back(disk: Disk, path: Path, flip: Flip) -> None:
    """Flip a bit back, after setting a copy of the segment aside."""
    tail.copy_file(disk, str(path), str(path) + layout.BROKEN_SUFFIX, path.stat().st_size)
    with SegmentReader(path) as reader:
        (byte,) = reader.read(flip.offset, 1)
    file = disk.open(path)
    try:
        file.pwrite(bytes([byte ^ 1 << flip.bit]), flip.offset)
        file.sync()
    finally:
        file.close()


def _plan(wal_dir: Path, after_index: int, mark: fmt.Mark | None) -> Repair:
    segments = segments_from(wal_dir, after_index)
    replay = Replay(None, wal_dir, after_index, mark)
    try:
        for _ in replay.batches():
            pass
    except Corruption as damage:
        if replay.flip is not None:
            place = Path(damage.path), damage.offset
            return Repair(replay.last_index, damage.reason, False, *place, flip=replay.flip)
        return _plan_cut(segments, replay.last_index, damage)
    with SegmentReader(replay.path) as reader:
        if reader.content_end(replay.end) == replay.end:
            return Repair(replay.last_index)
        reason = f"{tail.what_is_cut(reader, replay.end)}; opening the store cuts it too"
    return Repair(replay.last_index, reason, True, Path(replay.path), replay.end)


def _plan_cut(segments: list[layout.NumberedFile], last_good_index: int, damage: Corruption) -> Repair:
    """Cut at the damage, and set aside what follows; the whole segment if its head is bad."""
    bad = next(number for number, file in enumerate(segments) if str(file.path) == damage.path)
    path, offset = segments[bad].path, max(0, damage.offset)
    in_head = offset < fmt.MIN_HEAD_BYTES
    with SegmentReader(path) as reader:
        if not in_head and reader.content_end(offset) == offset:
            raise damage  # entries are missing at the end: there is nothing to cut
    first_aside = bad if in_head else bad + 1
    if first_aside == 0:
        raise damage  # nothing would be left
    set_aside = tuple(file.path for file in segments[first_aside:])
    lost = [
        found.batch.last_index
        for file in segments[bad:]
        for found in scan_segment(file.path)
        if found.batch is not None and not found.problem
    ]
    last_lost = max((index for index in lost if index > last_good_index), default=0)
    return Repair(last_good_index, damage.reason, False, path, offset, last_lost, set_aside)
