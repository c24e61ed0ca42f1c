"""Our store as a contestant: opened with its defaults, on a disk that can be made slow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvstore import ops
from kvstore.aio import AsyncStore
from kvstore.engine import LocalEngine
from kvstore.errors import StoreClosed, WatchCanceled
from kvstore.files import Disk, File, OSDisk
from kvstore.model import PutRequest, WatchRequest
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store

from .contest import Sample, Settings
from .place import Place
from .timing import per_second, percentile, rate
from .workload import Pair, Workload


class SlowFile:
    """A file whose syncs take longer."""

    def __init__(self, file: File, delay_seconds: float) -> None:
        self._file = file
        self._delay_seconds = delay_seconds
        self.path = file.path
        self.pwrite = file.pwrite
        self.truncate = file.truncate
        self.close = file.close

    def sync(self) -> None:
        self._file.sync()
        time.sleep(self._delay_seconds)


class SlowDisk(OSDisk):
    """The real disk, with a pause added to every sync of a file."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay_seconds = delay_seconds

    def create(self, path: Any, *, direct: bool = False) -> Any:
        return SlowFile(super().create(path, direct=direct), self._delay_seconds)

    def open(self, path: Any) -> Any:
        return SlowFile(super().open(path), self._delay_seconds)

    def sync_file(self, path: Any) -> None:
        super().sync_file(path)
        time.sleep(self._delay_seconds)


def disk_of(settings: Settings) -> Disk:
    delay_seconds = settings.sync_delay_ms / 1000
    return SlowDisk(delay_seconds) if delay_seconds else OSDisk()


def engine_of(settings: Settings, path: Path, backend: str, **options: Any) -> LocalEngine:
    """Open the store with the default options, whatever the environment says."""
    engine = open_engine(path, Options.load({"backend": backend, **options}, {}), disk_of(settings))
    assert isinstance(engine, LocalEngine)
    return engine


def open_store(settings: Settings, path: Path, backend: str, **options: Any) -> Store:
    return Store(engine_of(settings, path, backend, **options))


# --- building --------------------------------------------------------------------------

_BUILD: dict[str, Any] = {"durability": "off", "snapshot_count": 0, "quota_backend_bytes": -1}


def filled(place: Place, backend: str, keys: int) -> Path:
    """A closed store with ``keys`` keys. Shared: do not leave it much different."""

    def build(path: Path) -> None:
        with open_store(Settings(), path, backend, **_BUILD) as store:
            for pairs in Workload(keys).all_pairs():
                put_all(store, pairs)

    return place.once(f"{backend}-{keys}-keys", build)


def put_all(store: Store, pairs: list[Pair]) -> None:
    """Put all pairs in one transaction."""
    store.txn(success=[ops.put(key, value) for key, value in pairs])


def put_versions(store: Store, keys: list[bytes], values: list[bytes], in_flight: int = 512) -> None:
    """Put one revision for each key of the list, pipelined."""
    engine = store.engine
    for start in range(0, len(keys), in_flight):
        ticket = None
        for at in range(start, min(start + in_flight, len(keys))):
            ticket = engine.submit(PutRequest(keys[at], values[at % len(values)]))
        if ticket is not None:
            engine.wait(ticket)


def build_store(path: Path, backend: str, fill: Callable[[Store], None]) -> None:
    """A new store, filled without waiting for the disk."""
    with open_store(Settings(), path, backend, **_BUILD) as store:
        fill(store)


# --- writing ---------------------------------------------------------------------------


def put_one_by_one(store: Store, workload: Workload, seconds: float) -> Sample:
    def work() -> int:
        store.put(*workload.pair())
        return 1

    return rate(seconds, work)


def put_from_threads(store: Store, keys: int, threads: int, seconds: float) -> Sample:
    """Each thread puts, and puts again when that has returned."""
    counts = [0] * threads
    workloads = [Workload(keys, turn=number) for number in range(threads)]
    ready = threading.Barrier(threads + 1)
    stop = threading.Event()

    def write(number: int) -> None:
        workload = workloads[number]
        ready.wait()
        while not stop.is_set():
            store.put(*workload.pair())
            counts[number] += 1

    writers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for writer in writers:
        writer.start()
    ready.wait()
    cpu, begin = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for writer in writers:
        writer.join()
    return per_second(sum(counts), time.perf_counter() - begin, time.process_time() - cpu)


def put_from_tasks(engine: LocalEngine, keys: int, tasks: int, seconds: float) -> Sample:
    """Each asyncio task puts, and puts again when that has returned. Closes the engine."""

    async def write(store: AsyncStore, workload: Workload, end: float) -> list[float]:
        took, now = list[float](), time.perf_counter()
        while now < end:
            begun = now
            await store.put(*workload.pair())
            now = time.perf_counter()
            took.append(now - begun)
        return took

    async def run() -> Sample:
        async with AsyncStore(engine) as store:
            workload = Workload(keys)
            cpu, begin = time.process_time(), time.perf_counter()
            all_took = await asyncio.gather(*(write(store, workload, begin + seconds) for _ in range(tasks)))
            seconds_taken, cpu_taken = time.perf_counter() - begin, time.process_time() - cpu
        took = [each for some in all_took for each in some]
        sample = per_second(len(took), seconds_taken, cpu_taken)
        p99_ms = percentile(took, 99) * 1000
        return Sample(sample.value, {**sample.details, "p99_ms": p99_ms})

    return asyncio.run(run())


# --- watching --------------------------------------------------------------------------

ENDED = (StoreClosed, WatchCanceled)
"""How a watch ends that is closed while something waits for it."""


def watch_request(start: bytes, end: bytes) -> WatchRequest:
    return WatchRequest(start, end, 0, False, False, False, False)
