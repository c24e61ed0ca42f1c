"""Where a store ends: what it costs at a size that is given, for docs/scale.md.

    python -m kvstore.tools.lab.scale keys --count 1000000 --backend sqlite     one local store, filled
    python -m kvstore.tools.lab.scale clients --count 1000 [--server etcd]      one server, light clients
    python -m kvstore.tools.lab.scale watches --count 20000 [--server etcd]     one client of one server

``keys`` writes keys of 16 bytes and values of 256 in random order, 100 a transaction, and then reads. ``clients``
opens connections, each with a watch of its own, and says what the server's memory grows by (RSS). It needs the h2
package. ``watches`` opens idle watches of ``kvstore.connect``, which share a connection, and says what they cost client
and server, and a call beside them. ``--server etcd`` needs etcd on PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import kvstore
from kvstore import ops
from kvstore.etcdpb.messages import etcdserverpb as pb

VALUE_BYTES = 256
OPS_A_TRANSACTION = 100
SAMPLES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    keys = kinds.add_parser("keys")
    keys.add_argument("--count", type=int, default=1_000_000)
    keys.add_argument("--backend", default="lmdb", choices=["lmdb", "sqlite"])
    for kind, count in (("clients", 1000), ("watches", 20_000)):
        clients = kinds.add_parser(kind)
        clients.add_argument("--count", type=int, default=count)
        clients.add_argument("--server", default="kvstore", choices=["kvstore", "etcd"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("KVSTORE_BENCH_DIR")) as folder:
        if given.kind == "keys":
            _keys(Path(folder) / "data", given.count, given.backend)
        elif given.server == "etcd" and shutil.which("etcd") is None:
            sys.exit("there is no etcd on PATH")
        else:
            measure = _clients if given.kind == "clients" else _watches
            measure(Path(folder) / "data", given.count, given.server)


# --- one local store -------------------------------------------------------------------------------


def _keys(path: Path, count: int, backend: str) -> None:
    numbers = list(range(count))
    random.Random(1).shuffle(numbers)
    value = random.Random(2).randbytes(VALUE_BYTES)
    with kvstore.open(path, backend, quota_backend_bytes=-1) as store:
        began = time.monotonic()
        for first in range(0, count, OPS_A_TRANSACTION):
            store.txn(
                success=[
                    ops.put(_key(number), value) for number in numbers[first : first + OPS_A_TRANSACTION]
                ]
            )
        _say("puts a second, 100 a transaction, random order", count / (time.monotonic() - began))
        store.checkpoint()
        _say("bytes a key in the backend", store.status().size_bytes / count)
        drawn = random.Random(3).choices(numbers, k=SAMPLES)
        began = time.monotonic()
        for number in drawn:
            store.get(_key(number))
        _say("µs a get", (time.monotonic() - began) / SAMPLES * 1e6)
        began = time.monotonic()
        for number in drawn[:2000]:
            store.put(_key(number), value)
        _say("durable puts a second, one writer", 2000 / (time.monotonic() - began))
        began = time.monotonic()
        rows = sum(1 for _ in store.scan(prefix=b""))
        _say("µs a key in a scan of everything", (time.monotonic() - began) / rows * 1e6)
        began = time.monotonic()
        store.compact(store.revision, physical=True)
        _say("seconds for a compaction of everything superseded", time.monotonic() - began)
        began = time.monotonic()
        info = store.snapshot()
        _say("MB/s of a verified snapshot", info.size_bytes / (time.monotonic() - began) / 1e6)
    began = time.monotonic()
    with kvstore.open(path):
        _say("ms to open after a clean close", (time.monotonic() - began) * 1e3)


def _key(number: int) -> bytes:
    return b"key/%012d" % number


# --- one server ------------------------------------------------------------------------------------


def _clients(path: Path, count: int, server: str) -> None:
    with served(path, server) as (process, port), contextlib.ExitStack() as stack:
        first = stack.enter_context(_Client(port))
        first.range()
        before = rss_bytes(process.pid)
        clients = [stack.enter_context(_Client(port)) for _ in range(count)]
        for client in clients:
            client.range()
        connected = rss_bytes(process.pid)
        _say("KiB a connection", (connected - before) / count / 1024)
        for client in clients:
            client.watch()
        _say(
            "KiB a watch, each on a connection of its own",
            (rss_bytes(process.pid) - connected) / count / 1024,
        )


def _watches(path: Path, count: int, server: str) -> None:
    with (
        served(path, server) as (process, port),
        kvstore.connect(f"etcd://127.0.0.1:{port}", timeout_seconds=30) as store,
    ):
        first = store.put(b"key", b"v").revision
        before = [rss_bytes("self"), rss_bytes(process.pid)]
        cpu = [time.process_time(), cpu_seconds(process.pid)]
        watches = [store.watch(b"key%d" % number, start_revision=first) for number in range(count)]
        store.put(b"key%d" % (count - 1), b"v")
        watches[-1].get()
        sides: list[tuple[str, int | str]] = [("client", "self"), ("server", process.pid)]
        for number, (who, pid) in enumerate(sides):
            now = time.process_time() if pid == "self" else cpu_seconds(process.pid)
            _say(f"KiB a watch, {who}", (rss_bytes(pid) - before[number]) / count / 1024)
            _say(f"µs of CPU to begin a watch, {who}", (now - cpu[number]) / count * 1e6)
        seconds = []
        for _ in range(200):
            began = time.monotonic()
            store.get(b"key")
            seconds.append(time.monotonic() - began)
        _say("ms a get beside them, median", statistics.median(seconds) * 1e3)
        _say("ms a get beside them, longest of 200", max(seconds) * 1e3)


@contextlib.contextmanager
def served(path: Path, server: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port, peer = (free_port() for _ in range(2))
    url, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    command = [sys.executable, "-m", "kvstore", "serve"] if server == "kvstore" else ["etcd"]
    command += ["--data-dir", str(path), "--listen-client-urls", url, "--advertise-client-urls", url]
    if server == "etcd":
        command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        command += ["--initial-cluster", f"default={peers}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            time.sleep(1)  # etcd has a leader then
            yield process, port
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int | str) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class _Client:
    """A light client: one connection, one call at a time."""

    def __init__(self, port: int) -> None:
        from h2.connection import H2Connection

        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._http2 = H2Connection()
        self._http2.initiate_connection()
        self._flush()

    def range(self) -> None:
        self._ask("KV/Range", pb.RangeRequest(key=b"a").SerializeToString(), ended=True)

    def watch(self) -> None:
        create = pb.WatchCreateRequest(key=b"a")
        self._ask("Watch/Watch", pb.WatchRequest(create_request=create).SerializeToString(), ended=False)

    def _ask(self, method: str, message: bytes, *, ended: bool) -> None:
        from h2.events import DataReceived

        stream = self._http2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", f"/etcdserverpb.{method}")]
        headers += [(":authority", "scale"), ("content-type", "application/grpc"), ("te", "trailers")]
        self._http2.send_headers(stream, headers)
        self._http2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=ended)
        self._flush()
        while True:
            events = self._http2.receive_data(self._socket.recv(1 << 16))
            self._flush()
            if any(isinstance(event, DataReceived) for event in events):
                return

    def _flush(self) -> None:
        self._socket.sendall(self._http2.data_to_send())

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _say(what: str, number: float) -> None:
    print(f"{what}\t{number:.3g}" if number < 1000 else f"{what}\t{number:.0f}", flush=True)


if __name__ == "__main__":
    main()
