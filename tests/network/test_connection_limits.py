"""What one connection may have waiting, how long it may do nothing, and how many there may be."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network import limits
from kvstore.network import server as server_module
from kvstore.network.grpc import framed
from kvstore.network.http2.frames import INITIAL_WINDOW_SIZE, PREFACE, settings
from kvstore.network.http2.limits import LIMITS
from tests.network.http2.peers import data, headers
from tests.network.served_store import PUT, RANGE, WATCH, Served, block, get, is_cut, until
from tests.network.wire import Answer, Wire

CLOSED_WINDOWS = replace(LIMITS, stream_window_bytes=10)
"""Of a client that takes no answer. (Its connection's window has no say: the streams' are closed.)"""
VALUE = b"v" * 100_000


@pytest.fixture
def big(served: Served) -> Served:
    served.store.put(b"k", VALUE)
    return served


def open_windows(wire: Wire) -> None:
    """Let the server send."""
    for stream in wire.http2.streams.values():
        stream.receive_window += 1 << 20
    wire.http2.out.append(settings((INITIAL_WINDOW_SIZE, CLOSED_WINDOWS.stream_window_bytes + (1 << 20))))
    wire.flush()


def ask(wire: Wire, count: int) -> list[Answer]:
    return [wire.begin(RANGE, get(b"k"), ended=True) for _ in range(count)]


def statuses(wire: Wire, answers: list[Answer]) -> list[str | None]:
    """How each has ended."""
    wire.read(lambda: all(answer.status is not None for answer in answers))
    return ["whole" if answer.status == 0 else answer.text for answer in answers]


def test_no_request_is_begun_while_too_many_answers_wait(
    big: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many bytes wait and few more; the requests wait too, and are served when the client takes what is there."""
    monkeypatch.setattr(limits, "ANSWER_BYTES", 3 * len(VALUE))
    slow, other = big.connect(CLOSED_WINDOWS), big.connect()
    answers = ask(slow, 50)
    until(lambda: big.budget.answer_bytes > 3 * len(VALUE))
    assert other.call(RANGE, get(b"k"))
    assert big.budget.answer_bytes < 5 * len(VALUE)
    open_windows(slow)
    assert statuses(slow, answers) == ["whole"] * 50
    until(lambda: big.budget.answer_bytes == 0)


def test_more_requests_than_may_wait_are_refused(big: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """With REFUSED_STREAM, by which a client knows that they were not looked at."""
    monkeypatch.setattr(limits, "ANSWER_BYTES", 3 * len(VALUE))
    monkeypatch.setattr(limits, "QUEUED_REQUESTS", 20)
    monkeypatch.setattr(limits, "TURN_SECONDS", 60.0)  # those that wait only for their turn are not refused
    slow = big.connect(CLOSED_WINDOWS)
    answers = ask(slow, 50)
    slow.read(lambda: any(answer.status is not None for answer in answers))
    open_windows(slow)
    found = statuses(slow, answers)
    assert found.count("reset with 7") == 50 - 3 - 20
    assert found.count("whole") == 23
    assert all(answer.stream.unprocessed for answer in answers if answer.status)  # type: ignore[union-attr]


def test_a_conversation_waits_too(big: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep-alives of a client that takes nothing are not answered without end: they wait, and are answered in order."""
    monkeypatch.setattr(limits, "ANSWER_BYTES", 3 * len(VALUE))
    grant = pb.LeaseGrantRequest(TTL=1000).SerializeToString()
    lease = pb.LeaseGrantResponse.FromString(big.connect().call("/etcdserverpb.Lease/LeaseGrant", grant)).ID
    slow = big.connect(CLOSED_WINDOWS)
    ask(slow, 4)
    until(lambda: big.budget.answer_bytes > 3 * len(VALUE))
    message = pb.LeaseKeepAliveRequest(ID=lease).SerializeToString()
    alive = slow.begin("/etcdserverpb.Lease/LeaseKeepAlive", message, ended=False)
    for _ in range(20):
        slow.send(alive, message)
    slow.half_close(alive)
    until(lambda: big.budget.request_bytes > 20 * len(message))
    open_windows(slow)
    assert [pb.LeaseKeepAliveResponse.FromString(slow.next(alive)).ID for _ in range(21)] == [lease] * 21
    until(lambda: big.budget.request_bytes == 0)


def test_all_answers_together_are_bounded(big: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, connections wait that owe more than a little; those that owe nothing go on."""
    monkeypatch.setattr(limits, "ALL_ANSWER_BYTES", 10 * len(VALUE))
    greedy = [big.connect(CLOSED_WINDOWS) for _ in range(8)]
    asked = [ask(each, 20) for each in greedy]
    until(lambda: big.budget.answer_bytes > 10 * len(VALUE))
    for _ in range(20):
        assert big.answers()
    assert big.budget.answer_bytes < (10 + 1 + 8) * len(VALUE)
    for wire, answers in zip(greedy, asked, strict=True):
        open_windows(wire)
        assert statuses(wire, answers) == ["whole"] * 20


def test_requests_of_one_connection_leave_time_for_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came in one piece is served in turns, all of it."""
    monkeypatch.setattr(limits, "TURN_SECONDS", 0.0)
    wire = served.connect()
    puts = []
    for number in range(50):
        message = pb.PutRequest(key=b"k", value=b"%d" % number).SerializeToString()
        stream = wire.http2.request(block(PUT))
        stream.owner = answer = Answer()
        wire.http2.write(stream, framed(message), end=True)
        puts.append(answer)
    wire.flush()
    wire.read(lambda: all(answer.status == 0 for answer in puts))
    revisions = [pb.PutResponse.FromString(answer.messages[0]).header.revision for answer in puts]
    assert sorted(revisions) == list(range(2, 52))


def test_who_takes_nothing_is_closed(big: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while in which something waits and none of it is taken. Who owes us nothing may be silent."""
    monkeypatch.setattr(limits, "WRITE_STALL_SECONDS", 0.2)
    quiet, stuck = big.connect(), big.raw(PREFACE + settings((INITIAL_WINDOW_SIZE, 10)))
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w")).SerializeToString()
    watch = quiet.begin(WATCH, create, ended=False)
    assert pb.WatchResponse.FromString(quiet.next(watch)).created
    stuck.sendall(headers(1, block(RANGE)) + data(1, framed(get(b"k")), end=True))
    assert is_cut(stuck)
    big.store.put(b"w", b"1")
    assert pb.WatchResponse.FromString(quiet.next(watch)).events
    until(lambda: big.budget.answer_bytes == 0)


# --- how many, and how long ------------------------------------------------------------------------


@pytest.fixture
def few(store: kvstore.Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that has room for two connections."""
    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    opened = Served(store)
    yield opened
    opened.close()


def test_no_more_connections_are_accepted_than_there_may_be(few: Served) -> None:
    """One more waits, and is served when another has gone."""
    first, second = few.connect(), few.connect()
    assert first.call(RANGE, get(b"k")) and second.call(RANGE, get(b"k"))
    third = few.connect()
    answer = third.begin(RANGE, get(b"k"), ended=True)
    assert second.call(RANGE, get(b"k"))
    assert len(few.server.connections) == 2
    first.close()
    assert third.next(answer)


def test_connections_leave_descriptors_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many the limit allows, the process keeps some of its file descriptors."""
    for soft, expected in ((1024, 924), (50, 1), (1 << 20, limits.CONNECTIONS), (-1, limits.CONNECTIONS)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert server_module.max_connections() == expected


def test_who_says_nothing_is_closed(store: kvstore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that does not show what it speaks."""
    monkeypatch.setattr(limits, "PREFACE_SECONDS", 0.1)
    served = Served(store)
    try:
        assert is_cut(served.raw(b""))
        assert is_cut(served.raw(b"PRI * HTT"))
        assert served.answers()
    finally:
        served.close()


@pytest.fixture
def keen(store: kvstore.Store) -> Iterator[Served]:
    """A server that wants to hear from its clients."""
    opened = Served(store, keepalive_interval_seconds=0.1, keepalive_timeout_seconds=0.3)
    yield opened
    opened.close()


def test_a_client_that_is_gone_without_a_word_is_closed(keen: Served) -> None:
    """It does not answer the PING. One that does stays, for as long as it likes."""
    there = keen.connect()
    assert there.call(RANGE, get(b"k"))
    gone = threading.Thread(target=is_cut, args=(keen.raw(),))
    gone.start()
    there.read(lambda: not gone.is_alive())
    assert there.call(RANGE, get(b"k"))


def test_the_number_of_streams_is_a_setting(store: kvstore.Store) -> None:
    """One stream more than ``max_concurrent_streams`` is refused."""
    served = Served(store, max_concurrent_streams=2)
    try:
        wire = served.connect()
        assert wire.call(RANGE, get(b"k"))
        assert wire.http2._streams_max == 2
        watches = [wire.begin(WATCH, None, ended=False) for _ in range(2)]
        wire.http2._streams_max = 3
        refused = wire.begin(RANGE, get(b"k"), ended=True)
        assert statuses(wire, [refused]) == ["reset with 7"]
        assert all(watch.status is None for watch in watches)
    finally:
        served.close()


def test_how_often_a_client_may_ping_is_a_setting(store: kvstore.Store) -> None:
    """``keepalive_min_time_seconds``: with an open stream, pings that far apart are welcome, closer ones end it."""
    for seconds, is_welcome in ((0.0, True), (5.0, False)):
        served = Served(store, keepalive_min_time_seconds=seconds)
        try:
            wire = served.connect()
            pings: list[bytes] = []
            wire.http2.handler.pong = pings.append
            wire.begin(WATCH, None, ended=False)
            for _ in range(10):
                wire.http2.ping(b"12345678")
            wire.flush()
            wire.read(lambda pings=pings: len(pings) == 10)
            assert (len(pings) == 10) == is_welcome
            assert wire.is_over != is_welcome
        finally:
            served.close()
