"""The contestants: our store on each backend, the peers, a real etcd; all with the same keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import etcd_server, ours, peers
from .contest import Absent, Contest, Measure, Sample
from .peers import PEERS, Peer
from .timing import rate
from .workload import Workload

KEYS = 100_000
RAW_STORE = {"lmdb": "lmdb", "sqlite": "apsw"}
"""The peer that is the bare store under each of our backends."""
ETCD = "etcd"

Work = Callable[[], int]
"""Does some operations and returns how many."""


def ours_name(backend: str) -> str:
    return f"kvstore/{backend}"


def add_ours(
    contest: Contest,
    measure: Callable[[str, Path, int], Sample],
    keys: int,
    suffix: str = "",
    *,
    own_syncs: bool = False,
) -> list[str]:
    """Add our store on each backend, holding ``keys`` keys. Returns the names it gave.

    ``own_syncs``: it is in another process, where an injected delay does not reach it.
    """
    names = []
    for backend in contest.settings.backends:
        names.append(ours_name(backend) + suffix)
        path = ours.filled(contest.place, backend, keys)
        contest.add(names[-1], partial(measure, backend, path, keys), own_syncs=own_syncs)
    return names


def peer_store(contest: Contest, name: str, keys: int) -> Path | None:
    """The directory of a peer's store with ``keys`` keys; None (and noted as skipped) if it is not installed."""

    def build(path: Path) -> None:
        peer = PEERS[name](path)
        peers.fill(peer, keys)
        peer.close()

    try:
        return contest.place.once(f"peer-{name}-{keys}", build)
    except Absent as reason:
        contest.skip(name, str(reason))
        return None


def add_peers(
    contest: Contest, work: Callable[[Peer, Workload], Work], keys: int, *, own_syncs: bool = False
) -> None:
    """Add every installed peer, at its best rate of ``work``."""

    def measure(name: str, path: Path) -> Sample:
        peer = PEERS[name](path)
        try:
            return rate(contest.settings.seconds, work(peer, Workload(keys)))
        finally:
            peer.close()

    for name in PEERS:
        path = peer_store(contest, name, keys)
        if path is not None:
            contest.add(name, partial(measure, name, path), own_syncs=own_syncs)


def etcd_store(contest: Contest, keys: int) -> Path | None:
    """The data directory of an etcd with ``keys`` keys; None (and noted as skipped) if there is no etcd."""
    return etcd_directory(
        contest, f"etcd-{keys}-keys", lambda server: [server.load("fill", keys=keys)] if keys else []
    )


def etcd_directory(
    contest: Contest, name: str, fill: Callable[[etcd_server.EtcdServer], object]
) -> Path | None:
    """A data directory that ``fill`` has filled through a running etcd. Copy it before changing it much."""

    def build(path: Path) -> None:
        with etcd_server.EtcdServer(path) as server:
            fill(server)

    try:
        return contest.place.once(name, build)
    except Absent as reason:
        contest.skip(ETCD, str(reason))
        return None


def add_etcd(contest: Contest, name: str, measure: Measure) -> None:
    """Add an etcd, whose syncs an injected delay does not reach."""
    contest.add(name, measure, own_syncs=True)
