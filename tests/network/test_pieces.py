"""Much that comes at once from one connection is looked at piece by piece."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network import limits
from kvstore.network.call import Peer
from kvstore.network.grpc import PREFIX_BYTES, Inbox, framed
from kvstore.network.grpc_peer import GrpcPeer
from kvstore.network.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, frame, settings
from tests.network.served_store import PUT, RANGE, WATCH, Served, block, get
from tests.network.web_client import FakeSocket, endpoint_of

CALLS = 2_000


@pytest.mark.parametrize("piece_bytes", [1, 3, 5, 7, 1000])
def test_a_message_in_pieces_is_put_together_once(piece_bytes: int) -> None:
    """However small they are, and whatever follows it: the time it takes grows with its size, not with the square."""
    sent = [bytes(range(250)), b"", b"v" * 700]
    data = b"".join(map(framed, sent))
    inbox = Inbox(b"identity", 1000)
    found: list[bytes] = []
    for at in range(0, len(data), piece_bytes):
        before = inbox.buffered_bytes
        piece = data[at : at + piece_bytes]
        got = inbox.receive(piece)
        found += got
        if not got and before > PREFIX_BYTES:
            assert inbox._pieces[-1] is piece and inbox.buffered_bytes == before + len(piece)
    assert found == sent and not inbox.is_within


class Transport(FakeSocket):
    """As a connection of HTTP/2 needs one."""

    def set_write_buffer_limits(self, high: int) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed


def call(stream_id: int) -> bytes:
    ask = frame(DATA, END_STREAM, stream_id, framed(get(b"k")))
    return frame(HEADERS, END_HEADERS, stream_id, block(RANGE)) + ask


def test_others_have_their_turn_between_pieces(tmp_path: Path) -> None:
    """Of thousands of calls that came at once only some are begun; nothing is read before all are."""
    with kvstore.open(tmp_path / "store", "memory") as store, endpoint_of(store) as endpoint:
        socket = Transport()
        peer = GrpcPeer(endpoint, cast(asyncio.Transport, socket), Peer())
        data = b"".join(call(1 + 2 * number) for number in range(CALLS))
        begin = PREFACE + settings() + data[:-20]
        peer.receive(begin)
        assert 0 < peer.http2._last < CALLS
        assert not socket.is_reading
        peer.receive(data[-20:])  # on its way before that was said

        async def rest() -> None:
            while not socket.is_reading or peer.http2.streams:
                await asyncio.sleep(0)

        endpoint.loop.run_until_complete(asyncio.wait_for(rest(), 60))
        assert peer.http2._last == 2 * CALLS - 1
        assert not peer.http2.dead
        peer.lost()


def test_a_peer_that_is_cut_off_is_read_no_further(tmp_path: Path) -> None:
    """What it had sent beyond its fault is dropped."""
    with kvstore.open(tmp_path / "store", "memory") as store, endpoint_of(store) as endpoint:
        socket = Transport()
        peer = GrpcPeer(endpoint, cast(asyncio.Transport, socket), Peer())
        peer.receive(PREFACE + frame(DATA, 0, 1, b"x") + bytes(4 * limits.FRAMES_BYTES))
        assert peer.http2.dead
        assert socket.is_closed
        assert socket.is_reading
        peer.lost()


def test_calls_are_the_same_in_pieces_of_any_size(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put of some size, a watch, and calls that came together."""
    for size in (97, 1_000):
        monkeypatch.setattr(limits, "FRAMES_BYTES", size)
        wire = served.connect()
        value = b"v" * (300 * size)
        watch = wire.begin(WATCH, None, ended=False)
        wire.send(watch, pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")).SerializeToString())
        assert pb.WatchResponse.FromString(wire.next(watch)).created
        wire.call(PUT, pb.PutRequest(key=b"k", value=value).SerializeToString())
        assert pb.WatchResponse.FromString(wire.next(watch)).events[0].kv.value == value
        answers = [wire.begin(RANGE, get(b"k"), ended=True) for _ in range(20)]
        wire.read(lambda answers=answers: all(each.status is not None for each in answers))
        assert {pb.RangeResponse.FromString(each.messages[0]).kvs[0].value for each in answers} == {value}


def test_requests_of_a_stream_come_whole_or_in_pieces(served: Served) -> None:
    """In any order: each is read once, and none is lost."""
    with served.connect() as wire:
        watch = wire.begin(WATCH, None, ended=False)
        assert watch.stream is not None
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")).SerializeToString()
        message, count = framed(create), 0
        for cut in (1, PREFIX_BYTES, PREFIX_BYTES + 2, len(message) - 1):
            for piece in (
                message[:cut],
                message[cut:],
                message,
                message + message[:cut],
                message[cut:],
                message,
            ):
                wire.http2.write(watch.stream, piece)
                wire.flush()
            count += 5
        answers = [pb.WatchResponse.FromString(wire.next(watch)) for _ in range(count)]
        assert [(each.watch_id, each.created) for each in answers] == [
            (number, True) for number in range(count)
        ]
