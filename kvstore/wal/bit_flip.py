"""One flipped bit: finding it, if it is the only thing wrong.

Two checksums cover a frame, so a single wrong bit can be identified: with that bit flipped back, the check of the
header holds, and so does the crc of the data. Bits of the header are tried one by one. A wrong bit of the data follows
from the crc, because its effect on it depends only on its distance from the end:

    last byte          d = table[1 << bit]
    the byte before    d = table[d & 255] ^ d >> 8        and so on

So the difference between the actual and the expected crc is stepped back until it is one of the first eight. Where
nothing was ever written there are only zeros, and a bit that flipped there is the only one set.

Other damage looks like one flipped bit in about one of 2**32 / (bits of the record) cases. That is good enough to
refuse what may have been acknowledged; a bit is only flipped back on request (``inspect.repair``).
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.checksum import crc32c
from kvstore.wal import format as fmt
from kvstore.wal.reader import SegmentReader

SEARCHED_BYTES_MAX = 8 << 20
"""Longer frames are not searched: that would take seconds."""

_ALL = 0xFFFFFFFF
_TABLE = [crc32c(bytes([byte]), _ALL) ^ _ALL for byte in range(256)]
_BACK = {step >> 24: byte for byte, step in enumerate(_TABLE)}
_LAST = {_TABLE[1 << bit]: bit for bit in range(8)}


class Flip(NamedTuple):
    """A bit of a segment, and the extent of the frame that is whole without it (empty if none was written there)."""

    offset: int
    bit: int
    start: int
    end: int

    @property
    def is_in_zeros(self) -> bool:
        return self.start == self.end

    def __str__(self) -> str:
        return f"bit {self.bit} of byte {self.offset}"


def find_flip(reader: SegmentReader, offset: int) -> Flip | None:
    """The only wrong bit at ``offset``, where the reader's next frame or zeros should be."""
    if (flip := flip_in_zeros(reader, offset)) is not None:
        return flip
    field = int.from_bytes(reader.read(offset, 8), "little")
    for number in range(64):
        frame = _frame(reader, offset, field ^ 1 << number)
        if frame and _is_whole(frame, offset, reader):
            return Flip(offset + number // 8, number % 8, offset, offset + len(frame))
    frame = _frame(reader, offset, field)
    found = _in_header(frame, offset, reader) or _in_data(frame, offset, reader) if frame else None
    return Flip(offset + found[0], found[1], offset, offset + len(frame)) if found else None


def flip_in_zeros(reader: SegmentReader, offset: int) -> Flip | None:
    """The bit, if it is the only one set from ``offset`` on."""
    only = reader.only_byte(offset)
    if only is None or only[1].bit_count() > 1:
        return None
    at, byte = only
    return Flip(at, byte.bit_length() - 1, offset, offset)


def _frame(reader: SegmentReader, offset: int, field: int) -> bytes:
    """The frame with that length field; empty if it does not fit."""
    try:
        size = fmt.frame_size(field, offset)
    except fmt.BadFrame:
        return b""
    if size > min(SEARCHED_BYTES_MAX, reader.size_bytes - offset):
        return b""
    return field.to_bytes(8, "little") + reader.read(offset + 8, size - 8)


def _is_whole(frame: bytes, offset: int, reader: SegmentReader) -> bool:
    try:
        found = fmt.decode_frame(frame, 0, offset, len(frame), reader.seed)
    except fmt.BadFrame:
        return False
    return found.kind == fmt.CRC or crc32c(found.data, reader.chain) == found.crc


def _in_header(frame: bytes, offset: int, reader: SegmentReader) -> tuple[int, int] | None:
    """The (byte, bit) of a flip before or after the data."""
    tail = max(len(frame) - fmt.TAIL_BYTES - 7, fmt.HEAD_BYTES)
    for at in (*range(8, min(fmt.HEAD_BYTES, len(frame))), *range(tail, len(frame))):
        for bit in range(8):
            changed = b"%b%c%b" % (frame[:at], frame[at] ^ 1 << bit, frame[at + 1 :])
            if _is_whole(changed, offset, reader):
                return at, bit
    return None


def _in_data(frame: bytes, offset: int, reader: SegmentReader) -> tuple[int, int] | None:
    """The (byte, bit) of a flip in the data, if the header is good."""
    try:
        found = fmt.decode_frame(frame, 0, offset, len(frame), reader.seed)
    except fmt.BadFrame:
        return None
    end = fmt.record_head(frame, 0, offset)[3]
    difference = crc32c(found.data, reader.chain) ^ found.crc
    for back in range(1, len(found.data) + 1):
        if difference in _LAST:
            return end - back, _LAST[difference]
        byte = _BACK[difference >> 24]
        difference = (difference ^ _TABLE[byte]) << 8 & _ALL | byte
    return None
