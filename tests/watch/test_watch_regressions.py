"""etcd's watch bugs, each as the test that would have found it here. The names give etcd's issue numbers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore.model import EventType, WatchRequest
from kvstore.store import Store
from kvstore.watch import WatchStream
from tests.harness.watching import (
    BACKENDS,
    TIMEOUT_SECONDS,
    open_store,
    responses_until,
    revisions,
    settle,
    take,
)

EVERYTHING = WatchRequest(kvstore.FROM_KEY, kvstore.FROM_KEY)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    """A store whose watches buffer one revision: being slow is the common case."""
    with open_store(scratch, request.param, watch_buffer=1) as store:
        yield store


def test_20221_a_future_watch_never_gets_older_events(store: Store) -> None:
    """etcd lowered a future start revision when the watch went through the slow path."""
    with store.watch(prefix=b"k", start_revision=30) as future, store.watch(prefix=b"k") as now:
        for number in range(60):
            store.put(b"k", b"v")
            if number % 10 == 0:
                settle(store)
        assert revisions(take(future, 32)) == list(range(30, 62))
        assert revisions(take(now, 60)) == list(range(2, 62))


def test_20221_a_rejoining_future_watch_keeps_its_start(store: Store) -> None:
    """The same where the store is reopened or the hub idle between creating the watch and its revision."""
    future = store.watch(prefix=b"k", start_revision=10)
    with pytest.raises(TimeoutError):
        future.get(0)
    other = store.watch(prefix=b"k")
    other.close()
    for _ in range(12):
        store.put(b"k", b"v")
    assert revisions(take(future, 4)) == [10, 11, 12, 13]


def test_15220_progress_does_not_overtake_events(store: Store) -> None:
    """etcd answered a progress request at once, before events that it claimed had come."""
    with store.watch(prefix=b"k") as events:
        for _ in range(40):
            store.put(b"k", b"v")
        events.request_progress()
        highest = 1
        for response in responses_until(events, 41):
            for revision in revisions(response.events):
                assert revision == highest + 1
                highest = revision
            assert response.revision == highest


def test_15220_progress_of_unsynced_watches(store: Store) -> None:
    """A stream's progress waits for the watch that is still reading the past."""
    for _ in range(500):
        store.put(b"k", b"v")
    settle(store)
    stream = store.watch_stream()
    for first in (0, 1, 250):
        stream.create(EVERYTHING._replace(start_revision=first))
    stream.request_progress()
    highest: dict[int, int] = {}
    while True:
        found = stream.next(TIMEOUT_SECONDS)
        assert found is not None
        watch_id, response = found
        if watch_id == -1:
            break
        for revision in revisions(response.events):
            highest[watch_id] = revision
    assert response.revision == 501
    assert highest == {1: 501, 2: 501}


def test_15271_a_watch_does_not_travel_in_time(store: Store) -> None:
    """Response revisions never go back, and never claim more than was delivered."""
    with store.watch(prefix=b"k", start_revision=1) as events:
        told = 0
        seen: list[int] = []
        for burst in range(10):
            for _ in range(burst):
                store.put(b"k", b"v")
            if burst % 3 == 0:
                settle(store)
            if burst:
                for response in responses_until(events, store.revision):
                    assert response.revision >= told
                    told = response.revision
                    seen += revisions(response.events)
                    assert told <= (seen[-1] if seen else 1)
    assert seen == list(range(2, 47))


def test_17529_a_slow_watch_that_a_compaction_passes_is_told_so(store: Store) -> None:
    """etcd silently moved a starved watch past the compaction; here it ends with the compact revision."""
    with store.watch(prefix=b"k") as slow, store.watch(b"end") as end:
        store.put(b"k", b"v")
        assert slow.get(TIMEOUT_SECONDS).kv.mod_revision == 2
        store.put(b"k", b"v")
        store.put(b"end", b"")
        end.get(TIMEOUT_SECONDS)  # the hub has come this far, and the buffer has room for one event
        for _ in range(48):
            store.put(b"k", b"v")
        settle(store)
        store.compact(40, physical=True)
        with pytest.raises(kvstore.Compacted) as caught:
            take(slow, 49)
        assert caught.value.compact_revision == 40


def test_17529_events_that_were_buffered_before_the_compaction_still_come(tmp_path: Path) -> None:
    """A compaction takes nothing from a live watch."""
    with open_store(tmp_path, "lmdb") as store, store.watch(prefix=b"k") as events:
        for _ in range(50):
            store.put(b"k", b"v")
        take(events, 1)
        with store.watch(b"end") as end:
            store.put(b"end", b"")
            end.get(TIMEOUT_SECONDS)  # the hub has come this far
        store.compact(50, physical=True)
        assert revisions(take(events, 49)) == list(range(3, 52))


def test_17529_a_quiet_live_watch_survives_compactions(store: Store) -> None:
    """A watch whose keys never change is not ended by compactions far beyond its start."""
    with store.watch(b"quiet") as quiet:
        for _ in range(30):
            store.put(b"k", b"v")
        with store.watch(b"end") as end:
            store.put(b"end", b"")
            end.get(TIMEOUT_SECONDS)
        store.compact(30, physical=True)
        store.put(b"quiet", b"v")
        assert quiet.get(TIMEOUT_SECONDS).kv.mod_revision == store.revision


@pytest.mark.parametrize("settled", [False, True])
def test_18089_the_delete_at_the_compaction_revision_is_delivered(store: Store, settled: bool) -> None:
    """etcd dropped a tombstone at exactly the compaction revision, and watches from there missed the delete."""
    store.put(b"k", b"v")
    store.put(b"other", b"v")
    revision = store.delete(b"k").revision
    store.put(b"k", b"w")
    if settled:
        settle(store)
    store.compact(revision, physical=True)
    settle(store)
    with store.watch(b"k", start_revision=revision) as events:
        first, second = take(events, 2)
    assert (first.type, first.kv.mod_revision) == (EventType.DELETE, revision)
    assert (second.type, second.kv.mod_revision) == (EventType.PUT, revision + 1)


def test_19179_the_delete_is_delivered_where_it_is_the_newest_revision(store: Store) -> None:
    """The same, where nothing was written after the delete and the store was compacted to its head."""
    store.put(b"k", b"v")
    revision = store.delete(b"k").revision
    settle(store)
    store.compact(revision, physical=True)
    settle(store)
    with store.watch(b"k", start_revision=revision) as events:
        assert events.get(TIMEOUT_SECONDS).type == EventType.DELETE


def test_19179_the_put_at_the_compaction_revision_is_delivered(store: Store) -> None:
    """What survives a compaction at its own revision is seen by a watch from there."""
    store.put(b"k", b"old")
    revision = store.put(b"k", b"new").revision
    settle(store)
    store.compact(revision, physical=True)
    settle(store)
    with store.watch(b"k", start_revision=revision) as events:
        assert events.get(TIMEOUT_SECONDS).kv.value == b"new"


def test_15275_no_duplicates_after_falling_behind_and_rejoining(store: Store) -> None:
    """etcd sent events again when a watch that had been in step was moved back."""
    seen: list[int] = []
    with store.watch(prefix=b"k", start_revision=2) as events:
        for burst in (1, 5, 0, 20, 1, 1, 7):
            for _ in range(burst):
                store.put(b"k", b"v")
            seen += revisions(take(events, burst))
            with pytest.raises(TimeoutError):
                events.get(0)
    assert seen == list(range(2, 37))


def test_17247_events_of_concurrent_transactions_come_once(store: Store) -> None:
    """Transactions that share commit groups deliver each of their events once."""
    with store.watch(prefix=b"k") as events:

        def write(seed: int) -> None:
            for _ in range(20):
                store.txn(success=[kvstore.ops.put(b"k%d%d" % (seed, sub), b"v") for sub in range(3)])

        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for writer in writers:
            writer.start()
        seen = take(events, 240)
        for writer in writers:
            writer.join()
        with pytest.raises(TimeoutError):
            events.get(0)
    assert revisions(seen) == [revision for revision in range(2, 82) for _ in range(3)]
    assert len({(event.kv.key, event.kv.mod_revision) for event in seen}) == 240


def test_22264_catching_up_does_not_hold_up_writers(tmp_path: Path) -> None:
    """Writes go through while another thread is in the middle of reading the past (etcd held its lock)."""
    with open_store(tmp_path, "lmdb") as store:
        for _ in range(200):
            store.put(b"k", b"v")
        settle(store)
        reader = store.watch(prefix=b"k", start_revision=2)
        assert isinstance(reader.stream, WatchStream)
        with reader.stream._reading:  # as if it were reading a page just now
            revision = store.put(b"k", b"v").revision
        assert revisions(take(reader, 201))[-1] == revision


def test_watches_resume_after_a_restart(tmp_path: Path) -> None:
    """The server keeps no state of a watch: it goes on from its last revision in a reopened store."""
    with open_store(tmp_path, "lmdb") as store:
        for _ in range(5):
            store.put(b"k", b"v")
        with store.watch(b"k", start_revision=2) as events:
            take(events, 3)
            seen = 4
    with open_store(tmp_path, "lmdb") as store, store.watch(b"k", start_revision=seen + 1) as events:
        store.put(b"k", b"v")
        assert revisions(take(events, 3)) == [5, 6, 7]
