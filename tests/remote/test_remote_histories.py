"""Clients of a cluster of three whose members die and whose connections are cut: what they saw was possible.

Judges: the linearizability checker, the nine validators of watches, and the clients themselves (docs/reliability.md).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from kvstore.network.remote import methods
from kvstore.network.remote.methods import Kind
from tests.etcd.etcd_cluster import Cluster
from tests.remote.faulty_histories import FAULTS, History, cut_answers, lived

HISTORIES = 1000


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_history_with_a_fault_is_linearizable(cluster: Cluster, fault: Callable[[History], None]) -> None:
    """Every answer fits one order of all writes, watches miss nothing, and no acknowledged write is lost."""
    history = lived(cluster, fault, "1")
    assert history.found == []
    assert history.outcomes["kept"]


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_thousand_histories_with_faults(cluster: Cluster) -> None:
    """The same, with everything drawn."""
    for number in range(HISTORIES):
        fault = Random(number).choice(FAULTS)
        history = lived(cluster, fault, f"soak {number}")
        assert history.found == [], (number, fault.__name__)
        print(number, fault.__name__, history.outcomes, flush=True)


def test_a_write_that_is_repeated_behind_its_caller_is_seen(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judges are awake: with a client that sends a write again when nobody knows, they accuse."""
    for method in (methods.PUT, methods.DELETE_RANGE, methods.TXN):
        monkeypatch.setattr(method, "kind", Kind.REPEATABLE)
    for attempt in range(20):
        if lived(cluster, cut_answers, f"planted {attempt}").found:
            return
    pytest.fail("nobody has noticed")
