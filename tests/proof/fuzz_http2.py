"""The two parsers of HTTP/2 as fuzz targets (see fuzz_targets): whatever a peer sends, our end keeps its limits."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.network.http2.connection import ClientConnection, ServerConnection
from kvstore.network.http2.frames import PREFACE, ConnectionFault, settings
from kvstore.network.http2.hpack import Decoder, encode
from kvstore.network.http2.limits import LIMITS
from tests.network.http2.peers import REQUEST, Recorder, Time, answering

OUT_PER_BYTE, OUT_BYTES = 4, 64 << 10


def http2(data: bytes) -> None:
    """To a server at its beginning, to one that knows its client, and to a client with a request under way."""
    for first in (b"", PREFACE + settings()):
        recorder = Recorder()
        server = ServerConnection(recorder, now=Time())
        answering(server, recorder)
        server.receive(first)
        _hold(server, data)
    client = ClientConnection(Recorder(), now=Time())
    client.request(encode(REQUEST))
    client.receive(settings())
    _hold(client, data)


def _hold(connection: ServerConnection | ClientConnection, data: bytes) -> None:
    """What is sent and kept is in proportion to what came."""
    connection.take()
    connection.receive(data)
    assert len(connection.take()) <= OUT_PER_BYTE * len(data) + OUT_BYTES
    assert len(connection._buffer) <= LIMITS.frame_bytes + 9
    assert len(connection.streams) <= len(data) // 9 + 1
    connection.lost()
    assert not connection.streams
    assert connection.queued_bytes == 0


def hpack(data: bytes) -> None:
    """One block, and the same as two: a list within its limits, or the end of the connection."""
    decoder = Decoder()
    half = len(data) // 2
    for block in (data[:half], data[half:], data):
        try:
            made = decoder.decode(block)
        except ConnectionFault:
            return
        assert len(made.headers) <= LIMITS.header_list_fields
        assert sum(len(name) + len(value) + 32 for name, value in made.headers) <= LIMITS.header_list_bytes


TARGETS: list[Callable[[bytes], None]] = [http2, hpack]
