"""Watch: many watches on one call, a ``WatchStream`` of the engine's behind each call.

    create, cancel, progress ---> WatchStream ---> responses, in order ---> the client, as fast as it takes them

What the stream says comes out in turns (``Fanout``): some responses of a stream, then the next stream. A stream that
reads the past does so in a thread; one whose client does not take what was sent waits until it has (``drained``), with
everything that comes meanwhile left in the store.

Whether its user may watch what he asks for is looked at when a watch is created, and not after that.

The client's end of its side changes nothing: watches stay, until the call ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvstore.auth.store import Refused
from kvstore.errors import Code, StoreClosed, WatchCanceled
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.requests import from_message
from kvstore.etcdpb.responses import encode_watch, encode_watches
from kvstore.model import WatchResponse
from kvstore.network.call import Call, Kind, Running, decoded, methods
from kvstore.network.endpoint import Endpoint
from kvstore.watch.stream import Numbered

_REFUSAL = "rpc error: code = {} desc = {}"
_GO_NAMES = {
    Code.INVALID_ARGUMENT: "InvalidArgument",
    Code.PERMISSION_DENIED: "PermissionDenied",
    Code.UNAUTHENTICATED: "Unauthenticated",
}
"""How an error of gRPC looks as a text in Go: why a watch is refused is no status of the call."""


def watch(endpoint: Endpoint, call: Call, _message: bytes) -> Running:
    return _Watching(endpoint, call)


class _Watching(Running):
    """The watches of one call."""

    def __init__(self, endpoint: Endpoint, call: Call) -> None:
        self._endpoint = endpoint
        self._call = call
        self._stream = endpoint.engine.watch_stream()
        self._fragmented: set[int] = set()
        """Ids of watches whose client takes responses in parts."""
        self._reads = False
        """Whether a thread reads the past for it."""
        self._stream.bell = endpoint.fanout.bell(self)

    # --- the client -------------------------------------------------------------------

    def received(self, message: bytes) -> None:
        request = decoded(pb.WatchRequest, message)
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._stream.cancel(request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._stream.request_progress()

    def _create(self, create: Any) -> None:
        self._call.begin()
        wanted = from_message(create)
        if self._endpoint.users_are_on:
            try:
                self._endpoint.users.check(self._call, wanted)
            except Refused as refusal:
                self._stream.refuse(_REFUSAL.format(_GO_NAMES[refusal.code], refusal))
                return
        watch_id = self._stream.create(wanted, create.watch_id)
        if create.fragment:
            self._fragmented.add(watch_id)

    def drained(self) -> None:
        self._endpoint.fanout.ring(self)

    def closed(self) -> None:
        self._stream.close()

    # --- the store --------------------------------------------------------------------

    def pump(self, count: int) -> bool:
        """Send up to ``count`` responses; whether there may be more to send now."""
        call, stream = self._call, self._stream
        if not call.alive or call.is_blocked or self._reads:
            return False
        try:
            taken = stream.take(count)
        except WatchCanceled:
            return False
        except StoreClosed as error:
            call.fail(error)
            return False
        call.send_all(self._messages(taken))
        if len(taken) == count:
            return True
        if stream.needs_store():
            self._read_ahead()
        return False

    def _messages(self, taken: list[Numbered]) -> list[bytes]:
        """What was taken, encoded."""
        header, encoded = self._endpoint.header, self._endpoint.shared_events.encode
        messages, fragmented, traffic = [], self._fragmented, self._endpoint.traffic
        for each, watch_ids in _together(taken):
            newest = getattr(each.events, "newest", 0)
            response = each._replace(revision=newest) if newest else each  # as etcd tells it of the past
            events = encoded(response.events)
            traffic.events += len(events) * len(watch_ids)
            if fragmented.isdisjoint(watch_ids):
                messages += encode_watches(response, watch_ids, header, events)
                continue
            for watch_id in watch_ids:
                left = events[:]
                if watch_id in fragmented:
                    for part in self._cut(left):
                        messages.append(encode_watch(response, watch_id, header, part, is_fragment=True))
                    if response.canceled:
                        fragmented.discard(watch_id)
                messages.append(encode_watch(response, watch_id, header, left))
        return messages

    def _cut(self, events: list[bytes]) -> Iterator[list[bytes]]:
        """Take what goes ahead in fragments off the events of a response that is too large, as far as single events
        are not."""
        limit_bytes = self._endpoint.settings.max_message_bytes
        while sum(map(len, events)) >= limit_bytes and len(events) > 1:
            count = size_bytes = 0
            for event in events:
                size_bytes += len(event)
                if count and size_bytes >= limit_bytes:
                    break
                count += 1
            if count == len(events):
                return
            part = events[:count]
            del events[:count]
            yield part

    def _read_ahead(self) -> None:
        self._reads = True
        self._endpoint.read(self._stream.fill, self._has_read)

    def _has_read(self, error: BaseException | None) -> None:
        self._reads = False
        if error is not None and self._call.alive and not isinstance(error, (WatchCanceled, StoreClosed)):
            self._endpoint.fail(self._call, error)
        self._endpoint.fanout.ring(self)


def _together(taken: list[Numbered]) -> list[tuple[WatchResponse, list[int]]]:
    """Each response with the watches that it is for, where it comes once for each of several."""
    together: list[tuple[WatchResponse, list[int]]] = []
    last = None
    for watch_id, response in taken:
        if response is not last:
            last, watch_ids = response, list[int]()
            together.append((response, watch_ids))
        watch_ids.append(watch_id)
    return together


METHODS = methods("etcdserverpb.Watch", pb, Kind.BIDI, Watch=watch)
