"""The checkers find what is wrong, and nothing else: a checker that passes everything proves nothing."""

import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.checkers import linearizability, revision_order
from tests.harness.checkers.linearizability import UNKNOWN, Operation, Recorder
from tests.harness.checkers.recordings import (
    CompareAndSet,
    Read,
    Register,
    RegisterAnswer,
    RegisterRequest,
    Text,
    Write,
    read_jepsen,
    read_map,
)
from tests.harness.checkers.revision_order import StoreOperation
from tests.harness.checkers.store_model import (
    Answer,
    ChangeLog,
    Compare,
    Delete,
    Event,
    Get,
    KeyValue,
    Put,
    Request,
    Store,
    Txn,
    apply,
    evaluate,
)

# --- the general search -----------------------------------------------------------------------

RegisterOperation = Operation[RegisterRequest, RegisterAnswer]


def test_recorded_histories_of_other_systems_get_their_known_verdicts(shared: Path) -> None:
    """All 108 recorded histories, of etcd under faults and of a map, are judged as they are known to be."""
    folder = shared / "porcupine-testdata"
    expected = json.loads((folder / "expected.json").read_text())["linearizable"]
    verdicts = {}
    for name in expected:
        lines = (folder / name).read_text().splitlines()
        if name.startswith("jepsen/"):
            verdicts[name] = bool(linearizability.check(Register(), list(read_jepsen(lines))))
        else:
            by_key = linearizability.check_by_key(Text(), read_map(lines), lambda request: request.key)
            verdicts[name] = bool(by_key)
    assert len(verdicts) == 108
    assert verdicts == expected


def register_verdict(*history: RegisterOperation) -> bool:
    return bool(linearizability.check(Register(), history))


def test_a_read_sees_either_side_of_a_write_that_overlaps_it() -> None:
    """While a write runs, the value before and the value after are both right answers."""
    write: RegisterOperation = Operation(Write(1), None, called=0, returned=10)
    for value in (None, 1):
        assert register_verdict(write, Operation(Read(), value, called=1, returned=2))


def test_a_value_is_not_unseen_again() -> None:
    """Once one read has seen a write, a later read may not miss it."""
    write: RegisterOperation = Operation(Write(1), None, called=0, returned=10)
    seen: RegisterOperation = Operation(Read(), 1, called=1, returned=2)
    missed: RegisterOperation = Operation(Read(), None, called=3, returned=4)
    assert not register_verdict(write, seen, missed)


def test_operations_that_touch_in_time_are_concurrent() -> None:
    """An operation called at the very moment another returns may stand before it."""
    write: RegisterOperation = Operation(Write(1), None, called=0, returned=5)
    assert register_verdict(write, Operation(Read(), None, called=5, returned=6))
    assert not register_verdict(write, Operation(Read(), None, called=6, returned=7))


def test_an_unknown_write_may_happen_late_or_never_but_not_before_its_call() -> None:
    """A write cut off by a crash explains a value seen long after it, or none, but nothing earlier."""
    lost: RegisterOperation = Operation(Write(7), UNKNOWN, called=10)
    before: RegisterOperation = Operation(Read(), 7, called=1, returned=2)
    later: RegisterOperation = Operation(Read(), 7, called=50, returned=51)
    missing: RegisterOperation = Operation(Read(), None, called=30, returned=31)
    assert register_verdict(lost, missing, later)
    assert register_verdict(lost, missing)
    assert not register_verdict(before, lost)


def test_a_failed_compare_and_set_must_have_found_another_value() -> None:
    """Compare-and-set answers False only where the value differs, and True only where it does not."""
    write: RegisterOperation = Operation(Write(1), None, called=0, returned=1)
    for old, answer, right in [(1, True, True), (1, False, False), (2, True, False), (2, False, True)]:
        swap: RegisterOperation = Operation(CompareAndSet(old, 5), answer, called=2, returned=3)
        assert register_verdict(write, swap) == right


def test_the_longest_line_ends_where_the_history_becomes_impossible() -> None:
    """A failed check says how far the history can be explained."""
    history: list[RegisterOperation] = [
        Operation(Write(1), None, 0, 1),
        Operation(Read(), 1, 2, 3),
        Operation(Read(), 9, 4, 5),
    ]
    verdict = linearizability.check(Register(), history)
    assert not verdict
    assert list(verdict.line) == history[:2]


@pytest.mark.parametrize("reader", [read_jepsen, read_map])
def test_a_line_that_is_no_operation_is_refused(reader: Callable[[Sequence[str]], object]) -> None:
    """A recording with a line that is not understood is an error, not a shorter history."""
    with pytest.raises(ValueError, match="line 1"):
        list(reader(["something else"]))  # type: ignore[call-overload]  # both readers are generators


# --- recording --------------------------------------------------------------------------------


class Refused(Exception):
    pass


class Crashed(Exception):
    pass


def test_the_recorder_keeps_unknown_outcomes_and_drops_refused_calls() -> None:
    """Answers are kept, refusals are not recorded, any other error leaves the outcome unknown."""
    recorder: Recorder[str, int] = Recorder(refused=(Refused,))

    def fail(error: type[Exception]) -> int:
        raise error

    assert recorder.perform("works", lambda: 5, client=1) == 5
    with pytest.raises(Refused):
        recorder.perform("refused", lambda: fail(Refused))
    with pytest.raises(Crashed):
        recorder.perform("crashes", lambda: fail(Crashed))
    works, crashes = recorder.history()
    assert (works.request, works.answer, works.client) == ("works", 5, 1)
    assert (crashes.request, crashes.answer, crashes.returned) == ("crashes", UNKNOWN, inf)
    assert works.precedes(crashes)


class Cell:
    """A register for threads, whose compare-and-set looks before it locks if it is ``broken``."""

    def __init__(self, broken: bool) -> None:
        self._lock, self._broken, self._value = threading.Lock(), broken, 0
        self.barrier = threading.Barrier(2)

    def compare_and_set(self, old: int, new: int) -> bool:
        with self._lock:
            found = self._value == old
            if not self._broken:
                self._value = new if found else self._value
        self.barrier.wait()
        if self._broken and found:
            self._value = new
        return found


@pytest.mark.parametrize("broken", [False, True])
def test_a_lost_update_between_threads_is_found(broken: bool) -> None:
    """Of two overlapping compare-and-sets from one value, a correct register lets one succeed."""
    cell = Cell(broken)
    recorder: Recorder[RegisterRequest, RegisterAnswer] = Recorder()
    recorder.perform(Write(0), lambda: None)

    def swap(new: int) -> None:
        recorder.perform(CompareAndSet(0, new), lambda: cell.compare_and_set(0, new))

    threads = [threading.Thread(target=swap, args=(new,)) for new in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bool(linearizability.check(Register(), recorder.history())) is not broken


# --- the order of revisions -------------------------------------------------------------------

KEYS = (b"a", b"b", b"c")


def run_alone(requests: Sequence[Request]) -> tuple[list[Answer], list[Event]]:
    """What a correct store answers to one client, and the events it makes."""
    state: dict[bytes, KeyValue] = {}
    answers: list[Answer] = []
    made: list[Event] = []
    revision = 1
    for request in requests:
        answer, events = evaluate(state, request, revision + 1)
        if isinstance(request, Get) and request.revision:
            past = ChangeLog(made).select(request.key, request.range_end, request.revision)
            answer = Answer(revision, past)
        apply(state, events)
        made += events
        revision += bool(events)
        answers.append(answer)
    return answers, [replace(event, prev_kv=None) for event in made]


def random_request(rng: random.Random, number: int, revision: int) -> Request:
    key = rng.choice(KEYS)
    value = b"%d" % number
    match rng.randrange(7):
        case 0 | 1:
            return Put(key, value)
        case 2:
            return Delete(key, rng.choice([None, b"\0", b"c"]))
        case 3:
            compare = Compare(key, "version", rng.choice(["==", ">", "<", "!="]), rng.randrange(3))
            return Txn((compare,), (Put(key, value), Get(b"a", b"\0")), (Delete(key), Get(key)))
        case 4:
            return Get(key, None, rng.randint(1, revision))
        case _:
            return Get(key, rng.choice([None, None, b"\0"]))


def random_history(
    rng: random.Random, length: int, may_crash: bool
) -> tuple[list[StoreOperation], ChangeLog]:
    """Overlapping operations on a correct store, in the order in which they took effect, and its log."""
    requests: list[Request] = []
    revision = 1
    for number in range(length):
        requests.append(random_request(rng, number, revision))
        revision = ChangeLog(run_alone(requests)[1]).revision
    answers, events = run_alone(requests)
    history: list[StoreOperation] = []
    for position, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        effect = position * 10
        called, returned = effect - rng.randrange(1, 30), effect + rng.randrange(1, 30)
        if may_crash and rng.random() < 0.3:
            history.append(Operation(request, UNKNOWN, called))
            continue
        if isinstance(request, Get) and rng.random() < 0.5:
            answer = replace(answer, revision=None)
        history.append(Operation(request, answer, called, returned))
    return history, ChangeLog(events)


def spoil(rng: random.Random, history: list[StoreOperation]) -> None:
    """Change a time or an answer, so that the history may have become impossible."""
    index = rng.randrange(len(history))
    operation = history[index]
    answer = operation.answer
    if answer is UNKNOWN or rng.random() < 0.4:
        shift = rng.choice([-40, -20, 20, 40])
        history[index] = replace(
            operation, called=operation.called + shift, returned=operation.returned + shift
        )
        return
    others = [
        other.answer
        for other in history
        if type(other.request) is type(operation.request) and other.answer is not UNKNOWN
    ]
    wrong = [rng.choice(others)]
    if answer.revision is not None:
        wrong.append(replace(answer, revision=max(1, answer.revision + rng.choice([-1, 1]))))
    if answer.kvs:
        wrong.append(replace(answer, kvs=answer.kvs[1:]))
    history[index] = replace(operation, answer=rng.choice(wrong))


@given(st.integers(0, 2**32), st.integers(1, 9), st.booleans())
def test_a_correct_store_is_never_accused(seed: int, length: int, may_crash: bool) -> None:
    """Histories of a correct store, crashes included, have no violation."""
    history, log = random_history(random.Random(seed), length, may_crash)
    assert revision_order.check(history, log) == []
    assert linearizability.check(Store(), history)


@given(st.integers(0, 2**32), st.integers(2, 8), st.booleans(), st.integers(1, 3))
def test_the_order_of_revisions_and_the_general_search_agree(
    seed: int, length: int, may_crash: bool, wrongs: int
) -> None:
    """What the fast checker passes is linearizable; what is linearizable it passes, given that line's log."""
    rng = random.Random(seed)
    history, log = random_history(rng, length, may_crash)
    for _ in range(wrongs):
        spoil(rng, history)
    verdict = linearizability.check(Store(), history)
    if revision_order.check(history, log) == []:
        assert verdict
    if verdict:
        _, events = run_alone([operation.request for operation in verdict.line])
        assert revision_order.check(history, ChangeLog(events)) == []


def kv(key: bytes, value: bytes, revision: int, created: int | None = None, version: int = 1) -> KeyValue:
    return KeyValue(key, value, created or revision, revision, version)


def delete(key: bytes, revision: int) -> Event:
    return Event("delete", KeyValue(key, mod_revision=revision))


PUT_A = Event("put", kv(b"a", b"1", 2))
PUT_B = Event("put", kv(b"b", b"2", 3))


def reasons(history: Sequence[StoreOperation], *events: Event) -> str:
    return "; ".join(violation.reason for violation in revision_order.check(history, ChangeLog(events)))


def test_an_acknowledged_write_that_is_gone_is_found() -> None:
    """A put that was answered and then left no trace, as after a skipped sync, is a violation."""
    kept: StoreOperation = Operation(Put(b"a", b"1"), Answer(2), 0, 1)
    gone: StoreOperation = Operation(Put(b"b", b"2"), Answer(3), 2, 3)
    assert reasons([kept, gone], PUT_A, PUT_B) == ""
    assert "revision 3 is not in the change log" in reasons([kept, gone], PUT_A)


def test_a_read_that_names_a_revision_nobody_made_is_found() -> None:
    """The revision in a read's header exists, be the read one of now or of the past."""
    write: StoreOperation = Operation(Put(b"a", b"1"), Answer(2), 0, 1)
    for request in (Get(b"b"), Get(b"b", revision=1)):
        assert reasons([write, Operation(request, Answer(2), 2, 3)], PUT_A) == ""
        assert "revision 3 is not in" in reasons([write, Operation(request, Answer(3), 2, 3)], PUT_A)


def test_a_revision_that_nobody_made_is_found() -> None:
    """A change in the log needs an operation that explains it: here a write applied twice."""
    history: list[StoreOperation] = [Operation(Put(b"a", b"1"), Answer(2), 0, 1)]
    twice = Event("put", kv(b"a", b"1", 3, created=2, version=2))
    assert "no operation explains revision 3" in reasons(history, PUT_A, twice)


def test_unknown_operations_are_matched_as_a_whole() -> None:
    """Of two deletes that explain one revision, the one that no other revision needs is taken."""
    puts: list[StoreOperation] = [
        Operation(Put(b"a", b"1"), Answer(2), 0, 1),
        Operation(Put(b"b", b"2"), Answer(4), 2, 3),
    ]
    wide: StoreOperation = Operation(Delete(b"a", b"\0"), UNKNOWN, 0)
    narrow: StoreOperation = Operation(Delete(b"a"), UNKNOWN, 0)
    log = (PUT_A, delete(b"a", 3), Event("put", kv(b"b", b"2", 4)), delete(b"b", 5))
    assert reasons([*puts, wide, narrow], *log) == ""
    assert reasons([*puts, narrow, wide], *log) == ""
    assert "no operation explains revision" in reasons([*puts, wide], *log)


def test_half_a_transaction_is_found() -> None:
    """A transaction of unknown outcome is there whole or not at all."""
    txn: StoreOperation = Operation(Txn((), (Put(b"a", b"1"), Put(b"b", b"2")), ()), UNKNOWN, 0)
    whole = (PUT_A, Event("put", kv(b"b", b"2", 2)))
    assert reasons([txn], *whole) == ""
    assert reasons([txn]) == ""
    assert "no operation explains revision 2" in reasons([txn], PUT_A)


def test_an_unknown_write_seen_before_its_call_is_found() -> None:
    """Nothing explains a change that a client had seen before the only possible writer began."""
    writer: StoreOperation = Operation(Put(b"a", b"1"), UNKNOWN, 10)
    for answer in (Answer(2, (PUT_A.kv,)), Answer(None, (PUT_A.kv,))):
        read: StoreOperation = Operation(Get(b"a"), answer, 1, 2)
        assert "no operation explains" in reasons([read, writer], PUT_A)
        assert reasons([replace(read, returned=11), writer], PUT_A) == ""


def test_a_stale_read_is_found() -> None:
    """A read called after a write returned must see it, whether or not it is told its revision."""
    write: StoreOperation = Operation(Put(b"a", b"1"), Answer(2), 0, 1)
    for answer in (Answer(1), Answer(None)):
        read: StoreOperation = Operation(Get(b"a"), answer, 2, 3)
        assert reasons([write, read], PUT_A) != ""
        assert reasons([write, replace(read, called=1)], PUT_A) == ""


def test_two_operations_that_claim_one_revision_are_found() -> None:
    """A revision is handed out once."""
    write: StoreOperation = Operation(Put(b"a", b"1"), Answer(2), 0, 1)
    assert "2 operations claim" in reasons([write, write], PUT_A)


def test_a_log_with_a_hole_or_out_of_order_is_refused() -> None:
    """The change log has to be whole for the checker to mean anything."""
    for events in ([PUT_B], [PUT_A, PUT_B, PUT_A]):
        with pytest.raises(ValueError, match="in the change log"):
            ChangeLog(events)


def test_a_long_history_is_checked_without_a_search() -> None:
    """Thousands of operations that all overlap, hopeless for a search, are judged one by one."""
    requests = [Put(b"%d" % (n % 50), b"%d" % n) if n % 2 else Get(b"%d" % (n % 50)) for n in range(6000)]
    answers, events = run_alone(requests)
    history: list[StoreOperation] = [
        Operation(request, answer, 0, 1) for request, answer in zip(requests, answers, strict=True)
    ]
    random.Random(1).shuffle(history)
    assert revision_order.check(history, ChangeLog(events)) == []
