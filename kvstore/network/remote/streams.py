"""What watches and keep-alives need of the client: streams of gRPC to whichever member it is connected with.

    open ──> Stream: send, cancel
                │
    Receiver: received, received ..., ended          (once; a lost connection is ``Unavailable``)

A stream lives on one connection and ends with it. Its owner opens another one, after a pause (``backoff``); which
member that goes to is the client's business, as are the token and ``hasleader``. Everything here is called on the
thread of the client's loop, but for ``soon``.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from kvstore.errors import KVStoreError

FIRST_PAUSE_SECONDS = 0.025
PAUSE_GROWTH = 1.25
LONGEST_PAUSE_SECONDS = 1.0


def backoff(attempt: int) -> float:
    """Seconds to wait before attempt ``attempt`` (1: the first repetition), with jitter of a tenth."""
    seconds = min(FIRST_PAUSE_SECONDS * PAUSE_GROWTH ** min(attempt - 1, 100), LONGEST_PAUSE_SECONDS)
    return seconds * random.uniform(0.9, 1.1)


class Receiver(Protocol):
    """The owner of a stream."""

    def received(self, message: bytes) -> None:
        """One message of gRPC, without the five bytes of its frame."""

    def ended(self, error: KVStoreError | None) -> None:
        """The server has ended the stream, or the connection is lost. Called once. None: its status was OK."""


class Stream(Protocol):
    """A call of gRPC with many messages either way."""

    def send(self, message: bytes) -> None:
        """One message. Nothing happens if the stream has ended."""

    def finish(self) -> None:
        """No more messages from us: a server that has been asked for a list waits for that."""

    def hold(self, is_held: bool) -> None:
        """Whether the server is to stop once what may be under way (``Limits.stream_window_bytes``) has come."""

    def cancel(self) -> None:
        """RST_STREAM with CANCEL. ``ended`` is not called any more."""


class Timer(Protocol):
    """What ``Streams.later`` returns."""

    def cancel(self) -> None: ...


class Streams(Protocol):
    """The client, for whoever keeps a stream open."""

    def open(self, path: bytes, receiver: Receiver) -> Stream:
        """Open a stream of the method ``path`` (``b"/etcdserverpb.Watch/Watch"``).

        Without a connection it begins as soon as there is one; what is sent until then is kept. If there will be
        none, ``ended`` is called with ``Unavailable``, never from inside of ``open``.
        """

    def unary(self, path: bytes, message: bytes) -> Awaitable[bytes]:
        """The answer to a call that may be repeated, within the client's timeout. Raises what the call raises."""

    def soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have ``call`` called on the loop's thread, from any thread. Nothing happens once the client is closed."""

    def later(self, delay_seconds: float, call: Callable[[], Any]) -> Timer: ...

    def reauthenticate(self) -> Awaitable[None]:
        """A token error ended a stream: get another token. Raises ``Unauthenticated``."""
