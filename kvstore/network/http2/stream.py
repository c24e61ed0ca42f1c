"""One request and its answer: what the connection has to know about them."""

from __future__ import annotations

from collections import deque
from typing import Any


class Stream:
    """Its owner reads `id`, `open`, `blocked`, `queued_bytes` and `unprocessed`, and may keep anything in `owner`."""

    __slots__ = (
        "answered",
        "ending",
        "holding",
        "id",
        "local_open",
        "open",
        "owed_bytes",
        "owner",
        "queue",
        "queued_bytes",
        "receive_window",
        "remaining_bytes",
        "remote_open",
        "send_window",
        "unprocessed",
        "yields",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.owner: Any = None
        self.open = True
        """Until both are done with it, or one of them has reset it. Calls for a stream that is over do nothing."""
        self.remote_open = True
        """The peer may still send."""
        self.local_open = True
        """We may still send; what is queued counts as sent."""
        self.answered = False
        """HEADERS of the answer were sent or received."""
        self.unprocessed = False
        """Of a request of ours that was reset: it is certain that the server has not looked at it."""

        self.send_window = send_window
        self.receive_window = receive_window
        self.owed_bytes = 0
        """What was received and not yet given back with WINDOW_UPDATE."""
        self.holding = False
        """While true, its window is not given back: the peer stops sending when that is used up."""
        self.remaining_bytes = -1
        """What content-length still promises; -1 without one."""

        self.yields = False
        """Set by the owner of a long answer: it takes turns with all others that wait for the connection's window."""
        self.queue: deque[memoryview] | None = None
        """Data that waits for a window."""
        self.queued_bytes = 0
        self.ending: bytes | None = None
        """What is sent after the queue: a block of trailers; b"" is the end without any."""

    @property
    def blocked(self) -> bool:
        return self.queue is not None
