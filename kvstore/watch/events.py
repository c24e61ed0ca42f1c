"""The events of a response: an event is made when somebody looks at it, and its row stays encoded even then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, overload

from kvstore.keyvalue import KeyValue
from kvstore.model import Event, EventType
from kvstore.mvcc.overlay import ChangedRow

_PUT, _DELETE = EventType.PUT, EventType.DELETE
_of = KeyValue.of
_make: Any = partial(tuple.__new__, Event)
"""``Event._make`` without its Python."""


def _event(change: ChangedRow) -> Event:
    main, _, key, row = change
    event: Event = _make(
        (_DELETE, KeyValue(key, mod_revision=main), None) if row is None else (_PUT, _of(key, row), None)
    )
    return event


class Events(Sequence[Event]):
    """An immutable list of events over changes."""

    __slots__ = ("_changes",)

    def __init__(self, changes: list[ChangedRow]) -> None:
        self._changes = changes

    def __len__(self) -> int:
        return len(self._changes)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Events: ...
    def __getitem__(self, index: int | slice) -> Event | Events:
        return Events(self._changes[index]) if isinstance(index, slice) else _event(self._changes[index])

    def __iter__(self) -> Iterator[Event]:
        return map(_event, self._changes)

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
