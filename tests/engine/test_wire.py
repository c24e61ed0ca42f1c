"""The hand-written wire format against the protobuf package."""

from __future__ import annotations

import pytest
from google.protobuf.internal import decoder, encoder
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore import wire

EDGES = [
    0,
    1,
    127,
    128,
    *(edge + d for bits in (14, 21, 28, 32, 35, 42, 63) for edge in (1 << bits,) for d in (-1, 0, 1)),
]


@given(
    st.one_of(
        st.integers(0, (1 << 64) - 1), st.sampled_from(EDGES), st.integers(0, 64).map(lambda n: (1 << n) - 1)
    )
)
@example((1 << 64) - 1)
def test_varints_are_those_of_protobuf(value: int) -> None:
    """Encoding gives protobuf's bytes, and decoding gives the value and where it ends."""
    data = wire.varint(value)
    assert wire.counter(value) == data
    assert data == encoder._VarintBytes(value)  # type: ignore[attr-defined]  # private, and the only one there is
    assert wire.read_varint(b"\xff" + data + b"\x01", 1) == (value, 1 + len(data))
    assert decoder._DecodeVarint(data, 0)[0] == value  # type: ignore[attr-defined]


@given(st.integers(-(1 << 63), -1))
def test_negative_numbers_are_ten_byte_varints(value: int) -> None:
    """An int64 below zero is its two's complement, and comes back through ``signed``."""
    data = wire.varint(value)
    assert wire.counter(value) == data
    assert len(data) == 10
    assert wire.signed(wire.read_varint(data, 0)[0]) == value


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff\xff\xff", b"\xff" * 9, b"\xff" * 10, b"\xff" * 30])
def test_an_unfinished_varint_is_refused(data: bytes) -> None:
    """A varint that does not end within its bytes, or within ten, is a WireError."""
    with pytest.raises(wire.WireError):
        wire.read_varint(data, 0)


def test_a_field_without_a_number_is_an_error() -> None:
    """Field numbers begin at 1."""
    for data in (b"\0\0", b"\2\0", b"\5\0\0\0\0"):
        with pytest.raises(wire.WireError, match="without a number"):
            list(wire.fields(data))


@given(st.binary(max_size=60))
def test_any_bytes_give_fields_or_a_wire_error(data: bytes) -> None:
    """Reading fields of arbitrary bytes ends, with fields or with the one error."""
    try:
        for number, value in wire.fields(data):
            assert number > 0 and (isinstance(value, int) or len(value) <= len(data))
    except wire.WireError:
        pass
