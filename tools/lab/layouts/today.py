"""Today's tables, by the product's own code."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.backend import Backend
from kvstore.mvcc import checkpoint
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.state import State
from kvstore.pacing import no_pause
from kvstore.upkeep.compaction import _Pass

from .base import PAGE_ROWS, Layout

CHUNK_ROWS = 10_000


def _replay(state: State, first: int, last: int) -> Iterator[list[ChangedRow]]:
    while first <= last:
        page, covered = change_page(state, first, last, PAGE_ROWS)
        yield page
        first = covered + 1


def _compact(backend: Backend, _before: int, target: int) -> int:
    deleted, now = 0, _Pass(target)
    with backend.read() as view:
        now.collect(view, no_pause)
    while not now.is_done:
        with backend.write() as tx:
            deleted += now.delete_some(tx, CHUNK_ROWS, no_pause)
    return deleted


TODAY = Layout("today", State, checkpoint._write_changes, _replay, _compact)
