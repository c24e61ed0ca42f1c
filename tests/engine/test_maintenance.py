"""Background work: when jobs run, and what becomes of their failures."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import kvstore
from kvstore.bell import Bell
from kvstore.errors import DiskFull, StoreLocked, StorePoisoned
from kvstore.upkeep.background import Job, Maintenance
from tests.harness.watching import TIMEOUT_SECONDS, open_store

LONG_SECONDS = 1e6


class Bench:
    """A maintenance thread whose jobs count their runs."""

    def __init__(self) -> None:
        self.wanted = Bell()
        self.ran = threading.Semaphore(0)
        self.answers: list[object] = []

    def job(self, name: str, interval_seconds: float, answer: Callable[[], object] = lambda: None) -> Job:
        def run() -> object:
            self.ran.release()
            return answer()

        return Job(name, run, interval_seconds)

    def start(self, *jobs: Job) -> Maintenance:
        maintenance = Maintenance("test", self.wanted, list(jobs))
        maintenance.start()
        return maintenance

    def wait_for_runs(self, count: int) -> None:
        for _ in range(count):
            assert self.ran.acquire(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_job_runs_again_and_again(bench: Bench) -> None:
    """Each interval it has its turn."""
    maintenance = bench.start(bench.job("often", 0.001))
    bench.wait_for_runs(5)
    maintenance.stop()


def test_wanted_work_is_done_at_once(bench: Bench) -> None:
    """Setting the event makes every job due, however long its interval."""
    maintenance = bench.start(bench.job("one", LONG_SECONDS), bench.job("two", LONG_SECONDS))
    assert not bench.ran.acquire(timeout=0.01)
    bench.wanted.ring()
    bench.wait_for_runs(2)
    maintenance.stop()


def test_a_job_may_choose_its_next_turn(bench: Bench) -> None:
    """A float is when it wants to run again; any other answer means the usual interval."""
    maintenance = bench.start(bench.job("eager", LONG_SECONDS, lambda: 0.001))
    bench.wanted.ring()
    bench.wait_for_runs(5)
    maintenance.stop()
    lazy = Bench()
    maintenance = lazy.start(lazy.job("true is no number", LONG_SECONDS, lambda: True))
    lazy.wanted.ring()
    lazy.wait_for_runs(1)
    assert not lazy.ran.acquire(timeout=0.05)
    maintenance.stop()


@pytest.mark.parametrize(
    "error",
    [
        DiskFull("no room"),
        StoreLocked("db"),
        OSError(errno.EIO, "not the log's"),
        MemoryError("none"),
        KeyboardInterrupt("a time limit of somebody's"),
    ],
)
def test_a_failing_job_is_tried_again(
    bench: Bench, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it failed with, that is said once, and listed until the job succeeds; the thread goes on."""
    failures = [error, error, error]

    def fail() -> None:
        if failures:
            raise failures.pop()

    with caplog.at_level(logging.WARNING, "kvstore"):
        maintenance = bench.start(bench.job("job", LONG_SECONDS, fail))
        for _ in range(3):
            bench.wanted.ring()
            bench.wait_for_runs(1)
        while not maintenance.errors:
            threading.Event().wait(0.001)
        assert maintenance.errors == [f"job: {error}"]
        bench.wanted.ring()
        bench.wait_for_runs(1)
        maintenance.stop()
    assert maintenance.errors == []
    assert [record.getMessage() for record in caplog.records] == [f"job: {error}"]


def test_a_failing_job_takes_a_longer_pause_each_time() -> None:
    """From its interval on, doubled each time, to a few seconds; a long interval stays what it is."""
    job = Job("often", lambda: None, 0.5)
    pauses = []
    for job.failures in range(6):
        pauses.append(job.retry_seconds)
    assert pauses == [0.5, 1.0, 2.0, 2.0, 2.0, 2.0]
    seldom = Job("seldom", lambda: None, 60.0)
    seldom.failures = 1000
    assert seldom.retry_seconds == 60.0


def test_no_memory_to_wait_with_does_not_end_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step of waiting it is that fails for want of it."""
    original, failures = Bell.wait, [MemoryError(), MemoryError()]

    def wait(bell: Bell, timeout_seconds: float | None = None) -> bool:
        if failures:
            raise failures.pop()
        return original(bell, timeout_seconds)

    monkeypatch.setattr(Bell, "wait", wait)
    maintenance = bench.start(bench.job("often", 0.001))
    bench.wait_for_runs(3)
    maintenance.stop()
    assert not failures


def test_stopping_waits_for_the_job_it_is_in(bench: Bench) -> None:
    """After ``stop`` nothing runs any more, not even a job that was due."""
    go_on, ended = threading.Event(), threading.Event()

    def slow() -> None:
        go_on.wait(TIMEOUT_SECONDS)
        ended.set()

    maintenance = bench.start(bench.job("slow", LONG_SECONDS, slow), bench.job("next", LONG_SECONDS))
    bench.wanted.ring()
    bench.wait_for_runs(1)
    stopper = threading.Thread(target=maintenance.stop)
    stopper.start()
    assert not ended.is_set()
    go_on.set()
    stopper.join(TIMEOUT_SECONDS)
    assert ended.is_set()
    assert not bench.ran.acquire(timeout=0.01)


def test_a_failing_checkpoint_poisons_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is told to every writer from then on; reads still answer."""
    with kvstore.open(tmp_path / "data", backend_batch_interval_seconds=0.001) as store:
        store.put(b"k", b"v")

        def broken(*arguments: object) -> None:
            raise OSError(errno.EIO, "the disk is gone")

        monkeypatch.setattr("kvstore.mvcc.checkpoint.write_generation", broken)
        with pytest.raises(StorePoisoned, match="the disk is gone"):
            for _ in range(100_000):
                store.put(b"k", b"v2")
        assert store.get(b"k") is not None
        monkeypatch.undo()
    with open_store(tmp_path, "lmdb") as store:
        assert store.get(b"k") is not None


def test_long_work_does_not_hold_up_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the thread of long jobs is busy, what is written still reaches the backend."""
    with kvstore.open(tmp_path / "data", backend_batch_interval_seconds=0.001) as store:
        busy, go_on = threading.Event(), threading.Event()

        def long_work(*arguments: object, **options: object) -> bool:
            busy.set()
            go_on.wait(TIMEOUT_SECONDS)
            return False

        monkeypatch.setattr(store.engine.compaction, "run", long_work)
        store.put(b"first", b"v")  # background work begins with the first write
        store.engine.core.upkeep_wanted.ring()
        assert busy.wait(TIMEOUT_SECONDS)
        store.put(b"k", b"v")
        for _ in range(int(TIMEOUT_SECONDS * 1000)):
            if store.engine.backend.get("latest", b"k") is not None:
                break
            threading.Event().wait(0.001)
        assert store.engine.backend.get("latest", b"k") is not None
        go_on.set()
