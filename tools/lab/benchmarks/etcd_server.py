"""A real etcd, if one is on PATH: one member, on free loopback ports, in a directory of the run."""

from __future__ import annotations

import os
import shutil
import subprocess

from .contest import Absent
from .server import QUOTA_BYTES, Server, free_port


def binary(name: str = "etcd") -> str:
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not on PATH")
    return found


def version() -> str:
    text = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("\n", 1)[0].removeprefix("etcd Version: ")


class EtcdServer(Server):
    """etcd, with its defaults but for the quota."""

    name = "etcd"

    def command(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        arguments = {
            "data-dir": str(self.data_dir),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "quota-backend-bytes": str(QUOTA_BYTES),
            "logger": "zap",
            "log-level": "error",
        }
        return [binary(), *(part for name, value in arguments.items() for part in (f"--{name}", value))]

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
