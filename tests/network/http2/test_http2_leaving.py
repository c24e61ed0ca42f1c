"""Ends of connections: leaving without losing a request, and what a client then knows of its own."""

from __future__ import annotations

import pytest

from kvstore.network.http2 import frames
from kvstore.network.http2.connection import CannotRequest, ClientConnection, ServerConnection
from kvstore.network.http2.frames import goaway, settings
from kvstore.network.http2.hpack import encode
from tests.network.http2.peers import (
    END,
    HEAD,
    REQUEST,
    Recorder,
    answering,
    client,
    data,
    exchange,
    headers,
    ping,
    rst,
    said,
    server,
)

BLOCK = encode(REQUEST)
ALL = frames.MAX_31_BITS


# --- a server leaves ------------------------------------------------------------------------------------------------


def test_a_server_that_drains_serves_what_crosses_its_goaway() -> None:
    """GOAWAY of 2^31-1 and PING first; the real id when the PING is back; `closing` after the last answer."""
    connection, recorder = server()
    connection.receive(headers(1, BLOCK, end=True))
    connection.drain()
    out = connection.take()
    assert said(out) == [f"GOAWAY {ALL} NO_ERROR", "PING"]
    connection.receive(headers(3, BLOCK, end=True) + ping(out[-8:], frames.ACK))
    assert said(connection.take()) == ["GOAWAY 3 NO_ERROR"]
    connection.receive(headers(5, BLOCK, end=True))
    assert said(connection.take()) == ["RST_STREAM 5 REFUSED_STREAM"]
    connection.answer(recorder.streams[1], HEAD, b"one", END)
    assert "closing" not in recorder.told
    connection.answer(recorder.streams[3], HEAD, b"three", END)
    assert recorder.told == ["begin 1 end", "begin 3 end", "closing"]
    assert not connection.dead


def test_a_peer_that_never_asked_cannot_make_us_leave() -> None:
    """The answer to a PING that was not sent is just that."""
    connection, _ = server()
    connection.drain()
    payload = connection.take()[-8:]
    other, told = server()
    other.receive(ping(payload, frames.ACK))
    assert said(other.take()) == []
    assert told.told == [f"pong {payload.decode()}"]


def test_leaving_twice_is_leaving_once() -> None:
    """An owner that lost patience and the PING that comes after all: one GOAWAY, one `closing`."""
    connection, recorder = server()
    connection.drain()
    payload = connection.take()[-8:]
    connection.go_away()
    connection.receive(ping(payload, frames.ACK))
    connection.go_away()
    assert said(connection.take()) == ["GOAWAY 0 NO_ERROR"]
    assert recorder.told == ["closing"]


@pytest.mark.parametrize("how", ["answer", "reset by us", "reset by the peer"])
def test_closing_comes_after_the_last_stream_however_it_ends(how: str) -> None:
    """And after what the handler is told about that stream."""
    connection, recorder = server()
    connection.receive(headers(1, BLOCK, end=True))
    connection.go_away()
    match how:
        case "answer":
            connection.answer(recorder.streams[1], HEAD, b"x", END)
        case "reset by us":
            connection.reset(recorder.streams[1], frames.CANCEL)
        case _:
            connection.receive(rst(1))
    ended = ["reset 1 CANCEL"] if how == "reset by the peer" else []
    assert recorder.told == ["begin 1 end", *ended, "closing"]


def test_an_owner_may_end_the_connection_with_a_reason() -> None:
    """A code ends it at once: every stream is reset, the reason is in the frame."""
    connection, recorder = server()
    connection.receive(headers(1, BLOCK) + headers(3, BLOCK))
    connection.go_away(code=frames.INTERNAL_ERROR, debug=b"the store is gone")
    out = connection.take()
    assert said(out) == ["GOAWAY 3 INTERNAL_ERROR"]
    assert out.endswith(b"the store is gone")
    assert recorder.told[2:] == ["reset 1 INTERNAL_ERROR", "reset 3 INTERNAL_ERROR", "closing"]
    assert connection.dead


def test_an_owner_may_end_the_connection_from_inside_a_call() -> None:
    """What came after in the same read is not looked at."""
    connection, recorder = server()
    recorder.on_begin = lambda stream: connection.go_away(code=frames.INTERNAL_ERROR)
    connection.receive(headers(1, BLOCK) + headers(3, BLOCK))
    assert recorder.told == ["begin 1", "reset 1 INTERNAL_ERROR", "closing"]
    assert said(connection.take()) == ["GOAWAY 1 INTERNAL_ERROR"]


def test_a_lost_transport_resets_every_stream() -> None:
    """Nothing is sent for it."""
    connection, recorder = server()
    connection.receive(headers(1, BLOCK) + headers(3, BLOCK))
    connection.lost()
    assert said(connection.take()) == []
    assert recorder.told[2:] == ["reset 1 CANCEL", "reset 3 CANCEL", "closing"]


# --- what a client knows ---------------------------------------------------------------------------------------------


def asked(count: int) -> tuple[ClientConnection, Recorder]:
    """A client with so many requests on their way."""
    connection, recorder = client()
    for _ in range(count):
        connection.request(BLOCK, ended=True)
    recorder.streams = dict(connection.streams)
    connection.take()
    return connection, recorder


def test_requests_above_a_goaway_were_not_processed() -> None:
    """Those are reset at once and known as undone; the ones below go on, and `closing` follows the last."""
    connection, recorder = asked(3)
    connection.receive(goaway(3, frames.NO_ERROR))
    assert recorder.told == ["reset 5 REFUSED_STREAM"]
    assert [recorder.streams[n].unprocessed for n in (1, 3, 5)] == [False, False, True]
    assert not connection.can_request
    assert connection.leaving
    connection.receive(headers(1, HEAD, end=True) + headers(3, HEAD, end=True))
    assert recorder.told[-1] == "closing"


def test_a_second_goaway_may_name_fewer() -> None:
    """2^31-1 first, then the truth."""
    connection, recorder = asked(2)
    connection.receive(goaway(ALL, frames.NO_ERROR))
    assert recorder.told == []
    connection.receive(goaway(1, frames.NO_ERROR))
    assert recorder.told == ["reset 3 REFUSED_STREAM"]


def test_a_refused_stream_was_not_processed_and_others_may_have_been() -> None:
    """REFUSED_STREAM says so, unless the answer had begun; any other code does not."""
    connection, recorder = asked(3)
    connection.receive(rst(1, frames.REFUSED_STREAM) + rst(3, frames.INTERNAL_ERROR))
    connection.receive(headers(5, HEAD) + rst(5, frames.REFUSED_STREAM))
    assert [recorder.streams[n].unprocessed for n in (1, 3, 5)] == [True, False, False]


def test_a_request_that_was_never_taken_was_not_processed() -> None:
    """When the transport is lost, what is still in `out` has not been sent; what was taken may have arrived."""
    connection, _ = client()
    taken = connection.request(BLOCK, ended=True)
    connection.take()
    untaken = connection.request(BLOCK, ended=True)
    connection.lost()
    assert (taken.unprocessed, untaken.unprocessed) == (False, True)


def test_what_is_known_when_the_server_breaks_the_rules() -> None:
    """The same, if we end the connection."""
    connection, recorder = asked(1)
    untaken = connection.request(BLOCK, ended=True)
    connection.receive(headers(2, HEAD))
    assert connection.dead
    assert (recorder.streams[1].unprocessed, untaken.unprocessed) == (False, True)


def test_a_client_asks_no_more_than_the_server_takes() -> None:
    """Before the server's settings a cautious number; then its own, in either direction."""
    connection, _ = client(first=b"")
    room = []
    for _ in range(100):
        connection.request(BLOCK, ended=True)
    room.append(connection.can_request)
    with pytest.raises(CannotRequest, match="no more streams"):
        connection.request(BLOCK)
    connection.receive(settings((frames.MAX_CONCURRENT_STREAMS, 101)))
    connection.request(BLOCK)
    room.append(connection.can_request)
    connection.receive(headers(1, HEAD, end=True))
    room.append(connection.can_request)
    connection.receive(settings((frames.MAX_CONCURRENT_STREAMS, 7)))
    room.append(connection.can_request)
    assert room == [False, False, True, False]
    assert not connection.leaving


def test_no_request_follows_a_goaway_or_the_last_id() -> None:
    """Another connection is needed then, and the error says so."""
    connection, recorder = client()
    connection.receive(goaway(ALL, frames.NO_ERROR))
    with pytest.raises(CannotRequest, match="closing"):
        connection.request(BLOCK)
    assert recorder.told == ["closing"]
    last, _ = client()
    last._next = ALL
    assert last.request(BLOCK, ended=True).id == ALL
    assert last.leaving


def test_a_canceled_request_is_over_and_its_answer_dropped() -> None:
    """What the server has sent by then is no error, and moves the table and the windows all the same."""
    connection, recorder = asked(1)
    connection.reset(recorder.streams[1], frames.CANCEL)
    assert said(connection.take()) == ["RST_STREAM 1 CANCEL"]
    connection.receive(headers(1, HEAD + b"\x40\x01x\x01y") + data(1, b"late") + headers(1, END, end=True))
    other = connection.request(BLOCK, ended=True)
    connection.receive(headers(other.id, HEAD + b"\xbe", end=True))
    assert recorder.told == ["headers 3 end"]
    assert recorder.headers_of[3][-1] == (b"x", b"y")


def test_both_ends_drain_without_losing_a_request() -> None:
    """Requests made at every moment of a drain are answered, or known to be undone."""
    asked_of, recorder = Recorder(), Recorder()
    asking, answering_end = ClientConnection(asked_of), ServerConnection(recorder)
    answering(answering_end, recorder)
    first = asking.request(BLOCK, ended=True)
    answering_end.drain()
    second = asking.request(BLOCK, ended=True)
    exchange(asking, answering_end)
    assert asked_of.told[-1] == "closing"
    assert recorder.told[-1] == "closing"
    assert asked_of.data_of == {first.id: b"hello", second.id: b"hello"}
