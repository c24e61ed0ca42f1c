"""Calls over JSON through a WebSocket: messages, the handshake, the end from either side, bounds.

The client's half is wsproto's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

import kvstore.network
from kvstore.network import limits
from kvstore.network.dialect import V3_4
from tests.network.web_client import WebClient, web_client

A, B = "YQ==", "Yg=="
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ASKING = {"Connection": "Upgrade", "Upgrade": "websocket"}
UPGRADE = {**ASKING, "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": KEY}
RANGE, PUT, WATCH, KEEP_ALIVE = "/v3/kv/range", "/v3/kv/put", "/v3/watch", "/v3/lease/keepalive"
CREATE = {"create_request": {"key": A}}


class Page:
    """A script of a page that has opened a socket."""

    def __init__(self, client: WebClient, path: str, **headers: str) -> None:
        self.client = WebClient(client.endpoint)
        self._protocol = Connection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self.client.send("GET", path, b"", **{**UPGRADE, **headers})
        self.client.until(lambda: b"\r\n\r\n" in self.client.socket.written)
        head, _blank, _rest = bytes(self.client.socket.written).partition(b"\r\n\r\n")
        self.head = head.decode().split("\r\n")
        self._taken = len(head) + 4

    @property
    def is_closed(self) -> bool:
        return self.client.socket.is_closed

    def send(self, *events: Event) -> None:
        self.receive(b"".join(map(self._protocol.send, events)))

    def receive(self, data: bytes) -> None:
        """Have the server receive this."""
        self.client.peer.receive(data)

    def say(self, *messages: Any) -> None:
        """Send messages of JSON."""
        self.send(*[TextMessage(data=json.dumps(message)) for message in messages])

    def _read(self) -> None:
        data = bytes(self.client.socket.written[self._taken :])
        self._taken += len(data)
        self._protocol.receive_data(data)
        self._events += self._protocol.events()

    def hears(self, count: int = 1) -> list[Any]:
        """What the server says next: messages of JSON, and other events as they are."""

        def is_here() -> bool:
            self._read()
            return len(self._events) >= count

        self.client.until(is_here)
        found, self._events = self._events[:count], self._events[count:]
        return [json.loads(each.data) if isinstance(each, TextMessage) else each for each in found]

    def hears_close(self) -> int:
        """The code of what has to come next: that the server closes."""
        (closing,) = self.hears()
        assert isinstance(closing, CloseConnection), closing
        return int(closing.code)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WebClient]:
    with web_client(tmp_path) as opened:
        yield opened


def kinds(said: list[Any]) -> list[list[str]]:
    """What is in each message, without its header and the ids."""
    return [sorted(set(each["result"]) - {"header", "watch_id"}) for each in said]


# --- messages --------------------------------------------------------------------------------------


def test_a_watch_is_held_open(client: WebClient) -> None:
    """Each message is a request, and each line of the answer a message."""
    page = Page(client, WATCH)
    page.say(CREATE)
    assert kinds(page.hears()) == [["created"]]
    client.call(PUT, {"key": A, "value": B})
    (event,) = page.hears()
    assert event["result"]["events"][0]["kv"]["value"] == B
    page.say({"create_request": {"key": B, "watch_id": 7}}, {"cancel_request": {"watch_id": 7}})
    assert kinds(page.hears(2)) == [["created"], ["canceled"]]


def test_keep_alives(client: WebClient) -> None:
    """Each is answered, on one socket."""
    lease = client.call("/v3/lease/grant", {"TTL": 60}).json["ID"]
    page = Page(client, KEEP_ALIVE)
    for _ in range(2):
        page.say({"ID": lease})
        assert page.hears()[0]["result"]["TTL"] == "60"


def test_a_call_with_one_answer_closes_its_socket(client: WebClient) -> None:
    """The first message is the request; what is said after it is nobody's; an error is an answer too."""
    for path, request, name in ((PUT, {"key": A}, "header"), (PUT, {}, "code"), (RANGE, {"key": A}, "kvs")):
        page = Page(client, path)
        page.say(request, {"key": A})
        answer, closing = page.hears(2)
        assert name in answer and closing.code == 1000
        page.send(CloseConnection(code=1000))
        assert page.is_closed
    page = Page(client, "/v3/nothing")
    assert page.hears()[0]["message"] == "Not Found" and page.hears_close() == 1000


def test_messages_are_the_same_however_they_are_cut(client: WebClient) -> None:
    """Cut at any byte, where the handshake ends too; in frames, with a ping between; of text or bytes."""
    script = Connection(ConnectionType.CLIENT)
    text = json.dumps(CREATE)
    head = f"GET {WATCH} HTTP/1.1\r\nHost: a\r\n"
    for name, value in UPGRADE.items():
        head += f"{name.replace('_', '-')}: {value}\r\n"
    events = (
        TextMessage(data=text),
        Ping(payload=b"between"),
        TextMessage(data=text[:9], message_finished=False),
        Ping(payload=b"within"),
        TextMessage(data=text[9:]),
        BytesMessage(data=text.encode()),
    )
    spoken = head.encode() + b"\r\n" + b"".join(map(script.send, events))

    def answer(*pieces: bytes) -> bytes:
        cut = WebClient(client.endpoint)
        for piece in pieces:
            cut.peer.receive(piece)
            cut.rest()
        cut.until(lambda: cut.socket.written.count(b"created") == 3)
        cut.peer.lost()
        return bytes(cut.socket.written)

    whole = answer(spoken)
    assert whole.count(b"between") == whole.count(b"within") == 1
    for cut in range(len(head), len(spoken)):
        assert sorted(answer(spoken[:cut], spoken[cut:])) == sorted(whole), cut


def test_a_broken_request_is_answered(client: WebClient) -> None:
    """A value ends with its message. After the first request a broken one is the last, and a watch goes on."""
    page = Page(client, WATCH)
    page.send(TextMessage(data='{"create_request": '))
    assert page.hears()[0]["code"] == 3 and page.hears_close() == 1000
    page = Page(client, WATCH)
    page.say(CREATE)
    page.send(TextMessage(data="{broken"))
    page.say(CREATE)
    client.call(PUT, {"key": A})
    assert kinds(page.hears(2)) == [["created"], ["events"]]


# --- the handshake ---------------------------------------------------------------------------------


def test_the_handshake(client: WebClient) -> None:
    """The key of RFC 6455's example is answered as there; extensions and foreign subprotocols are not taken."""
    page = Page(client, WATCH, Sec_WebSocket_Protocol="chat", Sec_WebSocket_Extensions="permessage-deflate")
    assert page.head == [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", UPGRADE, 405),
        ("GET", ASKING, 400),
        ("GET", {**ASKING, "Sec_WebSocket_Key": KEY, "Sec_WebSocket_Version": "8"}, 400),
        ("GET", {**ASKING, "Sec_WebSocket_Version": "13"}, 400),
        ("GET", {**UPGRADE, "Origin": "https://elsewhere.example"}, 403),
    ],
    ids=["method", "nothing", "version", "key", "origin"],
)
def test_what_is_no_handshake_is_refused(
    tmp_path: Path, method: str, headers: dict[str, str], status: int
) -> None:
    """And the connection goes on with HTTP. A page that ``--cors`` does not name may not open a socket."""
    with web_client(tmp_path, cors=("https://here.example",)) as client:
        answer = client.ask(method, WATCH, b"", **headers)
        assert (answer.status, answer.headers["sec-websocket-version"]) == (status, "13")
        assert client.ask("GET", "/version").status == 200
        assert Page(client, WATCH, Origin="https://here.example").head[0].startswith("HTTP/1.1 101")


def test_only_calls_are_made_by_sockets(client: WebClient) -> None:
    """Elsewhere the wish is passed over, as HTTP allows it."""
    assert client.ask("GET", "/version", b"", **UPGRADE).status == 200
    for_monitors = WebClient(client.endpoint, is_for_monitors=True)
    assert for_monitors.ask("GET", WATCH, b"", **UPGRADE).status == 404


def test_without_the_package_the_answer_names_it(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of HTTP needs it not."""
    monkeypatch.delitem(sys.modules, "kvstore.network.websocket", raising=False)
    monkeypatch.delattr(kvstore.network, "websocket", raising=False)
    monkeypatch.setitem(sys.modules, "wsproto.connection", None)
    answer = client.ask("GET", WATCH, b"", **UPGRADE)
    assert answer.status == 501 and b"kvstore-mvcc[serve]" in answer.body
    assert client.call(RANGE, {"key": A}).status == 200


@pytest.mark.parametrize("dialect", [{}, {"dialect": V3_4}], ids=["3.5", "3.4"])
def test_a_token_is_a_subprotocol(tmp_path: Path, dialect: dict[str, Any]) -> None:
    """``Bearer, <token>`` says who asks, and nothing else does that other pages' requests could bring along."""
    with web_client(tmp_path, **dialect) as client:
        for path, request in (
            ("user/add", {"name": "root", "password": "r"}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("enable", {}),
        ):
            assert client.call(f"/v3/auth/{path}", request).status == 200
        token = client.call("/v3/auth/authenticate", {"name": "root", "password": "r"}).json["token"]
        page = Page(client, RANGE, Sec_WebSocket_Protocol=f"Bearer, {token}")
        assert page.head[-1] == "Sec-WebSocket-Protocol: Bearer"
        page.say({"key": A})
        assert "header" in page.hears()[0]
        for headers in ({"Cookie": f"token={token}"}, {"Sec_WebSocket_Protocol": token}):
            page = Page(client, RANGE, **headers)
            page.say({"key": A})
            assert page.hears()[0]["message"] == "etcdserver: user name is empty"


# --- the end ---------------------------------------------------------------------------------------


def watches(client: WebClient) -> int:
    return client.store.status().watchers


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
        (b"\x81\x02{}", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
    ],
    ids=["close", "unmasked", "reserved bit", "opcode", "part of a ping", "continuation", "utf-8"],
)
def test_the_client_ends_a_watch(client: WebClient, frame: bytes, code: int) -> None:
    """By closing, or by what cannot be understood: it is told so, the connection is closed, the watch has ended."""
    page = Page(client, WATCH)
    page.say(CREATE)
    page.hears()
    assert watches(client) == 1
    page.receive(frame + b"and more")
    assert page.hears_close() == code
    page.client.until(lambda: page.is_closed)
    page.client.until(lambda: watches(client) == 0)


def test_a_message_over_the_limit_is_not_held(tmp_path: Path) -> None:
    """That of a body; it is seen before the message is whole."""
    with web_client(tmp_path, max_request_bytes=0) as client:
        limit = client.endpoint.settings.max_message_bytes * limits.BODY_FACTOR
        page = Page(client, PUT)
        page.send(TextMessage(data=" " * limit, message_finished=False))
        page.client.rest()
        assert not page.is_closed
        page.send(TextMessage(data=" ", message_finished=False))
        assert page.hears_close() == 1009


def test_a_client_that_is_gone_ends_its_watch(client: WebClient) -> None:
    """Without a word."""
    page = Page(client, WATCH)
    page.say(CREATE)
    page.hears()
    page.client.peer.lost()
    client.until(lambda: watches(client) == 0)


def test_the_server_stops(client: WebClient) -> None:
    """A watch is told why, and then that the server goes away."""
    page = Page(client, WATCH)
    page.say(CREATE)
    page.hears()
    page.client.peer.drain()
    assert page.hears()[0]["error"]["message"] == "etcdserver: server stopped"
    assert page.hears_close() == 1001
    assert page.is_closed


def test_whoever_does_not_take_answers_is_sent_no_more(client: WebClient) -> None:
    """Nor is a message of his read; both go on once he takes them."""
    page = Page(client, WATCH)
    page.say(CREATE)
    page.hears()
    page.client.peer.pause()
    written = len(page.client.socket.written)
    page.say(CREATE)
    for _ in range(10):
        client.call(PUT, {"key": A, "value": B})
    page.client.rest()
    assert len(page.client.socket.written) == written and not page.client.socket.is_reading
    page.client.peer.resume()
    events = 0
    while events < 10:
        (said,) = page.hears()
        events += len(said["result"].get("events", ()))


@pytest.mark.parametrize("said", [b"", b"\x81\x85\0\0\0\0{"], ids=["nothing", "half a message"])
def test_whoever_says_nothing_is_let_go(
    client: WebClient, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Before the first request is whole. After it, a watch may be quiet for ever."""
    quiet = Page(client, WATCH)
    quiet.say(CREATE)
    quiet.hears()
    monkeypatch.setattr(limits, "BODY_IDLE_SECONDS", 0.01)
    page = Page(client, WATCH)
    page.receive(said)
    page.client.until(lambda: page.is_closed)
    assert not quiet.is_closed


def test_a_client_that_does_not_close_is_closed(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has been told that there is no more, for so long."""
    monkeypatch.setattr(limits, "CLOSE_SECONDS", 0.01)
    page = Page(client, RANGE)
    page.say({"key": A})
    page.hears(2)
    page.client.until(lambda: page.is_closed)
