"""What differs between two revisions, out of pages of both: two ascending lists, merged as far as both are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kvstore.keyvalue import KeyValue
from kvstore.model import Change, RangeRequest, RangeResponse

PAGE_ROWS = 1000


class Side:
    """The range at one revision: the rows of a page that are not compared yet."""

    def __init__(self, key: bytes, range_end: bytes, revision: int) -> None:
        self.rows: deque[KeyValue] = deque()
        self.is_at_end = False
        self._next = key
        self._range_end = range_end
        self._revision = revision

    def request(self) -> RangeRequest:
        return RangeRequest(self._next, self._range_end, PAGE_ROWS, self._revision)

    def add(self, page: RangeResponse) -> None:
        self.rows += page.kvs
        self.is_at_end = not page.more or not page.kvs
        if page.kvs:
            self._next = page.kvs[-1].key + b"\0"


def differences(before: Side, after: Side) -> Iterator[Change]:
    """The keys that differ, until the rows of a side that has more are used up."""
    while (before.rows or before.is_at_end) and (after.rows or after.is_at_end):
        if not before.rows and not after.rows:
            return
        key = min(side.rows[0].key for side in (before, after) if side.rows)
        old, new = _take(before, key), _take(after, key)
        if old != new:
            yield Change(key, old, new)


def _take(side: Side, key: bytes) -> KeyValue | None:
    return side.rows.popleft() if side.rows and side.rows[0].key == key else None
