"""A connection that speaks HTTP/1.1, through h11: bytes on one side, exchanges on the other.

    socket --receive--> [ waiting ] --a piece a turn--> h11 --> Web.open, Exchange.received, ended
    socket <---------- write ---------------------------h11 <-- Reply

One request at a time: what a client sends ahead waits for the answer before it. A request whose answer does not need
all of its body is answered, and the rest of the body is read and dropped. A request may ask for WebSocket: what comes
after it then goes to that instead of h11, as long as the connection lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from kvstore.network import limits
from kvstore.network.call import Peer
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import Exchange, Headers, Reply, Request, text
from kvstore.network.web import Web

if TYPE_CHECKING:
    from kvstore.network.websocket import WebSocket

logger = logging.getLogger("kvstore.network")

_READ_ON = (h11.IDLE, h11.SEND_BODY)
"""States of the client in which more of it is to come."""


class Http1Peer:
    """One connection, from its first request to its end."""

    def __init__(
        self, endpoint: Endpoint, transport: asyncio.Transport, peer: Peer, *, is_for_monitors: bool = False
    ) -> None:
        self._loop = endpoint.loop
        self._alone = endpoint.alone
        self._web = Web(endpoint, is_for_monitors=is_for_monitors)
        self._message_limit_bytes = endpoint.settings.max_message_bytes * limits.BODY_FACTOR
        self._transport = transport
        self._peer = replace(peer, is_gateway=True)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.HEADER_BYTES)
        self._exchange: Exchange | None = None
        self._socket: WebSocket | None = None
        self._is_switched = False
        """Whether what comes is for that."""
        self._waiting = bytearray()
        """What came, and was not looked at."""
        self._unread_bytes = 0
        """Dropped, of the body that goes on after its answer."""
        self._is_turn_due = False
        self._is_in_turn = False
        self._is_paused = False
        """Whether the socket owes its peer so much that streams of answers wait."""
        self._is_draining = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        """Runs while the peer owes us something."""
        self._timer_is_for: object = None
        self._stall: asyncio.TimerHandle | None = None
        """Runs while we owe the peer something that it does not take."""

    # --- the socket -------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._alone.client is not self:
            self._alone.heard(self)
        self._waiting += data
        if not self._is_turn_due:
            self._turn()
        self._choose_reading()

    def pause(self) -> None:
        self._is_paused = True
        self._choose_reading()
        self._watch_stall(self._transport.get_write_buffer_size())

    def resume(self) -> None:
        self._is_paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._choose_reading()
        self._turn_soon()
        if self._exchange is not None:
            self._exchange.drained()

    def lost(self) -> None:
        """The socket is gone."""
        self._end()

    def drain(self) -> None:
        """Serve no new request; close when the one under way is answered."""
        self._is_draining = True
        if self._exchange is None:
            self._close()
        else:
            self._exchange.stop()

    def cut(self) -> None:
        """End what is under way."""
        self._end()

    def _choose_reading(self) -> None:
        """Read on, unless there is enough to do."""
        if self._is_over:
            return
        if self._is_paused or len(self._waiting) > limits.WAITING_BYTES:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _watch_stall(self, owed_bytes: int) -> None:
        self._stall = self._loop.call_later(limits.WRITE_STALL_SECONDS, self._check_stall, owed_bytes)

    def _check_stall(self, owed_bytes: int) -> None:
        """Whoever took something since may take more."""
        owes_now = self._transport.get_write_buffer_size()
        if owes_now < owed_bytes:
            self._watch_stall(owes_now)
        else:
            self._abort()

    # --- turns ------------------------------------------------------------------------

    def _turn(self) -> None:
        """Look at a piece of what came."""
        self._is_turn_due = False
        if self._is_over:
            return
        self._is_in_turn = True
        try:
            self._look()
        except h11.RemoteProtocolError as error:
            self._refuse(error)
        except Exception:
            logger.exception("a request of HTTP failed")
            self._close()
        finally:
            self._is_in_turn = False
        if self._waiting and self._can_look:
            self._turn_soon()
        self._choose_reading()
        self._choose_timer()

    def _turn_soon(self) -> None:
        if not (self._is_turn_due or self._is_in_turn):
            self._is_turn_due = True
            self._loop.call_soon(self._turn)

    @property
    def _can_look(self) -> bool:
        """Whether there is more to do: nothing waits for our answer, nor for the peer to take those it has got."""
        is_free = self._is_switched or self._h11.their_state in _READ_ON or self._exchange is None
        return is_free and not (self._is_paused or self._is_over)

    def _look(self) -> None:
        piece = b""
        if self._waiting and self._can_look:
            piece = bytes(self._waiting[: limits.TURN_BYTES])
            del self._waiting[: limits.TURN_BYTES]
        if self._is_switched:
            self._read_messages(piece)
            return
        if piece:
            self._h11.receive_data(piece)
        while not (self._is_over or self._is_paused):
            self._next_cycle()
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._open(event)
            elif isinstance(event, h11.Data):
                self._body(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if self._exchange is not None and self._socket is None:
                    self._exchange.ended()
                self._close_if_over()
            elif self._h11.their_state is h11.SWITCHED_PROTOCOL:
                self._is_switched = True
                self._waiting[:0] = self._h11.trailing_data[0]
                return
            else:  # NEED_DATA, PAUSED
                self._let_go_on()
                return

    def _read_messages(self, data: bytes) -> None:
        assert self._socket is not None
        for message in self._socket.receive(data):
            if self._exchange is not None:
                self._exchange.message(message)
        if self._socket.is_over:
            self._close()

    def _next_cycle(self) -> None:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._unread_bytes = 0

    def _let_go_on(self) -> None:
        """Some clients ask before they send a body."""
        if self._h11.they_are_waiting_for_100_continue and self._exchange is not None:
            self.send(h11.InformationalResponse(status_code=100, headers=[]))

    def _open(self, event: h11.Request) -> None:
        request = Request(
            event.method.decode("ascii"),
            event.target.decode("latin-1"),
            {name.decode("ascii"): value.decode("utf-8", "replace") for name, value in event.headers},
            self._peer,
        )
        reply = _Reply(self, is_head=event.method == b"HEAD")
        exchange = self._web.open(request, reply, self._switch)
        if not (self._socket or reply).is_finished:
            self._exchange = exchange

    def _switch(self, headers: Headers) -> Reply:
        """Go on with WebSocket after this request."""
        from kvstore.network.websocket import WebSocket

        self.send(h11.InformationalResponse(status_code=101, headers=headers, reason=_REASONS[101].encode()))
        self._socket = WebSocket(self, self._message_limit_bytes)
        return self._socket

    def _body(self, data: bytes) -> None:
        if self._exchange is not None and self._socket is None:
            self._exchange.received(data)
            return
        self._unread_bytes += len(data)
        if self._unread_bytes > limits.UNREAD_BODY_BYTES:
            self._close()

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """What came is no HTTP: say so, if the answer has not begun, and read nothing more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.closed()
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status, headers, body = text(error.error_status_hint, f"{error}\n")
            _Reply(self, is_head=False).answer(status, [*headers, ("Connection", "close")], body)
        self._close()

    # --- answers ----------------------------------------------------------------------

    def send(self, *events: h11.Event) -> None:
        """Part of an answer, in one write."""
        self.write(b"".join([self._h11.send(event) or b"" for event in events]))

    def write(self, data: bytes) -> None:
        if data and not self._is_over:
            self._transport.write(data)

    def finished(self) -> None:
        """The answer was sent."""
        self._exchange = None
        self._close_if_over()
        if not self._is_over:
            self._turn_soon()

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def is_over(self) -> bool:
        return self._is_over

    # --- the end ----------------------------------------------------------------------

    def _close_if_over(self) -> None:
        """After the last answer; a client that is still sending gets to send all of it, or it would not read it.

        Not when the server stops: a body that has no end, as a watch's may have none, would hold that up.
        """
        is_stopped = self._is_draining and self._exchange is None
        is_last = self._h11.our_state is h11.MUST_CLOSE and self._h11.their_state not in _READ_ON
        if is_stopped or is_last:
            self._close()

    def _close(self) -> None:
        self._end()
        self._transport.close()

    def _abort(self) -> None:
        self._end()
        self._transport.abort()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._waiting.clear()
        self._set_timer(None, 0, None)
        if self._stall is not None:
            self._stall.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.closed()

    # --- patience ---------------------------------------------------------------------

    def _choose_timer(self) -> None:
        """A header has so long as a whole, a body so long for each of its pieces; while nothing is read, neither."""
        if self._is_over:
            return
        if self._is_paused:
            pass
        elif self._socket is not None and self._is_switched:
            if self._socket.is_finished:
                self._set_timer("close", limits.CLOSE_SECONDS, self._close)
                return
            if self._socket.is_in_message or (self._exchange is not None and self._exchange.waits_for_body):
                self._set_timer(object(), limits.BODY_IDLE_SECONDS, self._close)
                return
        elif self._h11.their_state is h11.SEND_BODY:
            if self._exchange is None or self._exchange.waits_for_body:
                self._set_timer(object(), limits.BODY_IDLE_SECONDS, self._close)
                return
        elif self._h11.their_state is h11.IDLE and self._h11.trailing_data[0]:
            self._set_timer("header", limits.HEADER_SECONDS, self._close)
            return
        self._set_timer(None, 0, None)

    def _set_timer(self, what: object, seconds: float, then: Callable[[], None] | None) -> None:
        if what is not None and what == self._timer_is_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_is_for = what
        self._timer = None if then is None else self._loop.call_later(seconds, then)


class _Reply:
    """The answer to one request."""

    def __init__(self, connection: Http1Peer, *, is_head: bool) -> None:
        self._connection = connection
        self._is_head = is_head
        self.is_finished = False

    @property
    def is_blocked(self) -> bool:
        return self._connection.is_paused

    @property
    def _is_open(self) -> bool:
        return not (self.is_finished or self._connection.is_over)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self._is_open:
            self.is_finished = True
            data = [] if self._is_head else [h11.Data(data=body)]
            head = self._head(status, [*headers, ("Content-Length", str(len(body)))])
            self._connection.send(head, *data, h11.EndOfMessage())
            self._connection.finished()

    def begin(self, status: int, headers: Headers) -> None:
        """Without a length: what follows is sent in chunks."""
        if self._is_open:
            self._connection.send(self._head(status, headers))

    def write(self, data: bytes) -> None:
        if self._is_open and not self._is_head:
            self._connection.send(h11.Data(data=data))

    def finish(self) -> None:
        if self._is_open:
            self.is_finished = True
            self._connection.send(h11.EndOfMessage())
            self._connection.finished()

    def _head(self, status: int, headers: Headers) -> h11.Response:
        found = [*headers, ("Date", formatdate(usegmt=True))]
        if self._connection.is_draining:
            found.append(("Connection", "close"))
        return h11.Response(status_code=status, headers=found, reason=_REASONS.get(status, "").encode())


_REASONS = {status.value: status.phrase for status in HTTPStatus}
