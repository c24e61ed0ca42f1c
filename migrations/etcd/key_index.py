"""The places of the kept rows of an etcd file, by key: numbers only, never values.

etcd orders its rows by revision, and like a starting server this has to walk all of them once to know them by
key. For each row it remembers five numbers (40 bytes):

    row        0      1      2      3                     place in revision order
    main, sub  2.0    3.0    3.1    5.0 (tombstone)       a tombstone's sub is stored as ~sub, below zero
    start,end  ....   ....   ....   ....                  of the row's value in the file; start 0: not kept
    before     -1     -1     0      2                     the row of the same key before it

    newest     b"a" -> 3,  b"b" -> 1

Whatever a compaction to C would remove is left out, whether the server got to it or not: a version superseded at or
below C, a tombstone below C. So is the row of the empty key that ``snapshot restore --bump-revision`` writes
as a mark: no request can reach it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

from .bbolt_page import Span
from .etcd_file import EtcdFile
from .rows import decode_revision

ABSENT = -1
REPORT_EVERY_ROWS = 1 << 14


class Place(NamedTuple):
    """One kept row: its revision, and the place of its value in the file."""

    main: int
    sub: int
    is_tombstone: bool
    start: int
    end: int


class KeyIndex:
    """All kept rows of a file. Immutable once built."""

    def __init__(self, file: EtcdFile, progress: Callable[[int], None] | None = None) -> None:
        self.mains, self.subs = array("q"), array("q")
        self.starts, self.ends = array("q"), array("q")
        self.before = array("q")
        self.newest: dict[bytes, int] = {}
        self.marks = 0
        """Rows of the empty key."""
        self._compacted = file.compact_revision
        for count, span in enumerate(file.spans_up_to(file.revision)):
            self._add(file.user_key(span), span)
            if progress is not None and count % REPORT_EVERY_ROWS == 0:
                progress(span.value_end)
        self._drop_old_tombstones()
        self.keys = sorted(self.newest)
        """Keys with a kept row, ascending."""

    def _add(self, key: bytes, span: Span) -> None:
        main, sub, is_tombstone = decode_revision(span.key)
        before = self.newest.get(key, ABSENT)
        if before >= 0 and main <= self._compacted:
            self.starts[before] = 0
            before = ABSENT
        self.mains.append(main)
        self.subs.append(~sub if is_tombstone else sub)
        self.starts.append(span.value_start if key else 0)
        self.ends.append(span.value_end)
        self.before.append(before)
        if key:
            self.newest[key] = len(self.mains) - 1
        else:
            self.marks += 1

    def _drop_old_tombstones(self) -> None:
        """Drop a tombstone below the compaction if nothing followed it by then: the key is deleted.

        If something followed later, the tombstone is at the head of the key's chain.
        """
        gone = {
            row
            for row in range(bisect_left(self.mains, self._compacted))
            if self.starts[row] and self.subs[row] < 0
        }
        if not gone:
            return
        for row in gone:
            self.starts[row] = 0
        for row, before in enumerate(self.before):
            if before in gone:
                self.before[row] = ABSENT
        self.newest = {key: row for key, row in self.newest.items() if row not in gone}

    def __len__(self) -> int:
        return len(self.mains)

    def place(self, row: int) -> Place:
        sub = self.subs[row]
        return Place(self.mains[row], ~sub if sub < 0 else sub, sub < 0, self.starts[row], self.ends[row])

    def places_of(self, key: bytes) -> list[Place]:
        """The kept rows of a key, oldest first."""
        rows = []
        row = self.newest.get(key, ABSENT)
        while row != ABSENT:
            rows.append(self.place(row))
            row = self.before[row]
        rows.reverse()
        return rows

    @cached_property
    def past_keys(self) -> list[bytes]:
        """Keys with a superseded or deleted version, ascending: a search among the past passes over no others."""
        return [key for key in self.keys if self._has_past(key)]

    def _has_past(self, key: bytes) -> bool:
        row = self.before[self.newest[key]]
        while row != ABSENT and self.subs[row] < 0:
            row = self.before[row]
        return row != ABSENT

    def is_live(self, key: bytes) -> bool:
        row = self.newest.get(key, ABSENT)
        return row != ABSENT and self.subs[row] >= 0

    def first_change(self) -> int:
        """The first row at or after the compaction: earlier rows are kept only because a live key still needs them."""
        return bisect_left(self.mains, self._compacted)

    def count_changes(self) -> int:
        """The number of kept rows from there on."""
        return sum(1 for row in range(self.first_change(), len(self)) if self.starts[row])

    def row_at(self, main: int, sub: int) -> int:
        """The first row at or after a revision."""
        row = bisect_left(self.mains, main)
        while row < len(self.mains) and self.mains[row] == main and self.place(row).sub < sub:
            row += 1
        return row


def kept_places(file: EtcdFile, key: bytes, spans: Iterable[Span]) -> list[Place]:
    """What the index would say about one key, from all of its rows in revision order."""
    kept: list[Place] = []
    compacted = file.compact_revision
    for span in spans:
        main, sub, is_tombstone = decode_revision(span.key)
        if kept and main <= compacted:
            kept.clear()
        kept.append(Place(main, sub, is_tombstone, span.value_start, span.value_end))
    if kept and kept[0].is_tombstone and kept[0].main < compacted:
        del kept[0]
    return kept
