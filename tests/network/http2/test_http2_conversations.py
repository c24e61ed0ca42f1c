"""Whole conversations: both ends with each other, with `h2` at the other end, and cut at every byte."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest

from kvstore.network.http2.connection import ClientConnection, ServerConnection
from kvstore.network.http2.fields import Headers
from kvstore.network.http2.frames import PREFACE, frame, settings
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import Limits
from kvstore.network.http2.stream import Stream
from tests import PROJECT
from tests.network.http2.peers import (
    END,
    HEAD,
    REQUEST,
    RESPONSE,
    TRAILERS,
    Recorder,
    Time,
    answering,
    continuation,
    data,
    exchange,
    headers,
    ping,
    priority,
    rst,
    said,
    window,
)

BLOCK = encode(REQUEST)


def talk(count: int = 3, size: int = 100) -> tuple[ClientConnection, Recorder, ServerConnection, Recorder]:
    """Both ends, and so many calls under way."""
    asked, answered = Recorder(), Recorder()
    asking, answering_end = ClientConnection(asked, now=Time()), ServerConnection(answered, now=Time())
    answering(answering_end, answered, b"a" * size)
    for number in range(count):
        stream = asking.request(BLOCK)
        asking.write(stream, b"%d" % number * size, end=True)
    return asking, asked, answering_end, answered


def test_both_ends_understand_each_other() -> None:
    """Requests and answers arrive whole, and both ends are at rest after that."""
    asking, asked, answering_end, answered = talk(50, 3_000)
    exchange(asking, answering_end)
    assert [answered.headers_of[n] for n in range(1, 101, 2)] == [REQUEST] * 50
    assert [asked.headers_of[n] for n in range(1, 101, 2)] == [RESPONSE + TRAILERS] * 50
    assert [len(asked.data_of[n]) for n in range(1, 101, 2)] == [3_000] * 50
    assert asking.streams == answering_end.streams == {}


# --- every byte ----------------------------------------------------------------------------------------


def a_conversation() -> bytes:
    """What a client may send: every kind of frame, padding, a block in pieces, late frames, a reset, and an error."""
    return b"".join(
        (
            PREFACE + settings((4, 50), (5, 20_000)),
            headers(1, BLOCK),
            data(1, b"\x02hello\0\0", flags=8),
            priority(1),
            headers(3, BLOCK[:2], flags=0)
            + continuation(3, BLOCK[2:4], last=False)
            + continuation(3, BLOCK[4:]),
            frame(0xEE, 1, 0, b"unknown"),
            data(1, b"x" * 30, end=True),
            window(1, 100) + window(0, 10),
            ping(),
            data(3, b"y") + rst(3) + data(3, b"late"),
            headers(5, BLOCK + b"\x40\x01x\x01y\0\x03te \x01z", end=True),
            headers(7, BLOCK + b"\xbe", end=True),
            settings((4, 5_000)),
            headers(9, BLOCK + b"\xbf", end=True),
        )
    )


def replayed(pieces: Iterator[bytes]) -> tuple[bytes, list[str]]:
    """What a server says and tells when it gets these bytes."""
    recorder = Recorder()
    connection = ServerConnection(recorder, now=Time())
    answering(connection, recorder, b"a" * 70)
    for piece in pieces:
        connection.receive(piece)
    return connection.take(), recorder.told


def test_a_conversation_cut_at_any_byte_is_the_same_conversation() -> None:
    """In two pieces at every place, in single bytes, and in threes."""
    whole = a_conversation()
    expected = replayed(iter([whole]))
    assert "begin 7 end" in expected[1]
    assert said(expected[0])[-1] == "GOAWAY 7 COMPRESSION_ERROR"
    for at in range(len(whole)):
        assert replayed(iter([whole[:at], whole[at:]])) == expected, f"cut at {at}"
    for step in (1, 3):
        assert replayed(whole[at : at + step] for at in range(0, len(whole), step)) == expected


def test_an_answer_cut_at_any_byte_is_the_same_answer() -> None:
    """The same for a client."""
    asking, asked, answering_end, _ = talk()
    _, answered = exchange(asking, answering_end)
    expected = asked.told, asked.data_of
    for step in (1, 7):
        asking, asked, _, _ = talk()
        for at in range(0, len(answered), step):
            asking.receive(answered[at : at + step])
        assert (asked.told, asked.data_of) == expected


# --- h2 at the other end -------------------------------------------------------------------------------


def h2_end(client_side: bool) -> h2.connection.H2Connection:
    made = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=client_side, header_encoding=None)
    )
    made.initiate_connection()
    return made


def strings(fields: Headers) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in fields]


@pytest.mark.parametrize("size", [0, 1, 16_384, 100_000, 1_000_000])
def test_h2_as_a_client_is_served(size: int) -> None:
    """Bodies of any size both ways, through its windows."""
    recorder, body = Recorder(), bytearray()
    connection = ServerConnection(recorder, now=Time())
    answering(connection, recorder, b"a" * size)
    peer = h2_end(client_side=True)
    peer.send_headers(1, strings(REQUEST))
    left, events = b"q" * size, list[str]()
    if not size:
        peer.end_stream(1)
    moved = True
    while moved:
        room = min(peer.local_flow_control_window(1), 16_384, len(left))
        if room:
            peer.send_data(1, left[:room], end_stream=room == len(left))
            left = left[room:]
        asked = peer.data_to_send()
        connection.receive(asked)
        answered = connection.take()
        moved = bool(asked or answered)
        for event in peer.receive_data(answered):
            events.append(type(event).__name__)
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                peer.acknowledge_received_data(event.flow_controlled_length, 1)
    assert recorder.data_of[1] == b"q" * size
    assert bytes(body) == b"a" * size
    assert events[-2:] == ["TrailersReceived", "StreamEnded"]


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_h2_as_a_server_is_asked(size: int) -> None:
    """Its answer arrives whole, and our requests are legal in its eyes."""
    recorder = Recorder()
    connection = ClientConnection(recorder, now=Time())
    stream = connection.request(BLOCK)
    connection.write(stream, b"q" * size, end=True)
    peer, body = h2_end(client_side=False), bytearray()
    for _ in range(100):
        for event in peer.receive_data(connection.take()):
            if isinstance(event, h2.events.RequestReceived):
                assert event.headers == REQUEST
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                peer.acknowledge_received_data(event.flow_controlled_length, 1)
            if isinstance(event, h2.events.StreamEnded):
                peer.send_headers(1, strings(RESPONSE))
                peer.send_data(1, b"answer")
                peer.send_headers(1, strings(TRAILERS), end_stream=True)
        connection.receive(peer.data_to_send())
    assert bytes(body) == b"q" * size
    assert recorder.told == ["headers 1", "data 1 6", "headers 1 end"]
    assert recorder.headers_of[1] == RESPONSE + TRAILERS


def test_h2_is_refused_and_told_to_calm_down() -> None:
    """It reads our resets and the reason in our GOAWAY."""
    connection = ServerConnection(Recorder(), Limits(concurrent_streams=0, resets_burst=2), Time())
    peer = h2_end(client_side=True)
    for stream_id in (1, 3, 5):
        peer.send_headers(stream_id, strings(REQUEST))
    connection.receive(peer.data_to_send())
    events = peer.receive_data(connection.take())
    resets = [event for event in events if isinstance(event, h2.events.StreamReset)]
    assert [(event.stream_id, event.error_code) for event in resets] == [(1, 7), (3, 7)]
    (end,) = [event for event in events if isinstance(event, h2.events.ConnectionTerminated)]
    assert (end.error_code, end.additional_data) == (11, b"too many streams are reset")


# --- its shape ------------------------------------------------------------------------------


def test_the_protocol_knows_no_socket_and_nothing_of_the_store() -> None:
    """It imports itself, a handful of standard modules that neither wait nor listen, and the choice of C or Python."""
    allowed = {"__future__", "collections", "dataclasses", "math", "re", "struct", "time", "typing"}
    for path in (PROJECT / "kvstore" / "network" / "http2").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path.name
            elif isinstance(node, ast.ImportFrom):
                is_own = node.level == 1 or node.module == "kvstore.implementation"
                assert is_own or (node.module or "").split(".")[0] in allowed, path.name


def test_a_stream_can_be_answered_from_any_call() -> None:
    """From `begin`, from `data`, and later; a handler may also begin its answer before the request is complete."""
    recorder = Recorder()
    connection = ServerConnection(recorder, now=Time())
    connection.receive(PREFACE + settings())
    connection.take()

    def begin(stream: Stream) -> None:
        connection.head(stream, HEAD)
        connection.write(stream, b"early")

    recorder.on_begin = begin
    recorder.on_data = lambda stream, payload, ended: connection.close(stream, END) if ended else None
    connection.receive(headers(1, BLOCK) + data(1, b"x") + data(1, b"y", end=True))
    assert said(connection.take()) == ["HEADERS 1", "DATA 1 5", "HEADERS 1 end"]
