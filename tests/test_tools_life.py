"""The verbs for watching, leases, alarms, health, metrics and defragmenting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore


@pytest.fixture(params=["lmdb", "sqlite"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store with a history: a put, put again, b deleted, and a key with a lease."""
    with kvstore.open(tmp_path / "data", request.param) as store:
        store.put(b"a", b"1")
        store.put(b"b", b"2")
        store.put(b"a", b"3")
        store.delete(b"b")
        store.grant_lease(1000, 0x1F)
        store.put(b"leased", b"4", lease=0x1F)
    return tmp_path / "data"


def run(data: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "kvstore.tools.main", *arguments, "--data-dir", str(data)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_watch_shows_the_past_in_order_and_ends(data: Path) -> None:
    """Events from a revision on, as etcdctl prints them."""
    assert run(data, "watch", "", "--prefix", "--rev", "3") == (
        "PUT\nb\n2\nPUT\na\n3\nDELETE\nb\n\nPUT\nleased\n4\n"
    )
    last = json.loads(run(data, "watch", "a", "--rev", "4", "--prev-kv", "--json"))
    assert last["revision"] >= 4
    assert len(last["events"]) == 1


def test_watch_below_the_compaction_is_refused(data: Path) -> None:
    """A compacted revision is one clear line."""
    run(data, "compact", "4")
    assert "compacted" in run(data, "watch", "a", "--rev", "2", code=1)


def test_leases_from_grant_to_revoke(data: Path) -> None:
    """Grant, look, renew, revoke; the keys are gone with the lease."""
    assert "granted with TTL(100s)" in run(data, "lease", "grant", "100", "--id", "2a")
    assert run(data, "lease", "list").splitlines() == ["found 2 leases", f"{0x2A:016x}", f"{0x1F:016x}"]
    assert "attached keys([leased])" in run(data, "lease", "timetolive", "1f", "--keys")
    assert "keepalived" in run(data, "lease", "keep-alive", "1f")
    run(data, "lease", "revoke", "1f")
    assert run(data, "get", "leased") == ""
    assert "expired or revoked" in run(data, "lease", "keep-alive", "1f", code=1)
    assert "not found" in run(data, "lease", "revoke", "1f", code=1)


def test_health_status_alarms_and_metrics_work_beside_a_writer(data: Path) -> None:
    """Asking needs no lock."""
    with kvstore.open(data, json.loads(run(data, "status", "--json"))["backend"]):
        assert run(data, "health") == "healthy\n"
        assert json.loads(run(data, "status", "--json"))["leases"] == 1
        assert json.loads(run(data, "alarm", "list", "--json")) == []
        assert "etcd_debugging_mvcc_current_revision 6.0" in run(data, "metrics")
        assert "in use by process" in run(data, "defragment", code=3)


def test_defragment_says_what_it_would_win_and_does_it(data: Path) -> None:
    """A dry run changes nothing; the real one loses nothing."""
    before = (data / "snap" / "db").stat().st_size
    assert "would be given back" in run(data, "defragment", "--dry-run")
    assert (data / "snap" / "db").stat().st_size == before
    done = json.loads(run(data, "defragment", "--json"))
    assert done["after_bytes"] <= done["before_bytes"]
    assert run(data, "get", "a", "--rev", "2") == "a\n1\n"
