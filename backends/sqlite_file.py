"""What an SQLite file says about itself, and how its tables are made.

    byte   0  "SQLite format 3", 00
          16  page size, 2 bytes big-endian (1 = 65536)
          28  size in pages, 4 bytes big-endian
          60  user version, 4 bytes big-endian: the format of our tables
          68  application id, 4 bytes big-endian: "kvst" for ours

Both numbers are set in the transaction that makes the tables. Each table is one B-tree
ordered by ``memcmp`` of the key, without row numbers, and STRICT: it accepts nothing but BLOBs.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from urllib.parse import quote

import apsw

from kvstore.backend import recognize_backend
from kvstore.errors import (
    Corruption,
    DiskFailed,
    DiskFull,
    EmptyKey,
    KVStoreError,
    NoDescriptor,
    NotAStore,
    ReadOnly,
    StoreClosed,
    StoreLocked,
    TooNew,
    WrongStore,
)
from kvstore.files import unreachable

from .room import is_full

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
APPLICATION_ID = int.from_bytes(b"kvst", "big")
FORMAT = 1
LOOK_SECONDS = 1.0
LOOK_BYTES = 1 << 20
_READ_LOCKS = range(123, 128)


def wal_path(path: Path) -> Path:
    """The log beside the file."""
    return path.with_name(path.name + "-wal")


def in_transactions(path: Path) -> set[int]:
    """Processes that have a read transaction open now, where the kernel tells (``/proc/locks``).

    Each holds a lock on one of five bytes of the file of shared memory.
    """
    try:
        inode = path.with_name(path.name + "-shm").stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return set()
    return {
        int(lock[4])
        for lock in locks
        if lock[1] == "POSIX" and lock[5].endswith(f":{inode}") and int(lock[6]) in _READ_LOCKS
    }


def uri_of(path: Path) -> str:
    """A file name for SQLite, whatever bytes it has: a plain name would have to be UTF-8."""
    return f"file:{quote(os.fsencode(path.absolute()))}"


def is_utf8(path: Path) -> bool:
    """Whether ``open_beside`` can open it."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def open_beside(path: Path) -> Iterator[apsw.VFSFile]:
    """A database file that SQLite has open already, for reading its bytes.

    It is opened through SQLite too, which keeps descriptors open as long as it holds locks through others.
    """
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
    file = apsw.VFSFile("", os.fspath(path.absolute()), [flags, 0])
    try:
        yield file
    finally:
        file.xClose()


def write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def table_sql(table: str) -> str:
    """The statement that makes a table: stored in the file letter by letter, and compared at open."""
    return (
        f"CREATE TABLE {quoted(table)} "
        "(k BLOB NOT NULL PRIMARY KEY CHECK (length(k) > 0), v BLOB NOT NULL) STRICT, WITHOUT ROWID"
    )


def quoted(table: str) -> str:
    return '"' + table.replace('"', '""') + '"'


def check_header(path: Path, *, complete: bool) -> None:
    """Refuse a file that is not ours before SQLite touches it; ``complete``: all of its pages are in it.

    SQLite takes a last page that was cut short for one that ends in zeros.
    """
    if not S_ISREG(os.stat(path).st_mode):
        raise NotAStore(f"{path} is not a regular file", path)
    with open(path, "rb", buffering=0) as file:
        head = file.read(HEADER_BYTES)
        file_bytes = os.fstat(file.fileno()).st_size
    if not head.startswith(MAGIC):
        other = recognize_backend(path)
        if other is not None:
            raise WrongStore(f"{path} is a file of the {other.name} backend, not of sqlite", path)
        raise NotAStore(f"{path} is not an SQLite file", path)
    if len(head) < HEADER_BYTES:
        raise Corruption("the file ends inside its header", path, len(head))
    if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise NotAStore(f"{path} is an SQLite file of another application", path)
    version = int.from_bytes(head[60:64], "big")
    if version > FORMAT:
        raise TooNew(f"{path} has format {version}; this version reads {FORMAT}", path)

    page_bytes = int.from_bytes(head[16:18], "big")
    needed = int.from_bytes(head[28:32], "big") * (65536 if page_bytes == 1 else page_bytes)
    if complete and file_bytes < needed:
        raise Corruption(f"the file is cut short: it lacks {needed - file_bytes} bytes", path, file_bytes)


def check_tables(connection: apsw.Connection, path: Path, tables: list[str]) -> None:
    """Refuse a schema that this module does not write: triggers or views could run statements."""
    found = set()
    for name, sql in connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
    ).fetchall():
        if sql != table_sql(str(name)):
            raise Corruption(f"{name!r} is not a table of kvstore", path)
        found.add(name)
    for table in tables:
        if table not in found:
            raise Corruption(f"the table {table!r} is missing", path)


def typed(error: apsw.Error | UnicodeDecodeError, path: Path) -> KVStoreError | OSError:
    """Our error for an error of SQLite's. A row that became text is damaged, because ours are bytes."""
    text = f"{path}: {error}"
    match error:
        case UnicodeDecodeError():
            return Corruption(str(error), path)
        case apsw.FullError():
            return DiskFull(text)
        case apsw.CorruptError() | apsw.NotADBError():
            return _typed_damage(error, path)
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(path)
        case apsw.ReadOnlyError():
            if getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK:
                text = f"{path}: a killed process left an unfinished change; open the store for writing once"
            return ReadOnly(text)
        case apsw.InterruptError() | apsw.ConnectionClosedError() | apsw.CursorClosedError():  # it is closing
            return StoreClosed()
        case apsw.ConstraintError():
            return EmptyKey()
        case apsw.IOError():
            return _typed_io(error, path)
        case apsw.CantOpenError():
            return _why_not_opened(error, path)
    return KVStoreError(text)


def absent(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))


def _why_not_opened(error: apsw.Error, path: Path) -> KVStoreError | OSError:
    """Find out why a file could not be opened: SQLite does not say."""
    for place, rights in ((path.parent, os.X_OK), (path, os.R_OK | os.W_OK), (path.parent, os.W_OK)):
        if not os.access(place, os.F_OK):
            return absent(path)
        if not os.access(place, rights):
            return unreachable(place, errno.EACCES)
    return NoDescriptor(path)  # with these permissions no other reason is left


def _typed_damage(error: apsw.Error, path: Path) -> KVStoreError:
    """SQLite also says "malformed" if the disk failed to deliver the page, so it is asked again for a while."""
    deadline = time.monotonic() + LOOK_SECONDS
    try:
        with open_beside(path) as file:
            for offset in range(0, file.xFileSize(), LOOK_BYTES):
                file.xRead(min(LOOK_BYTES, file.xFileSize() - offset), offset)
                if time.monotonic() > deadline:
                    break
    except apsw.IOError as failed:
        if getattr(failed, "extendedresult", 0) != apsw.SQLITE_IOERR_SHORT_READ:
            return DiskFailed(f"{path}: it cannot be read")
    except apsw.Error:
        pass
    return Corruption(str(error), path)


def _typed_io(error: apsw.IOError, path: Path) -> KVStoreError | OSError:
    """SQLite says which call failed, not why; a short read means that the file ends too early."""
    extended = getattr(error, "extendedresult", 0)  # the type stub lacks it
    if extended == apsw.SQLITE_IOERR_SHORT_READ:
        return Corruption(str(error), path)
    if (
        extended == apsw.SQLITE_IOERR_CORRUPTFS
    ):  # its words for EIO in a read: no page was seen, let alone a bad one
        return DiskFailed(f"{path}: it cannot be read")
    if is_full(path, wal_path(path)):
        return DiskFull(f"{path}: {error}")
    return DiskFailed(f"{path}: {error}")
