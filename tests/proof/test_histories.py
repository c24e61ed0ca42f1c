"""Recorded histories of concurrent clients, with crashes in between, held against the checkers."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store
from kvstore.aio import AsyncStore
from tests.harness.checkers import linearizability, revision_order, store_model
from tests.harness.checkers.linearizability import Recorder
from tests.harness.checkers.store_model import Answer, ChangeLog, Event, Put, Request
from tests.harness.checkers.watch_validators import WatchRequest, validate
from tests.harness.drawn_operations import draw, perform, perform_async
from tests.harness.plain import changes_since
from tests.harness.watching import recorded, responses_until

BACKENDS = ["lmdb", "sqlite"]
LIMITS: dict[str, Any] = {"wal_file_size": 4000, "max_wals": 1, "low_disk_bytes": 0, "background": False}


def change_log(store: Store) -> ChangeLog:
    events = []
    for main, _, key, kv in changes_since(store, 2):
        if kv is None:
            events.append(Event("delete", store_model.KeyValue(key, mod_revision=main)))
        else:
            events.append(Event("put", store_model.KeyValue(*kv)))
    return ChangeLog(events)


# --- clients -----------------------------------------------------------------------------------------


def run_threads(
    store: Store, recorder: Recorder[Request, Answer], seed: str, clients: int, count: int
) -> None:
    def client(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for turn in range(count):
            request = draw(chance, f"{seed}.{number}.{turn}")
            recorder.perform(request, partial(perform, store, request), f"{seed}.{number}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def run_tasks(
    store: AsyncStore, recorder: Recorder[Request, Answer], seed: str, clients: int, count: int
) -> None:
    async def client(number: int) -> None:
        chance = random.Random(f"{seed} task {number}")
        for turn in range(count):
            request = draw(chance, f"{seed}.task{number}.{turn}")
            ticket = recorder.called(request, f"{seed}.task{number}")
            recorder.returned(ticket, await perform_async(store, request))

    await asyncio.gather(*(client(number) for number in range(clients)))


# --- linearizability -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_and_tasks_together_are_linearizable(tmp_path: Path, backend: str) -> None:
    """Threads and tasks on one store, with all background work: every answer fits one order of all writes."""
    recorder: Recorder[Request, Answer] = Recorder()
    busy = {**LIMITS, "background": True, "backend_batch_interval_seconds": 0.002, "snapshot_count": 50}
    with kvstore.open(tmp_path / "store", backend, **busy) as store:
        faces: list[AsyncStore] = []  # kept: one that goes while the store is open warns, as it should

        async def tasks() -> None:
            faces.append(AsyncStore(store.engine))
            await run_tasks(faces[0], recorder, "1", 3, 100)

        beside = threading.Thread(target=lambda: asyncio.run(tasks()))
        beside.start()
        run_threads(store, recorder, "1", 3, 100)
        beside.join()
        history = recorder.history()
        assert len(history) == 600
        assert revision_order.check(history, change_log(store)) == []


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter can make them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hasty_history(folder: Path, backend: str, seed: str, clients: int, count: int) -> None:
    """Threads that take turns after each few steps, and a checkpoint every 5 ms."""
    recorder: Recorder[Request, Answer] = Recorder()
    busy = {**LIMITS, "background": True, "backend_batch_interval_seconds": 0.005, "backend_batch_limit": 30}
    with kvstore.open(folder, backend, **busy) as store:
        run_threads(store, recorder, seed, clients, count)
        assert revision_order.check(recorder.history(), change_log(store)) == [], seed


@pytest.mark.usefixtures("hasty_switches")
@pytest.mark.parametrize("backend", [*BACKENDS, "memory"])
def test_threads_that_take_turns_all_the_time_are_linearizable(scratch: Path, backend: str) -> None:
    """However the steps of readers, writers and checkpoints interleave: every answer fits one order of all writes."""
    hasty_history(scratch / "store", backend, "hasty", 6, 100)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("hasty_switches")
@pytest.mark.parametrize("backend", [*BACKENDS, "memory"])
def test_threads_that_take_turns_all_the_time_for_long(scratch: Path, backend: str) -> None:
    """The same, 100 times, with more clients."""
    for turn in range(100):
        hasty_history(scratch / str(turn), backend, f"hasty {turn}", 12, 300)
        shutil.rmtree(scratch / str(turn))


def crash(store: Store, directory: Path, copy: Path) -> Path:
    """What a kill at this moment leaves: the files as they are, opened by nobody."""
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("db-lock", "*-shm", "LOCK"))
    store.close()
    return copy


def crashing_history(folder: Path, backend: str, seed: int) -> None:
    """Three lives of a few concurrent clients; between them the process dies, once with writes in flight."""
    chance = random.Random(seed)
    recorder: Recorder[Request, Answer] = Recorder()
    directory = folder / "0"
    for life in range(3):
        store = kvstore.open(directory, backend, **LIMITS)
        run_threads(store, recorder, f"{seed}.{life}", 2, chance.randrange(1, 5))
        if chance.random() < 0.5:
            store.checkpoint()
        run_threads(store, recorder, f"{seed}.{life}b", 2, 1)
        flying = draw(chance, f"{seed}.{life}.flying")
        if isinstance(flying, Put):  # planned, and the process dies before or after it is in the log
            recorder.called(flying, f"{seed}.{life}.flying")
            ticket = store.put_nowait(flying.key, flying.value)
            if chance.random() < 0.5:
                store.wait(ticket)
        directory = crash(store, directory, folder / f"{life + 1}")
    with kvstore.open(directory, backend, **LIMITS) as store:
        log, history = change_log(store), recorder.history()
        assert revision_order.check(history, log) == [], f"seed {seed}"
        if len(history) <= 24:
            assert linearizability.check(store_model.Store(), history), f"seed {seed}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_histories_with_crashes_are_linearizable(scratch: Path, backend: str) -> None:
    """Random histories over three lives of a store: both checkers find an order for each."""
    for seed in range(60):
        folder = scratch / str(seed)
        crashing_history(folder, backend, seed)
        shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", BACKENDS)
def test_thousands_of_histories_with_crashes(scratch: Path, backend: str) -> None:
    """The same, 3000 times."""
    for seed in range(1000, 4000):
        folder = scratch / str(seed)
        crashing_history(folder, backend, seed)
        shutil.rmtree(folder)


def test_a_lost_write_is_seen(tmp_path: Path) -> None:
    """The check of histories is awake: without one acknowledged write in the log it accuses."""
    recorder: Recorder[Request, Answer] = Recorder()
    with kvstore.open(tmp_path / "store", "memory", **LIMITS) as store:
        run_threads(store, recorder, "7", 2, 10)
        log = change_log(store)
    last = log.events[-1].revision
    short = ChangeLog([event for event in log.given if event.revision < last])
    assert revision_order.check(recorder.history(), short)


# --- watches ---------------------------------------------------------------------------------------------

REQUESTS = [
    WatchRequest(b"\0", b"\0", 2, prev_kv=True),
    WatchRequest(b"a", None, 2),
    WatchRequest(b"a", b"c", 5, filters=frozenset({"delete"})),
    WatchRequest(b"b", b"\0", 9, prev_kv=True, filters=frozenset({"put"})),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_watches_keep_their_promises_while_everything_runs(tmp_path: Path, backend: str) -> None:
    """Writers, checkpoints, compactions and defragmentations beside: nine validators accuse no watch."""
    busy = {**LIMITS, "background": True, "backend_batch_interval_seconds": 0.002, "watch_buffer": 2000}
    recorder: Recorder[Request, Answer] = Recorder()
    with kvstore.open(tmp_path / "store", backend, **busy) as store:
        watches = [
            store.watch(
                one.key,
                one.range_end,
                start_revision=one.start_revision,
                prev_kv=one.prev_kv,
                no_put="put" in one.filters,
                no_delete="delete" in one.filters,
            )
            for one in REQUESTS
        ]
        got: list[list[Any]] = [[] for _ in REQUESTS]
        history: list[Event] = []
        for turn in range(6):
            first = store.revision + 1
            run_threads(store, recorder, f"w{turn}", 3, 40)
            store.defragment()
            history += [_event(main, key, kv) for main, _, key, kv in changes_since(store, first)]
            for watch, responses in zip(watches, got, strict=True):
                responses += responses_until(watch, store.revision)
            store.compact(store.revision - 1, physical=turn % 2 == 0)
        log = ChangeLog(history)
        for request, responses, watch in zip(REQUESTS, got, watches, strict=True):
            watch.close()
            assert validate(recorded(request, responses), log) == []


def _event(main: int, key: bytes, kv: Any) -> Event:
    if kv is None:
        return Event("delete", store_model.KeyValue(key, mod_revision=main))
    return Event("put", store_model.KeyValue(*kv))
