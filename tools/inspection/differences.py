"""What differs between two revisions, or two stores: found by digests, walked once more for the values.

between_revisions   keys whose version is another one     between_stores   keys whose value is another one
with_values         the same keys, with both values
by_prefix           the same keys, counted by prefix
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from kvstore.keyvalue import KeyValue
from kvstore.mvcc.kept import Kept, kept_rows
from kvstore.mvcc.read import read_revision
from kvstore.mvcc.schema import history_key, parse_revision, revision_key, split_history_key
from kvstore.row_sort import RowSorter
from kvstore.store import Store

from .by_key import Version, live_versions, versions_by_key
from .tree import cut_key

BEFORE, AFTER = 0, 1


class Difference(NamedTuple):
    """A key that differs; None where it does not exist."""

    key: bytes
    before: Version | None
    after: Version | None


class Change(NamedTuple):
    """The same, with values."""

    key: bytes
    before: KeyValue | None
    after: KeyValue | None


def between_revisions(store: Store, older: int, newer: int = 0, prefix: bytes = b"") -> Iterator[Difference]:
    """Keys that were written or deleted between two revisions, and differ, ascending.

    Raises ``Compacted``, ``FutureRevision``.
    """
    older, newer = (read_revision(at, store.revision, store.compact_revision) for at in (older, newer))
    first, last = min(older, newer), max(older, newer)
    for key, versions in versions_by_key(store, prefix=prefix, last=last):
        before: Version | None = None
        after: Version | None = None
        for after in versions:
            if after.main <= first:
                before = after
        if before is not after:
            found = _live(before), _live(after)
            if found != (None, None):
                yield Difference(key, *(found if older <= newer else reversed(found)))


def _live(version: Version | None) -> Version | None:
    return version if version is not None and version.version else None


def between_stores(one: Store, other: Store, prefix: bytes = b"") -> Iterator[Difference]:
    """Keys whose values differ now, ascending."""
    streams = (_tagged(side, live_versions(store, prefix=prefix)) for side, store in enumerate((one, other)))
    for key, same in groupby(heapq.merge(*streams, key=itemgetter(0, 1)), key=itemgetter(0)):
        found: dict[int, Version] = {side: version for _, side, version in same}
        before, after = found.get(BEFORE), found.get(AFTER)
        if before is None or after is None or before.digest != after.digest:
            yield Difference(key, before, after)


def _tagged(side: int, versions: Iterator[Version]) -> Iterator[tuple[bytes, int, Version]]:
    return ((version.key, side, version) for version in versions)


def with_values(differences: Iterable[Difference], one: Store, other: Store) -> Iterator[Change]:
    """The values of both sides, read in one more walk through each store."""
    with RowSorter() as before, RowSorter() as after, RowSorter() as values:
        for difference in differences:
            for sorter, version in ((before, difference.before), (after, difference.after)):
                if version is not None:
                    sorter.add([(revision_key(version.main, version.sub), b"")])
        for side, store, sorter in ((BEFORE, one, before), (AFTER, other, after)):
            for row in rows_of(store, Chosen(sorter)):
                values.add([(history_key(row.key, side, 0), _key_value(row).row)])
        rows = ((split_history_key(at), row) for page in values.in_order() for at, row in page)
        for key, same in groupby(rows, key=lambda row: row[0][0]):
            sides = {side: KeyValue.from_row(row) for (_, side, _), row in same}
            yield Change(key, sides.get(BEFORE), sides.get(AFTER))


def _key_value(row: Kept) -> KeyValue:
    return KeyValue(row.key, row.value, row.create_revision, row.main, row.version, row.lease)


class Chosen:
    """Changes by revision, 16 bytes each."""

    def __init__(self, revisions: RowSorter) -> None:
        """``revisions``: rows whose keys are revisions. Taken out."""
        self._mains, self._subs = array("Q"), array("Q")
        for page in revisions.in_order():
            for at, _ in page:
                main, sub = parse_revision(at)
                self._mains.append(main)
                self._subs.append(sub)

    def __contains__(self, row: Kept) -> bool:
        at = bisect_left(self._mains, row.main)
        while at < len(self._mains) and self._mains[at] == row.main:
            if self._subs[at] == row.sub:
                return True
            at += 1
        return False


def rows_of(store: Store, chosen: Chosen) -> Iterator[Kept]:
    """What some changes wrote, in no order."""
    return (row for row in kept_rows(store.engine.state) if row in chosen)


# --- by prefix -----------------------------------------------------------------------------------


@dataclass(slots=True)
class PrefixDifference:
    """How many keys of a prefix differ, and by how many bytes of key and value."""

    prefix: bytes
    added: int = 0
    deleted: int = 0
    changed: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def add(self, difference: Difference) -> None:
        before, after = difference.before, difference.after
        self.added += before is None
        self.deleted += after is None
        self.changed += before is not None and after is not None
        self.bytes_before += before.size_bytes if before else 0
        self.bytes_after += after.size_bytes if after else 0


def by_prefix(differences: Iterable[Difference], separator: bytes, depth: int) -> Iterator[PrefixDifference]:
    """Counts of each prefix of ``depth`` parts, ascending."""

    def prefix_of(difference: Difference) -> bytes:
        parts = cut_key(difference.key, separator, depth)
        return b"".join(parts[:depth])

    for prefix, same in groupby(differences, key=prefix_of):
        found = PrefixDifference(prefix)
        for difference in same:
            found.add(difference)
        yield found
