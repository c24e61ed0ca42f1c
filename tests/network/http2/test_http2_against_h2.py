"""Frames that are legal, or nearly, given to our server and to `h2`'s: both take the same, and refuse the same.

Each piece (a frame, or a whole header block) goes to both. As long as neither complains, both must have delivered the
same: headers, data, resets. At the first complaint of one the other must complain of the same piece; then the case is
over, since what follows an error may differ. A complaint is RST_STREAM or GOAWAY; h2 also raises.

Three differences are known, and passed over or not drawn. h2 lets RST_STREAM for a stream that was never opened pass
(RFC 9113, 6.4: a connection error), and a content-length in a request that ends with its headers (8.1.1: malformed). It
wants `:authority` or `host`, which etcd's clients may leave out.
"""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.network.http2 import frames
from kvstore.network.http2.connection import ServerConnection
from kvstore.network.http2.fields import Headers
from kvstore.network.http2.frames import PREFACE, frame
from kvstore.network.http2.limits import Limits
from tests.network.http2.peers import (
    REQUEST,
    TRAILERS,
    Recorder,
    Time,
    data,
    ping,
    priority,
    rst,
    split,
    window,
)

Piece = tuple[str, object]


class Ours:
    """What our server delivered, in the words of both."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.connection = ServerConnection(self.recorder, Limits(ping_strikes=100), Time())
        self.knows_better = False
        self.take(PREFACE + frames.settings())

    def take(self, piece: bytes) -> tuple[bool, list[object]]:
        """Whether it complained, and what it delivered."""
        self.recorder.told.clear()
        self.recorder.headers_of.clear()
        self.recorder.data_of.clear()
        self.connection.receive(piece)
        out = self.connection.take()
        self.knows_better = b"RST_STREAM for stream" in out
        complains = any(kind in (frames.RST_STREAM, frames.GOAWAY) for kind, *_ in split(out))
        return complains, self._delivered()

    def _delivered(self) -> list[object]:
        found: list[object] = [("headers", n, fields) for n, fields in self.recorder.headers_of.items()]
        found += [("data", n, payload) for n, payload in self.recorder.data_of.items() if payload]
        found += [("end", int(line.split()[1])) for line in self.recorder.told if line.endswith(" end")]
        found += [("reset", int(line.split()[1])) for line in self.recorder.told if line.startswith("reset")]
        return found


class Theirs:
    """The same of h2's."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.take(PREFACE + frames.settings())

    def take(self, piece: bytes) -> tuple[bool, list[object]]:
        try:
            events = self.connection.receive_data(piece)
        except h2.exceptions.ProtocolError:
            return True, []
        said = [kind for kind, *_ in split(self.connection.data_to_send())]
        complains = frames.RST_STREAM in said or frames.GOAWAY in said
        return complains, [word for event in events if (word := self._word(event)) is not None]

    def _word(self, event: h2.events.Event) -> object:
        match event:
            case h2.events.RequestReceived():
                return (
                    "headers",
                    event.stream_id,
                    [(bytes(name), bytes(value)) for name, value in event.headers],
                )
            case h2.events.DataReceived() if event.data:
                return "data", event.stream_id, event.data
            case h2.events.StreamEnded():
                return "end", event.stream_id
            case h2.events.StreamReset():
                return "reset", event.stream_id
        return None


def pieces(script: list[Piece]) -> list[bytes]:
    """The script's frames. Header blocks are from one encoder, so that the table is in play. Id None: a new stream."""
    encoder, made, new = hpack.Encoder(), [], 1
    for kind, what in script:
        match kind, what:
            case "headers", (int() | None as stream_id, list(fields), bool(end), int(cut), bool(padded)):
                if stream_id is None:
                    stream_id, new = new, new + 2
                made.append(
                    header_frames(
                        stream_id, encoder.encode(fields), end and LENGTH not in fields, cut, padded
                    )
                )
            case "frame", bytes(piece):
                made.append(piece)
    return made


def header_frames(stream_id: int, block: bytes, end: bool, cut: int, padded: bool) -> bytes:
    """One block, in two frames if `cut`, with padding and a priority if `padded`."""
    flags = (frames.END_STREAM if end else 0) | (0 if cut else frames.END_HEADERS)
    head, rest = (block[:cut], block[cut:]) if cut else (block, b"")
    if padded:
        flags |= frames.PADDED | frames.PRIORITIZED
        head = b"\x03" + b"\0\0\0\x0b\x10" + head + b"\0\0\0"
    first = frame(frames.HEADERS, flags, stream_id, head)
    return first + (frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, rest) if cut else b"")


# --- what is drawn --------------------------------------------------------------------------------------

LENGTH = (b"content-length", b"5")
IDS = st.sampled_from([1, 1, 1, 3, 3, 5, 7])
ANY_IDS = IDS | st.sampled_from([0, 2, 9])
GOOD = st.sampled_from([
    REQUEST,
    [*REQUEST, (b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"grpc-timeout", b"1S")],
    [*REQUEST, LENGTH],
    [*REQUEST, (b"x", b"1"), (b"x", b"2"), (b"cookie", b"a=b")],
    TRAILERS,
])  # fmt: skip
BAD_FIELDS = [
    (b"X", b"1"), (b"connection", b"close"), (b"te", b"gzip"), (b":path", b"/2"), (b":status", b"200"), (b":new", b"1"),
    (b"a b", b"1"), (b"a", b"x\0"), (b"a", b"x\ny"), (b"a", b" x"), (b"upgrade", b"h"), (b"", b"x"),
]  # fmt: skip


def spoilt(fields: Headers, at: int, how: int) -> Headers:
    """A field left out, or a bad one put in."""
    at %= len(fields)
    if how < len(BAD_FIELDS):
        return [*fields[:at], BAD_FIELDS[how], *fields[at:]]
    return [field for field in fields if field != fields[at] or field[0] == b":authority"]


LISTS = GOOD | GOOD | GOOD | st.builds(spoilt, GOOD, st.integers(0, 9), st.integers(0, len(BAD_FIELDS) + 2))
HEADERS = st.tuples(
    st.none() | st.none() | IDS | ANY_IDS, LISTS, st.booleans(), st.sampled_from([0, 0, 1, 3]), st.booleans()
)
DATA = st.builds(
    lambda stream_id, size, end, padding: data(
        stream_id,
        b"x" * size if padding is None else bytes([padding]) + b"x" * size + bytes(padding),
        end=end,
        flags=0 if padding is None else frames.PADDED,
    ),
    IDS | ANY_IDS,
    st.sampled_from([0, 1, 4, 5, 2_000]),
    st.booleans(),
    st.none() | st.integers(0, 5),
)
NUMBERS = st.sampled_from([1, 7, 1000, 65_535]) | st.sampled_from(
    [0, frames.MAX_31_BITS - 65_535, frames.MAX_31_BITS]
)
OTHERS = st.one_of(
    st.builds(rst, IDS | ANY_IDS, st.sampled_from([0, 7, 8])),
    st.builds(window, ANY_IDS, NUMBERS),
    st.builds(ping, st.sampled_from([b"12345678", b"12345678", b"1234567"]), st.sampled_from([0, 1])),
    st.builds(priority, st.sampled_from([1, 3, 5]), st.sampled_from([0, 7, 3])),
    st.builds(
        lambda name, value: frames.settings((name, value)),
        st.sampled_from([2, 3, 4, 5, 6, 99]),
        st.sampled_from([0, 1, 2, 16_383, 16_384, 100_000, frames.MAX_31_BITS, frames.MAX_31_BITS + 1]),
    ),
    st.sampled_from([
        frame(frames.SETTINGS, frames.ACK, 0),
        frame(frames.SETTINGS, 0, 1),
        frame(frames.SETTINGS, 0, 0, b"12345"),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x82"),
        frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, b"\0\0\0\2\x82"),
        frame(0xEE, 3, 1, b"unknown"),
        data(1, b"x" * 16_385),
    ]),
)  # fmt: skip
PIECE: st.SearchStrategy[Piece] = st.one_of(
    HEADERS.map(lambda each: ("headers", each)),
    HEADERS.map(lambda each: ("headers", each)),
    DATA.map(lambda each: ("frame", each)),
    OTHERS.map(lambda each: ("frame", each)),
)


@settings(max_examples=300)
@given(st.lists(PIECE, min_size=1, max_size=10))
def test_our_server_takes_and_refuses_what_h2_takes_and_refuses(script: list[Piece]) -> None:
    """Piece by piece, up to the first that either complains of."""
    ours, theirs = Ours(), Theirs()
    for number, piece in enumerate(pieces(script)):
        complains, delivered = ours.take(piece)
        they_complain, they_delivered = theirs.take(piece)
        assert complains == they_complain or ours.knows_better, (
            f"piece {number}: we complain: {complains}, h2: {they_complain}"
        )
        if complains or ours.knows_better:
            return
        assert sorted(map(repr, delivered)) == sorted(map(repr, they_delivered)), f"piece {number}"
