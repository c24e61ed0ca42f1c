"""A connection that speaks gRPC: HTTP/2 on one side, calls on the other.

    socket --receive--> http2.ServerConnection --begin, data, reset, drained--> GrpcPeer ---> Method.serve
    socket <---write--- its ``out``, once a turn of the loop  <--answer, send, fail-- GrpcCall <---'

What answers within ``receive`` goes out with the frames that it caused; what answers later (a group of writers, a
watch) goes out with everything else of that turn: one write for each connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from kvstore.errors import Code, StoreClosed
from kvstore.etcdpb.status import status_of
from kvstore.network import grpc, limits
from kvstore.network.call import AtOnce, Call, Failed, Kind, Method, Peer, Running
from kvstore.network.dialect import V3_5
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import Request
from kvstore.network.http2.connection import ServerConnection, Whole
from kvstore.network.http2.frames import INTERNAL_ERROR, MAX_31_BITS, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.stream import Stream
from kvstore.network.http2_web import WebStream, request_of
from kvstore.network.load import Keepalive, Load
from kvstore.network.services import SERVICES, TABLE
from kvstore.network.traffic import Counts

LONG_BYTES = 4 << 10
"""Answers that are longer count before they are written."""
DRAIN_PING = b"kv-drain"
DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, judged once for all requests with the same headers."""

    asked: grpc.Asked
    method: Method | None
    head: bytes
    refusal: bytes = b""
    """The only headers of the answer, where there is nowhere to go."""
    reset_code: int | None = None
    """The stream is reset with it (after the refusal, if there is one)."""
    web: Request | None = None
    """Of one that is none of gRPC."""
    counts: Counts = field(default_factory=Counts)
    at_once: AtOnce | None = None
    """Asked before a call is made."""


class GrpcPeer:
    """One connection, from its preface to its end."""

    def __init__(self, endpoint: Endpoint, transport: asyncio.Transport, peer: Peer) -> None:
        self.endpoint = endpoint
        self._alone = endpoint.alone
        self.peer = peer
        self._transport = transport
        self.limit_bytes = endpoint.settings.max_message_bytes
        self.http2 = ServerConnection(self, endpoint.http2_limits)
        self.now = monotonic()
        """When what is being received came, or came last."""
        self.load = Load(self, transport)
        self._keepalive = Keepalive(self, transport)
        self.is_paused = False
        """Whether the socket owes its peer so much that streams of answers wait."""
        self._is_lost = False
        self._unread = b""
        """What came, and was not looked at."""
        self._is_receiving = False
        self._is_flush_due = False
        self._is_closing = False
        transport.set_write_buffer_limits(limits.WRITE_BUFFER_BYTES)

    # --- the socket -------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        if self._alone.client is not self:
            self._alone.heard(self)
        if self._unread or len(data) > limits.FRAMES_BYTES:
            self._receive_in_pieces(data)
            return
        self.now = self.load.begin_turn()
        self._is_receiving = True
        try:
            self.http2.receive(data)
        finally:
            self._is_receiving = False
            if self.http2.out or self._is_closing or self.load.account.answer_bytes:
                self.flush()

    def _receive_in_pieces(self, data: bytes) -> None:
        """One now, the next when others have had their turn; until then, nothing is read."""
        is_turn_due = bool(self._unread)
        self._unread += data
        if not is_turn_due:
            self._next_piece()

    def _next_piece(self) -> None:
        piece, rest = self._unread[: limits.FRAMES_BYTES], self._unread[limits.FRAMES_BYTES :]
        self._unread = b""
        self.receive(piece)
        if self._is_lost or self._transport.is_closing():
            return
        self._unread = rest
        if rest:
            self._transport.pause_reading()
            self.endpoint.loop.call_soon(self._next_piece)
        else:
            self._transport.resume_reading()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self.load.recount()
        for stream in list(self.http2.streams.values()):
            self.drained(stream)

    def lost(self) -> None:
        """The socket is gone."""
        self._is_lost = True
        self.http2.lost()
        self.load.close()
        self._keepalive.close()

    def drain(self) -> None:
        """Serve no new request. A client is told before it is held to it: its requests may be on their way."""
        if not self.http2.dead:
            self.http2.go_away(MAX_31_BITS)
            self.http2.ping(DRAIN_PING)
            self.endpoint.loop.call_later(DRAIN_SECONDS, self._leave)
            self.flush()
        for stream in list(self.http2.streams.values()):
            call = stream.owner
            if call is not None and call.is_stream:
                call.fail(StoreClosed())

    def pong(self, payload: bytes) -> None:
        if payload == DRAIN_PING:
            self._leave()

    def _leave(self) -> None:
        """The client knows: what it has asked for until now is the last. ``closing`` follows."""
        self.http2.go_away()
        self.flush_soon()

    def cut(self) -> None:
        """End what is under way."""
        for stream in list(self.http2.streams.values()):
            call = stream.owner
            if call is not None:
                call.fail(StoreClosed())
        self.flush()

    def flush_soon(self) -> None:
        """Have ``out`` written, now or at the end of this turn of the loop."""
        if not (self._is_receiving or self._is_flush_due):
            self._is_flush_due = True
            self.endpoint.flush_soon(self)

    def flush(self) -> None:
        """Write what is in ``out``."""
        self._is_flush_due = False
        if self._is_lost:
            return
        if self.http2.out:
            data = self.http2.take()
            self._transport.write(data)
            self.load.recount(len(data))
        elif self.load.account.answer_bytes:
            self.load.recount()
        if self._is_closing:
            self._transport.close()

    # --- the streams ------------------------------------------------------------------

    def route(self, headers: grpc.Headers) -> Route:
        asked = grpc.asked(headers)
        if self.peer.is_tls and not grpc.is_grpc(asked.content_type):
            return Route(asked, None, b"", web=request_of(headers, self.peer))
        method = TABLE.get(asked.path)
        refusal, reset_code = self._refusal(asked, method)
        head = grpc.head(asked.content_type)
        if method is None or refusal or reset_code is not None:
            return Route(asked, None, head, refusal, reset_code)
        counts = self.endpoint.traffic.of(asked.path, asked.metadata.get("client-api-version"))
        return Route(asked, method, head, counts=counts, at_once=method.at_once)

    def _refusal(self, asked: grpc.Asked, method: Method | None) -> tuple[bytes, int | None]:
        """The headers to refuse a request with, and the code to reset its stream with."""
        is_old = self.endpoint.dialect < V3_5
        if not grpc.is_grpc(asked.content_type):
            if is_old:
                return b"", PROTOCOL_ERROR
            kind = asked.content_type.decode("latin-1")
            return _http_error(415, 3, f'invalid gRPC request content-type "{kind}"'), NO_ERROR
        if asked.http_method != b"POST" and not is_old:
            name = asked.http_method.decode("latin-1")
            text = f'Received a HEADERS frame with :method "{name}" which should be POST'
            return _http_error(405, 13, text), NO_ERROR
        if asked.malformed_timeout:
            if is_old:
                return b"", PROTOCOL_ERROR
            return _http_error(400, 13, asked.malformed_timeout), NO_ERROR
        if method is None:
            code, text = _unknown(asked.path, is_old)
            return grpc.head(asked.content_type) + grpc.trailers(code, text), None
        if asked.encoding not in grpc.ENCODINGS:
            name = asked.encoding.decode("latin-1")
            text = f'grpc: Decompressor is not installed for grpc-encoding "{name}"'
            return grpc.head(asked.content_type) + grpc.trailers(Code.UNIMPLEMENTED, text), None
        if not is_old and not _is_text(asked.metadata.get("client-api-version", "")):
            code, text = Code.INVALID_ARGUMENT, "etcdserver: invalid client api version"
            return grpc.head(asked.content_type) + grpc.trailers(code, text), None
        return b"", None

    def whole(self, route: Route) -> Whole | None:
        """What serves requests that have come whole, with the only message that such a call may have."""
        method = route.method
        if method is None or method.kind is Kind.BIDI:
            return None
        if route.at_once is None:
            return partial(self._serve_whole, route, method)
        return partial(self._serve_at_once, route, route.at_once)

    def _serve_whole(self, route: Route, method: Method, stream_id: int, payload: bytes) -> bool:
        message = grpc.lone_message(payload, self.limit_bytes)
        if message is None or not self.load.may_begin():
            return False
        stream = self.http2.begin_whole(stream_id)
        stream.owner = GrpcCall(self, stream, route, method)
        stream.owner.take_whole(message)
        return True

    def _serve_at_once(self, route: Route, at_once: AtOnce, stream_id: int, payload: bytes) -> bool:
        """Answer a request for which no call has to be made."""
        message = grpc.lone_message(payload, self.limit_bytes)
        if message is None or not self.load.may_begin():
            return False
        try:
            answer = at_once(self.endpoint, message)
        except Exception:
            return False  # the call that is made then will meet it again
        if answer is None:
            return False
        route.counts.served(message, answer)
        self.note_duration(route, self.now)
        if len(answer) > LONG_BYTES:
            self.load.answered(len(answer))
        self.http2.answer_whole(stream_id, route.head, grpc.framed(answer), grpc.OK)
        return True

    def note_duration(self, route: Route, since: float) -> None:
        """A call of this kind that began then is over."""
        endpoint = self.endpoint
        now = monotonic()
        seconds = now - since
        if endpoint.times_calls:
            route.counts.timed(seconds)
        if seconds > endpoint.settings.warning_unary_request_seconds:
            method = route.method
            if method is not None and method.kind is Kind.UNARY:
                endpoint.slow_requests.note(seconds, now, f"{method.path}, ")

    def begin(self, stream: Stream, route: Route, ended: bool) -> None:
        if route.web is not None:
            self._begin_web(stream, route.web, ended)
            return
        if route.method is None:
            if route.refusal:
                self.http2.close(stream, route.refusal)
            if route.reset_code is not None and stream.id in self.http2.streams:
                self.http2.reset(stream, route.reset_code)
            return
        call = stream.owner = GrpcCall(self, stream, route, route.method)
        if route.method.kind is Kind.BIDI:
            call.open()
        if ended:
            call.receive(b"", True)

    def _begin_web(self, stream: Stream, request: Request, ended: bool) -> None:
        owner = stream.owner = WebStream(self, stream)
        owner.open(request)
        if ended:
            owner.receive(b"", True)

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        call = stream.owner
        if call is not None:
            call.receive(payload, ended)

    def reset(self, stream: Stream, code: int) -> None:
        call = stream.owner
        is_worked_on = call is not None and call.is_worked_on
        if call is not None:
            call.over()
        if not is_worked_on:
            self.http2.done_with(stream)

    def drained(self, stream: Stream) -> None:
        call = stream.owner
        if call is not None and call.running is not None and not call.is_blocked:
            call.running.drained()

    def closing(self) -> None:
        self._is_closing = True
        self.flush_soon()


def _http_error(status: int, code: int, text: str) -> bytes:
    return encode([(b":status", b"%d" % status), (b"content-type", grpc.CONTENT_TYPE)]) + grpc.trailers(
        code, text
    )


def _is_text(value: str) -> bool:
    """Whether what came was UTF-8."""
    return value.isascii() or not any("\udc80" <= character <= "\udcff" for character in value)


def _unknown(path: str, is_old: bool) -> tuple[int, str]:
    """What a path is answered with that leads nowhere."""
    service, _slash, name = path.removeprefix("/").rpartition("/")
    if path[:1] != "/" or not service:
        code = Code.RESOURCE_EXHAUSTED if is_old else Code.UNIMPLEMENTED
        return code, f'malformed method name: "{path}"'
    if service in SERVICES:
        return Code.UNIMPLEMENTED, f"unknown method {name} for service {service}"
    return Code.UNIMPLEMENTED, f"unknown service {service}"


class GrpcCall(Call):
    """One stream of a connection."""

    # What a call begins with is the class's, not set for each: most of it never changes.
    alive = True
    running: Running | None = None
    _inbox: grpc.Inbox | None = None
    """Of a request that has not come in one piece."""
    _messages: Sequence[bytes] = ()
    """Those that are not served yet. Of a call that has one, others after it are passed over."""
    _has_ended = False
    """The client has ended its side."""
    _held_bytes = 0
    """Of the request, as the connection's account has it."""
    _is_waiting = False
    """For its turn, or for room."""
    _is_served = False
    _kept_bytes = 0
    """Of an answer that comes in pieces: what is in memory."""
    _left_bytes = 0
    """What it still lacks."""
    _begun = False
    """Whether the headers of the answer have gone out."""
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, connection: GrpcPeer, stream: Stream, route: Route, method: Method) -> None:
        self.peer = connection.peer
        self._connection = connection
        self._stream = stream
        self._route = route
        self._method = method
        self._counts = route.counts
        self._counts.started += 1
        self._since = connection.now

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._route.asked.metadata

    @property
    def is_blocked(self) -> bool:
        return self._connection.is_paused or self._stream.blocked

    @property
    def is_stream(self) -> bool:
        """Whether it has any number of answers."""
        return self._method.kind is not Kind.UNARY

    @property
    def is_worked_on(self) -> bool:
        """Whether somebody will say ``done``, or answer in vain."""
        return self._is_served and self.running is None

    @property
    def has_room(self) -> bool:
        return not self._connection.load.account.is_over

    # --- from the client --------------------------------------------------------------

    def receive(self, payload: bytes, ended: bool) -> None:
        """DATA of the request. Of a call that has one message, nothing counts after it."""
        if not self.alive:
            return
        connection, is_bidi = self._connection, self._method.kind is Kind.BIDI
        if self._inbox is None and ended is not is_bidi:
            message = grpc.lone_message(payload, connection.limit_bytes)
            if message is not None and connection.load.may_begin():
                self.take_whole(message)
                return
        elif self._is_served and not is_bidi:
            return
        self._has_ended = ended
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = grpc.Inbox(self._route.asked.encoding, connection.limit_bytes)
        try:
            messages = inbox.receive(payload)
        except Failed as error:
            self.fail(error)
            return
        if messages and (is_bidi or not self._messages):
            self._messages = [*self._messages, *(messages if is_bidi else messages[:1])]
            if not (is_bidi or ended):  # the end of the client's side is probably in what came with it
                connection.endpoint.loop.call_soon(self._begin_whole)
        if is_bidi or ended:
            self._go_on_or_wait()
        if self._messages or inbox.is_within or self._held_bytes:
            self._hold(len(payload) + sum(map(len, messages)))
        if is_bidi and not (self._messages or inbox.is_within):
            self._inbox = None

    def take_whole(self, message: bytes) -> None:
        """A message has come in one piece, and nothing has to be waited for."""
        self._counts.took(message)
        try:
            if self.running is not None:
                self.running.received(message)
            else:
                self._has_ended = True
                self._serve(message)
        except Exception as error:
            self._connection.endpoint.fail(self, error)

    def _begin_whole(self) -> None:
        """The one message is there. Some clients end their side much later, or never; etcd does not wait for it."""
        if self.alive and self._messages:
            self._go_on_or_wait()

    def _go_on_or_wait(self) -> None:
        load = self._connection.load
        if self._is_waiting:
            return
        if load.may_begin():
            self.go_on()
        elif self._method.kind is not Kind.BIDI and load.is_full:
            self.over()
            self._connection.http2.reset(self._stream, REFUSED_STREAM)
        else:
            self._is_waiting = True
            self._set_timer()
            load.wait(self)

    def _hold(self, more_bytes: int) -> None:
        """Have it known how much of the request is kept."""
        if self.alive:
            held_bytes = self._held_bytes + more_bytes if self._messages else self._buffered_bytes
            self._connection.load.account.keep(held_bytes - self._held_bytes)
            self._held_bytes = held_bytes

    @property
    def _buffered_bytes(self) -> int:
        """Of a message that is not whole."""
        return 0 if self._inbox is None else self._inbox.buffered_bytes

    def go_on(self) -> None:
        """Serve what has come. The load of the connection says when."""
        self._is_waiting = False
        messages, self._messages = self._messages, ()
        try:
            if self._method.kind is Kind.BIDI:
                self._converse(messages)
            else:
                self._serve_once(messages)
        except Exception as error:
            self._connection.endpoint.fail(self, error)

    def open(self) -> None:
        """Begin a call whose requests come one by one."""
        try:
            self._serve(b"")
        except Exception as error:
            self._connection.endpoint.fail(self, error)

    def _converse(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            if self.alive and self.running is not None:
                self._counts.took(message)
                self.running.received(message)
        if self._has_ended:
            self._check_whole()
            if self.alive and self.running is not None:
                self.running.half_closed()

    def _serve_once(self, messages: Sequence[bytes]) -> None:
        if not messages:
            self._check_whole()
            raise Failed(Code.INTERNAL, "the request has no message")
        self._counts.took(messages[0])
        self._serve(messages[0])

    def _check_whole(self) -> None:
        if self._buffered_bytes:
            raise Failed(Code.UNKNOWN, "unexpected EOF")

    def _serve(self, message: bytes) -> None:
        running = self._method.serve(self._connection.endpoint, self, message)
        if not self.alive:
            if running is not None:
                running.closed()
            return
        self.running = running
        self._is_served = True
        if self._route.asked.timeout_seconds is not None:
            self._set_timer()

    def _set_timer(self) -> None:
        seconds = self._route.asked.timeout_seconds
        if seconds is not None and self._timer is None:
            self._timer = self._connection.endpoint.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.fail(Failed(Code.DEADLINE_EXCEEDED, "context deadline exceeded"))

    def over(self, code: Code = Code.CANCELLED) -> None:
        """The stream has ended, by whichever side."""
        self._counts.ended(code)
        self._over()

    def _over(self) -> None:
        self.alive = False
        self._connection.note_duration(self._route, self._since)
        self._stream.owner = None
        if self._timer is not None:
            self._timer.cancel()
        if self.running is not None:
            running, self.running = self.running, None
            running.closed()
        if self._held_bytes:
            self._connection.load.account.keep(-self._held_bytes)
            self._held_bytes = 0
        if self._kept_bytes:
            self._connection.load.kept_bytes -= self._kept_bytes
            self._kept_bytes = 0

    # --- to the client ----------------------------------------------------------------

    def done(self) -> None:
        self._connection.http2.done_with(self._stream)

    def answer(self, message: bytes) -> None:
        if not self.alive:
            self.done()
            return
        self._counts.answered(message)
        self._over()
        if len(message) > LONG_BYTES:
            self._connection.load.answered(len(message))
        self._connection.http2.answer(self._stream, self._route.head, grpc.framed(message), grpc.OK)
        self._connection.flush_soon()

    def begin(self) -> None:
        if self.alive and not self._begun:
            self._begun = True
            self._connection.http2.head(self._stream, self._route.head)
            self._connection.flush_soon()

    def begin_answer(self, size_bytes: int, kept_bytes: int) -> None:
        if self.alive:
            self._counts.sent += 1
            self._counts.sent_bytes += size_bytes
            self._left_bytes = size_bytes
            self._kept_bytes = kept_bytes
            self._connection.load.kept_bytes += kept_bytes
            self._connection.load.recount()
            self._stream.yields = True
            self.begin()
            self._connection.http2.write(self._stream, grpc.prefix(size_bytes))

    def write(self, piece: bytes) -> None:
        if self.alive:
            self._left_bytes -= len(piece)
            self._connection.http2.write(self._stream, piece)
            self._connection.flush_soon()

    def send(self, message: bytes) -> None:
        if not self.alive:
            return
        self.begin()
        self._counts.gave(message)
        self._connection.http2.write(self._stream, grpc.framed(message))
        self._connection.flush_soon()

    def send_all(self, messages: Sequence[bytes]) -> None:
        if not (self.alive and messages):
            return
        self.begin()
        data = grpc.all_framed(messages)
        self._counts.sent += len(messages)
        self._counts.sent_bytes += len(data) - grpc.PREFIX_BYTES * len(messages)
        self._connection.http2.write(self._stream, data)
        self._connection.flush_soon()

    def end(self) -> None:
        self._close(Code.OK, grpc.OK)

    def fail(self, error: BaseException) -> None:
        code, text = status_of(error)
        self._close(code, grpc.trailers(code, text))

    def _close(self, code: Code, trailers: bytes) -> None:
        if not self.alive:
            self.done()
            return
        self.over(code)
        if self._left_bytes:  # no status can follow a message that is not whole
            self._connection.http2.reset(self._stream, INTERNAL_ERROR)
            self._connection.flush_soon()
            return
        head = b"" if self._begun else self._route.head
        self._connection.http2.close(self._stream, head + trailers)
        self._connection.flush_soon()
