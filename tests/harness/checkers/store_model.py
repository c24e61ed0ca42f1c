"""What the store promises one client that is alone with it: the whole semantics, in pure functions.

    state (key -> KeyValue)  +  request  +  revision it would make  ->  answer, events

The state is never changed: the events are the change, `ChangeLog` is all of them in order, and
every past state follows from it. Written apart from the engine on purpose: two readings of one
specification that must agree.

Left out: leases other than as a number kept with a key, nested transactions, paging, sorting.
"""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .linearizability import IMPOSSIBLE, UNKNOWN, Impossible, Unknown

# --- requests and answers -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A version of a key. That of a deletion has the key and its mod_revision alone."""

    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``prev_kv`` stays None where nobody asked for it."""

    type: Literal["put", "delete"]
    kv: KeyValue
    prev_kv: KeyValue | None = None

    @property
    def revision(self) -> int:
        return self.kv.mod_revision


def in_range(key: bytes, start: bytes, end: bytes | None) -> bool:
    """Whether ``key`` lies in ``[start, end)``: no end is one key, end ``\\0`` is to the last key."""
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


@dataclass(frozen=True, slots=True)
class Get:
    """``revision`` 0 is the newest."""

    key: bytes
    range_end: bytes | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: bytes
    range_end: bytes | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """``target`` of the key stands in ``relation`` to ``operand``; an absent key has zeros, and no value."""

    key: bytes
    target: Literal["version", "create_revision", "mod_revision", "lease", "value"]
    relation: Literal["==", "!=", "<", ">"]
    operand: int | bytes


@dataclass(frozen=True, slots=True)
class Txn:
    compare: tuple[Compare, ...] = ()
    success: tuple[Get | Put | Delete, ...] = ()
    failure: tuple[Get | Put | Delete, ...] = ()


Request = Get | Put | Delete | Txn


@dataclass(frozen=True, slots=True)
class Answer:
    """Of any request; what does not belong to it stays as it is here.

    ``revision`` is the store's, in the response's header: None where the client was not told,
    as in the answers within a transaction's.
    """

    revision: int | None = None
    kvs: tuple[KeyValue, ...] = ()
    deleted: int = 0
    succeeded: bool = False
    answers: tuple["Answer", ...] = ()


def writes(request: Request, answer: Answer) -> bool:
    """Whether a request so answered has made a revision."""
    match request:
        case Put():
            return True
        case Delete():
            return answer.deleted > 0
        case Txn(_, success, failure):
            chosen = success if answer.succeeded else failure
            return any(writes(op, inner) for op, inner in zip(chosen, answer.answers, strict=False))
    return False


# --- evaluation -----------------------------------------------------------------------------

State = Mapping[bytes, KeyValue]


def select(state: State, key: bytes, range_end: bytes | None) -> tuple[KeyValue, ...]:
    """The keys of a range, in order."""
    if not range_end:
        return (state[key],) if key in state else ()
    return tuple(state[k] for k in sorted(state) if in_range(k, key, range_end))


def holds(state: State, compare: Compare) -> bool:
    kv = state.get(compare.key)
    if kv is None and compare.target == "value":
        return False
    found = getattr(kv or KeyValue(compare.key), compare.target)
    match compare.relation:
        case "==":
            return bool(found == compare.operand)
        case "!=":
            return bool(found != compare.operand)
        case "<":
            return bool(found < compare.operand)
        case ">":
            return bool(found > compare.operand)


def put_event(state: State, request: Put, revision: int) -> Event:
    old = state.get(request.key)
    created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
    kv = KeyValue(request.key, request.value, created, revision, version, request.lease)
    return Event("put", kv, old)


def apply(state: dict[bytes, KeyValue], events: Iterable[Event]) -> None:
    """Change ``state`` as the events say."""
    for event in events:
        if event.type == "put":
            state[event.kv.key] = event.kv
        else:
            state.pop(event.kv.key, None)


def evaluate(state: State, request: Request, revision: int) -> tuple[Answer, tuple[Event, ...]]:
    """The answer, and the events that make ``revision``; where there are none, no revision is made."""
    match request:
        case Txn(compare, success, failure):
            succeeded = all(holds(state, condition) for condition in compare)
            draft, events = dict(state), []
            answers = []
            for op in success if succeeded else failure:
                answer, changes = _evaluate_one(draft, op, revision)
                apply(draft, changes)
                answers.append(answer)
                events += changes
            answer = Answer(succeeded=succeeded, answers=tuple(answers))
        case _:
            answer, events = _evaluate_one(state, request, revision)
    at = revision if events else revision - 1
    return Answer(at, answer.kvs, answer.deleted, answer.succeeded, answer.answers), tuple(events)


def _evaluate_one(state: State, op: Get | Put | Delete, revision: int) -> tuple[Answer, list[Event]]:
    match op:
        case Get(key, range_end):
            return Answer(kvs=select(state, key, range_end)), []
        case Put():
            return Answer(), [put_event(state, op, revision)]
        case Delete(key, range_end):
            gone = select(state, key, range_end)
            events = [Event("delete", KeyValue(kv.key, mod_revision=revision), kv) for kv in gone]
            return Answer(deleted=len(gone)), events


# --- history ----------------------------------------------------------------------------------


@dataclass
class ChangeLog:
    """Every event of a store that began empty, in order; ``prev_kv`` is worked out here.

    ``state`` and ``revision`` are those at its end, ``compact_revision`` is the oldest revision
    that could still be read then.
    """

    given: Sequence[Event]
    compact_revision: int = 0
    events: list[Event] = field(init=False, default_factory=list)
    at_revision: dict[int, list[Event]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._versions: dict[bytes, list[Event]] = {}
        self.state: dict[bytes, KeyValue] = {}
        last = 1
        for event in self.given:
            if event.revision < last or event.revision > last + 1:
                raise ValueError(f"revision {event.revision} follows {last} in the change log")
            last = event.revision
            full = Event(event.type, event.kv, self.state.get(event.kv.key))
            apply(self.state, [full])
            self.events.append(full)
            self.at_revision.setdefault(last, []).append(full)
            self._versions.setdefault(event.kv.key, []).append(full)
        self.revision = last

    def get(self, key: bytes, revision: int) -> KeyValue | None:
        """The key as it was at ``revision``."""
        versions = self._versions.get(key, [])
        index = bisect.bisect_right(versions, revision, key=lambda event: event.revision)
        if index and versions[index - 1].type == "put":
            return versions[index - 1].kv
        return None

    def select(self, key: bytes, range_end: bytes | None, revision: int) -> tuple[KeyValue, ...]:
        """The keys of a range as they were at ``revision``, in order."""
        keys = [k for k in sorted(self._versions) if in_range(k, key, range_end)] if range_end else [key]
        return tuple(kv for k in keys if (kv := self.get(k, revision)))

    def changes_in(self, key: bytes, range_end: bytes | None, after: int) -> list[int]:
        """The revisions above ``after`` that changed a key of the range, in order."""
        keys = [k for k in self._versions if in_range(k, key, range_end)]
        return sorted({e.revision for k in keys for e in self._versions[k] if e.revision > after})


# --- the same for the general checker ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """The store as a model for `linearizability.check`; its state is all events, so the past is at hand."""

    initial: tuple[Event, ...] = ()

    def step(
        self, state: tuple[Event, ...], request: Request, answer: Answer | Unknown
    ) -> tuple[Event, ...] | Impossible:
        log = ChangeLog(state)
        expected, events = evaluate(log.state, request, log.revision + 1)
        if isinstance(request, Get) and request.revision:
            if request.revision > log.revision:
                return IMPOSSIBLE
            expected = Answer(log.revision, log.select(request.key, request.range_end, request.revision))
        if answer is not UNKNOWN and answer not in (expected, replace(expected, revision=None)):
            return IMPOSSIBLE
        return state + events
