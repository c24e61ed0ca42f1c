"""Opening a large store, what it takes in memory, and what checkpoints do to writers."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from . import child, ours
from .contest import Contest, Sample, row
from .entrants import KEYS, RAW_STORE, add_ours, ours_name, peer_store
from .peers import PEERS
from .timing import latencies, percentile_sample
from .workload import Workload, key

MANY_KEYS = 1_000_000
OPENS = 11
WRITTEN_PUTS = 480_000
SEGMENT_PUTS = 180_000
"""Nearly as many puts as fill a log segment of the default size."""
NEVER_CHECKPOINT: dict[str, Any] = {
    "backend_batch_interval_seconds": 3600.0,
    "backend_batch_limit": 1 << 31,
    "overlay_limit": 1 << 40,
}


@row("open-clean", "open of 1M keys, after a clean close", "ms")
def open_clean(contest: Contest) -> None:
    """Open a store of 1,000,000 keys that was closed, and get one key; the median of 11. LMDB and SQLite: open, with
    the settings of their durable use, and get one key."""
    keys = contest.settings.count(MANY_KEYS)
    wanted = [key(keys // 2)]

    def measure(backend: str, path: Path, keys: int) -> Sample:
        return Sample(median(_open_and_get(contest, backend, path, keys) for _ in range(OPENS)))

    def open_raw(name: str, path: Path) -> float:
        begin = time.perf_counter()
        peer = PEERS[name](path)
        peer.get_each(wanted)
        took = time.perf_counter() - begin
        peer.close()
        return took * 1000

    def measure_raw(name: str, path: Path) -> Sample:
        return Sample(median(open_raw(name, path) for _ in range(OPENS)))

    add_ours(contest, measure, keys)
    for backend in contest.settings.backends:
        raw = RAW_STORE.get(backend, "lmdb")
        if raw not in contest.contestants and (path := peer_store(contest, raw, keys)) is not None:
            contest.add(raw, partial(measure_raw, raw, path))
        contest.goal(ours_name(backend), raw, at_most=10)


def _open_and_get(contest: Contest, backend: str, path: Path, keys: int) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    store = ours.open_store(contest.settings, path, backend)
    found = store.get(key(keys // 2))
    took = time.perf_counter() - begin
    store.close()
    assert found is not None
    return took * 1000


@row("open-killed", "open of 1M keys, after kill -9 with a full log", "ms")
def open_killed(contest: Contest) -> None:
    """Open a store of 1,000,000 keys and get one key, after its process was killed (SIGKILL) in the middle of writes,
    when they had nearly filled a log segment. "no checkpoint": none of those writes had been moved to the backend yet,
    so that a whole segment is replayed, which default options do not let happen."""
    keys, puts = contest.settings.count(MANY_KEYS), contest.settings.count(SEGMENT_PUTS)

    def measure(options: dict[str, Any], backend: str, path: Path, keys: int) -> Sample:
        copy = contest.place.copy_of(path)
        try:
            child.kill_while_writing(copy, backend, keys, puts, **options)
            return Sample(_open_and_get(contest, backend, copy, keys))
        finally:
            contest.place.remove(copy)

    for name in add_ours(contest, partial(measure, {}), keys):
        contest.goal(name, at_most=150)
    add_ours(contest, partial(measure, NEVER_CHECKPOINT), keys, ", no checkpoint")


@row("memory", "anonymous memory per key at 1M keys", "bytes")
def memory(contest: Contest) -> None:
    """RssAnon of a process that has opened a store of 1,000,000 keys and done 10,000 gets and 10 ranges of 1000, minus
    that of one that has done the same with an empty store, divided by the number of keys."""

    def measure(backend: str, path: Path, keys: int) -> Sample:
        empty = contest.place.fresh("empty")
        try:
            # The same requests, so that what they leave behind in Python is in both.
            base = child.result("memory", path=str(empty), backend=backend, keys=keys)
        finally:
            contest.place.remove(empty)
        full = child.result("memory", path=str(path), backend=backend, keys=keys)
        return Sample((full - base) / keys, {"empty_mb": base / 1e6, "full_mb": full / 1e6})

    for name in add_ours(contest, measure, contest.settings.count(MANY_KEYS, at_least=2000)):
        contest.goal(name, at_most=2)


@row("memory-written", "anonymous memory that writing leaves", "MB")
def memory_written(contest: Contest) -> None:
    """RssAnon of a process after it has opened a store of 100,000 keys and written 480,000 random updates, in durable
    transactions of 100, minus that before it opened it. Nothing waits for a checkpoint any more. What is left is what
    the backend keeps for the next commit. Peers: the same batches."""
    keys, puts = contest.settings.count(KEYS), contest.settings.count(WRITTEN_PUTS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        return Sample(child.result("written", path=str(path), backend=backend, keys=keys, puts=puts) / 1e6)

    def measure_peer(name: str, path: Path) -> Sample:
        return Sample(child.result("peer_written", path=str(path), peer=name, keys=keys, puts=puts) / 1e6)

    add_ours(contest, measure, keys)
    for name in PEERS:
        if (path := peer_store(contest, name, keys)) is not None:
            contest.add(name, partial(measure_peer, name, path))


@row("checkpoint-p99", "put p99 while checkpoints run", "ms")
def checkpoint_p99(contest: Contest) -> None:
    """The 99th percentile of durable puts by one writer to random ones of 100,000 keys, with the default options (a
    checkpoint every 500 ms or 10,000 changes); "without": no checkpoint falls into the sample."""
    keys = contest.settings.count(KEYS)

    def measure(options: dict[str, Any], backend: str, path: Path, keys: int) -> Sample:
        workload = Workload(keys)
        with ours.open_store(contest.settings, path, backend, **options) as store:
            took = latencies(3 * contest.settings.seconds, lambda: store.put(*workload.pair()))
        return percentile_sample(took, 99)

    with_them = add_ours(contest, partial(measure, {}), keys)
    without = add_ours(contest, partial(measure, NEVER_CHECKPOINT), keys, ", without")
    for subject, reference in zip(with_them, without, strict=True):
        contest.goal(subject, reference, at_most=1.3)
