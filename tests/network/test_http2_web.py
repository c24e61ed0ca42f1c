"""Pages and calls over JSON in HTTP/2, where there is TLS: in memory with h2 as the client, and with curl."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore.errors import Code
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.call import Peer
from kvstore.network.grpc_peer import GrpcPeer
from tests.network.certificates import Authority
from tests.network.web_client import Answer, FakeSocket, WebClient, says, web_client

h2_connection: Any = pytest.importorskip("h2.connection", reason="the package h2 is the client")
h2_events: Any = pytest.importorskip("h2.events")

A = "YQ=="


class Http2Client:
    """A connection of HTTP/2 to an endpoint."""

    def __init__(self, web: WebClient, peer: Peer) -> None:
        self._web = web
        self.socket = FakeSocket()
        self.socket.set_write_buffer_limits = lambda high: None  # type: ignore[attr-defined]
        self.peer = GrpcPeer(web.endpoint, cast(asyncio.Transport, self.socket), peer)
        self._h2 = h2_connection.H2Connection()
        self._h2.initiate_connection()
        self._answers: dict[int, Answer] = {}
        self._taken = 0

    def send(
        self, method: str, path: str, body: bytes = b"", *, ends: bool = True, kind: str = "text/plain"
    ) -> Answer:
        """Send a request; what is answered to it, as it comes."""
        stream_id = self._h2.get_next_available_stream_id()
        found = self._answers[stream_id] = Answer(0, {})
        named = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "localhost")]
        named += [("content-type", kind), ("client-api-version", "3.5.0")]
        self._h2.send_headers(stream_id, named)
        self.exchange()
        while body and not found.is_complete:
            size = min(
                len(body), self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size
            )
            self._h2.send_data(stream_id, body[:size])
            body = body[size:]
            self.exchange()
        if ends and not found.is_complete:
            self._h2.end_stream(stream_id)
        self.exchange()
        return found

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "text/plain") -> Answer:
        found = self.send(method, path, body, kind=kind)
        self.until(lambda: found.is_complete)
        return found

    def until(self, condition: Any) -> None:
        def after_exchange() -> bool:
            self.exchange()
            return bool(condition())

        self._web.until(after_exchange)

    def exchange(self) -> None:
        """Bytes, both ways."""
        if out := self._h2.data_to_send():
            self.peer.receive(out)
        data = bytes(self.socket.written[self._taken :])
        self._taken += len(data)
        for event in self._h2.receive_data(data):
            self._take(event)
        if out := self._h2.data_to_send():
            self.peer.receive(out)

    def _take(self, event: Any) -> None:
        if isinstance(event, h2_events.ResponseReceived):
            found = self._answers[event.stream_id]
            found.headers = {_text(name): _text(value) for name, value in event.headers}
            found.status = int(found.headers.pop(":status"))
        elif isinstance(event, h2_events.DataReceived):
            self._answers[event.stream_id].body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2_events.StreamEnded):
            self._answers[event.stream_id].is_complete = True


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebClient]:
    with web_client(tmp_path) as opened:
        yield opened


@pytest.fixture
def client(web: WebClient) -> Iterator[Http2Client]:
    opened = Http2Client(web, Peer(is_tls=True))
    yield opened
    opened.peer.lost()


def test_pages_and_calls(client: Http2Client) -> None:
    """As over HTTP/1.1, all of them on one connection."""
    assert client.ask("GET", "/health").json == {"health": "true", "reason": ""}
    answer = client.ask("POST", "/v3/kv/put", b'{"key":"YQ==","value":"Yg=="}')
    assert (answer.status, answer.json["header"]["revision"]) == (200, "2")
    assert answer.headers["grpc-metadata-content-type"] == "application/grpc"
    assert client.ask("POST", "/v3/kv/range", b'{"key":""}').status == 400
    assert client.ask("GET", "/nothing").status == 404
    assert client.ask("OPTIONS", "/v3/kv/put").headers["access-control-allow-origin"] == "*"


def test_without_tls_there_is_grpc_alone(web: WebClient) -> None:
    """Anything else is refused, as etcd refuses it."""
    plain = Http2Client(web, Peer())
    assert plain.ask("GET", "/health").status == 415


def test_bodies_of_any_length(client: Http2Client) -> None:
    """Within the limits, either way, whatever the windows."""
    value = base64.b64encode(bytes(1_500_000)).decode()
    answer = client.ask("POST", "/v3/kv/put", json.dumps({"key": A, "value": value}).encode())
    assert answer.status == 200
    found = client.ask("POST", "/v3/kv/range", json.dumps({"key": A}).encode())
    assert found.json["kvs"][0]["value"] == value
    assert client.ask("POST", "/v3/kv/put", b" " * 5_000_000).status == 429


def test_a_watch_and_its_end(client: Http2Client, web: WebClient) -> None:
    """It goes on after its request, takes more in an open one, and ends with its stream or with the server."""
    create = json.dumps({"create_request": {"key": A}}).encode()
    first, second = (
        client.send("POST", "/v3/watch", create),
        client.send("POST", "/v3/watch", create, ends=False),
    )
    client.until(lambda: says(1)(first) and says(1)(second))
    web.store.put(b"a", b"1")
    client.until(lambda: says(2)(first) and says(2)(second))
    assert web.store.status().watchers == 2
    client._h2.reset_stream(3)
    client.until(lambda: web.store.status().watchers == 1)
    client.peer.drain()
    web.rest()
    assert b"etcdserver: server stopped" in client.socket.written
    assert web.store.status().watchers == 0


def test_a_watch_ends_with_its_connection(client: Http2Client, web: WebClient) -> None:
    """Nothing stays of it."""
    answer = client.send("POST", "/v3/watch", b'{"create_request":{"key":"YQ=="}}')
    client.until(lambda: says(1)(answer))
    client.peer.lost()
    client.until(lambda: web.store.status().watchers == 0)


def test_calls_of_grpc_are_counted(client: Http2Client, web: WebClient) -> None:
    """Begun, how they ended, messages and bytes either way."""
    put = pb.PutRequest(key=b"a").SerializeToString()
    for message in (put, put, b"", b"\xff"):
        framed = bytes([0, *len(message).to_bytes(4, "big")]) + message
        client.ask("POST", "/etcdserverpb.KV/Put", framed, kind="application/grpc")
    found = web.endpoint.traffic.of("/etcdserverpb.KV/Put", "3.5.0")
    assert (found.started, found.received, found.sent) == (4, 4, 2)
    assert found.handled == {Code.OK: 2, Code.INVALID_ARGUMENT: 1, Code.INTERNAL: 1}
    assert (found.received_bytes, found.sent_bytes > 40) == (2 * len(put) + 1, True)
    create = pb.WatchRequest(create_request={"key": b"a"}).SerializeToString()
    framed = bytes([0, *len(create).to_bytes(4, "big")]) + create
    answer = client.send("POST", "/etcdserverpb.Watch/Watch", framed, kind="application/grpc")
    client.until(lambda: len(answer.body) > 5)
    client.peer.lost()
    found = web.endpoint.traffic.of("/etcdserverpb.Watch/Watch", "3.5.0")
    assert (found.started, found.received, found.sent) == (1, 1, 1)
    assert found.handled == {Code.CANCELLED: 1}


def test_curl_speaks_either(tmp_path: Path) -> None:
    """HTTP/2 and HTTP/1.1 over TLS, as it likes."""
    if not shutil.which("curl"):
        pytest.skip("no curl on PATH")
    authority = Authority(tmp_path)
    pair = authority.sign("server", "127.0.0.1")
    with (
        kvstore.open(tmp_path / "store") as store,
        kvstore.serve(store, "https://127.0.0.1:0", cert_file=pair.cert, key_file=pair.key) as serving,
    ):
        for version, said in (("--http2", "2 200"), ("--http1.1", "1.1 200")):
            command = ["curl", "-sS", version, "--cacert", authority.file, "-d", '{"key":"YQ=="}']
            command += [
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code}",
                f"{serving.endpoints[0]}/v3/kv/put",
            ]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert ran.stdout == said, ran.stderr
        assert store.revision == 3
