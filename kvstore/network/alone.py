"""A write that is alone: made durable on the loop, which saves two changes of thread and what wakes them.

For as long as its sync takes, the loop stands still. So only this is served here:

    alone      nothing else was asked in this turn of the loop, nothing is under way, and for some writes now nobody
               but this client has said anything
    small      a put, or a transaction of a few, each of a single key
    prompt     whenever one has taken long, none is served here for a hundred times as long
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.model import Compare, DeleteRangeRequest, PutRequest, RangeRequest, Request, TxnRequest
from kvstore.write.ticket import Ticket

WRITES_BEFORE = 16
"""So many came alone, one after the other, before one is served here."""
LONG_SECONDS = 0.001
PAUSE_FACTOR = 100
OPS_MAX = 16


class Alone:
    """``lead`` serves a ticket if it can be served at once, and says whether it was."""

    def __init__(self, lead: Callable[[Ticket], bool], now: Callable[[], float]) -> None:
        self._lead = lead
        self._now = now
        self.client: object = None
        """Who has said something last."""
        self._in_a_row = 0
        self._resumed_at = 0.0

    def heard(self, client: object) -> None:
        """Another client than the last has said something."""
        self.client = client
        self._in_a_row = 0

    def is_broken(self) -> None:
        """Some writes have come together."""
        self._in_a_row = 0

    def serve(self, ticket: Ticket) -> bool:
        """Serve the one ticket that there is, if it may be served here. Returns whether it is done."""
        self._in_a_row += 1
        if self._in_a_row <= WRITES_BEFORE or not is_small(ticket.request):
            return False
        begin = self._now()
        if begin < self._resumed_at:
            return False
        is_done = self._lead(ticket)
        seconds = self._now() - begin
        if seconds > LONG_SECONDS:
            self._resumed_at = begin + PAUSE_FACTOR * seconds
        return is_done


def is_small(request: Request) -> bool:
    """Whether planning it takes microseconds, whatever the store has."""
    if type(request) is not TxnRequest:
        return type(request) is PutRequest
    ops = (*request.compare, *request.success, *request.failure)
    return len(ops) <= OPS_MAX and all(map(_is_of_one_key, ops))


def _is_of_one_key(op: object) -> bool:
    if isinstance(op, Compare | RangeRequest | DeleteRangeRequest):
        return not op.range_end
    return isinstance(op, PutRequest)
