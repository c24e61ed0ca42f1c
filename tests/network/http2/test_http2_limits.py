"""Floods: each is cut at its number, and what is ordinary traffic is not. Counted, never timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from kvstore.network.http2 import frames
from kvstore.network.http2.connection import ServerConnection
from kvstore.network.http2.frames import frame, settings
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import LIMITS, Bucket, Limits
from tests.network.http2.peers import (
    END,
    HEAD,
    REQUEST,
    Time,
    answering,
    client,
    continuation,
    data,
    headers,
    ping,
    priority,
    rst,
    said,
    server,
    window,
)

BLOCK = encode(REQUEST)
CALM = "GOAWAY {} ENHANCE_YOUR_CALM"


def odd() -> Iterator[int]:
    return count(1, 2)


def fed_until_dead(connection: ServerConnection, flood: Callable[[int], bytes], most: int) -> int:
    """How many pieces of a flood it takes until the connection is over."""
    for number in range(most):
        connection.receive(flood(number))
        if connection.dead:
            return number + 1
    raise AssertionError(f"{most} were not enough")


# --- one flood a line -------------------------------------------------------------------------------------------

CONTROL = LIMITS.control_frames_burst
FLOODS: dict[str, tuple[bytes, Callable[[int], bytes], int]] = {
    "SETTINGS": (b"", lambda number: settings(), CONTROL),
    "acknowledgements of SETTINGS": (b"", lambda number: frame(frames.SETTINGS, frames.ACK, 0), CONTROL),
    "PRIORITY": (b"", lambda number: priority(2 * number + 1), CONTROL),
    "unknown frames": (b"", lambda number: frame(0xEE, 0, 0, b"x" * 1000), CONTROL + 1),
    "GOAWAY": (b"", lambda number: frames.goaway(0, 0), CONTROL + 1),
    "empty DATA": (headers(1, BLOCK), lambda number: data(1), CONTROL + 1),
    "DATA that is all padding": (headers(1, BLOCK), lambda number: data(1, b"\1\0", flags=8), CONTROL + 1),
    "DATA for a stream that is over": (headers(1, BLOCK) + rst(1), lambda number: data(1, b"x"), CONTROL + 1),
    "WINDOW_UPDATE": (b"", lambda number: window(0, 1), LIMITS.window_updates_burst + 1),
    "WINDOW_UPDATE for a stream": (
        headers(1, BLOCK),
        lambda number: window(1, 1),
        LIMITS.window_updates_burst + 1,
    ),
    "CONTINUATION": (
        headers(1, b"", flags=0),
        lambda number: continuation(1, b"", last=False),
        LIMITS.header_block_frames + 1,
    ),
    "large CONTINUATION": (
        headers(1, b"", flags=0),
        lambda number: continuation(1, b"x" * 16_000, last=False),
        3,
    ),
    "rapid reset": (
        b"",
        lambda number: headers(2 * number + 1, BLOCK) + rst(2 * number + 1),
        LIMITS.resets_burst + 1,
    ),
    "malformed requests": (b"", lambda number: headers(2 * number + 1, REQUEST[1:]), LIMITS.resets_burst + 1),
    "streams that have themselves reset by window": (
        b"",
        lambda number: headers(2 * number + 1, BLOCK) + window(2 * number + 1, 0),
        LIMITS.resets_burst + 1,
    ),
    "streams that have themselves reset by DATA": (
        b"",
        lambda number: headers(2 * number + 1, BLOCK, end=True) + data(2 * number + 1, b"x"),
        LIMITS.resets_burst + 1,
    ),
    "PING": (b"", lambda number: ping(), LIMITS.ping_strikes + 1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_at_its_number(name: str) -> None:
    """So many at once and not one more, while the clock stands still; GOAWAY says why."""
    before, flood, expected = FLOODS[name]
    connection, recorder = server()
    connection.receive(before)
    assert abs(fed_until_dead(connection, flood, 20_000) - expected) <= 1
    assert said(connection.take())[-1].endswith("ENHANCE_YOUR_CALM")
    assert recorder.told[-1] == "closing"
    assert connection.streams == {}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_in_one_piece_is_answered_with_little(name: str) -> None:
    """All of it in one read: what is sent is bounded by what the limits let through, not by what came."""
    before, flood, expected = FLOODS[name]
    connection, _ = server()
    flooded = before + b"".join(flood(number) for number in range(expected + 5_000))
    connection.receive(flooded)
    assert connection.dead
    assert len(connection.take()) <= len(flooded) + (64 << 10)


@pytest.mark.parametrize(
    "name", ["SETTINGS", "PRIORITY", "unknown frames", "empty DATA", "rapid reset", "WINDOW_UPDATE"]
)
def test_the_same_at_its_rate_is_served(name: str) -> None:
    """Half of the burst each time the bucket has filled up: no end."""
    before, flood, expected = FLOODS[name]
    now = Time()
    connection, recorder = server(now=now)
    connection.receive(before)
    numbers = count()
    for _ in range(6):
        for _ in range(expected // 2):
            connection.receive(flood(next(numbers)))
        for stream in recorder.streams.values():
            connection.done_with(stream)
        now.seconds += 10
    assert not connection.dead


def test_a_bucket_fills_at_its_rate_and_no_higher_than_its_brim() -> None:
    """A burst, then so many a second; what a silence saves up is at most another burst."""
    now = Time()
    bucket = Bucket(10, 5, now)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    bucket = Bucket(10, 5, now)
    for _ in range(5):
        bucket.take()
    now.seconds += 0.25
    assert [bucket.take(), bucket.take(), bucket.take()] == [True, True, False]
    bucket = Bucket(10, 5, now)
    now.seconds += 3600
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]


# --- resets -----------------------------------------------------------------------------------------------------------


def test_resets_of_answered_streams_are_free() -> None:
    """A stream that was answered, or whose answer has begun: keep-alives and watches are ended like that."""
    connection, recorder = server()
    for stream_id, _ in zip(odd(), range(5_000), strict=False):
        connection.receive(headers(stream_id, BLOCK))
        connection.head(recorder.streams[stream_id], HEAD)
        connection.receive(rst(stream_id))
        connection.done_with(recorder.streams[stream_id])
    answering(connection, recorder)
    for stream_id in range(10_001, 12_001, 2):
        connection.receive(headers(stream_id, BLOCK, end=True) + rst(stream_id))
    assert not connection.dead
    assert connection.streams == {}


def test_a_reset_request_keeps_its_place_until_its_work_is_done() -> None:
    """A peer that resets what it asked cannot have more worked on than its limit."""
    connection, recorder = server(Limits(concurrent_streams=3))
    connection.receive(headers(1, BLOCK) + rst(1) + headers(3, BLOCK) + rst(3) + headers(5, BLOCK))
    connection.receive(headers(7, BLOCK))
    assert said(connection.take()) == ["RST_STREAM 7 REFUSED_STREAM"]
    connection.done_with(recorder.streams[1])
    connection.done_with(recorder.streams[1])
    connection.receive(headers(9, BLOCK) + headers(11, BLOCK))
    assert said(connection.take()) == ["RST_STREAM 11 REFUSED_STREAM"]
    assert list(recorder.streams) == [1, 3, 5, 9]


def test_work_may_be_done_before_the_handler_returns() -> None:
    """`done_with` from inside `reset` counts."""
    connection, recorder = server(Limits(concurrent_streams=1))
    recorder.on_reset = connection.done_with
    connection.receive(headers(1, BLOCK) + rst(1) + headers(3, BLOCK) + rst(3) + headers(5, BLOCK))
    assert said(connection.take()) == []
    assert list(recorder.streams) == [1, 3, 5]


def test_more_streams_than_allowed_are_refused_one_by_one() -> None:
    """Those that are open go on, the refused one's DATA is dropped, and there is room again when one has ended."""
    connection, recorder = server(Limits(concurrent_streams=2))
    connection.receive(headers(1, BLOCK) + headers(3, BLOCK) + headers(5, BLOCK) + data(5, b"x", end=True))
    assert said(connection.take()) == ["RST_STREAM 5 REFUSED_STREAM"]
    connection.receive(data(1, b"x", end=True))
    connection.answer(recorder.streams[1], HEAD, b"hello", END)
    connection.receive(headers(7, BLOCK))
    assert recorder.told == ["begin 1", "begin 3", "data 1 1 end", "begin 7"]


def test_the_table_follows_through_a_refused_request() -> None:
    """4.3: its block is decoded, so the next one may name what it brought."""
    connection, recorder = server(Limits(concurrent_streams=1))
    connection.receive(headers(1, BLOCK) + headers(3, BLOCK + b"\x40\x01x\x01y") + rst(1))
    connection.done_with(recorder.streams[1])
    connection.receive(headers(5, BLOCK + b"\xbe"))
    assert recorder.headers_of[5][-1] == (b"x", b"y")


# --- PING -------------------------------------------------------------------------------------------------------------


def test_pings_without_a_stream_are_answered_four_times() -> None:
    """What etcd does: four answers, and with the fourth GOAWAY "too_many_pings"."""
    now = Time()
    connection, _ = server(now=now)
    for _ in range(4):
        now.seconds += 60
        connection.receive(ping())
    out = connection.take()
    assert said(out) == ["PING ack"] * 4 + ["GOAWAY 0 ENHANCE_YOUR_CALM"]
    assert out.endswith(b"too_many_pings")


def test_pings_with_a_stream_may_come_every_five_seconds() -> None:
    """Clients of etcd ask every ten."""
    now = Time()
    connection, _ = server(now=now)
    connection.receive(headers(1, BLOCK))
    for _ in range(20):
        now.seconds += 5
        connection.receive(ping())
    assert not connection.dead
    for _ in range(3):
        now.seconds += 4.9
        connection.receive(ping())
    assert connection.dead


def test_pings_beside_answers_are_free() -> None:
    """Clients measure with them while data comes: what we sent since the last one takes all strikes back."""
    connection, recorder = server()
    answering(connection, recorder)
    connection.receive(ping() + ping() + ping())
    for stream_id, _ in zip(odd(), range(100), strict=False):
        connection.receive(headers(stream_id, BLOCK, end=True) + ping() + ping())
    assert not connection.dead
    connection.receive(ping() + ping())
    assert connection.dead


def test_a_client_answers_many_pings() -> None:
    """Servers measure with them too; only a flood is cut."""
    connection, _ = client()
    for _ in range(LIMITS.window_updates_burst):
        connection.receive(ping())
    assert not connection.dead
    connection.receive(ping())
    assert connection.dead


# --- memory -----------------------------------------------------------------------------------------------------------


def test_window_updates_are_free_while_data_waits() -> None:
    """They are what a slow reader has to send."""
    connection, recorder = server(first=settings((frames.INITIAL_WINDOW_SIZE, 0)))
    connection.receive(headers(1, BLOCK, end=True))
    connection.write(recorder.streams[1], b"x" * 30_000)
    for _ in range(20_000):
        connection.receive(window(1, 1))
    assert not connection.dead
    assert recorder.streams[1].queued_bytes == 10_000


def test_changing_windows_of_many_streams_costs_more() -> None:
    """SETTINGS that move ten thousand windows each are cut earlier than others."""
    connection, _ = server()
    for stream_id, _ in zip(odd(), range(10_000), strict=False):
        connection.receive(headers(stream_id, BLOCK))
    assert fed_until_dead(connection, lambda n: settings((frames.INITIAL_WINDOW_SIZE, n)), 1_000) < 25


def test_settings_of_thousands_are_cut_earlier() -> None:
    """A frame full of settings counts by its size."""
    connection, _ = server()
    many = settings(*[(frames.MAX_FRAME_SIZE, 16_384)] * 2_700)
    assert fed_until_dead(connection, lambda number: many, 100) == 1


def test_ids_of_streams_that_we_reset_are_few() -> None:
    """What is on its way to them is dropped, for the latest; older ones are streams that are over."""
    connection, recorder = server(Limits(remembered_streams=10))
    for stream_id, _ in zip(odd(), range(30), strict=False):
        connection.receive(headers(stream_id, BLOCK))
        connection.reset(recorder.streams[stream_id], frames.CANCEL)
    connection.take()
    connection.receive(data(59, b"x") + data(41, b"x"))
    assert said(connection.take()) == []
    connection.receive(data(39, b"x"))
    assert said(connection.take()) == ["RST_STREAM 39 STREAM_CLOSED"]


def test_an_unfinished_frame_is_all_that_is_kept() -> None:
    """No more than one frame waits, however it comes."""
    connection, _ = server()
    whole = headers(1, BLOCK) + data(1, b"x" * 16_384)
    connection.receive(whole * 0 + whole[:-1])
    assert len(connection._buffer) == 9 + 16_383
    connection.receive(whole[-1:])
    assert connection._buffer == b""
