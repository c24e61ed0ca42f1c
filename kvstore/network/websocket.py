"""WebSocket (RFC 6455, through wsproto) on a connection of HTTP/1.1: calls over JSON that a page can hold open.

    GET /v3/watch, Upgrade: websocket  -->  101
    {"create_request": {...}}          -->  {"result": {...}}   {"result": {...}}  ...     a message each
                                            close, when the call is over

What is a line of a body elsewhere is a message here. A page can set no header fields: its token comes as a
subprotocol, ``Bearer, <token>``, and that of the request itself is all that is looked at; no cookie is, which any other
page's request would bring along too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Protocol

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from kvstore.network.exchange import METHOD_NOT_ALLOWED, Headers, Page, Request, text

_VERSION = ("Sec-Websocket-Version", "13")
_BEARER = "Bearer"


# --- the handshake ---------------------------------------------------------------------------------


def refusal(request: Request, origins: Collection[str]) -> Page | None:
    """Of a request that asks for WebSocket, but not as it should, or for a page that may not."""
    origin = request.headers.get("origin")
    if request.method != "GET":
        return text(405, METHOD_NOT_ALLOWED, _VERSION)
    if request.headers.get("sec-websocket-version") != "13" or "sec-websocket-key" not in request.headers:
        return text(400, "Bad Request\n", _VERSION)
    if origin is not None and origins and "*" not in origins and origin not in origins:
        return text(403, "Forbidden\n", _VERSION)
    return None


def accepting(request: Request) -> Headers:
    """The header fields that go on with WebSocket."""
    token = generate_accept_token(request.headers["sec-websocket-key"].encode())
    found = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", token.decode())]
    if request.headers.get("sec-websocket-protocol", "").startswith(_BEARER):
        found.append(("Sec-WebSocket-Protocol", _BEARER))
    return found


def as_call(request: Request) -> Request:
    """The call that it is about to make."""
    _before, bearer, token = request.headers.get("sec-websocket-protocol", "").partition(f"{_BEARER},")
    return replace(request, method="POST", headers={"authorization": token.strip()} if bearer else {})


# --- messages --------------------------------------------------------------------------------------


class Below(Protocol):
    """The connection that it is spoken on."""

    @property
    def is_paused(self) -> bool: ...
    @property
    def is_draining(self) -> bool: ...

    def write(self, data: bytes) -> None: ...
    def finished(self) -> None:
        """The last answer was sent."""


class WebSocket:
    """One end of a connection, and the way back to whoever makes a call by it (``exchange.Reply``)."""

    def __init__(self, below: Below, limit_bytes: int) -> None:
        self._below = below
        self._protocol = Connection(ConnectionType.SERVER)
        self._limit_bytes = limit_bytes
        self._message = bytearray()
        self.is_in_message = False
        """Whether a message has begun that has not ended."""
        self.is_finished = False
        """Whether we have said that there is no more. The client then says so, too."""
        self.is_over = False
        """Whether the client has said so, or nothing that it says can be understood any more."""

    # --- from the client --------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete by now."""
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, TextMessage | BytesMessage):
                self._message += event.data.encode() if isinstance(event, TextMessage) else event.data
                self.is_in_message = not event.message_finished
                if len(self._message) > self._limit_bytes:
                    self._end(
                        CloseReason.MESSAGE_TOO_BIG, f"a message is longer than {self._limit_bytes} bytes"
                    )
                    return
                if event.message_finished:
                    message, self._message = self._message, bytearray()
                    yield bytes(message)
            elif isinstance(event, Ping):
                if not self.is_finished:
                    self._below.write(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):  # by the client, or what it has broken
                self._end(event.code, event.reason)
                return

    def _end(self, code: int, reason: str | None) -> None:
        self.is_over = True
        self._close(code, reason)

    # --- to the client ----------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        return self._below.is_paused

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.write(body)
        self.finish()

    def begin(self, status: int, headers: Headers) -> None:
        """There is no status here."""

    def write(self, data: bytes) -> None:
        """Each line is a message."""
        if not self.is_finished:
            for line in data.splitlines():
                self._below.write(self._protocol.send(TextMessage(data=line.decode())))

    def finish(self) -> None:
        if not self.is_finished:
            self._close(CloseReason.GOING_AWAY if self._below.is_draining else CloseReason.NORMAL_CLOSURE)
            self._below.finished()

    def _close(self, code: int, reason: str | None = None) -> None:
        if not self.is_finished:
            self.is_finished = True
            self._below.write(self._protocol.send(CloseConnection(code=code, reason=reason)))
