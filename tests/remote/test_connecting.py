"""URLs and options of ``kvstore.connect``, and which of several servers is asked."""

import asyncio
import dataclasses
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.remote import connection
from kvstore.network.remote.connection import Connection
from kvstore.network.remote.endpoints import Endpoints
from kvstore.network.remote.members import usable
from kvstore.network.remote.options import Address, ClientOptions, parse_target
from tests import PROJECT
from tests.network.certificates import Authority
from tests.remote.scripted import MEMBER, ScriptedServer, deaf, header, ok


def until(happens: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("url", "text", "addresses"),
    [
        (
            "etcd://h1:2379,h2,h3",
            "etcd://h1:2379,h2:2379,h3:2379",
            [("h1", 2379), ("h2", 2379), ("h3", 2379)],
        ),
        ("etcds://[::1]:99,[fe80::2]", "etcds://[::1]:99,[fe80::2]:2379", [("::1", 99), ("fe80::2", 2379)]),
        ("http://127.0.0.1:1/", "etcd://127.0.0.1:1", [("127.0.0.1", 1)]),
        ("https://a,https://b:5", "etcds://a:2379,b:5", [("a", 2379), ("b", 5)]),
        ("etcd://a,a", "etcd://a:2379", [("a", 2379)]),
    ],
)
def test_urls(url: str, text: str, addresses: list[tuple[str, int]]) -> None:
    """Several servers, ports of their own or etcd's, each once."""
    target = parse_target(url)
    assert str(target) == text
    assert [(each.host, each.port) for each in target.addresses] == addresses
    assert {each.is_tls for each in target.addresses} == {text.startswith("etcds")}


def test_urls_of_sockets() -> None:
    """A path, absolute or not; one that is not is that of now."""
    assert parse_target("unix:///run/kv.sock").addresses == (Address(path="/run/kv.sock"),)
    assert parse_target("unixs://kv.sock").addresses == (
        Address(path=os.path.abspath("kv.sock"), is_tls=True),
    )


@pytest.mark.parametrize(
    "url",
    [
        *("h1:2379", "ftp://h", "etcd://", "etcd://h:x", "etcd://h:0", "etcd://h:70000", "etcd://h/path"),
        *("unix://", "etcd://h,,i", "etcd://[::1", "etcd://user:secret@h"),
    ],
)
def test_a_bad_url_is_said(url: str) -> None:
    """Before anything is begun, and without showing a password."""
    with pytest.raises(kvstore.BadArgument, match="url") as caught:
        kvstore.connect(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiemout": 1}, "unknown option 'tiemout': there are user, password"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": "5"}, "timeout_seconds"),
        ({"dial_timeout_seconds": float("nan")}, "dial_timeout_seconds"),
        ({"keepalive_seconds": 1}, "keepalive_seconds must be 0 or at least 5"),
        ({"max_message_bytes": 1 << 31}, "max_message_bytes"),
        ({"prefer": "nearest"}, "prefer must be one of any, leader"),
        ({"serializable": 1}, "serializable"),
        ({"cert": "a.pem"}, "cert and key need each other"),
        ({"password": "p"}, "password needs user"),
        ({"user": b"u"}, "user must be a str"),
    ],
)
def test_a_bad_option_is_said(options: dict[str, Any], message: str) -> None:
    """Each is named."""
    with pytest.raises(kvstore.BadOption, match=message):
        kvstore.connect("etcd://127.0.0.1:1", **options)


def test_a_file_of_tls_that_cannot_be_used(tmp_path: Path) -> None:
    """It is named, and nothing is left running."""
    with pytest.raises(kvstore.BadOption, match="ca cannot be used for TLS"):
        kvstore.connect("etcds://127.0.0.1:1", ca=str(tmp_path / "absent.pem"))


def test_the_table_of_options_is_complete() -> None:
    """docs/remote.md lists each option with its default."""
    text = (PROJECT / "docs" / "remote.md").read_text()
    for field in dataclasses.fields(ClientOptions):
        default = field.default if field.default != (1 << 31) - 1 else "2^31-1"
        assert f"| `{field.name}` | `{default!r}` |".replace("'2^31-1'", "2^31-1") in text, field.name


def test_tls(tmp_path: Path) -> None:
    """A server's certificate is checked: who has signed it, and whether it is for the host."""
    authority = Authority(tmp_path)
    pair = authority.sign("server", "127.0.0.1")
    with (
        kvstore.open(tmp_path / "s", backend="memory") as store,
        kvstore.serve(store, "https://127.0.0.1:0", cert_file=pair.cert, key_file=pair.key) as server,
    ):
        url = server.endpoints[0].replace("https", "etcds")
        with kvstore.connect(url, ca=authority.file) as remote:
            assert remote.put(b"k", b"v")
        with pytest.raises(kvstore.Unavailable, match="certificate verify failed"):
            kvstore.connect(url, timeout_seconds=0.3)
        with pytest.raises(kvstore.Unavailable, match="certificate verify failed"):
            kvstore.connect(url, ca=authority.file, server_name="elsewhere.example", timeout_seconds=0.3)


# --- which server ---------------------------------------------------------------------------------


def test_servers_take_turns() -> None:
    """One that fails is left alone for a while, each time for longer; if all fail, the first to be due is next."""
    now = 100.0
    addresses = [Address(name, 1) for name in "abc"]
    endpoints = Endpoints(addresses, lambda: now)
    first = endpoints.next()
    assert endpoints.next() == first
    endpoints.failed(first)
    second = endpoints.next()
    assert second != first
    endpoints.failed(second)
    third = endpoints.next()
    endpoints.failed(third)
    assert endpoints.all_down
    assert endpoints.next() == first
    now += 1.0
    endpoints.failed(first)
    now += 1.0
    assert endpoints.next() in (second, third)
    endpoints.works(first)
    endpoints.failed(second)
    endpoints.failed(third)
    assert endpoints.next() == first
    endpoints.replace([Address("d", 1), third])
    assert set(endpoints.addresses) == {Address("d", 1), third}
    assert endpoints.next() == Address("d", 1)


def test_servers_are_drawn() -> None:
    """Clients of one cluster spread over it."""
    firsts = {Endpoints([Address("a"), Address("b")], lambda: 0.0).next() for _ in range(60)}
    assert len(firsts) == 2


def test_what_members_say_of_themselves() -> None:
    """A wildcard is no address, and somebody else's loopback is none for us."""
    urls = ["http://0.0.0.0:2379", "http://127.0.0.1:2379", "https://h:2379", "unix:///s", "nonsense"]
    elsewhere, here = [Address("h1", 2379)], [Address("localhost", 2379)]
    assert usable(urls, elsewhere) == [Address("h", 2379, is_tls=True)]
    assert usable(urls, here) == [Address("127.0.0.1", 2379), Address("h", 2379, is_tls=True)]


def test_the_leader_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """With that option the leader is found among the servers; without it the first one does."""
    monkeypatch.setattr(random, "shuffle", lambda _: None)
    with ScriptedServer() as follower, ScriptedServer() as leader:
        follower.always("Status", ok(pb.StatusResponse(header=header(), leader=MEMBER + 1)))
        leader.always("Status", ok(pb.StatusResponse(header=header(), leader=MEMBER)))
        url = f"etcd://{follower.address},{leader.address}"
        with kvstore.connect(url, prefer="leader") as store:
            store.put(b"k", b"v")
        with kvstore.connect(url) as store:
            store.put(b"k", b"v")
        assert (follower.count("Put"), leader.count("Put")) == (1, 1)


def test_new_members_are_found() -> None:
    """The list of members is asked for from time to time."""
    with ScriptedServer() as server, ScriptedServer() as other:
        member = pb.Member(ID=MEMBER, name="m", clientURLs=[f"http://{other.address}"])
        server.always("MemberList", ok(pb.MemberListResponse(header=header(), members=[member])))
        with kvstore.connect(server.url, auto_sync_seconds=0.02) as store:
            until(lambda: server.count("MemberList") > 1)
            server.stop_listening()
            until(lambda: _puts(store) and other.count("Put"))


def _puts(store: kvstore.Store) -> bool:
    try:
        return bool(store.put(b"k", b"v"))
    except kvstore.OutcomeUnknown:
        return False


def test_a_silent_connection_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PING without an answer ends it, while a call is open; without one, none is sent."""
    monkeypatch.setattr(connection, "ACK_SECONDS", 0.05)

    class Keen:
        """Options that ``ClientOptions`` refuses: servers would take it for an attack."""

        keepalive_seconds = 0.05
        max_message_bytes = 1000

    made = Connection.__init__

    def init(self: Connection, loop: Any, address: Any, options: Any, owner: Any) -> None:
        made(self, loop, address, Keen(), owner)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "__init__", init)
    with ScriptedServer() as server, kvstore.connect(server.url) as store:
        time.sleep(0.3)
        assert len(server.peers) == 1
        server.script("Put", deaf)
        with pytest.raises(kvstore.OutcomeUnknown, match=r"no answer to a PING"):
            store.put(b"k", b"v")
        assert store.get(b"k") is None
        assert len(server.peers) == 2


def test_a_loop_that_is_blocked_does_not_stop_others() -> None:
    """The client has a loop of its own: a thread gets its answer while a task holds its own loop."""

    async def run() -> None:
        with ScriptedServer() as server:
            async with kvstore.connect_async(server.url) as store:
                assert store.revision == 10  # waits here, on this loop, for what another one does
                assert await store.get(b"k") is None

    asyncio.run(run())
