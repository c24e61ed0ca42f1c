"""One connection to a server: HTTP/2 on one side, calls of gRPC on the other.

    dial ──> socket, TLS, the server's SETTINGS ──> Connection ──begin──> Exchange: message, over, lost
                                                        └── Owner: leaving, lost, turn

It counts as made when the server's SETTINGS have come, not before: a stopped process still has its connections accepted
for it. While calls are open and nothing is heard, a PING asks for a sign of life; without one the connection is dead.

What is begun within one turn of the loop goes out in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast
from urllib.parse import unquote_to_bytes

from kvstore.errors import Code
from kvstore.network.grpc import PREFIX_BYTES, lone_message
from kvstore.network.http2.connection import ClientConnection
from kvstore.network.http2.frames import CANCEL, PING
from kvstore.network.http2.limits import Limits
from kvstore.network.http2.stream import Stream
from kvstore.network.remote.options import Address, ClientOptions

LIMITS = Limits(frame_bytes=64 << 10)
ACK_SECONDS = 5.0
"""Without any sign of life for so long after a PING, the server is dead."""
WRITE_BUFFER_BYTES = 1 << 20
PING_BYTES = 17
"""A whole PING frame."""
PONG_SECONDS = 0.002

Headers = list[tuple[bytes, bytes]]

_STATUS_OF_HTTP = {
    b"400": Code.INTERNAL,
    b"401": Code.UNAUTHENTICATED,
    b"403": Code.PERMISSION_DENIED,
    b"404": Code.UNIMPLEMENTED,
    b"429": Code.UNAVAILABLE,
    b"502": Code.UNAVAILABLE,
    b"503": Code.UNAVAILABLE,
    b"504": Code.UNAVAILABLE,
}
"""What an answer without grpc-status means, which is some proxy's: gRPC's rule."""


class Exchange:
    """One call on a connection: what its owner is told. ``over`` or ``lost`` is the last, and is called once."""

    # What a call begins with is the class's, not set for each: most of it never changes.
    data = b""
    """The message of a call that has only one, in its frame."""
    connection: Connection | None = None
    stream: Stream | None = None
    pieces: list[bytes] | None = None
    """What has come of a message that is not whole."""
    size_bytes = 0
    http_status = b""

    def message(self, data: bytes) -> None:
        """A message of the answer."""

    def answered_with(self, data: bytes) -> None:
        """The only message of the answer, and its end: OK."""
        self.message(data)
        if self.stream is not None and self.stream.owner is self:
            self.stream.owner = None
            self.over(Code.OK, "")

    def over(self, code: int, text: str) -> None:
        """The server has ended the call, with this status."""

    def lost(self, was_unprocessed: bool, reason: str) -> None:
        """There will be no status. ``was_unprocessed``: it is certain that the server has not looked at the call."""

    def cancel(self) -> None:
        """RST_STREAM. Nothing is called any more."""
        if self.connection is not None and self.stream is not None:
            self.connection.cancel(self.stream)


class Owner(Protocol):
    """The client that has a connection made."""

    def leaving(self, connection: Connection) -> None:
        """The connection takes no further call; those on it may still be answered. May be called again."""

    def turn(self) -> None:
        """What came in one turn has been passed on."""


class Connection(asyncio.Protocol):
    """Made by ``dial``."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address, options: ClientOptions, owner: Owner
    ) -> None:
        self.address = address
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done when the server has spoken; fails if it never will."""
        self.reason = ""
        """Why the connection is over."""
        self.is_retired = False
        """Its owner has another one."""
        self.is_leader = False
        """Of its cluster, when the connection was made."""
        self.blocks: dict[bytes, bytes] = {}
        """Room for its owner: header blocks by path, as long as the token is the same."""
        self.http2 = ClientConnection(self, LIMITS)
        self._loop = loop
        self._owner = owner
        self._message_bytes_max = options.max_message_bytes
        self._keepalive_seconds = options.keepalive_seconds
        self._transport: asyncio.Transport | None = None
        self.is_flush_due = False
        """Somebody is going to call ``flush`` within this turn."""
        self._ok: Headers | None = None
        """The trailers that said OK last: the decoder gives the same list for the same bytes."""
        self._is_pong_due = False
        self._is_closing = False
        self.heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- calls ------------------------------------------------------------------------

    @property
    def takes_calls(self) -> bool:
        """Whether another call can be begun now."""
        return self.http2.can_request and not self.is_retired

    @property
    def is_leaving(self) -> bool:
        return self.is_retired or self.http2.leaving or self.http2.dead

    def ask(self, exchange: Exchange, block: bytes) -> None:
        """Begin a call of one message. Raises ``CannotRequest`` unless ``takes_calls``."""
        exchange.stream = self.http2.ask(block, exchange.data, exchange)
        exchange.connection = self
        if not self.is_flush_due:
            self._flush_soon()

    def begin(self, exchange: Exchange, block: bytes, data: bytes, end: bool) -> None:
        """Begin a call with what is there of its messages. Raises ``CannotRequest`` unless ``takes_calls``."""
        stream = exchange.stream = self.http2.request(block)
        stream.owner = exchange
        exchange.connection = self
        self.http2.write(stream, data, end)
        self._flush_soon()

    def send(self, stream: Stream, data: bytes) -> None:
        """One more message, in its frame."""
        if stream.open:
            self.http2.write(stream, data)
            self._flush_soon()

    def finish(self, stream: Stream) -> None:
        """The last message was sent."""
        if stream.open:
            self.http2.finish(stream)
            self._flush_soon()

    def hold(self, stream: Stream, is_held: bool) -> None:
        """Have the server stop sending more of an answer, or go on."""
        stream.holding = is_held
        if stream.open and not is_held:
            self.http2.give_stream_back(stream)
            self._flush_soon()

    def cancel(self, stream: Stream) -> None:
        if stream.open:
            stream.owner = None
            self.http2.reset(stream, CANCEL)
            self._flush_soon()

    def retire(self) -> None:
        """Take no further call. What is open may end; then the connection is closed."""
        self.is_retired = True
        self.http2.go_away()
        self._flush_soon()

    def close(self, reason: str) -> None:
        """End everything now."""
        self.reason = self.reason or reason
        self.http2.lost()
        transport = self._transport
        if transport is None:
            return
        if not self.address.is_tls:
            with contextlib.suppress(OSError):
                _shut_down(transport.get_extra_info("socket").fileno())
        transport.abort()

    # --- the socket -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        if not self.address.path:
            self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard_at = self._loop.time()
        if self._keepalive_seconds:
            self._timer = self._loop.call_later(self._keepalive_seconds, self._keep_alive)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self.is_flush_due = True
        try:
            self.http2.receive(data)
        finally:
            self._flush_after_receive()
        if not self.ready.done() and self.http2.has_begun:
            self.ready.set_result(None)
        if self.is_leaving:
            self._owner.leaving(self)
        self._owner.turn()

    def connection_lost(self, error: Exception | None) -> None:
        self.reason = self.reason or (str(error) if error else "the server has closed the connection")
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self.http2.lost()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.reason))
        self._owner.leaving(self)
        self._owner.turn()

    def flush(self) -> None:
        """Write what there is."""
        self.is_flush_due = False
        transport = self._transport
        if transport is None:
            return
        data = self.http2.take()
        if data:
            transport.write(data)
            if transport.is_closing() and not self.address.is_tls:  # the server was gone already
                self.http2.not_sent()
        if self._is_closing and not transport.is_closing():  # twice is too much for one of TLS
            transport.close()

    def _flush_after_receive(self) -> None:
        """The answer to a PING alone waits a moment for company: Go's servers send one with every request."""
        out = self.http2.out
        if len(out) == 1 and len(out[0]) == PING_BYTES and out[0][3] == PING:
            self.is_flush_due = False
            if not self._is_pong_due:
                self._is_pong_due = True
                self._loop.call_later(PONG_SECONDS, self._pong)
        else:
            self.flush()

    def _pong(self) -> None:
        self._is_pong_due = False
        self.flush()

    def _flush_soon(self) -> None:
        if not self.is_flush_due:
            self.is_flush_due = True
            self._loop.call_soon(self.flush)

    def _keep_alive(self) -> None:
        """Ask for a sign of life, if none has come for a while and somebody waits for one."""
        quiet_seconds = self._loop.time() - self.heard_at
        left_seconds = self._keepalive_seconds - quiet_seconds
        if left_seconds > 0:
            self._timer = self._loop.call_later(left_seconds, self._keep_alive)
        elif self.http2.streams:
            self.http2.ping(b"alive?\0\0")
            self._flush_soon()
            self._timer = self._loop.call_later(ACK_SECONDS, self._check_alive, self.heard_at)
        else:
            self._timer = self._loop.call_later(self._keepalive_seconds, self._keep_alive)

    def _check_alive(self, heard_at: float) -> None:
        if self.heard_at == heard_at:
            self.close(f"no answer to a PING for {ACK_SECONDS:g} seconds")
        else:
            self._keep_alive()

    # --- what HTTP/2 says -------------------------------------------------------------

    def headers(self, stream: Stream, headers: Headers, ended: bool) -> None:
        exchange: Exchange | None = stream.owner
        if exchange is None:
            return
        if ended:
            stream.owner = None
            self._over(exchange, headers)
        elif headers[0][1] != b"200":
            exchange.http_status = headers[0][1]

    def whole(self, stream: Stream, headers: Headers, payload: bytes, trailers: Headers) -> bool:
        """An answer of one message, which ends as well as the last one did."""
        exchange: Exchange | None = stream.owner
        if exchange is None or trailers is not self._ok or headers[0][1] != b"200" or exchange.pieces:
            return False
        message = lone_message(payload, self._message_bytes_max)
        if message is None:
            return False
        exchange.answered_with(message)
        return True

    def _over(self, exchange: Exchange, headers: Headers) -> None:
        if headers is self._ok and not exchange.pieces:
            exchange.over(Code.OK, "")
            return
        found = dict(headers)
        status = found.get(b"grpc-status")
        if status is not None and status.isdigit() and len(status) <= 3:
            text = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
            code = int(status)
            if code == Code.OK and exchange.pieces:
                code, text = Code.INTERNAL, "the answer ends within a message"
            elif code == Code.OK:
                self._ok = headers
            exchange.over(code, text)
            return
        http_status = exchange.http_status or found.get(b":status", b"200")
        exchange.over(
            _STATUS_OF_HTTP.get(http_status, Code.UNKNOWN),
            f"no gRPC: the answer has HTTP status {http_status.decode('latin-1')} and no grpc-status",
        )

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        exchange: Exchange | None = stream.owner
        if exchange is None:
            return
        message = lone_message(payload, self._message_bytes_max) if exchange.pieces is None else None
        if message is not None:
            exchange.message(message)
        elif exchange.http_status or not payload:
            pass  # the page of some proxy
        else:
            self._gather(exchange, stream, payload)
        if ended and stream.owner is exchange:
            stream.owner = None
            exchange.over(Code.INTERNAL, "the answer ends without a status")

    def _gather(self, exchange: Exchange, stream: Stream, payload: bytes) -> None:
        """Put messages together that do not come in one piece each."""
        pieces = exchange.pieces = exchange.pieces or []
        pieces.append(payload)
        exchange.size_bytes += len(payload)
        while exchange.size_bytes >= PREFIX_BYTES and stream.owner is exchange:
            if len(pieces[0]) < PREFIX_BYTES:
                pieces[:] = [b"".join(pieces)]
            size_bytes = int.from_bytes(pieces[0][1:PREFIX_BYTES], "big")
            if pieces[0][0] or size_bytes > self._message_bytes_max:
                self._refuse(exchange, stream, size_bytes)
                return
            end = PREFIX_BYTES + size_bytes
            if exchange.size_bytes < end:
                return
            whole = b"".join(pieces)
            pieces[:] = [whole[end:]] if len(whole) > end else []
            exchange.size_bytes = len(whole) - end
            exchange.message(whole[PREFIX_BYTES:end])
        if not pieces:
            exchange.pieces = None

    def _refuse(self, exchange: Exchange, stream: Stream, size_bytes: int) -> None:
        self.cancel(stream)
        if size_bytes > self._message_bytes_max:
            exchange.over(
                Code.OUT_OF_RANGE,
                f"the answer has {size_bytes} bytes; max_message_bytes allows {self._message_bytes_max} "
                "(if it was a write, it was made)",
            )
        else:
            exchange.over(Code.INTERNAL, "the answer is compressed, which nobody asked for")

    def reset(self, stream: Stream, code: int) -> None:
        exchange: Exchange | None = stream.owner
        if exchange is not None:
            stream.owner = None
            reason = self.reason or f"the server has reset the call (code {code})"
            exchange.lost(stream.unprocessed, reason)

    def drained(self, stream: Stream) -> None:
        pass

    def closing(self) -> None:
        self._is_closing = True
        if self.http2.dead and not self.ready.done():
            self.reason = self.reason or "it does not speak HTTP/2"
        self._flush_soon()


def _shut_down(descriptor: int) -> None:
    """End a connection, of which a forked child may hold the descriptor, too; uvloop's sockets have no such method."""
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        twin.shutdown(socket.SHUT_RDWR)


async def dial(
    address: Address, context: ssl.SSLContext | None, options: ClientOptions, owner: Owner
) -> Connection:
    """A connection to a server that has spoken. Raises ``OSError`` (and so ``TimeoutError``)."""
    loop = asyncio.get_running_loop()
    connection = Connection(loop, address, options, owner)
    make: Callable[[], Connection] = lambda: connection  # noqa: E731
    secure: dict[str, Any] = {}
    if context is not None:
        secure = {"ssl": context, "server_hostname": options.server_name or address.host or "localhost"}
    try:
        async with asyncio.timeout(options.dial_timeout_seconds):
            if address.path:
                await loop.create_unix_connection(make, address.path, **secure)
            else:
                await loop.create_connection(make, address.host, address.port, **secure)
            await connection.ready
    except BaseException:
        connection.ready.cancel()
        connection.close("the connection is not made")
        raise
    return connection


def tls_context(options: ClientOptions) -> ssl.SSLContext:
    """The TLS of a client. Raises ``OSError`` or ``ssl.SSLError`` for files that cannot be used."""
    context = ssl.create_default_context(cafile=options.ca or None)
    context.set_alpn_protocols(["h2"])
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    return context
