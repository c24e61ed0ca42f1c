"""etcd's log, frame by frame: pure functions over the bytes of one segment.

    byte  0                  8                     8 + N        8 + N + padding
          | length field u64 | Record (protobuf) N | zeros 0..7 |
            bits 0..55: N      08 type 10 crc [1a length data]
            bit 63: padded, then bits 56..58: padding bytes

A frame starts at a multiple of 8 and ends at one. A length field of zero is the preallocated rest of
the segment: the end. ``crc`` is the CRC-32C of every ``data`` in the log so far, this one included; it
runs on through all segments, each of which begins with a record of type CRC that repeats it.

    type   1 metadata   2 entry   3 state   4 crc   5 snapshot

Three things can stop a reader, as in etcd: an end, a torn frame (cut short, as a crash leaves it; etcd cuts
it off and goes on), and a bad one (etcd refuses to start).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import crc32c

from .bbolt_page import Buffer

METADATA, ENTRY, STATE, CRC, SNAPSHOT = 1, 2, 3, 4, 5
TYPE_NAMES = {METADATA: "metadata", ENTRY: "entry", STATE: "state", CRC: "crc", SNAPSHOT: "snapshot"}

FRAME_ALIGN_BYTES = 8
MAX_RECORD_BYTES = 10 << 20
"""No single write is larger; etcd up to 3.5.4 calls a longer length damage, wherever it is."""

_SECTOR_BYTES = 512
_LENGTH = struct.Struct("<Q")
_LENGTH_MASK = (1 << 56) - 1


class EndOfSegment(Exception):
    """No further record: clean end of file, or preallocated space."""


class FrameError(ValueError):
    """The frame at this place cannot be read."""


class TornFrame(FrameError):
    """The frame is cut short, as by a crash in the middle of writing it."""


class BadFrame(FrameError):
    """The frame is damaged in a way that no crash explains."""


class Record(NamedTuple):
    type: int
    crc: int
    data: bytes


class Frame(NamedTuple):
    """A decoded frame, and where the next one starts."""

    record: Record
    end: int


def crc_of(data: bytes, running: int) -> int:
    return crc32c.crc32c(data, running)


def body_size(field: int) -> tuple[int, int]:
    """(bytes of the record, bytes of padding) of a length field."""
    return field & _LENGTH_MASK, (field >> 56) & 7 if field >> 63 else 0


def read_frame(buffer: Buffer, at: int, end: int, is_last_segment: bool = True) -> Frame:
    """The frame at ``at`` of a segment that ends at ``end``; its checksum is not checked."""
    if at >= end:
        raise EndOfSegment
    if at + _LENGTH.size > end:
        raise TornFrame("a length field is cut short")
    (field,) = _LENGTH.unpack_from(buffer, at)
    if field == 0:
        raise EndOfSegment
    size, padding = body_size(field)
    start = at + _LENGTH.size
    if size + padding > end - start:
        if size >= MAX_RECORD_BYTES:
            raise BadFrame(f"a record of {size} bytes where {end - start} are left")
        raise TornFrame("a record is cut short")
    body = buffer[start : start + size]
    try:
        return Frame(decode_record(body), start + size + padding)
    except BadFrame as error:
        if is_last_segment and is_torn(buffer, start, start + size + padding):
            raise TornFrame(f"{error}, with a sector never written") from None
        raise


def is_torn(buffer: Buffer, start: int, end: int) -> bool:
    """Whether some sector's share of the frame body is all zero: it was never written."""
    at = start
    while at < end:
        beyond = min(at - at % _SECTOR_BYTES + _SECTOR_BYTES, end)
        if not any(buffer[at:beyond]):
            return True
        at = beyond
    return False


def decode_record(body: bytes) -> Record:
    """A walpb.Record. A body that stops in the middle of a field is torn, any other flaw is bad."""
    record_type = crc = at = 0
    data = b""
    while at < len(body):
        tag, at = _read_varint(body, at)
        number, kind = tag >> 3, tag & 7
        if number in (1, 2) and kind == 0:
            value, at = _read_varint(body, at)
            if number == 1:
                record_type = value
            else:
                crc = value & 0xFFFFFFFF
        elif kind == 2 and number:
            length, at = _read_varint(body, at)
            if length > len(body) - at:
                raise TornFrame("a record's data is cut short")
            if number == 3:
                data = body[at : at + length]
            at += length
        else:
            raise BadFrame("a record that is not protobuf")
    return Record(record_type, crc, data)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        if at >= len(body):
            raise TornFrame("a record is cut short")
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise BadFrame("a number longer than 64 bits")
