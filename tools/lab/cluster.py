"""What three etcds hold, for docs/scale.md: on one machine, whose disk and cores they share.

    python -m kvstore.tools.lab.cluster rate             puts and gets a second of 1, 64 and 1,000 clients
    python -m kvstore.tools.lab.cluster watches          a put that 1,000 and 10,000 watches see
    python -m kvstore.tools.lab.cluster keys --count N   filled: rate, size of the database, memory
    python -m kvstore.tools.lab.cluster full             at a quota of 64 MiB

Clients are tasks of ``kvstore.connect_async`` that share ten connections. CPU is that of the three servers together,
which a busy machine changes less than the rates. ``etcd`` has to be on PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import kvstore
from kvstore import ops
from kvstore.errors import KVStoreError, QuotaExceeded

from .scale import cpu_seconds, free_port, rss_bytes

MEMBERS, CONNECTIONS, CLIENTS = 3, 10, (1, 64, 1000)
SECONDS = 10.0
VALUE = b"v" * 256
OPS_A_TRANSACTION, KEYS_A_REPORT = 100, 250_000
QUOTA_BYTES = 64 << 20
LARGE_QUOTA_BYTES = 8 << 30


class Servers:
    """Three members, on one machine."""

    def __init__(self, folder: Path, quota_bytes: int = LARGE_QUOTA_BYTES) -> None:
        self._held = ExitStack()
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(MEMBERS)]
        clients = [f"http://127.0.0.1:{free_port()}" for _ in range(MEMBERS)]
        cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
        self.pids = []
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            command = ["etcd", "--name", f"m{number}", "--data-dir", str(folder / f"m{number}")]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", cluster, "--quota-backend-bytes", str(quota_bytes)]
            member = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._held.enter_context(member)
            self._held.callback(member.terminate)
            self.pids.append(member.pid)
        self.url = "etcd://" + ",".join(client.removeprefix("http://") for client in clients)
        while True:  # until they have a leader
            with contextlib.suppress(KVStoreError), kvstore.connect(self.url):
                return

    @property
    def cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    @property
    def rss_mib(self) -> list[int]:
        return [rss_bytes(pid) >> 20 for pid in self.pids]

    def close(self) -> None:
        self._held.close()


# --- rates ----------------------------------------------------------------------------


def rate(servers: Servers) -> None:
    with kvstore.connect(servers.url) as store:
        store.put(b"key", VALUE)
    for what, serializable in (("puts", False), ("gets", False), ("serializable gets", True)):
        for clients in CLIENTS:
            asyncio.run(_rate(servers, what, clients, serializable))


async def _rate(servers: Servers, what: str, clients: int, serializable: bool) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                kvstore.connect_async(servers.url, timeout_seconds=60, serializable=serializable)
            )
            for _ in range(min(clients, CONNECTIONS))
        ]
        keys, waits = itertools.count(), []
        end = time.monotonic() + SECONDS

        async def work(call: Callable[[], Awaitable[object]]) -> None:
            while (begun := time.monotonic()) < end:
                await call()
                waits.append(time.monotonic() - begun)

        def call_of(store: kvstore.AsyncStore) -> Callable[[], Awaitable[object]]:
            if what == "puts":
                return lambda: store.put(b"key/%08d" % (next(keys) % 100_000), VALUE)
            return lambda: store.get(b"key")

        cpu = servers.cpu_seconds
        await asyncio.gather(*(work(call_of(stores[at % len(stores)])) for at in range(clients)))
        cpu = servers.cpu_seconds - cpu
    waits.sort()
    middle, late = waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3
    print(
        f"{what}, {clients} clients: {len(waits) / SECONDS:,.0f} a second, {cpu / len(waits) * 1e6:.0f} µs of "
        f"the servers' CPU each, {middle:.1f} ms at the median, {late:.1f} ms at p99",
        flush=True,
    )


# --- watches, keys, a full database -----------------------------------------------------


def watches(servers: Servers) -> None:
    for count in (1_000, 10_000):
        with kvstore.connect(servers.url, timeout_seconds=60) as store, ExitStack() as stack:
            before = servers.rss_mib
            opened = [stack.enter_context(store.watch(b"watched")) for _ in range(count)]
            begun, cpu = time.monotonic(), servers.cpu_seconds
            for _ in range(10):
                store.put(b"watched", VALUE)
                for each in opened:
                    next(each)
            seconds, cpu = (time.monotonic() - begun) / 10, (servers.cpu_seconds - cpu) / 10
            print(
                f"a put that {count:,} watches see: {seconds * 1e3:.0f} ms, {cpu / count * 1e6:.1f} µs of "
                f"the servers' CPU a watch; memory {before} to {servers.rss_mib} MiB",
                flush=True,
            )


def keys(servers: Servers, count: int) -> None:
    with kvstore.connect(servers.url, timeout_seconds=60) as store:
        begun, cpu, done = time.monotonic(), servers.cpu_seconds, 0
        while done < count:
            store.txn(success=[ops.put(b"key/%012d" % (done + at), VALUE) for at in range(OPS_A_TRANSACTION)])
            done += OPS_A_TRANSACTION
            if done % KEYS_A_REPORT == 0 or done == count:
                seconds, used = time.monotonic() - begun, servers.cpu_seconds - cpu
                print(
                    f"{done:,} keys: {KEYS_A_REPORT / seconds:,.0f} keys a second, {used / KEYS_A_REPORT * 1e6:.0f} µs "
                    f"of the servers' CPU each; {store.status().size_bytes / done:.0f} bytes a key; "
                    f"memory {servers.rss_mib} MiB",
                    flush=True,
                )
                begun, cpu = time.monotonic(), servers.cpu_seconds


def full(servers: Servers) -> None:
    with kvstore.connect(servers.url, timeout_seconds=60) as store:
        written = 0
        try:
            while True:
                store.txn(
                    success=[ops.put(b"key/%012d" % (written + at), VALUE) for at in range(OPS_A_TRANSACTION)]
                )
                written += OPS_A_TRANSACTION
        except QuotaExceeded as error:
            status = store.status()
            print(
                f"refused after {written:,} keys, at {status.size_bytes / QUOTA_BYTES:.2f} of the quota: {error}"
            )
            print(f"still read: {store.count(prefix=b''):,} keys; alarms {status.alarms}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["rate", "watches", "keys", "full"])
    parser.add_argument("--count", type=int, default=1_000_000)
    given = parser.parse_args()
    if shutil.which("etcd") is None:
        sys.exit("there is no etcd on PATH")
    with tempfile.TemporaryDirectory(dir=os.environ.get("KVSTORE_BENCH_DIR")) as folder:
        servers = Servers(Path(folder), QUOTA_BYTES if given.what == "full" else LARGE_QUOTA_BYTES)
        try:
            if given.what == "keys":
                keys(servers, given.count)
            else:
                {"rate": rate, "watches": watches, "full": full}[given.what](servers)
        finally:
            servers.close()


if __name__ == "__main__":
    main()
