"""Real kills: what a writer had acknowledged when SIGKILL met it is there afterwards, and nothing by half."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.planted_kills import FAULTS


def run(project: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_killed_writers_lose_nothing_acknowledged(project: Path, tmp_path: Path, backend: str) -> None:
    """After each of 25 kills under load the store holds what was acknowledged, and verifies deeply at the end."""
    arguments = ["--cycles", "25", "--backend", backend, "--seed", "4", "--dir", str(tmp_path)]
    done = run(project, "kvstore.tools.lab.crashloop", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 cycles" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_thousands_of_kills(
    project: Path, tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same, 5000 times; the figures are printed."""
    done = run(
        project,
        "kvstore.tools.lab.crashloop",
        "--cycles",
        "5000",
        "--backend",
        backend,
        "--dir",
        str(tmp_path),
    )
    with capsys.disabled():
        print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_the_crash_loop_finds_a_planted_fault(project: Path, tmp_path: Path, fault: str) -> None:
    """With the fault some kill shows a broken promise."""
    arguments = [fault, "--cycles", "400", "--backend", "lmdb", "--seed", "4", "--dir", str(tmp_path)]
    done = run(project, "tests.proof.planted_kills", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN PROMISE" in done.stdout
