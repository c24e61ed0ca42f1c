"""A real etcd, if one is on PATH: one member, on free loopback ports, in a directory of the run.

It runs only while it is measured, so it takes nothing from the others. Between turns its data directory stays.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .contest import Absent, Sample
from .http2 import Broken, Connection

START_SECONDS_MAX = 120.0


def binary(name: str = "etcd") -> str:
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not on PATH")
    return found


def version() -> str:
    text = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("\n", 1)[0].removeprefix("etcd Version: ")


class EtcdServer:
    """etcd on ``data_dir``, while the ``with`` block runs."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.start_seconds = 0.0

    def __enter__(self) -> Self:
        self.port, peer_port = _free_port(), _free_port()
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer_port}"
        arguments = {
            "data-dir": str(self._data_dir),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "quota-backend-bytes": str(8 << 30),
            "logger": "zap",
            "log-level": "error",
        }
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            [binary(), *(part for name, value in arguments.items() for part in (f"--{name}", value))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self.start_seconds = time.perf_counter() - begin
        return self

    def _wait_until_it_answers(self) -> None:
        """Make a linearizable read: then it has found itself leader and has loaded its data."""
        from .etcd_load import RANGE

        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Absent(f"etcd ended at once, with exit code {self._process.returncode}")
            try:
                connection = Connection(self.port)
            except OSError:
                time.sleep(0.01)
                continue
            try:
                connection.call(RANGE, b"\x0a\x01k")
                connection.flush()
                while True:
                    for answer in connection.receive():
                        if answer.data:
                            return
                        if answer.ended:
                            raise Broken("no leader yet")
                    connection.flush()
            except (Broken, OSError):
                time.sleep(0.05)
            finally:
                connection.close()
        raise Absent(f"etcd did not answer within {START_SECONDS_MAX:g} s")

    def cpu_seconds(self) -> float:
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, job: str, **arguments: Any) -> Sample:
        """Have the load generator do a job. Returns operations per second, with the CPU time of both sides."""
        before = self.cpu_seconds()
        command = json.dumps({"job": job, "port": self.port, **arguments})
        finished = subprocess.run(
            [sys.executable, "-m", "kvstore.tools.lab.benchmarks.etcd_load", command],
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(f"the load generator failed: {finished.stderr.strip().splitlines()[-1:]}")
        result = json.loads(finished.stdout)
        done = max(result["done"], 1)
        return Sample(
            done / result["seconds"],
            {
                **{name: result[name] for name in ("p50_ms", "p99_ms") if name in result},
                "server_cpu_us_per_op": (self.cpu_seconds() - before) / done * 1e6,
                "client_cpu_us_per_op": result["cpu_seconds"] / done * 1e6,
            },
        )

    def ctl(self, *arguments: str) -> str:
        """Run etcdctl. Returns its output."""
        finished = subprocess.run(
            [binary("etcdctl"), f"--endpoints=127.0.0.1:{self.port}", "--command-timeout=600s", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        return finished.stdout

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
