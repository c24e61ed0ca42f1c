"""A stream: many watches, one ordered sequence of (watch id, response), in the shape of etcd's Watch RPC.

    hub's thread --post--> queue --step--> consumer
                                   |
    watches that are behind -------+  read from the store, a page at a time, in turns with the queue

The queue holds what every watch of the stream was given, in order; created, canceled and progress responses go
through it too, so none of them overtakes an event. A page is bounded by rows and, roughly, by bytes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.errors import Compacted, WatchCanceled
from kvstore.model import FROM_KEY, WatchRequest, WatchResponse
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.overlay import ChangedRow
from kvstore.watch.bell import Bell
from kvstore.watch.watcher import Batch, FellBehind, Item, Ready, Watcher, hull, route

if TYPE_CHECKING:
    from kvstore.watch.hub import Hub

Numbered = tuple[int, WatchResponse]
"""(watch id, response)."""

EVERY_WATCH = -1
"""The watch id of responses that are about the stream, or about a watch that was never made."""

EMPTY_RANGE = "mvcc: watcher range is empty"
DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"

PAGE_ROWS = 2048
PAGE_ROWS_BESIDE_WRITERS = 256
FIRST_PAGE_ROWS = 64
PAGE_BYTES = 1 << 20
PAUSE_SECONDS = 0.00005


class WatchStream:
    """Watches that are consumed together. Thread-safe; made by ``engine.watch_stream()``."""

    def __init__(self, hub: Hub, progress_interval_seconds: float) -> None:
        self._hub = hub
        self._state = hub.state
        self._watchers: dict[int, Watcher] = {}
        self._ended: set[int] = set()
        """Ids that a compaction ended and that nobody has canceled yet."""
        self._next_id = 0
        self._queue: deque[Item] = deque()
        self._behind: deque[Watcher] = deque()
        self._ahead: deque[Numbered] = deque()
        """Responses that were read from the store and not taken yet."""
        self._reading = threading.Lock()
        """Held by whoever takes from the queue or reads the store for this stream."""
        self._changing = threading.Lock()
        """Held while watches are made and canceled."""
        self.bell = Bell()
        """Rung when there may be something to take."""
        self._store_has_turn = False
        self._page_rows = FIRST_PAGE_ROWS
        self._seen_revision = 0
        self._progress_interval_seconds = progress_interval_seconds
        self._tick = time.monotonic() + progress_interval_seconds
        self.closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def slow(self) -> int:
        """How many of the watches are behind."""
        return sum(not watcher.live for watcher in list(self._watchers.values()))

    @property
    def buffered_bytes(self) -> int:
        """What waits in the queue."""
        return sum(watcher.buffered_bytes for watcher in list(self._watchers.values()))

    def lag(self, watch_id: int) -> int:
        """How many revisions a watch that is behind still has to read; 0 for a live one."""
        watcher = self._watchers[watch_id]
        return 0 if watcher.live else max(0, self._state.published + 1 - watcher.position)

    # --- making and ending watches ----------------------------------------------------

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        """Begin a watch and return its id (0: draw one), or -1 where the response in the queue says why not.

        A response with ``created`` comes before the watch's events.
        """
        self._hub.check_readable()
        if not request.key:
            request = request._replace(key=FROM_KEY)
        with self._changing:
            if self.closed:
                raise WatchCanceled
            reason = self._refusal(request, watch_id)
            if reason:
                refused = WatchResponse(self._state.published, (), True, 0, reason, True)
                self.post(Ready(EVERY_WATCH, refused))
                return EVERY_WATCH
            watch_id = watch_id or self._draw_id()
            watcher = self._hub.new_watcher(self, watch_id, request)
            self._watchers[watch_id] = watcher
            self.post(Ready(watch_id, WatchResponse(self._state.published, created=True)))
            if not self._hub.join(watcher):
                self.post(FellBehind(watcher))
            return watch_id

    def _refusal(self, request: WatchRequest, watch_id: int) -> str:
        if request.range_end not in (b"", FROM_KEY) and request.key >= request.range_end:
            return EMPTY_RANGE
        if watch_id and (watch_id in self._watchers or watch_id in self._ended):
            return DUPLICATE_ID
        if request.start_revision < 0:
            return Compacted.message
        return ""

    def _draw_id(self) -> int:
        while self._next_id in self._watchers or self._next_id in self._ended:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def cancel(self, watch_id: int) -> bool:
        """End a watch: a canceled response is its last. False (and no response) for an unknown id."""
        with self._changing:
            watcher = self._watchers.pop(watch_id, None)
            if watcher is not None:
                self._hub.leave(watcher)
            elif watch_id in self._ended:
                self._ended.discard(watch_id)
            else:
                return False
            self.post(Ready(watch_id, WatchResponse(self._state.published, canceled=True)))
            return True

    def request_progress(self) -> None:
        """Ask for a response with id -1 that says up to which revision everything has come.

        It comes once every watch of the stream has caught up; never, where there are no watches.
        """
        self._hub.check_readable()
        if self._watchers:
            self._hub.ask_progress(self, EVERY_WATCH)

    def may_be_told(self, watch_id: int, revision: int) -> bool | None:
        """Whether everything up to ``revision`` is queued for these watches; None: nobody is left to ask."""
        if watch_id == EVERY_WATCH:
            watchers = list(self._watchers.values())
        else:
            watchers = [self._watchers[watch_id]] if watch_id in self._watchers else []
        if not watchers or self.closed:
            return None
        return all(watcher.live and watcher.position <= revision + 1 for watcher in watchers)

    def close(self) -> None:
        """End all watches; whoever waits for the next response gets ``WatchCanceled``."""
        try:
            self._hub.check_readable()
        except (
            Exception
        ):  # closed, or a forked child, where the locks may be held by a thread that is not here
            self.closed = True
            return
        with self._changing:
            self.closed = True
            for watcher in self._watchers.values():
                self._hub.leave(watcher)
            self._watchers.clear()
            self._queue.clear()
        self.bell.ring()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def abandon(self) -> None:
        """As ``close``, for a garbage collector that may run anywhere: takes no lock."""
        self.closed = True
        for watcher in list(self._watchers.values()):
            watcher.ended = True

    # --- what the hub calls -----------------------------------------------------------

    def post(self, item: Item) -> None:
        self._queue.append(item)
        self.bell.ring()

    def wait_for_reader(self) -> None:
        """Return when nobody reads the store for this stream any more (reads are refused already)."""
        with self._reading:
            pass

    # --- consuming --------------------------------------------------------------------

    def next(self, timeout_seconds: float | None = None) -> Numbered | None:
        """The next response; None when the time is up.

        Raises ``WatchCanceled`` once the stream is closed, ``StoreClosed`` once the store is.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            found = self.step()
            if found is not None:
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            if self.idle():
                self.bell.wait(self.until_tick(left))

    def step(self, may_read: bool = True) -> Numbered | None:
        """Take a response that is there, or read one page for a watch that is behind. Never waits.

        Without ``may_read`` the store is not read, so it is quick.
        """
        with self._reading:
            self._check()
            if not self._ahead:
                self._step(may_read)
            return self._ahead.popleft() if self._ahead else None

    def read_ahead(self) -> None:
        """Do the work of ``step`` and leave the response for it (to be called in a thread)."""
        with self._reading:
            self._check()
            if not self._ahead:
                self._step(may_read=True)

    def needs_store(self) -> bool:
        """Whether ``step`` would read the store."""
        if self._ahead:
            return False
        if self._behind and (self._store_has_turn or not self._queue):
            return True
        item = self._queue[0] if self._queue else None
        return isinstance(item, Batch) and item.watcher.prev_kv

    def idle(self) -> bool:
        """Whether there is nothing to do until the bell rings."""
        return not (self._queue or self._behind or self._ahead)

    def until_tick(self, left: float | None) -> float | None:
        """Seconds to wait at most, and the periodic progress notices that are due by now."""
        if not any(watcher.progress_notify for watcher in list(self._watchers.values())):
            return left
        now = time.monotonic()
        if now >= self._tick:
            self._tick = now + self._progress_interval_seconds
            self._ask_quiet()
        wait = self._tick - now
        return wait if left is None else min(left, wait)

    def _ask_quiet(self) -> None:
        """Ask for the progress of those who want it and have not heard of anything since the last tick."""
        for watcher in list(self._watchers.values()):
            if watcher.progress_notify and watcher.live:
                if watcher.quiet:
                    self._hub.ask_progress(self, watcher.id)
                watcher.quiet = True

    def _check(self) -> None:
        self._hub.check_readable()
        if self.closed:
            raise WatchCanceled

    def _step(self, may_read: bool) -> None:
        """Put what comes next into ``_ahead``, if there is anything."""
        while self._queue or self._behind:
            if not may_read and self.needs_store():
                return
            if self._behind and (self._store_has_turn or not self._queue):
                self._store_has_turn = False
                self._catch_up()
                return
            self._store_has_turn = True
            self._open(self._queue.popleft())
            if self._ahead:
                return

    def _open(self, item: Item) -> None:
        if isinstance(item, Batch):
            watcher, revision, changes, size_bytes = item
            watcher.taken_bytes += size_bytes
            if not watcher.ended:
                watcher.quiet = False
                events = watcher.events(self._state, changes)
                self._ahead.append((watcher.id, WatchResponse(revision, events)))
        elif isinstance(item, Ready):
            self._ahead.append((item.watch_id, item.response))
        elif not item.watcher.ended:
            self._behind.append(item.watcher)

    # --- catching up ------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Let those that have caught up go live, and read one page for the first of the others.

        Those that stand at the same position (all of them, when a client comes back) share the page.
        """
        self._behind = deque(w for w in self._behind if not (w.ended or self._hub.join(w)))
        if not self._behind:
            return
        first, last = self._behind[0].position, self._state.published
        group = [watcher for watcher in self._behind if watcher.position == first]
        try:
            page, covered = change_page(self._state, first, last, self._rows_to_read(last), hull(group))
        except Compacted as error:
            self._end_compacted(group, error.compact_revision)
            return
        self._fit_pages(page)
        shares = route(group, page) if len(group) > 1 else {group[0]: page}
        for watcher, changes in shares.items():
            events = watcher.events(self._state, watcher.wanted(changes))
            if events:
                watcher.quiet = False
                self._ahead.append((watcher.id, WatchResponse(covered, events)))
        for watcher in group:
            watcher.position = covered + 1
            self._behind.remove(watcher)
        self._behind.extend(group)

    def _rows_to_read(self, newest: int) -> int:
        """As many as fit a page; fewer, and after a pause, while somebody writes."""
        if newest == self._seen_revision:
            return self._page_rows
        self._seen_revision = newest
        time.sleep(PAUSE_SECONDS)
        return min(self._page_rows, PAGE_ROWS_BESIDE_WRITERS)

    def _fit_pages(self, page: list[ChangedRow]) -> None:
        """Choose the next page's rows by the bytes of this one."""
        size_bytes = sum([len(row or key) for _, _, key, row in page])
        fitting = PAGE_BYTES * len(page) // size_bytes if size_bytes else PAGE_ROWS
        self._page_rows = max(1, min(2 * self._page_rows, fitting, PAGE_ROWS))

    def _end_compacted(self, group: list[Watcher], compact_revision: int) -> None:
        for watcher in group:
            with self._changing:
                self._behind.remove(watcher)
                if self._watchers.pop(watcher.id, None) is None:
                    continue  # canceled meanwhile, and told so
                self._hub.leave(watcher)
                self._ended.add(watcher.id)
            ended = WatchResponse(0, canceled=True, compact_revision=compact_revision)
            self._ahead.append((watcher.id, ended))
