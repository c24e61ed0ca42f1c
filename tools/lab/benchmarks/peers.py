"""Other stores behind one small interface: durable puts and batches, point reads, ranges.

Each is used as its documentation recommends for speed with full durability: a put that has returned is on disk.
None of them has revisions, watches, leases or compare-and-act transactions. A peer whose package is not
installed raises ``Absent``.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from .contest import Absent
from .workload import Pair, Workload


def module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise Absent(f"not installed: {error.name or name}") from None


class Peer(Protocol):
    def put(self, key: bytes, value: bytes) -> None: ...

    def put_batch(self, pairs: list[Pair]) -> None: ...

    def get_each(self, keys: list[bytes]) -> None:
        """Read the value of each key, one at a time, each as if alone."""

    def range(self, start: bytes, end: bytes) -> int:
        """Read the pairs of ``[start, end)`` into a list. Returns how many there are."""

    def close(self) -> None: ...


Open = Callable[[Path], Peer]


class RawLoop:
    """``pwrite`` and ``fdatasync`` of the bytes that one put needs, one after the other on a zero-filled file."""

    FILE_BYTES = 64_000_000
    FRAME_BYTES = 65  # what our log writes for a put besides key and value: 344 bytes in all, for 23 + 256

    def __init__(self, path: Path, delay_seconds: float = 0.0, file_bytes: int = FILE_BYTES) -> None:
        self._fd = os.open(path / "log", os.O_RDWR | os.O_CREAT, 0o600)
        self._file_bytes = file_bytes
        chunk = bytes(1 << 20)
        for offset in range(0, file_bytes, len(chunk)):
            os.pwrite(self._fd, chunk, offset)
        os.fsync(self._fd)
        self._at = 0
        self._delay_seconds = delay_seconds

    def put(self, key: bytes, value: bytes) -> None:
        data = key + value + bytes(self.FRAME_BYTES)
        if self._at + len(data) > self._file_bytes:
            self._at = 0
        os.pwrite(self._fd, data, self._at)
        os.fdatasync(self._fd)
        if self._delay_seconds:
            time.sleep(self._delay_seconds)
        self._at += len(data)

    def close(self) -> None:
        os.close(self._fd)


class LMDB:
    """py-lmdb with its defaults: every commit synced twice, data and meta page."""

    def __init__(self, path: Path) -> None:
        self.env = module("lmdb").open(str(path), map_size=16 << 30)

    def put(self, key: bytes, value: bytes) -> None:
        with self.env.begin(write=True) as tx:
            tx.put(key, value)

    def put_batch(self, pairs: list[Pair]) -> None:
        with self.env.begin(write=True) as tx, tx.cursor() as cursor:
            cursor.putmulti(pairs)

    def get_each(self, keys: list[bytes]) -> None:
        begin = self.env.begin
        for key in keys:
            with begin() as tx:
                tx.get(key)

    def range(self, start: bytes, end: bytes) -> int:
        # The end is found by counting, not by comparing: the fastest way there is.
        with self.env.begin() as tx, tx.cursor() as cursor:
            cursor.set_range(start)
            return len(list(itertools.islice(cursor.iternext(), int(end[-8:]) - int(start[-8:]))))

    def close(self) -> None:
        self.env.close()


class SQLite:
    """apsw: WAL mode, synchronous=FULL, one WITHOUT ROWID table, statements prepared (cached) once."""

    def __init__(self, path: Path) -> None:
        self.db = module("apsw").Connection(str(path / "db"))
        for pragma in ("journal_mode=wal", "synchronous=full"):
            self.db.execute(f"pragma {pragma}")
        self.db.execute("create table if not exists kv (key blob primary key, value blob) without rowid")
        self._cursor = self.db.cursor()

    def put(self, key: bytes, value: bytes) -> None:
        self._cursor.execute("insert or replace into kv values (?, ?)", (key, value))

    def put_batch(self, pairs: list[Pair]) -> None:
        self._cursor.execute("begin immediate")
        self._cursor.executemany("insert or replace into kv values (?, ?)", pairs)
        self._cursor.execute("commit")

    def get_each(self, keys: list[bytes]) -> None:
        execute = self._cursor.execute
        for key in keys:
            execute("select value from kv where key = ?", (key,)).fetchone()

    def range(self, start: bytes, end: bytes) -> int:
        return len(
            self._cursor.execute(
                "select key, value from kv where key >= ? and key < ? order by key", (start, end)
            ).fetchall()
        )

    def close(self) -> None:
        self.db.close()


class StandardSQLite:
    """sqlite3 of the standard library: WAL mode, synchronous=FULL, one WITHOUT ROWID table."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path / "db", isolation_level=None)
        for pragma in ("journal_mode=wal", "synchronous=full"):
            self._db.execute(f"pragma {pragma}")
        self._db.execute("create table if not exists kv (key blob primary key, value blob) without rowid")

    def put(self, key: bytes, value: bytes) -> None:
        self._db.execute("insert or replace into kv values (?, ?)", (key, value))

    def put_batch(self, pairs: list[Pair]) -> None:
        self._db.execute("begin immediate")
        self._db.executemany("insert or replace into kv values (?, ?)", pairs)
        self._db.execute("commit")

    def get_each(self, keys: list[bytes]) -> None:
        execute = self._db.execute
        for key in keys:
            execute("select value from kv where key = ?", (key,)).fetchone()

    def range(self, start: bytes, end: bytes) -> int:
        rows = self._db.execute(
            "select key, value from kv where key >= ? and key < ? order by key", (start, end)
        )
        return len(rows.fetchall())

    def close(self) -> None:
        self._db.close()


class LevelDB:
    """plyvel with its defaults; writes with sync=True."""

    def __init__(self, path: Path) -> None:
        self._db = module("plyvel").DB(str(path), create_if_missing=True)

    def put(self, key: bytes, value: bytes) -> None:
        self._db.put(key, value, sync=True)

    def put_batch(self, pairs: list[Pair]) -> None:
        with self._db.write_batch(sync=True) as batch:
            for key, value in pairs:
                batch.put(key, value)

    def get_each(self, keys: list[bytes]) -> None:
        get = self._db.get
        for key in keys:
            get(key)

    def range(self, start: bytes, end: bytes) -> int:
        return len(list(self._db.iterator(start=start, stop=end)))

    def close(self) -> None:
        self._db.close()


class RocksDB:
    """rocksdict in raw mode with its defaults; writes with sync."""

    def __init__(self, path: Path) -> None:
        self._rocks = module("rocksdict")
        self._db = self._rocks.Rdict(str(path), self._rocks.Options(raw_mode=True))
        self._synced = self._rocks.WriteOptions()
        self._synced.sync = True

    def put(self, key: bytes, value: bytes) -> None:
        self._db.put(key, value, write_opt=self._synced)

    def put_batch(self, pairs: list[Pair]) -> None:
        batch = self._rocks.WriteBatch(raw_mode=True)
        for key, value in pairs:
            batch.put(key, value)
        self._db.write(batch, self._synced)

    def get_each(self, keys: list[bytes]) -> None:
        get = self._db.get
        for key in keys:
            get(key)

    def range(self, start: bytes, end: bytes) -> int:
        found = self._db.items(from_key=start)
        return len(list(itertools.takewhile(lambda item: item[0] < end, found)))

    def close(self) -> None:
        self._db.close()


class DiskCache:
    """diskcache without eviction, on its SQLite with synchronous=FULL. It has no ranges."""

    def __init__(self, path: Path) -> None:
        self._cache = module("diskcache").Cache(
            str(path), eviction_policy="none", sqlite_synchronous=2, size_limit=1 << 40
        )

    def put(self, key: bytes, value: bytes) -> None:
        self._cache.set(key, value)

    def put_batch(self, pairs: list[Pair]) -> None:
        with self._cache.transact():
            for key, value in pairs:
                self._cache.set(key, value)

    def get_each(self, keys: list[bytes]) -> None:
        get = self._cache.get
        for key in keys:
            get(key)

    def range(self, start: bytes, end: bytes) -> int:
        raise Absent("has no ranges")

    def close(self) -> None:
        self._cache.close()


class ZODB:
    """ZODB on a FileStorage, one OOBTree. Reads come from Python objects that it keeps in memory."""

    def __init__(self, path: Path) -> None:
        self._db = module("ZODB").DB(str(path / "Data.fs"))
        self._connection = self._db.open()
        self._transaction = module("transaction")
        root = self._connection.root()
        if "kv" not in root:
            root["kv"] = module("BTrees.OOBTree").OOBTree()
            self._transaction.commit()
        self._tree = root["kv"]

    def put(self, key: bytes, value: bytes) -> None:
        self._tree[key] = value
        self._transaction.commit()

    def put_batch(self, pairs: list[Pair]) -> None:
        self._tree.update(pairs)
        self._transaction.commit()

    def get_each(self, keys: list[bytes]) -> None:
        get = self._tree.get
        for key in keys:
            get(key)

    def range(self, start: bytes, end: bytes) -> int:
        return len(list(self._tree.items(start, end, excludemax=True)))

    def close(self) -> None:
        self._connection.close()
        self._db.close()


PEERS: dict[str, Open] = {
    "lmdb": LMDB,
    "apsw": SQLite,
    "sqlite3": StandardSQLite,
    "plyvel": LevelDB,
    "rocksdict": RocksDB,
    "diskcache": DiskCache,
    "zodb": ZODB,
}


def fill(peer: Peer, keys: int) -> None:
    """Put all keys of the workload, in large batches where possible (commits are slow in some)."""
    several: list[Pair] = []
    for pairs in Workload(keys).all_pairs():
        several += pairs
        if len(several) >= 10_000:
            peer.put_batch(several)
            several = []
    if several:
        peer.put_batch(several)
