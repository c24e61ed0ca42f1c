"""Calls of an endpoint's services without a connection: the loop runs while a test waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvstore.errors import Code
from kvstore.etcdpb.status import status_of
from kvstore.network.call import Kind, Peer, Running
from kvstore.network.endpoint import Endpoint, Settings
from kvstore.network.services import TABLE
from kvstore.protocol import EmbeddedEngine

PATIENCE_SECONDS = 60


class Refused(Exception):
    """A call that was answered with an error."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class FakeCall:
    """A ``Call`` that keeps what it was answered with."""

    def __init__(
        self, path: str, metadata: Mapping[str, str] | None = None, peer: Peer | None = None
    ) -> None:
        self.method = TABLE[path]
        self.peer = peer or Peer()
        self.metadata = metadata or {}
        self.alive = True
        self.is_blocked = False
        self.has_room = True
        self.has_begun = False
        self._pieces = b""
        self.answers: list[Any] = []
        """Decoded."""
        self.error: BaseException | None = None
        self.running: Running | None = None

    def answer(self, message: bytes) -> None:
        assert self.method.kind is Kind.UNARY
        self._take(message)
        self._over()

    def begin_answer(self, size_bytes: int, kept_bytes: int) -> None:
        self._pieces = b""

    def write(self, piece: bytes) -> None:
        self._pieces += piece

    def done(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        assert self.method.kind is not Kind.UNARY
        self._take(message)

    def send_all(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self.send(message)

    def _take(self, message: bytes) -> None:
        if self.alive:
            self.answers.append(self.method.response.FromString(message))

    def begin(self) -> None:
        self.has_begun = True

    def end(self) -> None:
        if self.method.kind is Kind.UNARY:
            self._take(self._pieces)
        self._over()

    def fail(self, error: BaseException) -> None:
        if self.alive:
            self.error = error
        self._over()

    def _over(self) -> None:
        was_alive, self.alive = self.alive, False
        if was_alive and self.running is not None:
            self.running.closed()

    # --- the client -------------------------------------------------------------------

    def go(self) -> None:
        """The client goes away."""
        self._over()

    def take(self) -> None:
        """The client has taken what was sent."""
        self.is_blocked = False
        if self.running is not None:
            self.running.drained()

    def check(self) -> None:
        """Raise what the call was refused with, if it was."""
        if self.error is not None:
            raise Refused(*status_of(self.error))


class Client:
    """A client of one endpoint."""

    def __init__(self, engine: Any, settings: Settings | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        embedded: EmbeddedEngine = engine
        self.endpoint = Endpoint(embedded, self.loop, settings or Settings())

    def begin(self, path: str, request: Any = None, **metadata: str) -> FakeCall:
        """Begin a call, and do not wait for it."""
        call = FakeCall(path, metadata)
        message = b"" if request is None else request.SerializeToString()
        try:
            call.running = call.method.serve(self.endpoint, call, message)
        except Exception as error:
            call.fail(error)
        return call

    def ask(self, path: str, request: Any = None, **metadata: str) -> Any:
        """The answer to a unary call; raises ``Refused``."""
        call = self.begin(path, request, **metadata)
        self.until(lambda: not call.alive)
        call.check()
        (answer,) = call.answers
        return answer

    def all(self, path: str, request: Any = None) -> list[Any]:
        """The answers of a stream that ends by itself."""
        call = self.begin(path, request)
        self.until(lambda: not call.alive)
        call.check()
        return call.answers

    def until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until something is so."""

        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(wait(), PATIENCE_SECONDS))

    def turn(self, times: int = 20) -> None:
        """Let the loop do what it can do by now."""

        async def wait() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    def close(self) -> None:
        self.endpoint.close()
        self.turn()
        self.loop.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
