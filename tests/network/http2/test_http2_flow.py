"""Windows and queues: what goes out when, and that nothing is sent that the peer has no room for."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kvstore.network.http2 import frames
from kvstore.network.http2.connection import ClientConnection, ServerConnection
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import Limits
from kvstore.network.http2.stream import Stream
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
    rst,
    said,
    server,
    split,
    window,
)


def window_of(size: int) -> bytes:
    """SETTINGS of a client whose streams have such a window."""
    return frames.settings((frames.INITIAL_WINDOW_SIZE, size))


def ask(*stream_ids: int, end: bool = True) -> bytes:
    return b"".join(headers(stream_id, REQUEST, end=end) for stream_id in stream_ids)


# --- out ----------------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_one_item_and_no_state() -> None:
    """Headers, data, trailers, in one go; and the stream is gone."""
    connection, recorder = server()
    connection.receive(ask(1))
    connection.answer(recorder.streams[1], HEAD, b"hello", END)
    assert len(connection.out) == 1
    assert said(connection.take()) == ["HEADERS 1", "DATA 1 5", "HEADERS 1 end"]
    assert connection.streams == {}


def test_an_early_answer_ends_the_request_too() -> None:
    """8.1: what the client still sends is not wanted, RST_STREAM says so, and it is dropped without a word."""
    connection, recorder = server()
    connection.receive(ask(1, end=False))
    connection.answer(recorder.streams[1], HEAD, b"no", END)
    assert said(connection.take()) == ["HEADERS 1", "DATA 1 2", "HEADERS 1 end", "RST_STREAM 1 NO_ERROR"]
    connection.receive(data(1, b"late") + data(1, b"later", end=True))
    assert said(connection.take()) == []
    assert recorder.told == ["begin 1"]


def test_trailers_alone_are_an_answer() -> None:
    """One HEADERS frame that ends the stream."""
    connection, recorder = server()
    connection.receive(ask(1))
    connection.close(recorder.streams[1], HEAD + END)
    assert said(connection.take()) == ["HEADERS 1 end"]


def test_a_body_without_trailers_ends_with_its_data() -> None:
    """`finish` sends an empty frame; `write` with `end` needs none."""
    connection, recorder = server()
    connection.receive(ask(1, 3))
    for stream_id in (1, 3):
        connection.head(recorder.streams[stream_id], HEAD)
    connection.write(recorder.streams[1], b"body")
    connection.finish(recorder.streams[1])
    connection.write(recorder.streams[3], b"body", end=True)
    assert said(connection.take())[2:] == ["DATA 1 4", "DATA 1 0 end", "DATA 3 4 end"]


def test_what_the_stream_has_no_room_for_waits() -> None:
    """The queue goes out as its window opens, the trailers after it, and `blocked` and `queued_bytes` tell of it."""
    connection, recorder = server(first=window_of(10))
    connection.receive(ask(1))
    stream = recorder.streams[1]
    connection.head(stream, HEAD)
    connection.write(stream, b"x" * 25)
    assert said(connection.take()) == ["HEADERS 1", "DATA 1 10"]
    assert (stream.blocked, stream.queued_bytes, connection.queued_bytes) == (True, 15, 15)
    connection.close(stream, END)
    connection.receive(window(1, 10))
    assert said(connection.take()) == ["DATA 1 10"]
    connection.receive(window(1, 5))
    assert said(connection.take()) == ["DATA 1 5", "HEADERS 1 end"]
    assert (stream.blocked, connection.queued_bytes, connection.streams) == (False, 0, {})
    assert recorder.told == ["begin 1 end"]


def test_an_answer_larger_than_the_window_waits_like_any_data() -> None:
    """The fast way and the slow way send the same."""
    connection, recorder = server(first=window_of(3))
    connection.receive(ask(1))
    connection.answer(recorder.streams[1], HEAD, b"hello", END)
    assert said(connection.take()) == ["HEADERS 1", "DATA 1 3"]
    connection.receive(window(1, 100))
    assert said(connection.take()) == ["DATA 1 2", "HEADERS 1 end"]


def test_what_the_connection_has_no_room_for_waits() -> None:
    """Answers to many streams, each with room enough of its own: the last waits, and goes out whole."""
    connection, recorder = server()
    connection.receive(ask(1, 3, 5, 7, 9))
    for stream in recorder.streams.values():
        connection.answer(stream, HEAD, b"x" * 16_000, END)
    assert said(connection.take())[-2:] == ["HEADERS 9", "DATA 9 1535"]
    connection.receive(window(0, 100_000))
    assert said(connection.take()) == ["DATA 9 14465", "HEADERS 9 end"]


def test_drained_is_told_once_when_the_queue_is_out() -> None:
    """And what the handler writes then goes out at once, if there is room."""
    connection, recorder = server(first=window_of(10))
    connection.receive(ask(1))
    stream = recorder.streams[1]
    connection.head(stream, HEAD)
    connection.write(stream, b"x" * 10)
    assert recorder.told == ["begin 1 end"]
    connection.write(stream, b"y" * 10)
    recorder.on_drained = lambda stream: connection.write(stream, b"z" * 3, end=True)
    connection.receive(window(1, 50))
    assert recorder.told == ["begin 1 end", "drained 1"]
    assert said(connection.take())[1:] == ["DATA 1 10", "DATA 1 10", "DATA 1 3 end"]


def test_a_long_answer_in_pieces_does_not_recurse() -> None:
    """A handler that writes the next piece whenever one has gone out may do so ten thousand times in one receive."""
    connection, recorder = server(first=window_of(1))
    connection.receive(ask(1))
    stream, left = recorder.streams[1], 10_000

    def more(stream: Stream) -> None:
        nonlocal left
        while left and not stream.blocked:
            left -= 1
            connection.write(stream, b"x" * 20_000, end=not left)

    recorder.on_drained = more
    connection.head(stream, HEAD)
    more(stream)
    connection.receive(window(0, frames.MAX_31_BITS - 65535) + window(1, frames.MAX_31_BITS - 1))
    assert left == 0
    assert sum(len(payload) for kind, _, _, payload in split(connection.take()) if kind == 0) == 200_000_000


def test_streams_take_turns_when_the_connection_opens() -> None:
    """Three large answers wait for the connection's window: each sends a turn's worth, then the next."""
    connection, recorder = server(Limits(turn_bytes=20_000), first=window_of(1 << 20))
    connection.receive(ask(1, 3, 5, 7))
    connection.write(recorder.streams[1], b"x" * 65535)
    connection.take()
    for stream_id in (3, 5, 7):
        for _ in range(5):
            connection.write(recorder.streams[stream_id], b"x" * 10_000)
    connection.receive(window(0, 100_000))
    sent: list[tuple[int, int]] = []
    for _, _, stream_id, payload in split(connection.take()):
        if sent and sent[-1][0] == stream_id:
            sent[-1] = stream_id, sent[-1][1] + len(payload)
        else:
            sent.append((stream_id, len(payload)))
    assert sent == [(3, 20_000), (5, 20_000), (7, 20_000), (3, 20_000), (5, 20_000)]


def test_a_closed_stream_does_not_hold_up_others() -> None:
    """A stream without a window of its own waits, and the connection's window is for the rest."""
    connection, recorder = server(first=window_of(10))
    connection.receive(ask(1, 3))
    connection.write(recorder.streams[1], b"x" * 100)
    connection.write(recorder.streams[3], b"y" * 10)
    assert said(connection.take()) == ["DATA 1 10", "DATA 3 10"]
    connection.receive(window(0, 1000))
    assert said(connection.take()) == []


def test_settings_move_the_windows_of_open_streams() -> None:
    """6.9.2: up and down, below zero too; what waits goes out when the window is positive again."""
    connection, recorder = server(first=window_of(10))
    connection.receive(ask(1))
    connection.write(recorder.streams[1], b"x" * 20)
    connection.receive(window_of(5))
    connection.receive(window(1, 5))
    assert said(connection.take()) == ["DATA 1 10", "SETTINGS ack"]
    connection.receive(window(1, 1))
    assert said(connection.take()) == ["DATA 1 1"]
    connection.receive(window_of(100))
    assert said(connection.take()) == ["DATA 1 9", "SETTINGS ack"]
    connection.receive(ask(3))
    connection.write(recorder.streams[3], b"x" * 200)
    assert said(connection.take()) == ["DATA 3 100"]


def test_frames_are_as_large_as_the_peer_takes_and_we_send() -> None:
    """MAX_FRAME_SIZE of the peer, up to a limit of ours."""
    sizes = []
    for size in (16_384, 20_000, 1 << 20):
        first = frames.settings((frames.MAX_FRAME_SIZE, size), (frames.INITIAL_WINDOW_SIZE, 1 << 20))
        connection, recorder = server(first=first)
        connection.receive(ask(1))
        connection.write(recorder.streams[1], b"x" * 65_535)
        sizes.append(max(len(payload) for *_, payload in split(connection.take())))
    assert sizes == [16_384, 20_000, 65_535]


def test_a_reset_drops_what_waited() -> None:
    """By the peer or by the owner: the queue is gone, and nothing of it is sent when windows open."""
    for by_peer in (True, False):
        connection, recorder = server(first=window_of(10))
        connection.receive(ask(1, 3))
        connection.write(recorder.streams[3], b"x" * 65_535)
        connection.write(recorder.streams[1], b"x" * 65_530)
        if by_peer:
            connection.receive(rst(1))
        else:
            connection.reset(recorder.streams[1], frames.CANCEL)
        assert connection.queued_bytes == 65_525
        connection.take()
        connection.receive(window(0, 1 << 20) + window(1, 1 << 20))
        assert said(connection.take()) == []
        assert "drained 1" not in recorder.told


def test_calls_for_a_stream_that_is_over_do_nothing() -> None:
    """Its owner may not know yet."""
    connection, recorder = server()
    connection.receive(ask(1) + rst(1))
    stream = recorder.streams[1]
    connection.head(stream, HEAD)
    connection.write(stream, b"x")
    connection.close(stream, END)
    connection.finish(stream)
    connection.answer(stream, HEAD, b"x", END)
    connection.answer(stream, HEAD, b"x" * 100_000, END)
    connection.reset(stream, frames.CANCEL)
    assert said(connection.take()) == []


def test_calls_after_the_end_of_our_side_do_nothing() -> None:
    """Also while it waits in the queue: the end is the end."""
    connection, recorder = server(first=window_of(10))
    connection.receive(ask(1))
    stream = recorder.streams[1]
    connection.write(stream, b"x" * 20, end=True)
    connection.write(stream, b"y")
    connection.head(stream, HEAD)
    connection.close(stream, END)
    connection.receive(window(1, 100))
    assert said(connection.take()) == ["DATA 1 10", "DATA 1 10", "DATA 1 0 end"]


# --- in -----------------------------------------------------------------------------------------------------------

SMALL = Limits(window_bytes=80_000, stream_window_bytes=40_000)


def test_a_request_that_fits_costs_no_window_update() -> None:
    """Half of a window has to be used up first."""
    connection, _ = server(SMALL)
    connection.receive(ask(1, end=False) + data(1, b"x" * 16_000) + data(1, b"x" * 4_000))
    assert said(connection.take()) == []
    connection.receive(data(1, b"x"))
    assert said(connection.take()) == ["WINDOW_UPDATE 1 20001"]


def test_what_a_finished_stream_used_comes_back_to_the_connection() -> None:
    """Padding and refused data count, too: the connection's window never leaks."""
    connection, recorder = server(SMALL)
    answering(connection, recorder)
    back, size = 0, 1 + 1_000 + 255
    for number in range(400):
        stream_id = 2 * number + 1
        connection.receive(ask(stream_id, end=False))
        if number % 2:
            connection.reset(recorder.streams[stream_id], frames.CANCEL)
        connection.receive(
            data(stream_id, b"\xff" + b"x" * 1_000 + bytes(255), flags=frames.PADDED, end=True)
        )
        for kind, _, of, payload in split(connection.take()):
            if kind == frames.WINDOW_UPDATE:
                assert of == 0
                back += int.from_bytes(payload, "big")
    assert 400 * size - 40_000 <= back <= 400 * size
    assert not connection.dead


def test_data_beyond_the_streams_window_ends_the_stream() -> None:
    """A stream error; the connection goes on."""
    connection, recorder = server(Limits(stream_window_bytes=20_000))
    connection.receive(ask(1, end=False) + data(1, b"x" * 10_000) + data(1, b"x" * 10_001))
    assert said(connection.take()) == ["RST_STREAM 1 FLOW_CONTROL_ERROR"]
    assert recorder.told[-1] == "reset 1 FLOW_CONTROL_ERROR"


def test_data_beyond_the_connections_window_ends_the_connection() -> None:
    """While the owner holds the windows, so that nothing comes back."""
    connection, _ = server(Limits(window_bytes=65_535, stream_window_bytes=1 << 20))
    connection.holding = True
    connection.receive(ask(1, end=False) + data(1, b"x" * 16_000) * 4)
    assert said(connection.take()) == []
    connection.receive(data(1, b"x" * 1_536))
    assert said(connection.take()) == ["GOAWAY 1 FLOW_CONTROL_ERROR"]


def test_an_owner_without_room_holds_the_windows() -> None:
    """Nothing is given back until it says so; then all at once."""
    connection, _ = server(SMALL)
    connection.receive(ask(1, end=False))
    connection.holding = True
    connection.receive(data(1, b"x" * 16_000) + data(1, b"x" * 16_000))
    assert said(connection.take()) == []
    connection.give_back()
    assert said(connection.take()) == ["WINDOW_UPDATE 0 32000", "WINDOW_UPDATE 1 32000"]
    connection.give_back()
    assert said(connection.take()) == []


# --- both ends ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, phases=(Phase.explicit, Phase.generate))  # shrinking would take minutes
@given(
    st.lists(st.integers(0, 150_000), min_size=1, max_size=5),
    st.integers(1_000, 100_000),
    st.integers(65_535, 200_000),
    st.integers(500, 70_000),
)
def test_bodies_of_any_size_arrive_whole_through_windows_of_any_size(
    sizes: list[int], stream_window: int, connection_window: int, turn: int
) -> None:
    """Both ways at once, between our two ends: every byte, in order, then the end; and nothing stays behind."""
    limits = Limits(stream_window_bytes=stream_window, window_bytes=connection_window, turn_bytes=turn)
    asked, answered = Recorder(), Recorder()
    asking, answering_end = ClientConnection(asked, limits), ServerConnection(answered, limits)

    def echo(stream: Stream, payload: bytes, ended: bool) -> None:
        if not stream.answered:
            answering_end.head(stream, HEAD)
        answering_end.write(stream, payload)
        if ended:
            answering_end.close(stream, END)

    answered.on_data = echo
    exchange(asking, answering_end)
    bodies = {}
    for number, size in enumerate(sizes):
        stream = asking.request(encode(REQUEST))
        bodies[stream.id] = bytes([number]) * size
        asking.write(stream, bodies[stream.id], end=True)
    exchange(asking, answering_end)
    assert {stream_id: asked.data_of.get(stream_id, b"") for stream_id in bodies} == bodies
    assert asking.streams == answering_end.streams == {}
    assert asking.queued_bytes == answering_end.queued_bytes == 0
    assert not asking.dead and not answering_end.dead


@pytest.mark.parametrize("end_of_request", [True, False])
def test_the_answers_end_is_the_end_of_a_clients_stream(end_of_request: bool) -> None:
    """A request that is not complete by then is called off, and the server may go on sending nothing."""
    connection, recorder = client()
    stream = connection.request(encode(REQUEST), ended=end_of_request)
    connection.take()
    connection.receive(headers(1, HEAD + END, end=True))
    assert said(connection.take()) == ([] if end_of_request else ["RST_STREAM 1 NO_ERROR"])
    assert (stream.open, connection.streams, recorder.told) == (False, {}, ["headers 1 end"])


def test_an_answer_calls_off_a_request_that_waits_for_its_window() -> None:
    """Its end was asked for, and has not been sent."""
    connection, _ = client(first=window_of(10))
    stream = connection.request(encode(REQUEST))
    connection.write(stream, b"x" * 20, end=True)
    connection.take()
    connection.receive(headers(1, HEAD + END, end=True))
    assert said(connection.take()) == ["RST_STREAM 1 NO_ERROR"]
    assert connection.queued_bytes == 0


def test_streams_that_yield_take_turns_with_all_others_as_one() -> None:
    """However many long answers wait for the connection's window, every other turn is somebody else's."""
    connection, recorder = server(Limits(turn_bytes=10), first=window_of(1 << 20))
    for stream_id in (1, 3, 5, 7, 9):
        connection.receive(headers(stream_id, REQUEST, end=True))
        stream = recorder.streams[stream_id]
        stream.yields = stream_id < 9
        connection.head(stream, HEAD)
        connection.write(stream, bytes(65_535 if stream_id == 1 else 0) + bytes(40))
    connection.take()
    connection.receive(window(0, 60))
    assert said(connection.take()) == [f"DATA {stream_id} 10" for stream_id in (9, 1, 9, 3, 9, 5)]
