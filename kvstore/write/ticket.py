"""A write on its way to the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kvstore.model import Request

Notify = Callable[[list["Ticket"]], None]

UNPLANNED = -1


class Ticket:
    """A request: asked for, then planned, then done, which is durable or failed."""

    __slots__ = (
        "compacted",
        "done",
        "entry",
        "error",
        "future",
        "index",
        "is_main_threads",
        "notify",
        "request",
        "response",
        "revision",
        "waiters",
        "withdrawn",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.entry: bytes | None = None
        self.response: Any = None
        self.revision = UNPLANNED
        """``State.head`` after it, once it is planned; the next two likewise."""
        self.compacted = UNPLANNED
        self.index = UNPLANNED
        """The log's index with its entry."""
        self.withdrawn = False
        """Whether it need not be planned any more, if it is not yet."""
        self.done = False
        self.error: BaseException | None = None
        self.waiters: list[threading.Lock] = []
        """A taken lock of each thread that waits for it."""
        self.is_main_threads = False
        """Whether the main thread is among them."""
        self.notify: Notify | None = None
        self.future: Any = None
        """Room for what the owner of ``notify`` needs to find its caller again."""

    def is_done(self) -> bool:
        """Durable, or failed. Another thread may make it so at any moment."""
        return self.done

    def wake(self) -> None:
        """Let those who wait look again. Harmless if they are awake."""
        for waiter in self.waiters:
            try:
                waiter.release()
            except RuntimeError:
                pass  # woken already
