"""A call taken step by step: an exception at its Nth step, or another call in the middle of it.

A step is a line, or a bytecode, of the library's own code (``kvstore`` and ``backends``) that the calling thread
is about to run; lines of other packages are none (bytecodes of Python's own ``threading`` are). It is what a signal
handler, a debugger or a switch of threads can come between, held still, so that a test can try each of them:

    for steps in every_step(lambda: store.get(b"k"), Interruption):       an exception at step 1, 2, 3 ...
        ...                                                               what must hold after each

    for steps in every_step(lambda: store.get(b"k"), store.checkpoint):   another call in the middle instead

The last turn is one without any: the call came to its end before its Nth step.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import kvstore
from kvstore.backend import find_backend

FOLDERS = tuple(
    {
        f"{Path(kvstore.__file__).parent}/",
        f"{Path(sys.modules[find_backend('memory').__module__].__file__ or '').parent}/",
    }
)
"""Where the code lies whose steps are counted."""
FOLDERS_AND_LOCKS = (*FOLDERS, threading.__file__)


class Interruption(BaseException):
    """What a handler raises; no handler of the library knows it."""


class Steps:
    """Counts the steps of this thread, and acts at one of them."""

    def __init__(self, at: int, act: Callable[[], object], *, bytecodes: bool) -> None:
        self.taken = 0
        self.acted_in: str | None = None
        """Where it acted, as file:line; None if the call ended before."""
        self.in_finalizer = False
        """Whether that was inside ``__del__``, where Python reports an exception and goes on."""
        self.outcome: Any = None
        """What the call answered, or the exception that it ended with."""
        self._at = at
        self._act = act
        self._bytecodes = bytecodes

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Steps | None:
        """The trace function, of the thread and of each frame."""
        if event == "call":
            if not frame.f_code.co_filename.startswith(FOLDERS_AND_LOCKS if self._bytecodes else FOLDERS):
                return None
            if self._bytecodes:
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event in ("line", "opcode"):
            self.taken += 1
            if self.taken == self._at:
                self.acted_in = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self.in_finalizer = _in_finalizer(frame)
                sys.settrace(None)
                self._act()
        return self


def _in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


@contextmanager
def _stepping(steps: Steps) -> Iterator[Steps]:
    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # what earlier tests have left behind takes no step here
    sys.settrace(steps)
    try:
        yield steps
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()


def raise_at(step: int, error: type[BaseException] = Interruption, *, bytecodes: bool = False) -> Any:
    """Around a call: ``error`` is raised at its step of that number (from 1)."""

    def interrupt() -> None:
        raise error

    return _stepping(Steps(step, interrupt, bytecodes=bytecodes))


def pause_at(step: int, call: Callable[[], object], *, bytecodes: bool = False) -> Any:
    """Around a call: ``call`` runs to its end, in a thread of its own, before its step of that number (from 1)."""
    return _stepping(Steps(step, lambda: in_thread(call), bytecodes=bytecodes))


def nested_at(step: int, call: Callable[[], object], *, bytecodes: bool = False) -> Any:
    """Around a call: ``call`` runs in the same thread before its step of that number, as a signal handler does."""
    return _stepping(Steps(step, call, bytecodes=bytecodes))


def in_thread(call: Callable[[], object]) -> None:
    """Run ``call`` in another thread; what it raises is raised here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def count_steps(call: Callable[[], object], *, bytecodes: bool = False) -> int:
    """How many steps ``call`` takes."""
    with raise_at(0, bytecodes=bytecodes) as steps:
        call()
    taken: int = steps.taken
    return taken


def every_step(
    call: Callable[[], object],
    disturbance: type[BaseException] | Callable[[], object],
    *,
    bytecodes: bool = False,
    stride: int = 1,
) -> Iterator[Steps]:
    """Make ``call`` again and again, disturbed at its first step, its second, and so on, until it ends undisturbed.

    ``disturbance`` is an exception to raise, or what another thread does there. After each call its ``Steps``
    are yielded, with the outcome. ``stride``: try only every so manyth step.
    """
    at = 1
    while True:
        is_error = isinstance(disturbance, type) and issubclass(disturbance, BaseException)
        around = raise_at if is_error else pause_at
        with around(at, disturbance, bytecodes=bytecodes) as steps:  # type: ignore[arg-type]
            try:
                steps.outcome = call()
            except BaseException as error:
                steps.outcome = error.with_traceback(None)  # which holds the frames, and what they hold
        yield steps
        if steps.acted_in is None:
            return
        at += stride
