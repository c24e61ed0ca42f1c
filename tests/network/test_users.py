"""Users at the endpoint: tokens, passwords, what stays of them, and what differs between releases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import AlarmRequest
from kvstore.network import limits, users
from kvstore.network.call import Peer
from kvstore.network.dialect import V3_4, V3_5, V3_6
from kvstore.network.endpoint import Endpoint, Settings
from kvstore.network.http2.hpack import encode
from kvstore.network.services.auth import METHODS
from kvstore.network.tokens import is_password
from tests.network.fake_call import Client, FakeCall, Refused
from tests.network.known_users import (
    AUTH,
    COST,
    EMPTY,
    KV,
    PASSWORD,
    TOKEN,
    add_user,
    auth,
    enable,
    log_in,
    outcome,
)
from tests.network.wire import Answer, Wire


@pytest.fixture
def client(store: kvstore.Store) -> Iterator[Client]:
    with Client(store.engine, Settings(bcrypt_cost=COST)) as opened:
        yield opened


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
    """Empty, as long as bcrypt looks at, with a zero in it, not ASCII."""
    enable(client)
    root = log_in(client, "root")
    for number, password in enumerate(("", "x" * 72, "a\0b", "pässwörd")):
        auth(client, "UserAdd", root, name=f"u{number}", password=password)
        assert log_in(client, f"u{number}", password)
        with pytest.raises(Refused, match="authentication failed"):
            log_in(client, f"u{number}", "wrong")


def test_a_password_of_which_bcrypt_would_not_see_the_end_is_refused(client: Client) -> None:
    """It was cut before, and whatever began alike let in."""
    root = enable(client)["root"]
    with pytest.raises(Refused, match="password length exceeds 72 bytes"):
        auth(client, "UserAdd", root, name="long", password="x" * 73)
    auth(client, "UserAdd", root, name="long", password="x" * 72)
    with pytest.raises(Refused, match="password length exceeds 72 bytes"):
        auth(client, "UserChangePassword", root, name="long", password="ä" * 37)
    assert log_in(client, "long", "x" * 72)


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
