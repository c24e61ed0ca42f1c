"""Changes in revision order: what watch catch-up, differences and HashKV read.

``changes`` names the key of each revision; the version it wrote is the row of ``latest`` if that is still the
newest, else the first row of ``history`` whose end lies behind the revision.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from kvstore.backend import ReadTx
from kvstore.errors import Corruption
from kvstore.keyvalue import row_mod_revision, split_row
from kvstore.mvcc.schema import (
    CHANGES,
    DELETE,
    HISTORY,
    LATEST,
    REVISION_LIMIT,
    escape,
    history_key,
    parse_revision,
    revision_key,
)
from kvstore.mvcc.state import State


class ChangedRow(NamedTuple):
    """One change: ``row`` is the version it wrote, None for a delete."""

    main: int
    sub: int
    key: bytes
    row: bytes | None


def change_page(state: State, first: int, last: int, limit: int) -> tuple[list[ChangedRow], int]:
    """Changes with first <= main <= last in order, whole revisions only, and the last revision covered.

    At least one revision, otherwise about ``limit`` changes. The caller has checked that ``first`` is kept.
    """
    pending = _pending(state, first, last)
    with state.backend.read() as tx:
        state.check_kept(first)
        rows = tx.scan(CHANGES, revision_key(first, 0), revision_key(last + 1, 0), limit=limit)
        if len(rows) == limit:
            main = parse_revision(rows[-1][0])[0]
            if parse_revision(rows[0][0])[0] == main:  # one revision larger than the limit: take it whole
                rows = tx.scan(CHANGES, rows[0][0], revision_key(main + 1, 0))
                last = main
            else:
                last = main - 1
                rows = rows[: bisect_left(rows, (revision_key(main, 0), b""))]
            return _resolve(tx, rows, state.compacted), last
        found = _resolve(tx, rows, state.compacted)
    covered = parse_revision(rows[-1][0])[0] if rows else first - 1
    for change in pending:
        if change.main > covered:
            if len(found) >= limit and change.main > found[-1].main:
                return found, found[-1].main
            found.append(change)
    return found, last


def _pending(state: State, first: int, last: int) -> list[ChangedRow]:
    """What the generations hold of the span, oldest first. Taken before the backend is opened (overlay.py)."""
    found: list[ChangedRow] = []
    for generation in reversed(state.generations):
        changes = generation.changes
        low = bisect_left(changes, first, key=lambda change: change[1].main)
        high = bisect_left(changes, last + 1, lo=low, key=lambda change: change[1].main)
        found += [ChangedRow(v.main, v.sub, key, v.row) for key, v in changes[low:high]]
    return found


def _resolve(tx: ReadTx, rows: list[tuple[bytes, bytes]], compacted: int) -> list[ChangedRow]:
    """Add to each named change the version it wrote."""
    puts = sorted({value[1:] for _, value in rows if value[:1] != DELETE})
    latest = dict(zip(puts, tx.get_many(LATEST, puts), strict=True))
    found = []
    for revision, value in rows:
        main, sub = parse_revision(revision)
        key = value[1:]
        if value[:1] == DELETE:
            found.append(ChangedRow(main, sub, key, None))
            continue
        row = latest[key]
        if row is None or row_mod_revision(row) != main or split_row(row)[0] != sub:
            row = _ended_row(tx, key, main, sub)
        if row is not None:
            found.append(ChangedRow(main, sub, key, row))
        elif main > compacted:  # at the compaction a version superseded in the same revision may be gone
            raise Corruption(f"the version of revision {main}.{sub} is missing from table {HISTORY!r}")
    return found


def _ended_row(tx: ReadTx, key: bytes, main: int, sub: int) -> bytes | None:
    ended = tx.scan(HISTORY, history_key(key, main, sub + 1), escape(key) + REVISION_LIMIT, limit=1)
    if ended and row_mod_revision(ended[0][1]) == main:
        return ended[0][1]
    return None


def changed_keys(state: State, first: int, last: int) -> list[bytes]:
    """The keys changed in first <= main <= last, ascending, each once."""
    keys = {change.key for change in _pending(state, first, last)}
    at = revision_key(first, 0)
    while True:
        with state.backend.read() as tx:
            state.check_kept(first - 1)
            rows = tx.scan(CHANGES, at, revision_key(last + 1, 0), limit=1000)
        keys.update(value[1:] for _, value in rows)
        if len(rows) < 1000:
            return sorted(keys)
        at = rows[-1][0] + b"\0"
