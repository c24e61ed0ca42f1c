"""Watches of a store that stands still: a file, or a read-only handle that does not move by itself.

What is kept is handed out as to any watch. Where another would wait for what comes next, this one raises
``Unsupported``: nothing will come. If the handle is moved (``refresh``), the same watch goes on from there. One that
would begin with what comes next is refused at once.
"""

from __future__ import annotations

from kvstore.errors import Unsupported
from kvstore.model import WatchRequest
from kvstore.watch.hub import Hub
from kvstore.watch.mailbox import EVERY_WATCH
from kvstore.watch.stream import WatchStream


class StandingStream(WatchStream):
    """``advice``: what to do instead of waiting."""

    def __init__(self, hub: Hub, progress_interval_seconds: float, advice: str) -> None:
        super().__init__(hub, progress_interval_seconds)
        self._advice = advice
        self._owes_progress = False
        self._asked_revision = 0
        """Up to which the hub was asked whether everything has been given, and what it said last."""
        self._told_revision = 0

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        if not 0 < request.start_revision <= self._state.published:
            if not len(self):
                self.close()
            raise Unsupported(self._advice)
        return super().create(request, watch_id)

    def request_progress(self) -> None:
        super().request_progress()
        self._owes_progress = len(self) > 0

    def fill(self, may_read: bool = True) -> bool:
        while super().fill(may_read):
            watch_id, response = self._ahead[0]
            if watch_id != EVERY_WATCH or response.created:
                return True
            self._told_revision = response.revision
            if self._owes_progress:
                self._owes_progress = False
                return True
            self._ahead.popleft()  # asked for here
        if not self.idle():
            return False
        newest = self._state.published
        if not len(self) or self._told_revision >= newest:
            raise Unsupported(self._advice)
        if self._asked_revision < newest:
            self._asked_revision = newest
            self._hub.ask_progress(self._mailbox, EVERY_WATCH)
        return False
