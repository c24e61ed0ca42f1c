"""LMDB: a memory-mapped B+tree with copy-on-write pages. The default backend.

One file, and beside it ``<file>-lock`` with the table of readers. Each table is two LMDB databases: one named
like the table, for keys up to 511 bytes, stored as they are, and one named ``<table>/long`` for
longer ones (see ``long_keys``). The unnamed database holds their names, and our mark:

    "kvstore" -> "1"       the format of this module; an LMDB file without it is not ours

Durability: every commit syncs its pages before it writes the meta page that makes them current, and leaves
that page to the next sync (``metasync=False``): a crash loses the last commits at most. NOSYNC is
never used, as it gives up the order of the two.

The map: LMDB maps a fixed span of addresses. We ask for 1 TiB, which costs nothing until used, or for less if
the system refuses. When a batch no longer fits, the map is doubled and the batch is run again. py-lmdb ends open
transactions when it maps again, so that waits until no view is open; to avoid the wait, a batch that finds the
map half full and no view open enlarges it first.

Readers in other processes do not use LMDB's table of readers: it is not available on a read-only mount, two
processes with the same pid (in two pid namespaces) conflict there, and the slots of dead processes stay. They open
the file without it, and each of their views locks a byte of the directory (``kvstore.readers``). Before each batch
the writer looks for such locks, and while there are any it keeps a view of its own open, as old as theirs
(``lmdb_pins``).

A ``get`` begins no transaction of its own if one of the same commit is to be had: it takes a spare one, and puts it
back. The spares belong to one commit. Whatever makes another, or maps the file anew, replaces their list, and a ``get``
under way puts its transaction into the list that it took it from, which nobody reads any more. So a spare is of the
newest commit, and keeps no page that the writer would not keep anyhow.

fork: py-lmdb does not touch the parent's transactions from a child. An environment must not be used across a fork; the
engine refuses that. A child may open the file anew (``lmdb_fork``).
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import ClassVar, NoReturn, Self

import lmdb

from kvstore.backend import Progress
from kvstore.errors import Busy, Corruption, NotAStore, ReadOnly, StoreClosed, TooNew
from kvstore.files import hand_over
from kvstore.readers import HANDLE, ByteLock, ForeignReader, Readers, held, own_pid, view_byte

from .lmdb_errors import typed
from .lmdb_file import META_BYTES, Meta, has_magic, is_cut_short, read_meta, verify_pages
from .lmdb_fork import note_opened
from .lmdb_map import LMDBMap
from .lmdb_pins import Pins, leave_file_to_readers
from .lmdb_tx import LMDBReadTx, LMDBWriteTx
from .long_keys import STORED_BYTES_MAX

FORMAT = 1
MARK = b"kvstore"
LONG_SUFFIX = "/long"

READERS_MAX = 4096
RECLAIM_SECONDS = (
    5.0  # how often to free slots that dead processes (other programs' tools) left in LMDB's table
)
CALL_WAIT_SECONDS = 0.1  # how long closing waits for calls under way that keep no account of themselves
VIEW_WAIT_SECONDS = 5.0  # how long a new view makes way for a growing map
GROW_WAIT_SECONDS = 30.0  # how long a growing map waits for open views; then they fail


def _refuse(*_: object, **__: object) -> NoReturn:
    raise StoreClosed


def _another_thread_is_here() -> bool:
    """Whether a thread other than the caller's is in a call of this module, such as a ``get``.

    A ``get`` is too short to keep account of itself, so the stacks are looked at. That of a thread whose signal
    handler has interrupted such a call shows it as well, and will go on doing so.
    """
    own, here = threading.get_ident(), globals()
    for thread, top in sys._current_frames().items():
        frame: FrameType | None = None if thread == own else top
        while frame is not None:
            if frame.f_globals is here:
                return True
            frame = frame.f_back
    return False


class LMDBBackend:
    """An open LMDB file."""

    name: ClassVar[str] = "lmdb"
    persistent: ClassVar[bool] = True
    streams: ClassVar[bool] = True
    map_bytes: ClassVar[int] = 1 << 40
    """Addresses to map at first; tests take few, so that the map has to grow."""

    def __init__(self, path: Path, environment: lmdb.Environment, *, writable: bool) -> None:
        self.path = path
        self.environment = environment
        self.short: dict[str, lmdb._Database] = {}
        self.long: dict[str, lmdb._Database] = {}
        self.has_long: dict[str, bool] = {}
        """Whether the table may have long keys. Never false if it has; may stay true after they are deleted."""
        self._writable = writable
        self._map_bytes: int = environment.info()["map_size"]
        self._page_bytes: int = environment.stat()["psize"]
        self._views: set[weakref.ref[LMDBReadTx]] = set()
        """Open views. Adding and discarding are atomic, and a view that is gone, however it ended, does not count."""
        self._growing = False
        self._begin = environment.begin
        self._spares: list[lmdb.Transaction[bytes]] = []
        """Transactions of the newest commit that no ``get`` is using."""
        self._immutable_meta: Meta | None = None
        self._map: LMDBMap | None = None
        self._pins: Pins | None = None
        """The views that the writer keeps open for readers in other processes."""
        self._reclaim_at = 0.0
        self._handle: ByteLock | None = None
        """The lock that marks this process as a reader of a file that another process may write."""
        self._fd = -1
        self._commit = 0  # the newest commit that this reader has seen
        self._idle_locks: list[ByteLock] = []
        self._view_locks: dict[weakref.ref[LMDBReadTx], ByteLock] = {}

    # --- opening --------------------------------------------------------------------

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        path = Path(path)
        writable = not (read_only or immutable)
        handle = held(path.parent, HANDLE) if read_only and not immutable else None
        meta = None
        if not writable or (path.exists() and path.stat().st_size):
            meta = read_meta(path)
            if is_cut_short(path, meta):
                verify_pages(path)
        if writable and meta is not None:
            leave_file_to_readers(path, meta.transaction)
        try:
            backend = cls(path, cls._open_environment(path, meta, writable, immutable), writable=writable)
        except lmdb.Error as error:
            raise typed(error, path) from error
        try:
            backend._immutable_meta = meta if immutable else None
            backend._handle = handle
            note_opened(path, backend.environment)
            if handle is not None:
                backend._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if writable:
                backend._pins = Pins(backend.environment, Readers(path.parent))
            is_new = meta is None or (writable and meta.is_empty)  # empty: killed before its first commit
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
                    lock=writable,
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
        for made in (path, lock_path(path)):  # LMDB makes them itself, even for a reader
            if not immutable and made.exists():
                hand_over(made)
        return environment

    def _open_tables(self, tables: Sequence[str], *, is_new: bool, is_live: bool) -> None:
        if not is_new:
            with self.read() as view:
                self._check_mark(view.stored(MARK))
        if self._writable:
            with self._begin(write=True) as tx:  # if all are there, this writes and syncs nothing
                if is_new:
                    tx.put(MARK, b"%d" % FORMAT)
                self._take_handles(tables, tx)
        else:
            try:
                with self.read():  # keeps the pages that the handles are read from
                    self._take_handles(tables, None)
            except lmdb.NotFoundError as error:
                raise Corruption("a table is missing", self.path) from error
        with self.read() as view:
            for table in tables:  # if another process writes, long keys may come at any time
                self.has_long[table] = is_live or view.entries(self.long[table]) > 0

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
        """The value of ``key``: in place if nothing writes the file, otherwise a copy."""
        if self._immutable_meta is None or sys.byteorder != "little" or len(key) > STORED_BYTES_MAX:
            value = self.get(table, key)
            return None if value is None else memoryview(value)
        if self._map is None:
            self._map = LMDBMap(self.path, self._immutable_meta)
        return self._map.find(table, key)

    def get(self, table: str, key: bytes) -> bytes | None:
        if self._handle is not None:
            with self.read() as view:
                return view.get(table, key)
        spares = self._spares
        try:
            try:
                tx = spares.pop()
            except IndexError:
                tx = self._begin()
            value = tx.get(key, None, self.short[table])
            spares.append(tx)
            if value is not None or len(key) <= STORED_BYTES_MAX:
                return value
        except lmdb.Error:  # the map is growing (a view waits for that), or damage (a view reports it)
            pass
        with self.read() as view:
            return view.get(table, key)

    def first_value(self, table: str, key: bytes) -> bytes | None:
        if self._handle is None and not self.has_long[table] and 0 < len(key) <= STORED_BYTES_MAX:
            spares = self._spares
            try:
                try:
                    tx = spares.pop()
                except IndexError:
                    tx = self._begin()
                cursor = tx.cursor(self.short[table])
                value = cursor.value() if cursor.set_range(key) else None
                cursor.close()
                spares.append(tx)
                return value
            except lmdb.Error:  # as above
                pass
        with self.read() as view:
            return view.first_values(table, [key])[0]

    def read(self) -> LMDBReadTx:
        return LMDBReadTx(self)

    def write(self) -> LMDBWriteTx:
        if not self._writable:
            raise ReadOnly
        if not self._views and self._is_map_half_full():
            self.grow()  # now, while nothing has to wait for it
        return LMDBWriteTx(self)

    def begin_batch(self) -> lmdb.Transaction[bytes]:
        """The writer's transaction, which reuses no page that is being read."""
        if self._pins is not None:
            self._pins.keep()
        if time.monotonic() > self._reclaim_at:
            self._reclaim_at = time.monotonic() + RECLAIM_SECONDS
            self.environment.reader_check()
        return self.environment.begin(write=True)

    def drop_spares(self) -> None:
        """Let every ``get`` from now on begin anew: there is another commit, or there will be another map."""
        self._spares = []

    def begin_view(self, view: LMDBReadTx) -> lmdb.Transaction[bytes]:
        """The read transaction of that view, which calls ``end_view`` when it is closed."""
        known = weakref.ref(view, self._views.discard if self._handle is None else self._forget)
        self._views.add(known)
        try:
            if self._growing:
                self._views.discard(known)
                self._wait_while_growing()
                self._views.add(known)
            if self._handle is not None:
                self._lock_for(known)
            try:
                return self._begin_as_locked(known)
            except lmdb.MapResizedError:
                self._views.discard(known)
                self._map_anew(0)  # another process made the file larger than our map
                self._views.add(known)
                return self._begin_as_locked(known)
        except BaseException as error:
            self._forget(known)
            if isinstance(error, lmdb.Error):
                raise typed(error, self.path) from error
            raise

    def _lock_for(self, view: weakref.ref[LMDBReadTx]) -> None:
        """Lock a commit that is no newer than the one that the view will be of."""
        try:
            lock = self._idle_locks.pop()
        except IndexError:
            lock = ByteLock(self.path.parent)
        lock.take(view_byte(self._commit))
        self._view_locks[view] = lock

    def _begin_as_locked(self, view: weakref.ref[LMDBReadTx]) -> lmdb.Transaction[bytes]:
        if self._handle is None:
            return self._begin()
        lock = self._view_locks[view]
        while True:
            tx = self._begin()
            commit = tx.id()
            if commit > self._commit:
                self._commit = commit
            lock.take(view_byte(commit))
            if self.environment.info()["last_txnid"] <= commit + 1:
                return tx  # its meta page was not overwritten while it was read
            tx.abort()

    def end_view(self, view: LMDBReadTx) -> None:
        self._forget(weakref.ref(view))

    def _forget(self, view: weakref.ref[LMDBReadTx]) -> None:
        self._views.discard(view)
        if self._view_locks and (lock := self._view_locks.pop(view, None)) is not None:
            lock.release()
            self._idle_locks.append(lock)

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
            while self._pins is not None and not self._pins.let_go():
                if time.monotonic() > deadline:
                    raise Busy(f"{self.path} has to grow, but another process is reading it")
                time.sleep(0.001)
            self.drop_spares()
            self.environment.set_mapsize(map_bytes)
        except lmdb.Error as error:
            raise typed(error, self.path) from error
        finally:
            self._growing = False

    def _wait_while_growing(self) -> None:
        """Wait, but not forever: this thread may hold the very view that the growing map waits for."""
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
        self.drop_spares()
        return []  # the lock file is removed after the rename: see ``stale_helpers``

    def copy_to(self, path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with self.read() as view:
                view.copy_into(fd)
        except lmdb.Error as error:
            reason = typed(error, path)
            os.unlink(path)
            raise reason from error
        finally:
            os.close(fd)

    def copy_into(self, fd: int) -> bool:
        try:
            with self.read() as view:
                view.copy_into(fd)
        except lmdb.Error as error:
            raise typed(error, self.path) from error
        return True

    def size_bytes(self) -> int:
        try:
            return os.stat(self.path).st_size
        except (FileNotFoundError, PermissionError):  # moved away since it was opened
            return (self.environment.info()["last_pgno"] + 1) * self._page_bytes

    def in_use_bytes(self) -> int:
        pages = 2  # the meta pages
        with self.read() as view:
            pages += view.pages(None, *self.short.values(), *self.long.values())
        return pages * self._page_bytes

    def check(self, progress: Progress | None = None) -> None:
        total = self.size_bytes()
        if progress:
            progress(0, total)
        with self.read() as view:  # keeps the pages being walked from being reused
            verify_pages(self.path, self._fd)
            for table in self.long:  # long keys have a structure of their own; counting them walks it
                view.count(table, b"\0")
        if progress:
            progress(total, total)

    @classmethod
    def check_closed(cls, path: Path) -> None:
        """Check a closed file with plain reads: mapping a damaged one could end the process."""
        read_meta(path)
        verify_pages(path)

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"LMDB": ".".join(map(str, lmdb.version())), "py-lmdb": lmdb.__version__}

    def close(self) -> None:
        """Refuse new reads, let those under way end, then unmap the file."""
        self._begin = _refuse
        self.drop_spares()
        self._map = None  # the views that were handed out keep it
        if self._pins is not None:
            self._pins.close()
        deadline = time.monotonic() + VIEW_WAIT_SECONDS
        while self._views and time.monotonic() < deadline:
            time.sleep(0.001)
        deadline = time.monotonic() + CALL_WAIT_SECONDS
        while self._handle is None and _another_thread_is_here() and time.monotonic() < deadline:
            time.sleep(0.001)  # (a reader beside another process makes a view for every call)
        self.environment.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._handle is not None:
            self._handle.close()

    def __del__(self) -> None:
        """Dropped, because another file has taken its place: the environment and the locks close themselves."""
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def foreign_readers(self) -> list[ForeignReader]:
        """Other processes that read the file."""
        if self._handle is None and self._pins is None:
            return []
        try:
            with closing(Readers(self.path.parent)) as readers:
                found = readers.foreign(self.environment.info()["last_txnid"])
        except OSError:
            return []  # the folder was moved away
        return [reader for reader in found if self._pins is not None or reader.pid != own_pid()]

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
