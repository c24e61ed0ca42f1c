"""Is there an order of the operations that explains every answer?

A history is linearizable when its operations can be put in one line, such that each answer is
the one a sequential model gives there, and no operation stands before one that had returned
before it was called:

    client 1   |--- write 1 ---|
    client 2         |-- read -> 1 --|         possible: write 1, read -> 1, read -> 1
    client 1                              |--- read -> 1 ---|

An operation whose outcome is unknown (the process was killed) may have happened at any time
after its call, or never.

The search is Wing and Gong's with Lowe's memory of what was tried: walk the calls and returns in
order of time; at a call whose answer the model can give now, take it into the line and start over
without it; at a return that was not taken, go back on the last step. A set of taken operations
that once led to a state is never tried again with it. Problems that fall apart (one per key)
should be split first: the search is exponential in what overlaps.

Left out: models with more than one possible next state.
"""

import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final, Generic, Protocol, TypeVar


class Unknown(Enum):
    """The answer of an operation that nobody saw returning."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Request, Answer]):
    """One call of one client, with the times at which it began and ended, on any common clock."""

    request: Request
    answer: Answer | Unknown
    called: float
    returned: float = inf
    client: Hashable = None

    def precedes(self, other: "Operation[Request, Answer]") -> bool:
        return self.returned < other.called


class Impossible(Enum):
    IMPOSSIBLE = "impossible"


IMPOSSIBLE: Final = Impossible.IMPOSSIBLE

State = TypeVar("State", bound=Hashable)
RequestIn = TypeVar("RequestIn", contravariant=True)
AnswerIn = TypeVar("AnswerIn", contravariant=True)


class Model(Protocol[State, RequestIn, AnswerIn]):
    """What one client alone would see."""

    @property
    def initial(self) -> State: ...

    def step(self, state: State, request: RequestIn, answer: AnswerIn | Unknown) -> State | Impossible:
        """The state after ``request`` was answered so, or IMPOSSIBLE; an unknown answer is always right."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Request, Answer]):
    """Whether the history is linearizable, and the longest line found: all of it, or how far it goes."""

    linearizable: bool
    line: tuple[Operation[Request, Answer], ...]

    def __bool__(self) -> bool:
        return self.linearizable


# --- the search -------------------------------------------------------------------------


class _Moment(Generic[Request, Answer]):
    """A call or a return, linked to its neighbours in time. ``end`` is a call's own return."""

    __slots__ = ("bit", "end", "next", "operation", "previous")

    def __init__(self, operation: Operation[Request, Answer] | None, bit: int) -> None:
        self.operation = operation
        self.bit = bit
        self.end: _Moment[Request, Answer] | None = None
        self.previous: _Moment[Request, Answer] = self
        self.next: _Moment[Request, Answer] | None = None

    def leave(self) -> None:
        self.previous.next = self.next
        if self.next:
            self.next.previous = self.previous

    def come_back(self) -> None:
        self.previous.next = self
        if self.next:
            self.next.previous = self


def _moments(history: Iterable[Operation[Request, Answer]]) -> _Moment[Request, Answer]:
    """The head of the list of calls and returns; at one time, calls stand before returns."""
    timed = []
    for index, operation in enumerate(history):
        call = _Moment(operation, 1 << index)
        timed.append((operation.called, 0, index, call))
        if operation.answer is not UNKNOWN:
            call.end = _Moment(None, 0)
            timed.append((operation.returned, 1, index, call.end))
    head: _Moment[Request, Answer] = _Moment(None, 0)
    last = head
    for *_, moment in sorted(timed, key=lambda entry: entry[:3]):
        last.next, moment.previous = moment, last
        last = moment
    return head


def check(
    model: Model[State, Request, Answer], history: Sequence[Operation[Request, Answer]]
) -> Verdict[Request, Answer]:
    """Search for a line that explains ``history``."""
    head = _moments(history)
    left = sum(operation.answer is not UNKNOWN for operation in history)  # returns not yet explained
    state, taken = model.initial, 0
    tried = {(taken, state)}
    line: list[tuple[_Moment[Request, Answer], State]] = []
    longest: list[Operation[Request, Answer]] = []
    moment = head.next
    while left:
        assert moment is not None, "the last moment of an unexplained operation is its return"
        operation = moment.operation
        if operation is not None:
            after = model.step(state, operation.request, operation.answer)
            if after is not IMPOSSIBLE and (step := (taken | moment.bit, after)) not in tried:
                tried.add(step)
                line.append((moment, state))
                taken, state = step
                moment.leave()
                if moment.end:
                    moment.end.leave()
                    left -= 1
                if len(line) > len(longest):
                    longest = [m.operation for m, _ in line if m.operation]
                moment = head.next
            else:
                moment = moment.next
        elif line:
            moment, state = line.pop()
            taken &= ~moment.bit
            if moment.end:
                moment.end.come_back()
                left += 1
            moment.come_back()
            moment = moment.next
        else:
            return Verdict(False, tuple(longest))
    return Verdict(True, tuple(m.operation for m, _ in line if m.operation))


def check_by_key(
    model: Model[State, Request, Answer],
    history: Iterable[Operation[Request, Answer]],
    key: Callable[[Request], Hashable],
) -> Verdict[Request, Answer]:
    """Check each key's operations alone: the first that fails, or a line of each after the other."""
    parts: dict[Hashable, list[Operation[Request, Answer]]] = {}
    for operation in history:
        parts.setdefault(key(operation.request), []).append(operation)
    line: list[Operation[Request, Answer]] = []
    for part in parts.values():
        verdict = check(model, part)
        if not verdict:
            return verdict
        line += verdict.line
    return Verdict(True, tuple(line))


# --- recording --------------------------------------------------------------------------


class Recorder(Generic[Request, Answer]):
    """Collects the operations of concurrent clients (threads or tasks), on a clock that only counts.

    ``refused`` are the errors that promise that nothing happened: such calls are left out. Any
    other error leaves the outcome unknown.
    """

    def __init__(self, refused: tuple[type[BaseException], ...] = ()) -> None:
        self._refused = refused
        self._ticks = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[int, Operation[Request, Answer]] = {}
        self._done: list[Operation[Request, Answer]] = []

    def called(self, request: Request, client: Hashable = None) -> int:
        """The operation begins now; returns the ticket that its end needs."""
        with self._lock:
            ticket = next(self._ticks)
            self._open[ticket] = Operation(request, UNKNOWN, ticket, client=client)
            return ticket

    def returned(self, ticket: int, answer: Answer) -> None:
        """The operation has ended with ``answer``."""
        with self._lock:
            begun = self._open.pop(ticket)
            self._done.append(Operation(begun.request, answer, begun.called, next(self._ticks), begun.client))

    def refuse(self, ticket: int) -> None:
        """The operation has ended, and had no effect."""
        with self._lock:
            del self._open[ticket]

    def perform(self, request: Request, call: Callable[[], Answer], client: Hashable = None) -> Answer:
        """Record ``call``, which does ``request``; its answer or error goes on to the caller."""
        ticket = self.called(request, client)
        try:
            answer = call()
        except self._refused:
            self.refuse(ticket)
            raise
        self.returned(ticket, answer)
        return answer

    def history(self) -> list[Operation[Request, Answer]]:
        """What was recorded, in order of calls; operations that have not ended are unknown."""
        with self._lock:
            return sorted([*self._done, *self._open.values()], key=lambda operation: operation.called)
