"""The events of a response: each is made when it is used, and even then its row stays encoded.

To send them on takes no event at all (etcdpb/responses.py): ``changes`` are the same objects in the events of every
watch that was given a revision.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, overload

from kvstore.keyvalue import KeyValue
from kvstore.model import Event, EventType, WatchPosition
from kvstore.mvcc.overlay import ChangedRow

_PUT, _DELETE = EventType.PUT, EventType.DELETE
_of = KeyValue.from_row
_make: Any = partial(tuple.__new__, Event)
"""``Event._make`` without its Python code."""


def _event(change: ChangedRow) -> Event:
    main, _, key, row = change
    event: Event = _make(
        (_DELETE, KeyValue(key, mod_revision=main), None) if row is None else (_PUT, _of(row), None)
    )
    return event


class Events(Sequence[Event]):
    """An immutable list of events over changes. ``before``: the ``prev_kv`` of each, if requested.

    ``newest``: of events that a watch that is behind reads, the newest revision that there was when they were read.
    """

    __slots__ = ("before", "changes", "newest")

    def __init__(
        self, changes: list[ChangedRow], before: list[KeyValue | None] | None = None, newest: int = 0
    ) -> None:
        self.changes = changes
        self.before = before
        self.newest = newest

    def position(self, index: int) -> WatchPosition:
        """The position to start from for this event to be the first."""
        return WatchPosition(*self.changes[index][:2])

    def since(self, position: WatchPosition) -> Events:
        """The events from ``position`` on."""
        return self[bisect_left(self.changes, position) :]

    def __len__(self) -> int:
        return len(self.changes)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Events: ...
    def __getitem__(self, index: int | slice) -> Event | Events:
        before = self.before
        if isinstance(index, slice):
            return Events(self.changes[index], before and before[index])
        event = _event(self.changes[index])
        return event if before is None else event._replace(prev_kv=before[index])

    def __iter__(self) -> Iterator[Event]:
        events = map(_event, self.changes)
        if self.before is None:
            return events
        return (Event(kind, kv, before) for (kind, kv, _), before in zip(events, self.before, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(other) == len(self) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Events({list(self)!r})"
