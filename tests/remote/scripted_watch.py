"""A server of etcd's Watch that is a list of changes: it answers requests one message at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from kvstore.errors import KVStoreError
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.keyvalue import encode_key_value
from kvstore.model import WatchRequest, WatchResponse
from kvstore.network.remote import watch_wire
from kvstore.network.remote.watch_machine import Arrived, Item, RemoteWatch, Said, WatchMachine

Change = tuple[int, bytes, bytes | None]
"""(revision, key, value; None: deleted)."""


def history(last: int, keys: int = 3) -> list[Change]:
    """Revisions from 2 on. Every third one is a transaction of some puts; every fifth deletes a key."""
    found: list[Change] = []
    for revision in range(2, last + 1):
        for number in range(keys if revision % 3 == 0 else 1):
            key = b"k%d" % ((revision + number) % keys)
            found.append((revision, key, None if revision % 5 == 0 else b"v%d" % revision))
    return found


class ScriptedServer:
    """``fragment_events``: so many events go into one message. ``revision``: how far it has got."""

    def __init__(self, changes: list[Change], fragment_events: int = 2, page_revisions: int = 2) -> None:
        self.changes = changes
        self.revision = changes[-1][0] if changes else 1
        self.compact_revision = 0
        self.refusals: deque[str] = deque()
        """Why the next watches are refused; empty for one that is not."""
        self._fragment_events = fragment_events
        self._page_revisions = page_revisions
        self.connect()

    def connect(self) -> None:
        """A new stream: nothing is known of those before it."""
        self.watches: dict[int, tuple[bytes, bytes]] = {}
        self._ids = 0
        self.out: deque[bytes] = deque()
        self.log: list[str] = []

    # --- requests ---------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        request = pb.WatchRequest.FromString(message)
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._cancel(request.cancel_request.watch_id)
        else:
            self.log.append("progress")
            self.say(-1)

    def _create(self, create: Any) -> None:
        self.log.append(f"create {create.key.decode()} from {create.start_revision}")
        if self.refusals and (reason := self.refusals.popleft()):
            self.say(-1, created=True, canceled=True, cancel_reason=reason)
            return
        number = self._ids
        self._ids += 1
        self.say(number, created=True)
        if create.start_revision <= self.compact_revision:
            self.say(number, 0, canceled=True, compact_revision=self.compact_revision)
            return
        self.watches[number] = create.key, create.range_end
        self.send(number, create.start_revision)

    def _cancel(self, number: int) -> None:
        self.log.append(f"cancel {number}")
        if self.watches.pop(number, None) is not None:
            self.say(number, canceled=True)

    def write(self, *changes: Change) -> None:
        """What watches that have caught up are sent."""
        self.changes += changes
        first, self.revision = changes[0][0], changes[-1][0]
        for number in self.watches:
            self.send(number, first)

    # --- responses --------------------------------------------------------------------

    def say(self, number: int, revision: int | None = None, **fields: Any) -> None:
        header = {"cluster_id": 7, "revision": self.revision if revision is None else revision}
        self.out.append(pb.WatchResponse(header=header, watch_id=number, **fields).SerializeToString())

    def send(self, number: int, first: int) -> None:
        """The changes from a revision on: some revisions in a response, some events in a fragment."""
        key, end = self.watches[number]
        wanted = [change for change in self.changes if change[0] >= first and _is_in(change[1], key, end)]
        revisions = sorted({change[0] for change in wanted})
        for at in range(0, len(revisions), self._page_revisions):
            page = set(revisions[at : at + self._page_revisions])
            events = [_event(change) for change in wanted if change[0] in page]
            size = self._fragment_events
            for start in range(0, len(events), size):
                part = events[start : start + size]
                self.say(number, events=part, fragment=start + size < len(events))


def _is_in(key: bytes, first: bytes, end: bytes) -> bool:
    return first <= key and (end == b"\0" or key < (end or first + b"\0"))


def _event(change: Change) -> Any:
    revision, key, value = change
    if value is None:
        return {"type": 1, "kv": {"key": key, "mod_revision": revision}}
    row = encode_key_value(key, revision, revision, 1, value, 0)
    return {"kv": pb.RangeResponse.FromString(b"\x12%c%b" % (len(row), row)).kvs[0]}


class Consumer:
    """What a machine posts, decoded at once, and for each watch its changes."""

    def __init__(self, machine: WatchMachine | None = None) -> None:
        self.responses: list[tuple[int, WatchResponse]] = []
        self.takes = True
        """Whether it takes what is posted. If not, it waits in ``kept``."""
        self.kept: deque[Item] = deque()
        self.watches: dict[RemoteWatch, None] = {}
        self.machine = machine or WatchMachine()

    def fail(self, error: KVStoreError) -> None:
        raise error

    def post(self, item: Item) -> None:
        self.kept.append(item)
        if self.takes:
            self.take()

    def take(self) -> None:
        while self.kept:
            item = self.kept.popleft()
            if isinstance(item, Said):
                self.responses.append((item.watch_id, item.response))
            else:
                self._take_events(item)

    def _take_events(self, item: Arrived) -> None:
        events = watch_wire.events_of(item.parts, item.start, prev_kv=item.watch.request.prev_kv)
        if events:
            self.responses.append((item.watch.id, WatchResponse(item.revision, events)))
        item.watch.taken_bytes += item.size_bytes

    def changes(self, watch_id: int) -> list[Change]:
        return [
            (event.kv.mod_revision, event.kv.key, None if event.type else event.kv.value)
            for number, response in self.responses
            if number == watch_id
            for event in response.events
        ]


def converse(
    machine: WatchMachine, server: ScriptedServer, until: Callable[[], bool] = lambda: False
) -> None:
    """Carry messages to and fro, a response at a time, until there are none or ``until`` holds."""
    while not until():
        for message in machine.out:
            server.receive(message)
        machine.out.clear()
        if not server.out:
            return
        machine.received(server.out.popleft())


EVERYTHING = WatchRequest(b"\0", b"\0")
