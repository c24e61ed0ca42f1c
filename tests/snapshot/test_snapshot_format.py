"""The bytes of a snapshot file: manifest and footer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import Corruption, NotAStore, TooNew
from kvstore.snapshot import manifest as fmt
from kvstore.snapshot.manifest import BadTail, LaterFormat, Manifest, Member, decode_tail, encode_tail
from kvstore.snapshot.reader import read_info

MANIFEST = Manifest(
    backend="lmdb",
    index=300,
    revision=77,
    compact_revision=-1,
    created_ms=1_700_000_000_123,
    cluster_id=0xFEDCBA9876543210,
    member_id=5,
    members=(Member(5, "one"), Member(6, "zwei")),
    keys=12,
    changes=90,
    leases=1,
    backend_bytes=1000,
    sha256=bytes(range(32)),
)

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
manifests = st.builds(
    Manifest,
    backend=st.text("abcdefgh", min_size=1, max_size=20),
    index=u64,
    revision=u64,
    compact_revision=i64,
    created_ms=u64,
    cluster_id=u64,
    member_id=u64,
    members=st.lists(st.builds(Member, u64, st.text(max_size=9)), max_size=3).map(tuple),
    keys=u64,
    changes=u64,
    leases=u64,
    backend_bytes=st.integers(0, 2**40),
    sha256=st.binary(min_size=32, max_size=32),
)


def file_bytes(manifest: Manifest) -> int:
    return manifest.backend_bytes + len(encode_tail(manifest))


@given(manifests)
def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    """Decoding the encoded tail gives the same manifest, whatever its numbers."""
    assert decode_tail(encode_tail(manifest), file_bytes(manifest)) == manifest


def test_the_bytes_do_not_change() -> None:
    """The encoding of one manifest is this, in every later version too."""
    assert encode_tail(MANIFEST).hex() == GOLDEN


GOLDEN = (
    "0a046c6d646210ac02184d20ffffffffffffffffff0128fbd095ffbc313090e4d0b287d3aeeefe013805420708051203"
    "6f6e654208080612047a776569480c505a580160e8076a20000102030405060708090a0b0c0d0e0f1011121314151617"
    "18191a1b1c1d1e1f4b56534e41500d0a0100000068000000ed46576dba78af98"
)


def protobuf_manifest() -> type:
    """The manifest's message type, made by the protobuf package from the table in the module's text."""
    file = descriptor_pb2.FileDescriptorProto(
        name="snapshot_test.proto", package="snapshot_test", syntax="proto3"
    )
    member = file.message_type.add(name="Member")
    message = file.message_type.add(name="Manifest")
    kinds = {"uint64": 4, "int64": 3, "string": 9, "bytes": 12, "message": 11}

    def add(to: Any, number: int, name: str, kind: str, label: Any = 1, type_name: str | None = None) -> None:
        to.field.add(number=number, name=name, type=kinds[kind], label=label, type_name=type_name)

    add(member, 1, "id", "uint64")
    add(member, 2, "name", "string")
    fields = "backend:string index:uint64 revision:uint64 compact_revision:int64 created_ms:uint64 "
    fields += "cluster_id:uint64 member_id:uint64 members:message keys:uint64 changes:uint64 leases:uint64 "
    fields += "backend_bytes:uint64 sha256:bytes"
    for number, field in enumerate(fields.split(), 1):
        name, kind = field.split(":")
        repeated = kind == "message"
        add(message, number, name, kind, 3 if repeated else 1, ".snapshot_test.Member" if repeated else None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("snapshot_test.Manifest"))


def test_protobuf_reads_the_same() -> None:
    """The manifest is the protobuf message that its description says, both ways."""
    message = protobuf_manifest()()
    message.ParseFromString(fmt.encode_manifest(MANIFEST))
    for name in Manifest.__dataclass_fields__:
        if name != "members":
            assert getattr(message, name) == getattr(MANIFEST, name), name
    assert [(m.id, m.name) for m in message.members] == [(5, "one"), (6, "zwei")]
    assert fmt.decode_manifest(message.SerializeToString()) == MANIFEST


def test_fields_of_a_later_version_are_passed_over() -> None:
    """A manifest with an unknown field is still read."""
    assert fmt.decode_manifest(fmt.encode_manifest(MANIFEST) + b"\x78\x05\x82\x01\x03abc") == MANIFEST


def test_every_changed_byte_is_noticed() -> None:
    """Any other value of any byte of manifest and footer is refused."""
    tail = encode_tail(MANIFEST)
    for position in range(len(tail)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(tail)
            damaged[position] ^= flip
            with pytest.raises(BadTail):
                decode_tail(bytes(damaged), file_bytes(MANIFEST))


def test_every_shorter_file_is_noticed() -> None:
    """A tail that lacks any number of its first bytes is refused, and so is a file of another length."""
    tail = encode_tail(MANIFEST)
    for cut in range(1, len(tail) + 1):
        with pytest.raises(BadTail):
            decode_tail(tail[cut:], file_bytes(MANIFEST))
    with pytest.raises(BadTail, match="length"):
        decode_tail(tail, file_bytes(MANIFEST) - 1)


def test_an_incomplete_manifest_is_refused() -> None:
    """Without a backend's name or a whole hash there is nothing to open or to check."""
    for broken in (replace(MANIFEST, backend=""), replace(MANIFEST, sha256=b"short")):
        with pytest.raises(BadTail, match="incomplete"):
            fmt.decode_manifest(fmt.encode_manifest(broken))


def test_a_later_format_is_told_from_damage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A whole footer with a higher version is too new, not damaged."""
    monkeypatch.setattr(fmt, "FORMAT_VERSION", 2)
    tail = encode_tail(MANIFEST)
    monkeypatch.undo()
    with pytest.raises(LaterFormat, match="format 2"):
        decode_tail(tail, file_bytes(MANIFEST))
    (tmp_path / "s").write_bytes(bytes(1000) + tail)
    with pytest.raises(TooNew):
        read_info(tmp_path / "s")


@pytest.mark.parametrize("content", [b"", b"x", b"something else entirely" * 100, bytes(5000)])
def test_other_files_are_not_ours(tmp_path: Path, content: bytes) -> None:
    """A file without a footer, and without a backend's beginning, is somebody else's."""
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(NotAStore):
        read_info(tmp_path / "s")
    with pytest.raises(NotAStore):
        read_info(tmp_path / "..")


def test_a_copy_that_was_changed_by_a_text_transfer_is_damaged(tmp_path: Path) -> None:
    """Line ends that were rewritten on the way are seen as damage."""
    content = bytes(1000) + encode_tail(MANIFEST)
    (tmp_path / "s").write_bytes(content.replace(b"\r\n", b"\n"))
    with pytest.raises((Corruption, NotAStore)):
        read_info(tmp_path / "s")
