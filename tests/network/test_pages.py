"""Pages: health, checks, versions, metrics; and who may ask from where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.model import AlarmRequest
from kvstore.network import pages
from kvstore.network.call import Peer
from kvstore.network.dialect import V3_4, V3_5, V3_6
from tests.network.web_client import WebClient, endpoint_of, web_client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WebClient]:
    with web_client(tmp_path) as opened:
        yield opened


def raise_alarm(client: WebClient, alarm: str) -> None:
    engine = client.endpoint.engine
    engine.ask(AlarmRequest(engine.member_id, alarm, True))


# --- health -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [V3_4, V3_5])
def test_health(tmp_path: Path, dialect: Any) -> None:
    """3.4 gives no reason; an alarm makes it false, unless it is excluded."""
    with web_client(tmp_path, dialect=dialect) as client:
        reason = {} if dialect == V3_4 else {"reason": ""}
        answer = client.ask("GET", "/health")
        assert (answer.status, answer.json) == (200, {"health": "true", **reason})
        raise_alarm(client, "NOSPACE")
        answer = client.ask("GET", "/health?exclude=CORRUPT")
        reason = {} if dialect == V3_4 else {"reason": "ALARM NOSPACE"}
        assert (answer.status, answer.json) == (503, {"health": "false", **reason})
        assert client.ask("GET", "/health?exclude=CORRUPT&exclude=NOSPACE").status == 200


def test_a_store_that_refuses_writes_for_good_is_not_healthy(client: WebClient) -> None:
    """But alive, and readable: whoever asks for no more gets a yes."""
    client.store.engine.life.poison(OSError("planted"))
    answer = client.ask("GET", "/health")
    assert (answer.status, answer.json["reason"]) == (503, "RAFT NO LEADER")
    assert client.ask("GET", "/health?serializable=true").status == 200
    assert client.ask("GET", "/livez").status == 200
    answer = client.ask("GET", "/readyz")
    assert answer.status == 503
    assert b"[-]linearizable_read failed: RAFT NO LEADER\n" in answer.body
    assert client.ask("GET", "/readyz?exclude=linearizable_read").status == 200


def test_a_closed_store_is_not_healthy(client: WebClient) -> None:
    """Nor alive, nor ready."""
    client.store.close()
    for path in ("/health", "/health?serializable=true", "/livez", "/readyz"):
        assert client.ask("GET", path).status == 503


def test_checks_are_listed_when_asked_for(client: WebClient) -> None:
    """All of them, but those that are left out; names of none are passed over."""
    assert client.ask("GET", "/readyz").body == b"ok\n"
    listed = "".join(f"[+]{name} ok\n" for name in pages.READY)
    assert client.ask("GET", "/readyz?verbose").body.decode() == listed + "ok\n"
    assert client.ask("GET", "/livez?verbose&exclude=nothing").body == b"[+]serializable_read ok\nok\n"
    assert client.ask("GET", "/livez?verbose&exclude=serializable_read").body == b"ok\n"


def test_each_check_has_a_page(client: WebClient) -> None:
    """Under the page of all."""
    for name in pages.READY:
        assert client.ask("GET", f"/readyz/{name}?verbose").body.decode() == f"[+]{name} ok\nok\n"
    assert client.ask("GET", "/livez/serializable_read").status == 200
    assert client.ask("GET", "/livez/linearizable_read").status == 404


def test_an_alarm_of_corruption_is_not_ready(client: WebClient) -> None:
    """An alarm of space is: reads are served."""
    raise_alarm(client, "NOSPACE")
    assert client.ask("GET", "/readyz").status == 200
    raise_alarm(client, "CORRUPT")
    answer = client.ask("GET", "/readyz")
    assert answer.status == 503 and answer.body.startswith(b"[-]data_corruption failed: alarm activated")


# --- what it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (V3_4, {"etcdserver": V3_4.version, "etcdcluster": "3.4.0"}),
        (V3_6, {"etcdserver": V3_6.version, "etcdcluster": "3.6.0", "storage": "3.6.0"}),
    ],
)
def test_version(tmp_path: Path, dialect: Any, expected: Any) -> None:
    """Of the dialect."""
    with web_client(tmp_path, dialect=dialect) as client:
        answer = client.ask("GET", "/version")
        assert answer.json == expected and answer.headers["content-type"] == "application/json"


def test_pages_are_for_reading(client: WebClient) -> None:
    """Other methods than GET are refused by name; metrics have a head."""
    for path in ("/health", "/livez", "/readyz", "/version", "/metrics"):
        answer = client.ask("POST", path)
        assert (answer.status, answer.headers["allow"], answer.body) == (405, "GET", b"Method Not Allowed\n")
    for path in ("/", "/v2/keys", "/nothing", "/v3"):
        answer = client.ask("GET", path)
        assert (answer.status, answer.body) == (404, b"404 page not found\n")


def test_metrics(tmp_path: Path) -> None:
    """etcd's names, of calls, of the server, of the store and of the process."""
    with (
        kvstore.open(tmp_path / "store", "memory", metrics=True) as store,
        endpoint_of(store) as endpoint,
    ):
        client = WebClient(endpoint)
        client.call("/v3/kv/put", {"key": "YQ=="})
        client.call("/v3/kv/put")
        client.ask("GET", "/health")
        answer = client.ask("GET", "/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
        lines = answer.body.decode().splitlines()
        assert {
            f"grpc_server_started_total{{{labels}}} 2",
            f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 1',
            f'grpc_server_handled_total{{grpc_code="InvalidArgument",{labels}}} 1',
            f"grpc_server_msg_received_total{{{labels}}} 2",
            f"grpc_server_msg_sent_total{{{labels}}} 1",
            'etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 2',
            f'etcd_server_id{{server_id="{store.engine.member_id:x}"}} 1',
            f'etcd_server_version{{server_version="{V3_5.version}"}} 1',
            'etcd_cluster_version{cluster_version="3.5"} 1',
            "etcd_server_is_leader 1",
            "etcd_server_has_leader 1",
            "etcd_server_leader_changes_seen_total 1",
            "etcd_server_health_success 1",
            "etcd_server_health_failures 0",
            "etcd_mvcc_put_total 1",
        } <= set(lines)
        names = {line.partition(" ")[0].partition("{")[0] for line in lines}
        assert {"process_resident_memory_bytes", "etcd_mvcc_db_total_size_in_bytes"} <= names
        assert {
            "etcd_network_client_grpc_received_bytes_total",
            "etcd_network_client_grpc_sent_bytes_total",
        } <= names
        client.peer.lost()


# --- from where -------------------------------------------------------------------------------------


def test_other_pages_may_ask(client: WebClient) -> None:
    """Every answer says so, and a browser that asks first is told; it needs no path for that."""
    for answer in (client.ask("OPTIONS", "/v3/kv/put"), client.ask("OPTIONS", "/x"), client.ask("GET", "/x")):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "POST, GET, OPTIONS, PUT, DELETE"
        assert answer.headers["access-control-allow-headers"] == "accept, content-type, authorization"
    assert client.ask("OPTIONS", "/x").status == 200


def test_only_listed_pages_may_ask(tmp_path: Path) -> None:
    """Others are served, but their browser does not show them the answer."""
    with web_client(tmp_path, cors=("http://a", "http://b")) as client:
        assert (
            client.ask("GET", "/version", Origin="http://b").headers["access-control-allow-origin"]
            == "http://b"
        )
        assert "access-control-allow-origin" not in client.ask("GET", "/version", Origin="http://c").headers
        assert "access-control-allow-origin" not in client.ask("GET", "/version").headers


def test_a_request_to_another_name_is_misdirected(tmp_path: Path) -> None:
    """Which is how a page of somebody else's reaches a server of the local network; TLS tells the names apart."""
    with web_client(tmp_path, host_whitelist=("localhost", "::1")) as client:
        assert client.ask("GET", "/version").status == 200
        for host, status in (("localhost:2379", 200), ("[::1]:2379", 200), ("evil:2379", 421), ("", 421)):
            other = WebClient(client.endpoint)
            other.peer.receive(
                b"POST /v3/kv/range HTTP/1.1\r\nHost: %b\r\nContent-Length: 14\r\n\r\n" % host.encode()
            )
            other.peer.receive(b'{"key":"YQ=="}')
            assert other.socket.written.startswith(b"HTTP/1.1 %d " % status), host
        secured = WebClient(client.endpoint, Peer(is_tls=True))
        secured.peer.receive(b"GET /nothing HTTP/1.1\r\nHost: evil\r\n\r\n")
        assert secured.socket.written.startswith(b"HTTP/1.1 404 ")
