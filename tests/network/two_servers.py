"""An endpoint of ours and a real etcd, asked the same by the same users."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kvstore
from kvstore.etcdpb.json import to_json
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.call import Kind
from kvstore.network.services import TABLE
from tests.etcd import etcd_servers as real
from tests.network.wire import Refused, Wire

COST = 4
KV, WATCH, LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/"
AUTH, CLUSTER, MAINTENANCE = "/etcdserverpb.Auth/", "/etcdserverpb.Cluster/", "/etcdserverpb.Maintenance/"
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
BAD = "abcdefghijklmnop.7"
"""The number is an index of etcd's log: of one that is to come it would wait until it has come."""


class Side:
    """One of the two servers, and who has logged in there."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.url = url
        self._wire = Wire(host, int(port))
        self._tokens: dict[str, str] = {"bad": BAD}

    def log_in(self, user: str, password: str, name: str = "") -> str:
        """What came of it."""
        request = pb.AuthenticateRequest(name=user, password=password)
        try:
            message = self._wire.call(f"{AUTH}Authenticate", request.SerializeToString())
        except Refused as error:
            return f"{error.code} {error.text}"
        self._tokens[name or user] = pb.AuthenticateResponse.FromString(message).token
        return "logged in"

    def has_token(self, who: str) -> bool:
        return who in self._tokens

    def ask(self, who: str, path: str, request: Any, *, is_told: bool = True) -> Any:
        """The answer (of a stream: the first), or the code and text of its error. ``who``: empty, for nobody."""
        method = TABLE[path]
        metadata = {"token": self._tokens[who]} if who else {}
        if path.startswith(CLUSTER):
            with suppress(Refused):  # it has been read by then: etcd_servers.SETTLING
                self._wire.call(f"{KV}Range", pb.RangeRequest(key=b"anything").SerializeToString())
        try:
            if method.kind is Kind.UNARY:
                message = self._wire.call(path, request.SerializeToString(), **metadata)
            else:
                ended = method.kind is Kind.SERVER_STREAM
                call = self._wire.begin(path, request.SerializeToString(), ended=ended, **metadata)
                message = self._wire.next(call)
                if not ended:
                    self._wire.half_close(call)
        except Refused as error:
            return f"{error.code} {error.text}"
        return (
            self._neutral(json.loads(json.dumps(to_json(method.response.FromString(message)))))
            if is_told
            else "OK"
        )

    def _neutral(self, found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        own = ("cluster_id", "member_id")
        return {name: self._neutral(value) for name, value in found.items() if name not in own}

    def etcdctl(self, *words: str) -> tuple[int, str, str]:
        """Its exit code, output and error."""
        ran = subprocess.run(
            ["etcdctl", "--endpoints", self.url, "--command-timeout", f"{real.PATIENCE_SECONDS}s", *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            timeout=2 * real.PATIENCE_SECONDS,
            check=False,
        )
        said = [line for line in ran.stderr.decode().splitlines() if not line.startswith("{")]
        error = re.sub(r"took \S+", "TOOK", "\n".join(said).replace(self.url, "URL"))
        return ran.returncode, ran.stdout.decode(), error

    def close(self) -> None:
        self._wire.close()


class Both:
    """(ours, a real one), asked the same."""

    def __init__(self, ours: Side, theirs: Side) -> None:
        self.sides = ours, theirs
        self.differences: list[str] = []

    def log_in(self, user: str, password: str, name: str = "") -> str:
        ours, theirs = (side.log_in(user, password, name) for side in self.sides)
        self._compare(f"login of {user}", ours, theirs)
        return ours

    def ask(self, who: str, path: str, request: Any, *, is_told: bool = True) -> Any:
        ours, theirs = (side.ask(who, path, request, is_told=is_told) for side in self.sides)
        self._compare(f"{who or 'nobody'}: {path} {request!r}", ours, theirs)
        return ours

    def knows(self, who: str) -> bool:
        """Whether there is a token: nobody needs none."""
        return not who or self.sides[0].has_token(who)

    def _compare(self, what: str, ours: Any, theirs: Any) -> None:
        if ours != theirs:
            self.differences.append(f"{what}\n    ours   {ours}\n    theirs {theirs}")

    def close(self) -> None:
        for side in self.sides:
            side.close()

    def check(self) -> None:
        assert not self.differences, "\n".join(self.differences)


@contextmanager
def two_servers(folder: Path, backend: str) -> Iterator[Both]:
    """Ours, on a new store, and a new etcd."""
    with (
        real.etcd(folder / "etcd", folder / "log", "--bcrypt-cost", str(COST)) as server,
        kvstore.open(folder / "store", backend) as store,
        kvstore.serve(store, "http://127.0.0.1:0", etcd_version=real.RELEASE, bcrypt_cost=COST) as serving,
    ):
        opened = Both(Side(serving.endpoints[0]), Side(server.endpoint))
        try:
            yield opened
        finally:
            opened.close()


READ = (f"{KV}Range", pb.RangeRequest(key=b"a1"))


def auth(method: str, /, **fields: Any) -> tuple[str, Any]:
    """(path, request) of a method of the service Auth."""
    message = method if method.startswith("Auth") else f"Auth{method}"
    return f"{AUTH}{method}", getattr(pb, f"{message}Request")(**fields)


def permission(kind: str, key: bytes, range_end: bytes = b"") -> dict[str, Any]:
    return {"permType": kind, "key": key, "range_end": range_end}


def grant(role: str, kind: str, key: bytes, range_end: bytes = b"") -> tuple[str, Any]:
    return auth("RoleGrantPermission", name=role, perm=permission(kind, key, range_end))


SETUP = [
    auth("UserAdd", name="root", password="root"),
    auth("UserGrantRole", user="root", role="root"),
    *[auth("UserAdd", name=name, password=name) for name in ("alice", "bob")],
    auth("RoleAdd", name="keys"),
    auth("RoleAdd", name="more"),
    grant("keys", "READWRITE", b"a", b"c"),
    grant("keys", "READ", b"k"),
    grant("keys", "WRITE", b"w"),
    grant("keys", "READ", b"x", b"\0"),
    grant("keys", "READWRITE", b""),
    grant("keys", "READWRITE", b"", b"b"),
    grant("keys", "READWRITE", b"", b"\0"),
    grant("more", "READ", b"c", b"e"),
    grant("more", "READWRITE", b"g", b"h"),
    grant("more", "READWRITE", b"g\x00", b"i"),
    auth("UserGrantRole", user="alice", role="keys"),
    auth("UserGrantRole", user="alice", role="more"),
    (f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=1)),
    (f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=2)),
    (f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=3)),
    (f"{KV}Put", pb.PutRequest(key=b"a1", value=b"1", lease=1)),
    (f"{KV}Put", pb.PutRequest(key=b"z1", value=b"1", lease=2)),
    (f"{KV}Put", pb.PutRequest(key=b"k", value=b"1")),
    auth("AuthEnable"),
]
EVERYBODY = ("", "bad", "bob", "alice", "root")


def begin(both: Both) -> None:
    for path, request in SETUP:
        both.ask("", path, request)
    for name in ("root", "alice", "bob"):
        assert both.log_in(name, name) == "logged in"
