"""Online defragment: the file shrinks, nobody waits or reads anything else, and a crash leaves a whole store."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import files
from kvstore.errors import Corruption, DiskFull, Overloaded, ReadOnly, StorePoisoned
from kvstore.files import Disk, OSDisk
from kvstore.model import EventType
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.snapshot.transfer import copy_rows
from kvstore.store import Store
from kvstore.testing.crashes import every_crash, every_failure
from kvstore.upkeep import defragment
from tests.harness.sweeps import torn_writes
from tests.harness.watching import TIMEOUT_SECONDS, open_store, settle

PERSISTENT = ("lmdb", "sqlite")
Acknowledge = Callable[[Any], None]


def fill(store: Store, keys: int = 60, rounds: int = 5) -> None:
    """Keys with garbage behind them, all of it compacted away: most of the file is free."""
    for number in range(rounds):
        for at in range(0, keys, 20):
            ops = [kvstore.ops.put(b"k%03d" % key, b"%d" % number * 2000) for key in range(at, at + 20)]
            store.txn(success=ops)
    store.compact(store.revision, physical=True)
    store.checkpoint()


def content(store: Store) -> dict[bytes, tuple[bytes, int]]:
    return {kv.key: (kv.value, kv.mod_revision) for kv in store.scan(prefix=b"")}


def open_files(path: Path) -> list[str]:
    """What this process has open below ``path``."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the descriptor of the listing itself
            continue
    return [name for name in found if name.startswith(str(path))]


@pytest.fixture(params=PERSISTENT)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path, request.param, low_disk_bytes=0) as store:
        yield store


def test_the_file_shrinks_and_holds_the_same(store: Store, tmp_path: Path) -> None:
    """After it the file is about what was in use; every read, the hash, and a reopened store are the same."""
    fill(store)
    before, hash_before, estimate = content(store), store.hash_kv(), store.defragment_estimate()
    done = store.defragment()
    assert done.before_bytes == estimate.size_bytes > 2 * done.after_bytes
    assert done.after_bytes <= estimate.in_use_bytes * 1.5
    assert (content(store), store.hash_kv()) == (before, hash_before)
    store.engine.backend.check()
    store.put(b"after", b"v")
    settle(store)
    assert store.defragment_estimate().free_share < 0.9
    backend = store.engine.backend.name
    store.close()
    with open_store(tmp_path, backend) as again:
        assert again.get(b"after") is not None
        again.engine.backend.check()
        assert sorted(os.listdir(tmp_path / "data" / "snap")) == sorted(
            {"lmdb": ["db", "db-lock"], "sqlite": ["db", "db-shm", "db-wal"]}[backend]
        )


def test_again_and_again(store: Store) -> None:
    """Writes between many defragments are all there in the end."""
    for number in range(8):
        for at in range(10):
            store.put(b"%d-%d" % (number, at), b"v" * 100)
        store.defragment()
    assert len(content(store)) == 80
    store.engine.backend.check()


def test_an_open_view_reads_on_in_the_old_file(store: Store, tmp_path: Path) -> None:
    """A reader that began before keeps its commit, through later commits; then the old file is let go."""
    fill(store)
    view = store.engine.backend.read()
    before = view.scan("latest")
    store.defragment()
    store.put(b"new", b"v")
    settle(store)
    assert view.scan("latest") == before
    assert store.get(b"new") is not None
    assert any("deleted" in name for name in open_files(tmp_path))
    view.close()
    del view
    gc.collect()
    assert not any("deleted" in name for name in open_files(tmp_path))
    store.put(b"newer", b"v")
    settle(store)
    store.engine.backend.check()


def test_nothing_refers_to_the_old_backend(store: Store, tmp_path: Path) -> None:
    """Without readers the old file's space is free at once, without waiting for the garbage collector."""
    fill(store)
    gc.collect()
    gc.disable()
    try:
        store.defragment()
        assert not any("deleted" in name for name in open_files(tmp_path))
    finally:
        gc.enable()


@pytest.mark.parametrize("backend", PERSISTENT)
def test_readers_and_writers_beside_it(tmp_path: Path, backend: str) -> None:
    """While it runs over and over, reads see what was acknowledged, scans are whole, watches miss nothing."""
    done = threading.Event()
    failures: list[BaseException] = []
    acknowledged = [0] * 2

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not done.is_set():
                    work()
            except BaseException as failure:
                failures.append(failure)

        return run

    with kvstore.open(
        tmp_path / "data", backend, low_disk_bytes=0, backend_batch_interval_seconds=0.005
    ) as store:
        for at in range(300):
            store.put(b"still%03d" % at, b"v" * 500)
        first = store.revision + 1

        def write(number: int) -> None:
            store.put(b"w%d" % number, b"%d" % (acknowledged[number] + 1))
            acknowledged[number] += 1

        def read() -> None:
            for number in range(2):
                least = acknowledged[number]
                kv = store.get(b"w%d" % number)
                assert (int(kv.value) if kv else 0) >= least
            assert store.count(prefix=b"still") == 300
            assert len(list(store.scan(prefix=b"still", page_rows=50))) == 300

        with store.watch(prefix=b"w", start_revision=first) as events:
            works = [lambda: write(0), lambda: write(1), read]
            threads = [threading.Thread(target=guarded(work)) for work in works]
            for thread in threads:
                thread.start()
            for _ in range(10):
                store.defragment()
            done.set()
            for thread in threads:
                thread.join()
            assert not failures, failures
            revisions = [events.get(TIMEOUT_SECONDS).kv.mod_revision for _ in range(sum(acknowledged))]
        assert revisions == list(range(first, first + sum(acknowledged)))
        final = content(store)
    with open_store(tmp_path, backend) as store:
        assert content(store) == final
        store.engine.backend.check()


def test_writes_do_not_wait_for_the_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put, a get and a delete come back while the copy stands still half-way."""
    fill(store)
    reached, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> None:
        copy_rows(*arguments, **options)
        reached.set()
        assert go_on.wait(TIMEOUT_SECONDS)

    monkeypatch.setattr(defragment, "copy_rows", slow)
    thread = threading.Thread(target=store.defragment)
    thread.start()
    assert reached.wait(TIMEOUT_SECONDS)
    store.put(b"meanwhile", b"v")
    store.delete(b"k000")
    assert store.get(b"meanwhile") is not None and store.get(b"k000") is None
    go_on.set()
    thread.join()
    settle(store)
    assert store.get(b"meanwhile") is not None and store.get(b"k000") is None
    assert store.defragment_estimate().size_bytes < 2_000_000


def test_no_room_is_said_before_anything_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for the copy it is refused, names the numbers, and the store goes on."""
    fill(store)
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(DiskFull, match="has room for 1000"):
        store.defragment()
    assert not [name for name in os.listdir(tmp_path / "data" / "snap") if ".tmp" in name]
    store.put(b"k", b"v")


def test_a_copy_that_differs_is_not_used(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the copy is of another commit, it is thrown away and the old file stays."""
    fill(store)
    backend = store.engine.backend

    def late(*arguments: Any, **options: Any) -> None:
        copy_rows(*arguments, **options)
        with backend.write() as tx:
            tx.put_many("meta", [(b"stray", b"1")])

    monkeypatch.setattr(defragment, "copy_rows", late)
    with pytest.raises(Corruption):
        store.defragment()
    assert store.engine.backend is backend
    assert not [name for name in os.listdir(tmp_path / "data" / "snap") if ".tmp" in name]
    store.put(b"k", b"v")
    settle(store)


def test_it_is_given_up_before_writers_wait_for_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writers fill the memory meanwhile: a typed error, no litter, the old file; and it can be tried again."""
    fill(store)
    backend = store.engine.backend

    def beside_a_writer(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(options["pause"], "_limit_bytes", 1)
        store.put_nowait(b"meanwhile", b"v")
        copy_rows(*arguments, **options)

    monkeypatch.setattr(defragment, "copy_rows", beside_a_writer)
    with pytest.raises(Overloaded) as given_up:
        store.defragment()
    assert given_up.value.retryable
    assert store.engine.backend is backend
    assert not [name for name in os.listdir(tmp_path / "data" / "snap") if ".tmp" in name]
    monkeypatch.undo()
    assert store.defragment().after_bytes < 2_000_000
    assert store.get(b"meanwhile") is not None


def test_a_reader_of_the_old_file_may_go_on(store: Store) -> None:
    """A view that was open before goes on reading all its rows after; the file is not cut under it."""
    fill(store)
    store.checkpoint()
    old = store.engine.backend
    with old.read() as view:
        before = view.scan("latest")
        store.defragment()
        assert view.scan("latest") == before
    assert old is not store.engine.backend


def test_memory_has_nothing_to_defragment(tmp_path: Path) -> None:
    """It is allowed, and does nothing."""
    with open_store(tmp_path, "memory") as store:
        store.put(b"k", b"v")
        done = store.defragment()
        assert done.before_bytes == done.after_bytes
        assert store.get(b"k") is not None


def test_a_read_only_store_is_not_defragmented(tmp_path: Path) -> None:
    """That needs the right to write."""
    open_store(tmp_path, "lmdb").close()
    with kvstore.open(tmp_path / "data", read_only=True) as store, pytest.raises(ReadOnly):
        store.defragment()


def test_it_happens_by_itself(tmp_path: Path) -> None:
    """After a compaction that left more free than the options allow, and only then."""
    for backend in PERSISTENT:
        options = {"auto_defragment_min": 100_000, "auto_defragment_ratio": 0.5, "low_disk_bytes": 0}
        with open_store(tmp_path / backend, backend, **options) as store:
            for number in range(5):
                store.txn(
                    success=[kvstore.ops.put(b"k%03d" % key, b"%d" % number * 5000) for key in range(40)]
                )
                settle(store)
            store.engine.background.tend_upkeep()
            assert store.engine.defragmenter.count == 0
            store.compact(store.revision)
            settle(store)
            store.engine.background.tend_upkeep()
            assert store.engine.defragmenter.count == 1
            store.engine.background.tend_upkeep()
            assert store.engine.defragmenter.count == 1


# --- crashes -----------------------------------------------------------------------------


def work(backend: str) -> Callable[[Disk, Path, Acknowledge], None]:
    def run(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        options = Options(backend=backend, background=False, low_disk_bytes=0)
        store = Store(open_engine(directory / "data", options, disk))
        try:
            store.put(b"before", b"v")
            acknowledge(b"before")
            store.defragment()
            store.put(b"after", b"v")
            acknowledge(b"after")
            store.checkpoint()
        finally:
            store.close()

    return run


@torn_writes
@pytest.mark.parametrize("backend", PERSISTENT)
def test_power_cuts(scratch: Path, backend: str, most_sectors: int) -> None:
    """Whatever call the power goes in: one whole store, all that was acknowledged, and no litter."""
    with open_store(scratch / "start", backend) as store:
        fill(store, 20, 2)
        wanted = content(store)
    crashes = 0
    left = every_crash(
        scratch / "runs", work(backend), chances=2, most_sectors=most_sectors, start=scratch / "start"
    )
    for crash in left:
        crashes += 1
        with open_store(crash.directory, backend) as store:
            found = content(store)
            assert {key: row for key, row in found.items() if key.startswith(b"k")} == wanted, crash
            assert set(crash.acknowledged) <= found.keys(), crash
            store.engine.backend.check()
            assert not [name for name in os.listdir(crash.directory / "data" / "snap") if ".tmp" in name], (
                crash
            )
            store.defragment()
    assert crashes > 20


@torn_writes
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("backend", PERSISTENT)
def test_failing_calls(scratch: Path, backend: str, code: int, most_sectors: int) -> None:
    """A call that fails is reported; what was acknowledged is there at the next open."""
    with open_store(scratch / "start", backend) as store:
        fill(store, 20, 2)

    def guarded(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        try:
            work(backend)(disk, directory, acknowledge)
        except (DiskFull, OSError, StorePoisoned):
            pass

    left = every_failure(
        scratch / "runs", guarded, code, chances=1, most_sectors=most_sectors, start=scratch / "start"
    )
    for crash in left:
        with open_store(crash.directory, backend) as store:
            assert set(crash.acknowledged) <= content(store).keys(), crash
            store.engine.backend.check()


@pytest.mark.parametrize("name", ["db.tmp", "db.tmp-lock", "db.tmp-wal", "db.tmp-shm", "db.tmp-journal"])
def test_litter_is_removed_at_open(tmp_path: Path, name: str) -> None:
    """What an interrupted copy left beside the file, helpers too, is gone after opening."""
    for backend in PERSISTENT:
        open_store(tmp_path / backend, backend).close()
        litter = tmp_path / backend / "data" / "snap" / name
        litter.write_bytes(b"half a copy")
        open_store(tmp_path / backend, backend).close()
        assert not litter.exists()


def test_a_failure_after_the_rename_stops_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is not known which file bears the name, nothing more is written; reads go on, reopening heals."""
    fill(store)

    rename = OSDisk.rename

    def failing(disk: OSDisk, source: files.Path, target: files.Path) -> None:
        rename(disk, source, target)
        raise OSError(errno.EIO, "the disk says no")

    monkeypatch.setattr(OSDisk, "rename", failing)
    with pytest.raises(OSError, match="says no"):
        store.defragment()
    with pytest.raises(StorePoisoned):
        store.put(b"k", b"v")
    assert store.count(prefix=b"k") == 60


def test_a_deleted_key_stays_deleted_for_watches(store: Store) -> None:
    """History that was kept is carried over: a watch from before the defragment sees it all."""
    mark = store.put(b"k", b"v").revision
    store.delete(b"k")
    settle(store)
    store.defragment()
    with store.watch(b"k", start_revision=mark) as events:
        assert [events.get(TIMEOUT_SECONDS).type for _ in range(2)] == [EventType.PUT, EventType.DELETE]
