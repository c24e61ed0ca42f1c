"""docs/replica.md: its Python runs, and does what the text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kvstore
from tests.harness.plain import value_of


def test_the_python_in_the_text_runs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, with its socket there; the replica has what the source has, at the same revision."""
    text = (project / "docs" / "replica.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("/tmp/source.sock", f"{tmp_path}/s"), "docs/replica.md", "exec"), {})
    with kvstore.open("data") as source, kvstore.open("copy", read_only=True) as copy:
        assert value_of(copy, b"k") == value_of(source, b"k") == b"v"
        assert copy.revision == source.revision
