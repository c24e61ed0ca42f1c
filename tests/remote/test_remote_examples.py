"""The programs in ``examples/`` that need servers do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.etcd.etcd_cluster import HAS_ETCD
from tests.etcd.etcd_recorder import ETCD


@pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
def test_nothing_acknowledged_is_missing_after_the_leader_was_killed(project: Path) -> None:
    """examples/leader_killed.py: three etcds, a count, a kill; the count is what was acknowledged."""
    command = [sys.executable, str(project / "examples" / "leader_killed.py"), ETCD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is killed after" in done.stdout
    assert done.stdout.splitlines()[-1] == "acknowledged: 600; counted: 600"
