"""A TCP proxy in front of a server, which cuts, resets or stalls connections where a test says.

    with CuttingProxy(*server_address) as proxy:
        proxy.plan(Fault("down", 300))          # the next connection ends after 300 bytes of answers
        client(proxy.address) ...
        proxy.cut()                             # and all that are open now end at once

A fault counts the bytes of one direction of its connection: those before it pass, the rest does not, so that it falls
into the middle of whatever is on the way. Connections beyond what was planned work.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

CHUNK_BYTES = 1 << 16
_RESETS = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close sends RST and drops what is not sent."""


@dataclass(frozen=True)
class Fault:
    """What becomes of a connection once ``after_bytes`` have passed to the server (up) or the client (down).

    ``cut``: it is closed. ``reset``: the same with RST, so that what the other side has not read is lost, too.
    ``stall``: nothing passes that way any more, and the connection stays.
    """

    direction: Literal["up", "down"]
    after_bytes: int = 0
    how: Literal["cut", "reset", "stall"] = "cut"


class _Connection:
    def __init__(
        self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        self.writers = {"up": server, "down": client}
        self.fault = fault
        self.over = asyncio.Event()

    def close(self, how: str = "cut") -> None:
        for writer in self.writers.values():
            if how == "reset":
                found: socket.socket = writer.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
                writer.transport.abort()
            else:
                writer.close()
        self.over.set()


class CuttingProxy:
    """Listens on a port of its own, on a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._faults: deque[Fault] = deque()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self.passed_bytes = {"up": 0, "down": 0}
        """Of all connections."""
        self.accepted = 0
        """How many connections there have been."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._passes = asyncio.Event()
        self._passes.set()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(),), daemon=True
        )
        self._thread.start()

    # --- what a test says -------------------------------------------------------------

    def plan(self, *faults: Fault) -> None:
        """One for each of the next connections."""
        self._faults.extend(faults)

    def forget_plans(self) -> None:
        """Let the next connections work."""
        self._faults.clear()

    def cut(self, how: Literal["cut", "reset"] = "cut") -> None:
        """End every connection that is open. Returns when that is done."""
        self._call(partial(self._cut, how))

    def stall(self) -> None:
        """Let nothing pass, until ``go_on``."""
        self._call(self._passes.clear)

    def go_on(self) -> None:
        self._call(self._passes.set)

    def refuse(self, refuses: bool = True) -> None:
        """Close new connections at once, or serve them again."""
        self._refuses = refuses

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self, how: str) -> None:
        for connection in list(self._connections):
            connection.close(how)

    def _call(self, what: Callable[[], None]) -> None:
        """On the loop's thread; returns when it is done."""
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        done.wait()

    # --- connections ------------------------------------------------------------------

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._listener)
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.close("reset")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        fault = self._faults.popleft() if self._faults else None
        try:
            if self._refuses:
                raise ConnectionError
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()
            return
        connection = _Connection(writer, server_writer, fault)
        self._connections.add(connection)
        pumps = [
            asyncio.ensure_future(self._pump(connection, "up", reader)),
            asyncio.ensure_future(self._pump(connection, "down", server_reader)),
        ]
        self._tasks.update(pumps)
        try:
            await connection.over.wait()
        finally:
            self._connections.discard(connection)
            for pump in pumps:
                pump.cancel()
                self._tasks.discard(pump)

    async def _pump(
        self, connection: _Connection, direction: Literal["up", "down"], reader: asyncio.StreamReader
    ) -> None:
        fault = connection.fault
        left = fault.after_bytes if fault is not None and fault.direction == direction else None
        writer = connection.writers[direction]
        try:
            while left is None or left > 0:
                data = await reader.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
                if not data:
                    break
                await self._passes.wait()
                if left is not None:
                    left -= len(data)
                self.passed_bytes[direction] += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        if left == 0 and fault is not None and fault.how == "stall":
            await connection.over.wait()
        connection.close(fault.how if left == 0 and fault is not None else "cut")
