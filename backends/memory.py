"""Memory: sorted dictionaries, gone at close. For tests and caches; the engine's log keeps the data.

There is one set of rows. A transaction sees it through a patch, which gives for some keys the value
(or None: absent) that this transaction sees instead:

    a batch   its patch holds what it wrote; the commit moves the patch into the rows
    a view    its patch holds what later commits replaced; each commit fills it in before it changes a row

So an open view costs memory in proportion to what is written while it is open; without writes it costs
nothing.

Readers take no lock, so an interrupted reader leaves none behind. They read the version before and after a
look: it is odd while a commit moves its rows, and different afterwards. A look that overlapped a commit
is repeated.

``copy_to`` writes the file that ``memory_file`` describes. ``open`` loads an existing file and never
changes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self, TypeVar
from weakref import WeakSet

from sortedcontainers import SortedDict, SortedList

from kvstore.backend import BackendDefaults, Progress, ReadTxDefaults, Row
from kvstore.errors import Corruption, EmptyKey, ReadOnly, StateError, StoreClosed

from .memory_file import MAGIC, encode_rows, load, save, table_start

Patch = dict[bytes, bytes | None]

COPY_CHUNK_ROWS = 256
COMMIT_WAIT_SECONDS = 0.0001

T = TypeVar("T")


class _ClosedRows(dict[str, Any]):
    """The tables of a closed backend."""

    def __getitem__(self, table: str) -> Any:
        raise StoreClosed

    def __iter__(self) -> NoReturn:
        raise StoreClosed


class MemoryReadTx(ReadTxDefaults):
    """A view of one commit."""

    __slots__ = ("__weakref__", "_backend", "patches")

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend
        self.patches: dict[str, Patch] | None = {table: {} for table in backend.rows}

    def _open_patch(self, table: str) -> Patch:
        if self.patches is None:
            raise StateError("the transaction is over")
        return self.patches[table]

    def get(self, table: str, key: bytes) -> bytes | None:
        def look() -> bytes | None:
            patch = self._open_patch(table)
            return patch[key] if key in patch else self._backend.rows[table].get(key)

        return self._backend.look(look)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        def look() -> list[Row]:
            patch = self._open_patch(table)
            patched = [key for key in patch if start <= key and (end is None or key < end)]
            rows = self._backend.rows[table]
            keys = rows.irange(start, end, inclusive=(True, False), reverse=reverse)
            # Enough keys that `limit` are left once the patched ones are taken out.
            taken = list(islice(keys, limit + len(patched) if limit else None))
            if not patched:
                return [(key, rows[key]) for key in taken]
            found = [(key, rows[key]) for key in taken if key not in patch]
            found += [(key, value) for key in patched if (value := patch[key]) is not None]
            return sorted(found, reverse=reverse)

        found = self._backend.look(look)
        return found[:limit] if limit else found

    def count(self, table: str, start: bytes = b"", end: bytes | None = None) -> int:
        def look() -> int:
            patch = self._open_patch(table)
            rows = self._backend.rows[table]
            total = (len(rows) if end is None else rows.bisect_left(end)) - rows.bisect_left(start)
            total = max(total, 0)
            for key, value in patch.items():
                if start <= key and (end is None or key < end):
                    total += (value is not None) - (key in rows)
            return int(total)

        return self._backend.look(look)

    def close(self) -> None:
        self._backend.end_view(self)
        self.patches = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryWriteTx(MemoryReadTx):
    """One batch: its patch is what it wrote."""

    __slots__ = ()

    def put_many(self, table: str, rows: Iterable[Row], *, append: bool = False) -> None:
        patch = self._open_patch(table)
        patch.update(rows)
        if b"" in patch:
            del patch[b""]
            raise EmptyKey

    def delete_many(self, table: str, keys: Iterable[bytes]) -> None:
        self._open_patch(table).update(dict.fromkeys(keys))

    def delete_ranges(self, table: str, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        deleted = 0
        patch, rows = self._open_patch(table), self._backend.rows[table]
        written = SortedList(key for key, value in patch.items() if value is not None)
        for start, end in ranges:
            gone = {key for key in rows.irange(start, end, inclusive=(True, False)) if key not in patch}
            gone.update(
                key for key in written.irange(start, end, inclusive=(True, False)) if patch[key] is not None
            )
            patch.update(dict.fromkeys(gone))
            deleted += len(gone)
        return deleted

    def delete_all(self, table: str) -> int:
        patch, rows = self._open_patch(table), self._backend.rows[table]
        deleted = len(rows.keys() - patch.keys()) + sum(value is not None for value in patch.values())
        patch.update(dict.fromkeys([*rows, *patch]))
        return deleted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.patches is not None:
            self._backend.commit(self.patches)
        self.close()

    def close(self) -> None:
        if self.patches is not None:
            self.patches = None
            self._backend.writing.release()


class MemoryBackend(BackendDefaults):
    """Sorted dictionaries."""

    name: ClassVar[str] = "memory"
    persistent: ClassVar[bool] = False

    def __init__(self, path: Path, rows: dict[str, Any], *, writable: bool) -> None:
        self.path = path
        self.rows = rows
        self.writing = threading.Lock()
        self._version = 0
        """Odd while a commit moves its rows."""
        self._writable = writable
        self._views: WeakSet[MemoryReadTx] = WeakSet()
        self._bytes = sum(len(key) + len(value) for table in rows.values() for key, value in table.items())

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        path = Path(path)
        writable = not (read_only or immutable)
        loaded = load(path) if not writable or path.exists() else {}
        if loaded and (missing := set(tables) - set(loaded)):
            raise Corruption(f"tables are missing: {', '.join(sorted(missing))}", path)
        rows = {table: SortedDict(loaded.get(table, ())) for table in tables}
        return cls(path, rows, writable=writable)

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(len(MAGIC)) == MAGIC
        except IsADirectoryError:
            return False

    def look(self, look: Callable[[], T]) -> T:
        """The result of ``look`` between two commits. It changes nothing, and may be called again."""
        while True:
            version = self._version
            if version & 1:
                time.sleep(COMMIT_WAIT_SECONDS)
                continue
            try:
                answer = look()
            except (LookupError, RuntimeError):  # the rows have changed under it
                if self._version == version:
                    raise
                continue
            if self._version == version:
                return answer

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self.look(lambda: self.rows[table].get(key))
        return value

    def first_value(self, table: str, key: bytes) -> bytes | None:
        def look() -> bytes | None:
            rows = self.rows[table]
            return next((rows[each] for each in rows.irange(key)), None)

        return self.look(look)

    def read(self) -> MemoryReadTx:
        return self.look(self._new_view)

    def _new_view(self) -> MemoryReadTx:
        view = MemoryReadTx(self)
        self._views.add(view)
        return view

    def write(self) -> MemoryWriteTx:
        if not self._writable:
            raise ReadOnly
        self.writing.acquire()
        return MemoryWriteTx(self)

    def end_view(self, view: MemoryReadTx) -> None:
        self._views.discard(view)

    def commit(self, patches: dict[str, Patch]) -> None:
        """Move a batch into the rows, and what it replaces into the patches of the open views."""
        self._version += 1
        try:
            for table, patch in patches.items():
                rows = self.rows[table]
                replaced: Patch = {key: rows.get(key) for key in patch}
                self._keep_for_views(table, replaced)
                self._bytes += _bytes_of(patch) - _bytes_of(replaced)
                rows.update({key: value for key, value in patch.items() if value is not None})
                for key, value in patch.items():
                    if value is None:
                        rows.pop(key, None)
                if rows:
                    rows.bisect_right(rows.peekitem()[0])  # builds the positional index now, not in a reader
        finally:
            self._version += 1

    def _keep_for_views(self, table: str, replaced: Patch) -> None:
        for view in list(self._views):
            if view.patches is not None:  # the view keeps what an earlier commit replaced
                view.patches[table] = replaced | view.patches[table]

    def sync(self) -> None:
        """Does nothing: nothing is kept."""

    def settle(self) -> list[Path]:
        return []

    def copy_to(self, path: Path) -> None:
        with self.read() as view:
            save(path, self._body(view))

    def _body(self, view: MemoryReadTx) -> Iterator[bytes]:
        for table in self.rows:
            yield table_start(table, view.count(table))
            start = b""
            while rows := view.scan(table, start, limit=COPY_CHUNK_ROWS):
                yield encode_rows(rows)
                start = rows[-1][0] + b"\0"

    def size_bytes(self) -> int:
        return self._bytes

    def in_use_bytes(self) -> int:
        return self._bytes

    def check(self, progress: Progress | None = None) -> None:
        """Check the order of the keys, which is all that could be wrong."""
        if progress:
            progress(0, self._bytes)
        with self.read() as view:
            for table in self.rows:
                keys = [key for key, _ in view.scan(table)]
                if any(left >= right for left, right in pairwise(keys)):
                    raise Corruption(f"the keys of {table} are out of order", self.path)
        if progress:
            progress(self._bytes, self._bytes)

    def close(self) -> None:
        """Drop the rows; a read that is under way ends with ``StoreClosed``, not with an empty answer."""
        self.rows = _ClosedRows()

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        """There are none."""
        return []


def _bytes_of(patch: Patch) -> int:
    return sum(len(key) + len(value) for key, value in patch.items() if value is not None)
