"""A server of etcd's API that says what a test has put down for it: HTTP/2 of the project's own, and no store.

with ScriptedServer() as server:
    server.script("Put", cut, ok(...))      the first Put is cut off, the second answered, more as by default
    server.asked                            [("Put", message), ...] in the order in which they came
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Self

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.grpc import OK, framed, head, trailers
from kvstore.network.http2.connection import ServerConnection
from kvstore.network.http2.frames import frame
from kvstore.network.http2.stream import Stream

Action = Callable[["Peer", Stream], None]
CLUSTER, MEMBER = 77, 5
HEAD = head(b"application/grpc")


def header(revision: int = 10, cluster_id: int = CLUSTER) -> Any:
    return pb.ResponseHeader(cluster_id=cluster_id, member_id=MEMBER, revision=revision)


def ok(message: Any) -> Action:
    """Answer with a message."""
    return lambda peer, stream: peer.http2.answer(stream, HEAD, framed(message.SerializeToString()), OK)


def raw(data: bytes, end: bytes = OK) -> Action:
    """Answer with these bytes of DATA."""
    return lambda peer, stream: peer.http2.answer(stream, HEAD, data, end)


def status(code: int, text: str) -> Action:
    """Refuse."""

    def say(peer: Peer, stream: Stream) -> None:
        peer.http2.close(stream, HEAD + trailers(code, text))

    return say


def reset(code: int) -> Action:
    """RST_STREAM."""
    return lambda peer, stream: peer.http2.reset(stream, code)


def cut(peer: Peer, stream: Stream) -> None:
    """End the connection without a word."""
    peer.transport.abort()


def silent(peer: Peer, stream: Stream) -> None:
    """Say nothing."""


def deaf(peer: Peer, stream: Stream) -> None:
    """Read nothing more on this connection."""
    peer.transport.pause_reading()


def gone(peer: Peer, stream: Stream) -> None:
    """GOAWAY that says the call was never looked at."""
    peer.http2.out.append(frame(7, 0, 0, (0).to_bytes(4, "big") + (0).to_bytes(4, "big")))


def _default(name: str) -> Action:
    kind = getattr(pb, f"{name}Response")
    more = {"token": "t0"} if name == "Authenticate" else {}
    return ok(kind(header=header(), **more))


class Peer(asyncio.Protocol):
    """One connection of the server."""

    transport: asyncio.Transport

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self.http2 = ServerConnection(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.peers.append(self)
        if not self._server.is_mute:
            self.flush()

    def data_received(self, data: bytes) -> None:
        if self._server.is_mute:
            return
        self.http2.receive(data)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.http2.lost()

    def flush(self) -> None:
        data = self.http2.take()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    # --- the handler ------------------------------------------------------------------

    def route(self, headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        return dict(headers)

    def begin(self, stream: Stream, route: dict[bytes, bytes], ended: bool) -> None:
        stream.owner = (route, bytearray())

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        route, received = stream.owner
        received += payload
        if ended:
            name = route[b":path"].rpartition(b"/")[2].decode()
            self._server.asked.append((name, bytes(received[5:])))
            self._server.tokens.append(route.get(b"token", b""))
            self._server.next_action(name)(self, stream)

    def reset(self, stream: Stream, code: int) -> None:
        self._server.resets.append(code)
        self.http2.done_with(stream)

    def drained(self, stream: Stream) -> None:
        pass

    def closing(self) -> None:
        pass


class ScriptedServer:
    """The server, on a loop of its own, until the end of a ``with`` block."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.tokens: list[bytes] = []
        self.resets: list[int] = []
        self.peers: list[Peer] = []
        self.is_mute = False
        """Accept connections, and say nothing on them."""
        self._scripts: dict[str, deque[Action]] = defaultdict(deque)
        self._always: dict[str, Action] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(self._loop.create_server(lambda: Peer(self), "127.0.0.1", port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"etcd://{self.address}"

    def script(self, name: str, *actions: Action) -> None:
        """What is done for the next calls of a method."""
        self._scripts[name].extend(actions)

    def always(self, name: str, action: Action) -> None:
        """What is done for calls of a method that no script is left for."""
        self._always[name] = action

    def next_action(self, name: str) -> Action:
        script = self._scripts[name]
        return script.popleft() if script else self._always.get(name) or _default(name)

    def count(self, name: str) -> int:
        """How often a method was asked."""
        return sum(asked == name for asked, _ in self.asked)

    def call(self, function: Callable[[], object]) -> None:
        """Do something on the server's loop, and wait for it."""

        async def run() -> None:
            function()
            for peer in self.peers:
                peer.flush()

        self._run(run())

    def stop_listening(self) -> None:
        """Cut every connection, and accept no other."""

        def stop() -> None:
            self._server.close()
            for peer in self.peers:
                peer.transport.abort()

        self.call(stop)

    def reset_connections(self) -> None:
        """Have every connection reset, which its other end finds out when it reads or writes next."""

        def reset_them() -> None:
            for peer in self.peers:
                linger = struct.pack("ii", 1, 0)
                peer.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                peer.transport.abort()

        self.call(reset_them)
        self.call(lambda: None)  # sockets are closed in the turn that follows

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for peer in self.peers:
                peer.transport.abort()

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
