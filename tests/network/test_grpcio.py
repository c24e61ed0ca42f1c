"""grpcio as the client: gRPC's own library, with messages made here."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import v3lockpb
from tests.network.served_store import PUT, RANGE, WATCH, Served, until

grpc: Any = pytest.importorskip("grpc", reason="grpcio is not installed")

SECONDS = 60
LARGE = [("grpc.max_receive_message_length", -1)]


@pytest.fixture
def channel(served: Served) -> Iterator[Any]:
    host, port = served.address
    with grpc.insecure_channel(f"{host}:{port}", options=LARGE) as opened:
        yield opened


def unary(channel: Any, path: str, request: Any, response: Any, **how: Any) -> Any:
    ask = channel.unary_unary(
        path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
    )
    return ask(request, timeout=how.pop("timeout", SECONDS), **how)


def put(channel: Any, key: bytes, value: bytes, **how: Any) -> Any:
    return unary(channel, PUT, pb.PutRequest(key=key, value=value), pb.PutResponse, **how)


def read(channel: Any, request: Any) -> Any:
    return unary(channel, RANGE, request, pb.RangeResponse)


def test_unary_calls(channel: Any) -> None:
    """An answer; and an error with its code and text."""
    assert put(channel, b"k", b"v").header.revision == 2
    assert read(channel, pb.RangeRequest(key=b"k")).kvs[0].value == b"v"
    with pytest.raises(grpc.RpcError) as refused:
        put(channel, b"", b"v")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "etcdserver: key is not provided"


def test_an_answer_of_15_mb(served: Served, channel: Any) -> None:
    """Whole, under grpcio's flow control."""
    for number in range(15):
        served.store.put(b"%02d" % number, bytes([number]) * 1_000_000)
    found = read(channel, pb.RangeRequest(key=b"\0", range_end=b"\0"))
    assert [(kv.key, len(kv.value), kv.value[0]) for kv in found.kvs] == [
        (b"%02d" % number, 1_000_000, number) for number in range(15)
    ]


def test_a_compressed_request(served: Served, channel: Any) -> None:
    """gzip, for a client that was told to."""
    put(channel, b"k", b"v" * 100_000, compression=grpc.Compression.Gzip)
    assert served.store.get(b"k").value == b"v" * 100_000  # type: ignore[union-attr]


def test_a_watch_and_its_cancellation(served: Served, channel: Any) -> None:
    """Created, events as they come; canceled by the client, nothing of it is left."""
    requests: queue.Queue[Any] = queue.Queue()
    requests.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")))
    watch = channel.stream_stream(
        WATCH,
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )(iter(requests.get, None))
    assert next(watch).created
    for number in range(3):
        put(channel, b"k", b"%d" % number)
        assert next(watch).events[0].kv.value == b"%d" % number
    [connection] = served.server.connections
    streams = connection._speaker.http2.streams  # type: ignore[union-attr]
    assert len(streams) == 1
    watch.cancel()
    requests.put(None)
    with pytest.raises(grpc.RpcError):
        next(watch)
    until(lambda: not streams)


def test_a_deadline(channel: Any) -> None:
    """A call that waits for longer than its client does: a lock that somebody else holds."""

    def lock(**how: Any) -> Any:
        return unary(
            channel, "/v3lockpb.Lock/Lock", v3lockpb.LockRequest(name=b"l"), v3lockpb.LockResponse, **how
        )

    assert lock().key.startswith(b"l/")
    with pytest.raises(grpc.RpcError) as late:
        lock(timeout=0.2)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert put(channel, b"k", b"v").header.revision
