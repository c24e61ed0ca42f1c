"""Asks a real etcd, and records the conversation in the format of ``tools/lab/conversation.py``.

The server is asked through its JSON gateway (HTTP, bytes in base64, 64-bit integers as strings), which needs no
client library; HashKV, which the gateway lacks, through etcdctl. The gateway's watch is a stream in both
directions: ``etcd_stream.py``.

What etcd leaves open is settled on the way: the order of rows that tie in a sort, the order of a lease's keys, and
the seconds that a lease has left.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.etcd.etcd_stream import WAIT_SECONDS, RecordedStream, wait_until_served
from tests.harness.ports import free_ports

Message = dict[str, Any]

ETCD = os.environ.get("KVSTORE_ETCD", "etcd")
"""The server to ask; its etcdctl lies beside it."""

HAS_ETCD = shutil.which(ETCD) is not None
PATHS = {
    "range": "kv/range",
    "put": "kv/put",
    "delete": "kv/deleterange",
    "txn": "kv/txn",
    "compact": "kv/compaction",
    "grant": "lease/grant",
    "revoke": "lease/revoke",
    "keepalive": "lease/keepalive",
    "timetolive": "lease/timetolive",
    "leases": "lease/leases",
}
BYTES = {"key", "range_end", "value"}
TEXT = {"result", "target", "sort_order", "sort_target", "message", "type", "cancel_reason", "filters"}
SORT_FIELDS = {
    "KEY": "key",
    "VERSION": "version",
    "CREATE": "create_revision",
    "MOD": "mod_revision",
    "VALUE": "value",
}
FILTERS = {"min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"}


@contextmanager
def fresh_etcd(folder: Path) -> Iterator[str]:
    """A new single-node etcd whose files lie in ``folder``; its address. It ends with the block."""
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    command = [ETCD, "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}"]
    with open(folder / "etcd.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_ready(client, server)
            yield client
        finally:
            server.kill()
            server.wait()


def wait_until_ready(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        recorder = Recorder(address)
        try:
            recorder.ask("range", {"key": "a"})
            return
        except OSError:
            time.sleep(0.05)
        finally:
            recorder.close()
    raise RuntimeError("etcd did not start")


def record(address: str, requests: Iterable[tuple[str, Message]]) -> Iterator[Message]:
    """Put (op, request) after (op, request) to the server; what a recording of it says.

    Ends early if the server does: a few transactions stop its process.
    """
    recorder = Recorder(address)
    try:
        for op, request in requests:
            try:
                answer = recorder.ask(op, request)
            except (ConnectionError, http.client.RemoteDisconnected):
                return
            yield {"op": op, "request": request, **answer}
    finally:
        recorder.close()


class Recorder:
    """One client of one server."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._host = urllib.parse.urlsplit(address).netloc
        self._connection = http.client.HTTPConnection(self._host)
        self._stream: RecordedStream | None = None
        self._compacted = 1

    def close(self) -> None:
        self._connection.close()
        if self._stream is not None:
            self._stream.close()

    def ask(self, op: str, request: Message) -> Message:
        """The answer as it is recorded."""
        if op == "stream":
            return {"response": {"responses": self._ask_stream(request)}}
        if op == "watch":
            return {"response": self._watch(request)}
        if op == "hashkv":
            return {"response": self._hash_kv(request)}
        if op == "compact" and self._stream is not None:
            self._stream.read()
        answer = self._call(op, request)
        if "response" in answer:
            self._settle(op, request, answer["response"])
            if op == "compact":
                self._compacted = max(request["revision"], 1)
        return answer

    def raise_no_space(self) -> None:
        """The alarm that etcd raises when it has reached its quota."""
        (member,) = self._post("cluster/member/list", {})["members"]
        alarm = {"action": "ACTIVATE", "memberID": member["ID"], "alarm": "NOSPACE"}
        assert self._post("maintenance/alarm", alarm)["alarms"]

    def _post(self, path: str, request: Message) -> Any:
        self._connection.request("POST", f"/v3/{path}", json.dumps(request))
        with self._connection.getresponse() as got:
            return json.load(got)

    def _call(self, op: str, request: Message) -> Message:
        message = self._post(PATHS[op], to_gateway(request))
        if "code" in message and "message" in message:
            return {"error": {"code": message["code"], "message": message["message"]}}
        response: Message = from_gateway(message.get("result", message))
        return {"response": response}

    def _hash_kv(self, request: Message) -> Message:
        etcdctl = Path(shutil.which(ETCD) or "").with_name("etcdctl")
        command = [str(etcdctl), "--endpoints", self._address, "endpoint", "hashkv", "-w", "json"]
        command += ["--rev", str(request["revision"])]
        command += [f"--{what}-timeout={WAIT_SECONDS:.0f}s" for what in ("dial", "command")]
        done = subprocess.run(
            command, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, check=True
        )
        ((answer,),) = [json.loads(done.stdout)]
        said = answer["HashKV"]
        newest = said["header"]["revision"]
        return {
            "header": {"revision": newest},
            "hash": said["hash"],
            "compact_revision": said.get("compact_revision", 0),
            "hash_revision": request["revision"] or newest,  # as etcd says from 3.6 on
        }

    # --- watches ----------------------------------------------------------------------

    def _ask_stream(self, request: Message) -> list[Message]:
        if self._stream is None:
            self._stream = RecordedStream(self._host)
        self._stream.read()  # before a watch is canceled, what it has missed
        return self._asked(self._stream, request)

    def _asked(self, stream: RecordedStream, request: Message) -> list[Message]:
        if request:
            stream.send(to_gateway(request))
        if "create_request" in request:
            stream.read_until("created")
            newest = self._newest()
            if newest > self._compacted:
                wait_until_served(self._host, newest)
            else:  # of the newest revision there may be nothing to deliver
                time.sleep(0.3)
        stream.read()
        messages: list[Message] = from_gateway(stream.take())
        return messages

    def _newest(self) -> int:
        revision: int = self._call("range", {"key": "a"})["response"]["header"]["revision"]
        return revision

    def _watch(self, request: Message) -> Message:
        """A watch of its own, ended at the newest revision."""
        newest = self._newest()
        stream = RecordedStream(self._host)
        try:
            messages = self._asked(stream, {"create_request": request})
        finally:
            stream.close()
        events = [event for message in messages for event in message.get("events", [])]
        response: Message = {"events": [e for e in events if e["kv"]["mod_revision"] <= newest]}
        if any(message.get("canceled") for message in messages):
            response["canceled"] = {"compact_revision": messages[-1].get("compact_revision", 0)}
        return response

    # --- what etcd leaves open --------------------------------------------------------

    def _settle(self, op: str, request: Message, response: Message) -> None:
        if op == "range" and "kvs" in response and request.get("sort_target", "KEY") != "KEY":
            self._settle_range(request, response)
        elif op == "txn":
            settle_txn(request, response)
        elif op == "timetolive":
            response["keys"] = sorted(response.get("keys", []))
            if response.get("TTL", 0) > 0:
                response["TTL"] = response["grantedTTL"]
        elif op == "leases":
            response["leases"] = sorted(response.get("leases", []), key=lambda lease: lease["ID"])

    def _settle_range(self, request: Message, response: Message) -> None:
        """Ties in ascending key order, also where the limit cuts through them: from all rows of the range."""
        plain = {name: request[name] for name in request.keys() - {"limit", "sort_order", "keys_only"}}
        rows = self._call("range", {**plain, "sort_target": "KEY"})["response"].get("kvs", [])
        field, limit = SORT_FIELDS[request["sort_target"]], max(request.get("limit", 0), 0)
        is_ordered = request.get("sort_order", "NONE") != "NONE"
        if limit and not is_ordered and not any(request.get(name) for name in FILTERS):
            rows = rows[: limit + 1]
        found = {kv["key"]: kv.get(field, "" if field == "value" else 0) for kv in rows}
        kept = sorted(rows, key=lambda kv: found[kv["key"]], reverse=request.get("sort_order") == "DESCEND")
        kept = kept[:limit] if limit else kept
        theirs = [found[kv["key"]] for kv in response["kvs"]]
        assert theirs == [found[kv["key"]] for kv in kept], f"not sorted: {request}"
        if request.get("keys_only"):
            kept = [{name: kv[name] for name in kv if name != "value"} for kv in kept]
        response["kvs"] = kept


def settle_txn(request: Message, response: Message) -> None:
    """As for a range, in the ranges of a transaction; they have no limit (``random_requests``)."""
    branch = request.get("success" if response.get("succeeded") else "failure", [])
    for asked, answered in zip(branch, response.get("responses", []), strict=True):
        ((kind, inner),) = asked.items()
        ((_, answer),) = answered.items()
        if kind == "request_txn":
            settle_txn(inner, answer)
        elif kind == "request_range" and "kvs" in answer and inner.get("sort_target", "KEY") != "KEY":
            field = SORT_FIELDS[inner["sort_target"]]
            rows = sorted(answer["kvs"], key=lambda kv: kv["key"])
            for at, theirs in enumerate([kv.get(field) for kv in answer["kvs"]]):
                answer["kvs"][at] = next(kv for kv in rows if kv.get(field) == theirs)
                rows.remove(answer["kvs"][at])


# --- the gateway's JSON -------------------------------------------------------------------


def to_gateway(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {field: to_gateway(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [to_gateway(item, name) for item in value]
    return base64.b64encode(value.encode("latin-1")).decode() if name in BYTES else value


def from_gateway(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        if name == "header":
            return {"revision": int(value["revision"])} if "revision" in value else {}
        return {field: from_gateway(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [from_gateway(item, "key" if name == "keys" else name) for item in value]
    if name == "header":
        return {}
    if name in BYTES:
        return base64.b64decode(value).decode("latin-1")
    return int(value) if isinstance(value, str) and name not in TEXT else value
