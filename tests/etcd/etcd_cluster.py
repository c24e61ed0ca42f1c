"""Three etcd processes on loopback that are one cluster, and what may happen to each of them.

    with running_cluster(folder) as cluster:
        cluster.leader().kill()
        cluster.restore()                  # everybody runs again, and there is a leader

They are asked through their JSON gateway, which needs nothing of ours. ``KVSTORE_ETCD`` names another binary.
"""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

from tests.etcd.etcd_recorder import ETCD
from tests.harness.ports import free_ports

PATIENCE_SECONDS = 60.0
STATUS_SECONDS = 0.5
HEARTBEAT_MS = 50
ELECTION_SECONDS = 0.5
TOKEN_TTL_SECONDS = 2
Found = TypeVar("Found")
HAS_ETCD = shutil.which(ETCD) is not None


class Member:
    """One of the processes."""

    def __init__(
        self, name: str, url: str, command: Sequence[str], log: Path, context: ssl.SSLContext | None
    ) -> None:
        self.name = name
        self.url = url
        """Where clients go."""
        self._command = command
        self._log = log
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.rpartition("/")[2].rsplit(":", 1)
        return host, int(port)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Also again, with the files that it has left."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: a leader hands its leadership over. Returns when the process has ended."""
        self._end(signal.SIGTERM)

    def stop(self) -> None:
        """SIGSTOP: the process stands still, and its connections stay."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def ask(
        self, path: str, request: Any = None, token: str = "", timeout_seconds: float = PATIENCE_SECONDS
    ) -> Any:
        """The answer of the JSON gateway. Raises ``OSError``."""
        headers = {"Authorization": token} if token else {}
        data = json.dumps(request or {}).encode()
        asked = urllib.request.Request(f"{self.url}/v3/{path}", data, headers)
        with urllib.request.urlopen(asked, timeout=timeout_seconds, context=self._context) as answer:
            return json.load(answer)

    def status(self) -> Any:
        """What it says of itself; None if it says nothing. (Where there are users, etcd tells only them since 3.6.)"""
        try:
            try:
                return self.ask("maintenance/status", timeout_seconds=STATUS_SECONDS)
            except HTTPError:
                token = self.log_in()
                return self.ask("maintenance/status", token=token, timeout_seconds=STATUS_SECONDS)
        except OSError:
            return None

    def log_in(self) -> str:
        """A token of root's."""
        asked = {"name": ROOT["user"], "password": ROOT["password"]}
        token: str = self.ask("auth/authenticate", asked)["token"]
        return token

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if number != signal.SIGKILL:
            self._signal(signal.SIGCONT)
        assert self._process is not None
        self._process.wait(PATIENCE_SECONDS)


class Cluster:
    """Made by ``running_cluster``."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    @property
    def url(self) -> str:
        """All of them, for ``kvstore.connect``."""
        scheme = "etcds" if self.members[0].url.startswith("https") else "etcd"
        return f"{scheme}://{','.join('{}:{}'.format(*member.address) for member in self.members)}"

    def leader(self) -> Member:
        """Whom a majority follows. Waits for one."""
        return _until(self._leader, self._log_tails)

    def follower(self) -> Member:
        leader = self.leader()
        return next(member for member in self.members if member is not leader and member.is_running)

    def restore(self) -> None:
        """Start whoever does not run, let whoever was stopped go on, and wait until all follow one leader."""
        for member in self.members:
            if member.is_running:
                member.go_on()
            else:
                member.start()
        _until(self._is_whole, self._log_tails)

    def close(self) -> None:
        for member in self.members:
            if member.is_running:
                member.kill()

    def _followed(self) -> list[tuple[Member, str, str]]:
        """Of each member that answers: who it is, and whom it follows."""
        found = [(member, member.status()) for member in self.members if member.is_running]
        return [(each, said["header"]["member_id"], said.get("leader", "0")) for each, said in found if said]

    def _leader(self) -> Member | None:
        followed = self._followed()
        for member, itself, _ in followed:
            if sum(leader == itself for _, _, leader in followed) > len(self.members) // 2:
                return member
        return None

    def _is_whole(self) -> bool:
        leaders = [leader for _, _, leader in self._followed()]
        return len(leaders) == len(self.members) and len(set(leaders)) == 1 and leaders[0] != "0"

    def _log_tails(self) -> str:
        return "\n".join(f"{member.name}: {member.log_tail()}" for member in self.members)


def _until(find: Callable[[], Found | None], explain: Callable[[], str]) -> Found:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := find()):
        assert time.monotonic() < end, f"the cluster does not get well: {explain()}"
        time.sleep(0.02)
    return found


@contextmanager
def running_cluster(
    folder: Path, *options: str, size: int = 3, context: ssl.SSLContext | None = None
) -> Iterator[Cluster]:
    """A new cluster, until the end of the block. With ``context`` clients need TLS (``options`` say which)."""
    scheme = "http" if context is None else "https"
    ports = free_ports(2 * size)
    peers = [f"http://127.0.0.1:{port}" for port in ports[:size]]
    names = [f"m{number}" for number in range(size)]
    members = []
    for name, peer, port in zip(names, peers, ports[size:], strict=True):
        client = f"{scheme}://127.0.0.1:{port}"
        command = [ETCD, "--name", name, "--data-dir", str(folder / name), "--unsafe-no-fsync", *options]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", ",".join(map("=".join, zip(names, peers, strict=True)))]
        command += ["--heartbeat-interval", str(HEARTBEAT_MS)]
        command += ["--election-timeout", str(round(ELECTION_SECONDS * 1000))]
        command += ["--auth-token-ttl", str(TOKEN_TTL_SECONDS), "--bcrypt-cost", "4"]
        members.append(Member(name, client, command, folder / f"{name}.log", context))
    cluster = Cluster(members)
    try:
        cluster.restore()
        yield cluster
    finally:
        cluster.close()


ROOT: dict[str, Any] = {"user": "root", "password": "root's own"}


@contextmanager
def users(cluster: Cluster) -> Iterator[None]:
    """For a while the cluster asks who comes (``add_users``)."""
    add_users(cluster)
    try:
        yield
    finally:
        without_users(cluster)


def add_users(cluster: Cluster) -> None:
    """From now on there are root, who may do everything, and bob, who may only use keys from a to c."""
    member = cluster.leader()
    permission = {"permType": "READWRITE", "key": "YQ==", "range_end": "Yw=="}
    member.ask("auth/role/add", {"name": "root"})
    member.ask("auth/role/add", {"name": "some"})
    member.ask("auth/role/grant", {"name": "some", "perm": permission})
    for name, role in (("root", "root"), ("bob", "some")):
        member.ask("auth/user/add", {"name": name, "password": ROOT["password"]})
        member.ask("auth/user/grant", {"user": name, "role": role})
    member.ask("auth/enable")


def without_users(cluster: Cluster) -> None:
    member = cluster.leader()
    member.ask("auth/disable", token=member.log_in())
    for name in ("bob", "root"):
        member.ask("auth/user/delete", {"name": name})
    for role in ("some", "root"):
        member.ask("auth/role/delete", {"role": role})
