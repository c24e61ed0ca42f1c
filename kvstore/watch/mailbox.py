"""A mailbox: the watchers of one stream, and what the hub has left for their consumer.

The hub knows mailboxes, never the streams that they belong to. So a stream that its owner drops without closing it is
collected like any other object, and the hub, which holds a weak reference to it, drops its watchers.
"""

from __future__ import annotations

from collections import deque

from kvstore.bell import Bell, Ringing
from kvstore.watch.watcher import Item, Watcher

EVERY_WATCH = -1
"""The watch id of responses that are about the stream, or about a watch that was never made."""


class Mailbox:
    """Each change to it is a single step, so it needs no lock."""

    __slots__ = ("bell", "closed", "queue", "watchers")

    def __init__(self) -> None:
        self.watchers: dict[int, Watcher] = {}
        """Watchers by id."""
        self.queue: deque[Item] = deque()
        self.bell: Ringing = Bell()
        """Rung when there may be something to take."""
        self.closed = False

    def post(self, item: Item) -> None:
        self.queue.append(item)
        self.bell.ring()

    def may_be_told(self, watch_id: int, revision: int) -> bool | None:
        """Whether everything up to ``revision`` is queued for these watches; None if there are none left."""
        if watch_id == EVERY_WATCH:
            watchers = list(self.watchers.values())
        else:
            watchers = [self.watchers[watch_id]] if watch_id in self.watchers else []
        if not watchers or self.closed:
            return None
        return all(watcher.live and watcher.position <= revision + 1 for watcher in watchers)
