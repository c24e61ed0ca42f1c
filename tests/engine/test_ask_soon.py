"""Requests that are put down for another thread: never a wait, never a plan, and every ticket is answered once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvstore
from kvstore import Store, StoreClosed, StorePoisoned
from kvstore.engine import LocalEngine
from kvstore.errors import DiskFull, EmptyKey, LeaseNotFound, NoThread
from kvstore.files import OSDisk
from kvstore.model import (
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    PutWithTTLRequest,
    Request,
    TxnRequest,
)
from kvstore.mvcc import size
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.testing.fake_clock import FakeClock
from kvstore.write import writer as writer_module
from kvstore.write.ticket import Ticket
from tests.engine.answers import Answers, wait_until
from tests.harness.gated_disk import PATIENCE_SECONDS, GatedDisk
from tests.harness.watching import BACKENDS, open_store


@contextmanager
def planning_held(engine: LocalEngine) -> Iterator[None]:
    """Somebody plans, and takes long."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.writer.planning:
            held.set()
            over.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param, clock=FakeClock()) as store:
        yield store


@pytest.fixture
def answers(store: Store) -> Answers:
    return Answers(store.engine)


LEASE = 77
REQUESTS: tuple[Request, ...] = (
    PutRequest(b"a", b"1"),
    PutRequest(b"a", b"2", prev_kv=True),
    TxnRequest(success=(PutRequest(b"b"), DeleteRangeRequest(b"a"))),
    DeleteRangeRequest(b"b", prev_kv=True),
    LeaseGrantRequest(60, LEASE),
    PutRequest(b"c", lease=LEASE),
    LeaseKeepAliveRequest(LEASE),
    LeaseTimeToLiveRequest(LEASE, keys=True),
    LeaseLeasesRequest(),
    CompactionRequest(3),
    LeaseRevokeRequest(LEASE),
    LeaseKeepAliveRequest(LEASE),
    PutWithTTLRequest(PutRequest(b"d"), 60),
    AlarmRequest(5, "NOSPACE", on=True),
    AlarmRequest(5, "NOSPACE", on=False),
)


def test_requests_of_every_kind_are_answered_as_by_ask(
    store: Store, answers: Answers, tmp_path: Path
) -> None:
    """In order, each once, with what ``ask`` would have said, and in the log."""
    tickets = [answers.ask(request, number) for number, request in enumerate(REQUESTS)]
    given = [answers.of(ticket) for ticket in tickets]
    assert [ticket.future for ticket in answers.told] == list(range(len(REQUESTS)))
    with open_store(tmp_path / "other", "memory", clock=FakeClock()) as other:
        assert given == [other.engine.ask(request) for request in REQUESTS]
    assert store.revision == given[-1].revision and store.compact_revision == 3
    assert store.engine.core.log.durable_index == store.engine.state.index


def test_asking_neither_plans_nor_waits(scratch: Path) -> None:
    """While a sync takes long, and a plan takes long, requests are put down; then they share the next sync."""
    disk = GatedDisk()
    engine = open_engine(scratch / "data", Options(background=False, backend="memory"), disk)
    assert isinstance(engine, LocalEngine)
    answers = Answers(engine)
    disk.hold()
    first = answers.ask(PutRequest(b"first"))
    disk.wait_for_sync()
    with planning_held(engine):
        others = [answers.ask(PutRequest(b"%d" % number)) for number in range(50)]
        assert engine.state.head == 2 and not any(ticket.done for ticket in (first, *others))
        syncs = disk.syncs
        disk.release()
    assert [answers.of(ticket).revision for ticket in (first, *others)] == list(range(2, 53))
    assert disk.syncs == syncs + 2
    engine.close()


def test_what_a_plan_refuses_arrives_on_the_ticket(store: Store, answers: Answers) -> None:
    """The error is that ticket's alone; those around it are made."""
    before, refused, after = (
        answers.ask(PutRequest(b"k")),
        answers.ask(PutRequest(b"k", lease=5)),
        answers.ask(PutRequest(b"k")),
    )
    assert isinstance(answers.of(refused), LeaseNotFound)
    assert [answers.of(ticket).revision for ticket in (before, after)] == [2, 3]


def test_what_is_refused_as_it_is_is_raised(store: Store, answers: Answers) -> None:
    """Nothing is put down; and what only the store asks of itself is no request."""
    with pytest.raises(EmptyKey):
        answers.ask(PutRequest(b""))
    with pytest.raises(TypeError):
        answers.ask(writer_module.BARRIER)
    assert not store.engine.writer.asked and answers.told == []


def test_a_withdrawn_ticket_is_dropped_before_its_plan(store: Store, answers: Answers) -> None:
    """Its caller has gone: nothing is written, and nobody told."""
    with planning_held(store.engine):
        gone, stays = answers.ask(PutRequest(b"gone")), answers.ask(PutRequest(b"stays"))
        gone.withdrawn = True
    assert answers.of(stays).revision == 2
    assert store.get(b"gone") is None and answers.told == [stays]


def test_a_lease_with_more_keys_than_an_entry_holds_is_one_ticket(
    store: Store, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes piece by piece, with the turns of others in between, and is answered after the last."""
    monkeypatch.setattr(size, "first_piece", lambda keys: min(len(keys), 4))
    lease = store.grant_lease(60).id
    for number in range(10):
        store.put(b"%d" % number, lease=lease)
    with planning_held(store.engine):
        revoke, put = answers.ask(LeaseRevokeRequest(lease)), answers.ask(PutRequest(b"between"))
    assert (answers.of(put).revision, answers.of(revoke).revision) == (13, 15)
    assert store.count(prefix=b"") == 1 and store.leases() == ()
    assert answers.told == [put, revoke]


def test_without_a_thread_nothing_is_put_down(
    store: Store, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told, and may lead himself; with a thread it works again."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(writer_module, "start", refuse)
        with pytest.raises(NoThread):
            answers.ask(PutRequest(b"k"))
        assert not store.engine.writer.asked
        assert store.engine.ask(PutRequest(b"k")).revision == 2
    assert answers.of(answers.ask(PutRequest(b"k"))).revision == 3


def test_not_now_where_a_write_has_to_wait_for_room(tmp_path: Path) -> None:
    """More waits in memory than may: what costs room is not taken, what costs none is, and ``ask`` makes room."""
    with open_store(tmp_path, "lmdb", overlay_limit=20_000) as store:
        answers = Answers(store.engine)
        put = PutRequest(b"k", b"v" * 15_000)
        answers.of(answers.ask(put))
        assert store.engine.ask_soon(put, answers.notify) is None
        assert answers.of(answers.ask(DeleteRangeRequest(b"other"))).deleted == 0
        assert store.engine.ask(put).revision == 3


def test_not_now_while_background_work_has_to_begin(tmp_path: Path) -> None:
    """Its threads are started by a write that may wait; from then on it is now."""
    with kvstore.open(tmp_path / "data", "memory") as store:
        answers = Answers(store.engine)
        assert store.engine.ask_soon(PutRequest(b"k"), answers.notify) is None
        assert store.engine.ask(PutRequest(b"k")).revision == 2
        assert answers.of(answers.ask(PutRequest(b"k"))).revision == 3


def test_without_quota_the_refusal_is_for_ask_to_tell(tmp_path: Path) -> None:
    """Whether there is room is found by looking at the disk, and the alarm is a write: both wait."""
    with open_store(tmp_path, "memory", quota_backend_bytes=20_000, low_disk_bytes=0) as store:
        answers = Answers(store.engine)
        put = PutRequest(b"k", b"v" * 19_000)
        answers.of(answers.ask(put))
        assert store.engine.ask_soon(put, answers.notify) is None
        with pytest.raises(kvstore.QuotaExceeded):
            store.engine.ask(put)


def test_a_stall_is_not_now_for_what_costs_room(store: Store, answers: Answers) -> None:
    """``ask`` ends it, or says that the disk is full; what costs nothing is told so at once."""
    store.engine.life.stall(DiskFull())
    assert store.engine.ask_soon(PutRequest(b"k"), answers.notify) is None
    with pytest.raises(DiskFull):
        answers.ask(DeleteRangeRequest(b"k"))
    assert store.engine.ask(PutRequest(b"k")).revision == 2
    assert answers.of(answers.ask(PutRequest(b"k"))).revision == 3


def test_a_failed_sync_reaches_every_ticket(scratch: Path) -> None:
    """Those in its group, those behind it, and by an exception those that come later."""
    disk = GatedDisk()
    engine = open_engine(scratch / "data", Options(background=False, backend="memory"), disk)
    assert isinstance(engine, LocalEngine)
    answers = Answers(engine)
    disk.hold()
    tickets = [answers.ask(PutRequest(b"first"))]
    disk.wait_for_sync()
    tickets += [answers.ask(PutRequest(b"%d" % number)) for number in range(5)]
    disk.failing = True
    disk.release()
    assert all(isinstance(answers.of(ticket), StorePoisoned) for ticket in tickets)
    with pytest.raises(StorePoisoned):
        answers.ask(PutRequest(b"later"))
    disk.failing = False
    engine.close()


def test_a_ticket_put_down_while_the_store_closes_is_answered(scratch: Path) -> None:
    """Planned before that, it is made durable; else it is refused, as late as it may come."""
    disk = GatedDisk()
    engine = open_engine(scratch / "data", Options(background=False, backend="memory"), disk)
    assert isinstance(engine, LocalEngine)
    answers = Answers(engine)
    disk.hold()
    planned = answers.ask(PutRequest(b"planned"))
    disk.wait_for_sync()
    late = answers.ask(PutRequest(b"late"))
    closing = threading.Thread(target=engine.close)
    closing.start()
    wait_until(lambda: engine.life.refuses_writes)
    disk.release()
    closing.join()
    assert answers.of(planned).revision == 2
    assert isinstance(answers.of(late), StoreClosed)
    with pytest.raises(StoreClosed):
        answers.ask(PutRequest(b"k"))
    latest = Ticket(PutRequest(b"k"))
    latest.notify = answers.notify
    engine.writer.ask_soon(latest)
    assert isinstance(answers.of(latest), StoreClosed)


def test_tickets_and_waiting_writers_share_the_log(scratch: Path) -> None:
    """Threads that wait and tickets that are put down meanwhile: each is answered once, none is left behind."""
    engine = open_engine(scratch / "data", Options(background=False, backend="memory"), OSDisk())
    assert isinstance(engine, LocalEngine)
    answers = Answers(engine)
    revisions: list[int] = []

    def write(number: int) -> None:
        revisions.extend(engine.ask(PutRequest(b"%d" % number)).revision for _ in range(50))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    tickets = []
    for _ in range(200):
        ticket = engine.ask_soon(PutRequest(b"soon"), answers.notify)
        if ticket is None:  # the log has to make room
            revisions.append(engine.ask(PutRequest(b"soon")).revision)
        else:
            tickets.append(ticket)
    for thread in threads:
        thread.join()
    revisions += [answers.of(ticket).revision for ticket in tickets]
    assert sorted(revisions) == list(range(2, 402))
    engine.close()


def test_a_store_that_only_reads_answers_at_once(tmp_path: Path) -> None:
    """The same call on an engine without a writer: done when it returns, or refused."""
    with open_store(tmp_path, "lmdb") as store:
        store.grant_lease(60, LEASE)
    with kvstore.open(tmp_path / "data", read_only=True) as store:
        answers = Answers(store.engine)
        assert answers.of(answers.ask(LeaseLeasesRequest(), 1)).leases == (LEASE,)
        with pytest.raises(kvstore.ReadOnly):
            answers.ask(PutRequest(b"k"))


# --- a row --------------------------------------------------------------------------------


def test_a_row_is_what_get_makes_its_answer_of(store: Store) -> None:
    """The newest revision, and the bytes: of every change of a transaction, in memory and in the backend."""
    store.txn(success=[kvstore.ops.put(b"a", b"1"), kvstore.ops.put(b"b", b"2")])
    for _ in range(2):
        for key in (b"a", b"b"):
            revision, row = store.engine.row(key)
            kv = store.get(key)
            assert kv is not None and (revision, row) == (2, kv.row)
        assert store.engine.row(b"absent") == (2, None)
        store.checkpoint()


def test_a_row_is_refused_where_get_is(store: Store) -> None:
    """An empty key, what is no key, a closed store."""
    with pytest.raises(EmptyKey):
        store.engine.row(b"")
    with pytest.raises(TypeError):
        store.engine.row("k")  # type: ignore[arg-type]
    store.close()
    with pytest.raises(StoreClosed):
        store.engine.row(b"k")
