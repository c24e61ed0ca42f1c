"""Programs that use kvstore, as a type checker sees them: right ones pass, and each mistake is an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project.type_check import mypy, pyright

IGNORED = re.compile(r"  # type: ignore\[([a-z-]+)\]")
UNTYPED = "# mypy: allow-untyped-defs, allow-untyped-calls"
"""Said in the file: as an option it would make mypy check all of kvstore again, for its cache has the usual ones."""


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


def test_pyright_agrees(project: Path, tmp_path: Path) -> None:
    """The same programs under the other type checker: right ones pass, and each mistake is an error in its line."""
    pytest.importorskip("basedpyright", reason="pyright is not installed (pip install basedpyright)")
    wrong = (project / "tests" / "project" / "typed_wrong.py").read_text().splitlines()
    expected = {number for number, line in enumerate(wrong, 1) if IGNORED.search(line)}
    program = tmp_path / "wrong.py"
    program.write_text("\n".join(IGNORED.sub("", line) for line in wrong))
    right = project / "tests" / "project" / "typed_right.py"
    said = pyright([program, right, *programs(project, tmp_path)]).stdout
    errors = re.findall(r"program_(\d+)\.py:(\d+):\d+ - error", said)
    assert {int(line) for number, line in errors if number == "0"} == expected
    assert not [place for place in errors if place[0] != "0"], said


def test_the_documents_pass_mypy(project: Path, tmp_path: Path) -> None:
    """Every Python block of every page, under --strict; only tests need no annotations there."""
    done = mypy(programs(project, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def programs(project: Path, folder: Path) -> list[Path]:
    """A program of each page that has Python in it: its blocks, in order."""
    made = []
    for page in [project / "README.md", *sorted((project / "docs").glob("*.md"))]:
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        blocks = [in_a_function(block) for block in blocks if "my_program" not in block]
        if blocks:
            made.append(folder / f"{page.stem.lower().replace('-', '_')}_page.py")
            made[-1].write_text(
                f"{UNTYPED}\nimport asyncio\nimport os\n\nimport kvstore\n\n" + "\n".join(blocks)
            )
    assert len(made) > 10
    return made


def in_a_function(block: str) -> str:
    """A block that awaits something, as it would stand in a program."""
    if not re.search(r"^(async with|async for|await|with .*\n    await)", block, re.MULTILINE):
        return block
    return "async def main() -> None:\n" + "".join(f"    {line}\n" for line in block.splitlines())
