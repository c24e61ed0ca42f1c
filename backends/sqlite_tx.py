"""Transactions on an SQLite file: views of one commit, and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import apsw

from kvstore.backend import Row
from kvstore.errors import Busy, Corruption, StateError, StoreLocked

from .sqlite_file import quoted, typed

if TYPE_CHECKING:
    from .sqlite import SQLiteBackend

NO_LIMIT = -1


class Statements:
    """The SQL of one table."""

    __slots__ = (
        "count",
        "count_below",
        "delete",
        "delete_all",
        "delete_range",
        "first_value",
        "first_values",
        "get",
        "get_many",
        "put",
        "scan",
    )

    def __init__(self, table: str) -> None:
        name = quoted(table)
        rows = f"SELECT k, v FROM {name} WHERE k >= ?1"
        self.get = f"SELECT v FROM {name} WHERE k = ?"
        self.get_many = f"SELECT (SELECT v FROM {name} WHERE k = value) FROM carray(?)"
        self.first_value = f"SELECT v FROM {name} WHERE k >= ? ORDER BY k LIMIT 1"
        self.first_values = (
            f"SELECT (SELECT v FROM {name} WHERE k >= value ORDER BY k LIMIT 1) FROM carray(?)"
        )
        self.put = f"REPLACE INTO {name} VALUES (?, ?)"
        self.delete = f"DELETE FROM {name} WHERE k = ?"
        self.delete_all = f"DELETE FROM {name}"  # without a condition: whole pages, unread
        self.delete_range = f"DELETE FROM {name} WHERE k >= ? AND k < ?"
        self.count = f"SELECT count(*) FROM {name} WHERE k >= ?1"
        self.count_below = f"{self.count} AND k < ?2"
        self.scan = {  # by (has an end, reverse)
            (False, False): f"{rows} ORDER BY k LIMIT ?2",
            (False, True): f"{rows} ORDER BY k DESC LIMIT ?2",
            (True, False): f"{rows} AND k < ?2 ORDER BY k LIMIT ?3",
            (True, True): f"{rows} AND k < ?2 ORDER BY k DESC LIMIT ?3",
        }


class SQLiteReadTx:
    """A view of one commit, on a connection that is its own until it is closed."""

    __slots__ = ("_backend", "_cursor", "_statements")

    def __init__(self, backend: SQLiteBackend, cursor: apsw.Cursor) -> None:
        self._backend = backend
        self._statements = backend.statements
        self._cursor: apsw.Cursor | None = cursor
        try:
            self._begin()
        except BaseException:
            self._give_up()
            raise

    def _begin(self) -> None:
        self._run("BEGIN")
        self._run("SELECT 1 FROM sqlite_schema LIMIT 1")  # BEGIN alone does not pin the newest commit

    def get(self, table: str, key: bytes) -> bytes | None:
        rows = self._run(self._statements[table].get, (key,))
        return self._bytes(rows[0][0]) if rows else None

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._run_once(self._statements[table].get_many, keys)

    def first_values(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of the first row at or after each key."""
        return self._run_once(self._statements[table].first_values, keys)

    def _run_once(self, sql: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """One value for each key, with one statement for all of them."""
        if not keys:
            return []
        values = [value for (value,) in self._run(sql, (apsw.carray(tuple(keys)),))]
        if not all(value is None or value.__class__ is bytes for value in values):
            raise Corruption("a value is not bytes", self._backend.path)
        return values

    def _bytes(self, value: Any) -> bytes | None:
        if value is None or value.__class__ is bytes:
            return value
        raise Corruption("a value is not bytes", self._backend.path)

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        sql = self._statements[table].scan[end is not None, reverse]
        wanted = limit or NO_LIMIT
        rows = self._run(sql, (start, wanted) if end is None else (start, end, wanted))
        for key, value in rows:  # a damaged page may hold numbers, or nothing
            if key.__class__ is not bytes or value.__class__ is not bytes:
                raise Corruption(f"a row of {table!r} does not hold bytes", self._backend.path)
        return rows

    def count(self, table: str, start: bytes = b"", end: bytes | None = None) -> int:
        statements = self._statements[table]
        if end is None:
            rows = self._run(statements.count, (start,))
        else:
            rows = self._run(statements.count_below, (start, end))
        total: int = rows[0][0]
        return total

    def page_bytes(self) -> int:
        return int(self._run("PRAGMA page_size")[0][0])

    def pages(self) -> int:
        return int(self._run("PRAGMA page_count")[0][0])

    def pages_in_use(self) -> int:
        return self.pages() - int(self._run("PRAGMA freelist_count")[0][0])

    def check_integrity(self) -> None:
        problem = self._run("PRAGMA integrity_check(1)")[0][0]
        if problem != "ok":
            raise Corruption(problem, self._backend.path)

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows at once: a statement left half way would keep its commit pinned."""
        try:
            return self._open_cursor().execute(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise typed(error, self._backend.path) from error

    def _open_cursor(self) -> apsw.Cursor:
        if self._cursor is None:
            raise StateError("the transaction is over")
        return self._cursor

    def close(self) -> None:
        cursor, self._cursor = self._cursor, None
        if cursor is None:
            return
        try:
            if cursor.connection.in_transaction:
                cursor.execute("ROLLBACK")
        except (apsw.ConnectionClosedError, apsw.CursorClosedError):
            return  # the backend was closed before this view, and the connection with it
        self._give_back(cursor)

    def _give_back(self, cursor: apsw.Cursor) -> None:
        self._backend.give_back(cursor)

    def _give_up(self) -> None:
        """Clean up after it could not begin, or only in part."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            self._backend.drop(cursor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class SQLiteWriteTx(SQLiteReadTx):
    """One batch, on the writer's connection."""

    __slots__ = ()

    def _begin(self) -> None:
        if self._open_cursor().connection.in_transaction:
            self._run("ROLLBACK")  # of a batch that could not even end, for lack of memory
        try:
            self._run("BEGIN IMMEDIATE")
        except StoreLocked as locked:
            raise Busy(f"another process holds the lock of {self._backend.path}") from locked

    def _give_up(self) -> None:
        self.close()

    def put_many(self, table: str, rows: Iterable[Row], *, append: bool = False) -> None:
        self._run_many(self._statements[table].put, rows)

    def delete_many(self, table: str, keys: Iterable[bytes]) -> None:
        self._run_many(self._statements[table].delete, ((key,) for key in keys))

    def delete_ranges(self, table: str, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        before = self._total_changes()
        self._run_many(self._statements[table].delete_range, ranges)
        return self._total_changes() - before

    def delete_all(self, table: str) -> int:
        before = self._total_changes()
        self._run(self._statements[table].delete_all)
        return self._total_changes() - before

    def _total_changes(self) -> int:
        return self._open_cursor().connection.total_changes()

    def _run_many(self, sql: str, values: Iterable[tuple[bytes, ...]]) -> None:
        try:
            self._open_cursor().executemany(sql, values)
        except apsw.Error as error:
            raise typed(error, self._backend.path) from error

    def _give_back(self, cursor: apsw.Cursor) -> None:
        cursor.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._run("COMMIT")
        finally:
            self.close()
