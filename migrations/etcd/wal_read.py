"""etcd's log, segment by segment: which files, in what order, and every record with its place.

    <wal-dir>/<sequence>-<index>.wal      16 hex digits each; index: of the first entry that may be inside

    0-0.wal   crc 0 | metadata | snapshot 0 | entry state entry state ...
    1-5a.wal  crc c | metadata | state | entry ...            c: the chain at the end of 0-0.wal

Reading ends at the first frame of length zero of the last segment (the rest is preallocated), or at a
torn frame there: a crash leaves such a tail, nothing in it was ever acknowledged, and etcd cuts it off.

etcd stops looking there. A flipped bit in a length field or a zeroed record in the middle ends its log
as well, silently, and everything after that is lost. So this reader looks further: if there are records after
the end that no crash can have left there, it refuses (``Corruption``, with the place of the end).

    a write of etcd's    entry entry ... state | sync        or, without a sync: state

A disk may keep any part of the last write without the rest; what it had synced before, it keeps whole. So
states, then entries, then states may follow a hole. An entry after a state after an entry may not:
the write before its own had been synced. Records count if two frames in a row are chained by their checksums, or
if one names an entry that the log before it does not have; anything else may be old bytes, or a value.
``as_etcd=True`` accepts the end, as etcd does.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kvstore.errors import Corruption, NotAStore

from . import messages
from .wal_frame import (
    CRC,
    ENTRY,
    FRAME_ALIGN_BYTES,
    METADATA,
    SNAPSHOT,
    STATE,
    BadFrame,
    EndOfSegment,
    Frame,
    FrameError,
    Record,
    TornFrame,
    body_size,
    crc_of,
    is_torn,
    read_frame,
)

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")
_RECORD_START = re.compile(rb"\x08[\x01-\x05]\x10")
_LENGTH_BYTES = 8
_LOG_HEAD_BYTES = 32
"""Room for the first record: a checksum, and no data."""
_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(_CHUNK_BYTES)


class Segment(NamedTuple):
    """A segment of the log, from its file name."""

    path: Path
    sequence: int
    first_index: int


@dataclass(frozen=True, slots=True)
class WalRecord:
    """A record and its place: file, offset of its frame, offset of the next."""

    path: Path
    offset: int
    end: int
    type: int
    crc: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WalEnd:
    """Where the last segment's records end; ``torn`` says why, if not cleanly."""

    path: Path
    offset: int
    torn: str = ""


def segment_name(sequence: int, index: int) -> str:
    return f"{sequence:016x}-{index:016x}.wal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """(sequence, index); None if it is not a segment's name."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def is_log(wal_dir: Path) -> bool:
    """Whether it is etcd's log: its segments are named like ours, but begin with a checksum record."""
    for path in wal_dir.iterdir() if wal_dir.is_dir() else ():
        if parse_segment_name(path.name) and path.is_file():
            with open(path, "rb") as file:
                head = file.read(_LOG_HEAD_BYTES)
            try:
                return read_frame(head, 0, len(head)).record.type == CRC
            except (EndOfSegment, FrameError):
                return False
    return False


def has_segments(wal_dir: Path) -> bool:
    """Whether a directory exists and holds a log."""
    return wal_dir.is_dir() and any(parse_segment_name(path.name) for path in wal_dir.iterdir())


def list_segments(wal_dir: str | os.PathLike[str]) -> list[Segment]:
    """All segments of a directory in order; files with other names are ignored."""
    found = []
    for path in Path(wal_dir).iterdir():
        numbers = parse_segment_name(path.name)
        if numbers and path.is_file():
            found.append(Segment(path, *numbers))
    if not found:
        raise NotAStore(f"{os.fspath(wal_dir)} holds no etcd log", wal_dir)
    return sorted(found, key=lambda segment: segment.path.name)


def select_segments(segments: Sequence[Segment], index: int) -> list[Segment]:
    """The last segment that may hold the entry after ``index``, and all later ones, with none missing."""
    first = max((at for at, segment in enumerate(segments) if segment.first_index <= index), default=None)
    if first is None:
        raise Corruption(f"no log segment reaches back to index {index}", segments[0].path)
    chosen = list(segments[first:])
    for before, after in pairwise(chosen):
        if after.sequence != before.sequence + 1:
            raise Corruption(f"log segment {before.sequence + 1} is missing", after.path)
    return chosen


class WalReader:
    """Iterates over the records of segments in order. ``end`` is set when the iteration is done."""

    def __init__(self, segments: Sequence[Segment], as_etcd: bool = False) -> None:
        self.segments = segments
        self.as_etcd = as_etcd
        self.end: WalEnd | None = None
        self._crc = 0
        self._seen = _Seen()

    def __iter__(self) -> Iterator[WalRecord]:
        for segment in self.segments:
            yield from self._segment(segment, segment is self.segments[-1])

    def _segment(self, segment: Segment, is_last: bool) -> Iterator[WalRecord]:
        with open(segment.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                self._stop(segment, b"", 0, "", is_last)
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = 0
                torn = ""
                while True:
                    try:
                        frame = read_frame(data, at, size, is_last)
                        self._check_crc(frame, data, at, is_last)
                    except EndOfSegment:
                        break
                    except TornFrame as error:
                        if not is_last:
                            raise Corruption(str(error), segment.path, at) from None
                        torn = str(error)
                        break
                    except BadFrame as error:
                        raise Corruption(str(error), segment.path, at) from None
                    record = WalRecord(segment.path, at, frame.end, *frame.record)
                    self._seen.add(record)
                    yield record
                    at = frame.end
                self._stop(segment, data, at, torn, is_last)

    def _check_crc(self, frame: Frame, data: mmap.mmap, at: int, is_last: bool) -> None:
        record = frame.record
        if record.type == CRC:
            if self._crc not in (0, record.crc):
                raise BadFrame("the checksum chain does not continue here")
            self._crc = record.crc
            return
        crc = crc_of(record.data, self._crc)
        if crc != record.crc:
            if is_last and is_torn(data, at + _LENGTH_BYTES, frame.end):
                raise TornFrame("checksum mismatch, with a sector never written")
            raise BadFrame("checksum mismatch")
        self._crc = crc

    def _stop(self, segment: Segment, data: bytes | mmap.mmap, at: int, torn: str, is_last: bool) -> None:
        if not self.as_etcd:
            beyond = find_records_beyond(data, at, self._seen)
            if beyond is not None:
                what = torn or "the log seems to end here"
                raise Corruption(f"{what}, but more of it follows at byte {beyond}", segment.path, at)
        if is_last:
            self.end = WalEnd(segment.path, at, torn)


class _Seen:
    """What the log has shown so far, for judging records after its end."""

    def __init__(self) -> None:
        self.last_index = 0
        self.term = 0

    def add(self, record: WalRecord) -> None:
        try:
            if record.type == ENTRY:
                entry = messages.Entry.FromString(record.data)
                self.last_index, self.term = entry.Index, entry.Term
            elif record.type == SNAPSHOT:
                self.last_index = max(self.last_index, messages.WalSnapshot.FromString(record.data).index)
            elif record.type == STATE:
                self.term = messages.HardState.FromString(record.data).term
        except DecodeError:
            raise Corruption("a record does not hold what it says", record.path, record.offset) from None

    def has_never_seen(self, frame: Frame) -> bool:
        """Whether the record names an entry that the log does not have."""
        kind, _crc, data = frame.record
        try:
            if kind == STATE:
                state = messages.HardState.FromString(data)
                return bool(state.commit > self.last_index and state.term >= max(self.term, 1))
            if kind == ENTRY:
                entry = messages.Entry.FromString(data)
                return bool(entry.Index > self.last_index + 1 and entry.Term >= max(self.term, 1))
        except DecodeError:
            pass
        return False


def find_records_beyond(data: bytes | mmap.mmap, at: int, seen: _Seen) -> int | None:
    """Offset of a record after ``at`` that no crash can have left there; None if there is none.

    The work is bounded: after four times the size of what is searched, too much looks like records
    without being any, and the place reached is returned.
    """
    size = len(data)
    budget_bytes = 4 * (size - at) + _CHUNK_BYTES
    last_write = _LastWrite(seen.last_index)
    chain = 0, 0  # where the record that continues what was found would start, and the checksum before it
    for start in record_starts(data, at + FRAME_ALIGN_BYTES):
        budget_bytes -= _claimed_bytes(data, start)
        frame = _whole_frame(data, start, size)
        if frame is not None:
            budget_bytes -= _claimed_bytes(data, frame.end)
            following = _whole_frame(data, frame.end, size)
            if (
                (start == chain[0] and _continues(chain[1], frame))
                or (following is not None and _continues(frame.record.crc, following))
                or seen.has_never_seen(frame)
            ):
                chain = frame.end, frame.record.crc
                if not last_write.may_hold(frame.record):
                    return start
        if budget_bytes < 0:
            return start
    return None


class _LastWrite:
    """What is found of the log's last write, record by record. ``last_index``: of the log before the hole."""

    def __init__(self, last_index: int) -> None:
        self._last_index = last_index
        self._has_entries = self._has_ended = False

    def may_hold(self, record: Record) -> bool:
        """Whether the next record may belong to it, or to the states around it."""
        if record.type == STATE:
            self._has_entries |= _commit_of(record) > self._last_index  # they were in the hole
            self._has_ended = self._has_entries
            return True
        self._has_entries = True
        return not self._has_ended


def _commit_of(state: Record) -> int:
    try:
        return int(messages.HardState.FromString(state.data).commit)
    except DecodeError:
        return 0


def _continues(crc: int, frame: Frame) -> bool:
    """Whether the checksums chain the frame to what ended with ``crc``."""
    return crc_of(frame.record.data, crc) == frame.record.crc


def _claimed_bytes(data: bytes | mmap.mmap, at: int) -> int:
    """How much of the segment may be read for a frame at ``at``."""
    size, _padding = body_size(int.from_bytes(data[at : at + _LENGTH_BYTES], "little"))
    return _LENGTH_BYTES + (size if size <= len(data) - at else 0)


def _whole_frame(data: bytes | mmap.mmap, at: int, size: int) -> Frame | None:
    """A frame that could be etcd's: a type that carries data, and data."""
    try:
        frame = read_frame(data, at, size, is_last_segment=False)
    except (EndOfSegment, FrameError):
        return None
    well_formed = frame.record.type in (METADATA, ENTRY, STATE, SNAPSHOT) and bool(frame.record.data)
    return frame if well_formed else None


def record_starts(data: bytes | mmap.mmap, at: int) -> Iterator[int]:
    """Offsets of frames whose record begins like one; all-zero stretches are skipped quickly."""
    size = len(data)
    while at < size:
        if data[at : at + _CHUNK_BYTES] == _ZEROS[: size - at]:
            at += _CHUNK_BYTES
            continue
        for match in _RECORD_START.finditer(data, at, min(at + _CHUNK_BYTES + _LENGTH_BYTES + 3, size)):
            start = match.start() - _LENGTH_BYTES
            if at <= start < at + _CHUNK_BYTES and start % FRAME_ALIGN_BYTES == 0:
                yield start
        at += _CHUNK_BYTES
