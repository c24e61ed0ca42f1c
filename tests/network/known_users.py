"""Users at an endpoint: how they are made, log in, and are told what they may not."""

from __future__ import annotations

from typing import Any

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.call import Kind
from kvstore.network.services import TABLE
from tests.network.fake_call import Client, Refused

KV, WATCH, LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/"
AUTH, CLUSTER, MAINTENANCE = "/etcdserverpb.Auth/", "/etcdserverpb.Cluster/", "/etcdserverpb.Maintenance/"
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
COST = 4
PASSWORD = "correct horse"
EMPTY, TOKEN, DENIED = (
    f"{code} etcdserver: {text}"
    for code, text in ((3, "user name is empty"), (16, "invalid auth token"), (7, "permission denied"))
)


def auth(client: Client, method: str, /, who: str = "", **fields: Any) -> Any:
    """Call a method of the service Auth. ``who``: a token."""
    message = method if method.startswith("Auth") else f"Auth{method}"
    return client.ask(f"{AUTH}{method}", getattr(pb, f"{message}Request")(**fields), **token_of(who))


def token_of(who: str) -> dict[str, str]:
    return {"token": who} if who else {}


def log_in(client: Client, name: str, password: str = PASSWORD) -> str:
    token: str = auth(client, "Authenticate", name=name, password=password).token
    return token


def add_user(client: Client, name: str, *roles: str, who: str = "") -> None:
    auth(client, "UserAdd", who, name=name, password=PASSWORD)
    for role in roles:
        auth(client, "UserGrantRole", who, user=name, role=role)


def grant(client: Client, role: str, kind: str, key: bytes, range_end: bytes = b"", *, who: str = "") -> None:
    perm = {"permType": kind, "key": key, "range_end": range_end}
    auth(client, "RoleGrantPermission", who, name=role, perm=perm)


def enable(client: Client) -> dict[str, str]:
    """Users root, alice (reads and writes [a, c)) and bob (nothing); their tokens."""
    auth(client, "RoleAdd", name="r")
    grant(client, "r", "READWRITE", b"a", b"c")
    for name, *roles in (("root", "root"), ("alice", "r"), ("bob",)):
        add_user(client, name, *roles)
    for number, key in ((1, b"a1"), (2, b"z1")):
        client.ask(f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=number))
        client.ask(f"{KV}Put", pb.PutRequest(key=key, lease=number))
    auth(client, "AuthEnable")
    return {name: log_in(client, name) for name in ("root", "alice", "bob")}


def outcome(client: Client, path: str, request: Any, **metadata: str) -> str:
    """``ok``, or the code and the text of the refusal."""
    call = client.begin(path, request if TABLE[path].kind is not Kind.BIDI else None, **metadata)
    if call.running is not None and TABLE[path].kind is Kind.BIDI:
        try:
            call.running.received(request.SerializeToString())
        except Exception as error:
            call.fail(error)
    client.until(lambda: bool(call.answers) or not call.alive)
    try:
        call.check()
    except Refused as error:
        return f"{error.code.value} {error.text}"
    finally:
        call.go()
    return "ok"
