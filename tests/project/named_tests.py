"""Which tests there are."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def names_of(project: Path) -> set[str]:
    """Every test function, by name and by file and name."""
    found = set()
    for path in (project / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found |= {node.name, f"{path.relative_to(project)}::{node.name}"}
    return found
