"""Many watches of one client on few streams: what one of them does is nothing to the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

import kvstore
from kvstore.errors import Compacted, KVStoreError, Unauthenticated
from kvstore.network.remote.watch_link import WATCHES_A_STREAM
from kvstore.store import Store
from tests.harness.checkers.watch_validators import WatchRequest
from tests.harness.cutting_proxy import Fault
from tests.harness.watching import TIMEOUT_SECONDS
from tests.remote.guarded import BOB, Guarded
from tests.remote.watched import (
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


@pytest.fixture
def present(tmp_path: Path) -> Iterator[tuple[Store, Elsewhere]]:
    with served(tmp_path) as opened:
        yield opened


def streams_of(remote: Store) -> int:
    return len(engine_of(remote)._client._streams)


def events_until(watch: Any, revision: int) -> list[Any]:
    return [event for response in read_until(watch, revision) for event in response.events]


def test_watches_share_streams(present: tuple[Store, Elsewhere]) -> None:
    """A hundred on each; each gets its own events; a stream that nobody watches any more is closed."""
    store, elsewhere = present
    remote = elsewhere.connect()
    watches = [remote.watch(b"k%d" % number) for number in range(2 * WATCHES_A_STREAM + 1)]
    until(lambda: store.status().watchers == len(watches))
    assert streams_of(remote) == store.status().watch_streams == 3
    for number in range(len(watches)):
        store.put(b"k%d" % number, b"v")
    for number, watch in enumerate(watches):
        assert watch.get(TIMEOUT_SECONDS).kv.key == b"k%d" % number
    for watch in watches:
        watch.close()
    until(lambda: store.status().watch_streams == streams_of(remote) == 0)


def test_room_on_a_stream_is_taken_again(present: tuple[Store, Elsewhere]) -> None:
    """Watches that come and go beside some that stay do not open more and more streams."""
    _, elsewhere = present
    remote = elsewhere.connect()
    watches = [remote.watch(b"k", start_revision=1) for _ in range(WATCHES_A_STREAM)]
    with remote.watch(b"k", start_revision=1):
        until(lambda: streams_of(remote) == 2)
    for _ in range(WATCHES_A_STREAM // 2):
        watches.pop(0).close()
    watches += [remote.watch(b"k", start_revision=1) for _ in range(WATCHES_A_STREAM // 2)]
    until(lambda: streams_of(remote) == 1)
    remote.get(b"k")
    assert streams_of(remote) == 1


def test_a_watch_that_is_not_read_stops_no_other(present: tuple[Store, Elsewhere]) -> None:
    """Its buffer fills, and it is stopped at the server; the others of its stream go on, and it misses nothing."""
    store, elsewhere = present
    remote = elsewhere.connect(watch_buffer=20_000)
    unread, read = remote.watch(b"k"), remote.watch(b"k")
    for number in range(300):
        store.put(b"k", b"%d" % number + b"." * 1000)
        assert read.get(TIMEOUT_SECONDS).kv.value.startswith(b"%d." % number)
    assert streams_of(remote) == 1
    until(lambda: store.status().watchers == 1)
    assert [event.kv.mod_revision for event in events_until(unread, store.revision)] == [*range(2, 302)]


def test_who_asks_for_progress_gets_a_stream_of_its_own(present: tuple[Store, Elsewhere]) -> None:
    """The answer speaks of a whole stream. Its events and those of its neighbours come once, before and after."""
    store, elsewhere = present
    remote = elsewhere.connect()
    asking, other = (remote.watch(b"k", start_revision=1) for _ in range(2))
    until(lambda: store.status().watchers == 2)
    for number in range(20):
        store.put(b"k", b"%d" % number)
        asking.request_progress()
    events: list[Any] = []
    while (response := asking.get_response(TIMEOUT_SECONDS)).events or response.revision < store.revision:
        events += response.events
    assert streams_of(remote) == store.status().watch_streams == 2
    assert store.status().watchers == 2
    store.put(b"k", b"last")
    events.append(asking.get(TIMEOUT_SECONDS))
    assert events == events_until(other, store.revision)
    assert [event.kv.mod_revision for event in events] == [*range(2, 23)]


def test_an_answer_that_is_too_large_ends_one_watch(present: tuple[Store, Elsewhere]) -> None:
    """The stream ends with an error; whose it is shows when each goes on alone."""
    store, elsewhere = present
    remote = elsewhere.connect(max_message_bytes=10_000)
    small = [remote.watch(b"small") for _ in range(3)]
    large = remote.watch(b"large")
    store.put(b"large", b"v" * 20_000)
    with pytest.raises(KVStoreError, match="max_message_bytes"):
        large.get(TIMEOUT_SECONDS)
    for number in range(3):
        store.put(b"small", b"%d" % number)
        assert [watch.get(TIMEOUT_SECONDS).kv.value for watch in small] == [b"%d" % number] * 3


def test_a_compaction_ends_one_watch(present: tuple[Store, Elsewhere]) -> None:
    """The one that is behind it."""
    store, elsewhere = present
    for number in range(9):
        store.put(b"k", b"%d" % number)
    store.compact(8)
    remote = elsewhere.connect()
    new = remote.watch(b"k")
    with remote.watch(b"k", start_revision=2) as old, pytest.raises(Compacted):
        old.get(TIMEOUT_SECONDS)
    store.put(b"k", b"new")
    assert new.get(TIMEOUT_SECONDS).kv.value == b"new"
    assert streams_of(remote) == 1


def test_watches_of_a_shared_stream_keep_their_promises_while_connections_fail(
    present: tuple[Store, Elsewhere],
) -> None:
    """Some with small buffers, some that ask for progress: the nine judges find nothing in any."""
    store, elsewhere = present
    remote, random = elsewhere.connect(watch_buffer=3_000), Random(7)
    all_filters: list[list[Literal["put", "delete"]]] = [[], [], ["delete"], ["put"], [], []]
    requests = [
        WatchRequest(b"\0", b"\0", 2, prev_kv=bool(number % 2), filters=frozenset(filters))
        for number, filters in enumerate(all_filters)
    ]
    recorders = [
        Recorder(
            remote.watch(
                request.key,
                request.range_end,
                start_revision=2,
                prev_kv=request.prev_kv,
                no_delete="delete" in request.filters,
                no_put="put" in request.filters,
            )
        )
        for request in requests
    ]
    for round_ in range(12):
        elsewhere.proxy.plan(
            Fault("down", random.randrange(100, 5000)), Fault("up", random.randrange(30, 600))
        )
        write_some(store, 20, round_)
        random.choice(recorders[-2:]).watch.request_progress()
        elsewhere.proxy.cut("reset" if round_ % 2 else "cut")
    store.txn([], [kvstore.ops.put(b"a", b"last"), kvstore.ops.delete(b"b"), kvstore.ops.put(LAST_KEY, b"")])
    store.delete(LAST_KEY)
    log = log_of(store)
    for request, recorder in zip(requests, recorders, strict=True):
        last = store.revision - ("delete" in request.filters)
        assert judged(log, request, recorder.up_to(last)) == []


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    opened = Guarded(tmp_path)
    yield opened
    opened.close()


def test_a_watch_that_nobody_may_create_ends_alone(guarded: Guarded) -> None:
    """Users come later: who has none gets no new watch, and keeps those that it has."""
    remote = guarded.elsewhere.connect()
    with remote.watch(b"a") as before, remote.watch(b"b", start_revision=1) as also:
        until(lambda: guarded.store.status().watchers == 2)
        guarded.enable_users()
        with remote.watch(b"a", start_revision=1) as late, pytest.raises(Unauthenticated):
            late.get(TIMEOUT_SECONDS)
        for key, watch in ((b"a", before), (b"b", also)):
            guarded.store.put(key, b"1")
            assert watch.get(TIMEOUT_SECONDS).kv.value == b"1"


def test_a_watch_that_is_refused_for_its_token_is_created_with_another(guarded: Guarded) -> None:
    """A watch is refused for it: the client gets another, and all watches go on with that, without loss."""
    guarded.enable_users()
    remote = guarded.elsewhere.connect(**BOB)
    with remote.watch(b"a") as first:
        until(lambda: guarded.store.status().watchers == 1)
        guarded.forget_tokens()
        with remote.watch(b"a", start_revision=1) as second:
            for number in range(3):
                guarded.store.put(b"a", b"%d" % number)
                assert first.get(TIMEOUT_SECONDS).kv.value == b"%d" % number
                assert second.get(TIMEOUT_SECONDS).kv.value == b"%d" % number
        assert streams_of(remote) == 1
