"""One request and its answer: what the connection has to know about them."""

from __future__ import annotations

from collections import deque
from typing import Any


class Stream:
    """Its owner reads `id`, `open`, `blocked`, `queued_bytes` and `unprocessed`, and may keep anything in `owner`."""

    # What a stream begins with is the class's, not set for each: most of it never changes.
    owner: Any = None
    open = True
    """Until both are done with it, or one of them has reset it. Calls for a stream that is over do nothing."""
    remote_open = True
    """The peer may still send."""
    local_open = True
    """We may still send; what is queued counts as sent."""
    answered = False
    """HEADERS of the answer were sent or received."""
    awaits_all = False
    """It is a request of ours that went out whole, and nothing has come of its answer."""
    unprocessed = False
    """Of a request of ours that was reset: it is certain that the server has not looked at it."""
    owed_bytes = 0
    """What was received and not yet given back with WINDOW_UPDATE."""
    holding = False
    """While true, its window is not given back: the peer stops sending when that is used up."""
    remaining_bytes = -1
    """What content-length still promises; -1 without one."""
    yields = False
    """Set by the owner of a long answer: it takes turns with all others that wait for the connection's window."""
    queue: deque[memoryview] | None = None
    """Data that waits for a window."""
    queued_bytes = 0
    ending: bytes | None = None
    """What is sent after the queue: a block of trailers; b"" is the end without any."""

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.receive_window = receive_window

    @property
    def blocked(self) -> bool:
        return self.queue is not None
