"""A load generator for etcd, in a process of its own: ``python -m kvstore.tools.lab.benchmarks.etcd_load '{...}'``.

Takes one job as JSON and prints what it measured as JSON. ``clients`` calls are always in flight, spread over
``connections``; whenever one returns the next goes out.

    {"job": "put",    "clients": 64, "connections": 8, "seconds": 2, "keys": 100000}    random keys
    {"job": "txn",    ... as put}                                                       100 puts each
    {"job": "fill",   "keys": 100000}                      every key once, in transactions of 100
    {"job": "single", "count": 100000, "keys": 1000}       ``count`` puts, one revision each
    {"job": "replay", "events": 1000000}                   watch from revision 1 until ``events`` events have come
    {"job": "live",   "events": 200000, "clients": 4}      watch while transactions of 100 puts are written
"""

from __future__ import annotations

import itertools
import json
import selectors
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from kvstore.model import prefix_end
from kvstore.wire import bytes_field, int_field

from .http2 import Broken, Connection, header_block
from .timing import percentile
from .workload import PREFIX, TXN_PUTS, Pair, Workload

PUT = header_block("/etcdserverpb.KV/Put")
TXN = header_block("/etcdserverpb.KV/Txn")
RANGE = header_block("/etcdserverpb.KV/Range")
WATCH = header_block("/etcdserverpb.Watch/Watch")

Call = tuple[bytes, bytes]


def put_message(pair: Pair) -> bytes:
    return bytes_field(1, pair[0]) + bytes_field(2, pair[1])


def txn_message(pairs: list[Pair]) -> bytes:
    """TxnRequest.success = RequestOp.request_put ..."""
    return b"".join(bytes_field(2, bytes_field(2, put_message(pair))) for pair in pairs)


class Loop:
    """Connections, the calls on them, and how long each took."""

    def __init__(self, port: int, connections: int) -> None:
        self.connections = [Connection(port) for _ in range(connections)]
        self.selector = selectors.DefaultSelector()
        for connection in self.connections:
            connection.socket.setblocking(True)
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        self.begun: dict[tuple[Connection, int], float] = {}
        self.answered: set[tuple[Connection, int]] = set()
        self.took: list[float] = []
        self.watched: Callable[[bytes], None] | None = None
        self.watch: tuple[Connection, int] | None = None

    def send(self, connection: Connection, call: Call) -> None:
        stream = connection.call(*call)
        self.begun[connection, stream] = time.perf_counter()

    def run(self, calls: Iterator[Call], clients: int, go_on: Callable[[], bool]) -> float:
        """Keep ``clients`` calls in flight while ``go_on`` says so. Returns the seconds until the last answer."""
        begin = time.perf_counter()
        for number, call in enumerate(itertools.islice(calls, clients)):
            self.send(self.connections[number % len(self.connections)], call)
        for connection in self.connections:
            connection.flush()
        while self.begun or (self.watch is not None and go_on()):
            for ready, _ in self.selector.select():
                self._serve(ready.data, calls, go_on)
        return time.perf_counter() - begin

    def _serve(self, connection: Connection, calls: Iterator[Call], go_on: Callable[[], bool]) -> None:
        for stream, data, ended in connection.receive():
            where = connection, stream
            if where == self.watch:
                if ended or self.watched is None:
                    raise Broken("the watch ended")
                self.watched(data)
                continue
            if data:
                self.answered.add(where)
            if ended:
                self._finish(where)
                if go_on() and (call := next(calls, None)) is not None:
                    self.send(connection, call)
        connection.flush()

    def _finish(self, where: tuple[Connection, int]) -> None:
        self.took.append(time.perf_counter() - self.begun.pop(where))
        if where not in self.answered:
            raise Broken("etcd refused a request")
        self.answered.discard(where)


# --- jobs ------------------------------------------------------------------------------


def write(port: int, job: dict[str, Any]) -> dict[str, float]:
    """``put`` and ``txn``, for ``seconds``."""
    workload = Workload(job["keys"])
    loop = Loop(port, job["connections"])
    end = time.perf_counter() + job["seconds"]
    calls = _puts(workload) if job["job"] == "put" else _txns(workload)
    seconds = loop.run(calls, job["clients"], lambda: time.perf_counter() < end)
    return _result(len(loop.took), seconds, loop.took)


def fill(port: int, job: dict[str, Any]) -> dict[str, float]:
    calls = ((TXN, txn_message(pairs)) for pairs in Workload(job["keys"]).all_pairs())
    loop = Loop(port, 4)
    seconds = loop.run(calls, 16, lambda: True)
    return _result(len(loop.took), seconds, loop.took)


def single(port: int, job: dict[str, Any]) -> dict[str, float]:
    loop = Loop(port, 8)
    seconds = loop.run(itertools.islice(_puts(Workload(job["keys"])), job["count"]), 64, lambda: True)
    return _result(len(loop.took), seconds, loop.took)


def replay(port: int, job: dict[str, Any]) -> dict[str, float]:
    counter = EventCounter()
    loop = _watching(port, counter, start_revision=1)
    seconds = loop.run(iter(()), 0, lambda: counter.events < job["events"])
    return _result(counter.events, seconds, [])


def live(port: int, job: dict[str, Any]) -> dict[str, float]:
    counter, expected = EventCounter(), job["events"]
    loop = _watching(port, counter, start_revision=0)
    loop.run(iter(()), 0, lambda: not counter.created)
    calls = itertools.islice(_txns(Workload(job["keys"])), expected // TXN_PUTS)
    seconds = loop.run(calls, job["clients"], lambda: counter.events < expected)
    return _result(counter.events, seconds, [])


def _puts(workload: Workload) -> Iterator[Call]:
    while True:
        yield PUT, put_message(workload.pair())


def _txns(workload: Workload) -> Iterator[Call]:
    while True:
        yield TXN, txn_message(workload.batch())


def _watching(port: int, counter: EventCounter, start_revision: int) -> Loop:
    loop = Loop(port, 4)
    create = bytes_field(1, PREFIX) + bytes_field(2, prefix_end(PREFIX)) + int_field(3, start_revision)
    connection = loop.connections[0]
    loop.watch = connection, connection.call(WATCH, bytes_field(1, create), last=False)
    loop.watched = counter.feed
    connection.flush()
    return loop


class EventCounter:
    """Counts the events in a stream of WatchResponse messages, which come in pieces."""

    def __init__(self) -> None:
        self.events = 0
        self.created = False
        self._pieces = bytearray()

    def feed(self, data: bytes) -> None:
        self._pieces += data
        while len(self._pieces) >= 5:
            end = 5 + int.from_bytes(self._pieces[1:5], "big")
            if len(self._pieces) < end:
                return
            self._count(bytes(self._pieces[5:end]))
            del self._pieces[:end]

    def _count(self, message: bytes) -> None:
        """Field 11 is an event, field 3 says that the watch was created; the rest is skipped."""
        at, size_bytes = 0, len(message)
        while at < size_bytes:
            tag = message[at]
            value, shift, at = 0, 0, at + 1
            while True:
                byte = message[at]
                value |= (byte & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if byte < 0x80:
                    break
            if tag & 7 == 2:
                at += value
            self.events += tag == 0x5A
            self.created |= tag == 0x18


def _result(done: int, seconds: float, took: list[float]) -> dict[str, float]:
    """``took``: how long each call took, in seconds."""
    result = {"done": done, "seconds": seconds, "cpu_seconds": time.process_time()}
    if took:
        result |= {"p50_ms": percentile(took, 50) * 1000, "p99_ms": percentile(took, 99) * 1000}
    return result


JOBS: dict[str, Callable[[int, dict[str, Any]], dict[str, float]]] = {
    "put": write,
    "txn": write,
    "fill": fill,
    "single": single,
    "replay": replay,
    "live": live,
}


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps(JOBS[job["job"]](job["port"], job)))


if __name__ == "__main__":
    main()
