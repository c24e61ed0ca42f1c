"""Rows that no store writes, in a file that is sound: an answer or a typed error, whatever is asked."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kvstore.backends import sqlite

import kvstore
from kvstore.backend import find_backend
from kvstore.keyvalue import encode_key_value
from kvstore.mvcc.schema import ALARM, HISTORY, META, TABLES, history_key
from kvstore.store import Store
from tests.harness.watching import open_store

BACKENDS = ("lmdb", "sqlite")
MARKS = (
    b"revision",
    b"applied_index",
    b"compact_scheduled",
    b"compact_finished",
    b"format",
    b"cluster_id",
    b"member_id",
)
ROWS: dict[str, tuple[str, bytes, bytes]] = {
    **{
        f"{mark.decode()} of {len(value)} bytes": (META, mark, value)
        for mark in MARKS
        for value in (b"x", b"\xff" * 40)
    },
    **{f"{mark.decode()} beyond its bits": (META, mark, b"\xff" * 8) for mark in MARKS},
    "an alarm whose name is no text": (ALARM, bytes(8) + b"\xa2\xff", b""),
    "an alarm without a member": (ALARM, b"\xa2", b""),
    "a version that ended at a negative revision": (
        HISTORY,
        history_key(b"k1", 3, 0)[:-16] + struct.pack(">QQ", (1 << 64) - 5, 1 << 63),
        encode_key_value(b"k1", 1 << 63, 1 << 63, 1, b"v", -1),
    ),
    "a version without a key": (HISTORY, b"\0\1" + bytes(16), encode_key_value(b"", 1, 1, 1, b"", 0)),
}

CALLS: list[Callable[[Store], Any]] = [
    lambda store: list(store.scan(prefix=b"")),
    lambda store: list(store.scan(prefix=b"", revision=3)),
    lambda store: list(store.history(b"k1")),
    lambda store: list(store.diff(2, 5)),
    lambda store: store.hash_kv(),
    lambda store: store.alarms(),
    lambda store: store.status(),
    lambda store: store.health(),
    lambda store: store.put(b"k1", b"w"),
    lambda store: store.checkpoint(),
    lambda store: store.compact(4, physical=True),
    lambda store: store.snapshot(),
]


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_no_store_writes_is_an_answer_or_a_typed_error(
    tmp_path: Path, backend: str, what: str
) -> None:
    """Opened for writing and for reading, verified, healed by restore."""
    table, key, value = ROWS[what]
    with open_store(tmp_path, backend, wal_file_size=1000, max_wals=1) as store:
        for number in range(10):
            store.put(b"k%d" % (number % 3), b"v" * 200)
        store.snapshot()
        store.engine.snapshots.release()
    data = tmp_path / "data"
    for snapshot in (data / "snap").glob("*.snap"):  # so that it is not healed with the snapshot
        snapshot.unlink()
    opened = find_backend(backend).open(data / "snap" / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(table, [(key, value)])
    opened.sync()
    opened.close()

    assert not kvstore.verify(data, deep=True).ok
    for read_only in (True, False):
        try:
            store = open_store(tmp_path, backend, read_only=read_only)
        except kvstore.KVStoreError:
            continue
        with store:
            for call in CALLS:
                try:
                    call(store)
                except kvstore.KVStoreError:
                    pass


def test_a_statement_that_takes_long_ends_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits a while for SQLite's reads, and then ends them: their callers get ``StoreClosed``."""
    monkeypatch.setattr(sqlite, "CLOSE_WAIT_SECONDS", 0.05)
    store = open_store(tmp_path, "sqlite")
    store.put(b"k")
    store.checkpoint()
    runs = threading.Event()
    raised: list[BaseException] = []

    def read_for_ever() -> None:
        with store.engine.backend.read() as view:

            def noted() -> bool:
                runs.set()
                return False

            cursor = view._cursor  # type: ignore[attr-defined]  # of SQLite's
            cursor.connection.set_progress_handler(noted, 1000)
            try:
                view._run(  # type: ignore[attr-defined]
                    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
                )
            except kvstore.KVStoreError as error:
                raised.append(error)

    reader = threading.Thread(target=read_for_ever)
    reader.start()
    assert runs.wait(60)
    store.close()
    reader.join(60)
    assert [type(error) for error in raised] == [kvstore.StoreClosed]
    with open_store(tmp_path, "sqlite") as store:
        assert store.count(b"k") == 1
