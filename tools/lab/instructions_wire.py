"""Operations of a server, for ``instructions``: requests as they come over loopback, 50 at a time on 50 connections.

    thread of the server's loop     receives, serves, answers
    flusher                         plans, syncs
    this thread                     writes a request on each connection, then reads an answer from each

All three are counted; the last takes about a thousand instructions a request.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kvstore
from kvstore.wire import bytes_field, int_field

from ..serve import collect_rarely
from .benchmarks.etcd_load import GRANT, KEEP_ALIVE, LEASE_SECONDS, PUT, TXN, put_message
from .benchmarks.http2 import Call, Connection, more, prepared
from .benchmarks.server import RANGE

CLIENTS = 50
VALUE = b"v" * 256
ROUNDS = 100
"""At most so many, whose bytes are made beforehand."""
ANSWER_BYTES_MAX = 1 << 16
QUIET_SECONDS = 0.5
"""After which a server has said all that it says of itself."""


class Clients:
    """Connections to a store that is served here."""

    def __init__(self, store: Any) -> None:
        self._threshold = gc.get_threshold()
        collect_rarely()  # as ``kvstore serve`` does
        self._served = kvstore.serve(store, "http://127.0.0.1:0")
        port = int(self._served.endpoints[0].rpartition(":")[2])
        self.connections = [Connection(port) for _ in range(CLIENTS)]
        self.requests: Iterator[list[bytes]] = iter(())
        """Rounds of requests, one for each connection."""

    def begin(self, calls: Sequence[Call]) -> list[int]:
        """Make a call on each connection, and wait until all is said. Returns their streams."""
        streams = [each.call(call) for each, call in zip(self.connections, calls, strict=True)]
        for each in self.connections:
            each.flush()
        time.sleep(QUIET_SECONDS)
        for each in self.connections:
            list(each.receive())
            each.flush()
        time.sleep(QUIET_SECONDS)
        return streams

    def __call__(self, count: int) -> None:
        sockets = [each.socket for each in self.connections]
        for _ in range(0, count, CLIENTS):
            for socket, request in zip(sockets, next(self.requests), strict=True):
                socket.send(request)
            for socket in sockets:
                socket.recv(ANSWER_BYTES_MAX)

    def close(self) -> None:
        self._served.stop(0.0)
        gc.set_threshold(*self._threshold)
        gc.unfreeze()


def _unary(store: Any, calls: Callable[[int], list[Call]]) -> Clients:
    """Calls with one answer: ``calls`` of a round."""
    clients = Clients(store)
    (stream, *_) = clients.begin(calls(0))

    numbers = [(stream + 2 * at).to_bytes(4, "big") for at in range(ROUNDS)]
    clients.requests = iter(
        [[numbers[at].join(call.pieces) for call in calls(at)] for at in range(1, ROUNDS)]
    )
    return clients


def _key(client: int, at: int) -> bytes:
    return b"key/%012d" % ((client * 7919 + at * CLIENTS) % 20_000)


def get(store: Any) -> Clients:
    return _unary(
        store, lambda at: [prepared(RANGE, bytes_field(1, _key(each, at))) for each in range(CLIENTS)]
    )


def put(store: Any) -> Clients:
    return _unary(
        store, lambda at: [prepared(PUT, put_message((_key(each, at), VALUE))) for each in range(CLIENTS)]
    )


def update(store: Any) -> Clients:
    """kube-apiserver's transaction, of keys that each client has for itself."""

    def message(client: int, at: int) -> bytes:
        key = b"/registry/leases/%04d" % client
        compare = bytes_field(3, key) + int_field(4, at)  # the version, which is known beforehand
        success, failure = bytes_field(2, put_message((key, VALUE))), bytes_field(1, bytes_field(1, key))
        return bytes_field(1, compare) + bytes_field(2, success) + bytes_field(3, failure)

    return _unary(store, lambda at: [prepared(TXN, message(each, at)) for each in range(CLIENTS)])


def renew(store: Any) -> Clients:
    """A stream on each connection, which keeps a lease alive."""
    clients = Clients(store)
    leases = range(1, CLIENTS + 1)
    clients.begin([prepared(GRANT, int_field(1, LEASE_SECONDS) + int_field(2, lease)) for lease in leases])
    asked = [int_field(1, lease) for lease in leases]
    streams = clients.begin([prepared(KEEP_ALIVE, each, last=False) for each in asked])
    again = [
        stream.to_bytes(4, "big").join(more(each).pieces) for stream, each in zip(streams, asked, strict=True)
    ]
    clients.requests = itertools.repeat(again)
    return clients


OPERATIONS: dict[str, Callable[[Any], Clients]] = {
    "wire-get": get,
    "wire-put": put,
    "wire-txn": update,
    "wire-renew": renew,
}
