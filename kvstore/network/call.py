"""A call: one request of a client, and the way back to it.

Services are written against this alone, so the same ones answer gRPC (grpc_peer.py) and JSON.

    kind             request      answers                ended by
    UNARY            one          ``answer``, once       its answer
                                  or ``begin_answer``,   ``end``, or the client
                                  ``write`` its pieces
    SERVER_STREAM    one          ``send``, any number   ``end``, or the client
    BIDI             any number   ``send``, any number   ``end``, or the client

``serve(endpoint, call, message)`` begins a call; of a BIDI call ``message`` is empty, and its requests arrive at what
``serve`` returns. A service that outlives its ``serve`` returns a ``Running``, and is told there when the client has
gone. Whatever is raised fails the call (``etcdpb.status`` says with which code).

All of this happens on the endpoint's loop, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from kvstore.errors import Code, KVStoreError


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection."""

    address: str = ""
    is_tls: bool = False
    common_name: str = ""
    """The user that its certificate names; empty: none."""
    is_gateway: bool = False
    """Whether it speaks JSON. A certificate names no user there."""


class Asking(Protocol):
    """Whose request it is."""

    peer: Peer

    @property
    def metadata(self) -> Mapping[str, str]:
        """What came beside the request, by names in lower case: ``token``, ``hasleader`` ..."""


class Call(Asking, Protocol):
    """What a service sees of a request."""

    alive: bool
    """False once the last answer was given, or the client has gone. Answers after that are dropped."""

    @property
    def is_blocked(self) -> bool:
        """Whether what was sent still waits for the client to take it; ``Running.drained`` follows."""

    @property
    def has_room(self) -> bool:
        """Whether the client has taken enough of its answers to be given a large one."""
        return True

    def answer(self, message: bytes) -> None:
        """The answer to a unary call, which ends it."""

    def begin_answer(self, size_bytes: int, kept_bytes: int) -> None:
        """The answer to a unary call comes in pieces: so much of it, of which so much is in memory until the end."""

    def write(self, piece: bytes) -> None:
        """A piece of it. ``end`` follows the last one; ``is_blocked`` says when to wait with the next."""

    def done(self) -> None:
        """Nothing is worked on any more for a call that is not ``alive``."""
        return

    def send(self, message: bytes) -> None:
        """One of many answers."""

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Some of many answers, in order."""
        for message in messages:
            self.send(message)

    def begin(self) -> None:
        """Let the client know that the call was accepted, before there is an answer."""

    def end(self) -> None:
        """There are no more answers; all is well."""

    def fail(self, error: BaseException) -> None:
        """End the call with an error instead."""


class Running:
    """The service's side of a call that goes on. Every method may be left as it is."""

    def received(self, message: bytes) -> None:
        """The next request of a BIDI call."""

    def half_closed(self) -> None:
        """The client will send no more requests."""

    def drained(self) -> None:
        """The client has taken what was sent."""

    def closed(self) -> None:
        """The call is over, by whichever side. Called once."""


class Kind(Enum):
    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    BIDI = "bidi_stream"


Serve = Callable[[Any, Call, bytes], Running | None]
"""Begins a call: gets the endpoint, the call, and the bytes of its request."""


AtOnce = Callable[[Any, bytes], bytes | None]
"""Gets the endpoint and a request; the answer, if nothing is needed for it but a look. Changes nothing, and what it
raises does not count: ``serve`` is asked then."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service."""

    service: str
    name: str
    kind: Kind
    serve: Serve
    request: Any
    """Classes of its messages."""
    response: Any
    at_once: AtOnce | None = None
    """Asked first, where the request has come whole."""

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


class Failed(KVStoreError):
    """A call ends with a code and a text of its own."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def decoded(message_class: Any, message: bytes) -> Any:
    """A request's message. Raises ``Failed`` as a server of etcd's does where it is none."""
    try:
        return message_class.FromString(message)
    except DecodeError as error:
        raise malformed(error) from None


def malformed(error: DecodeError) -> Failed:
    """What a call fails with whose message is none."""
    return Failed(Code.INTERNAL, f"grpc: error unmarshalling request: {error}")


def methods(service: str, package: Any, kind: Kind = Kind.UNARY, **serves: Serve) -> list[Method]:
    """Methods of a service, by name, whose messages are ``<name>Request`` and ``<name>Response`` of a package."""
    return [
        Method(
            service,
            name,
            kind,
            serve,
            getattr(package, f"{name}Request"),
            getattr(package, f"{name}Response"),
        )
        for name, serve in serves.items()
    ]
