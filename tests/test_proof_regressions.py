"""Faults that kills, fuzzing and histories have found, each kept as a case."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

import kvstore


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
