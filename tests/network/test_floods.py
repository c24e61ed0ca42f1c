"""Floods against a whole server: who floods is cut, what he had is let go, and others are served."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network import limits
from kvstore.network.grpc import framed
from kvstore.network.http2 import frames
from kvstore.network.http2.frames import frame, settings
from tests.network.http2.peers import continuation, data, headers, ping, priority, rst, window
from tests.network.served_store import PUT, RANGE, WATCH, Served, block, get, is_cut, until

READ, WRITE, LOOK = block(RANGE), block(PUT), block(WATCH)
ALL = framed(pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
BOMB = b"\x40\x01x\x7f\x80\x1e" + b"v" * 3_967 + b"\xbe" * 10_000
"""One header of 4 KB, and 10,000 times the byte that means the same again."""

Flood = tuple[bytes, Callable[[int], bytes], int]
FLOODS: dict[str, Flood] = {
    "rapid reset": (
        b"",
        lambda n: headers(2 * n + 1, READ) + data(2 * n + 1, ALL, end=True) + rst(2 * n + 1),
        3_000,
    ),
    "reset of requests that are not complete": (
        b"",
        lambda n: headers(2 * n + 1, WRITE) + rst(2 * n + 1),
        3_000,
    ),
    "reset of watches": (b"", lambda n: headers(2 * n + 1, LOOK) + rst(2 * n + 1), 3_000),
    "CONTINUATION": (headers(1, b"", flags=0), lambda n: continuation(1, b"", last=False), 1_000),
    "HPACK bomb": (b"", lambda n: headers(2 * n + 1, BOMB), 2),
    "PING": (b"", lambda n: ping(), 1_000),
    "SETTINGS": (b"", lambda n: settings(), 5_000),
    "PRIORITY": (b"", lambda n: priority(2 * n + 1), 5_000),
    "empty DATA": (headers(1, WRITE), lambda n: data(1), 5_000),
    "unknown frames": (b"", lambda n: frame(0xEE, 0, 0, b"x" * 100), 5_000),
    "WINDOW_UPDATE": (b"", lambda n: window(0, 1), 100_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_and_others_are_served(served: Served, name: str) -> None:
    """The connection ends, nothing is left of it, and clients that were there before or come later are answered."""
    before, flood, count = FLOODS[name]
    served.store.put(b"k", b"v" * 10_000)
    other = served.connect()
    assert other.call(RANGE, get(b"k"))
    flooder = served.raw()
    flooder.sendall(before)
    whole = b"".join(flood(number) for number in range(count))
    sender = threading.Thread(target=_send, args=(flooder, whole))
    sender.start()
    assert is_cut(flooder)
    sender.join()
    assert other.call(RANGE, get(b"k"))
    assert served.answers()
    until(lambda: len(served.server.connections) == 1)
    until(lambda: served.budget.answer_bytes == served.budget.request_bytes == 0)


def _send(flooder: socket.socket, whole: bytes) -> None:
    try:
        flooder.sendall(whole)
    except OSError:
        pass


def test_unfinished_requests_are_bounded_over_all_connections(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound, the connection that has most of them ends. One that has few goes on, and is served."""
    monkeypatch.setattr(limits, "ALL_REQUEST_BYTES", 1 << 20)
    half = framed(b"x" * 200_000)[:100_000]
    modest, greedy = served.connect(), served.raw()
    begun = modest.begin(PUT, None, ended=False)
    assert begun.stream is not None
    message = framed(pb.PutRequest(key=b"k", value=b"v" * 1000).SerializeToString())
    modest.http2.write(begun.stream, message[:500])
    modest.flush()
    until(lambda: served.budget.request_bytes == 500)
    for number in range(20):
        pieces = [half[at : at + 10_000] for at in range(0, len(half), 10_000)]
        stream_id = 2 * number + 1
        _send(greedy, headers(stream_id, WRITE) + b"".join(data(stream_id, piece) for piece in pieces))
    assert is_cut(greedy)
    until(lambda: served.budget.request_bytes == 500)
    modest.http2.write(begun.stream, message[500:])
    modest.http2.finish(begun.stream)
    modest.flush()
    assert modest.next(begun)
    assert served.store.get(b"k") is not None
    assert served.budget.request_bytes == 0


def test_a_reset_request_keeps_its_place_while_it_is_worked_on(served: Served) -> None:
    """Its stream counts until the thread that serves it is done: more is not begun meanwhile than may be at all."""
    held, let_go = threading.Event(), threading.Event()
    engine = served.server.endpoint.engine
    look = engine.status

    def slow_status() -> object:
        held.set()
        assert let_go.wait(60)
        return look()

    engine.status = slow_status  # type: ignore[method-assign,assignment]
    try:
        wire = served.connect()
        answer = wire.begin("/etcdserverpb.Maintenance/Status", b"", ended=True)
        assert held.wait(60)
        assert answer.stream is not None
        wire.http2.reset(answer.stream, frames.CANCEL)
        wire.flush()
        assert wire.call(RANGE, get(b"k"))
        [connection] = served.server.connections
        working = connection._speaker.http2._working  # type: ignore[union-attr]
        assert len(working) == 1
        let_go.set()
        until(lambda: not working)
    finally:
        let_go.set()
        engine.status = look  # type: ignore[method-assign]
