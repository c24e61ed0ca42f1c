"""Rows that the store only carries, for who serves it as an etcd: written as any write is, and never a mark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import BadArgument, Corruption, RequestError, Store, TooNew
from kvstore.backend import find_backend
from kvstore.model import RowsRequest
from kvstore.mvcc import effects
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, META_CARRIED, TABLES
from kvstore.mvcc.state import State
from tests.harness.watching import BACKENDS, open_store, settle

NAME = META_CARRIED + b"users/bob"
Rows = Mapping[bytes, bytes | None]


def setting(rows: Rows, response: Any = None) -> RowsRequest:
    return RowsRequest(lambda _: (rows, response))


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


def carried(store: Any, prefix: bytes = META_CARRIED) -> dict[bytes, bytes]:
    rows: Mapping[bytes, bytes] = store.engine.carried
    return {name: row for name, row in rows.items() if name.startswith(prefix)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_carried_rows_survive_a_crash_and_a_restart(tmp_path: Path, backend: str) -> None:
    """Out of the log and out of the backend; no revision is made; what is deleted stays deleted."""
    other = META_CARRIED + b"roles/r"
    with open_store(tmp_path, backend) as store:
        assert store.engine.ask(setting({NAME: b"1", other: b""}, "done")) == "done"
        settle(store)
        store.engine.ask(setting({NAME: b"2", other: None, META_CARRIED + b"x": b"3"}))
        expected = {NAME: b"2", META_CARRIED + b"x": b"3"}
        assert carried(store) == expected and store.revision == 1
        assert carried(store, META_CARRIED + b"users/") == {NAME: b"2"}
        shutil.copytree(tmp_path / "data", tmp_path / "crashed" / "data")
    for place in (tmp_path, tmp_path / "crashed"):
        with open_store(place, backend) as store:
            assert carried(store) == expected
            settle(store)
            assert carried(store) == expected
        with kvstore.open(place / "data", backend, read_only=True) as reader:
            assert carried(reader) == expected
        if backend != "memory":
            assert kvstore.verify(place / "data", deep=True, backend=backend).ok


def test_a_change_is_decided_where_it_is_planned(store: Store) -> None:
    """It sees all that is planned before it, durable or not; one that changes nothing is not logged."""
    engine = store.engine

    def append(rows: Mapping[bytes, bytes]) -> tuple[Rows, int]:
        value = rows.get(NAME, b"") + b"x"
        return {NAME: value}, len(value)

    with engine.writer.planning:
        tickets = [engine.ask_soon(RowsRequest(append), lambda _: None) for _ in range(5)]
    engine.barrier()
    assert [ticket.response for ticket in tickets if ticket] == [1, 2, 3, 4, 5]
    index = engine.state.index
    engine.ask(setting({NAME: b"xxxxx"}))
    assert engine.state.index == index


def test_what_decide_raises_refuses_it(store: Store) -> None:
    """As any refusal: nothing is changed, and the next is planned as if there had been none."""

    def refuse(_: object) -> Any:
        raise RequestError("no such user")

    with pytest.raises(RequestError, match="no such user"):
        store.engine.ask(RowsRequest(refuse))
    for name in (META_APPLIED_INDEX, b"other"):
        with pytest.raises(BadArgument, match="etcd/"):
            store.engine.ask(setting({NAME: b"1", name: b"2"}))
    with pytest.raises(TypeError):
        store.engine.ask(RowsRequest(None))  # type: ignore[arg-type]
    assert carried(store) == {} and store.engine.state.index == 0


def test_readers_keep_the_rows_that_they_have(store: Store) -> None:
    """A change makes other rows: whoever looks at some sees them as they were."""
    before = store.engine.carried
    store.engine.ask(setting({NAME: b"1"}))
    between = store.engine.carried
    store.engine.ask(setting({NAME: b"2"}))
    assert (before, between, store.engine.carried) == ({}, {NAME: b"1"}, {NAME: b"2"})


@pytest.mark.parametrize("backend", BACKENDS)
def test_terms_are_counted_through_restarts_and_crashes(tmp_path: Path, backend: str) -> None:
    """2 at first, then one more each time."""
    with open_store(tmp_path, backend) as store:
        assert store.engine.begin_term() == 2
        shutil.copytree(tmp_path / "data", tmp_path / "crashed" / "data")
    for place in (tmp_path, tmp_path / "crashed"):
        for term in (3, 4):
            with open_store(place, backend) as store:
                assert store.engine.begin_term() == term


def test_a_snapshot_has_them_and_a_restore_replays_them(tmp_path: Path) -> None:
    """A file has those of its moment; a data directory those of its log as well."""
    with open_store(tmp_path, "lmdb") as store:
        store.engine.ask(setting({NAME: b"1"}))
        store.snapshot(tmp_path / "s.snap")
        store.engine.ask(setting({NAME: b"2"}))
        store.put(b"k")
    with kvstore.open_snapshot(tmp_path / "s.snap") as snapshot:
        assert carried(snapshot) == {NAME: b"1"}
    for source, value in (("s.snap", b"1"), ("data", b"2")):
        kvstore.restore(tmp_path / source, tmp_path / f"of-{source}")
        with kvstore.open(tmp_path / f"of-{source}") as store:
            assert carried(store) == {NAME: value}


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_carried_row_that_differs_is_found(tmp_path: Path, backend: str) -> None:
    """Changed, lost or added behind the store's back: a deep verification rebuilds it from the log."""
    with open_store(tmp_path, backend) as store:
        store.engine.ask(setting({NAME: b"1"}))
    changes: list[tuple[bytes, bytes | None]] = [(NAME, b"2"), (NAME, None), (META_CARRIED + b"x", b"")]
    for name, value in changes:
        opened = find_backend(backend).open(tmp_path / "data" / "snap" / "db", TABLES)
        with opened.write() as tx:
            tx.put_many(META, [(NAME, b"1")])
            if value is None:
                tx.delete_many(META, [name])
            else:
                tx.put_many(META, [(name, value)])
        opened.close()
        report = kvstore.verify(tmp_path / "data", deep=True, backend=backend)
        assert [(finding.table, finding.key) for finding in report.findings] == [(META, name)]


def test_effects_that_are_not_known_and_rows_that_are_marks(tmp_path: Path) -> None:
    """Of a later version, and damaged: two errors."""
    state = State(find_backend("memory").open(tmp_path / "none", TABLES))
    effects.apply(effects.row(NAME, b"1") + effects.row(NAME, None), state, Lessor())
    assert state.carried == {}
    with pytest.raises(Corruption, match="applied_index"):
        effects.apply(effects.row(META_APPLIED_INDEX, b"1"), state, Lessor())
    with pytest.raises(TooNew, match=f"kind {effects.ROW + 1}"):
        effects.apply(b"\x62\x00", state, Lessor())
