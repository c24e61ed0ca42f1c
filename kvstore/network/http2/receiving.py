"""Frames in, for both ends: one loop, in which the two frames of every call, HEADERS and DATA, are handled inline.

What is given to `receive` is parsed as far as it holds whole frames; the rest of an unfinished one waits. A header
block in several frames is collected, and nothing else may come in between. Windows are given back when half of one
has been used, so a small request costs no WINDOW_UPDATE. While `holding` is true nothing is given back: the owner has
no room, and each peer stops when its windows are used up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from .fields import are_trailers
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_BYTES,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_31_BITS,
    MAX_FRAME_BYTES,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    ConnectionFault,
    frame,
    read_head,
    read_settings,
    read_u31,
    rst_stream,
    window_update,
)
from .hpack import Block, Decoder
from .limits import LIMITS, Bucket, Limits
from .sending import DRAINED, Sender
from .stream import Stream

STREAMS_A_TOKEN = 1_000
"""A SETTINGS frame that changes the windows of so many open streams counts as one more."""
SETTINGS_BYTES_A_TOKEN = 60
"""So does each further ten settings in it."""

Job = Callable[["Receiver", int, int, bytes], None]


class _OpenBlock:
    """A header block whose end has not come."""

    __slots__ = ("ended", "frames", "pieces", "size", "stream_id")

    def __init__(self, stream_id: int, ended: bool, piece: bytes) -> None:
        self.stream_id = stream_id
        self.ended = ended
        self.pieces = [piece]
        self.size = len(piece)
        self.frames = 0


class Receiver(Sender):
    """What both ends of a connection do with what they receive."""

    _jobs: ClassVar[dict[int, Job]]

    def __init__(
        self, handler: Any, limits: Limits = LIMITS, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(handler, limits, now)
        self.holding = False
        """While true, no window is given back; `give_back` ends it."""
        self._buffer = b""
        self._preface = b""
        """What is still to come of it."""
        self.has_begun = False
        """The peer's first SETTINGS have come."""
        self._block: _OpenBlock | None = None
        self._decoder = Decoder(limits)
        self._receive_window = limits.window_bytes
        self._owed_bytes = 0
        self._give_bytes = limits.window_bytes // 2
        self._give_stream_bytes = limits.stream_window_bytes // 2
        self._resets = Bucket(limits.resets_per_second, limits.resets_burst, now)
        self._control = Bucket(limits.control_frames_per_second, limits.control_frames_burst, now)
        self._updates = Bucket(limits.window_updates_per_second, limits.window_updates_burst, now)

    def receive(self, data: bytes) -> None:
        """What came from the peer, in any pieces. Never raises for what is in it."""
        if self.dead:
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        try:
            at = self._take_whole(data, 0) if self.has_begun else 0
            if at < len(data):
                at = self._parse(data, self._skip_preface(data) if self._preface else at)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        if at < len(data) and not self.dead:
            self._buffer = data[at:]

    def give_back(self) -> None:
        """Give back what was held: the end of `holding`."""
        self.holding = False
        self._give()
        for stream in self.streams.values():
            self.give_stream_back(stream)

    def give_stream_back(self, stream: Stream) -> None:
        """Give back what a stream owes, unless it is to wait."""
        if (
            stream.owed_bytes > self._give_stream_bytes
            and stream.remote_open
            and not (self.holding or stream.holding)
        ):
            self._give_stream(stream)

    # --- the loop --------------------------------------------------------------------------------------------

    def _parse(self, data: bytes, at: int) -> int:
        """Handle whole frames; where the first that is not whole begins."""
        size_max, streams, end_of_data = self.limits.frame_bytes, self.streams, len(data)
        while end_of_data - at >= HEAD_BYTES and not self.dead:
            word, flags, stream_id = read_head(data, at)
            size, kind = word >> 8, word & 0xFF
            if size > size_max:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame has more than {size_max} bytes")
            start = at + HEAD_BYTES
            end = start + size
            if end > end_of_data:
                break
            stream_id &= MAX_31_BITS
            if self._block is not None or not self.has_begun:
                self._expect(kind, flags, stream_id)
            if kind == DATA:
                self._receive_window -= size
                if self._receive_window < 0:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
                payload = data[start:end] if not flags & PADDED else _unpadded(data[start:end])
                stream = streams.get(stream_id)
                if stream is not None and stream.remote_open:
                    self._on_data(stream, payload, size, flags & END_STREAM)
                else:
                    self._on_late_data(stream_id, stream)
                self._owed_bytes += size
                if self._owed_bytes > self._give_bytes:
                    self._give()
            elif kind == HEADERS:
                payload = data[start:end]
                if flags & (PADDED | PRIORITIZED):
                    payload = _bare_block(stream_id, flags, payload)
                if flags & END_HEADERS:
                    self._on_block(stream_id, bool(flags & END_STREAM), payload)
                else:
                    self._open_block(stream_id, bool(flags & END_STREAM), payload)
            elif (job := self._jobs.get(kind)) is not None:
                job(self, flags, stream_id, data[start:end])
            else:
                self._spend()
            at = self._take_whole(data, end) if self.has_begun else end
        return at

    def _skip_preface(self, data: bytes) -> int:
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise ConnectionFault(PROTOCOL_ERROR, "the connection does not begin with the preface of HTTP/2")
        self._preface = self._preface[size:]
        return size

    def _expect(self, kind: int, flags: int, stream_id: int) -> None:
        if self._block is not None:
            if kind != CONTINUATION or stream_id != self._block.stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "a header block is interrupted by another frame")
        elif kind != SETTINGS or flags & ACK:
            raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")

    def _take_whole(self, data: bytes, at: int) -> int:
        """Handle messages that have come whole, in the frames of each. Returns where the first begins that has not."""
        raise NotImplementedError

    # --- data ------------------------------------------------------------------------------------------------

    def _on_data(self, stream: Stream, payload: bytes, size: int, ended: int) -> None:
        stream.receive_window -= size
        if stream.receive_window < 0:
            self._stream_error(stream, FLOW_CONTROL_ERROR)
            return
        if stream.remaining_bytes >= 0:
            stream.remaining_bytes -= len(payload)
            if stream.remaining_bytes < 0 or (ended and stream.remaining_bytes):
                self._stream_error(stream, PROTOCOL_ERROR)
                return
        if ended:
            stream.remote_open = False
            self.handler.data(stream, payload, True)
            self._received_end(stream)
            return
        if not payload:
            self._spend()
        stream.owed_bytes += size
        self.handler.data(stream, payload, False)
        if stream.owed_bytes > self._give_stream_bytes:
            self.give_stream_back(stream)

    def _on_late_data(self, stream_id: int, stream: Stream | None) -> None:
        """DATA for a stream that is not open on the peer's side."""
        if stream is not None:
            self._stream_error(stream, STREAM_CLOSED)
        elif self._is_idle(stream_id):
            raise ConnectionFault(PROTOCOL_ERROR, f"DATA for stream {stream_id}, which was never opened")
        elif stream_id not in self._abandoned:
            self._spend()
            self.out.append(rst_stream(stream_id, STREAM_CLOSED))

    def _give(self) -> None:
        if self._owed_bytes and not self.holding:
            self.out.append(window_update(0, self._owed_bytes))
            self._receive_window += self._owed_bytes
            self._owed_bytes = 0

    def _give_stream(self, stream: Stream) -> None:
        self.out.append(window_update(stream.id, stream.owed_bytes))
        stream.receive_window += stream.owed_bytes
        stream.owed_bytes = 0

    # --- header blocks ---------------------------------------------------------------------------------------

    def _open_block(self, stream_id: int, ended: bool, piece: bytes) -> None:
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS for stream 0")
        self._block = _OpenBlock(stream_id, ended, piece)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.pieces.append(payload)
        block.size += len(payload)
        block.frames += 1
        if block.frames > self.limits.header_block_frames or block.size > self.limits.header_block_bytes:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block is too long")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(stream_id, block.ended, b"".join(block.pieces))

    def _on_block(self, stream_id: int, ended: bool, data: bytes) -> None:
        """A whole header block. Every one is decoded, since the table has to follow."""
        raise NotImplementedError

    def _on_trailers(self, stream: Stream, ended: bool, block: Block) -> bool:
        """Whether the headers are good trailers. If not, the stream is over."""
        if ended and are_trailers(block.seen) and stream.remaining_bytes <= 0:
            stream.remote_open = False
            return True
        self._stream_error(stream, PROTOCOL_ERROR)
        return False

    def _is_idle(self, stream_id: int) -> bool:
        """Whether no such stream was ever opened by the end that might."""
        raise NotImplementedError

    def _received_end(self, stream: Stream) -> None:
        """The peer's END_STREAM has come, and the handler knows: who asked is done with the stream then."""
        raise NotImplementedError

    # --- other frames ----------------------------------------------------------------------------------------

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM has not 4 bytes")
        if self._is_idle(stream_id):
            raise ConnectionFault(
                PROTOCOL_ERROR, f"RST_STREAM for stream {stream_id}, which was never opened"
            )
        stream = self.streams.get(stream_id)
        if stream is None:
            self._abandoned.pop(stream_id, None)
            return
        if not stream.answered:
            self._spend_reset()
        self._drop(stream, int.from_bytes(payload, "big"))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS for a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS have a wrong length")
        self._spend(1 + len(payload) // SETTINGS_BYTES_A_TOKEN)
        if flags & ACK:
            return
        self.has_begun = True
        given = {}
        for setting, value in read_settings(payload):
            self._check_setting(setting, value)
            given[setting] = value
        for setting, value in given.items():
            self._apply_setting(setting, value)
        self.out.append(frame(SETTINGS, ACK, 0))

    def _check_setting(self, setting: int, value: int) -> None:
        if setting == INITIAL_WINDOW_SIZE and value > MAX_31_BITS:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        if setting == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value <= MAX_FRAME_BYTES:
            raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
        if setting == ENABLE_PUSH and value > (0 if self.is_client else 1):
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is out of its range")

    def _apply_setting(self, setting: int, value: int) -> None:
        if setting == INITIAL_WINDOW_SIZE:
            self._move_windows(value - self._initial_window)
            self._initial_window = value
        elif setting == MAX_FRAME_SIZE:
            self._frame_bytes = min(value, self.limits.sent_frame_bytes)

    def _move_windows(self, change: int) -> None:
        """Every open stream's window moves with the peer's INITIAL_WINDOW_SIZE; it may become negative."""
        if not change:
            return
        self._spend(len(self.streams) // STREAMS_A_TOKEN)
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > MAX_31_BITS:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "a window is larger than 2^31-1")
            if stream.queue is not None:
                self._no_longer_await(stream)
                self._await_window(stream)
        self._send_waiting()

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "PING for a stream")
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "PING has not 8 bytes")
        if not flags & ACK:
            self.out.append(frame(PING, ACK, 0, payload))
            self._check_ping()
        elif self._is_draining and payload == DRAINED:
            self._is_draining = False
            self.go_away()
        elif pong := getattr(self.handler, "pong", None):
            pong(payload)

    def _check_ping(self) -> None:
        """Whether the peer may ask so often."""
        self._spend()

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "GOAWAY has less than 8 bytes")
        self._spend()
        self._peer_leaves(read_u31(payload))

    def _peer_leaves(self, last_stream_id: int) -> None:
        """The peer takes no stream above this one."""

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE has not 4 bytes")
        more = read_u31(payload)
        if not self.queued_bytes and not self._updates.take():
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        if not stream_id:
            self._open_window(more)
        elif stream := self.streams.get(stream_id):
            self._open_stream_window(stream, more)
        elif not more:
            raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        elif self._is_idle(stream_id):
            raise ConnectionFault(
                PROTOCOL_ERROR, f"WINDOW_UPDATE for stream {stream_id}, which was never opened"
            )

    def _open_window(self, more: int) -> None:
        if not more:
            raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self._send_window += more
        if self._send_window > MAX_31_BITS:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window is larger than 2^31-1")
        self._send_waiting()

    def _open_stream_window(self, stream: Stream, more: int) -> None:
        if not more:
            self._stream_error(stream, PROTOCOL_ERROR)
            return
        stream.send_window += more
        if stream.send_window > MAX_31_BITS:
            self._stream_error(stream, FLOW_CONTROL_ERROR)
        elif stream.queue is not None:
            self._await_window(stream)
            self._send_waiting()

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 5:
            raise ConnectionFault(FRAME_SIZE_ERROR, "PRIORITY has not 5 bytes")
        _check_dependency(stream_id, payload)
        self._spend()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send here")

    # --- errors ----------------------------------------------------------------------------------------------

    def _spend(self, count: int = 1) -> None:
        """Something that costs us and brings nothing."""
        if not self._control.take(count):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _spend_reset(self) -> None:
        if not self._resets.take():
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many streams are reset")

    def _stream_error(self, stream: Stream, code: int) -> None:
        self._spend_reset()
        self.out.append(rst_stream(stream.id, code))
        if stream.remote_open:
            self._abandon(stream.id)
        self._drop(stream, code)

    def _fail(self, fault: ConnectionFault) -> None:
        self.go_away(None, fault.code, fault.reason.encode())


Receiver._jobs = {
    PRIORITY: Receiver._on_priority,
    RST_STREAM: Receiver._on_rst_stream,
    SETTINGS: Receiver._on_settings,
    PUSH_PROMISE: Receiver._on_push_promise,
    PING: Receiver._on_ping,
    GOAWAY: Receiver._on_goaway,
    WINDOW_UPDATE: Receiver._on_window_update,
    CONTINUATION: Receiver._on_continuation,
}


def _unpadded(payload: bytes) -> bytes:
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a padded frame is empty")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "a frame is all padding")
    return payload[1 : len(payload) - padding]


def _bare_block(stream_id: int, flags: int, payload: bytes) -> bytes:
    """What is left of the payload of HEADERS without padding and priority."""
    if flags & PADDED:
        payload = _unpadded(payload)
    if flags & PRIORITIZED:
        if len(payload) < 5:
            raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS are too short for their priority")
        _check_dependency(stream_id, payload)
        payload = payload[5:]
    return payload


def _check_dependency(stream_id: int, payload: bytes) -> None:
    if not stream_id:
        raise ConnectionFault(PROTOCOL_ERROR, "a priority for stream 0")
    if read_u31(payload) == stream_id:
        raise ConnectionFault(PROTOCOL_ERROR, "a stream depends on itself")
