"""The protobuf wire format, as far as this store writes it by hand.

A message is a run of fields, each ``tag ‖ payload`` with tag = varint(number << 3 | type):

    type 0  varint            7 bits a byte, least significant first, 0x80 = more follows
    type 1  fixed64           8 bytes little-endian
    type 2  bytes             varint length, then the bytes
    type 5  fixed32           4 bytes little-endian

Hot paths build messages with these functions (a tenth of the cost of message objects); tests
hold the bytes against the ``protobuf`` package. Negative integers are 64-bit two's complement
(10 bytes), as protobuf's int64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_U64 = (1 << 64) - 1


def _varint(value: int) -> bytes:
    value &= _U64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_WITH_MORE = [bytes((number | 0x80,)) for number in range(1 << 7)]


class _More(dict[int, bytes]):
    """Two bytes of a longer varint, by the 14 bits in them, with more to follow. Made when they are first needed."""

    def __missing__(self, bits: int) -> bytes:
        made = self[bits] = _WITH_MORE[bits & 0x7F] + _WITH_MORE[bits >> 7]
        return made


_MORE = _More()


SMALL_END = 1 << 14


class _Varints(dict[int, bytes]):
    """Varints by their number. Those up to 16383, which lengths and versions nearly always are, are remembered."""

    def __missing__(self, value: int) -> bytes:
        if 0 <= value < SMALL_END:
            made = self[value] = _varint(value)
            return made
        if 0 < value < 1 << 28:
            return _MORE[value & 0x3FFF] + self[value >> 14]
        if 0 < value < 1 << 42:
            return _MORE[value & 0x3FFF] + _MORE[value >> 14 & 0x3FFF] + self[value >> 28]
        return _varint(value)


VARINTS = _Varints()

varint: Callable[[int], bytes] = VARINTS.__getitem__
"""The varint of an int64 or uint64. One that is remembered costs no step of Python's."""


_HIGH: dict[int, bytes] = {}
_HIGH_KEPT = 256


def counter(value: int) -> bytes:
    """``varint`` of a number that grows in small steps: all but its low 14 bits are remembered."""
    if value < SMALL_END:
        return VARINTS[value]
    high = _HIGH.get(value >> 14)
    if high is None:
        if len(_HIGH) >= _HIGH_KEPT:
            _HIGH.clear()
        high = _HIGH[value >> 14] = varint(value >> 14)
    return _MORE[value & 0x3FFF] + high


def int_field(number: int, value: int) -> bytes:
    """A varint field (number < 16); empty for 0, the default."""
    return bytes((number << 3,)) + varint(value) if value else b""


def counter_field(number: int, value: int) -> bytes:
    """``int_field`` of a number that grows in small steps."""
    return bytes((number << 3,)) + counter(value) if value else b""


def bytes_field(number: int, data: bytes) -> bytes:
    """A length-delimited field (number < 16), written even if it is empty."""
    return b"%c%b%b" % (number << 3 | BYTES, varint(len(data)), data)


class WireError(ValueError):
    """The bytes are not a protobuf message. Callers turn it into an error that says where."""


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """(value as uint64, offset after it)."""
    try:
        # Each step adds a byte and takes off the "more follows" bit of the one before it.
        value = data[at]
        if value < 1 << 7:
            return value, at + 1
        value += (data[at + 1] << 7) - (1 << 7)
        if value < 1 << 14:
            return value, at + 2
        value += (data[at + 2] << 14) - (1 << 14)
        if value < 1 << 21:
            return value, at + 3
        value += (data[at + 3] << 21) - (1 << 21)
        if value < 1 << 28:
            return value, at + 4
        for count in range(4, 10):
            shift = 7 * count
            value += (data[at + count] << shift) - (1 << shift)
            if value < 1 << shift + 7:
                return value & _U64, at + count + 1
    except IndexError:
        raise WireError("varint cut short") from None
    raise WireError("varint too long")


def signed(value: int) -> int:
    """A uint64 read back as int64."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: ints for varint and fixed types, bytes for type 2."""
    at, size = 0, len(data)
    while at < size:
        tag, at = read_varint(data, at)
        kind, number = tag & 7, tag >> 3
        if not number:
            raise WireError("a field without a number")
        if kind == VARINT:
            number_value, at = read_varint(data, at)
            yield number, number_value
            continue
        if kind == BYTES:
            length, at = read_varint(data, at)
        elif kind == FIXED64:
            length = 8
        elif kind == FIXED32:
            length = 4
        else:
            raise WireError(f"unknown wire type {kind}")
        end = at + length
        if end > size:
            raise WireError("field runs past the end")
        chunk = data[at:end]
        yield number, chunk if kind == BYTES else int.from_bytes(chunk, "little")
        at = end
