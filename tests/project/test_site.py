"""The site of the documents (``make docs`` builds it, and checks its links): nothing is left out of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kvstore
from kvstore import recipes


def reference(project: Path) -> str:
    """All that the reference pages ask for."""
    return "\n".join(page.read_text() for page in sorted((project / "docs" / "reference").glob("*.md")))


def test_every_page_is_in_the_table_of_contents(project: Path) -> None:
    """A page that is in no menu is found by nobody; and the menu names no page that is not there."""
    contents = (project / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r": ([\w/-]+\.md)$", contents, re.MULTILINE))
    there = {path.relative_to(project / "docs").as_posix() for path in (project / "docs").rglob("*.md")}
    elsewhere = {"architecture.md", "changelog.md", "contributing.md", "security.md"}
    assert named == there | elsewhere


@pytest.mark.parametrize("package", [kvstore, recipes], ids=["kvstore", "recipes"])
def test_every_public_name_is_in_the_reference(project: Path, package: object) -> None:
    """By its own name, or all of its module."""
    asked = reference(project)
    words = set(re.findall(r"\w+", asked))
    whole = set(re.findall(r"^::: (kvstore\.errors|kvstore\.ops)$", asked, re.MULTILINE))
    former = {"put", "get", "delete", "txn"}  # kvstore.put and the like, which warn
    missing = {
        name
        for name in package.__all__  # type: ignore[attr-defined]
        if name not in words
        and name not in former
        and getattr(getattr(package, name), "__module__", "") not in whole
        and not name.startswith("Async")  # a page says that they are as the others
        and name not in ("Options", "OpenOptions", "BadOption")  # docs/options.md
    }
    assert not missing, sorted(missing)
