"""Everything at once that happens around a store: see ``ordinary_life``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import PROJECT

SOAK_SECONDS = float(os.environ.get("KVSTORE_SOAK_SECONDS", "1800"))
GROWTH_MAX = 1.3


def lived(path: Path, backend: str, seconds: float) -> Any:
    command = [
        sys.executable,
        "-m",
        "tests.proof.ordinary_life",
        str(path / "data"),
        backend,
        str(seconds),
        "1",
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=PROJECT, timeout=seconds + 300
    )
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["wrong"], found
    return found


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_life_among_readers_loops_signals_and_clocks(scratch: Path, backend: str) -> None:
    """Some seconds of it: no error but temporary ones, nothing acknowledged lost, every row verified."""
    done = lived(scratch, backend, 6)["done"]
    assert all(done.get(what) for what in ("main", "interrupted", "write", "read", "loop", "watch", "reader"))


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_long_life_among_readers_loops_signals_and_clocks(tmp_path: Path, backend: str) -> None:
    """The same for long (``KVSTORE_SOAK_SECONDS``); after the first third the process does not grow any more."""
    memory_bytes = lived(tmp_path, backend, SOAK_SECONDS)["memory_bytes"]
    settled = memory_bytes[len(memory_bytes) // 3 :]
    assert max(settled) <= GROWTH_MAX * settled[0], memory_bytes
