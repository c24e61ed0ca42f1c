"""Formats of our own files: every one there ever was is opened; steps between them; moves between backends."""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.backend import ReadTx, WriteTx, find_backend
from kvstore.errors import TooOld
from kvstore.layout import DataDir
from kvstore.mvcc.schema import FORMAT_VERSION, LATEST, META, META_FORMAT, TABLES, pack_u64, parse_u64
from kvstore.offline import migration
from kvstore.offline.backend_move import move_backend
from kvstore.offline.migration import Migration
from kvstore.snapshot.transfer import copy_rows
from tests.fixtures.make import BACKENDS, FOLDER, describe, fill

FORMATS = sorted(path.name for path in FOLDER.glob("format-*"))


def unpack(fixture: str, backend: str, into: Path) -> Path:
    with tarfile.open(FOLDER / fixture / f"{backend}.tar.xz") as archive:
        archive.extractall(into, filter="data")
    return into / backend


def expected(fixture: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / fixture / "expected.json").read_text())[what]
    return found


# --- every format there ever was ----------------------------------------------------------------


def test_the_present_format_has_a_fixture() -> None:
    """A change of the format comes with a fixture of it."""
    assert f"format-{FORMAT_VERSION}" in FORMATS


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fixture", FORMATS)
def test_a_data_directory_of_a_fixture_opens(fixture: str, backend: str, tmp_path: Path) -> None:
    """It was left by a crash, with an entry that only its log has: all of it is there, and it can be written to."""
    data_dir = unpack(fixture, backend, tmp_path)
    with kvstore.open(data_dir, backend) as store:
        assert describe(store) == expected(fixture, backend)
        kv = store.get(b"only in the log")
        assert kv is not None and kv.value == b"at first"
        store.put(b"new", b"value")
    with kvstore.open(data_dir, backend) as store:
        assert store.revision == expected(fixture, backend)["revision"] + 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fixture", FORMATS)
def test_a_snapshot_of_a_fixture_opens(fixture: str, backend: str, tmp_path: Path) -> None:
    """Verified, opened in place, and restored."""
    path = tmp_path / "file.snap"
    path.write_bytes(lzma.decompress((FOLDER / fixture / f"{backend}.snap.xz").read_bytes()))
    with kvstore.open_snapshot(path, verify=True) as snapshot:
        assert describe(snapshot) == expected(fixture, f"{backend} snapshot")
    kvstore.restore(path, tmp_path / "restored")
    with kvstore.open(tmp_path / "restored", backend) as store:
        assert store.revision == expected(fixture, f"{backend} snapshot")["revision"]


# --- steps --------------------------------------------------------------------------------------


class RowAdded:
    """A made-up step: the newer format has a row more."""

    def __init__(self, older: int, table: str = META, name: bytes = b"mark") -> None:
        self.older, self.newer = older, older + 1
        self.summary = f"{name.decode()} is added"
        self._table, self._name = table, name

    def up(self, tx: WriteTx) -> None:
        assert tx.get(self._table, self._name) is None
        tx.put_many(self._table, [(self._name, b"there")])

    def down(self, tx: WriteTx) -> None:
        tx.delete_many(self._table, [self._name])

    def hash_kv(self, tx: ReadTx) -> int:
        raise AssertionError("only the present format is hashed here")


class Failing(RowAdded):
    def up(self, tx: WriteTx) -> None:
        super().up(tx)
        raise OSError("the power is gone")


def a_store(tmp_path: Path, backend: str = "lmdb", fmt: int | None = None) -> Path:
    data_dir = tmp_path / "store"
    with kvstore.open(data_dir, backend) as store:
        fill(store)
    if fmt is not None:
        set_format(data_dir, backend, fmt)
    return data_dir


def set_format(data_dir: Path, backend: str, fmt: int) -> None:
    opened = find_backend(backend).open(DataDir.at(data_dir).db, TABLES)
    with opened.write() as tx:
        tx.put_many(META, [(META_FORMAT, pack_u64(fmt))])
    opened.close()


def meta_of(data_dir: Path, backend: str = "lmdb") -> dict[bytes, bytes]:
    opened = find_backend(backend).open(DataDir.at(data_dir).db, TABLES, read_only=True)
    with opened.read() as tx:
        found = dict(tx.scan(META))
    opened.close()
    return found


NEWER = FORMAT_VERSION + 1
STEPS: list[Migration] = [RowAdded(FORMAT_VERSION, name=b"one"), RowAdded(NEWER, name=b"two")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_lead_up_and_down_again(tmp_path: Path, backend: str) -> None:
    """Each step changes rows and mark; down undoes it, and the store is the same as before."""
    data_dir = a_store(tmp_path, backend)
    before = meta_of(data_dir, backend)
    done = migration.migrate(migration.plan(data_dir, NEWER + 1, STEPS))
    assert done == STEPS
    found = meta_of(data_dir, backend)
    assert (found[b"one"], found[b"two"], parse_u64(found[META_FORMAT])) == (b"there", b"there", NEWER + 1)
    with pytest.raises(kvstore.TooNew):
        kvstore.open(data_dir, backend)
    migration.migrate(migration.plan(data_dir, FORMAT_VERSION, STEPS))
    assert meta_of(data_dir, backend) == before
    with kvstore.open(data_dir, backend) as store:
        assert store.get(b"a")


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    """A dry run names the steps and leaves the store alone."""
    data_dir = a_store(tmp_path)
    before = meta_of(data_dir)
    planned = migration.plan(data_dir, NEWER + 1, STEPS)
    assert (planned.found, planned.wanted, planned.steps) == (FORMAT_VERSION, NEWER + 1, tuple(STEPS))
    assert meta_of(data_dir) == before
    assert migration.plan(data_dir, FORMAT_VERSION, STEPS).steps == ()


def test_an_interrupted_step_leaves_no_trace_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """Rows and mark are one transaction: what failed did not happen, what was done before stays done."""
    data_dir = a_store(tmp_path)
    failing: list[Migration] = [STEPS[0], Failing(NEWER, name=b"two")]
    with pytest.raises(OSError, match="power"):
        migration.migrate(migration.plan(data_dir, NEWER + 1, failing))
    found = meta_of(data_dir)
    assert (b"one" in found, b"two" in found, parse_u64(found[META_FORMAT])) == (True, False, NEWER)
    planned = migration.plan(data_dir, NEWER + 1, STEPS)
    assert planned.steps == (STEPS[1],)
    migration.migrate(planned)
    assert parse_u64(meta_of(data_dir)[META_FORMAT]) == NEWER + 1


class FromOld(RowAdded):
    """A step up to the present format, of which the older one can be hashed."""

    lies = 0

    def hash_kv(self, tx: ReadTx) -> int:
        return self.lies


def test_out_of_place_the_original_stays_and_the_copy_is_verified(tmp_path: Path) -> None:
    """A changed copy gets its name only if HashKV is the same; the original is not touched either way."""
    data_dir = a_store(tmp_path, fmt=FORMAT_VERSION - 1)
    set_format(data_dir, "lmdb", FORMAT_VERSION)
    with kvstore.open(data_dir) as store:
        hashed, revision = store.hash_kv().hash, store.revision
    set_format(data_dir, "lmdb", FORMAT_VERSION - 1)
    before = meta_of(data_dir)
    step = FromOld(FORMAT_VERSION - 1)
    with pytest.raises(kvstore.Corruption, match="HashKV"):
        migration.migrate(migration.plan(data_dir, FORMAT_VERSION, [step]), into=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    step.lies = hashed
    migration.migrate(migration.plan(data_dir, FORMAT_VERSION, [step]), into=tmp_path / "new")
    assert meta_of(data_dir) == before
    with kvstore.open(tmp_path / "new") as store:
        assert (store.hash_kv().hash, store.revision) == (hashed, revision)
        store.put(b"goes", b"on")


def test_refusals_are_told_apart(tmp_path: Path) -> None:
    """Not ours, too old, too new, damaged, in use, not closed cleanly: each is its own error."""
    data_dir = a_store(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(kvstore.NotAStore):
        migration.plan(tmp_path / "folder")
    set_format(data_dir, "lmdb", 0)
    with pytest.raises(TooOld):
        migration.plan(data_dir, steps=STEPS)
    set_format(data_dir, "lmdb", 99)
    with pytest.raises(kvstore.TooNew):
        migration.plan(data_dir, steps=STEPS)
    with pytest.raises(kvstore.TooNew):
        kvstore.open(data_dir)
    set_format(data_dir, "lmdb", FORMAT_VERSION)
    planned = migration.plan(data_dir, NEWER, STEPS)
    with kvstore.open(data_dir, background=False) as store:
        with pytest.raises(kvstore.StoreLocked):
            migration.migrate(planned)
        store.put(b"only in", b"the log")
        crashed = tmp_path / "crashed"
        shutil.copytree(data_dir, crashed)
    with pytest.raises(kvstore.OpenError, match="not closed cleanly"):
        migration.migrate(migration.plan(crashed, NEWER, STEPS))
    opened = find_backend("lmdb").open(DataDir.at(data_dir).db, TABLES)
    with opened.write() as tx:
        tx.delete_many(META, [META_FORMAT])
    opened.close()
    with pytest.raises(kvstore.Corruption):
        migration.plan(data_dir)


def test_a_store_of_an_older_format_is_not_opened_by_mistake(tmp_path: Path) -> None:
    """Opening says that it is too old, and how to bring it forward."""
    data_dir = a_store(tmp_path, fmt=0)
    with pytest.raises(TooOld, match="migrate"):
        kvstore.open(data_dir)


# --- moving between backends ----------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [("lmdb", "sqlite"), ("sqlite", "lmdb")])
def test_a_store_moves_to_another_backend(tmp_path: Path, old: str, new: str) -> None:
    """Every kept revision, lease and id is the same there, nothing of the old file is left, and writing goes on."""
    data_dir = a_store(tmp_path, old)
    with kvstore.open(data_dir, old) as store:
        before = describe(store)
    moved = move_backend(data_dir, new)
    assert (moved.old_backend, moved.new_backend, moved.revision) == (old, new, before["revision"])
    with pytest.raises(kvstore.WrongStore):
        kvstore.open(data_dir, old)
    with kvstore.open(data_dir, new) as store:
        assert describe(store) == before
        store.put(b"new", b"value")
    assert [path.name for path in DataDir.at(data_dir).snap.iterdir() if path.suffix == ".tmp"] == []
    move_backend(data_dir, old)
    with kvstore.open(data_dir, old) as store:
        assert store.get(b"new")


def test_a_move_takes_what_only_the_log_has(tmp_path: Path) -> None:
    """A store that crashed is recovered first."""
    data_dir = unpack(FORMATS[-1], "lmdb", tmp_path)
    move_backend(data_dir, "sqlite")
    with kvstore.open(data_dir, "sqlite") as store:
        assert describe(store) == expected(FORMATS[-1], "lmdb")


def test_a_move_that_fails_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage on the way is noticed before the swap; no temporary file stays."""
    data_dir = a_store(tmp_path)
    with kvstore.open(data_dir) as store:
        before = describe(store)

    def lossy(source: Any, target: Any, progress: Any) -> None:
        copy_rows(source, target, progress)
        with target.write() as tx:
            tx.delete_many(LATEST, [b"a"])

    monkeypatch.setattr("kvstore.offline.backend_move.copy_rows", lossy)
    with pytest.raises(kvstore.Corruption):
        move_backend(data_dir, "sqlite")
    with kvstore.open(data_dir, "lmdb") as store:
        assert describe(store) == before
    assert not list(DataDir.at(data_dir).snap.glob("*.tmp*"))


def test_moves_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """To itself, to a backend that keeps nothing, of no store, of one in use."""
    data_dir = a_store(tmp_path)
    for backend in ("lmdb", "memory"):
        with pytest.raises(kvstore.BadOption):
            move_backend(data_dir, backend)
    with pytest.raises(kvstore.NotAStore):
        move_backend(tmp_path, "sqlite")
    with kvstore.open(data_dir), pytest.raises(kvstore.StoreLocked):
        move_backend(data_dir, "sqlite")
