"""A range in pages: how much it is is known before the first byte goes out, and its rows need not be in memory.

    first pass     counts rows and bytes; keeps the pages, as long as they are few
    later passes   hand out what was kept, or read the same revision again, a page at a time

A page is encoded as soon as it is read, by a function of the caller's. Nothing is pinned between two pages, so a
compaction that passes the revision ends a later pass with ``Compacted``.

An answer that is sorted by anything but the key, or descending, or filtered, is read as a whole and kept (read.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kvstore.model import RangeRequest
from kvstore.mvcc.read import Rows, answer_range, first_rows, is_as_stored, without_value
from kvstore.mvcc.state import State
from kvstore.mvcc.validate import range_bounds

PAGE_BYTES = 1 << 16
FIRST_PAGE_ROWS = 16
"""Of the first page, when nothing is known of the rows' size."""
PAGE_ROWS_MAX = 128
"""Rows may be larger than those of the page before: this bounds by how much one page can go wrong."""
KEPT_BYTES = 8 << 20

Encode = Callable[[list[bytes]], bytes]
"""Rows as they are stored (``keyvalue``), as bytes to be sent."""


class RangePages:
    """The answer to a validated range. Iterating gives its encoded pages, none empty; again, the same ones."""

    def __init__(
        self,
        state: State,
        request: RangeRequest,
        revision: int,
        header_revision: int,
        encode: Encode,
        check_readable: Callable[[], None],
    ) -> None:
        self._state = state
        self._request = request
        self._at_revision = revision
        self._encode = encode
        self._check_readable = check_readable
        self._page_rows = FIRST_PAGE_ROWS
        self._kept: list[bytes] | None = None
        """The encoded pages; None: they were too many to keep."""
        self.revision = header_revision
        """The newest, for the answer's header."""
        self.count = 0
        """Keys in the range, whatever the limit says."""
        self.more = False
        self.size_bytes = 0
        """Of all pages together."""
        if is_as_stored(request):
            self._read_through()
        else:
            self._keep_whole()

    @property
    def is_kept(self) -> bool:
        """Whether the pages are in memory. If not, they are read again."""
        return self._kept is not None

    def __iter__(self) -> Iterator[bytes]:
        pages = iter(self._kept) if self._kept is not None else map(self._encoded, self._read())
        for page in pages:
            self._check_readable()
            yield page

    def _read_through(self) -> None:
        """The first pass."""
        kept: list[bytes] | None = []
        last = b""
        for rows in self._read():
            self._check_readable()
            page = self._encoded(rows)
            self.count += len(rows)
            self.size_bytes += len(page)
            if kept is not None:
                kept.append(page)
            if self.size_bytes > KEPT_BYTES:
                kept = None
            last = rows[-1][0]
        self._kept = kept
        state, (start, end) = self._state, range_bounds(self._request.key, self._request.range_end)
        if 0 < self.count == self._request.limit:
            self.more = bool(first_rows(state, last + b"\0", end, self._at_revision, 1)[0])
        if self.more:
            self.count = state.count(start, end, self._at_revision)

    def _read(self) -> Iterator[Rows]:
        """A page of rows at a time; as many to a page as fit one by the size of those before."""
        at: bytes | None
        at, end = range_bounds(self._request.key, self._request.range_end)
        left = max(self._request.limit, 0)
        while at is not None and (end is None or at < end):
            rows, at = self._state.page(
                at, end, self._at_revision, min(self._page_rows, left or self._page_rows)
            )
            if not rows:
                continue
            if left:
                rows = rows[:left]
                left -= len(rows)
                at = at if left else None
            fitting = PAGE_BYTES * len(rows) // sum([len(row) for _, row in rows])
            self._page_rows = max(1, min(2 * self._page_rows, fitting, PAGE_ROWS_MAX))
            yield rows

    def _encoded(self, rows: Rows) -> bytes:
        stored = [row for _, row in rows]
        return self._encode(list(map(without_value, stored)) if self._request.keys_only else stored)

    def _keep_whole(self) -> None:
        response = answer_range(self._state, self._request, self._at_revision, self.revision)
        _, kvs, self.more, self.count = response
        self._kept = [self._encode(rows) for rows in _cut(kvs.rows)]
        self.size_bytes = sum(map(len, self._kept))


def _cut(rows: list[bytes]) -> Iterator[list[bytes]]:
    """The rows in pages of about ``PAGE_BYTES``."""
    page: list[bytes] = []
    size_bytes = 0
    for row in rows:
        page.append(row)
        size_bytes += len(row)
        if size_bytes >= PAGE_BYTES:
            yield page
            page, size_bytes = [], 0
    if page:
        yield page
