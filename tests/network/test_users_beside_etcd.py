"""Users beside a real etcd: the same conversations, answer by answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd.beside_keys import carried_rows
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.export_store import export_store

import kvstore
from kvstore.etcdpb.json import to_json
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import v3electionpb, v3lockpb
from kvstore.foreign import ImportOptions, find_foreign
from kvstore.network import limits
from kvstore.network.call import Kind
from kvstore.network.services import TABLE
from tests.etcd import etcd_servers as real
from tests.network.random_users import Login, Requests
from tests.network.wire import Refused, Wire

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)

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
            ["etcdctl", "--endpoints", self.url, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            timeout=real.PATIENCE_SECONDS,
            check=False,
        )
        said = [line for line in ran.stderr.decode().splitlines() if not line.startswith("{")]
        return ran.returncode, ran.stdout.decode(), "\n".join(said).replace(self.url, "URL")

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


@pytest.fixture(params=["lmdb", "sqlite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    with (
        real.etcd(tmp_path / "etcd", tmp_path / "log", "--bcrypt-cost", str(COST)) as server,
        kvstore.open(tmp_path / "store", request.param) as store,
        kvstore.serve(store, "http://127.0.0.1:0", etcd_version="3.4", bcrypt_cost=COST) as serving,
    ):
        opened = Both(Side(serving.endpoints[0]), Side(server.endpoint))
        try:
            yield opened
        finally:
            opened.close()


# --- who there is --------------------------------------------------------------------------------


def auth(method: str, /, **fields: Any) -> tuple[str, Any]:
    """(path, request) of a method of the service Auth."""
    message = method if method.startswith("Auth") else f"Auth{method}"
    return f"{AUTH}{method}", getattr(pb, f"{message}Request")(**fields)


def permission(kind: str, key: bytes, range_end: bytes = b"") -> dict[str, Any]:
    return {"permType": kind, "key": key, "range_end": range_end}


def grant(role: str, kind: str, key: bytes, range_end: bytes = b"") -> tuple[str, Any]:
    return auth("RoleGrantPermission", name=role, perm=permission(kind, key, range_end))


MANAGED = [
    auth("AuthEnable"),
    auth("AuthDisable"),
    auth("Authenticate", name="root", password="pw"),
    auth("UserAdd", name="root", password="pw"),
    auth("AuthEnable"),
    auth("UserAdd", name="root", password="pw"),
    auth("UserAdd", name="", password="pw"),
    auth("UserAdd", name="bare", options={"no_password": True}),
    auth("UserAdd", name="empty", password=""),
    auth("UserAdd", name="long", password="x" * 100),
    auth("UserGet", name="root"),
    auth("UserGet", name="nobody"),
    auth("UserGet"),
    auth("UserGrantRole", user="root", role="root"),
    auth("UserGrantRole", user="root", role="root"),
    auth("UserGrantRole", user="nobody", role="root"),
    auth("UserGrantRole", user="root", role="none"),
    auth("RoleGet", role="root"),
    auth("RoleAdd", name="root"),
    auth("RoleGet", role="root"),
    auth("RoleGet", role="none"),
    auth("RoleAdd", name="r"),
    auth("RoleAdd", name="r"),
    auth("RoleAdd", name=""),
    auth("RoleGet", role="r"),
    grant("r", "READWRITE", b"m", b"n"),
    grant("r", "READ", b"m", b"n"),
    grant("r", "WRITE", b"a"),
    grant("r", "READ", b"x", b"\0"),
    grant("r", "READ", b"\0", b"\0"),
    grant("none", "READ", b"a"),
    auth("RoleGet", role="r"),
    auth("RoleRevokePermission", role="r", key=b"a"),
    auth("RoleRevokePermission", role="r", key=b"a"),
    auth("RoleRevokePermission", role="none", key=b"a"),
    auth("RoleRevokePermission", role="r", key=b"m", range_end=b"n"),
    auth("RoleGet", role="r"),
    auth("UserGrantRole", user="bare", role="r"),
    auth("UserGrantRole", user="empty", role="r"),
    auth("UserGet", name="bare"),
    auth("UserRevokeRole", name="empty", role="r"),
    auth("UserRevokeRole", name="empty", role="r"),
    auth("UserRevokeRole", name="nobody", role="r"),
    auth("RoleDelete", role="r"),
    auth("RoleDelete", role="r"),
    auth("UserGet", name="bare"),
    auth("UserList"),
    auth("RoleList"),
    auth("UserChangePassword", name="bare", password="new"),
    auth("UserChangePassword", name="nobody", password="new"),
    auth("UserDelete", name="empty"),
    auth("UserDelete", name="empty"),
    auth("RoleDelete", role="root"),
    auth("RoleAdd", name="root"),
    auth("UserGet", name="root"),
    auth("AuthEnable"),
    auth("UserGrantRole", user="root", role="root"),
    auth("AuthEnable"),
]
AFTER = [
    auth("AuthEnable"),
    auth("UserDelete", name="root"),
    auth("RoleDelete", role="root"),
    auth("UserRevokeRole", name="root", role="root"),
    auth("UserRevokeRole", name="root", role="other"),
    auth("UserDelete", name="nobody"),
    auth("UserDelete", name="bare"),
    auth("AuthDisable"),
]


def test_users_and_roles_are_managed_alike(both: Both) -> None:
    """Every method, with what there is and what there is not, before users count and after."""
    for path, request in MANAGED:
        both.ask("", path, request)
    for user, password in (
        ("root", "pw"),
        ("root", "PW"),
        ("", ""),
        ("nobody", "x"),
        ("bare", "new"),
        ("bare", ""),
    ):
        both.log_in(user, password)
    both.log_in("long", "x" * 100)
    for path, request in AFTER:
        both.ask("root", path, request)
    both.ask("", *auth("Authenticate", name="root", password="pw"))
    both.check()


# --- who may do what -----------------------------------------------------------------------------

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


def txn(*compare: dict[str, Any], success: Any = (), failure: Any = ()) -> Any:
    return pb.TxnRequest(compare=compare, success=success, failure=failure)


def put(key: bytes, **more: Any) -> dict[str, Any]:
    return {"request_put": {"key": key, **more}}


def get(key: bytes, range_end: bytes = b"") -> dict[str, Any]:
    return {"request_range": {"key": key, "range_end": range_end}}


def delete(key: bytes, range_end: bytes = b"", **more: Any) -> dict[str, Any]:
    return {"request_delete_range": {"key": key, "range_end": range_end, **more}}


SPANS = [
    (b"a", b""),
    (b"a", b"b"),
    (b"a", b"c"),
    (b"a", b"c\0"),
    (b"a", b"e"),
    (b"a", b"\0"),
    (b"b", b"a"),
    (b"b\xff", b""),
    (b"c", b""),
    (b"d", b"e"),
    (b"d", b"z"),
    (b"g", b"i"),
    (b"h\xff", b""),
    (b"i", b""),
    (b"k", b""),
    (b"k", b"k\0"),
    (b"k", b"l"),
    (b"w", b""),
    (b"w", b"x"),
    (b"w\0", b""),
    (b"x", b"\0"),
    (b"xx", b"y"),
    (b"x", b"\xff\xff"),
    (b"\0", b"\0"),
    (b"\xff", b"\0"),
    (b"`", b"b"),
    (b"\0", b"a"),
    (b"B", b"C"),
]


def test_spans_of_every_shape_are_allowed_alike(both: Both) -> None:
    """Ranges, deletes and puts, alone and in transactions, against roles whose spans overlap, touch, or never end."""
    begin(both)
    for key, range_end in SPANS:
        ranged = pb.RangeRequest(key=key, range_end=range_end)
        for who in ("alice", "bob", ""):
            both.ask(who, f"{KV}Range", ranged)
        both.ask(
            "alice", f"{KV}Range", pb.RangeRequest(key=key, range_end=range_end, count_only=True, revision=2)
        )
        both.ask("alice", f"{KV}DeleteRange", pb.DeleteRangeRequest(key=key, range_end=range_end))
        both.ask(
            "alice", f"{KV}DeleteRange", pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=True)
        )
        both.ask("alice", f"{KV}Txn", txn(success=[get(key, range_end)]))
        both.ask("alice", f"{KV}Txn", txn(failure=[get(key, range_end)], success=[put(b"a")]))
        both.ask("alice", f"{KV}Txn", txn(failure=[delete(key, range_end, prev_kv=True)]))
        both.ask(
            "alice", f"{KV}Txn", txn({"key": key, "range_end": range_end, "version": 0}, success=[put(b"a")])
        )
        if not range_end:
            both.ask("alice", f"{KV}Put", pb.PutRequest(key=key))
            both.ask("alice", f"{KV}Put", pb.PutRequest(key=key, prev_kv=True))
            both.ask("alice", f"{KV}Txn", txn(success=[put(key)], failure=[put(key)]))
    both.check()


ASKED: list[tuple[str, Any, bool]] = [
    (f"{KV}Range", pb.RangeRequest(), True),
    (f"{KV}Range", pb.RangeRequest(key=b"z"), True),
    (f"{KV}Range", pb.RangeRequest(key=b"a1"), True),
    (f"{KV}Put", pb.PutRequest(), True),
    (f"{KV}Put", pb.PutRequest(key=b"z"), True),
    (f"{KV}Put", pb.PutRequest(key=b"z", lease=99), True),
    (f"{KV}Put", pb.PutRequest(key=b"a2", lease=99), True),
    (f"{KV}Put", pb.PutRequest(key=b"a2", lease=1), True),
    (f"{KV}Put", pb.PutRequest(key=b"a2", lease=2), True),
    (f"{KV}Put", pb.PutRequest(key=b"a2", value=b"x", ignore_value=True), True),
    (f"{KV}DeleteRange", pb.DeleteRangeRequest(), True),
    (f"{KV}DeleteRange", pb.DeleteRangeRequest(key=b"z9"), True),
    (f"{KV}Txn", pb.TxnRequest(), True),
    (f"{KV}Txn", txn(success=[put(b"")]), True),
    (f"{KV}Txn", txn(success=[put(b"z"), put(b"z")]), True),
    (f"{KV}Txn", txn(success=[put(b"a5", lease=2)]), True),
    (f"{KV}Compact", pb.CompactionRequest(revision=99), True),
    (f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=60, ID=1), True),
    (f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=1 << 60), True),
    (f"{LEASE}LeaseRevoke", pb.LeaseRevokeRequest(ID=99), True),
    (f"{LEASE}LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=2, keys=True), False),
    (f"{LEASE}LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=99), True),
    (f"{LEASE}LeaseLeases", pb.LeaseLeasesRequest(), False),
    (f"{LEASE}LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=2), True),
    (f"{LEASE}LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=99), True),
    (f"{CLUSTER}MemberList", pb.MemberListRequest(), False),
    (f"{CLUSTER}MemberAdd", pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True), False),
    (f"{CLUSTER}MemberUpdate", pb.MemberUpdateRequest(ID=7, peerURLs=["http://127.0.0.1:2"]), True),
    (f"{CLUSTER}MemberPromote", pb.MemberPromoteRequest(ID=7), True),
    (f"{CLUSTER}MemberRemove", pb.MemberRemoveRequest(ID=7), True),
    (f"{MAINTENANCE}Status", pb.StatusRequest(), False),
    (f"{MAINTENANCE}Alarm", pb.AlarmRequest(), True),
    (f"{MAINTENANCE}Alarm", pb.AlarmRequest(action="DEACTIVATE", memberID=7, alarm="NOSPACE"), True),
    (f"{MAINTENANCE}Hash", pb.HashRequest(), False),
    (f"{MAINTENANCE}HashKV", pb.HashKVRequest(), False),
    (f"{MAINTENANCE}Defragment", pb.DefragmentRequest(), True),
    (f"{MAINTENANCE}Snapshot", pb.SnapshotRequest(), False),
    (f"{MAINTENANCE}MoveLeader", pb.MoveLeaderRequest(targetID=7), True),
    (*auth("UserGet", name="alice"), True),
    (*auth("UserGet", name="bob"), True),
    (*auth("UserGet", name="nobody"), True),
    (*auth("UserGet"), True),
    (*auth("UserList"), True),
    (*auth("UserAdd", name="alice", password="x"), True),
    (*auth("UserAdd", name="", password="x"), True),
    (*auth("UserDelete", name="nobody"), True),
    (*auth("UserChangePassword", name="nobody", password="x"), True),
    (*auth("UserGrantRole", user="nobody", role="keys"), True),
    (*auth("UserRevokeRole", name="nobody", role="keys"), True),
    (*auth("RoleGet", role="keys"), True),
    (*auth("RoleGet", role="root"), True),
    (*auth("RoleGet", role="none"), True),
    (*auth("RoleList"), True),
    (*auth("RoleAdd", name="keys"), True),
    (*auth("RoleDelete", role="none"), True),
    (*grant("none", "READ", b"a"), True),
    (*auth("RoleRevokePermission", role="none", key=b"a"), True),
    (*auth("AuthEnable"), True),
    (f"{LOCK}Lock", v3lockpb.LockRequest(name=b"z", lease=3), True),
    (f"{LOCK}Lock", v3lockpb.LockRequest(name=b"a", lease=3), True),
    (f"{LOCK}Unlock", v3lockpb.UnlockRequest(key=b"z/3"), True),
    (f"{LOCK}Unlock", v3lockpb.UnlockRequest(key=b"a/3"), True),
    (f"{ELECTION}Campaign", v3electionpb.CampaignRequest(name=b"z", lease=3, value=b"v"), True),
    (f"{ELECTION}Campaign", v3electionpb.CampaignRequest(name=b"a", lease=3, value=b"v"), True),
    (f"{ELECTION}Leader", v3electionpb.LeaderRequest(name=b"z"), True),
    (f"{ELECTION}Leader", v3electionpb.LeaderRequest(name=b"a"), True),
    (f"{ELECTION}Observe", v3electionpb.LeaderRequest(name=b"a"), True),
    (f"{LEASE}LeaseRevoke", pb.LeaseRevokeRequest(ID=3), True),
    (f"{LEASE}LeaseRevoke", pb.LeaseRevokeRequest(ID=2), True),
    (f"{LEASE}LeaseRevoke", pb.LeaseRevokeRequest(ID=1), True),
    (*auth("AuthDisable"), True),
]


def test_every_method_is_refused_to_the_same_people(both: Both) -> None:
    """Nobody, a token that is none, a user without a role, one with some, root: the same codes, texts and answers."""
    begin(both)
    for path, request, is_told in ASKED:
        for who in EVERYBODY:
            if path.endswith("Observe") and who in ("", "bad", "bob"):
                continue  # etcd's ends the call without a status at once
            both.ask(who, path, request, is_told=is_told)
    both.check()


WATCHED = [(key, range_end) for key, range_end in SPANS if range_end != b"\0"] + [(b"", b"")]


def test_watches_are_refused_to_the_same_people(both: Both) -> None:
    """Created and canceled, with the reason, and the call goes on. (From a key on, 3.4 looks at that key only.)"""
    begin(both)
    for key, range_end in WATCHED:
        create = pb.WatchRequest(create_request={"key": key, "range_end": range_end})
        for who in EVERYBODY if key == b"a" else ("alice",):
            both.ask(who, WATCH, create)
    both.check()


# --- at random -----------------------------------------------------------------------------------


def log_in_all(both: Both) -> None:
    """Those that are always there again: root, and two users of one role."""
    both.log_in("root", "new")
    both.log_in("root", "root")
    for user, role in (("root", "root"), ("u1", "r1"), ("u2", "r1")):
        for path, request in (
            auth("UserAdd", name=user, password=user),
            auth("RoleAdd", name=role),
            auth("UserGrantRole", user=user, role=role),
            auth("AuthEnable"),
        ):
            both.ask("root" if both.knows("root") else "", path, request)
        both.log_in(user, user)


def converse(both: Both, seed: int, count: int) -> None:
    for number, asked in enumerate(Requests(seed).some(count)):
        if number % 60 == 0:
            log_in_all(both)
        if isinstance(asked, Login):
            both.log_in(asked.user, asked.password)
        elif both.knows(asked.who):
            both.ask(asked.who, asked.path, asked.request, is_told=asked.is_told)
        both.check()


@pytest.fixture
def many_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address may log in as often as it likes."""
    monkeypatch.setattr(limits, "LOGINS_BURST", 1_000_000)


@pytest.mark.usefixtures("many_logins")
def test_users_at_random_are_told_the_same(both: Both) -> None:
    """Who comes, goes, is given and loses roles and passwords, and asks for what he may or may not."""
    converse(both, 1, 240)


@pytest.mark.soak
@pytest.mark.usefixtures("many_logins")
@pytest.mark.parametrize("seed", range(100, 120))
def test_users_at_random_are_told_the_same_for_long(both: Both, seed: int) -> None:
    """The same with other seeds, and more of it."""
    converse(both, seed, 1500)


# --- rows ----------------------------------------------------------------------------------------


def etcd_rows(data_dir: Path) -> dict[bytes, bytes]:
    """The rows of users and roles that a stopped etcd has, as an import names them."""
    with EtcdFile(data_dir / "member" / "snap" / "db") as file:
        return {key: value for key, value in carried_rows(file) if key.startswith(b"etcd/auth")}


def without_salt(rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Every hash of a password is another."""
    found = {key: value for key, value in rows.items() if key.startswith(b"etcd/auth")}
    return {key: re.sub(rb"\$2a\$04\$.{53}", b"HASH", value, flags=re.DOTALL) for key, value in found.items()}


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_rows_of_users_are_etcds_to_the_byte(tmp_path: Path, backend: str) -> None:
    """After the same changes: users, roles, whether they count, and the revision."""
    with kvstore.open(tmp_path / "store", backend) as store:
        with (
            real.etcd(tmp_path / "etcd", tmp_path / "log", "--bcrypt-cost", str(COST)) as server,
            kvstore.serve(store, "http://127.0.0.1:0", etcd_version="3.4", bcrypt_cost=COST) as serving,
        ):
            both = Both(Side(serving.endpoints[0]), Side(server.endpoint))
            for path, request in MANAGED:
                both.ask("", path, request)
            both.log_in("root", "pw")
            for path, request in AFTER:
                both.ask("root", path, request)
            both.close()
        both.check()
        ours = without_salt(store.engine.carried)
    assert ours == without_salt(etcd_rows(tmp_path / "etcd"))
    assert len(ours) == 5


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_users_come_from_an_etcd_and_go_back(tmp_path: Path, backend: str) -> None:
    """Imported, they log in with their passwords and may do what they might; exported, so do those that were added."""
    cost = ("--bcrypt-cost", str(COST))
    with real.etcd(tmp_path / "etcd", tmp_path / "log", *cost) as server:
        side = Side(server.endpoint)
        for path, request in SETUP:
            side.ask("", path, request)
        side.close()
    find_foreign("etcd").import_store(tmp_path / "etcd", tmp_path / "store", ImportOptions(backend=backend))
    with kvstore.open(tmp_path / "store", backend) as store:
        with kvstore.serve(store, "http://127.0.0.1:0", bcrypt_cost=COST) as serving:
            side = Side(serving.endpoints[0])
            check_users(side, "alice", "root")
            for path, request in (
                auth("UserAdd", name="carol", password="carol"),
                auth("UserGrantRole", user="carol", role="keys"),
                auth("UserChangePassword", name="bob", password="changed"),
            ):
                assert isinstance(side.ask("root", path, request), dict)
            check_users(side, "carol")
            side.close()
        export_store(store, tmp_path / "out.db")
    with real.etcd(restored(tmp_path), tmp_path / "log", *cost) as server:
        side = Side(server.endpoint)
        check_users(side, "alice", "carol", "root")
        assert side.log_in("bob", "changed") == "logged in"
        side.close()


def check_users(side: Side, *names: str) -> None:
    """They log in, and may read what their roles say; others may not even that."""
    assert side.ask("", *READ) == "3 etcdserver: user name is empty"
    for name in names:
        assert side.log_in(name, "wrong").startswith("3 ")
        assert side.log_in(name, name) == "logged in"
        assert "kvs" in side.ask(name, *READ)
        denied = side.ask(name, f"{KV}Put", pb.PutRequest(key=b"z"))
        assert isinstance(denied, dict) if name == "root" else denied == "7 etcdserver: permission denied"


def restored(folder: Path) -> Path:
    """A data directory of etcd's, out of the exported file."""
    real.etcdctl("snapshot", "restore", str(folder / "out.db"), "--data-dir", str(folder / "again"))
    return folder / "again"


# --- tokens --------------------------------------------------------------------------------------

READ = (f"{KV}Range", pb.RangeRequest(key=b"a1"))


def test_tokens_live_as_long(both: Both) -> None:
    """They outlive other changes; they end with a password, with their user, and with users as a whole."""
    begin(both)
    both.log_in("alice", "alice", "second")
    for change in (
        auth("UserAdd", name="carol", password="c"),
        auth("UserRevokeRole", name="alice", role="more"),
        auth("RoleDelete", role="more"),
        auth("UserChangePassword", name="bob", password="new"),
    ):
        both.ask("root", *change)
        for who in ("alice", "second", "bob"):
            both.ask(who, *READ)
    assert both.log_in("bob", "bob") != "logged in"
    assert both.log_in("bob", "new") == "logged in"
    both.ask("bob", *READ)
    both.ask("root", *auth("UserChangePassword", name="alice", password="new"))
    both.ask("alice", *READ)
    both.ask("second", *READ)
    assert both.log_in("alice", "new") == "logged in"
    both.ask("alice", *READ)
    both.ask("root", *auth("UserDelete", name="alice"))
    both.ask("alice", *READ)
    both.ask("root", *auth("AuthDisable"))
    both.ask("", *READ)  # with a token 3.4 refuses everything then, 3.5 does not
    both.ask("", *auth("AuthEnable"))
    for who in ("", "bob", "root"):
        both.ask(who, *READ)
    both.check()


# --- JSON ----------------------------------------------------------------------------------------

OVER_HTTP = [
    ("kv/range", {"key": "YTE="}),
    ("kv/range", {"key": "ejE="}),
    ("kv/range", {}),
    ("kv/put", {"key": "YQ==", "value": "YQ=="}),
    ("kv/txn", {"success": [{"requestPut": {"key": "eg=="}}]}),
    ("lease/leases", {}),
    ("maintenance/status", {}),
    ("maintenance/defragment", {}),
    ("auth/user/list", {}),
    ("auth/user/get", {"name": "alice"}),
    ("auth/role/get", {"role": "keys"}),
    ("lock/lock", {"name": "eg==", "lease": "3"}),
    ("auth/enable", {}),
]


def posted(url: str, path: str, message: Any, token: str) -> Any:
    """The status of HTTP, and the JSON."""
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"{url}/v3/{path}", json.dumps(message).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=real.PATIENCE_SECONDS) as response:
            status, found = response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            status, found = error.code, json.load(error)
    if path == "maintenance/status" and status == 200:
        return status
    for name in ("cluster_id", "member_id"):
        found.get("header", {}).pop(name, None)
    return status, found


def test_the_gateway_answers_the_same(both: Both) -> None:
    """Tokens are got and shown over HTTP, and refusals have the same statuses and bodies."""
    begin(both)
    tokens: list[dict[str, str]] = [{"": "", "bad": BAD} for _ in both.sides]
    for name in ("root", "alice", "bob"):
        for side, found in zip(both.sides, tokens, strict=True):
            status, answer = posted(side.url, "auth/authenticate", {"name": name, "password": name}, "")
            assert status == 200
            found[name] = answer["token"]
    for path, message in [*OVER_HTTP, ("auth/authenticate", {"name": "root", "password": "wrong"})]:
        for who in EVERYBODY:
            ours, theirs = (
                posted(side.url, path, message, found[who])
                for side, found in zip(both.sides, tokens, strict=True)
            )
            both._compare(f"{who or 'nobody'}: {path}", ours, theirs)
    both.check()


# --- etcdctl -------------------------------------------------------------------------------------

COMMANDS = """
user add root:root
user grant-role root root
user add alice:alice
user add bob --no-password
role add keys
role add keys
role grant-permission keys readwrite a c
role grant-permission keys read k --prefix
role grant-permission keys write x --from-key
role grant-permission keys read e e
role grant-permission none read a
role get keys
user grant-role alice keys
user grant-role alice none
user get alice
user get alice --detail
user list
role list
put a 1
auth enable
get a
put a 2
--user root:root get a
--user root:wrong get a
--user nobody:x get a
--user bob:x get a
--user alice:alice get a
--user alice:alice put a 3
--user alice:alice put d 3
--user alice:alice get a c
--user alice:alice get a d
--user alice:alice get k --prefix
--user alice:alice get --prefix -- ""
--user alice:alice del a --prev-kv
--user alice:alice del k
--user alice:alice put x 1
--user alice:alice get x
--user alice:alice user get alice
--user alice:alice user get bob
--user alice:alice role get keys
--user alice:alice role list
--user alice:alice lease grant 1000000000000
--user alice:alice compaction 2
--user alice:alice alarm list
--user alice:alice member remove 77
--user alice:alice defrag
--user root:root role revoke-permission keys a c
--user root:root role revoke-permission keys a c
--user alice:alice get a
--user root:root user revoke-role alice keys
--user root:root user revoke-role alice keys
--user root:root role delete keys
--user root:root user delete alice
--user root:root user delete root
--user root:root auth enable
--user root:root auth disable
--user root:root auth disable
auth disable
get a
--user root:root get a
"""


def test_etcdctl_prints_the_same(both: Both) -> None:
    """Of every command: exit code, output, error."""
    for line in COMMANDS.strip().splitlines():
        words = [word.strip('"') for word in line.split()]
        ours, theirs = (side.etcdctl(*words) for side in both.sides)
        both._compare(line, ours, theirs)
    both.check()


def test_a_token_that_is_not_used_ends(tmp_path: Path) -> None:
    """After its time, on either side; being used makes it last."""
    options = ("--bcrypt-cost", str(COST), "--auth-token-ttl", "2")
    with (
        real.etcd(tmp_path / "etcd", tmp_path / "log", *options) as server,
        kvstore.open(tmp_path / "store") as store,
        kvstore.serve(
            store, "http://127.0.0.1:0", etcd_version="3.4", bcrypt_cost=COST, auth_token_ttl_seconds=2
        ) as serving,
    ):
        both = Both(Side(serving.endpoints[0]), Side(server.endpoint))
        begin(both)
        time.sleep(4.5)  # etcd looks once a second
        assert both.ask("alice", *READ) == "16 etcdserver: invalid auth token"
        both.log_in("alice", "alice")
        assert "kvs" in both.ask("alice", *READ)
        both.close()
        both.check()
