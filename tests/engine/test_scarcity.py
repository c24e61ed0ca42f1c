"""Moments without threads, descriptors, memory, or an archive: a call may fail, and all goes on afterwards."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.backend import find_backend
from kvstore.errors import KVStoreError, NoDescriptor, NoThread, Overloaded, StorePoisoned, StoreUnreachable
from kvstore.files import FileLock, OSDisk, is_disk_failure
from kvstore.life import Life
from kvstore.mvcc import checkpoint
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.state import State
from kvstore.store_lock import Said
from kvstore.upkeep import defragment
from kvstore.upkeep import snapshots as keeper
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.upkeep.leasing import Leasing
from kvstore.wal import Log, LogOptions
from kvstore.wal import log as wal_log
from kvstore.wal import writer as wal_writer
from kvstore.wal.archive import archive_segment
from kvstore.write.writer import Writer
from tests.harness.watching import TIMEOUT_SECONDS, open_store

BACKENDS = ("lmdb", "sqlite", "memory")
FILES = ("lmdb", "sqlite")
SCARCE = (
    MemoryError(),
    NoDescriptor("db"),
    OSError(errno.EMFILE, "none left"),
    RecursionError(),
    KVStoreError("?"),
)


# --- threads ---------------------------------------------------------------------------------------


@contextmanager
def no_thread(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[list[str]]:
    """Threads of these names cannot be started; which were."""
    started: list[str] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in names:
            raise RuntimeError("can't start new thread")
        started.append(thread.name)
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield started


def background_threads() -> list[str]:
    names = ("kvstore-maintenance", "kvstore-upkeep")
    return sorted(thread.name for thread in threading.enumerate() if thread.name in names)


BOTH = ["kvstore-maintenance", "kvstore-upkeep"]


@pytest.mark.parametrize("missing", [BOTH, BOTH[:1], BOTH[1:]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_background_work_begins_when_threads_can_be_had(
    tmp_path: Path, backend: str, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write succeeds without them, health says so, and a later write begins each that is not there, once."""
    with kvstore.open(tmp_path / "data", backend) as store:
        with no_thread(monkeypatch, *missing):
            for _ in range(3):
                store.put(b"k", b"v")
            assert background_threads() == [name for name in BOTH[:1] if name not in missing]
            assert any("can't start new thread" in reason for reason in store.health().reasons)
        store.put(b"k", b"v")
        assert background_threads() == BOTH
        assert not store.engine.background.at_rest
        assert store.health().healthy
    assert background_threads() == []


def test_closing_without_ever_having_had_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is written, and the lock given back."""
    with no_thread(monkeypatch, *BOTH), kvstore.open(tmp_path / "data") as store:
        store.put(b"k", b"v")
    with open_store(tmp_path, "lmdb") as store:
        assert store.engine.state.index == store.engine.state.applied_index
        assert store.get(b"k") is not None


def test_writers_make_room_themselves_while_there_is_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would: they would wait for ever."""
    with (
        no_thread(monkeypatch, *BOTH),
        kvstore.open(tmp_path / "data", overlay_limit=100_000) as store,
    ):
        for number in range(300):
            store.put(b"%d" % number, bytes(1000))
        assert store.engine.state.active.size_bytes < 200_000
        assert store.count(prefix=b"") == 300


def test_an_automatic_snapshot_without_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job fails, closing works, and another turn takes it."""
    with open_store(tmp_path, "lmdb", snapshot_size=1) as store:
        store.put(b"k", b"v")
        with no_thread(monkeypatch, "kvstore-snapshot"):
            with pytest.raises(RuntimeError):
                store.engine.snapshots.tend()
            store.engine.snapshots.stop()
            store.engine.snapshots._stopping = False
        store.engine.snapshots.tend()
        thread = store.engine.snapshots._thread
        assert thread is not None
        thread.join(TIMEOUT_SECONDS)
        assert len(store.engine.snapshots.files()) == 1


@pytest.mark.parametrize("stage", ["digest", "write", "read-back"])
@pytest.mark.parametrize("backend", FILES)
def test_a_snapshot_that_gets_no_thread_leaves_nothing(
    tmp_path: Path, backend: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no descriptor, no thread; the next one is taken."""
    with open_store(tmp_path, backend) as store:
        store.put(b"k", b"v")
        store.checkpoint()
        store.snapshot(tmp_path / "first")
        before = len(os.listdir("/proc/self/fd"))
        with no_thread(monkeypatch, f"kvstore-snapshot-{stage}"), pytest.raises(NoThread):
            store.snapshot(tmp_path / "snapshot")
        assert len(os.listdir("/proc/self/fd")) == before
        assert not list(tmp_path.glob("snapshot*"))
        assert not [thread for thread in threading.enumerate() if "kvstore-snapshot" in thread.name]
        store.snapshot(tmp_path / "snapshot")


# --- checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", SCARCE, ids=repr)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_checkpoint_that_fails_by_want_of_anything_is_made_later(
    tmp_path: Path, backend: str, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers go on, and nothing is called damaged; the next checkpoint brings what waited."""
    with open_store(tmp_path, backend) as store:
        store.put(b"a", b"1")
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise failure

            patched.setattr(checkpoint, "write_generation", fail)
            with pytest.raises((type(failure), NoDescriptor)):
                store.checkpoint()
            store.put(b"b", b"2")
        assert store.engine.life.failure is None
        while store.checkpoint():
            pass
        assert store.engine.state.applied_index == store.engine.state.index
        assert store.count(prefix=b"") == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_checkpoint_that_fails_behind_its_commit_is_not_made_twice(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time its rows would end themselves: histories would have versions that never were."""
    with open_store(tmp_path, backend) as store:
        store.put(b"k", b"1")
        store.checkpoint()
        store.put(b"k", b"2")
        store.put(b"k", b"3")
        original = checkpoint.write_generation

        def fail_late(*arguments: Any) -> None:
            original(*arguments)
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "write_generation", fail_late)
            with pytest.raises(MemoryError):
                store.checkpoint()
        assert store.checkpoint()
        assert [version.value for version in store.history(b"k")] == [b"1", b"2", b"3"]
    with open_store(tmp_path, backend) as store:
        assert [version.value for version in store.history(b"k")] == [b"1", b"2", b"3"]


def test_writers_are_told_where_checkpoints_keep_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is full, and nobody can say for how long: a typed error that may be tried again."""
    with kvstore.open(tmp_path / "data", overlay_limit=50_000) as store:
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise NoDescriptor("db")

            patched.setattr(checkpoint, "write_generation", fail)
            with pytest.raises(Overloaded, match="checkpoints fail: db: cannot open a file"):
                for number in range(1000):
                    store.put(b"%d" % number, bytes(1000))
        for _ in range(10_000):
            try:
                store.put(b"later", b"v")
                break
            except Overloaded:
                threading.Event().wait(0.001)
        assert store.get(b"later") is not None


@pytest.mark.parametrize("failure", SCARCE, ids=repr)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_sync_that_was_not_begun_poisons_nothing(
    tmp_path: Path, backend: str, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before segments are given up. A sync that the disk failed does poison."""
    with open_store(tmp_path, backend) as store:
        store.put(b"k", b"v")
        for error, poisons in ((failure, False), (OSError(errno.EIO, "gone"), True)):

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr(type(store.engine.backend), "sync", fail)
                with pytest.raises(type(error)):
                    store.engine.snapshots._sync_backend(tmp_path)
            assert (store.engine.life.failure is not None) == poisons


def test_a_failed_sync_of_the_log_by_interval_poisons_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known to status before the next write."""
    with open_store(tmp_path, "lmdb", durability="interval") as store:
        store.put(b"k", b"v")

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "gone")

        with monkeypatch.context() as patched:
            patched.setattr("kvstore.files.os.fdatasync", fail)
            with pytest.raises(OSError):
                store.engine.writer.sync_log()
        assert store.status().failure
        with pytest.raises(StorePoisoned):
            store.put(b"k", b"v")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_what_the_system_has_too_little_of_is_no_failure_of_the_disk(number: int) -> None:
    """The same call may be made again."""
    assert not is_disk_failure(OSError(number, "?"))
    assert is_disk_failure(OSError(errno.EIO, "?"))


# --- descriptors -----------------------------------------------------------------------------------


@contextmanager
def no_descriptors(but: int = 0) -> Iterator[None]:
    """As when the application has leaked all that it may have, or all but some."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + but, limits[1]))
    held = []
    try:
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for descriptor in held[:but]:
            os.close(descriptor)
        del held[:but]
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("backend", FILES)
def test_calls_without_descriptors(tmp_path: Path, backend: str) -> None:
    """Each works, or says so with a typed error that may be tried again; nothing is poisoned, lost or damaged."""
    options = {"wal_file_size": 4000, "max_wals": 1}
    with open_store(tmp_path, backend, **options) as store:
        for number in range(20):
            store.put(b"%d" % number, bytes(500))
        store.checkpoint()
        assert store.get(b"1") is not None
        kept: list[bytes] = []
        with no_descriptors():
            for number in range(20):
                try:
                    store.put(b"later %d" % number, bytes(500))
                    kept.append(b"later %d" % number)
                except NoDescriptor:
                    pass
            for call in (
                store.snapshot,
                store.status,
                store.defragment,
                store.checkpoint,
                store.engine.snapshots.release,
                lambda: store.compact(store.revision, physical=True),
                lambda: store.get(b"1"),
                lambda: store.count(prefix=b""),
                lambda: kvstore.open(tmp_path / "other", backend),
            ):
                try:
                    call()
                except (NoDescriptor, OSError) as error:
                    assert isinstance(error, NoDescriptor) or call == store.engine.snapshots.release
        assert len(kept) == 20
        assert store.engine.life.failure is None
        store.put(b"after", b"v")
        store.checkpoint()
        store.snapshot()
        store.engine.snapshots.release()
        assert len(layout.segments(tmp_path / "data" / "wal")) == 1
    with open_store(tmp_path, backend) as store:
        assert store.count(prefix=b"later") == 20


def test_closing_without_descriptors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has everything; the lock is given back."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"v")

        def fail(*_: object) -> None:
            raise NoDescriptor("db")

        with pytest.MonkeyPatch.context() as patched, caplog.at_level(logging.WARNING, "kvstore"):
            patched.setattr(checkpoint, "write_generation", fail)
            store.close()
    assert "closed without a checkpoint" in caplog.text
    with open_store(tmp_path, "lmdb") as store:
        assert store.get(b"k") is not None


@pytest.mark.parametrize("step", ["create", "open", "sync_dir"])
def test_a_roll_that_finds_no_descriptor(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the next segment has its name, the full one takes more; after that, the next append ends the roll."""
    options = LogOptions(wal_file_size_bytes=2000)
    log = Log.create(OSDisk(), tmp_path / "wal", 1, 1, options=options)
    appended = 0
    original = getattr(OSDisk, step)
    for _ in range(60):
        refusals = [1]

        def refuse(disk: OSDisk, *arguments: Any, refusals: list[int] = refusals, **named: Any) -> Any:
            if refusals:
                refusals.pop()
                raise NoDescriptor
            return original(disk, *arguments, **named)

        with monkeypatch.context() as patched:
            patched.setattr(OSDisk, step, refuse)
            try:
                log.append([bytes(100)], 1)
                appended += 1
            except NoDescriptor:
                log.append([bytes(100)], 1)
                appended += 1
        assert log.failure is None
    assert log.last_index == appended == 60
    log.close()
    log = Log.open(OSDisk(), tmp_path / "wal", read_only=True)
    assert sum(len(batch.entries) for batch in log.replay()) == 60
    log.close()
    if step != "create":
        assert len(layout.segments(tmp_path / "wal")) > 2


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("error", [NoDescriptor, StoreUnreachable])
@pytest.mark.parametrize("step", ["open", "sync_dir"])
def test_a_put_refused_in_the_middle_of_a_roll_is_withdrawn(
    tmp_path: Path, step: str, error: type[Exception], in_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What raised is not there, then and after opening; what is written later is. Nothing is poisoned."""
    original = getattr(OSDisk, step)
    refused: list[bytes] = []

    def refuse(disk: OSDisk, path: Path, *arguments: Any) -> Any:
        if "wal" in str(path):
            raise error(path, "?") if error is StoreUnreachable else error(path)
        return original(disk, path, *arguments)

    def fill(store: kvstore.Store) -> None:
        for number in range(12):
            try:
                store.put(b"%d" % number, bytes(500))
            except error:
                refused.append(b"%d" % number)

    def check(store: kvstore.Store) -> None:
        assert [kv.key for kv in store.scan(prefix=b"") if kv.key in refused] == []
        assert store.count(prefix=b"") == 12 - len(refused) + 1

    with open_store(tmp_path, "lmdb", wal_file_size=4000) as store:
        with monkeypatch.context() as patched:
            patched.setattr(OSDisk, step, refuse)
            if in_thread:
                thread = threading.Thread(target=fill, args=[store])
                thread.start()
                thread.join()
            else:
                fill(store)
            assert refused
            assert store.health().reasons
        store.put(b"after", b"v")
        assert store.engine.life.failure is None
        assert not store.health().reasons
        check(store)
    with open_store(tmp_path, "lmdb") as store:
        check(store)


# --- the archive -----------------------------------------------------------------------------------


def fill(store: kvstore.Store, puts: int = 40) -> None:
    for number in range(puts):
        store.put(b"%d" % number, bytes(500))
    store.checkpoint()


ARCHIVED = {"wal_file_size": 2000, "max_wals": 1}


@pytest.mark.parametrize("backend", FILES)
def test_an_archive_that_is_not_there(tmp_path: Path, backend: str) -> None:
    """Segments stay with the log, status and health say why, writes go on; once it is there they are moved."""
    archive = tmp_path / "archive"
    archive.write_bytes(b"not mounted")
    with open_store(tmp_path, backend, archive_dir=archive, **ARCHIVED) as store:
        fill(store)
        kept = layout.segments(tmp_path / "data" / "wal")
        assert len(kept) > 3
        turn(store)
        assert store.engine.life.failure is None
        assert layout.segments(tmp_path / "data" / "wal") == kept
        said = "the log grows, its segments cannot be archived"
        assert any(said in text for text in store.status().errors)
        assert any(said in text for text in store.health().reasons)
        store.put(b"more", b"v")
        turn(store)
        assert store.engine.snapshots._archive_not_before > 0, "it takes a pause"
        archive.unlink()
        store.engine.snapshots._archive_not_before = 0.0
        turn(store)
        assert len(layout.segments(tmp_path / "data" / "wal")) == 1
        assert {file.path.name for file in layout.segments(archive)} >= {file.path.name for file in kept[:-1]}
        assert store.health().healthy


def turn(store: kvstore.Store) -> None:
    """A turn of the job, and the end of the thread that it begins."""
    store.engine.snapshots.tend()
    archiver = store.engine.snapshots._archiver
    assert archiver is not None
    archiver.join(TIMEOUT_SECONDS)


def test_an_archive_that_hangs_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Writes, rolls, checkpoints, leases and snapshots go on, closing does not wait, and the segment stays."""
    hangs, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(*arguments: Any) -> None:
        hangs.set()
        go_on.wait(TIMEOUT_SECONDS)
        try:
            archive_segment(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(wal_log, "archive_segment", hang)
    monkeypatch.setattr(keeper, "ARCHIVE_WAIT_SECONDS", 0.01)
    with open_store(tmp_path, "lmdb", archive_dir=tmp_path / "archive", **ARCHIVED) as store:
        fill(store)
        store.engine.snapshots.tend()
        assert hangs.wait(TIMEOUT_SECONDS)
        store.engine.snapshots.tend()
        fill(store)
        store.snapshot()
        store.grant_lease(10)
        store.engine.leasing.tend()
        names = [file.path.name for file in layout.segments(tmp_path / "data" / "wal")]
        with caplog.at_level(logging.WARNING, "kvstore"):
            store.close()
    assert "does not answer" in caplog.text
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"another", b"life")
        go_on.set()
        assert ended.wait(TIMEOUT_SECONDS)
        assert {file.path.name for file in layout.segments(tmp_path / "data" / "wal")} >= set(names)
    with open_store(tmp_path, "lmdb") as store:
        assert store.count(prefix=b"") == 41


def test_segments_are_looked_for_under_the_lock_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that rolls has it; moving them away, which may take long, does without."""
    with open_store(tmp_path, "lmdb", archive_dir=tmp_path / "archive", **ARCHIVED) as store:
        fill(store)
        lock: Any = store.engine.writer.log_lock
        seen: list[tuple[str, bool]] = []
        for name in ("releasable", "give_up"):
            call = getattr(Log, name)

            def look(log: Log, *arguments: Any, name: str = name, call: Any = call, **named: Any) -> Any:
                seen.append((name, lock._is_owned()))
                return call(log, *arguments, **named)

            monkeypatch.setattr(Log, name, look)
        assert store.engine.snapshots.release()
        assert set(seen) == {("releasable", True), ("give_up", False)}


# --- memory, and room on the stack, in a thread of the program ---------------------------------------


def in_a_thread(call: Callable[[], object]) -> list[BaseException]:
    """What the call raises in a thread of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


@pytest.mark.parametrize("backend", FILES)
def test_a_write_half_carried_out_in_any_thread_reaches_the_log(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a checkpoint would bring the backend ahead of the log, and the store would never open again."""
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        lease = store.grant_lease(60).id
        store.put(b"k", b"1", lease=lease)
        original = Planner.carry_out

        def fail_late(*arguments: Any) -> None:
            original(*arguments)
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(Planner, "carry_out", fail_late)
            (error,) = in_a_thread(lambda: store.revoke_lease(lease))
            assert type(error) is MemoryError
        store.put(b"after", b"2")
        store.checkpoint()
        revision = store.revision
    with kvstore.open(tmp_path / "data", backend) as store:
        assert (store.revision, store.leases()) == (revision, ())
        assert [row.key for row in store.range(prefix=b"").kvs] == [b"after"]


@pytest.mark.parametrize("failure", [MemoryError(), RecursionError()], ids=repr)
def test_an_append_that_found_no_room_in_any_thread_is_made_later(
    tmp_path: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a write or sync that failed stops writes for good."""
    with kvstore.open(tmp_path / "data", background=False) as store:
        store.put(b"a", b"1")
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise failure

            patched.setattr(wal_writer.SegmentWriter, "write", fail)
            assert in_a_thread(lambda: store.put(b"b", b"2")) == [failure]
        store.put(b"c", b"3")
        assert store.count(prefix=b"") == 3
    with kvstore.open(tmp_path / "data") as store:
        assert store.count(prefix=b"") == 3


def test_a_snapshot_opened_on_a_full_stack_is_not_damaged(tmp_path: Path) -> None:
    """However little room there is: it opens, or Python's own error says why not."""
    with kvstore.open(tmp_path / "data", "lmdb") as store:
        store.put(b"k", b"v")
        store.snapshot(tmp_path / "copy")

    def open_below(frames: int) -> None:
        if frames:
            open_below(frames - 1)
        else:
            kvstore.open_snapshot(tmp_path / "copy").close()

    failures = [in_a_thread(partial(open_below, sys.getrecursionlimit() - left)) for left in range(10, 120)]
    assert {type(error) for raised in failures for error in raised} <= {RecursionError}
    assert failures[-1] == []


@pytest.mark.parametrize("backend", FILES)
def test_a_checkpoint_that_stops_behind_its_commit_in_any_thread_is_not_made_twice(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it ends between the commit and the moment that the memory is given up."""
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        for value in (b"1", b"2"):
            store.put(b"k", value)
            store.checkpoint()
        store.put(b"k", b"3")
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise MemoryError

            patched.setattr(State, "committed", fail)
            (error,) = in_a_thread(store.checkpoint)
            assert type(error) is MemoryError
        assert store.checkpoint()
        assert [version.value for version in store.history(b"k")] == [b"1", b"2", b"3"]
    assert kvstore.verify(tmp_path / "data", deep=True).ok


@pytest.mark.parametrize("free", [0, 4, 8])
@pytest.mark.parametrize("backend", FILES)
def test_a_defragmentation_that_runs_out_of_descriptors_is_made_later(
    tmp_path: Path, backend: str, free: int
) -> None:
    """It is given up before the files are exchanged, and poisons nothing."""
    with kvstore.open(tmp_path / "data", backend) as store:
        store.put(b"k", b"v")
        store.defragment()
        with no_descriptors(but=free):
            try:
                store.defragment()
            except NoDescriptor:
                pass
        store.put(b"after", b"v")
        store.defragment()
        assert store.health().healthy


@pytest.mark.parametrize("step", ["remove", "sync_dir", "rename", "has_readers", "open", "use_backend"])
@pytest.mark.parametrize("backend", FILES)
def test_an_exchange_of_files_that_finds_no_memory_is_finished(
    tmp_path: Path, backend: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any step of it, before or behind what the step does: it is taken again, and nothing is poisoned."""
    monkeypatch.setattr(defragment, "RETRY_SECONDS", 0)
    owner = {"has_readers": defragment, "open": find_backend(backend), "use_backend": State}.get(step, OSDisk)
    real = getattr(owner, step)
    fails: list[bool] = []

    def short(*args: Any, **kwargs: Any) -> Any:
        fails.append(len(fails) < 4)
        if fails[-1] and len(fails) % 2:
            raise MemoryError
        answer = real(*args, **kwargs)
        if fails[-1]:
            raise MemoryError
        return answer

    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        store.put(b"k", b"v")
        exchange = store.engine.defragmenter._exchange

        def disturbed(helpers: list[Path]) -> Any:
            monkeypatch.setattr(owner, step, short)
            return exchange(helpers)

        monkeypatch.setattr(store.engine.defragmenter, "_exchange", disturbed)
        store.defragment()
        assert any(fails) and store.health().healthy
        store.put(b"after", b"v")
        store.checkpoint()
    with kvstore.open(tmp_path / "data", backend) as store:
        assert store.get(b"k") is not None and store.get(b"after") is not None


@pytest.mark.parametrize("step", ["Writer.stop", "Checkpointer.run", "Log.close", "Life.move"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_that_is_closed_without_memory_gives_its_lock_back(
    tmp_path: Path, backend: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step of closing fails: the others are done, and what was acknowledged is there."""
    store = kvstore.open(tmp_path / "data", backend, background=False)
    store.put(b"k", b"v")
    kind, name = step.split(".")
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise MemoryError

        patched.setattr(
            {"Writer": Writer, "Checkpointer": Checkpointer, "Log": Log, "Life": Life}[kind], name, fail
        )
        with suppress(MemoryError):
            store.close()
    store.close()
    with kvstore.open(tmp_path / "data", backend) as again:
        assert again.get(b"k") is not None


@pytest.mark.parametrize(
    "step",
    [(Said, "by"), (layout, "temporaries"), (FileLock, "write"), (fcntl, "flock"), (Leasing, "expire")],
)
def test_an_opening_without_memory_gives_its_lock_back(
    tmp_path: Path, step: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step fails, as soon as there is something to give back."""
    kvstore.open(tmp_path / "data").close()
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise MemoryError

        patched.setattr(*step, fail)
        with pytest.raises(MemoryError):
            kvstore.open(tmp_path / "data")
    with kvstore.open(tmp_path / "data") as store:
        store.put(b"k", b"v")
