"""The bytes of the log, held against written-down bytes and against the protobuf package."""

from __future__ import annotations

from typing import Any

import pytest
from crc32c import crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from kvstore import wire
from kvstore.wal import format as fmt

Field = descriptor_pb2.FieldDescriptorProto
U64 = st.integers(0, (1 << 64) - 1)


def messages() -> list[Any]:
    """The messages of the log, as any protobuf implementation would declare them."""
    file = descriptor_pb2.FileDescriptorProto(name="wal.proto", package="wal", syntax="proto2")
    declared = {
        "Record": [
            ("type", "UINT64"), ("crc", "UINT32"), ("data", "BYTES"), ("synced", "UINT64"), ("check", "FIXED32"),
        ],
        "Metadata": [
            ("version", "UINT64"), ("cluster_id", "FIXED64"), ("member_id", "FIXED64"),
            ("first_index", "UINT64"), ("created_ms", "UINT64"), ("extra", "BYTES"),
        ],
        "Batch": [("first_index", "UINT64"), ("time_ms", "INT64"), ("entries", "BYTES")],
    }  # fmt: skip
    for name, fields in declared.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            label = Field.LABEL_REPEATED if field == "entries" else Field.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=getattr(Field, f"TYPE_{kind}"), label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"wal.{name}")) for name in declared]


Record, Metadata, Batch = messages()


def decode(frame: bytes, offset: int, seed: int) -> fmt.Frame:
    size = fmt.frame_size(int.from_bytes(frame[:8], "little"), offset)
    return fmt.decode_frame(b"\xee" * 3 + frame + b"\xee" * 9, 3, offset, size, seed)


# --- written down -----------------------------------------------------------------------------


def test_a_segment_begins_with_these_bytes() -> None:
    """The head of a first segment, byte for byte."""
    head, chain = fmt.segment_head(fmt.Metadata(0x1122334455667788, 0x99, 1, 1_700_000_000_000, b"me"), 0)
    metadata = "0801 118877665544332211 199900000000000000 2001 2880d095ffbc31 32026d65"
    assert head == bytes.fromhex(
        "0b00000000000085 0804 1000 2000 2d80679daa 0000000000"
        f"3200000000000086 0801 10b78e87d308 1a21 {metadata} 2000 2d91481a99 000000000000"
    )
    assert chain == crc32c(bytes.fromhex(metadata)) == 0x8A61C737


def test_a_batch_is_these_bytes() -> None:
    """A batch of two entries, byte for byte, alone and in its frame."""
    data = fmt.encode_batch(300, 1000, [b"ab", b""])
    assert data == bytes.fromhex("08ac02 10e807 1a026162 1a00")
    frame = fmt.encode_frame(fmt.segment_seed(7, 1), 4096, fmt.BATCH, 5, 4096, data)
    assert frame == bytes.fromhex(
        f"1a00000000000086 0802 1005 1a0c {data.hex()} 208020 2da891e5ff 000000000000"
    )


def test_checksums_are_crc32c() -> None:
    """The standard check value of CRC-32C, whole and chained."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


# --- against protobuf -------------------------------------------------------------------------


@given(
    U64,
    st.integers(0, 1 << 40),
    st.sampled_from(sorted(fmt.KINDS)),
    st.integers(0, (1 << 32) - 1),
    U64,
    st.binary(),
)
def test_a_frame_holds_a_protobuf_record(
    seed: int, offset: int, kind: int, crc: int, synced: int, data: bytes
) -> None:
    """Protobuf reads from a frame what was put in, writes the same bytes, and we read them back."""
    seed &= 0xFFFFFFFF
    frame = fmt.encode_frame(seed, offset, kind, crc, synced, None if kind == fmt.CRC else data)
    assert len(frame) % 8 == 0
    length = int.from_bytes(frame[:7], "little")
    padding = len(frame) - 8 - length
    assert 0 <= padding < 8 and frame[7] == (0x80 | padding if padding else 0)
    assert not any(frame[8 + length :])
    record = Record.FromString(frame[8 : 8 + length])
    assert (record.type, record.crc, record.synced) == (kind, crc, synced)
    assert record.check >> 31 and record.HasField("data") == (kind != fmt.CRC)
    assert record.SerializeToString() == frame[8 : 8 + length]
    found = decode(frame, offset, seed)
    assert found == (offset, len(frame), kind, crc, synced, record.data)


@given(st.integers(1, (1 << 63)), st.integers(-(1 << 63), (1 << 63) - 1), st.lists(st.binary(), min_size=1))
def test_a_batch_is_a_protobuf_message(first_index: int, time_ms: int, entries: list[bytes]) -> None:
    """Batches are what protobuf would write, and come back whole."""
    data = fmt.encode_batch(first_index, time_ms, entries)
    message = Batch(first_index=first_index, time_ms=time_ms, entries=entries)
    assert data == message.SerializeToString()
    assert fmt.decode_batch(data) == (first_index, time_ms, entries)
    assert fmt.first_index(data) == first_index


@given(U64, U64, st.integers(0, (1 << 32) - 1), U64, st.integers(1, 1 << 63), st.binary(max_size=300))
def test_a_lone_entry_has_the_same_bytes(
    seed: int, offset: int, chain: int, synced: int, index: int, entry: bytes
) -> None:
    """The short way to the frame of one entry is what the two general steps would write."""
    data = fmt.encode_batch(index, 1_700_000_000_000, [entry])
    expected = crc32c(data, chain)
    frame = fmt.encode_frame(seed & 0xFFFF_FFFF, offset, fmt.BATCH, expected, synced, data)
    lone = fmt.encode_lone(seed & 0xFFFF_FFFF, offset, chain, synced, index, 1_700_000_000_000, entry)
    assert lone == (frame, expected)


@given(U64, U64, U64, U64, st.binary())
def test_metadata_is_a_protobuf_message(
    cluster_id: int, member_id: int, first_index: int, created_ms: int, extra: bytes
) -> None:
    """Metadata is what protobuf would write, and comes back whole."""
    metadata = fmt.Metadata(cluster_id, member_id, first_index, created_ms, extra)
    data = fmt.encode_metadata(metadata)
    message = Metadata(
        version=1,
        cluster_id=cluster_id,
        member_id=member_id,
        first_index=first_index,
        created_ms=created_ms,
        extra=extra,
    )
    assert data == message.SerializeToString()
    assert fmt.decode_metadata(data + b"\x38\x01") == metadata, "a field of a later version is passed over"
    assert fmt.cluster_id_field(cluster_id) in data


# --- a header is valid in one place only -------------------------------------------------------

PLACE = {"cluster_id": 7, "first_index": 1, "offset": 4096}


@pytest.mark.parametrize("other", [{"cluster_id": 8}, {"first_index": 2}, {"offset": 4104}], ids=str)
def test_a_frame_is_valid_only_in_its_place(other: dict[str, int]) -> None:
    """The same bytes at another offset, in another segment or another store are not a frame."""
    seed = fmt.segment_seed(7, 1)
    frame = fmt.encode_frame(seed, 4096, fmt.BATCH, 1, 4096, b"data")
    assert decode(frame, 4096, seed).data == b"data"
    place = PLACE | other
    with pytest.raises(fmt.BadFrame, match="check"):
        decode(frame, place["offset"], fmt.segment_seed(place["cluster_id"], place["first_index"]))


@given(st.binary(max_size=80), st.integers(0, 1 << 32))
def test_any_bytes_are_a_frame_or_bad(data: bytes, seed: int) -> None:
    """Arbitrary bytes never lead to anything but a frame or BadFrame, and lengths allocate nothing."""
    data = data.ljust(16, b"\0")
    try:
        decode(data, 64, seed)
    except fmt.BadFrame as bad:
        assert bad.offset == 64 and bad.reason


@given(st.binary(max_size=80))
def test_any_bytes_are_a_batch_or_a_wire_error(data: bytes) -> None:
    """Arbitrary bytes never lead to anything but a batch or WireError."""
    try:
        batch = fmt.decode_batch(data)
        assert batch.entries
    except wire.WireError:
        pass


def test_no_record_ends_in_a_zero_byte() -> None:
    """However the check comes out, a complete record does not look like a write that stopped early."""
    for seed in range(2000):
        frame = fmt.encode_frame(seed, 0, fmt.BATCH, 0, 0, b"")
        assert frame[8 + int.from_bytes(frame[:7], "little") - 1] >= 0x80


@pytest.mark.parametrize(
    "length", [1, 10, (1 << 30) + 1, 0x7F << 56 | 16, 0x81 << 56 | 16, 0x80 << 56 | 16, (1 << 64) - 1]
)
def test_impossible_lengths_are_refused(length: int) -> None:
    """A length below a record's least, above its most, or with the wrong padding, is no frame's."""
    with pytest.raises(fmt.BadFrame, match="impossible length"):
        fmt.frame_size(length, 0)
