"""The frames of RFC 9113: nine bytes, and a payload.

    length 3 │ kind 1 │ flags 1 │ stream id 4 (its first bit reserved) │ payload

The first four bytes are read and written as one number: length << 8 | kind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from kvstore.implementation import native

from .limits import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""

HEAD_BYTES = 9
MAX_31_BITS = 0x7FFF_FFFF
"""Largest stream id, and largest window."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)
INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = range(12, 14)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)
MAX_HEADER_LIST_SIZE = 6

DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
MAX_FRAME_BYTES = (1 << 24) - 1

_HEAD = struct.Struct(">IBI")
_U32 = struct.Struct(">I")
_SETTING = struct.Struct(">HI")

pack_head = _HEAD.pack
"""(length << 8 | kind, flags, stream id) -> nine bytes."""
read_head = _HEAD.unpack_from
"""The reverse: (data, offset) -> those three."""


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection. It never leaves the connection's `receive`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return pack_head(len(payload) << 8 | kind, flags, stream_id) + payload


def u32(number: int) -> bytes:
    return _U32.pack(number)


def read_u31(data: bytes, at: int = 0) -> int:
    """Four bytes without their first bit, which is reserved, or says that a dependency is exclusive."""
    number: int = _U32.unpack_from(data, at)[0]
    return number & MAX_31_BITS


def rst_stream(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _U32.pack(code))


def window_update(stream_id: int, size_bytes: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _U32.pack(size_bytes))


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, _U32.pack(last_stream_id) + _U32.pack(code) + debug)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in pairs))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    return _SETTING.iter_unpack(payload)


def header_frames(stream_id: int, block: bytes, flags: int, frame_bytes: int) -> list[bytes]:
    """HEADERS, and CONTINUATION where the peer's frames are too small for the block. END_HEADERS is seen to."""
    if len(block) <= frame_bytes:
        return [pack_head(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id), block]
    pieces = [block[at : at + frame_bytes] for at in range(0, len(block), frame_bytes)]
    return [
        frame(HEADERS, flags, stream_id, pieces[0]),
        *(frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]),
        frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1]),
    ]


_REQUEST = (HEADERS, END_HEADERS), (DATA, END_STREAM)
_ANSWER = (HEADERS, END_HEADERS), (DATA, 0), (HEADERS, END_HEADERS | END_STREAM)


@native
def whole_request(data: bytes, at: int, size_max: int) -> tuple[int, bytes, bytes, int] | None:
    """A request that has come whole, in HEADERS and DATA of one piece each: its stream, its header block, its data,
    and where it ends. None if what is at ``at`` is anything else."""
    found: tuple[int, bytes, bytes, int] | None = _whole(_REQUEST, data, at, size_max)
    return found


@native
def whole_answer(data: bytes, at: int, size_max: int) -> tuple[int, bytes, bytes, bytes, int] | None:
    """An answer that has come whole, in HEADERS, DATA and HEADERS of one piece each: its stream, its header block, its
    data, its trailers, and where it ends. None if what is at ``at`` is anything else."""
    found: tuple[int, bytes, bytes, bytes, int] | None = _whole(_ANSWER, data, at, size_max)
    return found


def _whole(usual: tuple[tuple[int, int], ...], data: bytes, at: int, size_max: int) -> Any:
    """Frames of one stream, of these kinds and with these flags: its id, their payloads, and where they end."""
    payloads, stream_id, end = [], 0, at
    for kind_and_flags in usual:
        start = end + HEAD_BYTES
        if len(data) < start:
            return None
        word, flags, frame_id = read_head(data, end)
        stream_id = stream_id or frame_id
        end = start + (word >> 8)
        if (word & 0xFF, flags) != kind_and_flags or not 0 < frame_id == stream_id <= MAX_31_BITS:
            return None
        if end > len(data) or word >> 8 > size_max:
            return None
        payloads.append(data[start:end])
    return stream_id, *payloads, end


@native
def request_frames(stream_id: int, block: bytes, data: bytes) -> bytes:
    """A request whose parts fit a frame each: HEADERS, and DATA that ends the stream."""
    return b"".join(
        (
            pack_head(len(block) << 8 | HEADERS, END_HEADERS, stream_id),
            block,
            pack_head(len(data) << 8 | DATA, END_STREAM, stream_id),
            data,
        )
    )


@native
def answer_frames(stream_id: int, head: bytes, message: bytes, trailers: bytes) -> bytes:
    """An answer whose parts fit a frame each: HEADERS, DATA, and HEADERS that end the stream."""
    return b"".join(
        (
            pack_head(len(head) << 8 | HEADERS, END_HEADERS, stream_id),
            head,
            pack_head(len(message) << 8 | DATA, 0, stream_id),
            message,
            pack_head(len(trailers) << 8 | HEADERS, END_HEADERS | END_STREAM, stream_id),
            trailers,
        )
    )


def preamble(limits: Limits, is_client: bool) -> list[bytes]:
    """The first frames of either end: its settings, and the rest of the connection's window."""
    ours = [
        (INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
        (MAX_FRAME_SIZE, limits.frame_bytes),
        (MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
        (HEADER_TABLE_SIZE, limits.header_table_bytes),
        (ENABLE_PUSH, 0) if is_client else (MAX_CONCURRENT_STREAMS, limits.concurrent_streams),
    ]
    first = [PREFACE] if is_client else []
    more = limits.window_bytes - DEFAULT_WINDOW_BYTES
    return [*first, settings(*ours), *([window_update(0, more)] if more > 0 else [])]
