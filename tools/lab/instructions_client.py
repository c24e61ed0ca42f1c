"""Operations of a client, for ``instructions``: calls to ``kvstore serve`` in another process, which is not counted.

    64 tasks      calls at once, on one connection
    alone         one call at a time, from one thread
    grpcio        the same 64 tasks, with that package in our place

A server that is asked by a process under valgrind is the faster one, so an answer mostly comes alone.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb

from .scale import served

TASKS = 64
KEY, VALUE = b"key", b"v" * 256

Call = Callable[[], Awaitable[object]]


class Client:
    """A client of a server that has been started for it."""

    def __init__(self) -> None:
        self._held = ExitStack()
        folder = self._held.enter_context(tempfile.TemporaryDirectory())
        _, port = self._held.enter_context(served(Path(folder) / "data", "kvstore"))
        self.target = f"127.0.0.1:{port}"
        self.held = self._held.enter_context

    def __call__(self, count: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._held.close()


class Tasks(Client):
    """64 tasks on a loop that goes on from one run to the next."""

    def __init__(self, connected: Callable[[Tasks], Awaitable[Call]]) -> None:
        super().__init__()
        self._runner = self.held(asyncio.Runner())
        self._call = self._runner.run(_of(connected(self)))

    def __call__(self, count: int) -> None:
        self._runner.run(self._shared_out(count))

    async def _shared_out(self, count: int) -> None:
        async def some(its_own: range) -> None:
            for _ in its_own:
                await self._call()

        await asyncio.gather(*(some(range(at, count, TASKS)) for at in range(TASKS)))


async def _of(awaitable: Awaitable[Call]) -> Call:
    return await awaitable


class Alone(Client):
    """One thread."""

    def __init__(self, call: Callable[[kvstore.Store], object]) -> None:
        super().__init__()
        self._store = self.held(kvstore.connect(f"etcd://{self.target}"))
        self._store.put(KEY, VALUE)
        self._call = call

    def __call__(self, count: int) -> None:
        for _ in range(count):
            self._call(self._store)


def _tasks(call: Callable[[kvstore.AsyncStore], Awaitable[object]]) -> Callable[[Any], Tasks]:
    async def connected(tasks: Tasks) -> Call:
        store = await kvstore.connect_async(f"etcd://{tasks.target}")
        await store.put(KEY, VALUE)
        return lambda: call(store)

    return lambda _store: Tasks(connected)


async def _grpcio(tasks: Tasks) -> Call:
    channel = import_module("grpc.aio").insecure_channel(tasks.target)
    put = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=pb.PutRequest.SerializeToString,
        response_deserializer=pb.PutResponse.FromString,
    )
    return lambda: put(pb.PutRequest(key=KEY, value=VALUE))


OPERATIONS: dict[str, Callable[[Any], Client]] = {
    "client-put": _tasks(lambda store: store.put(KEY, VALUE)),
    "client-get": _tasks(lambda store: store.get(KEY)),
    "client-put-alone": lambda _store: Alone(lambda store: store.put(KEY, VALUE)),
    "client-get-alone": lambda _store: Alone(lambda store: store.get(KEY)),
    "client-put-grpcio": lambda _store: Tasks(_grpcio),
}
