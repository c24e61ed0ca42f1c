"""Background work, on two threads: one for what is short and must be prompt (checkpoints, the log, leases, room), one
for what may take long (compaction, defragment).

Each turn runs every job that is due. A job does its heavy work in C calls without the GIL, or in small chunks
with sleeps between them. A job that finds the disk full tries again next turn; any other failure poisons the
store, which refuses writes from then on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.errors import DiskFull, KVStoreError

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

COMMIT, DEFRAGMENT, SNAPSHOT = "commit", "defragment", "snapshot"
"""Work whose duration is a metric: what ``engine.timed`` is told."""

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


class Maintenance:
    """A thread and its jobs. Setting ``wanted`` makes all of them due."""

    def __init__(self, engine: LocalEngine, name: str, wanted: threading.Event, jobs: list[Job]) -> None:
        self._engine = engine
        self._wanted = wanted
        self._jobs = jobs
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._errors: dict[str, str] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the job it is in."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            wait = min(job.due for job in self._jobs) - time.monotonic()
            urgent = self._wanted.wait(max(wait, 0.0))
            self._wanted.clear()
            for job in self._jobs:
                if self._stopping.is_set():
                    return
                if urgent or time.monotonic() >= job.due:
                    self._run(job)

    def _run(self, job: Job) -> None:
        wait_seconds = job.interval_seconds
        try:
            answer = job.run()
            self._errors.pop(job.name, None)
            if isinstance(answer, float):
                wait_seconds = answer
        except DiskFull as error:
            self._note(job, error)
        except KVStoreError as error:
            self._note(job, error)
        except Exception as error:
            self._note(job, error)
            self._engine.poison(error)
        job.due = time.monotonic() + wait_seconds

    def _note(self, job: Job, error: BaseException) -> None:
        if self._errors.get(job.name) != str(error):
            logger.warning("%s: %s", job.name, error)
        self._errors[job.name] = str(error)

    @property
    def errors(self) -> list[str]:
        """What jobs failed at when they last ran."""
        return [f"{name}: {error}" for name, error in list(self._errors.items())]
