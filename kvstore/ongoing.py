"""What goes on by itself: step after step on a thread of its own, until it is stopped.

    begin   the thread
    run     a step, then a pause; after one that failed a longer pause each time, up to a limit. The failure is logged
            when it is another one than the last
    stop    have ``run`` end after its step
    end     that, and wait for it

Whichever comes first: a thread that was stopped before it has begun takes no step, and is not waited for.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from kvstore.bell import Bell
from kvstore.errors import said_of
from kvstore.shelter import begin, join


class Ongoing(ABC):
    """``stop`` may be called from any thread, and in a signal handler."""

    thread_name: ClassVar[str]
    retry_seconds_max: ClassVar[float]
    logger: ClassVar[logging.Logger]
    waits: str
    """How the log says that a step has failed, and is tried again."""

    def __init__(self, pause_seconds: float, retry_seconds: float) -> None:
        """``pause_seconds``: between steps. ``retry_seconds``: after the first one of some that fail."""
        self._pause_seconds = pause_seconds
        self._retry_seconds = retry_seconds
        self._bell = Bell()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._was_begun = False
        """Whether it was to go on by itself, even if it was stopped before its first step."""

    @abstractmethod
    def _take_step(self) -> object:
        """One step. What it raises is tried again."""

    def begin(self) -> None:
        """Start a thread that steps until ``close``. Raises ``NoThread``."""
        self._thread = begin(self.run, self.thread_name)
        self._was_begun = True

    def run(self) -> None:
        """Step until ``stop`` is called. What fails is logged, and tried again after longer and longer pauses."""
        self._was_begun = True
        said, retry_seconds = "", self._retry_seconds
        while not self._stopping:
            try:
                self._take_step()
                said, retry_seconds, pause_seconds = "", self._retry_seconds, self._pause_seconds
            except Exception as error:
                if said != said_of(error):
                    said = said_of(error)
                    self.logger.warning("%s: %s", self.waits, said)
                pause_seconds, retry_seconds = retry_seconds, min(2 * retry_seconds, self.retry_seconds_max)
            self._wait(pause_seconds)

    def _wait(self, seconds: float) -> None:
        self._bell.wait(seconds)

    def stop(self) -> None:
        """Have ``run`` end after its step."""
        self._stopping = True
        self._bell.ring()

    def end(self) -> None:
        """Have ``run`` end, and wait for it, unless it is the caller."""
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            join(self._thread)
            self._thread = None
