"""Rows of a bucket whose value holds given bytes, without walking all rows.

A bucket has an order of keys only; looking for something in its values means looking at all of them.
Row by row that costs Python microseconds each. So the bytes are looked for in the raw file first, which
is a C call per megabyte, and only leaves that hold them are decoded:

    file       |meta|meta|leaf|leaf|branch|leaf + overflow ......|leaf|leaf|
    the bytes              ^                              ^
    leaves' starts       *    *           *                       *    *       from the branches alone
    decoded              x                x
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator

from kvstore.errors import Corruption

from .bbolt_page import Page, Span
from .bbolt_read import MAX_DEPTH, BboltFile, Bucket

_CHUNK_BYTES = 1 << 20


def spans_holding(
    bucket: Bucket, needle: bytes, start: bytes = b"", end: bytes | None = None, reverse: bool = False
) -> Iterator[Span]:
    """As ``bucket.spans``, without the leaves that do not hold the needle."""
    leaf_ids = _leaf_ids(bucket)
    if leaf_ids is None:
        yield from bucket.spans(start, end, reverse)
        return
    wanted = _leaves_holding(bucket.file, leaf_ids, needle)
    for place in sorted(wanted, reverse=reverse):
        spans = list(bucket.file.spans(bucket.file.page(leaf_ids[place])))
        for span in reversed(spans) if reverse else spans:
            if span.key >= start and (end is None or span.key < end):
                yield span


def _leaf_ids(bucket: Bucket) -> list[int] | None:
    """Page numbers of a bucket's leaves in key order, read from its branches; None if it is one leaf."""
    file = bucket.file
    page = bucket.root_page()
    depth = 0
    while not page.is_leaf:
        depth += 1
        if depth > MAX_DEPTH:
            raise Corruption(f"the tree is deeper than {MAX_DEPTH} levels", file.path, page.start)
        page = file.page(file.children(page)[1][0])
    if depth == 0:
        return None
    level = [bucket.root_page_id]
    budget_bytes = file.meta.size_bytes
    for _ in range(depth):
        below: list[int] = []
        for page_id in level:
            page = _branch(file, page_id)
            budget_bytes -= page.end - page.start
            below += file.children(page)[1]
            if budget_bytes < 0 or len(below) > file.meta.high_water:
                raise Corruption("pages are reached more than once", file.path, page.start)
        level = below
    return level


def _branch(file: BboltFile, page_id: int) -> Page:
    page = file.page(page_id)
    if page.is_leaf:
        raise Corruption("leaves of one bucket lie at different depths", file.path, page.start)
    return page


def _leaves_holding(file: BboltFile, leaf_ids: list[int], needle: bytes) -> set[int]:
    """Which of the leaves, by their place in the list, hold the needle."""
    by_id = sorted(range(len(leaf_ids)), key=leaf_ids.__getitem__)
    starts = [leaf_ids[place] * file.meta.page_size for place in by_id]
    wanted: set[int] = set()
    for offset in occurrences(file, needle):
        at = bisect_right(starts, offset) - 1
        if at >= 0 and by_id[at] not in wanted:
            page = file.page(leaf_ids[by_id[at]])
            if offset < page.end:
                wanted.add(by_id[at])
    return wanted


def occurrences(file: BboltFile, needle: bytes) -> Iterator[int]:
    """Offsets of the file's database part where the needle stands."""
    size = file.meta.size_bytes
    overlap = len(needle) - 1
    for start in range(0, size, _CHUNK_BYTES):
        chunk = os.pread(file.fileno(), min(_CHUNK_BYTES + overlap, size - start), start)
        at = chunk.find(needle)
        while at >= 0:
            yield start + at
            at = chunk.find(needle, at + 1)
