"""An exception that a signal handler raises on the main thread, as Ctrl-C and time limits do: where it is expected.

A timer goes on while a busy machine lets the main thread wait: it may run out before the next statement. So it is set
inside of what expects the exception, the handler raises only while it is set, and once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

AGAIN_SECONDS = 0.01


class Alarm:
    """Raises an exception on the main thread. The handler is in place for as long as the block."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error
        self._is_set = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raise after so long, unless the block has ended by then. Belongs inside of what expects the exception."""
        self._is_set = True
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            self._is_set = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, *_: object) -> None:
        if self._is_set:
            self._is_set = False
            raise self._error

    def _report(self, unraisable: Any) -> None:
        """A finalizer was interrupted: Python says so, and goes on. The alarm rings once more."""
        if isinstance(unraisable.exc_value, self._error):
            self._is_set = True
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            self._reported(unraisable)

    def __enter__(self) -> Self:
        self._timer = signal.getitimer(signal.ITIMER_REAL)  # pytest's own, which ends tests that hang
        self._before = signal.signal(signal.SIGALRM, self._ring)
        self._reported = sys.unraisablehook
        sys.unraisablehook = self._report
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        signal.setitimer(signal.ITIMER_REAL, *self._timer)
        sys.unraisablehook = self._reported
