"""Keys as a tree by prefix: sums for each prefix, down to a depth.

Prefix      a tree in memory that keeps its largest nodes and folds the others away (``fold``)
listed      a tree of any size, a line at a time: nodes are complete only after all below them, and are sorted
            back into the order of reading in a temporary file
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.row_sort import RowSorter

from .by_key import Version

DEPTH_MAX = 32
"""Maximum depth of the tree: keys made of separators would make it as deep as they are long."""
NODES_MAX = 20_000


class KeyFacts:
    """What is known about one key."""

    __slots__ = ("changes", "garbage_bytes", "live_bytes", "revision", "version", "written_bytes")

    def __init__(self) -> None:
        self.live_bytes = 0
        """Bytes of key and value of the live version; 0: there is none."""
        self.garbage_bytes = 0
        """Bytes of superseded versions and deletes: what a compaction at the newest revision would free."""
        self.written_bytes = 0
        """Bytes of the versions written after the compaction."""
        self.changes = 0
        self.version = 0
        self.revision = 0

    def add(self, version: Version, compacted: int) -> None:
        """The key's next version."""
        self.garbage_bytes += self.live_bytes
        self.live_bytes = version.size_bytes if version.version else 0
        self.garbage_bytes += 0 if version.version else version.size_bytes
        self.written_bytes += version.size_bytes if version.main > compacted else 0
        self.changes += 1
        self.version, self.revision = version.version, version.main


@dataclass(slots=True)
class Prefix:
    """All keys that begin alike."""

    name: bytes
    keys: int = 0
    deleted_keys: int = 0
    """Keys that are gone, but of which a version or the delete is kept."""
    versions: int = 0
    live_bytes: int = 0
    garbage_bytes: int = 0
    written_bytes: int = 0
    children: dict[bytes, Prefix] = field(default_factory=dict)
    folded: int = 0
    """How many of its children were too small to keep."""

    def add(self, facts: KeyFacts) -> None:
        self.keys += facts.live_bytes > 0
        self.deleted_keys += facts.live_bytes == 0
        self.versions += facts.changes
        self.live_bytes += facts.live_bytes
        self.garbage_bytes += facts.garbage_bytes
        self.written_bytes += facts.written_bytes

    @property
    def total_bytes(self) -> int:
        return self.live_bytes + self.garbage_bytes


class Tree:
    """A tree of keys that come in ascending order. ``depth`` 0: as deep as the keys are."""

    def __init__(self, separator: bytes, depth: int = 0, nodes_max: int = NODES_MAX) -> None:
        self.root = Prefix(b"")
        self._separator = separator
        self._depth = depth
        self._nodes = 0
        self._nodes_max = nodes_max

    def add(self, key: bytes, facts: KeyFacts) -> None:
        node = self.root
        node.add(facts)
        path = [node]
        for part in cut_key(key, self._separator, self._depth):
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Prefix(node.name + part)
                self._nodes += 1
            node = child
            node.add(facts)
            path.append(node)
        if self._nodes > 2 * self._nodes_max:
            self._fold(path)

    def _fold(self, path: list[Prefix]) -> None:
        """Drop the smaller half, but nothing that leads to the last key: later keys may belong there."""
        sizes = [node.total_bytes for _, node in walk(self.root)]
        least = heapq.nlargest(self._nodes_max, sizes)[-1]
        open_nodes = {id(node) for node in path}
        for _, node in list(walk(self.root)):
            small = [
                part
                for part, child in node.children.items()
                if child.total_bytes <= least and id(child) not in open_nodes
            ]
            for part in small:
                del node.children[part]
            node.folded += len(small)
        self._nodes = sum(1 for _ in walk(self.root))


def walk(node: Prefix, level: int = 0) -> Iterator[tuple[int, Prefix]]:
    """(level, node) of a tree, a node before those below it."""
    yield level, node
    for child in node.children.values():
        yield from walk(child, level + 1)


def cut_key(key: bytes, separator: bytes, depth: int) -> list[bytes]:
    """The parts of a key down to a depth; below ``DEPTH_MAX`` the rest is one part."""
    parts = split_key(key, separator)
    if not depth and len(parts) > DEPTH_MAX:
        parts[DEPTH_MAX - 1 :] = [b"".join(parts[DEPTH_MAX - 1 :])]
    return parts[: min(depth, DEPTH_MAX) or DEPTH_MAX]


def split_key(key: bytes, separator: bytes) -> list[bytes]:
    """``/a/b/c`` as ``/``, ``a/``, ``b/``, ``c``: each part with the separator that ends it."""
    if not separator:
        return [key]
    parts = key.split(separator)
    return [part + separator for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


class Line(NamedTuple):
    """A node of a listed tree."""

    level: int
    name: bytes
    keys: int
    size_bytes: int


_LINE = struct.Struct("<QQI")
_ORDER = struct.Struct(">Q")


def listed(keys: Iterable[tuple[bytes, int]], separator: bytes, depth: int) -> Iterator[Line]:
    """The tree of (key, bytes), ascending, a line for each node."""
    with RowSorter() as sorter:
        open_lines: list[list[int]] = []  # order, keys, bytes
        names: list[bytes] = []
        count = 0

        def close(level: int) -> None:
            rows = []
            while len(open_lines) > level:
                order, keys, size_bytes = open_lines.pop()
                numbers = _LINE.pack(keys, size_bytes, len(open_lines))
                rows.append((_ORDER.pack(order), numbers + names.pop()))
            sorter.add(rows)

        for key, size_bytes in keys:
            parts = cut_key(key, separator, depth)
            level = _common(names, parts)
            close(level)
            for part in parts[level:]:
                open_lines.append([count, 0, 0])
                names.append(part)
                count += 1
            for line in open_lines:
                line[1] += 1
                line[2] += size_bytes
        close(0)
        for rows in sorter.in_order():
            for _, packed in rows:
                found, size_bytes, level = _LINE.unpack_from(packed)
                yield Line(level, packed[_LINE.size :], found, size_bytes)


def _common(one: list[bytes], other: list[bytes]) -> int:
    """How many parts two keys have in common."""
    level = 0
    while level < min(len(one), len(other)) and one[level] == other[level]:
        level += 1
    return level
