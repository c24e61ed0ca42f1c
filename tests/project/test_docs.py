"""The Python in the documentation runs, one block after another, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools.command import EXIT_CODES, ExitCode
from kvstore.tools.main import COMMANDS, MODULES

import kvstore
from kvstore.testing import plugin


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_guide_runs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/guide.md: all blocks in order; the watch saw what the text says, and the space was given back."""
    blocks = blocks_of(project / "docs" / "guide.md")
    assert len(blocks) == 12
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        if "read_only=True" in block:  # this one is for another process
            done = subprocess.run([sys.executable, "-c", block], check=True, capture_output=True, text=True)
            assert done.stdout.splitlines()[-1] == "DELETE b'jobs/1'"
        else:
            exec(compile(block, "docs/guide.md", "exec"), names)
    assert names["position"] == (names["start"] + 3, 0)  # type: ignore[operator]  # a number, as the page makes it


def test_the_readme_runs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README.md: the first block runs as it stands; the asynchronous one inside a coroutine."""
    first, second = blocks_of(project / "README.md")[:2]
    monkeypatch.chdir(tmp_path)
    exec(compile(first, "README.md", "exec"), {})
    body = "".join(f"    {line}\n" for line in second.splitlines()).replace("...", "pass")
    names: dict[str, object] = {}
    exec(
        compile(
            f"import asyncio, kvstore\nasync def main():\n{body}\nasyncio.run(main())", "README.md", "exec"
        ),
        names,
    )


def test_the_counter_of_the_page_about_remote_stores_counts_once(project: Path, tmp_path: Path) -> None:
    """docs/remote.md: the way out of an unknown outcome counts exactly once, whichever way the first attempt went."""
    (counter,) = [block for block in blocks_of(project / "docs" / "remote.md") if "def add(" in block]
    names: dict[str, Any] = {"kvstore": kvstore, "os": os}
    exec(compile(counter, "docs/remote.md", "exec"), names)

    class Unsure(kvstore.Store):
        """Every second transaction loses its answer; every fourth is not made, either."""

        calls = 0

        def txn(self, *arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls % 4 == 1:
                raise kvstore.OutcomeUnknown
            answer = super().txn(*arguments, **named)
            if self.calls % 4 == 3:
                raise kvstore.OutcomeUnknown
            return answer

    with kvstore.open(tmp_path / "s", backend="memory") as store:
        unsure = Unsure(store.engine)
        for _ in range(6):
            names["add"](unsure, b"n", 2)
        found = store.get(b"n")
        assert found is not None
        assert found.value == b"12"
        assert unsure.calls > 6


def test_the_page_about_serving_runs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/serving.md: the first block as it stands, the second one inside a coroutine; the test is one."""
    plain, asynchronous, test = blocks_of(project / "docs" / "serving.md")
    monkeypatch.chdir(tmp_path)
    exec(compile(plain, "docs/serving.md", "exec"), {})
    body = "".join(f"    {line}\n" for line in asynchronous.splitlines())
    run = f"import asyncio, kvstore\nasync def main():\n{body}\nasyncio.run(main())"
    exec(compile(run, "docs/serving.md", "exec"), {})
    compile(test, "docs/serving.md", "exec")
    assert {"kvstore_server", "kvstore_store"} <= set(vars(plugin))


def test_the_command_line_page_knows_every_verb_and_exit_code(project: Path) -> None:
    """docs/command-line.md has a row for each verb, and the exit codes that there are; --help has these too."""
    text = (project / "docs" / "command-line.md").read_text()
    verbs, _, codes = text.partition("## Exit codes")
    names = {module: verb for verb, module in MODULES.items() if verb != "defrag"}
    for command in COMMANDS:
        assert f"`{names.get(command, command)}" in verbs, command
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", codes, re.MULTILINE)] == list(ExitCode)
    assert [int(code) for code in re.findall(r"\b(\d+) \w", EXIT_CODES)] == list(ExitCode)


def test_links_between_pages_lead_somewhere(project: Path) -> None:
    """Every relative link of the README and the docs names a file of the project."""
    pages = [*project.glob("*.md"), *project.glob("docs/*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tutorial_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/tutorial.md: all blocks in order, and each line prints what stands beside it."""
    blocks = blocks_of(project / "docs" / "tutorial.md")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/tutorial.md", "exec"), names)
    said = capsys.readouterr().out
    expected = re.findall(r"print\(.*\)  # (.*)$", "".join(blocks), re.MULTILINE)
    assert len(expected) > 6
    for line in expected:
        assert line.partition(":")[0] in said.splitlines(), line
    assert "3 4\n6 0\n" in said and "changed since: b'stock/apple'" in said
