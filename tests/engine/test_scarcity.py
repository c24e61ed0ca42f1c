"""Moments without threads, and checkpoints that fail by want of anything: all goes on afterwards."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import KVStoreError, NoDescriptor, NoThread, Overloaded, StorePoisoned
from kvstore.files import is_disk_failure
from kvstore.mvcc import checkpoint
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
