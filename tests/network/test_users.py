"""Users at the endpoint: who may do what, tokens, passwords."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import v3electionpb, v3lockpb
from kvstore.model import AlarmRequest
from kvstore.network import limits, users
from kvstore.network.call import Kind, Peer
from kvstore.network.dialect import V3_4, V3_5, V3_6, Dialect
from kvstore.network.endpoint import Endpoint, Settings
from kvstore.network.http2.hpack import encode
from kvstore.network.services import TABLE
from kvstore.network.services.auth import METHODS
from kvstore.network.tokens import is_password
from tests.network.fake_call import Client, FakeCall, Refused
from tests.network.wire import Answer, Wire

KV, WATCH, LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/"
AUTH, CLUSTER, MAINTENANCE = "/etcdserverpb.Auth/", "/etcdserverpb.Cluster/", "/etcdserverpb.Maintenance/"
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
COST = 4
PASSWORD = "correct horse"


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


@pytest.fixture
def client(store: kvstore.Store) -> Iterator[Client]:
    with Client(store.engine, Settings(bcrypt_cost=COST)) as opened:
        yield opened


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


# --- who may do what -----------------------------------------------------------------------------

EMPTY, TOKEN, DENIED = (
    f"{code} etcdserver: {text}"
    for code, text in ((3, "user name is empty"), (16, "invalid auth token"), (7, "permission denied"))
)
BARE = ("2 auth: user name is empty", "2 auth: invalid auth token", "2 auth: permission denied")
AS_CLIENT = (
    "2 etcdserver: user name is empty",
    "2 etcdserver: invalid auth token",
    "2 etcdserver: permission denied",
)
ROOT = (EMPTY, TOKEN, DENIED)
USER = (EMPTY, TOKEN, "ok")
OPEN = ("ok", "ok", "ok")
KNOWN = ("ok", TOKEN, "ok")


def always(error: str) -> tuple[str, str, str]:
    return error, error, error


NO_KEY, NO_LEASE = "3 etcdserver: key is not provided", "5 etcdserver: requested lease not found"
FUTURE = "11 etcdserver: mvcc: required revision is a future revision"
LEARNER = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True)
RAISE = pb.AlarmRequest(action="ACTIVATE", memberID=7, alarm="NOSPACE")
GRANTED = pb.AuthRoleGrantPermissionRequest(name="none", perm={"key": b"a"})

Row = tuple[str, Any, tuple[str, str, str], tuple[str, str, str]]
"""Path, request, and what nobody, a bad token and bob get: since 3.5, and before."""

TABLE_OF_CALLS: list[Row] = [
    (f"{KV}Range", pb.RangeRequest(key=b"a"), ROOT, ROOT),
    (f"{KV}Range", pb.RangeRequest(key=b"a", range_end=b"\0", limit=1), ROOT, ROOT),
    (f"{KV}Range", pb.RangeRequest(key=b"a", range_end=b"\0"), ROOT, ROOT),
    (f"{KV}Range", pb.RangeRequest(), always(NO_KEY), always(NO_KEY)),
    (f"{KV}Put", pb.PutRequest(key=b"a"), ROOT, ROOT),
    (f"{KV}Put", pb.PutRequest(), always(NO_KEY), always(NO_KEY)),
    (f"{KV}DeleteRange", pb.DeleteRangeRequest(key=b"a"), ROOT, ROOT),
    (f"{KV}DeleteRange", pb.DeleteRangeRequest(), always(NO_KEY), always(NO_KEY)),
    (f"{KV}Txn", pb.TxnRequest(success=[{"request_put": {"key": b"a"}}]), ROOT, ROOT),
    (f"{KV}Txn", pb.TxnRequest(success=[{"request_range": {"key": b"a"}}]), ROOT, ROOT),
    (f"{KV}Txn", pb.TxnRequest(compare=[{"key": b"a", "version": 0}]), ROOT, ROOT),
    (f"{KV}Txn", pb.TxnRequest(success=[{"request_put": {}}]), always(NO_KEY), always(NO_KEY)),
    (f"{KV}Txn", pb.TxnRequest(success=[{"request_range": {}}]), always(NO_KEY), always(NO_KEY)),
    (f"{KV}Txn", pb.TxnRequest(), KNOWN, KNOWN),
    (f"{KV}Compact", pb.CompactionRequest(revision=99), ROOT, (FUTURE, TOKEN, FUTURE)),
    (f"{KV}Compact", pb.CompactionRequest(revision=99, physical=True), ROOT, (FUTURE, TOKEN, FUTURE)),
    (f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=60), USER, KNOWN),
    (f"{LEASE}LeaseRevoke", pb.LeaseRevokeRequest(ID=1), ROOT, ROOT),
    (
        f"{LEASE}LeaseRevoke",
        pb.LeaseRevokeRequest(ID=9),
        (EMPTY, TOKEN, NO_LEASE),
        (NO_LEASE, TOKEN, NO_LEASE),
    ),
    (f"{LEASE}LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=1), USER, OPEN),
    (f"{LEASE}LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=1, keys=True), ROOT, OPEN),
    (f"{LEASE}LeaseLeases", pb.LeaseLeasesRequest(), USER, OPEN),
    (f"{LEASE}LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=9), USER, OPEN),
    (f"{LEASE}LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=1), ROOT, OPEN),
    (f"{CLUSTER}MemberList", pb.MemberListRequest(), USER, OPEN),
    (f"{CLUSTER}MemberAdd", LEARNER, ROOT, ROOT),
    (f"{CLUSTER}MemberRemove", pb.MemberRemoveRequest(ID=7), ROOT, ROOT),
    (f"{CLUSTER}MemberUpdate", pb.MemberUpdateRequest(ID=7), ROOT, ROOT),
    (f"{CLUSTER}MemberPromote", pb.MemberPromoteRequest(ID=7), ROOT, ROOT),
    (f"{MAINTENANCE}Status", pb.StatusRequest(), ROOT, OPEN),
    (f"{MAINTENANCE}Alarm", pb.AlarmRequest(), USER, ("ok", BARE[1], "ok")),
    (f"{MAINTENANCE}Alarm", RAISE, ROOT, ("ok", BARE[1], "ok")),
    (f"{MAINTENANCE}Hash", pb.HashRequest(), BARE, BARE),
    (f"{MAINTENANCE}HashKV", pb.HashKVRequest(), BARE, BARE),
    (f"{MAINTENANCE}Defragment", pb.DefragmentRequest(), BARE, BARE),
    (f"{MAINTENANCE}Snapshot", pb.SnapshotRequest(), BARE, BARE),
    (
        f"{MAINTENANCE}MoveLeader",
        pb.MoveLeaderRequest(targetID=7),
        ROOT,
        always("9 etcdserver: bad leader transferee"),
    ),
    (f"{AUTH}AuthEnable", pb.AuthEnableRequest(), ROOT, ROOT),
    (f"{AUTH}AuthDisable", pb.AuthDisableRequest(), ROOT, ROOT),
    (f"{AUTH}UserAdd", pb.AuthUserAddRequest(name="carol"), ROOT, ROOT),
    (f"{AUTH}UserGet", pb.AuthUserGetRequest(name="bob"), USER, USER),
    (f"{AUTH}UserGet", pb.AuthUserGetRequest(name="alice"), ROOT, ROOT),
    (f"{AUTH}UserList", pb.AuthUserListRequest(), ROOT, ROOT),
    (f"{AUTH}UserDelete", pb.AuthUserDeleteRequest(name="bob"), ROOT, ROOT),
    (f"{AUTH}UserChangePassword", pb.AuthUserChangePasswordRequest(name="bob"), ROOT, ROOT),
    (f"{AUTH}UserGrantRole", pb.AuthUserGrantRoleRequest(user="bob", role="root"), ROOT, ROOT),
    (f"{AUTH}UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="bob", role="r"), ROOT, ROOT),
    (f"{AUTH}RoleAdd", pb.AuthRoleAddRequest(name="s"), ROOT, ROOT),
    (f"{AUTH}RoleGet", pb.AuthRoleGetRequest(role="r"), ROOT, ROOT),
    (f"{AUTH}RoleList", pb.AuthRoleListRequest(), ROOT, ROOT),
    (f"{AUTH}RoleDelete", pb.AuthRoleDeleteRequest(role="r"), ROOT, ROOT),
    (f"{AUTH}RoleGrantPermission", GRANTED, ROOT, ROOT),
    (f"{AUTH}RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="r"), ROOT, ROOT),
    (f"{LOCK}Lock", v3lockpb.LockRequest(name=b"a", lease=1), AS_CLIENT, AS_CLIENT),
    (f"{LOCK}Unlock", v3lockpb.UnlockRequest(key=b"a"), AS_CLIENT, AS_CLIENT),
    (f"{ELECTION}Campaign", v3electionpb.CampaignRequest(name=b"a", lease=1), AS_CLIENT, AS_CLIENT),
    (
        f"{ELECTION}Proclaim",
        v3electionpb.ProclaimRequest(leader={"key": b"a/1", "lease": 1}),
        AS_CLIENT,
        AS_CLIENT,
    ),
    (
        f"{ELECTION}Resign",
        v3electionpb.ResignRequest(leader={"key": b"a/1", "lease": 1}),
        AS_CLIENT,
        AS_CLIENT,
    ),
    (f"{ELECTION}Leader", v3electionpb.LeaderRequest(name=b"a"), AS_CLIENT, AS_CLIENT),
    (f"{ELECTION}Observe", v3electionpb.LeaderRequest(name=b"a"), AS_CLIENT, AS_CLIENT),
    ("/grpc.health.v1.Health/Check", TABLE["/grpc.health.v1.Health/Check"].request(), OPEN, OPEN),
]


def weak_token(client: Client, who: str, bob: str) -> dict[str, str]:
    return {"nobody": {}, "bad": {"token": "no.1"}, "bob": {"token": bob}}[who]


@pytest.mark.parametrize("dialect", [V3_4, V3_5, V3_6], ids=str)
def test_who_may_not_is_told_so(store: kvstore.Store, dialect: Dialect) -> None:
    """Every method, asked by nobody, with a token that is none, and by a user without a role."""
    with Client(store.engine, Settings(bcrypt_cost=COST, dialect=dialect)) as client:
        bob = enable(client)["bob"]
        found, wanted = [], []
        for path, request, since_3_5, before in TABLE_OF_CALLS:
            expected = before if dialect < V3_5 else since_3_5
            if dialect == V3_6 and path.endswith("Status"):
                expected = USER
            for who, error in zip(("nobody", "bad", "bob"), expected, strict=True):
                found.append((path, who, outcome(client, path, request, **weak_token(client, who, bob))))
                wanted.append((path, who, error))
        assert found == wanted


def test_no_method_is_forgotten() -> None:
    """The table above has all of them, but those that are asked in another way."""
    others = {WATCH, f"{AUTH}Authenticate", f"{AUTH}AuthStatus", "/grpc.health.v1.Health/Watch"}
    assert {row[0] for row in TABLE_OF_CALLS} | others | {f"{MAINTENANCE}Downgrade"} == set(TABLE)


def test_status_of_users_and_downgrades_are_new(store: kvstore.Store) -> None:
    """AuthStatus came with 3.5, and is for root; so is Downgrade."""
    for dialect, wanted in (
        (V3_4, "12 unknown method AuthStatus for service etcdserverpb.Auth"),
        (V3_5, "ok"),
    ):
        with Client(store.engine, Settings(bcrypt_cost=COST, dialect=dialect)) as client:
            if not client.endpoint.users_are_on:
                enable(client)
            root, bob = log_in(client, "root"), log_in(client, "bob")
            assert outcome(client, f"{AUTH}AuthStatus", pb.AuthStatusRequest(), token=bob) == DENIED
            assert outcome(client, f"{AUTH}AuthStatus", pb.AuthStatusRequest(), token=root) == wanted
            if dialect == V3_5:
                status = auth(client, "AuthStatus", root)
                assert (status.enabled, status.authRevision) == (True, 8)
                assert outcome(client, f"{MAINTENANCE}Downgrade", pb.DowngradeRequest(), token=bob) == DENIED


def test_root_may_do_everything(client: Client) -> None:
    """Nothing in the table is refused to root, but for what is refused to everybody."""
    root = enable(client)["root"]
    refusals = (EMPTY, TOKEN, DENIED, *BARE, *AS_CLIENT)
    for path, request, _, _ in TABLE_OF_CALLS:
        if path not in (f"{AUTH}AuthDisable", f"{ELECTION}Observe"):
            assert outcome(client, path, request, token=root) not in refusals, path


# --- keys ----------------------------------------------------------------------------------------


def test_a_transaction_is_looked_at_whole(client: Client) -> None:
    """Compares, the branch that is not taken, what is nested, and what puts and deletes give back."""
    token = enable(client)["alice"]
    bad: list[Any] = [
        pb.TxnRequest(compare=[{"key": b"z", "version": 0}]),
        pb.TxnRequest(failure=[{"request_range": {"key": b"z"}}]),
        pb.TxnRequest(failure=[{"request_put": {"key": b"z"}}]),
        pb.TxnRequest(success=[{"request_txn": {"failure": [{"request_put": {"key": b"z"}}]}}]),
        pb.TxnRequest(success=[{"request_txn": {"compare": [{"key": b"z", "version": 0}]}}]),
    ]
    for request in bad:
        assert outcome(client, f"{KV}Txn", request, token=token) == DENIED
    assert (
        outcome(client, f"{KV}Txn", pb.TxnRequest(failure=[{"request_put": {"key": b"b"}}]), token=token)
        == "ok"
    )


def test_what_was_there_is_shown_to_readers_only(client: Client) -> None:
    """Who may only write gets no value before, neither from a put, a delete, nor from either in a transaction."""
    root = enable(client)["root"]
    auth(client, "RoleAdd", root, name="writer")
    grant(client, "writer", "WRITE", b"w", who=root)
    auth(client, "UserGrantRole", root, user="bob", role="writer")
    token = log_in(client, "bob")
    put, delete = {"key": b"w", "prev_kv": True}, {"key": b"w", "prev_kv": True}
    for path, request in (
        (f"{KV}Put", pb.PutRequest(**put)),
        (f"{KV}DeleteRange", pb.DeleteRangeRequest(**delete)),
        (f"{KV}Txn", pb.TxnRequest(success=[{"request_put": put}])),
        (f"{KV}Txn", pb.TxnRequest(success=[{"request_delete_range": delete}])),
    ):
        assert outcome(client, path, request, token=token) == DENIED
    assert outcome(client, f"{KV}Put", pb.PutRequest(key=b"w"), token=token) == "ok"


def test_a_lease_is_as_secret_as_its_keys(client: Client) -> None:
    """Who may not write one of them neither ends it nor keeps it alive, nor puts a key of his own under it."""
    token = enable(client)["alice"]
    for number, wanted in ((1, "ok"), (2, DENIED)):
        assert outcome(client, f"{KV}Put", pb.PutRequest(key=b"a2", lease=number), token=token) == wanted
        for name in ("KeepAlive", "TimeToLive", "Revoke"):
            request = getattr(pb, f"Lease{name}Request")(ID=number)
            if name == "TimeToLive":
                request.keys = True
            assert outcome(client, f"{LEASE}Lease{name}", request, token=token) == wanted


# --- watches -------------------------------------------------------------------------------------


def watched(client: Client, **metadata: str) -> FakeCall:
    call = client.begin(WATCH, None, **metadata)
    assert call.running is not None
    return call


def create(client: Client, call: FakeCall, key: bytes, range_end: bytes = b"") -> Any:
    """The response to a request for a watch."""
    assert call.running is not None
    known = len(call.answers)
    request = pb.WatchRequest(create_request={"key": key, "range_end": range_end})
    call.running.received(request.SerializeToString())
    client.until(lambda: len(call.answers) > known)
    return call.answers[known]


def test_a_watch_is_refused_without_ending_the_call(client: Client) -> None:
    """Created and canceled at once, with etcd's reason; also one to the end of all keys, which 3.4 lets through."""
    token = enable(client)["alice"]
    reasons = {
        "": "rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
        "no.1": "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        token: "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    }
    for each, reason in reasons.items():
        call = watched(client, **token_of(each))
        for key, range_end in ((b"z", b""), (b"a", b"\0"), (b"", b"\0"), (b"", b"")):
            response = create(client, call, key, range_end)
            assert (response.created, response.canceled, response.watch_id) == (True, True, -1)
            assert response.cancel_reason == reason
        assert call.alive
    response = create(client, call, b"a", b"c")
    assert (response.created, response.canceled, response.watch_id) == (True, False, 0)


def test_a_watch_outlives_its_token(client: Client) -> None:
    """It was looked at when it was created, and not after that."""
    tokens = enable(client)
    call = watched(client, token=tokens["alice"])
    create(client, call, b"a", b"c")
    auth(client, "UserDelete", tokens["root"], name="alice")
    client.ask(f"{KV}Put", pb.PutRequest(key=b"a"), token=tokens["root"])
    client.until(lambda: len(call.answers) == 2)
    assert call.answers[1].events[0].kv.key == b"a"


# --- changes while a request is under way --------------------------------------------------------


def test_no_write_slips_past_a_change_of_the_rules(client: Client) -> None:
    """A write whose user was allowed it when it came is refused if that changes before it is planned."""
    tokens = enable(client)
    writer = client.endpoint.engine.writer  # type: ignore[attr-defined]
    revoke = pb.AuthUserRevokeRoleRequest(name="alice", role="r")
    with writer.planning:  # nothing is planned meanwhile
        change = client.begin(f"{AUTH}UserRevokeRole", revoke, token=tokens["root"])
        put = client.begin(f"{KV}Put", pb.PutRequest(key=b"a"), token=tokens["alice"])
        client.turn()
        assert change.alive and put.alive
    client.until(lambda: not change.alive and not put.alive)
    change.check()
    with pytest.raises(Refused) as refused:
        put.check()
    assert str(refused.value.text) == "etcdserver: revision of auth store is old"
    assert outcome(client, f"{KV}Put", pb.PutRequest(key=b"a"), token=tokens["alice"]) == DENIED


def test_no_read_slips_past_a_change_of_the_rules(client: Client) -> None:
    """What was read while the rules changed is void."""
    tokens = enable(client)
    held, begun = threading.Event(), threading.Event()
    read = client.endpoint.engine.range_pages

    def slow(*arguments: Any) -> Any:
        begun.set()
        held.wait(60)
        return read(*arguments)

    client.endpoint.engine.range_pages = slow  # type: ignore[method-assign, assignment]
    call = client.begin(f"{KV}Range", pb.RangeRequest(key=b"a", range_end=b"c"), token=tokens["alice"])
    client.until(begun.is_set)
    auth(client, "UserRevokeRole", tokens["root"], name="alice", role="r")
    held.set()
    client.until(lambda: not call.alive)
    with pytest.raises(Refused, match="revision of auth store is old"):
        call.check()


def test_writes_that_were_under_way_when_users_came_on_are_done(client: Client) -> None:
    """Whoever asked before that did not have to say who he is; whoever asks after it does."""
    add_user(client, "root", "root")
    calls = [client.begin(f"{KV}Put", pb.PutRequest(key=b"a")) for _ in range(5)]
    auth(client, "AuthEnable")
    client.until(lambda: not any(call.alive for call in calls))
    for call in calls:
        call.check()
    assert outcome(client, f"{KV}Put", pb.PutRequest(key=b"a")) == EMPTY


# --- who it is -----------------------------------------------------------------------------------


def asked_by(endpoint: Endpoint, metadata: dict[str, str], peer: Peer | None = None) -> str:
    return endpoint.users.caller(FakeCall(f"{KV}Range", metadata, peer)).name.decode()


def test_a_token_comes_under_two_names(store: kvstore.Store) -> None:
    """``token``, or ``authorization`` as it is; since 3.6 with ``Bearer`` before it."""
    with Client(store.engine, Settings(bcrypt_cost=COST)) as client:
        token = enable(client)["alice"]
        for metadata in ({"token": token}, {"authorization": token}, {"token": token, "authorization": "no"}):
            assert asked_by(client.endpoint, metadata) == "alice"
        with pytest.raises(kvstore.RequestError, match="invalid auth token"):
            asked_by(client.endpoint, {"authorization": f"Bearer {token}"})
    with Client(store.engine, Settings(bcrypt_cost=COST, dialect=V3_6)) as client:
        token = log_in(client, "alice")
        assert asked_by(client.endpoint, {"authorization": f"Bearer {token}"}) == "alice"
        assert asked_by(client.endpoint, {"authorization": token}) == "alice"


def test_a_certificate_names_a_user(client: Client) -> None:
    """Where there is no token; never over JSON. A name that is no user's may do nothing."""
    token = enable(client)["bob"]
    alice = Peer(is_tls=True, common_name="alice")
    assert asked_by(client.endpoint, {}, alice) == "alice"
    assert asked_by(client.endpoint, {"token": token}, alice) == "bob"
    assert asked_by(client.endpoint, {}, Peer(is_tls=True, common_name="alice", is_gateway=True)) == ""
    for name, wanted in (("alice", None), ("mallory", "permission denied"), ("", "user name is empty")):
        call = FakeCall(f"{KV}Range", {}, Peer(is_tls=True, common_name=name))
        request = pb.RangeRequest(key=b"a", range_end=b"c").SerializeToString()
        if wanted is None:
            call.method.serve(client.endpoint, call, request)
        else:
            with pytest.raises(kvstore.RequestError, match=wanted):
                call.method.serve(client.endpoint, call, request)


# --- passwords -----------------------------------------------------------------------------------


def test_no_password_reaches_the_disk(tmp_path: Path) -> None:
    """Neither when a user is added, nor when the password is changed, nor at a login."""
    with (
        kvstore.open(tmp_path / "store") as store,
        Client(store.engine, Settings(bcrypt_cost=COST)) as client,
    ):
        add_user(client, "root", "root")
        auth(client, "UserChangePassword", name="root", password=PASSWORD)
        auth(client, "AuthEnable")
        log_in(client, "root")
        store.checkpoint()
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert any(b"$2a$04$" in path.read_bytes() for path in files)
    assert not any(PASSWORD.encode() in path.read_bytes() for path in files)


def test_two_passwords_are_hashed_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest waits, and beyond a bound is refused; everything else goes on meanwhile."""
    under_way, most, lock, gate = [0], [0], threading.Lock(), threading.Event()

    def slow(password: bytes, cost: int) -> bytes:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        gate.wait(60)
        with lock:
            under_way[0] -= 1
        return b"hash"

    monkeypatch.setattr(users, "hashed", slow)
    monkeypatch.setattr(limits, "PASSWORDS_WAITING", 5)
    calls = [
        client.begin(f"{AUTH}UserAdd", pb.AuthUserAddRequest(name=f"u{number}", password="x"))
        for number in range(6)
    ]
    client.until(lambda: most[0] == 2 and not all(call.alive for call in calls))
    with pytest.raises(Refused, match="too many requests"):
        calls[5].check()
    assert outcome(client, f"{KV}Put", pb.PutRequest(key=b"a")) == "ok"
    gate.set()
    client.until(lambda: not any(call.alive for call in calls))
    assert most[0] == 2
    assert list(auth(client, "UserList").users) == [f"u{number}" for number in range(5)]


def test_guesses_are_counted_by_address(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for tokens too often is refused before any password is looked at; others are not."""
    monkeypatch.setattr(limits, "LOGINS_BURST", 3)
    monkeypatch.setattr(limits, "LOGINS_PER_SECOND", 0.0)
    monkeypatch.setattr(limits, "LOGIN_ADDRESSES", 2)
    enabled = client.endpoint.users
    for _ in range(3):
        enabled.admit_login(Peer("10.0.0.1"))
    for address, is_refused in (
        ("10.0.0.1", True),
        ("10.0.0.2", False),
        ("10.0.0.3", False),
        ("10.0.0.1", False),
    ):
        login = partial(enabled.admit_login, Peer(address))
        if is_refused:
            with pytest.raises(kvstore.KVStoreError, match="too many requests"):
                login()
        else:
            login()
    assert len(enabled._logins) == 2


def test_a_login_is_looked_at_again_when_the_rules_change(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that was right a moment ago, and is not any more, gets no token."""
    tokens = enable(client)
    seen: list[bytes] = []

    def checked(password: bytes, kept: bytes) -> bool:
        seen.append(kept)
        if len(seen) == 1:
            changing.set()
            changed.wait(60)
        return is_password(password, kept)

    changing, changed = threading.Event(), threading.Event()
    monkeypatch.setattr(users, "is_password", checked)
    call = client.begin(f"{AUTH}Authenticate", pb.AuthenticateRequest(name="bob", password=PASSWORD))
    client.until(changing.is_set)
    auth(client, "UserChangePassword", tokens["root"], name="bob", password="another")
    changed.set()
    client.until(lambda: not call.alive)
    with pytest.raises(Refused, match="authentication failed, invalid user ID or password"):
        call.check()
    assert len(seen) == 2


def test_odd_passwords_are_passwords(client: Client) -> None:
    """Empty, longer than bcrypt looks at, with a zero in it, not ASCII."""
    enable(client)
    root = log_in(client, "root")
    for number, password in enumerate(("", "x" * 200, "a\0b", "pässwörd")):
        auth(client, "UserAdd", root, name=f"u{number}", password=password)
        assert log_in(client, f"u{number}", password)
        with pytest.raises(Refused, match="authentication failed"):
            log_in(client, f"u{number}", "wrong")


# --- what stays ----------------------------------------------------------------------------------


def test_users_outlive_the_server(tmp_path: Path) -> None:
    """After a restart they count as before; their tokens are gone."""
    with (
        kvstore.open(tmp_path / "store") as store,
        Client(store.engine, Settings(bcrypt_cost=COST)) as client,
    ):
        token = enable(client)["alice"]
        assert client.endpoint.users_are_on
    with (
        kvstore.open(tmp_path / "store") as store,
        Client(store.engine, Settings(bcrypt_cost=COST)) as client,
    ):
        assert client.endpoint.users_are_on
        read = partial(outcome, client, f"{KV}Range", pb.RangeRequest(key=b"a1"))
        assert read() == EMPTY and read(token=token) == TOKEN
        assert read(token=log_in(client, "alice")) == "ok"


def test_a_store_that_is_served_twice_has_one_set_of_users(client: Client, store: kvstore.Store) -> None:
    """What is changed at one endpoint counts at the other, tokens too."""
    read = (f"{KV}Range", pb.RangeRequest(key=b"a1"))
    with Client(store.engine, Settings(bcrypt_cost=COST)) as other:
        assert outcome(other, *read) == "ok"
        root = enable(client)["root"]
        other.until(lambda: other.endpoint.users_are_on)
        assert outcome(other, *read) == EMPTY
        token = log_in(other, "alice")
        assert outcome(other, *read, token=token) == "ok"
        auth(client, "UserChangePassword", root, name="alice", password="new")
        other.turn()
        assert outcome(other, *read, token=token) == TOKEN
        auth(client, "AuthDisable", root)
        other.until(lambda: not other.endpoint.users_are_on)
        assert outcome(other, *read) == "ok"


def test_once_users_are_off_no_token_is_looked_at(client: Client) -> None:
    """A client may go on showing the one that it had, or any other. (etcd 3.4.23 refuses it, and later ones do not.)"""
    had = enable(client)
    auth(client, "AuthDisable", had["root"])
    for path, request in (
        (f"{KV}Range", pb.RangeRequest(key=b"a1")),
        (f"{KV}Put", pb.PutRequest(key=b"z")),
        (f"{AUTH}UserList", pb.AuthUserListRequest()),
    ):
        assert outcome(client, path, request, token=had["alice"]) == "ok"
        assert outcome(client, path, request, token="none") == "ok"


def test_the_library_has_no_users(client: Client, store: kvstore.Store) -> None:
    """Whoever opened the store may do everything, and sees alarms and keys as ever."""
    enable(client)
    store.put(b"z", b"1")
    assert store.get(b"z")
    store.engine.ask(AlarmRequest(7, "CORRUPT", on=False))


def test_every_method_of_etcd_is_served() -> None:
    """The seventeen of the service Auth."""
    assert len(METHODS) == 17


# --- what differs between releases ---------------------------------------------------------------


def test_a_permission_of_no_keys_is_refused_since_3_5(store: kvstore.Store) -> None:
    """3.4 takes it. A permission that is absent is refused always: there 3.4 would end."""
    for dialect, said in ((V3_4, "ok"), (V3_5, "3 etcdserver: invalid auth management")):
        with Client(store.engine, Settings(bcrypt_cost=COST, dialect=dialect)) as client:
            name = f"r{dialect.minor}"
            auth(client, "RoleAdd", name=name)
            ask = partial(outcome, client, f"{AUTH}RoleGrantPermission")
            for key, range_end in ((b"b", b"a"), (b"a", b"a"), (b"", b""), (b"", b"b")):
                perm = {"key": key, "range_end": range_end}
                assert ask(pb.AuthRoleGrantPermissionRequest(name=name, perm=perm)) == said
            for key, range_end in ((b"a", b""), (b"a", b"\0"), (b"\0", b"\0"), (b"a", b"a\0")):
                perm = {"key": key, "range_end": range_end}
                assert ask(pb.AuthRoleGrantPermissionRequest(name=name, perm=perm)) == "ok"
            absent = ask(pb.AuthRoleGrantPermissionRequest(name=name))
            assert absent == "3 etcdserver: permission not given"


def test_the_role_root_is_shown_with_everything_since_3_5(store: kvstore.Store) -> None:
    """Though it has no permissions of its own."""
    for dialect, shown in ((V3_4, []), (V3_5, [(2, b"", b"\0")])):
        with Client(store.engine, Settings(bcrypt_cost=COST, dialect=dialect)) as client:
            outcome(client, f"{AUTH}RoleAdd", pb.AuthRoleAddRequest(name="root"))
            perms = auth(client, "RoleGet", role="root").perm
            assert [(each.permType, each.key, each.range_end) for each in perms] == shown


# --- served --------------------------------------------------------------------------------------


def test_a_jwt_ends_with_the_next_change_of_the_rules(tmp_path: Path) -> None:
    """As it stands for the rules by which it was made. It outlives a restart of the server."""
    pytest.importorskip("jwt")
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 64)
    settings = Settings(bcrypt_cost=COST, auth_token=f"jwt,sign-method=HS256,priv-key={secret}")
    with kvstore.open(tmp_path / "store") as store:
        with Client(store.engine, settings) as client:
            tokens = enable(client)
        with Client(store.engine, settings) as client:
            read = partial(outcome, client, f"{KV}Range", pb.RangeRequest(key=b"a1"), token=tokens["alice"])
            assert read() == "ok"
            auth(client, "UserAdd", tokens["root"], name="carol", password="x")
            assert read() == "3 etcdserver: revision of auth store is old"
            auth(client, "UserDelete", tokens["root"], name="bob")  # who is root is asked for by name alone
            tokens["alice"] = log_in(client, "alice")
            assert outcome(client, f"{KV}Range", pb.RangeRequest(key=b"a1"), token=tokens["alice"]) == "ok"


@pytest.mark.parametrize("option", [{"auth_token": "nop"}, {"bcrypt_cost": 3}, {"auth_token_ttl_seconds": 0}])
def test_options_that_make_no_sense_leave_no_listener(store: kvstore.Store, option: dict[str, Any]) -> None:
    """They are refused, and the address is free again."""
    with kvstore.serve(store, "http://127.0.0.1:0") as serving:
        (url,) = serving.endpoints
    with pytest.raises(kvstore.BadOption, match=min(option).removesuffix("_seconds")):
        kvstore.serve(store, url, **option)
    with kvstore.serve(store, url):
        pass


def test_what_a_client_says_of_itself_is_text(store: kvstore.Store) -> None:
    """Since 3.5 a version that is no UTF-8 is refused."""
    answers: dict[Literal["3.4", "3.5"], str] = {
        "3.4": "0 ",
        "3.5": "3 etcdserver: invalid client api version",
    }
    for version, said in answers.items():
        with kvstore.serve(store, "http://127.0.0.1:0", etcd_version=version) as serving:
            host, port = serving.endpoints[0].removeprefix("http://").split(":")
            with Wire(host, int(port)) as wire:
                block = encode(
                    [
                        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", f"{KV}Range".encode())),
                        *((b"content-type", b"application/grpc"), (b"client-api-version", b"3.\xff")),
                    ]
                )
                answer = Answer()
                answer.stream = wire.http2.request(block, False)
                answer.stream.owner = answer
                wire.send(answer, pb.RangeRequest(key=b"a").SerializeToString())
                wire.half_close(answer)
                wire.read(lambda: answer.status is not None)  # noqa: B023  # called at once
                assert f"{answer.status} {answer.text}" == said
