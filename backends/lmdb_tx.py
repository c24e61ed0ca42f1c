"""Transactions on an LMDB file: views of one commit, and batches.

Short and long keys of a table are in two databases, so a scan takes rows from each and merges them. While a
table has no long keys (the usual case) only the first is read, by one C call per chunk of rows.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import itemgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import lmdb

from kvstore.backend import Row
from kvstore.errors import Corruption, EmptyKey, StateError

from .lmdb_errors import typed
from .long_keys import STORED_BYTES_MAX, DamagedRow, LongKeys

if TYPE_CHECKING:
    from .lmdb import LMDBBackend

CHUNK_ROWS = 64  # a scan reads fewer rows than this past its end
COUNTED_ROWS = 1024  # the same for a count, which reads keys alone

_Error = (lmdb.Error, DamagedRow)
_key_of = itemgetter(0)


class _Over:
    """Stands in for a transaction that is over."""

    def __getattr__(self, name: str) -> NoReturn:
        raise StateError("the transaction is over")


_OVER: Any = _Over()


class LMDBReadTx:
    """A view of one commit."""

    __slots__ = ("__weakref__", "_backend", "_tx")

    def __init__(self, backend: LMDBBackend) -> None:
        self._backend = backend
        self._tx: lmdb.Transaction[bytes] = _OVER
        self._tx = self._begin()

    def _begin(self) -> lmdb.Transaction[bytes]:
        return self._backend.begin_view(self)

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            if len(key) <= STORED_BYTES_MAX:
                return self._tx.get(key, None, self._backend.short[table])
            return self._long(table).get(key)
        except lmdb.BadValsizeError:
            return None  # the empty key, which never exists
        except _Error as error:
            raise self._typed(error) from error

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        if not _are_stored_as_they_are(keys):
            return [self.get(table, key) for key in keys]
        get, database = self._tx.get, self._backend.short[table]
        try:
            return [get(key, None, database) for key in keys]
        except lmdb.Error as error:
            raise self._typed(error) from error

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        try:
            with self._tx.cursor(self._backend.short[table]) as cursor:
                rows = _scan(cursor, start, end, limit, reverse)
            if self._backend.has_long[table]:
                walk = self._long(table).walk(start, end, reverse)
                if long_rows := list(islice(walk, limit or None)):
                    rows = sorted(rows + long_rows, key=_key_of, reverse=reverse)
                    return rows[:limit] if limit else rows
            return rows
        except _Error as error:
            raise self._typed(error) from error

    def first_values(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of the first row at or after each key: one cursor for all of them."""
        if self._backend.has_long[table] or not _are_stored_as_they_are(keys):
            scans = (self.scan(table, key, limit=1) for key in keys)
            return [rows[0][1] if rows else None for rows in scans]
        try:
            cursor = self._tx.cursor(self._backend.short[table])
            seek, value = cursor.set_range, cursor.value
            return [value() if seek(key) else None for key in keys]
        except lmdb.Error as error:
            raise self._typed(error) from error

    def count(self, table: str, start: bytes = b"", end: bytes | None = None) -> int:
        database = self._backend.short[table]
        try:
            if not start and end is None:
                rows: int = self._tx.stat(database)["entries"]
            else:
                with self._tx.cursor(database) as cursor:
                    rows = _count(cursor, start, end)
            if self._backend.has_long[table]:
                rows += sum(1 for _ in self._long(table).walk(start, end))
            return rows
        except _Error as error:
            raise self._typed(error) from error

    def stored(self, key: bytes) -> bytes | None:
        """The value of ``key`` in the unnamed database."""
        return self._tx.get(key)

    def entries(self, database: lmdb._Database) -> int:
        entries: int = self._tx.stat(database)["entries"]
        return entries

    def pages(self, *databases: lmdb._Database | None) -> int:
        """How many pages the databases take (None: the unnamed one)."""
        total = 0
        try:
            for database in databases:
                stat = self._tx.stat(database) if database is not None else self._backend.environment.stat()
                total += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        except lmdb.Error as error:
            raise self._typed(error) from error
        return total

    def copy_into(self, fd: int) -> None:
        """Write a compact copy of this commit."""
        self._backend.environment.copyfd(fd, compact=True, txn=self._tx)

    def _long(self, table: str) -> LongKeys:
        return LongKeys(self._tx, self._backend.long[table])

    def _typed(self, error: lmdb.Error | DamagedRow) -> Exception:
        path = self._backend.path
        return Corruption(str(error), path) if isinstance(error, DamagedRow) else typed(error, path)

    def close(self) -> None:
        self._tx.abort()
        self._backend.end_view(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LMDBWriteTx(LMDBReadTx):
    """One batch. It keeps everything it wrote until the commit, to replay it in a larger map."""

    __slots__ = ("_played",)

    def __init__(self, backend: LMDBBackend) -> None:
        super().__init__(backend)
        self._played: list[Callable[[], Any]] = []

    def _begin(self) -> lmdb.Transaction[bytes]:
        try:
            return self._backend.begin_batch()
        except lmdb.Error as error:
            raise typed(error, self._backend.path) from error

    def put_many(self, table: str, rows: Iterable[Row], *, append: bool = False) -> None:
        kept = rows if isinstance(rows, list) else list(rows)
        self._play(lambda: self._put(table, kept, append))

    def delete_many(self, table: str, keys: Iterable[bytes]) -> None:
        kept = keys if isinstance(keys, list) else list(keys)
        self._play(lambda: self._delete(table, kept))

    def delete_ranges(self, table: str, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        kept = ranges if isinstance(ranges, list) else list(ranges)
        deleted: list[int] = []  # one count for each time it was replayed
        self._play(lambda: deleted.append(self._delete_ranges(table, kept)))
        return deleted[-1]

    def delete_all(self, table: str) -> int:
        rows = self.count(table)
        self._play(lambda: self._empty(table))
        return rows

    def _put(self, table: str, rows: list[Row], append: bool) -> None:
        with self._tx.cursor(self._backend.short[table]) as cursor:
            try:
                consumed, added = cursor.putmulti(rows, append=append)
                if added < consumed:  # not in ascending order after all
                    cursor.putmulti(rows)
                return
            except lmdb.BadValsizeError:
                cursor.putmulti([row for row in rows if 0 < len(row[0]) <= STORED_BYTES_MAX])
        self._put_long(table, [row for row in rows if not 0 < len(row[0]) <= STORED_BYTES_MAX])

    def _put_long(self, table: str, rows: list[Row]) -> None:
        self._backend.has_long[table] = True
        long = self._long(table)
        for key, value in rows:
            if not key:
                raise EmptyKey
            long.put(key, value)

    def _delete(self, table: str, keys: list[bytes]) -> None:
        delete, database, long = self._tx.delete, self._backend.short[table], self._long(table)
        for key in keys:
            if len(key) > STORED_BYTES_MAX:
                long.delete(key)
            elif key:
                delete(key, b"", database)

    def _delete_ranges(self, table: str, ranges: list[tuple[bytes, bytes]]) -> int:
        deleted = 0
        with self._tx.cursor(self._backend.short[table]) as cursor:
            for start, end in ranges:
                deleted += _delete_range(cursor, start, end)
        if self._backend.has_long[table]:
            long = self._long(table)
            for start, end in ranges:
                for key in [key for key, _ in long.walk(start, end)]:
                    long.delete(key)
                    deleted += 1
        return deleted

    def _empty(self, table: str) -> None:
        for database in (self._backend.short[table], self._backend.long[table]):
            self._tx.drop(database, delete=False)

    def _play(self, operation: Callable[[], Any]) -> None:
        self._played.append(operation)
        if not self._fits(operation):
            self._replay()

    def _fits(self, operation: Callable[[], Any]) -> bool:
        """Do it. False if the map is full, in which case the transaction is lost."""
        try:
            operation()
            return True
        except lmdb.MapFullError:
            return False
        except _Error as error:
            raise self._typed(error) from error
        except SystemError as error:  # py-lmdb, for a damaged page: "returned a result with an exception set"
            raise Corruption(str(error.__cause__ or error), self._backend.path) from error

    def _replay(self) -> None:
        """Start over in a larger map, until everything fits."""
        while True:
            self._drop()
            self._backend.grow()
            self._tx = self._begin()
            if all(self._fits(operation) for operation in self._played):
                return

    def _commit(self) -> None:
        try:
            while not self._fits(self._tx.commit):
                self._replay()
        finally:  # even if it failed: it may be in the file
            self._backend.drop_spares()

    def _drop(self) -> None:
        """End the transaction without a commit.

        ``abort`` waits for an instant without any read or copy in the whole process, which may not come for a
        long time. Dropping the last reference ends it at once, so that is tried first.
        """
        tx, self._tx = self._tx, _OVER
        if tx is not _OVER and sys.getrefcount(tx) > 2:  # this name, and the argument
            tx.abort()

    def close(self) -> None:
        self._drop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        finally:
            self._played.clear()  # it refers to this batch, and would keep it and its rows alive
            self.close()


def _are_stored_as_they_are(keys: Sequence[bytes]) -> bool:
    return all(keys) and max(map(len, keys), default=0) <= STORED_BYTES_MAX


def _delete_range(cursor: lmdb.Cursor[bytes], start: bytes, end: bytes) -> int:
    """Delete rows up to ``end``. Deleting moves the cursor to the next row; after the last one its key is empty."""
    key, delete, deleted = cursor.key, cursor.delete, 0
    if _seek(cursor, start):
        while b"" < key() < end:
            delete()
            deleted += 1
    return deleted


def _scan(
    cursor: lmdb.Cursor[bytes], start: bytes, end: bytes | None, limit: int, reverse: bool
) -> list[Row]:
    if reverse:
        bound: bytes | None = start or None
        found = cursor.last() if end is None or not _seek(cursor, end) else cursor.prev()
        rows = cursor.iterprev()
    else:
        bound = end
        found = _seek(cursor, start)
        rows = cursor.iternext()
    if not found:
        return []
    if bound is None:
        return list(islice(rows, limit or None))
    out: list[Row] = []
    while True:
        wanted = min(CHUNK_ROWS, limit - len(out)) if limit else CHUNK_ROWS
        chunk = list(islice(rows, wanted))
        if chunk and _is_beyond(chunk[-1][0], bound, reverse):
            return out + chunk[: _rows_within(chunk, bound, reverse)]
        out += chunk
        if len(chunk) < wanted or len(out) == limit:
            return out


def _count(cursor: lmdb.Cursor[bytes], start: bytes, end: bytes | None) -> int:
    total = 0
    keys = cursor.iternext(keys=True, values=False) if _seek(cursor, start) else iter(())
    while chunk := list(islice(keys, COUNTED_ROWS)):
        if end is not None and chunk[-1] >= end:
            return total + bisect_left(chunk, end)
        total += len(chunk)
    return total


def _seek(cursor: lmdb.Cursor[bytes], key: bytes) -> bool:
    """Go to the first key that is not below ``key``, which may be longer than any stored one."""
    if not key:
        return cursor.first()
    found = cursor.set_range(key[:STORED_BYTES_MAX])
    if found and len(key) > STORED_BYTES_MAX and cursor.key() == key[:STORED_BYTES_MAX]:
        return cursor.next()
    return found


def _is_beyond(key: bytes, bound: bytes, reverse: bool) -> bool:
    return key < bound if reverse else key >= bound


def _rows_within(rows: list[Row], bound: bytes, reverse: bool) -> int:
    """How many rows come before the bound; in reverse, how many are not below it."""
    if reverse:
        return len(rows) - bisect_left(rows[::-1], bound, key=_key_of)
    return bisect_left(rows, bound, key=_key_of)
