"""What more keys do to a write and to a read: CPU, as a disk's mood would hide it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from operator import attrgetter
from pathlib import Path

from . import ours
from .contest import Contest, Sample, row
from .entrants import ours_name, peer_store
from .peers import PEERS, Peer
from .timing import rate
from .workload import TXN_PUTS, Workload

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
PEERS_THAT_GROW = ("lmdb", "sqlite3", "diskcache")
CHUNK = 500


@row("growth-put", "a put in transactions of 100, by number of keys", "µs CPU")
def growth_put(contest: Contest) -> None:
    """CPU of a put, in durable transactions of 100 to random ones of 10,000, 100,000 and 1,000,000 keys (5,000,000 with
    --scale 5), with its share of the checkpoints, one of which ends the sample; of lmdb, sqlite3 and diskcache, the
    same batches."""

    def measure(backend: str, path: Path, keys: int) -> Sample:
        workload = Workload(keys)
        with ours.open_store(contest.settings, path, backend, quota_backend_bytes=-1) as store:
            cpu, begin = time.process_time(), time.perf_counter()
            puts = 0
            while time.perf_counter() < begin + contest.settings.seconds:
                ours.put_all(store, workload.batch())
                puts += TXN_PUTS
            store.checkpoint()
            return Sample((time.process_time() - cpu) / puts * 1e6)

    def measure_peer(peer: Peer, keys: int) -> Sample:
        workload = Workload(keys)

        def work() -> int:
            peer.put_batch(workload.batch())
            return TXN_PUTS

        return _cpu(rate(contest.settings.seconds, work))

    _add(contest, measure, measure_peer)


@row("growth-get", "a get, by number of keys", "µs CPU")
def growth_get(contest: Contest) -> None:
    """CPU of a get of a random key, its value taken, among as many keys as in growth-put."""

    def measure(backend: str, path: Path, keys: int) -> Sample:
        wanted, value_of = cycle(Workload(keys).some_keys(20 * CHUNK)), attrgetter("value")

        def work() -> int:
            for _ in range(CHUNK):
                value_of(store.get(next(wanted)))
            return CHUNK

        with ours.open_store(contest.settings, path, backend) as store:
            return _cpu(rate(contest.settings.seconds, work))

    def measure_peer(peer: Peer, keys: int) -> Sample:
        wanted = Workload(keys).some_keys(20 * CHUNK)
        chunks = cycle([wanted[at : at + CHUNK] for at in range(0, len(wanted), CHUNK)])

        def work() -> int:
            peer.get_each(next(chunks))
            return CHUNK

        return _cpu(rate(contest.settings.seconds, work))

    _add(contest, measure, measure_peer)


def _add(
    contest: Contest,
    measure: Callable[[str, Path, int], Sample],
    measure_peer: Callable[[Peer, int], Sample],
) -> None:
    """Ours and some peers at each size."""
    largest = contest.settings.count(1_000_000)
    sizes = [size for size in SIZES if size <= largest] or [largest]

    def of_peer(name: str, path: Path, keys: int) -> Sample:
        peer = PEERS[name](path)
        try:
            return measure_peer(peer, keys)
        finally:
            peer.close()

    for keys in sizes:
        for backend in contest.settings.backends:
            path = ours.filled(contest.place, backend, keys)
            contest.add(f"{ours_name(backend)}, {keys:,} keys", partial(measure, backend, path, keys))
        for name in PEERS_THAT_GROW:
            if (path := peer_store(contest, name, keys)) is not None:  # type: ignore[assignment]
                contest.add(f"{name}, {keys:,} keys", partial(of_peer, name, path, keys))


def _cpu(sample: Sample) -> Sample:
    return Sample(sample.details["cpu_us_per_op"])
