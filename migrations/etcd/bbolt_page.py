"""bbolt's pages: bytes in, numbers out. No files, no cache, nothing trusted.

A file is a row of pages; page p starts at byte p * page_size and takes overflow + 1 of them. All
integers are little-endian (bbolt writes the machine's order, and every real one is little).

    page     0        8       10      12         16
             | id u64 | flags | count | overflow | elements ... | keys and values ... |
                        u16     u16     u32

    meta     16       20        24         28      32          40         48        56
    (0, 1)   | magic  | version | page_size | flags | root pgid | sequence | freelist | ...
               u32      u32       u32         u32     u64         u64        u64
             56             64     72
             | high water   | txid | FNV-1a 64 of the 56 bytes from 16 on |
               u64            u64    u64

    leaf element      | flags u32 | pos u32 | ksize u32 | vsize u32 |     flags 1: value is a bucket
    branch element    | pos u32   | ksize u32 | child pgid u64      |

``pos`` counts from the element's own first byte; a leaf's value follows its key, and the next element's
key comes after it. A branch element's key is a lower bound of the keys below it.

A bucket is a value of 16 bytes, root pgid and sequence. Root 0 means inline: the bucket's only page
comes right after those 16 bytes, at any alignment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
BUCKET_FLAG = 0x01

MAGIC = 0xED0CDAED
VERSION = 2
NO_FREELIST = (1 << 64) - 1
FIRST_DATA_PAGE = 2

HEADER = struct.Struct("<QHHI")
LEAF_ELEMENT = struct.Struct("<IIII")
BRANCH_ELEMENT = struct.Struct("<IIQ")
BUCKET = struct.Struct("<QQ")
_META = struct.Struct("<IIIIQQQQQ")
_CHECKSUM = struct.Struct("<Q")
META_BYTES = HEADER.size + _META.size + _CHECKSUM.size

MIN_PAGE_BYTES, MAX_PAGE_BYTES = 512, 1 << 24
MAX_KEY_BYTES = 32768
MAX_VALUE_BYTES = (1 << 31) - 2
MAX_ELEMENTS = 0xFFFE

Buffer = bytes | mmap


class PageError(ValueError):
    """These bytes are not a valid page. ``offset`` is a byte of the buffer, ``reason`` a phrase."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} (byte {offset})")
        self.reason = reason
        self.offset = offset


class Header(NamedTuple):
    page_id: int
    flags: int
    elements: int
    overflow: int


@dataclass(frozen=True, slots=True)
class Meta:
    """What one of the two meta pages says about the whole file."""

    page_size: int
    root: int
    sequence: int
    freelist: int
    high_water: int
    txid: int

    @property
    def size_bytes(self) -> int:
        """The part of the file that belongs to the database."""
        return self.high_water * self.page_size


def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def encode_meta(meta: Meta, page_id: int) -> bytes:
    """A whole meta page."""
    body = _META.pack(
        MAGIC, VERSION, meta.page_size, 0, meta.root, meta.sequence, meta.freelist, meta.high_water, meta.txid
    )
    page = HEADER.pack(page_id, META, 0, 0) + body + _CHECKSUM.pack(fnv1a(body))
    return page.ljust(meta.page_size, b"\0")


class NotMeta(PageError):
    """No bbolt magic here at all."""


class LaterVersion(PageError):
    """An intact meta page of another version than ours."""


def decode_meta(page: bytes, offset: int) -> Meta:
    """The meta page that starts with ``page``'s first byte; ``offset`` is for the error."""
    body = page[HEADER.size : HEADER.size + _META.size]
    if len(page) < META_BYTES or int.from_bytes(body[:4], "little") != MAGIC:
        raise NotMeta("no meta page", offset)
    (checksum,) = _CHECKSUM.unpack_from(page, HEADER.size + _META.size)
    if checksum != fnv1a(body):
        raise PageError("meta page: checksum mismatch", offset)
    _magic, version, page_size, _flags, root, sequence, freelist, high_water, txid = _META.unpack(body)
    if version != VERSION:
        raise LaterVersion(f"meta page of bbolt version {version}, this reads version {VERSION}", offset)
    if not MIN_PAGE_BYTES <= page_size <= MAX_PAGE_BYTES:
        raise PageError(f"meta page: page size {page_size}", offset)
    if not FIRST_DATA_PAGE <= root < high_water:
        raise PageError(f"meta page: root page {root} of {high_water}", offset)
    return Meta(page_size, root, sequence, freelist, high_water, txid)


@dataclass(frozen=True, slots=True)
class Page:
    """A leaf or branch page inside a buffer: where it starts and ends, and how many elements it has."""

    start: int
    end: int
    count: int
    is_leaf: bool


def open_page(buffer: Buffer, start: int, limit: int, page_id: int, page_size: int) -> Page:
    """The leaf or branch at ``start``, overflow included, entirely below ``limit``.

    ``page_size`` 0 means an inline page: it has no overflow and ends at ``limit``.
    """
    if limit - start < HEADER.size:
        raise PageError("no room for a page header", start)
    own_id, flags, count, overflow = HEADER.unpack_from(buffer, start)
    end = start + (overflow + 1) * page_size if page_size else limit
    if own_id != page_id:
        raise PageError(f"page {page_id} says it is page {own_id}", start)
    if flags not in (BRANCH, LEAF):
        raise PageError(f"page {page_id} has flags {flags:#x}, not a branch or leaf", start)
    if end > limit:
        raise PageError(f"page {page_id} and its {overflow} overflow pages pass the end", start)
    if count > (end - start - HEADER.size) // LEAF_ELEMENT.size:
        raise PageError(f"page {page_id} has no room for its {count} elements", start)
    if flags == BRANCH and not count:
        raise PageError(f"branch page {page_id} is empty", start)
    return Page(start, end, count, flags == LEAF)


class Span(NamedTuple):
    """One leaf element: its key, and the place of its value in the buffer."""

    key: bytes
    value_start: int
    value_end: int
    is_bucket: bool


def leaf_spans(buffer: Buffer, page: Page) -> Iterator[Span]:
    """The elements of a leaf, in order."""
    at = page.start + HEADER.size
    limit = page.end
    low = at + page.count * LEAF_ELEMENT.size
    for flags, pos, ksize, vsize in LEAF_ELEMENT.iter_unpack(buffer[at:low]):
        key_start = at + pos
        value_start = key_start + ksize
        value_end = value_start + vsize
        if key_start < low or value_end > limit or not 0 < ksize <= MAX_KEY_BYTES:
            raise PageError("leaf element reaches outside its page, or into another", at)
        yield Span(buffer[key_start:value_start], value_start, value_end, bool(flags & BUCKET_FLAG))
        low = value_end
        at += LEAF_ELEMENT.size


def branch_children(buffer: Buffer, page: Page) -> tuple[list[bytes], list[int]]:
    """The keys of a branch, and the child page behind each."""
    at = page.start + HEADER.size
    low = at + page.count * BRANCH_ELEMENT.size
    keys: list[bytes] = []
    children: list[int] = []
    for pos, ksize, child in BRANCH_ELEMENT.iter_unpack(buffer[at:low]):
        key_start = at + pos
        if key_start < low or key_start + ksize > page.end or ksize > MAX_KEY_BYTES:
            raise PageError("branch element reaches outside its page, or into another", at)
        low = key_start + ksize
        key = buffer[key_start:low]
        if keys and key <= keys[-1]:
            raise PageError("branch keys are not in ascending order", at)
        keys.append(key)
        children.append(child)
        at += BRANCH_ELEMENT.size
    return keys, children


def encode_leaf(page_id: int, rows: list[tuple[bytes, bytes]], flags: int, page_size: int) -> bytes:
    """A leaf page, overflow and zero tail included."""
    at = 0  # of the current element, from the end of the header
    data = len(rows) * LEAF_ELEMENT.size
    numbers: list[int] = []
    parts: list[bytes] = []
    for key, value in rows:
        ksize, vsize = len(key), len(value)
        numbers += (flags, data - at, ksize, vsize)
        parts += (key, value)
        at += LEAF_ELEMENT.size
        data += ksize + vsize
    elements = struct.pack(f"<{len(numbers)}I", *numbers)
    return _finish(page_id, LEAF, len(rows), [elements, *parts], data, page_size)


def encode_branch(page_id: int, children: list[tuple[bytes, int]], page_size: int) -> bytes:
    """A branch page, overflow and zero tail included."""
    at = 0
    data = len(children) * BRANCH_ELEMENT.size
    parts: list[bytes] = []
    for key, child in children:
        parts.append(BRANCH_ELEMENT.pack(data - at, len(key), child))
        at += BRANCH_ELEMENT.size
        data += len(key)
    parts += [key for key, _child in children]
    return _finish(page_id, BRANCH, len(children), parts, data, page_size)


def _finish(
    page_id: int, flags: int, count: int, parts: list[bytes], body_bytes: int, page_size: int
) -> bytes:
    pages = -(-(HEADER.size + body_bytes) // page_size)
    header = HEADER.pack(page_id, flags, count, pages - 1)
    tail = bytes(pages * page_size - HEADER.size - body_bytes)
    return b"".join([header, *parts, tail])
