"""Recorded conversations with real etcd servers: every answer of ours is etcd's, errors and watches included.

The default suite plays every recording once on each backend, and samples of what else may happen to a store
between two requests; the soak run plays every combination.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools.lab.conversation import NotAConversation, read_conversation
from kvstore.tools.lab.replay import Pace, replay

from kvstore.mvcc import read
from kvstore.upkeep import compaction
from kvstore.watch import stream
from tests import PROJECT
from tests.etcd.conversations import BACKENDS, PROFILES, TRACES, assert_agrees, name_of, recording_of

PACES = {
    "reopen7": Pace(reopen_every=7),
    "crash17": Pace(crash_every=17, checkpoint_every=5),
    "crash23": Pace(crash_every=23),
    "checkpoint1": Pace(checkpoint_every=1),
    "checkpoint2": Pace(checkpoint_every=2, reopen_every=31),
    "sweep1": Pace(sweep_every=1),
}
TIGHT: dict[str, Any] = {
    "background": True,
    "backend_batch_interval_seconds": 0.001,
    "backend_batch_limit": 2,
    "overlay_limit": 1,
    "wal_file_size": 400,
    "wal_buffer_size": 500,
    "compaction_batch_limit": 1,
    "compaction_sleep_interval_seconds": 0.0,
    "watch_buffer": 1,
}
"""Limits that everything meets: a checkpoint for nearly each write, a log segment for a few."""
SAMPLES = [
    (profile, BACKENDS[(row + column) % 3], pace)
    for row, pace in enumerate(PACES)
    for column, profile in enumerate(PROFILES)
    if (row + column) % 3 == 0
]


def test_the_recordings_are_there() -> None:
    """Without them the tests below would say nothing: every profile is there, twice."""
    assert Counter(trace.name.split("-")[0] for trace in TRACES) == dict.fromkeys(PROFILES, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trace", TRACES, ids=name_of)
def test_every_answer_is_etcds(trace: Path, backend: str) -> None:
    """A recorded conversation gets the same answers from a new store."""
    assert_agrees(replay(trace, backend))


@pytest.mark.parametrize(("profile", "backend", "pace"), SAMPLES)
def test_answers_stay_when_the_store_is_disturbed(profile: str, backend: str, pace: str) -> None:
    """Checkpoints, reopening and power cuts between requests change no answer."""
    assert_agrees(replay(recording_of(profile), backend, PACES[pace]))


@pytest.mark.parametrize(("profile", "backend"), list(zip(PROFILES, BACKENDS * 2, strict=False)))
def test_answers_stay_however_tight_the_limits_are(
    profile: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of a few rows, an overlay that is always full, segments of a few records, threads that never rest."""
    for module, name in (
        (read, "PAGE_ROWS"),
        (compaction, "PAGE_ROWS"),
        (compaction, "SLICE_ROWS"),
        (compaction, "SLICE_KEYS"),
        (compaction, "PASS_KEYS"),
        (stream, "PAGE_ROWS"),
        (stream, "FIRST_PAGE_ROWS"),
    ):
        monkeypatch.setattr(module, name, 1)
    assert_agrees(replay(recording_of(profile), backend, **TIGHT))


@pytest.mark.soak
@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trace", TRACES, ids=name_of)
def test_answers_stay_whatever_happens(trace: Path, backend: str, pace: str) -> None:
    """As above, in every combination."""
    assert_agrees(replay(trace, backend, PACES[pace]))


# --- the player itself: what is not etcd's answer is seen ---------------------------------

PUT = {"op": "put", "request": {"key": "a", "value": "b"}, "response": {"header": {"revision": 2}}}
GET = {
    "op": "range",
    "request": {"key": "a"},
    "response": {
        "header": {"revision": 2},
        "kvs": [{"key": "a", "value": "b", "create_revision": 2, "mod_revision": 2, "version": 1}],
        "count": 1,
    },
}
REFUSED = {
    "op": "put",
    "request": {"value": "b"},
    "error": {"code": 3, "message": "etcdserver: key is not provided"},
}
WATCHED = {
    "op": "watch",
    "request": {"key": "a", "start_revision": 2},
    "response": {
        "events": [{"kv": {"key": "a", "value": "b", "create_revision": 2, "mod_revision": 2, "version": 1}}]
    },
}

GRANTED = {
    "op": "grant",
    "request": {"ID": 7, "TTL": 60},
    "response": {"header": {"revision": 2}, "ID": 7, "TTL": 60},
}
LEASED = {
    "op": "put",
    "request": {"key": "l", "lease": 7},
    "response": {"header": {"revision": 3}},
}
TTL = {
    "op": "timetolive",
    "request": {"ID": 7, "keys": True},
    "response": {"header": {"revision": 3}, "ID": 7, "TTL": 60, "grantedTTL": 60, "keys": ["l"]},
}
KEPT = {
    "op": "keepalive",
    "request": {"ID": 7},
    "response": {"header": {"revision": 3}, "ID": 7, "TTL": 60},
}
LEASES = {
    "op": "leases",
    "request": {},
    "response": {"header": {"revision": 3}, "leases": [{"ID": 7}]},
}
HASHED = {
    "op": "hashkv",
    "request": {"revision": 2},
    "response": {
        "header": {"revision": 3},
        "hash": 3628877040,
        "compact_revision": -1,
        "hash_revision": 2,
    },
}
CREATED = {
    "op": "stream",
    "request": {"create_request": {"key": "l", "start_revision": 3, "filters": ["NODELETE"]}},
    "response": {
        "responses": [
            {"watch_id": 0, "header": {"revision": 3}, "created": True},
            {
                "watch_id": 0,
                "events": [
                    {"kv": {"key": "l", "create_revision": 3, "mod_revision": 3, "version": 1, "lease": 7}}
                ],
            },
        ]
    },
}
TOLD = {
    "op": "stream",
    "request": {"progress_request": {}},
    "response": {"responses": [{"watch_id": -1, "header": {"revision": 3}}]},
}
QUIET = {"op": "stream", "request": {}, "response": {"responses": []}}
ENDED = {
    "op": "stream",
    "request": {"cancel_request": {"watch_id": 0}},
    "response": {"responses": [{"watch_id": 0, "header": {"revision": 3}, "canceled": True}]},
}
TRUE = [PUT, GET, REFUSED, WATCHED, GRANTED, LEASED, TTL, KEPT, LEASES, HASHED, CREATED, TOLD, QUIET, ENDED]


def write(path: Path, *exchanges: object) -> Path:
    path.write_text("".join(json.dumps(exchange) + "\n" for exchange in exchanges))
    return path


def changed(exchange: dict[str, Any], change: str, into: str) -> object:
    text = json.dumps(exchange)
    assert change in text
    return json.loads(text.replace(change, into))


def test_a_true_recording_agrees(tmp_path: Path) -> None:
    """The exchanges that the next test falsifies agree as they are."""
    result = replay(write(tmp_path / "true.jsonl", *TRUE), "memory")
    assert_agrees(result)
    assert result.agreed == Counter(exchange["op"] for exchange in TRUE)


@pytest.mark.parametrize(
    ("number", "change", "into"),
    [
        (0, '"revision": 2', '"revision": 3'),
        (1, '"value": "b"', '"value": "B"'),
        (1, '"version": 1', '"version": 2'),
        (1, ', "count": 1', ""),
        (1, '"count": 1', '"count": 1, "more": true'),
        (2, '"code": 3', '"code": 5'),
        (2, "not provided", "missing"),
        (3, '"value": "b"', '"value": "B"'),
        (3, '{"events":', '{"canceled": {"compact_revision": 2}, "events":'),
        (6, '"TTL": 60', '"TTL": 59'),
        (6, '["l"]', "[]"),
        (7, '"TTL": 60', '"TTL": 0'),
        (8, '"ID": 7', '"ID": 8'),
        (9, '"hash": 3', '"hash": 1'),
        (10, '"created": true', '"created": false'),
        (10, '"version": 1', '"version": 2'),
        (11, '"revision": 3', '"revision": 2'),
        (12, '"responses": []', '"responses": [{"watch_id": 0}]'),
        (13, '"canceled": true', '"canceled": true, "cancel_reason": "tired"'),
    ],
)
def test_a_wrong_answer_is_seen(tmp_path: Path, number: int, change: str, into: str) -> None:
    """Whatever part of a recorded answer differs from ours, it shows as exactly one difference."""
    exchanges: list[object] = list(TRUE)
    exchanges[number] = changed(TRUE[number], change, into)
    result = replay(write(tmp_path / "false.jsonl", *exchanges), "memory")
    assert [difference.exchange.line for difference in result.differences] == [number + 1]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"op": "put", "request": {}}',
        '{"op": "put", "request": {}, "response": {}, "error": {"code": 1}}',
        '{"op": "frobnicate", "request": {}, "response": {}}',
        '{"op": "put", "request": [], "response": {}}',
        '{"op": "put", "request": {"kee": "a"}, "response": {}}',
        '{"op": "range", "request": {"key": "a", "sort_order": "UP"}, "response": {}}',
        '{"op": "put", "request": {"key": "\\u0100"}, "response": {}}',
        '{"op": "txn", "request": {"success": [{"request_pat": {}}]}, "response": {}}',
        '{"op": "put", "request": {"key": 5}, "response": {}}',
        '{"op": "range", "request": {"key": "a", "limit": "5"}, "response": {}}',
        '{"op": "put", "request": {"key": "a", "prev_kv": 1}, "response": {}}',
        '{"op": "txn", "request": {"compare": [{"key": "a", "result": 9}]}, "response": {}}',
        '{"op": "watch", "request": {"key": "a", "filters": ["NOTHING"]}, "response": {}}',
        '{"op": "stream", "request": {"progress_request": {}, "cancel_request": {}}, "response": {}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, line: str) -> None:
    """A line that is no exchange is a typed error that names the line, never a traceback or a pass."""
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(NotAConversation, match="line 1"):
        replay(path, "memory")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    """A truncated or foreign .xz file is a typed error."""
    path = tmp_path / "bad.jsonl.xz"
    path.write_bytes(b"\xfd7zXZ\0 and nothing of the kind")
    with pytest.raises(NotAConversation):
        list(read_conversation(path))


@pytest.mark.parametrize(
    "start",
    [["tools/lab/replay.py"], ["-m", "kvstore.tools.lab.replay"]],
)
def test_the_command_says_what_differs(tmp_path: Path, start: list[str]) -> None:
    """As a script and as a module: exit code 0 if all agree, 1 and a readable diff if not."""
    true = write(tmp_path / "true.jsonl", PUT, GET)
    false = write(tmp_path / "false.jsonl", PUT, changed(GET, '"version": 1', '"version": 7'))

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *start, *map(str, arguments), "--backend", "memory"]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    good = run(true, "--reopen-every", "1")
    assert (good.returncode, good.stdout) == (0, "true.jsonl: 2 answers agree\n"), good.stderr
    bad = run(true, false)
    assert bad.returncode == 1
    assert "false.jsonl: 1 answers agree, 1 DIFFER" in bad.stdout
    assert "line 2: range" in bad.stdout
    assert '-      "version": 7' in bad.stdout
    assert '+      "version": 1' in bad.stdout
    assert "Traceback" not in bad.stderr
