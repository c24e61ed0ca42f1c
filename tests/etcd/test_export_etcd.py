"""Moving out to etcd: the file that is written, and what a real etcd makes of it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvstore.migrations.etcd.bbolt_check import check
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.export_store import export_store

import kvstore
from kvstore import row_sort
from kvstore.foreign import ImportOptions, find_foreign
from kvstore.verification.run import verify
from tests.etcd import etcd_servers as real

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
            puts = [kvstore.ops.put(each, b"txn %d" % number) for each in chance.sample(keys, 3)]
            store.txn(success=[*puts, kvstore.ops.delete(b"never there")])


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
    still: dict[str, Any] = {
        "background": False,
        "clock": lambda: 1_000_000_000.0,
    }  # what leases have left is in the file
    with kvstore.open(tmp_path / "store", **still) as store:
        fill(store, seed=9)
        store.compact(store.revision - 50)
        store.checkpoint()
        export_store(store, tmp_path / "at once.db")
        monkeypatch.setattr("kvstore.row_sort.RUN_BYTES", 4000)
        monkeypatch.setattr("kvstore.row_sort.BLOCK_BYTES", 600)
        export_store(store, tmp_path / "in runs.db")
    assert (tmp_path / "at once.db").read_bytes() == (tmp_path / "in runs.db").read_bytes()
    assert (tmp_path / "in runs.db").stat().st_size > 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at once.db", "in runs.db", "store"]


ROWS = st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.binary(max_size=40)), max_size=30)


@given(piles=st.lists(ROWS, max_size=12), run_bytes=st.integers(1, 4000), block_bytes=st.integers(1, 200))
def test_sorted_rows_come_in_order_and_once(
    piles: list[list[tuple[bytes, bytes]]], run_bytes: int, block_bytes: int
) -> None:
    """Whatever the size of runs and blocks: every key once, ascending."""
    piles = [[(key, b"of " + key) for key, _ in pile] for pile in piles]
    with (
        patch.object(row_sort, "RUN_BYTES", run_bytes),
        patch.object(row_sort, "BLOCK_BYTES", block_bytes),
        row_sort.RowSorter() as sorter,
    ):
        for pile in piles:
            sorter.add(pile)
        found = [row for page in sorter.in_order() for row in page]
    assert found == sorted({row for pile in piles for row in pile})


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_export_is_of_one_revision_while_the_store_goes_on(backend: str, tmp_path: Path) -> None:
    """Versions that are superseded, deleted and carried into the backend meanwhile are in it as they were, once."""
    with kvstore.open(tmp_path / "store", backend, background=False) as store:
        keys = [b"%04d" % number for number in range(600)]
        for start in range(0, 600, 100):
            store.txn(success=[kvstore.ops.put(key, b"old") for key in keys[start : start + 100]])
        store.delete(keys[7])
        store.engine.checkpoint()
        store.put(keys[8], b"not in the backend yet")
        expected = dump(store, store.revision), kept_hashes(store)

        def meanwhile(_done: int, _total: int) -> None:
            for key in (keys[0], keys[300], keys[599]):
                store.put(key, b"new")
            store.delete(keys[1])
            store.engine.checkpoint()

        exported = export_store(store, tmp_path / "out.db", meanwhile)
        assert store.revision > exported.revision
    with EtcdFile(tmp_path / "out.db") as file:
        assert {revision: file.hash_kv(revision).hash for revision in expected[1]} == expected[1]
    with kvstore.open_snapshot(tmp_path / "out.db") as view:
        assert dump(view, exported.revision) == expected[0]


def test_a_compaction_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    """Rows that are needed may be gone: the export is refused, whole."""
    with kvstore.open(tmp_path / "store", background=False) as store:
        for number in range(600):
            store.put(b"%04d" % number, b"value")
        store.put(b"0000", b"again")
        store.engine.checkpoint()

        def compact(_done: int, _total: int) -> None:
            store.compact(store.revision)

        with pytest.raises(kvstore.Compacted):
            export_store(store, tmp_path / "out.db", compact)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_compaction_that_the_backend_does_not_know_of_yet_counts(tmp_path: Path) -> None:
    """Compacted beyond what the last checkpoint wrote: the same file as after the next one."""
    with kvstore.open(tmp_path / "store", background=False) as store:
        for number in range(9):
            store.put(b"%d" % (number % 3), b"%d" % number)
        store.engine.checkpoint()
        store.put(b"0", b"later")
        store.delete(b"1")
        store.put(b"1", b"anew")
        store.compact(store.revision - 1)
        export_store(store, tmp_path / "before.db")
        with EtcdFile(tmp_path / "before.db") as file:
            assert [(row.main, row.key, row.is_tombstone) for row in file.rows()] == [
                (10, b"2", False),
                (11, b"0", False),
                (12, b"1", True),
                (13, b"1", False),
            ]
        store.engine.checkpoint()
        export_store(store, tmp_path / "after.db")
    with EtcdFile(tmp_path / "before.db") as one, EtcdFile(tmp_path / "after.db") as other:
        assert list(one.rows()) == list(other.rows())


def rows_at_compaction(path: Path) -> list[tuple[bytes, bool]]:
    with EtcdFile(path) as file:
        return [(row.key, row.is_tombstone) for row in file.rows() if row.main == file.compact_revision]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_delete_at_the_compaction_is_written_where_no_hash_tells(
    tmp_path: Path, checkpointed: bool
) -> None:
    """A watch that starts there sees the delete, here and in etcd; HashKV is the same for old and new versions."""
    with kvstore.open(tmp_path / "store", background=False) as store:
        store.txn(
            success=[kvstore.ops.put(b"a", b"1"), kvstore.ops.put(b"b", b"1"), kvstore.ops.put(b"c", b"1")]
        )
        store.delete(b"a", b"c")
        store.compact(3)
        store.delete(b"x")
        store.put(b"a", b"2")
        if checkpointed:
            store.engine.checkpoint()
        hashes = kept_hashes(store)
        export_store(store, tmp_path / "out.db")
        assert rows_at_compaction(tmp_path / "out.db") == [(b"a", True), (b"b", True)]
        with EtcdFile(tmp_path / "out.db") as file:
            assert {at: file.hash_kv(at).hash for at in hashes} == hashes
            assert file.hash_kv(4, before_3_4_34=True).hash == hashes[4]
        with kvstore.open_snapshot(tmp_path / "out.db") as view:
            assert [kv.key for kv in view.history(b"b")] == []
            with view.watch(prefix=b"", start_revision=3) as watched:
                seen = [next(watched) for _ in range(3)]
        assert [(event.type.name, event.kv.key) for event in seen] == [
            ("DELETE", b"a"),
            ("DELETE", b"b"),
            ("PUT", b"a"),
        ]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_delete_at_the_compaction_stays_behind_where_a_hash_would_tell(
    tmp_path: Path, checkpointed: bool
) -> None:
    """Where no key lives at some kept revision, etcd before 3.4.34 would hash the tombstone."""
    with kvstore.open(tmp_path / "store", background=False) as store:
        store.txn(success=[kvstore.ops.put(b"a", b"1"), kvstore.ops.put(b"b", b"1")])
        store.delete(b"a")
        store.compact(3)
        store.delete(b"b")
        store.put(b"c", b"1")
        if checkpointed:
            store.engine.checkpoint()
        export_store(store, tmp_path / "out.db")
        assert rows_at_compaction(tmp_path / "out.db") == []
        with EtcdFile(tmp_path / "out.db") as file:
            for revision in (4, 5):
                expected = store.hash_kv(revision).hash
                assert file.hash_kv(revision).hash == expected
                assert file.hash_kv(revision, before_3_4_34=True).hash == expected


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


@needs_etcd
def test_etcd_has_our_alarms_and_our_deletes_at_the_compaction(tmp_path: Path) -> None:
    """Alarms are listed and refuse writes until they are disarmed; a tombstone at the compaction changes no HashKV."""
    with kvstore.open(tmp_path / "store", quota_backend_bytes=200_000, background=False) as store:
        store.txn(
            success=[kvstore.ops.put(b"a", b"1"), kvstore.ops.put(b"b", b"1"), kvstore.ops.put(b"c", b"1")]
        )
        store.delete(b"a", b"c")
        store.compact(store.revision)
        store.put(b"a", b"2")
        with pytest.raises(kvstore.SpaceError):
            store.put(b"large", bytes(200_000))
        exported = export_store(store, tmp_path / "out.db")
        hashes = {at: store.hash_kv(at).hash for at in range(4, store.revision + 1)}
        member_id = store.engine.member_id
    assert exported.counts["alarms"] == 1
    assert exported.notes
    assert rows_at_compaction(tmp_path / "out.db") == [(b"a", True), (b"b", True)]
    real.etcdctl("snapshot", "status", str(tmp_path / "out.db"))
    real.etcdctl("snapshot", "restore", str(tmp_path / "out.db"), "--data-dir", str(tmp_path / "etcd"))
    with real.etcd(tmp_path / "etcd", tmp_path / "log") as server:
        assert {at: server.hash_kv(at)["hash"] for at in hashes} == hashes
        (alarm,) = server.ctl("alarm", "list")["alarms"]
        assert (alarm["memberID"], alarm["alarm"]) == (member_id, 1)
        with pytest.raises(AssertionError, match="database space exceeded"):
            server.ctl("put", "new", "value")
        server.ctl("alarm", "disarm")
        assert server.ctl("put", "new", "value")["header"]["revision"] == 5
        server.ctl("snapshot", "save", str(tmp_path / "back.db"))
    with EtcdFile(tmp_path / "back.db") as file:
        assert file.alarms() == []
