"""Work that signals cannot reach: what its interrupted caller leaves behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kvstore.shelter import import_sheltered


class Limit(Exception):
    """What a task queue raises when a job takes too long."""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A package whose import goes on only when this event is set."""
    gate = threading.Event()
    keeper = ModuleType("keeper_of_the_gate")
    keeper.__dict__["gate"] = gate
    monkeypatch.setitem(sys.modules, "keeper_of_the_gate", keeper)
    (tmp_path / "behind_the_gate.py").write_text(
        "from keeper_of_the_gate import gate\ngate.wait()\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield gate
    gate.set()
    sys.modules.pop("behind_the_gate", None)


def test_an_import_under_way_is_not_taken_for_a_module(gate: threading.Event) -> None:
    """Its callers are interrupted while another thread is at it: the next one waits until the module is whole."""

    def handler(*_: object) -> None:
        raise Limit

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Limit):
                import_sheltered("behind_the_gate")
            assert not hasattr(sys.modules["behind_the_gate"], "whole")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gate.set()
    import_sheltered("behind_the_gate")
    assert sys.modules["behind_the_gate"].__dict__["whole"]
