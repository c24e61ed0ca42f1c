"""The page for those who come from other libraries: its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_examples_run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of Python but the one that needs old files, which tests/adapters converts."""
    pytest.importorskip("key_value.aio", reason="py-key-value-aio is not installed (the extra adapters)")
    monkeypatch.chdir(tmp_path)
    page = (project / "docs" / "adapters.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/adapters.md", "exec"), {"__name__": "example"})
