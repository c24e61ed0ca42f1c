"""A disk that dies under an open store: every call ends with a typed error that does not speak of damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import PROJECT
from tests.proof import dead_disk_program

COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.fixture(scope="session")
def dead_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that fails the calls."""
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("no C compiler for the library that fails system calls")
    library = tmp_path_factory.mktemp("dead") / "dead_disk.so"
    source = Path(__file__).with_name("dead_disk.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("first", ["get", "range", "put", "checkpoint"])
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_dead_disk_is_no_damage(tmp_path: Path, dead_disk: Path, backend: str, first: str) -> None:
    """Whichever call meets it first; the lock is given back, and with the disk back everything is there."""
    under = tmp_path / "under"
    under.mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(dead_disk),
        "DEAD_UNDER": str(under),
        "DEAD_FLAG": str(tmp_path / "dead"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.proof.dead_disk_program", backend, first],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0 and said[-1] == "alive 2000 1", done.stdout + done.stderr
    assert len(said) == len(dead_disk_program.CALLS) + 6
    assert not [line for line in said if "UNTYPED" in line or "Corruption" in line], said
    assert any(line.endswith("DiskFailed") for line in said), said
