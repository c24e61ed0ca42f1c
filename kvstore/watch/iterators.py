"""The faces of one watch: an iterator of events, and a callback.

Both are a stream with a single watch. A watch ends in one of these ways:

    closed or canceled by its owner     iteration stops
    below the compaction                the last response says so, then ``Compacted`` is raised
    refused (an empty range)            the last response says why, then ``WatchCanceled`` is raised
    not permitted (a store elsewhere)   the last response says so, then ``PermissionDenied`` is raised
    store closed                        ``StoreClosed`` is raised at once: continue from ``resume``

Events are handed out one by one, and any of them may be the last: the consumer stops, or is interrupted by an
exception (a time limit, Ctrl-C). So a watch knows its exact position after each event: ``resume``. Handing out an
event is one step, which takes it from what is left; if that is interrupted before it, the next call hands it out.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self, overload

from kvstore.arguments import check_timeout
from kvstore.bell import Gate, Ringing
from kvstore.errors import Compacted, NoThread, PermissionDenied, StoreClosed, WatchCanceled, WatchTimeout
from kvstore.model import Event, WatchPosition, WatchRequest, WatchResponse
from kvstore.shelter import start
from kvstore.watch.events import Events
from kvstore.watch.stream import Numbered

logger = logging.getLogger("kvstore")

EVENTS_AT_A_TIME = 64


class ResponseStream(Protocol):
    """What a watch needs of its stream: ``WatchStream`` is one, and a client of another store's can be one.

    Responses come in order, each of whole revisions. Those with events carry them as ``Events``, which know their
    positions. A thread consumes a stream with ``next`` (or ``wait``, ``first`` and ``drop_first``); a task with
    ``fill(may_read=False)`` when the bell has rung, and with ``fill`` in a thread if it ``needs_store``.
    """

    bell: Ringing
    """Rung when there may be something to take. Who puts another in its place looks once himself after that."""

    def __len__(self) -> int:
        """How many watches it has."""

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        """Begin a watch and return its id (0: pick one), or -1 if it is refused; a response then says why."""

    def cancel(self, watch_id: int) -> bool:
        """End a watch: a canceled response is its last. False (and no response) for an unknown id."""

    def request_progress(self) -> None:
        """Ask for a response with id -1 that says up to which revision everything has been delivered."""

    def close(self) -> None:
        """End all watches; a call waiting for the next response gets ``WatchCanceled``. Idempotent."""

    def start(self, watch_id: int) -> WatchPosition | None:
        """Where a watch begins; None for an unknown id."""

    def lag(self, watch_id: int) -> int:
        """How many revisions a watch that is behind still has to read; 0 for a live one."""

    @overload
    def next(self, timeout_seconds: None = None) -> Numbered: ...
    @overload
    def next(self, timeout_seconds: float) -> Numbered | None: ...

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until there is a response to hand out. Returns false when the time is up."""

    def first(self) -> WatchResponse:
        """The next response, which stays. For a single consumer, after ``wait`` or ``fill``."""

    def drop_first(self) -> None:
        """Remove the next response."""

    def fill(self, may_read: bool = True) -> bool:
        """Get a response ready, if there is one or one can be read. Returns whether there is. Never waits for one."""

    def needs_store(self) -> bool:
        """Whether ``fill`` would read the store, which takes a while."""

    def idle(self) -> bool:
        """Whether there is nothing to do until the bell rings."""

    def until_tick(self, left: float | None) -> float | None:
        """The longest to wait for the bell, at most ``left`` seconds; None: no limit."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Left:
    """What is left of a response to hand out: its events one by one, or ``whole``, which then has a single item.

    Events are made some at a time (``first``: the number of the first of them), shortly before they are used: thousands
    at once would fall out of the processor's caches before their turn comes.
    """

    __slots__ = ("_end", "after", "events", "response", "whole")

    def __init__(
        self,
        response: WatchResponse,
        after: WatchPosition,
        whole: list[WatchResponse] | None = None,
        first: int = 0,
    ) -> None:
        self.response = response
        self.after = after
        """The watch's position when nothing is left."""
        self.events = deque(response.events[first : first + EVENTS_AT_A_TIME])
        """The next ones."""
        self._end = first + len(self.events)
        self.whole = [] if response.created and not response.canceled else [response]
        if whole is not None:
            self.whole = whole

    @property
    def _handed_out(self) -> int:
        return self._end - len(self.events)

    @property
    def position(self) -> WatchPosition:
        """The watch's position now."""
        events = self.response.events
        if not self.whole or self._handed_out == len(events):
            return self.after
        assert isinstance(events, Events)
        return events.position(self._handed_out)

    def further(self) -> Left | None:
        """The same with more events ready; None: there are no more, or the response was handed out whole."""
        if not self.whole or self._end == len(self.response.events):
            return None
        return Left(self.response, self.after, self.whole, self._handed_out)

    def has_whole(self) -> bool:
        """Whether there is a response to hand out: one with events left, or one that never had any."""
        events = self.response.events
        return bool(self.whole and (self._handed_out < len(events) or not events))

    def rest(self) -> WatchResponse:
        """The response with the events that are left."""
        handed_out = self._handed_out
        return (
            self.response._replace(events=self.response.events[handed_out:]) if handed_out else self.response
        )


class OneWatch:
    """A stream with one watch, and what is left of its last response."""

    def __init__(self, stream: ResponseStream, request: WatchRequest) -> None:
        self.stream = stream
        self._id = stream.create(request)
        start = stream.start(self._id) or WatchPosition(request.start_revision, request.start_sub)
        self._left = Left(WatchResponse(0, created=True), start)

    @property
    def resume(self) -> WatchPosition:
        """The position after the last event handed out: ``store.watch(..., resume=...)`` misses and repeats nothing."""
        return self._left.position

    @property
    def revision(self) -> int:
        """All events up to this revision were handed out, and perhaps some of the next."""
        return self.resume.revision - 1

    @property
    def lag(self) -> int:
        """How many revisions this watch still has to read from the store; 0: it is live."""
        return self.stream.lag(self._id)

    def request_progress(self) -> None:
        """Ask for a response without events that says up to which revision everything has been delivered."""
        self.stream.request_progress()

    def close(self) -> None:
        """End the watch; an iteration in any thread stops. Idempotent."""
        self.stream.close()

    cancel = close

    def _take(self) -> None:
        """Take the stream's next response. If this is interrupted, the same one is taken again."""
        response = self.stream.first()
        before = self._left.after
        events = response.events
        if isinstance(events, Events) and len(events) and events.position(0) < before:
            events = events.since(before)  # what an interrupted read has delivered already
            if not len(events):
                self.stream.drop_first()
                return
            response = response._replace(events=events)
        after = before
        if response.created and not response.canceled:
            after = max(
                before, self.stream.start(self._id) or before
            )  # which it may not have known until now
        elif not response.canceled:
            after = max(before, WatchPosition(response.revision + 1))
        self._left = Left(response, after)
        self.stream.drop_first()

    def _go_on(self) -> bool:
        """Whether the last response has more events, which are then ready. Raises what has ended the watch, if it was
        the last."""
        further = self._left.further()
        if further is not None:
            self._left = further
            return True
        self._check_end()
        return False

    def _check_end(self) -> None:
        """Raise whatever ended the watch, once its last response was handed out."""
        last = self._left.response
        if last.canceled:
            if last.compact_revision or last.cancel_reason == Compacted.message:
                raise Compacted(last.compact_revision)
            if last.cancel_reason == PermissionDenied.message:
                raise PermissionDenied
            raise WatchCanceled(last.cancel_reason or None)


class Watch(OneWatch):
    """An iterator of events; one consumer at a time. ``close`` may come from any thread.

    with store.watch(prefix=b"jobs/", start_revision=7) as events:
        for event in events: ...
    """

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while True:
            left = self._left
            if left.whole and left.events:
                return left.events.popleft()
            if not self._advance(None):
                raise StopIteration

    def get(self, timeout: float | None = None) -> Event:
        """The next event, within ``timeout`` seconds (None: no limit).

        Raises ``WatchTimeout`` (a ``TimeoutError``), and ``WatchCanceled`` once the watch was closed.
        """
        while True:
            left = self._left
            if left.whole and left.events:
                return left.events.popleft()
            if not self._advance(timeout):
                raise WatchCanceled

    def responses(self) -> Iterator[WatchResponse]:
        """Whole responses instead of events: all changes of one or more revisions, or a progress notice."""
        while True:
            try:
                response = self.get_response()
            except WatchCanceled:
                if self._left.response.canceled:
                    raise
                return
            yield response

    def get_response(self, timeout: float | None = None) -> WatchResponse:
        """The next response, with the arguments of ``get``; if ``get`` has taken events of it, what is left."""
        while True:
            left = self._left
            if left.has_whole():
                left.whole[:] = [left.rest()]
                return left.whole.pop()
            if not self._advance(timeout):
                raise WatchCanceled

    def _advance(self, timeout_seconds: float | None) -> bool:
        """Wait for the next response and take it. False if the watch was closed by its owner."""
        check_timeout("timeout", timeout_seconds)
        if self._go_on():
            return True
        try:
            if not self.stream.wait(timeout_seconds):
                raise WatchTimeout(timeout_seconds or 0)
        except WatchCanceled:
            return False
        self._take()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CallbackWatch:
    """A watch that passes its events to a function, on a thread of its own.

    If the function raises, that is logged and ends the watch; ``error`` then holds it, as it holds ``Compacted`` or
    ``StoreClosed``. None after ``cancel``.
    """

    def __init__(self, watch: Watch, callback: Callable[[Event], object]) -> None:
        self._watch = watch
        self._callback = callback
        self.error: BaseException | None = None
        self._over = Gate()
        self._runs_on = 0
        """The id of the thread that calls the function."""
        try:
            start(threading.Thread(target=self._run, name="kvstore-watch-callback", daemon=True))
        except RuntimeError as error:
            watch.close()
            raise NoThread from error

    @property
    def resume(self) -> WatchPosition:
        """As ``Watch.resume``: after the event that the function was last called with."""
        return self._watch.resume

    @property
    def revision(self) -> int:
        """As ``Watch.revision``."""
        return self._watch.revision

    def cancel(self) -> None:
        """End the watch. Returns once the function will not be called any more, unless called from within it."""
        self._watch.close()
        if self._runs_on != threading.get_ident():
            self._over.wait()

    close = cancel

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the watch has ended. Returns whether it has."""
        return self._over.wait(timeout)

    def _run(self) -> None:
        self._runs_on = threading.get_ident()
        try:
            for event in self._watch:
                self._callback(event)
        except StoreClosed as error:
            self.error = error
        except Compacted as error:
            self.error = error
            logger.warning("watch: revision %d is compacted, the watch has ended", self.revision + 1)
        except BaseException as error:
            self.error = error
            logger.exception("watch: the callback failed, the watch has ended")
        finally:
            self._watch.close()
            self._over.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
