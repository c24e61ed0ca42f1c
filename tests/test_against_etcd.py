"""Random conversations with a real etcd, recorded on the spot: our answers are its answers.

The recorder watches out for what etcd leaves open (the order of rows that tie in a sort); everything else is
compared, messages of errors included.

    make against-etcd                                      with the etcd on PATH
    make against-etcd KVSTORE_ETCD=/path/to/another/etcd   with another
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from kvstore.tools.replay import Pace, replay

from tests.etcd_recorder import HAS_ETCD, fresh_etcd, record
from tests.random_requests import Requests

pytestmark = pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")

BACKENDS = ("lmdb", "sqlite", "memory")


def recorded(folder: Path, asked: Requests, requests: int) -> Path:
    path = folder / "conversation.jsonl"
    with fresh_etcd(folder) as address, path.open("w") as file:
        for exchange in record(address, islice(asked, requests)):
            asked.learn(exchange)
            file.write(json.dumps(exchange) + "\n")
    return path


def assert_agrees(path: Path, backend: str, pace: Pace) -> None:
    result = replay(path, backend, pace)
    assert [
        (d.exchange.line, d.exchange.request, d.exchange.answer, d.ours) for d in result.differences
    ] == []
    assert result.agreed.total() == len(path.read_text().splitlines()) > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_random_conversation(tmp_path: Path, backend: str) -> None:
    """A few hundred requests over awkward keys and long ones get etcd's answers."""
    path = recorded(tmp_path, Requests(1, long_keys=True), 400)
    assert_agrees(path, backend, Pace(checkpoint_every=3))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_long_random_conversations(tmp_path: Path, seed: int) -> None:
    """Thousands of requests get etcd's answers on every backend, whatever happens between them."""
    path = recorded(tmp_path, Requests(seed, long_keys=seed % 3 == 0), 3000)
    for backend in BACKENDS:
        for pace in (Pace(), Pace(checkpoint_every=1), Pace(reopen_every=7), Pace(crash_every=29)):
            assert_agrees(path, backend, pace)
