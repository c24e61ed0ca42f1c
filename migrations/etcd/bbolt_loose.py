"""A bbolt file of which anything may be missing or wrong, page by page. Nothing here raises for what the bytes are.

    page 0, 1     metas: where both are damaged, pages that carry their own number tell how large pages are
    page n        its header says what it is; the last page may be cut short

They tell as well where the pages lie if the file has lost its beginning, or something stands before it.

``BboltFile`` refuses such files, and is what to read sound ones with.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from kvstore.errors import NotAStore, StoreLocked
from kvstore.salvage.page_places import find_pages, spread

from .bbolt_page import (
    BRANCH,
    FIRST_DATA_PAGE,
    FREELIST,
    HEADER,
    LEAF,
    LEAF_ELEMENT,
    MAX_KEY_BYTES,
    META,
    META_BYTES,
    Buffer,
    Header,
    Meta,
    PageError,
    Span,
    decode_meta,
)
from .bbolt_read import FAULT_AROUND_BYTES, RELEASE_EVERY_BYTES, SECTOR_BYTES, TRAILER_BYTES

PAGE_BYTES = (4096, 8192, 16384, 32768, 65536, 1024, 2048)
"""Page sizes that a system may have, the commonest first."""
KINDS = {BRANCH: "branch", LEAF: "leaf", META: "meta", FREELIST: "freelist"}
_SAMPLED_PAGES = 4096
_HEADER = re.compile(rb"(?s)(?=(.{5}\0{3})[\x01\x02\x10]\0.{5}\0)")
"""Of a branch, a leaf or a freelist; with fewer than 2**40 pages, and fewer than 2**24 that overflow."""
_BUCKET_FLAG = 1


class LooseFile:
    """A file that was, or may have been, bbolt's. Use it as a context manager, or ``close`` it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise NotAStore(f"{self.path} is not a regular file", self.path)
            _lock(fd, self.path)
            self.file_bytes = found.st_size
            self.data: Buffer = mmap.mmap(fd, 0, access=mmap.ACCESS_READ) if found.st_size else b""
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd  # holds the lock, together with the mapped file
        self._visited_bytes = 0
        self.zero = 0
        """The byte at which page 0 begins; below 0: the file has lost its beginning."""
        self.metas = self._metas()
        """The readable metas by page number."""
        self.page_size = next((meta.page_size for meta in self.metas.values()), PAGE_BYTES[0])
        if not self.metas or not self.has_own_numbers():
            self.page_size, self.zero = find_pages(self.read, self.file_bytes, _HEADER, PAGE_BYTES) or (
                self.page_size,
                0,
            )
            self.metas = self._metas()

    def close(self) -> None:
        """Whoever still reads from it may go on: the mapped file, and its lock, end with the last of them."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, start: int, end: int) -> bytes:
        """Bytes of the file; the memory of pages that were read is given back from time to time."""
        self._visited_bytes += max(end - start, FAULT_AROUND_BYTES)
        if self._visited_bytes >= RELEASE_EVERY_BYTES and isinstance(self.data, mmap.mmap):
            self._visited_bytes = 0
            self.data.madvise(mmap.MADV_DONTNEED)
        return self.data[start:end]

    def __enter__(self) -> LooseFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- the file --------------------------------------------------------------------------

    def _metas(self) -> dict[int, Meta]:
        found: dict[int, Meta] = {}
        for offset in (0, *PAGE_BYTES):
            at = self.zero + offset
            try:
                meta = decode_meta(self.data[at : at + META_BYTES] if at >= 0 else b"", at)
            except PageError:
                continue
            if offset in (0, meta.page_size):
                found[1 if offset else 0] = meta
        if len({meta.page_size for meta in found.values()}) > 1:
            found = {0: found[0]}
        return found

    def has_own_numbers(self) -> bool:
        """Whether any page carries its own number, besides the metas: of those that are looked at."""
        for number in spread(self.pages, _SAMPLED_PAGES):
            header = self.header(number)
            if header is not None and header.page_id == number >= FIRST_DATA_PAGE and header.flags in KINDS:
                return True
        return False

    @property
    def pages(self) -> int:
        """How many pages it has: one that is cut short, and those missing before its beginning, are counted."""
        return -(-(self.content_bytes - self.zero) // self.page_size)

    @property
    def first_page(self) -> int:
        """The first page of which the file has the beginning."""
        return max(0, -(self.zero // self.page_size))

    @property
    def high_water(self) -> int:
        """How many it should have; 0 if no meta says."""
        return max((meta.high_water for meta in self.metas.values()), default=0)

    @property
    def has_trailer(self) -> bool:
        """Whether the file has room for a SHA-256 after its pages, as ``snapshot save`` puts there."""
        return (
            self.file_bytes - self.zero
        ) % SECTOR_BYTES == TRAILER_BYTES and self.file_bytes > 2 * SECTOR_BYTES

    @property
    def content_bytes(self) -> int:
        return self.file_bytes - TRAILER_BYTES if self.has_trailer else self.file_bytes

    def trailer_holds(self) -> bool:
        """Whether the SHA-256 at the end is that of everything before."""
        if not self.has_trailer:
            return False
        digest = hashlib.sha256()
        for at in range(max(self.zero, 0), self.content_bytes, 1 << 20):
            digest.update(self.read(at, min(at + (1 << 20), self.content_bytes)))
        return digest.digest() == self.data[self.content_bytes : self.file_bytes]

    # --- one page --------------------------------------------------------------------------

    def header(self, page_id: int) -> Header | None:
        """None if the file does not have it."""
        at = self._at(page_id)
        if at < 0 or at + HEADER.size > self.content_bytes:
            return None
        return Header(*HEADER.unpack_from(self.data, at))

    def _at(self, page_id: int) -> int:
        return self.zero + page_id * self.page_size

    def extent(self, page_id: int, header: Header) -> tuple[int, int, str]:
        """(start, end, what is wrong) of a page with its overflow pages, as far as they can belong to it.

        They end at the file's end, and where another page begins: its space was given to that one, or a page of
        another place was written here.
        """
        start, end = self._at(page_id), self._at(page_id + header.overflow + 1)
        if end > self.content_bytes:
            return start, self._own_end(page_id, self.content_bytes), "the file ends inside it"
        own_end = self._own_end(page_id, end)
        inside = (own_end - self.zero) // self.page_size
        return start, own_end, "" if own_end == end else f"page {inside} begins inside it"

    def _own_end(self, page_id: int, end: int) -> int:
        for at in range(self._at(page_id + 1), end, self.page_size):
            if at + HEADER.size > self.content_bytes:
                break
            inner = Header(*HEADER.unpack_from(self.data, at))
            if inner.flags in KINDS and inner.page_id < self.pages and inner.overflow < self.pages:
                return at
        return end

    def elements(self, start: int, end: int, count: int) -> Iterator[Span]:
        """The elements of a leaf that lie in it, each judged by itself."""
        at = start + HEADER.size
        count = min(count, max(0, (end - at) // LEAF_ELEMENT.size))
        low = at + count * LEAF_ELEMENT.size
        for flags, pos, ksize, vsize in LEAF_ELEMENT.iter_unpack(self.data[at:low]):
            key_start = at + pos
            at += LEAF_ELEMENT.size
            value_start = key_start + ksize
            if low <= key_start and value_start + vsize <= end and 0 < ksize <= MAX_KEY_BYTES:
                yield Span(
                    self.data[key_start:value_start],
                    value_start,
                    value_start + vsize,
                    bool(flags & _BUCKET_FLAG),
                )

    def has_blank_sector(self, start: int, end: int) -> bool:
        """Whether some whole sector of the range holds nothing but zeros: one that was never written, perhaps."""
        first = -(-start // SECTOR_BYTES) * SECTOR_BYTES
        blank = bytes(SECTOR_BYTES)
        return any(
            self.data[at : at + SECTOR_BYTES] == blank
            for at in range(first, end - SECTOR_BYTES + 1, SECTOR_BYTES)
        )


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreLocked(path) from None
    except OSError:
        return  # a file system without locks
