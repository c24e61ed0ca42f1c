"""Random conversations with a real etcd, recorded on the spot: our answers are its answers.

The recorder watches out for what etcd leaves open (the order of rows that tie in a sort); everything else is
compared, messages of errors included.
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


def recorded(folder: Path, seed: int, requests: int, *, long_keys: bool) -> Path:
    path = folder / f"seed-{seed}.jsonl"
    asked = Requests(seed, long_keys=long_keys)
    with fresh_etcd(folder) as address, path.open("w") as file:
        for exchange in record(address, islice(asked, requests)):
            header = exchange.get("response", {}).get("header", {})
            asked.revision = header.get("revision", asked.revision)
            file.write(json.dumps(exchange) + "\n")
    return path


def assert_agrees(path: Path, backend: str, pace: Pace) -> None:
    result = replay(path, backend, pace)
    assert [
        (d.exchange.line, d.exchange.request, d.exchange.answer, d.ours) for d in result.differences
    ] == []
    assert result.agreed.total() == len(path.read_text().splitlines()) > 0


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "memory"])
def test_a_random_conversation(tmp_path: Path, backend: str) -> None:
    """A few hundred requests over awkward keys and long ones get etcd's answers."""
    path = recorded(tmp_path, 1, 400, long_keys=True)
    assert_agrees(path, backend, Pace(checkpoint_every=3))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_long_random_conversations(tmp_path: Path, seed: int) -> None:
    """Thousands of requests get etcd's answers on every backend, whatever happens between them."""
    path = recorded(tmp_path, seed, 3000, long_keys=seed % 3 == 0)
    for backend in ("lmdb", "sqlite", "memory"):
        for pace in (Pace(), Pace(checkpoint_every=1), Pace(reopen_every=7), Pace(crash_every=29)):
            assert_agrees(path, backend, pace)
