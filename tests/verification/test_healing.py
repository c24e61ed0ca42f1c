"""Healing: what verification found is put right from a snapshot and the log, and nothing is done without the means."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KVStoreError, ops
from kvstore.mvcc.schema import (
    LATEST,
)
from kvstore.verification import heal, verify
from kvstore.verification.report import AHEAD
from tests.harness.model import Model
from tests.verification.stores import alter, both, change_rows, contents, open_store

pytestmark = pytest.mark.usefixtures("no_litter")


@both
@pytest.mark.parametrize("from_snapshot", (False, True), ids=("from the log", "from a snapshot"))
def test_healing_rebuilds_the_backend(tmp_path: Path, backend: str, from_snapshot: bool) -> None:
    """A divergent backend is set aside; afterwards every revision reads as it was written."""
    path, model = tmp_path / "s", Model()
    with open_store(path, backend, wal_file_size=2000, max_wals=1 if from_snapshot else 0) as store:
        for number in range(60):
            request = ops.put(b"k%d" % (number % 7), b"value %d" % number)
            store.engine.put(request)
            model.put(request)
            if number == 30 and from_snapshot:
                store.snapshot()
        store.checkpoint()
        store.engine.snapshots.release()
        revision, hashed = store.revision, store.hash_kv()
    assert (path / "wal").exists() and from_snapshot != bool(
        list((path / "wal").glob("*-0000000000000001.wal"))
    )
    change_rows(path, backend, alter(LATEST, b"k3", value=b"other"))
    report = verify(path, deep=True)
    assert not report.ok and any("--heal" in note for note in report.notes)
    assert all(aside.exists() for aside in heal(path).aside)
    with open_store(path, backend) as store:
        assert (store.revision, store.hash_kv()) == (revision, hashed)
        for number in range(7):
            versions = [kv.value for kv in store.history(b"k%d" % number)]
            assert versions == [b"value %d" % n for n in range(60) if n % 7 == number]
    assert verify(path, deep=True).ok


@both
@pytest.mark.parametrize("is_released", (False, True), ids=("log from the first entry", "log released"))
def test_a_sound_backend_that_is_ahead_of_its_log_is_kept(
    tmp_path: Path, backend: str, is_released: bool
) -> None:
    """A log that ends too early begins anew after what the backend holds: nothing of that is lost."""
    path, older_log = tmp_path / "s", tmp_path / "log"
    options: dict[str, Any] = {"wal_file_size": 2000, "max_wals": 1} if is_released else {}
    with open_store(path, backend, **options) as store:
        for number in range(60):
            store.put(b"k%d" % (number % 7), b"value %d" % number)
        store.checkpoint()
        store.engine.snapshots.release()
    shutil.copytree(path / "wal", older_log)
    with open_store(path, backend, **options) as store:
        store.put(b"last", b"v")
        revision, hashed = store.revision, store.hash_kv()
    shutil.rmtree(path / "wal")
    older_log.rename(path / "wal")
    with pytest.raises(kvstore.Corruption, match="the log ends with entry 60"):
        open_store(path, backend)
    report = verify(path)
    assert {finding.area for finding in report.findings} == {AHEAD}
    assert any("--heal" in note for note in report.notes)

    healed = heal(path)
    assert "after entry 61" in healed.what and "take a snapshot" in healed.what
    assert healed.aside and all(file.exists() for file in healed.aside)
    for _ in range(2):
        with open_store(path, backend) as store:
            assert store.get(b"last") is not None and len(list(store.history(b"k0"))) == 9
            assert store.revision >= revision
            store.put(b"later", b"v")
    with open_store(path, backend) as store:
        assert store.revision == revision + 2 and store.hash_kv(revision).hash == hashed.hash
    assert verify(path, deep=True).ok


@both
def test_a_damaged_backend_that_is_ahead_is_not_trusted(tmp_path: Path, backend: str) -> None:
    """It is made anew of the log, which has less, as for any damage."""
    path, older_log = tmp_path / "s", tmp_path / "log"
    with open_store(path, backend) as store:
        store.put(b"k", b"v")
    shutil.copytree(path / "wal", older_log)
    with open_store(path, backend) as store:
        store.put(b"last", b"v")
    shutil.rmtree(path / "wal")
    older_log.rename(path / "wal")
    change_rows(path, backend, lambda tx: tx.delete_many(LATEST, [b"k"]))
    aside = heal(path).aside
    assert aside == (path / "snap" / "db.broken",)
    with open_store(path, backend) as store:
        assert store.get(b"k") is not None and store.get(b"last") is None


@both
def test_healing_without_the_means_changes_nothing(directory: Path, backend: str) -> None:
    """No snapshot, and a log that does not reach back: refused."""
    for path in (directory / "snap").glob("*.snap"):
        path.unlink()
    segment = next((directory / "wal").glob("*.wal"))
    segment.rename(segment.with_name(segment.name.replace("0001.wal", "0009.wal")))
    before = contents(directory)
    with pytest.raises(KVStoreError):
        heal(directory)
    assert contents(directory) == before


@both
@pytest.mark.parametrize("lies", ["before what the backend holds", "behind it", "before a snapshot"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_log_that_lacks_a_segment_is_healed_where_nothing_is_lost(
    tmp_path: Path, backend: str, how: str, lies: str
) -> None:
    """Where the backend or a snapshot has what was in it; otherwise the error says what to do, and nothing changes."""
    path = tmp_path / "s"
    options: dict[str, Any] = {
        "wal_file_size": 2000,
        "max_wals": 100,
        "background": False,
        "snapshot_count": 0,
    }
    with open_store(path, backend, **options) as store:
        for number in range(90):
            store.put(b"k%d" % number, b"value %d" % number)
            if number == 20:
                old = shutil.copytree(path / "snap", tmp_path / "old")
        if lies == "before a snapshot":
            store.snapshot()
        revision, hashed = store.revision, store.hash_kv()
    segments = sorted((path / "wal").glob("*.wal"))
    middle = segments[len(segments) // 2]
    if how == "missing":
        middle.unlink()
    else:
        middle.write_bytes(bytes(middle.stat().st_size))
    if lies != "before what the backend holds":
        for file in old.iterdir():
            shutil.copy(file, path / "snap" / file.name)
    report = verify(path)
    assert not report.ok
    assert any("--heal" in note and "wal repair" in note for note in report.notes)
    before = contents(path)
    if lies == "behind it":
        with pytest.raises(kvstore.Corruption, match="wal repair says what"):
            heal(path)
        assert contents(path) == before
        return
    healed = heal(path)
    assert all(file.exists() for file in healed.aside)
    with open_store(path, backend, **options) as store:
        assert (store.revision, store.hash_kv()) == (revision, hashed)
        store.put(b"later", b"v")
    assert verify(path, deep=True).ok
