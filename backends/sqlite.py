"""SQLite, through apsw: a B-tree file with a log of changed pages beside it.

One file, and beside it ``<file>-wal`` (commits not yet in the file) and ``<file>-shm`` (its index, shared by
processes). Each table is an SQLite table of (key, value), ordered by key (see ``sqlite_file``).

Durability: WAL mode with ``synchronous=NORMAL``: a commit is written to the log but not synced, so a crash loses
the last ones. ``sync`` syncs the log, then moves what it can into the file. SQLite itself syncs the
log before it moves pages, so the file is sound at any moment.

Connections: one writes. Readers take one from a pool and give it back, so there are as many as there were
simultaneous reads, and a thread that ends leaves nothing behind. A connection in use belongs only to its reader: if
the read is interrupted, it is closed with the last reference to it, and the next read makes another. The live file is
not mapped into memory, since a stray write through a map would damage it; a snapshot is.

Readers in other processes lock the directory (``kvstore.readers``) while they have the file open. Each of their
connections is opened while the name belongs to one file: otherwise the log beside it would be another file's. If no
process has the file open and SQLite's side files can be neither found nor made (a read-only mount), it is read as
if it never changed, and a writer that comes meanwhile is told so (``FROZEN``).

Two traps of the operating system. Closing *any* descriptor of a file drops the locks that this process holds
on it: after ``open``, only SQLite itself opens the live file here, and it knows about this (``open_beside``). And the
log belongs to the file whose name it bears: see ``stale_helpers``.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import ClassVar, Self

import apsw

from kvstore.backend import BackendDefaults, Progress
from kvstore.errors import (
    Busy,
    Corruption,
    DiskFull,
    MissingDependency,
    OpenError,
    ReadOnly,
    StoreClosed,
    StoreLocked,
    StoreUnreachable,
    WrongStore,
)
from kvstore.files import OSDisk, free_bytes, hand_over
from kvstore.readers import FROZEN, HANDLE, WRITER, ByteLock, ForeignReader, Readers, held, own_pid

from .sqlite_file import (
    APPLICATION_ID,
    FORMAT,
    MAGIC,
    absent,
    check_header,
    check_tables,
    in_transactions,
    is_utf8,
    open_beside,
    table_sql,
    typed,
    uri_of,
    wal_path,
    write_all,
)
from .sqlite_tx import SQLiteReadTx, SQLiteWriteTx, Statements

SQLITE_VERSION_MIN = (3, 51, 3)  # earlier ones can corrupt a database in WAL mode
PAGE_BYTES = 4096
WRITER_CACHE_BYTES = 16 << 20
FROZEN_SECONDS = 0.5
FROZEN_POLL_SECONDS = 0.005
READER_CACHE_BYTES = 4 << 20
CHECKPOINT_PAGES = 4096  # SQLite moves pages to the file at the commit that passes this
WAL_KEPT_BYTES = 64 << 20  # a longer log is truncated when it starts over
BUSY_TIMEOUT_MS = 10_000
CLOSE_WAIT_SECONDS = 5.0  # how long closing waits for reads that are under way
SETTLE_SECONDS = 10.0  # how long it waits for views of older commits

SHARED_MEMORY_ROOM_BYTES = 128 << 10
FREE_SHARE_COPIED = 0.1  # a file with more free pages is copied without them
COPIED_BYTES = 256 << 10


class SQLiteBackend(BackendDefaults):
    """An open SQLite file."""

    name: ClassVar[str] = "sqlite"
    persistent: ClassVar[bool] = True
    streams: ClassVar[bool] = True

    def __init__(self, path: Path, tables: Sequence[str], uri: str, flags: int) -> None:
        self.path = path
        self.statements = {table: Statements(table) for table in tables}
        self._uri = uri
        self._flags = flags
        self._writer: apsw.Connection | None = None
        self._connections: set[weakref.ref[apsw.Connection]] = set()
        """All open connections: the writer's, the idle ones, and those in use by readers."""
        self._closing = False
        self._idle: list[apsw.Cursor] = []  # one for each idle connection of a reader
        self._opened: os.stat_result | None = None  # the file that bore the name when it was opened
        self._is_replaced = False  # by a file of the same content: see ``settle``
        self._role: ByteLock | None = None  # the lock that tells other processes what this one does
        self._is_replaceable = False  # whether another process may replace this file

    # --- opening --------------------------------------------------------------------

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        require_fit_library()
        path = Path(path)
        writable = not (read_only or immutable)
        is_ours = writable and _is_written_here(path)
        role = held(path.parent, WRITER if writable else HANDLE) if not immutable else None
        if writable and not is_ours:
            _refuse_frozen(path)
        is_new = writable and not (path.exists() and path.stat().st_size)
        if not is_new:
            check_header(path, complete=immutable)
        elif not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            hand_over(path)  # SQLite gives the side files the same owner
        uri = f"{uri_of(path)}?mode={'rw' if writable else 'ro'}"
        if immutable:
            uri += "&immutable=1"
        flags = apsw.SQLITE_OPEN_URI | (apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY)
        backend = cls(path, tables, uri, flags)
        backend._role = role
        backend._is_replaceable = read_only and not immutable
        try:
            if writable:
                backend._open_writer()
            backend._connect_first()
        except BaseException as error:
            backend.close()
            if isinstance(error, (apsw.Error, UnicodeDecodeError)):
                raise typed(error, path) from error
            if isinstance(error, StoreUnreachable) and not writable and not path.exists():
                raise absent(path) from error  # it has just been removed
            raise
        return backend

    def _connect_first(self) -> None:
        deadline = time.monotonic() + FROZEN_SECONDS
        while True:
            try:
                return self.give_back(self.take())
            except (OSError, StoreUnreachable):
                try:
                    if not self._is_replaceable or not self._freeze():
                        raise
                except StoreLocked:  # a writer is opening it, or replacing it
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(FROZEN_POLL_SECONDS)

    def _freeze(self) -> bool:
        """Read an unwritten file as it is, without side files, and keep writers off. Returns whether that works."""
        wal = wal_path(self.path)
        if self._role is None or os.access(self.path.parent, os.W_OK):
            return False
        frozen = held(self.path.parent, FROZEN)
        with closing(Readers(self.path.parent)) as readers:
            if readers.writer() is not None:
                frozen.close()
                raise StoreLocked(self.path)  # it is being opened: its side files will soon be there
        if wal.exists() and wal.stat().st_size:
            raise OpenError(
                f"{self.path} has commits in {wal.name}, which SQLite cannot read here without {self.path.name}-shm; "
                "open a copy of the directory, or this one where it can be written",
                self.path,
            )
        self._role, self._uri, self._is_replaceable = frozen, self._uri + "&immutable=1", False
        return True

    def _open_writer(self) -> None:
        if free_bytes(self.path.parent) < SHARED_MEMORY_ROOM_BYTES:
            # SQLite maps its -shm file; if the disk has no block for a page of it, the process gets SIGBUS
            raise DiskFull(f"{self.path}: SQLite needs {SHARED_MEMORY_ROOM_BYTES} free bytes to open it")
        writer = self._connect(WRITER_CACHE_BYTES)
        self._writer = writer
        is_new = writer.pragma("application_id") != APPLICATION_ID
        if is_new:
            writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        with writer:  # before WAL mode, so that the numbers and tables reach the file itself
            if is_new:
                writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                writer.execute(f"PRAGMA user_version = {FORMAT}")
            present = writer.execute("SELECT name FROM sqlite_schema").fetchall()
            for table in self.statements:
                if (table,) not in present:
                    writer.execute(table_sql(table))
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA fullfsync = ON")  # on macOS; elsewhere it changes nothing
        writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        writer.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")

    def _connect(self, cache_bytes: int) -> apsw.Connection:
        self._check_place()
        connection = apsw.Connection(self._uri, flags=self._flags)
        self._connections.add(weakref.ref(connection, self._connections.discard))
        try:
            self._opened = self._opened or os.stat(self.path)
            self._check_place()
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")
            mapped = self.path.stat().st_size if "immutable" in self._uri else 0
            connection.execute(f"PRAGMA mmap_size = {mapped}")
        except BaseException:
            self._part_with(connection)
            raise
        return connection

    def _part_with(self, connection: apsw.Connection) -> None:
        """Close a connection that nothing reads with; closing the backend does not wait for it."""
        self._connections.discard(weakref.ref(connection))
        connection.close(True)

    def _check_place(self) -> None:
        """Raise ``StoreUnreachable`` unless the name leads to the file that was opened: connections go by name."""
        if self._opened is None or self._is_replaced or self._is_replaceable:
            return
        try:
            if os.path.samestat(self._opened, os.stat(self.path)):
                return
        except OSError as error:
            raise StoreUnreachable(self.path, str(error.strerror)) from error
        if not self._is_replaced:  # it may be by now: the flag is set before another file takes the name
            raise StoreUnreachable(self.path, "another file has taken this name")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(len(MAGIC)) == MAGIC
        except IsADirectoryError:
            return False

    # --- reading and writing --------------------------------------------------------

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._one_value(self.statements[table].get, key)

    def first_value(self, table: str, key: bytes) -> bytes | None:
        return self._one_value(self.statements[table].first_value, key)

    def _one_value(self, sql: str, key: bytes) -> bytes | None:
        cursor = self.take()
        try:
            value = cursor.execute(sql, (key,)).get
        except BaseException as error:  # the statement may be left half way
            self.drop(cursor)
            if isinstance(error, (apsw.Error, UnicodeDecodeError)):
                raise typed(error, self.path) from error
            raise
        self._idle.append(cursor)
        if value is not None and value.__class__ is not bytes:
            raise Corruption("a value is not bytes", self.path)
        return value

    def read(self) -> SQLiteReadTx:
        return SQLiteReadTx(self, self.take())

    def write(self) -> SQLiteWriteTx:
        if self._writer is None:
            raise ReadOnly
        return SQLiteWriteTx(self, self._writer.cursor())

    def take(self) -> apsw.Cursor:
        """A cursor on a connection for this caller only, until ``give_back`` or ``drop``."""
        self._check_open()
        try:
            cursor = self._idle.pop()
        except IndexError:
            return self._connect_reader()
        try:
            self._check_open()
        except StoreClosed:
            self._idle.append(cursor)
            raise
        return cursor

    def _check_open(self) -> None:
        if self._closing:
            raise StoreClosed

    def _connect_reader(self) -> apsw.Cursor:
        while True:
            file = self._file()
            known = set(self._connections)
            try:
                connection = self._connect(READER_CACHE_BYTES)
                self._check_reader(connection)
                if file == self._file():
                    return connection.cursor()
            except (apsw.Error, UnicodeDecodeError, Corruption) as error:
                if file == self._file():
                    if self._is_replaceable and not self.recognizes(self.path):
                        raise WrongStore(f"{self.path} is another backend's file now", self.path) from error
                    raise (error if isinstance(error, Corruption) else typed(error, self.path)) from error
            for other in self._connections - known:  # of one file, with the log of the next
                self._connections.discard(other)
                if (mixed := other()) is not None:
                    mixed.close(True)

    def _check_reader(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("PRAGMA query_only = ON")
            check_tables(connection, self.path, list(self.statements))
        except BaseException:
            self._part_with(connection)
            raise

    def _file(self) -> tuple[int, int]:
        """The file that bears the name now, if another process may replace it."""
        if not self._is_replaceable:
            return (0, 0)
        try:
            status = os.stat(self.path)
        except FileNotFoundError as error:
            reason = f"another process is replacing {self.path}; open the store again"
            raise Busy(reason) from error
        return status.st_dev, status.st_ino

    def give_back(self, cursor: apsw.Cursor) -> None:
        self._idle.append(cursor)

    def drop(self, cursor: apsw.Cursor) -> None:
        """Close the connection of a taken cursor, in whatever state it is."""
        try:
            connection = cursor.connection
        except (apsw.ConnectionClosedError, apsw.CursorClosedError):
            return  # the backend was closed, and the connection with it
        self._part_with(connection)

    # --- the whole file -------------------------------------------------------------

    def sync(self) -> None:
        """Sync the log, which makes its commits durable; then move pages, which keeps it short."""
        wal = wal_path(self.path)
        if self._writer is None:
            return
        try:
            if wal.exists():
                OSDisk().sync_file(wal)
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.FullError:
            return  # no room to move pages: the commits are durable where they are
        except apsw.Error as error:
            raise typed(error, self.path) from error

    def settle(self) -> list[Path]:
        """Move the whole log into the file, which SQLite then syncs: the log is no longer needed.

        Views of the newest commit are not in the way: they continue with the log that they have open. Raises ``Busy``,
        which names the reading processes, if a view of an older commit outlasts ``SETTLE_SECONDS``.
        """
        helpers = [wal_path(self.path), self.path.with_name(self.path.name + "-shm")]
        if self._writer is None:
            return []
        deadline = time.monotonic() + SETTLE_SECONDS
        try:
            while True:
                logged, moved = self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if logged == moved:
                    self._is_replaced = True
                    return helpers
                if time.monotonic() > deadline:
                    raise Busy(self._read_by())
                time.sleep(FROZEN_POLL_SECONDS)
        except apsw.Error as error:
            raise typed(error, self.path) from error

    def _read_by(self) -> str:
        readers = ", ".join(str(reader.pid) for reader in self.foreign_readers()) or "this one"
        return (
            f"{self.path} is still read as it was at an older commit, by process {readers}: "
            "let it go on, or end it, and try again"
        )

    def copy_to(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        cursor = self.take()
        try:
            cursor.execute("PRAGMA query_only = OFF")  # nothing is written to this database
            cursor.execute("VACUUM INTO ?", (uri_of(path),))
        except apsw.Error as error:
            reason = typed(error, path)
            os.unlink(path)
            raise reason from error
        finally:
            cursor.execute("PRAGMA query_only = ON")
            self.give_back(cursor)

    def copy_into(self, fd: int) -> bool:
        """Copy the file as it is, if the log can be moved into it now and few of its pages are free."""
        if self._writer is None or not is_utf8(self.path):
            return False
        with self.read() as view:
            pages, in_use, page_bytes = view.pages(), view.pages_in_use(), view.page_bytes()
        if in_use < pages * (1 - FREE_SHARE_COPIED):
            return False
        try:
            logged, moved = self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if logged != moved:
                return False  # a view of an older commit is in the way
            self._check_place()
            with open_beside(self.path) as file:
                for offset in range(0, pages * page_bytes, COPIED_BYTES):
                    write_all(fd, file.xRead(min(COPIED_BYTES, pages * page_bytes - offset), offset))
        except apsw.Error as error:
            raise typed(error, self.path) from error
        return True

    def size_bytes(self) -> int:
        wal = wal_path(self.path)
        try:
            return os.stat(self.path).st_size + (os.stat(wal).st_size if wal.exists() else 0)
        except (FileNotFoundError, PermissionError):  # moved away since it was opened
            with self.read() as view:
                return view.pages() * view.page_bytes()

    def in_use_bytes(self) -> int:
        with self.read() as view:
            return view.pages_in_use() * view.page_bytes()

    def check(self, progress: Progress | None = None) -> None:
        total = self.size_bytes()
        if progress:
            progress(0, total)
        with self.read() as view:
            view.check_integrity()
        if progress:
            progress(total, total)

    def close(self) -> None:
        """Refuse new reads, let those under way end, then move the log into the file.

        The last connection of all processes then removes the log.
        """
        self._closing = True
        writer, self._writer = self._writer, None
        writers = int(writer is not None)
        if not self._wait_for_idle(writers):
            for connection in self._open_connections():
                if connection is not writer:
                    connection.interrupt()  # a longer statement ends now: its caller gets StoreClosed
            self._wait_for_idle(writers)
        self._idle.clear()
        try:
            if writer is not None:
                writer.set_busy_timeout(0)
                with suppress(
                    apsw.BusyError, apsw.FullError
                ):  # another process reads an older commit, or there is no room
                    writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            raise typed(error, self.path) from error
        finally:
            with ExitStack() as connections:  # if one of them fails, the others are still closed
                if self._role is not None:
                    connections.callback(self._role.close)
                for connection in self._open_connections():
                    connections.callback(connection.close, True)
                self._connections.clear()

    def _open_connections(self) -> list[apsw.Connection]:
        found = [known() for known in list(self._connections)]
        return [connection for connection in found if connection is not None]

    def _wait_for_idle(self, writers: int) -> bool:
        """Wait some seconds for all readers to give back or drop their connections. Returns whether they have."""
        deadline = time.monotonic() + CLOSE_WAIT_SECONDS
        while len(self._idle) < len(self._connections) - writers:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def foreign_readers(self) -> list[ForeignReader]:
        """Other processes that read the file. Which commit it is that they read, SQLite does not say."""
        if self._role is None:
            return []
        try:
            with closing(Readers(self.path.parent)) as readers:
                others = [pid for pid in readers.handles() if self._writer is not None or pid != own_pid()]
            reading = in_transactions(self.path) if others else set()
        except OSError:
            return []  # the folder was moved away
        return [ForeignReader(pid, 0 if pid in reading else -1) for pid in others]

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"SQLite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        """Files beside the closed file ``path`` to remove before another file takes its name.

        SQLite would replay a log that was left behind into whatever file bears the name. Raises
        ``StoreLocked`` if the log still holds commits because another process has the file open.
        """
        wal = wal_path(path)
        if wal.exists() and wal.stat().st_size:
            raise StoreLocked(path)
        return [wal, path.with_name(path.name + "-shm")]


def _is_written_here(path: Path) -> bool:
    """Whether this process already writes the file of that name, and is replacing it."""
    with closing(Readers(path.parent)) as readers:
        return readers.writer() == own_pid()


def _refuse_frozen(path: Path) -> None:
    """Raise ``StoreLocked`` if a reader treats the file as never written.

    A reader that finds a writer releases its lock in a moment, so this asks for a while. (It would also find the
    writer while a defragmentation opens the new file. That must not be refused, and need not be checked: the old
    file is still open.)
    """
    deadline = time.monotonic() + FROZEN_SECONDS
    with closing(Readers(path.parent)) as readers:
        while (pid := readers.frozen()) is not None:
            if time.monotonic() > deadline:
                raise StoreLocked(path, pid)
            time.sleep(0.005)


def require_fit_library() -> None:
    """Refuse an SQLite that may corrupt a database in WAL mode, or cannot look up many keys in one statement."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE_VERSION_MIN:
        needed = ".".join(map(str, SQLITE_VERSION_MIN))
        raise MissingDependency(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a database in WAL mode; "
            f"install an apsw that bundles {needed} or later"
        )
    if "ENABLE_CARRAY" not in apsw.compile_options:
        raise MissingDependency("SQLite was built without its carray extension; install apsw from PyPI")
