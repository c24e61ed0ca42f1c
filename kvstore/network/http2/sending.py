"""Frames out, for both ends: header blocks, and data as far as the windows are open.

Data goes into `out` at once as far as the connection's window and the stream's are open; the rest waits in the stream's
queue. A stream whose own window is open waits for the connection's, in `_waiting`: while there is one, the connection's
window is closed. When it opens, the streams there send in turns. Those whose owner says that they yield wait in
`_yielding` instead: all of them together get one turn for each of the others. A stream whose own window is closed is
not looked at until that opens.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from .frames import (
    CANCEL,
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    END_STREAM,
    MAX_31_BITS,
    NO_ERROR,
    PING,
    frame,
    goaway,
    header_frames,
    pack_head,
    preamble,
    rst_stream,
)
from .limits import LIMITS, Limits
from .stream import Stream

DRAINED = b"drained?"
"""The PING of `drain`."""


class Sender:
    """What both ends of a connection send."""

    is_client = False

    def __init__(
        self, handler: Any, limits: Limits = LIMITS, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.now = now
        self.out: list[bytes] = preamble(limits, self.is_client)
        """Frames to write. The owner joins, writes and clears."""
        self.dead = False
        """The connection has failed: write what is in `out`, then close."""
        self.streams: dict[int, Stream] = {}
        """The open ones, by id."""
        self.queued_bytes = 0
        """Data of all streams that waits for windows."""
        self._send_window = DEFAULT_WINDOW_BYTES
        self._initial_window = DEFAULT_WINDOW_BYTES
        """What the peer gives a new stream."""
        self._frame_bytes = DEFAULT_FRAME_BYTES
        """The largest payload that we send."""
        self._has_sent = False
        """HEADERS or DATA, since the peer's last PING."""
        self._is_draining = False
        """The GOAWAY before it was, and the PING after that is not answered yet."""
        self._leaving = False
        """The last GOAWAY was sent: no new streams."""
        self._is_closing = False
        """The owner was asked to close."""
        self._last = 0
        """The peer's latest stream."""
        self._waiting: OrderedDict[int, Stream] = OrderedDict()
        self._yielding: OrderedDict[int, Stream] = OrderedDict()
        self._yielded = False
        """The last turn was that of a stream in `_waiting`."""
        self._abandoned: OrderedDict[int, None] = OrderedDict()
        """Ids of streams that we ended before the peer did. What it had sent by then is dropped."""

    # --- what the owner calls -----------------------------------------------------------------------------

    def write(self, stream: Stream, data: bytes, end: bool = False) -> None:
        """DATA. What does not fit the windows waits: if `stream.blocked` is true then, `drained` follows.

        With `end` it is also the end of our side, and nothing follows.
        """
        size = len(data)
        if not stream.local_open or not size:
            pass
        elif stream.queue is not None:
            self._queue(stream, memoryview(data))
        elif size <= self._send_window and size <= stream.send_window and size <= self._frame_bytes:
            self._send_window -= size
            stream.send_window -= size
            self._has_sent = True
            if end:
                self.out += (pack_head(size << 8 | DATA, END_STREAM, stream.id), data)
                self._sent_end(stream)
                return
            self.out += (pack_head(size << 8 | DATA, 0, stream.id), data)
        elif rest := self._send(stream, memoryview(data), size):
            self._queue(stream, rest)
        if end:
            self.finish(stream)

    def close(self, stream: Stream, trailers: bytes) -> None:
        """HEADERS that end our side of the stream, after what is queued. They may be its first."""
        self._end(stream, trailers)

    def finish(self, stream: Stream) -> None:
        """The end of our side of the stream, after what is queued, without trailers."""
        self._end(stream, b"")

    def reset(self, stream: Stream, code: int) -> None:
        """RST_STREAM. What is queued is dropped. The handler is not told, since it asked."""
        if stream.open:
            self.out.append(rst_stream(stream.id, code))
            if stream.remote_open:
                self._abandon(stream.id)
            self._over(stream)
            self._close_when_empty()

    def ping(self, payload: bytes) -> None:
        """PING with eight bytes, which `Handler.pong` gets back if there is such a method."""
        self.out.append(frame(PING, 0, 0, payload))

    def take(self) -> bytes:
        """All that is to be written, which counts as written from now on."""
        data = b"".join(self.out)
        self.out.clear()
        return data

    def drain(self) -> None:
        """Begin to leave: GOAWAY that still takes requests on their way, and PING. Its answer brings `go_away()`.

        An owner that does not want to wait for it any longer calls that itself.
        """
        self._is_draining = True
        self.go_away(MAX_31_BITS)
        self.ping(DRAINED)

    def go_away(self, last_stream_id: int | None = None, code: int = NO_ERROR, debug: bytes = b"") -> None:
        """GOAWAY. With no id the real last one: new streams are refused, and `closing` follows the last open one.

        With another code than NO_ERROR the connection is over at once.
        """
        if self.dead or (self._leaving and code == NO_ERROR):
            return
        self.out.append(goaway(self._last if last_stream_id is None else last_stream_id, code, debug))
        if code != NO_ERROR:
            self._die(code)
        elif last_stream_id is None:
            self._leaving = True
            self._close_when_empty()

    def lost(self) -> None:
        """The transport is gone. Every open stream is reset; nothing is sent any more."""
        if not self.dead:
            self._die(CANCEL)

    def _die(self, code: int) -> None:
        self.dead = self._leaving = True
        for stream in list(self.streams.values()):
            self._drop(stream, code)
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._leaving and not self.streams and not self._is_closing:
            self._is_closing = True
            self.handler.closing()

    # --- the end of a stream ---------------------------------------------------------------------------------

    def _end(self, stream: Stream, trailers: bytes) -> None:
        if not stream.local_open:
            return
        stream.local_open = False
        if stream.queue is None:
            self._send_end(stream, trailers)
        else:
            stream.ending = trailers

    def _send_end(self, stream: Stream, trailers: bytes) -> None:
        if trailers:
            self.out += header_frames(stream.id, trailers, END_STREAM, self._frame_bytes)
        else:
            self.out.append(frame(DATA, END_STREAM, stream.id))
        self._has_sent = True
        self._sent_end(stream)

    def _sent_end(self, stream: Stream) -> None:
        """Our END_STREAM is in `out`: who answers is done with the stream then."""
        raise NotImplementedError

    def _exchange_over(self, stream: Stream, is_request_complete: bool) -> None:
        """The answer is complete. What is left of a request is not wanted: RST_STREAM with NO_ERROR says so."""
        if not is_request_complete:
            self.out.append(rst_stream(stream.id, NO_ERROR))
            if stream.remote_open:
                self._abandon(stream.id)
        self._over(stream)
        if self._leaving:
            self._close_when_empty()

    def _drop(self, stream: Stream, code: int) -> None:
        """The stream is over, and not by its owner's will."""
        if stream.open:
            self._over(stream)
            self.handler.reset(stream, code)
            self._close_when_empty()

    def _abandon(self, stream_id: int) -> None:
        """The peer may not know yet that the stream is over."""
        self._abandoned[stream_id] = None
        if len(self._abandoned) > self.limits.remembered_streams:
            self._abandoned.popitem(last=False)

    def _over(self, stream: Stream) -> None:
        """Forget the stream and all that it has queued."""
        self.streams.pop(stream.id, None)
        stream.open = stream.local_open = stream.remote_open = False
        if stream.queue is not None:
            self._no_longer_await(stream)
            self.queued_bytes -= stream.queued_bytes
            stream.queue = stream.ending = None
            stream.queued_bytes = 0

    # --- windows ---------------------------------------------------------------------------------------------

    def _send(self, stream: Stream, data: memoryview, most: int) -> memoryview:
        """Frames of DATA as far as the windows are open, but no more than `most` bytes. What is left."""
        at, end = 0, min(len(data), self._send_window, stream.send_window, most)
        if end <= 0:
            return data
        while at < end:
            size = min(end - at, self._frame_bytes)
            self.out += (pack_head(size << 8 | DATA, 0, stream.id), data[at : at + size].tobytes())
            at += size
        self._send_window -= end
        stream.send_window -= end
        self._has_sent = True
        return data[end:]

    def _queue(self, stream: Stream, data: memoryview) -> None:
        if stream.queue is None:
            stream.queue = deque()
            self._await_window(stream)
        stream.queue.append(data)
        stream.queued_bytes += len(data)
        self.queued_bytes += len(data)

    def _await_window(self, stream: Stream) -> None:
        if stream.send_window > 0:
            (self._yielding if stream.yields else self._waiting)[stream.id] = stream

    def _no_longer_await(self, stream: Stream) -> None:
        self._waiting.pop(stream.id, None)
        self._yielding.pop(stream.id, None)

    def _send_waiting(self) -> None:
        """The connection's window, or that of a stream in `_waiting`, has opened."""
        waiting, yielding = self._waiting, self._yielding
        while (waiting or yielding) and self._send_window > 0:
            self._yielded = bool(waiting) and not (yielding and self._yielded)
            self._take_turn((waiting if self._yielded else yielding).popitem(last=False)[1])

    def _take_turn(self, stream: Stream) -> None:
        queue, left = stream.queue, self.limits.turn_bytes
        while queue and left > 0:
            size = len(queue[0])
            rest = self._send(stream, queue[0], left)
            sent = size - len(rest)
            left -= sent
            stream.queued_bytes -= sent
            self.queued_bytes -= sent
            if rest:
                queue[0] = rest
                break
            queue.popleft()
        if queue:
            self._await_window(stream)
            return
        stream.queue = None
        if stream.ending is None:
            self.handler.drained(stream)
        else:
            self._send_end(stream, stream.ending)
