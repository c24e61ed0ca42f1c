"""What the headers of a watch's responses tell: clients take them for the revision of the store."""

from __future__ import annotations

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.watch.stream import FIRST_PAGE_ROWS
from tests.network.served_store import WATCH, Served

PUTS = 3 * FIRST_PAGE_ROWS


def test_events_of_the_past_come_with_the_newest_revision(store: kvstore.Store, served: Served) -> None:
    """Each page of them, before progress is told, with or without the value before; what happens then, with its own."""
    for number in range(PUTS):
        store.put(b"k", b"%d" % number)
    newest = store.revision
    wire = served.connect()
    for prev_kv in (False, True):
        create = pb.WatchCreateRequest(key=b"k", start_revision=1, prev_kv=prev_kv)
        call = wire.begin(WATCH, pb.WatchRequest(create_request=create).SerializeToString(), ended=False)
        assert pb.WatchResponse.FromString(wire.next(call)).created
        wire.send(call, pb.WatchRequest(progress_request={}).SerializeToString())
        events, pages = 0, 0
        while events < newest - 1:  # the first put made revision 2
            response = pb.WatchResponse.FromString(wire.next(call))
            events += len(response.events)
            pages += 1
            assert response.events and response.header.revision == newest
        assert pages > 1
        notice = pb.WatchResponse.FromString(wire.next(call))
        assert not notice.events and notice.header.revision == newest
        for number in range(2):
            newest = store.put(b"k", b"%d" % number).revision
            live = pb.WatchResponse.FromString(wire.next(call))
            assert live.header.revision == live.events[-1].kv.mod_revision == newest
