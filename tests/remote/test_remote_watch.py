"""Watches of a store elsewhere: the faces that local ones have, over connections that are cut."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import kvstore
from kvstore import model
from kvstore.errors import Compacted, StoreClosed, WatchCanceled
from kvstore.model import Event, EventType, WatchPosition
from kvstore.network.remote.watches import RemoteWatchStream
from kvstore.ops import delete, put
from kvstore.store import Store
from tests.harness.alarm import Alarm
from tests.harness.checkers.watch_validators import WatchRequest
from tests.harness.cutting_proxy import Fault
from tests.harness.watching import TIMEOUT_SECONDS, revisions, take
from tests.remote.watched import (
    KEYS,
    LAST_KEY,
    Elsewhere,
    Recorder,
    engine_of,
    judged,
    log_of,
    read_until,
    served,
    until,
    write_some,
)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Elsewhere]]:
    """A store with a history that no test changes."""
    with served(tmp_path_factory.mktemp("past")) as (store, elsewhere):
        write_some(store, 60)
        store.put(LAST_KEY, b"")
        yield store, elsewhere


@pytest.fixture
def present(tmp_path: Path) -> Iterator[tuple[Store, Elsewhere]]:
    with served(tmp_path) as opened:
        yield opened


# --- faces ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        {"prefix": b"", "start_revision": 2},
        {"prefix": b"", "start_revision": 20, "prev_kv": True},
        {"prefix": b"", "start_revision": 2, "no_put": True},
        {"prefix": b"", "start_revision": 2, "no_delete": True, "prev_kv": True},
        {"key": b"a", "start_revision": 2},
        {"key": b"b", "range_end": b"d", "start_revision": 7},
        {"prefix": b"c", "start_revision": 2},
    ],
    ids=str,
)
def test_events_are_those_of_a_local_watch(past: tuple[Store, Elsewhere], wanted: dict[str, Any]) -> None:
    """Kinds, rows, values before: the same, in the same order."""
    store, elsewhere = past
    with store.watch(**wanted) as local:
        local.request_progress()
        expected: list[Event] = []
        while (response := local.get_response(TIMEOUT_SECONDS)).events or response.revision < store.revision:
            expected += response.events
    with elsewhere.connect().watch(**wanted) as watch:
        assert take(watch, len(expected)) == expected
        watch.request_progress()
        last = watch.get_response(TIMEOUT_SECONDS)
        assert (last.revision, last.events) == (store.revision, ())


def test_each_event_has_a_position_to_go_on_from(past: tuple[Store, Elsewhere]) -> None:
    """Also in the middle of a revision, as with local watches."""
    _, elsewhere = past
    remote = elsewhere.connect()
    with remote.watch(prefix=b"", start_revision=2) as watch:
        events: list[Event] = []
        positions: list[WatchPosition] = []
        while not events or events[-1].kv.key != LAST_KEY:
            positions.append(watch.resume)
            events.append(watch.get(TIMEOUT_SECONDS))
    assert any(position.sub for position in positions)
    for at in range(0, len(events), 7):
        with remote.watch(prefix=b"", resume=positions[at]) as watch:
            assert take(watch, len(events) - at) == events[at:]


def test_a_callback_is_called_for_each_event(present: tuple[Store, Elsewhere]) -> None:
    """On a thread of its own, until it is canceled."""
    store, elsewhere = present
    seen: list[Event] = []
    with elsewhere.connect().watch(b"k", callback=seen.append) as watch:
        for value in (b"1", b"2", b"3"):
            store.put(b"k", value)
        until(lambda: len(seen) == 3)
    assert [event.kv.value for event in seen] == [b"1", b"2", b"3"]
    assert watch.error is None


def test_a_stream_carries_many_watches(present: tuple[Store, Elsewhere]) -> None:
    """Ids as asked for; refusals in words; a canceled response is a watch's last."""
    store, elsewhere = present
    with elsewhere.connect().watch_stream() as stream:
        request = model.WatchRequest
        assert stream.create(request(b"a")) == 0
        assert stream.create(request(b"b", start_revision=1), 7) == 7
        assert stream.create(request(b"c"), 7) == -1
        assert stream.create(request(b"z", b"a")) == -1
        assert len(stream) == 2
        answers = [stream.next(TIMEOUT_SECONDS) for _ in range(4)]
        created = {number: response for number, response in answers if not response.canceled}  # type: ignore[misc]
        assert sorted(created) == [0, 7]
        reasons = {response.cancel_reason for number, response in answers if number == -1}  # type: ignore[misc]
        assert reasons == {
            "mvcc: watcher range is empty",
            "mvcc: duplicate watch ID provided on the WatchStream",
        }
        store.put(b"a", b"1")
        store.put(b"b", b"2")
        found = dict([stream.next(TIMEOUT_SECONDS), stream.next(TIMEOUT_SECONDS)])  # type: ignore[list-item]
        assert {number: response.events[0].kv.key for number, response in found.items()} == {0: b"a", 7: b"b"}
        assert stream.cancel(0) and not stream.cancel(0)
        number, last = stream.next()
        assert (number, last.canceled) == (0, True)
        store.put(b"a", b"3")
        store.put(b"b", b"4")
        number, response = stream.next()
        assert (number, response.events[0].kv.value) == (7, b"4")


def test_a_task_watches_what_it_writes_after_that(present: tuple[Store, Elsewhere]) -> None:
    """``watch`` does not wait for the server, and yet nothing that is written after it is missed."""
    _, elsewhere = present

    async def main() -> None:
        async with await kvstore.connect_async(elsewhere.url) as store:
            for number in range(20):
                async with store.watch(b"k") as watch:
                    await store.put(b"k", b"%d" % number)
                    assert (await watch.get(TIMEOUT_SECONDS)).kv.value == b"%d" % number
                    assert watch.resume.revision == number + 3

    asyncio.run(main())


def test_a_watch_of_a_task_knows_its_position_once_it_is_created(present: tuple[Store, Elsewhere]) -> None:
    """Before any event: whoever goes on from there misses nothing."""
    store, elsewhere = present
    store.put(b"k", b"1")

    async def main() -> None:
        async with await kvstore.connect_async(elsewhere.url) as remote, remote.watch(b"k") as watch:
            with pytest.raises(TimeoutError):
                await watch.get(0.2)
            assert watch.resume == WatchPosition(store.revision + 1)

    asyncio.run(main())


# --- connections that are cut ---------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down"])
def test_nothing_is_lost_or_repeated_wherever_the_bytes_end(
    past: tuple[Store, Elsewhere], direction: Any
) -> None:
    """Connections are cut after more and more bytes; each watch sees the same events, whole revisions each."""
    store, elsewhere = past
    log = log_of(store)
    remote = elsewhere.connect()
    with remote.watch(prefix=b"", start_revision=2, prev_kv=True) as watch:
        expected = read_until(watch, store.revision)
    sizes = range(1, 400, 40) if direction == "up" else [*range(1, 300, 30), *range(300, 6000, 600)]
    request = WatchRequest(b"\0", b"\0", start_revision=2, prev_kv=True)
    for size in sizes:
        elsewhere.proxy.plan(Fault(direction, size), Fault(direction, size + 17, "reset"))
        elsewhere.proxy.cut()
        with remote.watch(prefix=b"", start_revision=2, prev_kv=True) as watch:
            found = read_until(watch, store.revision)
        assert judged(log, request, found) == []
        events = [event for response in found for event in response.events]
        assert events == [event for response in expected for event in response.events]


def test_watches_keep_their_promises_while_connections_fail(present: tuple[Store, Elsewhere]) -> None:
    """Writers write, connections are cut in the middle of frames, and the nine judges find nothing."""
    store, elsewhere = present
    remote, random = elsewhere.connect(), Random(5)
    requests = [
        WatchRequest(b"\0", b"\0", 2),
        WatchRequest(b"\0", b"\0", 2, prev_kv=True),
        WatchRequest(b"a", b"c", 2, filters=frozenset({"delete"})),
    ]
    recorders = [
        Recorder(
            remote.watch(
                request.key,
                request.range_end,
                start_revision=2,
                prev_kv=request.prev_kv,
                no_delete="delete" in request.filters,
            )
        )
        for request in requests
    ]
    for round_ in range(15):
        elsewhere.proxy.plan(
            Fault("down", random.randrange(100, 3000)), Fault("up", random.randrange(30, 300))
        )
        write_some(store, 20, round_)
        elsewhere.proxy.cut("reset" if round_ % 2 else "cut")
    store.txn([], [put(b"a", b"last"), put(LAST_KEY, b"")])
    log = log_of(store)
    for request, recorder in zip(requests, recorders, strict=True):
        assert judged(log, request, recorder.up_to(store.revision)) == []
    assert elsewhere.proxy.accepted > 15


def test_a_watch_from_now_on_misses_nothing_that_is_written_while_it_is_cut_off(
    present: tuple[Store, Elsewhere],
) -> None:
    """It knows where it began before the server has ever heard of it."""
    store, elsewhere = present
    remote = elsewhere.connect()
    with remote.watch(b"k") as watch:
        elsewhere.proxy.refuse()
        elsewhere.proxy.cut()
        store.put(b"k", b"1")
        store.put(b"k", b"2")
        elsewhere.proxy.refuse(False)
        assert [event.kv.value for event in take(watch, 2)] == [b"1", b"2"]


def test_a_compaction_during_a_cut_ends_the_watch(present: tuple[Store, Elsewhere]) -> None:
    """With the revision that is the oldest now, and after what was there; it never goes on somewhere later."""
    store, elsewhere = present
    store.put(b"k", b"1")
    with elsewhere.connect().watch(b"k", start_revision=2) as watch:
        assert watch.get(TIMEOUT_SECONDS).kv.value == b"1"
        elsewhere.proxy.refuse()
        elsewhere.proxy.cut()
        for _ in range(5):
            store.put(b"k", b"2")
        store.compact(6)
        elsewhere.proxy.refuse(False)
        with pytest.raises(Compacted) as caught:
            watch.get(TIMEOUT_SECONDS)
        assert caught.value.compact_revision == 6
        assert watch.resume == WatchPosition(3)


def test_a_slow_consumer_holds_no_more_than_its_buffer(past: tuple[Store, Elsewhere]) -> None:
    """The server is told to stop, and asked to go on later: all of it comes, once, and in order."""
    store, elsewhere = past
    remote = elsewhere.connect(watch_buffer=500)
    with remote.watch(prefix=b"", start_revision=2) as watch:
        found = read_until(watch, store.revision)
    assert judged(log_of(store), WatchRequest(b"\0", b"\0", start_revision=2), found) == []


def test_a_full_buffer_stops_the_server(present: tuple[Store, Elsewhere]) -> None:
    """What it holds is bounded, however much is written meanwhile; then it goes on."""
    store, elsewhere = present
    remote = elsewhere.connect(watch_buffer=20_000)
    stream: Any = remote.watch_stream()
    assert isinstance(stream, RemoteWatchStream)
    number = stream.create(model.WatchRequest(b"k"))
    watch = stream._watches[number]
    for value in range(300):
        store.put(b"k", b"%d" % value + b"." * 1000)
        if not value % 10:
            until(lambda: not watch.is_full or watch.state.name == "PAUSED" or watch.buffered_bytes <= 40_000)
    until(lambda: watch.state.name == "PAUSED")
    assert (
        watch.buffered_bytes <= 20_000 + 2 * 64 * 1_100
    )  # responses of 64 changes at most, one of them under way
    seen: list[int] = []
    while len(seen) < 300:
        _, response = stream.next()
        seen += [int(event.kv.value.rstrip(b".")) for event in response.events]
    assert seen == list(range(300))
    stream.close()


# --- ends -----------------------------------------------------------------------------------


def test_closing_from_another_thread_ends_an_iteration(present: tuple[Store, Elsewhere]) -> None:
    """With a connection and without one."""
    _, elsewhere = present
    remote = elsewhere.connect()
    for is_cut_off in (False, True):
        watch = remote.watch(b"k")
        elsewhere.proxy.refuse(is_cut_off)
        if is_cut_off:
            elsewhere.proxy.cut()
        timer = threading.Timer(0.1, watch.close)
        timer.start()
        assert list(watch) == []
        timer.join()
        with pytest.raises(WatchCanceled):
            watch.get(0)


def test_closing_the_store_ends_every_watch(present: tuple[Store, Elsewhere]) -> None:
    """Whoever waits gets ``StoreClosed``, also while there is no connection."""
    _, elsewhere = present
    for is_cut_off in (False, True):
        elsewhere.proxy.refuse(False)
        remote = elsewhere.connect()
        recorders = [Recorder(remote.watch(key)) for key in KEYS]
        elsewhere.proxy.refuse(is_cut_off)
        if is_cut_off:
            elsewhere.proxy.cut()
        remote.close()
        for recorder in recorders:
            recorder.join(TIMEOUT_SECONDS)
            assert isinstance(recorder.error, StoreClosed)
    with pytest.raises(StoreClosed):
        remote.watch(b"k")


def test_a_stream_that_is_dropped_is_closed(present: tuple[Store, Elsewhere]) -> None:
    """Its owner has forgotten it: the server forgets its watches, too."""
    store, elsewhere = present
    watch: Any = elsewhere.connect().watch(b"k")
    until(lambda: store.status().watchers == 1)
    del watch
    gc.collect()
    until(lambda: store.status().watchers == 0)


def test_an_interrupted_wait_loses_nothing(present: tuple[Store, Elsewhere]) -> None:
    """A signal handler raises while the main thread waits for an event, or for the watch to begin."""
    store, elsewhere = present
    remote = elsewhere.connect()
    with Alarm(KeyboardInterrupt) as alarm:
        with remote.watch(b"k") as watch:
            for number in range(20):
                with pytest.raises(KeyboardInterrupt), alarm.within(0.001 + number * 0.0005):
                    while True:
                        watch.get(TIMEOUT_SECONDS)
                store.put(b"k", b"%d" % number)
                assert watch.get(TIMEOUT_SECONDS).kv.value == b"%d" % number
        elsewhere.proxy.stall()
        with pytest.raises(KeyboardInterrupt), alarm.within(0.05):
            remote.watch(b"k")
        elsewhere.proxy.go_on()
    until(lambda: store.status().watchers == 0)


def test_an_event_of_a_delete_has_no_value(present: tuple[Store, Elsewhere]) -> None:
    """Key and revision only, as everywhere."""
    store, elsewhere = present
    with elsewhere.connect().watch(b"", b"\0") as watch:
        store.txn([], [put(b"a", b"1"), put(b"b", b"2")])
        store.txn([], [delete(b"a"), delete(b"b")])
        events = take(watch, 4)
    assert revisions(events) == [2, 2, 3, 3]
    assert [event.type for event in events] == [EventType.PUT] * 2 + [EventType.DELETE] * 2
    assert (events[3].kv.key, events[3].kv.value, events[3].kv.version) == (b"b", b"", 0)


def test_streams_leave_nothing_behind(present: tuple[Store, Elsewhere]) -> None:
    """A client that opens and closes watches for ever keeps none."""
    _, elsewhere = present
    remote = elsewhere.connect()
    for _ in range(10):
        remote.watch(b"k").close()
    gc.collect()
    until(lambda: not engine_of(remote)._client.watches.inboxes)
