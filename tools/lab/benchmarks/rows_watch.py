"""Watch: live delivery, catching up, many watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

from kvstore.store import Store

from . import ours
from .contest import Contest, Sample, reachable, row
from .entrants import ETCD, KEYS, add_etcd, add_ours, etcd_directory, etcd_store, ours_name
from .etcd_server import EtcdServer
from .timing import per_second, percentile_sample
from .workload import PREFIX, TXN_PUTS, Workload, key, values

LIVE_EVENTS = 200_000
SINGLE_EVENTS = 50_000
DELAYS_A_SECOND = 500
REPLAYED_EVENTS = 1_000_000
ETCD_SINGLE_EVENTS = 100_000
WATCHERS = 1000
WRITERS = 64
WAIT_SECONDS_MAX = 120.0


@row("watch-live", "watch, live", "events/s")
def watch_live(contest: Contest) -> None:
    """One watch of everything takes 200,000 events while transactions of 100 puts are written: ours by one thread and
    iterated by another, etcd's by 16 clients over gRPC. From the first write to the last event."""
    keys = contest.settings.count(KEYS)
    events = contest.settings.count(LIVE_EVENTS) // TXN_PUTS * TXN_PUTS

    def measure(backend: str, path: Path, keys: int) -> Sample:
        with ours.open_store(contest.settings, path, backend) as store, store.watch(prefix=PREFIX) as watch:
            workload = Workload(keys)

            def write() -> None:
                for _ in range(events // TXN_PUTS):
                    ours.put_all(store, workload.batch())

            return _time_events(events, watch, write)

    def measure_etcd(path: Path) -> Sample:
        with EtcdServer(path) as server:
            return server.load("live", events=events, clients=16, keys=keys, together=TXN_PUTS)

    names = add_ours(contest, measure, keys)
    if (path := etcd_store(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))
    for name in names:
        contest.goal(name, ETCD, at_least=reachable(1.2, 2))


@row("watch-single", "watch, live, of single puts", "events/s")
def watch_single(contest: Contest) -> None:
    """As watch-live, but 50,000 events of single puts, a revision each: ours with 64 of them under way, etcd's by 64
    clients."""
    keys, events = contest.settings.count(KEYS), contest.settings.count(SINGLE_EVENTS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        with ours.open_store(contest.settings, path, backend) as store, store.watch(prefix=PREFIX) as watch:
            workload = Workload(keys)
            wanted = [workload.pair()[0] for _ in range(events)]
            return _time_events(events, watch, lambda: ours.put_versions(store, wanted, values(), WRITERS))

    def measure_etcd(path: Path) -> Sample:
        with EtcdServer(path) as server:
            return server.load("live", events=events, clients=WRITERS, keys=keys, together=1)

    names = add_ours(contest, measure, keys)
    if (path := etcd_store(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))
    for name in names:
        contest.goal(name, ETCD, at_least=reachable(1.2, 2))


@row("watch-delay", "from a put that has returned to its event", "ms")
def watch_delay(contest: Contest) -> None:
    """The median time from the return of a durable put to the moment when a thread that waits for the event has it.
    One put a millisecond. An event that was there before the put had returned counts as 0."""
    keys = contest.settings.count(KEYS)

    def measure(backend: str, path: Path, keys: int) -> Sample:
        count = max(10, int(DELAYS_A_SECOND * contest.settings.seconds))
        workload, returned, seen = Workload(keys), list[float](), list[float]()
        with ours.open_store(contest.settings, path, backend) as store, store.watch(prefix=PREFIX) as watch:

            def look() -> None:
                for _ in islice(watch, count):
                    seen.append(time.perf_counter())

            looker = threading.Thread(target=look)
            looker.start()
            for _ in range(count):
                store.put(*workload.pair())
                returned.append(time.perf_counter())
                time.sleep(0.001)
            looker.join()
        delays = [max(at - before, 0) for before, at in zip(returned, seen, strict=True)]
        return percentile_sample(delays, 50)

    add_ours(contest, measure, keys)


def _time_events(count: int, events: Iterator[object], write: Callable[[], None]) -> Sample:
    """Take ``count`` events from the iterator while ``write`` runs in a thread."""
    writer = threading.Thread(target=write)
    cpu, begin = time.process_time(), time.perf_counter()
    writer.start()
    for _ in islice(events, count):
        pass
    took = time.perf_counter() - begin
    writer.join()
    return per_second(count, took, time.process_time() - cpu)


@row("watch-replay", "watch from revision 1: catching up", "events/s")
def watch_replay(contest: Contest) -> None:
    """A watch of everything from revision 1 on is read until the newest of 1,000,000 events, which were written in
    transactions of 100 puts, or by single puts ("1 per revision"; of these etcd has 100,000). The store was just
    opened. etcd's best shape is the reference of both."""
    keys, events = contest.settings.count(KEYS), contest.settings.count(REPLAYED_EVENTS)
    events -= events % TXN_PUTS

    def measure(backend: str, path: Path) -> Sample:
        with (
            ours.open_store(contest.settings, path, backend) as store,
            store.watch(prefix=PREFIX, start_revision=1) as watch,
        ):
            return _time_events(events, watch, lambda: None)

    def build_single(backend: str, path: Path) -> None:
        ours.build_store(path, backend, lambda store: _put_singly(store, keys, events))

    for backend in contest.settings.backends:
        name = ours_name(backend)
        contest.add(name, partial(measure, backend, ours.filled(contest.place, backend, events)))
        single = contest.place.once(f"{backend}-{events}-singles", partial(build_single, backend))
        contest.add(f"{name}, 1 per revision", partial(measure, backend, single))
        replayed = reachable(1.2, 2) if backend == "lmdb" else reachable(0.8, 1.2)
        contest.goal(name, ETCD, at_least=replayed)
        contest.goal(f"{name}, 1 per revision", ETCD, at_least=replayed)
    _add_etcd_replays(contest, keys, events)


def _put_singly(store: Store, keys: int, events: int) -> None:
    workload = Workload(keys)
    ours.put_versions(store, [workload.pair()[0] for _ in range(events)], values())


def _add_etcd_replays(contest: Contest, keys: int, events: int) -> None:
    singles = contest.settings.count(ETCD_SINGLE_EVENTS)

    def measure(path: Path, events: int) -> Sample:
        with EtcdServer(path) as server:
            return server.load("replay", events=events)

    if (path := etcd_store(contest, events)) is not None:
        add_etcd(contest, ETCD, partial(measure, path, events))
    path = etcd_directory(
        contest, f"etcd-{singles}-singles", lambda server: server.load("single", count=singles, keys=keys)
    )
    if path is not None:
        add_etcd(contest, f"{ETCD}, 1 per revision", partial(measure, path, singles))


@row("watch-1000", "durable puts while 1000 watches look on", "puts/s")
def watch_many(contest: Contest) -> None:
    """One thread, and 64 asyncio tasks, put to random ones of 100,000 keys while 1000 watches on disjoint prefixes,
    together all keys, share a stream that another thread of the process reads; and without any watch."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def one_writer(watched: bool, backend: str, path: Path, keys: int) -> Sample:
        with ours.open_store(settings, path, backend) as store, _watched(store, keys, watched):
            return ours.put_one_by_one(store, Workload(keys), settings.seconds)

    def tasks(watched: bool, backend: str, path: Path, keys: int) -> Sample:
        engine = ours.engine_of(settings, path, backend)
        with _watched(Store(engine), keys, watched):
            return ours.put_from_tasks(engine, keys, 64, settings.seconds)

    for measure, writers in ((one_writer, "1 writer"), (tasks, "64 tasks")):
        watched = add_ours(contest, partial(measure, True), keys, f", {writers}")
        alone = add_ours(contest, partial(measure, False), keys, f", {writers}, no watch")
        for subject, reference in zip(watched, alone, strict=True):
            contest.goal(subject, reference, at_least=0.7)


@contextmanager
def _watched(store: Store, keys: int, watched: bool) -> Iterator[None]:
    """``WATCHERS`` watches, whose events are taken by a thread, until the store or the block ends."""
    if not watched:
        yield
        return
    stream = store.watch_stream()
    each = max(100, keys // WATCHERS)
    for first in range(0, keys, each):
        stream.create(ours.watch_request(key(first), key(first + each)))
    ended = threading.Event()

    def consume() -> None:
        try:
            while not ended.is_set():
                stream.next(0.1)
        except ours.ENDED:
            return  # the store was closed, or the stream

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        yield
    finally:
        ended.set()
        consumer.join()
