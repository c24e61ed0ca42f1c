"""Linearizability of this store's histories in almost linear time: the revisions are the order.

Each write's answer names the revision it made, so nothing has to be searched. Given every event
of the store (a watch from the first revision, or its change log), a history is right when

    1. each revision was made by exactly one operation: the acknowledged one that names it, or else
       one of unknown outcome that would have had that very effect there;
    2. each answer is what a sequential store gives at its revision;
    3. time and revisions agree: an operation called after another returned has no lower revision,
       and a higher one if it wrote.

A read whose client was not told a revision takes the lowest one that explains it: any
other would only leave less room to those that come after it.

    put -> 7  |------|                              2 and 3: the read may stand at 6 or 7,
    get -> x     |--------|                         x says which; then the get called
    get -> y                  |------|              afterwards may not stand below it

An unknown operation may have been applied late, never early, and at most once.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from .linearizability import UNKNOWN, Operation
from .store_model import Answer, ChangeLog, Event, Get, KeyValue, Request, Txn, apply, evaluate, writes

StoreOperation = Operation[Request, Answer]


@dataclass(frozen=True, slots=True)
class Violation:
    """What cannot be, and the operation that saw it, where there is one."""

    reason: str
    operation: StoreOperation | None = None


def check(history: Sequence[StoreOperation], log: ChangeLog) -> list[Violation]:
    """Everything in ``history`` that ``log`` does not explain; empty when it is linearizable."""
    violations = list(_unusable(history))
    if violations:
        return violations
    placed, violations = _place_in_time(history, log)
    return violations + list(_explain_revisions(history, log, _deadlines(placed, log.revision)))


def _unusable(history: Sequence[StoreOperation]) -> Iterator[Violation]:
    for operation in history:
        request, answer = operation.request, operation.answer
        if isinstance(request, Txn):
            inner = (*request.success, *request.failure)
            if any(isinstance(op, Get) and op.revision for op in inner):
                yield Violation("reads of the past within transactions are not modelled", operation)
        if answer is UNKNOWN or answer.revision is not None:
            continue
        if not isinstance(request, Get):
            yield Violation("the answer names no revision", operation)


# --- 3: revisions and time -----------------------------------------------------------------------


def _place_in_time(
    history: Sequence[StoreOperation], log: ChangeLog
) -> tuple[list[tuple[StoreOperation, int]], list[Violation]]:
    """Each answered operation with its revision, which is no lower than what had returned before its call."""
    placed, violations = [], []
    floor = 1
    running: list[tuple[float, int]] = []  # (returned, revision) of those that floor does not cover yet
    for operation in sorted(history, key=lambda each: each.called):
        if operation.answer is UNKNOWN:
            continue
        while running and running[0][0] < operation.called:
            floor = max(floor, heapq.heappop(running)[1])
        revision = _lowest(operation.request, operation.answer, floor, log)
        if revision is None:
            violations.append(Violation(f"no revision from {floor} on explains this read", operation))
            continue
        if revision < floor + writes(operation.request, operation.answer):
            violations.append(Violation(f"revision {floor} had been seen before its call", operation))
        placed.append((operation, revision))
        heapq.heappush(running, (operation.returned, revision))
    return placed, violations


def _lowest(request: Request, answer: Answer, floor: int, log: ChangeLog) -> int | None:
    """The operation's revision: the one it names, or the lowest from ``floor`` on that explains it."""
    if answer.revision is not None:
        return answer.revision
    assert isinstance(request, Get), "only reads may leave the revision out"
    if request.revision:
        # A read of the past says no more than that this past had been made.
        expected = log.select(request.key, request.range_end, request.revision)
        return max(floor, request.revision) if answer.kvs == expected else None
    for revision in (floor, *log.changes_in(request.key, request.range_end, floor)):
        if log.select(request.key, request.range_end, revision) == answer.kvs:
            return revision
    return None


def _deadlines(placed: Sequence[tuple[StoreOperation, int]], last: int) -> list[float]:
    """For each revision, the first moment at which a client knew of it or of a later one."""
    deadlines = [inf] * (last + 2)
    for operation, revision in placed:
        known = min(revision, last)
        deadlines[known] = min(deadlines[known], operation.returned)
    for revision in range(last, -1, -1):
        deadlines[revision] = min(deadlines[revision], deadlines[revision + 1])
    return deadlines


# --- 1 and 2: what happened at each revision -----------------------------------------------------


def _place(operation: StoreOperation, answer: Answer) -> int | None:
    """The revision of the state that the operation was evaluated on."""
    if isinstance(operation.request, Get) and operation.request.revision:
        return operation.request.revision
    if answer.revision is not None and writes(operation.request, answer):
        return answer.revision - 1
    return answer.revision


def _explain_revisions(
    history: Sequence[StoreOperation], log: ChangeLog, deadlines: Sequence[float]
) -> Iterator[Violation]:
    """Replay the log; at each state, hold the answers that belong there against it."""
    at: dict[int, list[tuple[StoreOperation, Answer]]] = {}
    unknown: list[StoreOperation] = []
    for operation in history:
        if operation.answer is UNKNOWN:
            unknown.append(operation)
        elif (operation.answer.revision or 0) > log.revision:
            at.setdefault(operation.answer.revision or 0, []).append((operation, operation.answer))
        elif (place := _place(operation, operation.answer)) is not None:
            at.setdefault(place, []).append((operation, operation.answer))
    state: dict[bytes, KeyValue] = {}
    candidates: dict[int, list[int]] = {}  # of the revisions nobody claims
    for revision in range(1, log.revision + 1):
        apply(state, log.at_revision.get(revision, ()))
        coming = log.at_revision.get(revision + 1, [])
        makers = 0
        for operation, answer in at.pop(revision, ()):
            makers += writes(operation.request, answer)
            yield from _hold(state, revision, operation, answer, coming)
        if makers > 1:
            yield Violation(f"{makers} operations claim to have made revision {revision + 1}")
        if coming and not makers:
            candidates[revision + 1] = _candidates(state, unknown, coming, deadlines[revision + 1])
    for revision in _unmatched(candidates):
        yield Violation(f"no operation explains revision {revision}: {log.at_revision[revision]}")
    for place in sorted(at):
        for operation, _ in at[place]:
            yield Violation(f"revision {place} is not in the change log (last {log.revision})", operation)


def _hold(
    state: dict[bytes, KeyValue],
    revision: int,
    operation: StoreOperation,
    answer: Answer,
    coming: list[Event],
) -> Iterator[Violation]:
    """Compare an answer, and the events it stands for, with those of a store in ``state``."""
    expected, events = evaluate(state, operation.request, revision + 1)
    if isinstance(operation.request, Get) and operation.request.revision:
        if answer.revision is not None and answer.revision < revision:
            yield Violation(
                f"revision {revision} was read at {answer.revision}, before it was made", operation
            )
        expected = Answer(answer.revision, expected.kvs)
    if answer != expected:
        yield Violation(f"the answer at revision {revision} is {expected}", operation)
    elif events and list(events) != coming:
        yield Violation(f"revision {revision + 1} should be {events}, the change log has {coming}", operation)


def _candidates(
    state: dict[bytes, KeyValue], unknown: list[StoreOperation], coming: list[Event], deadline: float
) -> list[int]:
    """Indexes of the unknown operations that have this effect and had been called in time."""
    return [
        index
        for index, operation in enumerate(unknown)
        if operation.called <= deadline
        and list(evaluate(state, operation.request, coming[0].revision)[1]) == coming
    ]


def _unmatched(candidates: dict[int, list[int]]) -> list[int]:
    """Revisions left over when as many as possible get an operation of their own (augmenting paths)."""
    maker_of: dict[int, int] = {}  # operation -> revision

    def settle(revision: int, asked: set[int]) -> bool:
        for operation in candidates[revision]:
            if operation not in asked:
                asked.add(operation)
                if operation not in maker_of or settle(maker_of[operation], asked):
                    maker_of[operation] = revision
                    return True
        return False

    return [revision for revision in candidates if not settle(revision, set())]
