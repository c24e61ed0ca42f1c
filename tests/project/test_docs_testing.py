"""The page about testing: its examples are test files, and are run as such."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_examples_pass_side_by_side(project: Path, tmp_path: Path) -> None:
    """Each block of Python is a file of tests; two workers of pytest-xdist share them out, and do not meet."""
    page = (project / "docs" / "testing.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        (tmp_path / f"test_example_{number}.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-c", "/dev/null"]
    run = subprocess.run(
        [*command, f"--rootdir={tmp_path}", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        cwd=project,
    )
    tests = sum(len(re.findall(r"^def test_", block, re.MULTILINE)) for block in blocks)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{tests} passed" in run.stdout
