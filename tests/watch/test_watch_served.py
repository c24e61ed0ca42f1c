"""Streams as a server consumes them: many on one thread, which takes what there is and never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.loops import call_soon
from kvstore.model import Event, WatchRequest, WatchResponse
from kvstore.store import Store
from kvstore.watch import WatchStream
from kvstore.watch.stream import Numbered
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, hub_of, open_store, revisions, settle

EVERYTHING = WatchRequest(kvstore.FROM_KEY, kvstore.FROM_KEY)


class Served:
    """The bell of one stream, which notes it among those to be served, and wakes the server for the first."""

    def __init__(self, server: Server, stream: WatchStream) -> None:
        self._server = server
        self.stream = stream
        stream.bell = self

    def ring(self) -> None:
        server = self._server
        with server.lock:
            is_first = not server.rung
            server.rung[self] = None
        if is_first:
            server.wake()


class Server:
    """What an event loop would do, with a thread: each ``wake`` is a call into it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.Lock()
        self.rung: dict[Served, None] = {}
        self.wakes = 0
        self._woken = threading.Semaphore(0)

    def wake(self) -> None:
        self.wakes += 1
        self._woken.release()

    def open(self) -> WatchStream:
        stream: WatchStream = self.store.engine.watch_stream()
        Served(self, stream)
        return stream

    def serve(self, count: int) -> list[tuple[WatchStream, Numbered]]:
        """Wait until so many responses have come; nothing is looked at but what has rung."""
        found: list[tuple[WatchStream, Numbered]] = []
        while len(found) < count:
            assert self._woken.acquire(timeout=TIMEOUT_SECONDS), f"{len(found)} of {count} have come"
            with self.lock:
                rung, self.rung = self.rung, {}
            for served in rung:
                stream = served.stream
                while taken := stream.take(64, may_read=stream.needs_store()):
                    found += [(stream, each) for each in taken]
        return found


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


def following(stream: WatchStream) -> Numbered:
    found = stream.next(TIMEOUT_SECONDS)
    assert found is not None, "the stream said nothing"
    return found


def until_quiet(stream: WatchStream) -> list[Numbered]:
    """All that comes before a progress notice that is asked for now."""
    stream.request_progress()
    found: list[Numbered] = []
    while not found or found[-1][0] != -1:
        stream.wait(TIMEOUT_SECONDS)
        found += stream.take(64)
    return found[:-1]


def by_watch(found: list[Numbered]) -> dict[int, list[WatchResponse]]:
    """Each watch's responses, in order. (Between those of a revision there is none.)"""
    watches: dict[int, list[WatchResponse]] = {}
    for watch_id, response in found:
        watches.setdefault(watch_id, []).append(response)
    return watches


def events_by_watch(found: list[Numbered]) -> dict[int, list[Event]]:
    """Each watch's events, in order, in however many responses they came."""
    watches = by_watch(found)
    return {
        watch_id: [event for each in responses for event in each.events]
        for watch_id, responses in watches.items()
    }


# --- take ---------------------------------------------------------------------------------


def test_take_gives_in_order_what_next_would(store: Store) -> None:
    """As many as there are, up to the limit; the rest stays; and an empty list where there is nothing."""
    with store.engine.watch_stream() as stream, store.engine.watch_stream() as twin:
        for each in (stream, twin):
            for _ in range(3):
                each.create(EVERYTHING)
        for number in range(5):
            store.put(b"%d" % number)
        expected: list[Numbered] = []
        twin.request_progress()
        while not expected or expected[-1][0] != -1:
            expected.append(following(twin))
        stream.request_progress()
        found: list[Numbered] = []
        while not found or found[-1][0] != -1:
            stream.wait(TIMEOUT_SECONDS)
            taken = stream.take(2)
            assert 0 < len(taken) <= 2
            found += taken
        assert all(len(given) == 5 for given in events_by_watch(found[:-1]).values())
        assert events_by_watch(found[:-1]) == events_by_watch(expected[:-1])
        assert found[-1] == expected[-1] == (-1, WatchResponse(6))
        assert stream.take(7) == []


def test_take_reads_the_store_only_where_it_may(store: Store) -> None:
    """What takes a look into the store stays: the past, and versions before a change."""
    for number in range(100):
        store.put(b"%d" % number)
    settle(store)
    with store.engine.watch_stream() as stream:
        stream.create(EVERYTHING._replace(start_revision=1))
        stream.create(EVERYTHING._replace(prev_kv=True))
        assert [response.created for _, response in stream.take(10)] == [True, True]
        assert stream.take(10) == [] and stream.needs_store()
        past: list[int] = []
        while len(past) < 100:
            for watch_id, response in stream.take(10, may_read=True):
                assert watch_id == 0
                past += revisions(response.events)
        assert past == list(range(2, 102))
        store.put(b"0", b"new")
        live: list[Numbered] = []
        while not any(watch_id == 1 for watch_id, _ in live):
            stream.wait(TIMEOUT_SECONDS)
            live += stream.take(10, may_read=True)
        (event,) = next(response.events for watch_id, response in live if watch_id == 1)
        assert event.prev_kv is not None and event.prev_kv.mod_revision == 2


def test_watches_that_are_live_are_served_beside_one_that_reads(store: Store) -> None:
    """One that is far behind keeps the others' events from nobody: they come in one ``take``."""
    for number in range(3000):
        store.put(b"past%d" % number)
    settle(store)
    with store.engine.watch_stream() as stream:
        stream.create(WatchRequest(b"k"), 1)
        until_quiet(stream)
        stream.create(WatchRequest(b"past", b"pasu", start_revision=1), 2)
        for _ in range(20):
            store.put(b"k")
        found: list[Numbered] = []
        takes = 0
        while sum(len(response.events) for watch_id, response in found if watch_id == 1) < 20:
            stream.wait(TIMEOUT_SECONDS)
            found += stream.take(64, may_read=True)
            takes += 1
        assert takes < 20, "one event for each page that the other reads"


def test_take_says_what_has_ended(store: Store) -> None:
    """As ``next``: WatchCanceled for a stream that is closed, StoreClosed for a store."""
    stream, other = store.engine.watch_stream(), store.engine.watch_stream()
    stream.close()
    with pytest.raises(kvstore.WatchCanceled):
        stream.take(1)
    store.close()
    with pytest.raises(kvstore.StoreClosed):
        other.take(1)


# --- where a watch from now begins --------------------------------------------------------


def test_a_watch_from_now_says_where_it_begins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write between its position and its answer is an event of it: a client that resumes behind what was said to
    be its beginning misses nothing."""
    with store.engine.watch_stream() as stream:
        hub, new_watcher = hub_of(store), hub_of(store).new_watcher

        def held_up(*arguments: Any) -> Any:
            watcher = new_watcher(*arguments)
            store.put(b"k", b"between")
            return watcher

        monkeypatch.setattr(hub, "new_watcher", held_up)
        stream.create(WatchRequest(b"k"))
        (_, created), (_, first) = following(stream), following(stream)
        assert created == WatchResponse(1, created=True)
        assert revisions(first.events) == [2]


def test_a_watch_of_a_given_revision_says_what_is_newest(store: Store) -> None:
    """Its beginning is known to who asked; as etcd, it is told the store's revision."""
    store.put(b"k")
    store.put(b"k")
    with store.engine.watch_stream() as stream:
        for first in (1, 2, 9):
            stream.create(WatchRequest(b"k", start_revision=first))
        assert [response.revision for _, response in stream.take(3)] == [3, 3, 3]


# --- many streams, one consumer -----------------------------------------------------------


def test_a_thousand_streams_wake_their_server_once(store: Store) -> None:
    """A revision that all of them want is one call into the loop, for all that have rung until it comes."""
    server = Server(store)
    streams = [server.open() for _ in range(1000)]
    for stream in streams:
        stream.create(WatchRequest(b"k"))
    created = server.serve(1000)
    assert all(response.created for _, (_, response) in created)
    while any(not watcher.live for watcher in hub_of(store)._all_watchers()):
        pass  # the hub takes them
    woken = server.wakes
    store.put(b"k")
    while len(server.rung) < 1000:
        pass  # nobody serves meanwhile
    told = server.serve(1000)
    assert server.wakes == woken + 1
    assert {id(stream) for stream, _ in told} == {id(stream) for stream in streams}
    assert all(revisions(response.events) == [2] for _, (_, response) in told)
    for stream in streams:
        stream.close()


def test_a_loop_is_called_once_for_all_its_streams(tmp_path: Path) -> None:
    """The same with a real loop: the first of a burst calls into it, and one call serves all."""

    async def main(store: Store) -> tuple[int, int]:
        loop, server, responses, calls = asyncio.get_running_loop(), Server(store), 0, 0
        finished = loop.create_future()

        def serve() -> None:
            nonlocal responses, calls
            calls += 1
            with server.lock:
                rung, server.rung = server.rung, {}
            for served in rung:
                responses += len(served.stream.take(64))
            if responses >= 200:
                finished.set_result(None)

        server.wake = lambda: call_soon(loop, serve)  # type: ignore[method-assign]
        streams = [server.open() for _ in range(100)]
        for stream in streams:
            stream.create(WatchRequest(b"k"))
        store.put(b"k")
        await asyncio.wait_for(finished, TIMEOUT_SECONDS)
        return responses, calls

    with open_store(tmp_path, "memory") as store:
        responses, calls = asyncio.run(main(store))
        assert responses == 200 and calls < 100


def test_a_stream_with_another_bell_is_not_waited_for(store: Store) -> None:
    """A thread would wait for a bell that never rings: it is told so."""
    server = Server(store)
    with pytest.raises(TypeError, match="Served"):
        server.open().next(1)


def test_one_timer_tells_the_quiet_watches_of_all_streams(store: Store) -> None:
    """Those that want notices and had nothing since the last time, or the beginning; and never ahead of an event."""
    server = Server(store)
    streams = [server.open() for _ in range(10)]
    for stream in streams:
        stream.create(WatchRequest(b"quiet", progress_notify=True), 1)
        stream.create(WatchRequest(b"busy", progress_notify=True), 2)
        stream.create(WatchRequest(b"quiet"), 3)
    server.serve(30)
    hub = hub_of(store)
    while any(not watcher.live for watcher in hub._all_watchers()):
        pass  # the hub takes them
    hub.ask_quiet()
    told = server.serve(20)
    assert {said for _, said in told} == {(1, WatchResponse(1)), (2, WatchResponse(1))}
    store.put(b"busy")
    server.serve(10)
    hub.ask_quiet()
    told = server.serve(10)
    assert sorted(map(id, streams)) == sorted(id(stream) for stream, _ in told)
    assert {said for _, said in told} == {(1, WatchResponse(2))}
    for stream in streams:
        stream.close()
