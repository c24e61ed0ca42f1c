"""Stores looked at without what one has to know, or at an end: what is said of them is true, and nothing is made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import get, hashkv, migrate, put, status
from kvstore.tools import verify as verify_tool

import kvstore
from kvstore import BadOption
from kvstore.mvcc.schema import META, META_REVISION, REVISION_END, TABLES, pack_u64
from kvstore.offline import migration
from kvstore.offline.backend_move import move_backend
from kvstore.options import Options
from kvstore.recognition import backend_of
from kvstore.verification import heal, verify
from tests.harness.command_line import CommandLine, command_line
from tests.harness.watching import BACKENDS, open_store

FILES = ("lmdb", "sqlite")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    tools = (get, hashkv, migrate, put, status, verify_tool)
    return command_line(monkeypatch, capfd, *[tool.register for tool in tools])


def tree(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


def memory_store(path: Path, *, released: bool, marked: bool = True) -> Path:
    """A store of the memory backend, whose log begins with the first entry, or after its snapshot."""
    options: dict[str, Any] = {"wal_file_size": 5000, "max_wals": 1} if released else {}
    with open_store(path, "memory", **options) as store:
        for number in range(200):
            store.put(b"k%d" % (number % 9), b"v" * 100)
        if released:
            store.snapshot()
            store.engine.snapshots.release()
    if not marked:  # as it was made before there was a mark
        (path / "data" / "snap" / "db").unlink()
    return path / "data"


@pytest.mark.parametrize(("released", "marked"), [(False, True), (True, True), (True, False)])
def test_a_memory_store_is_known_by_its_files(tmp_path: Path, released: bool, marked: bool) -> None:
    """Opened as another kind it is refused by name, for writing and reading, and stays what it is."""
    data = memory_store(tmp_path, released=released, marked=marked)
    before = tree(data)
    for options in ({"backend": "lmdb"}, {"backend": "sqlite"}, {"backend": "lmdb", "read_only": True}):
        with pytest.raises(kvstore.WrongStore, match="a store on memory"):
            kvstore.open(data, **options)
    assert tree(data) == before
    assert verify(data).ok
    with kvstore.open(data, "memory", read_only=True) as store:
        assert store.revision == 201 and store.count(prefix=b"k") == 9
    with kvstore.open(data, "memory") as store:
        assert store.revision == 201 and store.put(b"k").revision == 202
    kind = backend_of(store.engine.directory)  # type: ignore[arg-type]  # it has one
    assert kind is not None and kind.name == "memory"


@pytest.mark.parametrize("released", [False, True])
def test_the_command_line_needs_no_name_for_it(tmp_path: Path, cli: CommandLine, released: bool) -> None:
    """It reads, writes and verifies what lies there."""
    data = memory_store(tmp_path, released=released)
    for words in (
        ["get", "k1"],
        ["status"],
        ["verify"],
        ["hashkv"],
        ["put", "k1", "x"],
        ["verify", "--heal"],
    ):
        assert cli("--data-dir", str(data), *words)[0] == 0, words
    with kvstore.open(data, "memory") as store:
        assert store.revision == 202


def test_a_memory_store_has_no_file_to_work_on(tmp_path: Path) -> None:
    """Moving, migrating and healing a backend's file say so."""
    data = memory_store(tmp_path, released=True)
    before = tree(data)
    with pytest.raises(BadOption, match="memory"):
        move_backend(data, "sqlite")
    with pytest.raises(kvstore.NotAStore, match="memory"):
        migration.plan(data)
    with pytest.raises(kvstore.OpenError, match="memory"):
        heal(data)
    assert tree(data) == before


def test_a_restored_memory_store_is_known_too(tmp_path: Path) -> None:
    """Restored from a snapshot of another backend, or from its own directory, without a name."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"v")
        store.snapshot(tmp_path / "a.snap")
    assert kvstore.restore(tmp_path / "a.snap", tmp_path / "first", backend="memory").backend == "memory"
    assert kvstore.restore(tmp_path / "first", tmp_path / "second").backend == "memory"
    for folder in ("first", "second"):
        with pytest.raises(kvstore.WrongStore, match="memory"):
            kvstore.open(tmp_path / folder, "lmdb")
        with kvstore.open(tmp_path / folder) as store:
            assert store.count(b"k") == 1


# --- a log elsewhere -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", FILES)
def test_a_store_with_its_log_elsewhere_is_moved(tmp_path: Path, cli: CommandLine, backend: str) -> None:
    """``migrate backend`` takes the option that opening takes, and says so where it is missing."""
    other = FILES[backend == "lmdb"]
    with open_store(tmp_path, backend, wal_dir=tmp_path / "log") as store:
        store.put(b"k", b"v")
    data = tmp_path / "data"
    before = tree(data)
    with pytest.raises(kvstore.KVStoreError, match="wal_dir"):
        move_backend(data, other)
    assert tree(data) == before
    where = ("--data-dir", str(data), "--set", f"wal_dir={tmp_path / 'log'}")
    assert cli(*where, "migrate", "backend", "--to", other)[0] == 0
    with open_store(tmp_path, other, wal_dir=tmp_path / "log") as store:
        assert store.count(b"k") == 1 and store.put(b"k").revision == 3


@pytest.mark.parametrize("backend", FILES)
def test_a_format_is_migrated_with_the_log_elsewhere(tmp_path: Path, backend: str) -> None:
    """Likewise ``migrate format``."""
    with open_store(tmp_path, backend, wal_dir=tmp_path / "log") as store:
        store.put(b"k", b"v")
    planned = migration.plan(tmp_path / "data")
    with pytest.raises(kvstore.OpenError, match="wal_dir"):
        migration.migrate(planned)
    planned = migration.plan(tmp_path / "data", wal_dir=tmp_path / "log")
    migration.migrate(planned, into=tmp_path / "copy")
    with kvstore.open(tmp_path / "copy", backend) as store:
        assert store.count(b"k") == 1


# --- the end of revisions --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bump", [1 << 62, (1 << 63) - 4, (1 << 63) - 1, 1 << 64, -1, True, "5"], ids=str)
def test_a_bump_to_the_end_of_revisions_is_refused(tmp_path: Path, backend: str, bump: Any) -> None:
    """No store is made that could not be written, or opened."""
    with open_store(tmp_path, backend) as store:
        store.put(b"a", b"1")
        store.snapshot(tmp_path / "a.snap")
    with pytest.raises(BadOption, match="bump_revision"):
        kvstore.restore(tmp_path / "a.snap", tmp_path / "b", bump_revision=bump, mark_compacted=True)
    assert not (tmp_path / "b").exists() and not (tmp_path / "b.restoring").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_bump_leaves_a_store_that_lives(tmp_path: Path, backend: str) -> None:
    """Up to half of what there is."""
    with open_store(tmp_path, backend) as store:
        store.put(b"a", b"1")
        store.snapshot(tmp_path / "a.snap")
    kvstore.restore(tmp_path / "a.snap", tmp_path / "b", bump_revision=1 << 61, mark_compacted=True)
    for number in range(2):
        with kvstore.open(tmp_path / "b", backend, background=False) as store:
            assert store.put(b"k").revision == (1 << 61) + 3 + number
            assert [kv.key for kv in store.scan(prefix=b"")] == [b"a", b"k"]


@pytest.mark.parametrize("backend", FILES)
@pytest.mark.parametrize("revision", [REVISION_END, (1 << 63) - 2, (1 << 63) - 1])
def test_a_store_at_the_end_of_revisions_is_read_and_not_written(
    tmp_path: Path, backend: str, revision: int
) -> None:
    """Every write is refused with a typed error, before it could make revisions that do not fit; nothing is damaged."""
    with open_store(tmp_path, backend) as store:
        store.put(b"k", b"v", lease=store.grant_lease(60).id)
    set_revision(tmp_path / "data", backend, revision)
    for _ in range(2):
        with kvstore.open(tmp_path / "data", backend) as store:
            for write in (
                lambda: store.put(b"k"),
                lambda: store.delete(b"k"),
                lambda: store.grant_lease(60),
                lambda: store.compact(revision),
                lambda: store.txn(success=[kvstore.ops.put(b"k")]),
            ):
                with pytest.raises(kvstore.RevisionsExhausted):
                    write()
            assert store.revision == revision and store.count(b"k") == 1
            assert (
                list(store.scan(prefix=b"")) and list(store.history(b"k")) and store.at(revision).count(b"k")
            )
            with store.watch(b"k", start_revision=revision) as watch:
                watch.request_progress()


@pytest.mark.parametrize("backend", FILES)
@pytest.mark.parametrize("revision", [1 << 63, (1 << 64) - 1])
def test_a_revision_that_no_store_writes_is_corruption(tmp_path: Path, backend: str, revision: int) -> None:
    """It has 64 bits."""
    with open_store(tmp_path, backend) as store:
        store.put(b"k")
    shutil.copytree(tmp_path / "data", tmp_path / "kept")
    set_revision(tmp_path / "data", backend, revision)
    for path in (tmp_path / "data" / "wal").iterdir():  # so that it is not made anew of its log
        path.rename(path.with_name(path.name.replace("0001.wal", "0002.wal")))
    with pytest.raises(kvstore.Corruption, match="revision"):
        kvstore.open(tmp_path / "data", backend)


def set_revision(data: Path, backend: str, revision: int) -> None:
    from kvstore.backend import find_backend

    opened = find_backend(backend).open(data / "snap" / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(META, [(META_REVISION, pack_u64(revision))])
    opened.sync()
    opened.close()


@pytest.mark.parametrize(
    "bad", [{"cluster_id": -1}, {"cluster_id": 1 << 64}, {"member_id": -5}, {"name": "n" * 2000}], ids=str
)
def test_an_identity_that_does_not_fit_is_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    """When a store is opened, and when one is restored."""
    with pytest.raises(BadOption, match=next(iter(bad))):
        Options(**bad)
    with open_store(tmp_path, "lmdb") as store:
        store.snapshot(tmp_path / "a.snap")
    with pytest.raises(BadOption, match=next(iter(bad))):
        kvstore.restore(tmp_path / "a.snap", tmp_path / "b", **bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"to_revision": -1},
        {"to_revision": "5"},
        {"to_time": -1.0},
        {"to_time": float("nan")},
        {"to_time": 1e300},
    ],
    ids=str,
)
def test_a_point_that_is_none_is_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    """A restore goes to a revision or a time."""
    with open_store(tmp_path, "lmdb") as store:
        store.snapshot(tmp_path / "a.snap")
    with pytest.raises(BadOption, match=next(iter(bad))):
        kvstore.restore(tmp_path / "a.snap", tmp_path / "b", **bad)
