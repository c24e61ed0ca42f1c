"""One walk through a store, and what it shows: where the space is, what changed, who wrote it, how it grew.

    versions, key by key (``by_key``)      sizes, garbage and changes of each key; into the tree of prefixes, and into
                                           the lists of the largest, the most changed, ...
    each version's size and end            added to the growth at its revision, taken off where it ended

Memory: a tree of limited size, lists of limited length, and a hundred points of growth.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.backend import Progress
from kvstore.store import Store

from .by_key import Version, versions_by_key
from .tree import KeyFacts, Prefix, Tree

GROWTH_POINTS = 100
TOP_COUNT = 10
WRITERS_MAX = 10_000
"""How many field managers, or leases, are told apart. What others wrote is counted together."""
OTHERS = "(others)"

Visit = Callable[[Version], None]


class GrowthPoint(NamedTuple):
    """The store as it was at a revision, and what was written since the previous point."""

    revision: int
    live_keys: int
    live_bytes: int
    kept_bytes: int
    """Bytes of all versions kept today that had been written by then."""
    puts: int
    deletes: int
    written_bytes: int
    seconds: int
    """The latest time that a version written by then tells, in seconds since 1970; 0: none does."""


@dataclass(slots=True)
class Written:
    """What one writer wrote, as far as it is kept."""

    puts: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        self.puts += 1
        self.size_bytes += size_bytes


class Top:
    """The keys with the largest of some number, greatest first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[int, bytes, KeyFacts]] = []

    def add(self, number: int, key: bytes, facts: KeyFacts) -> None:
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, (number, key, facts))
        elif self._heap and (number, key) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (number, key, facts))

    def rows(self) -> list[tuple[bytes, KeyFacts]]:
        return [(key, facts) for _, key, facts in sorted(self._heap, key=lambda row: row[:2], reverse=True)]


@dataclass(slots=True)
class Survey:
    """What a walk found."""

    revision: int
    compact_revision: int
    growth: list[GrowthPoint]
    root: Prefix
    separator: bytes
    tops: dict[str, Top]
    """By live bytes ("largest"), changes ("most changed"), superseded bytes ("largest past"), and bytes written."""
    managers: dict[str, Written] = field(default_factory=dict)
    """By Kubernetes field manager: the one that changed an object last, as its managed fields say."""
    leases: dict[str, Written] = field(default_factory=dict)
    """By the lease that versions were attached to, in hexadecimal."""

    @property
    def garbage_share(self) -> float:
        return self.root.garbage_bytes / self.root.total_bytes if self.root.total_bytes else 0.0


def survey(
    store: Store,
    *,
    separator: bytes = b"/",
    depth: int = 0,
    count: int = TOP_COUNT,
    visit: Visit | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Walk through the store. ``depth``: that of the tree of prefixes; 0: as deep as the keys are.

    ``visit`` is called with each version, in the order of keys, then revisions.
    """
    revision, compacted = store.revision, store.compact_revision
    tree, growth = Tree(separator, depth), _Growth(compacted, revision)
    tops = {name: Top(count) for name in ("largest", "most changed", "largest past", "most written")}
    managers: dict[str, Written] = {}
    leases: dict[str, Written] = {}
    for key, versions in versions_by_key(store, last=revision, progress=progress):
        facts = KeyFacts()
        for version in versions:
            growth.add(version, facts.live_bytes)
            facts.add(version, compacted)
            if version.writer:
                _writer(managers, version.writer.decode("utf-8", "replace")).add(version.size_bytes)
            if version.lease:
                _writer(leases, f"{version.lease & (1 << 64) - 1:x}").add(version.size_bytes)
            if visit is not None:
                visit(version)
        if not facts.changes:
            continue
        tree.add(key, facts)
        numbers = (facts.live_bytes, facts.changes, facts.garbage_bytes, facts.written_bytes)
        for top, number in zip(tops.values(), numbers, strict=True):
            if number:
                top.add(number, key, facts)
    return Survey(
        revision, compacted, growth.points(), tree.root, separator, tops, _by_puts(managers), _by_puts(leases)
    )


def _writer(writers: dict[str, Written], name: str) -> Written:
    if name not in writers and len(writers) >= WRITERS_MAX:
        name = OTHERS
    return writers.setdefault(name, Written())


def _by_puts(writers: dict[str, Written]) -> dict[str, Written]:
    return dict(sorted(writers.items(), key=lambda item: (-item[1].puts, -item[1].size_bytes, item[0])))


class _Growth:
    """Sums by stretches of revisions, which versions may be added to in any order."""

    def __init__(self, compacted: int, newest: int) -> None:
        self._first = max(compacted, 0) + 1
        self._newest = newest
        self._step = max((newest - self._first + 1) // GROWTH_POINTS, 1)
        stretches = max(newest - self._first, 0) // self._step + 2
        self._sums = [
            [0] * 6 for _ in range(stretches)
        ]  # keys, live bytes, kept bytes, puts, deletes, written
        self._seconds = [0] * stretches

    def _stretch(self, revision: int) -> int:
        """0: up to the compaction; 1: the first ``step`` revisions after it; ..."""
        return 0 if revision < self._first else (revision - self._first) // self._step + 1

    def add(self, version: Version, live_before_bytes: int) -> None:
        size = version.size_bytes
        live = size if version.version else 0
        stretch = self._stretch(version.main)
        sums = self._sums[stretch]
        sums[0] += bool(live) - bool(live_before_bytes)
        sums[1] += live - live_before_bytes
        sums[2] += size
        if stretch:
            sums[3] += bool(live)
            sums[4] += not live
            sums[5] += size
        self._seconds[stretch] = max(self._seconds[stretch], version.seconds)

    def points(self) -> list[GrowthPoint]:
        found = []
        keys = live_bytes = kept_bytes = seconds = 0
        for stretch, (more_keys, live, kept, puts, deletes, written) in enumerate(self._sums):
            keys, live_bytes, kept_bytes = keys + more_keys, live_bytes + live, kept_bytes + kept
            seconds = max(seconds, self._seconds[stretch])
            last = min(self._first + stretch * self._step - 1, self._newest)
            point = GrowthPoint(max(last, 1), keys, live_bytes, kept_bytes, puts, deletes, written, seconds)
            found.append(point)
        return found
