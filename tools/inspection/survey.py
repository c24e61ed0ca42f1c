"""One walk through a store, and what it shows: where the space is, what changes, how it grew.

    keys that were live at the compaction        }  the state before the first kept change
    every change after it, in revision order     }  applied one by one: sizes, versions, growth

Memory: a few numbers per key, never values.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.backend import Progress
from kvstore.keyvalue import KeyValue
from kvstore.mvcc.changes import change_page
from kvstore.store import Store

PAGE_ROWS = 1000
GROWTH_POINTS = 100
DEPTH_MAX = 32
"""Maximum depth of the tree: keys made of separators would make it as deep as they are long."""


class GrowthPoint(NamedTuple):
    """The store as it was at a revision, and what was written since the previous point."""

    revision: int
    live_keys: int
    live_bytes: int
    kept_bytes: int
    """Bytes of all versions kept today that had been written by then."""
    puts: int
    deletes: int


class KeyFacts:
    """What is known about one key."""

    __slots__ = ("changes", "garbage_bytes", "live_bytes", "revision", "version")

    def __init__(self) -> None:
        self.live_bytes = 0
        """Bytes of key and value of the live version; 0: there is none."""
        self.garbage_bytes = 0
        """Bytes of superseded versions and deletes: what a compaction at the newest revision would free."""
        self.changes = 0
        self.version = 0
        self.revision = 0


@dataclass(slots=True)
class Prefix:
    """All keys that begin alike."""

    name: bytes
    keys: int = 0
    versions: int = 0
    live_bytes: int = 0
    garbage_bytes: int = 0
    children: dict[bytes, Prefix] = field(default_factory=dict)

    def add(self, facts: KeyFacts) -> None:
        self.keys += facts.live_bytes > 0
        self.versions += facts.changes
        self.live_bytes += facts.live_bytes
        self.garbage_bytes += facts.garbage_bytes

    @property
    def total_bytes(self) -> int:
        return self.live_bytes + self.garbage_bytes


@dataclass(slots=True)
class Survey:
    """What a walk found."""

    revision: int
    compact_revision: int
    keys: dict[bytes, KeyFacts]
    growth: list[GrowthPoint]
    root: Prefix
    separator: bytes

    @property
    def garbage_share(self) -> float:
        return self.root.garbage_bytes / self.root.total_bytes if self.root.total_bytes else 0.0

    def largest(self, count: int) -> list[tuple[bytes, KeyFacts]]:
        """Keys by the size of their live version."""
        return heapq.nlargest(count, self.keys.items(), key=lambda item: (item[1].live_bytes, item[0]))

    def hottest(self, count: int) -> list[tuple[bytes, KeyFacts]]:
        """Keys by the number of kept changes."""
        return heapq.nlargest(count, self.keys.items(), key=lambda item: (item[1].changes, item[0]))

    def wasteful(self, count: int) -> list[tuple[bytes, KeyFacts]]:
        """Keys by the size of their past."""
        return heapq.nlargest(count, self.keys.items(), key=lambda item: (item[1].garbage_bytes, item[0]))


def survey(
    store: Store, *, separator: bytes = b"/", depth: int = 0, progress: Progress | None = None
) -> Survey:
    """Walk through the store. ``depth``: that of the tree of prefixes; 0: as deep as the keys are."""
    walk = _Walk(store)
    walk.run(progress)
    root = Prefix(b"")
    for key in sorted(walk.keys):
        add_to_tree(root, key, walk.keys[key], separator, min(depth, DEPTH_MAX))
    return Survey(store.revision, store.compact_revision, walk.keys, walk.growth, root, separator)


def add_to_tree(root: Prefix, key: bytes, facts: KeyFacts, separator: bytes, depth: int) -> None:
    node = root
    node.add(facts)
    parts = split_key(key, separator)
    if not depth and len(parts) > DEPTH_MAX:
        parts[DEPTH_MAX - 1 :] = [b"".join(parts[DEPTH_MAX - 1 :])]
    for part in parts[: depth or DEPTH_MAX]:
        node = node.children.setdefault(part, Prefix(node.name + part))
        node.add(facts)


def split_key(key: bytes, separator: bytes) -> list[bytes]:
    """``/a/b/c`` as ``/``, ``a/``, ``b/``, ``c``: each part with the separator that ends it."""
    if not separator:
        return [key]
    parts = key.split(separator)
    return [part + separator for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


class _Walk:
    def __init__(self, store: Store) -> None:
        self.keys: dict[bytes, KeyFacts] = {}
        self.growth: list[GrowthPoint] = []
        self._store = store
        self._live_keys = self._live_bytes = self._kept_bytes = 0
        self._puts = self._deletes = 0

    def run(self, progress: Progress | None) -> None:
        newest, compacted = self._store.revision, self._store.compact_revision
        if compacted > 0:
            for kv in self._store.scan(prefix=b"", revision=compacted):
                self._put(kv, 0)
        self._point(max(compacted, 1))
        first = max(compacted, 0) + 1
        step = max((newest - first + 1) // GROWTH_POINTS, 1)
        following = first + step
        for main, key, row in _changes(self._store, first, newest):
            if main >= following:
                self._point(main - 1)
                following = main + step
                if progress is not None:
                    progress(main - first, newest - first)
            if row is None:
                self._delete(key, main)
            else:
                self._put(KeyValue.from_row(row), 1)
        self._point(newest)

    def _put(self, kv: KeyValue, changes: int) -> None:
        facts = self._facts(kv.key)
        size = len(kv.key) + len(kv.value)
        self._live_keys += facts.live_bytes == 0
        self._live_bytes += size - facts.live_bytes
        self._kept_bytes += size
        self._puts += changes
        facts.garbage_bytes += facts.live_bytes
        facts.live_bytes = size
        facts.changes += 1
        facts.version, facts.revision = kv.version, kv.mod_revision

    def _delete(self, key: bytes, revision: int) -> None:
        facts = self._facts(key)
        self._live_keys -= facts.live_bytes > 0
        self._live_bytes -= facts.live_bytes
        self._kept_bytes += len(key)
        self._deletes += 1
        facts.garbage_bytes += facts.live_bytes + len(key)
        facts.live_bytes = 0
        facts.changes += 1
        facts.version, facts.revision = 0, revision

    def _facts(self, key: bytes) -> KeyFacts:
        facts = self.keys.get(key)
        if facts is None:
            facts = self.keys[key] = KeyFacts()
        return facts

    def _point(self, revision: int) -> None:
        self.growth.append(
            GrowthPoint(
                revision, self._live_keys, self._live_bytes, self._kept_bytes, self._puts, self._deletes
            )
        )
        self._puts = self._deletes = 0


def _changes(store: Store, first: int, newest: int) -> Iterator[tuple[int, bytes, bytes | None]]:
    while first <= newest:
        page, covered = change_page(store.engine.state, first, newest, PAGE_ROWS)
        for main, _sub, key, row in page:
            yield main, key, row
        first = covered + 1
