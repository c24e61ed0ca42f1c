"""Calls with one message: when they are served, and what else may come."""

from __future__ import annotations

import gzip

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from tests.network.served_store import PUT, RANGE, Served, get
from tests.network.wire import Answer, Wire

SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"


def put(key: bytes) -> bytes:
    message: bytes = pb.PutRequest(key=key, value=b"v").SerializeToString()
    return message


def sized(message: bytes) -> bytes:
    """What follows the flag of a message."""
    return len(message).to_bytes(4, "big") + message


SIZED = sized(get(b"k"))


def outcome(wire: Wire, answer: Answer) -> tuple[int | None, str]:
    wire.read(lambda: answer.status is not None)
    return answer.status, answer.text


@pytest.mark.parametrize(("path", "message"), [(RANGE, get(b"k")), (PUT, put(b"k")), (SNAPSHOT, b"")])
def test_a_call_is_answered_though_its_client_never_ends_its_side(
    served: Served, path: str, message: bytes
) -> None:
    """As by etcd. When the end comes after all, or another message, that is no fault: the connection goes on."""
    wire = served.connect()
    for late in (None, message):
        open_call = wire.begin(path, message, ended=False)
        assert outcome(wire, open_call) == (0, "")
        assert open_call.messages
        if late is not None:
            wire.send(open_call, late)
        wire.half_close(open_call)
        assert wire.call(RANGE, get(b"k"))


def test_a_message_counts_once_whatever_comes_after_it(served: Served, store: kvstore.Store) -> None:
    """Its end in pieces, and a second message, which nobody looks at: one put."""
    wire = served.connect()
    begun = wire.begin(PUT, put(b"k"), ended=False)
    assert begun.stream is not None
    wire.http2.write(begun.stream, b"\0\0\0\0\7")
    wire.flush()
    wire.half_close(begun)
    assert outcome(wire, begun) == (0, "")
    found = store.get(b"k")
    assert found is not None
    assert found.version == 1


def test_a_message_that_ends_within_is_refused(served: Served, store: kvstore.Store) -> None:
    """The client has ended its side in the middle of its message."""
    wire = served.connect()
    begun = wire.begin(PUT, None, ended=False)
    assert begun.stream is not None
    wire.http2.write(begun.stream, b"\0\0\0\0\7abc")
    wire.half_close(begun)
    assert outcome(wire, begun) == (2, "unexpected EOF")
    assert wire.call(RANGE, get(b"k"))
    assert store.get(b"k") is None


@pytest.mark.parametrize(
    ("encoding", "framed", "expected"),
    [
        ("identity", b"\0" + SIZED, (0, "")),
        ("gzip", b"\0" + SIZED, (0, "")),
        ("gzip", b"\1" + sized(gzip.compress(get(b"k"), mtime=0)), (0, "")),
        ("gzip", b"\1" + SIZED, (13, "grpc: failed to decompress")),
        (
            "gzip",
            b"\1" + sized(gzip.compress(bytes(3 << 20), mtime=0)),
            (8, "grpc: received message after decompression"),
        ),
        ("identity", b"\1" + SIZED, (13, "grpc: compressed flag set with identity or empty encoding")),
        ("snappy", b"\0" + SIZED, (12, 'grpc: Decompressor is not installed for grpc-encoding "snappy"')),
    ],
    ids=["plain", "gzip unused", "gzip", "no gzip", "gzip too large", "flag unknown", "snappy"],
)
def test_how_a_message_is_compressed(
    served: Served, encoding: str, framed: bytes, expected: tuple[int, str]
) -> None:
    """An encoding that is not known is refused at once, whether the message makes use of it or not."""
    wire = served.connect()
    begun = wire.begin(RANGE, None, ended=False, grpc_encoding=encoding)
    assert begun.stream is not None
    wire.http2.write(begun.stream, framed)
    wire.half_close(begun)
    code, text = outcome(wire, begun)
    assert (code, text[: len(expected[1])]) == expected
    assert wire.call(RANGE, get(b"k"))
