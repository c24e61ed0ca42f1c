"""One store for each layout, the same writes to all, and what everything costs, in turns.

CPU is this process's, user and system, as clocks tell little on a machine that others use. Of several rounds the
least counts. Bytes are those that the process hands to the system while a checkpoint runs (``wchar``): whole pages.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from kvstore import ops
from kvstore.layout import DataDir
from kvstore.store import Store

from ..benchmarks.workload import TXN_PUTS, Pair, Workload, key, values
from .base import Layout
from .by_revision import BY_REVISION, INLINE
from .today import TODAY
from .undo import UNDO

LAYOUTS = (TODAY, BY_REVISION, INLINE, UNDO)
Figures = dict[str, float]
READS = 5000

UNITS = {
    "fill": "µs a put",
    "put": "µs a put",
    "txn": "µs a put",
    "checkpoint": "µs a change",
    "written": "bytes a change",
    "get": "µs",
    "range, list": "µs a key",
    "range, read": "µs a key",
    "past get": "µs",
    "past range": "µs a key",
    "replay": "µs an event",
    "compaction": "µs a change",
    "filled": "bytes a key",
    "updated": "bytes a key",
    "compacted": "bytes a key",
}
"""What is measured: ``put`` and ``txn`` (of 100) with their share of the checkpoints, one for ``changes`` changes."""


class Subject:
    """One layout on one backend."""

    def __init__(self, layout: Layout, backend: str, folder: Path, keys: int, changes: int) -> None:
        self.layout = layout
        self.backend = backend
        self.path = folder / f"{backend}-{layout.name}"
        self.workload = Workload(keys)
        self.keys = keys
        self.changes = changes
        self.figures: Figures = {}
        self._draw = random.Random(6)
        self._changed: list[bytes] = []
        self._past = 0
        """The revision before the last updates, which were of the keys ``_changed``."""
        self._compacted = 0
        self._to_compact = 0

    def fill(self) -> None:
        with self.layout.open(self.path, self.backend) as store:
            cpu = time.process_time()
            for number, pairs in enumerate(self.workload.all_pairs(), 1):
                store.txn(success=[ops.put(key, value) for key, value in pairs])
                if number % (self.changes // TXN_PUTS) == 0:
                    store.checkpoint()
            store.checkpoint()
            self._note("fill", (time.process_time() - cpu) / self.keys)
        self._note_size("filled")

    def update(self) -> None:
        """Random updates: single puts, then transactions, each with one checkpoint."""
        with self.layout.open(self.path, self.backend) as store:
            self._update(store, 1)  # warms caches up
            puts, _, _ = self._update(store, 1)
            self._note("put", puts)
            self._past = store.revision
            txn, checkpoint, written = self._update(store, TXN_PUTS)
            self._note("txn", txn)
            self._note("checkpoint", checkpoint)
            self._note("written", written)

    def _update(self, store: Store, together: int) -> tuple[float, float, float]:
        """(CPU of a put, of the checkpoint for one change, bytes written for one change)."""
        batches = [self._pairs(together) for _ in range(self.changes // together)]
        begun = time.process_time()
        for pairs in batches:
            if together > 1:
                store.txn(success=[ops.put(key, value) for key, value in pairs])
            else:
                store.put(*pairs[0])
        checkpoint, bytes_before = time.process_time(), _bytes_written()
        store.checkpoint()
        end, count = time.process_time(), self.changes
        self._to_compact += count
        self._changed = [key for pairs in batches for key, _ in pairs]
        return (end - begun) / count, (end - checkpoint) / count, (_bytes_written() - bytes_before) / count

    def _pairs(self, count: int) -> list[Pair]:
        pool = values()
        return [
            (key(number), self._draw.choice(pool)) for number in self._draw.sample(range(self.keys), count)
        ]

    def read(self) -> None:
        with self.layout.open(self.path, self.backend) as store:
            self._read(store)
            state = store.engine.state
            count, cpu = 0, time.process_time()
            for page in self.layout.replay(state, self._past - self.changes, store.revision):
                count += len(page)
            self._note("replay", (time.process_time() - cpu) / count)

    def _read(self, store: Store) -> None:
        keys = self.workload.some_keys(min(READS, self.keys))
        ranges = self.workload.ranges(20, min(1000, self.keys // 2))
        length = 20 * min(1000, self.keys // 2)

        def gets(keys: list[bytes], revision: int = 0) -> None:
            for each in keys:
                store.get(each, revision=revision).value  # type: ignore[union-attr]  # noqa: B018

        def listed() -> None:
            for start, end in ranges:
                list(store.range(start, end).kvs)

        def read() -> None:
            for start, end in ranges:
                for kv in store.range(start, end).kvs:
                    kv.value  # noqa: B018

        def listed_past() -> None:
            for start, end in ranges:
                list(store.range(start, end, revision=self._past).kvs)

        self._time("get", len(keys), lambda: gets(keys))
        self._time("range, list", length, listed)
        self._time("range, read", length, read)
        changed = self._changed[:READS]
        self._time("past get", len(changed), lambda: gets(changed, self._past))
        self._time("past range", length, listed_past)

    def compact(self) -> None:
        self._note_size("updated")
        with self.layout.open(self.path, self.backend) as store:
            backend = store.engine.backend
            cpu = time.process_time()
            self.layout.compact(backend, self._compacted, self._past)
            self._note("compaction", (time.process_time() - cpu) / (self._to_compact - self.changes))
            self._compacted, self._to_compact = self._past, self.changes
            in_use = backend.in_use_bytes()
        self.figures["compacted"] = in_use / self.keys

    def _time(self, name: str, count: int, work: Callable[[], None]) -> None:
        work()
        cpu = time.process_time()
        work()
        self._note(name, (time.process_time() - cpu) / count)

    def _note(self, name: str, value: float) -> None:
        """Seconds become µs; of rounds, the least counts."""
        value = value if UNITS[name].startswith("bytes") else value * 1e6
        self.figures[name] = min(value, self.figures.get(name, value))

    def _note_size(self, name: str) -> None:
        self.figures[name] = DataDir.at(self.path).db.stat().st_size / self.keys


def _bytes_written() -> int:
    fields = Path("/proc/self/io").read_text().split()
    return int(fields[fields.index("wchar:") + 1])


def measure(
    folder: Path, backend: str, keys: int, changes: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Figures]:
    """The figures of each layout, by name."""
    values()
    subjects = [Subject(layout, backend, folder, keys, changes) for layout in LAYOUTS]
    for subject in subjects:
        subject.fill()
        say(f"{backend}, {subject.layout.name}: filled")
    for number in range(rounds):
        for subject in subjects:
            subject.update()
        for subject in subjects:
            subject.read()
        for subject in subjects:
            subject.compact()
        say(f"{backend}: round {number + 1} of {rounds}")
    return {subject.layout.name: subject.figures for subject in subjects}
