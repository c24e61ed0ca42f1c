"""A write that is alone is made durable on the loop, and only then."""

from __future__ import annotations

import threading

import pytest

import kvstore
from kvstore import ops
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, Request, TxnRequest
from kvstore.network.alone import LONG_SECONDS, OPS_MAX, PAUSE_FACTOR, WRITES_BEFORE, Alone, is_small
from kvstore.write.ticket import Ticket
from tests.network.served_store import PUT, Served, until

TICKET = Ticket(PutRequest(b"k"))


class Leader:
    """Serves whatever it is given, in so many seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = 0.0
        self.alone = Alone(self._lead, lambda: self.now)

    def _lead(self, _ticket: Ticket) -> bool:
        self.now += self.seconds
        return True

    def served(self, count: int, ticket: Ticket = TICKET) -> list[bool]:
        return [self.alone.serve(ticket) for _ in range(count)]


def test_some_writes_of_one_client_come_first() -> None:
    """Whoever else says something, and whatever comes together with others, begins the count anew."""
    leader = Leader()
    first, second = object(), object()
    leader.alone.heard(first)
    assert leader.served(WRITES_BEFORE + 2) == [False] * WRITES_BEFORE + [True] * 2
    leader.alone.heard(second)
    assert leader.served(WRITES_BEFORE + 1) == [False] * WRITES_BEFORE + [True]
    leader.alone.is_broken()
    assert leader.served(1) == [False]


def test_after_a_long_one_there_is_none_for_long() -> None:
    """So the loop stands still for a hundredth of the time at most."""
    leader = Leader()
    leader.served(WRITES_BEFORE)
    leader.seconds = 2 * LONG_SECONDS
    assert leader.served(2) == [True, False]
    leader.now = PAUSE_FACTOR * leader.seconds - LONG_SECONDS
    assert leader.served(1) == [False]
    leader.now += 2 * LONG_SECONDS
    leader.seconds = LONG_SECONDS / 2
    assert leader.served(3) == [True] * 3


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (PutRequest(b"k", b"v", prev_kv=True), True),
        (TxnRequest(success=(PutRequest(b"k"), RangeRequest(b"k"), DeleteRangeRequest(b"k"))), True),
        (TxnRequest((ops.version(b"k") == 1,), (PutRequest(b"k"),)), True),
        (TxnRequest(success=(PutRequest(b"k"),) * (OPS_MAX + 1)), False),
        (TxnRequest(success=(PutRequest(b"k"),), failure=(RangeRequest(b"k", b"l"),)), False),
        (TxnRequest(success=(TxnRequest(),)), False),
        (DeleteRangeRequest(b"k", b"l"), False),
        (LeaseGrantRequest(60), False),
    ],
)
def test_it_is_small(request_: Request, expected: bool) -> None:
    """Puts, and what transactions do to single keys; nothing that may look at many rows."""
    assert is_small(request_) is expected


def test_one_client_that_writes_alone_is_served_by_the_loop(served: Served, store: kvstore.Store) -> None:
    """Before that by the thread that leads the writers; every answer says the next revision."""
    leaders: list[int] = []
    store.engine.writer.listeners.append(lambda _revision: leaders.append(threading.get_ident()))
    wire = served.connect()
    loop_thread = served._serving._thread.ident
    answers: list[int] = []

    def put() -> bool:
        request = pb.PutRequest(key=b"k", value=b"%d" % len(answers))
        answer = pb.PutResponse.FromString(wire.call(PUT, request.SerializeToString()))
        answers.append(answer.header.revision)
        return loop_thread in leaders

    until(put)
    assert loop_thread not in leaders[: WRITES_BEFORE - 1]
    assert answers == list(range(2, 2 + len(answers)))
    found = store.get(b"k")
    assert found is not None and found.value == b"%d" % (len(answers) - 1)
