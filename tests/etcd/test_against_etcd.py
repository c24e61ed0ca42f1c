"""Random conversations with a real etcd, recorded on the spot: our answers are its answers.

The recorder watches out for what etcd leaves open (the order of rows that tie in a sort), the requests for what
differs from version to version; everything else is compared, messages of errors included.

    make compare                                        the etcd on PATH, for long
    make compare KVSTORE_ETCD=/path/to/another/etcd     another one (its etcdctl lies beside it)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools.lab.conversation import Exchange, Message, parse_request, without_defaults
from kvstore.tools.lab.replay import Pace, Player, replay, replay_options

from tests.etcd.etcd_recorder import HAS_ETCD, Recorder, fresh_etcd, record
from tests.etcd.random_requests import PROFILES, Requests

pytestmark = pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")

BACKENDS = ("lmdb", "sqlite", "memory")
SHORT = dict.fromkeys(PROFILES, 250) | {"large": 50, "many": 50, "hash": 100, "watch": 50}
LONG = dict.fromkeys(PROFILES, 3000) | {"large": 500, "many": 1000, "hash": 1000, "watch": 400}
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


PUT: Message = {"request_put": {"key": "a", "value": "2"}}
GET: Message = {"request_range": {"key": "a"}}
MISSING: Message = {"request_put": {"key": "no", "ignore_value": True}}
BRANCHES: list[list[Message]] = [[PUT], [GET], [PUT, PUT], [MISSING], [], [{}]]
BEFORE: list[tuple[str, Message]] = [
    ("grant", {"ID": 7, "TTL": 86400}),
    *[("put", {"key": key, "value": "1", "lease": lease}) for key, lease in (("a", 0), ("b", 7), ("c", 0))],
]
WITHOUT_ROOM: list[tuple[str, Message]] = [
    *[("put", {"key": "a", **put}) for put in ({"value": "2"}, {"ignore_value": True}, {"lease": 99})],
    *[("put", put) for put in ({"key": ""}, {"key": "no", "ignore_value": True})],
    *[("txn", {"success": ops}) for ops in BRANCHES],
    ("txn", {"success": [GET], "failure": [PUT]}),
    ("txn", {"success": [{"request_delete_range": {"key": "c"}}]}),
    ("txn", {"success": [{"request_txn": {"success": [GET]}}]}),
    ("txn", {"success": [PUT, {"request_range": {"key": "a", "revision": 999}}]}),
    *[("grant", {"ID": lease, "TTL": 86400}) for lease in (7, 8)],
    ("grant", {"ID": 8, "TTL": 2**62}),
    ("keepalive", {"ID": 7}),
    ("timetolive", {"ID": 7, "keys": True}),
    ("range", {"key": "\0", "range_end": "\0"}),
    ("compact", {"revision": 2}),
    ("delete", {"key": "a"}),
    ("revoke", {"ID": 7}),
    ("range", {"key": "\0", "range_end": "\0"}),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_room_the_same_requests_are_refused(scratch: Path, backend: str) -> None:
    """Under NOSPACE: what may still be done, what not, and which of two reasons is given.

    Left out: a put inside a nested transaction, which etcd let through until 3.5.33.
    """
    with fresh_etcd(scratch) as address, closing(Recorder(address)) as etcd:
        before = [etcd.ask(*request) for request in BEFORE]
        etcd.raise_no_space()
        theirs = [etcd.ask(*request) for request in WITHOUT_ROOM]
    assert ours(scratch / "store", BEFORE, backend) == plainly(before)
    assert ours(scratch / "store", WITHOUT_ROOM, backend, quota_backend_bytes=1) == plainly(theirs)


def ours(folder: Path, requests: list[tuple[str, Message]], backend: str, **options: Any) -> list[Message]:
    folder.mkdir(exist_ok=True)
    player = Player(folder, replay_options(backend, **options), Pace())
    try:
        exchanges = [Exchange(0, op, request, {}, None) for op, request in requests]
        return [player.ask(parse_request(exchange)) for exchange in exchanges]
    finally:
        player.close()


def plainly(answers: list[Message]) -> list[Message]:
    """As they are compared."""
    return [without_defaults(answer.get("response", answer)) for answer in answers]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1004))
@pytest.mark.parametrize("profile", PROFILES)
def test_long_random_conversations(scratch: Path, profile: str, seed: int) -> None:
    """Thousands of requests get etcd's answers on every backend, whatever happens between them."""
    path = recorded(scratch, Requests(seed, profile=profile, long_keys=seed % 3 == 0), LONG[profile])
    assert_agrees(path, OPEN_PACES if profile == "watch" else PACES)
