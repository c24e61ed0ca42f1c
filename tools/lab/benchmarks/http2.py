"""As much of HTTP/2 and gRPC as a load generator needs, and no more.

A frame:    length (3 bytes) ‖ type (1) ‖ flags (1) ‖ stream (4) ‖ payload        big-endian
A call:     HEADERS, then DATA with END_STREAM: 0 ‖ message length (4) ‖ message
An answer:  HEADERS, DATA (the same form), HEADERS with END_STREAM (the trailers); after a failure the trailers only

Incoming headers are not decoded: an answer without a message is a failure. Outgoing headers are literals of the
static table. Calls are prepared before the clock runs: all bytes of one are the same each time but for the number of
its stream. Our receive window is opened as wide as possible; the peer's is tracked. So one call costs about ten
microseconds here, an order of magnitude less than the common gRPC library for Python, and it is the server, not the
generator, that is measured.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 1
END_HEADERS = 4
FRAME_BYTES_MAX = 16_384
WINDOW_BYTES = 65_535
_WIDEST = (1 << 31) - 1
_REFILL_BYTES = 1 << 30
_INITIAL_WINDOW_SIZE = 4  # the name of a setting
_HEAD = struct.Struct(">IBI")


class Broken(Exception):
    """The server ended a stream or the connection."""


class Call(NamedTuple):
    """The frames of a call, without the number of its stream, which goes between ``pieces``."""

    pieces: tuple[bytes, ...]
    window_bytes: int
    """What it takes of the peer's window."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def grpc_message(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def header_block(path: str) -> bytes:
    """HPACK: two entries of the static table, and four literals whose names are in it."""

    def literal(name: bytes, value: bytes) -> bytes:
        return name + bytes((len(value),)) + value

    return (
        b"\x83\x86"  # :method POST, :scheme http
        + literal(b"\x04", path.encode())
        + literal(b"\x01", b"localhost")  # :authority
        + literal(b"\x0f\x10", b"application/grpc")  # content-type
        + literal(b"\x00\x02te", b"trailers")
    )


def prepared(headers: bytes, message: bytes, *, last: bool = True) -> Call:
    """A call. ``last``: there is no further message on the stream."""
    opening = frame(HEADERS, END_HEADERS, 0, headers)
    rest = more(message, last=last)
    return Call((opening[:5], opening[9:] + rest.pieces[0], *rest.pieces[1:]), rest.window_bytes)


def more(message: bytes, *, last: bool = False) -> Call:
    """One more message on the stream of a call."""
    data = grpc_message(message)
    if len(data) > WINDOW_BYTES:
        raise ValueError("a message larger than a stream's first window")
    pieces = [b""]
    for start in range(0, len(data), FRAME_BYTES_MAX):
        ends = last and start + FRAME_BYTES_MAX >= len(data)
        whole = frame(DATA, END_STREAM if ends else 0, 0, data[start : start + FRAME_BYTES_MAX])
        pieces[-1] += whole[:5]
        pieces.append(whole[9:])
    return Call(tuple(pieces), len(data))


class Connection:
    """One connection to a gRPC server. Calls are queued, and go out with ``flush``."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WIDEST)
        self._out = bytearray(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDEST - WINDOW_BYTES))
        self._in = b""
        self._received_bytes = 0
        self._window = WINDOW_BYTES
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._next_stream = 1

    def call(self, call: Call) -> int:
        """Queue a call. Returns its stream."""
        stream = self._next_stream
        self._next_stream += 2
        self.go_on(stream, call)
        return stream

    def go_on(self, stream: int, call: Call) -> None:
        """Queue one more message on a stream, where the last has been answered: so there is window for it."""
        self._waiting.append((stream.to_bytes(4, "big").join(call.pieces), call.window_bytes))

    def flush(self) -> None:
        """Send what the peer's window has room for; the rest goes when there is room again."""
        while self._waiting and self._waiting[0][1] <= self._window:
            frames, size_bytes = self._waiting.popleft()
            self._window -= size_bytes
            self._out += frames
        if self._out:
            self.socket.sendall(self._out)
            self._out.clear()

    def receive(self) -> Iterator[tuple[int, bytes, bool]]:
        """Wait for bytes; yields what they say about calls: stream, some bytes of a message, whether it ends."""
        received = self.socket.recv(1 << 18)
        if not received:
            raise Broken("the server closed the connection")
        self._received_bytes += len(received)
        if self._received_bytes > _REFILL_BYTES:
            self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _REFILL_BYTES))
            self._received_bytes -= _REFILL_BYTES
        data = self._in + received if self._in else received
        at, size_bytes = 0, len(data)
        while at + 9 <= size_bytes:
            word, flags, stream = _HEAD.unpack_from(data, at)
            end = at + 9 + (word >> 8)
            if end > size_bytes:
                break
            kind = word & 0xFF
            if kind == DATA:
                yield stream, data[at + 9 : end], bool(flags & END_STREAM)
            elif kind == HEADERS:
                if flags & END_STREAM:
                    yield stream, b"", True
            else:
                self._control(kind, flags, stream, data[at + 9 : end])
            at = end
        self._in = data[at:]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            if not stream:
                self._window += struct.unpack(">I", payload)[0]
        elif kind in (PING, SETTINGS):
            if not flags & ACK:
                self._out += frame(kind, ACK, 0, payload if kind == PING else b"")
        elif kind in (RST_STREAM, GOAWAY):
            raise Broken(f"the server gave up: frame {kind}, {payload[:80]!r}")

    def close(self) -> None:
        self.socket.close()
