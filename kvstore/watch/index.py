"""Which watchers want a key.

Watches of a single key are in a dict. Ranges cut the key space into segments, each with the ranges that cover it:

    ranges       A = [b, f)      B = [d, h)      C = [h, end)

    bounds          b    d    f    h
    covers        |    A   A,B   B    C
                  none

so a lookup is one dict access and one binary search, however many ranges there are. Equal ranges are one entry.
Adding a range costs a walk over the segments it covers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

W = TypeVar("W")

Span = tuple[bytes, bytes | None]
"""[start, end); end None: to the last key."""


class _Range(Generic[W]):
    __slots__ = ("watchers",)

    def __init__(self) -> None:
        self.watchers: set[W] = set()


class WatchIndex(Generic[W]):
    """Watchers by what they watch. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: dict[bytes, set[W]] = {}
        self._ranges: dict[Span, _Range[W]] = {}
        self._bounds: list[bytes] = []
        self._covers: list[tuple[_Range[W], ...]] = [()]
        """One more than there are bounds: ``_covers[i]`` covers the keys below ``_bounds[i]``."""
        self._uses: dict[bytes, int] = {}
        """How many ranges begin or end at each bound."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        for watchers in self._keys.values():
            yield from watchers
        for entry in self._ranges.values():
            yield from entry.watchers

    def add(self, span: Span, watcher: W) -> None:
        self._count += 1
        if span[1] == span[0] + b"\0":
            self._keys.setdefault(span[0], set()).add(watcher)
            return
        entry = self._ranges.get(span)
        if entry is None:
            entry = self._ranges[span] = _Range()
            self._cover(span, entry)
        entry.watchers.add(watcher)

    def remove(self, span: Span, watcher: W) -> None:
        """Remove a watcher that was added with this span."""
        self._count -= 1
        if span[1] == span[0] + b"\0":
            watchers = self._keys[span[0]]
            watchers.remove(watcher)
            if not watchers:
                del self._keys[span[0]]
            return
        entry = self._ranges[span]
        entry.watchers.remove(watcher)
        if not entry.watchers:
            del self._ranges[span]
            self._uncover(span, entry)

    def find(self, key: bytes) -> list[W]:
        """All watchers that want ``key``."""
        found = list(self._keys.get(key, ())) if self._keys else []
        for entry in self._covers[bisect_right(self._bounds, key)]:
            found += entry.watchers
        return found

    def _cover(self, span: Span, entry: _Range[W]) -> None:
        for bound in span:
            if bound is not None:
                self._split(bound)
        first, last = self._segments(span)
        for at in range(first, last):
            self._covers[at] += (entry,)

    def _uncover(self, span: Span, entry: _Range[W]) -> None:
        first, last = self._segments(span)
        for at in range(first, last):
            self._covers[at] = tuple(other for other in self._covers[at] if other is not entry)
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
