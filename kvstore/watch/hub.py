"""Live delivery: one thread takes each published change once and routes it by key.

The commit leader only rings a bell. The thread reads what is new from the generations (the backend is not read as
long as it keeps up) and routes it in pieces of at most 64 changes, with a short sleep between pieces, so that it never
holds the GIL for long. The whole revisions of a piece are one response, which all watchers of the same span share. As
long as it is few revisions behind, each is a response of its own, as a live watch of etcd's has it. While no watch is
live it does nothing, and before the first watch there is no thread.

``taken`` is the last revision that the thread has begun to route. A watcher may join if its position is past that;
earlier changes it reads from the store.

Only the thread touches the index and what is routed. Others queue what they want and ring the bell:

    consumer    --join, leave, progress-->  asked     --> the thread
    collector   --a dead reference------->  departed  --> the thread

Appending to either queue is a single step, in C. So a watch is made, read and ended without a lock, even by a signal
handler or a finalizer, and an exception at any step leaves the hub as it was.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from kvstore.bell import Bell
from kvstore.errors import NoThread
from kvstore.model import WatchPosition, WatchRequest, WatchResponse
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.state import State
from kvstore.shelter import start
from kvstore.watch.index import Shares, WatchIndex
from kvstore.watch.mailbox import Mailbox
from kvstore.watch.watcher import Batch, FellBehind, Place, Ready, Takers, Watcher, piece_of, post

logger = logging.getLogger("kvstore")

PIECE_CHANGES = 64
FEW_REVISIONS = 8
"""So many at once are not put together in a response."""
PAUSE_SECONDS = 0.00005
RETRY_SECONDS = 0.05
_SPAN_CHANGES = 1024
_PAGE_CHANGES = 256
_main_of = itemgetter(0)


class Hub:
    """The watches of one store."""

    def __init__(self, state: State, check_readable: Callable[[], None], room_bytes: int) -> None:
        self.state = state
        self.check_readable = check_readable
        self._room_bytes = room_bytes
        self._asked: deque[tuple[Callable[[Any], None], Any]] = deque()
        """What others want the thread to do, with an argument."""
        self._departed: deque[weakref.ref[object]] = deque()
        """Dead references to owners of mailboxes."""
        self._mailboxes: dict[weakref.ref[object], Mailbox] = {}
        """Mailboxes by owner."""
        self._index: WatchIndex[Watcher] = WatchIndex()
        self._taken = state.published
        self._routed: Shares[Watcher] = {}
        """What is routed and not handed out yet: part of a revision, or whole ones."""
        self._first_routed = 0
        """The first revision in that; 0 if there is none."""
        self._untold: set[tuple[Mailbox, int]] = set()
        """Requests for progress that cannot be answered yet: (mailbox, watch id; -1 for the whole stream)."""
        self._bell = Bell()
        self._active = False
        self._stopping = False
        self._delivering = threading.Lock()
        """Held by the thread while it runs."""
        self._thread: threading.Thread | None = None

    # --- called from outside ----------------------------------------------------------

    def published(self, revision: int) -> None:
        """Called by the commit leader: a revision has become readable."""
        if self._active:
            self._bell.ring()

    def open_mailbox(self, owner: object) -> Mailbox:
        """A mailbox that lives as long as its owner. Raises ``NoThread``."""
        self._start()
        mailbox = Mailbox()
        self._mailboxes[weakref.ref(owner, self._departed.append)] = mailbox
        if self._departed:
            self._bell.ring()
        return mailbox

    def close_mailbox(self, owner: object, mailbox: Mailbox) -> None:
        """End its watchers at once. May be called again."""
        self._ask(self._let_go, mailbox)
        mailbox.closed = True
        self._mailboxes.pop(weakref.ref(owner), None)
        mailbox.bell.ring()

    def new_watcher(self, mailbox: Mailbox, request: WatchRequest) -> Watcher:
        """A watcher at its first position."""
        start = WatchPosition(request.start_revision, request.start_sub)
        if not request.start_revision:
            start = WatchPosition(self.state.published + 1)
        return Watcher(mailbox, request, start, self._room_bytes)

    def join(self, watcher: Watcher) -> None:
        """Make a watcher live; it gets ``FellBehind`` if something it wants was taken already."""
        try:
            watcher.joins = True
            self._ask(self._admit, watcher)
        except BaseException:
            watcher.joins = False  # its consumer will ask again
            raise

    def leave(self, watcher: Watcher) -> None:
        """End a watcher."""
        watcher.ended = True
        self._ask(self._take_out, watcher)

    def ask_progress(self, mailbox: Mailbox, watch_id: int) -> None:
        """Queue a progress notice once everything published until now has been queued."""
        self._ask(self._untold.add, (mailbox, watch_id))

    def ask_quiet(self, mailbox: Mailbox | None = None) -> None:
        """Queue a progress notice for each watch that wants them and has had nothing since this was asked before.

        Of one stream, or (None) of all: who serves many streams needs one timer.
        """
        self._ask(self._note_quiet, mailbox)

    def _ask(self, call: Callable[[Any], None], argument: object) -> None:
        self._asked.append((call, argument))
        self._bell.ring()

    def _owned(self) -> list[Mailbox]:
        """The mailboxes whose owners are alive."""
        return [mailbox for owner, mailbox in self._mailboxes.copy().items() if owner() is not None]

    @property
    def watchers(self) -> int:
        """How many watches there are, live or behind."""
        return sum(len(mailbox.watchers) for mailbox in self._owned())

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._owned())

    @property
    def slow(self) -> int:
        """How many watches are behind."""
        return sum(watcher.is_behind for watcher in self._all_watchers())

    @property
    def buffered_bytes(self) -> int:
        """The bytes waiting in the queues of all streams."""
        return sum(watcher.buffered_bytes for watcher in self._all_watchers())

    @property
    def pending_events(self) -> int:
        """How many events wait in the queues of all streams."""
        waiting = [item for mailbox in self._owned() for item in mailbox.queue.copy()]
        return sum(
            len(item.watchers) * len(item.piece.changes) for item in waiting if isinstance(item, Batch)
        )

    def _all_watchers(self) -> list[Watcher]:
        return [watcher for mailbox in self._owned() for watcher in list(mailbox.watchers.values())]

    def close(self) -> None:
        """End the thread and wake every consumer. By then the engine refuses reads."""
        self._stopping = True
        self._active = False
        self._bell.ring()
        with self._delivering:
            pass  # it has ended
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        for mailbox in list(self._mailboxes.values()):
            mailbox.bell.ring()

    # --- the thread -------------------------------------------------------------------

    def _start(self) -> None:
        """Make sure that there is a thread. If two are started at once, one of them ends."""
        if self._delivering.locked() or self._stopping:
            return
        thread = threading.Thread(target=lambda: self._run(thread), name="kvstore-watch", daemon=True)
        try:
            start(thread)
        except RuntimeError as error:
            raise NoThread from error

    def _run(self, thread: threading.Thread) -> None:
        if not self._delivering.acquire(blocking=False):
            return
        self._thread = thread
        try:
            while not self._stopping:
                self._bell.wait()
                self._deliver()
        finally:
            self._delivering.release()

    def _deliver(self) -> None:
        """Do everything there is to do."""
        has_failed = False
        while not self._stopping:
            try:
                if has_failed:
                    self._begin_anew()
                    has_failed = False
                self._serve()
                if not self._route_new():
                    if self._untold:
                        self._answer_untold()
                    return
                time.sleep(PAUSE_SECONDS)
            except Exception as error:
                has_failed = True
                self._note(error)

    def _note(self, error: Exception) -> None:
        if not self._stopping:
            logger.warning("watch: delivery could not go on, watches read the store: %r", error)
            time.sleep(RETRY_SECONDS)

    def _serve(self) -> None:
        """Do what others have asked for, and forget what they have dropped."""
        while self._departed:
            mailbox = self._mailboxes.pop(self._departed.popleft(), None)
            if mailbox is not None:
                self._let_go(mailbox)
        while self._asked:
            call, argument = self._asked.popleft()
            call(argument)

    def _admit(self, watcher: Watcher) -> None:
        if watcher.ended or not watcher.joins:
            return
        if not self._index:
            self._begin(watcher.position)
        if watcher.position <= self._taken:
            self._send_behind(watcher)
            return
        watcher.live, watcher.joins = True, False
        self._index.add(watcher.span, watcher)

    def _begin(self, position: int) -> None:
        """No watch is live: begin at a position, if the generations reach back to it, or with what comes next."""
        self._active = True  # before looking at what is published: either it is seen here, or the bell rings
        published = self.state.published
        is_near = (
            self.state.compacted < position <= published
            and _pending_changes(self.state, position, published) is not None
        )
        self._taken = position - 1 if is_near else published
        self._routed = {}
        self._first_routed = 0

    def _take_out(self, watcher: Watcher) -> None:
        if watcher.live:
            watcher.live = False
            self._index.remove(watcher.span, watcher)

    def _let_go(self, mailbox: Mailbox) -> None:
        mailbox.closed = True
        for watcher in list(mailbox.watchers.values()):
            watcher.ended = True
            self._take_out(watcher)

    def _send_behind(self, watcher: Watcher) -> None:
        watcher.live = watcher.joins = False
        watcher.mailbox.post(FellBehind(watcher))

    def _route_new(self) -> bool:
        """Route what is published and not yet taken. Returns whether there may be more."""
        last = self.state.published
        first = self._taken + 1
        if not self._index:
            self._active = False
            return bool(self._asked)
        if first > last:
            return False
        changes = self._changes(first, last)
        are_few = last - first < FEW_REVISIONS
        at, count, rested_at = 0, len(changes), 0
        while at < count:
            if at:
                if not are_few or at - rested_at >= PIECE_CHANGES:
                    time.sleep(PAUSE_SECONDS)
                    rested_at = at
                taken = self._taken
                self._serve()
                if self._taken != taken or not self._index:
                    return True  # all have left, and perhaps a new one has come
            end = _piece_end(changes, at)
            if are_few:
                end = bisect_left(changes, changes[at][0] + 1, at, end, key=_main_of)
            self._route(changes[at:end])
            if end == count or changes[end][0] != self._taken:
                self._hand_out()
            at = end
        if not changes:
            self._taken = last
        return self._taken < self.state.published

    def _changes(self, first: int, last: int) -> list[ChangedRow]:
        """Whole revisions from ``first`` on, as many as are worth taking at once."""
        changes = _pending_changes(self.state, first, last)
        if changes is None:  # checkpoints were faster
            changes, _ = change_page(self.state, first, last, _PAGE_CHANGES)
        return changes

    def _route(self, piece: list[ChangedRow]) -> None:
        self._first_routed = self._first_routed or piece[0][0]
        self._index.share(piece, self._routed)
        self._taken = piece[-1][0]

    def _hand_out(self) -> None:
        """Deliver what is routed: whole revisions by now, up to ``_taken``."""
        rung: set[Place] = set()
        for group, changes in self._routed.items():
            piece = piece_of(self._taken, changes)
            takers: Takers = {}
            for watcher in (*group.watchers,):
                if not watcher.offer(piece, takers):
                    self._take_out(watcher)
                    self._send_behind(watcher)
            post(piece, takers)
            rung.update(takers)
        self._routed = {}
        self._first_routed = 0
        for mailbox in {mailbox for mailbox, _ in rung}:
            mailbox.bell.ring()

    def _begin_anew(self) -> None:
        """Something failed half way: every watch then reads the store itself, and meets the reason."""
        unrouted = self._first_routed or self._taken + 1
        self._routed = {}
        self._first_routed = 0
        self._index = WatchIndex()
        for watcher in self._all_watchers():
            if watcher.live:
                watcher.position = max(watcher.position, unrouted)
            if watcher.live or watcher.joins:
                self._send_behind(watcher)

    # --- progress ---------------------------------------------------------------------

    def _note_quiet(self, mailbox: Mailbox | None) -> None:
        for each in self._owned() if mailbox is None else [mailbox]:
            for watcher in list(each.watchers.values()):
                if watcher.progress_notify and watcher.live:
                    if watcher.quiet:
                        self._untold.add((each, watcher.id))
                    watcher.quiet = True

    def _answer_untold(self) -> None:
        """Answer requests for progress: everything up to ``_taken`` is in the queues, so queue the answer behind it."""
        for mailbox, watch_id in list(self._untold):
            told = mailbox.may_be_told(watch_id, self._taken)
            if told:
                mailbox.post(Ready(watch_id, WatchResponse(self._taken)))
            if told is not False:
                self._untold.discard((mailbox, watch_id))


def _pending_changes(state: State, first: int, last: int) -> list[ChangedRow] | None:
    """Whole revisions of first..last from one generation; None if the generations do not reach back to ``first``."""
    for generation in reversed(state.generations):
        changes = generation.changes
        if changes and changes[-1][0] >= first:
            if changes[0][0] > first:
                return None
            low, high = _span(changes, first, last)
            return changes[low:high]
    return None


def _span(changes: list[ChangedRow], first: int, last: int) -> tuple[int, int]:
    """The part of first..last to route now: about ``_SPAN_CHANGES``, but at least one revision, and only whole ones."""
    count = len(changes)
    recent = max(0, count - PIECE_CHANGES)
    if changes[recent][0] < first:  # the usual case: little is new
        low = bisect_left(changes, first, recent, count, key=_main_of)
    else:
        low = bisect_left(changes, first, 0, count, key=_main_of)
    high = count
    if high - low > _SPAN_CHANGES:
        main = changes[low + _SPAN_CHANGES][0]
        high = bisect_left(changes, main, low, count, key=_main_of)
        if high == low:
            high = bisect_left(changes, main + 1, low, count, key=_main_of)
    if changes[high - 1][0] > last:  # planned, but not durable yet
        high = bisect_left(changes, last + 1, low, high, key=_main_of)
    return low, high


def _piece_end(changes: list[ChangedRow], at: int) -> int:
    """The end of the piece that begins at ``at``: of whole revisions, unless one alone is too large."""
    end = at + PIECE_CHANGES
    if end >= len(changes):
        return len(changes)
    begun = bisect_left(changes, changes[end][0], at, end, key=_main_of)
    return begun if begun > at else end
