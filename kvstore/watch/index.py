"""Which watchers want a key.

Watches of a single key are in a dict. Ranges cut the key space into segments, each with the ranges that cover it:

    ranges       A = [b, f)      B = [d, h)      C = [h, end)

    bounds          b    d    f    h
    covers        |    A   A,B   B    C
                  none

so a lookup is one dict access and one binary search, however many ranges there are. The watchers of one key, or of one
range, are a group: what is routed, is routed to groups. Adding a range costs a walk over the segments it covers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from kvstore.mvcc.overlay import ChangedRow

W = TypeVar("W")

Span = tuple[bytes, bytes | None]
"""[start, end); end None: to the last key."""


class Group(Generic[W]):
    """The watchers of one span."""

    __slots__ = ("watchers",)

    def __init__(self) -> None:
        self.watchers: set[W] = set()


class WatchIndex(Generic[W]):
    """Watchers by what they watch. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: dict[bytes, Group[W]] = {}
        self._ranges: dict[Span, Group[W]] = {}
        self._bounds: list[bytes] = []
        self._covers: list[tuple[Group[W], ...]] = [()]
        """One more than there are bounds: ``_covers[i]`` covers the keys below ``_bounds[i]``."""
        self._uses: dict[bytes, int] = {}
        """How many ranges begin or end at each bound."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        for group in (*self._keys.values(), *self._ranges.values()):
            yield from group.watchers

    def add(self, span: Span, watcher: W) -> None:
        self._count += 1
        start, end = span
        if end == start + b"\0":
            group = self._keys.get(start)
            if group is None:
                group = self._keys[start] = Group()
        else:
            group = self._ranges.get(span)
            if group is None:
                group = self._ranges[span] = Group()
                self._cover(span, group)
        group.watchers.add(watcher)

    def remove(self, span: Span, watcher: W) -> None:
        """Remove a watcher that was added with this span."""
        self._count -= 1
        start, end = span
        is_key = end == start + b"\0"
        group = self._keys[start] if is_key else self._ranges[span]
        group.watchers.remove(watcher)
        if not group.watchers:
            if is_key:
                del self._keys[start]
            else:
                del self._ranges[span]
                self._uncover(span, group)

    def share(self, changes: Iterable[ChangedRow], shares: Shares[W]) -> None:
        """Add each change to the share of every group that wants its key."""
        keys, bounds, covers = self._keys, self._bounds, self._covers
        for change in changes:
            key = change[2]
            groups = covers[bisect_right(bounds, key)]
            if keys and key in keys:
                groups = (*groups, keys[key])
            for group in groups:
                if group in shares:
                    shares[group].append(change)
                else:
                    shares[group] = [change]

    def _cover(self, span: Span, group: Group[W]) -> None:
        for bound in span:
            if bound is not None:
                self._split(bound)
        first, last = self._segments(span)
        for at in range(first, last):
            self._covers[at] += (group,)

    def _uncover(self, span: Span, group: Group[W]) -> None:
        first, last = self._segments(span)
        for at in range(first, last):
            self._covers[at] = tuple(other for other in self._covers[at] if other is not group)
        for bound in span:
            if bound is not None:
                self._join(bound)

    def _segments(self, span: Span) -> tuple[int, int]:
        start, end = span
        first = bisect_right(self._bounds, start)
        return first, len(self._covers) if end is None else bisect_right(self._bounds, end)

    def _split(self, bound: bytes) -> None:
        """Make ``bound`` a bound: the segment around it becomes two, with the same cover."""
        self._uses[bound] = self._uses.get(bound, 0) + 1
        if self._uses[bound] == 1:
            at = bisect_left(self._bounds, bound)
            self._bounds.insert(at, bound)
            self._covers.insert(at, self._covers[at])

    def _join(self, bound: bytes) -> None:
        """Undo a ``_split``: remove a bound without users, as the segments beside it are equal."""
        self._uses[bound] -= 1
        if not self._uses[bound]:
            del self._uses[bound]
            at = bisect_left(self._bounds, bound)
            del self._bounds[at]
            del self._covers[at]


Shares = dict[Group[W], list[ChangedRow]]
"""Changes by the group that wants them."""
