"""Rows in the pages of a damaged backend file, each page by itself: what is in free pages too.

    LMDB     a leaf: its number, flags 2, offsets of its nodes; a node: sizes, flags, key, and data or the number of
             the overflow pages that hold it
    SQLite   a leaf or inner page of an index (each table is one): cells of a length, a record of two blobs, and, if
             it is long, the number of the first of a chain of overflow pages. The pages in ``-wal`` as well

No tree is followed, nothing is mapped, and no library sees the bytes: one page is in memory at a time, and each row
comes with the place where it can be read again. LMDB's keys of more than 511 bytes are spread over several rows; they
are not put together here.

Where pages begin in a file that has lost its beginning, LMDB's tell by their numbers; SQLite's have none, and are
looked for at each sector.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kvstore.errors import Corruption
from kvstore.salvage.evidence import InFile, Kept
from kvstore.salvage.page_places import find_pages, spread
from kvstore.salvage.pieces import Pieces

BY_PAGES = ("lmdb", "sqlite")
"""Whose pages are known here."""
Pair = tuple[bytes, bytes]
"""Key and value of a row."""


class PageRow(NamedTuple):
    """A row of a page."""

    page: str
    key: bytes
    value: bytes
    place: Kept
    """Of the value."""


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


def page_rows(backend: str, file: Pieces) -> Iterator[PageRow]:
    """Every row that can be read from a page."""
    if backend == "lmdb":
        yield from _lmdb(file)
    elif backend == "sqlite":
        yield from _sqlite(file)


# --- LMDB ---------------------------------------------------------------------------------


def _lmdb(file: Pieces) -> Iterator[PageRow]:
    found = find_pages(file.scan, file.size_bytes, _LMDB_HEADER, _LMDB_PAGE_BYTES)
    size, zero = found or (_LMDB_PAGE_BYTES[0], 0)
    for number in range(max(2, -(zero // size)), (file.size_bytes - zero) // size):
        at = zero + number * size
        page = file.scan(at, at + size)
        _, _, flags, lower, upper = _LMDB_PAGE.unpack_from(page)
        if flags != _LMDB_LEAF or not 16 <= lower <= upper <= size:
            continue
        name = f"page {number}"
        for (offset,) in struct.iter_unpack("=H", page[16 : lower - lower % 2]):
            found_node = _lmdb_node(file, page, offset, at, zero)
            if found_node is not None:
                key, place = found_node
                value = file.scan(place.start, place.end)
                yield PageRow(name, key, value, place)


def _lmdb_node(
    file: Pieces, page: bytes, offset: int, page_at: int, zero: int
) -> tuple[bytes, InFile] | None:
    """(key, where the value is)."""
    size = len(page)
    if not 16 <= offset <= size - _LMDB_NODE.size:
        return None
    low, high, flags, key_bytes = _LMDB_NODE.unpack_from(page, offset)
    start = offset + _LMDB_NODE.size
    key = page[start : start + key_bytes]
    length = low | high << 16
    if flags & _LMDB_OTHERS or not key or start + key_bytes > size:
        return None
    start += key_bytes
    if not flags & _LMDB_BIG:
        return (
            (key, InFile(file, page_at + start, page_at + start + length)) if start + length <= size else None
        )
    number = int.from_bytes(page[start : start + 8], sys.byteorder)
    at = zero + number * size
    if at < 0 or at + 16 + length > file.size_bytes:
        return None
    own, _, kind, pages = _LMDB_OVERFLOW.unpack(file.scan(at, at + _LMDB_OVERFLOW.size))
    if own != number or kind != _LMDB_OVERFLOW_FLAG or pages * size < 16 + length:
        return None
    return key, InFile(file, at + 16, at + 16 + length)


# --- SQLite -------------------------------------------------------------------------------


class InCell(NamedTuple):
    """The value of a row of SQLite's, in a cell and the chain of pages that it continues on."""

    pages: Pieces
    page_at: int
    offset: int
    file: Pieces
    size: int

    def read(self) -> bytes:
        page = self.pages.read(self.page_at, self.page_at + self.size)
        pair = _two_blobs(_payload(self.file.read, self.file.size_bytes, page, self.offset, self.size) or b"")
        if pair is None:
            raise Corruption("a row is not what it was a moment ago", self.pages.path, self.page_at)
        return pair[1]


def _sqlite(file: Pieces) -> Iterator[PageRow]:
    size, first = _sqlite_places(file)
    for number in range((file.size_bytes - first) // size):
        yield from _sqlite_page(f"page {number + 1}", file, first + number * size, file, size)
    side = file.path.with_name(file.path.name + "-wal")
    if not side.exists():
        return
    log = Pieces(side, file.stack)
    for at in range(_WAL_HEADER_BYTES, log.size_bytes - size - _WAL_FRAME_BYTES + 1, size + _WAL_FRAME_BYTES):
        start = at + _WAL_FRAME_BYTES
        yield from _sqlite_page(f"page at {start} of its log", log, start, file, size)


def _sqlite_places(file: Pieces) -> tuple[int, int]:
    """(page size, where the first page is)."""
    head = file.scan(0, 18)
    size = int.from_bytes(head[16:18], "big")
    if head.startswith(_SQLITE_MAGIC) and (size == 1 or (size >= 512 and not size & (size - 1))):
        return 65536 if size == 1 else size, 0
    size = _SQLITE_PAGE_BYTES
    sampled = [number * size for number in spread(file.size_bytes // size, _SAMPLED_PAGES)]
    return size, max(
        range(0, size, _SECTOR_BYTES), key=lambda first: sum(_is_sqlite(file, first + at) for at in sampled)
    )


def _is_sqlite(file: Pieces, at: int) -> bool:
    """Whether a page with rows may begin there."""
    begin = file.scan(at, at + 7)
    header = _SQLITE_KINDS.get(begin[0]) if len(begin) == 7 else None
    cells, content = int.from_bytes(begin[3:5], "big"), int.from_bytes(begin[5:7], "big")
    return header is not None and bool(cells) and header + 2 * cells <= content <= _SQLITE_PAGE_BYTES


def _sqlite_page(name: str, pages: Pieces, page_at: int, file: Pieces, size: int) -> Iterator[PageRow]:
    page = pages.scan(page_at, page_at + size)
    header = _SQLITE_KINDS.get(page[0])
    if header is None:
        return
    cells = int.from_bytes(page[3:5], "big")
    if header + 2 * cells > size:
        return
    for number in range(cells):
        at = header + 2 * number
        offset = int.from_bytes(page[at : at + 2], "big") + (4 if header == 12 else 0)
        payload = _payload(file.scan, file.size_bytes, page, offset, size) if offset < size else None
        pair = _two_blobs(payload) if payload is not None else None
        if pair is not None:
            yield PageRow(name, *pair, InCell(pages, page_at, offset, file, size))


def _payload(
    read: Callable[[int, int], bytes], file_bytes: int, page: bytes, offset: int, size: int
) -> bytes | None:
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
        if number < 2 or start + size > file_bytes:
            return None
        piece = read(start, start + size)
        parts.append(piece[4 : 4 + min(left, size - 4)])
        left -= size - 4
        number = int.from_bytes(piece[:4], "big")
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
