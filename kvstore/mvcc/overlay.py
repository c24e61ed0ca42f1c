"""Changes that are in the log but not yet in the backend.

A ``Generation`` collects changes between two checkpoints. Writers fill the active one; a checkpoint freezes it,
opens a new one in front and carries the frozen one into the backend. Generations are looked up newest first:

    reads:  active generation -> frozen generation (while a checkpoint runs) -> backend

A change lies in a generation from the moment it is planned, before its log record is synced; readers ask at the
published revision and so never see it too early. Once the backend has committed a frozen generation, it may
vanish from under a reader at any moment. That is harmless for readers that keep one rule:

    look into the generations first, open the backend's read transaction after.

What was missing in the generations is then in the backend, and what is in both is the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from threading import Lock

from sortedcontainers import SortedList

DRAIN_CHUNK = 256
DRAIN_PAUSE_SECONDS = 0.0001
_CHANGE_OVERHEAD_BYTES = 300


ChangedRow = tuple[int, int, bytes, bytes | None]
"""One change: (main, sub, key, the row that it wrote; None for a delete).

A plain tuple of plain values: the garbage collector stops looking at it after the first time, and there may be
100,000 of them in memory, whose collection would hold up every thread.
"""


class Generation:
    """The changes of a span of revisions, by key and in order."""

    def __init__(self) -> None:
        self.newest: dict[bytes, ChangedRow] = {}
        """The last change of each key."""
        self.earlier: dict[bytes, list[ChangedRow]] = {}
        """The changes before that one, oldest first, of keys that were changed more than once."""
        self.changes: list[ChangedRow] = []
        self.rows: dict[str, dict[bytes, bytes | None]] = {}
        """Pending rows of the small tables (lease, attachment, alarm, meta); None deletes."""
        self.last_index = 0
        self.last_revision = 0
        self.size_bytes = 0
        self._unsorted: list[bytes] = []
        self._sorted: SortedList = SortedList()
        self._sorting = Lock()

    def add(self, change: ChangedRow) -> None:
        _, _, key, row = change
        before = self.newest.get(key)
        if before is None:
            self._unsorted.append(key)
        else:  # first among the earlier ones: a reader may look at any moment
            self.earlier.setdefault(key, []).append(before)
        self.newest[key] = change
        self.changes.append(change)
        self.size_bytes += _CHANGE_OVERHEAD_BYTES + (len(row) if row else len(key))

    def add_missing(self, changes: Sequence[ChangedRow]) -> None:
        """Add the newest changes, of which an interrupted ``add`` may have left any part behind."""
        for change in changes:
            main, sub, key, _ = change
            before = self.newest.get(key)
            if before is None:
                if self._unsorted[-1:] != [key]:
                    self._unsorted.append(key)
            elif before[:2] >= (main, sub):
                continue
            elif self.earlier.get(key, [])[-1:] != [before]:
                self.earlier.setdefault(key, []).append(before)
            self.newest[key] = change
        last = self.changes[-1][:2] if self.changes else (0, -1)
        self.changes.extend([change for change in changes if change[:2] > last])

    def set_row(self, table: str, key: bytes, value: bytes | None) -> None:
        self.rows.setdefault(table, {})[key] = value
        self.size_bytes += _CHANGE_OVERHEAD_BYTES

    def at(self, key: bytes, revision: int) -> ChangedRow | None:
        """The newest change of ``key`` at or below ``revision``, if it is in this generation."""
        change = self.newest.get(key)
        if change is None or change[0] <= revision:
            return change
        for change in reversed(self.earlier.get(key, ())):
            if change[0] <= revision:
                return change
        return None

    def of(self, key: bytes) -> list[ChangedRow]:
        """All changes of ``key``, oldest first."""
        newest = self.newest.get(key)
        return [] if newest is None else [*self.earlier.get(key, ()), newest]

    def keys(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The first ``limit`` changed keys in [start, end), ascending."""
        if not self.newest:
            return []
        with self._sorting:
            count = len(self._unsorted)
            if count:  # writers append meanwhile; only what was counted is taken
                self._sorted.update(self._unsorted[:count])
                del self._unsorted[:count]
            return list(islice(self._sorted.irange(start, end, inclusive=(True, False)), limit))

    def drain(self) -> None:
        """Let go of the contents in small steps: freeing 10,000 objects at once would stall every thread."""
        for container in (self.earlier, self.newest, self.changes):
            while container:
                for _ in range(min(DRAIN_CHUNK, len(container))):
                    container.popitem() if isinstance(container, dict) else container.pop()
                time.sleep(DRAIN_PAUSE_SECONDS)


Generations = tuple[Generation, ...]
"""Newest first. Replaced as a whole, never changed in place."""


def overlay_slice(
    generations: Generations, start: bytes, end: bytes | None, revision: int, limit: int
) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """What the generations say about [start, end) at ``revision``: key -> row, None = deleted.

    Also the last key up to which the answer is complete (None: to ``end``).
    """
    found: dict[bytes, bytes | None] = {}
    horizon: bytes | None = None
    for generation in reversed(generations):
        keys = generation.keys(start, end, limit)
        if len(keys) == limit and (horizon is None or keys[-1] < horizon):
            horizon = keys[-1]
        for key in keys:
            change = generation.at(key, revision)
            if change is not None:
                found[key] = change[3]
    if horizon is not None:
        found = {key: row for key, row in found.items() if key <= horizon}
    return found, horizon
