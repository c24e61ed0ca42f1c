"""What goes out together: responses of many watches in one frame."""

from __future__ import annotations

from collections import defaultdict

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.grpc import all_framed, framed
from tests.network.served_store import Served, until

WATCH = "/etcdserverpb.Watch/Watch"
WATCHES, PUTS = 150, 3


def test_messages_go_into_data_one_after_the_other() -> None:
    """Each has its own prefix, the empty one too."""
    messages = [b"", b"a", bytes(70_000)]
    assert all_framed(messages) == b"".join([framed(message) for message in messages])
    assert framed(b"ab") == b"\0\0\0\0\2ab"


def test_every_watch_of_a_stream_hears_everything_in_order(store: kvstore.Store, served: Served) -> None:
    """However many responses share a frame, each watch gets each event once; messages and bytes are counted singly."""
    wire = served.connect()
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")).SerializeToString()
    call = wire.begin(WATCH, create, ended=False)
    for _ in range(WATCHES - 1):
        wire.send(call, create)
    messages = [wire.next(call) for _ in range(WATCHES)]
    assert all(pb.WatchResponse.FromString(message).created for message in messages)
    for number in range(PUTS):
        store.put(b"k", b"%d" % number)
    heard: dict[int, list[bytes]] = defaultdict(list)
    while sum(map(len, heard.values())) < WATCHES * PUTS:
        messages.append(wire.next(call))
        response = pb.WatchResponse.FromString(messages[-1])
        heard[response.watch_id] += [event.kv.value for event in response.events]
    assert len(heard) == WATCHES
    assert all(values == [b"%d" % number for number in range(PUTS)] for values in heard.values())
    counts = served.server.endpoint.traffic.of(WATCH)
    until(lambda: counts.sent == len(messages))
    assert counts.sent_bytes == sum(map(len, messages))
