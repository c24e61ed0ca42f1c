"""Users beside a real etcd: the same conversations, answer by answer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd.beside_keys import carried_rows
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.export_store import export_store

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import v3electionpb, v3lockpb
from kvstore.foreign import ImportOptions, find_foreign
from kvstore.network import limits
from tests.etcd import etcd_servers as real
from tests.network.random_users import Login, Requests
from tests.network.two_servers import (
    CLUSTER,
    COST,
    ELECTION,
    EVERYBODY,
    KV,
    LEASE,
    LOCK,
    MAINTENANCE,
    READ,
    SETUP,
    WATCH,
    Both,
    Side,
    auth,
    begin,
    grant,
    two_servers,
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)


@pytest.fixture(params=["lmdb", "sqlite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    with two_servers(tmp_path, request.param) as opened:
        yield opened


# --- who there is --------------------------------------------------------------------------------


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
    auth("UserAdd", name="long", password="x" * 72),
    *[auth("UserAdd", name="longer", password="x" * 73) for release in [real.RELEASE] if release >= "3.5"],
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
    both.log_in("long", "x" * 72)
    for path, request in AFTER:
        both.ask("root", path, request)
    both.ask("", *auth("Authenticate", name="root", password="pw"))
    both.check()


# --- who may do what -----------------------------------------------------------------------------


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
    (f"{KV}Txn", txn(success=[put(b"a5", lease=1)]), True),
    *[
        (f"{KV}Txn", txn(success=[put(b"a5", lease=2)]), True)
        for release in [real.RELEASE]
        if release >= "3.6"
    ],
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
    (f"{LOCK}Lock", v3lockpb.LockRequest(name=b"a", lease=1), True),
    (f"{LOCK}Unlock", v3lockpb.UnlockRequest(key=b"z/3"), True),
    (f"{LOCK}Unlock", v3lockpb.UnlockRequest(key=b"a/1"), True),
    (f"{ELECTION}Campaign", v3electionpb.CampaignRequest(name=b"z", lease=3, value=b"v"), True),
    (f"{ELECTION}Campaign", v3electionpb.CampaignRequest(name=b"a", lease=1, value=b"v"), True),
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
            kvstore.serve(
                store, "http://127.0.0.1:0", etcd_version=real.RELEASE, bcrypt_cost=COST
            ) as serving,
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
