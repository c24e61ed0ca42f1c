"""What one expects of any command: a version, completion, examples, help that helps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from kvstore.tools import command

import kvstore
from tests.harness.command_line import INTERRUPTIBLE, run, run_apart


def test_the_version_is_told(tmp_path: Path) -> None:
    """Under the command's name, and as a module."""
    assert run(tmp_path, "--version").out.decode() == f"kvstore {kvstore.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "kvstore", "--version"], capture_output=True, check=True)
    assert done.stdout.decode() == f"kvstore {kvstore.__version__}\n"


COMPLETIONS = {
    "bash": (
        b"complete -o default -F _kvstore_completion kvstore",
        {"COMP_WORDS": "kvstore com", "COMP_CWORD": "1"},
    ),
    "zsh": (b"#compdef kvstore", {"_TYPER_COMPLETE_ARGS": "kvstore com"}),
    "fish": (
        b"complete --command kvstore",
        {"_TYPER_COMPLETE_ARGS": "kvstore com", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    ),
}
"""Of each shell: a line of its script, and what the script sets to ask how a word goes on."""


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_shells_can_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """The script to source is the shell's, and what it asks is answered: the verbs."""
    line, asked = COMPLETIONS[shell]
    script = run(tmp_path, _KVSTORE_COMPLETE=f"source_{shell}")
    assert script.code == 0 and line in script.out and f"complete_{shell}".encode() in script.out, script
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    answer = run(tmp_path, _KVSTORE_COMPLETE=f"complete_{shell}")
    assert answer.code == 0 and b"compact" in answer.out and b"put" not in answer.out, answer


def test_a_shell_is_asked_for_by_an_option(tmp_path: Path) -> None:
    """``--show-completion`` names it where the shell that asks cannot be told."""
    script = run_apart(
        tmp_path, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert script.code == 0 and b"complete -o default -F" in script.out, script


@pytest.mark.parametrize(
    "verb", ["put", "get", "del", "history", "diff", "watch", "compact", "dump", "load", "lock", "elect"]
)
def test_help_has_an_example(tmp_path: Path, verb: str) -> None:
    """One that can be typed."""
    assert b"Example: kvstore " in run(tmp_path, verb, "--help").out


def test_a_command_runs_for_each_event(tmp_path: Path) -> None:
    """With etcdctl's variables, quoted as there."""
    with kvstore.open(tmp_path / "data") as store:
        store.put(b'k"\n\xff', "é\x01".encode())
        store.delete(b'k"\n\xff')
    shown = "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE; printf '%s\\n' \"$ETCD_WATCH_KEY$ETCD_WATCH_VALUE\""
    watch = ["watch", "", "--prefix", "--rev", "1", "--no-follow", "--", "sh", "-c", shown]
    done = run_apart(tmp_path / "data", *watch)
    assert done.out.decode() == '2 "PUT"\n"k\\"\\n\\xff""é\\x01"\n3 "DELETE"\n"k\\"\\n\\xff"""\n'


def test_a_watch_follows_until_it_is_interrupted(tmp_path: Path) -> None:
    """By itself, while another process writes."""
    with kvstore.open(tmp_path / "data") as store:
        store.put(b"k", b"0")
        environ = {**os.environ, "KVSTORE_DATA_DIR": str(tmp_path / "data")}
        with subprocess.Popen(
            [*INTERRUPTIBLE, "watch", "k", "--rev", "2"],
            stdout=subprocess.PIPE,
            env=environ,
        ) as watching:
            assert watching.stdout is not None
            for number in range(3):
                if number:
                    store.put(b"k", b"%d" % number)
                lines = [watching.stdout.readline() for _ in range(3)]
                assert lines == [b"PUT\n", b"k\n", b"%d\n" % number]
            assert interrupted(watching) == 130


def interrupted(process: subprocess.Popen[bytes]) -> int:
    """The exit code after Ctrl-C. Pressed again: Python loses one that comes while it runs a finalizer."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(5)
    return process.wait(5)


def test_a_directory_of_etcds_says_what_reads_it(tmp_path: Path) -> None:
    """Nothing of it is touched."""
    (tmp_path / "member" / "snap").mkdir(parents=True)
    (tmp_path / "member" / "wal").mkdir()
    for verb in ("get", "put"):
        done = run(tmp_path, verb, "k")
        assert done.code == 3 and "kvstore inspect list" in done.err and "kvstore import etcd" in done.err, (
            done
        )
    assert not (tmp_path / "snap").exists()


def test_verify_takes_the_directory_of_a_store(tmp_path: Path) -> None:
    """As its argument, as if it had been given with --data-dir; --heal heals it."""
    with kvstore.open(tmp_path / "data") as store:
        for number in range(200):
            store.put(b"%d" % number, b"v" * 100)
    assert run(tmp_path / "no", "verify", str(tmp_path / "data"), "--deep").code == 0
    file = tmp_path / "data" / "snap" / "db"
    damaged = bytearray(file.read_bytes())
    damaged[12288:] = bytes(len(damaged) - 12288)
    file.write_bytes(damaged)
    assert run(tmp_path / "no", "verify", str(tmp_path / "data")).code == 4
    assert run(tmp_path / "no", "verify", str(tmp_path / "data"), "--heal").code == 0
    with kvstore.open(tmp_path / "data") as store:
        assert store.count(prefix=b"") == 200


def test_people_get_units_and_pipes_get_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script reads is never rounded."""
    assert (command.size_text(3 << 20), command.number_text(1234567)) == ("3145728", "1234567")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert [command.size_text(size) for size in (1000, 1536, 3 << 20, 5 << 40, 5 << 50)] == [
        "1000 B",
        "1.5 KiB",
        "3.0 MiB",
        "5.0 TiB",
        "5120.0 TiB",
    ]
    assert command.number_text(1234567) == "1,234,567"
