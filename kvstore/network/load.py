"""The load of one connection: which of its requests may begin now, and whether its peer still takes and says anything.

    request --may_begin?--> served
                 no ------> queue --a turn later, or when there is room--> served

There is no room while too much of what was answered waits for the peer (``budget``). Frames are read all the same:
what opens windows is among them. But while requests wait for room, nothing that they bring in is made up for.

    owed to the peer, and none of it taken for a minute    the connection is closed
    nothing heard for the interval of keep-alives          PING; nothing heard after that either: closed
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Protocol

from kvstore.network import limits
from kvstore.network.endpoint import Endpoint
from kvstore.network.http2.connection import ServerConnection
from kvstore.network.http2.frames import ENHANCE_YOUR_CALM

KEEPALIVE_PING = b"kv-alive"


class Owner(Protocol):
    """A connection."""

    endpoint: Endpoint
    http2: ServerConnection
    now: float
    """When something came last."""

    def flush_soon(self) -> None: ...


class Waits(Protocol):
    """A call that waits for its turn."""

    alive: bool

    def go_on(self) -> None: ...


class Load:
    """What a connection has been asked and what it owes."""

    def __init__(self, peer: Owner, transport: asyncio.Transport) -> None:
        self.kept_bytes = 0
        """Answers under way that are in memory."""
        self.account = peer.endpoint.budget.account(self)
        self._peer = peer
        self._loop = peer.endpoint.loop
        self._transport = transport
        self._queue: deque[Waits] = deque()
        self._turn_end = 0.0
        self._is_turn_due = False
        self._written_bytes = 0
        self._stall: asyncio.TimerHandle | None = None

    # --- requests ---------------------------------------------------------------------

    def begin_turn(self) -> float:
        """Some milliseconds begin, in which requests are served. The time."""
        now = monotonic()
        self._turn_end = now + limits.TURN_SECONDS
        return now

    def may_begin(self) -> bool:
        """Whether a request is served now; otherwise ``wait``, or refuse it."""
        if self._queue or monotonic() > self._turn_end:
            return False
        return self.account.answer_bytes <= limits.SPARED_BYTES or not self.account.is_over

    @property
    def is_full(self) -> bool:
        """Whether so many wait for room that no more may."""
        return len(self._queue) >= limits.QUEUED_REQUESTS and self.account.is_over

    def wait(self, call: Waits) -> None:
        """Have a call go on later."""
        self._queue.append(call)
        self._look()

    def _look(self) -> None:
        """Have a turn for those that wait, if there is room."""
        if not self._queue:
            if self._peer.http2.holding:
                self._peer.http2.give_back()
                self._peer.flush_soon()
        elif self.account.is_over:
            self._peer.http2.holding = True
        elif not self._is_turn_due:
            self._is_turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        self.begin_turn()
        queue = self._queue
        while queue and not self.account.is_over:
            call = queue.popleft()
            if call.alive:
                call.go_on()
            if monotonic() > self._turn_end:
                break
        self._look()

    # --- answers ----------------------------------------------------------------------

    def answered(self, size_bytes: int) -> None:
        """So much is to be written, at the end of this turn of the loop."""
        self.account.owe(self.account.answer_bytes + size_bytes)

    def recount(self, written_bytes: int = 0) -> None:
        """See what is owed now. ``written_bytes``: all that was to be written, so much, was given to the socket."""
        self._written_bytes += written_bytes
        unsent_bytes = self._peer.http2.queued_bytes + self._transport.get_write_buffer_size()
        owed_bytes = unsent_bytes + self.kept_bytes
        if owed_bytes or self.account.answer_bytes:
            self.account.owe(owed_bytes)
            if owed_bytes and self._stall is None:
                self._watch_stall()
        if self._queue:
            self._look()

    def _watch_stall(self) -> None:
        taken_bytes = self._written_bytes - self._transport.get_write_buffer_size()
        self._stall = self._loop.call_later(limits.WRITE_STALL_SECONDS, self._check_stall, taken_bytes)

    def _check_stall(self, taken_bytes: int) -> None:
        self._stall = None
        if not (self._peer.http2.queued_bytes or self._transport.get_write_buffer_size()):
            return
        if self._written_bytes - self._transport.get_write_buffer_size() > taken_bytes:
            self._watch_stall()
        else:
            self._transport.abort()

    # --- the end ----------------------------------------------------------------------

    def calm(self, reason: str) -> None:
        """End the connection: its peer asks too much."""
        self._peer.http2.go_away(None, ENHANCE_YOUR_CALM, reason.encode())
        self._peer.flush_soon()

    def close(self) -> None:
        self._queue.clear()
        self.account.close()
        if self._stall is not None:
            self._stall.cancel()


class Keepalive:
    """Whether the peer is still there."""

    def __init__(self, peer: Owner, transport: asyncio.Transport) -> None:
        endpoint = peer.endpoint
        self._peer = peer
        self._transport = transport
        self._loop = endpoint.loop
        self._interval_seconds = endpoint.settings.keepalive_interval_seconds
        self._timeout_seconds = endpoint.settings.keepalive_timeout_seconds
        self._timer: asyncio.TimerHandle | None = None
        if self._interval_seconds:
            self._timer = self._loop.call_later(self._interval_seconds, self._look)

    def _look(self) -> None:
        silent_seconds = monotonic() - self._peer.now
        if silent_seconds < self._interval_seconds:
            self._timer = self._loop.call_later(self._interval_seconds - silent_seconds, self._look)
            return
        self._peer.http2.ping(KEEPALIVE_PING)
        self._peer.flush_soon()
        if self._timeout_seconds:
            self._timer = self._loop.call_later(self._timeout_seconds, self._check, self._peer.now)
        else:
            self._timer = self._loop.call_later(self._interval_seconds, self._look)

    def _check(self, heard_at: float) -> None:
        if self._peer.now > heard_at:
            self._look()
        else:
            self._transport.abort()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
