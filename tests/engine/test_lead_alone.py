"""A ticket that is served on the thread that put it down: only where nothing is waited for but its sync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.engine import LocalEngine
from kvstore.errors import LeaseNotFound, StorePoisoned
from kvstore.model import PutRequest
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.write.ticket import Ticket
from tests.engine.answers import Answers
from tests.harness.gated_disk import PATIENCE_SECONDS, GatedDisk


@pytest.fixture
def disk() -> GatedDisk:
    return GatedDisk()


@pytest.fixture(params=["lmdb", "sqlite"])
def engine(request: pytest.FixtureRequest, scratch: Path, disk: GatedDisk) -> Iterator[LocalEngine]:
    """Its flusher finds nothing to do until it is told to (``flush``): else it may take the lead at any moment."""
    opened = open_engine(scratch / "data", Options(background=False, backend=request.param), disk)
    assert isinstance(opened, LocalEngine)
    opened.writer.__dict__["_has_work"] = lambda: False
    yield opened
    opened.writer.__dict__.pop("_has_work", None)
    opened.close()


@pytest.fixture
def answers(engine: LocalEngine) -> Answers:
    return Answers(engine)


def put_down(engine: LocalEngine, answers: Answers, value: bytes = b"v", **fields: Any) -> Ticket:
    """A ticket that the flusher is not told of."""
    ticket = engine.ask_soon(PutRequest(b"k", value, **fields), answers.notify, at_once=False)
    assert ticket is not None
    return ticket


def flush(engine: LocalEngine) -> bool:
    """Have the flusher work from now on."""
    del engine.writer.__dict__["_has_work"]
    return engine.flush_soon()


def elsewhere(begin: Callable[[], object], end: Callable[[], object]) -> Callable[[], None]:
    """Have another thread do something now, and the other thing when what this returns is called."""
    begun, over = threading.Event(), threading.Event()

    def run() -> None:
        begin()
        begun.set()
        over.wait(PATIENCE_SECONDS)
        end()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(PATIENCE_SECONDS)

    def finish() -> None:
        over.set()
        thread.join()

    return finish


def test_it_is_durable_and_nobody_is_told(engine: LocalEngine, answers: Answers, disk: GatedDisk) -> None:
    """When the call returns: synced, readable, and answered in the ticket. The next one is as good."""
    elsewhere(lambda: engine.put(PutRequest(b"first")), bool)()
    syncs = disk.syncs
    for number in range(3):
        ticket = put_down(engine, answers)
        assert engine.lead_alone(ticket)
        assert ticket.done and ticket.response.revision == engine.revision == 3 + number
        assert disk.syncs == syncs + number + 1
    assert not answers.told and not engine.writer.asked


def test_not_beside_others(engine: LocalEngine, answers: Answers) -> None:
    """Two that were put down go to the flusher together, in their order."""
    first, second = put_down(engine, answers), put_down(engine, answers)
    assert not engine.lead_alone(first) and not engine.lead_alone(second)
    assert flush(engine)
    assert [answers.of(ticket).revision for ticket in (first, second)] == [2, 3]


@pytest.mark.parametrize("lock", ["_lead", "planning", "log_lock"])
def test_no_lock_is_waited_for(engine: LocalEngine, answers: Answers, lock: str) -> None:
    """Somebody leads, plans or works on the log: the ticket is left to the flusher, which waits."""
    held = getattr(engine.writer, lock)
    finish = elsewhere(held.acquire, held.release)
    ticket = put_down(engine, answers)
    assert not engine.lead_alone(ticket)
    finish()
    assert flush(engine)
    assert answers.of(ticket).revision == 2


def test_nor_does_the_log_make_room(
    engine: LocalEngine, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that takes more than one write and one sync: the ticket is planned, and left to the flusher."""
    monkeypatch.setattr(type(engine.writer._log), "has_place_for", lambda _log, _size_bytes: False)
    ticket = put_down(engine, answers)
    assert not engine.lead_alone(ticket)
    assert ticket.revision == 2 and engine.revision == 1
    assert flush(engine)
    assert answers.of(ticket).revision == engine.revision == 2


def test_another_thread_plans_what_came_after_it(
    engine: LocalEngine, answers: Answers, disk: GatedDisk
) -> None:
    """While it is synced: each is answered once, in the order in which they were put down."""
    ticket = put_down(engine, answers)
    is_done: list[bool] = []
    disk.hold()
    leading = threading.Thread(target=lambda: is_done.append(engine.lead_alone(ticket)))
    leading.start()
    disk.wait_for_sync()
    second = put_down(engine, answers)
    planned = engine.submit(PutRequest(b"k"))
    third = put_down(engine, answers)
    disk.release()
    leading.join()
    assert is_done == [True] and flush(engine)
    assert [answers.of(each).revision for each in (second, third)] == [3, 5]
    assert engine.wait(planned).revision == 4 and ticket.response.revision == 2


def test_what_is_refused_is_answered_by_the_flusher(engine: LocalEngine, answers: Answers) -> None:
    """The planner's refusal comes where all answers come; nothing is left behind."""
    ticket = put_down(engine, answers, lease=9)
    assert not engine.lead_alone(ticket)
    assert flush(engine)
    assert isinstance(answers.of(ticket), LeaseNotFound)
    assert answers.of(answers.ask(PutRequest(b"k"))).revision == 2


def test_a_failed_sync_is_told(engine: LocalEngine, answers: Answers, disk: GatedDisk) -> None:
    """The store is poisoned as by any other write."""
    disk.failing = True
    ticket = put_down(engine, answers)
    assert engine.lead_alone(ticket)
    assert isinstance(answers.of(ticket), StorePoisoned)
    with pytest.raises(StorePoisoned):
        put_down(engine, answers)
    disk.failing = False


def test_an_interruption_leaves_the_ticket_to_the_flusher(
    engine: LocalEngine, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes: the exception goes on, and the write is made, once."""
    carry_out = engine.writer.planner.carry_out

    def interrupted(plan: Any) -> None:
        carry_out(plan)
        raise KeyboardInterrupt

    ticket = put_down(engine, answers)
    with monkeypatch.context() as patched:
        patched.setattr(engine.writer.planner, "carry_out", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.lead_alone(ticket)
    assert flush(engine)
    assert answers.of(ticket).revision == engine.revision == 2
