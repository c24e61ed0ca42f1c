"""Users at the endpoint: who may do what, also when that changes meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import v3electionpb, v3lockpb
from kvstore.network.dialect import V3_4, V3_5, V3_6, Dialect
from kvstore.network.endpoint import Settings
from kvstore.network.services import TABLE
from tests.network.fake_call import Client, FakeCall, Refused
from tests.network.known_users import (
    AUTH,
    CLUSTER,
    COST,
    DENIED,
    ELECTION,
    EMPTY,
    KV,
    LEASE,
    LOCK,
    MAINTENANCE,
    TOKEN,
    WATCH,
    add_user,
    auth,
    enable,
    grant,
    log_in,
    outcome,
    token_of,
)


@pytest.fixture
def client(store: kvstore.Store) -> Iterator[Client]:
    with Client(store.engine, Settings(bcrypt_cost=COST)) as opened:
        yield opened


# --- who may do what -----------------------------------------------------------------------------

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
    (f"{LEASE}LeaseLeases", pb.LeaseLeasesRequest(), ROOT, OPEN),  # they have keys that bob may not read
    (f"{LEASE}LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=9), USER, OPEN),
    (f"{LEASE}LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=1), ROOT, OPEN),
    (f"{CLUSTER}MemberList", pb.MemberListRequest(), USER, OPEN),
    (f"{CLUSTER}MemberAdd", LEARNER, ROOT, ROOT),
    (f"{CLUSTER}MemberRemove", pb.MemberRemoveRequest(ID=7), ROOT, ROOT),
    (f"{CLUSTER}MemberUpdate", pb.MemberUpdateRequest(ID=7), ROOT, ROOT),
    (f"{CLUSTER}MemberPromote", pb.MemberPromoteRequest(ID=7), ROOT, ROOT),
    (f"{MAINTENANCE}Status", pb.StatusRequest(), USER, OPEN),
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
            if dialect == V3_6 and expected is BARE:
                expected = ROOT
            for who, error in zip(("nobody", "bad", "bob"), expected, strict=True):
                found.append((path, who, outcome(client, path, request, **weak_token(client, who, bob))))
                wanted.append((path, who, error))
        assert found == wanted


def test_a_transaction_attaches_no_key_to_a_lease_with_keys_of_others(client: Client) -> None:
    """As a plain put does not: who may end a lease deletes all its keys."""
    alice = enable(client)["alice"]
    for lease, told in ((1, "ok"), (2, DENIED)):
        put = pb.PutRequest(key=b"a5", lease=lease)
        inner = pb.TxnRequest(failure=[pb.RequestOp(request_put=put)])
        for branch in (pb.RequestOp(request_put=put), pb.RequestOp(request_txn=inner)):
            assert outcome(client, f"{KV}Txn", pb.TxnRequest(failure=[branch]), token=alice) == told


def test_leases_are_told_to_who_may_read_their_keys(client: Client) -> None:
    """All keys of all leases."""
    tokens = enable(client)
    leases = f"{LEASE}LeaseLeases", pb.LeaseLeasesRequest()
    assert [outcome(client, *leases, token=tokens[who]) for who in ("alice", "root")] == [DENIED, "ok"]
    client.ask(f"{KV}DeleteRange", pb.DeleteRangeRequest(key=b"z1"), token=tokens["root"])
    assert [outcome(client, *leases, token=tokens[who]) for who in ("alice", "bob")] == ["ok", DENIED]


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
