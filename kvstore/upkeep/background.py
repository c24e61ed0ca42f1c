"""Background work, on two threads: one for short jobs that must be prompt (checkpoints, the log, leases, room), one
for jobs that may take long (compaction, defragment).

Each turn runs every job that is due. A job does its heavy work in C calls without the GIL, or in small chunks
with sleeps between them. A job that fails, for whatever reason, says so in ``status`` and tries again, after a longer
pause each time. It never poisons the store: that is up to the code that writes to the log or the backend and sees it
fail.

If a thread cannot be started, the next write tries again, and so does the other thread if it runs. Until both
run, writers that need room make it themselves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from kvstore.bell import Bell
from kvstore.core import Core
from kvstore.errors import said_of
from kvstore.files import disk_full_is_typed
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.upkeep.compaction import Compaction
from kvstore.upkeep.defragment import Defragmenter
from kvstore.upkeep.leasing import EXPIRY_INTERVAL_SECONDS, Leasing
from kvstore.upkeep.snapshots import SnapshotKeeper
from kvstore.write.room import POLL_INTERVAL_SECONDS, Room
from kvstore.write.writer import Writer

UPKEEP_INTERVAL_SECONDS = 1.0
SNAPSHOT_INTERVAL_SECONDS = 1.0
RETRY_SECONDS_MAX = 2.0
NO_MEMORY_SECONDS = 0.02

logger = logging.getLogger("kvstore")


class Job:
    """Something to do every ``interval_seconds``, and at once when the engine asks for work.

    If ``run`` returns a float, the job is due again after that many seconds instead.
    """

    def __init__(self, name: str, run: Callable[[], object], interval_seconds: float) -> None:
        self.name = name
        self.run = run
        self.interval_seconds = interval_seconds
        self.due = time.monotonic() + interval_seconds
        self.failures = 0
        """Failures in a row."""

    @property
    def retry_seconds(self) -> float:
        """The pause after a failure: longer each time."""
        patient: float = min(self.interval_seconds * 2 ** min(self.failures, 16), RETRY_SECONDS_MAX)
        return max(self.interval_seconds, patient)


class Maintenance:
    """A thread and its jobs. Ringing ``wanted`` makes all of them due."""

    def __init__(self, name: str, wanted: Bell, jobs: list[Job]) -> None:
        self._wanted = wanted
        self._jobs = jobs
        self._stopping = False
        self._name = name
        self._thread: threading.Thread | None = None
        self._errors: dict[str, str] = {}

    def start(self) -> None:
        """Start the thread, unless it runs already. Raises ``RuntimeError`` or ``MemoryError`` if that fails."""
        if self._thread is None:
            thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """End the thread after the job it is in."""
        self._stopping = True
        self._wanted.ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _loop(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except BaseException:  # no memory even to wait: the thread must outlive that
                time.sleep(NO_MEMORY_SECONDS)

    def _turn(self) -> None:
        wait = min(job.due for job in self._jobs) - time.monotonic()
        urgent = self._wanted.wait(wait)
        for job in self._jobs:
            if self._stopping:
                return
            if urgent or time.monotonic() >= job.due:
                self._run(job)

    def _run(self, job: Job) -> None:
        wait_seconds = job.interval_seconds
        try:
            answer = job.run()
            job.failures = 0
            self._errors.pop(job.name, None)
            if isinstance(answer, float):
                wait_seconds = answer
        except BaseException as error:
            wait_seconds = job.retry_seconds
            job.failures += 1
            with suppress(MemoryError):
                self._note(job, error)
        job.due = time.monotonic() + wait_seconds

    def _note(self, job: Job, error: BaseException) -> None:
        text = said_of(error)
        if self._errors.get(job.name) != text:
            logger.warning("%s: %s", job.name, text)
        self._errors[job.name] = text

    @property
    def errors(self) -> list[str]:
        """The errors of the jobs that failed when they last ran."""
        return [f"{name}: {error}" for name, error in self._errors.copy().items()]


class Background:
    """The threads of one store. They start with the first write: a store that is only read starts none."""

    def __init__(
        self,
        core: Core,
        writer: Writer,
        checkpointer: Checkpointer,
        room: Room,
        leasing: Leasing,
        compaction: Compaction,
        defragmenter: Defragmenter,
        snapshots: SnapshotKeeper,
    ) -> None:
        self._core = core
        self._writer = writer
        self._checkpointer = checkpointer
        self._room = room
        self._leasing = leasing
        self._compaction = compaction
        self._defragmenter = defragmenter
        self._snapshots = snapshots
        self._threads: list[Maintenance] = []
        self._starting = threading.Lock()
        self.at_rest = False
        """Whether the next write has to start them: there was no write yet, or not all could be started."""
        self._start_error = ""
        self.is_stopping = False

    def start(self) -> None:
        """Start now if there is work that no write will announce, otherwise with the first write."""
        self.at_rest = True
        if self._has_work():
            self.begin()

    def _has_work(self) -> bool:
        state = self._core.state
        return bool(
            state.index != state.applied_index
            or state.head_compacted > state.compact_finished
            or state.alarms
            or self._core.lessor.leases
            or self._compaction.is_automatic
            or self._core.options.snapshot_interval_seconds
            or self._snapshots.due()
        )

    def begin(self) -> None:
        """Start all threads. If one cannot be started now, the next write tries again."""
        if not self._starting.acquire(blocking=False):
            return  # another thread is doing it
        try:
            if self.at_rest:
                self._threads = self._threads or self._make()
                for thread in self._threads:
                    thread.start()
                self.at_rest, self._start_error = False, ""
        except (RuntimeError, MemoryError) as error:
            if not self._start_error:
                logger.warning("background work waits for a thread: %s", said_of(error))
            self._start_error = f"background work waits for a thread: {said_of(error)}"
        finally:
            self._starting.release()

    def _make(self) -> list[Maintenance]:
        options = self._core.options
        prompt = [
            Job("checkpoint", self._checkpoint, options.backend_batch_interval_seconds),
            Job("log", self._tend_log, options.sync_interval_seconds),
            Job("leases", self._leasing.tend, EXPIRY_INTERVAL_SECONDS),
            Job("space", self._room.tend, POLL_INTERVAL_SECONDS),
            Job("snapshots", self._snapshots.tend, SNAPSHOT_INTERVAL_SECONDS),
            Job("threads", self.begin, UPKEEP_INTERVAL_SECONDS),
        ]
        long = [Job("upkeep", self.tend_upkeep, UPKEEP_INTERVAL_SECONDS)]
        return [
            Maintenance("kvstore-maintenance", self._core.work_wanted, prompt),
            Maintenance("kvstore-upkeep", self._core.upkeep_wanted, long),
        ]

    def tend_upkeep(self) -> None:
        """Compact if it is time to, delete what has become garbage, defragment if that left much space free."""
        self._compaction.tend()
        if self._compaction.run(stop=lambda: self.is_stopping) and not self.is_stopping:
            self._defragmenter.run_if_worthwhile()

    def _checkpoint(self) -> None:
        with disk_full_is_typed():
            self._checkpointer.run()

    def _tend_log(self) -> None:
        """Sync the log (durability ``interval``), and fill it with zeros ahead."""
        if self._core.options.durability == "interval":
            self._writer.sync_log()
        self._core.log.fill_ahead()

    @property
    def errors(self) -> list[str]:
        """The errors of background work that failed when it was last tried."""
        waiting = [self._start_error] if self._start_error else []
        return [*waiting, *(text for thread in self._threads for text in thread.errors)]

    def stop(self) -> None:
        """End the threads, each after its current job, and start no others."""
        with self._starting:
            self.is_stopping, self.at_rest = True, False
        for thread in self._threads:
            thread.stop()
