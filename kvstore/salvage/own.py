"""Evidence in damaged stores of ours: the backend's file, the log, snapshots.

    backend or snapshot, sound    every row of the tables                    CONSISTENT (a snapshot's SHA-256: CHECKSUM)
    backend or snapshot, damaged  every page that still holds rows           ALONE (``own_pages``)
    log                           the effects in each sound frame            CHECKSUM, wherever in the log they are

Entries of our log carry effects with their revisions, so a frame beyond a damaged one still says what happened. The
frame right after damage is checked by its header only, since the checksum of its data continues the one before.

Long rows are read again when they are needed: those of a sound backend in the same view of it, others from their file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from kvstore import layout
from kvstore.backend import ReadTx, Row, check_closed, find_backend, recognize_backend
from kvstore.errors import Corruption, KVStoreError, StoreLocked
from kvstore.files import FolderLock
from kvstore.keyvalue import decode_row, encode_key_value, split_row
from kvstore.layout import DataDir
from kvstore.mvcc import effects
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    CHANGES,
    DELETE,
    HISTORY,
    LATEST,
    LEASE,
    META,
    META_CARRIED,
    META_COMPACT_FINISHED,
    META_COMPACT_SCHEDULED,
    REVISION_BYTES,
    REVISION_END,
    TABLES,
    escape,
    parse_lease_key,
    parse_revision,
)
from kvstore.salvage.evidence import Covered, Evidence, Fact, InFile, Kept, LeaseFound, Level, shorter
from kvstore.salvage.own_pages import BY_PAGES, page_rows
from kvstore.salvage.pieces import Pieces
from kvstore.snapshot.reader import verify
from kvstore.wal.format import Metadata
from kvstore.wal.inspect import Found, scan_segment
from kvstore.wire import WireError, fields

_MARKS = (META_COMPACT_SCHEDULED, META_COMPACT_FINISHED)
_PAGE_ROWS = 16
"""Few, for they may be large, and are in memory together."""


class InTable(NamedTuple):
    """A row of a sound backend."""

    tx: ReadTx
    table: str
    key: bytes

    def read(self) -> bytes:
        row = self.tx.get(self.table, self.key)
        if row is None:
            raise Corruption(f"a row of {self.table} is not found by its key")
        return row


def recognizes(source: Path) -> bool:
    """Whether a path is a store of ours, or a file of one, as far as its names or first bytes say."""
    if source.is_dir():
        return (
            bool(layout.segments(source)) or bool(layout.segments(DataDir.at(source).wal)) or _has_db(source)
        )
    return layout.segment_at(source) is not None or recognize_backend(source) is not None


def _has_db(source: Path) -> bool:
    db = DataDir.at(source).db
    return db.is_file() and recognize_backend(db) is not None


def read(source: Path, wal_dir: str) -> Evidence:
    """All that can be read. Raises ``StoreLocked``."""
    found = Evidence(source=str(source), kind="store")
    with ExitStack() as until_read:
        until_read.enter_context(found.sources)
        _read(found, source, wal_dir)
        until_read.pop_all()
    return found


def _read(found: Evidence, source: Path, wal_dir: str) -> None:
    if source.is_dir():
        _directory(found, DataDir.at(source, wal_dir or None), layout.segments(source))
    elif layout.segment_at(source) is not None:
        found.kind = "segment of a log"
        _Log(found).read([source])
    else:
        found.kind = "backend file or snapshot"
        if DataDir.at(source.parent.parent).db == source:
            _keep_still(found, source.parent.parent)
        _backend(found, source, alone=True)


def _directory(found: Evidence, directory: DataDir, segments: list[layout.NumberedFile]) -> None:
    """``segments``: of a directory that is itself a log's."""
    _keep_still(found, directory.root)
    segments = segments or layout.segments(directory.wal)
    if directory.db.exists():
        _backend(found, directory.db, alone=not segments)
    elif directory.snap.is_dir():
        found.unread.append(f"{directory.db}: the backend is missing")
    for file in directory.snapshots() if found.unread else ():
        _backend(found, file.path, alone=False)
    _Log(found).read([file.path for file in segments])


def _keep_still(found: Evidence, root: Path) -> None:
    """No process opens the store meanwhile."""
    lock = FolderLock(root)
    if not lock.acquire():
        raise StoreLocked(root)
    found.sources.callback(lock.release)


# --- backend files ------------------------------------------------------------------------


def _backend(found: Evidence, path: Path, *, alone: bool) -> None:
    kind = recognize_backend(path)
    level = Level.CONSISTENT
    try:
        info = verify(path)
        level, kind = Level.CHECKSUM, find_backend(info.backend)
    except (KVStoreError, OSError):
        if alone:
            found.warnings.append(
                f"NO HASH WAS CHECKED: {path.name} has no SHA-256 that holds, so no value is covered by a checksum"
            )
    if kind is None:
        found.unread.append(f"{path.name}: it does not begin like any backend's file")
        _pages(found, _kind_by_pages(path), path)
        return
    try:
        check_closed(kind, path)
        with ExitStack() as stack:
            backend = kind.open(path, TABLES, read_only=True, immutable=True)
            stack.callback(backend.close)
            backend.check()
            _tables(found, stack.enter_context(backend.read()), level, path.name, alone=alone)
            found.sources.enter_context(stack.pop_all())
    except (KVStoreError, WireError) as damage:
        found.unread.append(f"{path.name}: {damage}")
        _pages(found, kind.name, path)


def _kind_by_pages(path: Path) -> str:
    """The backend in whose way most rows can be read from the pages of a file that has lost its beginning."""
    return max(BY_PAGES, key=lambda name: sum(_rows_found(name, path)))


def _rows_found(backend: str, path: Path) -> Iterator[bool]:
    """For each row that the pages hold: whether it is one of a store."""
    with ExitStack() as stack:
        for row in page_rows(backend, Pieces(path, stack)):
            yield _fact(row.key, row.value, row.place, Level.ALONE, "") is not None


def has_pages(path: Path) -> bool:
    """Whether a file that does not begin like any store's, or the one of a directory, holds pages of one of ours."""
    file = DataDir.at(path).db if path.is_dir() else path
    return file.is_file() and any(any(_rows_found(name, file)) for name in BY_PAGES)


def _tables(found: Evidence, tx: ReadTx, level: Level, place: str, *, alone: bool) -> None:
    """A sound backend: all of it."""
    facts: list[Fact] = []
    names: dict[bytes, bytes] = {}
    marks = Marks.read(tx)
    for table in (LATEST, HISTORY, CHANGES):
        for key, value in _rows(tx, table):
            row = InTable(tx, table, key)
            fact = _fact(key, value, row, level, place)
            if fact is not None:
                if fact.kept is row:
                    row.read()  # it will be looked up again
                facts.append(fact._replace(key=names.setdefault(fact.key, fact.key)))
    carried = [(key, value) for key, value in tx.scan(META) if key.startswith(META_CARRIED)]
    leases = [lease for row in tx.scan(LEASE) if (lease := _lease(row)) is not None]
    found.facts += facts
    end = None if alone else (marks.revision + 1, 0)
    found.covered.append(Covered((0, 0), end))
    found.compacted = max(found.compacted, marks.compacted)
    if marks.applied_index >= found.index:
        found.index, found.newest = marks.applied_index, marks.revision
        found.cluster_id, found.member_id, found.name = marks.cluster_id, marks.member_id, marks.name
        found.carried, found.leases = carried, leases


def _rows(tx: ReadTx, table: str) -> Iterator[Row]:
    """The rows of a table, some at a time. Raises ``Corruption`` where they are out of order."""
    start = b""
    while rows := tx.scan(table, start, limit=_PAGE_ROWS):
        for key, value in rows:
            if key < start:
                raise Corruption(f"rows of {table} are out of order")
            yield key, value
            start = key + b"\0"


def _pages(found: Evidence, backend: str, path: Path) -> None:
    """A damaged backend: every page by itself."""
    file, names = Pieces(path, found.sources), dict[bytes, bytes]()
    pairs = rows = 0
    for page, key, value, place in page_rows(backend, file):
        pairs += 1
        if key in _MARKS and len(value) == 8:
            number = int.from_bytes(value, "big")
            if number < REVISION_END:
                found.compacted = max(found.compacted, number)
        elif key.startswith(META_CARRIED):
            continue
        elif (fact := _fact(key, value, place, Level.ALONE, sys.intern(f"{path.name} {page}"))) is not None:
            rows += 1
            found.facts.append(fact._replace(key=names.setdefault(fact.key, fact.key)))
    found.figures[f"rows in pages of {path.name}"] = pairs
    found.figures[f"of them, versions and deletes in pages of {path.name}"] = rows
    if file.failed:
        found.unread.append(f"{path.name}: {file.failed} pieces that the disk does not give back")
    found.warnings.append(
        f"users, roles and leases are not taken from the damaged {path.name}: check them before the store is served"
    )


def _fact(key: bytes, row: bytes, place: Kept, level: Level, page: str) -> Fact | None:
    """A row of ``latest`` or ``history``, or a delete of ``changes``, by its shape."""
    if len(key) == REVISION_BYTES and row[:1] == DELETE and len(row) > 1:
        main, sub = parse_revision(key)
        return Fact((main, sub), row[1:], None, level, page) if 1 < main < REVISION_END else None
    try:
        sub, key_value = split_row(row)
        user_key, create, mod, version, content, lease = decode_row(key_value)
    except (KVStoreError, WireError):
        return None
    if not user_key or encode_key_value(user_key, create, mod, version, content, lease) != key_value:
        return None
    if key != user_key and key[:-REVISION_BYTES] != escape(user_key):
        return None
    if not (1 <= create <= mod < REVISION_END and 1 <= version <= mod - create + 1 and sub < 1 << 20):
        return None
    return Fact((mod, sub), user_key, shorter(row, place), level, page)


def _lease(row: Row) -> LeaseFound | None:
    """A lease; its deadline is a time of day of the old store, so the new one grants the whole time again."""
    try:
        parts = dict(fields(row[1]))
    except WireError:
        return None
    ttl = parts.get(2, 0)
    return LeaseFound(parse_lease_key(row[0]), ttl, ttl) if isinstance(ttl, int) and ttl else None


# --- the log ------------------------------------------------------------------------------


class _Log:
    """The effects in the sound frames of some segments, and which revisions they cover without a gap."""

    def __init__(self, found: Evidence) -> None:
        self.found = found
        self.next_index = 0
        """The entry that would continue the current run; 0: no run."""
        self.run_from: tuple[int, int] | None = None
        self.last = 0

    def read(self, segments: list[Path]) -> None:
        if not segments:
            return
        level, applied = Level.CHECKSUM, self.found.index
        frames = 0
        for path in segments:
            file = Pieces(path, self.found.sources)
            for each in scan_segment(path):
                if each.problem:
                    self._break(f"{path.name}: byte {each.offset}: {each.problem}")
                    level = Level.CONSISTENT if not each.kind else Level.CHECKSUM
                    continue
                if each.metadata is not None:
                    self._begin(each.metadata, path.name)
                if each.batch is not None:
                    frames += 1
                    self._batch(each, level, file)
                level = Level.CHECKSUM
        self.found.figures["sound frames of the log"] = frames
        if 0 < self.next_index <= applied:
            self._break(f"the log ends with entry {self.next_index - 1}, though the backend holds {applied}")
        if self.run_from is not None:
            self.found.covered.append(Covered(self.run_from, None))
        elif self.next_index > applied:
            self.found.covered.append(Covered((self.found.newest + 1, 0), None))
        self.found.index = max(self.found.index, self.next_index - 1)

    def _begin(self, segment: Metadata, place: str) -> None:
        """A segment begins: with no entry in it, it still says that none is missing before it."""
        found = self.found
        if not found.cluster_id:
            found.cluster_id, found.member_id = segment.cluster_id, segment.member_id
        self._continue(segment.first_index, place)
        if found.index and not self.next_index and segment.first_index <= found.index + 1:
            self.run_from, self.last = (found.newest + 1, 0), found.newest
            self.next_index = segment.first_index

    def _continue(self, index: int, place: str) -> None:
        if self.next_index and index != self.next_index:
            self._break(f"{place}: entries {self.next_index} to {index - 1} are missing")

    def _break(self, reason: str) -> None:
        """Something is missing here: the run of revisions ends."""
        self.found.unread.append(reason)
        if self.run_from is not None:
            self.found.covered.append(Covered(self.run_from, (self.last + 1, 0)))
        self.run_from, self.next_index = None, 0

    def _batch(self, frame: Found, level: Level, file: Pieces) -> None:
        batch, place = frame.batch, file.path.name
        if batch is None:
            return
        kept = _InFrame(file, frame).kept
        self._continue(batch.first_index, place)
        if self.run_from is None and self.found.index and batch.first_index <= self.found.index + 1:
            self.run_from = (self.found.newest + 1, 0)
        for number, entry in enumerate(batch.entries):
            for fact in _facts_of(
                entry, level, f"{place} entry {batch.first_index + number}", self.found, kept
            ):
                self.found.facts.append(fact)
                self.last = fact.revision[0]
                if self.run_from is None:
                    self.run_from = fact.revision if fact.revision[0] > 2 else (0, 0)
        self.next_index = batch.last_index + 1


class _InFrame:
    """Where the rows of a frame are in its segment: they are asked for in their order."""

    def __init__(self, file: Pieces, frame: Found) -> None:
        self._file, self._start = file, frame.offset
        self._bytes = file.read(frame.offset, frame.offset + frame.size_bytes)
        self._at = 0

    def kept(self, row: bytes) -> bytes | Kept:
        at = self._bytes.find(row, self._at)
        if at < 0:  # the segment has changed
            return row
        self._at = at + len(row)
        return shorter(row, InFile(self._file, self._start + at, self._start + self._at))


def _facts_of(
    entry: bytes, level: Level, place: str, found: Evidence, kept: Callable[[bytes], bytes | Kept]
) -> Iterator[Fact]:
    main = sub = 0
    try:
        for number, value in fields(entry):
            if number == effects.REVISION and isinstance(value, int):
                main = value
            elif number == effects.PUT and isinstance(value, bytes):
                yield Fact((main, sub), decode_row(value)[0], kept(value), level, place)
                sub += 1
            elif number == effects.DELETE and isinstance(value, bytes):
                yield Fact((main, sub), value, None, level, place)
                sub += 1
            elif number == effects.COMPACT and isinstance(value, int):
                found.compacted = max(found.compacted, value - 1)
            else:
                _beside(number, value, found)
    except (WireError, KVStoreError):
        found.unread.append(f"{place}: not an entry")


def _beside(number: int, value: int | bytes, found: Evidence) -> None:
    """Leases that the log grants and revokes."""
    if number == effects.GRANT and isinstance(value, bytes):
        parts = dict(fields(value))
        ident, ttl = parts.get(1), parts.get(2)
        if isinstance(ident, int) and isinstance(ttl, int):
            found.leases.append(LeaseFound(ident, ttl, ttl))
    elif number == effects.REVOKE and isinstance(value, int):
        found.leases = [lease for lease in found.leases if lease.id != value]
