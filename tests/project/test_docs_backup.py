"""docs/backup.md: its Python runs, one block after another, and does what the text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kvstore
from tests.harness.plain import value_of


def test_the_python_in_the_text_runs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in order, in an empty folder; the restored stores hold what they should."""
    text = (project / "docs" / "backup.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/backup.md", "exec"), names)
    with kvstore.open("data-2") as store:
        assert value_of(store, b"config/a") == b"1"
    with kvstore.open("as-it-was") as store:
        assert value_of(store, b"k") == b"good"
