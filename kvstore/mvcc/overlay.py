"""Changes that are in the log but not yet in the backend.

A ``Generation`` collects the changes between two checkpoints. Writers fill the active one; a checkpoint freezes it,
opens a new one in front and moves the frozen one into the backend. Generations are looked up newest first:

    reads:  active generation -> frozen generation (while a checkpoint runs) -> backend

A change is in a generation from the moment it is planned, before its log record is synced; readers ask at the
published revision and so never see it too early.

One look, one state. Every read, and every page of a long one, follows one rule (``State.look``):

    take the tuple of generations, once
    then open the backend's read transaction
    then ask what was compacted

Whatever was missing in the generations is then in the transaction, and what is in both is the same. That holds
however long the reader is held up between any two steps, because what it has taken does not change: the tuple is
replaced, never changed; a generation only grows, by changes newer than what the reader asks for, and is emptied
only once it is no longer referenced (``Remains``). Readers take no lock here, and hold none when they are
interrupted: what they compute for later readers (``Generation.keys``) is put in place by one assignment.
"""

from __future__ import annotations

import time
import weakref
from bisect import bisect_left
from collections.abc import Sequence, Sized
from typing import Any

from kvstore.implementation import native

DRAIN_CHUNK = 256
DRAIN_PAUSE_SECONDS = 0.0001
HELD_SECONDS = 0.01
"""How long ``Remains`` waits for readers that still use the generation."""
_CHANGE_OVERHEAD_BYTES = 300
_RUN_RATIO = 4


ChangedRow = tuple[int, int, bytes, bytes | None]
"""One change: (main, sub, key, the row that it wrote; None for a delete).

A plain tuple of plain values: the garbage collector untracks it after the first pass. There may be 100,000 of them
in memory, and tracking them would make each collection stall every thread.
"""


@native
def add_changes(
    newest: dict[bytes, ChangedRow],
    earlier: dict[bytes, list[ChangedRow]],
    order: list[bytes],
    changes: list[ChangedRow],
    added: Sequence[ChangedRow],
) -> int:
    """Put changes into the parts of a ``Generation``. Returns the bytes of their rows, or of the keys they delete."""
    size_bytes = 0
    for change in added:
        _, _, key, row = change
        before = newest.get(key)
        if before is None:
            order.append(key)
        else:  # ``earlier`` comes first: a reader may look at any moment
            earlier.setdefault(key, []).append(before)
        newest[key] = change
        changes.append(change)
        size_bytes += len(row) if row else len(key)
    return size_bytes


@native
def newest_rows(
    newest: tuple[dict[bytes, ChangedRow], ...], keys: list[bytes], found: dict[bytes, bytes | None]
) -> list[bytes]:
    """Put the row of each key into ``found``, from the first of ``newest`` that has it. Returns the other keys."""
    missing = []
    for key in keys:
        for changes in newest:
            change = changes.get(key)
            if change is not None:
                found[key] = change[3]
                break
        else:
            missing.append(key)
    return missing


_Runs = tuple[list[bytes], ...]
"""Keys, sorted within each run. Runs are replaced, never changed."""


class Generation:
    """The changes of a span of revisions, by key and in order."""

    def __init__(self) -> None:
        self.newest: dict[bytes, ChangedRow] = {}
        """The last change of each key."""
        self.earlier: dict[bytes, list[ChangedRow]] = {}
        """The changes before that one, oldest first, of keys that were changed more than once."""
        self.changes: list[ChangedRow] = []
        self.order: list[bytes] = []
        """The keys, in the order of their changes. (A key may be here twice, which does no harm.)"""
        self.rows: dict[str, dict[bytes, bytes | None]] = {}
        """Pending rows of the small tables (lease, attachment, alarm, meta); None deletes."""
        self.last_index = 0
        self.last_revision = 0
        self.size_bytes = 0
        self._sorted: tuple[_Runs, int] = (), 0
        """The keys in sorted runs, each much longer than the next, and how many of ``order`` they cover."""

    def add(self, added: Sequence[ChangedRow]) -> None:
        """Add changes, newer than all that are here."""
        size_bytes = add_changes(self.newest, self.earlier, self.order, self.changes, added)
        self.size_bytes += _CHANGE_OVERHEAD_BYTES * len(added) + size_bytes

    def add_missing(self, changes: Sequence[ChangedRow]) -> None:
        """Add the newest changes, of which an interrupted ``add`` may have added some already."""
        for change in changes:
            main, sub, key, _ = change
            before = self.newest.get(key)
            if before is None:
                self.order.append(key)
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

    def delete_rows(self, table: str, keys: list[bytes]) -> None:
        self.rows.setdefault(table, {}).update(dict.fromkeys(keys))
        self.size_bytes += _CHANGE_OVERHEAD_BYTES * len(keys)

    def at(self, key: bytes, revision: int) -> ChangedRow | None:
        """The newest change of ``key`` at or below ``revision``, if it is in this generation."""
        change = self.newest.get(key)
        if change is None or change[0] <= revision:
            return change
        earlier = self.earlier.get(key, ())
        count = bisect_left(earlier, (revision + 1,))
        return earlier[count - 1] if count else None

    def of(self, key: bytes, first: int = 0) -> list[ChangedRow]:
        """The changes of ``key``, oldest first: those from revision ``first`` on, and the one before them.

        All as of one moment: the newest is taken first, and then only what came before it.
        """
        newest = self.newest.get(key)
        if newest is None:
            return []
        earlier = self.earlier.get(key, ())
        begin = max(bisect_left(earlier, (first,)) - 1, 0)
        return [*earlier[begin : bisect_left(earlier, newest[:2])], newest]

    def keys(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The first ``limit`` changed keys in [start, end), ascending."""
        runs = self._runs()
        found: list[bytes] = []
        for run in runs:
            low = bisect_left(run, start) if start else 0
            high = len(run) if end is None else bisect_left(run, end, low)
            if low < high:
                found += run[low : min(high, low + limit)]
        if len(runs) > 1:
            found.sort()
        return found if len(found) <= limit else found[:limit]

    def last_keys(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The last ``limit`` changed keys in [start, end), ascending."""
        found: list[bytes] = []
        for run in self._runs():
            low = bisect_left(run, start) if start else 0
            high = len(run) if end is None else bisect_left(run, end, low)
            found += run[max(low, high - limit) : high]
        return sorted(found)[-limit:]

    def _runs(self) -> _Runs:
        """All changed keys, in sorted runs."""
        runs, taken = self._sorted
        count = len(self.order)
        if count > taken:  # writers go on appending; only what was counted is taken
            runs = _with_run(runs, sorted(self.order[taken:count]))
            self._sorted = runs, count
        return runs


def _with_run(runs: _Runs, new: list[bytes]) -> _Runs:
    """The runs and a new one, merged with those before it that are not much longer."""
    kept = len(runs)
    while kept and len(runs[kept - 1]) < _RUN_RATIO * len(new):
        kept -= 1
        new = sorted(runs[kept] + new)  # sort() recognizes the two runs and merges them
    return *runs[:kept], new


Generations = tuple[Generation, ...]
"""Newest first. Replaced as a whole, never changed in place."""


class Remains:
    """The contents of a generation that the backend now has and the state has dropped.

    Freeing 10,000 objects at once would stall every thread, so they are freed in small steps, but not while a reader
    still uses them. The caller that makes one of these drops the generation, then calls ``drain``.
    """

    def __init__(self, generation: Generation) -> None:
        self._held = weakref.ref(generation)
        self._contents: list[Sized] = [
            generation.earlier,
            generation.newest,
            *generation.rows.values(),
            generation.order,
            generation.changes,
        ]

    def drain(self) -> None:
        """Free the contents; if a reader keeps the generation for long, it is that reader that frees them."""
        deadline = time.monotonic() + HELD_SECONDS
        while self._held() is not None:
            if time.monotonic() > deadline:
                return self._contents.clear()
            time.sleep(DRAIN_PAUSE_SECONDS)
        for container in self._contents:
            _empty(container)


def _empty(container: Any) -> None:
    remove = container.popitem if isinstance(container, dict) else container.pop
    while container:
        for _ in range(min(DRAIN_CHUNK, len(container))):
            remove()
        time.sleep(DRAIN_PAUSE_SECONDS)


def overlay_slice(
    generations: Generations, start: bytes, end: bytes | None, revision: int, limit: int
) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """What the generations say about [start, end) at ``revision``: key -> row, None if deleted.

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
