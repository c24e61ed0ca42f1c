"""One watch: what it wants, where it is, and how changes become its events."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from functools import partial
from typing import Any, NamedTuple, Protocol

from kvstore.bell import Ringing
from kvstore.errors import Compacted
from kvstore.keyvalue import KeyValue, row_numbers
from kvstore.model import WatchPosition, WatchRequest, WatchResponse
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.state import State
from kvstore.mvcc.validate import range_bounds
from kvstore.watch.events import Events
from kvstore.watch.index import Shares, Span, WatchIndex

_CHANGE_OVERHEAD_BYTES = 150


class Piece(NamedTuple):
    """Whole revisions, as far as a group of watchers wants them. They share it, unless they filter."""

    response: WatchResponse
    changes: list[ChangedRow]
    size_bytes: int


def piece_of(revision: int, changes: list[ChangedRow]) -> Piece:
    """The piece of these changes; everything up to ``revision`` is in it."""
    size_bytes = len(changes) * _CHANGE_OVERHEAD_BYTES
    for _, _, key, row in changes:
        size_bytes += len(row or key)
    piece: Piece = _piece((_response((revision, Events(changes), *_OF_EVENTS)), changes, size_bytes))
    return piece


class Batch(NamedTuple):
    """A piece for watchers of one stream: all of them want ``prev_kv``, or none does."""

    watchers: list[Watcher]
    piece: Piece


_piece: Any = partial(tuple.__new__, Piece)
_response: Any = partial(tuple.__new__, WatchResponse)
_batch: Any = partial(tuple.__new__, Batch)
"""``_make`` of each, without its Python code."""
_OF_EVENTS = WatchResponse(0)[2:]
"""What follows the events in a response of events."""


class FellBehind(NamedTuple):
    """The watcher has to read the store from here on."""

    watcher: Watcher


class Ready(NamedTuple):
    """A response made by a thread other than the consumer's."""

    watch_id: int
    response: WatchResponse


Item = Batch | FellBehind | Ready


class Box(Protocol):
    """Where a watcher leaves things for its consumer (mailbox.py)."""

    queue: deque[Item]
    bell: Ringing

    def post(self, item: Item) -> None: ...


Place = tuple[Box, bool]
"""A mailbox, and whether its watchers here want ``prev_kv``."""
Takers = dict[Place, list["Watcher"]]
"""Watchers that take a piece, by place."""


class Watcher:
    """``position``: the next revision wanted. Everything below it was queued, was delivered, or is not wanted.

    A watcher belongs either to its consumer, which reads the store for it, or to the hub's thread, and passes from
    one to the other by message (``Hub.join``, ``FellBehind``); only its owner changes it. What it has in the queue
    is counted by two numbers with one writer each. So nothing here needs a lock.
    """

    __slots__ = (
        "_no_delete",
        "_no_put",
        "_picks",
        "_place",
        "_room_bytes",
        "begins_now",
        "ended",
        "id",
        "joins",
        "live",
        "mailbox",
        "position",
        "prev_kv",
        "progress_notify",
        "queued_bytes",
        "quiet",
        "span",
        "start",
        "taken_bytes",
    )

    def __init__(self, mailbox: Box, request: WatchRequest, start: WatchPosition, room_bytes: int) -> None:
        self.mailbox = mailbox
        self.id = 0
        self.start = start
        """The first change wanted."""
        self.span = range_bounds(request.key, request.range_end)
        self.position = start.revision
        self.begins_now = not request.start_revision
        """Whether it asked for what comes next, whichever revision that is."""
        self.prev_kv = request.prev_kv
        self._place = mailbox, request.prev_kv
        self.progress_notify = request.progress_notify
        self._no_put = request.no_put
        self._no_delete = request.no_delete
        self._picks = bool(start.sub or request.no_put or request.no_delete)
        self._room_bytes = room_bytes
        self.queued_bytes = 0
        self.taken_bytes = 0
        self.live = False
        """Whether it is in the hub's index."""
        self.joins = False
        """Whether the hub has been asked to take it, and has not refused."""
        self.ended = False
        self.quiet = True
        """Whether its consumer has had no events since the last tick, or the beginning."""

    @property
    def is_behind(self) -> bool:
        """Whether it has to read the store."""
        return not (self.live or self.joins)

    @property
    def buffered_bytes(self) -> int:
        """The bytes waiting in the queue for this watch."""
        return self.queued_bytes - self.taken_bytes

    def offer(self, piece: Piece, takers: Takers) -> bool:
        """Join those that take a piece, if it is wanted (``post``). False if there is no room, or no consumer."""
        response, changes, size_bytes = piece
        position = self.position
        if response.revision < position:
            return True  # it began later, or has read this from the store
        if self.ended:
            return False
        if changes[0][0] < position or self._picks:
            return self._offer_part(piece)
        if self.queued_bytes != self.taken_bytes and not self._has_room(size_bytes):
            self.position = max(position, changes[0][0])
            return False
        mates = takers.get(self._place)
        if mates is None:
            takers[self._place] = [self]
        else:
            mates.append(self)
        return True

    def _offer_part(self, piece: Piece) -> bool:
        """Take what is wanted of a piece, which nobody else may want."""
        response, changes, _ = piece
        wanted = self.wanted(changes[bisect_left(changes, (self.position,)) :])
        if wanted:
            part = piece_of(response.revision, wanted)
            if not self._has_room(part.size_bytes):
                self.position = max(self.position, changes[0][0])
                return False
            post(part, {self._place: [self]})
            self.mailbox.bell.ring()
        self.position = response.revision + 1
        return True

    def _has_room(self, size_bytes: int) -> bool:
        """Whether so much may be queued: anything may, where nothing is."""
        buffered_bytes = self.queued_bytes - self.taken_bytes
        return not buffered_bytes or buffered_bytes + size_bytes <= self._room_bytes

    def wanted(self, changes: list[ChangedRow]) -> list[ChangedRow]:
        """The changes that pass the filters, from the start on."""
        if self.start.sub and changes and changes[0][0] <= self.start.revision:
            changes = [change for change in changes if change[:2] >= self.start]
        if self._no_put:
            changes = [change for change in changes if change[3] is None]
        if self._no_delete:
            changes = [change for change in changes if change[3] is not None]
        return changes

    def events(self, state: State, changes: list[ChangedRow], newest: int = 0) -> Events:
        """The changes as events."""
        if not self.prev_kv:
            return Events(changes, None, newest)
        return Events(changes, [_before(state, main, key, row) for main, _, key, row in changes], newest)


def _before(state: State, revision: int, key: bytes, row: bytes | None) -> KeyValue | None:
    """The key before ``revision``: None if it did not exist, or if that is compacted."""
    if row is not None and row_numbers(row)[0] == revision:
        return None  # this put created the key
    if revision - 1 < state.compacted:
        return None
    try:
        before = state.row_at(key, revision - 1)
    except Compacted:
        return None
    return None if before is None else KeyValue.from_row(before)


# --- several watchers -----------------------------------------------------------------------


def post(piece: Piece, takers: Takers) -> None:
    """Queue a piece, once for each stream; the mailboxes have to be rung then.

    It is in the queue before a position says so: what fails between the two comes twice, and is not lost.
    """
    response, _, size_bytes = piece
    position = response.revision + 1
    for (mailbox, _), watchers in takers.items():
        for watcher in watchers:
            watcher.queued_bytes += size_bytes
        mailbox.queue.append(_batch((watchers, piece)))
        for watcher in watchers:
            watcher.position = position


def hull(group: list[Watcher]) -> Span:
    """The smallest range that covers everything they watch."""
    ends = [watcher.span[1] for watcher in group]
    return min(watcher.span[0] for watcher in group), None if None in ends else max(filter(None, ends))


def route(group: list[Watcher], changes: list[ChangedRow]) -> dict[Watcher, list[ChangedRow]]:
    """Each watcher's share of the changes; watchers that get nothing are left out."""
    index: WatchIndex[Watcher] = WatchIndex()
    for watcher in group:
        index.add(watcher.span, watcher)
    shares: Shares[Watcher] = {}
    index.share(changes, shares)
    return {watcher: share for alike, share in shares.items() for watcher in alike.watchers}
