"""What is particular to SQLite: its connections, its log beside the file, and the schema of a file that is not ours."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import apsw
import pytest
from kvstore.backends import sqlite
from kvstore.backends.sqlite import SQLiteBackend

from kvstore.errors import (
    Corruption,
    MissingDependency,
    StoreLocked,
)
from tests.backends.files import KINDS, TABLES, copy_of, put


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An SQLite that can corrupt databases in WAL mode is not used."""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(MissingDependency, match=r"3\.51\.3"):
        SQLiteBackend.open(tmp_path / "db", TABLES)
    assert not (tmp_path / "db").exists()


def test_an_sqlite_without_carray_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An SQLite that lacks the extension which looks up many keys at once is refused at open, not at the first read."""
    monkeypatch.setattr(apsw, "compile_options", ("THREADSAFE=1",))
    with pytest.raises(MissingDependency, match="carray"):
        SQLiteBackend.open(tmp_path / "db", TABLES)


def test_a_schema_that_could_run_statements_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trigger smuggled into an SQLite file is found at open, which then waits for no reader: there is none."""
    monkeypatch.setattr(sqlite, "CLOSE_WAIT_SECONDS", 1e6)
    path = copy_of(SQLiteBackend, tmp_path / "copy")
    connection = apsw.Connection(os.fspath(path))
    connection.execute("CREATE TRIGGER t AFTER INSERT ON latest BEGIN DELETE FROM meta; END")
    connection.close()
    with pytest.raises(Corruption, match="not a table of kvstore"):
        SQLiteBackend.open(path, TABLES)


def test_threads_that_end_leave_no_connections(tmp_path: Path) -> None:
    """There are as many connections as there were reads at one time, however many threads there were."""
    db = SQLiteBackend.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    for _ in range(30):
        thread = threading.Thread(target=db.get, args=("latest", b"a"))
        thread.start()
        thread.join()
    assert len(db._connections) == 2  # the writer's, and one that every thread borrowed
    db.close()


def test_no_read_pins_the_log(tmp_path: Path) -> None:
    """After any kind of read the whole log can move into the file: no statement was left half-way."""
    db = SQLiteBackend.open(tmp_path / "db", TABLES)
    put(db, [(b"%d" % n, b"x") for n in range(100)])
    db.get("latest", b"1")
    with db.read() as view:
        view.get("latest", b"1")
        view.get_many("latest", [b"1", b"2"])
        view.scan("latest", limit=3)
        view.count("latest", b"5")
    put(db, [(b"new", b"x")])
    assert db._writer is not None
    total, moved = db._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    assert total == moved > 0
    db.close()


def test_sync_keeps_the_log_short(tmp_path: Path) -> None:
    """With a sync after every batch the log does not grow with what was written."""
    db = SQLiteBackend.open(tmp_path / "db", TABLES)
    for batch in range(30):
        put(db, [(b"%d" % n, b"%d" % batch * 300) for n in range(300)])
        db.sync()
    assert (tmp_path / "db-wal").stat().st_size < 2 << 20
    db.close()
    assert not (tmp_path / "db-wal").exists()


def test_a_name_of_a_table_is_only_a_name(tmp_path: Path) -> None:
    """Names with quotes and spaces are tables like any other."""
    table = 'a "quoted"; DROP TABLE latest'
    for kind in KINDS:
        db = kind.open(tmp_path / kind.name, [*TABLES, table])
        with db.write() as tx:
            tx.put_many(table, [(b"a", b"1")])
        assert db.get(table, b"a") == b"1"
        assert db.get("latest", b"a") is None
        db.close()


def test_an_sqlite_log_that_is_still_needed_is_not_stale(tmp_path: Path) -> None:
    """While another process holds an old view, the log keeps commits, and removing it is refused."""
    path = tmp_path / "db"
    db = SQLiteBackend.open(path, TABLES)
    put(db, [(b"a", b"1")])
    other = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM latest").fetchall()
    put(db, [(b"b", b"2")])
    db.close()
    with pytest.raises(StoreLocked):
        SQLiteBackend.stale_helpers(path)
    other.close(True)
    db = SQLiteBackend.open(path, TABLES)
    assert db.get("latest", b"b") == b"2"
    db.close()
