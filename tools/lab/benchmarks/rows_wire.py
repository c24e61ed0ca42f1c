"""On the network: ``kvstore serve`` beside a real etcd, both as they come, asked by the same load generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .contest import Contest, Sample, row
from .entrants import ETCD, KEYS, add_etcd, add_ours, etcd_store
from .etcd_server import EtcdServer
from .server import SERVER_CPU, OurServer, Server

CLIENTS = 64
LARGE_KEYS = 330_000
"""With keys, revisions and framing about 100 MB in one answer."""
STREAMS, WATCHES = 10, 100

Load = Callable[[Server], Sample]


def _hold(
    contest: Contest, keys: int, load: Load, rate: float | None = None, cpu: float | None = None
) -> list[str]:
    """Add both, with ``keys`` keys. Goals, as multiples of etcd: the least rate, the most CPU. Returns our names."""

    def measure(backend: str, path: Path, _keys: int) -> Sample:
        with OurServer(path, backend) as server:
            return load(server)

    def measure_etcd(path: Path) -> Sample:
        with EtcdServer(path) as server:
            return load(server)

    names = add_ours(contest, measure, keys, own_syncs=True)
    if (path := etcd_store(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))
    for name in names:
        if rate is not None:
            contest.goal(name, ETCD, at_least=rate)
        if cpu is not None:
            contest.goal(name, ETCD, at_most=cpu, of=SERVER_CPU)
    return names


def _job(contest: Contest, job: str, clients: int, connections: int) -> Load:
    """``clients`` calls always in flight, on random keys."""
    seconds, keys = contest.settings.seconds, contest.settings.count(KEYS)

    def load(server: Server) -> Sample:
        return server.load(job, clients=clients, connections=connections, seconds=seconds, keys=keys)

    return load


def _hold_job(contest: Contest, job: str, clients: int, connections: int, **goals: float) -> None:
    _hold(contest, contest.settings.count(KEYS), _job(contest, job, clients, connections), **goals)


@row("wire-put-1", "network: durable put, 1 client", "puts/s")
def put_one(contest: Contest) -> None:
    """One client of `kvstore serve`, which runs in a process of its own, and of etcd, puts 256-byte values to random
    ones of 100,000 keys, each answered before the next. CPU is the server process's, user and system."""
    _hold_job(contest, "put", 1, 1, rate=1)


@row("wire-put-64", "network: durable put, 64 clients", "puts/s")
def put_many(contest: Contest) -> None:
    """The same with 64 clients, each on a connection of its own."""
    _hold_job(contest, "put", CLIENTS, CLIENTS, rate=1, cpu=0.6)


@row("wire-put-64-on-1", "network: durable put, 64 calls on one connection", "puts/s")
def put_on_one(contest: Contest) -> None:
    """The same with 64 clients that share one connection."""
    _hold_job(contest, "put", CLIENTS, 1, rate=1, cpu=0.6)


@row("wire-range-64", "network: range of one key, 64 clients", "gets/s")
def range_many(contest: Contest) -> None:
    """64 clients, each on a connection of its own, get random ones of 100,000 keys (linearizable)."""
    _hold_job(contest, "range", CLIENTS, CLIENTS, rate=1.5, cpu=0.3)


@row("wire-txn", "network: kube-apiserver's transactions, 64 clients", "txns/s")
def txn(contest: Contest) -> None:
    """64 clients on 8 connections update keys of their own as kube-apiserver does: if the mod revision is what it was,
    put 256 bytes, else get the key. All of them succeed."""
    _hold_job(contest, "update", CLIENTS, 8, cpu=0.7)


@row("wire-keepalive", "network: lease keep-alive, 64 clients", "renewals/s")
def keepalive(contest: Contest) -> None:
    """64 streams on 8 connections renew a lease each, again as soon as that is answered. We log every renewal and sync
    it; etcd keeps it in memory."""
    _hold_job(contest, "keepalive", CLIENTS, 8, cpu=1.5)


@row("wire-watch-fanout", "network: puts that 1,000 watches see", "puts/s")
def watch_fanout(contest: Contest) -> None:
    """10 streams, each on a connection of its own, with 100 watches of one key; one client puts to it, and puts again
    when all 1,000 responses have come."""
    seconds = contest.settings.seconds
    watches = min(WATCHES, contest.settings.count(10 * WATCHES, 5))

    def load(server: Server) -> Sample:
        return server.load("fanout", streams=STREAMS, watches=watches, seconds=seconds)

    _hold(contest, contest.settings.count(KEYS), load, cpu=1.2)


@row("wire-large-range", "network: get beside a range of 100 MB, p99", "ms")
def large_range(contest: Contest) -> None:
    """One client gets one key after another, while another on a second connection reads the whole store, 330,000 keys,
    by one range after another. CPU is per get, the ranges' included."""
    keys = contest.settings.count(LARGE_KEYS)

    def load(server: Server) -> Sample:
        sample = server.load("beside", seconds=contest.settings.seconds, keys=keys)
        return Sample(sample.details["p99_ms"], {"gets_per_s": sample.value, **sample.details})

    for name in _hold(contest, keys, load):
        contest.goal(name, at_most=20)
