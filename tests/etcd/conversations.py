"""The recorded conversations with etcd, those that are recorded on the spot, and what a replay of one has to give."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from kvstore.tools.lab.replay import Result

from tests import PROJECT
from tests.etcd.etcd_recorder import fresh_etcd, record
from tests.etcd.random_requests import Requests

TRACES = sorted((PROJECT / "tests" / "fixtures" / "traces").glob("*.jsonl.xz"))
BACKENDS = ("lmdb", "sqlite", "memory")
PROFILES = ("small", "txn", "range", "lease", "long")


def recording_of(profile: str) -> Path:
    for trace in TRACES:
        if trace.name.startswith(profile):
            return trace
    pytest.fail(f"no recording of the profile {profile}")


def name_of(value: object) -> str:
    return value.name.split(".")[0] if isinstance(value, Path) else str(value)


def random_conversation(folder: Path, profile: str, seed: int, count: int) -> Path:
    """Recorded on the spot, without streams of watches."""
    path = folder / "conversation.jsonl"
    asked = Requests(seed, profile=profile)
    with fresh_etcd(folder) as address, path.open("w") as file:
        for exchange in record(address, islice(asked, count)):
            asked.learn(exchange)
            if exchange["op"] != "stream":
                file.write(json.dumps(exchange) + "\n")
    return path


def assert_agrees(result: Result) -> None:
    assert result.agreed.total() > 0
    assert [
        (d.exchange.line, d.exchange.request, d.exchange.answer, d.ours) for d in result.differences
    ] == []
