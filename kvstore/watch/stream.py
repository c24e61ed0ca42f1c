"""A stream: many watches, one ordered sequence of (watch id, response), in the shape of etcd's Watch RPC.

    hub's thread --post--> mailbox --fill--> ahead --> consumer
                                      |
    watches that are behind ----------+  read from the store, a page at a time, in turns with the mailbox

The mailbox holds what every watch of the stream was given, in order; created, canceled and progress responses go
through it too, so none of them overtakes an event. A page is bounded by rows and, roughly, by bytes.

An exception may end any call at any step. What is taken from the mailbox, or from ``behind``, is put into ``ahead``
first and removed after that: interrupted between the two it comes twice, but it is never lost. (A single watch skips
what it has already handed out, iterators.py.)

A consumer of many streams, such as a server, gives each a bell of its own making, and serves those that have rung:

    hub's thread --ring--> bell of the stream: notes the stream, and wakes the server if it is the first
    server       --take--> all that waits in each noted stream, in one call; in a thread if it ``needs_store``
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from itertools import islice
from types import TracebackType
from typing import Self, overload

from kvstore.bell import Bell, Ringing
from kvstore.errors import Compacted, Reentered, WatchCanceled
from kvstore.model import FROM_KEY, WatchPosition, WatchRequest, WatchResponse
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.overlay import ChangedRow
from kvstore.watch.hub import Hub
from kvstore.watch.mailbox import EVERY_WATCH
from kvstore.watch.watcher import Batch, FellBehind, Item, Ready, Watcher, hull, route
from kvstore.write.writer import holds

Numbered = tuple[int, WatchResponse]
"""(watch id, response)."""

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
        self._ended: set[int] = set()
        """Ids that a compaction ended and that have not been canceled yet."""
        self._ids = itertools.count()
        self._behind: dict[Watcher, None] = {}
        """Watches that read the store, in the order of their turns. Replaced, not changed, except by additions."""
        self._ahead: deque[Numbered] = deque()
        """Responses that may be handed out."""
        self._reading = threading.RLock()
        """Held while ``_ahead`` is being filled."""
        self._store_has_turn = False
        self._page_rows = FIRST_PAGE_ROWS
        self._seen_revision = 0
        self._progress_interval_seconds = progress_interval_seconds
        self._tick = time.monotonic() + progress_interval_seconds
        self._mailbox = hub.open_mailbox(self)

    def __len__(self) -> int:
        return len(self._mailbox.watchers)

    @property
    def bell(self) -> Ringing:
        """Rung when there may be something to take. Who puts another in its place looks once himself after that.

        With one that is no ``Bell`` the stream cannot be waited for by a thread.
        """
        return self._mailbox.bell

    @bell.setter
    def bell(self, bell: Ringing) -> None:
        self._mailbox.bell = bell

    def lag(self, watch_id: int) -> int:
        """How many revisions a watch that is behind still has to read; 0 for a live one."""
        watcher = self._mailbox.watchers.get(watch_id)
        if watcher is None or watcher.live:
            return 0
        return max(0, self._state.published + 1 - watcher.position)

    def start(self, watch_id: int) -> WatchPosition | None:
        """Where a watch begins; None for an unknown id."""
        watcher = self._mailbox.watchers.get(watch_id)
        return None if watcher is None else watcher.start

    # --- making and ending watches ----------------------------------------------------

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        """Begin a watch and return its id (0: pick one), or -1 if it is refused; the response in the queue says why.

        A response with ``created`` comes before the watch's events.
        """
        if not isinstance(request, WatchRequest):
            raise TypeError(f"request must be a kvstore.WatchRequest, not {request!r:.80}")
        self._hub.check_readable()
        if self._mailbox.closed:
            raise WatchCanceled
        if not request.key:
            request = request._replace(key=FROM_KEY)
        watcher = self._hub.new_watcher(self._mailbox, request)
        try:
            reason = self._refusal(request, watch_id) or self._number(watcher, watch_id)
            if reason:
                return self.refuse(reason)
            self._begin(watcher)
            return watcher.id
        except BaseException:
            self._hub.leave(watcher)
            if self._mailbox.watchers.get(watcher.id) is watcher:
                del self._mailbox.watchers[watcher.id]
            raise

    def _refusal(self, request: WatchRequest, watch_id: int) -> str:
        if request.range_end not in (b"", FROM_KEY) and request.key >= request.range_end:
            return EMPTY_RANGE
        if watch_id and (watch_id in self._mailbox.watchers or watch_id in self._ended):
            return DUPLICATE_ID
        if request.start_revision < 0:
            return Compacted.message
        return ""

    def refuse(self, reason: str) -> int:
        """Answer a request for a watch with a reason: it was created and canceled. Returns -1."""
        refused = WatchResponse(self._state.published, (), True, 0, reason, True)
        self._mailbox.post(Ready(EVERY_WATCH, refused))
        return EVERY_WATCH

    def _number(self, watcher: Watcher, watch_id: int) -> str:
        """Register a watcher under an id, or under the next free one. Returns why not, or an empty string."""
        watchers = self._mailbox.watchers
        if watch_id:
            watcher.id = watch_id
            return "" if watchers.setdefault(watch_id, watcher) is watcher else DUPLICATE_ID
        for free in self._ids:
            watcher.id = free
            if free not in self._ended and watchers.setdefault(free, watcher) is watcher:
                break
        return ""

    def _begin(self, watcher: Watcher) -> None:
        mailbox = self._mailbox
        published = self._state.published
        if watcher.begins_now:  # what is published since its position was fixed is an event of it
            published = watcher.position - 1
        mailbox.post(Ready(watcher.id, WatchResponse(published, created=True)))
        if watcher.position > self._state.published:
            self._hub.join(watcher)
        else:
            mailbox.post(FellBehind(watcher))
        if mailbox.closed:  # closed meanwhile
            raise WatchCanceled

    def cancel(self, watch_id: int) -> bool:
        """End a watch: a canceled response is its last. False (and no response) for an unknown id."""
        mailbox = self._mailbox
        watcher = mailbox.watchers.get(watch_id)
        if watcher is not None:
            self._hub.leave(watcher)
            if mailbox.watchers.pop(watch_id, None) is None:
                return False
        elif watch_id in self._ended:
            self._ended.discard(watch_id)
        else:
            return False
        mailbox.post(Ready(watch_id, WatchResponse(self._state.published, canceled=True)))
        return True

    def request_progress(self) -> None:
        """Ask for a response with id -1 that says up to which revision everything has been delivered.

        It comes once every watch of the stream has caught up; never, if there are no watches.
        """
        self._hub.check_readable()
        if self._mailbox.watchers:
            self._hub.ask_progress(self._mailbox, EVERY_WATCH)

    def close(self) -> None:
        """End all watches; a call waiting for the next response gets ``WatchCanceled``."""
        self._hub.close_mailbox(self, self._mailbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- consuming --------------------------------------------------------------------

    @overload
    def next(self, timeout_seconds: None = None) -> Numbered: ...
    @overload
    def next(self, timeout_seconds: float) -> Numbered | None: ...
    def next(self, timeout_seconds: float | None = None) -> Numbered | None:
        """The next response; None when the time is up.

        Raises ``WatchCanceled`` once the stream is closed, ``StoreClosed`` once the store is.
        """
        while self.fill() or self._wait(timeout_seconds):
            try:
                return self._ahead.popleft()
            except IndexError:
                pass  # another consumer was faster
        return None

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until there is a response to hand out. Returns false when the time is up."""
        return self.fill() or self._wait(timeout_seconds)

    def _wait(self, timeout_seconds: float | None) -> bool:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self.idle():
                bell = self._mailbox.bell
                if not isinstance(bell, Bell):
                    raise TypeError(
                        f"this stream rings a {type(bell).__name__}: take what there is when it does"
                    )
                bell.wait(self.until_tick(left))
            if self.fill():
                return True

    def take(self, limit: int, may_read: bool = False) -> list[Numbered]:
        """As many responses as there are, up to ``limit``, in order. Never waits, and raises what ``next`` raises.

        Without ``may_read`` the store is not read, so it is quick; it ends where a response would take that
        (``needs_store``). For a single consumer.
        """
        self._fill(limit, may_read)
        ahead = self._ahead
        taken, left = list(islice(ahead, limit)), deque(islice(ahead, limit, None))
        self._ahead = left
        return taken

    def first(self) -> WatchResponse:
        """The next response, which stays. For a single consumer, after ``fill``."""
        return self._ahead[0][1]

    def drop_first(self) -> None:
        """Remove the next response."""
        self._ahead.popleft()

    def fill(self, may_read: bool = True) -> bool:
        """Get a response ready, if there is one or one can be read. Returns whether there is. Never waits.

        Without ``may_read`` the store is not read, so it is quick.
        """
        return self._fill(1, may_read)

    def _fill(self, count: int, may_read: bool) -> bool:
        """Get ``count`` responses ready, or as many as there are. Returns whether there is any."""
        if self._reading._is_owned():  # type: ignore[attr-defined]  # holds, faster
            raise Reentered(
                "a signal handler or finalizer interrupted a read of this watch on the same thread"
            )
        try:
            with self._reading:
                self._hub.check_readable()
                if self._mailbox.closed:
                    self._mailbox.queue.clear()
                    raise WatchCanceled
                if len(self._ahead) < count:
                    self._step(count, may_read)
                return bool(self._ahead)
        except BaseException:
            while holds(self._reading):
                self._reading.release()
            raise

    def needs_store(self) -> bool:
        """Whether ``fill`` would read the store."""
        return not self._ahead and self._next_needs_store()

    def _next_needs_store(self) -> bool:
        queue = self._mailbox.queue
        if self._behind and (self._store_has_turn or not queue):
            return True
        item = queue[0] if queue else None
        return isinstance(item, Batch) and item.watchers[0].prev_kv

    def idle(self) -> bool:
        """Whether there is nothing to do until the bell rings."""
        return not (self._mailbox.queue or self._behind or self._ahead)

    def until_tick(self, left: float | None) -> float | None:
        """The seconds to wait at most. Also asks for the periodic progress notices that are due by now."""
        watchers = list(self._mailbox.watchers.values())
        if not any(watcher.progress_notify for watcher in watchers):
            return left
        now = time.monotonic()
        if now >= self._tick:
            self._tick = now + self._progress_interval_seconds
            self._hub.ask_quiet(self._mailbox)
        wait = self._tick - now
        return wait if left is None else min(left, wait)

    def _step(self, count: int, may_read: bool) -> None:
        """Put what comes next into ``_ahead``, if there is anything: ``count`` live responses, or a page."""
        queue, ahead = self._mailbox.queue, self._ahead
        while queue or self._behind:
            if self._behind and (self._store_has_turn or not queue):
                if may_read:
                    self._store_has_turn = False
                    self._catch_up()
                return
            item = queue[0]
            if item.__class__ is Batch:
                watchers, (response, changes, size_bytes) = item
                if watchers[0].prev_kv:
                    if not may_read:
                        return
                    response = response._replace(events=watchers[0].events(self._state, changes))
                for watcher in watchers:
                    if not watcher.ended:
                        watcher.quiet = False
                        ahead.append((watcher.id, response))
                    watcher.taken_bytes += size_bytes
            else:
                self._open(item)
            queue.popleft()
            if len(ahead) >= count:
                self._store_has_turn = True
                return

    def _open(self, item: Item) -> None:
        if isinstance(item, Ready):
            self._ahead.append((item.watch_id, item.response))
        elif isinstance(item, FellBehind) and not item.watcher.ended:
            self._behind[item.watcher] = None

    # --- catching up ------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Let the watches that have caught up go live, and read one page for the first of the others.

        Watches at the same position (all of them, when a client comes back) share the page.
        """
        last = self._state.published
        behind = [watcher for watcher in self._behind if watcher.is_behind and not watcher.ended]
        for watcher in behind:
            if watcher.position > last:
                self._hub.join(watcher)
        behind = [watcher for watcher in behind if watcher.position <= last]
        if not behind:
            self._behind = {}
            return
        first = behind[0].position
        group = [watcher for watcher in behind if watcher.position == first]
        try:
            page, covered = change_page(self._state, first, last, self._rows_to_read(last), hull(group))
        except Compacted as error:
            self._end_compacted(group, error.compact_revision)
            self._behind = dict.fromkeys(watcher for watcher in behind if watcher.position != first)
            return
        self._fit_pages(page)
        shares = route(group, page) if len(group) > 1 else {group[0]: page}
        for watcher, changes in shares.items():
            events = watcher.events(self._state, watcher.wanted(changes), last)
            if events:
                watcher.quiet = False
                self._ahead.append((watcher.id, WatchResponse(covered, events)))
        self._behind = dict.fromkeys([*(w for w in behind if w.position != first), *group])
        for watcher in group:
            watcher.position = covered + 1

    def _rows_to_read(self, newest: int) -> int:
        """How many rows to read: a page; fewer, and after a pause, while there are writes."""
        if newest == self._seen_revision:
            return self._page_rows
        self._seen_revision = newest
        time.sleep(PAUSE_SECONDS)
        return min(self._page_rows, PAGE_ROWS_BESIDE_WRITERS)

    def _fit_pages(self, page: list[ChangedRow]) -> None:
        """Set the next page's rows by the bytes of this one."""
        size_bytes = sum([len(row or key) for _, _, key, row in page])
        fitting = PAGE_BYTES * len(page) // size_bytes if size_bytes else PAGE_ROWS
        self._page_rows = max(1, min(2 * self._page_rows, fitting, PAGE_ROWS))

    def _end_compacted(self, group: list[Watcher], compact_revision: int) -> None:
        watchers = self._mailbox.watchers
        for watcher in group:
            if watchers.get(watcher.id) is watcher:  # otherwise it was canceled meanwhile, and told so
                self._ended.add(watcher.id)
                ended = WatchResponse(0, canceled=True, compact_revision=compact_revision)
                self._ahead.append((watcher.id, ended))
                watchers.pop(watcher.id, None)
            self._hub.leave(watcher)
