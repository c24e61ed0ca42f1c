"""Recorded conversations with etcd through every face of the store: each answers as the engine does."""

from __future__ import annotations

from pathlib import Path

import pytest
from kvstore.tools.lab.conversation import read_conversation
from kvstore.tools.lab.replay import Pace, Player, replay_options

from tests.etcd.conversations import BACKENDS, PROFILES, TRACES, assert_agrees, name_of, recording_of
from tests.etcd.faces import AsyncPlayer, BesidePlayer, PastPlayer, SnapshotPlayer, SyncPlayer

FACES = {
    "sync": SyncPlayer,
    "async": AsyncPlayer,
    "past": PastPlayer,
    "beside": BesidePlayer,
    "snapshot": SnapshotPlayer,
}
SAMPLES = [
    (profile, BACKENDS[(row + column) % 2], face)
    for row, face in enumerate(FACES)
    for column, profile in enumerate(PROFILES)
    if (row + column) % 3 == 0
]


def play(trace: Path, backend: str, face: type[Player], folder: Path) -> None:
    player = face(folder, replay_options(backend), Pace(checkpoint_every=5))
    try:
        assert_agrees(player.play(read_conversation(trace)))
    finally:
        player.close()


@pytest.mark.parametrize(("profile", "backend", "face"), SAMPLES)
def test_every_face_gives_etcds_answers(profile: str, backend: str, face: str, scratch: Path) -> None:
    """Methods of both stores, views of the past, readers beside the writer, snapshots."""
    play(recording_of(profile), backend, FACES[face], scratch)


@pytest.mark.soak
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("trace", TRACES, ids=name_of)
def test_every_face_gives_etcds_answers_always(trace: Path, backend: str, face: str, scratch: Path) -> None:
    """As above, in every combination."""
    play(trace, backend, FACES[face], scratch)
