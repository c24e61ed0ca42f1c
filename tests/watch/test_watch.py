"""What a watch promises, on every backend.

"behind" means that a watch reads the store, "live" that the hub hands it events; a buffer of one byte makes a
watch that is not read fall behind after one revision.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import ops
from kvstore.model import EventType, WatchRequest, WatchResponse
from kvstore.store import Store
from kvstore.watch import CallbackWatch, Watch
from tests.harness.checkers import watch_validators
from tests.harness.checkers.watch_validators import validate
from tests.harness.watching import (
    BACKENDS,
    TIMEOUT_SECONDS,
    change_log,
    hub_of,
    open_store,
    recorded,
    responses_until,
    revisions,
    settle,
    take,
)

EVERY_KEY = WatchRequest(kvstore.FROM_KEY, kvstore.FROM_KEY)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


@pytest.fixture(params=BACKENDS)
def cramped(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    """A store whose watches can hardly buffer anything."""
    with open_store(scratch, request.param, watch_buffer=1) as store:
        yield store


# --- the guarantees -----------------------------------------------------------------------


def test_ordered(store: Store) -> None:
    """Events come in the order of their revisions, through the hand-over from catching up to live."""
    for number in range(20):
        store.put(b"k%d" % (number % 3), b"v")
    settle(store)
    for number in range(20):
        store.put(b"k%d" % (number % 3), b"v")
    with store.watch(prefix=b"k", start_revision=2) as events:
        seen = take(events, 5)
        for number in range(20):
            store.put(b"k%d" % (number % 3), b"v")
        seen += take(events, 55)
    assert revisions(seen) == list(range(2, 62))


def test_unique(cramped: Store) -> None:
    """No event comes twice, however often the watch falls behind and catches up."""
    seen = []
    with cramped.watch(prefix=b"k") as events:
        for burst in range(8):
            for _ in range(burst):
                cramped.put(b"k", b"v")
            seen += take(events, burst)
        with pytest.raises(TimeoutError):
            events.get(0)
    assert revisions(seen) == list(range(2, 30))


def test_reliable(cramped: Store) -> None:
    """A consumer that sleeps through everything still gets every event."""
    with cramped.watch(prefix=b"k") as events:
        for number in range(50):
            cramped.put(b"k%d" % number, b"v")
            if number % 7 == 0:
                settle(cramped)
        assert [event.kv.key for event in take(events, 50)] == [b"k%d" % number for number in range(50)]


@pytest.mark.parametrize("start_revision", [0, 1])
def test_atomic_per_revision(store: Store, start_revision: int) -> None:
    """All events of a transaction come in one response, live or from the store."""
    with store.watch(prefix=b"k", start_revision=start_revision) as events:
        for round_ in range(3):
            store.txn(success=[kvstore.ops.put(b"k%d" % number, b"%d" % round_) for number in range(100)])
        if start_revision:
            settle(store)
        parts: dict[int, int] = {}
        for response in responses_until(events, 4):
            for revision in set(revisions(response.events)):
                parts[revision] = parts.get(revision, 0) + 1
        assert parts == {2: 1, 3: 1, 4: 1}


def test_a_revision_larger_than_every_limit_is_still_whole(cramped: Store) -> None:
    """A delete of 3000 keys is one response, both live and when it is read from the store."""
    for number in range(30):
        cramped.txn(success=[kvstore.ops.put(b"k%02d%02d" % (number, sub), b"") for sub in range(100)])
    live = cramped.watch(prefix=b"k")
    revision = cramped.delete(prefix=b"k").revision
    assert len(live.get_response(TIMEOUT_SECONDS).events) == 3000
    settle(cramped)
    with cramped.watch(prefix=b"k", start_revision=revision) as late:
        response = late.get_response(TIMEOUT_SECONDS)
    assert len(response.events) == 3000
    assert {event.type for event in response.events} == {EventType.DELETE}


@pytest.mark.parametrize("settled", [False, True])
def test_resumable(store: Store, settled: bool) -> None:
    """A watch from any kept revision begins exactly there."""
    for number in range(12):
        store.put(b"k%d" % (number % 2), b"%d" % number)
    if settled:
        settle(store)
    for first in range(1, 14):
        with store.watch(prefix=b"k", start_revision=first) as events:
            assert revisions(take(events, 13 - max(first, 2) + 1)) == list(range(max(first, 2), 14))


def test_resuming_behind_the_last_seen_revision_misses_nothing(store: Store) -> None:
    """``watch.revision + 1`` is where the next watch has to begin."""
    seen = []
    revision = 0
    for number in range(30):
        store.put(b"k", b"%d" % number)
        with store.watch(b"k", start_revision=revision + 1) as events:
            response = events.get_response(TIMEOUT_SECONDS)
            seen += revisions(response.events)
            revision = events.revision
    assert seen == list(range(2, 32))


def test_bookmarkable(cramped: Store) -> None:
    """A progress notice comes behind all events that it speaks of, even if the watch was far behind."""
    with cramped.watch(prefix=b"k") as events:
        for number in range(30):
            cramped.put(b"k%d" % (number % 4), b"v")
        cramped.put(b"other", b"v")
        events.request_progress()
        responses = [events.get_response(TIMEOUT_SECONDS)]
        while responses[-1].events:
            responses.append(events.get_response(TIMEOUT_SECONDS))
    assert [r for response in responses for r in revisions(response.events)] == list(range(2, 32))
    assert responses[-1] == WatchResponse(32)


@pytest.mark.parametrize("prev_kv", [False, True])
@pytest.mark.parametrize("buffer_bytes", [1, 2000, 1 << 20])
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_promises_while_others_write(
    tmp_path: Path, backend: str, buffer_bytes: int, prev_kv: bool
) -> None:
    """The nine validators find nothing wrong with watches beside four writers and checkpoints."""
    keys = [b"k%d" % number for number in range(6)]
    with kvstore.open(
        tmp_path / "data",
        backend,
        watch_buffer=buffer_bytes,
        backend_batch_interval_seconds=0.005,
        durability="off",
    ) as store:

        def write(seed: int) -> None:
            for number in range(60):
                key = keys[(number * (seed + 1)) % 6]
                if number % 5 == 4:
                    store.delete(key)
                elif number % 7 == 6:
                    store.txn(
                        success=[kvstore.ops.put(some, b"%d" % number) for some in keys[seed : seed + 3]]
                    )
                else:
                    store.put(key, b"%d" % number)

        spans = [(b"k0", b""), (b"k1", b"k4"), (b"k", b"l"), (b"k3", b"\0")]
        watches = [
            (span, start, store.watch(*span, start_revision=start, prev_kv=prev_kv))
            for span in spans
            for start in (1, 100)
        ]
        records: list[watch_validators.WatchRecord] = []
        done = threading.Event()

        def consume(span: tuple[bytes, bytes], start: int, watch: Watch) -> None:
            responses: list[WatchResponse] = []
            while not (done.is_set() and responses and responses[-1].revision >= store.revision):
                if not responses or not responses[-1].revision % 10 or done.is_set():
                    watch.request_progress()
                try:
                    responses.append(watch.get_response(0.05))
                except TimeoutError:
                    continue
            request = watch_validators.WatchRequest(span[0], span[1], start, prev_kv)
            records.append(recorded(request, responses))

        consumers = [threading.Thread(target=consume, args=watch) for watch in watches]
        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for thread in [*consumers, *writers]:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in consumers:
            thread.join()
        log = change_log(store, keys)
        assert len(records) == 8
        assert [validate(record, log) for record in records] == [[]] * 8
        assert sum(len(record.events) for record in records) > len(log.events)


# --- where a watch begins -----------------------------------------------------------------


def test_from_now_on(store: Store) -> None:
    """Without a start revision a watch sees what is written after it was made, and nothing before."""
    store.put(b"k", b"old")
    with store.watch(b"k") as events:
        store.put(b"k", b"new")
        assert events.get(TIMEOUT_SECONDS).kv.value == b"new"


def test_a_future_revision(store: Store) -> None:
    """A watch on a future revision stays silent until then."""
    with store.watch(prefix=b"k", start_revision=5) as events:
        for _ in range(6):
            store.put(b"k", b"v")
        assert revisions(take(events, 3)) == [5, 6, 7]


def test_below_the_compaction(store: Store) -> None:
    """A watch from a compacted revision ends with the compact revision, in the response and in the error."""
    for _ in range(5):
        store.put(b"k", b"v")
    store.compact(4)
    with store.watch(b"k", start_revision=3) as events:
        last = events.get_response(TIMEOUT_SECONDS)
        assert (last.canceled, last.compact_revision, last.events) == (True, 4, ())
        with pytest.raises(kvstore.Compacted) as caught:
            next(events)
        assert caught.value.compact_revision == 4


def test_an_empty_range_is_refused_as_etcd_does(store: Store) -> None:
    """A key that is not below its range_end ends the watch with etcd's words."""
    with store.watch(b"k", b"k") as events:
        assert events.get_response(TIMEOUT_SECONDS).cancel_reason == "mvcc: watcher range is empty"
        with pytest.raises(kvstore.WatchCanceled, match="watcher range is empty"):
            events.get(TIMEOUT_SECONDS)


def test_an_empty_key_is_the_first_key(store: Store) -> None:
    """An empty key means from the first key on."""
    with store.watch(b"", b"\0") as events:
        store.put(b"\0", b"v")
        store.put(b"z", b"v")
        assert [event.kv.key for event in take(events, 2)] == [b"\0", b"z"]


# --- what it delivers ---------------------------------------------------------------------


def test_ranges(store: Store) -> None:
    """A key, a range, a prefix, from a key on: each gets its own keys only."""
    watches = {
        "key": store.watch(b"b"),
        "range": store.watch(b"b", b"c"),
        "prefix": store.watch(prefix=b"b\xff"),
        "from": store.watch(b"b\xff", kvstore.FROM_KEY),
        "all": store.watch(prefix=b""),
    }
    keys = [b"a", b"b", b"b\0", b"b\xff", b"b\xff\x01", b"c"]
    for key in keys:
        store.put(key, b"v")
    seen = {
        name: [event.kv.key for response in responses_until(watch, 7) for event in response.events]
        for name, watch in watches.items()
    }
    assert seen == {"key": keys[1:2], "range": keys[1:5], "prefix": keys[3:5], "from": keys[3:], "all": keys}


@pytest.mark.parametrize("behind", [False, True])
def test_prev_kv(store: Store, behind: bool) -> None:
    """An event brings the version before it; one that creates its key brings none."""
    first = 2 if behind else 0
    watch = None if behind else store.watch(b"k", prev_kv=True)
    store.put(b"k", b"1")
    store.put(b"k", b"2")
    store.delete(b"k")
    store.put(b"k", b"3")
    if watch is None:
        settle(store)
        watch = store.watch(b"k", start_revision=first, prev_kv=True)
    before = [event.prev_kv for event in take(watch, 4)]
    assert [kv and kv.value for kv in before] == [None, b"1", b"2", None]
    watch.close()


def test_prev_kv_that_is_compacted_is_none(store: Store) -> None:
    """Where the version before lies below the compaction there is no prev_kv, and the event still comes."""
    for number in range(4):
        store.put(b"k", b"%d" % number)
    store.compact(4)
    with store.watch(b"k", start_revision=4, prev_kv=True) as events:
        assert [kv and kv.value for kv in [event.prev_kv for event in take(events, 2)]] == [None, b"2"]


def test_a_delete_event_carries_only_key_and_revision(store: Store) -> None:
    """The kv of a delete has no value, version, lease or create_revision."""
    store.put(b"k", b"v")
    with store.watch(b"k") as events:
        store.delete(b"k")
        assert events.get(TIMEOUT_SECONDS).kv == kvstore.KeyValue(b"k", mod_revision=3)


@pytest.mark.parametrize("behind", [False, True])
def test_filters(store: Store, behind: bool) -> None:
    """NOPUT and NODELETE leave those events out; progress still comes."""
    first = 2 if behind else 0
    requests = {
        (no_put, no_delete): WatchRequest(b"k", b"", first, no_put=no_put, no_delete=no_delete)
        for no_put in (False, True)
        for no_delete in (False, True)
    }
    watches = {} if behind else {kind: store.engine.watch(request) for kind, request in requests.items()}
    store.put(b"k", b"v")
    store.delete(b"k")
    if behind:
        settle(store)
        watches = {kind: store.engine.watch(request) for kind, request in requests.items()}
    seen = {
        kind: [event.type for response in responses_until(watch, 3) for event in response.events]
        for kind, watch in watches.items()
    }
    put, delete = EventType.PUT, EventType.DELETE
    assert seen == {
        (False, False): [put, delete],
        (True, False): [delete],
        (False, True): [put],
        (True, True): [],
    }


# --- slow consumers -----------------------------------------------------------------------


def test_16839_a_slow_watch_holds_bounded_memory(tmp_path: Path) -> None:
    """Events beyond the buffer are not kept in memory: the watch reads them from the store when it is read."""
    with (
        open_store(tmp_path, "lmdb", watch_buffer=20_000) as store,
        store.watch(prefix=b"k") as slow,
        store.watch(b"end") as end,
    ):
        for count in (1, 199):  # first one: into an empty buffer goes whatever comes at once
            for _ in range(count):
                store.put(b"k", b"v" * 1000)
            store.put(b"end", b"")
            end.get(TIMEOUT_SECONDS)  # the hub has come this far
        assert 0 < hub_of(store).buffered_bytes <= 20_000
        assert slow.lag > 100
        assert revisions(take(slow, 200)) == [2, *range(4, 203)]
        with pytest.raises(TimeoutError):
            slow.get(0)
        assert slow.lag == 0


def test_live_delivery_that_checkpoints_overtook_reads_the_store(store: Store) -> None:
    """The hub finds what has left the overlay before it came to it."""
    with store.watch(prefix=b"k") as events:
        gate = threading.Event()

        def stand_still(_: Any) -> None:
            gate.wait()

        hub_of(store)._ask(stand_still, None)
        for number in range(300):
            store.put(b"k%d" % number, b"v")
            if number % 100 == 50:
                settle(store)
        gate.set()
        assert revisions(take(events, 300)) == list(range(2, 302))


@pytest.mark.parametrize(("count", "is_apart"), [(3, True), (50, False)])
def test_few_revisions_are_responses_of_their_own(store: Store, count: int, is_apart: bool) -> None:
    """As a live watch of etcd's has it; what has piled up is put together."""
    with store.engine.watch(WatchRequest(b"k")) as watch:
        gate = threading.Event()

        def stand_still(_: Any) -> None:
            gate.wait()

        hub_of(store)._ask(stand_still, None)
        for _ in range(count):
            store.txn(success=[ops.put(b"k", b"v"), ops.put(b"l", b"v")])
        gate.set()
        responses = list(responses_until(watch, count + 1))
    assert sum(len(response.events) for response in responses) == count
    assert (len(responses) == count) is is_apart
    assert all(response.events[-1].kv.mod_revision == response.revision for response in responses)


# --- the end ------------------------------------------------------------------------------


def test_cancel_from_another_thread_ends_a_waiting_iteration(store: Store) -> None:
    """An iterator that waits for the next event stops when somebody cancels the watch."""
    events = store.watch(prefix=b"k")
    canceler = threading.Timer(0.05, events.cancel)
    canceler.start()
    assert list(events) == []
    canceler.join()
    with pytest.raises(kvstore.WatchCanceled):
        events.get()


def test_closing_the_store_ends_a_waiting_iteration(tmp_path: Path) -> None:
    """An iterator that waits gets StoreClosed when the store is closed, and so does one that comes later."""
    store = open_store(tmp_path, "lmdb")
    waiting, other = store.watch(b"k"), store.watch(b"k")
    closer = threading.Timer(0.05, store.close)
    closer.start()
    with pytest.raises(kvstore.StoreClosed):
        next(waiting)
    closer.join()
    with pytest.raises(kvstore.StoreClosed):
        next(other)
    with pytest.raises(kvstore.StoreClosed):
        store.watch(b"k")
    waiting.close()


def test_a_poisoned_store_delivers_what_was_published(store: Store) -> None:
    """After a failure a watch still gives every event that was durable before."""
    with store.watch(b"k") as events:
        store.put(b"k", b"1")
        store.put(b"k", b"2")
        store.engine.life.poison(OSError("for the test"))
        with pytest.raises(kvstore.StorePoisoned):
            store.put(b"k", b"3")
        assert [event.kv.value for event in take(events, 2)] == [b"1", b"2"]


def test_in_a_forked_child_a_watch_says_whose_it_is(tmp_path: Path) -> None:
    """A child process gets ForkedStore from a watch of its parent, and may close it; the parent's goes on."""
    with open_store(tmp_path, "lmdb") as store, store.watch(b"k") as events:
        store.put(b"k", b"1")
        child = os.fork()
        if not child:
            try:
                events.get(TIMEOUT_SECONDS)
            except kvstore.ForkedStore:
                events.close()
                os._exit(42)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        store.put(b"k", b"2")
        assert [event.kv.value for event in take(events, 2)] == [b"1", b"2"]


def test_a_forgotten_watch_is_let_go(store: Store) -> None:
    """A watch that nobody refers to any more leaves the hub at its next event."""
    import gc

    store.watch(prefix=b"k")
    gc.collect()
    with store.watch(prefix=b"k") as events:
        store.put(b"k", b"v")
        events.get(TIMEOUT_SECONDS)
        assert len(hub_of(store)._index) == 1


# --- callbacks ----------------------------------------------------------------------------


def test_callback(store: Store) -> None:
    """A callback gets the events in order, and none after cancel has returned."""
    seen: list[int] = []
    three = threading.Event()

    def note(event: kvstore.Event) -> None:
        seen.append(event.kv.mod_revision)
        if len(seen) == 3:
            three.set()

    watch = store.watch(prefix=b"k", callback=note)
    for _ in range(3):
        store.put(b"k", b"v")
    assert three.wait(TIMEOUT_SECONDS)
    watch.cancel()
    store.put(b"k", b"v")
    assert seen == [2, 3, 4]
    assert watch.error is None


def test_a_callback_may_cancel_its_own_watch(store: Store) -> None:
    """Canceling from within the callback ends the watch instead of waiting for itself."""
    watches: list[CallbackWatch] = []
    made = threading.Event()

    def stop(event: kvstore.Event) -> None:
        made.wait(TIMEOUT_SECONDS)
        watches[0].cancel()

    watches.append(store.watch(b"k", callback=stop))
    made.set()
    store.put(b"k", b"v")
    assert watches[0].wait(TIMEOUT_SECONDS)


def test_a_callback_that_fails_is_logged_and_ends_its_watch(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception is in the log and in ``error``; the store goes on."""

    def fail(event: kvstore.Event) -> None:
        raise ValueError("no")

    watch = store.watch(b"k", callback=fail)
    store.put(b"k", b"v")
    assert watch.wait(TIMEOUT_SECONDS)
    assert isinstance(watch.error, ValueError)
    assert "the callback failed" in caplog.text
    store.put(b"k", b"w")


def test_a_callback_watch_below_the_compaction_says_so(store: Store) -> None:
    """``error`` holds Compacted with the compact revision."""
    for _ in range(3):
        store.put(b"k", b"v")
    store.compact(4)
    watch = store.watch(b"k", start_revision=2, callback=lambda event: None)
    assert watch.wait(TIMEOUT_SECONDS)
    assert isinstance(watch.error, kvstore.Compacted)
    assert watch.error.compact_revision == 4
