"""Large ranges over the wire: whole, in little memory, in turns with everything else, ended where they cannot go on."""

from __future__ import annotations

import time

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.mvcc import pages
from kvstore.network import limits
from tests.network.served_store import RANGE, WATCH, Served, get, until
from tests.network.wire import Refused

EVERYTHING = pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
VALUE = bytes(range(256)) * 400


def fill(store: kvstore.Store, count: int) -> None:
    for number in range(0, count, 10):
        store.txn(success=[kvstore.ops.put(b"%05d" % (number + each), VALUE) for each in range(10)])


def key_values(message: bytes) -> list[tuple[bytes, bytes]]:
    return [(kv.key, kv.value) for kv in pb.RangeResponse.FromString(message).kvs]


@pytest.mark.parametrize("kept_bytes", [0, pages.KEPT_BYTES])
def test_a_large_range_arrives_whole(
    store: kvstore.Store, served: Served, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    """What the library says, byte for byte, whether its pages are kept or read again."""
    monkeypatch.setattr(pages, "KEPT_BYTES", kept_bytes)
    fill(store, 60)
    wire = served.connect()
    found = pb.RangeResponse.FromString(wire.call(RANGE, EVERYTHING))
    assert [(kv.key, kv.value) for kv in found.kvs] == [
        (kv.key, kv.value) for kv in store.range(b"\0", b"\0").kvs
    ]
    assert found.count == 60 and not found.more
    assert found.header.revision == store.revision
    until(lambda: served.budget.answer_bytes == 0)


def test_a_large_range_in_another_order_arrives_whole(store: kvstore.Store, served: Served) -> None:
    """A sorted one is kept, and sent in pages all the same."""
    fill(store, 40)
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", sort_order="DESCEND", sort_target="KEY", limit=30)
    found = pb.RangeResponse.FromString(served.connect().call(RANGE, request.SerializeToString()))
    assert [kv.key for kv in found.kvs] == [b"%05d" % number for number in range(39, 9, -1)]
    assert found.count == 40 and found.more


def test_a_client_that_does_not_read_costs_a_page(
    store: kvstore.Store, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of answers of 10 MB, that and what waits for the socket. Others are served meanwhile; then they are read."""
    monkeypatch.setattr(pages, "KEPT_BYTES", 0)
    fill(store, 100)
    slow, other = served.connect(), served.connect()
    answers = [slow.begin(RANGE, EVERYTHING, ended=True) for _ in range(5)]
    waiting_bytes = []
    for number in range(50):
        assert key_values(other.call(RANGE, get(b"%05d" % number)))
        waiting_bytes.append(served.budget.answer_bytes)
        time.sleep(0.01)
    assert max(waiting_bytes) < limits.WRITE_BUFFER_BYTES + 5 * (limits.PAGED_BYTES + 2 * len(VALUE))
    for answer in answers:
        assert len(key_values(slow.next(answer))) == 100


def test_a_watch_is_heard_between_the_pages(store: kvstore.Store, served: Served) -> None:
    """On the same connection, while large answers fill its window: an event does not wait for their end."""
    fill(store, 100)
    wire = served.connect()
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w"))
    watch = wire.begin(WATCH, create.SerializeToString(), ended=False)
    assert pb.WatchResponse.FromString(wire.next(watch)).created
    answers = [wire.begin(RANGE, EVERYTHING, ended=True) for _ in range(5)]
    wire.read(lambda: any(answer.data for answer in answers))
    store.put(b"w", b"1")
    assert pb.WatchResponse.FromString(wire.next(watch)).events[0].kv.value == b"1"
    assert not all(answer.messages for answer in answers)
    for answer in answers:
        assert len(key_values(wire.next(answer))) >= 100


def test_a_compaction_ends_an_answer_under_way(
    store: kvstore.Store, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can no longer be read is not made up: the stream is reset with INTERNAL_ERROR, the connection goes on."""
    monkeypatch.setattr(pages, "KEPT_BYTES", 0)
    fill(store, 100)
    wire = served.connect()
    answer = wire.begin(RANGE, EVERYTHING, ended=True)
    wire.read(lambda: answer.data)
    store.delete(prefix=b"")
    store.compact(store.revision)
    with pytest.raises(Refused, match="reset with 2"):
        wire.next(answer)
    assert key_values(wire.call(RANGE, EVERYTHING)) == []


def test_a_client_that_gives_up_leaves_nothing_behind(store: kvstore.Store, served: Served) -> None:
    """Kept pages of a canceled call, and of a connection that is gone, no longer count."""
    fill(store, 60)
    wire, gone = served.connect(), served.connect()
    for each in (wire, gone):
        answer = each.begin(RANGE, EVERYTHING, ended=True)
        each.read(lambda answer=answer: answer.data)
    until(lambda: served.budget.answer_bytes > 60 * len(VALUE))
    assert answer.stream is not None
    wire.http2.reset(next(iter(wire.http2.streams.values())), 8)
    wire.flush()
    gone.close()
    until(lambda: served.budget.answer_bytes == 0)
    assert len(key_values(wire.call(RANGE, EVERYTHING))) == 60


def test_an_answer_that_nobody_reads_does_not_hold_up_a_stop(store: kvstore.Store) -> None:
    """The server ends after its grace, and what was under way with it."""
    fill(store, 100)
    served = Served(store)
    served.connect().begin(RANGE, EVERYTHING, ended=True)
    until(lambda: served.budget.answer_bytes)
    served.stop(0.1)
    assert not served.server.connections
    assert served.budget.answer_bytes == 0
    served.close()


def test_long_ranges_are_read_through_few_at_a_time_and_while_there_is_room(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many that a client does not read, few are kept; a client that reads does not wait behind them."""
    monkeypatch.setattr(limits, "ANSWER_BYTES", 1 << 20)
    fill(served.store, 30)
    slow, other = served.connect(), served.connect()
    answers = [slow.begin(RANGE, EVERYTHING, ended=True) for _ in range(20)]
    until(lambda: served.budget.answer_bytes > 1 << 20)
    assert len(key_values(other.call(RANGE, EVERYTHING))) == 30
    kept_bytes = 30 * (len(VALUE) + 100)
    page_bytes = pages.FIRST_PAGE_ROWS * len(VALUE)
    most_bytes = (
        (1 << 20) + limits.WRITE_BUFFER_BYTES + (1 + limits.PAGED_THREADS) * (kept_bytes + page_bytes)
    )
    for answer in answers:
        assert served.budget.answer_bytes < most_bytes
        assert len(key_values(slow.next(answer))) == 30
