"""Two ends without sockets: frames as bytes and as words, handlers that write down what they are told.

said(out)           frames as words: "RST_STREAM 1 PROTOCOL_ERROR", "DATA 1 5", "HEADERS 1 end"
server(...)         a ServerConnection past its beginning, with a Recorder: `told` lists its calls as words
headers(1, REQUEST) a frame; and so on for every kind
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hpack

from kvstore.network.http2 import frames
from kvstore.network.http2.connection import ClientConnection, ServerConnection
from kvstore.network.http2.fields import Headers
from kvstore.network.http2.frames import PREFACE, frame, read_head, settings
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import LIMITS, Limits
from kvstore.network.http2.stream import Stream

REQUEST: Headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"a")]
RESPONSE: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS: Headers = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
HEAD, END = encode(RESPONSE), encode(TRAILERS)

KINDS = (
    "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()
)
CODES = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
    "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()


# --- frames as bytes ------------------------------------------------------------------------------


def headers(
    stream_id: int, block: Headers | bytes, *, end: bool = False, flags: int = frames.END_HEADERS
) -> bytes:
    data = block if isinstance(block, bytes) else encode(block)
    return frame(frames.HEADERS, flags | (frames.END_STREAM if end else 0), stream_id, data)


def continuation(stream_id: int, piece: bytes, *, last: bool = True) -> bytes:
    return frame(frames.CONTINUATION, frames.END_HEADERS if last else 0, stream_id, piece)


def data(stream_id: int, payload: bytes = b"", *, end: bool = False, flags: int = 0) -> bytes:
    return frame(frames.DATA, flags | (frames.END_STREAM if end else 0), stream_id, payload)


def rst(stream_id: int, code: int = frames.CANCEL) -> bytes:
    return frames.rst_stream(stream_id, code)


def window(stream_id: int, size: int) -> bytes:
    return frames.window_update(stream_id, size)


def ping(payload: bytes = b"12345678", flags: int = 0, stream_id: int = 0) -> bytes:
    return frame(frames.PING, flags, stream_id, payload)


def priority(stream_id: int, on: int = 0) -> bytes:
    return frame(frames.PRIORITY, 0, stream_id, on.to_bytes(4, "big") + b"\x10")


SETTINGS_ACK = frame(frames.SETTINGS, frames.ACK, 0)


# --- frames as words ------------------------------------------------------------------------------


def split(out: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(kind, flags, stream id, payload) of whole frames; a preface in front is passed over."""
    at = len(PREFACE) if out.startswith(PREFACE) else 0
    while at < len(out):
        word, flags, stream_id = read_head(out, at)
        end = at + 9 + (word >> 8)
        assert end <= len(out), "the last frame is not whole"
        yield word & 0xFF, flags, stream_id, out[at + 9 : end]
        at = end


def words(kind: int, flags: int, stream_id: int, payload: bytes) -> str:
    end = " end" if flags & frames.END_STREAM else ""
    number = int.from_bytes(payload[:4], "big")
    match kind:
        case frames.DATA:
            return f"DATA {stream_id} {len(payload)}{end}"
        case frames.RST_STREAM:
            return f"RST_STREAM {stream_id} {CODES[number]}"
        case frames.WINDOW_UPDATE:
            return f"WINDOW_UPDATE {stream_id} {number}"
        case frames.GOAWAY:
            return f"GOAWAY {number} {CODES[int.from_bytes(payload[4:8], 'big')]}"
        case frames.PING | frames.SETTINGS:
            return f"{KINDS[kind]}{' ack' if end else ''}"
    return f"{KINDS[kind]} {stream_id}{end}"


def said(out: bytes) -> list[str]:
    return [words(*each) for each in split(out)]


# --- the two ends -----------------------------------------------------------------------------------


class Recorder:
    """A handler of either end. It writes its calls down, and lets a test do more in them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.streams: dict[int, Stream] = {}
        self.headers_of: dict[int, Headers] = {}
        self.data_of: dict[int, bytes] = {}
        self.on_route: Callable[[Headers], object] = lambda headers: None
        self.on_begin: Callable[[Stream], object] = lambda stream: None
        self.on_data: Callable[[Stream, bytes, bool], object] = lambda stream, payload, ended: None
        self.on_drained: Callable[[Stream], object] = lambda stream: None
        self.on_reset: Callable[[Stream], object] = lambda stream: None

    def route(self, headers: Headers) -> Any:
        self.on_route(headers)
        return headers

    def begin(self, stream: Stream, route: Any, ended: bool) -> None:
        self.streams[stream.id] = stream
        self.headers_of[stream.id] = route
        self.told.append(f"begin {stream.id}{' end' if ended else ''}")
        self.on_begin(stream)
        if ended:
            self.on_data(stream, b"", True)

    def headers(self, stream: Stream, headers: Headers, ended: bool) -> None:
        self.headers_of.setdefault(stream.id, []).extend(headers)
        self.told.append(f"headers {stream.id}{' end' if ended else ''}")

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        self.data_of[stream.id] = self.data_of.get(stream.id, b"") + payload
        self.told.append(f"data {stream.id} {len(payload)}{' end' if ended else ''}")
        self.on_data(stream, payload, ended)

    def reset(self, stream: Stream, code: int) -> None:
        self.told.append(f"reset {stream.id} {CODES[code] if code < len(CODES) else code}")
        self.on_reset(stream)

    def drained(self, stream: Stream) -> None:
        self.told.append(f"drained {stream.id}")
        self.on_drained(stream)

    def closing(self) -> None:
        self.told.append("closing")

    def pong(self, payload: bytes) -> None:
        self.told.append(f"pong {payload.decode()}")


class Time:
    """The time, as the test says."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def server(
    limits: Limits = LIMITS, now: Callable[[], float] | None = None, first: bytes = settings()
) -> tuple[ServerConnection, Recorder]:
    """A server whose client has sent its preface and settings; nothing of that is in `out` any more."""
    recorder = Recorder()
    connection = ServerConnection(recorder, limits, now or Time())
    connection.receive(PREFACE + first)
    connection.out.clear()
    return connection, recorder


def client(
    limits: Limits = LIMITS, now: Callable[[], float] | None = None, first: bytes = settings()
) -> tuple[ClientConnection, Recorder]:
    """A client whose server has sent its settings."""
    recorder = Recorder()
    connection = ClientConnection(recorder, limits, now or Time())
    connection.receive(first)
    connection.out.clear()
    return connection, recorder


def answering(connection: ServerConnection, recorder: Recorder, message: bytes = b"hello") -> None:
    """From now on the server answers each request when it is complete."""

    def answer(stream: Stream, _payload: bytes, ended: bool) -> None:
        if ended:
            connection.answer(stream, HEAD, message, END)

    recorder.on_data = answer


def exchange(one: ClientConnection, other: ServerConnection, rounds: int = 10_000) -> tuple[bytes, bytes]:
    """Carry bytes both ways until nothing moves. All that the client, and all that the server sent."""
    asked, answered = bytearray(), bytearray()
    for _ in range(rounds):
        to_server = one.take()
        other.receive(to_server)
        to_client = other.take()
        one.receive(to_client)
        asked += to_server
        answered += to_client
        if not to_server and not to_client:
            return bytes(asked), bytes(answered)
    raise AssertionError("the two ends never come to rest")


def decoded(block: bytes) -> Headers:
    return [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(block, raw=True)]
