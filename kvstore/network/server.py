"""The server: listeners, and the connections that they accept.

What a connection speaks is seen by its first bytes: HTTP/2 begins with a preface of its own, all else is HTTP/1.1.
Whoever speaks it then gets what comes from the transport itself.

    drain    accept no more -> tell every connection that no new request will be served -> those under way end, streams
             of answers are ended -> connections are closed

Everything here runs on the endpoint's loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import weakref
from typing import Any, Protocol, cast

from kvstore.files import let_go
from kvstore.network import limits
from kvstore.network.addresses import Listener, Serves
from kvstore.network.call import Peer
from kvstore.network.endpoint import Endpoint
from kvstore.network.grpc_peer import GrpcPeer
from kvstore.network.sockets import Bound
from kvstore.network.tls import TLS

logger = logging.getLogger("kvstore.network")

ACCEPT_PAUSE_SECONDS = 1.0
"""Before another connection is accepted, where the system had no room for one."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child has the parent's sockets: clients would go on waiting for a parent that is gone."""
    for server in list(_servers):
        for descriptor in server.descriptors():
            let_go(descriptor)


os.register_at_fork(after_in_child=_let_go_in_child)


class Speaker(Protocol):
    """One connection, in the protocol that it speaks."""

    def receive(self, data: bytes) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def lost(self) -> None: ...
    def drain(self) -> None:
        """Serve no new request; close when the last one is answered."""

    def cut(self) -> None:
        """End what is under way."""


def max_connections() -> int:
    """How many are accepted at one time."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limits.CONNECTIONS
    return max(min(limits.CONNECTIONS, descriptors - limits.SPARE_DESCRIPTORS), 1)


HTTP1_LACKS = "HTTP/1.1 needs a package: pip install 'kvstore-mvcc[serve]'"


class Lacking:
    """HTTP/1.1 where the package for it is not installed: the client is told so, and has to go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._transport = transport
        head = "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        text = HTTP1_LACKS + "\n"
        transport.write(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        loop.call_later(
            limits.PREFACE_SECONDS, transport.abort
        )  # not at once: that could overtake the answer

    def receive(self, data: bytes) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def lost(self) -> None: ...
    def drain(self) -> None:
        self._transport.abort()

    cut = drain


async def _readable(loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
    """Wait until somebody may be accepted. (Canceled in a bad moment, ``loop.sock_accept`` drops who was.)"""
    seen = asyncio.Event()
    loop.add_reader(listening, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(listening)


class Server:
    """The listeners of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.connections: set[Connection] = set()
        self.urls: list[str] = []
        """Where it listens, with real ports."""
        self._bound: list[Bound] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._accepted: set[socket.socket] = set()
        """Sockets that nobody has begun to make a connection of."""
        self._max_connections = max_connections()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._all_closed = asyncio.Event()
        self.is_draining = False
        _servers.add(self)

    def descriptors(self) -> list[int]:
        """Those of all sockets that are open."""
        sockets = [bound.socket for bound in self._bound]
        sockets += [found for each in self.connections if (found := each.socket) is not None]
        return [descriptor for each in sockets if (descriptor := each.fileno()) >= 0]

    async def listen(self, bound: Bound, tls: TLS | None = None) -> None:
        """Accept connections there from now on. ``tls``: needed where the listener speaks it."""
        self._accepting.append(self.endpoint.loop.create_task(self._accept(bound, tls)))
        self._bound.append(bound)
        self.urls.append(bound.url)

    async def _accept(self, bound: Bound, tls: TLS | None) -> None:
        loop = self.endpoint.loop
        while True:
            await self._has_room.wait()
            await _readable(loop, bound.socket)
            try:
                accepted, _ = bound.socket.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    logger.warning("no connection can be accepted: %s", error)
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            accepted.setblocking(False)
            self._accepted.add(accepted)
            task = loop.create_task(self._connect(accepted, bound.listener, tls))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
            self._look_for_room()
            await asyncio.sleep(0)

    async def _connect(self, accepted: socket.socket, at: Listener, tls: TLS | None) -> None:
        self._accepted.discard(accepted)
        secure: dict[str, Any] = {}
        if at.is_tls:
            assert tls is not None
            secure = {"ssl": tls.context, "ssl_handshake_timeout": limits.HANDSHAKE_SECONDS}
        try:
            await self.endpoint.loop.connect_accepted_socket(
                lambda: Connection(self, at, tls), accepted, **secure
            )
        except OSError as error:
            logger.debug("a connection was not made: %s", error)
        finally:
            self._look_for_room(1)

    def _look_for_room(self, leaving: int = 0) -> None:
        """Accept no more, or again. A connection that is being made counts."""
        if len(self.connections) + len(self._connecting) - leaving < self._max_connections:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def drain(self, grace_seconds: float = 5.0) -> None:
        """Let what is under way come to an end, for so long, and close every connection."""
        self.is_draining = True
        tasks = [*self._accepting, *self._connecting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening_or_new in [*(bound.socket for bound in self._bound), *self._accepted]:
            listening_or_new.close()
        for connection in list(self.connections):
            connection.drain()
        await self._closed_within(grace_seconds)
        for connection in list(self.connections):
            connection.cut()
        await self._closed_within(1.0)
        self.endpoint.close()

    async def _closed_within(self, seconds: float) -> None:
        self._all_closed.clear()
        if self.connections:
            try:
                await asyncio.wait_for(self._all_closed.wait(), seconds)
            except TimeoutError:
                pass

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._look_for_room()
        if not self.connections:
            self._all_closed.set()


class Connection(asyncio.Protocol):
    """A socket, until it is clear what it speaks; then it passes everything on."""

    def __init__(self, server: Server, listener: Listener, tls: TLS | None = None) -> None:
        self._server = server
        self._listener = listener
        self._tls = tls if listener.is_tls else None
        self._first = b""
        self._speaker: Speaker | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are of another class
        self._server.connections.add(self)
        if not self._listener.path:
            found = transport.get_extra_info("socket")
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timer = self._server.endpoint.loop.call_later(limits.PREFACE_SECONDS, transport.abort)
        if self._server.is_draining or self._is_refused():
            transport.abort()

    def _is_refused(self) -> bool:
        """Whether the certificate that a client has shown is for nobody whom we let in."""
        if self._tls is None:
            return False
        refusal = self._tls.refusal(self._transport.get_extra_info("peercert"))
        if refusal:
            address = self._transport.get_extra_info("peername")
            logger.warning("a client was turned away: %s", refusal, extra={"remote-addr": str(address)})
        return bool(refusal)

    def data_received(self, data: bytes) -> None:
        self._first += data
        if len(self._first) < len(PREFACE) and PREFACE.startswith(self._first):
            return
        self._speaker = self._choose(self._first.startswith(PREFACE))
        if self._timer is not None:
            self._timer.cancel()
        if self._speaker is None:
            self._transport.abort()
            return
        self.data_received = self._speaker.receive  # type: ignore[method-assign]
        self._transport.set_protocol(self)  # it may have kept the method
        self._speaker.receive(self._first)
        self._first = b""

    def _choose(self, is_http2: bool) -> Speaker | None:
        serves = self._listener.serves
        if (serves is Serves.GRPC and not is_http2) or (serves in (Serves.HTTP, Serves.METRICS) and is_http2):
            return None
        peer = self._peer()
        if is_http2:
            return GrpcPeer(self._server.endpoint, self._transport, peer)
        try:
            from kvstore.network.http1_peer import Http1Peer
        except ModuleNotFoundError as error:
            logger.error(HTTP1_LACKS, extra={"error": str(error)})
            return Lacking(self._server.endpoint.loop, self._transport)
        return Http1Peer(
            self._server.endpoint, self._transport, peer, is_for_monitors=serves is Serves.METRICS
        )

    def _peer(self) -> Peer:
        address = self._transport.get_extra_info("peername")
        user = self._tls.user_of(self._transport.get_extra_info("peercert")) if self._tls is not None else ""
        return Peer(address[0] if isinstance(address, tuple) else "", self._tls is not None, user)

    @property
    def socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def pause_writing(self) -> None:
        if self._speaker is not None:
            self._speaker.pause()

    def resume_writing(self) -> None:
        if self._speaker is not None:
            self._speaker.resume()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.forget(self)
        if self._speaker is not None:
            self._speaker.lost()

    def drain(self) -> None:
        if self._speaker is None:
            self._transport.abort()
        else:
            self._speaker.drain()

    def cut(self) -> None:
        if self._speaker is not None:
            self._speaker.cut()
        self._transport.abort()
