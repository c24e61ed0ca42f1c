"""The life of a handle: one table, and what reads, writes, upkeep and health make of it."""

import os
import re
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import DiskFull, StorePoisoned
from kvstore.life import PHASES, Life, Phase
from tests import PROJECT


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_refuses_what_its_row_says(phase: Phase) -> None:
    """Reads and writes get the error of the table, or none."""
    life = Life(phase)
    row = PHASES[phase]
    for refusal, error in ((life.read_refusal, row.reads), (life.write_refusal, row.writes)):
        assert (None if refusal is None else type(refusal())) == error
    assert life.has_upkeep == row.has_upkeep
    assert life.refuses_writes == (row.writes is not None)


@pytest.mark.parametrize("phase", Phase)
def test_a_handle_moves_only_along_the_table(phase: Phase) -> None:
    """A move that the table does not have leaves the handle as it is; no way leads back from the end."""
    for following in Phase:
        life = Life(phase)
        allowed = following is phase or following in PHASES[phase].following
        assert life.move(following) == allowed
        assert life.phase is (following if allowed else phase)
    assert phase in (Phase.CLOSED, Phase.FORKED) or Phase.CLOSED in PHASES[phase].following
    assert phase is Phase.FORKED or Phase.FORKED in PHASES[phase].following


def test_the_first_failure_poisons_for_good() -> None:
    """A stall that ends afterwards, or another failure, changes nothing."""
    life = Life()
    life.stall(DiskFull("no room"))
    first = OSError(5, "first")
    life.poison(first)
    life.poison(OSError(5, "second"))
    life.resume()
    assert life.phase is Phase.POISONED
    refusal = life.write_refusal
    assert refusal is not None
    assert isinstance(refusal(), StorePoisoned) and refusal().__cause__ is first


def test_a_failure_while_closing_is_remembered() -> None:
    """The handle goes on closing; what is planned does not reach the log any more."""
    life = Life()
    assert life.move(Phase.CLOSING)
    life.poison(OSError(5, "late"))
    assert life.phase is Phase.CLOSING
    with pytest.raises(StorePoisoned):
        life.check_loggable()
    assert life.reasons()


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "memory"])
def test_status_names_the_phase(scratch: Path, backend: str) -> None:
    """An open store, a poisoned one, one that is open to be read."""
    with kvstore.open(scratch / "data", backend, background=False) as store:
        store.put(b"k", b"v")
        assert (store.status().phase, store.health().healthy) == ("open", True)
        store.engine.life.poison(OSError(5, os.strerror(5)))
        assert (store.status().phase, store.health().healthy) == ("poisoned", False)
    with kvstore.open(scratch / "data", backend, read_only=True) as reader:
        assert reader.status().phase == "read-only"


def test_the_document_has_the_table() -> None:
    """docs/failure-scenarios.md shows each phase with what it refuses, as the code has it."""
    text = (PROJECT / "docs" / "failure-scenarios.md").read_text()
    shown = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    expected = [
        (
            phase.value,
            "served" if row.reads is None else f"`{row.reads.__name__}`",
            "served" if row.writes is None else f"`{row.writes.__name__}`",
            "goes on" if row.has_upkeep else "none",
        )
        for phase, row in PHASES.items()
    ]
    assert shown == expected
