"""The watches of one stream, kept alive over any number of connections: no socket, no clock, no thread.

    create, cancel, drained, ask_progress --+                       +--> out      messages to send
                                            +--> WatchMachine ------+--> post     what a watch's owner gets, in order
    opened, received, lost -----------------+                       +--> refused  a token error: get another token

The watches may have several owners, which know nothing of each other: none waits for another to take what it got.

A watch is in one of these states, and has one position, ``next``: everything before it was posted.

                     +---------------- lost, or room again ------------------+
                     v                                                       |
    WAITING --sent--> CREATING --created--> LIVE --its buffer is full--> STOPPING --canceled--> PAUSED

* Watches are created one at a time, in the order in which they were asked for: the answers name no request, they come
  in the order of the requests. After a loss all are created again, each from its ``next``.
* ``next`` moves with the last fragment of a response, to after its last event; and with a progress notice. The revision
  in a response's header moves nothing: a server that catches up sends its newest revision with the oldest events.
* What comes from before ``next`` has been posted already and is dropped.
* The server keeps the past, so nothing is kept here for a consumer that is slow: its watch is canceled at the server,
  and created again when there is room.
* A compaction beyond ``next`` ends the watch and says so. It never goes on at a later revision by itself.

Notices that were asked for speak of every watch of the stream, so who asks is its only owner. Older servers send them
past events that are still on
their way: what those say is not believed, and the notice that is posted says up to where everything was posted.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, NamedTuple, Protocol

from kvstore.errors import Code, Corruption, KVStoreError, WrongStore
from kvstore.model import WatchPosition, WatchRequest, WatchResponse
from kvstore.network.remote import watch_wire
from kvstore.network.remote.outcome import wants_token
from kvstore.watch.mailbox import EVERY_WATCH

DEAF_AT = 2
"""How many times its room a watch may hold while the server has not stopped it yet. What comes then is dropped, and
sent again later."""
UNKNOWN = -1


class State(Enum):
    WAITING = "to be created"
    CREATING = "the server was asked to create it"
    LIVE = "the server sends its events"
    STOPPING = "the server was asked to stop: the buffer is full"
    PAUSED = "not known to the server until there is room"


class Owner(Protocol):
    """Who gets what comes for some of the watches."""

    watches: dict[RemoteWatch, None]
    """Those of its watches that have not ended. A machine's to change."""

    def post(self, item: Item, /) -> None: ...

    def fail(self, error: KVStoreError) -> None:
        """Nothing more comes."""


class RemoteWatch:
    """One watch. The machine changes it; the consumer only counts what it has taken (``taken_bytes``)."""

    __slots__ = (
        "id",
        "is_announced",
        "is_deaf",
        "is_full",
        "newest",
        "next",
        "number",
        "owner",
        "parts",
        "parts_bytes",
        "queued_bytes",
        "request",
        "room_bytes",
        "start",
        "state",
        "taken_bytes",
        "token_errors",
    )

    def __init__(self, watch_id: int, request: WatchRequest, room_bytes: int, owner: Owner) -> None:
        self.id = watch_id
        self.request = request
        self.owner = owner
        self.number = UNKNOWN
        """The server's, while it is known there."""
        self.token_errors = 0
        """In a row."""
        self.start: WatchPosition | None = None
        """Where it begins; None while that is being found out."""
        self.next = WatchPosition(0)
        self.newest = 0
        """The server's newest revision, as far as responses with events have said."""
        self.state = State.WAITING
        self.is_announced = False
        """Whether the consumer has been told that it was created."""
        self.parts: list[Any] = []
        """Fragments of a response whose last one has not come."""
        self.parts_bytes = 0
        self.room_bytes = room_bytes
        self.queued_bytes = 0
        self.taken_bytes = 0
        self.is_full = self.is_deaf = False

    @property
    def buffered_bytes(self) -> int:
        return self.queued_bytes - self.taken_bytes

    @property
    def has_room(self) -> bool:
        """Whether a watch that was stopped may go on."""
        return self.buffered_bytes <= self.room_bytes // 2


class Arrived(NamedTuple):
    """The events of a response, to be decoded by the consumer: those from ``start`` on."""

    watch: RemoteWatch
    start: WatchPosition
    revision: int
    parts: list[Any]
    size_bytes: int


class Said(NamedTuple):
    """A response without events."""

    watch_id: int
    response: WatchResponse
    watch: RemoteWatch | None
    """None: of the stream, or its owner's own doing."""


Item = Arrived | Said


class WatchMachine:
    """All calls come from one thread."""

    def __init__(self, cluster_id: int = 0) -> None:
        """``cluster_id``: whose store it has to be, if that is known."""
        self.out: list[bytes] = []
        """What is to be sent on the open stream, in order. Its owner takes it."""
        self.refused = ""
        """The token error, if the server has made one since the stream was opened, until ``give_up``."""
        self.refused_watch: RemoteWatch | None = None
        self.revision = 0
        """The newest revision that any response has named."""
        self.trusts_progress: bool | None = None
        """Whether the server that the stream is open to sends no notice ahead of events; None: not known yet."""
        self.wants_progress = False
        self._asked_progress = self._wants_another = False
        self._is_open = False
        self.cluster_id = cluster_id
        self._watches: dict[RemoteWatch, None] = {}
        """In the order in which they were asked for."""
        self._waiting: deque[RemoteWatch] = deque()
        """To be created, in their order; among them such as have been forgotten since."""
        self._creating: RemoteWatch | None = None
        """The one whose answer is due. It may have been canceled since."""
        self._at_server: dict[int, RemoteWatch] = {}
        """By the server's number."""

    # --- the owners -------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._watches)

    def create(self, watch: RemoteWatch, start: WatchPosition) -> None:
        watch.start = watch.next = start
        self.adopt(watch)

    def adopt(self, watch: RemoteWatch) -> None:
        """Go on with a watch that has begun elsewhere, and that another machine has forgotten."""
        self._watches[watch] = None
        watch.owner.watches[watch] = None
        self._rest(watch)
        self._create_next()

    def cancel(self, watch: RemoteWatch) -> None:
        """Forget a watch: nothing more is posted for it."""
        if watch not in self._watches:
            return
        self._forget(watch)
        if watch.number != UNKNOWN:
            del self._at_server[watch.number]
            self.out.append(watch_wire.cancel(watch.number))
            watch.number = UNKNOWN
        self._create_next()  # the others may have waited for it

    def drained(self, watch: RemoteWatch) -> None:
        """The consumer has taken some of what a full watch holds."""
        if watch.state is State.PAUSED and watch.has_room:
            self._rest(watch)
            self._create_next()

    def _forget(self, watch: RemoteWatch) -> None:
        del self._watches[watch]
        del watch.owner.watches[watch]

    def ask_progress(self) -> None:
        """Post a notice once every watch has caught up."""
        if self._asked_progress:
            self._wants_another = True  # the answer that is due may have been given before this question
        else:
            self.wants_progress = bool(self._watches)
            self._ask_progress()

    def ask_again(self) -> None:
        """The answer takes long: a server whose watches have not caught up may have dropped the question."""
        self._asked_progress = False
        self._create_next()

    # --- the stream -------------------------------------------------------------------

    @property
    def needs_stream(self) -> bool:
        """Whether there is something to ask a server."""
        return not self._is_open and self._next_waiting() is not None

    def trust_progress(self, trusts: bool) -> None:
        """Said once of each stream: whether its server sends no notice ahead of events."""
        self.trusts_progress = trusts
        self._ask_progress()

    def opened(self) -> None:
        """There is a new stream: what is in ``out`` from now on goes there."""
        self._is_open = True
        self.trusts_progress = None
        self._create_next()

    def lost(self) -> None:
        """The stream is over. What has come of a response in fragments is dropped: all of it will come again."""
        self._is_open = self._asked_progress = False
        self._creating = self.refused_watch = None
        self.refused = ""
        self._at_server.clear()
        self.out.clear()
        self._waiting.clear()
        for watch in self._watches:
            self._rest(watch)

    def give_up(self) -> None:
        """There is no better token: go on without the watch that was refused, if anybody still wants it."""
        watch, self.refused, self.refused_watch = self.refused_watch, "", None
        if watch is not None:
            self.cancel(watch)
        self._create_next()

    def received(self, message: bytes) -> None:
        """A response. Raises ``Corruption`` if it is none, ``WrongStore`` if it comes from another cluster."""
        response = watch_wire.decode(message)
        self._check_cluster(response.header.cluster_id)
        self.revision = max(self.revision, response.header.revision)
        if response.created:
            self._on_created(response)
        elif response.canceled:
            self._on_canceled(response)
        elif response.events or response.fragment:
            self._on_events(response, len(message))
        else:
            self._on_progress(response)

    def _check_cluster(self, cluster_id: int) -> None:
        if cluster_id and cluster_id != self.cluster_id:
            if self.cluster_id:
                raise WrongStore(
                    f"the server belongs to cluster {cluster_id:x}, not to {self.cluster_id:x} as the one before: "
                    "a watch cannot go on there"
                )
            self.cluster_id = cluster_id

    # --- creating ---------------------------------------------------------------------

    def _create_next(self) -> None:
        if not self._is_open or self._creating is not None or self.refused or self._asked_progress:
            return
        watch = self._next_waiting()
        if watch is None:
            self._ask_progress()
            return
        self._waiting.popleft()
        watch.state = State.CREATING
        self._creating = watch
        self.out.append(watch_wire.create(watch.request, watch.next.revision))

    def _next_waiting(self) -> RemoteWatch | None:
        """The first to be created. It stays where it is."""
        waiting = self._waiting
        while waiting:
            if waiting[0] in self._watches and waiting[0].state is State.WAITING:
                return waiting[0]
            waiting.popleft()
        return None

    def _rest(self, watch: RemoteWatch) -> None:
        """No server knows the watch any more: it is to be created, once there is room for what comes."""
        watch.number = UNKNOWN
        watch.parts, watch.parts_bytes = [], 0
        is_stopped = watch.state in (State.STOPPING, State.PAUSED)
        watch.state = State.PAUSED if is_stopped and not watch.has_room else State.WAITING
        if watch.state is State.WAITING:
            self._waiting.append(watch)

    def _on_created(self, response: Any) -> None:
        watch, self._creating = self._creating, None
        if watch is None:
            raise Corruption("a watch was created that nobody asked for", "a server")
        is_wanted = watch in self._watches
        if response.canceled:
            if is_wanted:
                self._on_refused(watch, response)
        elif is_wanted:
            watch.state = State.LIVE
            watch.is_deaf = watch.is_full = False
            watch.token_errors = 0
            watch.number = response.watch_id
            self._at_server[watch.number] = watch
            if not watch.is_announced:
                watch.is_announced = True
                revision = response.header.revision
                if not watch.request.start_revision:
                    revision = watch.next.revision - 1
                watch.owner.post(Said(watch.id, WatchResponse(revision, created=True), watch))
        else:
            self.out.append(watch_wire.cancel(response.watch_id))
        self._create_next()

    def _on_refused(self, watch: RemoteWatch, response: Any) -> None:
        reason = watch_wire.reason_of(response)
        if wants_token(Code.UNKNOWN, reason):
            self._refuse(watch, reason)
        else:
            self._end(watch, response, reason)

    def _refuse(self, watch: RemoteWatch, reason: str) -> None:
        watch.token_errors += 1
        self.refused, self.refused_watch = reason, watch
        self._rest(watch)

    # --- events -----------------------------------------------------------------------

    def _on_events(self, response: Any, size_bytes: int) -> None:
        watch = self._at_server.get(response.watch_id)
        if watch is None or watch.is_deaf:
            return  # canceled, but the server did not know that yet
        watch.parts.append(response)
        watch.parts_bytes += size_bytes
        if response.fragment:
            return
        self._deliver(watch, response.header.revision)
        if watch.buffered_bytes > watch.room_bytes:
            self._stop(response.watch_id, watch)

    def _deliver(self, watch: RemoteWatch, newest: int) -> None:
        """A response is complete."""
        parts, size_bytes = watch.parts, watch.parts_bytes
        watch.parts, watch.parts_bytes = [], 0
        last = next((watch_wire.last_revision(part) for part in reversed(parts) if part.events), 0)
        start = watch.next
        if last < start.revision:
            return  # it came before
        watch.next = WatchPosition(last + 1)
        watch.newest = newest
        watch.queued_bytes += size_bytes
        watch.owner.post(Arrived(watch, start, last, parts, size_bytes))

    def _stop(self, number: int, watch: RemoteWatch) -> None:
        """Its buffer is full."""
        watch.is_full = (
            True  # before anything else is looked at: the consumer may be draining it at this moment
        )
        if watch.state is State.LIVE:
            watch.state = State.STOPPING
            self.out.append(watch_wire.cancel(number))
        elif watch.buffered_bytes > DEAF_AT * watch.room_bytes:
            watch.is_deaf = True

    # --- ends -------------------------------------------------------------------------

    def _on_canceled(self, response: Any) -> None:
        watch = self._at_server.pop(response.watch_id, None)
        if watch is None:
            return  # by its consumer
        reason = watch_wire.reason_of(response)
        watch.number = UNKNOWN
        if wants_token(Code.UNKNOWN, reason):
            self._refuse(watch, reason)
        elif watch.state is State.STOPPING and not response.compact_revision:
            self._rest(watch)
        else:
            self._end(watch, response, reason)
        self._create_next()

    def _end(self, watch: RemoteWatch, response: Any, reason: str) -> None:
        """Its last response."""
        self._forget(watch)
        ended = WatchResponse(
            response.header.revision,
            canceled=True,
            compact_revision=response.compact_revision,
            cancel_reason=reason,
            created=not watch.is_announced,
        )
        watch.owner.post(Said(watch.id, ended, watch))

    # --- notices ----------------------------------------------------------------------

    def _ask_progress(self) -> None:
        if not self._watches:
            self.wants_progress = self._wants_another = False
        elif self._may_ask():
            self._asked_progress = True
            self.out.append(watch_wire.PROGRESS)

    def _may_ask(self) -> bool:
        is_due = self.wants_progress and not self._asked_progress
        return is_due and self._is_open and self.trusts_progress is not None and self._all_live()

    def _all_live(self) -> bool:
        return all(watch.state is State.LIVE for watch in self._watches)

    def _on_progress(self, response: Any) -> None:
        revision = response.header.revision
        if response.watch_id == EVERY_WATCH:
            self._on_asked_progress(revision)
            return
        watch = self._at_server.get(response.watch_id)
        if watch is None or watch.is_deaf or watch.parts or revision + 1 < watch.next.revision:
            return
        watch.next = max(watch.next, WatchPosition(revision + 1))
        watch.owner.post(Said(watch.id, WatchResponse(revision), watch))

    def _on_asked_progress(self, revision: int) -> None:
        if not self._asked_progress:
            return
        self._asked_progress = False
        if self._watches and self._all_live():
            self.wants_progress, self._wants_another = self._wants_another, False
            post = next(iter(self._watches)).owner.post
            post(Said(EVERY_WATCH, WatchResponse(self._everything_until(revision)), None))
        self._create_next()

    def _everything_until(self, revision: int) -> int:
        """The revision up to which every watch has got everything, if a server says that of ``revision``."""
        watches = self._watches
        if self.trusts_progress:
            for watch in watches:
                watch.next = max(watch.next, WatchPosition(revision + 1))
            return revision
        return min([revision, *(watch.next.revision - 1 for watch in watches)])
