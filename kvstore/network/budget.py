"""What connections hold for their peers: how much of it one may, and how much all of them together.

    answers    that wait for a peer to take them     beyond it: requests of the connection are not begun
    requests   that are not complete, or not begun   beyond it: the connection that has most of them is ended

A connection that has next to nothing goes on, whatever the others do. Everything here runs on the endpoint's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from kvstore.network import limits


class Owner(Protocol):
    """A connection."""

    def recount(self) -> None:
        """Say anew what waits, to the account; begin what was not, if there is room now."""

    def calm(self, reason: str) -> None:
        """End: the peer asks too much."""


class Account:
    """What one connection holds."""

    __slots__ = ("_budget", "answer_bytes", "owner", "request_bytes")

    def __init__(self, budget: Budget, owner: Owner) -> None:
        self._budget = budget
        self.owner = owner
        self.answer_bytes = 0
        self.request_bytes = 0

    @property
    def is_over(self) -> bool:
        """Whether no more of its requests are to be begun."""
        if self.answer_bytes <= limits.ANSWER_BYTES:
            return self.answer_bytes > limits.SPARED_BYTES and self._budget.is_over
        return True

    def owe(self, size_bytes: int) -> None:
        """So much of answers waits."""
        self._budget.owe(self, size_bytes)

    def keep(self, more_bytes: int) -> None:
        """So much more of requests is kept, or less."""
        self._budget.keep(self, more_bytes)

    def close(self) -> None:
        """The connection has gone."""
        self.owe(0)
        self.keep(-self.request_bytes)


class Budget:
    """What all connections of an endpoint hold."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._owing: dict[Account, None] = {}
        self._keeping: dict[Account, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.answer_bytes = 0
        self.request_bytes = 0
        self.on_room: Callable[[], None] = lambda: None
        """Called when a connection has room that had none."""

    def account(self, owner: Owner) -> Account:
        """That of a new connection."""
        return Account(self, owner)

    @property
    def is_over(self) -> bool:
        """Whether all connections together owe so much that only those go on that owe next to nothing."""
        return self.answer_bytes > limits.ALL_ANSWER_BYTES

    def owe(self, account: Account, size_bytes: int) -> None:
        was_over = account.is_over
        self.answer_bytes += size_bytes - account.answer_bytes
        account.answer_bytes = size_bytes
        if size_bytes:
            self._owing[account] = None
        else:
            self._owing.pop(account, None)
        if self.is_over and self._timer is None:
            self._timer = self._loop.call_later(limits.RECOUNT_SECONDS, self._recount)
        if was_over and not account.is_over:
            self.on_room()

    def _recount(self) -> None:
        """Sockets take what they were given without a word."""
        self._timer = None
        for account in list(self._owing):
            account.owner.recount()
        if self.is_over:
            self._timer = self._timer or self._loop.call_later(limits.RECOUNT_SECONDS, self._recount)
        else:
            self.on_room()

    def keep(self, account: Account, more_bytes: int) -> None:
        self.request_bytes += more_bytes
        account.request_bytes += more_bytes
        if account.request_bytes:
            self._keeping[account] = None
        else:
            self._keeping.pop(account, None)
        if more_bytes > 0 and self.request_bytes > limits.ALL_REQUEST_BYTES:
            largest = max(self._keeping, key=lambda each: each.request_bytes)
            largest.owner.calm("too many unfinished requests")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
