"""Group commit: many writers, one sync; nobody is told before it is durable; a failure reaches everybody."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store, StorePoisoned
from kvstore.files import Disk, OSDisk
from kvstore.keyvalue import KeyValue
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.testing.disk_images import LOST
from kvstore.testing.recording_disk import RecordingDisk
from kvstore.wal import Log
from kvstore.wire import fields
from tests.harness.gated_disk import PATIENCE_SECONDS, GatedDisk

THREADS = 8


def open_store(path: Path, disk: Disk, **options: Any) -> Store:
    return Store(open_engine(path, Options(background=False, backend="memory", **options), disk))


def logged_keys(path: Path) -> list[tuple[int, bytes]]:
    """(revision, key) of every put in the log, in the order of the log."""
    log = Log.open(OSDisk(), path / "wal", read_only=True)
    found = []
    for batch in log.replay():
        for entry in batch.entries:
            parts = dict(fields(entry))
            row = parts.get(2)
            if isinstance(row, bytes):
                found.append((int(parts[1]), KeyValue.from_row(row).key))
    log.close()
    return found


class Writers:
    """Threads that each make one put and note what came of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.threads: list[threading.Thread] = []
        self.outcomes: dict[bytes, Any] = {}

    def start(self, *keys: bytes) -> None:
        """One thread for each key; returns when their puts are planned, or wait for the leader to plan them."""
        for key in keys:
            begun = puts_begun(self.store)
            thread = threading.Thread(target=self._put, args=(key,))
            thread.start()
            self.threads.append(thread)
            wait_until(partial(self._have_begun, begun))

    def _have_begun(self, count: int) -> bool:
        return puts_begun(self.store) > count

    def _put(self, key: bytes) -> None:
        try:
            self.outcomes[key] = self.store.put(key).revision
        except BaseException as error:
            self.outcomes[key] = error

    def join(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a writer hangs"


def puts_begun(store: Store) -> int:
    """The revision of the newest put that was asked for."""
    return store.engine.state.head + len(store.engine.writer.asked)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.0005)


@pytest.fixture
def disk() -> GatedDisk:
    return GatedDisk()


@pytest.fixture
def store(scratch: Path, disk: GatedDisk) -> Iterator[Store]:
    store = open_store(scratch / "data", disk)
    yield store
    disk.failing = False
    disk.release()
    store.close()


def test_every_acknowledged_write_is_durable(scratch: Path) -> None:
    """At the moment of each acknowledgement, a power cut leaves the write in the log."""
    disk = RecordingDisk(scratch / "data")
    store = open_store(scratch / "data", disk, wal_file_size=3000)
    missing: list[bytes] = []
    copies = itertools.count()

    def write(number: int) -> None:
        for each in range(6):
            key = b"%d-%d" % (number, each)
            revision = store.put(key, b"v" * 100).revision
            left = disk.materialise(scratch / f"left-{next(copies)}", LOST)
            if (revision, key) not in logged_keys(left):
                missing.append(key)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert not missing
    assert len(logged_keys(scratch / "data")) == THREADS * 6


def test_the_log_has_the_writes_in_the_order_of_their_revisions(scratch: Path) -> None:
    """Whatever the threads do, revisions in the log ascend without a gap, and are those that the writers got."""
    store = open_store(scratch / "data", OSDisk(), wal_file_size=5000)
    answers: list[tuple[int, bytes]] = []

    def write(number: int) -> None:
        for each in range(40):
            key = b"%d-%d" % (number, each)
            answers.append((store.put(key).revision, key))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    logged = logged_keys(scratch / "data")
    assert [revision for revision, _ in logged] == list(range(2, 2 + THREADS * 40))
    assert sorted(answers) == logged


def test_writers_that_wait_share_one_sync(store: Store, disk: GatedDisk) -> None:
    """While one sync is under way all others gather, and the next sync serves them all."""
    writers = Writers(store)
    disk.hold()
    writers.start(b"first")
    disk.wait_for_sync()
    writers.start(*(b"%d" % number for number in range(20)))
    before = disk.syncs
    disk.release()
    writers.join()
    assert disk.syncs - before == 2
    assert writers.outcomes == {b"first": 2, **{b"%d" % number: 3 + number for number in range(20)}}


def test_the_lead_goes_on_to_a_writer_of_the_next_group(store: Store, disk: GatedDisk) -> None:
    """The first writer has its answer while the sync of the second group, led by another, has only begun."""
    writers = Writers(store)
    disk.hold()
    writers.start(b"first")
    disk.wait_for_sync()
    writers.start(b"second", b"third")
    disk.release_one()
    disk.wait_for_sync()
    wait_until(lambda: b"first" in writers.outcomes)
    assert set(writers.outcomes) == {b"first"}
    disk.release()
    writers.join()
    assert writers.outcomes == {b"first": 2, b"second": 3, b"third": 4}


def test_nothing_is_visible_before_it_is_durable(store: Store, disk: GatedDisk) -> None:
    """Readers do not see a write whose sync has not returned; writers that follow build on it."""
    store.put(b"k", b"old")
    disk.hold()
    writers = Writers(store)
    writers.start(b"k")
    disk.wait_for_sync()
    kv = store.get(b"k")
    assert kv is not None
    assert (kv.value, store.revision) == (b"old", 2)
    assert store.range(b"k").kvs[0].version == 1
    disk.release()
    writers.join()
    kv = store.get(b"k")
    assert kv is not None
    assert (kv.version, store.revision) == (2, 3)


def test_a_failed_sync_poisons_the_store(scratch: Path, disk: GatedDisk) -> None:
    """Every waiting writer and every later one gets StorePoisoned; reads go on; reopening finds all acknowledged."""
    store = open_store(scratch / "data", disk)
    store.put(b"acknowledged", b"1")
    disk.hold()
    writers = Writers(store)
    writers.start(b"leader")
    disk.wait_for_sync()
    writers.start(*(b"%d" % number for number in range(10)))
    disk.failing = True
    disk.release()
    writers.join()
    assert len(writers.outcomes) == 11
    assert all(isinstance(outcome, StorePoisoned) for outcome in writers.outcomes.values())
    assert isinstance(writers.outcomes[b"leader"].__cause__, OSError)
    disk.failing = False
    syncs = disk.syncs
    for write in (
        lambda: store.put(b"later"),
        lambda: store.delete(b"acknowledged"),
        lambda: store.txn(success=[kvstore.ops.put(b"later")]),
        lambda: store.grant_lease(10),
        lambda: store.compact(2),
        lambda: store.put_nowait(b"later"),
    ):
        with pytest.raises(StorePoisoned):
            write()
    assert disk.syncs == syncs, "a sync was tried again"
    kv = store.get(b"acknowledged")
    assert kv is not None
    assert kv.value == b"1"
    assert [kv.key for kv in store.scan(prefix=b"")] == [b"acknowledged"]
    assert store.revision == 2
    store.close()
    again = open_store(scratch / "data", OSDisk())
    keys = {kv.key for kv in again.scan(prefix=b"")}
    assert keys >= {b"acknowledged"}
    assert keys <= {b"acknowledged", *writers.outcomes}
    assert again.put(b"works").revision == again.revision
    again.close()


def test_put_nowait_is_durable_when_waited_for(store: Store, disk: GatedDisk) -> None:
    """Tickets are not done before their sync; ``wait`` answers each, in any order."""
    disk.hold()
    tickets = [store.put_nowait(b"%d" % number) for number in range(10)]
    assert not any(ticket.is_done() for ticket in tickets)
    disk.release()
    assert [store.wait(ticket).revision for ticket in reversed(tickets)] == list(range(11, 1, -1))
    assert all(ticket.is_done() for ticket in tickets)


def test_put_nowait_becomes_durable_without_waiting(store: Store) -> None:
    """A ticket that nobody waits for is written all the same."""
    ticket = store.put_nowait(b"k")
    wait_until(ticket.is_done)
    assert store.get(b"k") is not None


def test_close_waits_for_tickets(scratch: Path) -> None:
    """Closing makes durable what was begun with ``put_nowait``."""
    store = open_store(scratch / "data", OSDisk())
    tickets = [store.put_nowait(b"%d" % number) for number in range(100)]
    store.close()
    assert all(ticket.is_done() and ticket.error is None for ticket in tickets)
    assert len(logged_keys(scratch / "data")) == 100


class Interrupt(BaseException):
    """Raised out of a signal handler, as KeyboardInterrupt is."""


@contextmanager
def interrupt_when(condition: Callable[[], bool]) -> Iterator[None]:
    """Raise ``Interrupt`` in this thread, the main one, a moment after the condition has become true."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    main = threading.main_thread().ident
    assert main is not None

    def send() -> None:
        wait_until(condition)
        time.sleep(0.05)  # into the wait; earlier would be as right, and easier
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    helper = threading.Thread(target=send)
    helper.start()
    try:
        yield
        helper.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_writer_leaves_the_others_going(store: Store, disk: GatedDisk) -> None:
    """A signal handler that raises in a waiting writer (Ctrl-C) ends its wait, and nobody else's."""
    writers = Writers(store)
    disk.hold()
    writers.start(b"leader")
    disk.wait_for_sync()
    with interrupt_when(lambda: puts_begun(store) == 3), pytest.raises(Interrupt):
        store.put(b"interrupted")
    writers.start(b"behind", b"last")
    disk.release()
    writers.join()
    assert writers.outcomes == {b"leader": 2, b"behind": 4, b"last": 5}
    assert store.put(b"after").revision == 6


def test_an_interrupted_leader_leaves_its_group_to_others(store: Store, disk: GatedDisk) -> None:
    """Interrupted in the middle of its sync, the leader gets its own interruption; the group goes on without it."""
    writers = Writers(store)
    disk.hold()

    def others_wait() -> bool:
        if store.engine.state.head == 2:
            disk.wait_for_sync()
            writers.start(b"behind", b"last")
        return True

    with interrupt_when(lambda: store.engine.state.head == 2 and others_wait()), pytest.raises(Interrupt):
        store.put(b"leader")
    disk.release()
    writers.join()
    assert writers.outcomes == {b"behind": 3, b"last": 4}
    assert store.put(b"after").revision == 5
    assert store.get(b"leader") is not None
