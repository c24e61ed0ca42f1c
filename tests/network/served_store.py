"""A served store, connections to it, and a look at what it holds for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.budget import Budget
from kvstore.network.http2.frames import PREFACE, settings
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import LIMITS, Limits
from kvstore.network.server import Server
from tests.network.wire import TIMEOUT_SECONDS, Wire

RANGE, PUT, WATCH = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"


def until(happens: Callable[[], object], seconds: float = 60) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def get(key: bytes) -> bytes:
    """The message that asks for a key."""
    message: bytes = pb.RangeRequest(key=key).SerializeToString()
    return message


def block(path: str) -> bytes:
    return encode(
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"a"),
            (b"content-type", b"application/grpc"),
        ]
    )


def is_cut(flooder: socket.socket) -> bool:
    """Whether the server has closed; read to the end."""
    try:
        while flooder.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


class Served:
    """A store that is served in this process."""

    def __init__(self, store: kvstore.Store, **options: Any) -> None:
        self.store = store
        self._serving: Any = kvstore.serve(store, "http://127.0.0.1:0", **options)
        host, port = self._serving.endpoints[0].removeprefix("http://").split(":")
        self.address = host, int(port)
        self._opened: list[Any] = []

    @property
    def server(self) -> Server:
        server: Server = self._serving._serving._server
        return server

    @property
    def budget(self) -> Budget:
        return self.server.endpoint.budget

    def connect(self, limits: Limits = LIMITS) -> Wire:
        wire = Wire(*self.address, limits)
        self._opened.append(wire)
        return wire

    def raw(self, first: bytes = PREFACE + settings()) -> socket.socket:
        """A socket that has sent this, and answers nothing by itself."""
        found = socket.create_connection(self.address, TIMEOUT_SECONDS)
        found.sendall(first)
        self._opened.append(found)
        return found

    def answers(self) -> bool:
        """Whether a client that comes now is served."""
        with Wire(*self.address) as wire:
            return bool(wire.call(RANGE, get(b"k")))

    def stop(self, grace_seconds: float) -> None:
        self._serving.stop(grace_seconds)

    def close(self) -> None:
        for each in self._opened:
            each.close()
        self.stop(0.0)
