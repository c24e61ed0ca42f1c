"""A stream of watches that a conversation is played into, read so far that nothing is left to chance.

    take everything up to the newest revision -> ask -> take what the answer brings -> what came, by watch id

Before a compaction everything is taken too: which versions before an event are still there would depend on when it
was looked at.
"""

from __future__ import annotations

from kvstore.engine import LocalEngine
from kvstore.model import WatchRequest, WatchResponse
from kvstore.watch.mailbox import EVERY_WATCH

from ..answers import RECORDED, Message, without_defaults
from .recorded_requests import AskProgress, CancelWatch, CreateWatch, StreamRequest

WATCH_TIMEOUT_SECONDS = 60.0
"""A watch that says nothing for so long is broken."""


class PlayedStream:
    """The stream of a conversation."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._stream = engine.watch_stream()
        self._came: list[tuple[int, WatchResponse]] = []

    def ask(self, request: StreamRequest) -> Message:
        """Put a request; all that has come since the last one."""
        self.read()
        if isinstance(request, CreateWatch):
            self._stream.create(*request)
        elif isinstance(request, CancelWatch):
            self._stream.cancel(request.watch_id)
        elif isinstance(request, AskProgress):
            self._stream.request_progress()
            self._wait_for_notice()
        self.read()
        came, self._came = self._came, []
        recorded: Message = without_defaults({"responses": _by_watch(came)})
        return recorded

    def read(self) -> None:
        """Take everything up to the newest revision."""
        _wait_until_routed(self._engine)
        while not self._stream.idle():
            numbered = self._stream.next(0)
            if numbered is not None:
                self._came.append(numbered)

    def close(self) -> None:
        self._stream.close()

    def _wait_for_notice(self) -> None:
        """The progress notice that was asked for; none comes to a stream without watches."""
        while len(self._stream) > 0:
            numbered = self._stream.next(WATCH_TIMEOUT_SECONDS)
            if numbered is None:
                raise TimeoutError
            self._came.append(numbered)
            if numbered[0] == EVERY_WATCH:
                return


def _wait_until_routed(engine: LocalEngine) -> None:
    """Until whatever is published is in the queue of each live watch: a watch from now on can tell."""
    newest = engine.state.published
    with engine.watch(WatchRequest()) as watch:
        while True:
            watch.request_progress()
            if watch.get_response(WATCH_TIMEOUT_SECONDS).revision >= newest:
                return


def _by_watch(came: list[tuple[int, WatchResponse]]) -> list[Message]:
    messages: list[Message] = []
    for watch_id, response in sorted(came, key=lambda numbered: numbered[0]):
        last = messages[-1] if messages else {}
        if response.events and last.get("watch_id") == watch_id and "events" in last:
            last["events"] += RECORDED.events(response.events)
        else:
            messages.append(_message(watch_id, response))
    return messages


def _message(watch_id: int, response: WatchResponse) -> Message:
    """The header's revision is left out where etcd's depends on how it cut the events."""
    if response.events:
        return {"watch_id": watch_id, "events": RECORDED.events(response.events)}
    return {
        "watch_id": watch_id,
        "header": {"revision": response.revision},
        "created": response.created,
        "canceled": response.canceled,
        "compact_revision": response.compact_revision,
        "cancel_reason": response.cancel_reason,
    }
