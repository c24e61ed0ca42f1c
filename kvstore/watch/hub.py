"""Live delivery: one thread takes each published change once and routes it by key.

The commit leader only rings a bell. The thread reads what is new from the generations (no backend read as long as
it keeps up) and routes it in pieces of at most 64 changes, with a short sleep between two pieces, so that it
never holds the GIL for long. While nobody is live it does nothing, and while nobody has watched yet there is no
thread.

``taken`` is the last revision that the thread has begun to route. A watcher may join if its position lies past
that; what it wants below, it reads from the store.

The hub's lock is a leaf: nothing else is locked, and the backend is not read, under it.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from operator import itemgetter
from weakref import WeakSet

from kvstore.model import WatchRequest, WatchResponse
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.state import State
from kvstore.watch.bell import Bell
from kvstore.watch.index import WatchIndex
from kvstore.watch.stream import WatchStream
from kvstore.watch.watcher import FellBehind, Ready, Watcher

logger = logging.getLogger("kvstore")

PIECE_CHANGES = 64
PAUSE_SECONDS = 0.00005
_SPAN_CHANGES = 1024
_PAGE_CHANGES = 256
_main_of = itemgetter(0)


class Hub:
    """The watches of one store."""

    def __init__(self, state: State, check_readable: Callable[[], None], room_bytes: int) -> None:
        self.state = state
        self.check_readable = check_readable
        self.lock = threading.Lock()
        self._room_bytes = room_bytes
        self._index: WatchIndex[Watcher] = WatchIndex()
        self._taken = state.published
        self._partial: dict[Watcher, list[ChangedRow]] = {}
        """What the revision being routed has brought so far, by watcher."""
        self._partial_revision = 0
        self._asked: set[tuple[WatchStream, int]] = set()
        """Progress that was asked for and could not be told yet: (stream, watch id; -1 for all of the stream)."""
        self._streams: WeakSet[WatchStream] = WeakSet()
        self._bell = Bell()
        self._active = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    # --- what others call -------------------------------------------------------------

    def published(self, revision: int) -> None:
        """The commit leader says that a revision has become readable."""
        if self._active:
            self._bell.ring()

    def open_stream(self, progress_interval_seconds: float) -> WatchStream:
        """A new stream without watches."""
        stream = WatchStream(self, progress_interval_seconds)
        self._streams.add(stream)
        return stream

    def new_watcher(self, stream: WatchStream, watch_id: int, request: WatchRequest) -> Watcher:
        """A watcher at its first position; live already where nothing lies between that and now."""
        watcher = Watcher(stream, watch_id, request, request.start_revision, self._room_bytes)
        if not watcher.position:
            watcher.position = self.state.published + 1
        return watcher

    def join(self, watcher: Watcher) -> bool:
        """Make a watcher live if nothing of what it wants was taken already."""
        if self._index and watcher.position <= self._taken:
            return False  # not even worth the lock
        with self.lock:
            if not self._index:
                self._active = (
                    True  # before looking at what is published: either we see it, or the bell rings
                )
                self._taken = self.state.published
            if watcher.position <= self._taken:
                return False
            watcher.live = True
            self._index.add(watcher.span, watcher)
        if self.state.published > self._taken or self._asked:
            self._bell.ring()
        self._start()
        return True

    def leave(self, watcher: Watcher) -> None:
        """End a watcher. Nothing is queued for it any more."""
        with self.lock:
            watcher.ended = True
            self._take_out(watcher)

    def ask_progress(self, stream: WatchStream, watch_id: int) -> None:
        """Queue a progress notice once everything published until now has been queued."""
        with self.lock:
            self._asked.add((stream, watch_id))
        self._bell.ring()
        self._start()

    @property
    def watchers(self) -> int:
        """How many watches there are, live or behind."""
        return sum(len(stream) for stream in list(self._streams))

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    @property
    def slow(self) -> int:
        """How many watches are behind."""
        return sum(stream.slow for stream in list(self._streams))

    @property
    def buffered_bytes(self) -> int:
        """What waits in the queues of all streams."""
        return sum(stream.buffered_bytes for stream in list(self._streams))

    def close(self) -> None:
        """End the thread and wake every consumer. The engine refuses reads already."""
        with self.lock:
            self._stopping = True
            self._active = False
        self._bell.ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for stream in list(self._streams):
            stream.wait_for_reader()
            stream.bell.ring()

    # --- the thread -------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            with self.lock:
                if self._thread is None and not self._stopping:
                    self._thread = threading.Thread(target=self._run, name="kvstore-watch", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            self._bell.wait()
            try:
                while not self._stopping and self._route_new():
                    time.sleep(PAUSE_SECONDS)
                if self._asked:
                    self._answer_asked()
            except Exception as error:
                if not self._stopping:
                    logger.warning("watch: delivery could not go on, watches read the store: %s", error)
                self._send_all_behind()

    def _route_new(self) -> bool:
        """Route what is published and not taken; whether there may be more."""
        last = self.state.published
        first = self._taken + 1
        if not self._index or first > last:
            self._rest()
            return False
        changes = self._changes(first, last)
        for at in range(0, len(changes), PIECE_CHANGES):
            if at:
                time.sleep(PAUSE_SECONDS)
            self._route(changes[at : at + PIECE_CHANGES])
        with self.lock:
            self._finish_revision()
            if not changes and self._index:
                self._taken = max(self._taken, last)
        return self._taken < self.state.published

    def _rest(self) -> None:
        with self.lock:
            if not self._index:
                self._active = False

    def _changes(self, first: int, last: int) -> list[ChangedRow]:
        """Whole revisions from ``first`` on, as many as are worth taking at once."""
        changes = _pending_changes(self.state, first, last)
        if changes is None:  # checkpoints have overtaken us
            changes, _ = change_page(self.state, first, last, _PAGE_CHANGES)
        return changes

    def _route(self, piece: list[ChangedRow]) -> None:
        find = self._index.find
        partial = self._partial
        with self.lock:
            for change in piece:
                if change[0] != self._partial_revision:
                    self._finish_revision()
                    self._partial_revision = change[0]
                for watcher in find(change[2]):
                    if watcher in partial:
                        partial[watcher].append(change)
                    else:
                        partial[watcher] = [change]
            self._taken = piece[-1][0]

    def _finish_revision(self) -> None:
        """Hand out the revision that was routed last. Under the lock."""
        for watcher, changes in self._partial.items():
            if watcher.live and not watcher.offer(self._partial_revision, changes):
                self._take_out(watcher)
                watcher.stream.post(FellBehind(watcher))
        self._partial.clear()
        self._partial_revision = 0

    def _take_out(self, watcher: Watcher) -> None:
        if watcher.live:
            watcher.live = False
            self._index.remove(watcher.span, watcher)

    def _send_all_behind(self) -> None:
        """Reading failed: everybody reads on their own, and meets the reason."""
        with self.lock:
            unrouted = self._partial_revision or self._taken + 1
            self._partial.clear()
            self._partial_revision = 0
            for watcher in list(self._index):
                watcher.position = max(watcher.position, unrouted)
                self._take_out(watcher)
                watcher.stream.post(FellBehind(watcher))

    # --- progress ---------------------------------------------------------------------

    def _answer_asked(self) -> None:
        """Everything up to ``_taken`` is in the queues: say so behind it, where that was asked."""
        with self.lock:
            for stream, watch_id in list(self._asked):
                told = stream.may_be_told(watch_id, self._taken)
                if told:
                    stream.post(Ready(watch_id, WatchResponse(self._taken)))
                if told is not False:
                    self._asked.discard((stream, watch_id))


def _pending_changes(state: State, first: int, last: int) -> list[ChangedRow] | None:
    """Whole revisions of first..last from one generation; None if the generations do not reach back to ``first``."""
    for generation in reversed(state.generations):
        changes = generation.changes
        try:
            if not changes or changes[-1][0] < first:
                continue
            if changes[0][0] > first:
                return None
            low, high = _span(changes, first, last)
            span = changes[low:high]
        except IndexError:  # it has reached the backend and is being emptied
            return None
        if generation not in state.generations:
            return None
        return span
    return None


def _span(changes: list[ChangedRow], first: int, last: int) -> tuple[int, int]:
    """Where first..last lies: about ``_SPAN_CHANGES``, but at least one revision, and whole ones only."""
    count = len(changes)
    recent = max(0, count - PIECE_CHANGES)
    if changes[recent][0] < first:  # the usual case: what is new is little
        low = bisect_left(changes, first, recent, count, key=_main_of)
    else:
        low = bisect_left(changes, first, 0, count, key=_main_of)
    high = count
    if high - low > _SPAN_CHANGES:
        main = changes[low + _SPAN_CHANGES][0]
        high = bisect_left(changes, main, low, count, key=_main_of)
        if high == low:
            high = bisect_left(changes, main + 1, low, count, key=_main_of)
    if changes[high - 1][0] > last:  # planned, and not durable yet
        high = bisect_left(changes, last + 1, low, high, key=_main_of)
    return low, high
