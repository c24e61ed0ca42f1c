"""Leases kept alive: one stream for all of a client's, over any number of connections.

    keep_alive(lease) --ask--> KeepAliveMachine --> out ------> Stream
          ^                      |        ^
          +-------- tell --------+        +-- received, lost --- Stream

A server answers in the order of the requests, and each answer names its lease: it belongs to the request that has
waited longest for that lease. A renewal may be repeated, so what has no answer when a connection is lost is sent again
over the next one, for as long as its caller waits.

An error ends the whole stream. It is about the request that has waited longest: that one fails, the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from google.protobuf.message import DecodeError

from kvstore.errors import Corruption, KVStoreError, Unauthenticated, Unavailable, again
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import LeaseKeepAliveResponse
from kvstore.network.remote.encoding import keep_alive_response
from kvstore.network.remote.methods import KEEP_ALIVE
from kvstore.network.remote.streams import Stream, Streams, Timer, backoff

TOKEN_ATTEMPTS = 3
"""Token errors in a row after which another token will not help."""

Answer = LeaseKeepAliveResponse | KVStoreError


class Asked:
    """One request. ``tell`` is called once, with its answer or with why there is none."""

    __slots__ = ("is_wanted", "lease", "tell")

    def __init__(self, lease: int, tell: Callable[[Answer], None]) -> None:
        self.lease = lease
        self.tell = tell
        self.is_wanted = True


class KeepAliveMachine:
    """All calls come from one thread."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        """What is to be sent on the open stream, in order. Its owner takes it."""
        self._is_open = False
        self._asked: dict[Asked, None] = {}
        """What has no answer, in the order of asking."""

    def ask(self, lease: int, tell: Callable[[Answer], None]) -> Asked:
        asked = Asked(lease, tell)
        self._asked[asked] = None
        if self._is_open:
            self._send(asked)
        return asked

    def forget(self, asked: Asked) -> None:
        """Nobody waits for it any more. Its answer may still come, and is nobody else's."""
        if self._is_open:
            asked.is_wanted = False
        else:
            self._asked.pop(asked, None)

    @property
    def needs_stream(self) -> bool:
        return bool(self._asked) and not self._is_open

    def opened(self) -> None:
        self._is_open = True
        for asked in self._asked:
            self._send(asked)

    def lost(self) -> None:
        """The stream is over: what has no answer is asked again on the next one."""
        self._is_open = False
        self.out.clear()
        self._asked = {asked: None for asked in self._asked if asked.is_wanted}

    def received(self, message: bytes) -> None:
        """An answer. Raises ``Corruption`` if it is none, or nobody's."""
        try:
            answer = pb.LeaseKeepAliveResponse.FromString(message)
        except DecodeError as error:
            raise Corruption(
                f"the answer to a keep-alive is not a message of etcd's: {error}", "a server"
            ) from None
        asked = next((each for each in self._asked if each.lease == answer.ID), None)
        if asked is None:
            raise Corruption(f"lease {answer.ID:x} was kept alive, which nobody asked for", "a server")
        self._finish(asked, keep_alive_response(answer))

    def refuse_oldest(self, error: KVStoreError) -> None:
        """The server ended the stream because of the request that has waited longest."""
        for asked in self._asked:
            self._finish(asked, error)
            return

    def refuse_all(self, error: KVStoreError) -> None:
        for asked in list(self._asked):
            self._finish(asked, again(error))

    def _finish(self, asked: Asked, answer: Answer) -> None:
        del self._asked[asked]
        if asked.is_wanted:
            asked.tell(answer)

    def _send(self, asked: Asked) -> None:
        self.out.append(pb.LeaseKeepAliveRequest(ID=asked.lease).SerializeToString())


def _set(answered: asyncio.Future[Answer], answer: Answer) -> None:
    if not answered.done():  # its caller may have been canceled a moment ago
        answered.set_result(answer)


class KeepAlives:
    """The stream of a client: a ``Receiver``. Everything is called on the loop's thread."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._machine = KeepAliveMachine()
        self._stream: Stream | None = None
        self._timer: Timer | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._attempts = 0
        self._token_errors = 0
        self._last_error: KVStoreError | None = None

    async def keep_alive(self, lease: int, timeout_seconds: float) -> LeaseKeepAliveResponse:
        """Renew a lease; TTL 0: there is no such lease any more. Raises what the server says, or ``Unavailable``."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        asked = self._machine.ask(lease, partial(_set, answered))
        try:
            self._go_on()
            async with asyncio.timeout(timeout_seconds):
                answer = await answered
        except TimeoutError:
            raise Unavailable(
                f"no server has kept lease {lease:x} alive within {timeout_seconds:g} seconds"
            ) from self._last_error
        finally:
            self._machine.forget(asked)
        if isinstance(answer, KVStoreError):
            raise answer
        return answer

    def close(self, error: KVStoreError) -> None:
        """The client is closed: everybody who waits gets ``error``."""
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
        self._drop_stream()
        self._machine.refuse_all(error)

    # --- what the server says ---------------------------------------------------------

    def received(self, message: bytes) -> None:
        self._attempts = self._token_errors = 0
        try:
            self._machine.received(message)
        except KVStoreError as error:
            self._drop_stream()
            self._machine.refuse_all(error)

    def ended(self, error: KVStoreError | None) -> None:
        self._stream = None
        self._last_error = error
        self._machine.lost()
        if isinstance(error, Unauthenticated):
            self._renew_token(error)
            return
        if error is not None and not error.retryable:
            self._machine.refuse_oldest(error)
        self._go_on_later()

    def _go_on(self) -> None:
        """Open a stream if it takes one, and send what there is to send."""
        machine = self._machine
        if self._stream is None and machine.needs_stream and self._timer is None and self._renewal is None:
            self._stream = self._streams.open(KEEP_ALIVE, self)
            machine.opened()
        if self._stream is not None:
            for message in machine.out:
                self._stream.send(message)
            machine.out.clear()

    def _go_on_later(self) -> None:
        self._attempts += 1
        self._timer = self._streams.later(backoff(self._attempts), self._pause_is_over)

    def _pause_is_over(self) -> None:
        self._timer = None
        self._go_on()

    def _renew_token(self, error: KVStoreError) -> None:
        self._token_errors += 1
        if self._token_errors > TOKEN_ATTEMPTS:
            self._token_errors = 0
            self._machine.refuse_all(error)
        else:
            self._renewal = asyncio.get_running_loop().create_task(self._reauthenticate())

    async def _reauthenticate(self) -> None:
        try:
            await self._streams.reauthenticate()
        except KVStoreError as error:
            self._last_error = error
            if not error.retryable:
                self._machine.refuse_all(error)
        self._renewal = None
        self._go_on_later()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        self._machine.lost()
