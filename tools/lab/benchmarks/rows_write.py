"""Durable writes. A write that has returned is on disk, with every contestant of these rows."""

from __future__ import annotations

from pathlib import Path

from . import etcd_server, ours, peers
from .contest import Contest, Sample, reachable, row
from .entrants import ETCD, KEYS, Work, add_etcd, add_ours, add_peers, etcd_store
from .peers import Peer
from .timing import rate
from .workload import TXN_PUTS, Workload

WRITERS = 64
RAW_LOOP = "raw pwrite+fdatasync"
ETCD_LOADED = "etcd after load"


@row("put-1", "durable put, 1 writer", "puts/s")
def put_one_writer(contest: Contest) -> None:
    """One thread puts 256-byte values to random ones of 100,000 keys, each put durable before the next; the raw loop
    writes and syncs as many bytes in a zero-filled file; peers commit each put with their full durability."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        with ours.open_store(settings, path, backend) as store:
            return ours.put_one_by_one(store, Workload(keys), settings.seconds)

    def work(peer: Peer, workload: Workload) -> Work:
        def put() -> int:
            peer.put(*workload.pair())
            return 1

        return put

    names = add_ours(contest, measure, keys)
    contest.add(RAW_LOOP, lambda: _raw_loop(contest, keys))
    add_peers(contest, work, keys, own_syncs=True)
    for name in names:
        contest.goal(name, RAW_LOOP, at_least=reachable(0.85, 0.92))
        contest.goal(name, "lmdb", at_least=3.5)


def _raw_loop(contest: Contest, keys: int) -> Sample:
    settings, workload = contest.settings, Workload(keys)
    path = contest.place.fresh("raw")
    loop = peers.RawLoop(
        path, settings.sync_delay_ms / 1000, settings.count(peers.RawLoop.FILE_BYTES, 1 << 20)
    )

    def work() -> int:
        loop.put(*workload.pair())
        return 1

    try:
        return rate(settings.seconds, work)
    finally:
        loop.close()
        contest.place.remove(path)


@row("put-64-threads", "durable put, 64 threads", "puts/s")
def put_threads(contest: Contest) -> None:
    """64 threads put as in put-1, for three times the usual time, so that checkpoints keep pace within it; etcd is
    asked over gRPC by 64 clients (8 connections) from another process. "etcd" was started just before; "etcd after
    load" has first taken transactions of 100 puts for as long as a sample."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        with ours.open_store(settings, path, backend) as store:
            return ours.put_from_threads(store, keys, WRITERS, 3 * settings.seconds)

    names = add_ours(contest, measure, keys)
    add_etcd_puts(contest, keys)
    for name in names:
        contest.goal(name, ETCD, at_least=reachable(1.3, 2))


@row("put-64-tasks", "durable put, 64 asyncio tasks", "puts/s")
def put_tasks(contest: Contest) -> None:
    """64 asyncio tasks on one event loop put as in put-1; etcd as in put-64-threads. The p99 is that of a put: of how
    long its task waited."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        return ours.put_from_tasks(
            ours.engine_of(settings, path, backend), keys, WRITERS, 3 * settings.seconds
        )

    names = add_ours(contest, measure, keys)
    add_etcd_puts(contest, keys)
    for name in names:
        contest.goal(name, ETCD, at_least=reachable(2.5, 4))
        contest.goal(name, ETCD, at_most=1, of="p99_ms")


def add_etcd_puts(contest: Contest, keys: int) -> None:
    path = etcd_store(contest, keys)
    if path is None:
        return
    arguments = {
        "clients": WRITERS,
        "connections": 8,
        "seconds": 3 * contest.settings.seconds,
        "keys": keys,
    }

    def fresh() -> Sample:
        with etcd_server.EtcdServer(path) as server:
            return server.load("put", **arguments)

    def loaded() -> Sample:
        with etcd_server.EtcdServer(path) as server:
            server.load("txn", **{**arguments, "clients": 16})
            return server.load("put", **arguments)

    add_etcd(contest, ETCD, fresh)
    add_etcd(contest, ETCD_LOADED, loaded)


@row("txn-100", "durable transactions of 100 puts, 1 writer", "puts/s")
def txn_of_100(contest: Contest) -> None:
    """One thread commits transactions of 100 puts to distinct random ones of 100,000 keys, each durable before the
    next; peers commit batches of the same 100 puts, in the fastest way they have."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        workload = Workload(keys)

        def work() -> int:
            ours.put_all(store, workload.batch())
            return TXN_PUTS

        with ours.open_store(settings, path, backend) as store:
            return rate(settings.seconds, work)

    def peer_work(peer: Peer, workload: Workload) -> Work:
        def put() -> int:
            peer.put_batch(workload.batch())
            return TXN_PUTS

        return put

    names = add_ours(contest, measure, keys)
    add_peers(contest, peer_work, keys, own_syncs=True)
    for name in names:
        contest.goal(name, "lmdb", at_least=reachable(2, 4))
        contest.goal(name, "plyvel", at_least=reachable(0.5, 1))
