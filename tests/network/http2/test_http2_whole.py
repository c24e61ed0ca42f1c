"""A request that has come whole may be answered without a stream: nobody who looks at the connection can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kvstore.network.http2.connection import ClientConnection, ServerConnection, Whole
from kvstore.network.http2.frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PREFACE,
    PROTOCOL_ERROR,
    frame,
    goaway,
    pack_head,
    rst_stream,
    settings,
    window_update,
)
from kvstore.network.http2.hpack import encode
from kvstore.network.http2.limits import Limits
from kvstore.network.http2.stream import Stream

LIMITS = Limits(concurrent_streams=3, stream_window_bytes=70_000, window_bytes=100_000)
HEAD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
BLOCK = encode(HEAD)
OF_FOUR = encode([*HEAD, (b"content-length", b"4")])
BEGIN = PREFACE + settings()


class Echo:
    """Answers a request with its data, unless that begins with a dot: then it is never answered."""

    def __init__(self) -> None:
        self.http2 = ServerConnection(self, LIMITS, lambda: 0.0)
        self.data_of: dict[int, bytes] = {}

    def route(self, headers: Any) -> Any:
        return "route"

    def begin(self, stream: Stream, route: Any, ended: bool) -> None:
        self.data_of[stream.id] = b""
        if ended:
            self.data(stream, b"", True)

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        self.data_of[stream.id] += payload
        if ended and payload[:1] != b".":
            self.http2.answer(stream, b"head", self.data_of[stream.id], b"trailers")

    def reset(self, stream: Stream, code: int) -> None: ...
    def drained(self, stream: Stream) -> None: ...
    def closing(self) -> None: ...


class AtOnce(Echo):
    """The same, for what comes whole without a stream."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__()

    def whole(self, route: Any) -> Whole | None:
        return self._serve if route == "route" else None

    def _serve(self, stream_id: int, payload: bytes) -> bool:
        if payload[:1] == b".":
            return False
        self.count += 1
        self.http2.answer_whole(stream_id, b"head", payload, b"trailers")
        return True


class Later(Echo):
    """Answers when all that was received has been looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: list[tuple[Stream, bytes]] = []

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        self.data_of[stream.id] += payload
        if ended and payload[:1] != b".":
            self._begun.append((stream, self.data_of[stream.id]))

    def answer_all(self) -> None:
        for stream, data in self._begun:
            self.http2.answer(stream, b"head", data, b"trailers")
        self._begun.clear()


class WholeLater(Later):
    """The same, for what comes whole in one step."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__()

    def whole(self, route: Any) -> Whole | None:
        return self._serve

    def _serve(self, stream_id: int, payload: bytes) -> bool:
        if payload[:1] == b".":
            return False
        self.count += 1
        self._begun.append((self.http2.begin_whole(stream_id), payload))
        return True


def ask(stream_id: int, data: bytes = b"data", block: bytes = BLOCK, flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, END_HEADERS, stream_id, block) + frame(DATA, flags, stream_id, data)


LARGE = b"x" * 16_000
SCRIPTS = {
    "one after the other": (ask(1) + ask(3), ask(5), ask(9)),
    "an id that was left out": (ask(1) + ask(5) + ask(3),),
    "an id that is over": (ask(1) + ask(3) + ask(3),),
    "an id that is the server's": (ask(1) + ask(2),),
    "too many at once": (ask(1, b".") + ask(3, b".") + ask(5, b".") + ask(7) + ask(9),),
    "room again after a reset": (
        ask(1, b".") + ask(3, b".") + ask(5, b"."),
        rst_stream(1, 8) + rst_stream(3, 8) + ask(7),
    ),
    "the promised length": (ask(1, block=OF_FOUR) + ask(3, block=OF_FOUR) + ask(5, b"five!", OF_FOUR) + ask(7),),
    "more than a stream may send": (
        ask(1) + frame(HEADERS, END_HEADERS, 3, BLOCK) + frame(DATA, 0, 3, LARGE) * 5 + ask(5),
    ),
    "more than the connection may send": (ask(1), *[ask(3 + 2 * each, LARGE) for each in range(9)]),
    "a frame that is too long": (ask(1) + ask(3, b"x" * 20_000),),
    "in two pieces": (ask(1) + ask(3)[:-2], ask(3)[-2:] + ask(5)),
    "padding": (ask(1) + ask(3, b"\1data\0", flags=END_STREAM | PADDED),),
    "no end": (ask(1) + ask(3, flags=0) + frame(DATA, END_STREAM, 3, b"more"),),
    "data of another stream": (ask(1, b".") + frame(HEADERS, END_HEADERS, 3, BLOCK) + frame(DATA, 1, 1, b"x"),),
    "a reserved bit": (ask(1) + frame(HEADERS, END_HEADERS, 3, BLOCK) + pack_head(4 << 8, 1, 3 | 1 << 31) + b"data",),
    "small windows": (settings((INITIAL_WINDOW_SIZE, 3)) + ask(1) + ask(3), window_update(3, 9) + ask(5)),
    "the connection's window": (*[ask(1 + 2 * each, LARGE) for each in range(6)], window_update(0, 90_000) + ask(13)),
    "the peer leaves": (ask(1) + goaway(0, 0) + ask(3),),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_frames_are_the_same(name: str) -> None:
    """Whatever comes, and whichever rule it breaks."""
    plain, at_once = Echo(), AtOnce()
    for data in (BEGIN, *SCRIPTS[name]):
        for each in (plain, at_once):
            each.http2.receive(data)
        assert at_once.http2.take() == plain.http2.take()
    for fact in (
        "dead",
        "queued_bytes",
        "_last",
        "_receive_window",
        "_send_window",
        "_has_gaps",
        "_owed_bytes",
    ):
        assert getattr(at_once.http2, fact) == getattr(plain.http2, fact), fact
    assert at_once.http2.streams.keys() == plain.http2.streams.keys()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_frames_are_the_same_later(name: str) -> None:
    """Also where a request that has come whole gets a stream of its own in one step."""
    apart, in_one = Later(), WholeLater()
    for data in (BEGIN, *SCRIPTS[name]):
        for each in (apart, in_one):
            each.http2.receive(data)
            each.answer_all()
        assert in_one.http2.take() == apart.http2.take()
    for fact in (
        "dead",
        "queued_bytes",
        "_last",
        "_receive_window",
        "_send_window",
        "_has_gaps",
        "_owed_bytes",
        "_abandoned",
    ):
        assert getattr(in_one.http2, fact) == getattr(apart.http2, fact), fact
    assert in_one.http2.streams.keys() == apart.http2.streams.keys()


class Refusing(Echo):
    """Ends some requests as soon as their headers have come, or the connection."""

    def begin(self, stream: Stream, route: Any, ended: bool) -> None:
        super().begin(stream, route, ended)
        if stream.id == 3:
            self.http2.close(stream, b"trailers")
        elif stream.id == 7:
            self.http2.go_away(None, PROTOCOL_ERROR)


def frame_by_frame(data: bytes) -> Iterator[bytes]:
    """The frames of the data, each by itself."""
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        yield data[:end]
        data = data[end:]


@pytest.mark.parametrize("owner", [Echo, Refusing])
@pytest.mark.parametrize("name", SCRIPTS)
def test_two_frames_together_are_two_frames(name: str, owner: type[Echo]) -> None:
    """A request that has come whole begins, and is answered, as if its frames had come one after the other."""
    together, apart = owner(), owner()
    for each in (together, apart):
        each.http2.receive(BEGIN)
    for data in SCRIPTS[name]:
        together.http2.receive(data)
        for piece in frame_by_frame(data):
            apart.http2.receive(piece)
        assert together.http2.take() == apart.http2.take()
    assert together.data_of == apart.data_of
    for fact in (
        "dead",
        "_last",
        "_receive_window",
        "_send_window",
        "_has_gaps",
        "_owed_bytes",
        "_abandoned",
    ):
        assert getattr(together.http2, fact) == getattr(apart.http2, fact), fact


class Asking:
    """Asks nine times, and notes what it hears. ``cancels``: in what it ends the stream, of some answers."""

    def __init__(self, cancels: str) -> None:
        self.http2 = ClientConnection(self, LIMITS, lambda: 0.0)
        self.heard: list[Any] = []
        self._cancels = cancels
        self.http2.receive(settings())
        for _ in range(9):
            self.http2.ask(BLOCK, b"data")
        self.http2.take()

    def _note(self, stream: Stream, what: str, *said: Any) -> None:
        self.heard.append((stream.id, what, *said))
        if self._cancels == what and stream.id in (5, 9):
            self.http2.reset(stream, CANCEL)
        elif self._cancels == "all" and stream.id == 5:
            self.http2.lost()

    def headers(self, stream: Stream, headers: Any, ended: bool) -> None:
        self._note(stream, "trailers" if ended else "headers", headers)

    def data(self, stream: Stream, payload: bytes, ended: bool) -> None:
        self._note(stream, "data", payload)

    def reset(self, stream: Stream, code: int) -> None:
        self.heard.append((stream.id, "reset", code))

    def drained(self, stream: Stream) -> None: ...
    def closing(self) -> None:
        self.heard.append("closing")


class AskingForAll(Asking):
    """Takes answers that have come whole at once, but for those that begin with an x."""

    def whole(self, stream: Stream, headers: Any, payload: bytes, trailers: Any) -> bool:
        if payload[:1] == b"x" or self._cancels:
            return False
        self.heard += [
            (stream.id, "headers", headers),
            (stream.id, "data", payload),
            (stream.id, "trailers", trailers),
        ]
        return True


OK, TRAILERS = encode([(b":status", b"200")]), encode([(b"grpc-status", b"0")])


def answer(
    stream_id: int, data: bytes = b"data", head: bytes = OK, end: bytes = TRAILERS, flags: int = 5
) -> bytes:
    return (
        frame(HEADERS, END_HEADERS, stream_id, head)
        + frame(DATA, 0, stream_id, data)
        + frame(HEADERS, flags, stream_id, end)
    )


ANSWERS = {
    "one after the other": [answer(each) for each in (1, 3, 5, 7, 9)],
    "all at once": [b"".join(answer(each) for each in (1, 5, 3, 9, 7))],
    "to a stream that was answered": [answer(1) + answer(3), answer(3) + answer(5)],
    "headers twice": [answer(1) + frame(HEADERS, END_HEADERS, 3, OK) + answer(3) + answer(5)],
    "held": [answer(each, LARGE) for each in (1, 3, 5, 7, 9, 11, 13, 15)],
    "to nobody": [answer(1) + answer(3), answer(99)],
    "other headers": [answer(1) + answer(3, head=encode([(b":status", b"404")])) + answer(5)],
    "headers before the headers": [answer(1) + answer(3, head=encode([(b":status", b"103")])) + answer(5)],
    "a promised length": [
        *[answer(each, head=encode([(b":status", b"200"), (b"content-length", b"4")])) for each in (1, 3, 5)],
        answer(7, b"five!", encode([(b":status", b"200"), (b"content-length", b"4")])),
    ],
    "bad trailers": [answer(1) + answer(3, end=OK) + answer(5), answer(7, end=OK)],
    "trailers that end nothing": [answer(1) + answer(3) + answer(5, flags=4)],
    "no data": [answer(1) + answer(3, b"") + answer(5)],
    "more than the stream may send": [answer(1) + frame(HEADERS, 4, 3, OK) + frame(DATA, 0, 3, LARGE) * 5, answer(5)],
    "more than the connection may send": [answer(each, LARGE) for each in (1, 3, 5, 7, 9, 11, 13, 15)],
    "the server leaves": [answer(1) + answer(3) + goaway(5, 0) + answer(5) + answer(7)],
}  # fmt: skip


@pytest.mark.parametrize("owner", [Asking, AskingForAll])
@pytest.mark.parametrize("cancels", ["", "headers", "data", "trailers", "all"])
@pytest.mark.parametrize("name", ANSWERS)
def test_three_frames_together_are_three_frames(name: str, cancels: str, owner: type[Asking]) -> None:
    """Whatever comes, the client's owner hears the same, and the server too, as if frames came one after the other."""
    together, apart = owner(cancels), Asking(cancels)
    for each in (together, apart):
        each.http2.holding = name == "held"  # no window is given back, until the server has none
    for data in ANSWERS[name]:
        together.http2.receive(data)
        for piece in frame_by_frame(data):
            apart.http2.receive(piece)
        assert together.http2.take() == apart.http2.take()
    assert together.heard == apart.heard
    for fact in ("dead", "leaving", "_receive_window", "_send_window", "_owed_bytes", "_abandoned"):
        assert getattr(together.http2, fact) == getattr(apart.http2, fact), fact
    assert together.http2.streams.keys() == apart.http2.streams.keys()


def test_a_whole_request_is_two_frames() -> None:
    """As if its headers and its data had been written one after the other; where windows are too small, it waits."""
    apart, together = Asking(""), Asking("")
    for size in (0, 1, 16_384, 16_385, 30_000, 30_000):
        stream = apart.http2.request(BLOCK)
        apart.http2.write(stream, b"x" * size, end=True)
        asked = together.http2.ask(BLOCK, b"x" * size)
        assert together.http2.take() == apart.http2.take()
        for fact in ("id", "local_open", "send_window", "blocked", "queued_bytes"):
            assert getattr(asked, fact) == getattr(stream, fact), fact
    assert asked.blocked
    for each in (apart, together):
        each.http2.receive(window_update(0, 90_000))
    assert together.http2.take() == apart.http2.take()


def test_the_first_of_its_kind_begins_as_others_do() -> None:
    """Its headers have to be judged; the next ones with the same are known."""
    at_once = AtOnce()
    at_once.http2.receive(BEGIN + ask(1) + ask(3) + ask(5))
    assert at_once.count == 2 and list(at_once.data_of) == [1]
    later = WholeLater()
    later.http2.receive(BEGIN + ask(1) + ask(3) + ask(5))
    assert later.count == 2 and list(later.http2.streams) == [1, 3, 5]


def test_one_that_leaves_begins_nothing() -> None:
    """After the last GOAWAY a request is refused, whole or not."""
    outs = []
    for each in (Echo(), AtOnce()):
        each.http2.receive(BEGIN + ask(1) + ask(3, b"."))
        each.http2.go_away()
        each.http2.receive(ask(5))
        outs.append(each.http2.take())
    assert outs[0] == outs[1]
