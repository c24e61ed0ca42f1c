"""Moments without memory, or room on the stack, in a thread of the program: a call may fail, and all goes on."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import held, layout
from kvstore.backend import find_backend
from kvstore.files import FileLock, OSDisk
from kvstore.life import Life
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.state import State
from kvstore.snapshot import copying
from kvstore.store_lock import Said
from kvstore.upkeep import defragment
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.upkeep.leasing import Leasing
from kvstore.wal import Log
from kvstore.wal import writer as wal_writer
from kvstore.write.writer import Writer

BACKENDS = ("lmdb", "sqlite", "memory")
FILES = ("lmdb", "sqlite")


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


def open_files(path: Path) -> set[str]:
    """What this process has open below ``path``, and the pipes it has."""
    links = (Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    found = [os.readlink(link) for link in links if link.is_symlink()]
    return {name for name in found if name.startswith((str(path), "pipe:"))}


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


@pytest.mark.parametrize(
    "step", [(copying, "SimpleQueue"), (os, "pipe"), (held, "hand_over"), (fcntl, "fcntl")]
)
@pytest.mark.parametrize("backend", FILES)
def test_a_snapshot_without_memory_leaves_no_descriptor(
    tmp_path: Path, backend: str, step: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step finds none, once there is something to close."""
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        store.put(b"k", b"v")
        store.snapshot()
        before = open_files(tmp_path)
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise MemoryError

            patched.setattr(*step, fail)
            try:
                store.snapshot()
            except MemoryError as error:
                error.__traceback__ = None
        assert open_files(tmp_path) <= before
        store.snapshot()
