"""Memory of a store under a mixed load stays where it was after the first minutes: see ``mixed_load``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests import PROJECT

from .mixed_load import SAMPLES

SOAK_SECONDS = float(os.environ.get("KVSTORE_SOAK_SECONDS", "3600"))
GROWTH_MAX = 1.15


def lived(path: Path, backend: str, seconds: float) -> Any:
    command = [sys.executable, "-m", "tests.proof.mixed_load", str(path / "data"), backend, str(seconds)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=PROJECT, timeout=seconds + 600
    )
    assert done.returncode == 0 and done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert not found["wrong"], found
    return found


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_mixed_load_goes_on_without_errors(scratch: Path, backend: str) -> None:
    """Some seconds of it: every kind of call is made, and none fails."""
    done = lived(scratch, backend, 3)["done"]
    assert all(done.get(work) for work in ("write", "burst", "read", "follow", "churn", "keep_house")), done


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_memory_is_flat_under_a_mixed_load(tmp_path: Path, backend: str) -> None:
    """An hour of it (``KVSTORE_SOAK_SECONDS``): the last third takes no more memory than the second."""
    memory_bytes = lived(tmp_path, backend, SOAK_SECONDS)["memory_bytes"]
    assert len(memory_bytes) >= SAMPLES - 1
    second, last = memory_bytes[SAMPLES // 3 : 2 * SAMPLES // 3], memory_bytes[2 * SAMPLES // 3 :]
    assert median(last) <= GROWTH_MAX * median(second), memory_bytes
