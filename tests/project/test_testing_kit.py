"""kvstore.testing: what others' tests get, where they find it, and what it costs those who do not ask for it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import kvstore
from kvstore.testing import plugin
from kvstore.testing.fake_clock import FakeClock


def test_a_store_is_at_hand_and_time_passes_when_told(
    kvstore_store: kvstore.Store, kvstore_dir: Path, kvstore_clock: FakeClock
) -> None:
    """The fixtures come without an import: a store in its folder, on a clock that stands still."""
    lease = kvstore_store.grant_lease(60).id
    kvstore_store.put(b"session", b"x", lease=lease)
    assert kvstore_store.lease_time_to_live(lease).ttl == 60
    kvstore_clock.advance(45)
    assert kvstore_store.lease_time_to_live(lease).ttl == 15
    assert (kvstore_dir / "wal").is_dir()


def test_pytest_finds_the_fixtures_by_itself(pytestconfig: pytest.Config) -> None:
    """The distribution names the plugin, and it is the one that gave the fixtures above."""
    (point,) = {each.value for each in entry_points(group="pytest11") if each.name == "kvstore"}
    assert point == plugin.__name__
    assert pytestconfig.pluginmanager.hasplugin("kvstore")


def test_the_plugin_loads_no_store(project: Path) -> None:
    """pytest loads it at every start, whether a test asks for a store or not."""
    heavy = "('kvstore.store', 'lmdb', 'apsw')"
    code = f"import sys, kvstore.testing.plugin; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=project, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"
