"""An engine whose writes return awaitables: ``AsyncStore`` puts, deletes and commits with it.

A write is put down on the event loop (some microseconds, no waiting); the flusher plans what was put down, in that
order, and makes it durable. So the writes of one loop are made in the order of its calls, but for those that have to
wait for room. All tasks of a group are then woken by one call into each loop that waits.

    Store.put(key, ...) --request--> AwaitedWrites.put --ticket--> engine
                                            |                         | flusher: planned, logged, synced, published
                        task <-- future <---+-------- notify <--------+

It belongs to no loop. A future belongs to the loop that the write was made in, which may stop or close at any moment:
what was put down becomes durable all the same, only nothing is notified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any

from kvstore.errors import NoThread
from kvstore.loops import call_soon, in_thread
from kvstore.model import DeleteRangeRequest, PutRequest, PutWithTTLRequest, Request, TxnRequest
from kvstore.mvcc.plan import is_read_only
from kvstore.protocol import EmbeddedEngine
from kvstore.write.ticket import Ticket


class AwaitedWrites:
    """The three writes of an engine."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self._notify = self._wake_soon
        self._unwoken: list[Ticket] = []
        """Settled tickets whose loops may not have been told yet."""

    def put(self, request: PutRequest, ttl_seconds: float = 0) -> Awaitable[Any]:
        return self._durable(PutWithTTLRequest(request, ttl_seconds) if ttl_seconds else request)

    def txn(self, request: TxnRequest) -> Awaitable[Any]:
        if is_read_only(request):  # a read as any other
            return in_thread(partial(self._engine.txn, request))
        return self._durable(request)

    def delete_range(self, request: DeleteRangeRequest) -> Awaitable[Any]:
        return self._durable(request)

    def _durable(self, request: Request) -> Awaitable[Any]:
        """The answer to a request, once it is durable."""
        future = asyncio.get_running_loop().create_future()
        try:
            if self._engine.ask_soon(request, self._notify, future) is None:
                if self._engine.overloaded:
                    return self._after_room(request)
                self._engine.ask_soon(request, self._notify, future, waits=True)
        except NoThread:  # nobody else can plan it
            return in_thread(partial(self._engine.ask, request))
        return future

    async def _after_room(self, request: Request) -> Any:
        await in_thread(self._engine.check_room)
        return await self._durable(request)

    def wake_all(self) -> None:
        """Deliver what could not be delivered in its time."""
        self._wake_soon([])

    def _wake_soon(self, tickets: list[Ticket]) -> None:
        """Set the futures of these tickets, with one call into each loop. Called by a thread that leads or plans.

        If that fails, perhaps for lack of memory, the next call does it again.
        """
        self._unwoken = unwoken = self._unwoken + tickets
        by_loop: dict[asyncio.AbstractEventLoop, list[Ticket]] = {}
        for ticket in unwoken:
            by_loop.setdefault(ticket.future.get_loop(), []).append(ticket)
        for loop, theirs in by_loop.items():
            call_soon(loop, self._settle, theirs)
        self._unwoken = []

    def _settle(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            future = ticket.future
            if future.done():
                continue  # canceled, or told already
            if ticket.error is None:
                future.set_result(ticket.response)
            else:
                future.set_exception(self._engine.error_of(ticket))
