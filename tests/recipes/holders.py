"""What tests of recipes share: time that both the store and sessions count, and holders that die or pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import kvstore
from kvstore.recipes.session import SessionSteps
from kvstore.testing.fake_clock import FakeClock

PATIENCE_SECONDS = 60
TTL_SECONDS = 60
"""Of a session that no real time ends while a test runs, nor renews."""


def pass_time(store: kvstore.Store, clock: FakeClock, seconds: float = TTL_SECONDS) -> None:
    """Let the store's time pass, and with it leases that nobody renews. Sessions count the same time (``clock``)."""
    clock.advance(seconds)
    store.engine.leasing.expire()


def until(happens: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.001)


def waits_in_line(store: kvstore.Store, prefix: bytes, count: int) -> None:
    """Wait until so many keys stand in a line, and the last one watches."""
    until(lambda: store.count(prefix=prefix) == count and store.status().watchers >= count - 1)


def killed(session: SessionSteps) -> None:
    """What a ``kill -9`` of its process leaves of a session: a lease that nobody renews or revokes."""
    session._ended.set()
    session._give_up_keeping()


class Beside:
    """A call in a thread; ``result`` waits for what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: list[Any] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:
            self._error.append(error)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(PATIENCE_SECONDS)
        assert self.is_over, "it does not return"
        if self._error:
            raise self._error[0]
        return self._result[0]


def all_of(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """What these return, each in a thread of its own."""
    return [beside.result() for beside in [Beside(call) for call in calls]]
