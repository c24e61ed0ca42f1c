"""Shelter: work that no signal handler interrupts.

Python runs signal handlers on the main thread, between any two of its steps. What a handler raises
(KeyboardInterrupt, a task queue's time limit) ends whatever the main thread was doing, half way. So long work does
not run there:

    main thread:   start a worker -- wait ----------------> its answer, or what it raised
                                      `-- interrupted ----> the interruption; the worker is told, and ends by itself

Any other thread does the work itself. So does the main thread if no thread can be started, or if the worker has not
begun after ``BEGIN_SECONDS``: a thread that finds no memory ends before its first step, and tells nobody.

Work that can stop half way calls ``check`` from time to time; other work runs to its end. ``undo`` is called with an
answer whose caller is gone.
"""

from __future__ import annotations

import _thread
import contextvars
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from kvstore.errors import NoDescriptor, NoThread

if TYPE_CHECKING:
    from kvstore.backend import Progress

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

BEGIN_SECONDS = 5.0

_main = threading.main_thread().ident


def on_main_thread() -> bool:
    """Whether a signal handler may interrupt the caller."""
    return threading.get_ident() == _main


def _find_main_thread() -> None:
    global _main
    _main = threading.main_thread().ident


os.register_at_fork(after_in_child=_find_main_thread)


def start(thread: threading.Thread) -> None:
    """Start a thread, completely or not at all. Raises ``RuntimeError`` if none can be started.

    ``Thread.start`` takes many steps, and a thread whose start was interrupted may die of it. So the main thread has it
    started by another thread, which takes a single step.
    """
    if not on_main_thread():
        thread.start()
        return
    _thread.start_new_thread(_start, (thread,))


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:  # there was a thread for us, but no second one
        thread.run()


def begin(run: Callable[[], object], name: str) -> threading.Thread:
    """A thread of its own for what goes on by itself. Raises ``NoThread``."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        start(thread)
    except RuntimeError as error:
        raise NoThread from error
    return thread


def join(thread: threading.Thread) -> None:
    """Wait for the end of a thread that ``start`` has started.

    One that has not begun yet is not waited for: what it runs has to look first whether it is to run at all.
    """
    with suppress(RuntimeError):
        thread.join()


class Abandoned(Exception):
    """Raised inside work whose caller is gone."""


class Sheltered(Generic[T]):
    """One piece of work, carried out where signals cannot reach it."""

    def __init__(self, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> None:
        self._work = work
        self._undo = undo
        self._answers: list[T] = []
        """The answer, once there is one. Whichever side pops it, and only that side, undoes it."""
        self._errors: list[BaseException] = []
        self._is_abandoned = self._has_ended = False

    def run(self) -> T:
        """Do the work; return its answer, or raise what it raised."""
        if not on_main_thread():
            return self._do()
        try:
            return self._wait_for_worker()
        except BaseException:
            self.abandon()
            raise

    def _wait_for_worker(self) -> T:
        done = threading.Lock()
        done.acquire()
        run, call = contextvars.copy_context().run, [self]
        try:
            start(threading.Thread(target=run, args=(carry_out, call, done), name="kvstore-shelter"))
        except RecursionError:
            raise
        except RuntimeError:  # no thread available
            return self._do()
        while not done.acquire(timeout=BEGIN_SECONDS):
            if has_taken_back(call):
                return self._do()
        return self._outcome()

    def _outcome(self) -> T:
        """What the worker has found, or raised."""
        if self._errors:
            raise self._errors.pop()
        if not self._answers:
            raise MemoryError("no memory was left for the outcome of the call")
        return self._answers[0]

    def carry_out(self) -> None:
        """For the worker."""
        try:
            self._do()
        except BaseException as error:
            self._errors.append(error)
        self._has_ended = True
        if self._is_abandoned:
            self._put_back()

    def _do(self) -> T:
        """Do the work, and let go of it: it may hold this call, which holds the answer."""
        work = self._work
        del self._work
        answer = work()
        self._answers.append(answer)
        return answer

    def abandon(self) -> None:
        """The caller is gone: undo the answer, now or as soon as there is one."""
        self._is_abandoned = True
        if self._has_ended:
            self._put_back()

    def _put_back(self) -> None:
        try:
            answer = self._answers.pop()
        except IndexError:
            return  # there was none, or the other side has it
        if self._undo is not None:
            self._undo(answer)

    def check(self) -> None:
        """For the work: raise ``Abandoned`` if its caller is gone."""
        if self._is_abandoned:
            raise Abandoned


class Done(Protocol):
    """What a worker tells that its work has ended: a lock, or what stands for one."""

    def release(self) -> None: ...


def carry_out(call: list[Sheltered[T]], done: Done) -> None:
    """What a worker runs. It keeps nothing: the answer is the caller's alone, however late the worker's thread ends."""
    try:
        call.pop().carry_out()
    except IndexError:  # it was taken back
        return
    finally:
        done.release()


def has_taken_back(call: list[Sheltered[T]]) -> bool:
    """Whether the worker has not begun; it will not, then."""
    try:
        call.pop()
    except IndexError:
        return False
    return True


def sheltered(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Runs a method to its end in a thread that signals cannot reach."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not on_main_thread():
            return method(self, *args, **kwargs)
        return Sheltered(lambda: method(self, *args, **kwargs)).run()

    return run


_imported: set[str] = set()


def import_sheltered(name: str) -> None:
    """Import a module that the caller is about to use: Python's import locks do not survive an interruption.

    Finding it in ``sys.modules`` is not enough: another thread may still be importing it, and hold its lock.
    Raises ``NoDescriptor`` if no file descriptor is left for reading it.
    """

    def load() -> None:
        try:
            import_module(name)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise NoDescriptor(name) from error
            raise
        _imported.add(name)

    if name not in _imported:
        Sheltered(load).run()


def run_with_progress(work: Callable[[Progress | None], T], progress: Progress | None) -> T:
    """Run work that reports its progress, and can therefore be given up when its caller is interrupted."""
    if not on_main_thread():
        return work(progress)

    def tell(done: int, total: int) -> None:
        call.check()
        if progress is not None:
            progress(done, total)

    call = Sheltered(lambda: work(tell))
    return call.run()
