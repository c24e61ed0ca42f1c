"""gRPC on a stream of HTTP/2: what a request's headers say, its messages, and how a call ends.

    request     HEADERS  :path /service/method   content-type application/grpc[+...]   [grpc-timeout] [metadata]
                DATA     [ compressed? 1 byte ][ length 4 bytes, big-endian ][ message ] ...   END_STREAM
    answer      HEADERS  :status 200, content-type as asked
                DATA     messages likewise, never compressed
                HEADERS  grpc-status, grpc-message (percent-encoded)   END_STREAM
    an error before the first message is one HEADERS frame with all of it

Bytes and numbers only: no socket, no store.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kvstore.errors import Code
from kvstore.implementation import native
from kvstore.network.call import Failed
from kvstore.network.http2.hpack import encode

PREFIX_BYTES = 5
CONTENT_TYPE = b"application/grpc"
GZIP = b"gzip"
ENCODINGS = (b"identity", b"", GZIP)
"""Of messages, that are taken."""

Headers = list[tuple[bytes, bytes]]

OK = encode([(b"grpc-status", b"0"), (b"grpc-message", b"")])
"""Trailers of a call that ended well."""


@lru_cache(64)
def head(content_type: bytes) -> bytes:
    """The headers of an answer."""
    return encode([(b":status", b"200"), (b"content-type", content_type)])


def trailers(code: int, text: str) -> bytes:
    """The trailers of a call that failed."""
    return encode([(b"grpc-status", b"%d" % code), (b"grpc-message", percent_encoded(text))])


def percent_encoded(text: str) -> bytes:
    """Printable ASCII as it is, other bytes of UTF-8 as ``%XX``."""
    return b"".join(
        [
            b"%c" % byte if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte
            for byte in text.encode(errors="replace")
        ]
    )


prefix: Callable[[int], bytes] = struct.Struct(">xI").pack
"""What goes before a message of so many bytes."""


@native
def framed(message: bytes) -> bytes:
    """A message as it goes into DATA."""
    return prefix(len(message)) + message


def all_framed(messages: Sequence[bytes]) -> bytes:
    """Messages that go into DATA together."""
    pieces: list[bytes] = []
    for message in messages:
        pieces += (prefix(len(message)), message)
    return b"".join(pieces)


@native
def lone_message(payload: bytes, limit_bytes: int) -> bytes | None:
    """The message in DATA that is one plain message, not too large, and nothing else."""
    size_bytes = len(payload) - PREFIX_BYTES
    if 0 <= size_bytes <= limit_bytes and payload[:PREFIX_BYTES] == prefix(size_bytes):
        return payload[PREFIX_BYTES:]
    return None


# --- a request's headers ---------------------------------------------------------------------------

_UNITS = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_TIMEOUT_DIGITS = 8


def timeout_seconds(value: bytes) -> float:
    """What ``grpc-timeout`` says. Raises ``ValueError`` where it says nothing."""
    digits, unit = value[:-1], value[-1:]
    if not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS or unit not in _UNITS:
        raise ValueError(f"malformed grpc-timeout: {value!r:.40}")
    return int(digits) * _UNITS[unit]


def is_grpc(content_type: bytes) -> bool:
    return content_type.startswith(CONTENT_TYPE) and content_type[len(CONTENT_TYPE) :][:1] in (
        b"",
        b"+",
        b";",
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What the headers of a request ask for."""

    http_method: bytes
    path: str
    content_type: bytes
    timeout_seconds: float | None
    encoding: bytes
    metadata: Mapping[str, str]
    malformed_timeout: str = ""


_RESERVED = (
    b"content-type",
    b"te",
    b"user-agent",
    b"grpc-timeout",
    b"grpc-encoding",
    b"grpc-accept-encoding",
)


def asked(headers: Headers) -> Asked:
    """The headers of a request, taken apart. Whether what they ask for exists is not looked at."""
    found = dict(headers)
    seconds, malformed = None, ""
    if b"grpc-timeout" in found:
        try:
            seconds = timeout_seconds(found[b"grpc-timeout"])
        except ValueError as error:
            malformed = str(error)
    metadata = {
        name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
        for name, value in headers
        if name[:1] != b":" and name not in _RESERVED
    }
    return Asked(
        found.get(b":method", b""),
        found.get(b":path", b"").decode("latin-1"),
        found.get(b"content-type", b""),
        seconds,
        found.get(b"grpc-encoding", b"identity"),
        metadata,
        malformed,
    )


# --- a request's messages --------------------------------------------------------------------------


class Inbox:
    """The messages in the DATA of one stream."""

    __slots__ = ("_encoding", "_limit_bytes", "_pieces", "_wanted_bytes", "buffered_bytes")

    def __init__(self, encoding: bytes, limit_bytes: int) -> None:
        self._pieces: list[bytes] = []
        """Of a message that is not complete; put together once it is."""
        self.buffered_bytes = 0
        self._wanted_bytes = 0
        """How many they have to be before it makes sense to look at them."""
        self._encoding = encoding
        self._limit_bytes = limit_bytes

    def receive(self, payload: bytes) -> list[bytes]:
        """The messages that are complete now. Raises ``Failed`` for one that is not to be had."""
        data = payload
        if self._pieces:
            self._pieces.append(payload)
            self.buffered_bytes += len(payload)
            if self.buffered_bytes < self._wanted_bytes:
                return []
            data = b"".join(self._pieces)
        at, messages = 0, []
        self._wanted_bytes = PREFIX_BYTES
        while len(data) - at >= PREFIX_BYTES:
            size_bytes = int.from_bytes(data[at + 1 : at + PREFIX_BYTES], "big")
            if size_bytes > self._limit_bytes:
                raise Failed(
                    Code.RESOURCE_EXHAUSTED,
                    f"grpc: received message larger than max ({size_bytes} vs. {self._limit_bytes})",
                )
            end = at + PREFIX_BYTES + size_bytes
            if end > len(data):
                self._wanted_bytes = end - at
                break
            message = data[at + PREFIX_BYTES : end]
            messages.append(self._inflated(message) if data[at] else message)
            at = end
        rest = data[at:]
        self._pieces, self.buffered_bytes = [rest] if rest else [], len(rest)
        return messages

    @property
    def is_within(self) -> bool:
        """Whether a message has begun and not ended."""
        return self.buffered_bytes > 0

    def _inflated(self, message: bytes) -> bytes:
        if self._encoding != GZIP:
            raise Failed(Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        inflater = zlib.decompressobj(wbits=31)
        try:
            inflated = inflater.decompress(message, self._limit_bytes + 1)
        except zlib.error as error:
            raise Failed(Code.INTERNAL, f"grpc: failed to decompress the received message: {error}") from None
        if len(inflated) > self._limit_bytes or inflater.unconsumed_tail:
            raise Failed(
                Code.RESOURCE_EXHAUSTED,
                f"grpc: received message after decompression larger than max ({self._limit_bytes})",
            )
        return inflated
