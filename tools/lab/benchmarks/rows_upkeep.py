"""What keeps a store small and safe, and what that does to writers: snapshots, compaction, defragmentation, leases."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvstore.layout import DataDir
from kvstore.mvcc.schema import HISTORY
from kvstore.store import Store

from . import ours
from .contest import Contest, Sample, row
from .entrants import ETCD, KEYS, add_etcd, add_ours, etcd_directory, etcd_store, ours_name
from .etcd_server import EtcdServer
from .timing import latencies, percentile_sample
from .workload import TXN_PUTS, Workload, key

LARGE_STORE_KEYS = 1_000_000
"""About 400 MB."""
OVERWRITES = 10
LEASES = 100_000
COPY = "plain copy + fsync"


CAN = {
    "snapshot": hasattr(Store, "snapshot"),
    "compaction": find_spec("kvstore.upkeep.compaction") is not None,
    "defragmentation": hasattr(Store, "defragment"),
}
"""What this version of the store can do."""
MISSING = "not in this version of the store"


def _skip_without(contest: Contest, feature: str) -> bool:
    if CAN[feature]:
        return False
    for backend in contest.settings.backends:
        contest.skip(ours_name(backend), MISSING)
    return True


# --- snapshots -------------------------------------------------------------------------


@row("snapshot", "snapshot of a 400 MB store", "MB/s")
def snapshot(contest: Contest) -> None:
    """Write a snapshot of a store of 1,000,000 keys: copied, synced, and read back from the disk or not; bytes of the
    file by time. The plain copy is of the same file by the operating system's own call, and one fsync; etcd's is
    etcdctl snapshot save on the same disk."""
    keys = contest.settings.count(LARGE_STORE_KEYS)

    def measure(backend: str, path: Path, keys: int, *, read_back: bool = True) -> Sample:
        target = contest.place.fresh("snapshot") / "backup.snap"
        with ours.open_store(contest.settings, path, backend, snapshot_read_back=read_back) as store:
            begin = time.perf_counter()
            store.snapshot(target)
            took = time.perf_counter() - begin
        return _megabytes_per_second(contest, target, took)

    def measure_copy(source: Path) -> Sample:
        target = contest.place.fresh("copy") / "copy"
        begin = time.perf_counter()
        shutil.copyfile(source, target)
        fd = os.open(target, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return _megabytes_per_second(contest, target, time.perf_counter() - begin)

    def measure_etcd(path: Path) -> Sample:
        target = contest.place.fresh("snapshot") / "backup.db"
        with EtcdServer(path) as server:
            begin = time.perf_counter()
            server.ctl("snapshot", "save", str(target))
            took = time.perf_counter() - begin
        return _megabytes_per_second(contest, target, took)

    names = add_ours(contest, measure, keys)
    names += add_ours(contest, partial(measure, read_back=False), keys, ", not read back")
    contest.add(COPY, partial(measure_copy, _snapshot_of(contest, keys)))
    if (path := etcd_store(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))
    for name in names:
        contest.goal(name, ETCD, at_least=8)
        contest.goal(name, COPY, at_least=0.7)


def _snapshot_of(contest: Contest, keys: int) -> Path:
    backend = contest.settings.backends[0]
    source = ours.filled(contest.place, backend, keys)

    def build(path: Path) -> None:
        with ours.open_store(contest.settings, source, backend) as store:
            store.snapshot(path / "backup.snap")

    return contest.place.once(f"snapshot-{keys}", build) / "backup.snap"


def _megabytes_per_second(contest: Contest, file: Path, seconds: float) -> Sample:
    megabytes = file.stat().st_size / 1e6
    contest.place.remove(file.parent)
    return Sample(megabytes / seconds, {"mb": megabytes})


# --- compaction and defragmentation ----------------------------------------------------


def _overwritten(contest: Contest, backend: str, keys: int) -> Path:
    """A store each of whose keys has been overwritten ``OVERWRITES`` times."""

    def fill(store: Store) -> None:
        for _ in range(OVERWRITES + 1):
            for pairs in Workload(keys).all_pairs():
                ours.put_all(store, pairs)

    return contest.place.once(
        f"{backend}-{keys}-overwritten", lambda path: ours.build_store(path, backend, fill)
    )


def _etcd_overwritten(contest: Contest, keys: int) -> Path | None:
    return etcd_directory(
        contest,
        f"etcd-{keys}-overwritten",
        lambda server: [server.load("fill", keys=keys) for _ in range(OVERWRITES + 1)],
    )


def _last_revision(keys: int) -> int:
    """The newest revision of an overwritten store."""
    return 1 + (OVERWRITES + 1) * -(-keys // TXN_PUTS)


@contextmanager
def _copy_opened(contest: Contest, backend: str, source: Path, **options: Any) -> Iterator[Store]:
    """A store that may be changed."""
    path = contest.place.copy_of(source)
    try:
        with ours.open_store(contest.settings, path, backend, **options) as store:
            yield store
    finally:
        contest.place.remove(path)


@contextmanager
def _etcd_copy(contest: Contest, source: Path) -> Iterator[tuple[EtcdServer, Path]]:
    path = contest.place.copy_of(source)
    try:
        with EtcdServer(path) as server:
            yield server, path
    finally:
        contest.place.remove(path)


@row("compaction", "compaction of 1M superseded revisions", "s")
def compaction(contest: Contest) -> None:
    """100,000 keys were overwritten 10 times each, in transactions of 100 puts; compact everything superseded, until
    the rows are gone (etcd: etcdctl compact --physical). Nobody writes meanwhile."""
    keys = contest.settings.count(KEYS)
    if _skip_without(contest, "compaction"):
        return

    def measure(backend: str, source: Path) -> Sample:
        with _copy_opened(contest, backend, source, auto_defragment_ratio=0.0) as store:
            begin = time.perf_counter()
            store.compact(store.revision, physical=True)
            took = time.perf_counter() - begin
            _check_compacted(store)
            return Sample(took)

    def measure_etcd(source: Path) -> Sample:
        with _etcd_copy(contest, source) as (server, _):
            begin = time.perf_counter()
            server.ctl("compact", "--physical", str(_last_revision(keys)))
            return Sample(time.perf_counter() - begin)

    for backend in contest.settings.backends:
        contest.add(ours_name(backend), partial(measure, backend, _overwritten(contest, backend, keys)))
        contest.goal(ours_name(backend), ETCD, at_most=1 / 8)
    if (path := _etcd_overwritten(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))


def _check_compacted(store: Store) -> None:
    """All that had been superseded is gone: a measurement of something else would be a lie."""
    with store.engine.backend.read() as tx:
        left = tx.count(HISTORY)
    if left:
        raise RuntimeError(f"{left} superseded rows are still there")


@row("bytes-per-key", "file bytes per key after compaction and defragmentation", "bytes")
def bytes_per_key(contest: Contest) -> None:
    """The store of the compaction row, compacted and defragmented: size of the backend's file divided by its 100,000
    keys (23 bytes of key, 256 of value)."""
    keys = contest.settings.count(KEYS)
    if _skip_without(contest, "defragmentation"):
        return

    def measure(backend: str, source: Path) -> Sample:
        with _copy_opened(contest, backend, source) as store:
            store.compact(store.revision, physical=True)
            _defragment(store)
            assert store.engine.directory is not None
            return Sample(DataDir.at(store.engine.directory.root).db.stat().st_size / keys)

    def measure_etcd(source: Path) -> Sample:
        with _etcd_copy(contest, source) as (server, path):
            server.ctl("compact", "--physical", str(_last_revision(keys)))
            server.ctl("defrag")
            return Sample((path / "member/snap/db").stat().st_size / keys)

    for backend in contest.settings.backends:
        contest.add(ours_name(backend), partial(measure, backend, _overwritten(contest, backend, keys)))
        contest.goal(ours_name(backend), ETCD, at_most=1.1)
    if (path := _etcd_overwritten(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))


def _defragment(store: Any) -> None:  # Any: `CAN` says whether this version has it
    store.defragment()


# --- what writers notice ---------------------------------------------------------------


def _put_meanwhile(store: Store, keys: int, seconds: float, job: Callable[[], object] | None) -> list[float]:
    """How long puts of one writer took while ``job`` ran (None: for ``seconds``)."""
    workload, took = Workload(keys), []
    if job is None:
        return latencies(seconds, lambda: store.put(*workload.pair()))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    background = threading.Thread(target=work)
    background.start()
    while background.is_alive():
        begin = time.perf_counter()
        store.put(*workload.pair())
        took.append(time.perf_counter() - begin)
    background.join()
    if failures:
        raise failures[0]
    return took


def _snapshot_job(contest: Contest, store: Store) -> Callable[[], object]:
    def job() -> None:
        target = contest.place.fresh("snapshot")
        store.snapshot(target / "backup.snap")
        contest.place.remove(target)

    return job


@row("background-p99", "put p99 while the store is tidied up", "ms")
def background_p99(contest: Contest) -> None:
    """The 99th percentile of durable puts by one writer, on a store of 100,000 keys overwritten 10 times (400 MB),
    while a snapshot is taken, everything superseded is compacted, or the file is defragmented; "idle": none of that."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def measure(job_of: Callable[[Store], Callable[[], object] | None], backend: str, source: Path) -> Sample:
        with _copy_opened(contest, backend, source, auto_defragment_ratio=0.0) as store:
            took = _put_meanwhile(store, keys, 3 * settings.seconds, job_of(store))
        return percentile_sample(took or [0.0], 99)

    jobs: dict[str, Callable[[Store], Callable[[], object]]] = {
        "snapshot": lambda store: _snapshot_job(contest, store),
        "compaction": lambda store: lambda: store.compact(store.revision, physical=True),
        "defragmentation": lambda store: lambda: _defragment(store),
    }
    for backend in settings.backends:
        name, source = ours_name(backend), _overwritten(contest, backend, keys)
        contest.add(f"{name}, idle", partial(measure, lambda store: None, backend, source))
        for title, job_of in jobs.items():
            subject = f"{name}, {title}"
            if CAN[title]:
                contest.add(subject, partial(measure, job_of, backend, source))
                contest.goal(subject, f"{name}, idle", at_most=1.3)
            else:
                contest.skip(subject, MISSING)


@row("defragment-stall", "longest put during an online defragmentation", "ms")
def defragment_stall(contest: Contest) -> None:
    """The longest durable put by one writer while a store of 1,000,000 keys (400 MB) is defragmented."""
    keys = contest.settings.count(LARGE_STORE_KEYS)
    if _skip_without(contest, "defragmentation"):
        return

    def measure(backend: str, path: Path, keys: int) -> Sample:
        with _copy_opened(contest, backend, path) as store:
            begin = time.perf_counter()
            took = _put_meanwhile(store, keys, 0, lambda: _defragment(store))
            seconds = time.perf_counter() - begin
        longest = percentile_sample(took or [0.0], 100)
        return Sample(longest.value, {**longest.details, "defragment_s": seconds})

    for name in add_ours(contest, measure, keys):
        contest.goal(name, at_most=30)


# --- leases ----------------------------------------------------------------------------


class _Clock:
    """The wall clock, which can be put forward."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


@row("lease-expiry", "put p99 while 100,000 leases expire", "ms")
def lease_expiry(contest: Contest) -> None:
    """100,000 leases with one key each expire at once; the 99th percentile of durable puts by one writer to other keys
    until the last lease is gone, and of as many seconds as three samples when none expires."""
    settings, leases = contest.settings, contest.settings.count(LEASES)

    def build(backend: str, path: Path) -> None:
        ours.build_store(path, backend, lambda store: _grant(store, leases))

    def measure(expire: bool, backend: str, source: Path) -> Sample:
        clock = _Clock()
        with _copy_opened(contest, backend, source, clock=clock) as store:
            if not expire:
                return percentile_sample(_put_meanwhile(store, leases, 3 * settings.seconds, None), 99)
            begin = time.perf_counter()
            clock.ahead_seconds = 3500.0  # past the deadline, and less than what is taken for a jump
            took = _put_meanwhile(store, leases, 0, lambda: _wait_for_expiry(store, leases))
            seconds = time.perf_counter() - begin
            p99 = percentile_sample(took, 99)
            return Sample(p99.value, {**p99.details, "expired_in_s": seconds})

    for backend in settings.backends:
        name = ours_name(backend)
        source = contest.place.once(f"{backend}-{leases}-leases", partial(build, backend))
        contest.add(name, partial(measure, True, backend, source))
        contest.add(f"{name}, idle", partial(measure, False, backend, source))
        contest.goal(name, f"{name}, idle", at_most=2)


_LEASE_SECONDS = 3000
_STUCK_SECONDS = 60.0


def _grant(store: Store, leases: int) -> None:
    for number in range(leases):
        lease = store.grant_lease(_LEASE_SECONDS, number + 1).id
        store.put(b"/leased/" + key(number), b"", lease=lease)


def _wait_for_expiry(store: Store, leases: int) -> None:
    left, progress = leases, time.monotonic()
    while left:
        time.sleep(0.05)
        now_left = len(store.engine.lessor.leases)
        if now_left < left:
            left, progress = now_left, time.monotonic()
        elif time.monotonic() - progress > _STUCK_SECONDS:
            raise TimeoutError(f"{left} leases do not expire")
