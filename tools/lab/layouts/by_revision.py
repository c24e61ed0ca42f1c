"""Rows by revision, as etcd has them; with a limit, small rows in ``latest`` as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kvstore.backend import Backend, ReadTx, Row, WriteTx
from kvstore.keyvalue import row_keys, row_revision
from kvstore.mvcc.checkpoint import _chunks, _latest_rows, _sorted_in_runs
from kvstore.mvcc.overlay import ChangedRow, Generation, overlay_slice
from kvstore.mvcc.schema import (
    CHANGES,
    HISTORY,
    KEY_END,
    LATEST,
    REVISION_BYTES,
    escape,
    history_key,
    parse_revision,
    revision_key,
    split_revisions,
    unescape,
)
from kvstore.mvcc.state import PAGE_ROWS, State
from kvstore.pacing import Pause

from .base import Layout, pages, slices

DELETED = b"d"
"""Before the key, in place of a row. (A row begins with 0a or 78.)"""
POINTER = 0
"""The first byte of a revision, which no row begins with."""
INLINE_BYTES = 512


class ByRevision(State):
    """Reads follow the pointer that ``latest`` has in place of a row."""

    inline_bytes: ClassVar[int] = 0

    def head_row(self, key: bytes) -> bytes | None:
        return self._followed(super().head_row(key))

    def head_rows(self, keys: list[bytes]) -> list[bytes | None]:
        rows = super().head_rows(keys)
        pointers = [row for row in rows if row is not None and row[0] == POINTER]
        if not pointers:
            return rows
        with self.backend.read() as tx:
            found = iter(tx.get_many(CHANGES, pointers))
        return [next(found) if row is not None and row[0] == POINTER else row for row in rows]

    def row_at(self, key: bytes, revision: int) -> bytes | None:
        if self.backend_revision <= revision:
            return self._followed(super().row_at(key, revision))
        for generation in self.generations:
            if key in generation.newest and (change := generation.at(key, revision)) is not None:
                return change[3]
        _, tx = self.look(revision)
        with tx:
            stored = tx.get(LATEST, key)
            if stored is not None and _revision(stored)[0] <= revision:
                return tx.get(CHANGES, stored) if stored[0] == POINTER else stored
            ended = tx.scan(HISTORY, escape(key), history_key(key, revision + 1, 0), limit=1, reverse=True)
            row = tx.get(CHANGES, ended[0][0][-REVISION_BYTES:]) if ended else None
            return None if row is None or row[:1] == DELETED else row

    def page(
        self, start: bytes, end: bytes | None, revision: int, limit: int = PAGE_ROWS
    ) -> tuple[list[Row], bytes | None]:
        if self.backend_revision > revision:
            return self._past_page(start, end, revision)
        rows, following = super().page(start, end, revision, limit)
        pointers = [row for _, row in rows if row[0] == POINTER]
        if not pointers:
            return rows, following
        with self.backend.read() as tx:
            found = iter(tx.get_many(CHANGES, pointers))
        return [(key, next(found) or b"" if row[0] == POINTER else row) for key, row in rows], following

    def _past_page(self, start: bytes, end: bytes | None, revision: int) -> tuple[list[Row], bytes | None]:
        """All of a past range at once."""
        generations, tx = self.look(revision)
        with tx:
            found = dict(_past_rows(tx, start, end, revision))
        for key, row in overlay_slice(generations, start, end, revision, 1 << 60)[0].items():
            if row is None:
                found.pop(key, None)
            else:
                found[key] = row
        return sorted(found.items()), None

    def _followed(self, row: bytes | None) -> bytes | None:
        return self.backend.get(CHANGES, row) if row is not None and row[0] == POINTER else row


class Inline(ByRevision):
    inline_bytes = INLINE_BYTES


def _past_rows(tx: ReadTx, start: bytes, end: bytes | None, revision: int) -> Iterator[Row]:
    at: dict[bytes, bytes] = {}
    for ended, _ in tx.scan(HISTORY, escape(start), None if end is None else escape(end)):
        if int.from_bytes(ended[-REVISION_BYTES:-8], "big") <= revision:
            at[unescape(ended[:-REVISION_BYTES])] = ended[-REVISION_BYTES:]
    for key, stored in tx.scan(LATEST, start, end):
        if _revision(stored)[0] > revision:
            continue
        if stored[0] == POINTER:
            at[key] = stored
        else:
            at.pop(key, None)
            yield key, stored
    for key, row in zip(at, tx.get_many(CHANGES, list(at.values())), strict=True):
        if row is not None and row[:1] != DELETED:
            yield key, row


def _revision(stored: bytes) -> tuple[int, int]:
    return parse_revision(stored) if stored[0] == POINTER else row_revision(stored)


def _write(tx: WriteTx, generation: Generation, pause: Pause, inline_bytes: int) -> None:
    keys = _sorted_in_runs(list(generation.newest), pause)
    before = _latest_rows(tx, keys, pause)
    now = {
        key: row if row is None or row[0] == POINTER else revision_key(*row_revision(row))
        for key, row in before.items()
    }
    ended: list[Row] = []
    rows: list[Row] = []
    for some_changes in _chunks(generation.changes):
        for main, sub, key, row in some_changes:
            place, was = revision_key(main, sub), now[key]
            prefix = key.replace(b"\0", b"\0\xff") + KEY_END
            if was is not None:
                ended.append((prefix + was, b""))
            if row is None:
                ended.append((prefix + place, b""))
                rows.append((place, DELETED + key))
                now[key] = None
            else:
                rows.append((place, row))
                now[key] = place
        pause()
    for some_ended in _chunks(_sorted_in_runs(ended, pause)):
        tx.put_many(HISTORY, some_ended)
        pause()
    for some_rows in _chunks(rows):
        tx.put_many(CHANGES, some_rows, append=True)
        pause()
    for some in _chunks(keys):
        latest = [(key, stored) for key in some if (stored := now[key]) is not None]
        if inline_bytes:
            newest = [(key, generation.newest[key][3] or b"") for key, _ in latest]
            latest = [
                small if len(small[1]) <= inline_bytes else pointer
                for small, pointer in zip(newest, latest, strict=True)
            ]
        tx.put_many(LATEST, latest)
        tx.delete_many(LATEST, [key for key in some if now[key] is None and before[key] is not None])
        pause()


def _replay(state: State, first: int, last: int) -> Iterator[list[ChangedRow]]:
    with state.backend.read() as tx:
        for rows in pages(tx, first, last):
            revisions = split_revisions([revision for revision, _ in rows])
            yield [
                (main, sub, key, None if row[:1] == DELETED else row)
                for (main, sub), (_, row), key in zip(revisions, rows, _keys(rows), strict=True)
            ]


def _keys(rows: list[Row]) -> list[bytes]:
    """The key that each row of ``changes`` is of."""
    parsed = row_keys([b"" if row[:1] == DELETED else row for _, row in rows])
    return [row[1:] if row[:1] == DELETED else key for (_, row), (_, key) in zip(rows, parsed, strict=True)]


def _compact(backend: Backend, before: int, target: int) -> int:
    """Of each key that changed: all ended versions up to the target but the last, and that one if it ended by then."""
    with backend.read() as tx:
        keys = {key for rows in pages(tx, max(before, 0), target) for key in _keys(rows)}
    deleted = 0
    for some in slices(keys):
        with backend.write() as tx:
            index: list[bytes] = []
            for key, stored in zip(some, tx.get_many(LATEST, some), strict=True):
                ended = [at for at, _ in tx.scan(HISTORY, escape(key), history_key(key, target + 1, 0))]
                if ended and (stored is None or _revision(stored)[0] > target):
                    last = tx.get(CHANGES, ended[-1][-REVISION_BYTES:])
                    if last is not None and last[:1] != DELETED:
                        ended.pop()
                index += ended
            tx.delete_many(HISTORY, index)
            tx.delete_many(CHANGES, sorted(at[-REVISION_BYTES:] for at in index))
            deleted += 2 * len(index)
    return deleted


def _layout(name: str, state: type[ByRevision]) -> Layout:
    def write(tx: WriteTx, generation: Generation, pause: Pause) -> None:
        _write(tx, generation, pause, state.inline_bytes)

    return Layout(name, state, write, _replay, _compact)


BY_REVISION = _layout("by-revision", ByRevision)
INLINE = _layout("inline", Inline)
