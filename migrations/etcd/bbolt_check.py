"""Every consistency rule of a bbolt file, checked over the whole file.

Each page below the high-water mark is exactly one of: a meta, the freelist, reachable from the root
bucket once (its overflow pages included), or free. A file may keep no freelist (etcd's server writes
none): then whatever is not reachable is free. On the way down keys ascend strictly and stay within the
bounds set by the parents' keys, and all leaves of a bucket are equally deep.

Findings are ``Corruption`` objects, yielded rather than raised, so that one pass reports everything.
Memory: one byte per page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kvstore.errors import Corruption

from .bbolt_page import FIRST_DATA_PAGE, FREELIST, HEADER, NO_FREELIST, Header, Page
from .bbolt_read import MAX_DEPTH, BboltFile, Bucket

_UNSEEN, _REACHED, _FREE = 0, 1, 2
_U64 = struct.Struct("<Q")
_COUNT_IN_FIRST_ID = 0xFFFF

# A page to visit (its number, or an inline page), the first key allowed there, the first beyond, the depth.
_Visit = tuple[int | Page, bytes, bytes | None, int]


def check(file: BboltFile) -> Iterator[Corruption]:
    """Everything that is wrong with the file; nothing if it is intact."""
    yield from _Check(file).run()


def check_freelist(file: BboltFile) -> Iterator[Corruption]:
    """What makes bbolt fail when it opens the file for writing: a malformed freelist, or one that names pages in use.

    Pages that are neither free nor in use only cost space.
    """
    yield from _Check(file).run_freelist()


class _Check:
    def __init__(self, file: BboltFile) -> None:
        self.file = file
        self.state = bytearray(file.meta.high_water)
        self.state[0] = self.state[1] = _REACHED

    def run(self) -> Iterator[Corruption]:
        yield from self._freelist()
        yield from self._bucket(self.file.root, 0)
        if self.file.meta.freelist != NO_FREELIST:
            page_id = self.state.find(_UNSEEN)
            while page_id >= 0:
                yield self._finding(f"page {page_id} is neither reachable nor free", page_id)
                page_id = self.state.find(_UNSEEN, page_id + 1)

    def run_freelist(self) -> Iterator[Corruption]:
        if self.file.meta.freelist == NO_FREELIST:
            return
        yield from self._freelist()
        todo = [self.file.meta.root]
        for name in self.file.buckets():
            bucket = self.file.bucket(name)
            if bucket is not None and bucket.inline is None:
                todo.append(bucket.root_page_id)
        while todo:
            try:
                page = self._reach(todo.pop())
            except Corruption as finding:
                yield finding
                continue
            if not page.is_leaf:
                todo += self.file.children(page)[1]

    def _finding(self, reason: str, page_id: int) -> Corruption:
        return Corruption(reason, self.file.path, page_id * self.file.meta.page_size)

    # --- the freelist --------------------------------------------------------------------

    def _freelist(self) -> Iterator[Corruption]:
        page_id, meta = self.file.meta.freelist, self.file.meta
        if page_id == NO_FREELIST:
            return
        if not FIRST_DATA_PAGE <= page_id < meta.high_water:
            yield self._finding(f"freelist page {page_id} does not exist", 0)
            return
        start = page_id * meta.page_size
        header = Header(*HEADER.unpack_from(self.file.data, start))
        pages = header.overflow + 1
        if header.page_id != page_id or header.flags != FREELIST or page_id + pages > meta.high_water:
            yield self._finding(f"page {page_id} is not the freelist", page_id)
            return
        self.state[page_id : page_id + pages] = bytes([_REACHED]) * pages
        ids = self.file.data[start + HEADER.size : start + pages * meta.page_size]
        count = header.elements
        if count == _COUNT_IN_FIRST_ID:
            (count,) = _U64.unpack_from(ids)
            ids = ids[_U64.size :]
        if count > len(ids) // _U64.size:
            yield self._finding(f"the freelist has no room for its {count} pages", page_id)
            return
        for (free,) in _U64.iter_unpack(ids[: count * _U64.size]):
            yield from self._mark_free(free)

    def _mark_free(self, page_id: int) -> Iterator[Corruption]:
        if not FIRST_DATA_PAGE <= page_id < self.file.meta.high_water:
            yield self._finding(f"the freelist names page {page_id}, which does not exist", 0)
        elif self.state[page_id] == _UNSEEN:
            self.state[page_id] = _FREE
        else:
            yield self._finding(f"page {page_id} is in the freelist, and again or in use", page_id)

    # --- the trees -----------------------------------------------------------------------

    def _bucket(self, bucket: Bucket, nesting: int) -> Iterator[Corruption]:
        if nesting > MAX_DEPTH:
            yield Corruption(f"buckets nested deeper than {MAX_DEPTH}", self.file.path)
            return
        depths: set[int] = set()
        todo: list[_Visit] = [(bucket.inline or bucket.root_page_id, b"", None, 0)]
        while todo:
            place, low, high, depth = todo.pop()
            try:
                page = place if isinstance(place, Page) else self._reach(place)
                if page.is_leaf:
                    depths.add(depth)
                    yield from self._leaf(bucket, page, low, high, depth, nesting)
                else:
                    todo += self._branch(page, low, high, depth)
            except Corruption as finding:
                yield finding
        if len(depths) > 1:
            yield Corruption(f"leaves of one bucket lie at depths {sorted(depths)}", self.file.path)

    def _reach(self, page_id: int) -> Page:
        page = self.file.page(page_id)
        for each in range(page_id, page_id + (page.end - page.start) // self.file.meta.page_size):
            if self.state[each] != _UNSEEN:
                how = "free" if self.state[each] == _FREE else "reached twice"
                raise self._finding(f"page {each} is in use and {how}", each)
            self.state[each] = _REACHED
        return page

    def _leaf(
        self, bucket: Bucket, page: Page, low: bytes, high: bytes | None, depth: int, nesting: int
    ) -> Iterator[Corruption]:
        if not page.count and depth:
            yield Corruption("an empty leaf below a branch", self.file.path, page.start)
        for span in self.file.spans(page):
            if span.key < low or (high is not None and span.key >= high):
                yield Corruption("a key lies outside its parent's bounds", self.file.path, page.start)
            if span.is_bucket:
                yield from self._bucket(bucket.sub_bucket(span), nesting + 1)

    def _branch(self, page: Page, low: bytes, high: bytes | None, depth: int) -> list[_Visit]:
        if depth >= MAX_DEPTH:
            raise Corruption(f"the tree is deeper than {MAX_DEPTH} levels", self.file.path, page.start)
        keys, children = self.file.children(page)
        if keys[0] < low or (high is not None and keys[-1] >= high):
            raise Corruption("a branch key lies outside its parent's bounds", self.file.path, page.start)
        visits: list[_Visit] = []
        for number, (key, child) in enumerate(zip(keys, children, strict=True), 1):
            visits.append((child, key, keys[number] if number < len(keys) else high, depth + 1))
        return visits[::-1]
