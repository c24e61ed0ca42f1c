"""Requests of HTTP/2 that are none of gRPC: a browser's, or curl's, which speak it where there is TLS.

To the connection a ``WebStream`` is the owner of a stream, as a call of gRPC is; to whoever answers it is the reply.
"""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate
from typing import Protocol

from kvstore.network.call import Peer
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import Exchange, Headers, Request
from kvstore.network.http2.connection import ServerConnection
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.stream import Stream
from kvstore.network.web import Web


class Connection(Protocol):
    """What a stream needs of its connection."""

    endpoint: Endpoint
    http2: ServerConnection
    is_paused: bool

    def flush_soon(self) -> None: ...


def request_of(headers: list[tuple[bytes, bytes]], peer: Peer) -> Request:
    """What the headers ask for."""
    found = {name.decode("latin-1"): value.decode("utf-8", "replace") for name, value in headers}
    method, target = found.pop(":method", ""), found.pop(":path", "")
    found.setdefault("host", found.pop(":authority", ""))
    return Request(method, target, found, replace(peer, is_gateway=True))


class WebStream:
    """A request and its answer on one stream."""

    is_stream = True
    """It may go on for ever, and is told when the server stops."""
    is_worked_on = False

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._is_open = True
        self.running: Exchange | None = None

    def open(self, request: Request) -> None:
        exchange = Web(self._connection.endpoint).open(request, self)
        if self._is_open:
            self.running = exchange

    # --- the connection ---------------------------------------------------------------

    def receive(self, payload: bytes, ended: bool) -> None:
        """DATA of the request."""
        if payload and self.running is not None:
            self.running.received(payload)
        if ended and self.running is not None:
            self.running.ended()

    def over(self) -> None:
        """The stream has ended, by whichever side."""
        self._is_open = False
        self._stream.owner = None
        running, self.running = self.running, None
        if running is not None:
            running.closed()

    def fail(self, _error: BaseException) -> None:
        """The server stops."""
        if self.running is not None:
            self.running.stop()

    # --- the answer -------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        return self._connection.is_paused or self._stream.blocked

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, [*headers, ("Content-Length", str(len(body)))])
        self.write(body)
        self.finish()

    def begin(self, status: int, headers: Headers) -> None:
        if self._is_open:
            found = [*headers, ("Date", formatdate(usegmt=True))]
            block = [(name.lower().encode(), value.encode()) for name, value in found]
            self._connection.http2.head(self._stream, encode([(b":status", b"%d" % status), *block]))
            self._connection.flush_soon()

    def write(self, data: bytes) -> None:
        if self._is_open:
            self._connection.http2.write(self._stream, data)
            self._connection.flush_soon()

    def finish(self) -> None:
        if self._is_open:
            self._is_open = False
            self._stream.owner = self.running = None
            self._connection.http2.finish(self._stream)
            self._connection.flush_soon()
