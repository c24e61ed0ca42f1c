"""etcd's storage bugs, each as the test that would have found it here. (Of watches: watch/test_watch_regressions.py.)

The names begin with etcd's issue or pull request number. docs/etcd-bugs.md says of each what it was.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.files import OSDisk
from kvstore.keyvalue import encode_key_value
from kvstore.model import NOSPACE, Alarm, RangeRequest, RangeResponse
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, parse_u64
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store
from kvstore.testing.disk_images import LOST
from kvstore.testing.fake_clock import FakeClock
from kvstore.testing.recording_disk import RecordingDisk
from kvstore.upkeep import defragment
from tests.harness.gated_disk import GatedDisk
from tests.harness.watching import TIMEOUT_SECONDS, open_store, settle

BACKENDS = ("lmdb", "sqlite")
EVERYWHERE = (*BACKENDS, "memory")


def copied(path: Path, name: str) -> Path:
    """The files as they lie there now, as a killed process leaves them."""
    shutil.copytree(path / "data", path / name / "data")
    return path / name


def content(store: Store, revision: int = 0) -> dict[bytes, tuple[bytes, int]]:
    return {kv.key: (kv.value, kv.mod_revision) for kv in store.scan(prefix=b"", revision=revision)}


def applied_index(store: Store) -> int:
    """As the backend has it."""
    return parse_u64(store.engine.backend.get(META, META_APPLIED_INDEX))


def live(store: Store, count: int, seed: int = 1) -> None:
    """Puts, deletes and transactions over few keys."""
    chance = random.Random(seed)
    for number in range(count):
        keys = [b"k%d" % chance.randrange(8) for _ in range(3)]
        match chance.randrange(4):
            case 0:
                store.delete(keys[0], keys[1]) if keys[0] < keys[1] else store.delete(keys[0])
            case 1:
                store.txn(success=[kvstore.ops.put(key, b"%d" % number) for key in sorted(set(keys))])
            case _:
                store.put(keys[0], b"%d" % number)


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
                store.compact(store.revision - 40)  # so far behind that it passes no reader
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


# --- compaction and HashKV -------------------------------------------------------------------------

TINY = {"compaction_batch_limit": 7, "low_disk_bytes": 0}


def hashes(store: Store, first: int) -> list[tuple[int, int]]:
    return [(revision, store.hash_kv(revision).hash) for revision in range(first, store.revision + 1)]


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_hashkv_does_not_change_while_a_compaction_goes_on(tmp_path: Path, backend: str) -> None:
    """At the compact revision too, and between any two steps of the sweep (etcd 3.4.26, 3.5.9)."""
    with open_store(tmp_path, backend, **TINY) as store:
        live(store, 120)
        settle(store)
        mark = store.revision - 10
        store.compact(mark)
        before = hashes(store, mark)
        settle(store)
        steps = 0
        while store.engine.compaction.step():
            steps += 1
            assert hashes(store, mark) == before
        assert steps > 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_15919_an_interrupted_compaction_does_not_change_the_hash(tmp_path: Path, backend: str) -> None:
    """One that was killed half-way and went on gives the hash of one that was not, for that and the next mark."""
    with open_store(tmp_path, backend, **TINY) as store:
        live(store, 120)
        settle(store)
        mark = store.revision - 20
        copied(tmp_path, "whole")
        store.compact(mark)
        settle(store)
        for _ in range(3):
            store.engine.compaction.step()
        copied(tmp_path, "killed")
    found = []
    for name in ("whole", "killed"):
        with open_store(tmp_path / name, backend, **TINY) as store:
            if name == "whole":
                store.compact(mark, physical=True)
            store.engine.run_compaction()
            first = hashes(store, mark)
            store.compact(mark + 10, physical=True)
            found.append((first, hashes(store, mark + 10)))
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_17119_a_delete_in_memory_hides_what_the_backend_has(tmp_path: Path, backend: str) -> None:
    """Deleted and not yet checkpointed: no read, count, hash or later delete finds it, before and after."""
    with open_store(tmp_path, backend) as store:
        for key in (b"a", b"b", b"c"):
            store.put(key, b"v")
        settle(store)
        store.delete(b"a", b"c")
        expected = store.hash_kv().hash
        for _ in range(2):
            assert store.get(b"a") is None
            assert store.range(prefix=b"", limit=1).kvs[0].key == b"c"
            assert store.count(prefix=b"") == 1
            assert store.delete(b"a", b"c").deleted == 0
            assert store.hash_kv().hash == expected
            assert [kv.key for kv in store.at(4).scan(prefix=b"")] == [b"a", b"b", b"c"]
            settle(store)
        store.put(b"a", b"again")
        assert store.get(b"a").version == 1  # type: ignore[union-attr]  # it is there


# --- transactions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_18667_a_range_that_is_compacted_refuses_the_whole_transaction_everywhere(
    tmp_path: Path, backend: str
) -> None:
    """Live, beside a compaction, and read-only, the answer is the same; replay has nothing left to decide."""
    past = kvstore.ops.get(b"k", revision=2)
    with open_store(tmp_path, backend) as store:
        live(store, 20)
        store.compact(10)
        revision = store.revision
        branches: tuple[list[kvstore.Op], ...] = (
            [kvstore.ops.put(b"n", b"v"), past],
            [kvstore.ops.txn(success=[past, kvstore.ops.put(b"n", b"v")])],
            [past],
        )
        for ops in branches:
            with pytest.raises(kvstore.Compacted):
                store.txn(success=ops)
        assert (store.revision, store.get(b"n")) == (revision, None)
        store.put(b"last", b"v")
        everything = content(store)
        path = store.snapshot(tmp_path / "copy.snap").path
        copied(tmp_path, "crashed")
    with open_store(tmp_path / "crashed", backend) as store:
        assert content(store) == everything
    with kvstore.open_snapshot(path) as snapshot, pytest.raises(kvstore.Compacted):
        snapshot.txn(success=[past])


def test_21432_a_range_at_a_revision_inside_a_transaction_is_of_that_revision(tmp_path: Path) -> None:
    """Not of the transaction's own, whatever stands before it in the transaction."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"old")
        store.put(b"k", b"new")
        for _ in range(2):
            ops: list[kvstore.Op] = [
                kvstore.ops.put(b"k", b"own"),
                kvstore.ops.get(b"k", revision=2),
                kvstore.ops.get(b"k"),
            ]
            _, past, now = store.txn(success=ops).responses
            assert isinstance(past, RangeResponse) and isinstance(now, RangeResponse)
            assert [past.kvs[0].value, now.kvs[0].value] == [b"old", b"own"]
            settle(store)


@pytest.mark.parametrize("backend", BACKENDS)
def test_partial_write_txn_leaves_nothing(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle of a transaction that nobody foresaw: none of it is seen or comes back (3.5.16)."""
    from kvstore.mvcc import plan

    with open_store(tmp_path, backend) as store:
        store.put(b"a", b"old")
        calls: list[object] = []

        def failing(*arguments: Any) -> bytes:
            calls.append(arguments)
            if len(calls) == 2:
                raise MemoryError
            return encode_key_value(*arguments)

        monkeypatch.setattr(plan, "encode_key_value", failing)
        puts = [kvstore.ops.put(b"a", b"1"), kvstore.ops.put(b"b", b"2")]
        with pytest.raises(MemoryError):
            store.txn(compare=[kvstore.version(b"a") > 0], success=puts)
        assert len(calls) == 2
        monkeypatch.undo()
        assert content(store) == {b"a": (b"old", 2)}
        assert store.put(b"c", b"3").revision == 3
    with open_store(tmp_path, backend) as store:
        assert content(store) == {b"a": (b"old", 2), b"c": (b"3", 3)}


# --- leases and alarms -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_11935_grants_and_revocations_are_applied_once(tmp_path: Path, backend: str) -> None:
    """Wherever between log and backend a process ends: a lease that ended does not come back, nor do its keys."""
    with open_store(tmp_path, backend) as store:
        for checkpoint in (False, True):
            store.grant_lease(1000, 7)
            store.put(b"k", b"v", lease=7)
            if checkpoint:
                settle(store)
            copied(tmp_path, f"granted-{checkpoint}")
            store.revoke_lease(7)
            copied(tmp_path, f"revoked-{checkpoint}")
            store.grant_lease(1000, 7)
            copied(tmp_path, f"again-{checkpoint}")
            store.revoke_lease(7)
    for name, leases, keys in (("granted", (7,), 1), ("revoked", (), 0), ("again", (7,), 0)):
        for checkpoint in (False, True):
            for _ in range(2):
                with open_store(tmp_path / f"{name}-{checkpoint}", backend) as store:
                    assert store.leases() == leases
                    assert store.count(prefix=b"") == keys
                    attached = store.lease_time_to_live(7, keys=True).keys
                    assert attached == ((b"k",) if keys else ())


@pytest.mark.parametrize("backend", BACKENDS)
def test_lease_revoke_takes_lease_and_keys_in_one_entry(tmp_path: Path, backend: str) -> None:
    """By hand or by expiry: no state on disk has one without the other (etcd 3.2)."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        for lease in (1, 2):
            store.grant_lease(10, lease)
            for key in (b"a", b"b"):
                store.put(b"%d%b" % (lease, key), b"v", lease=lease)
        settle(store)
        index = store.engine.state.index
        store.revoke_lease(1)
        clock.advance(20)
        store.engine.leasing.expire()
        assert store.engine.state.index == index + 2
        copied(tmp_path, "crashed")
    log = layout.segments(tmp_path / "crashed" / "data" / "wal")[-1].path
    whole = log.read_bytes().rstrip(b"\0")
    for cut in range(len(whole) - 200, len(whole), 7):
        at = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "crashed", at)
        torn = bytearray(whole)
        torn[cut:] = bytes(len(whole) - cut)
        layout.segments(at / "data" / "wal")[-1].path.write_bytes(torn)
        try:
            store = open_store(at, backend, clock=clock)
        except kvstore.Corruption:
            continue  # the cut is in what was synced long ago
        with store:
            for lease in (1, 2):
                assert store.count(prefix=b"%d" % lease) == 2 * (lease in store.leases())
        shutil.rmtree(at)


def test_renew_after_revoke_answers_that_the_lease_is_gone(tmp_path: Path) -> None:
    """A keep-alive that comes with or after the end never reports a TTL for a lease that is not there (etcd 3.5.23)."""
    clock = FakeClock()
    with open_store(tmp_path, "memory", clock=clock) as store:
        lease = store.grant_lease(10).id
        store.revoke_lease(lease)
        assert store.engine.lease_keep_alive(lease).ttl == 0
        lease = store.grant_lease(10).id
        clock.advance(10)
        assert store.engine.lease_keep_alive(lease).ttl == 0
        assert lease in store.leases()
        store.engine.leasing.expire()
        assert store.leases() == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_20273_a_restart_does_not_renew_leases(tmp_path: Path, backend: str) -> None:
    """Opened again and again in shorter intervals than its TTL, a lease still ends at its time (also #9395)."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        store.grant_lease(60, 1)
        store.put(b"k", b"v", lease=1)
    left = []
    for _ in range(7):
        clock.advance(10)
        with open_store(tmp_path, backend, clock=clock) as store:
            store.engine.leasing.expire()
            left.append(store.lease_time_to_live(1).ttl)
    assert left == [50, 40, 30, 20, 10, -1, -1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_14429_alarms_are_replayed(tmp_path: Path, backend: str) -> None:
    """Raised, listed and put out, then a crash: the store opens, with the alarms that were on."""
    options = {"low_disk_bytes": 0}
    with open_store(tmp_path, backend, quota_backend_bytes=1, **options) as store:
        alarm = Alarm(store.engine.member_id, NOSPACE)
        for name in ("first", "second"):
            with pytest.raises(kvstore.QuotaExceeded):
                store.put(b"k", b"v")
            assert store.alarms() == (alarm,)
            copied(tmp_path, f"{name}-on")
            assert store.disarm(alarm) == (alarm,)
            copied(tmp_path, f"{name}-off")
    for name in ("first", "second"):
        for state, alarms in (("on", (alarm,)), ("off", ())):
            with open_store(tmp_path / f"{name}-{state}", backend, quota_backend_bytes=1, **options) as store:
                assert store.alarms() == alarms


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


PAUSED = """
import sys, kvstore
with kvstore.open(sys.argv[1], background=False) as store:
    store.put(b"k", b"1")
    print("ready", flush=True)
    for line in sys.stdin:
        if line.startswith("put"):
            store.put(b"k", line.split()[1].encode())
        print(store.get(b"k").value.decode(), store.revision, flush=True)
"""


def test_20418_a_paused_process_does_not_serve_what_is_stale(tmp_path: Path) -> None:
    """Nobody takes over while it stands still, so what it answers afterwards is the newest there is."""
    command = [sys.executable, "-c", PAUSED, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(kvstore.StoreLocked):
            kvstore.open(tmp_path / "data")
        with kvstore.open(tmp_path / "data", read_only=True) as beside:
            assert beside.get(b"k").value == b"1"  # type: ignore[union-attr]  # it is there
        child.send_signal(signal.SIGCONT)
        print("get", file=child.stdin, flush=True)
        assert child.stdout.readline() == "1 2\n"
        print("put 2", file=child.stdin, flush=True)
        assert child.stdout.readline() == "2 3\n"
        with kvstore.open(tmp_path / "data", read_only=True) as beside:
            assert beside.get(b"k").value == b"2"  # type: ignore[union-attr]  # it is there
        child.stdin.close()
        assert child.wait(TIMEOUT_SECONDS) == 0


def test_12342_a_large_range_is_read_in_pages(tmp_path: Path) -> None:
    """A scan holds a page, whatever its range; it is not all made in memory first (also #14809)."""
    with open_store(tmp_path, "lmdb") as store:
        for part in range(10):
            store.txn(success=[kvstore.ops.put(b"%d/%03d" % (part, at), b"v" * 1000) for at in range(100)])
        settle(store)
        asked: list[int] = []
        page = store.engine.state.page

        def counted(*arguments: Any) -> Any:
            asked.append(arguments[3])
            return page(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.engine.state, "page", counted)
            rows = store.scan(prefix=b"", page_rows=50)
            next(rows)
            assert len(asked) == 1 and asked[0] <= 50
            assert sum(1 for _ in rows) == 999
        assert len(asked) >= 20
        assert store.engine.range(RangeRequest(b"0", b"\0", limit=3)).more
