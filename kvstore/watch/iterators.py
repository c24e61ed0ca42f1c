"""The faces of one watch: an iterator of events, and a callback.

Both are a stream with a single watch. A watch ends in one of these ways:

    closed or canceled by its owner     iteration stops
    below the compaction                the last response says so, then ``Compacted`` is raised
    refused (an empty range)            the last response says why, then ``WatchCanceled`` is raised
    store closed                        ``StoreClosed`` is raised, at once: resume from ``revision + 1``
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from kvstore.errors import Compacted, KVStoreError, StoreClosed, WatchCanceled
from kvstore.model import Event, WatchRequest, WatchResponse
from kvstore.watch.stream import WatchStream

logger = logging.getLogger("kvstore")


class OneWatch:
    """A stream with one watch, and what is left of its last response."""

    def __init__(self, stream: WatchStream, request: WatchRequest) -> None:
        self.stream = stream
        self._id = stream.create(request)
        self._left: Iterator[Event] = iter(())
        self._end: KVStoreError | None = None
        self._revision = request.start_revision - 1 if request.start_revision > 0 else 0

    @property
    def revision(self) -> int:
        """All events up to here were in responses that were handed out: a new watch may begin behind it."""
        return self._revision

    @property
    def lag(self) -> int:
        """Revisions between this watch and the newest one that it has to read from the store; 0: it is live."""
        return self.stream.lag(self._id)

    def request_progress(self) -> None:
        """Ask for a response without events that says up to which revision everything has come."""
        self.stream.request_progress()

    def close(self) -> None:
        """End the watch; an iteration, in whatever thread, stops. Idempotent."""
        self.stream.close()

    cancel = close

    def _take(self, response: WatchResponse) -> bool:
        """Note what a response says; whether to hand it out."""
        if response.canceled:
            self._end = (
                Compacted(response.compact_revision)
                if response.compact_revision or response.cancel_reason == Compacted.message
                else WatchCanceled(response.cancel_reason or None)
            )
        elif response.created:
            self._revision = self._revision or response.revision
            return False
        else:
            self._revision = response.revision
        return True

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.stream.abandon()


class Watch(OneWatch):
    """An iterator of events; one consumer at a time. ``close`` may come from any thread.

    with store.watch(prefix=b"jobs/", start_revision=7) as events:
        for event in events: ...
    """

    def __init__(self, stream: WatchStream, request: WatchRequest) -> None:
        super().__init__(stream, request)
        self._events = self._iterate()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __next__(self) -> Event:
        return next(self._events)

    def _iterate(self) -> Iterator[Event]:
        while True:
            yield from self._left
            response = self._next_response(None)
            if response is None:
                return
            self._left = iter(response.events)

    def get(self, timeout: float | None = None) -> Event:
        """The next event, within ``timeout`` seconds (None: however long it takes).

        Raises ``TimeoutError``, and ``WatchCanceled`` once the watch was closed.
        """
        while True:
            for event in self._left:
                return event
            self._left = iter(self.get_response(timeout).events)

    def responses(self) -> Iterator[WatchResponse]:
        """Whole responses instead of events: all changes of one or more revisions, or a progress notice."""
        while True:
            response = self._next_response(None)
            if response is None:
                return
            yield response

    def get_response(self, timeout: float | None = None) -> WatchResponse:
        """The next response, as ``get``."""
        response = self._next_response(timeout)
        if response is None:
            raise WatchCanceled
        return response

    def _next_response(self, timeout_seconds: float | None) -> WatchResponse | None:
        """None: closed by its owner."""
        if self._end is not None:
            raise self._end
        while True:
            try:
                found = self.stream.next(timeout_seconds)
            except WatchCanceled:
                return None
            if found is None:
                raise TimeoutError
            if self._take(found[1]):
                return found[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CallbackWatch:
    """A watch whose events are given to a function, on a thread of its own.

    What the function raises is logged and ends the watch; ``error`` then holds it, as it holds ``Compacted`` or
    ``StoreClosed``. None after ``cancel``.
    """

    def __init__(self, watch: Watch, callback: Callable[[Event], object]) -> None:
        self._watch = watch
        self._callback = callback
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kvstore-watch-callback", daemon=True)
        self._thread.start()

    @property
    def revision(self) -> int:
        """As ``Watch.revision``."""
        return self._watch.revision

    def cancel(self) -> None:
        """End the watch. Returns when the function will not be called any more, except from within it."""
        self._watch.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    close = cancel

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the watch has ended; whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for event in self._watch:
                self._callback(event)
        except StoreClosed as error:
            self.error = error
        except Compacted as error:
            self.error = error
            logger.warning("watch: revision %d is compacted, the watch has ended", self.revision + 1)
        except Exception as error:
            self.error = error
            logger.exception("watch: the callback failed, the watch has ended")
        finally:
            self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
