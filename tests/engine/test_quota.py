"""Room: the quota, the low-disk mark, the alarm, and a disk that is really full."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import files
from kvstore.errors import Code, DiskFull, NearlyFull, QuotaExceeded, SpaceError, StorePoisoned
from kvstore.files import File, OSDisk, OSFile
from kvstore.model import NOSPACE, Alarm, PutWithTTLRequest, Request
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store
from kvstore.wal import writer as wal_writer
from kvstore.write.admission import check, txn_cost
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, open_store, settle

QUOTA_BYTES = 400_000


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path, request.param, quota_backend_bytes=QUOTA_BYTES, low_disk_bytes=0) as store:
        yield store


def fill(store: Store, value_bytes: int = 5000) -> tuple[int, QuotaExceeded]:
    """Put until there is no room; how many went in, and the refusal."""
    for number in range(10_000):
        try:
            store.put(b"fill%04d" % number, b"v" * value_bytes)
        except QuotaExceeded as refusal:
            return number, refusal
        if number % 10 == 9:
            settle(store)
    raise AssertionError("the quota was never met")


def make_room(store: Store) -> None:
    store.delete(prefix=b"fill")
    store.compact(store.revision, physical=True)
    settle(store)


# --- the quota ---------------------------------------------------------------------------


def test_a_write_over_the_quota_leaves_no_trace(store: Store) -> None:
    """It is refused before it is planned, says used, limit and what helps, and nothing of it is there later."""
    count, refusal = fill(store)
    assert count > 20
    assert (refusal.code, refusal.retryable) == (Code.RESOURCE_EXHAUSTED, True)
    assert refusal.quota_bytes == QUOTA_BYTES and 0 < refusal.used_bytes < QUOTA_BYTES + 10_000
    assert "compact" in str(refusal)
    revision = store.revision
    for _ in range(3):
        with pytest.raises(QuotaExceeded):
            store.put(b"refused", b"v" * 5000)
    assert store.revision == revision
    assert store.get(b"refused") is None


def test_what_frees_room_always_works(store: Store) -> None:
    """Reads, deletes, transactions without puts, revoking, compaction and disarming need no room."""
    lease = store.grant_lease(100).id
    store.put(b"leased", b"v", lease=lease)
    fill(store)
    with pytest.raises(QuotaExceeded):
        store.put(b"k", b"v" * 5000)
    assert store.get(b"fill0000") is not None
    store.keep_alive(lease)
    store.revoke_lease(lease)
    assert store.delete(b"fill0001").deleted == 1
    assert store.txn(success=[kvstore.ops.delete(b"fill0002"), kvstore.ops.get(b"fill0003")]).succeeded
    store.compact(store.revision)
    store.disarm(store.alarms()[0])


def test_the_alarm_comes_and_goes_by_itself(store: Store) -> None:
    """It is raised with the first refusal and put out when there is room, and then writes go on: no manual steps."""
    assert store.alarms() == ()
    fill(store)
    assert store.alarms() == (Alarm(store.engine.member_id, NOSPACE),)
    store.engine.room.tend()
    assert store.alarms() != ()
    make_room(store)
    store.put(b"k", b"v" * 5000)
    store.engine.room.tend()
    assert store.alarms() == ()


def test_free_pages_do_not_count(tmp_path: Path) -> None:
    """Rewriting the same keys with compaction goes on for ever below the quota, without a defragment."""
    for backend in BACKENDS:
        options = {"quota_backend_bytes": QUOTA_BYTES, "auto_defragment_ratio": 0, "low_disk_bytes": 0}
        with open_store(tmp_path / backend, backend, **options) as store:
            for number in range(60):
                store.txn(success=[kvstore.ops.put(b"k%d" % key, b"%d" % number * 1000) for key in range(20)])
                store.compact(store.revision, physical=True)


def test_the_alarm_survives_a_restart_and_then_goes(tmp_path: Path) -> None:
    """An alarm that was on is on after reopening, also after a crash, and goes out with a larger quota."""
    for backend in BACKENDS:
        path = tmp_path / backend
        with open_store(path, backend, quota_backend_bytes=QUOTA_BYTES, low_disk_bytes=0) as store:
            fill(store)
            shutil.copytree(path / "data", path / "crashed" / "data")
        for place in (path, path / "crashed"):
            with open_store(place, backend, quota_backend_bytes=QUOTA_BYTES, low_disk_bytes=0) as store:
                assert [alarm.alarm for alarm in store.alarms()] == [NOSPACE]
                with pytest.raises(QuotaExceeded):
                    store.put(b"k", b"v" * 5000)
            with open_store(place, backend, quota_backend_bytes=-1) as store:
                store.put(b"k", b"v" * 5000)
                store.engine.room.tend()
                assert store.alarms() == ()


def cost(request: Request) -> int:
    return check(request, Options())


def test_costs() -> None:
    """A put costs 256 bytes and its own; a transaction its dearer branch, nested ones counted in (#nested bypass)."""
    small, large = kvstore.ops.put(b"k", b"v"), kvstore.ops.put(b"key", b"v" * 1000)
    assert (cost(small), cost(large)) == (258, 1259)
    assert cost(PutWithTTLRequest(small, 5)) == 258 + 64
    nested = kvstore.ops.txn(success=[large], failure=[small, small])
    assert txn_cost(kvstore.ops.txn(success=[small, small], failure=[large])) == 1259
    assert txn_cost(kvstore.ops.txn(success=[small, nested])) == 258 + 1259
    assert txn_cost(kvstore.ops.txn(success=[kvstore.ops.txn(success=[nested])])) == 1259
    assert txn_cost(kvstore.ops.txn(success=[kvstore.ops.delete(b"k"), kvstore.ops.get(b"k")])) == 0


def test_a_nested_put_does_not_pass_the_quota(store: Store) -> None:
    """Hiding a put in a nested transaction, or in the branch that will not run, does not help."""
    fill(store)
    big = kvstore.ops.put(b"k", b"v" * 5000)
    for branches in ({"success": [kvstore.ops.txn(success=[big])]}, {"success": [], "failure": [big]}):
        with pytest.raises(QuotaExceeded):
            store.txn(**branches)


def test_grants_and_ttls_are_refused_too(tmp_path: Path) -> None:
    """A lease takes room; without any there are no new ones."""
    with open_store(tmp_path, "lmdb", quota_backend_bytes=1, low_disk_bytes=0) as store:
        with pytest.raises(QuotaExceeded):
            store.grant_lease(10)
        with pytest.raises(QuotaExceeded):
            store.put(b"k", b"v", ttl=10)
        assert store.leases() == ()


def test_asyncio_is_refused_alike(tmp_path: Path) -> None:
    """The asynchronous face raises the same error."""

    async def run() -> None:
        options: dict[str, Any] = {"background": False, "quota_backend_bytes": 1, "low_disk_bytes": 0}
        async with kvstore.open_async(tmp_path / "data", **options) as store:
            with pytest.raises(QuotaExceeded):
                await store.put(b"k", b"v")
            assert store.revision == 1

    asyncio.run(run())


def test_many_writers_at_the_edge(tmp_path: Path) -> None:
    """However many threads meet the quota at once, each write is acknowledged or refused, never both."""
    acknowledged: list[bytes] = []

    def write(store: Store, number: int) -> None:
        for at in range(200):
            key = b"%d-%d" % (number, at)
            try:
                store.put(key, b"v" * 3000)
                acknowledged.append(key)
            except QuotaExceeded:
                return

    with kvstore.open(tmp_path / "data", quota_backend_bytes=QUOTA_BYTES, low_disk_bytes=0) as store:
        threads = [threading.Thread(target=write, args=(store, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(kv.key for kv in store.scan(prefix=b"")) == sorted(acknowledged)
        assert 10 < len(acknowledged) < 200


# --- the low-disk mark -------------------------------------------------------------------


def test_the_low_disk_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below it puts are refused and deletes are not; above it again they go on, and the alarm goes out."""
    free = [1 << 40]
    monkeypatch.setattr(files, "free_bytes", lambda path: free[0])
    with open_store(tmp_path, "lmdb", low_disk_bytes=1000) as store:
        store.put(b"k", b"v")
        free[0] = 999
        store.engine.room.tend()
        with pytest.raises(DiskFull, match="999 bytes are free"):
            store.put(b"k2", b"v")
        assert [alarm.alarm for alarm in store.alarms()] == [NOSPACE]
        assert store.delete(b"k").deleted == 1
        store.compact(store.revision, physical=True)
        free[0] = 1000
        store.put(b"k2", b"v")
        store.engine.room.tend()
        assert store.alarms() == ()


# --- a full disk -------------------------------------------------------------------------


class _FullFile:
    def __init__(self, file: OSFile, disk: FullDisk) -> None:
        self._file, self._disk = file, disk

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        if self._disk.is_full and offset + len(data) > os.stat(self._file.path).st_size:
            raise DiskFull(os.strerror(errno.ENOSPC))
        self._file.pwrite(data, offset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class FullDisk(OSDisk):
    """A disk on which no file grows while it ``is_full``."""

    is_full = False

    def create(self, path: files.Path, *, direct: bool = False) -> File:  # type: ignore[override]  # a file in disguise
        if self.is_full:
            raise DiskFull(os.strerror(errno.ENOSPC))
        return _FullFile(super().create(path, direct=direct), self)

    def open(self, path: files.Path) -> File:  # type: ignore[override]  # a file in disguise
        return _FullFile(super().open(path), self)


def long_key(number: int) -> bytes:
    """A key whose delete takes as much of the log as its put."""
    return b"long%02d" % number + bytes(100_000)


def fill_log(store: Store) -> int:
    """Delete long keys until the reserve of the log is used up too; how many went."""
    for number in range(100):
        try:
            store.delete(long_key(number))
        except DiskFull:
            return number
    raise AssertionError("the log was never full")


def full_disk_store(
    path: Path, monkeypatch: pytest.MonkeyPatch, backend: str = "lmdb", long_keys: int = 40, **options: Any
) -> tuple[Store, FullDisk]:
    """A store with long keys on a disk that can be made full."""
    disk = FullDisk()
    chosen = Options(backend=backend, **{"background": False, "low_disk_bytes": 0, **options})
    store = Store(open_engine(path / "data", chosen, disk))
    monkeypatch.setattr(files, "free_bytes", lambda path: 0 if disk.is_full else 1 << 40)
    for number in range(long_keys):
        store.put(long_key(number), b"v")
    return store, disk


@pytest.mark.parametrize("segment_bytes", [64_000_000, 1_000_000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_refuses_what_takes_room_and_not_what_makes_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, segment_bytes: int
) -> None:
    """Puts and grants get ``DiskFull`` before they are planned; deletes, revocations, compaction and reads go on."""
    store, disk = full_disk_store(tmp_path, monkeypatch, backend, wal_file_size=segment_bytes)
    with store:
        lease = store.grant_lease(100).id
        store.put(b"leased", b"1", lease=lease)
        for number in range(50):
            store.put(b"small%d" % number, b"1")
        settle(store)
        disk.is_full = True
        acknowledged = 0
        with pytest.raises(DiskFull, match="the log cannot grow"):
            for number in range(1000):
                store.put(b"k%d" % number, b"v" * 10_000)
                acknowledged += 1
        assert not store.engine.life.is_stalled
        assert [alarm.alarm for alarm in store.alarms()] == [NOSPACE]
        with pytest.raises(DiskFull):
            store.put(b"no", b"v" * 10_000)
        assert store.count(prefix=b"k") == acknowledged
        for number in range(50):
            assert store.delete(b"small%d" % number).deleted == 1
        store.revoke_lease(lease)
        assert store.get(b"leased") is None
        assert store.txn(success=[kvstore.ops.delete(b"k0"), kvstore.ops.get(b"k1")]).succeeded
        store.compact(store.revision, physical=True)
        disk.is_full = False
        store.put(b"after", b"v")
        store.engine.room.tend()
        assert store.alarms() == ()


@pytest.mark.parametrize("segment_bytes", [64_000_000, 1_000_000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_log_stalls_the_store_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, segment_bytes: int
) -> None:
    """With the reserve used up nothing is written; reads show what was acknowledged; with room it goes on, unopened."""
    store, disk = full_disk_store(tmp_path, monkeypatch, backend, wal_file_size=segment_bytes)
    lease = store.grant_lease(100).id
    store.put(b"old", b"1", lease=lease)
    settle(store)
    store.put(b"old2", b"1")
    disk.is_full = True
    gone = fill_log(store)
    assert store.engine.life.is_stalled
    revision = store.revision
    for refused in (
        lambda: store.put(b"no", b"v"),
        lambda: store.delete(b"old"),
        lambda: store.revoke_lease(lease),
    ):
        with pytest.raises(DiskFull):
            refused()
    assert store.revision == revision
    assert store.count(prefix=b"long") == 40 - gone
    assert store.get(b"old") is not None
    disk.is_full = False
    assert store.put(b"after", b"v").revision == revision + 1
    store.revoke_lease(lease)
    assert store.get(b"old") is None
    expected = sorted(kv.key for kv in store.scan(prefix=b""))
    assert len(expected) == 40 - gone + 2
    settle(store)
    assert sorted(kv.key for kv in store.scan(prefix=b"")) == expected
    store.close()
    with open_store(tmp_path, backend) as again:
        assert sorted(kv.key for kv in again.scan(prefix=b"")) == expected
        assert again.revision == revision + 2


def test_a_group_that_meets_a_full_disk_fails_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers queued behind the one that found no room are refused too; after the stall none of theirs is there."""
    store, disk = full_disk_store(tmp_path, monkeypatch, long_keys=100, wal_buffer_size=1_000_000)
    revision = store.revision
    disk.is_full = True
    tickets = [store.engine.submit(kvstore.ops.delete(long_key(number))) for number in range(100)]
    refused = []
    for ticket in tickets:
        try:
            store.wait(ticket)
            refused.append(False)
        except DiskFull:
            refused.append(True)
    gone = refused.index(True)
    assert gone < 99 and all(refused[gone:])
    disk.is_full = False
    store.put(b"last", b"v")
    assert (store.count(prefix=b"long"), store.revision) == (100 - gone, revision + gone + 1)
    store.close()


def test_unneeded_segments_go_when_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``max_wals`` keeps a few segments that nobody needs, as long as there is room for them."""
    free = [1 << 40]
    monkeypatch.setattr(files, "free_bytes", lambda path: free[0])
    with open_store(tmp_path, "lmdb", wal_file_size=2000, max_wals=5, low_disk_bytes=1000) as store:
        for number in range(30):
            store.put(b"k%d" % number, b"v" * 500)
        settle(store)
        store.engine.snapshots.release()
        assert len(store.status().wal) == 5
        free[0] = 999
        store.engine.room.tend()
        store.engine.snapshots.release()
        assert len(store.status().wal) == 1


def test_a_stalled_store_closes_and_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing while the disk is full raises nothing and loses nothing acknowledged."""
    store, disk = full_disk_store(tmp_path, monkeypatch)
    store.put(b"kept", b"v")
    disk.is_full = True
    gone = fill_log(store)
    assert store.engine.life.is_stalled
    store.close()
    disk.is_full = False
    with open_store(tmp_path, "lmdb") as again:
        assert [kv.key for kv in again.scan(prefix=b"")] == [b"kept", *map(long_key, range(gone, 40))]


def test_a_write_cut_off_half_way_poisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the log's bytes themselves met the full disk, nobody knows what is there: only reopening helps."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"v")

        def full(*arguments: object) -> None:
            raise DiskFull("half-way")

        monkeypatch.setattr(wal_writer.SegmentWriter, "write", full)
        with pytest.raises(StorePoisoned):
            store.put(b"k2", b"v")
        monkeypatch.undo()
        with pytest.raises(StorePoisoned):
            store.put(b"k3", b"v")
        assert store.get(b"k") is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "kvstore-test", str(mounted)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_disk_that_is_really_full(small_disk: Path, backend: str, background: bool) -> None:
    """Whichever file meets it, what was acknowledged is there, then and after reopening; with room writes go on."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 22_000_000)
    options: dict[str, Any] = {"background": background, "low_disk_bytes": 0, "snapshot_count": 0}
    acknowledged: dict[bytes, bytes] = {}
    with kvstore.open(small_disk / "data", backend, **options) as store:
        with pytest.raises(SpaceError):
            for number in range(100_000):
                key, value = b"k%04d" % (number % 500), b"%d" % number * 1000
                store.put(key, value)
                acknowledged[key] = value
                if not background and number % 50 == 0:
                    settle(store)
        assert {kv.key: kv.value for kv in store.scan(prefix=b"")} == acknowledged
        ballast.unlink()
        for _ in range(int(TIMEOUT_SECONDS * 20)):
            try:
                store.put(b"after", b"v")
                acknowledged[b"after"] = b"v"
                break
            except DiskFull:
                threading.Event().wait(0.05)
        assert b"after" in acknowledged
        assert {kv.key: kv.value for kv in store.scan(prefix=b"")} == acknowledged
    if (
        files.free_bytes(small_disk) < 1 << 20
    ):  # SQLite's own log may have taken it, and found no room to be moved
        with suppress(DiskFull):
            kvstore.open(small_disk / "data", backend, **options).close()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with kvstore.open(small_disk / "data", backend, **options) as store:
        assert {kv.key: kv.value for kv in store.scan(prefix=b"")} == acknowledged
        store.engine.backend.check()


def test_the_background_ends_a_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With background work on, the store goes on by itself some time after there is room again."""
    store, disk = full_disk_store(tmp_path, monkeypatch, background=True)
    with store:
        disk.is_full = True
        fill_log(store)
        assert store.engine.life.is_stalled
        disk.is_full = False
        turn, looks = threading.Event(), range(int(TIMEOUT_SECONDS * 20))
        assert any(turn.wait(0.05) or not store.engine.life.is_stalled for _ in looks)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_key_overwritten_for_ever_is_warned_of_and_the_remedy_works(tmp_path: Path, backend: str) -> None:
    """Long before the quota there is one warning; the refusal says what to do, and that helps, each time."""
    with open_store(tmp_path, backend, quota_backend_bytes=4_000_000, background=False) as store:
        for _ in range(2):
            with (
                pytest.warns(NearlyFull, match=r"store\.compact\(store\.revision\)") as warned,
                pytest.raises(QuotaExceeded, match=r"store\.compact\(store\.revision\)") as refused,
            ):
                for number in range(6000):
                    store.put(b"k", b"%d" % number + b"v" * 5000)
                    if number % 50 == 0:
                        store.checkpoint()
            assert len([each for each in warned if each.category is NearlyFull]) == 1
            error = refused.value
            assert error.limit == 4_000_000 and 0.9 < error.size / error.limit <= 1
            assert error.option == "quota_backend_bytes" and "compact" in error.remedy
            store.compact(store.revision, physical=True)
            store.put(b"k", b"again")
            store.engine.room.tend()
