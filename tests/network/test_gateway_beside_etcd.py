"""The gateway and the pages beside a real etcd: the same requests over HTTP, the same statuses and JSON."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kvstore
from tests.etcd.etcd_servers import RELEASE, etcd

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="no etcd on PATH")

PATIENCE_SECONDS = 60
HEADERS = (
    "content-type",
    "allow",
    "grpc-metadata-content-type",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "x-content-type-options",
)
OWN = (
    *("cluster_id", "member_id", "leader", "version"),
    *("dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex", "hash", "blob"),
)
"""Names and sizes that are a server's own."""


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


A, B, C, Z, NUL = b64("a"), b64("b"), b64("c"), b64("z"), b64("\0")


def neutral(found: Any) -> Any:
    """JSON without what is a server's own."""
    if isinstance(found, list):
        return [neutral(item) for item in found]
    if not isinstance(found, dict):
        return found
    if "clientURLs" in found:
        return sorted(found)
    found = {name: value for name, value in found.items() if name != "remaining_bytes"}
    return {name: "own" if name in OWN else neutral(value) for name, value in found.items()}


class Side:
    """One of the two servers."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """(status, header fields, body)"""
        connection = self._connect()
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, self._headers(answer), self._body(answer, data)

    def stream(self, path: str, body: bytes, lines: int) -> Any:
        """(status, header fields, the first lines of what it says)"""
        connection = self._connect()
        connection.request("POST", path, body)
        answer = connection.getresponse()
        said = [neutral(json.loads(answer.readline())) for _ in range(lines)]
        found = answer.status, self._headers(answer), said
        answer.close()
        connection.close()
        return found

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=PATIENCE_SECONDS)

    def _headers(self, answer: http.client.HTTPResponse) -> dict[str, str]:
        return {name: value for name in HEADERS if (value := answer.getheader(name)) is not None}

    def _body(self, answer: http.client.HTTPResponse, data: bytes) -> Any:
        if not data or answer.getheader("content-type") != "application/json":
            return data.decode()
        return [neutral(json.loads(line)) for line in data.splitlines()]


@pytest.fixture(params=["lmdb", "sqlite"])
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    """(ours, a real one), both fresh."""
    with (
        etcd(tmp_path / "etcd", tmp_path / "log") as real,
        kvstore.open(tmp_path / "store", request.param) as store,
        kvstore.serve(store, "http://127.0.0.1:0", etcd_version=RELEASE) as serving,
    ):
        yield Side(serving.endpoints[0]), Side(real.endpoint)


def calls(*asked: tuple[str, Any]) -> list[tuple[str, str, bytes, dict[str, str]]]:
    """Calls over JSON: (path below /v3, message)."""
    return [("POST", f"/v3/{path}", json.dumps(message).encode(), {}) for path, message in asked]


PUT = {"key": A, "value": b64("1")}
KEYS = calls(
    ("kv/range", {"key": A}),
    ("kv/put", PUT),
    ("kv/put", {"key": A, "value": b64("2"), "prev_kv": True}),
    ("kv/put", {"key": B, "value": b64("x" * 5000)}),
    ("kv/put", {"key": C, "lease": "99"}),
    ("kv/put", {"key": C, "ignoreValue": True}),
    ("kv/put", {"value": A}),
    ("kv/put", {}),
    ("kv/put", {"key": b64("long"), "value": b64("y" * 100_000)}),
    ("kv/range", {"key": A}),
    ("kv/range", {"key": A, "rangeEnd": Z}),
    ("kv/range", {"key": A, "range_end": Z, "limit": 1, "keysOnly": True}),
    ("kv/range", {"key": NUL, "range_end": NUL, "count_only": True}),
    ("kv/range", {"key": A, "range_end": Z, "sort_order": "DESCEND", "sort_target": "MOD"}),
    ("kv/range", {"key": A, "range_end": Z, "sort_order": 2, "sortTarget": 3, "min_mod_revision": "3"}),
    ("kv/range", {"key": A, "revision": "2", "serializable": True}),
    ("kv/range", {"key": A, "revision": 99}),
    ("kv/range", {"key": A, "unknown": {"a": [1]}, "limit": None}),
    (
        "kv/txn",
        {
            "compare": [
                {"key": A, "target": "MOD", "result": "GREATER", "modRevision": "0"},
                {"key": B, "target": "VALUE", "result": "NOT_EQUAL", "value": A},
            ],
            "success": [
                {"requestPut": {"key": A, "value": b64("3"), "prevKv": True}},
                {"request_range": {"key": A, "range_end": C}},
                {"request_delete_range": {"key": B, "prev_kv": True}},
                {"request_txn": {"failure": [{"request_range": {"key": A}}], "success": []}},
            ],
        },
    ),
    (
        "kv/txn",
        {
            "compare": [{"key": A, "target": "VERSION", "version": 77}],
            "failure": [{"requestRange": {"key": A}}],
        },
    ),
    ("kv/txn", {}),
    ("kv/txn", {"success": [{"request_put": PUT}, {"request_put": PUT}]}),
    ("kv/deleterange", {"key": A, "range_end": Z, "prev_kv": True}),
    ("kv/deleterange", {"key": A}),
    ("kv/compaction", {"revision": "4"}),
    ("kv/compaction", {"revision": "4", "physical": True}),
    ("kv/compaction", {"revision": "999"}),
    ("kv/range", {"key": A, "revision": "2"}),
)
LEASES = calls(
    ("lease/grant", {"ID": 7, "TTL": 500}),
    ("lease/grant", {"ID": "7", "TTL": 500}),
    ("lease/grant", {"ID": "-8", "TTL": "600"}),
    ("lease/grant", {"TTL": "99999999999"}),
    ("kv/put", {"key": A, "lease": 7}),
    ("lease/leases", {}),
    ("kv/lease/leases", {}),
    ("lease/timetolive", {"ID": 1}),
    ("lease/keepalive", {"ID": 7}),
    ("lease/keepalive", {"ID": 123}),
    ("lease/keepalive", {}),
    ("lease/revoke", {"ID": 7}),
    ("kv/lease/revoke", {"ID": "7"}),
    ("kv/range", {"key": A}),
)
SERVER = calls(
    ("kv/put", PUT),
    ("cluster/member/list", {}),
    ("cluster/member/promote", {"ID": 5}),
    ("cluster/member/remove", {"ID": 5}),
    ("cluster/member/add", {"peerURLs": []}),
    ("maintenance/alarm", {}),
    ("maintenance/alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE"}),
    ("maintenance/status", {}),
    ("maintenance/hash", {}),
    ("maintenance/hashkv", {}),
    ("maintenance/downgrade", {}),
    ("maintenance/defragment", {}),
    ("maintenance/transfer-leadership", {"targetID": 5}),
    ("auth/status", {}),
    ("lease/grant", {"ID": 7, "TTL": 500}),
    ("lock/lock", {"name": A, "lease": 7}),
    ("lock/unlock", {"key": b64("a/7")}),
    ("election/campaign", {"name": B, "lease": 7, "value": A}),
    ("election/leader", {"name": B}),
    ("election/proclaim", {"leader": {"name": B, "key": b64("b/7"), "rev": "5", "lease": 7}, "value": B}),
    ("election/resign", {"leader": {"name": B, "key": b64("b/7"), "rev": "5", "lease": 7}}),
    ("election/leader", {"name": B}),
    ("election/proclaim", {}),
)
IS_BEFORE_3_6 = RELEASE < "3.6"
"""Since 3.6 etcd never answers a watch that is no JSON, and answers such a keep-alive with nothing: then that is not
asked. An order that there is not is taken for none."""
ORDERS = ("UP", "descend", "\ud800")
BROKEN: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("POST", path, body, {})
    for path in ("/v3/kv/range", *(("/v3/watch", "/v3/lease/keepalive") if IS_BEFORE_3_6 else ()))
    for body in (b"x", b"123", b"[]", b'{"key":1}', b'{"ID":{}}', b'{"key":"YQ==', b'{"create_request":5}')
    if (path, body)
    not in (("/v3/watch", b'{"key":1}'), ("/v3/watch", b'{"ID":{}}'))  # fields of nothing: it waits
]
BROKEN += [
    ("POST", "/v3/kv/range", json.dumps(fields).encode(), {})
    for fields in (
        *({"key": text} for text in ("foo", "YQ", "YQ=", "_-8=", "\xfc", "\ud800")),
        *({"limit": text} for text in ("1_0", "+1", "1.0", "\uff11", "\ud800")),
        *({"key": A, "sort_order": text} for text in ORDERS if IS_BEFORE_3_6),
    )
]
OTHERS: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("GET", "/health", b"", {}),
    ("GET", "/health?exclude=NOSPACE", b"", {}),
    ("POST", "/health", b"", {}),
    ("HEAD", "/health", b"", {}),
    ("POST", "/version", b"", {}),
    ("GET", "/v2/keys", b"", {}),
    ("GET", "/", b"", {}),
    ("GET", "/v3/kv/range", b"", {}),
    ("PUT", "/v3/kv/range", b"{}", {}),
    ("GET", "/v3/nothing", b"", {}),
    ("POST", "/v3/nothing", b"{}", {}),
    ("POST", "/v3alpha/kv/range", b"{}", {}),
    ("POST", "/v3beta/kv/put", json.dumps(PUT).encode(), {}),
    ("POST", "/v3/kv/range?a=b", b'{"key":"YQ=="}', {"Content-Type": "text/plain"}),
    ("OPTIONS", "/v3/kv/range", b"", {"Origin": "http://elsewhere"}),
    ("OPTIONS", "/nothing", b"", {}),
    ("POST", "/v3/kv/range", b"", {}),
    ("POST", "/v3/kv/range", b'  {"key":"YQ=="} and more', {}),
    ("POST", "/v3/kv/range", b'{"key":"YQ=="}{"key":"Yg=="}', {}),
    *[
        ("POST", "/v3/kv/range", body, {})
        for body in (b"null", b'{"key":"Y\\nQ==","\\ud800":1,"limit":" 1"}')
        if IS_BEFORE_3_6
    ],
    ("POST", "/v3/kv/range", b'{"key":"YQ=="}', {"Grpc-Timeout": "1n"}),
    ("POST", "/v3/kv/range", b'{"key":"YQ=="}', {"Grpc-Timeout": "soon"}),
    ("POST", "/v3/kv/range", b'{"key":"YQ=="}', {"Grpc-Timeout": "10S"}),
    ("POST", "/v3/lease/keepalive", b'{"ID":1}{"ID":2} x', {}),
    *calls(
        *(
            ("kv/range", {"key": A, "sort_order": text, "limit": limit})
            for text in ORDERS[:2]
            for limit in ("1.0", "1e0")
            if not IS_BEFORE_3_6
        ),
        ("cluster/member/update", {}),
    ),
    *[
        ("POST", "/v3/kv/put", json.dumps({"key": A, "value": b64("v" * size)}).encode(), {})
        for size in (1_500_000, 1_572_864, 2_097_153)
    ],
]


@pytest.mark.parametrize("asked", [KEYS, LEASES, SERVER, OTHERS], ids=["keys", "leases", "server", "others"])
def test_the_same_requests_have_the_same_answers(sides: tuple[Side, Side], asked: Any) -> None:
    """Status, header fields and body; JSON by its meaning."""
    ours, theirs = sides
    for request in asked:
        assert ours.ask(*request) == theirs.ask(*request), request[:3]


def test_what_is_broken_is_refused_the_same(sides: tuple[Side, Side]) -> None:
    """Status and code; the words are those of whoever reads the JSON."""
    ours, theirs = sides
    for request in BROKEN:
        (status, headers, (body,)), (their_status, their_headers, (their_body,)) = (
            ours.ask(*request),
            theirs.ask(*request),
        )
        assert (status, headers, body.get("code"), body.keys()) == (
            their_status,
            their_headers,
            their_body.get("code"),
            their_body.keys(),
        ), request


def create(**fields: Any) -> dict[str, Any]:
    return {"create_request": {"key": A, **fields}}


STREAMS: list[tuple[str, list[Any], int]] = [
    ("watch", [create(start_revision=1)], 2),
    ("watch", [create(start_revision=2, prev_kv=True, filters=["NODELETE"])], 2),
    ("watch", [create(rangeEnd=Z, startRevision="3")], 2),
    *([("watch", [create(), {"progress_request": {}}], 2)] if IS_BEFORE_3_6 else []),  # then in either order
    ("watch", [create(watch_id=5), create(watch_id=5), {"cancelRequest": {"watchId": "5"}}], 3),
    ("watch", [create(start_revision=99), {"cancel_request": {}}], 2),
    ("watch", [{"create_request": {"key": B, "range_end": A}}], 1),
    ("watch", [{}, {"cancel_request": {"watch_id": 9}}, create()], 1),
    ("lease/keepalive", [{"ID": 7}, {"ID": "8"}, {}], 3),
    ("maintenance/snapshot", [{}], 1),
]


def test_streams_say_the_same(sides: tuple[Side, Side]) -> None:
    """Line by line, as far as is said at once."""
    ours, theirs = sides
    before = calls(
        ("kv/put", PUT),
        ("kv/put", PUT),
        ("kv/deleterange", PUT),
        ("kv/put", PUT),
        ("lease/grant", {"ID": 7, "TTL": 500}),
    )
    for request in before:
        assert ours.ask(*request) == theirs.ask(*request)
    for path, values, lines in STREAMS:
        body = "".join(map(json.dumps, values)).encode()
        assert ours.stream(f"/v3/{path}", body, lines) == theirs.stream(f"/v3/{path}", body, lines), values
    for side in sides:
        side.ask(*calls(("kv/compaction", {"revision": 3}))[0])
    body = json.dumps(create(start_revision=1)).encode()
    assert ours.stream("/v3/watch", body, 2) == theirs.stream("/v3/watch", body, 2)


def test_a_stream_that_runs_out_of_time_says_the_same(sides: tuple[Side, Side]) -> None:
    """In its last line; the code in it depends on which part of etcd looks at its clock first."""
    asked = ("POST", "/v3/watch", json.dumps(create()).encode(), {"Grpc-Timeout": "2S"})
    with ThreadPoolExecutor(2) as threads:
        ours, theirs = threads.map(lambda side: side.ask(*asked), sides)
    ours_last, theirs_last = ours[2][-1]["error"], theirs[2][-1]["error"]
    assert ours_last.keys() == theirs_last.keys() and ours_last["message"] == theirs_last["message"]


def test_metrics_have_the_same_names(sides: tuple[Side, Side]) -> None:
    """Those of calls and of the server that a dashboard asks for, with the same labels."""
    wanted = {
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_server_id",
        "etcd_server_version",
        "etcd_server_is_leader",
        "etcd_server_has_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_health_success",
        "etcd_server_health_failures",
        "etcd_server_client_requests_total",
        "etcd_cluster_version",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    }
    both = []
    for side in sides:
        side.ask(*KEYS[1])
        _status, headers, text = side.ask("GET", "/metrics", b"", {})
        found = set()
        for line in text.splitlines():
            name, _brace, labels = line.partition(" ")[0].partition("{")
            if name in wanted:
                found.add((name, tuple(sorted(part.partition("=")[0] for part in labels.split(",")))))
        both.append((headers, found))
    assert both[0] == both[1] and {name for name, _labels in both[0][1]} == wanted
