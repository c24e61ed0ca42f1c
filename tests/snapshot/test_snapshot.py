"""Taking snapshots: what is in them, when they are taken, what they set free, and how they fail."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import apsw
import pytest

import kvstore
from kvstore import files, layout
from kvstore.backend import find_backend
from kvstore.errors import DiskFull
from kvstore.files import DirectFile, OSDisk, OSFile, disk_full_is_typed
from kvstore.model import RangeResponse
from kvstore.mvcc.schema import LATEST, TABLES
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.snapshot import copying, writer
from kvstore.snapshot.reader import read_info, verify
from kvstore.store import Store
from tests.harness.plain import value_of

BACKENDS = ("lmdb", "sqlite", "memory")
PIPED = ("lmdb", "sqlite")
both = pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
every = pytest.mark.parametrize("backend", BACKENDS)


def open_store(path: Path, backend: str, disk: OSDisk | None = None, **options: Any) -> Store:
    settings = Options(backend=backend, **{"background": False, **options})
    return Store(open_engine(path, settings, disk))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Any]:
    """Opens stores below ``tmp_path`` and closes them at the end."""
    opened: list[Store] = []

    def open_one(backend: str, folder: str = "s", **options: Any) -> Store:
        opened.append(open_store(tmp_path / folder, backend, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def fill(store: Store, count: int = 300) -> None:
    """Keys with a past, long ones among them, deletes, leases."""
    lease = store.grant_lease(1000, 77).id
    for number in range(count):
        store.put_nowait(b"key-%d" % (number % 40), b"value %d" % number)
    store.put(b"long" * 300, b"x" * 9000)
    store.put(b"\0\xff", b"", lease=lease)
    store.delete(b"key-7")


# --- content ------------------------------------------------------------------------------


@every
def test_a_snapshot_is_the_store_at_its_revision(stores: Any, tmp_path: Path, backend: str) -> None:
    """Opened, it answers every read as the store did, and none of what was written after it."""
    store = stores(backend)
    fill(store)
    store.compact(50)
    kvs, hashed, history = list(store.scan(prefix=b"")), store.hash_kv(), list(store.history(b"key-3"))
    past = list(store.at(100).scan(prefix=b""))
    changes = list(store.diff(100, store.revision))
    info = store.snapshot(tmp_path / "backup")
    store.put(b"later", b"1")
    with kvstore.open_snapshot(info.path, verify=True) as snapshot:
        assert list(snapshot.scan(prefix=b"")) == kvs
        assert snapshot.hash_kv() == hashed
        assert list(snapshot.history(b"key-3")) == history
        assert list(snapshot.at(100).scan(prefix=b"")) == past
        assert list(snapshot.diff(100, snapshot.revision)) == changes
        assert snapshot.get(b"later") is None
        assert snapshot.leases() == (77,)
        assert snapshot.lease_time_to_live(77, keys=True).keys == (b"\0\xff",)
        with pytest.raises(kvstore.Compacted):
            snapshot.at(49)


@every
def test_a_manifest_says_what_is_in_the_file(stores: Any, tmp_path: Path, backend: str) -> None:
    """Index, revisions, identity, counts and sizes are those of the store."""
    store = stores(backend, cluster_id=0xABC, member_id=0xDEF, name="alpha", clock=lambda: 1234.5)
    fill(store, 100)
    store.compact(20)
    info = store.snapshot(tmp_path / "backup")
    assert (info.backend, info.index, info.revision) == (backend, store.engine.state.index, store.revision)
    assert (info.compact_revision, info.created_ms) == (20, 1_234_500)
    assert (info.cluster_id, info.member_id) == (0xABC, 0xDEF)
    assert [(member.id, member.name) for member in info.members] == [(0xDEF, "alpha")]
    assert (info.keys, info.leases) == (store.count(prefix=b""), 1)
    assert info.changes == 100 + 3
    assert info.size_bytes == os.path.getsize(info.path) > info.backend_bytes
    assert read_info(info.path) == verify(info.path) == info


@every
def test_a_snapshot_cannot_be_written(stores: Any, tmp_path: Path, backend: str) -> None:
    """Every write to an opened snapshot raises ReadOnly, and the file stays as it is."""
    store = stores(backend)
    store.put(b"a", b"1")
    path = store.snapshot(tmp_path / "backup").path
    before = path.read_bytes()
    with kvstore.open_snapshot(path) as snapshot:
        for write in (
            lambda: snapshot.put(b"a", b"2"),
            lambda: snapshot.delete(b"a"),
            lambda: snapshot.compact(2),
            lambda: snapshot.grant_lease(5),
            lambda: snapshot.snapshot(tmp_path / "other"),
        ):
            with pytest.raises(kvstore.ReadOnly):
                write()
        (answer,) = snapshot.txn(success=[kvstore.ops.get(b"a")]).responses
        assert isinstance(answer, RangeResponse) and answer.kvs[0].value == b"1"
        assert snapshot.info.revision == snapshot.revision == 2
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["backup", "s"]


@every
def test_a_file_may_be_opened_more_than_once(stores: Any, tmp_path: Path, backend: str) -> None:
    """Two handles on one snapshot are closed independently, and the file can be replaced and opened again."""
    store = stores(backend)
    store.put(b"a", b"1")
    path = store.snapshot(tmp_path / "backup").path
    one, two = kvstore.open_snapshot(path), kvstore.open_snapshot(path)
    one.close()
    one.close()
    assert value_of(two, b"a") == b"1"
    store.put(b"a", b"2")
    store.snapshot(path)
    with kvstore.open_snapshot(path) as three:
        assert (value_of(two, b"a"), value_of(three, b"a")) == (b"1", b"2")
    two.close()
    with pytest.raises(kvstore.StoreClosed):
        two.get(b"a")
    with kvstore.open_snapshot(path) as four:
        assert value_of(four, b"a") == b"2"


@every
def test_an_empty_store_has_a_snapshot_too(stores: Any, tmp_path: Path, backend: str) -> None:
    """A store without a single write can be saved, and opened from the file."""
    info = stores(backend).snapshot(tmp_path / "backup")
    assert (info.index, info.revision, info.compact_revision, info.keys) == (0, 1, -1, 0)
    with kvstore.open_snapshot(info.path, verify=True) as snapshot:
        assert snapshot.revision == 1
        assert not list(snapshot.scan(prefix=b""))


# --- beside readers and writers -----------------------------------------------------------


@every
def test_reads_and_writes_go_on_while_the_backend_is_copied(
    stores: Any, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the copy a put becomes durable and readable; it is not in the snapshot."""
    store = stores(backend)
    fill(store)
    revision = store.revision
    begun, go_on = threading.Event(), threading.Event()
    describe = writer.describe

    def slow_copy(backend: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return describe(backend)

    monkeypatch.setattr(writer, "describe", slow_copy)
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(store.snapshot(tmp_path / "backup")))
    thread.start()
    assert begun.wait(30)
    store.put(b"meanwhile", b"1")
    assert store.get(b"meanwhile").value == b"1"
    assert store.get(b"key-1", revision=revision) == store.get(b"key-1")
    go_on.set()
    thread.join()
    assert taken[0].revision == revision
    with kvstore.open_snapshot(tmp_path / "backup") as snapshot:
        assert snapshot.get(b"meanwhile") is None


@every
def test_every_snapshot_under_load_is_one_moment_of_the_store(
    stores: Any, tmp_path: Path, backend: str
) -> None:
    """Taken while threads write pairs of keys in one transaction, a snapshot never shows half a pair."""
    store = stores(backend, background=True)
    done = threading.Event()

    def write(name: bytes) -> None:
        number = 0
        while not done.is_set():
            number += 1
            pair = [
                kvstore.ops.put(b"a" + name, b"%d" % number),
                kvstore.ops.put(b"b" + name, b"%d" % number),
            ]
            store.txn(success=pair)

    threads = [threading.Thread(target=write, args=(b"%d" % number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            acknowledged = store.revision
            info = store.snapshot(tmp_path / f"backup-{number}")
            assert info.revision >= acknowledged
            with kvstore.open_snapshot(info.path, verify=True) as snapshot:
                values = {kv.key: kv.value for kv in snapshot.scan(prefix=b"")}
                for name in (b"0", b"1", b"2"):
                    assert values.get(b"a" + name) == values.get(b"b" + name)
                assert snapshot.revision == info.revision
    finally:
        done.set()
        for thread in threads:
            thread.join()


def read_pipe(copy_into: Callable[[int], bool]) -> tuple[bool, bytes]:
    """What ``copy_into`` answers, and what it writes into a pipe."""
    readable, writable = os.pipe()
    found: list[bytes] = []

    def drain() -> None:
        with open(readable, "rb") as pipe:
            found.append(pipe.read())

    thread = threading.Thread(target=drain)
    thread.start()
    copied = copy_into(writable)
    os.close(writable)
    thread.join()
    return copied, found[0]


@pytest.mark.parametrize("backend", PIPED)
def test_a_copy_through_a_pipe_is_a_whole_file(stores: Any, tmp_path: Path, backend: str) -> None:
    """Written from front to back, each byte once, it opens and has every row."""
    store = stores(backend)
    fill(store)
    store.checkpoint()
    copied, whole = read_pipe(store.engine.backend.copy_into)
    assert copied
    (tmp_path / "copy").write_bytes(whole)
    copy = find_backend(backend).open(tmp_path / "copy", TABLES, immutable=True)
    for table in TABLES:
        with copy.read() as theirs, store.engine.backend.read() as ours:
            assert theirs.scan(table) == ours.scan(table)
    copy.check()
    copy.close()


def test_sqlite_is_copied_as_it_is_only_if_that_is_the_newest_commit(stores: Any) -> None:
    """While a view keeps the log from being moved into the file, and while much of the file is free, it is not."""
    store = stores("sqlite")
    fill(store)
    store.checkpoint()
    backend = store.engine.backend
    with backend.read() as view:
        view.scan(LATEST, limit=1)
        store.put(b"newer", b"1" * 5000)
        store.checkpoint()
        assert read_pipe(backend.copy_into) == (False, b"")
    assert read_pipe(backend.copy_into)[0]
    store.delete(prefix=b"")
    store.compact(store.revision, physical=True)
    assert read_pipe(backend.copy_into) == (False, b"")
    assert store.snapshot().keys == 0


def test_a_view_keeps_its_lock_while_the_file_is_copied(stores: Any, tmp_path: Path) -> None:
    """Reading SQLite's file beside SQLite does not make the operating system forget who has locked it."""
    store = stores("sqlite")
    fill(store)
    store.snapshot(tmp_path / "backup")
    path = store.engine.directory.db
    locks = {line.split()[5].rsplit(":", 1)[1] for line in Path("/proc/locks").read_text().splitlines()}
    assert str(path.stat().st_ino) in locks


@pytest.mark.parametrize("piped", [True, False])
@pytest.mark.parametrize("backend", PIPED)
def test_a_copy_of_many_chunks_is_followed(
    stores: Any, tmp_path: Path, backend: str, piped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks far smaller than the file, and less in the pipe, give the hash that reading it in one piece gives."""
    store = stores(backend)
    fill(store)
    kind: Any = find_backend(backend)
    copy_into = kind.copy_into

    def little_by_little(self: Any, fd: int) -> bool:
        if not piped:
            return False
        whole = read_pipe(partial(copy_into, self))[1]
        for at in range(0, len(whole), 7000):
            os.write(fd, whole[at : at + 7000])
            time.sleep(0.001)
        return True

    monkeypatch.setattr(copying, "CHUNK_BYTES", 8192)
    monkeypatch.setattr(copying, "PIECE_BYTES", 4096)
    monkeypatch.setattr(find_backend(backend), "copy_into", little_by_little)
    seen: list[int] = []
    info = store.snapshot(tmp_path / "backup", progress=lambda done, total: seen.append(done))
    whole = (tmp_path / "backup").read_bytes()
    assert hashlib.sha256(whole[: info.backend_bytes]).digest() == info.sha256
    assert seen == sorted(seen)
    assert seen[-1] == 3 * info.backend_bytes


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("backend", PIPED)
def test_a_copy_that_cannot_be_written_is_given_up(
    stores: Any, tmp_path: Path, backend: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first failure is what the caller gets; nobody waits at a broken pipe, nothing is left."""
    store = stores(backend)
    fill(store)

    class Failing(OSFile):
        def pwrite(self, data: Any, offset: int) -> None:
            with disk_full_is_typed():
                raise OSError(code, "the disk says no")

    with monkeypatch.context() as patch:
        patch.setattr(files, "DirectFile", Failing)
        with pytest.raises(OSError if code == errno.EIO else DiskFull, match="says no"):
            store.snapshot(tmp_path / "backup")
    assert os.listdir(tmp_path) == ["s"]
    assert store.snapshot(tmp_path / "backup").keys


def test_a_file_system_without_direct_access_will_do(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is written through the page cache, and read back when it has been synced."""
    store = stores("lmdb")
    fill(store)

    def refuse(*arguments: Any) -> NoReturn:
        raise OSError(errno.EINVAL, "no O_DIRECT here")

    monkeypatch.setattr(files, "DirectFile", refuse)
    monkeypatch.setattr(files, "is_direct", lambda file: False)
    monkeypatch.setattr(copying, "is_direct", lambda file: False)
    info = store.snapshot(tmp_path / "backup")
    with kvstore.open_snapshot(info.path, verify=True) as snapshot:
        assert snapshot.revision == store.revision


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


def roll(store: Store, times: int) -> None:
    """Fill that many segments."""
    for _ in range(times):
        store.put(b"k", bytes(2000))


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


# --- failures -----------------------------------------------------------------------------


@every
def test_no_room_is_noticed_before_anything_is_written(
    stores: Any, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that would not fit raises DiskFull, leaves no file, and the store goes on."""
    store = stores(backend)
    fill(store)
    monkeypatch.setattr(writer, "free_bytes", lambda path: 10_000)
    with pytest.raises(kvstore.DiskFull, match="room for 10000"):
        store.snapshot(tmp_path / "backup")
    assert os.listdir(tmp_path) == ["s"]
    store.put(b"k", b"v")


class BadDisk(OSDisk):
    """A disk that changes a byte of the snapshot on its way."""

    def __init__(self, at: int, *, direct: bool) -> None:
        self.at = at
        self.direct = direct

    def create(self, path: Any, *, direct: bool = False) -> OSFile:
        if not str(path).endswith("backup.tmp"):
            return super().create(path)
        at = self.at

        class BadFile(DirectFile if self.direct else OSFile):  # type: ignore[misc]  # chosen by the test
            def pwrite(self, data: Any, offset: int) -> None:
                data = bytearray(data)
                if offset <= at < offset + len(data):
                    data[at - offset] ^= 0xFF
                super().pwrite(data, offset)

        return BadFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


@both
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("at", [5000, 0])
def test_a_disk_that_stores_something_else_is_noticed(
    tmp_path: Path, backend: str, at: int, direct: bool
) -> None:
    """What is read back, right behind or in the end, is compared with what was digested on its way to the disk."""
    store = open_store(tmp_path / "s", backend, BadDisk(at, direct=direct))
    fill(store)
    with pytest.raises(kvstore.Corruption, match="read-back") as caught:
        store.snapshot(tmp_path / "backup")
    assert caught.value.path.endswith("backup.tmp")
    assert os.listdir(tmp_path) == ["s"]
    store.put(b"k", b"v")
    store.close()


@every
def test_a_damaged_snapshot_is_refused(stores: Any, tmp_path: Path, backend: str) -> None:
    """A changed byte anywhere in the backend copy is found by verify; a cut-off end by any opening."""
    store = stores(backend)
    fill(store)
    whole = store.snapshot(tmp_path / "backup").path.read_bytes()
    damaged = tmp_path / "damaged"
    for at in range(0, len(whole), 1 + len(whole) // 20):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(kvstore.Corruption):
            kvstore.open_snapshot(damaged, verify=True)
    for length in (len(whole) - 1, len(whole) - 30, len(whole) // 2, 40):
        damaged.write_bytes(whole[:length])
        with pytest.raises(kvstore.Corruption):
            kvstore.open_snapshot(damaged)
    damaged.write_bytes(whole + b"more")
    with pytest.raises(kvstore.Corruption):
        kvstore.open_snapshot(damaged)


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


def test_progress_covers_copying_hashing_and_reading_back(stores: Any, tmp_path: Path) -> None:
    """The callback sees ascending bytes up to the total, and may raise to give up."""
    store = stores("lmdb")
    fill(store)
    seen: list[tuple[int, int]] = []
    store.snapshot(tmp_path / "backup", progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0

    def give_up(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.snapshot(tmp_path / "other", progress=give_up)
    assert sorted(os.listdir(tmp_path)) == ["backup", "s"]


# --- beside the process that writes -------------------------------------------------------


READER = """
import sys, kvstore
with kvstore.open(sys.argv[1], sys.argv[2], read_only=True) as reader:
    reader.snapshot(sys.argv[3])
    try:
        reader.snapshot()
    except kvstore.ReadOnly:
        print("no place of its own")
"""


@both
def test_a_store_in_use_by_another_is_saved_whole(stores: Any, tmp_path: Path, backend: str) -> None:
    """From another process: what the writer has in its backend, and what only its log holds yet."""
    store = stores(backend)
    fill(store)
    store.checkpoint()
    store.put(b"only in the log", b"1")
    arguments = [str(tmp_path / "s"), backend, str(tmp_path / "backup")]
    run = subprocess.run(
        [sys.executable, "-c", READER, *arguments], check=True, capture_output=True, text=True
    )
    assert run.stdout == "no place of its own\n"
    assert sorted(os.listdir(tmp_path)) == ["backup", "s"]
    with kvstore.open_snapshot(tmp_path / "backup", verify=True) as snapshot:
        assert snapshot.info.revision == store.revision
        assert list(snapshot.scan(prefix=b"")) == list(store.scan(prefix=b""))
        assert snapshot.hash_kv() == store.hash_kv()
        assert snapshot.leases() == (77,)


def test_a_segment_that_goes_meanwhile_makes_the_copy_be_made_anew(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the writer releases what the copy still needs, the next copy is taken from a newer commit."""
    backend = "sqlite"  # which one process may open twice
    store = stores(backend, wal_file_size=1000, max_wals=1)
    roll(store, 3)
    store.checkpoint()
    copy_to = find_backend(backend).copy_to
    copies = []

    def copy_and_release(self: Any, path: Path) -> None:
        copy_to(self, path)
        copies.append(path)
        if len(copies) == 1:
            roll(store, 3)
            store.checkpoint()
            store.engine.snapshots.release()

    with stores(backend, read_only=True) as reader:
        monkeypatch.setattr(find_backend(backend), "copy_to", copy_and_release)
        info = reader.snapshot(tmp_path / "backup")
    assert len(copies) == 2
    assert info.revision == store.revision
