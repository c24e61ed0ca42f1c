"""A service's life in one process, for as long as it is told: everything at once that happens around a store.

    python -m tests.proof.ordinary_life DATA_DIR BACKEND SECONDS SEED

The main thread makes calls that a timer interrupts; threads write and read; event loops come and go with puts on
their way; processes read beside it, and are stopped and killed; the clock jumps; compaction, snapshots and
defragmentation go on. Prints one line of JSON: what was done, what went wrong, and the memory at some moments.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kvstore
from kvstore import AsyncStore, KVStoreError, Store
from tests.harness.alarm import Alarm

READER = """
import sys, kvstore
while True:
    try:
        with kvstore.open(sys.argv[1], sys.argv[2], read_only=True) as store:
            for _ in range(20):
                found = {kv.key: kv for kv in store.scan(prefix=b"pair/")}
                assert len({kv.mod_revision for kv in found.values()}) <= 1, "part of a transaction"
                store.count(prefix=b"")
    except kvstore.KVStoreError as error:
        if not error.retryable and not isinstance(error, kvstore.Compacted):
            print("reader:", repr(error), flush=True)
"""
MEMORY_SAMPLES = 12


class Limit(Exception):
    """Raised by the signal handler."""


class Life:
    """The store, and what goes on around it."""

    def __init__(self, data_dir: Path, backend: str, seconds: float, seed: int) -> None:
        self.data_dir, self.backend = data_dir, backend
        self.ends = time.monotonic() + seconds
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.offset_seconds = 0.0
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.acknowledged: dict[bytes, int] = {}
        self.memory_bytes: list[int] = []
        self.store: Store = kvstore.open(
            data_dir,
            backend,
            clock=lambda: time.time() + self.offset_seconds,
            low_disk_bytes=0,
            wal_file_size=1_000_000,
            max_wals=3,
            snapshot_count=20_000,
            max_snapshots=2,
            backend_batch_interval_seconds=0.05,
            auto_compaction_mode="revision",
            auto_compaction_retention="2000",
        )

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.ends

    def attempt(self, what: str, call: Callable[[], object]) -> None:
        """Make a call of another thread; any error but a temporary one is wrong."""
        try:
            call()
            self.done[what] += 1
        except kvstore.Compacted:
            self.done["overtaken"] += 1
        except KVStoreError as error:
            if not error.retryable:
                self.wrong[f"{what}: {error!r}"[:200]] += 1
        except Exception as error:
            self.wrong[f"{what}: {error!r}"[:200]] += 1

    # --- threads ----------------------------------------------------------------------

    def write(self, number: int) -> None:
        chance = random.Random(number)
        key = b"thread/%d" % number

        def put() -> None:
            self.acknowledged[key] = self.store.put(key, b"v" * chance.randrange(300)).revision

        def pair() -> None:
            value = b"%d" % chance.randrange(1 << 30)
            self.store.txn(success=[kvstore.ops.put(b"pair/%d" % each, value) for each in range(4)])

        def lease() -> None:
            self.store.put(b"lease/%d" % chance.randrange(50), b"v", ttl=1)

        while self.goes_on:
            self.attempt("write", chance.choice((put, put, put, pair, lease)))
            time.sleep(0.001)

    def read(self) -> None:
        def look() -> None:
            pairs = self.store.range(prefix=b"pair/").kvs
            assert len({kv.mod_revision for kv in pairs}) <= 1, "part of a transaction"
            list(self.store.history(b"pair/1", since=max(1, self.store.revision - 50)))

        while self.goes_on:
            self.attempt("read", look)
            time.sleep(0.002)

    def loop(self) -> None:
        async def some() -> None:
            store = AsyncStore(self.store.engine)
            tasks = [asyncio.ensure_future(store.put(b"task/%d" % each, b"v")) for each in range(20)]
            if random.random() < 0.5:
                await asyncio.gather(*tasks)
            else:
                await asyncio.sleep(0)

        while self.goes_on:
            self.attempt("loop", lambda: asyncio.run(some()))
            time.sleep(0.02)

    def watch(self) -> None:
        def follow() -> None:
            with self.store.watch(prefix=b"thread/") as events:
                seen = 0
                for _ in range(200):
                    try:
                        event = events.get(timeout=1)
                    except TimeoutError:
                        break
                    assert event.kv.mod_revision >= seen, "events out of order"
                    seen = event.kv.mod_revision

        while self.goes_on:
            self.attempt("watch", follow)

    def keep_house(self) -> None:
        works: list[tuple[str, Callable[[], object]]] = [
            ("compact", lambda: self.store.compact(max(1, self.store.revision - 100), physical=True)),
            ("defragment", self.store.defragment),
            ("snapshot", self.store.snapshot),
        ]
        while self.goes_on:
            what, call = self.chance.choice(works)
            try:
                call()
                self.done[what] += 1
            except (kvstore.Compacted, kvstore.Overloaded):
                pass
            except KVStoreError as error:
                if not error.retryable:
                    self.wrong[f"{what}: {error!r}"[:200]] += 1
            self.offset_seconds = self.chance.choice((0.0, 0.0, 86_400.0, -365 * 86_400.0, 3_600.0))
            time.sleep(0.5)

    def beside(self) -> None:
        """Processes that read; they are stopped for a while, or killed."""
        command = [sys.executable, "-c", READER, str(self.data_dir), self.backend]
        while self.goes_on:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                time.sleep(min(self.chance.uniform(0.5, 4), max(self.ends - time.monotonic(), 0.1)))
                if self.chance.random() < 0.5:
                    process.send_signal(signal.SIGSTOP)
                    time.sleep(self.chance.uniform(0, 1))
                    process.send_signal(signal.SIGCONT)
                process.kill()
                said, _ = process.communicate()
            self.done["reader"] += 1
            for line in said.splitlines():
                self.wrong[line[:200]] += 1

    def weigh(self) -> None:
        while self.goes_on:
            time.sleep(self.seconds / MEMORY_SAMPLES)
            gc.collect()
            self.memory_bytes.append(resident_bytes())

    # --- the main thread --------------------------------------------------------------

    def interrupted_calls(self) -> None:
        number = 0
        with Alarm(Limit) as alarm:
            while self.goes_on:
                number += 1
                self._interrupted_call(alarm, number)
                time.sleep(0.002)

    def _interrupted_call(self, alarm: Alarm, number: int) -> None:
        try:
            with alarm.within(self.chance.random() * 0.003 + 1e-6):
                key = b"main/%d" % (number % 20)
                self.acknowledged[key] = self.store.put(key, b"%d" % number).revision
                self.store.get(key)
                self.store.count(prefix=b"main/")
                if number % 50 == 0:
                    self.store.checkpoint()
                self.done["main"] += 1
        except Limit:
            self.done["interrupted"] += 1
        except KVStoreError as error:
            if not error.retryable:
                self.wrong[f"main: {error!r}"[:200]] += 1

    def run(self) -> None:
        works = [
            *(threading.Thread(target=self.write, args=(number,)) for number in range(3)),
            *(threading.Thread(target=target) for target in (self.read, self.loop, self.watch)),
            *(threading.Thread(target=target) for target in (self.keep_house, self.beside, self.weigh)),
        ]
        for thread in works:
            thread.start()
        self.interrupted_calls()
        for thread in works:
            thread.join()
        self.offset_seconds = 0.0
        self.store.close()
        with kvstore.open(self.data_dir, self.backend, low_disk_bytes=0) as store:
            for key, revision in self.acknowledged.items():
                kv = store.get(key)
                if kv is None or kv.mod_revision < revision:
                    self.wrong[f"lost {key!r}"] += 1
        for finding in kvstore.verify(self.data_dir, deep=True).findings:
            self.wrong[f"verify: {finding}"[:200]] += 1


def resident_bytes() -> int:
    """Anonymous memory of this process: mapped files come and go as the system likes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    data_dir, backend, seconds, seed = sys.argv[1:]
    logging.disable(logging.WARNING)
    sys.unraisablehook = lambda _: None  # an interruption inside a finalizer
    life = Life(Path(data_dir), backend, float(seconds), int(seed))
    life.run()
    print(json.dumps({"done": life.done, "wrong": life.wrong, "memory_bytes": life.memory_bytes}), flush=True)
    os._exit(bool(life.wrong))


if __name__ == "__main__":
    main()
