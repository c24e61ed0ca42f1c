"""The programs in ``examples/`` run unchanged on every kind of store, do what their twins do, and are shorter."""

from __future__ import annotations

import ast
import io
import re
import runpy
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore

PROGRAMS = ("job_queue", "settings_with_undo", "cache", "leader_election", "two_processes")
PRINTED = {
    "job_queue": [
        "given up: nobody",
        "sent to ann, try 1",
        "sent to bob, try 2",
        "sent to cid, try 1",
        "sent to eve, try 1",
    ],
    "settings_with_undo": [
        "now: {'size': 12, 'theme': 'light'}",
        "theme: ['dark', 'light']",
        "changed: fonts ['mono'] None",
        "changed: size None 12",
        "changed: theme dark light",
        "undone: {'fonts': ['mono'], 'theme': 'dark'}",
    ],
    "cache": ["computing /", "<h1>/</h1>", "<h1>/</h1>", "evicted: 0 left", "computing /", "<h1>/</h1>"],
    "two_processes": ["a: 9", "b: 16"],
    "leader_election": [
        "first leads",
        "first: step 1",
        "first: step 2",
        "first: step 3",
        "second leads",
        "second: step 4",
        "second: step 5",
        "second: step 6",
    ],
}
LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.COMMENT,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@pytest.fixture(params=["local", "our endpoint", "etcd"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The argument of a program."""
    if request.param == "local":
        yield str(tmp_path / "data")
    elif request.param == "etcd":
        yield request.getfixturevalue("etcd_url")
    else:
        with (
            kvstore.open(tmp_path / "data") as store,
            kvstore.serve(store, f"unix://{tmp_path / 'socket'}") as server,
        ):
            yield server.endpoints[0]


def run(
    program: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a program, and look at what it prints, whichever of several workers came first."""
    monkeypatch.setattr("sys.argv", [program.name, where])
    runpy.run_path(str(program), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    if program.stem == "job_queue":
        printed.sort()
    if program.stem == "leader_election":
        first = printed[0].split()[0]
        second = {"ann": "bob", "bob": "ann"}[first]
        names = {first: "first", second: "second"}
        printed = [re.sub(r"^\w+", lambda found: names[found[0]], line) for line in printed]
    assert printed == PRINTED[program.stem.removesuffix("_on_diskcache")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_unchanged_on_every_kind_of_store(
    name: str,
    where: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A local store, our endpoint, a real etcd: the argument is all that differs."""
    run(project / "examples" / f"{name}.py", where, monkeypatch, capsys)


@pytest.mark.parametrize("name", [*PROGRAMS, "cache_on_diskcache"])
def test_a_twin_does_the_same(
    name: str,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the programs are compared with prints what they print."""
    if name == "cache_on_diskcache":
        pytest.importorskip("diskcache", reason="diskcache is not installed")
    run(project / "examples" / "twins" / f"{name}.py", str(tmp_path / "twin"), monkeypatch, capsys)


def code_lines(path: Path) -> int:
    """Lines with code on them: no blank ones, comments or docstrings."""
    text = path.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_lines_in_the_table_are_those_of_the_files(project: Path) -> None:
    """docs/examples.md has each program beside its twin, and the program is shorter."""
    page = (project / "docs" / "examples.md").read_text()
    rows = re.findall(
        r"^\| \[(\w+)\.py\].*\| (\d+) \| \[(\d+)\]\(\S+/twins/(\w+)\.py\) \|$", page, re.MULTILINE
    )
    folder = project / "examples"
    assert [(name, int(ours), int(theirs), twin) for name, ours, theirs, twin in rows] == [
        (name, code_lines(folder / f"{name}.py"), code_lines(folder / "twins" / f"{name}.py"), name)
        for name in PROGRAMS
    ]
    assert all(int(ours) < int(theirs) for _, ours, theirs, _ in rows)


def test_only_code_is_counted(tmp_path: Path) -> None:
    """A docstring, a comment and a blank line are not code; each line of a text in an expression is."""
    program = tmp_path / "program.py"
    program.write_text('"""Two\nlines."""\n\n# a remark\nTEXT = """\n\n"""  # one more\nprint(TEXT)\n')
    assert code_lines(program) == 4
