"""A range from its end: the last keys at a revision, in O(log n) each, whatever comes before them.

``State.page`` turned round. What is complete is complete from a key on (the horizon), not up to one; pages go on
below it. At a past revision the rows of ``latest`` that are too new are replaced from ``history``, where each key that
has a past costs two seeks: one for the key below, one for its version at the revision.
"""

from __future__ import annotations

from kvstore.backend import ReadTx, Row
from kvstore.keyvalue import row_mod_revision
from kvstore.mvcc.overlay import Generations
from kvstore.mvcc.schema import HISTORY, LATEST, REVISION_BYTES, escape, unescape
from kvstore.mvcc.state import PAGE_ROWS, State, ended_row

Rows = list[Row]
_SEEKS_MAX = 4 * PAGE_ROWS
"""Keys with a past that one page looks at: none of them may have been there at the revision."""


def last_rows(state: State, start: bytes, end: bytes | None, revision: int, limit: int) -> tuple[Rows, bool]:
    """The last ``limit`` rows, the greatest key first, and whether there are more."""
    rows: Rows = []
    below: bytes | None = end
    while below is None or start < below:
        wanted = limit + 1 - len(rows)
        page, following = page_below(state, start, below, revision, min(max(wanted, 2), PAGE_ROWS))
        rows += page
        if len(rows) > limit:
            return rows[:limit], True
        if following is None:
            break
        below = following
    return rows, False


def page_below(
    state: State, start: bytes, end: bytes | None, revision: int, limit: int
) -> tuple[Rows, bytes | None]:
    """About ``limit`` live (key, row) of [start, end) at ``revision``, descending, and the ``end`` to continue with.

    May return fewer rows (even none) with more to come; None as second value means that there are none.
    """
    generations, tx = state.look(revision)
    with tx:
        if state.backend_revision <= revision:
            rows = tx.scan(LATEST, start, end, limit=limit, reverse=True)
            horizon = rows[-1][0] if len(rows) == limit else None
        else:
            rows, horizon = _past_rows_below(tx, start, end, revision, limit)
    pending, pending_horizon = _overlay_below(generations, start, end, revision, limit)
    if pending_horizon is not None and (horizon is None or pending_horizon > horizon):
        horizon = pending_horizon
    if pending:
        found: dict[bytes, bytes | None] = dict(rows)
        found.update(pending)
        rows = sorted([(key, row) for key, row in found.items() if row is not None], reverse=True)
    return [row for row in rows if horizon is None or row[0] >= horizon], horizon


def _overlay_below(
    generations: Generations, start: bytes, end: bytes | None, revision: int, limit: int
) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """``overlay_slice`` for the last ``limit`` keys: key -> row, and the key from which on it is complete."""
    found: dict[bytes, bytes | None] = {}
    horizon: bytes | None = None
    for generation in reversed(generations):
        keys = generation.last_keys(start, end, limit)
        if len(keys) == limit and (horizon is None or keys[0] > horizon):
            horizon = keys[0]
        for key in keys:
            change = generation.at(key, revision)
            if change is not None:
                found[key] = change[3]
    return {key: row for key, row in found.items() if horizon is None or key >= horizon}, horizon


def _past_rows_below(
    tx: ReadTx, start: bytes, end: bytes | None, revision: int, limit: int
) -> tuple[Rows, bytes | None]:
    """Rows of [start, end) live at ``revision``, descending, and the key from which on they are complete."""
    latest = tx.scan(LATEST, start, end, limit=limit, reverse=True)
    horizon = latest[-1][0] if len(latest) == limit else None
    found = {key: row for key, row in latest if row_mod_revision(row) <= revision}
    lowest = escape(start if horizon is None else horizon) if start or horizon else b""
    stop = None if end is None else escape(end)
    ended = 0
    for seeks in range(1, _SEEKS_MAX + 1):
        last = tx.scan(HISTORY, lowest, stop, limit=1, reverse=True)
        if not last:
            break
        stop = last[0][0][:-REVISION_BYTES]
        key = unescape(stop)
        row = ended_row(tx, key, revision)
        if row is not None:
            found[key] = row
            ended += 1
        if ended >= limit or seeks == _SEEKS_MAX:
            horizon = key
            break
    return sorted(
        [row for row in found.items() if horizon is None or row[0] >= horizon], reverse=True
    ), horizon
