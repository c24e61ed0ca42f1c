"""The rows of etcd's bucket ``key``, by revision, from tables that are ordered by key.

    latest, history    every version, wherever it is now       }  what the backend held at the start:
    changes            every delete                            }  read from front to back, and sorted
    changes by revision, from there on                            what came since, up to the revision asked for

In revision order every version would cost a seek; in table order it costs a fraction of that. ``latest`` is read before
``history``: a version that is superseded meanwhile is read twice, and the sorter drops one.

etcd keeps no row below its compaction except the newest of each key that was live then; above it, everything.
Tombstones have keys of 18 bytes. One at exactly the compaction is written, as etcd has kept it since 3.4.34 and 3.5.16
(a watch that starts there sees the delete), unless at some kept revision no key at all is live: there, older versions
hash whatever rows they have, and would count one that they themselves would have removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from kvstore.backend import Row
from kvstore.keyvalue import encode_key_value, row_change, row_numbers
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.schema import (
    CHANGES,
    CREATE,
    DELETE,
    HISTORY,
    LATEST,
    REVISION_BYTES,
    parse_revision,
    revision_key,
)
from kvstore.mvcc.state import State
from kvstore.row_sort import RowSorter

from .rows import ROW_KEY, encode_revision

PAGE_ROWS = 256
"""Rows read at once. Few, because values may be large."""


class KeyRows:
    """The rows of a store as it is at a revision. ``report`` is called with the number of bytes read."""

    def __init__(self, state: State, revision: int, compacted: int, report: Callable[[int], None]) -> None:
        self._state = state
        self._revision = revision
        self._compacted = compacted
        self._report = report
        with state.backend.read() as tx:
            held = Marks.read(tx).revision
        self._settled = min(held, revision)
        """Every change up to this one is in the backend."""
        self._sorted_up_to = max(self._settled, compacted)

    def in_order(self, sorter: RowSorter) -> Iterator[list[Row]]:
        """Lists of rows, ascending. Raises ``Compacted`` if the store is compacted further meanwhile."""
        last, pack = self._sorted_up_to, ROW_KEY.pack
        for found in self._versions() if self._settled > self._compacted else self._living():
            changes = map(row_change, found)
            sorter.add([(pack(main, b"_", sub), value) for main, sub, value in changes if main <= last])
        for rows in self._named_changes():
            sorter.add(_tombstones(rows))
        sorter.add(self._tombstones_at_compaction())
        return chain(sorter.in_order(), map(_rows_of, self._changes(last + 1, self._revision)))

    def _versions(self) -> Iterator[list[bytes]]:
        """All kept versions, including later ones."""
        for rows in self._pages(LATEST):
            yield [row for _, row in rows]
        kept = revision_key(self._compacted + 1, 0)
        for rows in self._pages(HISTORY):
            yield [row for ended, row in rows if ended[-REVISION_BYTES:] >= kept]

    def _living(self) -> Iterator[list[bytes]]:
        """The versions that were live at the compaction, if the backend has not reached it yet."""
        at: bytes | None = b""
        while at is not None:
            page, at = self._state.page(at, None, self._compacted, PAGE_ROWS)
            yield [row for _, row in page]

    def _named_changes(self) -> Iterator[list[Row]]:
        """Rows of ``changes`` after the compaction."""
        return self._pages(CHANGES, revision_key(self._compacted + 1, 0), revision_key(self._settled + 1, 0))

    def _pages(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[list[Row]]:
        """A table's rows, a transaction for each page: nothing is pinned, however long it takes."""
        while True:
            with self._state.backend.read() as tx:
                self._state.check_kept(self._compacted, tx)
                rows = tx.scan(table, start, end, limit=PAGE_ROWS)
            yield rows
            self._report(sum([len(value) for _, value in rows]))
            if len(rows) < PAGE_ROWS:
                return
            start = rows[-1][0] + b"\0"

    def _changes(self, first: int, last: int) -> Iterator[list[ChangedRow]]:
        """Changes with the versions that they wrote. A seek for each: few, if any, are read this way."""
        first = max(first, 1)
        while first <= last:
            page, covered = change_page(self._state, first, last, PAGE_ROWS)
            yield page
            first = covered + 1

    # --- tombstones at the compaction ----------------------------------------------------

    def _tombstones_at_compaction(self) -> list[Row]:
        changes = chain.from_iterable(self._changes(self._compacted, self._compacted))
        found = [_tombstone(main, sub, key) for main, sub, key, row in changes if row is None]
        return found if found and self._something_always_lives() else []

    def _something_always_lives(self) -> bool:
        """Whether there is a live key at every kept revision."""
        living = self._state.count(b"", None, self._compacted)
        for change in self._births_and_deaths():
            living += change
            if not living:
                return False
        return living > 0

    def _births_and_deaths(self) -> Iterator[int]:
        for rows in self._named_changes():
            for _, named in rows:
                yield (named[:1] == CREATE) - (named[:1] == DELETE)
        for page in self._changes(self._sorted_up_to + 1, self._revision):
            for _, _, _, row in page:
                yield -1 if row is None else row_numbers(row)[2] == 1


def _rows_of(changes: list[ChangedRow]) -> list[Row]:
    return [
        _tombstone(main, sub, key) if row is None else (encode_revision(main, sub), row_change(row)[2])
        for main, sub, key, row in changes
    ]


def _tombstones(named_changes: list[Row]) -> list[Row]:
    revisions = [(parse_revision(at), named[1:]) for at, named in named_changes if named[:1] == DELETE]
    return [_tombstone(main, sub, key) for (main, sub), key in revisions]


def _tombstone(main: int, sub: int, key: bytes) -> Row:
    return encode_revision(main, sub, True), encode_key_value(key, 0, 0, 0, b"", 0)
