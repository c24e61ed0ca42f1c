"""Taking snapshots: what is in them, what goes on meanwhile, and how they fail."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

import kvstore
from kvstore import files
from kvstore.backend import find_backend
from kvstore.errors import DiskFull
from kvstore.files import OSFile, disk_full_is_typed
from kvstore.model import RangeResponse
from kvstore.mvcc.schema import LATEST, TABLES
from kvstore.snapshot import copying, writer
from kvstore.snapshot.reader import read_info, verify
from tests.harness.plain import value_of
from tests.snapshot.stores import BadDisk, both, every, fill, open_store, roll

PIPED = ("lmdb", "sqlite")


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


@both
@pytest.mark.parametrize("beside", [False, True])
def test_what_is_not_read_back_is_found_when_it_is_verified(
    tmp_path: Path, backend: str, beside: bool
) -> None:
    """Without ``snapshot_read_back``, by the process that writes or beside it: the SHA-256 is of what was meant."""
    disk = BadDisk(-1, direct=True)
    with open_store(tmp_path / "s", backend, disk) as store:
        fill(store)
    with open_store(tmp_path / "s", backend, disk, read_only=beside, snapshot_read_back=False) as store:
        seen: list[tuple[int, int]] = []
        whole = store.snapshot(tmp_path / "backup", progress=lambda *step: seen.append(step))
        assert seen[-1] == (2 * whole.backend_bytes, 2 * whole.backend_bytes)
        assert verify(whole.path).revision == store.revision
        if not beside:  # there the backend writes the file itself
            disk.at = 5000
            with pytest.raises(kvstore.Corruption):
                verify(store.snapshot(tmp_path / "backup").path)


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
