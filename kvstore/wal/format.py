"""The bytes of the log: pure functions, bytes in and records out; no files, no clocks, no locks.

A segment is a run of frames, then zeros to the end of the file:

    segment   crc frame ‖ metadata frame ‖ batch frame ‖ batch frame ‖ … ‖ 0 0 0 …

    frame     0        8                       8+N      multiple of 8
              +--------+-----------------------+---------+
              | length | Record (N bytes)      | 0 … 0   |
              +--------+-----------------------+---------+
              length   u64 little-endian: bits 0..55 N; bits 56..63 0, or 0x80 | number of padding bytes

    Record    1 type    varint     CRC 4, METADATA 1, BATCH 2
              2 crc     varint     CRC-32C chained over the data of all records since the first segment
              3 data    bytes      absent in a crc record
              4 synced  varint     everything before this offset of the segment was durable at the time
                                   that this record was written
              5 check   fixed32    CRC-32C of the header, see below; its top bit is always set

    Metadata  1 format version · 2 cluster id (fixed64) · 3 member id (fixed64) · 4 first index
              5 creation time (ms) · 6 bytes of the log's creator

    Batch     1 first index · 2 time (ms, wall clock) · 3 entry, repeated; entry i has index first index + i

Fields are in this order, each exactly once, zeros included: a record has one encoding, and anything
that deviates from it is damage. The crc covers ``data``. The check covers the rest, and the place:

    check = crc32c(cluster id u64, first index of the segment u64, offset of the frame u64,
                   length u64, type u64, crc u64, synced u64) | 1 << 31

so a header can be verified alone, and is valid at only one offset of one segment of one store: a
frame inside a user's value, or left over from another file, does not pass. The top bit makes the last
byte of every record non-zero: a write that stopped early leaves zeros there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

from kvstore import wire
from kvstore.checksum import crc32c
from kvstore.implementation import native

METADATA = 1
BATCH = 2
CRC = 4
KINDS = {METADATA: "metadata", BATCH: "batch", CRC: "crc"}

FORMAT_VERSION = 1
MAX_RECORD_BYTES = 1 << 30
"""The longest record: a bound on what a damaged length can make a reader allocate."""
FRAME_OVERHEAD_BYTES_MAX = 128
"""The most that a frame and the head of its batch add to the entries."""

_U64 = Struct("<Q")
_U32 = Struct("<I")
_IDS = Struct("<QQ")
_HEADER = Struct("<QQQQQ")
_MARK = Struct("<QQQQ")
_LENGTH_BITS = (1 << 56) - 1
_TOP_BIT = 1 << 31
_PADDING = [b"\0" * count for count in range(8)]
_PADDING_BITS = [(0x80 | count) << 56 if count else 0 for count in range(8)]
"""The bits of the length field for this many padding bytes."""
_MIN_RECORD_BYTES = 2 + 2 + 2 + 5
MIN_HEAD_BYTES = 24 + 48
"""No segment is shorter than this: a crc frame, then metadata around two ids and three numbers."""


class BadFrame(ValueError):
    """There is no valid frame at ``offset``."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Frame(NamedTuple):
    """A frame whose header check passed. Verifying its crc needs the chain up to it."""

    offset: int
    size_bytes: int
    kind: int
    crc: int
    synced: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


class Metadata(NamedTuple):
    """Which log a segment belongs to, and where it begins."""

    cluster_id: int
    member_id: int
    first_index: int
    created_ms: int
    extra: bytes = b""
    version: int = FORMAT_VERSION


class Batch(NamedTuple):
    """Entries that were written together; the first has index ``first_index``, the rest follow."""

    first_index: int
    time_ms: int
    entries: list[bytes]

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.entries) - 1


class Mark(NamedTuple):
    """The place of a batch frame. A reader that trusts what comes before it may begin there."""

    segment_index: int
    offset: int
    chain: int
    """The chain before the frame."""
    first_index: int
    """The first index of its batch."""

    def encode(self) -> bytes:
        return _MARK.pack(*self)

    @classmethod
    def decode(cls, data: bytes) -> Mark | None:
        """The mark; None if the bytes are not one. Its content is checked against the segment."""
        return cls(*_MARK.unpack(data)) if len(data) == _MARK.size else None


# --- frames -------------------------------------------------------------------------------


def segment_seed(cluster_id: int, first_index: int) -> int:
    """The part of every header check that is the same throughout a segment."""
    return crc32c(_IDS.pack(cluster_id, first_index))


def _check(seed: int, offset: int, length: int, kind: int, crc: int, synced: int) -> int:
    return crc32c(_HEADER.pack(offset, length, kind, crc, synced), seed) | _TOP_BIT


def length_field(record_bytes: int) -> int:
    """The first 8 bytes of the frame of a record, as a number."""
    return record_bytes | _PADDING_BITS[-record_bytes & 7]


def encode_frame(seed: int, offset: int, kind: int, crc: int, synced: int, data: bytes | None) -> bytes:
    """The frame to be written at ``offset``; ``crc`` is the chain after ``data``."""
    if data is None:
        head, data = b"\x08%c\x10%b" % (kind, wire.varint(crc)), b""
    else:
        head = b"\x08%c\x10%b\x1a%b" % (kind, wire.varint(crc), wire.varint(len(data)))
    tail = b"\x20%b\x2d" % wire.varint(synced)
    record_bytes = len(head) + len(data) + len(tail) + 4
    padding = -record_bytes & 7
    length = record_bytes | _PADDING_BITS[padding]
    check = crc32c(_HEADER.pack(offset, length, kind, crc, synced), seed) | _TOP_BIT
    return b"%b%b%b%b%b%b" % (_U64.pack(length), head, data, tail, _U32.pack(check), _PADDING[padding])


@native
def encode_lone(
    seed: int, offset: int, chain: int, synced: int, index: int, time_ms: int, entry: bytes
) -> tuple[bytes, int]:
    """The frame of a batch of one entry, and the chain after it: ``encode_batch`` and ``encode_frame`` in one."""
    counter, varint = wire.counter, wire.varint
    data = b"".join((b"\x08", counter(index), b"\x10", counter(time_ms), b"\x1a", varint(len(entry)), entry))
    crc = crc32c(data, chain)
    record = b"".join(
        (b"\x08\x02\x10", varint(crc), b"\x1a", varint(len(data)), data, b"\x20", counter(synced), b"\x2d")
    )
    record_bytes = len(record) + 4
    padding = -record_bytes & 7
    length = record_bytes | _PADDING_BITS[padding]
    check = crc32c(_HEADER.pack(offset, length, BATCH, crc, synced), seed) | _TOP_BIT
    return b"".join((_U64.pack(length), record, _U32.pack(check), _PADDING[padding])), crc


def frame_size(length: int, offset: int) -> int:
    """The bytes of the whole frame that a length field announces, if a frame can have that length."""
    record_bytes = length & _LENGTH_BITS
    if not _MIN_RECORD_BYTES <= record_bytes <= MAX_RECORD_BYTES or length != length_field(record_bytes):
        raise BadFrame(offset, f"impossible length field {length:#018x}")
    return 8 + record_bytes + (-record_bytes & 7)


_frame: Any = partial(tuple.__new__, Frame)
_batch: Any = partial(tuple.__new__, Batch)
"""``Frame._make`` and ``Batch._make`` without their Python code."""


def decode_frame(buffer: bytes, at: int, offset: int, size: int, seed: int) -> Frame:
    """The frame of ``size`` bytes that is complete in ``buffer[at:]``, and is at ``offset`` of its segment."""
    frame: Frame = _frame(frame_fields(buffer, at, offset, size, seed))
    return frame


@native
def frame_fields(
    buffer: bytes, at: int, offset: int, size: int, seed: int
) -> tuple[int, int, int, int, int, bytes]:
    """The fields of a ``Frame``."""
    (length,) = _U64.unpack_from(buffer, at)
    kind, crc, data_at, data_end = record_head(buffer, at, offset)
    synced, check, record_end = _record_tail(buffer, data_end, offset)
    if record_end != at + 8 + (length & _LENGTH_BITS):
        raise BadFrame(offset, "the record does not fill its frame")
    if buffer[record_end : at + size] != _PADDING[at + size - record_end]:
        raise BadFrame(offset, "the padding is not zero")
    if crc >> 32 or check != _check(seed, offset, length, kind, crc, synced):
        raise BadFrame(offset, "the check of the header does not match")
    return offset, size, kind, crc, synced, buffer[data_at:data_end]


def record_head(buffer: bytes, at: int, offset: int) -> tuple[int, int, int, int]:
    """(type, crc, begin of data, end of data) of the record in the frame at ``buffer[at:]``."""
    try:
        if buffer[at + 8] != 0x08 or buffer[at + 10] != 0x10:
            raise BadFrame(offset, "not a record")
        kind = buffer[at + 9]
        crc, at = wire.read_varint(buffer, at + 11)
        if kind == CRC:
            return kind, crc, at, at
        if buffer[at] != 0x1A:
            raise BadFrame(offset, "a record without data")
        data_bytes, at = wire.read_varint(buffer, at + 1)
        return kind, crc, at, at + data_bytes
    except (wire.WireError, IndexError):
        raise BadFrame(offset, "a record that is cut short") from None


def _record_tail(buffer: bytes, at: int, offset: int) -> tuple[int, int, int]:
    """(synced, check, end of the record), read from the end of its data on."""
    try:
        if buffer[at] != 0x20:
            raise BadFrame(offset, "a record without its synced offset")
        synced, at = wire.read_varint(buffer, at + 1)
        if buffer[at] != 0x2D:
            raise BadFrame(offset, "a record without its check")
    except (wire.WireError, IndexError):
        raise BadFrame(offset, "a record that is cut short") from None
    if at + 5 > len(buffer):
        raise BadFrame(offset, "a record that is cut short")
    return synced, _U32.unpack_from(buffer, at + 1)[0], at + 5


HEAD_BYTES = 8 + 2 + 6 + 6
"""A frame has at most this many bytes before its data."""

TAIL_BYTES = 11 + 5
"""A record has at most this many bytes after its data."""


def read_header(
    head: bytes, offset: int, seed: int, read: Callable[[int, int], bytes], *, any_length: bool = False
) -> int:
    """The ``synced`` of a frame of which only the ``head`` is at hand; ``BadFrame`` if there is none.

    ``read(offset, size)`` fetches the other end, so that looking for frames costs the same whatever
    lengths are claimed. With ``any_length`` a damaged length field is ignored.
    """
    kind, crc, data_at, data_end = record_head(head, 0, offset)
    if data_end - data_at > MAX_RECORD_BYTES:
        raise BadFrame(offset, "impossible length of data")
    synced, check, tail_end = _record_tail(read(offset + data_end, TAIL_BYTES), 0, offset)
    length = length_field(data_end + tail_end - 8)
    if not any_length and length != _U64.unpack_from(head)[0]:
        raise BadFrame(offset, "the record does not fill its frame")
    if check != _check(seed, offset, length, kind, crc, synced):
        raise BadFrame(offset, "the check of the header does not match")
    return synced


# --- what records carry ---------------------------------------------------------------------


def encode_metadata(metadata: Metadata) -> bytes:
    return b"\x08%b\x11%b\x19%b\x20%b\x28%b\x32%b%b" % (
        wire.varint(metadata.version),
        _U64.pack(metadata.cluster_id),
        _U64.pack(metadata.member_id),
        wire.varint(metadata.first_index),
        wire.varint(metadata.created_ms),
        wire.varint(len(metadata.extra)),
        metadata.extra,
    )


def cluster_id_field(cluster_id: int) -> bytes:
    """How a cluster id is encoded in the metadata of a segment."""
    return b"\x11%b\x19" % _U64.pack(cluster_id)


def decode_metadata(data: bytes) -> Metadata:
    """The metadata, of any version; fields that later versions add are skipped."""
    numbers = dict.fromkeys(range(1, 6), 0)
    extra = b""
    for number, value in wire.fields(data):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 6:
            extra = value
    version, cluster_id, member_id, first_index, created_ms = (numbers[field] for field in range(1, 6))
    return Metadata(cluster_id, member_id, first_index, created_ms, extra, version)


@native
def encode_batch(first_index: int, time_ms: int, entries: Sequence[bytes]) -> bytes:
    head = b"\x08%b\x10%b" % (wire.varint(first_index), wire.varint(time_ms))
    varints = wire.VARINTS
    parts = [head]
    for entry in entries:
        parts += (b"\x1a", varints[len(entry)], entry)
    return b"".join(parts)


def decode_batch(data: bytes) -> Batch:
    """The batch; ``wire.WireError`` if the bytes are not one."""
    batch: Batch = _batch(batch_fields(data))
    return batch


@native
def batch_fields(data: bytes) -> tuple[int, int, list[bytes]]:
    """The fields of a ``Batch``."""
    if data[:1] != b"\x08":
        raise wire.WireError("a batch without its first index")
    first_index, at = wire.read_varint(data, 1)
    if data[at : at + 1] != b"\x10":
        raise wire.WireError("a batch without its time")
    time_ms, at = wire.read_varint(data, at + 1)
    entries, size = [], len(data)
    while at < size:
        if data[at] != 0x1A:
            raise wire.WireError("a batch with something other than entries")
        if at + 2 < size and data[at + 1] >= 0x80 > data[at + 2]:  # most lengths take two bytes
            length, at = data[at + 1] - 0x80 + (data[at + 2] << 7), at + 3
        else:
            length, at = wire.read_varint(data, at + 1)
        end = at + length
        if end > size:
            raise wire.WireError("an entry that runs past its batch")
        entries.append(data[at:end])
        at = end
    if not entries:
        raise wire.WireError("a batch without entries")
    return first_index, wire.signed(time_ms), entries


def first_index(data: bytes) -> int:
    """The first index of a batch, without its entries; 0 if the bytes are not a batch."""
    try:
        return wire.read_varint(data, 1)[0] if data[:1] == b"\x08" else 0
    except wire.WireError:
        return 0


def segment_head(metadata: Metadata, chain: int) -> tuple[bytes, int]:
    """The two frames that open a segment, and the chain after them."""
    seed = segment_seed(metadata.cluster_id, metadata.first_index)
    data = encode_metadata(metadata)
    first = encode_frame(seed, 0, CRC, chain, 0, None)
    chain = crc32c(data, chain)
    return first + encode_frame(seed, len(first), METADATA, chain, 0, data), chain
