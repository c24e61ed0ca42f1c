"""The loop of the load generator: connections, clients that make one call after another, and what that cost.

    Client.next -> call -> answer -> Client.heard -> Client.next -> ...      while the job goes on

A stream that stays open is not a call of a client's: the object that opened it hears of its bytes.
"""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from .http2 import Broken, Call, Connection
from .server import SERVER_CPU, cpu_seconds
from .timing import percentile

GoOn = Callable[[], bool]
Hear = Callable[[bytes], None]


class Client:
    """Makes the calls of an iterator. ``took``: how long each took, in seconds."""

    def __init__(self, calls: Iterator[Call], took: list[float]) -> None:
        self._calls = calls
        self.took = took

    def next(self) -> Call | None:
        return next(self._calls, None)

    def heard(self, data: bytes) -> None:
        """The answer to its last call, or a piece of a large one."""


class Line(Connection):
    """A connection, and what is under way on it."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.begun: dict[int, tuple[Client, float]] = {}
        self.answered: set[int] = set()
        self.streams: dict[int, Hear] = {}


class Cost(NamedTuple):
    """Time, and CPU time of both processes."""

    seconds: float
    server_seconds: float
    own_seconds: float


class Loop:
    """Lines to one server, whose process is ``server``."""

    def __init__(self, port: int, lines: int, server: int) -> None:
        self.lines = [Line(port) for _ in range(lines)]
        self._server = server
        self._epoll = select.epoll()
        self._line_at = {line.socket.fileno(): line for line in self.lines}
        for number in self._line_at:
            self._epoll.register(number, select.EPOLLIN)
        self._in_flight = 0
        self._cost = Cost(0.0, 0.0, 0.0)

    def open(self, line: Line, call: Call, hear: Hear) -> int:
        """Begin a call that stays open. Returns its stream."""
        stream = line.call(call)
        line.streams[stream] = hear
        line.flush()
        return stream

    def run(self, clients: Sequence[Client], go_on: GoOn, *, until: GoOn = lambda: False) -> None:
        """Have each client, on its line, call while ``go_on`` says so; wait for the answers, and while ``until``."""
        for client, line in zip(clients, itertools.cycle(self.lines), strict=False):
            self._send(line, client)
        for line in self.lines:
            line.flush()
        while self._in_flight or until():
            for number, _ in self._epoll.poll():
                self._serve(self._line_at[number], go_on)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """What happens within is what ``result`` is about."""
        begin, server, own = time.perf_counter(), cpu_seconds(self._server), time.process_time()
        yield
        self._cost = Cost(
            time.perf_counter() - begin, cpu_seconds(self._server) - server, time.process_time() - own
        )

    def result(self, done: int, took: Sequence[float] = ()) -> dict[str, float]:
        """What was measured, while ``done`` operations were carried out."""
        cost, done = self._cost, max(done, 1)
        result = {
            "done": float(done),
            "seconds": cost.seconds,
            SERVER_CPU: cost.server_seconds / done * 1e6,
            "client_cpu_us_per_op": cost.own_seconds / done * 1e6,
        }
        if took:
            result |= {"p50_ms": percentile(took, 50) * 1000, "p99_ms": percentile(took, 99) * 1000}
        return result

    def _send(self, line: Line, client: Client) -> None:
        call = client.next()
        if call is not None:
            line.begun[line.call(call)] = client, time.perf_counter()
            self._in_flight += 1

    def _serve(self, line: Line, go_on: GoOn) -> None:
        for stream, data, ended in line.receive():
            under_way = line.begun.get(stream)
            if under_way is None:
                if ended:
                    raise Broken("a stream ended that was to stay open")
                line.streams[stream](data)
                continue
            client, begun_at = under_way
            if data:
                line.answered.add(stream)
                client.heard(data)
            if ended:
                client.took.append(time.perf_counter() - begun_at)
                del line.begun[stream]
                self._in_flight -= 1
                if stream not in line.answered:
                    raise Broken("the server refused a request")
                line.answered.remove(stream)
                if go_on():
                    self._send(line, client)
        line.flush()
