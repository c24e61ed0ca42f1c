"""Recipes among processes: a holder is killed, or stopped for longer than its lease.

The store's time is the tests', a lease ends when they say so. The holder's is real, and its session far from over: that
of one which was stopped still believes that it holds everything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.recipes import Barrier, DoubleBarrier, Election, Lock, Queue, Semaphore, Sequence, Session
from kvstore.testing.fake_clock import FakeClock
from tests import PROJECT
from tests.recipes import holder_process as names
from tests.recipes.holders import TTL_SECONDS, Beside, pass_time, until


class Holder:
    """A process of ``holder_process``, and what it has said."""

    def __init__(self, folder: Path, url: str) -> None:
        self._said = folder / "said"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.recipes.holder_process", url],
                stdin=subprocess.PIPE,
                stdout=said,
                cwd=PROJECT,
            )

    def said(self) -> list[Any]:
        """Whole lines."""
        return [json.loads(line) for line in self._said.read_bytes().split(b"\n")[:-1]]

    def waits_for(self, count: int) -> list[Any]:
        until(lambda: len(self.said()) >= count or self.process.poll() is not None)
        assert len(self.said()) >= count, "the holder has ended"
        return self.said()

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def holder(store: kvstore.Store, scratch: Path) -> Iterator[Holder]:
    with kvstore.serve(store, f"unix://{scratch}/kv.sock") as server:
        holder = Holder(scratch, server.endpoints[0])
        try:
            yield holder
        finally:
            holder.kill()


class Heirs:
    """Who waits for what the holder has, all in one session."""

    def __init__(self, store: kvstore.Store, session: Session, holder: Holder) -> None:
        self.lock, self.places = Lock(session, names.LOCK), Semaphore(session, names.PLACES, 1)
        self.election, self.queue = Election(session, names.ELECTION), Queue(session, names.QUEUE)
        companions = DoubleBarrier(session, names.ROUND, count=2)
        self.queue.put(b"job")
        entering = Beside(companions.enter)
        assert holder.waits_for(1) == ["held"]
        entering.result()
        calls: dict[str, Callable[[], Any]] = {
            "lock": self.lock.acquire,
            "places": self.places.acquire,
            "leader": lambda: self.election.campaign(b"heir"),
            "job": self.queue.claim,
            "gate": Barrier(store, names.BARRIER).wait,
            "leave": companions.leave,
        }
        self._waiting = {name: Beside(call) for name, call in calls.items()}
        until(lambda: store.status().watchers >= len(calls))

    def still_wait(self) -> bool:
        return not any(each.is_over for each in self._waiting.values())

    def results(self) -> dict[str, Any]:
        return {name: each.result() for name, each in self._waiting.items()}


def test_whatever_a_killed_process_held_goes_to_those_who_wait(
    store: kvstore.Store, clock: FakeClock, holder: Holder
) -> None:
    """When its lease has ended, and not before. What was acknowledged is there, and at most one more."""
    with Session(store, 10 * TTL_SECONDS) as session:
        heirs = Heirs(store, session, holder)
        holder.tell("count")
        holder.waits_for(20)
        holder.kill()
        assert heirs.still_wait()
        pass_time(store, clock)
        assert heirs.results()["job"].tries == 2
        told = holder.said()[1:]
        assert told == [[number, number] for number in range(1, len(told) + 1)]
        total = store.get(names.TOTAL)
        assert total is not None and int(total.value) - len(told) in (0, 1)
        assert Sequence(store, names.NUMBERS).last() - len(told) in (0, 1)


def test_a_process_stopped_for_longer_than_its_lease_can_do_nothing_with_what_it_held(
    store: kvstore.Store, clock: FakeClock, holder: Holder
) -> None:
    """Others have it all; it goes on, believes that it holds it, and every guard and call of its own tells it no."""
    with Session(store, 10 * TTL_SECONDS) as session:
        heirs = Heirs(store, session, holder)
        os.kill(holder.process.pid, signal.SIGSTOP)
        pass_time(store, clock)
        job = heirs.results()["job"]
        os.kill(holder.process.pid, signal.SIGCONT)
        holder.tell("use")
        could = holder.waits_for(2)[1]
        assert could == dict.fromkeys(
            ("lock", "places", "leader", "job", "proclaim", "acknowledge", "leave"), False
        )
        assert store.count(prefix=names.DONE_BY) == 0
        guards = [heirs.lock.is_owner, heirs.places.is_owner, heirs.election.is_leader, job.is_owner]
        assert store.txn(guards, [kvstore.ops.put(b"all")]).succeeded
        job.acknowledge()
        assert heirs.queue.count() == 0
