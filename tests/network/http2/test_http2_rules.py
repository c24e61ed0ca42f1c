"""The rules of RFC 9113, one line each: what is received, what is then sent, and what the handler is told.

Frames are bytes on the way in and words on the way out (see peers.py).
"""

from __future__ import annotations

import pytest

from kvstore.network.http2 import frames
from kvstore.network.http2.connection import ServerConnection
from kvstore.network.http2.fields import Headers
from kvstore.network.http2.frames import ACK, PREFACE, frame, settings
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import LIMITS
from tests.network.http2.peers import (
    END,
    HEAD,
    REQUEST,
    SETTINGS_ACK,
    TRAILERS,
    Recorder,
    client,
    continuation,
    data,
    headers,
    ping,
    priority,
    rst,
    said,
    server,
    split,
    window,
)

BLOCK = encode(REQUEST)
LARGEST = frames.MAX_31_BITS
PADDED, PRIORITIZED, END_HEADERS = frames.PADDED, frames.PRIORITIZED, frames.END_HEADERS


def request(*more: tuple[bytes, bytes], without: bytes = b"") -> Headers:
    return [field for field in REQUEST if field[0] != without] + list(more)


def a_request(*more: tuple[bytes, bytes], without: bytes = b"") -> list[bytes]:
    return [headers(1, request(*more, without=without), end=True)]


def setting(name: int, value: int) -> list[bytes]:
    return [settings((name, value))]


OPEN = headers(1, REQUEST)
WHOLE = headers(1, REQUEST, end=True)
BEGUN = ["begin 1"]
WRONG = ["RST_STREAM 1 PROTOCOL_ERROR"]


def fatal(code: str, last: int = 0) -> list[str]:
    return [f"GOAWAY {last} {code}"]


RULES: dict[str, tuple[list[bytes], list[str], list[str]]] = {
    # --- 4: frames
    "4.1 unknown kinds are ignored": ([frame(0xEE, 0xFF, 9, b"?"), ping()], ["PING ack"], []),
    "4.1 unknown flags are ignored": ([ping(flags=0xF0)], ["PING ack"], []),
    "4.1 the reserved bit is ignored": ([headers(1 | 1 << 31, REQUEST, end=True)], [], ["begin 1 end"]),
    "4.2 a frame of the largest size": ([OPEN, data(1, b"x" * 16384)], [], [*BEGUN, "data 1 16384"]),
    "4.2 a frame above it": (
        [OPEN, data(1, b"x" * 16385)],
        fatal("FRAME_SIZE_ERROR", 1),
        [*BEGUN, "reset 1 FRAME_SIZE_ERROR", "closing"],
    ),
    "4.3 a block that cannot be decoded": ([headers(1, b"\x80")], fatal("COMPRESSION_ERROR"), ["closing"]),
    "4.3 a block of many frames": (
        [
            headers(1, BLOCK[:1], flags=0, end=True),
            continuation(1, BLOCK[1:3], last=False),
            continuation(1, BLOCK[3:]),
        ],
        [],
        ["begin 1 end"],
    ),
    "4.3 a frame inside a block": (
        [headers(1, BLOCK[:2], flags=0), ping()],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "4.3 an unknown frame inside a block": (
        [headers(1, BLOCK[:2], flags=0), frame(0xEE, 0, 1)],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "4.3 another stream's CONTINUATION": (
        [headers(1, BLOCK[:2], flags=0), continuation(3, BLOCK[2:])],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    # --- 5.1: states
    "5.1 idle: DATA": ([data(1, b"x")], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.1 idle: RST_STREAM": ([rst(1)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.1 idle: WINDOW_UPDATE": ([window(1, 1)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.1 idle: PRIORITY": ([priority(1), ping()], ["PING ack"], []),
    "5.1 idle: CONTINUATION": ([continuation(1, BLOCK)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.1 half-closed: DATA": (
        [WHOLE, data(1, b"x")],
        ["RST_STREAM 1 STREAM_CLOSED"],
        ["begin 1 end", "reset 1 STREAM_CLOSED"],
    ),
    "5.1 half-closed: HEADERS": (
        [WHOLE, headers(1, TRAILERS, end=True)],
        ["RST_STREAM 1 STREAM_CLOSED"],
        ["begin 1 end", "reset 1 STREAM_CLOSED"],
    ),
    "5.1 half-closed: WINDOW_UPDATE, PRIORITY": ([WHOLE, window(1, 9), priority(1)], [], ["begin 1 end"]),
    "5.1 half-closed: CONTINUATION": (
        [WHOLE, continuation(1, BLOCK)],
        fatal("PROTOCOL_ERROR", 1),
        ["begin 1 end", "reset 1 PROTOCOL_ERROR", "closing"],
    ),
    "5.1 closed by the peer: DATA": (
        [OPEN, rst(1), data(1, b"x")],
        ["RST_STREAM 1 STREAM_CLOSED"],
        [*BEGUN, "reset 1 CANCEL"],
    ),
    "5.1 closed by the peer with a bad request: DATA": (
        [headers(1, request(without=b":path"), end=True), data(1, b"x")],
        [*WRONG, "RST_STREAM 1 STREAM_CLOSED"],
        [],
    ),
    "5.1 closed by the peer: HEADERS": (
        [OPEN, rst(1), WHOLE],
        fatal("STREAM_CLOSED", 1),
        [*BEGUN, "reset 1 CANCEL", "closing"],
    ),
    "5.1 closed: WINDOW_UPDATE, RST_STREAM, PRIORITY": (
        [OPEN, rst(1), window(1, 1), rst(1), priority(1)],
        [],
        [*BEGUN, "reset 1 CANCEL"],
    ),
    "5.1 reset by us: what was on its way is dropped": (
        [
            headers(1, request((b"content-length", b"1"))),
            data(1, b"xx"),
            data(1, b"x"),
            headers(1, TRAILERS, end=True),
            window(1, 1),
            ping(),
        ],
        [*WRONG, "PING ack"],
        [*BEGUN, "reset 1 PROTOCOL_ERROR"],
    ),
    "5.1.1 an even stream": ([headers(2, REQUEST)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.1.1 stream 0": ([headers(0, REQUEST)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.1.1 a smaller id": (
        [headers(5, REQUEST), headers(3, REQUEST)],
        fatal("PROTOCOL_ERROR", 5),
        ["begin 5", "reset 5 PROTOCOL_ERROR", "closing"],
    ),
    "5.1.1 ids may be left out": ([headers(9, REQUEST), headers(21, REQUEST)], [], ["begin 9", "begin 21"]),
    "5.3.1 a stream that depends on itself": ([priority(3, on=3)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "5.3.1 HEADERS that depend on themselves": (
        [headers(1, b"\0\0\0\1\0" + BLOCK, flags=END_HEADERS | PRIORITIZED)],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "5.5 unknown settings are ignored": (setting(0x99, 7), ["SETTINGS ack"], []),
    # --- 6.1, 6.2: DATA, HEADERS
    "6.1 DATA for stream 0": ([data(0, b"x")], fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.1 padding is taken off": (
        [OPEN, data(1, b"\x03abc\0\0\0", flags=PADDED, end=True)],
        [],
        [*BEGUN, "data 1 3 end"],
    ),
    "6.1 nothing but padding": ([OPEN, data(1, b"\x03\0\0\0", flags=PADDED)], [], [*BEGUN, "data 1 0"]),
    "6.1 padding of the whole payload": (
        [OPEN, data(1, b"\x04\0\0\0", flags=PADDED)],
        fatal("PROTOCOL_ERROR", 1),
        [*BEGUN, "reset 1 PROTOCOL_ERROR", "closing"],
    ),
    "6.1 padding without a length": (
        [OPEN, data(1, b"", flags=PADDED)],
        fatal("FRAME_SIZE_ERROR", 1),
        [*BEGUN, "reset 1 FRAME_SIZE_ERROR", "closing"],
    ),
    "6.2 padding and priority are taken off": (
        [
            headers(
                1, b"\x02\0\0\0\7\x10" + BLOCK + b"\0\0", flags=END_HEADERS | PADDED | PRIORITIZED, end=True
            )
        ],
        [],
        ["begin 1 end"],
    ),
    "6.2 padding of the whole payload": (
        [headers(1, b"\x0a" + b"\0" * 9, flags=END_HEADERS | PADDED)],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "6.2 too short for its priority": (
        [headers(1, b"\0\0\0", flags=END_HEADERS | PRIORITIZED)],
        fatal("FRAME_SIZE_ERROR"),
        ["closing"],
    ),
    # --- 6.3 to 6.10
    "6.3 PRIORITY for stream 0": ([priority(0, on=1)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.3 PRIORITY of 4 bytes": (
        [frame(frames.PRIORITY, 0, 1, b"1234")],
        fatal("FRAME_SIZE_ERROR"),
        ["closing"],
    ),
    "6.4 RST_STREAM ends the stream": ([OPEN, rst(1)], [], [*BEGUN, "reset 1 CANCEL"]),
    "6.4 RST_STREAM with a code that nobody knows": ([OPEN, rst(1, 4711)], [], [*BEGUN, "reset 1 4711"]),
    "6.4 RST_STREAM for stream 0": ([rst(0)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.4 RST_STREAM of 3 bytes": (
        [OPEN, frame(frames.RST_STREAM, 0, 1, b"123")],
        fatal("FRAME_SIZE_ERROR", 1),
        [*BEGUN, "reset 1 FRAME_SIZE_ERROR", "closing"],
    ),
    "6.5 SETTINGS are acknowledged": ([settings()], ["SETTINGS ack"], []),
    "6.5 an acknowledgement is not": ([SETTINGS_ACK], [], []),
    "6.5 an acknowledgement with a payload": (
        [frame(frames.SETTINGS, ACK, 0, b"123456")],
        fatal("FRAME_SIZE_ERROR"),
        ["closing"],
    ),
    "6.5 SETTINGS of 5 bytes": (
        [frame(frames.SETTINGS, 0, 0, b"12345")],
        fatal("FRAME_SIZE_ERROR"),
        ["closing"],
    ),
    "6.5 SETTINGS for a stream": ([frame(frames.SETTINGS, 0, 1)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.5.2 ENABLE_PUSH 2": (setting(frames.ENABLE_PUSH, 2), fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.5.2 ENABLE_PUSH 1": (setting(frames.ENABLE_PUSH, 1), ["SETTINGS ack"], []),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31": (
        setting(frames.INITIAL_WINDOW_SIZE, LARGEST + 1),
        fatal("FLOW_CONTROL_ERROR"),
        ["closing"],
    ),
    "6.5.2 MAX_FRAME_SIZE 16383": (
        setting(frames.MAX_FRAME_SIZE, 16383),
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "6.5.2 MAX_FRAME_SIZE 2^24": (
        setting(frames.MAX_FRAME_SIZE, 1 << 24),
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "6.5.2 MAX_FRAME_SIZE 2^24-1": (setting(frames.MAX_FRAME_SIZE, (1 << 24) - 1), ["SETTINGS ack"], []),
    "6.6 PUSH_PROMISE from a client": (
        [OPEN, frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK)],
        fatal("PROTOCOL_ERROR", 1),
        [*BEGUN, "reset 1 PROTOCOL_ERROR", "closing"],
    ),
    "6.7 PING is answered": ([ping()], ["PING ack"], []),
    "6.7 an answer is told": ([ping(b"abcdefgh", ACK)], [], ["pong abcdefgh"]),
    "6.7 PING for a stream": ([ping(stream_id=1)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.7 PING of 7 bytes": ([ping(b"1234567")], fatal("FRAME_SIZE_ERROR"), ["closing"]),
    "6.8 a client may leave": (
        [OPEN, frames.goaway(0, 0), data(1, b"x", end=True)],
        [],
        [*BEGUN, "data 1 1 end"],
    ),
    "6.8 GOAWAY for a stream": (
        [frame(frames.GOAWAY, 0, 1, b"\0" * 8)],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    "6.8 GOAWAY of 7 bytes": (
        [frame(frames.GOAWAY, 0, 0, b"\0" * 7)],
        fatal("FRAME_SIZE_ERROR"),
        ["closing"],
    ),
    "6.9 WINDOW_UPDATE of 0 for the connection": ([window(0, 0)], fatal("PROTOCOL_ERROR"), ["closing"]),
    "6.9 WINDOW_UPDATE of 0 for a stream": ([OPEN, window(1, 0)], WRONG, [*BEGUN, "reset 1 PROTOCOL_ERROR"]),
    "6.9 WINDOW_UPDATE of 0 for a stream that is over": (
        [OPEN, rst(1), window(1, 0)],
        fatal("PROTOCOL_ERROR", 1),
        [*BEGUN, "reset 1 CANCEL", "closing"],
    ),
    "6.9 WINDOW_UPDATE of 3 bytes": (
        [frame(frames.WINDOW_UPDATE, 0, 0, b"123")],
        fatal("FRAME_SIZE_ERROR"),
        ["closing"],
    ),
    "6.9.1 the connection's window above 2^31-1": (
        [window(0, LARGEST)],
        fatal("FLOW_CONTROL_ERROR"),
        ["closing"],
    ),
    "6.9.1 a stream's window above 2^31-1": (
        [OPEN, window(1, LARGEST)],
        ["RST_STREAM 1 FLOW_CONTROL_ERROR"],
        [*BEGUN, "reset 1 FLOW_CONTROL_ERROR"],
    ),
    "6.9.2 a stream's window above 2^31-1 by SETTINGS": (
        [OPEN, window(1, LARGEST - 65535), *setting(frames.INITIAL_WINDOW_SIZE, 65536)],
        fatal("FLOW_CONTROL_ERROR", 1),
        [*BEGUN, "reset 1 FLOW_CONTROL_ERROR", "closing"],
    ),
    "6.10 CONTINUATION after the end of its block": (
        [OPEN, continuation(1, BLOCK)],
        fatal("PROTOCOL_ERROR", 1),
        [*BEGUN, "reset 1 PROTOCOL_ERROR", "closing"],
    ),
    "6.10 CONTINUATION for stream 0": (
        [headers(1, BLOCK[:1], flags=0), continuation(0, BLOCK[1:])],
        fatal("PROTOCOL_ERROR"),
        ["closing"],
    ),
    # --- 8: requests
    "8.1 trailers end a request": (
        [OPEN, data(1, b"x"), headers(1, TRAILERS, end=True)],
        [],
        [*BEGUN, "data 1 1", "data 1 0 end"],
    ),
    "8.1 trailers that end nothing": (
        [OPEN, headers(1, TRAILERS)],
        WRONG,
        [*BEGUN, "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1 trailers with a pseudo-header": (
        [OPEN, headers(1, [(b":path", b"/")], end=True)],
        WRONG,
        [*BEGUN, "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1.1 content-length and as much": (
        [headers(1, request((b"content-length", b"3"))), data(1, b"ab"), data(1, b"c", end=True)],
        [],
        [*BEGUN, "data 1 2", "data 1 1 end"],
    ),
    "8.1.1 content-length does not count padding": (
        [headers(1, request((b"content-length", b"1"))), data(1, b"\1a\0", flags=PADDED, end=True)],
        [],
        [*BEGUN, "data 1 1 end"],
    ),
    "8.1.1 content-length and less": (
        [headers(1, request((b"content-length", b"3"))), data(1, b"ab", end=True)],
        WRONG,
        [*BEGUN, "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1.1 content-length and more": (
        [headers(1, request((b"content-length", b"1"))), data(1, b"ab")],
        WRONG,
        [*BEGUN, "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1.1 content-length and nothing": (a_request((b"content-length", b"3")), WRONG, []),
    "8.1.1 content-length and trailers only": (
        [headers(1, request((b"content-length", b"3"))), headers(1, TRAILERS, end=True)],
        WRONG,
        [*BEGUN, "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1.1 content-length 0 and nothing": (a_request((b"content-length", b"0")), [], ["begin 1 end"]),
    "8.1.1 content-length that is no number": (a_request((b"content-length", b"-1")), WRONG, []),
    "8.1.1 content-length without end": (a_request((b"content-length", b"9" * 5000)), WRONG, []),
    "8.1.1 two content-lengths": (a_request((b"content-length", b"0"), (b"content-length", b"0")), WRONG, []),
    "8.2 a name in upper case": (a_request((b"X-y", b"1")), WRONG, []),
    "8.2.1 a name with a blank": (a_request((b"x y", b"1")), WRONG, []),
    "8.2.1 a name with a colon": (a_request((b"x:y", b"1")), WRONG, []),
    "8.2.1 a name beyond ASCII": (a_request((b"x\xff", b"1")), WRONG, []),
    "8.2.1 a name of nothing": (a_request((b"", b"1")), WRONG, []),
    "8.2.1 a value with NUL": (a_request((b"x", b"a\0b")), WRONG, []),
    "8.2.1 a value with a line's end": (a_request((b"x", b"a\nb")), WRONG, []),
    "8.2.1 a value with a carriage return": (a_request((b"x", b"a\rb")), WRONG, []),
    "8.2.1 a value that begins with a blank": (a_request((b"x", b" a")), WRONG, []),
    "8.2.1 a value that ends with a tab": (a_request((b"x", b"a\t")), WRONG, []),
    "8.2.1 a value of any other bytes": (a_request((b"x", b"\x01 \xff")), [], ["begin 1 end"]),
    "8.2.2 connection": (a_request((b"connection", b"close")), WRONG, []),
    "8.2.2 transfer-encoding": (a_request((b"transfer-encoding", b"chunked")), WRONG, []),
    "8.2.2 keep-alive, proxy-connection, upgrade": (
        [
            headers(n, request((name, b"1")), end=True)
            for n, name in ((1, b"keep-alive"), (3, b"proxy-connection"), (5, b"upgrade"))
        ],
        [*WRONG, "RST_STREAM 3 PROTOCOL_ERROR", "RST_STREAM 5 PROTOCOL_ERROR"],
        [],
    ),
    "8.2.2 te: trailers": (a_request((b"te", b"trailers")), [], ["begin 1 end"]),
    "8.2.2 te: gzip": (a_request((b"te", b"gzip")), WRONG, []),
    "8.3 a pseudo-header after another": (
        a_request((b"x", b"1"), (b":scheme", b"http"), without=b":scheme"),
        WRONG,
        [],
    ),
    "8.3 an unknown pseudo-header": ([headers(1, [(b":x", b"1"), *REQUEST], end=True)], WRONG, []),
    "8.3 a pseudo-header of responses": ([headers(1, [(b":status", b"200"), *REQUEST], end=True)], WRONG, []),
    "8.3.1 without :method": (a_request(without=b":method"), WRONG, []),
    "8.3.1 without :scheme": (a_request(without=b":scheme"), WRONG, []),
    "8.3.1 without :path": (a_request(without=b":path"), WRONG, []),
    "8.3.1 with an empty :path": (
        [headers(1, [*request(without=b":path"), (b":path", b"")], end=True)],
        WRONG,
        [],
    ),
    "8.3.1 with two :path": ([headers(1, [(b":path", b"/y"), *REQUEST], end=True)], WRONG, []),
    "8.3.1 without :authority": (a_request(without=b":authority"), [], ["begin 1 end"]),
    "8.3.1 :authority may be anything": (
        [headers(1, [*request(without=b":authority"), (b":authority", b"#initially=[%2Ftmp]")], end=True)],
        [],
        ["begin 1 end"],
    ),
    "8.3.1 :authority may be empty": (
        [headers(1, [*request(without=b":authority"), (b":authority", b"")], end=True)],
        [],
        ["begin 1 end"],
    ),
    "8.5 CONNECT": (
        [headers(1, [(b":method", b"CONNECT"), (b":authority", b"a")], end=True)],
        [],
        ["begin 1 end"],
    ),
    "8.5 CONNECT with a path": (
        [headers(1, [(b":method", b"CONNECT"), (b":authority", b"a"), (b":path", b"/")], end=True)],
        WRONG,
        [],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_server_keeps_to_rfc_9113(rule: str) -> None:
    """Each rule: the frames that come, those that are sent, and the handler's calls."""
    sent, expected, told = RULES[rule]
    connection, recorder = server()
    for each in sent:
        connection.receive(each)
    assert (said(connection.take()), recorder.told) == (expected, told)
    assert connection.dead == any(line.startswith("GOAWAY") for line in expected)


ASKED = ["GOAWAY 0 PROTOCOL_ERROR"]
GONE = ["reset 1 PROTOCOL_ERROR", "closing"]
CLIENT_RULES: dict[str, tuple[list[bytes], list[str], list[str]]] = {
    "5.1 idle: HEADERS": ([headers(3, HEAD)], ASKED, GONE),
    "5.1 idle: DATA": ([data(3, b"x")], ASKED, GONE),
    "5.1 idle: WINDOW_UPDATE": ([window(3, 1)], ASKED, GONE),
    "5.1 idle: RST_STREAM": ([rst(3)], ASKED, GONE),
    "5.1.1 a server's stream": ([headers(2, HEAD)], ASKED, GONE),
    "5.1 closed: HEADERS": (
        [headers(1, HEAD, end=True), headers(1, END, end=True)],
        ["GOAWAY 0 STREAM_CLOSED"],
        ["headers 1 end", "closing"],
    ),
    "5.1 closed: DATA": (
        [headers(1, HEAD, end=True), data(1, b"x")],
        ["RST_STREAM 1 STREAM_CLOSED"],
        ["headers 1 end"],
    ),
    "6.5.2 ENABLE_PUSH 1": (setting(frames.ENABLE_PUSH, 1), ASKED, GONE),
    "6.5.2 ENABLE_PUSH 0": (setting(frames.ENABLE_PUSH, 0), ["SETTINGS ack"], []),
    "6.6 PUSH_PROMISE": ([frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK)], ASKED, GONE),
    "6.7 PING is answered": ([ping()], ["PING ack"], []),
    "8.1 an answer": (
        [headers(1, HEAD), data(1, b"abc"), headers(1, END, end=True)],
        [],
        ["headers 1", "data 1 3", "headers 1 end"],
    ),
    "8.1 an answer without trailers": (
        [headers(1, HEAD), data(1, b"abc", end=True)],
        [],
        ["headers 1", "data 1 3 end"],
    ),
    "8.1 DATA before HEADERS": ([data(1, b"x")], WRONG, ["reset 1 PROTOCOL_ERROR"]),
    "8.1 interim answers are passed over": (
        [headers(1, [(b":status", b"100")]), headers(1, [(b":status", b"103")]), headers(1, HEAD, end=True)],
        [],
        ["headers 1 end"],
    ),
    "8.1 an interim answer that ends": (
        [headers(1, [(b":status", b"100")], end=True)],
        WRONG,
        ["reset 1 PROTOCOL_ERROR"],
    ),
    "8.1 trailers that end nothing": (
        [headers(1, HEAD), headers(1, END)],
        WRONG,
        ["headers 1", "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1.1 content-length and less": (
        [headers(1, [(b":status", b"200"), (b"content-length", b"2")]), data(1, b"x", end=True)],
        WRONG,
        ["headers 1", "reset 1 PROTOCOL_ERROR"],
    ),
    "8.1.1 content-length and nothing": (
        [headers(1, [(b":status", b"200"), (b"content-length", b"2")], end=True)],
        WRONG,
        ["reset 1 PROTOCOL_ERROR"],
    ),
    "8.3.2 without :status": ([headers(1, [(b"x", b"1")])], WRONG, ["reset 1 PROTOCOL_ERROR"]),
    "8.3.2 a :status that is none": ([headers(1, [(b":status", b"20")])], WRONG, ["reset 1 PROTOCOL_ERROR"]),
    "8.3.2 a pseudo-header of requests": (
        [headers(1, [(b":status", b"200"), (b":path", b"/")])],
        WRONG,
        ["reset 1 PROTOCOL_ERROR"],
    ),
}


@pytest.mark.parametrize("rule", CLIENT_RULES)
def test_a_client_keeps_to_rfc_9113(rule: str) -> None:
    """The same for the other end, which has asked once, completely."""
    sent, expected, told = CLIENT_RULES[rule]
    connection, recorder = client()
    connection.request(BLOCK, ended=True)
    connection.take()
    for each in sent:
        connection.receive(each)
    assert (said(connection.take()), recorder.told) == (expected, told)


# --- 3.4: the beginning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", PREFACE[:-1] + b"x", b"\x16\x03\x01"])
def test_what_is_no_preface_ends_the_connection(first: bytes) -> None:
    """At the first byte that differs, and not when 24 have come."""
    recorder = Recorder()
    connection = ServerConnection(recorder)
    connection.take()
    connection.receive(first)
    assert said(connection.take()) == fatal("PROTOCOL_ERROR")
    assert connection.dead
    assert recorder.told == ["closing"]


@pytest.mark.parametrize("first", [ping(), SETTINGS_ACK, WHOLE])
def test_the_first_frame_has_to_be_settings(first: bytes) -> None:
    """Anything else, an acknowledgement too, is a protocol error; for both ends."""
    for connection, _ in (server(first=b""), client(first=b"")):
        connection.receive(first)
        assert said(connection.take()) == fatal("PROTOCOL_ERROR")


def test_each_end_says_its_settings_first() -> None:
    """A client the preface before; both what they take, and the connection's window."""
    for is_client, connection in ((False, server(first=b"")[0]), (True, client(first=b"")[0])):
        made = type(connection)(Recorder())
        out = made.take()
        assert out.startswith(PREFACE) == is_client
        first, second = split(out)
        pairs = dict(frames.read_settings(first[3]))
        assert pairs[frames.INITIAL_WINDOW_SIZE] == LIMITS.stream_window_bytes
        assert pairs[frames.MAX_FRAME_SIZE] == LIMITS.frame_bytes
        assert pairs[frames.MAX_HEADER_LIST_SIZE] == LIMITS.header_list_bytes
        if is_client:
            assert pairs[frames.ENABLE_PUSH] == 0
        else:
            assert pairs[frames.MAX_CONCURRENT_STREAMS] == LIMITS.concurrent_streams
        assert int.from_bytes(second[3], "big") == LIMITS.window_bytes - 65535


def test_nothing_is_read_after_the_end() -> None:
    """A connection that has failed is deaf: no call, no frame."""
    connection, recorder = server()
    connection.receive(data(1) + WHOLE)
    connection.receive(WHOLE)
    connection.lost()
    assert said(connection.take()) == fatal("PROTOCOL_ERROR")
    assert recorder.told == ["closing"]


def test_a_request_list_is_judged_once() -> None:
    """Identical blocks share what `route` made of the first; one that changes the table is judged anew."""
    connection, recorder = server()
    asked: list[Headers] = []

    recorder.on_route = asked.append
    for number in range(3):
        connection.receive(headers(1 + 2 * number, BLOCK, end=True))
    assert asked == [REQUEST]
    assert [recorder.headers_of[n] for n in (1, 3, 5)] == [REQUEST] * 3
    connection.receive(headers(7, BLOCK + b"\x40\x01x\x01y", end=True))
    connection.receive(headers(9, BLOCK, end=True))
    assert asked == [REQUEST, [*REQUEST, (b"x", b"y")], REQUEST]


def test_a_large_block_goes_out_in_pieces() -> None:
    """Above the peer's frame size: HEADERS and CONTINUATION, whole frames, that together are the block."""
    connection, recorder = server()
    connection.receive(WHOLE)
    block = encode([(b"grpc-message", b"m" * 40_000)])
    connection.close(recorder.streams[1], block)
    made = list(split(connection.take()))
    assert [(kind, flags) for kind, flags, _, _ in made] == [(1, 1), (9, 0), (9, 4)]
    assert b"".join(payload for *_, payload in made) == block
