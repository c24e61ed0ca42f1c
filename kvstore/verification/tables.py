"""The tables of versions against each other: ``latest``, ``history`` and ``changes``, all three ways.

    by key         the versions of a key, oldest first, from ``history`` and then ``latest``:

                       mod 2 .. end 5      mod 5 .. end 9        mod 12 (latest)
                       version 1           version 2             version 1
                            '---- update ----'    '-- delete --'  created again

                   numbers follow from one to the next; each begin and each end has its row in ``changes``
    by revision    each row of ``changes`` names the version it wrote and the version it ended; main and sub
                   revisions have no gaps

Rows at or below the compaction may be deleted, and are not missed then. Everything is streamed: rows are looked up in
the other tables a batch at a time, in key order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge

from kvstore.backend import ReadTx, Row
from kvstore.keyvalue import decode_row, encode_key_value, make_row, row_revision
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    ATTACHMENT,
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
    lease_key,
    parse_revision,
    revision_key,
    split_history_key,
)
from kvstore.verification.report import Collector
from kvstore.wire import WireError

BATCH_ROWS = 512

Revision = tuple[int, int]


def scan_batches(tx: ReadTx, table: str, limit: int = BATCH_ROWS) -> Iterator[list[Row]]:
    """All rows of a table."""
    at = b""
    while rows := tx.scan(table, at, limit=limit):
        yield rows
        if len(rows) < limit:
            return
        at = rows[-1][0] + b"\0"


def check_versions(tx: ReadTx, marks: Marks, found: Collector) -> None:
    """Both walks."""
    total = tx.count(LATEST) + tx.count(HISTORY) + tx.count(CHANGES)
    _ByKey(tx, marks, found, total).walk()
    _ByRevision(tx, marks, found, total).walk()


# --- by key ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of one key. ``end`` is None if it is the newest."""

    key: bytes
    begin: Revision
    create_revision: int
    number: int
    lease: int
    end: Revision | None


@dataclass(slots=True)
class _ByKey:
    tx: ReadTx
    marks: Marks
    found: Collector
    total: int
    done: int = 0
    leftovers: int = 0
    _changes: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """Rows that ``changes`` should have: (key, value, user key)."""
    _attachments: list[tuple[bytes, bytes]] = field(default_factory=list)

    def walk(self) -> None:
        before: _Version | None = None
        for key, ended, value in merge(self._rows(HISTORY), self._rows(LATEST)):
            version = self._parse(key, ended, value)
            if version is None:
                continue
            if before is not None and before.key == version.key:
                self._check_successor(before, version)
            else:
                self._expect_end(before, None)
                self._check_first(version)
            self._expect(version.begin, CREATE if version.number == 1 else UPDATE, version.key)
            before = version
        self._expect_end(before, None)
        self._look_up()
        if self.leftovers:
            self.found.notes.append(f"{self.leftovers} rows that a finished compaction should have deleted")

    def _rows(self, table: str) -> Iterator[tuple[bytes, bytes, bytes]]:
        """(escaped key, end, row) in order; the end of a live version comes after all others."""
        for rows in scan_batches(self.tx, table):
            self.found.counts[table] += len(rows)
            self.done += len(rows)
            self.found.step("tables", self.done, self.total)
            if len(self._changes) >= BATCH_ROWS:
                self._look_up()
            for key, value in rows:
                if table == LATEST:
                    yield escape(key), REVISION_LIMIT, value
                else:
                    yield key[:-REVISION_BYTES], key[-REVISION_BYTES:], value

    def _parse(self, escaped: bytes, ended: bytes, row: bytes) -> _Version | None:
        table = LATEST if ended == REVISION_LIMIT else HISTORY
        if table == HISTORY and (len(ended) != REVISION_BYTES or not escaped.endswith(b"\0\1")):
            self._bad(table, f"malformed key {(escaped + ended)!r}")
            return None
        stored_under, main, sub = split_history_key(escaped + (ended if table == HISTORY else bytes(16)))
        end = (main, sub) if table == HISTORY else None
        try:
            key, create_revision, _, number, value, lease = decode_row(row)
            begin = row_revision(row)
        except (WireError, IndexError) as error:
            self._bad(table, f"the row cannot be read: {error}", stored_under, main)
            return None
        version = _Version(stored_under, begin, create_revision, number, lease, end)
        if key != stored_under:
            self._bad(table, f"the row is that of key {key!r}", stored_under, begin[0])
        elif (
            make_row(encode_key_value(key, create_revision, begin[0], number, value, lease), begin[1]) != row
        ):
            self._bad(table, "the row is not encoded as it was written", stored_under, begin[0])
        self._check_numbers(table, version)
        if end is None and lease:
            self._attachments.append((lease_key(lease) + key, key))
        if end is not None and end[0] <= self.marks.finished:
            self.leftovers += 1
        return version

    def _check_numbers(self, table: str, version: _Version) -> None:
        main = version.begin[0]
        if not 1 <= version.create_revision <= main <= self.marks.revision or version.number < 1:
            numbers = f"created {version.create_revision}, modified {main}, version {version.number}"
            self._bad(table, f"impossible numbers: {numbers}", version.key, main)
        elif (version.number == 1) != (version.create_revision == main):
            self._bad(
                table, f"version {version.number}, created at {version.create_revision}", version.key, main
            )
        if version.end is not None and not version.begin < version.end:
            self._bad(table, f"ended at {_text(version.end)}, before it began", version.key, main)

    def _check_first(self, version: _Version) -> None:
        """Check the oldest version that is kept: earlier ones are compacted, or there were none."""
        if version.number > 1 and version.begin[0] > self.marks.compacted:
            self._bad(HISTORY, f"version {version.number - 1} is missing", version.key, version.begin[0])

    def _check_successor(self, before: _Version, version: _Version) -> None:
        main = version.begin[0]
        self._expect_end(before, version)
        if before.end == version.begin:
            if version.number != before.number + 1 or version.create_revision != before.create_revision:
                self._bad(
                    LATEST if version.end is None else HISTORY,
                    f"version {version.number} (created {version.create_revision}) follows version "
                    f"{before.number} (created {before.create_revision})",
                    version.key,
                    main,
                )
        elif before.end is not None and version.begin < before.end:
            self._bad(HISTORY, f"the version before it ended only at {_text(before.end)}", version.key, main)
        elif version.number != 1 and main > self.marks.compacted:
            self._bad(HISTORY, f"version {version.number - 1} is missing", version.key, main)

    def _expect_end(self, before: _Version | None, following: _Version | None) -> None:
        """A version that ended without a successor was deleted."""
        if before is None or before.end is None or (following is not None and following.begin == before.end):
            return
        self._expect(before.end, DELETE, before.key)

    def _expect(self, revision: Revision, kind: bytes, key: bytes) -> None:
        fits = all(0 <= number < 1 << 64 for number in revision)  # if not, reported with its row
        if fits and revision[0] <= self.marks.revision:
            self._changes.append((revision_key(*revision), kind + key, key))

    def _look_up(self) -> None:
        """Compare what was expected of other tables with what they hold."""
        self._changes.sort()
        values = self.tx.get_many(CHANGES, [row[0] for row in self._changes])
        for (revision, wanted, key), value in zip(self._changes, values, strict=True):
            main, sub = parse_revision(revision)
            if value is None and main <= self.marks.compacted:
                continue
            if value is None:
                self._bad(CHANGES, f"no row for {main}.{sub}, which {_WORDS[wanted[:1]]}", key, main)
            elif value != wanted:
                problem = f"the row of {main}.{sub} says {value!r}, but it {_WORDS[wanted[:1]]}"
                self._bad(CHANGES, problem, key, main)
        self._changes.clear()
        self._attachments.sort()
        attached = self.tx.get_many(ATTACHMENT, [row[0] for row in self._attachments])
        for (_, key), row in zip(self._attachments, attached, strict=True):
            if row is None:
                self._bad(ATTACHMENT, "the key names a lease that does not have it", key)
        self._attachments.clear()

    def _bad(self, table: str, problem: str, key: bytes | None = None, revision: int = 0) -> None:
        self.found.add_row(table, problem, key, revision)


_WORDS = {CREATE: "created the key", UPDATE: "updated the key", DELETE: "deleted the key"}


def _text(revision: Revision) -> str:
    return f"{revision[0]}.{revision[1]}"


# --- by revision -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Change:
    revision: Revision
    kind: bytes
    key: bytes


@dataclass(slots=True)
class _ByRevision:
    tx: ReadTx
    marks: Marks
    found: Collector
    total: int

    def walk(self) -> None:
        """Rows above the compaction are complete: there the order has no gaps and every row has its versions."""
        last: Revision | None = None
        done = self.found.counts[LATEST] + self.found.counts[HISTORY]
        for rows in scan_batches(self.tx, CHANGES):
            self.found.counts[CHANGES] += len(rows)
            done += len(rows)
            self.found.step("tables", done, self.total)
            changes = [change for key, value in rows if (change := self._parse(key, value)) is not None]
            kept = [change for change in changes if change.revision[0] > self.marks.compacted]
            for change in kept:
                self._check_order(last, change)
                last = change.revision
            self._check_ended(kept)
            self._check_written(kept)
        newest = last[0] if last else max(self.marks.compacted, 1)
        if newest < self.marks.revision:
            self._bad(
                f"the last row is of revision {newest}, the newest is {self.marks.revision}", None, newest + 1
            )

    def _parse(self, revision: bytes, value: bytes) -> _Change | None:
        if len(revision) != REVISION_BYTES or value[:1] not in (CREATE, UPDATE, DELETE) or len(value) < 2:
            self._bad(f"malformed row {revision!r}: {value[:64]!r}")
            return None
        return _Change(parse_revision(revision), value[:1], value[1:])

    def _check_order(self, last: Revision | None, change: _Change) -> None:
        main, sub = change.revision
        if main > self.marks.revision:
            self._bad(
                f"{main}.{sub} lies beyond the newest revision, {self.marks.revision}", change.key, main
            )
        previous = last[0] if last else max(self.marks.compacted, 1)
        if last is not None and main == previous:
            if sub != last[1] + 1:
                self._bad(f"{main}.{sub} follows {_text(last)}", change.key, main)
        elif main != previous + 1 or sub:
            self._bad(f"{main}.{sub} follows revision {previous}", change.key, previous + 1)

    def _check_ended(self, changes: list[_Change]) -> None:
        """Check that each update or delete names the version that it ended."""
        ending = [change for change in changes if change.kind != CREATE]
        keys = [history_key(change.key, *change.revision) for change in ending]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        rows = self.tx.get_many(HISTORY, [keys[at] for at in order])
        for at, row in zip(order, rows, strict=True):
            if row is None:
                change = ending[at]
                problem = f"the version that {_text(change.revision)} ended is missing"
                self._bad(problem, change.key, change.revision[0], HISTORY)

    def _check_written(self, changes: list[_Change]) -> None:
        """Check that each create or update names the version that it wrote: the newest, or one that ended since."""
        writing = [change for change in changes if change.kind != DELETE]
        keys = sorted({change.key for change in writing})
        newest = {
            key: _revision_of(row) for key, row in zip(keys, self.tx.get_many(LATEST, keys), strict=True)
        }
        older = [change for change in writing if newest[change.key] != change.revision]
        starts = [history_key(change.key, *change.revision) + b"\0" for change in older]
        for change, row in zip(older, self.tx.first_values(HISTORY, starts), strict=True):
            if _revision_of(row) != change.revision:
                problem = f"the version that {_text(change.revision)} wrote is missing"
                self._bad(problem, change.key, change.revision[0], HISTORY)

    def _bad(self, problem: str, key: bytes | None = None, revision: int = 0, table: str = CHANGES) -> None:
        self.found.add_row(table, problem, key, revision)


def _revision_of(row: bytes | None) -> Revision | None:
    try:
        return row_revision(row) if row else None
    except WireError:
        return None
