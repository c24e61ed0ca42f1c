"""The verbs for watching, leases, alarms, health, metrics and defragmenting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore
from tests.harness.command_line import KVSTORE, run_apart
from tests.harness.command_line import run as run_here


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


def run(data: Path, *arguments: str, code: int = 0, apart: bool = False) -> str:
    command = run_apart if apart else run_here
    done = command(data, *arguments, "--data-dir", str(data), NO_COLOR="1")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    return done.out.decode() if code == 0 else done.out.decode() + done.err


def test_watch_shows_the_past_in_order_and_ends(data: Path) -> None:
    """Events from a revision on, as etcdctl prints them."""
    assert run(data, "watch", "", "--prefix", "--rev", "3", "--no-follow") == (
        "PUT\nb\n2\nPUT\na\n3\nDELETE\nb\n\nPUT\nleased\n4\n"
    )
    last = json.loads(run(data, "watch", "a", "--rev", "4", "--prev-kv", "--json", "--no-follow"))
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
    with kvstore.open(data, json.loads(run(data, "status", "--json", apart=True))["backend"]):
        assert run(data, "health", apart=True) == "healthy\n"
        assert json.loads(run(data, "status", "--json", apart=True))["leases"] == 1
        assert json.loads(run(data, "alarm", "list", "--json", apart=True)) == []
        assert "etcd_debugging_mvcc_current_revision 6\n" in run(data, "metrics", apart=True)
        assert "in use by process" in run(data, "defragment", code=3, apart=True)


def test_compact_says_what_it_would_delete_and_deletes_it(data: Path) -> None:
    """A dry run changes nothing; when the real one ends, the rows are gone: nobody else would do it later."""
    said = run(data, "compact", "5", "--dry-run")
    assert said == "compacting to revision 5 would delete 2 versions and 3 changes\n"
    assert json.loads(run(data, "compact", "5", "--dry-run", "--json"))["versions"] == 2
    assert run(data, "get", "a", "--rev", "2") == "a\n1\n"
    assert run(data, "compact", "5") == "compacted revision 5\n"
    assert json.loads(run(data, "status", "--json"))["compaction_debt"] == 0
    again = run(data, "compact", "5", code=1)
    assert "compacted" in again
    assert "the oldest revision still kept is 5" in again
    assert "future revision" in run(data, "compact", "99", "--dry-run", code=1)


def test_a_deletion_can_be_looked_at_before(data: Path) -> None:
    """del and lease revoke say which keys would go; only without --dry-run do they."""
    assert run(data, "del", "", "--prefix", "--dry-run") == "2\n"
    assert run(data, "del", "a", "--dry-run", "--prev-kv") == "1\na\n3\n"
    assert "attached keys([leased])" in run(data, "lease", "revoke", "1f", "--dry-run")
    assert run(data, "get", "", "--prefix", "--count-only") == "2\n"
    assert run(data, "del", "", "--prefix") == "2\n"


def test_at_a_terminal_every_key_is_deleted_only_after_asking(data: Path) -> None:
    """An empty variable in front of --prefix means the whole store; in a script nobody could answer."""
    for answer, code, left in ((b"\n", 2, "2\n"), (b"y\n", 0, "0\n")):
        terminal, given = os.openpty()
        os.write(terminal, answer)
        command = [*KVSTORE, "--data-dir", str(data), "del", "", "--prefix"]
        done = subprocess.run(command, stdin=given, capture_output=True, check=False)
        os.close(terminal)
        os.close(given)
        assert done.returncode == code, done.stderr
        assert b"This deletes every key" in done.stderr
        assert run(data, "get", "", "--prefix", "--count-only") == left


def test_a_key_with_a_time_to_live(data: Path) -> None:
    """put --ttl gives the key a lease of its own; fractions of a second count, and none is too few."""
    assert "more than 0 seconds" in run(data, "put", "short", "lived", "--ttl", "0", code=1)
    run(data, "put", "fleeting", "v", "--ttl", "0.001", "--set", "lease-min-ttl=0.001")
    run(
        data, "put", "short", "lived", "--ttl", "100.5"
    )  # by now the other is due, and each opening deletes what is
    assert run(data, "get", "fleeting") == ""
    lease = json.loads(run(data, "get", "short", "--json"))["kvs"][0]["lease"]
    assert "attached keys([short])" in run(data, "lease", "timetolive", f"{lease:x}", "--keys")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compact", "3"),
        ("defragment",),
        ("del", "a"),
        ("lease", "revoke", "1f"),
        ("lease", "keep-alive", "1f"),
        ("alarm", "disarm"),
        ("snapshot", "prune"),
    ],
)
def test_a_misspelt_directory_is_not_made_a_store(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """What keeps house in a store is refused where there is none."""
    assert "is not a store" in run(tmp_path / "typo", *arguments, code=3)
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("compact", ["4"], "compacted revision 4"),
        ("defragment", ["--dry-run"], "would be given back"),
        ("snapshot", ["list"], ""),
    ],
)
def test_the_tools_run_as_scripts(
    data: Path, project: Path, script: str, arguments: list[str], says: str
) -> None:
    """python tools/<name>.py does what the verb does."""
    command = [sys.executable, f"tools/{script}.py", *arguments, "--data-dir", str(data)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout


def test_status_names_what_was_set_aside(data: Path) -> None:
    """A backend that was damaged and rebuilt at an opening is still spoken of when that process is gone."""
    before = json.loads(run(data, "status", "--json"))
    assert before["set_aside"] == []
    (data / "snap" / "db").write_bytes(b"not a database at all")
    with kvstore.open(data, before["backend"]) as store:
        assert "db.broken" in store.status().set_aside
    assert "db.broken" in run(data, "status")


def test_defragment_says_what_it_would_win_and_does_it(data: Path) -> None:
    """A dry run changes nothing; the real one loses nothing."""
    before = (data / "snap" / "db").stat().st_size
    assert "would be given back" in run(data, "defragment", "--dry-run")
    assert (data / "snap" / "db").stat().st_size == before
    done = json.loads(run(data, "defragment", "--json"))
    assert done["after_bytes"] <= done["before_bytes"]
    assert run(data, "get", "a", "--rev", "2") == "a\n1\n"
