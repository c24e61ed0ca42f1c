"""Calls over JSON: what they take and give, their errors in each dialect, streams, bounds, counts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import Code
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network import limits
from kvstore.network.call import Call, Failed, Kind, Peer, Running
from kvstore.network.dialect import V3_4, V3_5, V3_6
from kvstore.network.gateway_paths import http_status, methods_by_path
from kvstore.network.services import SERVICES, TABLE
from tests.network.web_client import Answer, WebClient, endpoint_of, says, web_client

DIALECTS = pytest.mark.parametrize("dialect", [V3_4, V3_5, V3_6], ids=lambda dialect: f"3.{dialect.minor}")
A, B = "YQ==", "Yg=="
RANGE, PUT, WATCH, KEEP_ALIVE = "/v3/kv/range", "/v3/kv/put", "/v3/watch", "/v3/lease/keepalive"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WebClient]:
    with web_client(tmp_path) as opened:
        yield opened


@pytest.fixture
def old_client(tmp_path: Path) -> Iterator[WebClient]:
    """Of a server that is taken for etcd 3.4."""
    with web_client(tmp_path / "old", dialect=V3_4) as opened:
        yield opened


def without_header(found: Any) -> Any:
    return {name: value for name, value in found.items() if name != "header"}


def serve_instead(monkeypatch: pytest.MonkeyPatch, name: str, serve: Any, kind: Kind | None = None) -> None:
    """Have a method served by something else."""
    method = TABLE[name]
    monkeypatch.setitem(TABLE, name, replace(method, serve=serve, kind=kind or method.kind))


# --- requests and answers ---------------------------------------------------------------------------


def test_calls_of_every_kind(client: WebClient) -> None:
    """Names in either spelling, numbers as text or not; defaults are left out of the answer, numbers are text."""
    header = client.call(PUT, {"key": A, "value": B}).json["header"]
    engine = client.store.engine
    assert header == {
        "cluster_id": str(engine.cluster_id),
        "member_id": str(engine.member_id),
        "revision": "2",
        "raft_term": "2",
    }
    kv = {"key": A, "create_revision": "2", "mod_revision": "2", "version": "1", "value": B}
    found = client.call(RANGE, {"key": A, "rangeEnd": "AA==", "limit": "5", "sort_target": "MOD"})
    assert without_header(found.json) == {"kvs": [kv], "count": "1"}
    txn = client.call(
        "/v3/kv/txn",
        {
            "compare": [{"key": A, "target": "MOD", "modRevision": "2"}],
            "success": [{"requestPut": {"key": A, "value": A, "prev_kv": True}}],
        },
    )
    put = {"response_put": {"header": {"revision": "3"}, "prev_kv": kv}}
    assert without_header(txn.json) == {"succeeded": True, "responses": [put]}
    assert without_header(client.call("/v3/kv/deleterange", {"key": A}).json) == {"deleted": "1"}
    assert without_header(client.call("/v3/kv/compaction", {"revision": 3}).json) == {}
    granted = client.call("/v3/lease/grant", {"ID": "-7", "TTL": 60})
    assert without_header(granted.json) == {"ID": "-7", "TTL": "60"}
    for path in ("/v3/lease/leases", "/v3/kv/lease/leases", "/v3beta/lease/leases"):
        assert without_header(client.call(path).json) == {"leases": [{"ID": "-7"}]}


def test_an_answer_is_json_by_its_headers(client: WebClient) -> None:
    """And says that gRPC is behind it; pages of others may read it."""
    headers = client.call(RANGE, {"key": A}).headers
    assert headers["content-type"] == "application/json"
    assert headers["grpc-metadata-content-type"] == "application/grpc"
    assert headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"key":"YQ=="}', 200),
        (b'  {"key":"YQ=="} garbage', 200),
        (b'{"key":"YQ=="}{"key":3}', 200),
        (b'{"key":"YQ==","unknown":[{}]}', 200),
        (b'{"key":"YQ==","limit":null}', 200),
        (b"", 400),
        (b"null", 400),
        (b"null and more", 400),
        (b"{}", 400),
        (b"x", 400),
        (b"123", 400),
        (b"[]", 400),
        (b'{"key":1}', 400),
        (b'{"key":"YQ==', 400),
        (b'{"key":"*"}', 400),
        (b'{"key":"YQ==","limit":NaN}', 400),
        (b'{"key":"YQ==","limit":"x"}', 400),
        (b'{"key":"YQ==","limit":99999999999999999999}', 400),
        (b'{"key":"YQ==","limit":' + b"9" * 5000 + b"}", 400),
        (b'{"key":"\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_a_body_is_one_json_value(client: WebClient, body: bytes, status: int) -> None:
    """None at all is an empty message; what follows the first one is passed over; a broken one is refused."""
    answer = client.ask("POST", RANGE, body)
    assert answer.status == status
    if status == 400:
        assert answer.json["code"] == Code.INVALID_ARGUMENT


def test_header_fields_are_metadata(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token as it is, others by their prefix; the services see a gateway's client."""
    seen: list[Any] = []

    def serve(_endpoint: Any, call: Call, _message: bytes) -> None:
        seen.append((dict(call.metadata), call.peer))
        call.answer(b"")

    serve_instead(monkeypatch, "/etcdserverpb.KV/Range", serve)
    headers = {
        "Authorization": "T.1",
        "Grpc-Metadata-Hasleader": "true",
        "Grpc-Metadata-Token": "U.2",
        "X": "y",
    }
    assert client.call(RANGE, **headers).status == 200
    metadata = {"authorization": "T.1", "hasleader": "true", "token": "U.2"}
    assert seen == [(metadata, Peer(is_gateway=True))]


# --- errors -----------------------------------------------------------------------------------------


@DIALECTS
def test_an_error_has_a_status_and_the_dialects_shape(tmp_path: Path, dialect: Any) -> None:
    """3.4 says the message twice."""
    with web_client(tmp_path, dialect=dialect) as client:
        answer = client.call(RANGE, {"key": A, "revision": 9})
        message = "etcdserver: mvcc: required revision is a future revision"
        expected: dict[str, Any] = {"code": 11, "message": message}
        assert answer.status == 400
        assert answer.json == (expected if dialect > V3_4 else {"error": message, **expected})


def test_statuses_stand_for_codes() -> None:
    """A failed precondition is 412 to clients of 3.4, and 400 after that."""
    expected = {
        0: 200,
        1: 499,
        2: 500,
        3: 400,
        4: 504,
        5: 404,
        7: 403,
        8: 429,
        9: 400,
        10: 409,
        11: 400,
        12: 501,
    }
    expected |= {13: 500, 14: 503, 15: 500, 16: 401}
    assert {int(code): http_status(code, V3_5) for code in Code} == expected
    assert {int(code): http_status(code, V3_4) for code in Code} == expected | {1: 408, 9: 412}


@DIALECTS
def test_other_methods_and_paths_of_nothing(tmp_path: Path, dialect: Any) -> None:
    """3.4 answers in text, later ones in JSON, and with 501 to a GET."""
    with web_client(tmp_path, dialect=dialect) as client:
        got, lost = client.ask("GET", RANGE), client.call("/v3/nothing")
        if dialect == V3_4:
            assert (got.status, got.body) == (405, b"Method Not Allowed\n")
            assert (lost.status, lost.body) == (404, b"Not Found\n")
        else:
            assert (got.status, got.json) == (501, {"code": 12, "message": "Method Not Allowed"})
            assert (lost.status, lost.json) == (404, {"code": 5, "message": "Not Found"})
        assert client.call("/v3alpha/kv/range").body == b"404 page not found\n"


def test_paths_that_came_with_3_5() -> None:
    """3.4 has none of them."""
    new = {"/v3/maintenance/hashkv", "/v3/maintenance/downgrade", "/v3/auth/status"}
    assert set(methods_by_path(V3_5)) - set(methods_by_path(V3_4)) == new
    assert methods_by_path(V3_5) == methods_by_path(V3_6)


def test_every_path_leads_somewhere() -> None:
    """To a method of a service that is served."""
    names = methods_by_path(V3_6).values()
    assert [name for name in names if name.split("/")[1] in SERVICES and name not in TABLE] == []


def test_a_bad_token_is_answered_and_the_connection_kept(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 401 and a body: Patroni gave up on a server that closed instead (2552)."""

    def serve(_endpoint: Any, _call: Call, _message: bytes) -> None:
        raise Failed(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")

    serve_instead(monkeypatch, "/etcdserverpb.KV/Range", serve)
    answer = client.call(RANGE, {"key": A}, Authorization="bad")
    assert (answer.status, answer.json["code"]) == (401, 16)
    assert answer.headers["www-authenticate"] == "etcdserver: invalid auth token"
    assert client.call(PUT, {"key": A}).status == 200


def test_a_fault_of_ours_is_an_answer_too(
    client: WebClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With what it said, and it is logged."""

    def serve(_endpoint: Any, _call: Call, _message: bytes) -> None:
        raise ZeroDivisionError("planted")

    serve_instead(monkeypatch, "/etcdserverpb.KV/Range", serve)
    answer = client.call(RANGE, {"key": A})
    assert (answer.status, answer.json) == (500, {"code": 2, "message": "planted"})
    assert "ZeroDivisionError" in caplog.text


def test_a_method_that_is_not_served(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is unknown to the client as over gRPC."""
    monkeypatch.delitem(TABLE, "/etcdserverpb.KV/Put")
    answer = client.call(PUT, {"key": A})
    expected = {"code": 12, "message": "unknown method Put for service etcdserverpb.KV"}
    assert (answer.status, answer.json) == (501, expected)


def test_a_certificate_names_no_user_here(client: WebClient) -> None:
    """With users on, a client that shows one is told so; without users it is served."""
    for users_are_on, status in ((False, 200), (True, 400)):
        client.endpoint.users_are_on = users_are_on
        secured = WebClient(client.endpoint, Peer(is_tls=True, common_name="alice"))
        assert secured.call(RANGE, {"key": A}).status == status
        assert secured.ask("GET", "/health").status == 200
    assert WebClient(client.endpoint, Peer(is_tls=True)).call(RANGE, {"key": A}).status == 200


def test_the_gateway_may_be_off(tmp_path: Path) -> None:
    """Then its paths are those of nothing."""
    with web_client(tmp_path, has_gateway=False) as client:
        answer = client.call(RANGE, {"key": A})
        assert (answer.status, answer.body) == (404, b"404 page not found\n")


# --- bounds -----------------------------------------------------------------------------------------


def value_of(size_bytes: int) -> dict[str, str]:
    return {"key": A, "value": base64.b64encode(bytes(size_bytes)).decode()}


def test_large_requests(client: WebClient) -> None:
    """Up to the limit on requests; up to the one on messages the store refuses, above that the gateway."""
    settings = client.endpoint.settings
    assert client.call(PUT, value_of(settings.max_request_bytes - 100)).status == 200
    answer = client.call(PUT, value_of(settings.max_request_bytes))
    assert (answer.status, answer.json["message"]) == (400, "etcdserver: request is too large")
    answer = client.call(PUT, value_of(settings.max_message_bytes))
    message = "grpc: received message larger than max (2097160 vs. 2097152)"
    assert (answer.status, answer.json) == (429, {"code": 8, "message": message})


def test_a_body_over_the_limit_is_not_held(client: WebClient) -> None:
    """One that says its length is refused before it comes, any other where it goes beyond."""
    limit = client.endpoint.settings.max_message_bytes * limits.BODY_FACTOR
    head = b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\n"
    client.peer.receive(head + b"Content-Length: %d\r\n\r\n" % (limit + 1))
    assert client.socket.written.startswith(b"HTTP/1.1 429 ")
    chunked = WebClient(client.endpoint)
    chunked.peer.receive(head + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (1 << 20, b" " * (1 << 20))
    for _ in range(limit >> 20):
        chunked.peer.receive(piece)
    chunked.peer.receive(piece)
    chunked.until(lambda: chunked.socket.written.startswith(b"HTTP/1.1 429 "))


def test_a_value_of_a_stream_that_does_not_end(client: WebClient) -> None:
    """Is refused where it becomes too long, not held."""
    body = b'{"create_request":{"key":"' + b"A" * limits.STREAM_VALUE_CHARACTERS
    answer = client.ask("POST", WATCH, body)
    assert (answer.status, answer.json["code"]) == (429, 8)


def test_a_timeout(client: WebClient, old_client: WebClient) -> None:
    """Of which nothing is left ends a call; one that means nothing refuses it."""
    headers = {"Grpc-Timeout": "1n"}
    for each in (client, old_client):
        answer = each.call(PUT, {"key": A}, **headers)
        assert (answer.status, answer.json["message"]) == (504, "context deadline exceeded")
        answer = each.call(PUT, {"key": A}, **{"Grpc-Timeout": "soon"})
        assert (answer.status, answer.json["message"]) == (400, "invalid grpc-timeout: soon")
        assert each.call(PUT, {"key": A}, **{"Grpc-Timeout": "10S"}).status == 200


def test_no_time_is_none_on_a_loop_whose_time_stands_still(client: WebClient) -> None:
    """uvloop's does, until a turn is over."""
    client.loop.time = lambda: 1.0  # type: ignore[method-assign]
    assert client.call(RANGE, {"key": A}, **{"Grpc-Timeout": "1n"}).status == 504


@DIALECTS
def test_a_timeout_ends_a_stream(tmp_path: Path, dialect: Any) -> None:
    """With a line that says so, after what came before it."""
    with web_client(tmp_path, dialect=dialect) as client:
        create = json.dumps({"create_request": {"key": A}}).encode()
        client.send("POST", WATCH, create, **{"Grpc-Timeout": "1H"})
        answer = client.answer(says(1))
        now = client.loop.time
        client.loop.time = lambda: now() + 3600  # type: ignore[method-assign]
        client.more(answer)
        error: dict[str, Any] = {"code": 4, "message": "context deadline exceeded"}
        if dialect == V3_4:
            error = {"grpc_code": 4, "http_code": 504, "http_status": "Gateway Timeout", **error}
            del error["code"]
        assert answer.status == 200 and answer.body.endswith(b"\n")
        assert answer.lines[0]["result"]["created"] and answer.lines[1:] == [{"error": error}]


# --- streams ----------------------------------------------------------------------------------------


def results(answer: Answer) -> list[Any]:
    return [without_header(line["result"]) for line in answer.lines]


def test_a_watch_goes_on_after_its_body(client: WebClient) -> None:
    """What was created and what happens, a line each, in chunks; watch id 0 is left out."""
    client.store.put(b"a", b"1")
    create = {"create_request": {"key": A, "start_revision": 1}}
    answer = client.watch(create, {"progress_request": {}}, create)
    client.more(answer, says(5))
    assert answer.headers["transfer-encoding"] == "chunked"
    client.store.put(b"a", b"2")
    client.more(answer, says(7))
    created = [line for line in results(answer) if line.get("created")]
    assert created == [{"created": True}, {"created": True, "watch_id": "1"}]
    last = {"kv": {"key": A, "create_revision": "2", "mod_revision": "3", "version": "2", "value": "Mg=="}}
    told = {line.get("watch_id") for line in results(answer) if line.get("events") == [last]}
    assert told == {None, "1"}


def test_watch_errors_are_answers(client: WebClient) -> None:
    """A compacted start cancels the watch, and not the stream."""
    for value in (b"1", b"2", b"3"):
        client.store.put(b"a", value)
    client.store.compact(3)
    answer = client.watch({"create_request": {"key": A, "start_revision": 1}})
    client.more(answer, says(2))
    assert results(answer) == [{"created": True}, {"canceled": True, "compact_revision": "3"}]
    assert not answer.is_complete


def test_keep_alives_are_answered_and_end_with_the_body(client: WebClient) -> None:
    """In their order; of an unknown lease without a TTL, and of no request at all with nothing."""
    client.call("/v3/lease/grant", {"ID": 5, "TTL": 60})
    answer = client.ask("POST", KEEP_ALIVE, b'{"ID":"5"}\n{"ID":7} {"ID":5} and more')
    assert results(answer) == [{"ID": "5", "TTL": "60"}, {"ID": "7"}, {"ID": "5", "TTL": "60"}]
    nothing = client.ask("POST", KEEP_ALIVE)
    assert (nothing.status, nothing.body) == (200, b"")


@pytest.mark.parametrize("body", [b"x", b'{"create_request":5}', b'{"create_request":{"key":"YQ=="}', b"7"])
def test_a_stream_whose_first_request_is_broken(
    client: WebClient, old_client: WebClient, body: bytes
) -> None:
    """Is refused before it begins: a watch with a bad body crashed etcd (19521)."""
    for each, status, code in ((client, 400, 3), (old_client, 500, 2)):
        answer = each.ask("POST", WATCH, body)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert each.store.status().watch_streams == 0


def test_a_watch_outlives_a_broken_request(client: WebClient) -> None:
    """Of the requests after it none is read."""
    answer = client.watch(
        {"create_request": {"key": A}}, {"create_request": 5}, {"create_request": {"key": A}}
    )
    client.store.put(b"a", b"1")
    client.more(answer, says(2))
    assert [line.get("created", False) for line in results(answer)] == [True, False]


@DIALECTS
def test_a_stream_that_fails_at_once_has_a_status(
    tmp_path: Path, dialect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the shape of a stream's error."""

    def serve(_endpoint: Any, _call: Call, _message: bytes) -> None:
        raise Failed(Code.PERMISSION_DENIED, "etcdserver: permission denied")

    serve_instead(monkeypatch, "/etcdserverpb.Watch/Watch", serve)
    with web_client(tmp_path, dialect=dialect) as client:
        answer = client.ask("POST", WATCH, b"{}")
        assert answer.status == 403
        error = answer.json["error"]
        assert error["message"] == "etcdserver: permission denied"
        assert error.get("code") == (None if dialect == V3_4 else 7)
        assert error.get("http_status") == ("Forbidden" if dialect == V3_4 else None)


def test_answers_of_any_length_come_in_order(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long ones become JSON in a thread; what follows them, an end or an error too, waits for its turn."""
    long = pb.WatchResponse(cancel_reason="long" * limits.LONG_MESSAGE_BYTES).SerializeToString()
    short = pb.WatchResponse(cancel_reason="short").SerializeToString()
    is_blocked = []

    def serve(_endpoint: Any, call: Call, _message: bytes) -> None:
        for message in (short, long, short, long, short):
            call.send(message)
            is_blocked.append(call.is_blocked)
        call.fail(Failed(Code.ABORTED, "enough"))

    serve_instead(monkeypatch, "/etcdserverpb.Watch/Watch", serve)
    answer = client.ask("POST", WATCH, b"{}")
    reasons = [line["result"]["cancel_reason"][:5] for line in answer.lines[:-1]]
    assert reasons == ["short", "longl", "short", "longl", "short"]
    assert answer.lines[-1] == {"error": {"code": 10, "message": "enough"}}
    assert is_blocked == [False, True, True, True, True]


def test_a_heap_of_answers_leaves_the_loop_to_others(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that has said enough in one turn of the loop waits, as if its client were slow."""
    said: list[int] = []
    sizes: list[int] = []

    class Talking(Running):
        def __init__(self, call: Call) -> None:
            self._call = call
            self.drained()

        def drained(self) -> None:
            before = len(said)
            while len(said) < 200 and not self._call.is_blocked:
                said.append(len(said))
                self._call.send(pb.WatchResponse(cancel_reason="x" * 1000).SerializeToString())
            sizes.append(len(said) - before)
            if len(said) == 200:
                self._call.end()

    serve_instead(monkeypatch, "/etcdserverpb.Watch/Watch", lambda _endpoint, call, _message: Talking(call))
    assert len(client.ask("POST", WATCH, b"{}").lines) == 200
    assert max(sizes) <= limits.LONG_MESSAGE_BYTES // 1000 + 1


def test_a_client_that_goes_before_a_long_answer_is_made(client: WebClient) -> None:
    """Leaves nothing that would be written to it."""
    client.call(PUT, value_of(4 * limits.LONG_MESSAGE_BYTES))
    client.send("POST", RANGE, json.dumps({"key": A}).encode())
    client.peer.lost()
    written = len(client.socket.written)
    other = WebClient(client.endpoint)
    assert len(other.call(RANGE, {"key": A}).json["kvs"][0]["value"]) > 4 * limits.LONG_MESSAGE_BYTES
    assert len(client.socket.written) == written


# --- counts -----------------------------------------------------------------------------------------


def test_calls_are_counted_as_over_grpc(client: WebClient) -> None:
    """Begun, how they ended, messages either way; what was no request is none."""
    client.call(PUT, {"key": A}, **{"Grpc-Metadata-Client-Api-Version": "3.5.0"})
    client.call(PUT, {"key": A})
    client.call(PUT, {})
    client.ask("POST", PUT, b"x")
    traffic = client.endpoint.traffic
    assert traffic.of("/etcdserverpb.KV/Put", "3.5.0").started == 1
    found = traffic.of("/etcdserverpb.KV/Put")
    assert (found.started, found.received, found.sent) == (2, 2, 1)
    assert found.handled == {Code.OK: 1, Code.INVALID_ARGUMENT: 1}
    assert (found.received_bytes, found.sent_bytes > 20) == (3, True)
    client.ask("POST", KEEP_ALIVE, b'{"ID":1}{"ID":2}')
    found = traffic.of("/etcdserverpb.Lease/LeaseKeepAlive")
    assert (found.started, found.received, found.sent, found.handled) == (1, 2, 2, {Code.OK: 1})
    client.watch({"create_request": {"key": A}})
    client.peer.lost()
    found = traffic.of("/etcdserverpb.Watch/Watch")
    assert (found.started, found.received, found.sent) == (1, 1, 1)
    assert found.handled == {Code.CANCELLED: 1}


def test_versions_that_clients_make_up_are_not_kept(client: WebClient) -> None:
    """Too many, too long, or none that could be shown: they are one, and the metrics are there."""
    traffic, path = client.endpoint.traffic, "/etcdserverpb.KV/Put"
    made_up = [*map(str, range(limits.CLIENT_VERSIONS + 20)), "long" * 100, "\udcff", "a\nb"]
    for version in made_up:
        traffic.of(path, version).started += 1
    assert len(traffic.counts) == limits.CLIENT_VERSIONS + 1
    assert traffic.of(path, "more").started == 23
    metrics = client.ask("GET", "/metrics").body
    assert b'etcd_server_client_requests_total{client_api_version="other",type="unary"} 23' in metrics


def test_two_endpoints_count_apart(client: WebClient) -> None:
    """Each has its own traffic."""
    client.call(PUT, {"key": A})
    with endpoint_of(client.store) as endpoint:
        assert endpoint.traffic.of("/etcdserverpb.KV/Put").started == 0
