"""The servers of one store: which is asked next, and which is better left alone for a while.

They are tried in an order drawn at random, so that the clients of a cluster spread over it. One that failed goes to the
end and is left alone for a second, then for twice as long each time; one that works is forgiven. Where all of them are
left alone, the one that failed first is next: somebody has to be asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from kvstore.network.remote.options import Address

DOWN_SECONDS = 1.0
DOWN_SECONDS_MAX = 30.0


class Endpoint:
    """One server."""

    __slots__ = ("address", "down_until", "failures")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.failures = 0
        self.down_until = 0.0


class Endpoints:
    """The servers, the next to be asked first."""

    def __init__(self, addresses: Iterable[Address], now: Callable[[], float]) -> None:
        self._now = now
        self._order = [Endpoint(address) for address in addresses]
        random.shuffle(self._order)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def addresses(self) -> list[Address]:
        return [endpoint.address for endpoint in self._order]

    def next(self) -> Address:
        """Whom to ask."""
        now = self._now()
        up = [endpoint for endpoint in self._order if endpoint.down_until <= now]
        return (up[0] if up else min(self._order, key=lambda each: each.down_until)).address

    @property
    def has_others(self) -> bool:
        """Whether there is another one than the first that is not left alone."""
        now = self._now()
        return any(endpoint.down_until <= now for endpoint in self._order[1:])

    @property
    def all_down(self) -> bool:
        now = self._now()
        return all(endpoint.down_until > now for endpoint in self._order)

    def failed(self, address: Address) -> None:
        endpoint = self._find(address)
        if endpoint is not None:
            seconds = min(DOWN_SECONDS * 2 ** min(endpoint.failures, 16), DOWN_SECONDS_MAX)
            endpoint.failures += 1
            endpoint.down_until = self._now() + seconds
            self._order.remove(endpoint)
            self._order.append(endpoint)

    def works(self, address: Address) -> None:
        endpoint = self._find(address)
        if endpoint is not None:
            endpoint.failures, endpoint.down_until = 0, 0.0

    def replace(self, addresses: Iterable[Address]) -> None:
        """Another list of servers; what is known of those that stay is kept."""
        wanted = list(dict.fromkeys(addresses))
        kept = [endpoint for endpoint in self._order if endpoint.address in wanted]
        known = {endpoint.address for endpoint in kept}
        new = [Endpoint(address) for address in wanted if address not in known]
        random.shuffle(new)
        self._order = kept + new

    def _find(self, address: Address) -> Endpoint | None:
        return next((each for each in self._order if each.address == address), None)
