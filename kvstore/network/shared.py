"""A store that many processes of one machine have open: ``kvstore.open(path, shared=True)``.

    process A   SharedEngine ──> client ──┐                      ┌──> Seat: LocalEngine, served at data/SOCKET
    process B   SharedEngine ──> client ──┴──> data/SOCKET ──────┘        (A, until it leaves; then B)

Every handle is an engine that asks a server (``remote``), with a seat beside it (``seat``). The client tells the seat
when nobody answers, and whoever sits down first serves the others from then on. What a client does when a server fails
is all there is to a change of seats: calls that were not sent are repeated, watches resume, leases are kept alive.

The process that sits reads and writes its own engine directly from its threads: a get takes 2.4 µs of CPU so, and 160
through the socket. Watches, leases and tasks always go through the socket: none of them has to move with the seat.

What only a local store can do is refused in the process that sits, too: which one that is is chance, and no program
should depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kvstore.backend import find_backend
from kvstore.directory import check_backend
from kvstore.engine import LocalEngine
from kvstore.errors import StoreClosed, Unavailable, again
from kvstore.files import disk_full_is_typed
from kvstore.model import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from kvstore.network.remote.calls import Call
from kvstore.network.remote.client import Client
from kvstore.network.remote.endpoints import Endpoints
from kvstore.network.remote.engine import RemoteEngine
from kvstore.network.remote.options import Address, ClientOptions, Target
from kvstore.network.seat import Seat, Serve
from kvstore.options import BadOption, Options

TIMEOUT_SECONDS = 30.0
"""How long a call may take unless ``timeout_seconds`` says otherwise: another process may have to recover meanwhile."""


class SharedEndpoints(Endpoints):
    """One socket, which is asked again at once: its trouble is that nobody sits behind it."""

    def __init__(self, address: Address, now: Callable[[], float], seat: Seat) -> None:
        super().__init__([address], now)
        self._seat = seat

    all_down = True  # so that there is a pause between two attempts, which grows

    def failed(self, address: Address) -> None:
        self._seat.look()


class SharedEngine(RemoteEngine):
    """A store of this machine that others have open, too. Thread-safe."""

    def __init__(self, client: Client, seat: Seat) -> None:
        super().__init__(client)
        self._seat = seat

    @property
    def where(self) -> str:
        return f"{self._seat.directory.root} (shared)"

    # --- what the process that sits does itself ---------------------------------------
    #
    # ``StoreClosed`` says that the seat was left a moment ago, and that nothing was done.

    def get(self, key: bytes) -> Any:
        local = self._seat.local
        if local is not None:
            with suppress(StoreClosed):
                return local.get(key)
        return super().get(key)

    def get_at(self, key: bytes, revision: int) -> Any:
        local = self._seat.local
        if local is not None:
            with suppress(StoreClosed):
                return local.get_at(key, revision)
        return super().get_at(key, revision)

    def range(self, request: RangeRequest) -> Any:
        local = self._seat.local
        if local is not None:
            with suppress(StoreClosed):
                return local.range(request)
        return super().range(request)

    def put(self, request: PutRequest, ttl_seconds: float = 0) -> Any:
        local = self._writable
        if local is not None:
            with suppress(StoreClosed):
                return local.put(request, ttl_seconds)
        return super().put(request, ttl_seconds)

    def delete_range(self, request: DeleteRangeRequest) -> Any:
        local = self._writable
        if local is not None:
            with suppress(StoreClosed):
                return local.delete_range(request)
        return super().delete_range(request)

    def txn(self, request: TxnRequest) -> Any:
        local = self._writable
        if local is not None:
            with suppress(StoreClosed):
                return local.txn(request)
        return super().txn(request)

    @property
    def _writable(self) -> LocalEngine | None:
        """The store itself, unless watches wait for their beginning: a write after them has to queue behind them."""
        return None if self._client.watches.pins.pending else self._seat.local

    # --- what everybody asks ----------------------------------------------------------

    def _ask(self, call: Call) -> Any:
        try:
            return super()._ask(call)
        except Unavailable as error:
            if self._seat.error is None:
                raise
            raise again(self._seat.error) from error

    def close(self) -> None:
        """Let others serve the store."""
        super().close()
        self._seat.close()


def share(
    data_dir: str | os.PathLike[str],
    options: Options,
    asking: dict[str, Any],
    check: Callable[[], None],
    serve: Serve,
) -> SharedEngine:
    """The engine of a store that other processes may share. Creates the store if there is none.

    ``asking``: options of the client. Raises what opening a store does; ``StoreLocked`` if it is open in a process that
    does not share it.
    """
    if options.read_only:
        raise BadOption(
            "read_only and shared exclude each other: a read-only handle is one of many already, and follows whoever "
            "writes, with refresh_interval_seconds"
        )
    client_options = ClientOptions.load(
        {
            "timeout_seconds": TIMEOUT_SECONDS,
            "watch_buffer": options.watch_buffer,
            "max_txn_ops": options.max_txn_ops,
            "max_request_bytes": options.max_request_bytes,
            **asking,
        }
    )
    seat = Seat(data_dir, options, serve)
    client = None
    try:
        seat.settle(check, client_options.timeout_seconds)
        with disk_full_is_typed():
            check_backend(seat.directory, find_backend(options.backend))
        address = Address(path=seat.path)
        client = Client(Target("unix", (address,)), client_options)
        client.endpoints = SharedEndpoints(address, client.loop.time, seat)
        engine = SharedEngine(client, seat)
        engine.meet()
    except BaseException:
        if client is not None:
            client.close()
        seat.close()
        raise
    return engine
