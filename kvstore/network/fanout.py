"""Watch output in turns: the streams that have something to say, and the loop that says it.

    hub's thread --ring--> [ streams that rang ] --one call into the loop--> turn: some responses of each stream

However many streams ring, the loop is called once. A turn ends after a few milliseconds, so that requests are served
between two of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

from kvstore.bell import Ringing
from kvstore.network import limits

RESPONSES_PER_TURN = 128


class Source(Protocol):
    def pump(self, count: int) -> bool: ...


class SharedBell:
    """The bell of one stream, which rings for all of them."""

    __slots__ = ("_fanout", "_source")

    def __init__(self, fanout: Fanout, source: Source) -> None:
        self._fanout = fanout
        self._source = source

    def ring(self) -> None:
        self._fanout.ring(self._source)


class Fanout:
    """The turns of one loop. ``ring`` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rung: dict[Source, None] = {}
        self._is_called = False

    def bell(self, source: Source) -> Ringing:
        return SharedBell(self, source)

    def ring(self, source: Source) -> None:
        """There may be something to take from this source."""
        self._rung[source] = None
        if not self._is_called:
            self._is_called = True
            try:
                self._loop.call_soon_threadsafe(self._turn)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                pass

    def _turn(self) -> None:
        self._is_called = False
        end = time.monotonic() + limits.TURN_SECONDS
        waiting = deque(list(self._rung))
        while waiting:
            source = waiting.popleft()
            self._rung.pop(source, None)
            if source.pump(RESPONSES_PER_TURN):
                self._rung[source] = None
            if time.monotonic() > end:
                break
        if self._rung and not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._turn)
