"""A write on its way to the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from kvstore.model import Request

Notify = Callable[[list["Ticket"]], None]

UNPLANNED = -1


class Ticket:
    """A request on its way: asked for, then planned, then done, which means durable or failed."""

    # What a ticket begins with is the class's, not set for each: most of it never changes.
    entry: bytes | None = None
    """What goes into the log; None: nothing does, or it is not planned yet."""
    response: Any = None
    """What its caller gets, once it is planned."""
    revision = UNPLANNED
    """``State.head`` after this write, once it is planned; the same goes for the next two."""
    compacted = UNPLANNED
    index = UNPLANNED
    """The index of its entry in the log."""
    withdrawn = False
    """Whether its caller has given up, so that it need not be planned."""
    done = False
    error: BaseException | None = None
    """Why it is not durable."""
    is_main_threads = False
    """Whether the main thread is among those that wait for it."""
    notify: Notify | None = None
    """Told when it is done, with others that are."""
    future: Any = None
    """Whatever the owner of ``notify`` needs to find its caller again."""

    waiters: Sequence[threading.Lock] = ()
    """A held lock for each thread that waits for it."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def add_waiter(self, waiter: threading.Lock) -> None:
        """One more thread waits; another may come at the same moment."""
        waiters: list[threading.Lock] = self.__dict__.setdefault("waiters", [])
        waiters.append(waiter)

    def is_done(self) -> bool:
        """Whether it is durable or has failed. Another thread may change that at any moment."""
        return self.done

    def wake(self) -> None:
        """Let the waiting threads look again. Harmless if they are awake."""
        for waiter in self.waiters:
            try:
                waiter.release()
            except RuntimeError:
                pass  # woken already
