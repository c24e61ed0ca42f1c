"""Snapshots in the store's own place: when they are taken, which are kept, and which log segments they set free."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

import kvstore
from kvstore import layout
from kvstore.backend import find_backend
from kvstore.snapshot.reader import read_info
from kvstore.store import Store
from tests.snapshot.stores import both, every, fill, roll

# --- in the store's own place -------------------------------------------------------------


@every
def test_the_newest_snapshots_are_kept(stores: Any, backend: str) -> None:
    """Without a path they lie in snap/, named by cluster and index, and only max_snapshots of them."""
    store = stores(backend, max_snapshots=2, cluster_id=0x12)
    for number in range(4):
        store.put(b"k", b"%d" % number)
        store.snapshot()
    names = [file.path.name for file in store.engine.snapshots.files()]
    assert names == [f"{0x12:016x}-{index:016x}.snap" for index in (3, 4)]


def test_a_snapshot_is_not_written_over_the_stores_own_files(stores: Any) -> None:
    """A path among the store's files is refused before anything is touched."""
    store = stores("lmdb")
    store.put(b"k", b"v")
    root = store.engine.directory.root
    for path in (root / "snap" / "db", root / "wal" / "x", root / "LOCK"):
        with pytest.raises(kvstore.WrongStore):
            store.snapshot(path)
    assert store.get(b"k").value == b"v"


def test_a_file_by_hand_replaces_the_one_before(stores: Any, tmp_path: Path) -> None:
    """The same path twice leaves the newer snapshot, and nothing else."""
    store = stores("lmdb")
    for number in range(2):
        store.put(b"k", b"%d" % number)
        store.snapshot(tmp_path / "backup")
    assert read_info(tmp_path / "backup").revision == 3
    assert sorted(os.listdir(tmp_path)) == ["backup", "s"]


def wait_for_thread(store: Store) -> None:
    thread = store.engine.snapshots._thread
    assert thread is not None
    thread.join()


@every
def test_a_snapshot_is_taken_after_enough_entries(stores: Any, backend: str) -> None:
    """By count: when that many entries, and more log than the backend is large, have passed since the last."""
    store = stores(backend, snapshot_count=10)
    keeper = store.engine.snapshots
    for _ in range(9):
        store.put(b"k", bytes(200_000))
    assert not keeper.due()
    store.put(b"k", b"")
    assert keeper.due()
    keeper.tend()
    wait_for_thread(store)
    assert [file.index for file in keeper.files()] == [10]
    assert not keeper.due()
    assert keeper.last_error is None


def test_entries_alone_do_not_make_a_large_store_copy_itself(stores: Any) -> None:
    """By count a snapshot also waits for the log to outgrow the backend: copying stays a share of writing."""
    store = stores("lmdb", snapshot_count=10)
    store.put(b"large", bytes(1_000_000))
    store.checkpoint()
    store.snapshot()
    for _ in range(50):
        store.put(b"k", b"v")
    keeper = store.engine.snapshots
    assert keeper.entries_since == 50
    assert not keeper.due()
    store.put(b"k", bytes(1_200_000))
    assert keeper.due()


def test_a_snapshot_is_taken_after_enough_bytes(stores: Any) -> None:
    """By size: whatever the count, when the log since the last one has that many bytes."""
    store = stores("lmdb", snapshot_size=5000, snapshot_count=0)
    store.put(b"k", bytes(4000))
    assert not store.engine.snapshots.due()
    store.put(b"k", bytes(1500))
    assert store.engine.snapshots.due()
    store.snapshot()
    assert not store.engine.snapshots.due()


def test_a_snapshot_is_taken_after_enough_time(stores: Any) -> None:
    """By interval: when that time has passed since the last and something was written."""
    now = [1000.0]
    store = stores("lmdb", snapshot_interval_seconds=60.0, clock=lambda: now[0])
    now[0] += 100
    assert not store.engine.snapshots.due()
    store.put(b"k", b"v")
    assert store.engine.snapshots.due()
    store.snapshot()
    store.put(b"k", b"v")
    now[0] += 59
    assert not store.engine.snapshots.due()
    now[0] += 1
    assert store.engine.snapshots.due()


def test_what_is_due_survives_a_restart(stores: Any) -> None:
    """Entries, bytes and time since the last snapshot are known again after reopening."""
    now = [1000.0]
    options = {"snapshot_interval_seconds": 60.0, "clock": lambda: now[0], "wal_file_size": 3000}
    store = stores("lmdb", **options)
    store.put(b"k", b"v")
    store.snapshot()
    for _ in range(5):
        store.put(b"k", bytes(2000))
    store.close()
    now[0] += 61
    keeper = stores("lmdb", **options).engine.snapshots
    assert keeper.entries_since == 5
    assert keeper.log_bytes_since >= 6000
    assert keeper.due()


def test_a_store_in_use_takes_them_by_itself(stores: Any) -> None:
    """With background work on, a due snapshot appears without being asked for."""
    store = stores("lmdb", background=True, snapshot_size=1)
    store.put(b"k", b"v")
    deadline = time.monotonic() + 60
    while not store.engine.snapshots.files() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(store.engine.snapshots.files()) == 1


# --- release ------------------------------------------------------------------------------


def segment_indexes(store: Store) -> list[int]:
    directory = store.engine.directory
    assert directory is not None
    return [file.index for file in layout.segments(directory.wal)]


@both
def test_segments_go_when_backend_and_snapshots_cover_them(stores: Any, backend: str) -> None:
    """With snapshots, nothing after the oldest kept one is released; without, nothing after the backend."""
    store = stores(backend, wal_file_size=1000, max_wals=1, max_snapshots=2)
    roll(store, 4)
    store.checkpoint()
    store.engine.snapshots.release()
    assert segment_indexes(store) == [4]
    store.snapshot()
    roll(store, 4)
    store.checkpoint()
    store.engine.snapshots.release()
    assert segment_indexes(store) == [5, 6, 7, 8]
    store.snapshot()
    roll(store, 2)
    store.snapshot()
    store.engine.snapshots.release()
    assert segment_indexes(store) == [9, 10]


@both
def test_what_is_not_in_the_backend_yet_is_not_released(stores: Any, backend: str) -> None:
    """Entries that wait in memory keep their segments."""
    store = stores(backend, wal_file_size=1000, max_wals=1)
    roll(store, 2)
    store.checkpoint()
    roll(store, 3)
    store.engine.snapshots.release()
    assert segment_indexes(store) == [3, 4, 5]


@both
def test_the_backend_is_synced_before_a_segment_goes(
    stores: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that sync fails nothing is released, now or later, and the store refuses to write."""
    store = stores(backend, wal_file_size=1000, max_wals=1)
    roll(store, 4)
    store.checkpoint()

    def fail(self: Any) -> None:
        raise OSError(errno.EIO, "sync")

    monkeypatch.setattr(find_backend(backend), "sync", fail)
    before = segment_indexes(store)
    with pytest.raises(OSError, match="sync"):
        store.engine.snapshots.release()
    monkeypatch.undo()
    assert segment_indexes(store) == before
    with pytest.raises(kvstore.StorePoisoned):
        store.put(b"k", b"v")


def test_sqlite_without_room_to_move_pages_is_still_synced(stores: Any) -> None:
    """Its commits are durable in its own log: a full disk there is no reason to refuse writes until a reopening."""
    store = stores("sqlite", wal_file_size=1000, max_wals=1)
    roll(store, 4)
    store.checkpoint()
    connection = store.engine.backend._writer

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        def wal_checkpoint(self, **_: Any) -> None:
            raise apsw.FullError("database or disk is full")

    store.engine.backend._writer = Full()
    assert store.engine.snapshots.release()
    store.engine.backend._writer = connection
    store.put(b"k", b"v")


def test_a_store_in_memory_needs_a_snapshot_to_shorten_its_log(stores: Any) -> None:
    """The log is all that it has, until a snapshot is taken; then it is opened from that and the rest."""
    options = {"wal_file_size": 1000, "max_wals": 1}
    store = stores("memory", **options)
    roll(store, 4)
    store.checkpoint()
    store.engine.snapshots.release()
    assert segment_indexes(store) == [1, 2, 3, 4]
    store.snapshot()
    roll(store, 1)
    store.engine.snapshots.release()
    assert segment_indexes(store) == [5]
    hashed = store.hash_kv()
    store.close()
    assert stores("memory", **options).hash_kv() == hashed


def test_max_wals_keeps_segments_that_nobody_needs(stores: Any) -> None:
    """Released segments stay until there are more than max_wals; 0 keeps all."""
    for name, most, kept in (("a", 3, [3, 4, 5]), ("b", 0, [1, 2, 3, 4, 5])):
        store = stores("lmdb", name, wal_file_size=1000, max_wals=most)
        roll(store, 5)
        store.checkpoint()
        store.engine.snapshots.release()
        assert segment_indexes(store) == kept


def test_released_segments_go_to_the_archive(stores: Any, tmp_path: Path) -> None:
    """With archive_dir they are moved, not deleted."""
    store = stores("lmdb", wal_file_size=1000, max_wals=1, archive_dir=str(tmp_path / "archive"))
    roll(store, 4)
    store.checkpoint()
    store.engine.snapshots.release()
    assert [file.index for file in layout.segments(tmp_path / "archive")] == [1, 2, 3]


def test_a_failed_automatic_snapshot_harms_nothing(
    stores: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and remembered, leaves no file, is not tried again at once, and writes go on."""
    store = stores("lmdb", snapshot_size=1)
    store.put(b"k", b"v")

    def fail(self: Any, fd: int) -> bool:
        raise OSError(errno.EIO, "copying failed")

    monkeypatch.setattr(find_backend("lmdb"), "copy_into", fail)
    keeper = store.engine.snapshots
    keeper.tend()
    wait_for_thread(store)
    assert "copying failed" in str(keeper.last_error)
    assert "copying failed" in caplog.text
    thread = keeper._thread
    keeper.tend()
    assert keeper._thread is thread
    assert not keeper.files()
    store.put(b"k", b"w")


def test_closing_gives_up_an_automatic_snapshot(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close does not wait for hashing and reading back; nothing half done is left."""
    store = stores("lmdb", snapshot_size=1)
    fill(store)
    keeper = store.engine.snapshots
    monkeypatch.setattr(keeper, "_stopping", True)
    keeper.tend()
    wait_for_thread(store)
    snap = store.engine.directory.snap
    store.close()
    assert [name for name in os.listdir(snap) if "snap" in name] == []
