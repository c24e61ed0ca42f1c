"""A client of HTTP/1.1 in memory: the connection, the endpoint and its store are real, the socket is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h11

import kvstore
from kvstore.network.call import Peer
from kvstore.network.endpoint import Endpoint, Settings
from kvstore.network.http1_peer import Http1Peer

PATIENCE_SECONDS = 60


class FakeSocket:
    """What a connection writes to: a transport that keeps it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False
        self.is_reading = True
        self.owed_bytes = 0

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return self.owed_bytes


@dataclass
class Answer:
    """One answer, as far as it has come."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    is_complete: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """What a stream has said."""
        return [json.loads(line) for line in self.body.splitlines()]


def says(lines: int) -> Callable[[Answer], bool]:
    """Whether a stream has said so much."""
    return lambda answer: len(answer.lines) >= lines


class WebClient:
    """One connection to an endpoint."""

    def __init__(
        self, endpoint: Endpoint, peer: Peer | None = None, *, is_for_monitors: bool = False
    ) -> None:
        self.loop = endpoint.loop
        self.endpoint = endpoint
        self.store: kvstore.Store
        self.socket = FakeSocket()
        transport = cast(asyncio.Transport, self.socket)
        self.peer = Http1Peer(endpoint, transport, peer or Peer(), is_for_monitors=is_for_monitors)
        self._h11 = h11.Connection(h11.CLIENT)
        self._taken = 0

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request, and wait for the answer to it."""
        self.send(method, target, body, **headers)
        return self.answer()

    def call(self, path: str, message: Any = None, **headers: str) -> Answer:
        """Call a method over JSON."""
        return self.ask("POST", path, json.dumps(message or {}).encode(), **headers)

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        named = [("Host", "localhost"), *[(name.replace("_", "-"), value) for name, value in headers.items()]]
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        request = h11.Request(
            method=method, target=target, headers=[*named, ("Content-Length", str(len(body)))]
        )
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            data = self._h11.send(event)
            if data:
                self.peer.receive(data)

    def answer(self, until: Callable[[Answer], bool] = lambda answer: answer.is_complete) -> Answer:
        """The answer to what was sent, when it has come so far."""
        return self.more(Answer(0, {}), until)

    def more(
        self, answer: Answer, until: Callable[[Answer], bool] = lambda answer: answer.is_complete
    ) -> Answer:
        """The same answer, when it has come further."""
        self.until(lambda: self._read(answer) and until(answer))
        return answer

    def watch(self, *requests: Any) -> Answer:
        """Begin to watch, and wait for the first line of the answer."""
        self.send("POST", "/v3/watch", "".join(map(json.dumps, requests)).encode())
        return self.answer(says(1))

    def _read(self, found: Answer) -> bool:
        data = bytes(self.socket.written[self._taken :])
        self._taken += len(data)
        if data:
            self._h11.receive_data(data)
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                found.status = event.status_code
                found.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.is_complete = True
                return True
            elif not isinstance(event, h11.InformationalResponse):
                return found.status > 0

    def until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until something is so."""

        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(wait(), PATIENCE_SECONDS))

    def rest(self) -> None:
        """Let the loop do what it can do by now."""

        async def wait() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())


@contextmanager
def endpoint_of(store: kvstore.Store, **settings: Any) -> Iterator[Endpoint]:
    """An endpoint whose loop runs only while a test waits."""
    loop = asyncio.new_event_loop()
    endpoint = Endpoint(store.engine, loop, Settings(**settings))
    try:
        yield endpoint
    finally:
        endpoint.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@contextmanager
def web_client(folder: Path, **settings: Any) -> Iterator[WebClient]:
    """A connection to the endpoint of a fresh store."""
    with kvstore.open(folder / "store", "memory") as store, endpoint_of(store, **settings) as endpoint:
        client = WebClient(endpoint)
        client.store = store
        yield client
        client.peer.lost()
