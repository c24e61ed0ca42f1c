"""Stores for tests of recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore.recipes import session
from kvstore.testing.fake_clock import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The time of the store, and of the sessions on it."""
    clock = FakeClock()
    monkeypatch.setattr(session, "elapsed_seconds", clock)
    return clock


@pytest.fixture
def store(scratch: Path, clock: FakeClock) -> Iterator[kvstore.Store]:
    """A store whose leases end when a test says so."""
    with kvstore.open(scratch / "data", background=False, clock=clock) as store:
        yield store
