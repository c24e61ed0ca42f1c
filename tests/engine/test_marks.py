"""The marks of a store: what is missing, what is written is read again, and what no version ever wrote is damage."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvstore
from kvstore.backend import find_backend
from kvstore.errors import Corruption, TooNew
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks, compacted_at
from kvstore.mvcc.schema import (
    FORMAT_VERSION,
    META,
    META_APPLIED_INDEX,
    META_CLUSTER_ID,
    META_COMPACT_SCHEDULED,
    META_FORMAT,
    META_REVISION,
    TABLES,
    pack_u64,
)
from kvstore.mvcc.state import State

BACKENDS = ("lmdb", "sqlite", "memory")
every = pytest.mark.parametrize("backend", BACKENDS)
MARKS = Marks(
    format=FORMAT_VERSION,
    cluster_id=2**64 - 1,
    member_id=7,
    name="änne",
    applied_index=12,
    revision=2**62,
    compacted=0,
    finished=0,
)


@every
@pytest.mark.parametrize("marks", [Marks(), MARKS], ids=["of nothing", "of all"])
def test_what_is_written_is_read_again(tmp_path: Path, backend: str, marks: Marks) -> None:
    """Rows in, marks out; other rows of the table are none of them."""
    opened = find_backend(backend).open(tmp_path / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(META, [*marks.rows(), (b"etcd/members/1", b"{}")])
    with opened.read() as tx:
        assert Marks.read(tx) == marks == Marks.of(dict(tx.scan(META)))
        assert compacted_at(tx) == marks.compacted
    opened.close()


@every
def test_a_state_of_nothing_is_that_of_a_store_without_a_write(tmp_path: Path, backend: str) -> None:
    """As in etcd: revision 1, never compacted, no entry."""
    opened = find_backend(backend).open(tmp_path / "db", TABLES)
    state = State(opened)
    assert state.marks == Marks()
    assert (state.head, state.published, state.index, state.applied_index) == (1, 1, 0, 0)
    assert (state.compacted, state.compact_finished) == (-1, -1)
    opened.close()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (META_REVISION, b"\xff" * 8, "'revision' is out of range"),
        (META_APPLIED_INDEX, b"\x80" + bytes(7), "'applied_index' is out of range"),
        (META_COMPACT_SCHEDULED, bytes(7), "7 bytes instead of 8"),
        (META_CLUSTER_ID, b"", "0 bytes instead of 8"),
    ],
)
def test_a_mark_that_nobody_wrote_is_damage(name: bytes, value: bytes, reason: str) -> None:
    """Its name or its length is told."""
    with pytest.raises(Corruption, match=reason):
        Marks.of({name: value})


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "read-only"])
def test_a_store_of_a_later_format_is_not_read(tmp_path: Path, backend: str, read_only: bool) -> None:
    """Regression: opened read-only, its rows were read as if they were of ours."""
    with kvstore.open(tmp_path / "data", backend) as store:
        store.put(b"k", b"v")
    opened = find_backend(backend).open(DataDir.at(tmp_path / "data").db, TABLES)
    with opened.write() as tx:
        tx.put_many(META, [(META_FORMAT, pack_u64(FORMAT_VERSION + 1))])
    opened.close()
    with pytest.raises(TooNew, match=f"has format {FORMAT_VERSION + 1}"):
        kvstore.open(tmp_path / "data", backend, read_only=read_only)
