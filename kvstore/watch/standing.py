"""Watches of a store that stands still: a file, or a read-only handle that does not move by itself.

What is kept is handed out as to any watch. Where another would wait for what comes next, this one raises
``Unsupported``: nothing will come. If the handle is moved (``refresh``), the same watch goes on from there. One that
would begin with what comes next is refused at once.
"""

from __future__ import annotations

from kvstore.errors import Unsupported
from kvstore.model import WatchRequest, WatchResponse
from kvstore.watch.hub import Hub
from kvstore.watch.mailbox import EVERY_WATCH
from kvstore.watch.stream import WatchStream


class StandingStream(WatchStream):
    """``advice``: what to do instead of waiting."""

    def __init__(self, hub: Hub, progress_interval_seconds: float, advice: str) -> None:
        super().__init__(hub, progress_interval_seconds)
        self._advice = advice
        self._owes_progress = False

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        if not 0 < request.start_revision <= self._state.published:
            if not len(self):
                self.close()
            raise Unsupported(self._advice)
        return super().create(request, watch_id)

    def request_progress(self) -> None:
        self._hub.check_readable()
        self._owes_progress = len(self) > 0

    def fill(self, may_read: bool = True) -> bool:
        if super().fill(may_read):
            return True
        if not self.idle():
            return False
        if not self._owes_progress:
            raise Unsupported(self._advice)
        self._owes_progress = False
        self._ahead.append((EVERY_WATCH, WatchResponse(self._state.published)))
        return True
