"""The snapshot verbs of the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import progress
from kvstore.tools.command import ExitCode, run
from kvstore.tools.snapshot import register

import kvstore
from tests.harness.plain import value_of


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; gives (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["kvstore", "snapshot", *map(str, arguments)])
            code = run(register, prog_name="kvstore")
            sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with three revisions."""
    with kvstore.open(tmp_path / "s", background=False) as opened:
        for value in (b"1", b"2", b"3"):
            opened.put(b"k", value)
    return tmp_path / "s"


def test_save_status_restore(cli: Any, store: Path, tmp_path: Path) -> None:
    """A store is saved, the file checked, and a new store made of it that answers the same."""
    file = tmp_path / "backup.snap"
    code, out, _ = cli("save", file, "--data-dir", store)
    assert (code, out.split()[:3]) == (0, ["saved", "revision", "4"])
    code, out, _ = cli("status", file, "--json")
    facts = json.loads(out)
    assert (code, facts["revision"], facts["keys"], facts["backend"]) == (0, 4, 1, "lmdb")
    code, out, _ = cli("restore", file, "--data-dir", tmp_path / "new", "--name", "two", "--cluster-id", "ab")
    assert (code, out.split()[:3]) == (0, ["restored", "revision", "4"])
    with kvstore.open(tmp_path / "new", cluster_id=0xAB) as restored:
        assert value_of(restored, b"k", revision=3) == b"2"


def test_status_in_words(cli: Any, store: Path, tmp_path: Path) -> None:
    """Without --json a line for each fact."""
    cli("save", tmp_path / "b", "--data-dir", store)
    _, out, _ = cli("status", tmp_path / "b")
    assert dict(line.split("\t") for line in out.splitlines())["compact revision"] == "-1"


def test_a_damaged_file_has_its_exit_code(cli: Any, store: Path, tmp_path: Path) -> None:
    """One line says where, for one file or several; foreign and missing files have other codes."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    cli("save", good, "--data-dir", store)
    whole = bytearray(good.read_bytes())
    whole[5000] ^= 1
    bad.write_bytes(whole)
    code, out, err = cli("status", bad)
    assert (code, out, err.count("\n")) == (ExitCode.DAMAGED, "", 1)
    assert "SHA-256" in err
    code, out, _ = cli("status", bad, good, "--json")
    damaged, sound = map(json.loads, out.splitlines())
    assert (code, "SHA-256" in damaged["damage"], sound["revision"]) == (ExitCode.DAMAGED, True, 4)
    assert cli("restore", bad, "--data-dir", tmp_path / "new")[0] == ExitCode.DAMAGED
    assert cli("status", __file__)[0] == ExitCode.CANNOT_OPEN
    assert cli("status", tmp_path / "absent")[0] == ExitCode.FAILED


def test_list_shows_the_stores_own(cli: Any, store: Path) -> None:
    """Snapshots saved without a file are listed, a damaged one with what is wrong."""
    assert cli("list", "--data-dir", store) == (0, "", "")
    for _ in range(2):
        with kvstore.open(store, background=False) as opened:
            opened.put(b"k", b"more")
        assert cli("save", "--data-dir", store)[0] == 0
    newest = max((store / "snap").glob("*.snap"))
    newest.write_bytes(newest.read_bytes()[:-1])
    found = json.loads(cli("list", "--data-dir", store, "--json")[1])
    assert [item.get("revision") for item in found] == [5, None]
    assert "cut short" in found[1]["damage"]
    assert len(cli("list", "--data-dir", store)[1].splitlines()) == 2


def test_restore_to_a_point(cli: Any, store: Path, tmp_path: Path) -> None:
    """From a data directory to a revision or a time."""
    code, out, _ = cli("restore", store, "--data-dir", tmp_path / "a", "--to-revision", 3, "--json")
    assert (code, json.loads(out)["revision"]) == (0, 3)
    for name, moment, revision in (("b", "1999-12-31T23:59", 1), ("c", "2999-01-01", 4), ("d", "1.5", 1)):
        _, out, _ = cli("restore", store, "--data-dir", tmp_path / name, "--to-time", moment, "--json")
        assert json.loads(out)["revision"] == revision


def test_prune_keeps_the_newest(cli: Any, store: Path) -> None:
    """A dry run, which works beside a writer, says which snapshots would go; the real one removes these."""
    with kvstore.open(store, background=False, max_snapshots=0) as opened:
        for _ in range(4):
            opened.put(b"k", b"more")
            opened.snapshot()
        command = [
            sys.executable,
            "-m",
            "kvstore.tools.snapshot",
            "prune",
            "--data-dir",
            str(store),
            "--keep",
            "3",
        ]
        would = json.loads(
            subprocess.run([*command, "--dry-run", "--json"], capture_output=True, check=True).stdout
        )
        assert subprocess.run(command, capture_output=True, check=False).returncode == ExitCode.CANNOT_OPEN
    names = [path.name for path in sorted((store / "snap").glob("*.snap"))]
    assert [Path(path).name for path in would["removed"]] == names[:1]
    assert cli("prune", "--data-dir", store, "--dry-run") == (0, "", "")  # max-snapshots is 5
    code, out, _ = cli("prune", "--keep", 3, "--data-dir", store)
    assert (code, out) == (0, f"removed {store / 'snap' / names[0]}\n")
    code, out, _ = cli("prune", "--data-dir", store, "--set", "max-snapshots=1", "--json")
    assert [Path(path).name for path in json.loads(out)["removed"]] == names[1:3]
    assert [path.name for path in (store / "snap").glob("*.snap")] == names[3:]
    assert cli("prune", "--keep", 0, "--data-dir", store)[0] == ExitCode.USAGE


@pytest.mark.parametrize("inside", ["x.snap", "snap/x.snap", "wal/x.snap"])
def test_save_refuses_a_place_among_the_stores_own_files(cli: Any, store: Path, inside: str) -> None:
    """Also where the store is only read."""
    code, _, err = cli("save", store / inside, "--data-dir", store)
    assert (code, "choose another place" in err) == (ExitCode.CANNOT_OPEN, True)
    assert not (store / inside).exists()


@pytest.mark.parametrize(
    "wrong",
    [["--to-time", "noon"], ["--cluster-id", "xyz"], ["--bump-revision", "5"], ["--to-revision", "-1"]],
)
def test_wrong_words_are_usage_errors(cli: Any, store: Path, tmp_path: Path, wrong: list[str]) -> None:
    """What cannot be meant is refused before anything is made."""
    assert cli("restore", store, "--data-dir", tmp_path / "new", *wrong)[0] == ExitCode.USAGE
    assert os.listdir(tmp_path) == ["s"]


def test_nothing_is_made_where_there_is_no_store(cli: Any, tmp_path: Path) -> None:
    """save and list of a directory that is no store are refused and create none."""
    for verb in (["save", tmp_path / "x"], ["save"], ["list"]):
        assert cli(*verb, "--data-dir", tmp_path / "typo")[0] == ExitCode.CANNOT_OPEN
    assert os.listdir(tmp_path) == []


def test_save_beside_a_writer(cli: Any, store: Path, tmp_path: Path) -> None:
    """While another process has the store open, save to a file works; save to its own place does not."""
    with kvstore.open(store, background=False) as opened:
        opened.put(b"k", b"only in the log")
        command = [sys.executable, "-m", "kvstore.tools.snapshot", "save", "--data-dir", str(store)]
        run_one = subprocess.run([*command, str(tmp_path / "b")], capture_output=True, text=True, check=False)
        assert run_one.stdout.startswith("saved revision 5"), run_one.stderr
        assert subprocess.run(command, capture_output=True, check=False).returncode == ExitCode.CANNOT_OPEN


def test_it_runs_as_a_script(store: Path, project: Path) -> None:
    """python tools/snapshot.py has the same verbs."""
    command = [
        sys.executable,
        str(project / "tools" / "snapshot.py"),
        "list",
        "--data-dir",
        str(store),
        "--json",
    ]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"[]\n"


# --- progress -----------------------------------------------------------------------------


def test_no_bar_where_nobody_sees_it() -> None:
    """Without a terminal there is no callback at all."""
    with progress.progress_bar("working") as update:
        assert update is None


BAR = """
import sys
from kvstore.tools import progress
progress.SHOW_AFTER_SECONDS = float(sys.argv[1])
with progress.progress_bar("working") as update:
    for done in range(11):
        update(done * 1_000_000, 10_000_000)
print("done")
"""


def test_rows_have_a_rate_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that counts something else than bytes says how many a second, and how long it will take."""
    monkeypatch.setattr(progress, "SHOW_AFTER_SECONDS", 0.0)
    ours, theirs = pty.openpty()
    code = BAR.replace('"working"', '"working", unit="rows"')
    code = code.replace(
        "for done in range(11):", "import time\n    for done in range(11):\n        time.sleep(0.03)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "0"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        process.communicate()
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 65536):
            drawn += chunk
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert b"rows/s" in drawn and b"0:00" in drawn


@pytest.mark.parametrize(("after_seconds", "shown"), [("0", True), ("1000", False)])
def test_a_bar_is_drawn_on_a_terminal_once_it_takes_long(after_seconds: str, shown: bool) -> None:
    """On stderr, with the amount done; quick work draws nothing; stdout has only the answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", BAR, after_seconds],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        assert process.communicate()[0] == b"done\n"
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 65536):
            drawn += chunk
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert (b"working" in drawn and b"10.0" in drawn) is shown
    assert process.returncode == 0


def test_save_replaces_a_file_only_if_it_is_told_to(cli: Any, store: Path, tmp_path: Path) -> None:
    """Whatever is there under the name, the last good backup perhaps, stays as it is."""
    file = tmp_path / "backup.snap"
    file.write_bytes(b"the last one")
    code, _, err = cli("save", file, "--data-dir", store)
    assert code == ExitCode.USAGE and f"{file} exists: name another file, or give --overwrite" in err
    assert file.read_bytes() == b"the last one"
    assert cli("save", file, "--overwrite", "--data-dir", store)[0] == 0
    assert cli("status", file)[0] == 0
