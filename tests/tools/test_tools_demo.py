"""The demo: what it claims is checked, and it fails where a claim does not hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kvstore.tools.lab import demo
from kvstore.tools.lab.crash_writer import value_of

import kvstore


def test_the_tour_holds_what_it_claims(tmp_path: Path) -> None:
    """It ends with success, without the project's neighbours too, and leaves nothing behind."""
    environ = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "KVSTORE_SHARED": str(tmp_path / "absent"),
        "COLUMNS": "120",
    }
    command = [sys.executable, "-m", "kvstore.tools.lab.demo", "--writes", "200"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all 25") == 2
    assert "running on alpha" in done.stdout
    assert done.stdout.count("none") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", demo.BACKENDS)
def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path, backend: str) -> None:
    """All that was told before the kill is there: key, value and revision."""
    crash = demo.crash_once(tmp_path, backend, 150)
    assert crash.acknowledged >= 150
    assert crash.missing == 0


@pytest.mark.parametrize("told", [b"thread-0/2 3\n", b"thread-0/1 3\n", b"thread-0/3 4\n"])
def test_a_missing_write_is_seen(tmp_path: Path, told: bytes) -> None:
    """A key that is absent, has another revision or another value counts as missing."""
    with kvstore.open(tmp_path, "memory") as store:
        store.put(b"thread-0/1", value_of("thread-0/1"))
        store.put(b"x")
        store.put(b"thread-0/3", b"something else")
    crash = demo._check(tmp_path, "memory", [b"thread-0/1 2\n", told], 1.0)
    assert (crash.acknowledged, crash.missing) == (2, 1)
