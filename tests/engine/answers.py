"""Tickets that were put down, and who was told what."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kvstore.engine import LocalEngine
from kvstore.model import Request
from kvstore.write.ticket import Ticket
from tests.harness.gated_disk import PATIENCE_SECONDS


class Answers:
    """Who was told what, by ``future``."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.told: list[Ticket] = []

    def notify(self, tickets: list[Ticket]) -> None:
        self.told += tickets

    def ask(self, request: Request, future: Any = None) -> Ticket:
        ticket = self._engine.ask_soon(request, self.notify, future)
        assert ticket is not None, "not now"
        return ticket

    def of(self, ticket: Ticket) -> Any:
        """The response, or the error, of a ticket that is told of exactly once."""
        wait_until(lambda: ticket in self.told)
        assert self.told.count(ticket) == 1 and ticket.done
        return ticket.response if ticket.error is None else self._engine.error_of(ticket)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.0005)
