"""Changes in revision order: the source of watch catch-up, differences and HashKV.

``changes`` names the key of each revision. The version it wrote is the row of ``latest`` if that is still the
newest, otherwise the first row of ``history`` whose end is after the revision. A sample of the page decides which of
the two is asked first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

from kvstore.backend import ReadTx, Row
from kvstore.errors import Corruption
from kvstore.keyvalue import row_revisions
from kvstore.mvcc.overlay import ChangedRow, Generations
from kvstore.mvcc.schema import (
    CHANGES,
    DELETE,
    HISTORY,
    LATEST,
    history_key,
    parse_revision,
    revision_key,
    split_revisions,
)
from kvstore.mvcc.state import State

_SAMPLE_ROWS = 32
_KEYS_PAGE = 1000
EVERYTHING: tuple[bytes, bytes | None] = (b"", None)
_main_of = itemgetter(0)


def change_page(
    state: State, first: int, last: int, limit: int, span: tuple[bytes, bytes | None] = EVERYTHING
) -> tuple[list[ChangedRow], int]:
    """Changes with first <= main <= last in order, whole revisions only, and the last revision covered.

    Covers at least one revision, otherwise about ``limit`` changes, of which only those of keys in ``span``
    [start, end) are returned. Raises ``Compacted`` if ``first`` is not kept.
    """
    generations = state.generations
    if any(generation.changes and generation.changes[0][0] <= first for generation in generations):
        state.check_kept(first)  # all later ones are in memory too
        return _page_of(_pending(generations, first, last), first - 1, last, limit, span)
    generations, tx = state.look(first)
    with tx:
        rows, covered = _named(tx, first, last, limit)
        found = _resolve(tx, rows, state.compacted, span)
    if covered is not None:
        return found, covered
    covered = parse_revision(rows[-1][0])[0] if rows else first - 1
    pending = _pending(generations, first, last)
    more, covered = _page_of(pending, covered, last, limit - len(rows), span)
    return found + more, covered


def _named(tx: ReadTx, first: int, last: int, limit: int) -> tuple[list[Row], int | None]:
    """Rows of ``changes``, and the last revision they cover: None if the table has no more of first..last."""
    rows = tx.scan(CHANGES, revision_key(first, 0), revision_key(last + 1, 0), limit=limit)
    if len(rows) < limit:
        return rows, None
    main = parse_revision(rows[-1][0])[0]
    if parse_revision(rows[0][0])[0] == main:  # one revision larger than the limit: take it whole
        return tx.scan(CHANGES, rows[0][0], revision_key(main + 1, 0)), main
    return rows[: bisect_left(rows, (revision_key(main, 0), b""))], main - 1


# --- what is not in the backend yet ------------------------------------------------------


def _pending(generations: Generations, first: int, last: int) -> list[ChangedRow]:
    """The changes of first..last that the generations hold, oldest first."""
    found: list[ChangedRow] = []
    for generation in reversed(generations):
        changes = generation.changes
        low = bisect_left(changes, first, key=_main_of)
        found += changes[low : bisect_left(changes, last + 1, lo=low, key=_main_of)]
    return found


def _page_of(
    pending: list[ChangedRow], covered: int, last: int, limit: int, span: tuple[bytes, bytes | None]
) -> tuple[list[ChangedRow], int]:
    """The first changes after ``covered``: about ``limit``, at least one revision."""
    low = bisect_left(pending, covered + 1, key=_main_of)
    high = len(pending)
    if high - low > max(limit, 1):
        main = pending[low + max(limit, 1)][0]
        high = bisect_left(pending, main, lo=low, key=_main_of)
        if high == low:
            high = bisect_left(pending, main + 1, lo=low, key=_main_of)
        if high < len(pending):
            last = pending[high - 1][0]
    page = pending[low:high]
    if span != EVERYTHING:
        start, end = span
        page = [change for change in page if start <= change[2] and (end is None or change[2] < end)]
    return page, last


# --- finding the version that a change wrote ---------------------------------------------


Revision = tuple[int, int]


class _Named(NamedTuple):
    """Changes whose versions are being looked up: a column for each field."""

    revisions: list[Revision]
    keys: list[bytes]
    rows: list[bytes | None]
    """The versions that they wrote, as far as found."""


def _resolve(
    tx: ReadTx, rows: list[Row], compacted: int, span: tuple[bytes, bytes | None]
) -> list[ChangedRow]:
    """Add to each named change in ``span`` the version it wrote. Works by columns: it is the cost of catching up."""
    keys = [kind_and_key[1:] for _, kind_and_key in rows]
    start, end = span
    if keys and (min(keys) < start or (end is not None and max(keys) >= end)):
        inside = [at for at, key in enumerate(keys) if start <= key and (end is None or key < end)]
        rows, keys = [rows[at] for at in inside], [keys[at] for at in inside]
    revisions = split_revisions([revision for revision, _ in rows])
    puts = [at for at, (_, kind_and_key) in enumerate(rows) if kind_and_key[:1] != DELETE]
    puts.sort(key=keys.__getitem__)  # neighbours in the backend are read together
    named = _Named(revisions, keys, [None] * len(rows))
    sample = puts[:: len(puts) // _SAMPLE_ROWS + 1]
    if 2 * len(_take_latest(tx, named, sample)) > len(sample):
        missing = _take_latest(tx, named, _take_ended(tx, named, puts))
    else:
        missing = _take_ended(tx, named, _take_latest(tx, named, puts))
    found = [(main, sub, key, row) for (main, sub), key, row in zip(revisions, keys, named.rows, strict=True)]
    for at in sorted(missing, reverse=True):
        main, sub, _, _ = found.pop(at)
        if main > compacted:  # at the compaction, one superseded in the same revision may be deleted
            raise Corruption(f"the version of revision {main}.{sub} is missing from table {HISTORY!r}")
    return found


def _take_latest(tx: ReadTx, named: _Named, wanted: list[int]) -> list[int]:
    """Fill in the versions that are still the newest. Returns the places where they are not."""
    keys = named.keys
    return _take(named, wanted, tx.get_many(LATEST, [keys[at] for at in wanted]))


def _take_ended(tx: ReadTx, named: _Named, wanted: list[int]) -> list[int]:
    """Fill in the versions found in ``history``. Returns the places where there is none."""
    revisions, keys, _ = named
    starts = []
    for at in wanted:
        main, sub = revisions[at]
        starts.append(history_key(keys[at], main, sub) + b"\0")
    return _take(named, wanted, tx.first_values(HISTORY, starts))


def _take(named: _Named, wanted: list[int], rows: list[bytes | None]) -> list[int]:
    """Keep each row that was written by the change it was looked up for. Returns the places of all others."""
    revisions, _, found = named
    others = []
    for at, row, revision in zip(wanted, rows, row_revisions(rows), strict=True):
        if revision == revisions[at]:
            found[at] = row
        else:
            others.append(at)
    return others


def changed_keys(state: State, first: int, last: int) -> Iterator[bytes]:
    """The keys changed in first <= main <= last, ascending, each once. Read when the first is asked for."""
    keys: set[bytes] = set()
    at = revision_key(first, 0)
    while True:
        generations, tx = state.look(first - 1)
        with tx:
            rows = tx.scan(CHANGES, at, revision_key(last + 1, 0), limit=_KEYS_PAGE)
        keys.update([value[1:] for _, value in rows])
        if len(rows) < _KEYS_PAGE:
            keys.update([key for _, _, key, _ in _pending(generations, first, last)])
            yield from sorted(keys)
            return
        at = rows[-1][0] + b"\0"
