"""Asks a real etcd, and records the conversation in the format of ``tools/conversation.py``.

The server is asked through its JSON gateway (HTTP, bytes in base64, 64-bit integers as strings), which needs no
client library. Watches are left out: there they are streams.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Message = dict[str, Any]

HAS_ETCD = shutil.which("etcd") is not None
START_SECONDS = 60.0
PATHS = {
    "range": "kv/range",
    "put": "kv/put",
    "delete": "kv/deleterange",
    "txn": "kv/txn",
    "compact": "kv/compaction",
    "grant": "lease/grant",
    "revoke": "lease/revoke",
}
BYTES = {"key", "range_end", "value"}
TEXT = {"result", "target", "sort_order", "sort_target", "message"}
UNSTABLE = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value"}


@contextmanager
def fresh_etcd(folder: Path) -> Iterator[str]:
    """A new single-node etcd whose files lie in ``folder``; its address. It ends with the block."""
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    command = ["etcd", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"]
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


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until_ready(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            ask(address, "range", {"key": "a"})
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("etcd did not start")


def record(address: str, requests: Iterable[tuple[str, Message]]) -> Iterator[Message]:
    """Put (op, request) after (op, request) to the server; what a recording of it says.

    Ends early if the server does: a few transactions stop its process.
    """
    for op, request in requests:
        try:
            answer = ask(address, op, request)
        except ConnectionError:
            return
        yield {"op": op, "request": request, **answer}


def ask(address: str, op: str, request: Message) -> Message:
    body = json.dumps(to_gateway(request)).encode()
    call = urllib.request.Request(f"{address}/v3/{PATHS[op]}", body)
    try:
        with urllib.request.urlopen(call) as answer:
            response = from_gateway(json.load(answer))
    except urllib.error.HTTPError as error:
        refusal = json.load(error)
        return {"error": {"code": refusal["code"], "message": refusal["message"]}}
    settle_ties(op, request, response)
    return {"response": response}


def to_gateway(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {field: to_gateway(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [to_gateway(item) for item in value]
    return base64.b64encode(value.encode("latin-1")).decode() if name in BYTES else value


def from_gateway(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        if name == "header":
            return {"revision": int(value["revision"])} if "revision" in value else {}
        return {field: from_gateway(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [from_gateway(item) for item in value]
    if name == "header":
        return {}
    if name in BYTES:
        return base64.b64decode(value).decode("latin-1")
    return int(value) if isinstance(value, str) and name not in TEXT else value


def settle_ties(op: str, request: Message, response: Message) -> None:
    """etcd's sort is not stable: put rows that tie in ascending key order, as ours come."""
    if op == "range":
        number = UNSTABLE.get(request.get("sort_target", ""))
        if number is not None and "kvs" in response:
            rows = sorted(response["kvs"], key=lambda kv: kv["key"])
            order = [kv.get(number, 0) for kv in response["kvs"]]
            for at, value in enumerate(order):
                chosen = next(kv for kv in rows if kv.get(number, 0) == value)
                rows.remove(chosen)
                response["kvs"][at] = chosen
    elif op == "txn":
        branch = request.get("success" if response.get("succeeded") else "failure", [])
        for asked, answered in zip(branch, response.get("responses", []), strict=True):
            ((kind, inner),) = asked.items()
            for answer in answered.values():
                settle_ties(kind.removeprefix("request_"), inner, answer)
