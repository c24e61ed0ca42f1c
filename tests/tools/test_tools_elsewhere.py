"""The verbs on a store that is served: each takes ``--endpoint`` beside ``--data-dir``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kvstore.tools.command import ExitCode

import kvstore
from tests.harness.command_line import INTERRUPTIBLE, KVSTORE, Done, run


@contextmanager
def served(path: Path) -> Iterator[str]:
    with kvstore.open(path / "data") as store, kvstore.serve(store, f"unix://{path}/kv.sock") as server:
        yield server.endpoints[0]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store for all tests here: who counts keys or revisions takes one of its own."""
    with served(tmp_path_factory.mktemp("served")) as url:
        yield url


def at(url: str, *arguments: str, stdin: bytes = b"") -> Done:
    return run(Path("/nowhere"), "--endpoint", url, *arguments, stdin=stdin)


def said(url: str, *arguments: str, stdin: bytes = b"") -> str:
    done = at(url, *arguments, stdin=stdin)
    assert (done.code, done.err) == (0, ""), done
    return done.out.decode()


def test_every_verb_of_a_store_works_elsewhere(tmp_path: Path) -> None:
    """With the output that it has here."""
    with served(tmp_path) as url:
        assert said(url, "put", "a", "1") == "OK\n"
        assert said(url, "put", "a", "2", "--prev-kv") == "OK\na\n1\n"
        assert said(url, "get", "a") == "a\n2\n"
        assert said(url, "get", "a", "--rev", "2") == "a\n1\n"
        assert said(url, "history", "a") == "2\t1\t\t1\n3\t2\t\t2\n"
        assert said(url, "diff", "2") == "~\ta\t1\t2\n"
        assert said(url, "watch", "a", "--rev", "2", "--no-follow") == "PUT\na\n1\nPUT\na\n2\n"
        assert said(url, "txn", stdin=b'value("a") = "2"\n\nput b 3\n\nput b 4\n').startswith("SUCCESS")
        assert said(url, "del", "b", "--dry-run") == "1\n"
        assert said(url, "del", "b") == "1\n"
        granted = said(url, "lease", "grant", "60").split()[1]
        assert said(url, "lease", "keep-alive", granted).endswith("keepalived with TTL(60)\n")
        assert said(url, "lease", "list") == f"found 1 leases\n{granted}\n"
        assert said(url, "lease", "timetolive", granted).startswith(f"lease {granted} granted with TTL(60s)")
        assert said(url, "lease", "revoke", granted) == f"lease {granted} revoked\n"
        assert said(url, "health") == "healthy\n"
        assert said(url, "alarm", "list") == said(url, "alarm", "disarm") == ""
        assert said(url, "hashkv").startswith(f"{url}, ")
        assert said(url, "compact", "3") == "compacted revision 3\n"
        assert said(url, "defragment").startswith("defragmented: ")
        assert f"data dir\t{url}\n" in said(url, "status")
        saved = tmp_path / "s.snap"
        assert said(url, "snapshot", "save", str(saved)).startswith("saved revision 5 as ")
        assert run(tmp_path, "inspect", "get", str(saved), "a").code == 0


def test_answers_in_json_name_the_members_of_the_server(url: str) -> None:
    """``-w json`` is taken for ``--json``, as scripts for etcdctl have it."""
    answers = [json.loads(said(url, *how, "get", "a")) for how in (("--json",), ("-w", "json"))]
    assert answers[0] == answers[1]
    with kvstore.connect(url) as store:
        assert answers[0]["header"]["cluster_id"] == int(store.status().cluster_id, 16)


@pytest.mark.parametrize(
    "arguments", [("verify",), ("snapshot", "list"), ("wal", "dump"), ("migrate", "format")]
)
def test_verbs_for_files_say_that_they_need_them(url: str, arguments: tuple[str, ...]) -> None:
    """A server's files are the server's."""
    done = at(url, *arguments)
    assert done.code == ExitCode.USAGE and "give --data-dir instead of --endpoint" in done.err, done


def test_one_store_at_a_time(url: str, tmp_path: Path) -> None:
    """Here or elsewhere; what is said with a flag counts before the environment."""
    done = at(url, "get", "a", "--data-dir", str(tmp_path))
    assert done.code == ExitCode.USAGE and "give one of them" in done.err
    assert run(tmp_path, "get", "a", KVSTORE_ENDPOINT=url).code == 0
    done = run(tmp_path, "get", "a", "--data-dir", str(tmp_path / "none"), KVSTORE_ENDPOINT=url)
    assert done.code == ExitCode.CANNOT_OPEN and "not a store" in done.err


def test_options_of_a_client(url: str, tmp_path: Path) -> None:
    """Those of ``kvstore.connect``, each as its type; unknown ones are refused by name."""
    options = ["--set", "timeout-seconds=2", "--set", "serializable=true", "--set", "user=7"]
    assert said(url, "put", "options", "taken", *options) == "OK\n"
    assert said(url, "get", "options", *options) == "options\ntaken\n"
    done = at(url, "get", "a", "--set", "no_such=1")
    assert done.code == ExitCode.USAGE and "no_such" in done.err
    done = at(f"unix://{tmp_path}/none.sock", "get", "a", "--set", "timeout_seconds=0.2")
    assert done.code == ExitCode.CANNOT_OPEN, done


# --- dump and load ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_dump_is_loaded_elsewhere(tmp_path: Path, url: str, backend: str) -> None:
    """Text as text, other bytes in base64; in order, of one revision."""
    with kvstore.open(tmp_path / "data", backend) as store:
        store.put(b"dump/" + bytes(range(256)), b"\xff\x00")
        for number in range(300):
            store.put(b"dump/%03d" % number, "é".encode() * number)
        before = store.revision
        store.put(b"dump/000", b"later", ttl=60)
    dumped = run(tmp_path / "data", "dump", "--prefix", "dump/", "--rev", str(before))
    lines = [json.loads(line) for line in dumped.out.splitlines()]
    assert len(lines) == 301 and lines[0]["key_base64"] and lines[0]["value_base64"] == "/wA="
    assert lines[-1] == {
        "key": "dump/299",
        "value": "é" * 299,
        "create_revision": 301 + 1,
        "mod_revision": 302,
        "version": 1,
    }
    now = run(tmp_path / "data", "dump", "--prefix", "dump/000").out
    assert len(json.loads(now)["lease"]) == 16
    assert said(url, "load", stdin=dumped.out) == "wrote 301 keys\n"
    assert said(url, "load", stdin=now) == "wrote 0 keys, left 1 that exist (--overwrite writes them)\n"
    again = said(url, "dump", "--prefix", "dump/")
    assert [json.loads(line)["version"] for line in again.splitlines()] == [1] * 301
    assert said(url, "load", "--overwrite", stdin=now + dumped.out) == "wrote 302 keys\n"
    with kvstore.connect(url) as store:
        found = {kv.key: kv.value for kv in store.scan(prefix=b"dump/")}
    with kvstore.open(tmp_path / "data", backend) as store:
        assert found == {kv.key: kv.value for kv in store.at(before).scan(prefix=b"dump/")}
    said(url, "del", "dump/", "--prefix")


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[]",
        b'{"key":"a"}',
        b'{"key":"a","value":1}',
        b'{"key":"a","key_base64":"YQ==","value":""}',
        b'{"key_base64":"*","value":""}',
    ],
)
def test_what_is_no_dump_is_refused_by_line(tmp_path: Path, line: bytes) -> None:
    """With the number of the line."""
    done = run(tmp_path / "data", "load", stdin=b'{"key":"x","value":"y"}\n\n' + line + b"\n")
    assert done.code == ExitCode.USAGE and "line 3 is not one that dump writes" in done.err, done


# --- turns -----------------------------------------------------------------------------------------


def test_a_command_runs_under_a_lock(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """With its key and token; its exit code becomes ours, and the lock is free again."""
    shown = 'echo "$ETCD_LOCK_KEY" "$ETCD_LOCK_REV"; exit 7'
    for _ in range(2):
        done = at(url, "lock", "l", "--ttl", "5", "--", "sh", "-c", shown)
        assert done.code == 7, done
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert all(key.startswith("l/") for key, _ in lines) and int(lines[0][1]) < int(lines[1][1])
    with kvstore.connect(url) as store:
        assert store.count(prefix=b"l/") == 0


def test_a_lock_of_a_killed_holder_is_free_after_its_lease(url: str) -> None:
    """Until then the next one waits."""
    with subprocess.Popen(
        [*KVSTORE, "lock", "k", "--ttl", "2", "--endpoint", url], stdout=subprocess.PIPE
    ) as held:
        assert held.stdout is not None and held.stdout.readline().startswith(b"k/")
        held.kill()
    assert at(url, "lock", "k", "--", "true").code == 0


@pytest.mark.parametrize("turn", [["lock", "t"], ["lock", "t", "--", "sleep", "60"], ["elect", "t", "me"]])
def test_who_is_told_to_end_gives_back_what_he_holds(url: str, turn: list[str]) -> None:
    """SIGTERM, as supervisors send it: the next one does not wait for the lease."""
    command = [*KVSTORE, turn[0], "--endpoint", url, *turn[1:]]
    with kvstore.connect(url) as store, store.watch(prefix=b"t/") as watch:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            taken = watch.get(60)
            if holder.stdout is not None and "sleep" not in turn:
                assert holder.stdout.readline().strip() == taken.kv.key
            holder.terminate()
            assert holder.wait(30) == 143
        assert store.count(prefix=b"t/") == 0


def test_an_election_is_led_and_listened_to(url: str) -> None:
    """As with etcdctl: the key, then the proposal."""
    with subprocess.Popen(
        [*INTERRUPTIBLE, "elect", "e", "host-7", "--endpoint", url], stdout=subprocess.PIPE
    ) as leads:
        assert leads.stdout is not None
        key, proposal = leads.stdout.readline(), leads.stdout.readline()
        assert (key[:2], proposal) == (b"e/", b"host-7\n")
        with subprocess.Popen(
            [*KVSTORE, "elect", "-l", "e", "--endpoint", url], stdout=subprocess.PIPE
        ) as listens:
            assert listens.stdout is not None
            assert [listens.stdout.readline() for _ in range(2)] == [key, proposal]
            listens.kill()
        leads.send_signal(2)
        assert leads.wait(30) == 130


def test_turns_need_a_store_that_others_reach(tmp_path: Path) -> None:
    """A directory is this process's alone while it has it open."""
    for verb in (["lock", "l"], ["elect", "e", "me"]):
        done = run(tmp_path, *verb)
        assert done.code == ExitCode.USAGE and "--endpoint" in done.err
