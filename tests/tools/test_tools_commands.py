"""The ``kvstore`` command: what it prints is etcdctl's where etcdctl has the verb, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools.command import ExitCode

import kvstore
from kvstore import layout
from tests.etcd.etcd_recorder import fresh_etcd
from tests.harness.command_line import KVSTORE, Done, run, run_apart

Run = Callable[..., Done]


@pytest.fixture
def kv(tmp_path: Path) -> Run:
    def run_here(*arguments: str | bytes, **more: Any) -> Done:
        return run(tmp_path / "data", *arguments, **more)

    return run_here


def json_of(done: Done) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


# --- against etcdctl -----------------------------------------------------------------------

CONVERSATION: list[tuple[list[str], bytes]] = [
    (["put", "foo", "bar"], b""),
    (["put", "foo", "baz", "--prev-kv"], b""),
    (["put", "foo2", "a b"], b""),
    (["put", "fop"], b"from stdin"),
    (["put", "--", "-dash", "--value"], b""),
    (["get", "foo"], b""),
    (["get", "foo", "--prefix"], b""),
    (["get", "foo", "fop"], b""),
    (["get", "foo", "--from-key", "--limit", "2"], b""),
    (["get", "", "--prefix", "--keys-only"], b""),
    (["get", "foo", "--prefix", "--print-value-only"], b""),
    (["get", "foo", "--rev", "2"], b""),
    (["get", "foo", "--hex"], b""),
    (["get", "f", "--prefix", "--order", "DESCEND", "--sort-by", "MODIFY"], b""),
    (["get", "nothing"], b""),
    (["put", "foo", "qux", "--prev-kv"], b""),
    (
        ["txn"],
        b'mod("foo") > "0"\n\nput foo "a \\"b\\""\nget foo\ndel foo2 --prev-kv\nget zz\n\nput foo x\n\n',
    ),
    (["txn"], b'value("foo") = "no"\n\nput foo x\n\nget f --prefix --limit=1\nput g h\n\n'),
    (["txn", "--hex"], b"\nput zz 1\nget zz\n\n\n"),
    (["del", "foo", "--prev-kv"], b""),
    (["del", "foo"], b""),
    (["del", "f", "--prefix", "--prev-kv"], b""),
    (["del", "g", "h"], b""),
    (["del", "", "--from-key"], b""),
    (["compact", "5"], b""),
    (["put", "foo", "--ignore-value"], b""),
    (["put", "", "x"], b""),
    (["get", "foo", "--rev", "2"], b""),
    (["get", "foo", "--rev", "999"], b""),
    (["compact", "5"], b""),
    (["txn"], b"\nput a 1\nput a 2\n\n\n"),
]


@pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)
@pytest.mark.parametrize("as_json", [False, True], ids=["simple", "json"])
def test_output_is_etcdctls(tmp_path: Path, as_json: bool) -> None:
    """The same commands print what etcdctl prints, fail where it fails, and with its message."""
    version = subprocess.run(["etcdctl", "version"], capture_output=True, text=True, check=False).stdout
    if not version.startswith("etcdctl version: 3.4"):
        pytest.skip("later etcdctls spell the answers of a transaction another way")
    with fresh_etcd(tmp_path) as address:
        for arguments, stdin in CONVERSATION:
            if as_json and "--print-value-only" in arguments:
                continue  # etcdctl refuses the combination
            environ = {**os.environ, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": address}
            theirs_command = ["etcdctl", *(["-w", "json"] if as_json else []), *arguments]
            theirs = subprocess.run(
                theirs_command, input=stdin, capture_output=True, env=environ, check=False
            )
            ours = run(tmp_path / "data", *(["--json"] if as_json else []), *arguments, stdin=stdin)
            assert ours.code == theirs.returncode, (arguments, ours.err, theirs.stderr)
            if ours.code:
                assert ours.err.splitlines()[0] == theirs.stderr.decode().splitlines()[-1]
            elif as_json and arguments[0] != "compact":  # etcdctl has no JSON for it
                assert without_ids(ours.out) == without_ids(theirs.stdout), arguments
            elif not as_json:
                assert ours.out == theirs.stdout, arguments


def without_ids(out: bytes) -> Any:
    answer = json.loads(out)
    for name in ("cluster_id", "member_id", "raft_term"):
        answer["header"].pop(name, None)
    return answer


# --- what etcdctl does not have ------------------------------------------------------------


def test_history_and_diff_tell_the_past(kv: Run) -> None:
    """Every version of a key, and what differs between two revisions, as lines and as JSON."""
    for arguments in (
        ("put", "a", "1"),
        ("put", "a", "2"),
        ("put", "b", "1"),
        ("del", "a"),
        ("put", "c", "\\"),
    ):
        assert kv(*arguments).code == 0
    assert kv("history", "a").out == b"2\t1\t\t1\n3\t2\t\t2\n5\t0\t\t(deleted)\n"
    assert kv("history", "a", "--since", "3", "--until", "4").out == b"3\t2\t\t2\n"
    assert [json.loads(line) for line in kv("history", "a", "--json").out.splitlines()][-1] == {
        "key": "YQ==",
        "mod_revision": 5,
    }
    assert kv("diff", "3").out == b"-\ta\t2\t\n+\tb\t\t1\n+\tc\t\t\\\\\n"
    assert kv("diff", "2", "3").out == b"~\ta\t1\t2\n"
    assert kv("diff", "3", "--prefix", "b").out == b"+\tb\t\t1\n"
    assert json.loads(kv("diff", "2", "3", "--json").out)["before"]["value"] == "MQ=="


def test_count_only_prints_the_number(kv: Run) -> None:
    """etcdctl 3.4 has no such option; later ones print only with other formats."""
    kv("put", "a", "1")
    assert kv("get", "", "--prefix", "--count-only").out == b"1\n"
    assert json_of(kv("get", "a", "--count-only", "--json"))["count"] == 1


def test_keys_and_values_are_any_bytes_that_a_command_line_can_carry(kv: Run) -> None:
    """Arguments that are no text go in and come out as they are."""
    assert kv("put", b"\xff\xfe", b"\x80\n").code == 0
    assert kv("get", b"\xff\xfe").out == b"\xff\xfe\n\x80\n\n"
    assert kv("history", b"\xff\xfe").out == b"2\t1\t\t\\x80\\n\n"


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_the_backend_is_recognised(tmp_path: Path, backend: str) -> None:
    """Only making a store takes --backend; afterwards its files say."""
    data = tmp_path / "data"
    assert run(data, "put", "a", "1", "--backend", backend).code == 0
    assert run(data, "put", "a", "2").code == 0
    assert run(data, "get", "a").out == b"a\n2\n"
    facts = json_of(run(data, "status", "--json"))
    assert (facts["backend"], facts["revision"], facts["keys"]) == (backend, 3, 1)
    other = "sqlite" if backend == "lmdb" else "lmdb"
    refused = run(data, "put", "a", "3", "--backend", other)
    assert refused.code == ExitCode.CANNOT_OPEN
    assert f"a store on {backend}, not on {other}" in refused.err


def test_a_memory_store_is_read_from_its_log(tmp_path: Path) -> None:
    """A store whose backend keeps no file can be read all the same."""
    assert run(tmp_path / "data", "put", "a", "1", "--backend", "memory").code == 0
    assert run(tmp_path / "data", "get", "a").out == b"a\n1\n"


def test_hashkv_is_the_librarys(kv: Run, tmp_path: Path) -> None:
    """The command prints what ``Store.hash_kv`` says."""
    kv("put", "a", "1")
    with kvstore.open(tmp_path / "data") as store:
        expected = store.hash_kv().hash
    assert json_of(kv("hashkv", "--json"))["hash"] == expected
    assert kv("hashkv").out.decode() == f"{tmp_path / 'data'}, {expected}\n"


def test_shared_options_stand_before_or_after_the_verb(tmp_path: Path) -> None:
    """--data-dir, --backend, --json and --set are understood in both places, also by sub-commands."""
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert run(tmp_path, "--data-dir", first, "put", "a", "1").code == 0
    assert run(tmp_path, "put", "a", "2", "--data-dir", second, "--set", "durability=off").code == 0
    assert run(tmp_path, "get", "a", "--data-dir", first).out == b"a\n1\n"
    assert run(tmp_path, "--data-dir", second, "get", "a").out == b"a\n2\n"
    assert run(tmp_path, "wal", "dump", "--data-dir", second, "--frames-only").code == 0


def test_reading_works_beside_the_process_that_writes(tmp_path: Path) -> None:
    """get, history, diff, status, hashkv and wal dump see what is durable; writing verbs say who holds the store."""
    data = tmp_path / "data"
    with kvstore.open(data) as store:
        store.put(b"a", b"1")
        assert run_apart(data, "get", "a").out == b"a\n1\n"
        for verb in (("history", "a"), ("diff", "1"), ("status",), ("hashkv",), ("wal", "dump")):
            assert run_apart(data, *verb).code == 0
        refused = run_apart(data, "put", "a", "2")
        assert refused.code == ExitCode.CANNOT_OPEN
        assert f"process {os.getpid()}" in refused.err


# --- the log ---------------------------------------------------------------------------------


def test_wal_dump_tells_every_effect(kv: Run, tmp_path: Path) -> None:
    """Each entry shows with its index and what it did."""
    with kvstore.open(tmp_path / "data") as store:
        store.grant_lease(30, 0x2A)
        store.put(b"a", b"x" * 3, lease=0x2A)
        store.revoke_lease(0x2A)
        store.compact(3)
    text = kv("wal", "dump").out.decode()
    assert "revision 2; put a = xxx version 1 lease 2a; attach a lease 2a" in text
    assert "delete a; revoke 2a" in text  # its attachments go with it
    assert "grant lease 2a ttl_seconds 30" in text
    assert "compact 3" in text
    assert b"put a" not in kv("wal", "dump", "--frames-only").out
    after = [json.loads(line) for line in kv("wal", "dump", "--after-index", "3", "--json").out.splitlines()]
    entries = [entry for record in after for entry in record.get("entries", ())]
    assert [entry["index"] for entry in entries] == [4]
    assert entries[0]["effects"] == [{"effect": "compact", "compact": "3"}]


def test_damage_in_the_log_is_shown_and_has_its_exit_code(kv: Run, tmp_path: Path) -> None:
    """wal dump goes on behind a damaged frame; opening the store says where it is."""
    for number in range(3):
        assert kv("put", "a", f"value {number}").code == 0
    (segment,) = layout.segments(tmp_path / "data" / "wal")
    data = bytearray(segment.path.read_bytes())
    data[data.index(b"value 1")] ^= 1
    segment.path.write_bytes(data)
    dump = kv("wal", "dump")
    assert dump.code == ExitCode.DAMAGED
    assert b"DAMAGED: the crc does not match" in dump.out
    assert b"value 2" in dump.out
    shutil.rmtree(tmp_path / "data" / "snap")
    refused = kv("get", "a")
    assert refused.code == ExitCode.DAMAGED
    assert str(segment.path) in refused.err


# --- failing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("frob",), ExitCode.USAGE, "No such command 'frob'"),
        (("get",), ExitCode.USAGE, "Missing argument"),
        (("get", "a", "--nope"), ExitCode.USAGE, "--nope"),
        (("get", "a", "--rev", "x"), ExitCode.USAGE, "Invalid value for '--rev'"),
        (("get", "a", "--sort-by", "x"), ExitCode.USAGE, "bad sort target"),
        (("get", "a", "b", "--prefix"), ExitCode.USAGE, "exclude each other"),
        (("put", "a", "b", "--lease", "zz"), ExitCode.USAGE, "not a lease id"),
        (("put", "a", "b", "--set", "frob=1"), ExitCode.USAGE, "unknown option 'frob'"),
        (("put", "a", "b", "--set", "max-wals=x"), ExitCode.USAGE, "not a valid int"),
        (("put", "a", "b", "--set", "durability=never"), ExitCode.USAGE, "durability must be one of"),
        (("put", "a", "b", "--backend", "frob"), ExitCode.CANNOT_OPEN, "no backend 'frob'"),
        (("put", "a", "b", "--lease", "7"), ExitCode.FAILED, "requested lease not found"),
        (("get", "a"), ExitCode.CANNOT_OPEN, "is not a store"),
        (("wal", "dump"), ExitCode.CANNOT_OPEN, "holds no log"),
        (("txn",), ExitCode.USAGE, "line 1: not a compare"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    kv: Run, arguments: tuple[str, ...], code: ExitCode, says: str
) -> None:
    """Whatever goes wrong: nothing on stdout, no traceback, one clear line on stderr (after etcd's, a remedy)."""
    done = kv(*arguments, stdin=b"frob\n")
    assert (done.code, done.out) == (code, b"")
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1 + (says == "requested lease not found")
    assert says in done.err


def test_a_store_has_to_be_named(kv: Run) -> None:
    """Without --data-dir and KVSTORE_DATA_DIR no store is guessed."""
    done = kv("get", "a", KVSTORE_DATA_DIR="")
    assert (done.code, done.err.count("\n")) == (ExitCode.USAGE, 1)
    assert "--data-dir" in done.err


def test_a_foreign_directory_is_left_alone(tmp_path: Path) -> None:
    """A directory with something else in it is refused, for reading and for writing, and not changed."""
    (tmp_path / "letter.txt").write_text("dear")
    for verb in (("get", "a"), ("put", "a", "b"), ("status",)):
        assert run(tmp_path, *verb).code == ExitCode.CANNOT_OPEN
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_closed_pipe_ends_the_command_silently(tmp_path: Path, form: list[str], unbuffered: str) -> None:
    """As with ``kvstore get ... | head``; also when the answer is one long line, of which the pipe took a part."""
    with kvstore.open(tmp_path) as store:
        store.txn(success=[kvstore.ops.put(b"%d" % number, b"x" * 100_000) for number in range(10)])
    command = [*KVSTORE, "get", "", "--prefix", "--data-dir", str(tmp_path), *form]
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == ExitCode.PIPE_CLOSED


@pytest.mark.parametrize(
    "words", [("--version",), ("--help",), ("put", "--help"), ("watch", "k", "--rev", "1")]
)
def test_a_pipe_that_nobody_reads_ends_any_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Also one that prints a line, or help, and a watch that has nothing more to print."""
    with kvstore.open(tmp_path) as store:
        store.put(b"k", b"v")
    reader, writer = os.pipe()
    command = [*KVSTORE, *words, *(["--data-dir", str(tmp_path)] if words[0] == "watch" else [])]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        if words[0] == "watch":
            assert os.read(reader, 3) == b"PUT"
        os.close(reader)
        assert process.stderr is not None and process.stderr.read() == b""
    assert process.returncode == ExitCode.PIPE_CLOSED


@pytest.fixture(scope="module")
def help_text() -> Iterator[str]:
    done = subprocess.run([*KVSTORE, "--help"], capture_output=True, text=True, check=True)
    yield done.stdout


@pytest.mark.parametrize(
    "verb", ["put", "get", "del", "txn", "history", "diff", "compact", "status", "hashkv", "wal"]
)
def test_help_lists_every_verb(help_text: str, verb: str) -> None:
    """Each verb has a line of help."""
    assert any(line.split()[:1] == [verb] and len(line.split()) > 1 for line in help_text.splitlines())


def test_help_lists_no_verb_of_the_lab(help_text: str) -> None:
    """What serves work on kvstore itself is no part of the command."""
    verbs = {line.split()[0] for line in help_text.splitlines() if line.strip()}
    assert not verbs & {"bench", "replay", "crashloop", "demo"}


def test_the_command_starts_without_what_it_does_not_need() -> None:
    """Neither rich nor a backend nor protobuf is imported before a verb needs it."""
    code = "import sys, kvstore.tools.main as m; sys.argv = ['kvstore', 'get', '--help']\ntry: m.main()\n"
    code += "except SystemExit: pass\nprint(sorted({'rich', 'lmdb', 'apsw', 'google.protobuf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
