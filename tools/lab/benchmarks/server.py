"""A server of etcd's API in a process of its own, ours or a real etcd, and the load generator pointed at it.

It runs only while it is measured, so it takes nothing from the others. Between turns its data directory stays.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from .contest import Absent, Sample
from .http2 import Broken, Connection, header_block, prepared

START_SECONDS_MAX = 120.0
QUOTA_BYTES = 8 << 30
RANGE = header_block("/etcdserverpb.KV/Range")
SERVER_CPU = "server_cpu_us_per_op"
"""The detail of a sample that goals about CPU are about."""


class Server(ABC):
    """A server on ``data_dir``, while the ``with`` block runs."""

    name: ClassVar[str]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """How it is started, so that it listens on ``port``."""

    def __enter__(self) -> Self:
        self.port = free_port()
        self._process = subprocess.Popen(
            self.command(), env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def _wait_until_it_answers(self) -> None:
        """Make a linearizable read: then it has found itself leader and has loaded its data."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Absent(f"{self.name} ended at once, with exit code {self._process.returncode}")
            try:
                connection = Connection(self.port)
            except OSError:
                time.sleep(0.01)
                continue
            try:
                connection.call(prepared(RANGE, b"\x0a\x01k"))
                connection.flush()
                while True:
                    for _, data, ended in connection.receive():
                        if data:
                            return
                        if ended:
                            raise Broken("no leader yet")
                    connection.flush()
            except (Broken, OSError):
                time.sleep(0.05)
            finally:
                connection.close()
        raise Absent(f"{self.name} did not answer within {START_SECONDS_MAX:g} s")

    def cpu_seconds(self) -> float:
        """User and system time that it has taken so far."""
        assert self._process is not None
        return cpu_seconds(self._process.pid)

    def load(self, job: str, **arguments: Any) -> Sample:
        """Have the load generator do a job. Returns operations per second, with the CPU time of both sides."""
        assert self._process is not None
        command = json.dumps({"job": job, "port": self.port, "server": self._process.pid, **arguments})
        finished = subprocess.run(
            [sys.executable, "-m", "kvstore.tools.lab.benchmarks.etcd_load", command],
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(f"the load generator failed: {finished.stderr.strip().splitlines()[-1:]}")
        result = json.loads(finished.stdout)
        return Sample(result.pop("done") / result.pop("seconds"), result)

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


class OurServer(Server):
    """``kvstore serve``, with its defaults but for the quota."""

    name = "kvstore serve"

    def __init__(self, data_dir: Path, backend: str) -> None:
        super().__init__(data_dir)
        self._backend = backend

    def command(self) -> list[str]:
        url = f"http://127.0.0.1:{self.port}"
        return [
            *(sys.executable, "-m", "kvstore.tools.main", "serve"),
            *(f"--data-dir={self.data_dir}", f"--backend={self._backend}"),
            *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}", "--log-level=error"),
            f"--quota-backend-bytes={QUOTA_BYTES}",
        ]


def _environment() -> dict[str, str]:
    """Without what either server would take for its flags."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "KVSTORE_"))}


def cpu_seconds(process_id: int) -> float:
    """User and system time that a process has taken."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
