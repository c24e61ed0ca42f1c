"""What a watch promises, as nine judges of what a client recorded.

    filter         only events of the range asked for, and of the kinds asked for
    ordered        revisions never go back
    unique         a change of a key is delivered once
    atomic         the events of one revision come in one response
    reliable       between the first event and the last, none is missing, none is altered
    resumable      the first event is the first one from the start revision on
    bookmarkable   a progress notice at R: everything up to R has come, only later events follow
    prev_kv        the value before is the right one, where it was asked for
    is_create      an event says that it created its key if, and only if, it did

Each judge looks at one promise alone and yields what is wrong in a sentence, so that a broken
watch says which promise it broke. The truth is the store's `ChangeLog`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .store_model import ChangeLog, Event, in_range


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """``start_revision`` 0 is "from now on"; ``filters`` are the kinds of events that are left out."""

    key: bytes
    range_end: bytes | None = None
    start_revision: int = 0
    prev_kv: bool = False
    filters: frozenset[Literal["put", "delete"]] = frozenset()

    def wants(self, event: Event) -> bool:
        return event.type not in self.filters and in_range(event.kv.key, self.key, self.range_end)


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """``progress`` marks a notice without events; a ``fragment`` is continued by the next response."""

    revision: int
    events: tuple[Event, ...] = ()
    progress: bool = False
    fragment: bool = False


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """One watch of one client. ``created_revision`` is the store's when it began, 0 where not told."""

    request: WatchRequest
    responses: tuple[WatchResponse, ...]
    created_revision: int = 0

    @property
    def events(self) -> list[Event]:
        return [event for response in self.responses for event in response.events]

    @property
    def first_revision(self) -> int:
        """The revision from which on events are due; 0 where it is not known."""
        if self.request.start_revision:
            return self.request.start_revision
        return self.created_revision + 1 if self.created_revision else 0

    def due(self, log: ChangeLog, first: int, last: int) -> list[Event]:
        """The events that the watch asked for, from revision ``first`` to ``last``."""
        return [
            event for event in log.events if first <= event.revision <= last and self.request.wants(event)
        ]


Validator = Callable[[WatchRecord, ChangeLog], Iterator[str]]


def name_of(event: Event) -> str:
    return f"{event.type} of {event.kv.key!r} at revision {event.revision}"


def validate_filter(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    for event in record.events:
        if not record.request.wants(event):
            yield f"{name_of(event)} was not asked for"


def validate_ordered(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    highest = 0
    for event in record.events:
        if event.revision < highest:
            yield f"{name_of(event)} came after revision {highest}"
        highest = max(highest, event.revision)


def validate_unique(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    seen = set()
    for event in record.events:
        change = (event.kv.key, event.revision)
        if change in seen:
            yield f"{name_of(event)} came more than once"
        seen.add(change)


def validate_atomic(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    earlier: set[int] = set()  # revisions of whole responses before this one
    current: set[int] = set()
    for response in record.responses:
        current |= {event.revision for event in response.events}
        if response.fragment:
            continue
        for revision in sorted(current & earlier):
            yield f"the events of revision {revision} came in more than one response"
        earlier |= current
        current = set()


def validate_reliable(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    events = record.events
    if not events:
        return
    revisions = [event.revision for event in events]
    due = dict.fromkeys(bare(event) for event in record.due(log, min(revisions), max(revisions)))
    got = dict.fromkeys(bare(event) for event in events if record.request.wants(event))
    for event in due:
        if event not in got:
            yield f"{name_of(event)} is missing: {event.kv}"
    for event in got:
        if event not in due:
            yield f"{name_of(event)} never happened: {event.kv}"
    if [event for event in due if event in got] != [event for event in got if event in due]:
        yield "the events are not in the order of the changes"


def bare(event: Event) -> Event:
    return replace(event, prev_kv=None)


def validate_resumable(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    first, events = record.first_revision, record.events
    if not first:
        return
    for event in events:
        if event.revision < first:
            yield f"{name_of(event)} lies before the start revision {first}"
    if events:
        missed = record.due(log, first, events[0].revision - 1)
        if missed:
            yield f"{name_of(missed[0])} is the first from revision {first} on, not {name_of(events[0])}"


def validate_bookmarkable(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    bookmark, first = 0, record.first_revision
    got: set[tuple[bytes, int]] = set()
    for response in record.responses:
        for event in response.events:
            if event.revision <= bookmark:
                yield f"{name_of(event)} came after a progress notice at {bookmark}"
            got.add((event.kv.key, event.revision))
        if not response.progress:
            continue
        if response.revision < bookmark:
            yield f"a progress notice at {response.revision} came after one at {bookmark}"
        bookmark = max(bookmark, response.revision)
        if first:
            for event in record.due(log, first, response.revision):
                if (event.kv.key, event.revision) not in got:
                    yield f"{name_of(event)} had not come before a progress notice at {response.revision}"


def validate_prev_kv(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    for event in record.events:
        if not record.request.prev_kv:
            if event.prev_kv is not None:
                yield f"{name_of(event)} has a value before that nobody asked for"
            continue
        expected = log.get(event.kv.key, event.revision - 1)
        forgotten = event.prev_kv is None and event.revision - 1 < log.compact_revision
        if event.prev_kv != expected and not forgotten:
            yield f"{name_of(event)} has {event.prev_kv} before it, not {expected}"


def validate_is_create(record: WatchRecord, log: ChangeLog) -> Iterator[str]:
    for event in record.events:
        if event.type == "put":
            says = event.kv.create_revision == event.kv.mod_revision
            created = log.get(event.kv.key, event.revision - 1) is None
            if says != created:
                yield f"{name_of(event)} says {'that' if says else 'not that'} it created its key"
            elif says != (event.kv.version == 1):
                yield f"{name_of(event)} has version {event.kv.version}"


VALIDATORS: dict[str, Validator] = {
    "filter": validate_filter,
    "ordered": validate_ordered,
    "unique": validate_unique,
    "atomic": validate_atomic,
    "reliable": validate_reliable,
    "resumable": validate_resumable,
    "bookmarkable": validate_bookmarkable,
    "prev_kv": validate_prev_kv,
    "is_create": validate_is_create,
}


def validate(record: WatchRecord, log: ChangeLog) -> list[str]:
    """Every promise that the record breaks, as ``name: what is wrong``; empty for a good watch."""
    return [f"{name}: {what}" for name, validator in VALIDATORS.items() for what in validator(record, log)]
