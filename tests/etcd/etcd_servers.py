"""A real etcd, started on a data directory and asked through etcdctl.

A change of its members that comes before its raft is done with the last one is dropped, and whoever asked for it waits
for ever; that last one was answered before. So a linearizable read goes before each (``SETTLING``): raft answers it
afterwards.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from kvstore.etcdpb.messages import etcdserverpb as pb
from tests.harness.ports import free_ports
from tests.network.wire import Wire

ENVIRONMENT = {**os.environ, "ETCDCTL_API": "3"}
PATIENCE_SECONDS = 60
SETTLING = ("get", "anything")
NUMBERS = ("create_revision", "mod_revision", "version", "lease")


def release() -> Literal["3.4", "3.5", "3.6"]:
    """Of the etcd on PATH: ours is to speak its dialect beside it."""
    if shutil.which("etcd") is None:
        return "3.4"
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"etcd Version: (3\.[456])\.", said)
    assert found, said
    return cast("Literal['3.4', '3.5', '3.6']", found[1])


RELEASE = release()


def etcdctl(*arguments: str, stdin: bytes | None = None) -> Any:
    """Run etcdctl; its JSON answer. Since 3.6 it is etcdutl that works on files."""
    command = ["etcdctl", "--command-timeout", f"{PATIENCE_SECONDS}s"]
    if RELEASE >= "3.6" and arguments[:2] in (("snapshot", "restore"), ("snapshot", "status")):
        command = ["etcdutl"]
    run = subprocess.run(
        [*command, *arguments, "-w", "json"],
        env=ENVIRONMENT,
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout) if run.stdout.strip().startswith((b"{", b"[")) else run.stdout.decode()


class Server:
    """A running etcd, asked through etcdctl."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def ctl(self, *arguments: str, stdin: bytes | None = None) -> Any:
        if arguments[0] == "member":
            etcdctl("--endpoints", self.endpoint, *SETTLING)
        return etcdctl("--endpoints", self.endpoint, *arguments, stdin=stdin)

    def hash_kv(self, revision: int) -> dict[str, int]:
        """Over gRPC: for the hashes of many revisions no process is started."""
        host, _, port = self.endpoint.removeprefix("http://").rpartition(":")
        request = pb.HashKVRequest(revision=revision).SerializeToString()
        with Wire(host, int(port)) as wire:
            found = pb.HashKVResponse.FromString(wire.call("/etcdserverpb.Maintenance/HashKV", request))
        return {"hash": found.hash, "compact_revision": found.compact_revision}

    def dump(self, revision: int) -> list[list[Any]]:
        answer = self.ctl("get", "", "--prefix", f"--rev={revision}")
        return [
            [kv["key"], kv.get("value", ""), *(kv.get(name, 0) for name in NUMBERS)]
            for kv in answer.get("kvs", [])
        ]


@contextmanager
def etcd(data_dir: Path, log: Path, *options: str) -> Iterator[Server]:
    """etcd on a data directory, until the end of the block."""
    for _attempt in range(3):  # another process may take a port before etcd does
        client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        command = ["etcd", "--data-dir", str(data_dir), "--listen-client-urls", client]
        command += ["--advertise-client-urls", client, "--listen-peer-urls", peer, *options]
        with open(log, "wb") as output:
            process = subprocess.Popen(command, env=ENVIRONMENT, stdout=output, stderr=output)
        try:
            if answers(process, client):
                yield Server(client)
                return
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
    pytest.fail(f"etcd does not start: {log.read_text()[-2000:]}")


def restore(snapshot: Path, data_dir: Path, name: str, peer_url: str) -> None:
    """A new cluster of one member out of a snapshot."""
    cluster = ["--name", name, "--initial-cluster", f"{name}={peer_url}"]
    command = ["snapshot", "restore", str(snapshot), "--data-dir", str(data_dir), *cluster]
    etcdctl(*command, "--initial-advertise-peer-urls", peer_url)


def answers(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        probe = ["etcdctl", "--endpoints", endpoint, "get", "anything"]  # "health" also looks at alarms
        run = subprocess.run(probe, env=ENVIRONMENT, capture_output=True, check=False)
        if run.returncode == 0 or b"user name is empty" in run.stderr:  # an etcd with users answers so
            return True
        time.sleep(0.05)
    return False
