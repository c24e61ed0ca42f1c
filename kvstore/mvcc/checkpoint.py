"""Checkpoint: a frozen generation moves into the backend, in one transaction, together with its index.

The backend holds exactly the effects of the log entries up to its applied index; both change in one commit. After a
crash the backend is at the old index or at the new one, and the log has everything after either.

The rows are written in small chunks with short sleeps between them, so that no writer waits for the GIL; the
transaction is long, but it is the only one that writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from kvstore import invariants
from kvstore.backend import Backend, Row, WriteTx
from kvstore.implementation import native
from kvstore.invariants import hold
from kvstore.mvcc.overlay import ChangedRow, Generation
from kvstore.mvcc.schema import (
    CHANGES,
    CREATE,
    DELETE,
    HISTORY,
    LATEST,
    META,
    META_APPLIED_INDEX,
    META_CLOSED_MS,
    META_REVISION,
    UPDATE,
    history_key,
    pack_u64,
    revision_key,
)
from kvstore.mvcc.state import State
from kvstore.pacing import Pause, no_pause

CHUNK_ROWS = 32
RUN_ROWS = 512

T = TypeVar("T")
Rows = dict[bytes, bytes | None]
"""The row at each key; None: there is none."""


def write_now(state: State, now_ms: int) -> None:
    """Move everything into the backend while nothing else uses the state: in a replay, restore or import."""
    generation = state.freeze()
    state.committing(generation)
    write_generation(state.backend, generation, now_ms, no_pause)
    state.committed(generation)


def write_generation(backend: Backend, generation: Generation, now_ms: int, pause: Pause) -> None:
    """Commit ``generation`` and its applied index."""
    with backend.write() as tx:
        _write_changes(tx, generation, pause)
        for table, rows in generation.rows.items():
            tx.put_many(table, [(key, value) for key, value in sorted(rows.items()) if value is not None])
            tx.delete_many(table, [key for key, value in rows.items() if value is None])
        marks = [
            (META_APPLIED_INDEX, pack_u64(generation.last_index)),
            (META_REVISION, pack_u64(generation.last_revision)),
            (META_CLOSED_MS, pack_u64(now_ms)),
        ]
        tx.put_many(META, marks)


def _write_changes(tx: WriteTx, generation: Generation, pause: Pause) -> None:
    keys = _sorted_in_runs(list(generation.newest), pause)
    before = _latest_rows(tx, keys, pause)
    now = dict(before)
    history: list[Row] = []
    changes: list[Row] = []
    for some_changes in _chunks(generation.changes):
        table_rows(some_changes, now, history, changes)
        pause()
    if invariants.ON:
        ends = sum(value[:1] != CREATE for _, value in changes)
        hold(11, ends == len(history), f"{ends} changes end versions, {len(history)} versions end")
    for some_rows in _chunks(_sorted_in_runs(history, pause)):
        tx.put_many(HISTORY, some_rows)
        pause()
    for some_rows in _chunks(changes):
        tx.put_many(CHANGES, some_rows, append=True)
        pause()
    _write_latest(tx, keys, before, now, pause)


def _latest_rows(tx: WriteTx, keys: list[bytes], pause: Pause) -> Rows:
    """What ``latest`` has under ``keys``."""
    found: Rows = {}
    for some in _chunks(keys):
        found.update(zip(some, tx.get_many(LATEST, some), strict=True))
        pause()
    return found


def _write_latest(tx: WriteTx, keys: list[bytes], before: Rows, now: Rows, pause: Pause) -> None:
    """Bring ``latest`` from the rows ``before`` to those of ``now``."""
    for some in _chunks(keys):
        tx.put_many(LATEST, [(key, row) for key in some if (row := now[key]) is not None])
        tx.delete_many(LATEST, [key for key in some if now[key] is None and before[key] is not None])
        pause()


@native
def table_rows(changes: list[ChangedRow], now: Rows, history: list[Row], named: list[Row]) -> None:
    """Append the rows of changes for the tables ``history`` and ``changes``. ``now``: the row at each key, before and
    after.
    """
    for main, sub, key, row in changes:
        ended = now[key]
        if ended is not None:
            history.append((history_key(key, main, sub), ended))
        if invariants.ON:
            hold(
                11,
                row is not None or ended is not None,
                f"{key!r} is deleted at {main}, and was not there",
            )
        kind = DELETE if row is None else CREATE if ended is None else UPDATE
        named.append((revision_key(main, sub), kind + key))
        now[key] = row


def _sorted_in_runs(items: list[Any], pause: Pause) -> list[Any]:
    """Runs of ``RUN_ROWS`` sorted items: close enough to order for a tree, and no long sort holds the GIL."""
    ordered = []
    for start in range(0, len(items), RUN_ROWS):
        ordered += sorted(items[start : start + RUN_ROWS])
        pause()
    return ordered


def _chunks(items: Sequence[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, CHUNK_ROWS)):
        yield some
