"""Faults that kills, fuzzing and histories have found, each kept as a case."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import kvstore
from kvstore.backend import find_backend
from kvstore.errors import Corruption
from kvstore.mvcc import effects
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import (
    CHANGES,
    HISTORY,
    LATEST,
    LEASE,
    META,
    META_REVISION,
    TABLES,
    revision_key,
)
from kvstore.mvcc.state import State


def test_history_ends_at_the_compaction_before_its_rows_are_gone(tmp_path: Path) -> None:
    """The versions of a key are the same before and after the rows of a compaction are deleted."""
    with kvstore.open(tmp_path / "store", background=False) as store:
        for number in range(4):
            store.put(b"k", b"%d" % number)
        store.put(b"gone")
        store.delete(b"gone")
        store.checkpoint()
        store.compact(store.revision)
        found = {key: [kv.mod_revision for kv in store.history(key)] for key in (b"k", b"gone")}
        assert found == {b"k": [5], b"gone": []}
        store.checkpoint()
        store.engine.compaction.run()
        assert {key: [kv.mod_revision for kv in store.history(key)] for key in found} == found


def test_a_kill_while_the_backend_is_made_leaves_a_store_that_opens(tmp_path: Path) -> None:
    """An LMDB file that was made and never committed to is no other application's."""
    (tmp_path / "snap").mkdir(mode=0o700)
    lmdb.open(str(tmp_path / "snap" / "db"), subdir=False, max_dbs=64).close()
    assert (tmp_path / "snap" / "db").stat().st_size
    with kvstore.open(tmp_path, "lmdb") as store:
        store.put(b"k", b"v")
    with kvstore.open(tmp_path, "lmdb") as store:
        assert store.get(b"k") is not None


def test_an_lmdb_file_of_another_application_is_not_taken_over(tmp_path: Path) -> None:
    """One that holds anything at all without our mark is refused."""
    (tmp_path / "snap").mkdir(mode=0o700)
    with (
        lmdb.open(str(tmp_path / "snap" / "db"), subdir=False) as environment,
        environment.begin(write=True) as tx,
    ):
        tx.put(b"theirs", b"1")
    with pytest.raises(kvstore.NotAStore):
        kvstore.open(tmp_path, "lmdb")


# --- damage that a backend does not notice ------------------------------------------------------------

OPEN_AND_READ = """
import sys, kvstore
with kvstore.open(sys.argv[1], background=False) as store:
    for revision in (2, 500, store.revision):
        assert len(list(store.scan(prefix=b"", revision=revision))) == min(revision - 1, 600)
"""


def test_a_damaged_backend_of_a_killed_store_does_not_end_the_process(tmp_path: Path) -> None:
    """A branch page of LMDB that points to itself: seen before it is mapped, and rebuilt from the log."""
    with kvstore.open(tmp_path / "live", background=False) as store:
        for number in range(900):
            store.put(b"key %d" % (number % 600), b"value %d" % number)
        store.checkpoint()
        shutil.copytree(tmp_path / "live", tmp_path / "killed")
    path = tmp_path / "killed" / "snap" / "db"
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        at = page * 4096
        if data[at + 10 : at + 12] == b"\1\0":
            node = at + int.from_bytes(data[at + 18 : at + 20], "little")
            data[node : node + 4] = page.to_bytes(4, "little")
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AND_READ, str(tmp_path / "killed")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert path.with_name("db.broken").exists()


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize(
    ("table", "key", "value", "read"),
    [
        (CHANGES, revision_key(3, 0)[:-1], b"uk", lambda store: store.hash_kv()),
        (CHANGES, revision_key(3, 7), b"", lambda store: store.hash_kv()),
        (CHANGES, revision_key(3, (1 << 64) - 1), b"uanother", lambda store: store.hash_kv()),
        (HISTORY, b"k\0\1\1", b"\x0a\1k", lambda store: list(store.history(b"k"))),
        (LATEST, b"k", b"\xff", lambda store: store.get(b"k")),
        (LEASE, b"\0" * 8, b"\x0a\xff", lambda store: store.leases()),
    ],
)
def test_a_damaged_row_is_corruption(
    tmp_path: Path, backend: str, table: str, key: bytes, value: bytes, read: Callable[[Any], object]
) -> None:
    """Whatever stands in a row: reading it is a typed error, whatever is read."""
    with kvstore.open(tmp_path / "store", backend, background=False) as store:
        for number in range(4):
            store.put(b"k", b"%d" % number)
    opened = find_backend(backend).open(tmp_path / "store" / "snap" / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(table, [(key, value)])
    opened.close()
    with pytest.raises(Corruption), kvstore.open(tmp_path / "store", backend, background=False) as store:
        read(store)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("value", [b"\xff" * 8, b"\1" * 20])
def test_a_mark_that_was_never_written_is_healed_at_open(tmp_path: Path, backend: str, value: bytes) -> None:
    """A revision beyond all revisions is damage of the backend, which is made anew from the log."""
    with kvstore.open(tmp_path / "store", backend, background=False) as store:
        store.put(b"k", b"v")
    opened = find_backend(backend).open(tmp_path / "store" / "snap" / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(META, [(META_REVISION, value)])
    opened.close()
    with kvstore.open(tmp_path / "store", backend, background=False) as store:
        assert store.revision == 2 and store.get(b"k") is not None


@pytest.mark.parametrize("value", [None, 7, 1.5, "text"])
def test_a_row_of_sqlite_that_is_not_bytes_is_corruption(tmp_path: Path, value: object) -> None:
    """A damaged page may hold a value of another type (regression: TypeError)."""
    apsw = pytest.importorskip("apsw")
    kind, path = find_backend("sqlite"), tmp_path / "db"
    kind.open(path, TABLES).close()
    ours = "SELECT sql FROM sqlite_schema WHERE name = 'latest'"
    (sql,) = apsw.Connection(str(path)).execute(ours).fetchall()[0]
    for text, statement in (("CREATE TABLE latest (k PRIMARY KEY, v) WITHOUT ROWID", ""), (sql, "INSERT")):
        connection = apsw.Connection(str(path))
        if statement:
            connection.execute("INSERT INTO latest VALUES (?, ?)", (b"k", value))
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'latest'", (text,))
        connection.close()
    backend = kind.open(path, TABLES, read_only=True)
    try:
        with pytest.raises(Corruption), backend.read() as tx:
            tx.scan(LATEST)
        if value is not None:  # which looks as if there were no such row
            with pytest.raises(Corruption):
                backend.get(LATEST, b"k")
    finally:
        backend.close()


@pytest.mark.parametrize(
    "entry",
    [
        effects.revision(3) + effects.put(b"\x0a\1k\x10\3\x18\3\x20\1"),
        effects.revision((1 << 64) - 1) + effects.delete(b"k"),
        effects.revision(1) + effects.delete(b"k"),
        effects.delete(b"k"),
        effects.compact(2),
        effects.compact(-1),
    ],
)
def test_an_entry_that_nobody_wrote_is_corruption(tmp_path: Path, entry: bytes) -> None:
    """Revisions grow by one, and nothing is compacted that is not there yet, whatever a log says."""
    state = State(find_backend("memory").open(tmp_path / "none", TABLES))
    with pytest.raises(Corruption):
        effects.apply(entry, state, Lessor())
    assert (state.head, state.index) == (1, 0)
