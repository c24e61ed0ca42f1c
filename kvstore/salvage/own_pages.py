"""Rows in the pages of a damaged backend file, each page by itself: what is in free pages too.

    LMDB     a leaf: its number, flags 2, offsets of its nodes; a node: sizes, flags, key, and data or the number of
             the overflow pages that hold it
    SQLite   a leaf or inner page of an index (each table is one): cells of a length, a record of two blobs, and, if
             it is long, the number of the first of a chain of overflow pages. The pages in ``-wal`` as well

No tree is followed, nothing is mapped, and no library sees the bytes. LMDB's keys of more than 511 bytes are spread
over several rows; they are not put together here. Where pages begin in a file that has lost its beginning, LMDB's tell
by their numbers; SQLite's have none, and are looked for at each sector.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from kvstore.salvage.page_places import find_pages, spread

BY_PAGES = ("lmdb", "sqlite")
"""Whose pages are known here."""
Pair = tuple[bytes, bytes]
"""Key and value of a row."""

_LMDB_PAGE = struct.Struct("=QHHHH")
_LMDB_NODE = struct.Struct("=HHHH")
_LMDB_OVERFLOW = struct.Struct("=QHHI")
_LMDB_PAGE_BYTES = tuple(256 << shift for shift in range(4, 9))
_LMDB_HEADER = re.compile(
    rb"(?s)(?=(.{5}\0{3})\0\0[\x01\x02\x04]\0)" if sys.byteorder == "little" else rb"(?!)"
)
"""Of a branch, a leaf or overflow pages."""
_LMDB_LEAF, _LMDB_OVERFLOW_FLAG, _LMDB_BIG, _LMDB_OTHERS = 0x02, 0x04, 0x01, 0x06
_SQLITE_KINDS = {0x0A: 8, 0x02: 12}
"""Leaf and inner pages of an index, with the size of their headers."""
_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_PAGE_BYTES, _SECTOR_BYTES, _SAMPLED_PAGES = 4096, 512, 4096
_WAL_HEADER_BYTES, _WAL_FRAME_BYTES = 32, 24
_BLOB = 12


def page_rows(backend: str, path: Path) -> Iterator[tuple[str, Pair]]:
    """(place, row) for every row that can be read from a page."""
    data = path.read_bytes()
    if backend == "lmdb":
        yield from _lmdb(data)
    elif backend == "sqlite":
        yield from _sqlite(data, path)


# --- LMDB ---------------------------------------------------------------------------------


def _lmdb(data: bytes) -> Iterator[tuple[str, Pair]]:
    size, zero = find_pages(data, _LMDB_HEADER, _LMDB_PAGE_BYTES) or (_LMDB_PAGE_BYTES[0], 0)
    for number in range(max(2, -(zero // size)), (len(data) - zero) // size):
        at = zero + number * size
        _, _, flags, lower, upper = _LMDB_PAGE.unpack_from(data, at)
        if flags != _LMDB_LEAF or not 16 <= lower <= upper <= size:
            continue
        page = data[at : at + size]
        for (offset,) in struct.iter_unpack("=H", page[16 : lower - lower % 2]):
            pair = _lmdb_node(data, page, offset, zero)
            if pair is not None:
                yield f"page {number}", pair


def _lmdb_node(data: bytes, page: bytes, offset: int, zero: int) -> Pair | None:
    size = len(page)
    if not 16 <= offset <= size - _LMDB_NODE.size:
        return None
    low, high, flags, key_bytes = _LMDB_NODE.unpack_from(page, offset)
    start = offset + _LMDB_NODE.size
    key = page[start : start + key_bytes]
    length = low | high << 16
    if flags & _LMDB_OTHERS or not key or start + key_bytes > size:
        return None
    if not flags & _LMDB_BIG:
        value = page[start + key_bytes : start + key_bytes + length]
        return (key, value) if len(value) == length else None
    number = int.from_bytes(page[start + key_bytes : start + key_bytes + 8], sys.byteorder)
    at = zero + number * size
    if at < 0 or at + 16 + length > len(data):
        return None
    own, _, kind, pages = _LMDB_OVERFLOW.unpack_from(data, at)
    if own != number or kind != _LMDB_OVERFLOW_FLAG or pages * size < 16 + length:
        return None
    return key, data[at + 16 : at + 16 + length]


# --- SQLite -------------------------------------------------------------------------------


def _sqlite(data: bytes, path: Path) -> Iterator[tuple[str, Pair]]:
    size, first = _sqlite_places(data)
    for number in range((len(data) - first) // size):
        page = data[first + number * size : first + (number + 1) * size]
        for pair in _sqlite_page(data, page, size):
            yield f"page {number + 1}", pair
    side = path.with_name(path.name + "-wal")
    log = side.read_bytes() if os.path.exists(side) else b""
    for at in range(_WAL_HEADER_BYTES, len(log) - size - _WAL_FRAME_BYTES + 1, size + _WAL_FRAME_BYTES):
        start = at + _WAL_FRAME_BYTES
        for pair in _sqlite_page(data, log[start : start + size], size):
            yield f"page at {start} of its log", pair


def _sqlite_places(data: bytes) -> tuple[int, int]:
    """(page size, where the first page is)."""
    size = int.from_bytes(data[16:18], "big")
    if data.startswith(_SQLITE_MAGIC) and (size == 1 or (size >= 512 and not size & (size - 1))):
        return 65536 if size == 1 else size, 0
    size = _SQLITE_PAGE_BYTES
    sampled = [number * size for number in spread(len(data) // size, _SAMPLED_PAGES)]
    return size, max(
        range(0, size, _SECTOR_BYTES), key=lambda first: sum(_is_sqlite(data, first + at) for at in sampled)
    )


def _is_sqlite(data: bytes, at: int) -> bool:
    """Whether a page with rows may begin there."""
    header = _SQLITE_KINDS.get(data[at]) if at + 7 <= len(data) else None
    cells = int.from_bytes(data[at + 3 : at + 5], "big")
    content = int.from_bytes(data[at + 5 : at + 7], "big")
    return header is not None and bool(cells) and header + 2 * cells <= content <= _SQLITE_PAGE_BYTES


def _sqlite_page(data: bytes, page: bytes, size: int) -> Iterator[Pair]:
    header = _SQLITE_KINDS.get(page[0])
    if header is None:
        return
    cells = int.from_bytes(page[3:5], "big")
    if header + 2 * cells > size:
        return
    for number in range(cells):
        at = header + 2 * number
        offset = int.from_bytes(page[at : at + 2], "big") + (4 if header == 12 else 0)
        payload = _payload(data, page, offset, size) if offset < size else None
        pair = _two_blobs(payload) if payload is not None else None
        if pair is not None:
            yield pair


def _payload(data: bytes, page: bytes, offset: int, size: int) -> bytes | None:
    total, at = _varint(page, offset)
    most, least = (size - 12) * 64 // 255 - 23, (size - 12) * 32 // 255 - 23
    if total <= most:
        found = page[at : at + total]
        return found if len(found) == total else None
    local = least + (total - least) % (size - 4)
    local = local if local <= most else least
    parts = [page[at : at + local]]
    number = int.from_bytes(page[at + local : at + local + 4], "big")
    left = total - local
    while left > 0:
        start = (number - 1) * size
        if number < 2 or start + size > len(data):
            return None
        parts.append(data[start + 4 : start + 4 + min(left, size - 4)])
        left -= size - 4
        number = int.from_bytes(data[start : start + 4], "big")
    return b"".join(parts) if not number else None


def _two_blobs(payload: bytes) -> Pair | None:
    """The record of a row: a header of three numbers, and two blobs that fill the rest."""
    end, at = _varint(payload, 0)
    first, at = _varint(payload, at)
    second, at = _varint(payload, at)
    if at != end or min(first, second) < _BLOB or first % 2 or second % 2:
        return None
    key_bytes, value_bytes = (first - _BLOB) // 2, (second - _BLOB) // 2
    if end + key_bytes + value_bytes != len(payload):
        return None
    return payload[end : end + key_bytes], payload[end + key_bytes :]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """SQLite's: big-endian, the ninth byte whole."""
    value = 0
    for number in range(9):
        byte = data[at + number] if at + number < len(data) else 0
        if number == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + number + 1
    return value, at
