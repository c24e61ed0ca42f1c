"""What a call through ``kvstore.connect`` costs, for docs/remote.md.

    python -m kvstore.tools.lab.remote_cost calls      CPU of a client for each put to an etcd, beside grpcio's
    python -m kvstore.tools.lab.remote_cost replay     events a second that watches of the past get from kvstore serve

``calls`` needs grpcio, and etcd on PATH. Each line is one of three rounds, in which the contestants take turns.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import kvstore
from kvstore import ops
from kvstore.etcdpb.messages import etcdserverpb as pb

from .scale import cpu_seconds, served

grpc: Any = import_module("grpc")
grpc_aio: Any = import_module("grpc.aio")

ROUNDS = 3
TASKS = 64
CALLS = 6_400
CALLS_ALONE = 2_000
VALUE = b"v" * 256
TRANSACTIONS, OPS_A_TRANSACTION = 2_000, 100
WATCHES = 1, 10, 100
PUT = "/etcdserverpb.KV/Put"
PACKED = {
    "request_serializer": pb.PutRequest.SerializeToString,
    "response_deserializer": pb.PutResponse.FromString,
}


def main() -> None:
    measures = {"calls": calls, "replay": replay}
    if len(sys.argv) != 2 or sys.argv[1] not in measures:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        measures[sys.argv[1]](Path(folder) / "data")


def calls(path: Path) -> None:
    with served(path, "etcd") as (_, port):
        for _ in range(ROUNDS):
            ours, theirs = asyncio.run(_ours(port)), asyncio.run(_theirs(port))
            print(f"{TASKS} tasks: kvstore {ours:.1f} µs, grpcio {theirs:.1f} µs, {ours / theirs:.2f}x")
            ours, theirs = _ours_alone(port), _theirs_alone(port)
            print(f"one call at a time: kvstore {ours:.1f} µs, grpcio {theirs:.1f} µs, {ours / theirs:.2f}x")


async def _ours(port: int) -> float:
    async with kvstore.connect_async(f"etcd://127.0.0.1:{port}") as store:
        return await _shared_out(lambda: store.put(b"key", VALUE))


async def _theirs(port: int) -> float:
    async with grpc_aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        put = channel.unary_unary(PUT, **PACKED)
        return await _shared_out(lambda: put(pb.PutRequest(key=b"key", value=VALUE)))


async def _shared_out(call: Callable[[], Awaitable[object]]) -> float:
    """CPU of a call in µs, made by many tasks at once."""

    async def some() -> None:
        for _ in range(CALLS // TASKS):
            await call()

    await call()
    begun = time.process_time()
    await asyncio.gather(*(some() for _ in range(TASKS)))
    return (time.process_time() - begun) / CALLS * 1e6


def _ours_alone(port: int) -> float:
    with kvstore.connect(f"etcd://127.0.0.1:{port}") as store:
        return _alone(lambda: store.put(b"key", VALUE))


def _theirs_alone(port: int) -> float:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        put = channel.unary_unary(PUT, **PACKED)
        return _alone(lambda: put(pb.PutRequest(key=b"key", value=VALUE)))


def _alone(call: Callable[[], object]) -> float:
    call()
    begun = time.process_time()
    for _ in range(CALLS_ALONE):
        call()
    return (time.process_time() - begun) / CALLS_ALONE * 1e6


def replay(path: Path) -> None:
    with kvstore.open(path, quota_backend_bytes=-1) as store:
        for number in range(TRANSACTIONS):
            keys = [b"k%d/%d" % (number % 50, place) for place in range(OPS_A_TRANSACTION)]
            store.txn(success=[ops.put(key, b"v" * 100) for key in keys])
    with served(path, "kvstore") as (server, port):
        for watches in WATCHES:
            for _ in range(ROUNDS):
                print(f"{watches} watches: {_replayed(port, server.pid, watches)}")


def _replayed(port: int, server_pid: int, watches: int) -> str:
    """What it takes to get the newest events, each by one of the watches."""
    transactions = TRANSACTIONS // watches
    events = transactions * OPS_A_TRANSACTION
    with kvstore.connect(f"etcd://127.0.0.1:{port}") as store, ExitStack() as stack:
        revision = store.revision - transactions + 1
        begun, cpu, server_cpu = time.monotonic(), time.process_time(), cpu_seconds(server_pid)
        opened = [
            stack.enter_context(store.watch(prefix=b"", start_revision=revision)) for _ in range(watches)
        ]
        for watching in opened:
            seen = 0
            while seen < events:
                seen += len(watching.get_response(60).events)
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        server_cpu = cpu_seconds(server_pid) - server_cpu
    total = events * watches
    costs = f"{cpu / total * 1e6:.2f} µs of the client's CPU each, {server_cpu / total * 1e6:.2f} µs of the server's"
    return f"{total / seconds:,.0f} events a second, {costs}"


if __name__ == "__main__":
    main()
