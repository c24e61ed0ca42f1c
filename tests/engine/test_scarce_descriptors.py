"""Moments without descriptors, or without the archive: a call may fail, and all goes on afterwards."""

from __future__ import annotations

import logging
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.errors import NoDescriptor, StoreUnreachable
from kvstore.files import OSDisk
from kvstore.mvcc import checkpoint
from kvstore.upkeep import snapshots as keeper
from kvstore.wal import Log, LogOptions
from kvstore.wal import log as wal_log
from kvstore.wal.archive import archive_segment
from tests.harness.watching import TIMEOUT_SECONDS, open_store

FILES = ("lmdb", "sqlite")


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
