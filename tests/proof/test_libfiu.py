"""Failing calls of libc, injected with libfiu: given ones and random ones, also short writes, also under a backend.

Debian's ``fiu-utils`` has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.failing_writer import BACKENDS, WRITER, check_acknowledged

LAUNCHER = shutil.which("fiu-run")
if LAUNCHER is None:
    pytest.skip("libfiu is not installed (Debian: fiu-utils)", allow_module_level=True)
EIO, ENOSPC = 5, 28
ALWAYS = [
    f"posix/io/sync/*,failinfo={EIO}",
    f"posix/io/rw/ftruncate,failinfo={EIO}",
    f"posix/io/dir/rename,failinfo={EIO}",
    f"posix/io/dir/unlink,failinfo={EIO}",
    "posix/io/rw/pwrite/reduce",
    "posix/io/rw/pwritev/reduce",
]
RANDOM = [
    f"posix/io/sync/*,probability=0.04,failinfo={EIO}",
    f"posix/io/rw/pwrite,probability=0.02,failinfo={EIO}",
    f"posix/io/rw/pwrite,probability=0.05,failinfo={ENOSPC}",
    f"posix/io/rw/pwritev,probability=0.1,failinfo={ENOSPC}",
    f"posix/io/rw/pread,probability=0.02,failinfo={EIO}",
    f"posix/io/rw/ftruncate,probability=0.3,failinfo={ENOSPC}",
    f"posix/io/dir/rename,probability=0.3,failinfo={EIO}",
    f"posix/io/dir/unlink,probability=0.3,failinfo={EIO}",
    "posix/io/rw/pwrite/reduce,probability=0.3",
    "posix/io/rw/pwritev/reduce,probability=0.3",
]


def acknowledged(project: Path, data: Path, backend: str, command: str, seed: int = 0) -> list[str]:
    """What the writer was told, of its forty writes, while libc failed as ``command`` says."""
    command_line = [
        str(LAUNCHER),
        "-x",
        "-f",
        "",
        "-c",
        command,
        sys.executable,
        "-c",
        WRITER,
        str(data),
        backend,
    ]
    done = subprocess.run(
        command_line,
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "FIU_PRNG_SEED": str(seed)},
        check=False,
    )
    assert "opening" in done.stdout and done.returncode in (0, 1), done
    return [word for word in done.stdout.split() if word.isdigit()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("point", ALWAYS)
def test_a_call_that_always_fails_loses_nothing(
    project: Path, tmp_path: Path, point: str, backend: str
) -> None:
    """Whatever could be acknowledged is there afterwards; a write that is cut short is gone on with."""
    said = acknowledged(project, tmp_path / "store", backend, f"enable name={point}")
    if "reduce" in point and backend == "sqlite":  # LMDB takes it for a full disk
        assert len(said) == 40
    check_acknowledged(tmp_path / "store", backend, said)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("point", RANDOM)
def test_calls_that_fail_at_random_lose_nothing(
    project: Path, tmp_path: Path, point: str, backend: str
) -> None:
    """The store opens again, with everything that was acknowledged before and after the failures."""
    for seed in range(2):
        data = tmp_path / f"store-{seed}"
        said = acknowledged(project, data, backend, f"enable_random name={point}", seed)
        check_acknowledged(data, backend, said)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_calls_that_fail_at_random(
    project: Path, tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with fifty seeds each; the figures are printed."""
    writes = runs = 0
    for point in RANDOM:
        for seed in range(50):
            data = tmp_path / "store"
            said = acknowledged(project, data, backend, f"enable_random name={point}", seed)
            check_acknowledged(data, backend, said)
            shutil.rmtree(data)
            runs, writes = runs + 1, writes + len(said)
    with capsys.disabled():
        print(
            f"\n{backend}: {runs} runs with calls failing at random, {writes} acknowledged writes, none lost"
        )
