"""The recorded conversations with etcd, and what a replay of one has to give."""

from __future__ import annotations

from pathlib import Path

import pytest
from kvstore.tools.lab.replay import Result

from tests import PROJECT

TRACES = sorted((PROJECT / "tests" / "fixtures" / "traces").glob("*.jsonl.xz"))
BACKENDS = ("lmdb", "sqlite", "memory")
PROFILES = ("small", "txn", "range", "lease", "long")


def recording_of(profile: str) -> Path:
    for trace in TRACES:
        if trace.name.startswith(profile):
            return trace
    pytest.fail(f"no recording of the profile {profile}")


def name_of(value: object) -> str:
    return value.name.split(".")[0] if isinstance(value, Path) else str(value)


def assert_agrees(result: Result) -> None:
    assert result.agreed.total() > 0
    assert [
        (d.exchange.line, d.exchange.request, d.exchange.answer, d.ours) for d in result.differences
    ] == []
