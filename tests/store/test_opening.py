"""What opening a store does, and what it leaves until somebody writes."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import StoreLocked
from kvstore.files import FileLock
from tests.harness.alarm import Alarm
from tests.harness.watching import TIMEOUT_SECONDS


def made(path: Path) -> Path:
    with kvstore.open(path, background=False) as store:
        store.put(b"k", b"v")
    return path


def own_threads(before: set[threading.Thread]) -> set[str]:
    """The threads that stay: one that has given its answer to a call may take a moment to end."""
    found = set(threading.enumerate()) - before
    for thread in found:
        if thread.name == "kvstore-shelter":
            thread.join(TIMEOUT_SECONDS)
    return {thread.name for thread in found if thread.is_alive()}


def test_background_work_begins_with_the_first_write(tmp_path: Path) -> None:
    """A store that is opened to be read starts no thread; a write starts them; closing ends them."""
    path, before = made(tmp_path / "store"), set(threading.enumerate())
    with kvstore.open(path) as store:
        assert store.get(b"k") is not None
        assert not own_threads(before)
        store.put(b"k", b"w")
        assert own_threads(before) == {"kvstore-maintenance", "kvstore-upkeep"}
    assert not own_threads(before)


@pytest.mark.parametrize(
    "options",
    [{"auto_compaction_retention": "1h"}, {"snapshot_interval_seconds": 3600.0}],
    ids=lambda options: next(iter(options)),
)
def test_background_work_begins_at_once_where_time_alone_brings_some(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Compaction and snapshots by time do not wait for a write."""
    path, before = made(tmp_path / "store"), set(threading.enumerate())
    with kvstore.open(path, **options):
        assert own_threads(before) == {"kvstore-maintenance", "kvstore-upkeep"}


def test_leases_expire_without_a_write(tmp_path: Path) -> None:
    """A store with leases has its background work from the start."""
    path = tmp_path / "store"
    with kvstore.open(path, background=False) as store:
        store.put(b"k", b"v", ttl=3600)
    before = set(threading.enumerate())
    with kvstore.open(path) as store:
        assert own_threads(before) == {"kvstore-maintenance", "kvstore-upkeep"}
        assert store.get(b"k") is not None


def test_many_first_writers_begin_background_work_once(tmp_path: Path) -> None:
    """Writers that come first together start one thread of each kind."""
    path, before = made(tmp_path / "store"), set(threading.enumerate())
    with kvstore.open(path) as store:
        writers = [threading.Thread(target=store.put, args=(b"%d" % number, b"v")) for number in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        started = [thread.name for thread in set(threading.enumerate()) - before]
        assert sorted(started) == ["kvstore-maintenance", "kvstore-upkeep"]


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=pytest.mark.soak)])
def test_an_opening_waits_for_the_lock(tmp_path: Path, count: int) -> None:
    """Several wait at once; each gets its turn, and finds what those before it have written."""
    path = tmp_path / "store"
    holder = kvstore.open(path)
    found: list[int] = []

    def take_a_turn() -> None:
        with kvstore.open(path, lock_timeout=TIMEOUT_SECONDS) as store:
            found.append(store.revision)
            store.put(b"k")

    waiting = [threading.Thread(target=take_a_turn) for _ in range(count)]
    for thread in waiting:
        thread.start()
    with pytest.raises(StoreLocked):
        kvstore.open(path, lock_timeout="5ms")
    assert found == []
    holder.close()
    for thread in waiting:
        thread.join(TIMEOUT_SECONDS)
    assert found == list(range(1, count + 1))


class Interrupted(Exception):
    """What a signal handler raises."""


def test_a_wait_for_the_lock_can_be_interrupted(tmp_path: Path) -> None:
    """A signal handler's exception ends it at once, and the store is not opened behind the caller's back."""
    path = tmp_path / "store"
    with Alarm(Interrupted) as alarm, kvstore.open(path):
        with pytest.raises(Interrupted), alarm.within(0.05):
            kvstore.open(path, lock_timeout_seconds=1e6)
        for thread in threading.enumerate():
            if thread.name == "kvstore-shelter":
                thread.join(TIMEOUT_SECONDS)
                assert not thread.is_alive()
    kvstore.open(path).close()


def test_a_task_that_waits_for_the_lock_can_be_canceled(tmp_path: Path) -> None:
    """The wait ends with the task; another task gets the lock as soon as it is free."""

    async def wait() -> None:
        path = tmp_path / "store"
        async with kvstore.open_async(path):
            task = asyncio.ensure_future(kvstore.open_async(path, lock_timeout_seconds=1e6)._open())
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(StoreLocked):
                await kvstore.open_async(path, lock_timeout_seconds=0.01)
            later = asyncio.ensure_future(
                kvstore.open_async(path, lock_timeout_seconds=TIMEOUT_SECONDS)._open()
            )
        await (await later).close()

    asyncio.run(wait())
    for thread in threading.enumerate():
        if thread.name == "kvstore-async":
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive()


def test_the_lock_names_its_newest_holder(tmp_path: Path) -> None:
    """The text of a holder covers that of any before it, and is whole JSON for who is refused."""
    (tmp_path / "store").mkdir()
    lock = FileLock(tmp_path / "LOCK")
    long, short = json.dumps({"pid": 123456789, "host": "h" * 64}), json.dumps({"pid": 7, "host": "h"})
    for text in (long, short):
        assert lock.acquire(text.encode()) is None
        refused = FileLock(tmp_path / "LOCK").acquire(b"{}")
        assert refused is not None
        assert json.loads(refused) == json.loads(text)
        lock.release()
    with kvstore.open(tmp_path / "store"), pytest.raises(StoreLocked) as caught:
        kvstore.open(tmp_path / "store")
    assert caught.value.pid == os.getpid()


def test_a_snapshot_that_is_opened_as_a_directory_is_told_apart(tmp_path: Path) -> None:
    """For writing and for reading only, and the other way round: each error says what opens it."""
    with kvstore.open(tmp_path / "data") as store:
        store.snapshot(tmp_path / "a.snap")
    for read_only in (False, True):
        with pytest.raises(kvstore.NotAStore, match=r"a.snap is not a directory: .*kvstore.open_snapshot"):
            kvstore.open(tmp_path / "a.snap", read_only=read_only)
    with pytest.raises(
        kvstore.NotAStore, match=r"not a regular file: .*directory is opened with kvstore.open"
    ):
        kvstore.open_snapshot(tmp_path / "data")
    with kvstore.open_snapshot(tmp_path / "a.snap") as snapshot:
        assert snapshot.revision == 1
