"""One call and one stream, as the client carries them: what was asked, how far it is, and who waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

from kvstore.errors import Code, KVStoreError, Unavailable
from kvstore.network.grpc import framed
from kvstore.network.remote.connection import Connection, Exchange
from kvstore.network.remote.methods import Method
from kvstore.network.remote.outcome import error_of
from kvstore.network.remote.streams import Receiver


class Client(Protocol):
    """Who carries calls, as far as they need it: told what became of an attempt, on the client's loop."""

    answered: list[Call]

    def refused(self, call: Call, code: int, text: str) -> None: ...

    def lost(self, call: Call, was_unprocessed: bool, reason: str) -> None: ...

    def forget(self, stream: StreamCall) -> None: ...

    def ask_soon(self, call: Call) -> asyncio.Future[Any]: ...

    def give_up(self, call: Call) -> None: ...


class Call(Exchange):
    """A unary call, from the moment it is asked for until its caller has an answer or an error.

    The caller waits for ``waiter`` or ``future``, whichever it has set.
    """

    # What a call begins with is the class's, not set for each: most of it never changes.
    deadline = 0.0
    timer: asyncio.TimerHandle | None = None
    attempts = 0
    sent_at = 0.0
    seen_revision = 0
    """The newest revision that the client had seen when it sent the call."""
    message_bytes: bytes | None = None
    is_uncertain = False
    """An attempt ended so that nobody knows whether it was carried out."""
    has_new_token = False
    """It was refused for its token once, and given another one."""
    is_stale = False
    """It was answered with an older revision than one seen before."""
    last_error: KVStoreError | None = None
    """What ended the last attempt."""
    is_done = False
    answer: Any = None
    error: KVStoreError | None = None
    waiter: threading.Lock | None = None
    future: asyncio.Future[Any] | None = None

    def __init__(
        self,
        client: Client,
        method: Method,
        message: bytes,
        make: Callable[[Any], Any],
        what: Any = None,
        timeout_seconds: float = 0.0,
    ) -> None:
        self.client = client
        self.method = method
        self.data = framed(message)
        self.make = make
        """What its caller makes of the answer."""
        self.what = what
        """The request, for error messages."""
        self.timeout_seconds = timeout_seconds
        """0: that of all calls."""

    def __str__(self) -> str:
        key = getattr(self.what, "key", None)
        return self.method.name if key is None else f"{self.method.name} of {key!r:.80}"

    def __await__(self) -> Generator[Any, None, Any]:
        """Ask, in a task. One that gives up has the call given up."""
        try:
            answer = yield from self.client.ask_soon(self)
        except asyncio.CancelledError:
            self.client.give_up(self)
            raise
        return self.make(answer)

    @property
    def is_under_way(self) -> bool:
        """Whether it is on a connection now."""
        return self.stream is not None and self.stream.open

    # --- what the connection says -----------------------------------------------------

    def message(self, data: bytes) -> None:
        self.message_bytes = data

    def answered_with(self, data: bytes) -> None:
        self.stream.owner = None  # type: ignore[union-attr]  # it has come on one
        self.message_bytes = data
        self.client.answered.append(self)

    def over(self, code: int, text: str) -> None:
        if code == Code.OK and self.message_bytes is not None:
            self.client.answered.append(self)
        elif code == Code.OK:
            self.client.refused(self, Code.INTERNAL, "there is no message in the answer")
        else:
            self.client.refused(self, code, text)

    def lost(self, was_unprocessed: bool, reason: str) -> None:
        self.client.lost(self, was_unprocessed, reason)


class StreamCall(Exchange):
    """A call with many messages: a ``streams.Stream``. What is sent before it has begun is kept."""

    def __init__(self, client: Client, path: bytes, receiver: Receiver) -> None:
        self.path = path
        self.deadline = 0.0
        """By which there has to be a connection."""
        self.is_done = False
        self._client = client
        self._receiver = receiver
        self._kept: list[bytes] = []
        self._is_finished = False

    def begin(self, connection: Connection, block: bytes) -> None:
        kept, self._kept = self._kept, []
        connection.begin(self, block, b"".join(kept), self._is_finished)

    def send(self, message: bytes) -> None:
        if self.is_done:
            return
        if self.connection is None or self.stream is None:
            self._kept.append(framed(message))
        else:
            self.connection.send(self.stream, framed(message))

    def finish(self) -> None:
        self._is_finished = True
        if self.connection is not None and self.stream is not None:
            self.connection.finish(self.stream)

    def hold(self, is_held: bool) -> None:
        if self.connection is not None and self.stream is not None and not self.is_done:
            self.connection.hold(self.stream, is_held)

    def cancel(self) -> None:
        self.is_done = True
        self._client.forget(self)
        super().cancel()

    def end(self, error: KVStoreError | None) -> None:
        """Tell the owner, once."""
        if not self.is_done:
            self.is_done = True
            self._client.forget(self)
            self._receiver.ended(error)

    # --- what the connection says -----------------------------------------------------

    def message(self, data: bytes) -> None:
        if not self.is_done:
            self._receiver.received(data)

    def over(self, code: int, text: str) -> None:
        self.end(None if code == Code.OK else error_of(code, text))

    def lost(self, was_unprocessed: bool, reason: str) -> None:
        self.end(Unavailable(f"the connection is lost: {reason}"))


class Asked(Exchange):
    """One attempt at a call of the client's own, on a certain connection: no repetition, no checks."""

    def __init__(self, future: asyncio.Future[bytes]) -> None:
        self._future = future
        self._answer = b""

    def message(self, data: bytes) -> None:
        self._answer = data

    def over(self, code: int, text: str) -> None:
        if self._future.done():
            return
        if code == Code.OK:
            self._future.set_result(self._answer)
        else:
            self._future.set_exception(error_of(code, text))

    def lost(self, was_unprocessed: bool, reason: str) -> None:
        if not self._future.done():
            self._future.set_exception(Unavailable(reason))
