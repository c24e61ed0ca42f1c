"""Background work, on two threads: one for what is short and must be prompt (checkpoints, the log, leases, room), one
for what may take long (compaction, defragment).

Each turn runs every job that is due. A job does its heavy work in C calls without the GIL, or in small chunks
with sleeps between them. A job that fails, for whatever reason, says so in ``status`` and tries again, after a longer
pause each time. It never poisons the store: that is for whoever writes to the log or the backend and sees it fail.

Threads that cannot be had are asked for again, by the next write and by whichever of them runs already. Until all
run, writers that need room make it themselves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from kvstore.bell import Bell
from kvstore.mvcc.checkpoint import PAUSE_SECONDS, RUN_SECONDS
from kvstore.write.leasing import EXPIRY_INTERVAL_SECONDS
from kvstore.write.room import POLL_INTERVAL_SECONDS

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

COMMIT, DEFRAGMENT, SNAPSHOT = "commit", "defragment", "snapshot"
"""Work whose duration is a metric: what ``engine.timed`` is told."""

UPKEEP_INTERVAL_SECONDS = 1.0
SNAPSHOT_INTERVAL_SECONDS = 1.0
RETRY_SECONDS_MAX = 2.0
BUSY_SECONDS = 0.02
BREATH_SECONDS = 0.00005
BREATH_EVERY_SECONDS = 0.002

logger = logging.getLogger("kvstore")


class Job:
    """Something to do every ``interval_seconds``, and at once when the engine asks for work.

    If ``run`` returns a float, that many seconds later it is due again, instead.
    """

    def __init__(self, name: str, run: Callable[[], object], interval_seconds: float) -> None:
        self.name = name
        self.run = run
        self.interval_seconds = interval_seconds
        self.due = time.monotonic() + interval_seconds
        self.failures = 0
        """In a row."""

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
        """Begin, unless it runs already. Raises ``RuntimeError`` or ``MemoryError`` where no thread can be had."""
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
            except BaseException:  # no memory to wait with: the thread outlives it
                time.sleep(BUSY_SECONDS)

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
        """What jobs failed at when they last ran."""
        return [f"{name}: {error}" for name, error in list(self._errors.items())]


def said_of(error: BaseException) -> str:
    """Its message; what it is, where it has none."""
    return str(error) or type(error).__name__


class Traffic:
    """Whether background work should take its time: writes come in, and the memory for them is far from full."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._index = engine.state.index
        self._busy_until = 0.0

    def __call__(self) -> bool:
        state = self._engine.state
        if state.index != self._index:
            self._index = state.index
            self._busy_until = time.monotonic() + BUSY_SECONDS
        if 2 * state.active.size_bytes > self._engine.options.overlay_limit:
            return False  # they will have to wait for this work to end
        return time.monotonic() < self._busy_until


class Courtesy:
    """Gives up the GIL: for half the time while there is traffic, otherwise for a breath now and then."""

    def __init__(self, engine: LocalEngine) -> None:
        self._is_busy = Traffic(engine)
        self._resumed = time.perf_counter()

    def __call__(self) -> None:
        is_busy = self._is_busy()
        if time.perf_counter() - self._resumed > (RUN_SECONDS if is_busy else BREATH_EVERY_SECONDS):
            time.sleep(PAUSE_SECONDS if is_busy else BREATH_SECONDS)
            self._resumed = time.perf_counter()


class Background:
    """The threads of one engine. They begin with the first write: who opens a store to read it pays for none."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._threads: list[Maintenance] = []
        self._starting = threading.Lock()
        self.work_wanted = Bell()
        """Rung when the prompt jobs should not wait for their turn."""
        self.upkeep_wanted = Bell()
        """The same for compaction and defragment."""
        self.at_rest = False
        """Whether the next write has to begin them: none was made yet, or not all could be had."""
        self._start_error = ""
        self.is_stopping = False

    def start(self) -> None:
        """Begin now if there is work that no write will announce, else with the first write."""
        self.at_rest = True
        if self._has_work():
            self.begin()

    def _has_work(self) -> bool:
        engine, state = self._engine, self._engine.state
        return bool(
            state.index != state.applied_index
            or state.head_compacted > state.compact_finished
            or state.alarms
            or engine.lessor.leases
            or engine.compaction.is_automatic
            or engine.options.snapshot_interval_seconds
            or engine.snapshots.due()
        )

    def begin(self) -> None:
        """Have all threads run. Those that cannot be had now are asked for again with the next write."""
        if not self._starting.acquire(blocking=False):
            return  # somebody is at it
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
        engine = self._engine
        prompt = [
            Job("checkpoint", engine.checkpoint, engine.options.backend_batch_interval_seconds),
            Job("log", self._tend_log, engine.options.sync_interval_seconds),
            Job("leases", engine.leasing.tend, EXPIRY_INTERVAL_SECONDS),
            Job("space", engine.space.tend, POLL_INTERVAL_SECONDS),
            Job("snapshots", engine.snapshots.tend, SNAPSHOT_INTERVAL_SECONDS),
            Job("threads", self.begin, UPKEEP_INTERVAL_SECONDS),
        ]
        long = [Job("upkeep", self.tend_upkeep, UPKEEP_INTERVAL_SECONDS)]
        return [
            Maintenance("kvstore-maintenance", self.work_wanted, prompt),
            Maintenance("kvstore-upkeep", self.upkeep_wanted, long),
        ]

    def want_work(self) -> None:
        """Have the prompt jobs done at once."""
        self.work_wanted.ring()

    def tend_upkeep(self) -> None:
        """Compact if it is time to, delete what has become garbage, defragment if that left much free."""
        engine = self._engine
        engine.compaction.tend()
        if engine.compaction.run(stop=lambda: self.is_stopping) and not self.is_stopping:
            engine.defragmenter.run_if_worthwhile()

    def _tend_log(self) -> None:
        """Sync (durability ``interval``), and lay zeros ahead."""
        engine = self._engine
        if engine.options.durability == "interval":
            engine.sync_log()
        if engine.log is not None:
            engine.log.fill_ahead()

    @property
    def errors(self) -> list[str]:
        """What background work failed at when it was last tried."""
        waiting = [self._start_error] if self._start_error else []
        return [*waiting, *(text for thread in self._threads for text in thread.errors)]

    def stop(self) -> None:
        """End the threads, each after the job it is in, and begin no others."""
        with self._starting:
            self.is_stopping, self.at_rest = True, False
        for thread in self._threads:
            thread.stop()
