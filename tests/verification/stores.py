"""A store with something of everything in it, and ways into its files behind its back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import Options, Store, ops
from kvstore.backend import Backend, ReadTx, find_backend
from kvstore.keyvalue import decode_row, encode_key_value, split_row
from kvstore.model import AlarmRequest
from kvstore.mvcc.schema import TABLES
from kvstore.recovery import open_engine
from kvstore.testing.recording_disk import UnsyncedDisk

both = pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
COMPACTED = 40


def open_store(path: Path, backend: str, **options: Any) -> Store:
    settings = Options(backend=backend, **{"background": False, "low_disk_bytes": 0, **options})
    return Store(open_engine(path, settings, UnsyncedDisk()))


def fill(store: Store, first: int = 0) -> None:
    """Creates, updates, deletes, transactions, long keys, leases, over several checkpoints."""
    lease = store.grant_lease(1000, 77 + first).id
    for number in range(first, first + 60):
        store.put(b"key-%d" % (number % 9), b"value %d" % number)
        if number % 20 == 0:
            store.checkpoint()
    store.put(b"long" * 400, b"x" * 6000)
    store.put(b"long" * 400, b"y")
    store.put(b"\0\xff", b"", lease=lease)
    store.put(b"\0", b"leased", lease=lease)
    store.delete(b"key-3")
    store.put(b"key-3", b"again")
    store.delete(prefix=b"key-4")
    store.txn(success=[ops.put(b"t1", b"1"), ops.put(b"t2", b"2"), ops.delete(b"key-5")])
    store.txn(success=[ops.put(b"t1", b"3"), ops.put(b"t2", b"4"), ops.txn(success=[ops.put(b"t3", b"5")])])


def raise_an_alarm(store: Store) -> None:
    engine = store.engine
    engine.ask(AlarmRequest(engine.member_id, "CORRUPT", True))


def open_backend(directory: Path, backend: str) -> Backend:
    return find_backend(backend).open(directory / "snap" / "db", TABLES)


def change_rows(directory: Path, backend: str, change: Callable[[Any], None]) -> None:
    """Do something to the tables that no store does."""
    opened = open_backend(directory, backend)
    with opened.write() as tx:
        change(tx)
    opened.close()


def contents(directory: Path) -> dict[str, bytes]:
    own = {"LOCK", "db-lock", "db-shm", "db-wal"}
    files = [path for path in directory.rglob("*") if path.is_file() and path.name not in own]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def first_row(tx: ReadTx, table: str, start: bytes = b"") -> tuple[bytes, bytes]:
    return tx.scan(table, start, limit=1)[0]


def altered(row: bytes, **changes: Any) -> bytes:
    names = ("key", "create_revision", "mod_revision", "version", "value", "lease")
    parts = dict(zip(names, decode_row(row), strict=True)) | changes
    sub, _ = split_row(row)
    assert sub == 0
    values: Any = (parts[name] for name in names)
    return encode_key_value(*values)


def alter(table: str, start: bytes, **changes: Any) -> Callable[[Any], None]:
    def change(tx: Any) -> None:
        key, row = first_row(tx, table, start)
        tx.put_many(table, [(key, altered(row, **changes))])

    return change
