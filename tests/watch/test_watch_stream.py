"""Many watches on one stream, in the shape of etcd's Watch RPC."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvstore
from kvstore.bell import Bell
from kvstore.model import WatchRequest, WatchResponse
from kvstore.store import Store
from kvstore.watch import WatchStream
from kvstore.watch.hub import Hub
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, hub_of, open_store, revisions, settle

EVERYTHING = WatchRequest(kvstore.FROM_KEY, kvstore.FROM_KEY)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


@pytest.fixture
def stream(store: Store) -> Iterator[WatchStream]:
    stream = store.engine.watch_stream()
    yield stream
    stream.close()


def following(stream: WatchStream) -> tuple[int, WatchResponse]:
    found = stream.next(TIMEOUT_SECONDS)
    assert found is not None, "the stream said nothing"
    return found


def nothing_more(stream: WatchStream) -> bool:
    """Whether the queue is empty behind a progress notice, behind which everything else would have come."""
    stream.request_progress()
    watch_id, response = following(stream)
    return watch_id == -1 and not response.events and stream.next(0) is None


def test_ids_are_drawn_from_0_and_skip_those_in_use(stream: WatchStream) -> None:
    """Watch id 0 in a request means "draw one"; the first drawn id is 0 itself, and it works."""
    assert [stream.create(EVERYTHING, wanted) for wanted in (0, 1, 7, 0, 0)] == [0, 1, 7, 2, 3]


def test_watch_id_0_gets_events_and_can_be_canceled(store: Store, stream: WatchStream) -> None:
    """Id 0 is an id as any other (etcd's clients once took it for "none")."""
    assert stream.create(EVERYTHING) == 0
    store.put(b"k", b"v")
    assert following(stream) == (0, WatchResponse(1, created=True))
    assert following(stream)[0] == 0
    assert stream.cancel(0)
    assert following(stream) == (0, WatchResponse(2, canceled=True))


def test_created_comes_before_the_events(store: Store, stream: WatchStream) -> None:
    """Each watch's first response says that it was created, then come its events."""
    store.put(b"k", b"v")
    for first in (1, 0):
        stream.create(EVERYTHING._replace(start_revision=first))
    store.put(b"k", b"w")
    firsts: dict[int, WatchResponse] = {}
    for _ in range(4):
        watch_id, response = following(stream)
        firsts.setdefault(watch_id, response)
    assert all(response.created for response in firsts.values())


@pytest.mark.parametrize(
    ("wanted", "watch_id", "reason"),
    [
        (WatchRequest(b"k", b"k"), 0, "mvcc: watcher range is empty"),
        (WatchRequest(b"k", b"a"), 0, "mvcc: watcher range is empty"),
        (
            WatchRequest(b"k", start_revision=-1),
            0,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (WatchRequest(b"k"), 5, "mvcc: duplicate watch ID provided on the WatchStream"),
        (WatchRequest(b"k", b"a"), 5, "mvcc: watcher range is empty"),
    ],
)
def test_a_refused_watch(stream: WatchStream, wanted: WatchRequest, watch_id: int, reason: str) -> None:
    """A watch that cannot be made is one response, with id -1 and etcd's reason; the stream stays usable."""
    stream.create(EVERYTHING, 5)
    following(stream)
    assert stream.create(wanted, watch_id) == -1
    refused = following(stream)
    assert refused == (-1, WatchResponse(1, canceled=True, cancel_reason=reason, created=True))
    assert stream.create(EVERYTHING) == 0


def test_cancel(store: Store, stream: WatchStream) -> None:
    """After its canceled response a watch says nothing; an unknown id is answered with nothing."""
    stream.create(EVERYTHING, 1)
    stream.create(EVERYTHING, 2)
    assert stream.cancel(1)
    assert not stream.cancel(1)
    assert not stream.cancel(99)
    store.put(b"k", b"v")
    seen = [following(stream) for _ in range(4)]
    assert [(watch_id, response.canceled) for watch_id, response in seen] == [
        (1, False),
        (2, False),
        (1, True),
        (2, False),
    ]
    assert nothing_more(stream)


def test_an_id_that_a_compaction_ended_stays_taken_until_it_is_canceled(
    store: Store, stream: WatchStream
) -> None:
    """As in etcd: the canceled response has revision 0 and no reason, and a cancel is answered once more."""
    for _ in range(4):
        store.put(b"k", b"v")
    store.compact(4)
    stream.create(EVERYTHING._replace(start_revision=2), 9)
    assert following(stream)[1].created
    assert following(stream) == (9, WatchResponse(0, canceled=True, compact_revision=4))
    assert stream.create(EVERYTHING, 9) == -1
    following(stream)
    assert stream.cancel(9)
    assert following(stream)[1].canceled
    assert not stream.cancel(9)
    assert stream.create(EVERYTHING, 9) == 9


def test_watches_of_a_stream_are_independent(store: Store, stream: WatchStream) -> None:
    """Each gets its own events in order, whether it catches up or is live."""
    for number in range(10):
        store.put(b"k%d" % (number % 2), b"v")
    settle(store)
    stream.create(WatchRequest(b"k0", start_revision=1), 1)
    stream.create(WatchRequest(b"k1", start_revision=5), 2)
    stream.create(EVERYTHING, 3)
    for number in range(10):
        store.put(b"k%d" % (number % 2), b"v")
    seen: dict[int, list[int]] = {1: [], 2: [], 3: []}
    while sum(map(len, seen.values())) < 10 + 9 + 10:
        watch_id, response = following(stream)
        seen[watch_id] += revisions(response.events)
    assert seen == {
        1: [*range(2, 22, 2)],
        2: [*range(5, 22, 2)],
        3: [*range(12, 22)],
    }


def test_many_watches_catch_up_together(store: Store, stream: WatchStream) -> None:
    """Watches that come back at one revision share what is read, and each gets its own events only."""
    for number in range(300):
        store.put(b"k%02d" % (number % 30), b"v")
        if number % 10 == 9:
            store.delete(b"k%02d" % (number % 30))
    settle(store)
    requests = [WatchRequest(b"k%02d" % number, start_revision=2) for number in range(30)]
    requests += [
        WatchRequest(b"k1", b"k2", 2),
        EVERYTHING._replace(start_revision=2),
        WatchRequest(b"x", b"y", 2),
    ]
    ids = [stream.create(request) for request in requests]
    stream.request_progress()
    seen: dict[int, list[tuple[bytes, int]]] = {watch_id: [] for watch_id in ids}
    while True:
        watch_id, response = following(stream)
        if watch_id == -1:
            break
        seen[watch_id] += [(event.kv.key, event.kv.mod_revision) for event in response.events]
    everything = seen[ids[31]]
    assert [revision for _, revision in everything] == list(range(2, 332))
    assert seen[ids[32]] == []
    assert seen[ids[30]] == [change for change in everything if change[0].startswith(b"k1")]
    for number in range(30):
        assert seen[ids[number]] == [change for change in everything if change[0] == b"k%02d" % number]


def test_manual_progress_waits_until_every_watch_has_caught_up(store: Store, stream: WatchStream) -> None:
    """A progress notice with id -1 comes behind the events of all watches of the stream."""
    for _ in range(300):
        store.put(b"k", b"v")
    settle(store)
    stream.create(EVERYTHING._replace(start_revision=1), 1)
    stream.create(EVERYTHING, 2)
    stream.request_progress()
    events = 0
    while True:
        watch_id, response = following(stream)
        events += len(response.events)
        if watch_id == -1:
            break
    assert (events, response) == (300, WatchResponse(301))


def test_progress_of_a_stream_without_watches_is_not_answered(stream: WatchStream) -> None:
    """There is nothing to say."""
    stream.request_progress()
    assert stream.next(0.01) is None


def test_progress_waits_for_a_future_watch(store: Store, stream: WatchStream) -> None:
    """No notice speaks of a revision below a watch's start."""
    stream.create(EVERYTHING._replace(start_revision=5))
    following(stream)
    stream.request_progress()
    for _ in range(5):
        store.put(b"k", b"v")
    told: list[int] = []
    seen: list[int] = []
    while not told or len(seen) < 2:
        watch_id, response = following(stream)
        seen += revisions(response.events)
        told += [response.revision] if watch_id == -1 else []
    assert min(told) >= 4
    assert seen == [5, 6]


def test_periodic_progress(tmp_path: Path) -> None:
    """A quiet watch with progress_notify is told from time to time up to where everything has come."""
    with open_store(tmp_path, "lmdb", watch_progress_notify_interval_seconds=0.01) as store:
        stream = store.engine.watch_stream()
        stream.create(WatchRequest(b"quiet", progress_notify=True), 4)
        stream.create(WatchRequest(b"quiet"), 5)
        store.put(b"other", b"v")
        following(stream), following(stream)
        told = following(stream)
        while told[1].revision < 2:
            told = following(stream)
        assert told == (4, WatchResponse(2))


def test_close_wakes_whoever_waits(stream: WatchStream) -> None:
    """A consumer that waits on a stream gets WatchCanceled when it is closed; so does a later one."""
    stream.create(EVERYTHING)
    following(stream)
    closer = threading.Timer(0.05, stream.close)
    closer.start()
    with pytest.raises(kvstore.WatchCanceled):
        stream.next(TIMEOUT_SECONDS)
    closer.join()
    with pytest.raises(kvstore.WatchCanceled):
        stream.create(EVERYTHING)


def test_cancel_and_close_may_race(store: Store) -> None:
    """Watches made, canceled and closed from many threads beside a writer leave nothing behind."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.put(b"k", b"v")

    failures: list[BaseException] = []

    def churn(seed: int) -> None:
        try:
            for _ in range(15):
                stream = store.watch_stream()
                ids = [stream.create(EVERYTHING._replace(start_revision=seed % 3)) for _ in range(3)]
                enders = [threading.Thread(target=stream.cancel, args=(ident,)) for ident in ids]
                enders.append(threading.Thread(target=stream.close))
                for ender in enders:
                    ender.start()
                for ender in enders:
                    ender.join()
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in [writer, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    writer.join()
    assert failures == []
    assert hub_of(store).watchers == 0
    assert len(hub_of(store)._index) == 0


@contextmanager
def stopped(hub: Hub) -> Iterator[None]:
    """Inside, the hub's thread delivers nothing."""
    begun, go_on = Bell(), Bell()

    def stop(_: object) -> None:
        begun.ring()
        go_on.wait(TIMEOUT_SECONDS)

    hub._ask(stop, None)
    assert begun.wait(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        go_on.ring()


def test_a_live_watch_gets_all_that_is_new_as_one_response(store: Store, stream: WatchStream) -> None:
    """Revisions that wait together for the hub's thread are handed out together, whole; nobody waits for more."""
    stream.create(EVERYTHING)
    following(stream)
    with stopped(hub_of(store)):
        tickets = [store.put_nowait(b"k%d" % number, b"v") for number in range(40)]
        store.txn(success=[kvstore.ops.put(b"t%d" % number) for number in range(100)])
        assert all(ticket.is_done() for ticket in tickets)
    sizes: list[int] = []
    last = 1
    while sum(sizes) < 140:
        _, response = following(stream)
        got = revisions(response.events)
        assert got[0] == last + 1 and got[-1] == response.revision
        sizes.append(len(got))
        last = response.revision
    assert sizes == [40, 100]


def test_a_watch_that_begins_amid_a_piece_gets_only_its_part(store: Store, stream: WatchStream) -> None:
    """Two watches of one span share what is routed; one of them wants only the end of it."""
    stream.create(EVERYTHING, 1)
    stream.create(EVERYTHING._replace(start_revision=20), 2)
    stream.create(EVERYTHING._replace(start_revision=12, start_sub=1, no_delete=True), 3)
    stream.create(EVERYTHING._replace(start_revision=42), 4)
    with stopped(hub_of(store)):
        for number in range(30):
            ticket = store.put_nowait(b"k%d" % number, b"v")
        store.wait(ticket)
    seen: dict[int, list[int]] = {1: [], 2: [], 3: [], 4: []}
    while len(seen[1]) < 30 or len(seen[2]) < 12 or len(seen[3]) < 19:
        watch_id, response = following(stream)
        seen[watch_id] += revisions(response.events)
    assert seen == {1: [*range(2, 32)], 2: [*range(20, 32)], 3: [*range(13, 32)], 4: []}
