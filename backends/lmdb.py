"""LMDB: a memory-mapped B+tree with copy-on-write pages. The default backend.

One file, and beside it ``<file>-lock`` with the table of readers. Each table is two LMDB databases: one named
as the table, for keys up to 511 bytes, stored as they are, and one named ``<table>/long`` for
longer ones (see ``long_keys``). The unnamed database holds their names, and our mark:

    "kvstore" -> "1"       the format of this module; an LMDB file without it is not ours

Durability: every commit syncs its pages before it writes the meta page that makes them current, and leaves
that one to the next sync (``metasync=False``): a crash takes the last commits at most. NOSYNC is
never used, as it gives up the order of the two.

The map: LMDB maps a fixed span of addresses. We ask for 1 TiB, which costs nothing until used; where the
system refuses, for less. When a batch does not fit any more, the map is doubled and the batch played again.
py-lmdb ends open transactions when it maps anew, so that waits until no view is open; to be ahead of it,
a batch that finds the map half full and no view open enlarges it first.

fork: py-lmdb does not touch the parent's transactions from a child. An environment must not be used
across a fork; the engine refuses it.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NoReturn, Self

import lmdb

from kvstore.backend import Progress
from kvstore.errors import Corruption, NotAStore, ReadOnly, StoreClosed, TooNew
from kvstore.files import hand_over

from .lmdb_errors import typed
from .lmdb_file import META_BYTES, Meta, has_magic, is_cut_short, read_meta, verify_pages
from .lmdb_map import LMDBMap
from .lmdb_tx import LMDBReadTx, LMDBWriteTx
from .long_keys import STORED_BYTES_MAX

FORMAT = 1
MARK = b"kvstore"
LONG_SUFFIX = "/long"

READERS_MAX = 4096
GET_WAIT_SECONDS = 0.01
VIEW_WAIT_SECONDS = 5.0  # how long a new view makes way for a growing map
GROW_WAIT_SECONDS = 30.0  # how long a growing map waits for open views; then they fail


def _refuse(*_: object, **__: object) -> NoReturn:
    raise StoreClosed


class LMDBBackend:
    """An open LMDB file."""

    name: ClassVar[str] = "lmdb"
    persistent: ClassVar[bool] = True
    map_bytes: ClassVar[int] = 1 << 40
    """Addresses to map at first; tests take little, so that the map has to grow."""

    def __init__(self, path: Path, environment: lmdb.Environment, *, writable: bool) -> None:
        self.path = path
        self.environment = environment
        self.short: dict[str, lmdb._Database] = {}
        self.long: dict[str, lmdb._Database] = {}
        self.has_long: dict[str, bool] = {}
        """Whether the table may have long keys. Never false when it has; may stay true after they went."""
        self._writable = writable
        self._map_bytes: int = environment.info()["map_size"]
        self._page_bytes: int = environment.stat()["psize"]
        self._views: set[weakref.ref[LMDBReadTx]] = set()
        """Open views. Adding and discarding are atomic, and a view that is gone, however it went, is none."""
        self._growing = False
        self._begin = environment.begin
        self._immutable_meta: Meta | None = None
        self._map: LMDBMap | None = None

    # --- opening --------------------------------------------------------------------

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        path = Path(path)
        writable = not (read_only or immutable)
        meta = None
        if not writable or (path.exists() and path.stat().st_size):
            meta = read_meta(path)
            if is_cut_short(path, meta):
                verify_pages(path)
        try:
            backend = cls(path, cls._open_environment(path, meta, writable, immutable), writable=writable)
        except lmdb.Error as error:
            raise typed(error, path) from error
        try:
            backend._immutable_meta = meta if immutable else None
            is_new = meta is None or (writable and meta.is_empty)  # empty: killed before the first commit
            backend._open_tables(tables, is_new=is_new, is_live=read_only and not immutable)
        except BaseException as error:
            backend.close()
            if isinstance(error, lmdb.Error):
                raise typed(error, path) from error
            raise
        return backend

    @classmethod
    def _open_environment(
        cls, path: Path, meta: Meta | None, writable: bool, immutable: bool
    ) -> lmdb.Environment:
        used = (meta.last_page + 1) * meta.page_bytes if meta else 0
        map_bytes = used if immutable else max(cls.map_bytes, used)
        while True:
            try:
                environment = lmdb.open(
                    os.fsencode(path),
                    subdir=False,
                    map_size=map_bytes,
                    metasync=False,
                    mode=0o600,
                    readonly=not writable,
                    create=writable,
                    lock=not immutable,
                    max_dbs=64,
                    max_readers=READERS_MAX,
                    max_spare_txns=1,
                    lib_version=0,
                )
                break
            except lmdb.Error as error:
                if error.code != errno.ENOMEM or map_bytes // 2 <= used:
                    raise
                map_bytes //= 2
        for made in (path, lock_path(path)):  # LMDB makes them by itself, also for a reader
            if not immutable and made.exists():
                hand_over(made)
        return environment

    def _open_tables(self, tables: Sequence[str], *, is_new: bool, is_live: bool) -> None:
        if not is_new:
            with self._begin() as tx:
                self._check_mark(tx.get(MARK))
        if self._writable:
            with self._begin(write=True) as tx:  # writes nothing, and syncs nothing, if all are there
                if is_new:
                    tx.put(MARK, b"%d" % FORMAT)
                self._take_handles(tables, tx)
        else:
            try:
                self._take_handles(tables, None)
            except lmdb.NotFoundError as error:
                raise Corruption("a table is missing", self.path) from error
        with self._begin() as tx:
            for table in tables:  # where another process writes, long keys may come any time
                self.has_long[table] = is_live or tx.stat(self.long[table])["entries"] > 0

    def _take_handles(self, tables: Sequence[str], tx: lmdb.Transaction[bytes] | None) -> None:
        for table in tables:
            for handles, name in ((self.short, table), (self.long, table + LONG_SUFFIX)):
                handles[table] = self.environment.open_db(name.encode(), txn=tx, create=self._writable)

    def _check_mark(self, mark: bytes | None) -> None:
        if mark is None:
            raise NotAStore(f"{self.path} is an LMDB file of another application", self.path)
        if not mark.isdigit():
            raise Corruption("the format number is damaged", self.path)
        if int(mark) > FORMAT:
            raise TooNew(f"{self.path} has format {int(mark)}; this version reads {FORMAT}", self.path)

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        try:
            with open(path, "rb", buffering=0) as file:
                return has_magic(file.read(META_BYTES))
        except IsADirectoryError:
            return False

    # --- reading and writing --------------------------------------------------------

    def view(self, table: str, key: bytes) -> memoryview | None:
        """The value of ``key``, where it lies if nobody writes the file; else a copy of it."""
        if self._immutable_meta is None or sys.byteorder != "little" or len(key) > STORED_BYTES_MAX:
            value = self.get(table, key)
            return None if value is None else memoryview(value)
        if self._map is None:
            self._map = LMDBMap(self.path, self._immutable_meta)
        return self._map.find(table, key)

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            with self._begin(self.short[table]) as tx:
                value = tx.get(key)
            if value is not None or len(key) <= STORED_BYTES_MAX:
                return value
        except lmdb.Error:  # the map is growing, which a view waits for, or damage, which it reports
            pass
        with self.read() as view:
            return view.get(table, key)

    def read(self) -> LMDBReadTx:
        return LMDBReadTx(self)

    def write(self) -> LMDBWriteTx:
        if not self._writable:
            raise ReadOnly
        if not self._views and self._is_map_half_full():
            self.grow()  # now, when nobody has to wait for it
        return LMDBWriteTx(self)

    def begin_view(self, view: LMDBReadTx) -> lmdb.Transaction[bytes]:
        """The read transaction of that view, which calls ``end_view`` when it is closed."""
        known = weakref.ref(view, self._views.discard)
        self._views.add(known)
        try:
            if self._growing:
                self._views.discard(known)
                self._wait_while_growing()
                self._views.add(known)
            try:
                return self._begin()
            except lmdb.MapResizedError:
                self._views.discard(known)
                self._map_anew(0)  # another process made the file larger than our map
                self._views.add(known)
                return self._begin()
        except BaseException as error:
            self._views.discard(known)
            if isinstance(error, lmdb.Error):
                raise typed(error, self.path) from error
            raise

    def end_view(self, view: LMDBReadTx) -> None:
        self._views.discard(weakref.ref(view))

    # --- the map --------------------------------------------------------------------

    def _is_map_half_full(self) -> bool:
        return self.environment.info()["last_pgno"] * self._page_bytes > self._map_bytes // 2

    def grow(self) -> None:
        """Double the map. Only the writer calls this, without an open write transaction."""
        self._map_anew(self._map_bytes * 2)
        self._map_bytes *= 2

    def _map_anew(self, map_bytes: int) -> None:
        self._growing = True
        try:
            deadline = time.monotonic() + GROW_WAIT_SECONDS
            while self._views and time.monotonic() < deadline:
                time.sleep(0.001)
            self.environment.set_mapsize(map_bytes)
        except lmdb.Error as error:
            raise typed(error, self.path) from error
        finally:
            self._growing = False

    def _wait_while_growing(self) -> None:
        """Make way, but not for ever: this thread may hold the very view that is waited for."""
        deadline = time.monotonic() + VIEW_WAIT_SECONDS
        while self._growing and time.monotonic() < deadline:
            time.sleep(0.001)

    # --- the whole file -------------------------------------------------------------

    def sync(self) -> None:
        try:
            self.environment.sync(True)
        except lmdb.Error as error:
            raise typed(error, self.path) from error

    def settle(self) -> list[Path]:
        self.sync()
        return []  # the lock file goes after the rename: see ``stale_helpers``

    def copy_to(self, path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self.environment.copyfd(fd, compact=True)
        except lmdb.Error as error:
            reason = typed(error, path)
            os.unlink(path)
            raise reason from error
        finally:
            os.close(fd)

    def copy_into(self, fd: int) -> bool:
        try:
            self.environment.copyfd(fd, compact=True)
        except lmdb.Error as error:
            raise typed(error, self.path) from error
        return True

    def size_bytes(self) -> int:
        try:
            return os.stat(self.path).st_size
        except (FileNotFoundError, PermissionError):  # not where it was opened
            return (self.environment.info()["last_pgno"] + 1) * self._page_bytes

    def in_use_bytes(self) -> int:
        pages = 2  # the meta pages
        try:
            with self._begin() as tx:
                for database in (None, *self.short.values(), *self.long.values()):
                    stat = tx.stat(database) if database is not None else self.environment.stat()
                    pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        except lmdb.Error as error:
            raise typed(error, self.path) from error
        return pages * self._page_bytes

    def check(self, progress: Progress | None = None) -> None:
        total = self.size_bytes()
        if progress:
            progress(0, total)
        with self.read() as view:  # keeps the pages that are walked from being used again
            verify_pages(self.path)
            for table in self.long:  # long keys have a structure of their own; counting walks it
                view.count(table, b"\0")
        if progress:
            progress(total, total)

    @classmethod
    def check_closed(cls, path: Path) -> None:
        """Walk a file that nobody has open, with plain reads: mapping a damaged one could end the process."""
        read_meta(path)
        verify_pages(path)

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"LMDB": ".".join(map(str, lmdb.version())), "py-lmdb": lmdb.__version__}

    def close(self) -> None:
        """Refuse new reads, let those under way end, then unmap the file."""
        self._begin = _refuse
        self._map = None  # the views that were given out have it
        deadline = time.monotonic() + VIEW_WAIT_SECONDS
        while self._views and time.monotonic() < deadline:
            time.sleep(0.001)
        if threading.active_count() > 1:  # a `get` keeps no account of itself; it takes microseconds
            time.sleep(GET_WAIT_SECONDS)
        self.environment.close()

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        """Files beside the closed file ``path`` to remove before another file takes its name.

        The lock file carries the number of the last transaction: while another process keeps it alive,
        LMDB would believe it and take the wrong meta page of the new file.
        """
        return [lock_path(path)]


def lock_path(path: Path) -> Path:
    """The table of readers beside the file."""
    return path.with_name(path.name + "-lock")
