"""The two ends of a connection: a server's, and a client's.

    server = ServerConnection(handler)           client = ClientConnection(handler)
    server.receive(bytes)                        stream = client.request(block, ended=False)
      handler.route, begin, data ...             client.write(stream, data, end=True)
    server.answer(stream, head, message, end)    client.receive(bytes)
    write(b"".join(server.out))                    handler.headers, data ...

What differs is who opens streams; a stream is over for both ends with the end of its answer. The rest is what both
inherit. A handler may call its connection from inside every call it gets.

A server's stream that was reset while its request is worked on keeps its place among the concurrent ones until the
owner says `done_with`, so a peer that resets everything cannot make us work on more than it was allowed.

A client knows what may have happened to a request that got no answer. `Stream.unprocessed` is true if the server
refused it, if it came after what a GOAWAY says was looked at, or if its bytes were never taken out (`take`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from .fields import LENGTH, Headers, are_trailers, content_length, is_request, is_response
from .frames import (
    END_STREAM,
    ENHANCE_YOUR_CALM,
    MAX_31_BITS,
    MAX_CONCURRENT_STREAMS,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    answer_frames,
    header_frames,
    request_frames,
    rst_stream,
    whole_answer,
    whole_request,
)
from .hpack import Block
from .limits import LIMITS, Limits
from .receiving import Receiver
from .stream import Stream

Whole = Callable[[int, bytes], bool]

STREAMS_BEFORE_SETTINGS = 100
"""Requests that a client makes before the server has said how many it takes."""


class CommonHandler(Protocol):
    """What the owner of either end has to have. A method `pong(payload: bytes)` is called if there is one."""

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        """More of the peer's message, as it came; `payload` may be empty at the end."""

    def reset(self, stream: Stream, code: int) -> None:
        """The stream is over: by the peer, by a limit, or because the connection failed.

        A server's owner says `done_with(stream)` once nothing is worked on for it any more, here or later.
        """

    def drained(self, stream: Stream) -> None:
        """The data of a stream that was `blocked` has gone out."""

    def closing(self) -> None:
        """The connection is over: write what is in `out`, then close. Called once."""


class Handler(CommonHandler, Protocol):
    """The owner of a server's end.

    A method `whole(route)` is asked, if there is one, for what serves requests that have come with all their data, or
    None. It gets the id of the stream and the data, and calls `answer_whole`, or `begin_whole` to answer later. If it
    returns false it has done nothing, and the request begins as others do.
    """

    def route(self, headers: Headers) -> Any:
        """Judge a good request list. The answer is used again for identical blocks; nobody changes the list."""

    def begin(self, stream: Stream, route: Any, ended: bool) -> None:
        """A request, with what `route` made of it; if `ended`, without a body."""


class ClientHandler(CommonHandler, Protocol):
    """The owner of a client's end.

    A method `whole(stream, headers, payload, trailers)` is called, if there is one, instead of the three that an answer
    would be told by which has come whole. If it returns false it has done nothing, and they are called.
    """

    def headers(self, stream: Stream, headers: Headers, ended: bool) -> None:
        """The answer's headers, and, if called a second time for the stream, its trailers."""


class ServerConnection(Receiver):
    """The end that answers."""

    def __init__(
        self, handler: Handler, limits: Limits = LIMITS, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(handler, limits, now)
        self._preface = PREFACE
        self._whole_of: Callable[[Any], Whole | None] = getattr(handler, "whole", lambda _route: None)
        self._streams_max = limits.concurrent_streams
        self._stream_window = limits.stream_window_bytes
        self._working: set[int] = set()
        """Streams that were reset and keep their places."""
        self._has_gaps = False
        """Ids were left out: a late one may never have been opened."""
        self._pinged_at = -math.inf
        self._strikes = 0

    def answer(self, stream: Stream, head: bytes, message: bytes, trailers: bytes) -> None:
        """A whole answer: HEADERS, DATA, and HEADERS that end the stream. No state, if it fits all windows."""
        if not stream.local_open:
            return
        if stream.queue is None and self._sends_whole(stream.id, stream.send_window, head, message, trailers):
            if stream.remote_open or self._leaving:
                self._sent_end(stream)
            else:
                del self.streams[stream.id]
                stream.open = stream.local_open = False
        else:
            self.head(stream, head)
            self.write(stream, message)
            self.close(stream, trailers)

    def answer_whole(self, stream_id: int, head: bytes, message: bytes, trailers: bytes) -> None:
        """The answer to a request that has come whole and has no stream. It gets one if it does not fit all windows."""
        if not self._sends_whole(stream_id, self._initial_window, head, message, trailers):
            self.answer(self.begin_whole(stream_id), head, message, trailers)

    def begin_whole(self, stream_id: int) -> Stream:
        """A stream for a request that has come whole."""
        stream = self.streams[stream_id] = Stream(stream_id, self._initial_window, self._stream_window)
        stream.remote_open = False
        return stream

    def _sends_whole(
        self, stream_id: int, stream_window: int, head: bytes, message: bytes, trailers: bytes
    ) -> bool:
        """Send a whole answer, if it fits all windows, and frames of its three parts together would not be too long."""
        size = len(message)
        if size > self._send_window or size > stream_window:
            return False
        if len(head) + size + len(trailers) > self._frame_bytes:
            return False
        self._send_window -= size
        self._has_sent = True
        self.out.append(answer_frames(stream_id, head, message, trailers))
        return True

    def head(self, stream: Stream, block: bytes) -> None:
        """HEADERS, and the stream goes on."""
        if stream.local_open:
            stream.answered = self._has_sent = True
            self.out += header_frames(stream.id, block, 0, self._frame_bytes)

    def done_with(self, stream: Stream) -> None:
        """Nothing is worked on any more for a stream that `Handler.reset` was called for. Once or more, at any time."""
        self._working.discard(stream.id)

    def _on_block(self, stream_id: int, ended: bool, data: bytes) -> None:
        block = self._decoder.decode(data)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._on_request_trailers(stream, ended, block)
            return
        if stream_id <= self._last or not stream_id & 1:
            self._on_late_block(stream_id)
            return
        if stream_id - self._last > 2:
            self._has_gaps = True
        self._last = stream_id
        if self._leaving or len(self.streams) + len(self._working) >= self._streams_max:
            self._refuse(stream_id, ended, REFUSED_STREAM)
            return
        request = block.request
        if request is None:
            if not is_request(block.seen):
                self._refuse(stream_id, ended, PROTOCOL_ERROR)
                return
            length = content_length(block.headers) if block.seen & LENGTH else -1
            route = self.handler.route(block.headers)
            request = block.request = route, length, self._whole_of(route)
        route, length, _ = request
        if ended and length > 0:
            self._refuse(stream_id, ended, PROTOCOL_ERROR)
            return
        self._begin(stream_id, route, length, ended)

    def _take_whole(self, data: bytes, at: int) -> int:
        """Handle requests that have come whole, with headers that are known: what the two frames of each would do.

        Returns where the first begins about which anything is out of the ordinary: nothing has happened to that.
        """
        size_max, end_of_data = self.limits.frame_bytes, len(data)
        while at < end_of_data and self._block is None and (found := whole_request(data, at, size_max)):
            stream_id, block, payload, end = found
            known = self._decoder.known(block)
            if known is None or known.request is None:
                break
            route, length, serve = known.request
            size, last = len(payload), self._last
            if (
                stream_id <= last
                or not stream_id & 1
                or self._leaving
                or len(self.streams) + len(self._working) >= self._streams_max
                or size > self._receive_window
                or size > self._stream_window
                or 0 <= length != size
            ):
                break
            if stream_id - last > 2:
                self._has_gaps = True
            self._last = stream_id
            if serve is None or not serve(stream_id, payload):
                self._begin_both(stream_id, route, length, payload)
            at = end
            if self.dead:
                break
            self._receive_window -= size
            self._owed_bytes += size
            if self._owed_bytes > self._give_bytes:
                self._give()
        return at

    def _begin_both(self, stream_id: int, route: Any, length: int, payload: bytes) -> None:
        """Begin a request, all of whose data is there, and no more than promised."""
        stream = self._begin(stream_id, route, length, False)
        if stream.remote_open:
            stream.remote_open = False
            self.handler.data(stream, payload, True)
        elif not self.dead:
            self._on_late_data(stream_id, self.streams.get(stream_id))

    def _begin(self, stream_id: int, route: Any, length: int, ended: bool) -> Stream:
        stream = self.streams[stream_id] = Stream(stream_id, self._initial_window, self._stream_window)
        stream.remaining_bytes = length
        if ended:
            stream.remote_open = False
        self.handler.begin(stream, route, ended)
        return stream

    def _on_request_trailers(self, stream: Stream, ended: bool, block: Block) -> None:
        if not stream.remote_open:
            self._stream_error(stream, STREAM_CLOSED)
        elif self._on_trailers(stream, ended, block):
            self.handler.data(stream, b"", True)

    def _on_late_block(self, stream_id: int) -> None:
        """HEADERS for a stream that is over, or was left out, or is not a client's to open."""
        if stream_id in self._abandoned:
            return
        if stream_id & 1 and not self._has_gaps:
            raise ConnectionFault(STREAM_CLOSED, f"HEADERS for stream {stream_id}, which is over")
        raise ConnectionFault(PROTOCOL_ERROR, f"HEADERS for stream {stream_id}, which no client can open now")

    def _refuse(self, stream_id: int, ended: bool, code: int) -> None:
        """RST_STREAM for a request that does not begin."""
        self._spend_reset()
        self.out.append(rst_stream(stream_id, code))
        if not ended:
            self._abandon(stream_id)

    def _is_idle(self, stream_id: int) -> bool:
        return not stream_id & 1 or stream_id > self._last

    def _sent_end(self, stream: Stream) -> None:
        self._exchange_over(stream, not stream.remote_open)

    def _received_end(self, stream: Stream) -> None:
        pass

    def _drop(self, stream: Stream, code: int) -> None:
        if stream.open:
            self._working.add(stream.id)
        super()._drop(stream, code)

    def _check_ping(self) -> None:
        """etcd's rule, which clients know: a PING too soon is a strike, unless we sent something since the last."""
        now = self.now()
        since, self._pinged_at = now - self._pinged_at, now
        if self._has_sent:
            self._has_sent = False
            self._strikes = 0
            return
        limits = self.limits
        if since < (limits.ping_interval_seconds if self.streams else limits.ping_interval_idle_seconds):
            self._strikes += 1
            if self._strikes >= limits.ping_strikes:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too_many_pings")


class ClientConnection(Receiver):
    """The end that asks. Its owner has to get what it writes by `take`."""

    is_client = True

    def __init__(
        self, handler: ClientHandler, limits: Limits = LIMITS, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(handler, limits, now)
        self._next = 1
        self._streams_max = STREAMS_BEFORE_SETTINGS
        self._stream_window = limits.stream_window_bytes
        self._untaken: list[Stream] = []
        """Requests whose bytes are in `out`."""
        self._taken: list[Stream] = []
        """Of which something was in what was taken last, and in nothing before."""
        self._whole: Callable[[Stream, Headers, bytes, Headers], bool] = getattr(
            handler, "whole", lambda *_: False
        )
        self._usual: tuple[Block, Block] | None = None
        """Headers and trailers that were found good together."""

    @property
    def can_request(self) -> bool:
        """Whether there is room for a request now. If the connection is `leaving`, there will be none any more."""
        return not self._leaving and len(self.streams) < self._streams_max and self._next <= MAX_31_BITS

    @property
    def leaving(self) -> bool:
        """One end has said GOAWAY, or the ids are used up: another connection is needed."""
        return self._leaving or self._next > MAX_31_BITS

    def request(self, block: bytes, ended: bool = False) -> Stream:
        """HEADERS of a request, encoded by `hpack.encode`. Raises CannotRequest where `can_request` is false."""
        if not self.can_request:
            raise CannotRequest(
                "the connection is closing" if self.leaving else "the server takes no more streams"
            )
        stream = self._open()
        self.out += header_frames(stream.id, block, END_STREAM if ended else 0, self._frame_bytes)
        stream.local_open = not ended
        return stream

    def ask(self, block: bytes, data: bytes, owner: Any = None) -> Stream:
        """A whole request. Raises as ``request`` does."""
        size, stream_id = len(data), self._next
        if (
            not 0 < size <= self._send_window
            or size > self._initial_window
            or size > self._frame_bytes
            or len(block) > self._frame_bytes
            or self._leaving
            or stream_id > MAX_31_BITS
            or len(self.streams) >= self._streams_max
        ):
            stream = self.request(block)
            stream.owner = owner
            self.write(stream, data, end=True)
            return stream
        stream = self._open()
        stream.owner = owner
        stream.local_open = False
        stream.awaits_all = True
        stream.send_window -= size
        self._send_window -= size
        self._has_sent = True
        self.out.append(request_frames(stream_id, block, data))
        return stream

    def _open(self) -> Stream:
        stream_id = self._next
        self._next = stream_id + 2
        stream = self.streams[stream_id] = Stream(stream_id, self._initial_window, self._stream_window)
        self._untaken.append(stream)
        return stream

    def take(self) -> bytes:
        self._taken, self._untaken = self._untaken, []
        return super().take()

    def not_sent(self) -> None:
        """Nothing of what was taken last was sent, and nothing will be."""
        self._untaken += self._taken

    def _on_block(self, stream_id: int, ended: bool, data: bytes) -> None:
        block = self._decoder.decode(data)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ConnectionFault(
                    PROTOCOL_ERROR, f"HEADERS for stream {stream_id}, which was never opened"
                )
            if stream_id not in self._abandoned:
                raise ConnectionFault(STREAM_CLOSED, f"HEADERS for stream {stream_id}, which is over")
        elif stream.answered:
            if self._on_trailers(stream, ended, block):
                self._deliver(stream, block, True)
        elif not is_response(block.seen) or (ended and _is_interim(block)):
            self._stream_error(stream, PROTOCOL_ERROR)
        elif _is_interim(block):
            self._spend()
        else:
            self._on_answer(stream, ended, block)

    def _take_whole(self, data: bytes, at: int) -> int:
        """Handle answers that have come whole, with headers that are known: what the three frames of each would do.

        Returns where the first begins about which anything is out of the ordinary: nothing has happened to that.
        """
        size_max, end_of_data, known = self.limits.frame_bytes, len(data), self._decoder.known
        while at < end_of_data and self._block is None and (found := whole_answer(data, at, size_max)):
            stream_id, head_bytes, payload, trailers_bytes, end = found
            stream, size = self.streams.get(stream_id), len(payload)
            head, trailers = known(head_bytes), known(trailers_bytes)
            if (
                stream is None
                or not stream.awaits_all
                or not 0 < size <= self._give_stream_bytes
                or size > self._receive_window
                or head is None
                or trailers is None
                or ((head, trailers) != self._usual and not self._are_usual(head, trailers))
            ):
                break
            stream.awaits_all = False
            stream.answered = True
            at = end
            if not self._whole(stream, head.headers, payload, trailers.headers):
                self._deliver_parts(stream, head, trailers, payload)
            else:
                self._receive_window -= size
                self._owed_bytes += size
                if stream.open:
                    del self.streams[stream_id]
                    stream.open = stream.remote_open = False
                    if self._leaving:
                        self._close_when_empty()
                if self._owed_bytes > self._give_bytes and not self.dead:
                    self._give()
            if self.dead:
                break
        return at

    def _are_usual(self, head: Block, trailers: Block) -> bool:
        """Whether these are good headers of an answer, which promise nothing of its length, and good trailers."""
        if not is_response(head.seen) or not are_trailers(trailers.seen):
            return False
        if head.seen & LENGTH or _is_interim(head):
            return False
        self._usual = head, trailers
        return True

    def _deliver_parts(self, stream: Stream, head: Block, trailers: Block, payload: bytes) -> None:
        """Any of the handler's calls may end the stream, or the connection."""
        size = len(payload)
        self.handler.headers(stream, head.headers, False)
        if self.dead:
            return
        self._receive_window -= size
        if stream.open:
            stream.receive_window -= size
            stream.owed_bytes += size
            self.handler.data(stream, payload, False)
        self._owed_bytes += size
        if self._owed_bytes > self._give_bytes:
            self._give()
        if stream.open:
            stream.remote_open = False
            self._deliver(stream, trailers, True)

    def _on_answer(self, stream: Stream, ended: bool, block: Block) -> None:
        stream.answered = True
        stream.awaits_all = False
        if block.seen & LENGTH:
            stream.remaining_bytes = content_length(block.headers)
            if ended and stream.remaining_bytes:
                self._stream_error(stream, PROTOCOL_ERROR)
                return
        stream.remote_open = not ended
        self._deliver(stream, block, ended)

    def _deliver(self, stream: Stream, block: Block, ended: bool) -> None:
        self.handler.headers(stream, block.headers, ended)
        if ended:
            self._received_end(stream)

    def _on_data(self, stream: Stream, payload: bytes, size: int, ended: int) -> None:
        if stream.answered:
            super()._on_data(stream, payload, size, ended)
        else:
            self._stream_error(stream, PROTOCOL_ERROR)

    def _is_idle(self, stream_id: int) -> bool:
        return not stream_id & 1 or stream_id >= self._next

    def _sent_end(self, stream: Stream) -> None:
        stream.local_open = False

    def _received_end(self, stream: Stream) -> None:
        if stream.open:
            self._exchange_over(stream, not (stream.local_open or stream.blocked))

    def _apply_setting(self, setting: int, value: int) -> None:
        if setting == MAX_CONCURRENT_STREAMS:
            self._streams_max = value
        else:
            super()._apply_setting(setting, value)

    def _peer_leaves(self, last_stream_id: int) -> None:
        self._leaving = True
        for stream in [stream for stream in self.streams.values() if stream.id > last_stream_id]:
            self._drop(stream, REFUSED_STREAM)
        self._close_when_empty()

    def _drop(self, stream: Stream, code: int) -> None:
        stream.unprocessed = (code == REFUSED_STREAM and not stream.answered) or stream in self._untaken
        super()._drop(stream, code)

    def _check_ping(self) -> None:
        if not self._updates.take():
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many PING frames")


class CannotRequest(Exception):
    """A request that the connection has no room for."""


def _is_interim(block: Block) -> bool:
    """Whether it is an answer before the answer: status 1xx."""
    return block.headers[0][1].startswith(b"1")
