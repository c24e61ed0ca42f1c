"""``latest`` as it is; the rows that ended are appended to ``changes``, where they ended."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.backend import Backend, ReadTx, Row, WriteTx
from kvstore.keyvalue import row_mod_revision, row_revisions
from kvstore.mvcc.checkpoint import _chunks, _latest_rows, _sorted_in_runs, _write_latest
from kvstore.mvcc.overlay import ChangedRow, Generation, overlay_slice
from kvstore.mvcc.schema import (
    CHANGES,
    CREATE,
    DELETE,
    HISTORY,
    LATEST,
    REVISION_BYTES,
    REVISION_LIMIT,
    UPDATE,
    escape,
    history_key,
    revision_key,
    split_revisions,
    unescape,
)
from kvstore.mvcc.state import PAGE_ROWS, State
from kvstore.pacing import Pause

from .base import Layout, pages, slices

LENGTH_BYTES = 4


class Undo(State):
    """Reads of the newest revision are today's."""

    def row_at(self, key: bytes, revision: int) -> bytes | None:
        if self.backend_revision <= revision:
            return super().row_at(key, revision)
        for generation in self.generations:
            if key in generation.newest and (change := generation.at(key, revision)) is not None:
                return change[3]
        _, tx = self.look(revision)
        with tx:
            row = tx.get(LATEST, key)
            if row is not None and row_mod_revision(row) <= revision:
                return row
            ended = tx.scan(HISTORY, history_key(key, revision + 1, 0), escape(key) + REVISION_LIMIT, limit=1)
            row = _ended_row(tx.get(CHANGES, ended[0][1])) if ended else None
            return row if row is not None and row_mod_revision(row) <= revision else None

    def page(
        self, start: bytes, end: bytes | None, revision: int, limit: int = PAGE_ROWS
    ) -> tuple[list[Row], bytes | None]:
        if self.backend_revision <= revision:
            return super().page(start, end, revision, limit)
        generations, tx = self.look(revision)
        with tx:
            found = dict(_past_rows(tx, start, end, revision))
        for key, row in overlay_slice(generations, start, end, revision, 1 << 60)[0].items():
            if row is None:
                found.pop(key, None)
            else:
                found[key] = row
        return sorted(found.items()), None


def _past_rows(tx: ReadTx, start: bytes, end: bytes | None, revision: int) -> Iterator[Row]:
    ends: dict[bytes, bytes] = {}
    for ended, end_revision in tx.scan(HISTORY, escape(start), None if end is None else escape(end)):
        if int.from_bytes(end_revision[:8], "big") > revision:
            ends.setdefault(unescape(ended[:-REVISION_BYTES]), end_revision)
    for key, change in zip(ends, tx.get_many(CHANGES, list(ends.values())), strict=True):
        row = _ended_row(change)
        if row and row_mod_revision(row) <= revision:
            yield key, row
    for key, row in tx.scan(LATEST, start, end):
        if row_mod_revision(row) <= revision:
            yield key, row


def _ended_row(change: bytes | None) -> bytes:
    if change is None:
        return b""
    return change[1 + LENGTH_BYTES + int.from_bytes(change[1 : 1 + LENGTH_BYTES], "big") :]


def _key_of(change: bytes) -> bytes:
    return change[1 + LENGTH_BYTES : 1 + LENGTH_BYTES + int.from_bytes(change[1 : 1 + LENGTH_BYTES], "big")]


def _write(tx: WriteTx, generation: Generation, pause: Pause) -> None:
    keys = _sorted_in_runs(list(generation.newest), pause)
    before = _latest_rows(tx, keys, pause)
    now = dict(before)
    ends: list[Row] = []
    changes: list[Row] = []
    for some_changes in _chunks(generation.changes):
        for main, sub, key, row in some_changes:
            ended, place = now[key], revision_key(main, sub)
            if ended is not None:
                ends.append((history_key(key, main, sub), place))
            kind = DELETE if row is None else CREATE if ended is None else UPDATE
            changes.append(
                (place, b"%b%b%b%b" % (kind, len(key).to_bytes(LENGTH_BYTES, "big"), key, ended or b""))
            )
            now[key] = row
        pause()
    for some_ends in _chunks(_sorted_in_runs(ends, pause)):
        tx.put_many(HISTORY, some_ends)
        pause()
    for some_rows in _chunks(changes):
        tx.put_many(CHANGES, some_rows, append=True)
        pause()
    _write_latest(tx, keys, before, now, pause)


def _replay(state: State, first: int, last: int) -> Iterator[list[ChangedRow]]:
    with state.backend.read() as tx:
        for rows in pages(tx, first, last):
            revisions = split_revisions([revision for revision, _ in rows])
            keys = [_key_of(change) for _, change in rows]
            written: list[bytes | None] = [None] * len(rows)
            puts = [at for at, (_, change) in enumerate(rows) if change[:1] != DELETE]
            puts.sort(key=keys.__getitem__)
            newest = tx.get_many(LATEST, [keys[at] for at in puts])
            missing = []
            for at, row, revision in zip(puts, newest, row_revisions(newest), strict=True):
                if revision == revisions[at]:
                    written[at] = row
                else:
                    missing.append(at)
            starts = [history_key(keys[at], *revisions[at]) + b"\0" for at in missing]
            ends = [end or b"\0" for end in tx.first_values(HISTORY, starts)]
            for at, change in zip(missing, tx.get_many(CHANGES, ends), strict=True):
                written[at] = _ended_row(change)
            yield [
                (main, sub, key, row) for (main, sub), key, row in zip(revisions, keys, written, strict=True)
            ]


def _compact(backend: Backend, before: int, target: int) -> int:
    with backend.read() as tx:
        keys = {
            _key_of(row) for rows in pages(tx, max(before, 0), target) for _, row in rows if row[:1] != CREATE
        }
        stops = [rows[-1][0] for rows in pages(tx, max(before, 0), target - 1)] + [revision_key(target, 0)]
    deleted = 0
    for some in slices(keys):
        with backend.write() as tx:
            deleted += tx.delete_ranges(
                HISTORY, [(escape(key), history_key(key, target + 1, 0)) for key in some]
            )
    for stop in stops:
        with backend.write() as tx:
            deleted += tx.delete_ranges(CHANGES, [(b"", stop)])
    return deleted


UNDO = Layout("undo", Undo, _write, _replay, _compact)
