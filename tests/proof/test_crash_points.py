"""Power cuts at every call, and kills: nothing acknowledged is lost, nothing is half there, and it always opens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.harness.crash_points.explorer import OPTIONS, Explorer, Figures, Workload
from tests.harness.crash_points.workloads import WORKLOADS, compaction, leases, transactions

BACKENDS = ("lmdb", "sqlite", "memory")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_a_power_cut_at_any_call_breaks_no_promise(scratch: Path, workload: Workload, backend: str) -> None:
    """Cut the power at every call, lose what was not synced in several ways, reopen, compare with the model."""
    figures = Explorer(scratch, OPTIONS.with_(backend=backend)).run(workload)
    assert figures.states > figures.calls / 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kill_and_then_a_power_cut_break_no_promise(scratch: Path, backend: str) -> None:
    """What a killed process left in the page cache is recovered, and a power cut right after loses none of it."""
    options = OPTIONS.with_(backend=backend, overlay_limit=700)
    for number, workload in enumerate((transactions, leases, compaction)):
        kill_at = frozenset(random.Random(number).sample(range(4, 30), k=5))
        figures = Explorer(scratch / str(number), options).run(workload, kill_at)
        assert figures.kills


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_every_crash_point(
    scratch: Path, workload: Workload, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All ways of losing at every call, with a second cut at every call of each recovery, with and without kills."""
    figures = Figures()
    options = OPTIONS.with_(backend=backend)
    figures += Explorer(scratch / "thorough", options, thorough=True).run(workload)
    for seed in range(5):
        kill_at = frozenset(random.Random(seed).sample(range(1, 60), k=8))
        explorer = Explorer(
            scratch / f"killed-{seed}",
            options.with_(overlay_limit=700),
            seed=WORKLOADS.index(workload) * 10 + seed,
        )
        figures += explorer.run(workload, kill_at)
    with capsys.disabled():
        print(f"\n{backend} {workload.__name__}: {figures}")
