"""docs/recipes.md runs, block after block, and has an example and a limit for each recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kvstore import recipes


def test_the_page_about_recipes_runs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    page = (project / "docs" / "recipes.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/recipes.md", "exec"), names)
    names["store"].close()


def test_each_recipe_says_what_it_does_not_promise(project: Path) -> None:
    """A chapter for each has an example that uses it, and a limit."""
    page = (project / "docs" / "recipes.md").read_text()
    chapters = [chapter for chapter in page.split("\n## ") if "*Not promised:*" in chapter]
    examples = ["".join(re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)) for chapter in chapters]
    for name in recipes.__all__:
        is_error = issubclass(getattr(recipes, name, object), Exception) if name[0].isupper() else False
        if not is_error and "async" not in name.lower() and name not in ("DeadJob", "Job", "Transaction"):
            assert any(f"{name}(" in example for example in examples), name
