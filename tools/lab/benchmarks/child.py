"""Jobs that need a process of their own: ``python -m kvstore.tools.lab.benchmarks.child '{...}'``.

{"job": "memory", "path": ..., "backend": ..., "keys": N}   open, read, print the anonymous memory in bytes
{"job": "victim", "path": ..., "backend": ..., "keys": N, "puts": M, "options": {...}}
                                                            write, print a line after M puts, write on until killed
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from kvstore.model import PutRequest

from . import ours
from .contest import Settings
from .workload import Workload

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
    {"memory": _memory, "victim": _victim}[job["job"]](job)


if __name__ == "__main__":
    main()
