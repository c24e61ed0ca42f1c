"""A stream of watches that a conversation is played into, read so that nothing is left to chance.

    take everything up to the newest revision -> ask -> take what the answer brings -> what came, by watch id

Before a compaction everything is taken too: otherwise the moment of taking would decide which versions before an
event are still there.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from kvstore.engine import LocalEngine
from kvstore.etcdpb.requests import from_message
from kvstore.model import WatchRequest, WatchResponse
from kvstore.watch.mailbox import EVERY_WATCH

from .conversation import RECORDED, Message, Request, without_defaults

WATCH_TIMEOUT_SECONDS = 60.0
"""A watch that is silent for this long is broken."""


class PlayedStream:
    """The stream of a conversation."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._stream = engine.watch_stream()
        self._came: list[tuple[int, WatchResponse]] = []

    def ask(self, request: Request) -> Message:
        """Send the stream's request, if the message has one. Returns all that has come since the last one."""
        self.read()
        match request.WhichOneof("request_union"):
            case "create_request":
                create = request.create_request
                self._stream.create(from_message(create), create.watch_id)
            case "cancel_request":
                self._stream.cancel(request.cancel_request.watch_id)
            case "progress_request":
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
        """Wait for the requested progress notice; none comes to a stream without watches."""
        while len(self._stream) > 0:
            numbered = self._stream.next(WATCH_TIMEOUT_SECONDS)
            if numbered is None:
                raise TimeoutError
            self._came.append(numbered)
            if numbered[0] == EVERY_WATCH:
                return


def _wait_until_routed(engine: LocalEngine) -> None:
    """Wait until everything published is in the queue of each live watch."""
    newest = engine.state.published
    with engine.watch(WatchRequest()) as watch:
        while True:
            watch.request_progress()
            if watch.get_response(WATCH_TIMEOUT_SECONDS).revision >= newest:
                return


def _by_watch(came: list[tuple[int, WatchResponse]]) -> list[Message]:
    return joined(
        RECORDED.watch(response, watch_id) for watch_id, response in sorted(came, key=itemgetter(0))
    )


def joined(responses: Iterable[Message]) -> list[Message]:
    """Responses in the order of their watches, with event responses of one watch in a row made one.

    Their header is left out: it depends on how etcd split the events.
    """
    messages: list[Message] = []
    for message in responses:
        last = messages[-1] if messages else {}
        if "events" not in message:
            messages.append(message)
        elif "events" in last and last.get("watch_id") == message.get("watch_id"):
            last["events"] += message["events"]
        else:
            del message["header"]
            messages.append(message)
    return messages
