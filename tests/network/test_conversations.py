"""Recorded conversations with etcd over the wire: what a client of ours is told is what etcd has said."""

from __future__ import annotations

from pathlib import Path

import pytest
from kvstore.tools.lab.conversation import read_conversation
from kvstore.tools.lab.replay import Pace, replay_options

from tests.etcd import random_requests
from tests.etcd.conversations import (
    BACKENDS,
    PROFILES,
    TRACES,
    assert_agrees,
    name_of,
    random_conversation,
    recording_of,
)
from tests.etcd.etcd_recorder import HAS_ETCD
from tests.network.wire_player import WirePlayer


def play(trace: Path, backend: str, folder: Path) -> None:
    player = WirePlayer(folder, replay_options(backend), Pace(checkpoint_every=5))
    try:
        assert_agrees(player.play(read_conversation(trace)))
    finally:
        player.close()


@pytest.mark.parametrize(
    ("profile", "backend"), [(profile, BACKENDS[row % 2]) for row, profile in enumerate(PROFILES)]
)
def test_the_wire_gives_etcds_answers(profile: str, backend: str, scratch: Path) -> None:
    """One conversation of each profile."""
    play(recording_of(profile), backend, scratch)


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("trace", TRACES, ids=name_of)
def test_the_wire_gives_etcds_answers_always(trace: Path, backend: str, scratch: Path) -> None:
    """As above, every conversation on both backends."""
    play(trace, backend, scratch)


@pytest.mark.soak
@pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
@pytest.mark.parametrize("seed", range(3000, 3002))
@pytest.mark.parametrize("profile", sorted({*random_requests.PROFILES} - {"many"}))
def test_long_random_conversations_over_the_wire(
    profile: str, seed: int, tmp_path: Path, scratch: Path
) -> None:
    """What an etcd has just said. (How long one takes over thousands of events, no recorder of it can know.)"""
    play(random_conversation(tmp_path, profile, seed, 500), ("lmdb", "sqlite")[seed % 2], scratch)
