"""Rows of a bucket whose value holds given bytes, without walking all rows.

A bucket is ordered by key only; looking for something in its values means looking at all of them.
Row by row that costs Python microseconds each. So the bytes are searched for in the raw file first, which
takes one C call per megabyte, and only leaves that hold them are decoded:

    file       |meta|meta|leaf|leaf|branch|leaf + overflow ......|leaf|free|
    the bytes              ^                              ^              ^
    decoded              x                x                              -

The page that a place belongs to is found by reading backwards from it: the nearest page whose header says "leaf",
reaches that far, and is really in the tree. It is in the tree if going down for the page's first key ends at this very
page; an old page that was freed, or a value that looks like a page, does not pass. If the pages around a place do not
say plainly whose it is, perhaps because of damage, the branches are asked for all leaves.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator

from kvstore.errors import Corruption

from .bbolt_page import FIRST_DATA_PAGE, HEADER, LEAF, Header, Span
from .bbolt_read import MAX_DEPTH, BboltFile, Bucket

_CHUNK_BYTES = 1 << 20


def spans_holding(
    bucket: Bucket, needle: bytes, start: bytes = b"", end: bytes | None = None, reverse: bool = False
) -> Iterator[Span]:
    """Like ``bucket.spans``, without the leaves that do not hold the needle."""
    if bucket.root_page().is_leaf:
        yield from bucket.spans(start, end, reverse)
        return
    leaves = _Leaves(bucket).holding(needle)
    for page_id in sorted(leaves, key=leaves.__getitem__, reverse=reverse):
        spans = list(bucket.file.spans(bucket.file.page(page_id)))
        for span in reversed(spans) if reverse else spans:
            if span.key >= start and (end is None or span.key < end):
                yield span


class _Leaves:
    """The leaves of a bucket, by places in the file."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._file = bucket.file
        self._first_keys: dict[int, bytes | None] = {}
        """The first key of each leaf that was looked at; None if it is not one of this bucket's."""
        self._all: list[int] | None = None

    def holding(self, needle: bytes) -> dict[int, bytes]:
        """First keys of the leaves that hold the needle, by page number."""
        found: dict[int, bytes] = {}
        for offset in occurrences(self._file, needle):
            page_id = self._leaf_around(offset // self._file.meta.page_size)
            if page_id is not None:
                found[page_id] = self._first_key(page_id) or b""
        return found

    def _leaf_around(self, place: int) -> int | None:
        """The leaf whose page, or overflow page, is at ``place``."""
        for page_id in range(place, FIRST_DATA_PAGE - 1, -1):
            header = self._header(page_id)
            if header.page_id != page_id or header.flags != LEAF:
                continue
            try:
                if self._first_key(page_id) is not None:
                    return page_id if page_id + header.overflow >= place else self._listed(place)
            except Corruption:
                return self._listed(place)
            if page_id == place:
                return None  # an intact leaf that is not in the tree any more
        return self._listed(place)

    def _header(self, page_id: int) -> Header:
        return Header(*HEADER.unpack_from(self._file.data, page_id * self._file.meta.page_size))

    def _first_key(self, page_id: int) -> bytes | None:
        """The first key of a leaf; None if it is not in the tree."""
        if page_id not in self._first_keys:
            span = next(iter(self._file.spans(self._file.page(page_id))), None)
            is_ours = span is not None and self._bucket.leaf_page_id(span.key) == page_id
            self._first_keys[page_id] = span.key if span is not None and is_ours else None
        return self._first_keys[page_id]

    def _listed(self, place: int) -> int | None:
        """The same, from the branches. Raises ``Corruption`` if it is a leaf, and damaged."""
        if self._all is None:
            self._all = sorted(_leaf_ids(self._bucket))
        at = bisect_right(self._all, place) - 1
        if at < 0:
            return None
        page = self._file.page(self._all[at])
        return self._all[at] if place * self._file.meta.page_size < page.end else None


def _leaf_ids(bucket: Bucket) -> list[int]:
    """Page numbers of a bucket's leaves, read from its branches."""
    file = bucket.file
    depth, page = 0, bucket.root_page()
    while not page.is_leaf:
        depth += 1
        if depth > MAX_DEPTH:
            raise Corruption(f"the tree is deeper than {MAX_DEPTH} levels", file.path, page.start)
        page = file.page(file.children(page)[1][0])
    level = [bucket.root_page_id]
    budget_bytes = file.meta.size_bytes
    for _ in range(depth):
        below: list[int] = []
        for page_id in level:
            page = file.page(page_id)
            if page.is_leaf:
                raise Corruption("leaves of one bucket lie at different depths", file.path, page.start)
            budget_bytes -= page.end - page.start
            below += file.children(page)[1]
            if budget_bytes < 0 or len(below) > file.meta.high_water:
                raise Corruption("pages are reached more than once", file.path, page.start)
        level = below
    return level


def occurrences(file: BboltFile, needle: bytes) -> Iterator[int]:
    """Offsets of the needle in the file's database part."""
    size = file.meta.size_bytes
    overlap = len(needle) - 1
    buffer = bytearray(
        min(_CHUNK_BYTES + overlap, size)
    )  # one buffer for all: new memory each time costs more than reading
    for start in range(0, size, _CHUNK_BYTES):
        filled = os.preadv(file.fileno(), [memoryview(buffer)[: size - start]], start)
        at = buffer.find(needle, 0, filled)
        while at >= 0:
            yield start + at
            at = buffer.find(needle, at + 1, filled)
