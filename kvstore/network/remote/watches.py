"""Watches of a server's store: a ``ResponseStream``, over a stream of etcd's Watch that others may share.

    consumer's thread or task             |  the client's loop
                                          |
    RemoteWatchStream --soon: create ...--+--> _Subscriber ---> WatchLink, one of the client's
            ^                             |         |
          fill <--- Inbox: queue, bell <--+---------+

The consumer decodes what it takes. The subscriber does not know the consumer, so a stream that its owner drops without
closing it is collected, and its subscriber leaves the link.

A watch from now on begins with a read: it starts after the revision of the store at that moment, which a connection
that is lost in its first second does not change. ``create`` waits for that, except on a thread that runs an event loop:
there the watch is put down among the ``Pins``, and what the same client writes after that waits for those.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, overload

from kvstore.bell import Bell, Gate, Ringing
from kvstore.errors import Compacted, KVStoreError, Reentered, WatchCanceled, again
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import FROM_KEY, WatchPosition, WatchRequest, WatchResponse
from kvstore.network.remote import watch_wire
from kvstore.network.remote.methods import RANGE
from kvstore.network.remote.streams import backoff
from kvstore.network.remote.watch_link import Links, Server, WatchLink
from kvstore.network.remote.watch_machine import Item, RemoteWatch, Said
from kvstore.watch.mailbox import EVERY_WATCH
from kvstore.watch.stream import DUPLICATE_ID, EMPTY_RANGE, Numbered
from kvstore.write.writer import holds

LOOK_SECONDS = 1.0
"""How often whoever waits for the loop looks whether the client is still open."""


class Pins:
    """The watches of a client that begin now and do not know their revision yet.

    A write that was asked for after such a watch has to be made after its beginning: it goes ``after`` those there are.
    """

    def __init__(self) -> None:
        self.pending: dict[RemoteWatch, None] = {}
        """Added to by any thread, and taken from on the loop's, in single steps."""
        self._later: list[tuple[set[RemoteWatch], Callable[[], object]]] = []

    def after(self, call: Callable[[], object]) -> None:
        """Have something called once all that are pending know their revision. On the loop's thread."""
        self._later.append((set(self.pending), call))

    def remove(self, watch: RemoteWatch) -> None:
        """On the loop's thread."""
        self.pending.pop(watch, None)
        for waits_for, _ in self._later:
            waits_for.discard(watch)
        due = [call for waits_for, call in self._later if not waits_for]
        self._later = [each for each in self._later if each[0]]
        for call in due:
            call()


class Watches:
    """All watch streams of one client."""

    def __init__(self, streams: Server, check: Callable[[], None], room_bytes: int) -> None:
        """``check`` raises if the client is closed, or belongs to another process.

        ``room_bytes``: what a watch may hold that its consumer has not taken, roughly.
        """
        self.streams = streams
        self.check = check
        self.room_bytes = room_bytes
        self.pins = Pins()
        self.links = Links(streams)
        self.inboxes: set[Inbox] = set()

    def ring(self) -> None:
        """Have every consumer look: the client is closed."""
        for inbox in list(self.inboxes):
            inbox.bell.ring()


Tell = Callable[[KVStoreError | None], None]


class Inbox:
    """What waits for the consumer. The loop appends, the consumer removes."""

    __slots__ = ("bell", "closed", "error", "queue")

    def __init__(self) -> None:
        self.queue: deque[Item] = deque()
        self.bell: Ringing = Bell()
        self.closed = False
        self.error: KVStoreError | None = None
        """What has ended the stream; raised when the queue is empty."""

    def post(self, item: Item) -> None:
        self.queue.append(item)
        self.bell.ring()

    def fail(self, error: KVStoreError) -> None:
        self.error = error
        self.bell.ring()


class _Subscriber:
    """The loop's side of a stream. Everything is called on the loop's thread."""

    def __init__(self, all_watches: Watches, inbox: Inbox) -> None:
        self._streams: Server = all_watches.streams
        self._links = all_watches.links
        self._pins = all_watches.pins
        self._inbox = inbox
        self.post = inbox.post
        self.watches: dict[RemoteWatch, None] = {}
        self._link: WatchLink | None = None
        """Once there is a watch."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self._beginning: set[RemoteWatch] = set()
        """Watches from now on, until their revision is known."""

    def create(self, watch: RemoteWatch, start: WatchPosition) -> None:
        if self._is_over:
            return
        if self._link is None:
            self._link = self._links.join(self)
        self._link.create(watch, start)

    def create_now(self, watch: RemoteWatch, tell: Tell | None) -> None:
        """Create a watch that begins with what comes after this call. ``tell`` is told when that is known, or that it
        cannot be; without it, it is asked for until it is known, and a refusal is the watch's last response."""
        if self._is_over:
            self._pins.remove(watch)
        else:
            self._beginning.add(watch)
            self._run(self._create_now(watch, tell))

    async def _create_now(self, watch: RemoteWatch, tell: Tell | None) -> None:
        try:
            error = await self._begin(watch)
            attempts = 0
            while error is not None and error.retryable and tell is None:
                attempts += 1
                await asyncio.sleep(backoff(attempts))
                error = await self._begin(watch)
        finally:
            self._pins.remove(watch)
        if tell is not None:
            tell(error)
        elif error is not None:
            refused = WatchResponse(self._revision_seen, (), True, 0, str(error), True)
            self.post(Said(watch.id, refused, watch))

    async def _begin(self, watch: RemoteWatch) -> KVStoreError | None:
        """Find out where a watch from now on begins, and create it. Returns why not."""
        try:
            revision = await self._revision(watch.request)
        except KVStoreError as error:
            return error
        if watch in self._beginning:  # else it was canceled meanwhile
            self._beginning.discard(watch)
            self.create(watch, WatchPosition(revision + 1))
        return None

    def refuse(self, request: WatchRequest, reason: str) -> None:
        """Answer a request for a watch that cannot be: it was created and canceled."""
        self._run(self._refuse(request, reason))

    async def _refuse(self, request: WatchRequest, reason: str) -> None:
        try:
            revision = await self._revision(request)
        except KVStoreError:
            revision = self._revision_seen
        self.post(Said(EVERY_WATCH, WatchResponse(revision, (), True, 0, reason, True), None))

    async def _revision(self, request: WatchRequest) -> int:
        """The store's revision. Reads a key that whoever may watch the range may read."""
        message = pb.RangeRequest(key=request.key, count_only=True).SerializeToString()
        answer = pb.RangeResponse.FromString(await self._streams.unary(RANGE.path, message))
        revision: int = answer.header.revision
        return revision

    @property
    def _revision_seen(self) -> int:
        """The newest that a response has named."""
        return 0 if self._link is None else self._link.machine.revision

    def cancel(self, watch: RemoteWatch) -> None:
        self._beginning.discard(watch)
        self._pins.remove(watch)
        if self._link is not None:
            self._link.cancel(watch)

    def say_canceled(self, watch_id: int) -> None:
        """The last response of a watch that its consumer has canceled."""
        self.post(Said(watch_id, WatchResponse(self._revision_seen, canceled=True), None))

    def drained(self, watch: RemoteWatch) -> None:
        if self._link is not None:
            self._link.drained(watch)

    def ask_progress(self) -> None:
        if self._link is not None:
            self.move().ask_progress()

    def move(self) -> WatchLink:
        self._link = self._links.alone(self, self._link)
        return self._link

    def fail(self, error: KVStoreError) -> None:
        self.close()
        self._inbox.fail(error)

    def close(self) -> None:
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        for watch in self._beginning:  # a task that has not begun to run does not come to its end either
            self._pins.remove(watch)
        link, self._link = self._link, None
        if link is not None:
            link.left(self)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Begun:
    """What became of a watch from now on: the loop says it, ``create`` waits for it."""

    def __init__(self) -> None:
        self._gate = Gate()
        self._error: KVStoreError | None = None

    def tell(self, error: KVStoreError | None) -> None:
        self._error = error
        self._gate.open()

    def wait(self, check: Callable[[], None]) -> None:
        while not self._gate.wait(LOOK_SECONDS):
            check()
        if self._error is not None:
            raise again(self._error)


class RemoteWatchStream:
    """Many watches with one consumer. Thread-safe, as ``WatchStream`` is."""

    def __init__(self, all_watches: Watches) -> None:
        streams = all_watches.streams
        self._check = all_watches.check
        self._soon = streams.soon
        self._room_bytes = all_watches.room_bytes
        self._pins = all_watches.pins
        self._inbox = inbox = Inbox()
        self._subscriber = _Subscriber(all_watches, inbox)
        all_watches.inboxes.add(inbox)
        self._watches: dict[int, RemoteWatch] = {}
        self._ended: set[int] = set()
        """Ids that a compaction ended and that have not been canceled yet."""
        self._ids = itertools.count()
        self._ahead: deque[Numbered] = deque()
        """Responses that may be handed out."""
        self._taking = threading.RLock()
        """Held while ``_ahead`` is being filled."""
        weakref.finalize(self, _let_go, all_watches, self._subscriber, inbox).atexit = False

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def bell(self) -> Ringing:
        """Rung when there may be something to take. Who puts another in its place looks once himself after that."""
        return self._inbox.bell

    @bell.setter
    def bell(self, bell: Ringing) -> None:
        self._inbox.bell = bell

    def lag(self, watch_id: int) -> int:
        """How many revisions a watch that is behind still has to read, as far as the server has said."""
        watch = self._watches.get(watch_id)
        return 0 if watch is None else max(0, watch.newest + 1 - watch.next.revision)

    def start(self, watch_id: int) -> WatchPosition | None:
        """Where a watch begins; None for an unknown id, and while that is being found out."""
        watch = self._watches.get(watch_id)
        return None if watch is None else watch.start

    # --- making and ending watches ----------------------------------------------------

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        """Begin a watch and return its id (0: pick one), or -1 if it is refused; a response then says why.

        A watch from now on: returns when the server has said what now is, or raises why it does not.
        """
        self._look()
        if not request.key:
            request = request._replace(key=FROM_KEY)
        watch = RemoteWatch(watch_id, request, self._room_bytes, self._subscriber)
        try:
            reason = self._refusal(request, watch_id) or self._number(watch)
            if reason:
                self._soon(self._subscriber.refuse, request, reason)
                return EVERY_WATCH
            self._begin(watch)
            return watch.id
        except BaseException:
            if self._watches.get(watch.id) is watch:
                del self._watches[watch.id]
                self._soon(self._subscriber.cancel, watch)
            raise

    def _refusal(self, request: WatchRequest, watch_id: int) -> str:
        if request.range_end not in (b"", FROM_KEY) and request.key >= request.range_end:
            return EMPTY_RANGE
        if watch_id and (watch_id in self._watches or watch_id in self._ended):
            return DUPLICATE_ID
        if request.start_revision < 0:
            return Compacted.message
        return ""

    def _number(self, watch: RemoteWatch) -> str:
        """Register a watch under its id, or under the next free one. Returns why not, or an empty string."""
        if watch.id:
            return "" if self._watches.setdefault(watch.id, watch) is watch else DUPLICATE_ID
        for free in self._ids:
            watch.id = free
            if free not in self._ended and self._watches.setdefault(free, watch) is watch:
                break
        return ""

    def _begin(self, watch: RemoteWatch) -> None:
        request = watch.request
        if request.start_revision:
            start = WatchPosition(request.start_revision, request.start_sub)
            watch.start = watch.next = start
            self._soon(self._subscriber.create, watch, start)
            return
        if _runs_a_loop():
            self._pins.pending[watch] = None
            self._soon(self._subscriber.create_now, watch, None)
        else:
            begun = _Begun()
            self._soon(self._subscriber.create_now, watch, begun.tell)
            begun.wait(self._look)

    def cancel(self, watch_id: int) -> bool:
        """End a watch: a canceled response is its last. False (and no response) for an unknown id."""
        watch = self._watches.pop(watch_id, None)
        if watch is not None:
            self._soon(self._subscriber.cancel, watch)
        elif watch_id in self._ended:
            self._ended.discard(watch_id)
        else:
            return False
        self._soon(self._subscriber.say_canceled, watch_id)
        return True

    def request_progress(self) -> None:
        """Ask for a response with id -1 that says up to which revision everything has been delivered.

        It comes once every watch of the stream has caught up; never, if there are no watches. Of an etcd older than
        3.4.25, or a 3.5 older than 3.5.8, it says no more than the events do.
        """
        self._check()
        if self._watches:
            self._soon(self._subscriber.ask_progress)

    def close(self) -> None:
        """End all watches; a call waiting for the next response gets ``WatchCanceled``. Idempotent."""
        self._inbox.closed = True
        self._watches = {}
        self._inbox.bell.ring()
        self._soon(self._subscriber.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- consuming --------------------------------------------------------------------

    def _look(self) -> None:
        """Raise why nothing comes any more."""
        self._check()
        inbox = self._inbox
        if inbox.closed:
            inbox.queue.clear()
            raise WatchCanceled
        if inbox.error is not None and not inbox.queue and not self._ahead:
            raise again(inbox.error)

    @overload
    def next(self, timeout_seconds: None = None) -> Numbered: ...
    @overload
    def next(self, timeout_seconds: float) -> Numbered | None: ...
    def next(self, timeout_seconds: float | None = None) -> Numbered | None:
        """The next response; None when the time is up.

        Raises ``WatchCanceled`` once the stream is closed, ``StoreClosed`` once the client is.
        """
        while self.wait(timeout_seconds):
            try:
                return self._ahead.popleft()
            except IndexError:
                pass  # another consumer was faster
        return None

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until there is a response to hand out. Returns false when the time is up."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not self.fill():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            bell = self._inbox.bell
            if not isinstance(bell, Bell):
                raise TypeError(f"this stream rings a {type(bell).__name__}: take what there is when it does")
            bell.wait(left)
        return True

    def first(self) -> WatchResponse:
        """The next response, which stays. For a single consumer, after ``wait`` or ``fill``."""
        return self._ahead[0][1]

    def drop_first(self) -> None:
        """Remove the next response."""
        self._ahead.popleft()

    def fill(self, may_read: bool = True) -> bool:
        """Get a response ready, if one has come. Returns whether there is. Never waits."""
        if holds(self._taking):
            raise Reentered("a signal handler or finalizer took from this watch in the middle of a take")
        try:
            with self._taking:
                self._look()
                queue = self._inbox.queue
                while queue and not self._ahead:
                    self._open(queue[0])
                    queue.popleft()
                return bool(self._ahead)
        except BaseException:
            while holds(self._taking):
                self._taking.release()
            raise

    def _open(self, item: Item) -> None:
        if isinstance(item, Said):
            self._open_said(item)
            return
        watch = item.watch
        if self._watches.get(watch.id) is watch:
            events = watch_wire.events_of(item.parts, item.start, prev_kv=watch.request.prev_kv)
            if events:
                self._ahead.append((watch.id, WatchResponse(item.revision, events)))
        watch.taken_bytes += item.size_bytes
        if watch.is_full and watch.has_room:
            self._soon(self._subscriber.drained, watch)

    def _open_said(self, said: Said) -> None:
        watch_id, response, watch = said
        if watch is not None and response.canceled:
            if self._watches.get(watch_id) is not watch:
                return  # its owner has canceled it, and is told so
            if response.compact_revision:
                self._ended.add(watch_id)
            del self._watches[watch_id]
        self._ahead.append((watch_id, response))

    def needs_store(self) -> bool:
        """Whether ``fill`` would read a store: there is none here."""
        return False

    def idle(self) -> bool:
        """Whether there is nothing to do until the bell rings."""
        return not (self._inbox.queue or self._ahead)

    def until_tick(self, left: float | None) -> float | None:
        """The longest to wait for the bell: periodic notices are the server's to send."""
        return left


def _let_go(all_watches: Watches, subscriber: _Subscriber, inbox: Inbox) -> None:
    all_watches.inboxes.discard(inbox)
    all_watches.streams.soon(subscriber.close)


def _runs_a_loop() -> bool:
    """Whether the caller must not wait, because a loop would wait with it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
