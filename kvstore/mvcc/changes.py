"""Changes in revision order: what watch catch-up, differences and HashKV read.

``changes`` names the key of each revision. The version it wrote is the row of ``latest`` if that is still the
newest, else the first row of ``history`` whose end lies behind the revision. Which of the two is asked first, a
sample of the page decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from kvstore.backend import ReadTx, Row, first_rows
from kvstore.errors import Corruption
from kvstore.keyvalue import row_mod_revision, row_revision
from kvstore.mvcc.overlay import Version
from kvstore.mvcc.schema import (
    CHANGES,
    DELETE,
    HISTORY,
    LATEST,
    REVISION_LIMIT,
    escape,
    parse_revision,
    revision_key,
    split_revisions,
)
from kvstore.mvcc.state import State

_SAMPLE_ROWS = 32
EVERYTHING: tuple[bytes, bytes | None] = (b"", None)


ChangedRow = tuple[int, int, bytes, bytes | None]
"""One change: (main, sub, key, the version it wrote; None for a delete)."""

Pending = Sequence[tuple[bytes, Version]]


def change_page(
    state: State, first: int, last: int, limit: int, span: tuple[bytes, bytes | None] = EVERYTHING
) -> tuple[list[ChangedRow], int]:
    """Changes with first <= main <= last in order, whole revisions only, and the last revision covered.

    At least one revision, otherwise about ``limit`` changes, of which only those of keys in ``span`` [start, end)
    are returned. Raises ``Compacted`` where ``first`` is not kept.
    """
    pending, complete = _pending(state, first, last)
    if complete:
        state.check_kept(first)
        return _page_of(pending, first - 1, last, limit, span)
    with state.backend.read() as tx:
        state.check_kept(first, tx)
        rows, covered = _named(tx, first, last, limit)
        found = _resolve(tx, rows, state.compacted, span)
    if covered is not None:
        return found, covered
    covered = parse_revision(rows[-1][0])[0] if rows else first - 1
    more, covered = _page_of(pending, covered, last, limit - len(rows), span)
    return found + more, covered


def _named(tx: ReadTx, first: int, last: int, limit: int) -> tuple[list[Row], int | None]:
    """Rows of ``changes``, and the last revision they cover: None where the table has no more of first..last."""
    rows = tx.scan(CHANGES, revision_key(first, 0), revision_key(last + 1, 0), limit=limit)
    if len(rows) < limit:
        return rows, None
    main = parse_revision(rows[-1][0])[0]
    if parse_revision(rows[0][0])[0] == main:  # one revision larger than the limit: take it whole
        return tx.scan(CHANGES, rows[0][0], revision_key(main + 1, 0)), main
    return rows[: bisect_left(rows, (revision_key(main, 0), b""))], main - 1


# --- what is not in the backend yet ------------------------------------------------------


def _pending(state: State, first: int, last: int) -> tuple[Pending, bool]:
    """What the generations hold of first..last, oldest first, and whether that is all there is.

    Taken before the backend is opened (overlay.py).
    """
    generations = state.generations
    found: list[tuple[bytes, Version]] = []
    for generation in reversed(generations):
        changes = generation.changes
        try:
            low = bisect_left(changes, first, key=_main_of)
            high = bisect_left(changes, last + 1, lo=low, key=_main_of)
        except IndexError:  # it has reached the backend, and is being emptied
            continue
        found += changes[low:high]
    complete = bool(found) and found[0][1].main == first and generations[-1] in state.generations
    return found, complete


def _main_of(change: tuple[bytes, Version]) -> int:
    return change[1].main


def _page_of(
    pending: Pending, covered: int, last: int, limit: int, span: tuple[bytes, bytes | None]
) -> tuple[list[ChangedRow], int]:
    """The first changes after ``covered``: about ``limit``, at least one revision."""
    low = bisect_left(pending, covered + 1, key=_main_of)
    high = len(pending)
    if high - low > max(limit, 1):
        main = pending[low + max(limit, 1)][1].main
        high = bisect_left(pending, main, lo=low, key=_main_of)
        if high == low:
            high = bisect_left(pending, main + 1, lo=low, key=_main_of)
        if high < len(pending):
            last = pending[high - 1][1].main
    start, end = span
    page = [
        (version.main, version.sub, key, version.row)
        for key, version in pending[low:high]
        if start <= key and (end is None or key < end)
    ]
    return page, last


# --- finding the version that a change wrote ---------------------------------------------


def _resolve(
    tx: ReadTx, rows: list[Row], compacted: int, span: tuple[bytes, bytes | None]
) -> list[ChangedRow]:
    """Add to each named change in ``span`` the version it wrote. A column at a time: it is the cost of catching up."""
    start, end = span
    if span != EVERYTHING:
        rows = [row for row in rows if start <= row[1][1:] and (end is None or row[1][1:] < end)]
    keys = [kind_and_key[1:] for _, kind_and_key in rows]
    revisions = split_revisions([revision for revision, _ in rows])
    found: list[ChangedRow] = [
        (main, sub, key, None) for (main, sub), key in zip(revisions, keys, strict=True)
    ]
    puts = [at for at, (_, kind_and_key) in enumerate(rows) if kind_and_key[:1] != DELETE]
    puts.sort(key=keys.__getitem__)  # neighbours in the backend are read together
    sample = puts[:: len(puts) // _SAMPLE_ROWS + 1]
    if 2 * len(_take_latest(tx, found, sample)) > len(sample):
        missing = _take_latest(tx, found, _take_ended(tx, found, puts))
    else:
        missing = _take_ended(tx, found, _take_latest(tx, found, puts))
    for at in missing:
        main, sub, _, _ = found[at]
        if main > compacted:  # at the compaction a version superseded in the same revision may be gone
            raise Corruption(f"the version of revision {main}.{sub} is missing from table {HISTORY!r}")
    if missing:
        gone = set(missing)
        return [change for at, change in enumerate(found) if at not in gone]
    return found


def _take_latest(tx: ReadTx, found: list[ChangedRow], wanted: list[int]) -> list[int]:
    """Fill in the versions that are still the newest; return where they are not."""
    superseded = []
    rows = tx.get_many(LATEST, [found[at][2] for at in wanted])
    for at, row in zip(wanted, rows, strict=True):
        main, sub, key, _ = found[at]
        if row is not None and row_revision(row) == (main, sub):
            found[at] = main, sub, key, row
        else:
            superseded.append(at)
    return superseded


def _take_ended(tx: ReadTx, found: list[ChangedRow], wanted: list[int]) -> list[int]:
    """Fill in the versions that lie in ``history``; return where there is none."""
    spans = []
    for at in wanted:
        main, sub, key, _ = found[at]
        escaped = escape(key)
        spans.append((escaped + revision_key(main, sub) + b"\0", escaped + REVISION_LIMIT))
    missing = []
    for at, ended in zip(wanted, first_rows(tx, HISTORY, spans), strict=True):
        main, sub, key, _ = found[at]
        if ended is not None and row_mod_revision(ended[1]) == main:
            found[at] = main, sub, key, ended[1]
        else:
            missing.append(at)
    return missing


def changed_keys(state: State, first: int, last: int) -> list[bytes]:
    """The keys changed in first <= main <= last, ascending, each once."""
    keys = {key for key, _ in _pending(state, first, last)[0]}
    at = revision_key(first, 0)
    while True:
        with state.backend.read() as tx:
            state.check_kept(first - 1, tx)
            rows = tx.scan(CHANGES, at, revision_key(last + 1, 0), limit=1000)
        keys.update(value[1:] for _, value in rows)
        if len(rows) < 1000:
            return sorted(keys)
        at = rows[-1][0] + b"\0"
