"""Recorded conversations over the wire: requests as messages of gRPC to a served store, answers as they come back."""

from __future__ import annotations

from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

from kvstore.tools.lab.conversation import SPELLING, Message, Request, without_defaults
from kvstore.tools.lab.replay import Player
from kvstore.tools.lab.replay_stream import joined

import kvstore
from kvstore import Store
from kvstore.etcdpb.json import to_json
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.requests import to_message
from kvstore.model import WatchRequest
from tests.network.wire import Answer, Refused, Wire

EVERY_WATCH = -1
NAMES = {
    "RangeRequest": ("KV", "Range"),
    "PutRequest": ("KV", "Put"),
    "DeleteRangeRequest": ("KV", "DeleteRange"),
    "TxnRequest": ("KV", "Txn"),
    "CompactionRequest": ("KV", "Compact"),
    "LeaseGrantRequest": ("Lease", "LeaseGrant"),
    "LeaseRevokeRequest": ("Lease", "LeaseRevoke"),
    "LeaseTimeToLiveRequest": ("Lease", "LeaseTimeToLive"),
    "LeaseLeasesRequest": ("Lease", "LeaseLeases"),
    "HashKVRequest": ("Maintenance", "HashKV"),
}
"""Service and method, by message."""


class WirePlayer(Player):
    """The player's store is served, and asked through one connection."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._store = Store(self.engine)
        self._server = kvstore.serve(self._store, "http://127.0.0.1:0")
        where = urlsplit(self._server.endpoints[0])
        self._wire = Wire(str(where.hostname), int(where.port or 0))
        self._watches: WireWatches | None = None

    def ask(self, request: Request) -> Message:
        try:
            if isinstance(request, WatchRequest):
                return self._watch(request)
            if isinstance(request, pb.WatchRequest):
                self._watches = self._watches or WireWatches(self._wire)
                return self._watches.ask(request)
            message = to_message(request)
            name = message.DESCRIPTOR.name
            if name == "CompactionRequest" and self._watches is not None:
                self._watches.read()
            found = self._keep_alive(message) if name == "LeaseKeepAliveRequest" else self._call(message)
            return _recorded(found)
        except Refused as refused:
            return {"error": {"code": refused.code, "message": refused.text}}

    def close(self) -> None:
        self._wire.close()
        self._server.stop(0)
        super().close()

    def _call(self, message: Any) -> Any:
        service, method = NAMES[message.DESCRIPTOR.name]
        data = self._wire.call(f"/etcdserverpb.{service}/{method}", message.SerializeToString())
        found = getattr(pb, f"{message.DESCRIPTOR.name.removesuffix('Request')}Response").FromString(data)
        if method == "HashKV":
            found.hash_revision = message.revision or found.header.revision  # as the recorder has it
        return found

    def _keep_alive(self, message: Any) -> Any:
        call = self._wire.begin("/etcdserverpb.Lease/LeaseKeepAlive", message.SerializeToString(), ended=True)
        return pb.LeaseKeepAliveResponse.FromString(self._wire.next(call))

    def _watch(self, request: WatchRequest) -> Message:
        """Everything that a watch delivers up to the store's newest revision."""
        newest = self.engine.revision
        call = self._wire.begin("/etcdserverpb.Watch/Watch", None, ended=False)
        create = pb.WatchRequest(create_request=to_message(request)).SerializeToString()
        self._wire.send(call, create)
        found: Message = {"events": []}
        created = pb.WatchResponse.FromString(self._wire.next(call))
        is_future = request.start_revision > newest and not created.canceled
        is_over = is_future or created.canceled
        if created.canceled:
            found["canceled"] = {"compact_revision": created.compact_revision}
        elif not is_future:
            self._wire.send(call, pb.WatchRequest(progress_request={}).SerializeToString())
        while not is_over:
            response = pb.WatchResponse.FromString(self._wire.next(call))
            found["events"] += [to_json(event, SPELLING) for event in response.events]
            if response.canceled:
                found["canceled"] = {"compact_revision": response.compact_revision}
            # the header of events of the past tells the newest revision, however far they go
            came = response.events[-1].kv.mod_revision if response.events else response.header.revision
            is_over = response.canceled or came >= newest
        assert call.stream is not None
        self._wire.http2.reset(call.stream, 8)
        recorded: Message = without_defaults(found)
        return recorded


class WireWatches:
    """The stream of watches of a conversation: one call, whose progress is asked for to know that all has come."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._call: Answer = wire.begin("/etcdserverpb.Watch/Watch", None, ended=False)
        self._came: list[Any] = []
        self._watches = 0

    def ask(self, request: Any) -> Message:
        self.read()
        kind = request.WhichOneof("request_union")
        if kind is not None:
            self._wire.send(self._call, request.SerializeToString())
        if kind == "create_request":
            self._take(lambda response: response.created)
        elif kind == "progress_request" and self._watches:
            self._take(_is_notice)
        self.read()
        came, self._came = self._came, []
        recorded: Message = without_defaults(
            {"responses": joined(map(_recorded, sorted(came, key=attrgetter("watch_id"))))}
        )
        return recorded

    def read(self) -> None:
        """Take everything up to the newest revision: until a notice of progress that we asked for comes."""
        if self._watches:
            self._wire.send(self._call, pb.WatchRequest(progress_request={}).SerializeToString())
            self._take(_is_notice)
            self._came.pop()

    def _take(self, is_last: Any) -> None:
        while True:
            response = pb.WatchResponse.FromString(self._wire.next(self._call))
            self._came.append(response)
            self._watches += response.created and not response.canceled
            self._watches -= response.canceled and not response.created
            if is_last(response) or (not self._watches and _is_notice is is_last):
                return


def _is_notice(response: Any) -> bool:
    return bool(response.watch_id == EVERY_WATCH and not response.canceled)


def _recorded(found: Any) -> Message:
    """A response as it would have been recorded: of its header the revision alone, leases in order."""
    if found.HasField("header"):
        for name in ("cluster_id", "member_id", "raft_term"):
            found.header.ClearField(name)
    if found.DESCRIPTOR.name == "LeaseLeasesResponse":
        found.leases.sort(key=lambda lease: lease.ID)
    recorded: Message = without_defaults(to_json(found, SPELLING))
    return recorded
