"""An exception at any step of a call comes out as itself; the call is wholly there or not, and the store goes on.

What a signal handler raises ends the main thread's work between any two of its steps. Each call here is made again and
again, interrupted at its first line, its second, and so on (``line_steps``); a run with real signals follows.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kvstore.backends import sqlite

import kvstore
from kvstore import Reentered, Store
from kvstore.write.writer import holds
from tests.harness.alarm import Alarm
from tests.harness.line_steps import Interruption, every_step, nested_at

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""An exception inside a finalizer cannot come out: Python reports it."""

PATIENCE_SECONDS = 20.0
BACKENDS = ["lmdb", "sqlite", "memory"]
OPTIONS: dict[str, Any] = {"background": False, "low_disk_bytes": 0, "durability": "off"}


def in_time(call: Callable[[], Any]) -> Any:
    """What ``call`` answers in another thread; a hang is a failure."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "it hangs"
    assert answers, "it failed"
    return answers[0]


def calls(store: Store, path: Path) -> dict[str, Callable[[], Any]]:
    """Every kind of write and upkeep."""
    number = itertools.count()

    def put() -> Any:
        return store.put(b"k%d" % (next(number) % 5), b"v%d" % next(number))

    def txn() -> Any:
        return store.txn(
            [kvstore.version(b"x") == 0],
            [
                kvstore.ops.put(b"t1", b"1"),
                kvstore.ops.delete(b"k1"),
                kvstore.ops.get(prefix=b"t"),
                kvstore.ops.put(b"t2", b"%d" % next(number)),
            ],
        )

    def delete() -> Any:
        store.put(b"d%d" % (next(number) % 3))
        return store.delete(prefix=b"d")

    def put_nowait() -> Any:
        return store.wait(store.put_nowait(b"n%d" % (next(number) % 3), b"v"))

    def lease() -> Any:
        lease = store.grant_lease(60).id
        store.put(b"l", b"x", lease=lease)
        store.keep_alive(lease)
        store.lease_time_to_live(lease, keys=True)
        return store.revoke_lease(lease)

    def checkpoint() -> Any:
        put()
        return store.checkpoint()

    def compact() -> Any:
        put()
        return store.compact(store.revision, physical=True)

    return {
        "put": put,
        "put with a TTL": lambda: store.put(b"ttl", b"v%d" % next(number), ttl=60),
        "txn": txn,
        "delete": delete,
        "put_nowait": put_nowait,
        "lease": lease,
        "alarm": lambda: store.disarm(kvstore.model.Alarm(1, "NOSPACE")),
        "checkpoint": checkpoint,
        "compact": compact,
        "snapshot": lambda: store.snapshot(path / "snapshot"),
        "defragment": store.defragment,
    }


KINDS = list(calls(Store.__new__(Store), Path()))


def content(store: Store) -> list[tuple[bytes, bytes, int]]:
    return [(kv.key, kv.value, kv.mod_revision) for kv in store.scan(prefix=b"")]


def check_goes_on(store: Store, after: int) -> int:
    """The store is held by nobody, and takes a write of another thread; its revision."""
    writer = store.engine.writer
    for lock in (writer._lead, writer.planning, writer.log_lock, store.engine.core.checkpointing):
        assert not holds(lock)
    revision: int = in_time(lambda: store.put(b"after", b"v").revision)
    assert revision > after
    return revision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_at_any_line_of_a_call(scratch: Path, backend: str, kind: str) -> None:
    """Wherever it comes, it comes out; then the store writes, closes, opens, and holds what it held."""
    store = kvstore.open(scratch / "data", backend, **OPTIONS)
    store.put(b"k1", b"v")
    call = calls(store, scratch)[kind]
    call()
    revision = store.revision
    for steps in every_step(call, Interruption, stride=1 if kind in ("put", "put_nowait") else 3):
        if steps.acted_in is not None and not isinstance(steps.outcome, Interruption):
            assert steps.in_finalizer, (steps.acted_in, steps.outcome)
        revision = check_goes_on(store, revision)
    there = content(store)
    in_time(store.close)
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert content(store) == there
    assert kvstore.verify(scratch / "data", deep=True).ok


def opened_soon(path: Path, backend: str) -> Store:
    """The store, once an opening that was given up has ended by itself."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return kvstore.open(path, backend, **OPTIONS)
        except kvstore.StoreLocked:
            assert time.monotonic() < deadline, "it stays locked"
            time.sleep(0.001)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_at_any_line_of_opening(scratch: Path, backend: str) -> None:
    """No store that nobody can close is left behind, and no lock."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        store.put(b"k", b"v")
    for steps in every_step(lambda: kvstore.open(scratch / "data", backend, **OPTIONS), Interruption):
        if steps.acted_in is None:
            steps.outcome.close()
        with opened_soon(scratch / "data", backend) as store:
            assert store.get(b"k") is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_at_any_line_of_closing(scratch: Path, backend: str) -> None:
    """A close that was interrupted ends, or can be called again; then the store is free, and whole."""
    stores: list[Store] = []

    def close() -> None:
        stores[-1].close()

    def opened() -> None:
        stores.append(kvstore.open(scratch / "data", backend, **OPTIONS))
        stores[-1].put(b"k%d" % len(stores), b"v")

    opened()
    for _ in every_step(close, Interruption):
        in_time(stores[-1].close)
        opened()
        assert stores[-1].count(prefix=b"k") == len(stores)
    stores[-1].close()


class Limit(Exception):
    """What a task queue raises when a job takes too long."""


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    """It raises ``Limit`` in the main thread."""
    with Alarm(Limit) as alarm:
        yield alarm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_signals_at_random_moments(scratch: Path, backend: str, kind: str, alarm: Alarm) -> None:
    """With checkpoints in the background: nothing but ``Limit`` comes out, and what was acknowledged is there."""
    chance = random.Random(kind)
    options = OPTIONS | {
        "background": True,
        "durability": "always",
        "backend_batch_interval_seconds": 0.02,
        "wal_file_size": 20_000,
    }
    store = kvstore.open(scratch / "data", backend, **options)
    call = calls(store, scratch)[kind]
    call()
    span = 0.02 if kind in ("snapshot", "defragment", "compact", "checkpoint") else 0.002
    acknowledged = 0
    for _ in range(60):
        with suppress(Limit), alarm.within(chance.random() * span + 1e-6):
            call()
            acknowledged = store.revision
    check_goes_on(store, acknowledged)
    there = content(store)
    in_time(store.close)
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert content(store) == there
        assert store.revision > acknowledged
    assert kvstore.verify(scratch / "data").ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handler_that_writes(scratch: Path, backend: str) -> None:
    """A signal handler's own put is served, or refused with ``Reentered``; the put that it met ends well."""
    outcomes: list[object] = []
    store = kvstore.open(scratch / "data", backend, **OPTIONS | {"durability": "always"})

    def handler(*_: object) -> None:
        try:
            outcomes.append(store.put(b"handler", b"v").revision)
        except Reentered as error:
            outcomes.append(error)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
        for number in range(500):
            store.put(b"k", b"%d" % number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    served = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert any(isinstance(outcome, Reentered) for outcome in outcomes)
    assert store.revision == 501 + len(served)
    store.close()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("write", ["put", "txn", "lease", "snapshot", "scan"])
def test_a_handler_that_closes(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, backend: str, write: str
) -> None:
    """It returns, whatever it met; the store is closed then or soon, and holds what was acknowledged."""
    monkeypatch.setattr(
        sqlite, "CLOSE_WAIT_SECONDS", 0.2
    )  # for the scan that it has interrupted, and cannot end
    store = kvstore.open(scratch / "data", backend, **OPTIONS | {"durability": "always"})
    store.put(b"k1", b"v")
    call = (calls(store, scratch) | {"scan": lambda: list(store.scan(prefix=b""))})[write]
    call()
    closed: list[bool] = []

    def handler(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        store.close()
        closed.append(True)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        with pytest.raises(kvstore.StateError):
            while True:
                call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert closed
    in_time(store.close)
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert store.get(b"k1") is not None or write == "txn"


@pytest.mark.parametrize("nested", ["put", "txn", "get", "lease"])
def test_a_finalizer_in_the_middle_of_a_write(scratch: Path, nested: str) -> None:
    """What the garbage collector runs at any line of a put may itself call the store; nothing waits for ever."""
    store = kvstore.open(scratch / "data", "memory", **OPTIONS)
    outcomes: list[object] = []
    kinds = calls(store, scratch) | {"get": lambda: store.get(b"k")}

    def finalizer() -> None:
        try:
            outcomes.append(kinds[nested]())
        except Reentered as error:
            outcomes.append(error)

    for step in itertools.count(1):
        with nested_at(step, finalizer) as steps:
            store.put(b"k", b"v")
        if steps.acted_in is None:
            break
    assert len(outcomes) == step - 1
    assert any(not isinstance(outcome, Reentered) for outcome in outcomes)
    check_goes_on(store, 0)
    store.close()
