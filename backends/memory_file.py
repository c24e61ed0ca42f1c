"""The file that a memory backend is copied to and loaded from.

      0  "KVMEMORY" (8)
      8  format (4; 1)
     12  CRC-32C of the body (4)
     16  length of the body in bytes (8)
     24  CRC-32C of bytes 0 to 24 (4)
     28  body: for each table
             length of the name (4) | number of rows (8) | name
             for each row, in key order: length of the key (4) | length of the value (4) | key | value

Integers are little-endian. Bytes after the body are ignored.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG

from kvstore.backend import Row, recognize_backend
from kvstore.checksum import crc32c
from kvstore.errors import Corruption, NotAStore, TooNew, WrongStore
from kvstore.files import OSDisk

MAGIC = b"KVMEMORY"
FORMAT = 1
_HEADER = struct.Struct("<8sIIQ")
_CRC = struct.Struct("<I")
_TABLE = struct.Struct("<IQ")
_ROW = struct.Struct("<II")
HEADER_BYTES = _HEADER.size + _CRC.size


def header(body_crc: int, body_bytes: int, version: int = FORMAT) -> bytes:
    start = _HEADER.pack(MAGIC, version, body_crc, body_bytes)
    return start + _CRC.pack(crc32c(start))


def table_start(name: str, rows: int) -> bytes:
    encoded = name.encode()
    return _TABLE.pack(len(encoded), rows) + encoded


def encode_rows(rows: Iterable[Row]) -> bytes:
    return b"".join([_ROW.pack(len(key), len(value)) + key + value for key, value in rows])


def parse_body(body: bytes) -> Iterator[tuple[str, list[Row]]]:
    """The tables of a body; raises ``ValueError`` if it is malformed."""
    at = 0
    while at < len(body):
        name_bytes, rows = _unpack(_TABLE, body, at)
        at += _TABLE.size
        name = body[at : at + name_bytes].decode()
        at += name_bytes
        table: list[Row] = []
        for _ in range(rows):
            key_bytes, value_bytes = _unpack(_ROW, body, at)
            at += _ROW.size
            end = at + key_bytes + value_bytes
            if end > len(body):
                raise ValueError("a row is longer than the file")
            table.append((body[at : at + key_bytes], body[at + key_bytes : end]))
            at = end
        yield name, table


def _unpack(shape: struct.Struct, body: bytes, at: int) -> tuple[int, int]:
    if at + shape.size > len(body):
        raise ValueError("the body ends inside a row")
    first, second = shape.unpack_from(body, at)
    return first, second


def load(path: Path) -> dict[str, list[Row]]:
    """The tables of the file; raises for anything but a whole file of ours."""
    if not S_ISREG(os.stat(path).st_mode):
        raise NotAStore(f"{path} is not a regular file", path)
    with open(path, "rb") as file:
        start = file.read(HEADER_BYTES)
        body_crc, body_bytes = _parse_header(path, start)
        if os.fstat(file.fileno()).st_size < HEADER_BYTES + body_bytes:
            raise Corruption("the file is cut short", path, os.fstat(file.fileno()).st_size)
        body = file.read(body_bytes)
    if crc32c(body) != body_crc:
        raise Corruption("body checksum mismatch", path, HEADER_BYTES)
    try:
        return dict(parse_body(body))
    except ValueError as error:
        raise Corruption(str(error), path) from error


def _parse_header(path: Path, start: bytes) -> tuple[int, int]:
    if not start.startswith(MAGIC):
        other = recognize_backend(path)
        if other is not None:
            raise WrongStore(f"{path} is a file of the {other.name} backend, not of memory", path)
        raise NotAStore(f"{path} is not a copy of a memory backend", path)
    if len(start) < HEADER_BYTES:
        raise Corruption("the file ends inside its header", path, len(start))
    _, version, body_crc, body_bytes = _HEADER.unpack_from(start)
    if crc32c(start[: _HEADER.size]) != _CRC.unpack_from(start, _HEADER.size)[0]:
        raise Corruption("header checksum mismatch", path, 0)
    if version > FORMAT:
        raise TooNew(f"{path} has format {version}; this version reads {FORMAT}", path)
    return body_crc, body_bytes


def save(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file with the body that ``chunks`` make up. The caller syncs."""
    disk = OSDisk()
    file = disk.create(path)
    try:
        crc, offset = 0, HEADER_BYTES
        for chunk in chunks:
            crc = crc32c(chunk, crc)
            file.pwrite(chunk, offset)
            offset += len(chunk)
        file.pwrite(header(crc, offset - HEADER_BYTES), 0)
    except BaseException:
        disk.remove(path)
        raise
    finally:
        file.close()
