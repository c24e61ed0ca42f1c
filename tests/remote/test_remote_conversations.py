"""Conversations with etcd through ``kvstore.connect``: from whomever it asks, the answers are those that were recorded.

Left out are the streams of watches in random conversations: what came on one when is no answer. Tests of watches
prove them (``test_remote_watch*.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path

import pytest
from kvstore.tools.lab.conversation import read_conversation
from kvstore.tools.lab.replay import replay_options

import kvstore
from kvstore.recovery import open_engine
from tests.etcd.conversations import TRACES, assert_agrees, name_of, random_conversation, recording_of
from tests.etcd.etcd_cluster import HAS_ETCD, running_cluster
from tests.etcd.etcd_recorder import fresh_etcd
from tests.etcd.faces import AsyncRemotePlayer, RemotePlayer
from tests.etcd.random_requests import PROFILES

needs_etcd = pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
FACES = {"sync": RemotePlayer, "async": AsyncRemotePlayer}


@contextmanager
def ours(folder: Path, backend: str) -> Iterator[str]:
    """A new store, served."""
    with (
        kvstore.Store(open_engine(folder / "ours", replay_options(backend))) as store,
        kvstore.serve(store, f"unix://{folder}/kv.sock") as server,
    ):
        yield server.endpoints[0]


@contextmanager
def lmdb(folder: Path) -> Iterator[str]:
    with ours(folder, "lmdb") as url:
        yield url


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    with ours(folder, "sqlite") as url:
        yield url


@contextmanager
def etcd(folder: Path) -> Iterator[str]:
    with fresh_etcd(folder) as address:
        yield address


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A follower, for all connections: of a transaction with a read that is refused, an etcd of this age carries out
    the writes on those members that nobody waits for, which have something else from then on (etcd issue 18667).
    """
    with running_cluster(folder) as running:
        yield running.follower().url


Where = Callable[[Path], AbstractContextManager[str]]
SERVERS: tuple[Where, ...] = (lmdb, sqlite, etcd, cluster)
PARAMS = [
    pytest.param(each, marks=needs_etcd if each in (etcd, cluster) else (), id=each.__name__)
    for each in SERVERS
]


def play(trace: Path, where: Where, face: str, folder: Path, count: int | None = None) -> None:
    """All of a conversation, or its first ``count`` exchanges."""
    with where(folder) as url:
        player = FACES[face](url)
        try:
            assert_agrees(player.play(islice(read_conversation(trace), count)))
        finally:
            player.close()


@pytest.mark.parametrize(
    ("where", "profile", "face"),
    [
        pytest.param(lmdb, "small", "async", id="lmdb"),
        pytest.param(sqlite, "txn", "sync", id="sqlite"),
        pytest.param(etcd, "range", "sync", id="etcd", marks=needs_etcd),
        pytest.param(cluster, "lease", "async", id="cluster", marks=needs_etcd),
    ],
)
def test_every_server_gives_etcds_answers(where: Where, profile: str, face: str, scratch: Path) -> None:
    """The beginning of a recorded conversation each."""
    play(recording_of(profile), where, face, scratch, 400)


@pytest.mark.soak
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("where", PARAMS)
@pytest.mark.parametrize("trace", TRACES, ids=name_of)
def test_every_server_gives_etcds_answers_always(trace: Path, where: Where, face: str, scratch: Path) -> None:
    """As above, in every combination."""
    play(trace, where, face, scratch)


@needs_etcd
@pytest.mark.parametrize(
    ("profile", "where"), [("mix", etcd), ("lease", sqlite)], ids=["mix-etcd", "lease-sqlite"]
)
def test_a_random_conversation(profile: str, where: Where, tmp_path: Path, scratch: Path) -> None:
    """What an etcd has just said."""
    play(random_conversation(tmp_path, profile, 1, 200), where, "sync", scratch)


@needs_etcd
@pytest.mark.soak
@pytest.mark.parametrize("where", PARAMS)
@pytest.mark.parametrize("seed", range(2000, 2002))
@pytest.mark.parametrize("profile", PROFILES)
def test_long_random_conversations(
    profile: str, seed: int, where: Where, tmp_path: Path, scratch: Path
) -> None:
    """The same with more requests, of every kind and everywhere."""
    for face in FACES:
        folder = scratch / face
        folder.mkdir()
        play(random_conversation(tmp_path, profile, seed, 500), where, face, folder)
