"""Jobs that need a process of their own: ``python -m kvstore.tools.lab.benchmarks.child '{...}'``.

{"job": "memory", "path": ..., "backend": ..., "keys": N}   open, read, print the anonymous memory in bytes
{"job": "written", "path": ..., "backend": ..., "keys": N, "puts": M}
                                                            M updates; print what anonymous memory grew by
{"job": "peer_written", "path": ..., "peer": ..., "keys": N, "puts": M}            the same, of a peer
{"job": "idle", "path": ..., "backend": ..., "keys": N, "watched": ..., "written": ..., "seconds": S}
                                                            do nothing; print CPU and wake-ups, both a second
{"job": "victim", "path": ..., "backend": ..., "keys": N, "puts": M, "options": {...}}
                                                            write, print a line after M puts, write on until killed
"""

from __future__ import annotations

import gc
import json
import resource
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kvstore.model import PutRequest

from . import ours
from .contest import Settings
from .peers import PEERS
from .workload import PREFIX, TXN_PUTS, Workload

SETTLE_SECONDS = 1.0
_IN_FLIGHT = 64


def start(job: str, **arguments: Any) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "kvstore.tools.lab.benchmarks.child",
        json.dumps({"job": job, **arguments}),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(job: str, **arguments: Any) -> float:
    """Run a job that prints one number."""
    output, _ = start(job, **arguments).communicate()
    return float(output)


def results(job: str, **arguments: Any) -> list[float]:
    """Run a job that prints some numbers."""
    output, _ = start(job, **arguments).communicate()
    return [float(number) for number in output.split()]


def kill_while_writing(path: Path, backend: str, keys: int, puts: int, **options: Any) -> None:
    """A process opens the store and writes; it is killed (SIGKILL) in the middle, after ``puts`` puts."""
    victim = start("victim", path=str(path), backend=backend, keys=keys, puts=puts, options=options)
    assert victim.stdout is not None
    with victim.stdout:
        if not victim.stdout.readline():
            raise RuntimeError("the writing process ended by itself")
        victim.send_signal(signal.SIGKILL)
    victim.wait()


def anonymous_bytes() -> int:
    """Memory of this process that is not backed by files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


def _memory(job: dict[str, Any]) -> None:
    workload = Workload(job["keys"])
    with ours.open_store(Settings(), Path(job["path"]), job["backend"]) as store:
        for key in workload.some_keys(10_000):
            store.get(key)
        for start_key, end in workload.ranges(10, 1000):
            store.range(start_key, end)
        print(anonymous_bytes())


def _written(job: dict[str, Any]) -> None:
    workload = Workload(job["keys"])
    before = anonymous_bytes()
    with ours.open_store(Settings(), Path(job["path"]), job["backend"], quota_backend_bytes=-1) as store:
        for _ in range(job["puts"] // TXN_PUTS):
            ours.put_all(store, workload.batch())
        store.checkpoint()
        gc.collect()
        print(anonymous_bytes() - before)


def _peer_written(job: dict[str, Any]) -> None:
    workload = Workload(job["keys"])
    before = anonymous_bytes()
    peer = PEERS[job["peer"]](Path(job["path"]))
    for _ in range(job["puts"] // TXN_PUTS):
        peer.put_batch(workload.batch())
    gc.collect()
    print(anonymous_bytes() - before)
    peer.close()


def _idle(job: dict[str, Any]) -> None:
    with ours.open_store(Settings(), Path(job["path"]), job["backend"]) as store, ExitStack() as stack:
        if job["watched"]:
            stack.enter_context(store.watch(prefix=PREFIX))
        if job["written"]:
            store.put(*Workload(job["keys"]).pair())
        time.sleep(SETTLE_SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF)
        time.sleep(job["seconds"])
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(cpu / job["seconds"], (after.ru_nvcsw - before.ru_nvcsw) / job["seconds"])


def _victim(job: dict[str, Any]) -> None:
    workload, puts = Workload(job["keys"]), job["puts"]
    engine = ours.engine_of(Settings(), Path(job["path"]), job["backend"], **job["options"])
    done = 0
    while True:
        for _ in range(_IN_FLIGHT):
            ticket = engine.submit(PutRequest(*workload.pair()))
        engine.wait(ticket)
        if done < puts <= done + _IN_FLIGHT:
            print("ready", flush=True)
        done += _IN_FLIGHT


def main() -> None:
    job = json.loads(sys.argv[1])
    jobs = {
        "memory": _memory,
        "written": _written,
        "peer_written": _peer_written,
        "idle": _idle,
        "victim": _victim,
    }
    jobs[job["job"]](job)


if __name__ == "__main__":
    main()
