"""The bytes of a snapshot file: pure functions, bytes in and records out; no files, no clocks.

A snapshot is a backend file that can be opened in place, followed by a description of it:

    0                          backend_bytes                              end - 24            end
    +--------------------------+------------------------------------------+--------------------+
    | copy of the backend,     | Manifest (protobuf)                      | footer             |
    | openable from byte 0     |                                          |                    |
    +--------------------------+------------------------------------------+--------------------+

    footer    0  "KVSNAP\\r\\n"  (8; the line end shows a file that was copied as text)
              8  format version (4)
             12  length of the manifest in bytes (4)
             16  CRC-32C of the manifest (4)
             20  CRC-32C of bytes 0 to 20 of the footer (4)      integers little-endian

    Manifest  1 backend          name of the backend, as in the option
              2 index            log entries up to this one are in the copy
              3 revision         newest revision
              4 compact_revision oldest revision that can be read, -1: nothing was compacted
              5 created_ms       wall clock
              6 cluster_id       7 member_id        of the store it was taken from
              8 member           repeated Member {1 id, 2 name}
              9 keys            10 changes         11 leases         counts of rows
             12 backend_bytes   13 sha256          of the backend copy

The format and the footer are found from the end, so the backend need not know about them: a backend opens a file as
``immutable`` and ignores what comes after its own end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kvstore.checksum import crc32c
from kvstore.wire import WireError, bytes_field, fields, int_field, signed

MAGIC = b"KVSNAP\r\n"
FORMAT_VERSION = 1
MANIFEST_BYTES_MAX = 1 << 20

_FOOTER = struct.Struct("<8sIII")
_CRC = struct.Struct("<I")
FOOTER_BYTES = _FOOTER.size + _CRC.size
TAIL_BYTES_MAX = MANIFEST_BYTES_MAX + FOOTER_BYTES


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster that the snapshot was taken from."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot holds, and which store it was taken from."""

    backend: str
    """The kind of backend in it."""
    index: int
    """The last entry of the log that is in it."""
    revision: int
    """The revision that it is of."""
    compact_revision: int
    """The revision below which the past is gone."""
    created_ms: int
    """When it was made: milliseconds since 1970."""
    cluster_id: int
    """Whose it is: the cluster."""
    member_id: int
    """Whose it is: the member."""
    members: tuple[Member, ...] = ()
    """The members of the cluster, where an etcd's are known."""
    keys: int
    """How many keys."""
    changes: int
    """How many changes it keeps."""
    leases: int
    """How many leases."""
    backend_bytes: int
    """How long that part is."""
    sha256: bytes
    """The hash of the content."""


class BadTail(ValueError):
    """The end of the file is ours, but damaged."""


class LaterFormat(ValueError):
    """The end of the file is ours, in a format that this version does not know."""


def encode_tail(manifest: Manifest) -> bytes:
    """Manifest and footer: the bytes after the backend copy."""
    body = encode_manifest(manifest)
    footer = _FOOTER.pack(MAGIC, FORMAT_VERSION, len(body), crc32c(body))
    return body + footer + _CRC.pack(crc32c(footer))


def has_footer(tail: bytes) -> bool:
    """Whether the last bytes of a file mark it as one of our snapshots."""
    return tail[-FOOTER_BYTES:].startswith(MAGIC)


def decode_tail(tail: bytes, file_bytes: int) -> Manifest:
    """The manifest, from (at least) the last ``TAIL_BYTES_MAX`` bytes of a file; checked with its footer."""
    footer = tail[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or not has_footer(tail):
        raise BadTail("the footer is missing")
    if crc32c(footer[:-4]) != _CRC.unpack(footer[-4:])[0]:
        raise BadTail("footer checksum mismatch")
    _, version, length, crc = _FOOTER.unpack(footer[:-4])
    if version > FORMAT_VERSION:
        raise LaterFormat(f"snapshot format {version}; this version reads {FORMAT_VERSION}")
    if length > len(tail) - FOOTER_BYTES:
        raise BadTail("the manifest is longer than the file")
    body = tail[-FOOTER_BYTES - length : -FOOTER_BYTES]
    if crc32c(body) != crc:
        raise BadTail("manifest checksum mismatch")
    manifest = decode_manifest(body)
    told_bytes = manifest.backend_bytes + length + FOOTER_BYTES
    if told_bytes != file_bytes:
        raise BadTail(f"the file has {file_bytes} bytes; its manifest says {told_bytes}")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    return b"".join(
        [
            bytes_field(1, manifest.backend.encode()),
            int_field(2, manifest.index),
            int_field(3, manifest.revision),
            int_field(4, manifest.compact_revision),
            int_field(5, manifest.created_ms),
            int_field(6, manifest.cluster_id),
            int_field(7, manifest.member_id),
            *(bytes_field(8, int_field(1, m.id) + bytes_field(2, m.name.encode())) for m in manifest.members),
            int_field(9, manifest.keys),
            int_field(10, manifest.changes),
            int_field(11, manifest.leases),
            int_field(12, manifest.backend_bytes),
            bytes_field(13, manifest.sha256),
        ]
    )


def decode_manifest(body: bytes) -> Manifest:
    """The reverse; fields of later versions are skipped. Raises ``BadTail``."""
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    members = []
    try:
        for number, value in fields(body):
            if isinstance(value, int):
                numbers[number] = value
            elif number == 8:
                members.append(_decode_member(value))
            else:
                texts[number] = value
        backend = texts.get(1, b"").decode("ascii")
    except (WireError, UnicodeDecodeError) as error:
        raise BadTail(f"the manifest is malformed: {error}") from None
    if not backend or len(texts.get(13, b"")) != 32:
        raise BadTail("the manifest is incomplete")
    return Manifest(
        backend=backend,
        index=numbers.get(2, 0),
        revision=numbers.get(3, 0),
        compact_revision=signed(numbers.get(4, 0)),
        created_ms=numbers.get(5, 0),
        cluster_id=numbers.get(6, 0),
        member_id=numbers.get(7, 0),
        members=tuple(members),
        keys=numbers.get(9, 0),
        changes=numbers.get(10, 0),
        leases=numbers.get(11, 0),
        backend_bytes=numbers.get(12, 0),
        sha256=texts[13],
    )


def _decode_member(data: bytes) -> Member:
    parts = dict(fields(data))
    ident, name = parts.get(1, 0), parts.get(2, b"")
    if not isinstance(ident, int) or not isinstance(name, bytes):
        raise WireError("a member is malformed")
    return Member(ident, name.decode())
