"""A process that holds one of everything, for tests that kill or stop it.

    python -m tests.recipes.holder_process URL

It says ``held``. Then, told ``count``, it counts until it is killed, and says each number that was acknowledged; told
``use``, it does what only a holder may, and says what it could do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import kvstore
from kvstore.recipes import (
    Barrier,
    DoubleBarrier,
    Election,
    LeaseLost,
    Lock,
    Queue,
    Semaphore,
    Sequence,
    Session,
    transact,
)
from tests.recipes.holders import TTL_SECONDS

LOCK, PLACES, ELECTION, QUEUE, BARRIER, ROUND = b"lock", b"places", b"election", b"queue", b"gate", b"round"
NUMBERS, TOTAL, DONE_BY = b"numbers", b"total", b"done-by/"


def add_one(txn: kvstore.recipes.Transaction) -> int:
    total = int(txn.get(TOTAL) or 0) + 1
    txn.put(TOTAL, b"%d" % total)
    return total


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def could(call: Callable[[], Any]) -> bool:
    """Whether a holder's call was carried out; its lease may be gone."""
    try:
        call()
    except LeaseLost:
        return False
    return True


def main(url: str) -> None:
    store = kvstore.connect(url)
    session = Session(store, TTL_SECONDS)
    session.open()
    lock, places, election = Lock(session, LOCK), Semaphore(session, PLACES, 1), Election(session, ELECTION)
    lock.acquire()
    places.acquire()
    election.campaign(b"process")
    job = Queue(session, QUEUE).claim()
    Barrier(session, BARRIER).hold()
    companions = DoubleBarrier(session, ROUND, count=2)
    companions.enter()
    guards = {
        "lock": lock.is_owner,
        "places": places.is_owner,
        "leader": election.is_leader,
        "job": job.is_owner,
    }
    say("held")
    if sys.stdin.readline() == "count\n":
        numbers = Sequence(store, NUMBERS)
        while True:
            say([numbers.next(), transact(store, add_one)])
    wrote = {
        name: store.txn([guard], [kvstore.ops.put(DONE_BY + name.encode())]).succeeded
        for name, guard in guards.items()
    }
    calls = {
        "proclaim": lambda: election.proclaim(b"again"),
        "acknowledge": job.acknowledge,
        "leave": companions.leave,
    }
    say({**wrote, **{name: could(call) for name, call in calls.items()}})


if __name__ == "__main__":
    main(sys.argv[1])
