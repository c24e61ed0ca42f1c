"""A plain command line is read without typer, and means what typer reads in it; any other is left to typer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import full, quick
from kvstore.tools.app import App, Command
from kvstore.tools.command import SHARED, new_app
from kvstore.tools.main import COMMANDS, main, needed
from kvstore.tools.watch import _check_reader

import kvstore

PLAIN = [
    "get a",
    "get a b --limit 3 --order=ASCEND --keys-only",
    "--data-dir d --json get a",
    "-v --set wal-dir=w --set quota=1 get a --data-dir=e --set x=y",
    "get -w json a --rev 7",
    "put k v --ttl 5 --lease 1f",
    "put k v --ttl 0.25",
    "put k v --ttl=.5",
    "put k -",
    "del a --prefix --prev-kv",
    "lease grant 60",
    "lease revoke 1f -v",
    "wal dump --json",
    "compact 7",
    "snapshot save file",
    "snapshot prune --keep 3",
    "snapshot restore data --to-revision 0",
    "backup follow --once --to backups",
    "backup status backups --max-lag 60s",
    "backup restore backups --to-revision=7 --key-file key",
    "backup restore backups --to-time 2026-01-31T12:00:00Z",
    "inspect bbolt page db 7",
    "snapshot status file other --json",
    "get -- -a",
    "put k -- -v",
    "put -- -k --",
    "watch a",
    "watch a b --rev 3 --no-follow --json",
    "watch a --prefix -- sh -c echo --prefix",
    "watch a -f",
    "lock name",
    "lock name --ttl 5 -- sleep 1",
    "status",
]
LEFT = [
    "",
    "--help",
    "get --help",
    "get",
    "get a b c",
    "get a --nope",
    "get a --limit",
    "get a --limit x",
    "get a --limit -1",
    "get a --limit=-1",
    "get a --prefix=1",
    "get a -vv",
    "get a --lim 3",
    "put k v --ttl 1e3",
    "put k v --ttl -1",
    "nope",
    "lease",
    "lease nope",
    "lease --json grant 60",
    "serve --nope",
    "--data-dir",
    "snapshot prune --keep 0",
]


@pytest.fixture(scope="module")
def app() -> App:
    """All verbs."""
    made = new_app("")
    for name in COMMANDS:
        import_module(f"kvstore.tools.{name}").register(made)
    return made


@pytest.mark.parametrize("line", PLAIN)
def test_it_means_what_typer_reads_in_it(app: App, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same function, the same arguments of the same types, the same shared options."""
    told: dict[str, Any] = {}
    called: list[tuple[Any, dict[str, Any]]] = []

    def carry_out(command: Command, _ctx: object, arguments: dict[str, Any], said: dict[str, Any]) -> None:
        said["options"] = [*told.get("options", ()), *said.get("options", ())]
        told.update(said)
        if command.function is not full._before_the_command:
            called.append((command.function, arguments))

    words = line.split()
    monkeypatch.setattr(sys, "argv", ["kvstore", *words])
    monkeypatch.setattr(full, "carry_out", carry_out)
    full.run(app, "kvstore", is_one_of_many=True)
    plain = quick.read(app, words, SHARED)
    assert plain is not None
    assert [(plain.command.function, plain.arguments)] == called
    assert {"options": [], **plain.shared} == told


@pytest.mark.parametrize("line", LEFT)
def test_what_is_not_plain_is_left_to_typer(app: App, line: str) -> None:
    """Whoever asks for help, or has mistyped something, gets typer's answer."""
    assert quick.read(app, line.split(), SHARED) is None


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("get a", ("get",)),
        ("--data-dir d -v --set a=b del a", ("delete",)),
        ("--data-dir d serve", ("servers",)),
        ("--help", COMMANDS),
        ("--version", ()),
        ("--data-dir", COMMANDS),
        ("", COMMANDS),
        ("nope", COMMANDS),
    ],
)
def test_only_the_module_of_the_verb_is_loaded(line: str, modules: tuple[str, ...]) -> None:
    """Wherever the verb stands; without one, all are needed to list them."""
    assert needed(line.split()) == modules


def test_a_plain_command_loads_no_package_that_it_does_not_need(tmp_path: Path) -> None:
    """What costs most at the start: typer, asyncio, the metadata of everything that is installed; and our own parts
    that a plain read does without."""
    with kvstore.open(tmp_path / "data") as store:
        store.put(b"k", b"v")
    costly = (
        *("typer", "asyncio", "importlib.metadata", "email", "hashlib", "shutil", "lzma"),
        *(
            "kvstore.engine",
            "kvstore.store",
            "kvstore.snapshot.reader",
            "kvstore.observe.status",
            "kvstore.times",
        ),
    )
    code = (
        "import sys\n"
        f"sys.argv = ['kvstore', '--data-dir', {str(tmp_path / 'data')!r}, 'get', 'k']\n"
        "from kvstore.tools.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        f"print([name for name in {costly} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["k", "v", "[]"]


def test_help_loads_no_network() -> None:
    """All verbs are listed, also those that serve, without what serving takes."""
    code = "import sys; sys.argv = ['kvstore', '--help']\nfrom kvstore.tools.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('kvstore.network.server', 'kvstore.recipes', 'asyncio') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Serve the store" in run.stdout and "Follow a source" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"


# --- without typer ---------------------------------------------------------------------------


@pytest.fixture
def bare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Runs a command line where typer is not installed: (code, out, err)."""
    monkeypatch.setitem(sys.modules, "typer", None)

    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kvstore", *line.split()])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def test_a_bare_install_shows_help(bare: Callable[[str], tuple[int, str, str]]) -> None:
    """Of all, of a group and of a verb, with every option; and how to get the rest, also from a checkout."""
    code, out, err = bare("--help")
    assert (code, err) == (0, "")
    for name in ("put", "get", "watch", "lease", "serve", "load", "--data-dir", "--json"):
        assert f"\n  {name}" in out
    assert "\n  defrag " not in out and "pip install '.[cli]'" in out
    assert "keep-alive" in bare("lease -h")[1]
    code, out, _ = bare("put --help")
    assert code == 0 and out.startswith("Usage: kvstore put KEY [VALUE]\n") and "--ttl VALUE" in out
    assert bare("wal dump --help")[1].startswith("Usage: kvstore wal dump\n")
    assert bare("--version") == (0, f"kvstore {kvstore.__version__}\n", "")
    assert bare("")[0] == 2


def test_a_bare_install_does_the_work(bare: Callable[[str], tuple[int, str, str]], tmp_path: Path) -> None:
    """What needs no typer runs; what only typer could explain is refused, with the remedy."""
    at = f"--data-dir {tmp_path / 'data'}"
    assert bare(f"{at} put k v") == (0, "OK\n", "")
    assert bare(f"{at} get k") == (0, "k\nv\n", "")
    assert bare(f"{at} watch k --rev 1 --no-follow") == (0, "PUT\nk\nv\n", "")
    _check_reader()  # of an output that is no file: nothing to look at
    assert bare(f"{at} dump")[1].startswith('{"key":"k","value":"v"')
    code, _, err = bare(f"{at} get k --limt 3")
    assert code == 2 and "pip install 'kvstore-mvcc[cli]' (in a checkout: pip install '.[cli]')" in err


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("gett a", "there is no verb 'gett': did you mean get?"),
        ("lease grnt 5", "there is no verb 'grnt': did you mean grant?"),
        ("lease", "a verb is missing: there are grant, "),
        ("get", "KEY is missing"),
        ("get a b c", "'c' is one argument too many"),
        ("get a --limt 3", "there is no option --limt: did you mean --limit?"),
        ("get a --limit x", "'x' does not do for --limit"),
        ("get a --limit -1", "--limit needs a value, not -1"),
        ("get a --limit", "--limit needs a value"),
        ("get a --prefix=1", "--prefix takes no value"),
        ("--json serve", "serve has to be the first word"),
        ("get a -vv", "there is no option -vv"),
    ],
)
def test_a_bare_install_says_what_is_wrong(
    bare: Callable[[str], tuple[int, str, str]], line: str, wrong: str
) -> None:
    """In one line, which also says how to have more said."""
    code, out, err = bare(line)
    assert (code, out) == (2, "") and err.startswith(f"Error: {wrong}") and err.count("\n") == 1
    assert "pip install 'kvstore-mvcc[cli]'" in err


def test_what_an_option_or_a_file_is_called_is_said(
    bare: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    """A misspelt option is answered with the right one; a missing file is named without a number, and no store."""
    at = f"--data-dir {tmp_path / 'data'}"
    assert bare(f"{at} put k v --set snapshot-cuont=5")[2].startswith(
        "Error: unknown option 'snapshot-cuont': did you mean snapshot-count"
    )
    missing = tmp_path / "missing"
    assert bare(f"snapshot status {missing}")[1:] == ("", f"Error: {missing}: No such file or directory\n")
    (tmp_path / "link").symlink_to(missing)
    assert f"{tmp_path} is not a store: it has no log" in bare(f"--data-dir {tmp_path} get k")[2]


def test_a_bare_install_draws_tables_and_bars_on_a_terminal(
    tmp_path: Path, bare: Callable[[str], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain columns, under their names; work goes on without a bar. (Both are rich's where that is installed.)"""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("kvstore.tools.progress.SHOW_AFTER_SECONDS", 0.0)
    with kvstore.open(tmp_path / "d") as store:
        store.put(b"k", b"v")
        store.snapshot()
    code, out, err = bare(f"inspect top {tmp_path}/d")
    assert (code, err) == (0, "")
    header, first, *_ = out.splitlines()
    assert header.endswith("key") and first[: header.index("key")].split() == ["largest", "1", "2", "0", "2"]
    assert first[header.index("changes")] == "1" and first[header.index("key") :] == "k"
    assert bare(f"backup follow --once --data-dir {tmp_path}/d --to {tmp_path}/b")[0] == 0
    code, out, err = bare(f"backup restore {tmp_path}/b --data-dir {tmp_path}/r --to-revision 2")
    assert (code, err) == (0, "") and "revision 2" in out
    assert bare(f"snapshot restore {tmp_path}/d --data-dir {tmp_path}/s")[::2] == (0, "")
    code, _, err = bare(f"snapshot prune --keep 0 --data-dir {tmp_path}/d")
    assert code == 2 and "'0' does not do for --keep" in err


def test_a_bare_install_reads_the_surroundings(
    tmp_path: Path, bare: Callable[[str], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not on the line may be in the environment."""
    monkeypatch.setenv("KVSTORE_BACKUP_KEY_FILE", str(tmp_path / "no-key"))
    code, _, err = bare(f"backup status {tmp_path}/b")
    assert code == 1 and "no-key" in err
