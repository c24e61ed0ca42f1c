"""The pages about failures, the contract and reliability name tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGES = ["failure-scenarios.md", "contract.md", "reliability.md"]


def names_of(project: Path) -> set[str]:
    """Every test function, by name and by file and name."""
    found = set()
    for path in (project / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found |= {node.name, f"{path.relative_to(project)}::{node.name}"}
    return found


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


def test_every_planted_fault_is_listed(project: Path) -> None:
    """docs/reliability.md names each fault that the harnesses are tried on."""
    text = (project / "docs" / "reliability.md").read_text()
    for file in ("test_crash_planted.py", "test_wal_planted.py", "planted_kills.py"):
        tree = ast.parse((project / "tests" / file).read_text())
        for node in tree.body:
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith("test_")
                and ast.get_docstring(node)
            ):
                assert f"`{node.name}`" in text, f"{node.name} of {file}"
