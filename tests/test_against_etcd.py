"""Random conversations with a real etcd, recorded on the spot: our answers are its answers.

The recorder watches out for what etcd leaves open (the order of rows that tie in a sort), the requests for what
differs from version to version; everything else is compared, messages of errors included.

    make compare                                        the etcd on PATH, for long
    make compare KVSTORE_ETCD=/path/to/another/etcd     another one (its etcdctl lies beside it)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
from kvstore.tools.replay import Pace, replay

from tests.etcd_recorder import HAS_ETCD, fresh_etcd, record
from tests.random_requests import PROFILES, Requests

pytestmark = pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")

BACKENDS = ("lmdb", "sqlite", "memory")
SHORT = dict.fromkeys(PROFILES, 250) | {"large": 50, "hash": 100, "watch": 50}
LONG = dict.fromkeys(PROFILES, 3000) | {"large": 500, "hash": 1000, "watch": 400}
"""How many requests of a profile: some take etcd's time, some ours."""

PACES = (Pace(), Pace(checkpoint_every=1), Pace(reopen_every=7), Pace(crash_every=29), Pace(sweep_every=5))
OPEN_PACES = tuple(pace for pace in PACES if not (pace.reopen_every or pace.crash_every))
"""For conversations with a stream, which ends with the store."""


def recorded(folder: Path, asked: Requests, requests: int) -> Path:
    path = folder / "conversation.jsonl"
    with fresh_etcd(folder) as address, path.open("w") as file:
        for exchange in record(address, islice(asked, requests)):
            asked.learn(exchange)
            file.write(json.dumps(exchange) + "\n")
    return path


def assert_agrees(path: Path, paces: Iterable[Pace]) -> None:
    for backend in BACKENDS:
        for pace in paces:
            result = replay(path, backend, pace)
            assert [
                (d.exchange.line, d.exchange.request, d.exchange.answer, d.ours) for d in result.differences
            ] == []
            assert result.agreed.total() == len(path.read_text().splitlines()) > 0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_random_conversation(scratch: Path, profile: str) -> None:
    """A few hundred requests over awkward keys and long ones get etcd's answers on every backend."""
    path = recorded(scratch, Requests(1, profile=profile, long_keys=profile == "mix"), SHORT[profile])
    assert_agrees(path, [Pace(checkpoint_every=3)])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1012))
@pytest.mark.parametrize("profile", PROFILES)
def test_long_random_conversations(scratch: Path, profile: str, seed: int) -> None:
    """Thousands of requests get etcd's answers on every backend, whatever happens between them."""
    path = recorded(scratch, Requests(seed, profile=profile, long_keys=seed % 3 == 0), LONG[profile])
    assert_agrees(path, OPEN_PACES if profile == "watch" else PACES)
