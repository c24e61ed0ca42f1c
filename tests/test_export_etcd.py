"""Moving out to etcd: the file that is written, and what a real etcd makes of it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd.bbolt_check import check
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.export_store import export_store

import kvstore
from kvstore.foreign import ImportOptions, find_foreign
from kvstore.verification.run import verify
from tests import test_etcd_real as real

BACKENDS = ("lmdb", "sqlite")
HAS_ETCD = bool(shutil.which("etcd") and shutil.which("etcdctl"))
needs_etcd = pytest.mark.skipif(not HAS_ETCD, reason="no etcd and etcdctl on PATH")


def fill(store: kvstore.Store, seed: int, writes: int = 160) -> None:
    """Puts, deletes, transactions and leases over few keys, odd ones among them."""
    chance = random.Random(seed)
    keys = [b"\0", b"a", b"a\0b", b"\xff\xfe", b"k" * 3000, *(b"key/%02d" % number for number in range(30))]
    leases = [store.grant_lease(3600 + number, number + 1).id for number in range(3)]
    for number in range(writes):
        key = chance.choice(keys)
        what = chance.random()
        if what < 0.6:
            size = chance.choice((0, 10, 500, 9000))
            store.put(key, chance.randbytes(size), lease=chance.choice((0, 0, *leases)))
        elif what < 0.8:
            store.delete(key)
        elif what < 0.9:
            store.delete(prefix=b"key/%d" % chance.randrange(3))
        else:
            puts = [kvstore.put(each, b"txn %d" % number) for each in chance.sample(keys, 3)]
            store.txn(success=[*puts, kvstore.delete(b"never there")])


def kept_hashes(store: kvstore.Store) -> dict[int, int]:
    first = max(store.compact_revision, 1)
    return {revision: store.hash_kv(revision).hash for revision in range(first, store.revision + 1)}


def dump(store: kvstore.Store, revision: int) -> list[tuple[Any, ...]]:
    return [
        (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
        for kv in store.scan(prefix=b"", revision=revision)
    ]


@pytest.fixture(params=[(backend, compacted) for backend in BACKENDS for compacted in (False, True)], ids=str)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    backend, compacted = request.param
    with kvstore.open(tmp_path / "store", backend=backend) as opened:
        fill(opened, seed=1 + BACKENDS.index(backend))
        if compacted:
            opened.compact(opened.revision // 2)
        yield opened


def test_an_export_is_a_sound_bbolt_file_with_our_hashes(store: kvstore.Store, tmp_path: Path) -> None:
    """The file keeps bbolt's rules and its own SHA-256, and hashes as the store does at every kept revision."""
    exported = export_store(store, tmp_path / "out.db")
    with EtcdFile(tmp_path / "out.db") as file:
        assert file.file.verify_hash()
        assert list(check(file.file)) == []
        assert (file.revision, file.compact_revision) == (store.revision, store.compact_revision)
        assert {revision: file.hash_kv(revision).hash for revision in kept_hashes(store)} == kept_hashes(
            store
        )
        assert {lease.id for lease in file.leases()} == set(store.leases())
        assert {lease.granted_ttl_seconds for lease in file.leases()} == {3600, 3601, 3602}
        assert exported.counts["rows"] == sum(1 for _ in file.rows())


def test_an_export_is_a_store_to_us_again(store: kvstore.Store, tmp_path: Path) -> None:
    """Opened as a snapshot or imported, the export has every row of every kept revision and the history of each key."""
    export_store(store, tmp_path / "out.db")
    data_dir = tmp_path / "again"
    find_foreign("etcd").import_store(tmp_path / "out.db", data_dir, ImportOptions(backend="sqlite"))
    assert verify(data_dir).findings == ()
    with kvstore.open_snapshot(tmp_path / "out.db") as view, kvstore.open(data_dir, "sqlite") as again:
        for revision in range(max(store.compact_revision, 1), store.revision + 1, 3):
            assert dump(view, revision) == dump(again, revision) == dump(store, revision)
        for key in [row[0] for row in dump(store, store.revision)]:
            since = store.compact_revision + 1
            versions = list(store.history(key, since=since))
            assert list(again.history(key, since=since)) == versions
            assert list(view.history(key, since=since)) == versions


def test_rows_that_do_not_fit_in_memory_are_sorted_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs spilled to disk give the same file as a sort in memory."""
    with kvstore.open(tmp_path / "store") as store:
        fill(store, seed=9)
        store.compact(store.revision - 5)
        export_store(store, tmp_path / "at once.db")
        monkeypatch.setattr("kvstore.migrations.etcd.export_store.RUN_BYTES", 4000)
        export_store(store, tmp_path / "in runs.db")
    with EtcdFile(tmp_path / "at once.db") as one, EtcdFile(tmp_path / "in runs.db") as other:
        assert list(one.rows()) == list(other.rows())
        assert sum(1 for _ in one.rows()) > 10


def test_nothing_is_written_over_a_file(tmp_path: Path) -> None:
    """An export refuses a path where something lies, and leaves it alone."""
    (tmp_path / "out.db").write_bytes(b"precious")
    with kvstore.open(tmp_path / "store") as store, pytest.raises(FileExistsError):
        export_store(store, tmp_path / "out.db")
    assert (tmp_path / "out.db").read_bytes() == b"precious"


@needs_etcd
def test_a_real_etcd_restores_serves_and_goes_on(store: kvstore.Store, tmp_path: Path) -> None:
    """etcd takes the file: status, restore, the same HashKV and rows at every kept revision, leases, and new writes."""
    path = tmp_path / "out.db"
    export_store(store, path)
    status = real.etcdctl("snapshot", "status", str(path))
    assert status["revision"] == store.revision
    real.etcdctl("snapshot", "restore", str(path), "--data-dir", str(tmp_path / "etcd"))
    with real.etcd(tmp_path / "etcd", tmp_path / "log") as server:
        first = max(store.compact_revision + 1, 1)  # 3.4.23 refuses the compact revision itself
        for revision in range(first, store.revision + 1):
            assert server.hash_kv(revision)["hash"] == store.hash_kv(revision).hash
        answer = server.ctl("get", "", "--prefix")
        assert len(answer["kvs"]) == store.count(prefix=b"")
        assert {lease["id"] for lease in server.ctl("lease", "list")["leases"]} == set(store.leases())
        assert server.ctl("put", "new", "value")["header"]["revision"] == store.revision + 1


@needs_etcd
@pytest.mark.parametrize("backend", BACKENDS)
def test_there_and_back_again(backend: str, tmp_path: Path) -> None:
    """etcd's snapshot, imported, exported and restored, has the first etcd's HashKV at every kept revision."""
    with kvstore.open(tmp_path / "seed") as store:
        fill(store, seed=77, writes=120)
        store.compact(20)
        export_store(store, tmp_path / "seed.db")
    real.etcdctl("snapshot", "restore", str(tmp_path / "seed.db"), "--data-dir", str(tmp_path / "etcd"))
    with real.etcd(tmp_path / "etcd", tmp_path / "log") as server:
        server.ctl("put", "written by etcd", "itself")
        server.ctl("del", "key/0", "--prefix")
        server.ctl("compaction", "40")
        revision = server.ctl("get", "x")["header"]["revision"]
        expected = {each: server.hash_kv(each)["hash"] for each in range(41, revision + 1)}
        server.ctl("snapshot", "save", str(tmp_path / "saved.db"))
    find_foreign("etcd").import_store(
        tmp_path / "saved.db", tmp_path / "ours", ImportOptions(backend=backend)
    )
    with kvstore.open(tmp_path / "ours", backend) as store:
        assert {each: store.hash_kv(each).hash for each in expected} == expected
        export_store(store, tmp_path / "back.db")
    real.etcdctl("snapshot", "restore", str(tmp_path / "back.db"), "--data-dir", str(tmp_path / "back"))
    with real.etcd(tmp_path / "back", tmp_path / "log again") as server:
        assert {each: server.hash_kv(each)["hash"] for each in expected} == expected
