"""A client of gRPC for tests, over the project's own HTTP/2: one connection, on a blocking socket.

Calls are begun one by one; what arrives is read until what is wanted is there.
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from kvstore.network.grpc import framed
from kvstore.network.http2.connection import ClientConnection
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import LIMITS, Limits
from kvstore.network.http2.stream import Stream

TIMEOUT_SECONDS = 60.0


class Refused(Exception):
    """A call ended with another status than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass
class Answer:
    """What has come of one call."""

    stream: Stream | None = None
    messages: deque[bytes] = field(default_factory=deque)
    status: int | None = None
    text: str = ""
    data: bytearray = field(default_factory=bytearray)

    def receive(self, payload: bytes) -> None:
        self.data += payload
        while len(self.data) >= 5:
            end = 5 + int.from_bytes(self.data[1:5], "big")
            if len(self.data) < end:
                return
            self.messages.append(bytes(self.data[5:end]))
            del self.data[:end]


class Wire:
    """A connection to ``host:port``."""

    def __init__(self, host: str, port: int, limits: Limits = LIMITS) -> None:
        self._socket = socket.create_connection((host, port), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.http2 = ClientConnection(self, limits)
        self.is_over = False

    # --- calls ------------------------------------------------------------------------

    def call(self, path: str, message: bytes, **metadata: str) -> bytes:
        """The answer to a unary call. Raises ``Refused``."""
        answer = self.begin(path, message, ended=True, **metadata)
        self.read(lambda: answer.status is not None)
        if answer.status:
            raise Refused(answer.status, answer.text)
        return answer.messages[0]

    def begin(self, path: str, message: bytes | None, *, ended: bool, **metadata: str) -> Answer:
        """Begin a call with its first message (None: without one)."""
        block = encode(
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", b"test"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                *[(name.replace("_", "-").encode(), value.encode()) for name, value in metadata.items()],
            ]
        )
        answer = Answer()
        answer.stream = self.http2.request(block, False)
        answer.stream.owner = answer
        if message is not None:
            self.http2.write(answer.stream, framed(message))
        if ended:
            self.http2.finish(answer.stream)
        self.flush()
        return answer

    def send(self, answer: Answer, message: bytes) -> None:
        """One more request of a call."""
        assert answer.stream is not None
        self.http2.write(answer.stream, framed(message))
        self.flush()

    def half_close(self, answer: Answer) -> None:
        assert answer.stream is not None
        self.http2.finish(answer.stream)
        self.flush()

    def next(self, answer: Answer) -> bytes:
        """The next message of a call. Raises ``Refused`` where it has ended instead."""
        self.read(lambda: bool(answer.messages) or answer.status is not None)
        if answer.messages:
            return answer.messages.popleft()
        raise Refused(answer.status or 0, answer.text)

    def read(self, until: Any) -> None:
        """Read until ``until()``, or the connection is over."""
        while not until() and not self.is_over:
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                self.is_over = True
                self.http2.lost()
                return
            self.http2.receive(data)
            self.flush()

    def flush(self) -> None:
        data = self.http2.take()
        try:
            self._socket.sendall(data)
        except ConnectionError:
            pass  # the next read finds the end, after what came before it

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the connection ---------------------------------------------------------------

    def headers(self, stream: Stream, headers: list[tuple[bytes, bytes]], ended: bool) -> None:
        found = dict(headers)
        answer = stream.owner
        if ended:
            answer.status = int(found.get(b"grpc-status", b"2"))
            answer.text = unquote_to_bytes(found.get(b"grpc-message", b"")).decode()

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        stream.owner.receive(payload)

    def reset(self, stream: Stream, code: int) -> None:
        stream.owner.status = 14
        stream.owner.text = f"reset with {code}"

    def drained(self, stream: Stream) -> None: ...

    def closing(self) -> None: ...
