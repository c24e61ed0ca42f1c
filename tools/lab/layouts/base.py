"""What a layout is made of, and a store that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import kvstore
from kvstore.backend import Backend, ReadTx, WriteTx
from kvstore.keyvalue import KeyValue
from kvstore.mvcc.overlay import ChangedRow, Generation
from kvstore.mvcc.schema import CHANGES, revision_key
from kvstore.mvcc.state import State
from kvstore.pacing import Pause
from kvstore.reads import Reads
from kvstore.store import Store

NEVER_SECONDS = 86_400.0
SLICE_KEYS = 256
PAGE_ROWS = 1000

OPTIONS: dict[str, Any] = {
    "durability": "off",
    "snapshot_count": 0,
    "quota_backend_bytes": -1,
    "backend_batch_interval_seconds": NEVER_SECONDS,
    "backend_batch_limit": 1 << 30,
    "overlay_limit": 1 << 32,
}
"""The disk and the clock decide nothing: a checkpoint is made when it is asked for."""


@dataclass(frozen=True)
class Layout:
    name: str
    state: type[State]
    write: Callable[[WriteTx, Generation, Pause], None]
    """The changes of a checkpoint."""
    replay: Callable[[State, int, int], Iterable[list[ChangedRow]]]
    """The changes of first..last in order, page by page, from a state without generations."""
    compact: Callable[[Backend, int, int], int]
    """Delete what no revision from the second one on needs; the first one is that of the last time. Returns rows."""

    @contextmanager
    def open(self, path: Path, backend: str) -> Iterator[Store]:
        with (
            patch("kvstore.recovery.State", self.state),
            patch("kvstore.mvcc.checkpoint._write_changes", self.write),
            patch("kvstore.reads.Reads.get", _get),
            kvstore.open(path, backend, **OPTIONS) as store,
        ):
            yield store


def _get(reads: Reads, key: bytes) -> KeyValue | None:
    """As the product's, which knows where the newest row is without asking its state."""
    row = reads.state.row_at(key, reads.state.published)
    return None if row is None else KeyValue.decoded(row)


def pages(tx: ReadTx, first: int, last: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """The rows of ``changes`` with first <= main <= last."""
    at, end = revision_key(first, 0), revision_key(last + 1, 0)
    while rows := tx.scan(CHANGES, at, end, limit=PAGE_ROWS):
        yield rows
        at = rows[-1][0] + b"\0"


def slices(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The keys in order, some at a time."""
    ordered = sorted(keys)
    for start in range(0, len(ordered), SLICE_KEYS):
        yield ordered[start : start + SLICE_KEYS]
