"""A request of HTTP and the way back, without the HTTP: what stands between a connection and those who answer.

A ``Reply`` is the way back, of whoever read the request; an ``Exchange`` is what is made of it, and is told what else
happens: pieces of the body, its end, room for more to send, the end of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, unquote

from kvstore.network.call import Peer

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """The first part of a request, as it came."""

    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """By names in lower case. What HTTP/2 calls ``:authority`` is ``host``."""
    peer: Peer

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)


class Reply(Protocol):
    """The way back to whoever sent a request: one ``answer``, or ``begin``, any number of ``write``, ``finish``.

    Calls after the end, or after the client has gone, are dropped.
    """

    @property
    def is_blocked(self) -> bool:
        """Whether what was written still waits for the client to take it; ``Exchange.drained`` follows."""

    def answer(self, status: int, headers: Headers, body: bytes) -> None: ...
    def begin(self, status: int, headers: Headers) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...


Switch = Callable[[Headers], Reply]
"""Goes on with WebSocket, answering with these header fields, and gives the way back there."""


class Exchange:
    """A request under way. Every method may be left as it is."""

    waits_for_body: bool = False
    """Whether nothing can happen before more of the body is here."""

    def received(self, data: bytes) -> None:
        """A piece of the body."""

    def ended(self) -> None:
        """The body is complete."""

    def message(self, data: bytes) -> None:
        """A message of a WebSocket, which is the whole body of a request, or a part of a body that goes on."""
        self.received(data)
        self.ended()

    def drained(self) -> None:
        """The client has taken what was written."""

    def closed(self) -> None:
        """The connection, or the stream, has gone. Not called after the reply's end."""

    def stop(self) -> None:
        """The server stops: what would go on for ever ends."""


class Page(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def text(status: int, body: str, *headers: tuple[str, str]) -> Page:
    """A page of plain text, as servers in Go write their errors."""
    kind = ("Content-Type", "text/plain; charset=utf-8")
    return Page(status, [*headers, kind, ("X-Content-Type-Options", "nosniff")], body.encode())


METHOD_NOT_ALLOWED = "Method Not Allowed\n"
