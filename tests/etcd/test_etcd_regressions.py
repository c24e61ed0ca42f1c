"""etcd's storage bugs, each as the test that would have found it here: those of files, their order and their syncs.

The names begin with etcd's issue or pull request number. docs/etcd-bugs.md says of each what it was. Bugs in what is
answered: test_etcd_regressions_answers.py; of watches: watch/test_watch_regressions.py.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.files import OSDisk
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, parse_u64
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store
from kvstore.testing.disk_images import LOST
from kvstore.testing.recording_disk import RecordingDisk
from kvstore.upkeep import defragment
from tests.etcd.lives import BACKENDS, EVERYWHERE, content, copied, live
from tests.harness.gated_disk import GatedDisk
from tests.harness.watching import open_store, settle


def applied_index(store: Store) -> int:
    """As the backend has it."""
    return parse_u64(store.engine.backend.get(META, META_APPLIED_INDEX))


# --- the index of what was applied, and its effects ------------------------------------------------


class _Killed(BaseException):
    """Stands for SIGKILL."""


class _Mortal:
    """A write transaction that dies in its Nth call."""

    def __init__(self, tx: Any, lives: list[int]) -> None:
        self._tx, self._lives = tx, lives

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tx, name)
        if name not in ("put_many", "delete_many"):
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            self._lives[0] -= 1
            if not self._lives[0]:
                raise _Killed
            return method(*arguments, **options)

        return call

    def __enter__(self) -> _Mortal:
        self._tx.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._tx.__exit__(*error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_13766_the_applied_index_is_never_ahead_of_its_effects(tmp_path: Path, backend: str) -> None:
    """Killed in any step of a checkpoint, what is in the backend is of its applied index: nothing is skipped."""
    with open_store(tmp_path, backend) as store:
        live(store, 20)
        settle(store)
        live(store, 20, seed=2)
        before = applied_index(store)
        everything = content(store), store.revision
        copied(tmp_path, "start")
    step, killed = 0, True
    while killed:
        step += 1
        at = tmp_path / f"killed-{step}"
        shutil.copytree(tmp_path / "start", at)
        killed = killed_in_checkpoint(at, backend, step)
        with open_store(at, backend) as store:
            assert applied_index(store) == (before if killed else store.engine.state.index)
            assert (content(store), store.revision) == everything
            store.engine.backend.check()
    assert step > 5


def killed_in_checkpoint(path: Path, backend: str, step: int) -> bool:
    """Whether a checkpoint has a step with that number; it dies there, and what a kill leaves is left."""
    lives = [step]
    store = open_store(path, backend)
    write = type(store.engine.backend).write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store.engine.backend), "write", lambda self: _Mortal(write(self), lives))
        try:
            store.checkpoint()
        except _Killed:
            shutil.copytree(path / "data", path / "left")
    store.close()
    if lives[0] > 0:
        return False
    shutil.rmtree(path / "data")
    (path / "left").rename(path / "data")
    return True


@pytest.mark.parametrize("backend", BACKENDS)
def test_13933_the_applied_index_is_read_anew_with_a_new_backend(tmp_path: Path, backend: str) -> None:
    """After a defragmentation, and after a snapshot took the place of a lost backend, it is that of the file in use."""
    with open_store(tmp_path, backend) as store:
        live(store, 30)
        store.snapshot()
        live(store, 30, seed=2)
        store.defragment()
        assert applied_index(store) == store.engine.state.applied_index == store.engine.state.index
        live(store, 5, seed=3)
        settle(store)
        assert applied_index(store) == store.engine.state.index
        everything = content(store)
    (tmp_path / "data" / "snap" / "db").write_bytes(b"lost")
    with open_store(tmp_path, backend) as store:
        assert content(store) == everything
        store.put(b"after", b"v")
        settle(store)
        assert applied_index(store) == store.engine.state.index
    with open_store(tmp_path, backend) as store:
        assert store.get(b"after") is not None


def test_14370_nothing_is_acknowledged_before_the_log_is_synced(scratch: Path) -> None:
    """While the sync of the log hangs no put returns and none is seen, and a power cut then loses nothing told."""
    disk = GatedDisk()
    store = Store(open_engine(scratch / "data", Options(background=False), disk))
    disk.hold()
    returned = threading.Event()

    def put() -> None:
        store.put(b"k", b"v")
        returned.set()

    writer = threading.Thread(target=put)
    writer.start()
    disk.wait_for_sync()
    assert not returned.is_set()
    assert (store.get(b"k"), store.revision) == (None, 1)
    disk.release()
    writer.join()
    assert returned.is_set() and store.revision == 2
    store.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_14685_a_defragment_persists_nothing_ahead_of_the_data(tmp_path: Path, backend: str) -> None:
    """Killed in any call of a defragmentation, with writes waiting in memory, the store is at one index with all."""
    with open_store(tmp_path, backend) as store:
        live(store, 30)
        settle(store)
        live(store, 10, seed=2)
        everything = content(store), store.revision
        copied(tmp_path, "start")
    for call in range(1, 100):
        at = tmp_path / f"run-{call}"
        shutil.copytree(tmp_path / "start", at)
        disk = _CopyAt(at, call)
        with Store(
            open_engine(at / "data", Options(backend=backend, background=False, low_disk_bytes=0), disk)
        ) as store:
            disk.armed = True
            store.defragment()
        if not (at / "killed").exists():
            break
        shutil.rmtree(at / "data")
        (at / "killed").rename(at / "data")
        with open_store(at, backend) as store:
            assert (content(store), store.revision) == everything, call
            assert applied_index(store) <= store.engine.state.index
            store.engine.backend.check()
    assert call > 5


class _CopyAt(OSDisk):
    """Copies the store away in its Nth call, as a kill in that call leaves it."""

    def __init__(self, path: Path, call: int) -> None:
        self._path, self._left, self.armed = path, call, False

    def _count(self) -> None:
        if self.armed:
            self._left -= 1
            if not self._left:
                shutil.copytree(self._path / "data", self._path / "killed")

    def remove(self, path: Any) -> None:
        self._count()
        super().remove(path)

    def rename(self, source: Any, target: Any) -> None:
        self._count()
        super().rename(source, target)

    def sync_dir(self, path: Any) -> None:
        self._count()
        super().sync_dir(path)

    def sync_file(self, path: Any) -> None:
        self._count()
        super().sync_file(path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_11613_a_failed_defragment_leaves_the_old_file_in_use(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that fails half-way costs nothing: the store goes on, whole, on the file that it has."""
    with open_store(tmp_path, backend, low_disk_bytes=0) as store:
        live(store, 30)
        everything = content(store)

        def half(source: Any, target: Any, *_: Any, **__: Any) -> None:
            with target.write() as batch:
                batch.put_many("latest", [(b"half", b"a copy")])
            raise OSError("the disk said no")

        monkeypatch.setattr(defragment, "copy_rows", half)
        with pytest.raises(OSError, match="said no"):
            store.defragment()
        monkeypatch.undo()
        assert content(store) == everything
        store.put(b"after", b"v")
        settle(store)
        store.engine.backend.check()
        assert not layout.temporaries(tmp_path / "data" / "snap")
        store.defragment()
    with open_store(tmp_path, backend) as store:
        assert store.get(b"after") is not None


# --- the order of log, snapshots and releases ------------------------------------------------------


@pytest.mark.parametrize("durability", ["off", "always"])
def test_11888_a_snapshot_is_never_ahead_of_the_durable_log(scratch: Path, durability: str) -> None:
    """The power goes right after a snapshot: the log on the disk reaches it, so the store opens with all of it."""
    disk = RecordingDisk(scratch / "root")
    options = Options(backend="memory", background=False, durability=durability, low_disk_bytes=0)
    store = Store(open_engine(scratch / "root" / "data", options, disk))
    live(store, 30)
    info = store.snapshot()
    everything = content(store)
    left = disk.materialise(scratch / "left", LOST)
    store.close()
    with kvstore.open(left / "data", "memory", background=False) as store:
        assert store.revision == info.revision
        assert content(store) == everything


@pytest.mark.parametrize("backend", BACKENDS)
def test_10219_a_segment_goes_only_when_the_backend_is_synced(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a segment holds is durable elsewhere before the segment is given up."""
    order: list[str] = []
    options = {"wal_file_size": 1000, "max_wals": 1, "low_disk_bytes": 0}
    with open_store(tmp_path, backend, **options) as store:
        for number in range(10):
            store.put(b"k%d" % number, b"v" * 500)
        settle(store)
        kind = type(store.engine.backend)
        sync, remove = kind.sync, OSDisk.remove

        def noted_sync(self: Any) -> None:
            order.append("sync")
            sync(self)

        def noted_remove(self: OSDisk, path: Any) -> None:
            order.append("remove")
            remove(self, path)

        monkeypatch.setattr(kind, "sync", noted_sync)
        monkeypatch.setattr(OSDisk, "remove", noted_remove)
        assert store.engine.snapshots.release()
        monkeypatch.undo()
    assert order[0] == "sync" and "remove" in order


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_18055_two_snapshots_at_once(tmp_path: Path, backend: str) -> None:
    """Of the same moment, from two threads, and again right after: each is whole, none harms the other."""
    with open_store(tmp_path, backend, low_disk_bytes=0) as store:
        live(store, 20)
        taken: list[Any] = []
        threads = [threading.Thread(target=lambda: taken.append(store.snapshot())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken.append(store.snapshot())
        assert len({info.path for info in taken}) == 1 and len(taken) == 5
        with kvstore.open_snapshot(taken[0].path, verify=True) as snapshot:
            assert content(snapshot) == content(store)


def test_purge_does_not_race_with_closing(tmp_path: Path) -> None:
    """Closing while segments and snapshots are being given up ends both, and what is needed is there (etcd 3.4.4)."""
    options: dict[str, Any] = {
        "wal_file_size": 2000,
        "max_wals": 1,
        "snapshot_size": 5000,
        "max_snapshots": 1,
        "backend_batch_interval_seconds": 0.001,
        "low_disk_bytes": 0,
    }
    written = 0
    for _ in range(8):
        with kvstore.open(tmp_path / "data", **options) as store:
            for _ in range(12):
                store.put(b"k%d" % written, b"v" * 500)
                written += 1
            store.engine.core.want_work()
        with kvstore.open(tmp_path / "data", background=False) as store:
            assert store.count(prefix=b"k") == written
    assert kvstore.verify(tmp_path / "data").ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_20271_one_lock_for_everything_that_swaps_the_backend(tmp_path: Path, backend: str) -> None:
    """Defragmentations, snapshots, checkpoints, compactions and readers at once: nobody fails, nothing is lost."""
    failures: list[BaseException] = []
    finished = threading.Event()

    def again(call: Callable[[], Any]) -> None:
        try:
            while not finished.is_set():
                call()
        except BaseException as failure:
            failures.append(failure)
            finished.set()

    with kvstore.open(tmp_path / "data", backend, low_disk_bytes=0, max_snapshots=2) as store:
        live(store, 50)

        def compact() -> None:
            try:
                store.compact(store.revision - 60)  # all of the writes below: so it passes no reader
            except kvstore.RequestError:
                finished.wait(0.001)

        calls = [store.defragment, store.snapshot, store.checkpoint, compact, lambda: content(store)]
        threads = [threading.Thread(target=again, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for number in range(60):
            store.put(b"w", b"%d" % number)
        finished.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.engine.life.failure is None
        everything = content(store)
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        assert content(store) == everything


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_defragments_leave_no_file_and_no_descriptor(tmp_path: Path, backend: str) -> None:
    """However often (etcd 3.4.20 left db.tmp files, 3.4.35 open ones)."""

    def descriptors() -> int:
        return sum(
            os.readlink(f"/proc/self/fd/{number}").startswith(str(tmp_path))
            for number in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{number}")
        )

    with open_store(tmp_path, backend, low_disk_bytes=0) as store:
        live(store, 20)
        store.defragment()
        files, before = sorted(os.listdir(tmp_path / "data" / "snap")), descriptors()
        for number in range(5):
            store.put(b"k", b"%d" % number)
            store.defragment()
        assert descriptors() == before
        assert not [name for name in os.listdir(tmp_path / "data" / "snap") if ".tmp" in name]
        assert len(os.listdir(tmp_path / "data" / "snap")) <= len(files) + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_defragment_keeps_the_settings_of_the_backend(tmp_path: Path, backend: str) -> None:
    """The new file is opened as the old one was, for its owner alone (etcd 3.4.19 and 3.5.3 forgot options)."""

    def settings(store: Store) -> list[Any]:
        engine: Any = store.engine.backend
        if backend == "sqlite":
            pragmas = ("journal_mode", "synchronous", "mmap_size", "wal_autocheckpoint", "cache_size")
            found = [engine._writer.execute(f"PRAGMA {pragma}").fetchall() for pragma in pragmas]
        else:
            found = [engine.environment.info()["map_size"], engine.environment.flags()]
        return [*found, (tmp_path / "data" / "snap" / "db").stat().st_mode]

    with open_store(tmp_path, backend, low_disk_bytes=0) as store:
        live(store, 20)
        before = settings(store)
        store.defragment()
        assert settings(store) == before


@pytest.mark.parametrize("length", [b"\xff" * 7 + b"\x7f", b"\xff" * 8, b"\0\0\0\3\0\1\0\0"])
def test_14127_a_half_synced_length_at_the_end_is_a_torn_tail(
    tmp_path: Path, length: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The last write left only a giant length on the disk: it is cut, a copy is kept, no memory taken (also #15069)."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"v")
        copied(tmp_path, "crashed")
        end = store.engine.core.log._writer.end  # type: ignore[union-attr]  # it is open
    segment = layout.segments(tmp_path / "crashed" / "data" / "wal")[-1].path
    data = bytearray(segment.read_bytes())
    assert not any(data[end:])
    data[end : end + 8] = length
    segment.write_bytes(data)
    with caplog.at_level(logging.WARNING), open_store(tmp_path / "crashed", "lmdb") as store:
        assert store.get(b"k") is not None
        assert store.put(b"k", b"w").revision == 3
    assert "was not finished" in caplog.text or "where nothing was written" in caplog.text
    assert segment.with_name(segment.name + ".broken").exists()


def test_11488_zeros_at_the_end_of_the_log_are_its_end(tmp_path: Path) -> None:
    """A hard reset leaves zeros where nothing was ever acknowledged: the store opens."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"v")
    segment = layout.segments(tmp_path / "data" / "wal")[-1].path
    with open(segment, "ab") as file:
        file.write(bytes(1_000_000))
    with open_store(tmp_path, "lmdb") as store:
        assert store.put(b"k", b"w").revision == 3
    with open_store(tmp_path, "lmdb") as store:
        assert store.get(b"k").value == b"w"  # type: ignore[union-attr]  # it is there


def test_unsafe_no_fsync_still_writes(tmp_path: Path) -> None:
    """With durability off a write that has returned is in the operating system's hands (etcd 3.4.16: in a buffer)."""
    with open_store(tmp_path, "lmdb", durability="off") as store:
        for number in range(20):
            store.put(b"k", b"%d" % number)
            at = copied(tmp_path, f"killed-{number}")
            with open_store(at, "lmdb") as left:
                assert left.get(b"k").value == b"%d" % number  # type: ignore[union-attr]  # it is there
