"""Connections that speak HTTP/1.1: requests in pieces and in heaps, bad ones, slow ones, the end."""

from __future__ import annotations

import http.client
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore.network import limits
from kvstore.network.call import Peer
from tests.network.web_client import WebClient, web_client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WebClient]:
    with web_client(tmp_path) as opened:
        yield opened


def another(client: WebClient) -> WebClient:
    """Another connection to the same endpoint."""
    return WebClient(client.endpoint)


def responses(client: WebClient, count: int) -> bytes:
    """What was written once there are so many answers, without the date."""
    client.until(lambda: client.socket.written.count(b"HTTP/1.1 ") >= count)
    client.rest()
    return re.sub(rb"Date: [^\r]*", b"Date", bytes(client.socket.written))


RANGE = b'{"key":"YQ=="}'
CONVERSATION = (
    b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"
    b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n"
    + RANGE
    + b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n"
    + RANGE[:8]
    + b"\r\n6\r\n"
    + RANGE[8:]
    + b"\r\n0\r\n\r\n"
    b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
    b'POST /v3/lease/keepalive HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n{"ID":1} {"ID": 2}'
    b"BROKEN\r\n\r\n"
)
ANSWERS = 6


def test_a_conversation_cut_at_any_byte_is_answered_the_same(client: WebClient) -> None:
    """Requests that come in two pieces, cut anywhere, or byte by byte, get the answers of those that come whole."""
    client.peer.receive(CONVERSATION)
    whole = responses(client, ANSWERS)
    assert re.findall(rb"HTTP/1.1 (\d+)", whole) == [b"200", b"200", b"200", b"404", b"200", b"400"]
    for cut in range(1, len(CONVERSATION)):
        in_two = another(client)
        in_two.peer.receive(CONVERSATION[:cut])
        in_two.rest()
        in_two.peer.receive(CONVERSATION[cut:])
        assert responses(in_two, ANSWERS) == whole, cut
    bytewise = another(client)
    for byte in CONVERSATION:
        bytewise.peer.receive(bytes([byte]))
    assert responses(bytewise, ANSWERS) == whole


def test_a_connection_is_kept_for_the_next_request(client: WebClient) -> None:
    """One after the other, and the peer is told nothing of an end."""
    for _ in range(3):
        answer = client.ask("GET", "/version")
        assert answer.status == 200 and "connection" not in answer.headers
    assert not client.socket.is_closed


def test_a_heap_of_requests_leaves_the_loop_to_others(client: WebClient) -> None:
    """Requests that come at once are answered over many turns of the loop, and in order."""
    count = 1000
    client.peer.receive(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n" * count)
    assert 0 < client.socket.written.count(b"404 page not found") < count / 10
    client.until(lambda: client.socket.written.count(b"404 page not found") == count)


def test_what_is_no_http_is_refused_and_the_connection_closed(client: WebClient) -> None:
    """A request line that is none, and a header that is too long, in one answer each."""
    client.peer.receive(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
    assert client.socket.written.startswith(b"HTTP/1.1 400 ") and client.socket.is_closed
    long = another(client)
    long.peer.receive(b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 2 * limits.HEADER_BYTES)
    long.until(lambda: long.socket.is_closed)
    assert long.socket.written.startswith(b"HTTP/1.1 431 ")


def test_a_broken_body_is_refused(client: WebClient) -> None:
    """Chunks that are none end the request, and the connection."""
    client.peer.receive(b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert client.socket.written.startswith(b"HTTP/1.1 400 ") and client.socket.is_closed


def test_http_1_0_is_answered_and_closed(client: WebClient) -> None:
    """Also a stream, whose end is that of the connection."""
    client.peer.receive(b"GET /version HTTP/1.0\r\n\r\n")
    client.until(lambda: client.socket.is_closed)
    assert b"etcdserver" in client.socket.written
    stream = another(client)
    stream.peer.receive(b'POST /v3/lease/keepalive HTTP/1.0\r\nContent-Length: 8\r\n\r\n{"ID":1}')
    stream.until(lambda: stream.socket.is_closed)
    assert stream.socket.written.endswith(b"}}\n") and b"chunked" not in stream.socket.written


def test_an_upgrade_is_passed_over(client: WebClient) -> None:
    """A client that would rather speak HTTP/2 is answered in HTTP/1.1, its body included."""
    headers = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
    assert client.ask("POST", "/v3/kv/range", RANGE, **headers).status == 200
    assert client.ask("GET", "/version").status == 200


def test_a_client_that_asks_first_is_told_to_go_on(client: WebClient) -> None:
    """``Expect: 100-continue``, which curl sends before long bodies; not where the answer needs no body."""
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\n"
    client.peer.receive(head % b"/v3/kv/range")
    assert client.socket.written.startswith(b"HTTP/1.1 100 ")
    client.peer.receive(RANGE)
    assert client.socket.written.count(b"HTTP/1.1 200 ") == 1
    needless = another(client)
    needless.peer.receive(head % b"/nothing")
    assert needless.socket.written.startswith(b"HTTP/1.1 404 ")


def test_the_answer_to_head_has_no_body(client: WebClient) -> None:
    """But its length; and the connection goes on."""
    client.peer.receive(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
    written = responses(client, 2)
    assert (
        b"405 Method Not Allowed" in written and b"Content-Length: 19\r\nDate\r\n\r\nHTTP/1.1 404" in written
    )


def test_a_body_that_nobody_needs_is_dropped(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes on behind it, unless there is no end of it."""
    assert client.ask("POST", "/nothing", b"x" * 100_000).status == 404
    assert client.ask("GET", "/version").status == 200
    monkeypatch.setattr(limits, "UNREAD_BODY_BYTES", 1000)
    client.send("POST", "/nothing", b"x" * 100_000)
    client.until(lambda: client.socket.is_closed)


# --- slow ones --------------------------------------------------------------------------------------


def test_a_header_that_does_not_end_is_not_waited_for(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a piece of it comes. A connection on which nothing has begun is left alone."""
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.05)
    idle = another(client)
    idle.ask("GET", "/version")
    client.peer.receive(b"GET / HTTP/1.1\r\n")

    def closed() -> bool:
        client.peer.receive(b"a: b\r\n")
        return client.socket.is_closed

    client.until(closed)
    assert not idle.socket.is_closed


def test_a_body_that_stands_still_is_not_waited_for(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a call that needs all of it, and of one that was answered without it."""
    monkeypatch.setattr(limits, "BODY_IDLE_SECONDS", 0.05)
    for path in (b"/v3/kv/range", b"/nothing"):
        slow = another(client)
        slow.peer.receive(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{" % path)
        slow.until(lambda slow=slow: slow.socket.is_closed)  # type: ignore[misc]


def test_the_open_body_of_a_watch_may_stand_still(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """And more requests may come in it, later."""
    monkeypatch.setattr(limits, "BODY_IDLE_SECONDS", 0.01)
    client.peer.receive(b"POST /v3/watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    create = b'{"create_request":{"key":"YQ=="}}'
    client.peer.receive(b"%x\r\n%b\r\n" % (len(create), create))
    client.until(lambda: b"created" in client.socket.written)
    slow = another(client)
    slow.peer.receive(b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{")
    slow.until(lambda: slow.socket.is_closed)  # by then the time was over for the watch, too
    client.peer.receive(b"%x\r\n%b\r\n" % (len(create), create))
    client.until(lambda: b'"watch_id":"1"' in client.socket.written)
    assert not client.socket.is_closed


def test_a_peer_that_takes_nothing_is_given_up(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes something, however slowly, is not."""
    monkeypatch.setattr(limits, "WRITE_STALL_SECONDS", 0.01)
    owed = [100, 50, 49, 49]
    monkeypatch.setattr(client.socket, "get_write_buffer_size", lambda: owed.pop(0))
    client.peer.pause()
    client.until(lambda: client.socket.is_closed)
    assert owed == []


def test_a_peer_that_has_taken_everything_is_kept(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also long after."""
    monkeypatch.setattr(limits, "WRITE_STALL_SECONDS", 0.0)
    client.peer.pause()
    client.peer.resume()
    client.rest()
    assert client.ask("GET", "/version").status == 200


def test_no_more_is_read_than_can_be_answered(client: WebClient) -> None:
    """While the peer takes nothing, and while much waits for the answer to what came before it."""
    reading = []

    def note() -> None:
        reading.append(client.socket.is_reading)

    client.peer.pause()
    note()
    client.peer.resume()
    note()
    client.watch({"create_request": {"key": "YQ=="}})
    client.peer.receive(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
    note()
    client.peer.receive(b"x" * limits.WAITING_BYTES)
    note()
    assert reading == [False, True, True, False]


def test_no_request_is_begun_for_a_peer_that_takes_nothing(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one of those that came already: their answers would pile up."""
    write = client.socket.write

    def write_and_pause(data: bytes) -> None:
        write(data)
        client.peer.pause()

    monkeypatch.setattr(client.socket, "write", write_and_pause)
    client.peer.receive(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
    for answers in range(1, 11):
        client.rest()
        assert client.socket.written.count(b"404 page not found") == answers
        client.peer.resume()


def test_a_watch_waits_for_a_peer_that_takes_nothing(client: WebClient) -> None:
    """What happens meanwhile stays in the store, and comes later."""
    answer = client.watch({"create_request": {"key": "YQ=="}})
    client.peer.pause()
    before = len(client.socket.written)
    for value in (b"1", b"2", b"3"):
        client.store.put(b"a", value)
    client.rest()
    assert len(client.socket.written) == before
    client.peer.resume()
    client.more(answer, lambda answer: answer.body.count(b'"kv"') == 3)


# --- the end ----------------------------------------------------------------------------------------


def test_a_watch_ends_with_its_connection(client: WebClient) -> None:
    """Nothing stays of it."""
    client.watch({"create_request": {"key": "YQ=="}})
    assert client.store.status().watchers == 1
    client.peer.lost()
    client.rest()
    assert client.store.status().watchers == 0


def test_an_idle_connection_is_closed_when_the_server_stops(client: WebClient) -> None:
    """At once."""
    client.ask("GET", "/version")
    client.peer.drain()
    assert client.socket.is_closed


def test_a_request_under_way_is_answered_when_the_server_stops(client: WebClient) -> None:
    """Then the connection is closed, as its answer says; what waits behind it is not served."""
    client.send("POST", "/v3/kv/put", b'{"key":"YQ=="}')
    client.peer.receive(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
    client.peer.drain()
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.socket.is_closed and client.socket.written.count(b"HTTP/1.1") == 1


def test_a_watch_is_ended_when_the_server_stops(client: WebClient) -> None:
    """With the error that tells a client to ask elsewhere: a gateway's watch kept etcd from stopping (8224)."""
    answer = client.watch({"create_request": {"key": "YQ=="}})
    client.peer.drain()
    client.more(answer)
    assert answer.lines[-1] == {"error": {"code": 14, "message": "etcdserver: server stopped"}}
    assert client.socket.is_closed and client.store.status().watchers == 0


def test_a_watch_whose_body_goes_on_is_ended_when_the_server_stops(client: WebClient) -> None:
    """As any other: the rest of the body is not waited for."""
    create = b'{"create_request":{"key":"YQ=="}}'
    client.peer.receive(b"POST /v3/watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.peer.receive(b"%x\r\n%b\r\n" % (len(create), create))
    client.until(lambda: b"created" in client.socket.written)
    client.peer.drain()
    client.until(lambda: client.socket.is_closed)
    assert b"server stopped" in client.socket.written
    assert client.store.status().watchers == 0


def test_what_comes_after_the_end_is_dropped(client: WebClient) -> None:
    """Bytes that were on their way."""
    client.peer.drain()
    client.peer.receive(CONVERSATION)
    client.peer.cut()
    client.peer.lost()
    assert client.socket.written == b""


def test_a_listener_for_monitors_has_pages_alone(client: WebClient) -> None:
    """Health and metrics, no calls."""
    monitor = WebClient(client.endpoint, Peer(), is_for_monitors=True)
    assert monitor.ask("GET", "/health").status == 200
    assert monitor.ask("GET", "/readyz").status == 200
    assert monitor.ask("GET", "/version").status == 404
    assert monitor.call("/v3/kv/range", {"key": "YQ=="}).status == 404


def test_without_its_package_there_is_no_http_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever speaks it is told what the server lacks, also in the middle of a long request, and so is the log."""
    monkeypatch.delitem(sys.modules, "kvstore.network.http1_peer")
    monkeypatch.setitem(sys.modules, "h11", None)
    with (
        kvstore.open(tmp_path / "store", "memory") as store,
        kvstore.serve(store, "http://127.0.0.1:0") as serving,
    ):
        connection = http.client.HTTPConnection(serving.endpoints[0].removeprefix("http://"), timeout=60)
        connection.request("POST", "/v3/kv/put", body=bytes(1 << 16))
        answer = connection.getresponse()
        assert (answer.status, b"pip install 'kvstore-mvcc[serve]'" in answer.read()) == (501, True)
        connection.close()
    assert "pip install 'kvstore-mvcc[serve]'" in caplog.text
