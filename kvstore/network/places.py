"""Places for so many calls; who finds none waits for one, in order.

All calls over JSON share the places of one endpoint: in etcd the gateway is one client of gRPC, with one connection.
Everything here runs on the endpoint's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Then = Callable[[], None]
"""A call's step, which stands for the call."""


class Places:
    """So many of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: float) -> None:
        self._loop = loop
        self._free = count
        self._waiting: dict[Then, None] = {}

    def take(self, then: Then) -> None:
        """``then`` is called when the call has a place: now, or later. ``leave`` has to follow in any case."""
        if self._free > 0:
            self._free -= 1
            then()
        else:
            self._waiting[then] = None

    def leave(self, then: Then) -> None:
        """The call is over. Its place, if it has one, is that of the call that has waited longest."""
        if then in self._waiting:
            del self._waiting[then]
        elif self._waiting:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self._loop.call_soon(first)
        else:
            self._free += 1
