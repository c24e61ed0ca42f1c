"""Count on three etcds, kill their leader while counting, and look whether anything acknowledged is missing.

    python examples/leader_killed.py [etcd]

needs kvstore and etcd's binary (3.4 or later; default: the one on PATH), nothing else. Four threads add to one counter,
each addition guarded so that it is made exactly once, whatever its caller was told (docs/remote.md, "When nobody
knows"), and note what was acknowledged. The exit code is 0 if the counter has all of it, and nothing twice.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import kvstore

THREADS = 4
ADDITIONS = 150
"""Of each thread."""
COUNTER = b"counter"


# --- counting -----------------------------------------------------------------------------


@dataclass
class Tally:
    """What the counting threads saw."""

    acknowledged: int = 0
    unknown: int = 0
    longest_pause_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def add(store: kvstore.Store, amount: int, tally: Tally) -> None:
    """Add to the counter, exactly once. The mark of an addition tells that it was made after all."""
    mark = b"made/" + os.urandom(16).hex().encode()
    while True:
        try:
            found = store.get(COUNTER)
            value, revision = (int(found.value), found.mod_revision) if found else (0, 0)
            done = store.txn(
                [kvstore.mod_revision(COUNTER) == revision, kvstore.version(mark) == 0],
                [kvstore.ops.put(COUNTER, b"%d" % (value + amount)), kvstore.ops.put(mark)],
            )
            if done.succeeded or mark in store:
                return
        except kvstore.OutcomeUnknown:
            with tally.lock:
                tally.unknown += 1
        except (kvstore.Unavailable, kvstore.DeadlineExceeded):
            pass  # try again


def count(url: str, tally: Tally) -> None:
    with kvstore.connect(url, timeout_seconds=2) as store:
        for _ in range(ADDITIONS):
            began = time.monotonic()
            add(store, 1, tally)
            with tally.lock:
                tally.acknowledged += 1
                tally.longest_pause_seconds = max(tally.longest_pause_seconds, time.monotonic() - began)


# --- three etcds --------------------------------------------------------------------------


def start_etcds(etcd: str, folder: Path) -> dict[str, subprocess.Popen[bytes]]:
    """Three members of one cluster, by the address that clients go to."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    members = {f"m{number}": f"http://127.0.0.1:{port}" for number, port in enumerate(ports[:3])}
    processes = {}
    for (name, peer), port in zip(members.items(), ports[3:], strict=True):
        command = [etcd, "--name", name, "--data-dir", str(folder / name)]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", ",".join(map("=".join, members.items()))]
        command += ["--listen-client-urls", f"http://127.0.0.1:{port}"]
        command += ["--advertise-client-urls", f"http://127.0.0.1:{port}"]
        command += ["--heartbeat-interval", "50", "--election-timeout", "500"]
        with open(folder / f"{name}.log", "wb") as log:
            processes[f"127.0.0.1:{port}"] = subprocess.Popen(command, stdout=log, stderr=log)
    return processes


def leader(addresses: Iterable[str]) -> str:
    """The address of the member that leads."""
    for address in addresses:
        asked = urllib.request.Request(f"http://{address}/v3/maintenance/status", b"{}")
        with urllib.request.urlopen(asked) as answer:
            status = json.load(answer)
        if status["header"]["member_id"] == status["leader"]:
            return address
    raise RuntimeError("no member leads")


def main(etcd: str = "etcd") -> int:
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="leader-killed-") as folder:
        processes = start_etcds(etcd, Path(folder))
        try:
            url = f"etcd://{','.join(processes)}"
            with kvstore.connect(url, timeout_seconds=60) as store:
                store.put(COUNTER, b"0")
                threads = [threading.Thread(target=count, args=(url, tally)) for _ in range(THREADS)]
                for thread in threads:
                    thread.start()
                while tally.acknowledged < THREADS * ADDITIONS / 4:
                    time.sleep(0.001)
                killed = leader(processes)
                processes[killed].kill()
                print(f"the leader, {killed}, is killed after {tally.acknowledged} additions", flush=True)
                for thread in threads:
                    thread.join()
                found = store.get(COUNTER)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    counted = int(found.value) if found else 0
    print(f"longest pause: {tally.longest_pause_seconds:.1f} s; calls of unknown outcome: {tally.unknown}")
    print(f"acknowledged: {tally.acknowledged}; counted: {counted}")
    return 0 if counted == tally.acknowledged == THREADS * ADDITIONS else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
