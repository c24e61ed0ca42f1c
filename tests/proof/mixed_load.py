"""Everything that a store is asked for in an ordinary hour, at a steady pace, and what memory it takes meanwhile.

    python -m tests.proof.mixed_load DATA_DIR BACKEND SECONDS

One thread writes (puts, transactions of 100, deletes, leases), another in bursts of 5,000 puts, one reads
(gets, ranges, the past), one follows a watch and opens and closes others, one compacts and defragments. Prints one line
of JSON: how often each was done, what went wrong, and anonymous memory at 60 moments. What waits for a checkpoint is
bounded tightly (``overlay_limit``): on a busy machine it would be all that one sees.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kvstore
from kvstore import ops

from .ordinary_life import resident_bytes

KEYS = 20_000
SAMPLES = 60
BURST_PUTS = 5_000
BURSTS = 100
HOUSEKEEPING = 60
KEPT_REVISIONS = 2_000
PAUSE_SECONDS = 0.004
OVERLAY_BYTES = 4 << 20


class Load:
    def __init__(self, data_dir: Path, backend: str, seconds: float) -> None:
        self.seconds = seconds
        self.store = kvstore.open(
            data_dir, backend, durability="interval", low_disk_bytes=0, overlay_limit=OVERLAY_BYTES
        )
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.memory_bytes: list[int] = []
        self._ends = time.monotonic() + seconds

    def run(self) -> None:
        works = (self.write, self.burst, self.read, self.follow, self.churn, self.keep_house)
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        while self._goes_on:
            time.sleep(self.seconds / SAMPLES)
            gc.collect()
            self.memory_bytes.append(resident_bytes())
        for thread in threads:
            thread.join()
        self.store.close()

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._ends

    def _repeat(self, work: Callable[[random.Random], None]) -> None:
        draw = random.Random(work.__name__)
        while self._goes_on:
            try:
                work(draw)
                self.done[work.__name__] += 1
            except kvstore.Compacted:
                self.done["overtaken"] += 1
            except kvstore.Overloaded:
                self.done["gave way"] += 1  # a defragmentation, to writers
            except Exception as error:
                self.wrong[f"{work.__name__}: {error!r}"[:200]] += 1
            time.sleep(PAUSE_SECONDS)

    def write(self, draw: random.Random) -> None:
        kind = draw.random()
        if kind < 0.6:
            self.store.put(_key(draw), _value(draw))
        elif kind < 0.7:
            self._put_many(draw)
        elif kind < 0.9:
            self.store.delete(_key(draw))
        else:
            self.store.put(b"lease/%d" % draw.randrange(500), _value(draw), ttl=2)

    def burst(self, draw: random.Random) -> None:
        for _ in range(BURST_PUTS // 100):
            self._put_many(draw)
        self._sleep(self.seconds / BURSTS)

    def _put_many(self, draw: random.Random) -> None:
        keys = {_key(draw) for _ in range(100)}
        self.store.txn(success=[ops.put(key, _value(draw)) for key in keys])

    def read(self, draw: random.Random) -> None:
        self.store.get(_key(draw))
        list(self.store.range(_key(draw), b"key/~", limit=500).kvs)
        self.store.get(_key(draw), revision=max(self.store.revision - 500, 1))

    def follow(self, _draw: random.Random) -> None:
        with self.store.watch(prefix=b"key/") as events:
            for _ in range(5_000):
                if not self._goes_on:
                    return
                try:
                    events.get(timeout=1)
                except TimeoutError:
                    continue

    def churn(self, draw: random.Random) -> None:
        revision = max(self.store.revision - 200, 1)
        with self.store.watch(_key(draw), b"key/~", start_revision=revision) as events:
            for _ in range(20):
                try:
                    events.get(timeout=0.1)
                except TimeoutError:
                    return

    def keep_house(self, _draw: random.Random) -> None:
        self._sleep(self.seconds / HOUSEKEEPING)
        self.store.compact(max(self.store.revision - KEPT_REVISIONS, 1), physical=True)
        if self.done["keep_house"] % 10 == 9:
            self.store.defragment()

    def _sleep(self, seconds: float) -> None:
        time.sleep(max(min(seconds, self._ends - time.monotonic()), 0))


def _key(draw: random.Random) -> bytes:
    return b"key/%08d" % draw.randrange(KEYS)


def _value(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(50, 500))


def main() -> None:
    data_dir, backend, seconds = sys.argv[1:]
    load = Load(Path(data_dir), backend, float(seconds))
    load.run()
    print(json.dumps({"done": load.done, "wrong": load.wrong, "memory_bytes": load.memory_bytes}))


if __name__ == "__main__":
    main()
