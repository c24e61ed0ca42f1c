"""An etcd file as a backend: the tables of ``kvstore.mvcc.schema``, read-only, made up as they are read.

    etcd's bucket ``key``, by revision                 the tables here
    2.0  put a (version 1)      latest    a -> row of 5.0               b -> row of 3.0
    3.0  put b                  history   (a, 5.0) -> row of 2.0
    5.0  put a (version 2)      changes   2.0 -> create a   3.0 -> create b   5.0 -> update a

A row's value is etcd's, byte for byte. So everything that reads a store of ours reads an etcd file: get, range, scan,
history, diff, HashKV, and the copying of rows into a real backend, which is how an import is done.

Opening costs a few pages. One key is searched for in the raw file (``EtcdFile``); the first scan, or the ninth search,
builds the index of all keys (``key_index``), which takes seconds for a million rows and 40 bytes a row.

Rows besides the keys become rows of ours: leases (with the time they have left from now on), alarms, and, verbatim
under ``meta``, what a store of ours has no use for but must not lose: members, users, roles, cluster version.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from kvstore.backend import BackendDefaults, Progress, ReadTxDefaults, Row, WriteTx
from kvstore.errors import Corruption, ReadOnly, StoreClosed
from kvstore.keyvalue import make_row, row_numbers
from kvstore.mvcc.kept import Kept, decode_kept
from kvstore.mvcc.schema import (
    ALARM,
    ATTACHMENT,
    CHANGES,
    CREATE,
    DELETE,
    HISTORY,
    LATEST,
    LEASE,
    META,
    REVISION_BYTES,
    REVISION_LIMIT,
    UPDATE,
    escape,
    history_key,
    lease_key,
    parse_revision,
    revision_key,
    split_history_key,
    unescape,
)
from kvstore.mvcc.schema import KEY_END as ESCAPED_END
from kvstore.wire import WireError

from .bbolt_read import is_bbolt
from .beside_keys import alarm_rows, lease_rows, meta_rows
from .etcd_file import EtcdFile
from .key_index import KeyIndex, Place, kept_places
from .rows import decode_revision

SEARCHES_BEFORE_INDEX = 8


class EtcdView(BackendDefaults):
    """A backend over an open etcd file. Closing it closes the file."""

    name: ClassVar[str] = "etcd"
    persistent: ClassVar[bool] = True

    def __init__(self, file: EtcdFile, now_ms: int, extra_meta: Iterable[Row] = ()) -> None:
        self.file = file
        self._now_ms = now_ms
        self._extra_meta = list(extra_meta)
        self._small: dict[str, list[Row]] = {}
        self._index: KeyIndex | None = None
        self._searches = 0
        self._last_key: tuple[bytes, list[Place]] = (b"", [])
        self._last_history: tuple[bytes, list[tuple[bytes, Place]]] = (b"", [])
        self._lock = threading.RLock()
        self._closed = False

    # --- the interface of a backend ------------------------------------------------------

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        import time

        if not (read_only or immutable):
            raise ReadOnly
        return cls(EtcdFile(path), time.time_ns() // 1_000_000)

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        return is_bbolt(path)

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        return []

    def get(self, table: str, key: bytes) -> bytes | None:
        self._check_open()
        if table != LATEST:
            rows = self.scan(table, key, key + b"\0", limit=1)
            return rows[0][1] if rows else None
        places = self._places(key)
        return self.row(places[-1]) if places and not places[-1].is_tombstone else None

    def first_value(self, table: str, key: bytes) -> bytes | None:
        """Of ``history`` only among the rows of the same key: those of the next one would need the index."""
        if table != HISTORY:
            return super().first_value(table, key)
        self._check_open()
        rows = self._history_of(split_history_key(key)[0])
        at = bisect_left(rows, key, key=_ended)
        return self.row(rows[at][1]) if at < len(rows) else None

    def read(self) -> ViewTx:
        self._check_open()
        return ViewTx(self)

    def write(self) -> WriteTx:
        raise ReadOnly

    def sync(self) -> None: ...

    def settle(self) -> list[Path]:
        return []

    def copy_to(self, path: Path) -> None:
        raise ReadOnly

    def size_bytes(self) -> int:
        return self.file.file.file_bytes

    def in_use_bytes(self) -> int:
        return self.file.file.meta.size_bytes

    def check(self, progress: Progress | None = None) -> None:
        from .bbolt_check import check

        for damage in check(self.file.file):
            raise damage
        self.index(progress)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self.file.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed

    # --- keys and their rows ---------------------------------------------------------------

    def index(self, progress: Progress | None = None) -> KeyIndex:
        with self._lock:
            if self._index is None:
                total = self.in_use_bytes()
                report = None if progress is None else (lambda done: progress(min(done, total), total))
                self._index = KeyIndex(self.file, report)
            return self._index

    def _places(self, key: bytes) -> list[Place]:
        """The kept rows of one key, found in the raw file as long as there is no index."""
        with self._lock:
            known, places = self._last_key
            if known == key:
                return places
            if self._index is None and self._searches < SEARCHES_BEFORE_INDEX:
                self._searches += 1
                spans = self.file.spans_of(key, self.file.revision) if key else ()
                places = kept_places(self.file, key, spans)
            else:
                places = self.index().places_of(key)
            self._last_key = key, places
            return places

    def row(self, place: Place) -> bytes:
        """A row of ours: etcd's ``KeyValue``, with a prefix if it is a later change of its transaction."""
        value = self.file.data[place.start : place.end]
        self.file.file.release_passed(len(value))
        self._numbers(value, place)
        return make_row(value, place.sub)

    def _numbers(self, value: bytes, place: Place) -> tuple[int, int, int, int]:
        try:
            numbers = row_numbers(value)
        except WireError as error:
            raise Corruption(f"revision {place.main}: {error}", self.file.path, place.start) from None
        if numbers[1] != place.main or value[:1] != b"\n":
            reason = f"revision {place.main} holds a KeyValue of revision {numbers[1]}"
            raise Corruption(reason, self.file.path, place.start)
        return numbers

    def kept_rows(self) -> Iterator[Kept]:
        """Every row in revision order, straight from the file: no index is built or needed."""
        self._check_open()
        for span in self.file.spans_up_to(self.file.revision):
            main, sub, is_tombstone = decode_revision(span.key)
            key = self.file.user_key(span)
            if not key:
                continue
            if is_tombstone:
                yield Kept(main, sub, key)
                continue
            stored = self.file.data[span.value_start : span.value_end]
            self.file.file.release_passed(len(stored))
            self._numbers(stored, Place(main, sub, False, span.value_start, span.value_end))
            yield decode_kept(make_row(stored, sub))

    # --- tables --------------------------------------------------------------------------------

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        self._check_open()
        walk = self._walks.get(table, EtcdView._walk_small)
        rows = walk(self, table, start, end, reverse)
        return list(islice(rows, limit)) if limit else list(rows)

    def _walk_latest(self, _table: str, start: bytes, end: bytes | None, reverse: bool) -> Iterator[Row]:
        if end == start + b"\0":
            row = self.get(LATEST, start)
            yield from [] if row is None else [(start, row)]
            return
        index = self.index()
        for key in _between(index.keys, start, end, reverse):
            if index.is_live(key):
                yield key, self.row(index.place(index.newest[key]))

    def _walk_history(self, _table: str, start: bytes, end: bytes | None, reverse: bool) -> Iterator[Row]:
        own = _only_key(start, end)
        keys: Iterable[bytes] = [own] if own is not None else self._keys_of_history(start, end, reverse)
        for key in keys:
            rows = self._history_of(key)
            low = bisect_left(rows, start, key=_ended)
            high = len(rows) if end is None else bisect_left(rows, end, key=_ended)
            for at in range(high - 1, low - 1, -1) if reverse else range(low, high):
                yield rows[at][0], self.row(rows[at][1])

    def _keys_of_history(self, start: bytes, end: bytes | None, reverse: bool) -> Iterator[bytes]:
        keys = self.index().past_keys
        low = bisect_left(keys, start, key=lambda key: escape(key) + REVISION_LIMIT)
        high = len(keys) if end is None else bisect_left(keys, end, key=escape)
        return map(keys.__getitem__, range(high - 1, low - 1, -1) if reverse else range(low, high))

    def _history_of(self, key: bytes) -> list[tuple[bytes, Place]]:
        """(key in ``history``, place) of each superseded or deleted version."""
        with self._lock:
            known, rows = self._last_history
            if known != key:
                places = self._places(key)
                rows = [
                    (history_key(key, ended.main, ended.sub), place)
                    for place, ended in pairwise(places)
                    if not place.is_tombstone
                ]
                self._last_history = key, rows
            return rows

    def _walk_changes(self, _table: str, start: bytes, end: bytes | None, reverse: bool) -> Iterator[Row]:
        index = self.index()
        low = max(index.row_at(*_revision(start)), index.first_change())
        high = len(index) if end is None else max(index.row_at(*_revision(end)), low)
        for row in range(high - 1, low - 1, -1) if reverse else range(low, high):
            place = index.place(row)
            if place.start:
                yield self._change(place)

    def _change(self, place: Place) -> Row:
        value = self.file.data[place.start : place.end]
        if place.is_tombstone:
            kind, key = DELETE, self.file.user_key_at(place.start, place.end)
        else:
            kind = UPDATE if self._numbers(value, place)[2] > 1 else CREATE
            key = self.file.user_key_at(place.start, place.end)
        self.file.file.release_passed(len(value))
        return revision_key(place.main, place.sub), kind + key

    def _walk_small(self, table: str, start: bytes, end: bytes | None, reverse: bool) -> Iterator[Row]:
        rows = self._small_table(table)
        low = bisect_left(rows, (start, b""))
        high = len(rows) if end is None else bisect_left(rows, (end, b""))
        chosen = rows[low:high]
        return iter(chosen[::-1] if reverse else chosen)

    def _small_table(self, table: str) -> list[Row]:
        with self._lock:
            if table not in self._small:
                self._small[table] = sorted(self._make_small(table))
            return self._small[table]

    def _make_small(self, table: str) -> list[Row]:
        if table == LEASE:
            return lease_rows(self.file, self._now_ms)
        if table == ALARM:
            return alarm_rows(self.file)
        if table == META:
            return [*meta_rows(self.file), *self._extra_meta]
        if table == ATTACHMENT:
            return self._attachments()
        return []

    def _attachments(self) -> list[Row]:
        """The live keys of each existing lease. One walk, which remembers those keys only."""
        known = {lease.id for lease in self.file.bare_leases()}
        attached: dict[bytes, int] = {}
        for row in self.kept_rows() if known else ():
            if row.version and row.lease in known:
                attached[row.key] = row.lease
            else:
                attached.pop(row.key, None)
        return [(lease_key(lease) + key, b"") for key, lease in attached.items()]

    _Walk = Callable[["EtcdView", str, bytes, bytes | None, bool], Iterator[Row]]
    _walks: ClassVar[dict[str, _Walk]] = {
        LATEST: _walk_latest,
        HISTORY: _walk_history,
        CHANGES: _walk_changes,
    }

    def count(self, table: str, start: bytes, end: bytes | None) -> int:
        if table == LATEST:
            index = self.index()
            return sum(1 for key in _between(index.keys, start, end, False) if index.is_live(key))
        if table == CHANGES and not start and end is None:
            return self.index().count_changes()
        return len(self.scan(table, start, end))


class ViewTx(ReadTxDefaults):
    """A read transaction: the file does not change, so it is the view itself."""

    def __init__(self, view: EtcdView) -> None:
        self._view = view

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._view.get(table, key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._view.get(table, key) for key in keys]

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        return self._view.scan(table, start, end, limit=limit, reverse=reverse)

    def count(self, table: str, start: bytes = b"", end: bytes | None = None) -> int:
        return self._view.count(table, start, end)

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _between(keys: list[bytes], start: bytes, end: bytes | None, reverse: bool) -> Iterator[bytes]:
    low = bisect_left(keys, start)
    high = len(keys) if end is None else bisect_left(keys, end)
    return map(keys.__getitem__, range(high - 1, low - 1, -1) if reverse else range(low, high))


def _ended(row: tuple[bytes, Place]) -> bytes:
    return row[0]


def _only_key(start: bytes, end: bytes | None) -> bytes | None:
    """The user key whose rows of ``history`` the range covers, if the range is of one key only."""
    at = start.find(ESCAPED_END)
    if at < 0 or end is None or not end.startswith(start[: at + len(ESCAPED_END)]):
        return None
    return unescape(start[: at + len(ESCAPED_END)])


def _revision(key: bytes) -> tuple[int, int]:
    """The first revision whose key is not below ``key``."""
    if len(key) > REVISION_BYTES:
        main, sub = parse_revision(key[:REVISION_BYTES])
        return main, sub + 1
    main, sub = parse_revision(key.ljust(REVISION_BYTES, b"\0"))
    return main, sub
