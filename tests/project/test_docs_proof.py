"""The pages about failures, the contract and reliability name tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.project.named_tests import names_of

PAGES = ["failure-scenarios.md", "contract.md", "reliability.md", "etcd-bugs.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_named_test_exists(project: Path, page: str) -> None:
    """What a page calls its proof is there to be run."""
    text = (project / "docs" / page).read_text()
    named = {name for name in re.findall(r"`((?:tests/[\w/]+\.py::)?test_\w+)`", text) if name}
    assert len(named) > 5
    assert named - names_of(project) == set()


def test_every_scenario_and_promise_names_its_proof(project: Path) -> None:
    """No row of the two tables is without a test, but where it says what counts it."""
    for page in PAGES[:2]:
        for line in (project / "docs" / page).read_text().splitlines():
            if line.startswith("| ") and not line.startswith(("| failure |", "| promise |")):
                assert "`test_" in line or "`tests/" in line or "the crash loop" in line, line


def test_etcds_bugs_and_their_tests_name_each_other(project: Path) -> None:
    """A row with an issue's number names a test that begins with it, and every test that does is in its row."""
    rows = {}
    for line in (project / "docs" / "etcd-bugs.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 6 and cells[1].strip() not in ("etcd", "---"):
            rows[cells[1].strip()] = set(re.findall(r"`(?:tests/[\w/]+\.py::)?(test_\w+)`", cells[4]))
    assert len(rows) > 40
    assert [number for number, named in rows.items() if not named] == []
    numbered: dict[str, set[str]] = {}
    for name in names_of(project):
        if match := re.fullmatch(r"test_(\d{4,5})_\w+", name):
            numbered.setdefault(f"#{match[1]}", set()).add(name)
    assert {number: named & rows.get(number, set()) for number, named in numbered.items()} == numbered
    assert {number for number in rows if number.startswith("#")} == numbered.keys()


def test_every_planted_fault_is_listed(project: Path) -> None:
    """docs/reliability.md names each fault that the harnesses are tried on."""
    text = (project / "docs" / "reliability.md").read_text()
    for file in ("proof/test_crash_planted.py", "wal/test_wal_planted.py", "proof/planted_kills.py"):
        tree = ast.parse((project / "tests" / file).read_text())
        for node in tree.body:
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith("test_")
                and ast.get_docstring(node)
            ):
                assert f"`{node.name}`" in text, f"{node.name} of {file}"
