"""Programs that use kvstore, as a type checker sees them: right ones pass, and each mistake is an error."""

from __future__ import annotations

import re
from pathlib import Path

from tests.project.type_check import mypy

IGNORED = re.compile(r"  # type: ignore\[([a-z-]+)\]")


def test_each_mistake_is_an_error_of_its_own(project: Path, tmp_path: Path) -> None:
    """Every line of typed_wrong.py that says so is refused, for the reason that it gives, and no other line is."""
    lines = (project / "tests" / "project" / "typed_wrong.py").read_text().splitlines()
    expected = {(number, found[1]) for number, line in enumerate(lines, 1) if (found := IGNORED.search(line))}
    assert len(expected) > 15
    program = tmp_path / "wrong.py"
    program.write_text("\n".join(IGNORED.sub("", line) for line in lines))
    said = re.findall(r"wrong\.py:(\d+): error: .*\[([a-z-]+)\]$", mypy([program]).stdout, re.MULTILINE)
    assert {(int(number), code) for number, code in said} == expected


def test_the_first_example_of_the_readme_passes(project: Path, tmp_path: Path) -> None:
    """What a reader copies first is right under mypy --strict as it stands."""
    program = tmp_path / "example.py"
    program.write_text(re.findall(r"```python\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)[0])
    done = mypy([program])
    assert done.returncode == 0, done.stdout + done.stderr
