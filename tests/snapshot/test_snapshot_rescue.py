"""Opening a store whose backend is damaged or gone: from the newest good snapshot, the whole log, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store
from tests.harness.plain import value_of

both = pytest.mark.parametrize("backend", ("lmdb", "sqlite"))


def open_store(path: Path, backend: str, **options: Any) -> Store:
    return Store(open_engine(path, Options(backend=backend, **{"background": False, **options})))


def write_life(path: Path, backend: str, **options: Any) -> kvstore.model.HashKVResponse:
    """Writes, a snapshot, more writes, a second snapshot, more writes; the hash at the end."""
    with open_store(path, backend, **options) as store:
        for part in range(3):
            for number in range(30):
                store.put(b"key-%d" % (number % 9), b"%d/%d" % (part, number) * 10)
            store.delete(b"key-%d" % part)
            if part < 2:
                store.snapshot()
        store.engine.snapshots.release()
        return store.hash_kv()


def damage(path: Path, at: int = 0, length: int = 16_000) -> None:
    """Overwrite a part of the file."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xde\xad" * (length // 2))


@both
@pytest.mark.parametrize("how", ["overwritten", "emptied", "cut short", "missing"])
def test_a_lost_backend_comes_back_from_a_snapshot_and_the_log(
    tmp_path: Path, backend: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is missing afterwards, the log says so loudly, and the damaged file is kept."""
    expected = write_life(tmp_path, backend, wal_file_size=1000, max_wals=1)
    db = tmp_path / "snap" / "db"
    if how == "missing":
        db.unlink()
    elif how == "overwritten":
        damage(db)
    else:
        os.truncate(db, 0 if how == "emptied" else 5000)
    newest = sorted(tmp_path.glob("snap/*.snap"))[-1]
    with open_store(tmp_path, backend) as store:
        assert store.hash_kv() == expected
        store.put(b"k", b"v")
    assert f"rebuilt from {newest}" in caplog.text
    assert any(record.levelname == "ERROR" for record in caplog.records)
    assert (tmp_path / "snap" / "db.broken").exists() == (how != "missing")
    with open_store(tmp_path, backend) as store:
        assert value_of(store, b"k") == b"v"


@both
def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, backend: str) -> None:
    """Where the newest snapshot is damaged too, the one before it and a longer part of the log serve."""
    expected = write_life(tmp_path, backend, wal_file_size=1000, max_wals=1)
    older, newest = sorted(tmp_path.glob("snap/*.snap"))
    damage(newest, 12_000, 100)
    damage(tmp_path / "snap" / "db")
    with open_store(tmp_path, backend) as store:
        assert store.hash_kv() == expected
    assert older.exists()


@both
def test_a_whole_log_serves_without_any_snapshot(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that begins with the first entry is replayed from there."""
    expected = write_life(tmp_path, backend)
    for path in tmp_path.glob("snap/*.snap"):
        path.unlink()
    damage(tmp_path / "snap" / "db")
    with open_store(tmp_path, backend) as store:
        assert store.hash_kv() == expected
    assert "rebuilt from the whole log" in caplog.text


@both
def test_without_snapshot_and_whole_log_the_damage_stands(tmp_path: Path, backend: str) -> None:
    """Opening raises, however often, and changes nothing."""
    write_life(tmp_path, backend, wal_file_size=1000, max_wals=1)
    for path in tmp_path.glob("snap/*.snap"):
        damage(path, 12_000, 100)
    damage(tmp_path / "snap" / "db")
    before = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "LOCK"
    }
    for _ in range(2):
        with pytest.raises((kvstore.Corruption, kvstore.NotAStore)):
            open_store(tmp_path, backend)
    after = {path: path.read_bytes() for path in before if path.exists()}
    assert before == after


@both
def test_a_snapshot_with_a_hole_in_the_log_after_it_is_not_used(tmp_path: Path, backend: str) -> None:
    """Entries that lie neither in the snapshot nor in the log are not given up silently."""
    write_life(tmp_path, backend, wal_file_size=500, max_wals=1)
    segments = layout.segments(tmp_path / "wal")
    segments[-3].path.unlink()
    damage(tmp_path / "snap" / "db")
    with pytest.raises((kvstore.Corruption, kvstore.NotAStore)):
        open_store(tmp_path, backend)


@both
def test_a_missing_backend_without_a_way_back_is_damage(tmp_path: Path, backend: str) -> None:
    """A store is not silently begun anew over a log that has no beginning, or over snapshots alone."""
    write_life(tmp_path / "a", backend, wal_file_size=1000, max_wals=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "snap" / "db").unlink()
    for path in tmp_path.glob("a/snap/*.snap"):
        path.unlink()
    with pytest.raises(kvstore.Corruption, match="the log begins with entry"):
        open_store(tmp_path / "a", backend)
    (tmp_path / "b" / "snap" / "db").unlink()
    shutil.rmtree(tmp_path / "b" / "wal")
    with pytest.raises(kvstore.Corruption, match="only snapshots are left"):
        open_store(tmp_path / "b", backend)


def test_sqlites_log_goes_with_the_file_it_belongs_to(tmp_path: Path) -> None:
    """A db-wal left beside the damaged file is set aside too, not played into the new one."""
    expected = write_life(tmp_path, "sqlite")
    damage(tmp_path / "snap" / "db")
    (tmp_path / "snap" / "db-wal").write_bytes(b"commits of the old file")
    (tmp_path / "snap" / "db-shm").write_bytes(b"its index")
    with open_store(tmp_path, "sqlite") as store:
        assert store.hash_kv() == expected
        store.put(b"k", b"v")
    assert (tmp_path / "snap" / "db.broken-wal").read_bytes() == b"commits of the old file"
    with open_store(tmp_path, "sqlite") as store:
        assert value_of(store, b"k") == b"v"


def test_another_stores_snapshot_is_not_used(tmp_path: Path) -> None:
    """A snapshot of another cluster in the folder does not take the place of this store's backend."""
    write_life(tmp_path / "mine", "lmdb", wal_file_size=1000, max_wals=1)
    for path in tmp_path.glob("mine/snap/*.snap"):
        path.unlink()
    write_life(tmp_path / "other", "lmdb")
    for path in tmp_path.glob("other/snap/*.snap"):
        shutil.copy(path, tmp_path / "mine" / "snap")
    damage(tmp_path / "mine" / "snap" / "db")
    with pytest.raises((kvstore.Corruption, kvstore.NotAStore)):
        open_store(tmp_path / "mine", "lmdb")


def test_memory_opens_the_newest_good_snapshot(tmp_path: Path) -> None:
    """A store in memory passes over a damaged snapshot, as long as the log reaches back to another."""
    expected = write_life(tmp_path, "memory", wal_file_size=1000, max_wals=1)
    _, newest = sorted(tmp_path.glob("snap/*.snap"))
    damage(newest, 500, 100)
    with open_store(tmp_path, "memory") as store:
        assert store.hash_kv() == expected
