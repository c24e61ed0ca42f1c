"""The writer of the crash loop: a store under load that reports everything it does, until it is killed.

    {"step": [id, do, keys, size, lease]}    about to be called
    {"ack": [id, revision, wrote]}           has returned
    {"event": [revision, key, row]}          a watch has delivered it; ``told`` marks the end of a revision
    {"compacting": revision}  {"done": what}  {"failed": traceback}

Each message is one line, written in one ``write`` below the size that a pipe keeps whole. Three threads and four tasks
write; others watch, read, and do every kind of upkeep as often as they can. All limits are small, so checkpoints, new
segments, snapshots and releases happen all the time.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import random
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kvstore
from kvstore import ops
from kvstore.aio import AsyncStore
from kvstore.errors import Compacted
from kvstore.store import Store

from .crashloop_history import Step, row_of, value_of

THREADS = 3
TASKS = 4
LIMITS: dict[str, Any] = {
    "wal_file_size": 32_768,
    "max_wals": 2,
    "backend_batch_interval_seconds": 0.01,
    "backend_batch_limit": 64,
    "overlay_limit": 65_536,
    "snapshot_count": 300,
    "max_snapshots": 2,
    "compaction_batch_limit": 50,
    "auto_defragment_ratio": 0.3,
    "auto_defragment_min": 65_536,
    "low_disk_bytes": 0,
    "watch_buffer": 16_384,
}


class Writer:
    """One life: from opening the store to the kill."""

    def __init__(self, data_dir: str, backend: str, life: int, seed: int, since: int, pipe: int) -> None:
        self._pipe = pipe
        self._life = life
        self._seed = seed
        self._since = since
        self._told = since - 1
        self.store = kvstore.open(data_dir, backend, **LIMITS)

    def tell(self, **message: Any) -> None:
        os.write(self._pipe, json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def run(self) -> None:
        """Start everything; returns only if something failed."""
        jobs: list[Callable[[], None]] = [self._watch, self._tend, self._read, self._run_tasks]
        jobs += [functools.partial(self._write, f"t{number}") for number in range(THREADS)]
        self.tell(done="open")
        workers = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BrokenPipeError:  # the reader is gone
            os._exit(1)
        except BaseException:
            self.tell(failed=traceback.format_exc()[-3000:])
            os._exit(1)

    # --- writing ---------------------------------------------------------------------------

    def _write(self, name: str) -> None:
        worker = Worker(f"{self._life}.{name}", self._seed)
        while True:
            step = worker.next_step()
            self._announce(step)
            wrote, revision = perform(self.store, step)
            self.tell(ack=[step.id, revision, wrote])
            if step.do == "put":
                found = self.store.get(step.keys[0].encode())
                if self.store.revision < revision or (found and found.mod_revision < revision):
                    raise AssertionError(f"{step} is not seen by its own writer")

    def _run_tasks(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        store = AsyncStore(self.store.engine)
        await asyncio.gather(*(self._write_async(store, f"a{number}") for number in range(TASKS)))

    async def _write_async(self, store: AsyncStore, name: str) -> None:
        worker = Worker(f"{self._life}.{name}", self._seed)
        while True:
            step = worker.next_step()
            self._announce(step)
            wrote, revision = await perform_async(store, step)
            self.tell(ack=[step.id, revision, wrote])

    def _announce(self, step: Step) -> None:
        self.tell(step=[step.id, step.do, step.keys, step.size, step.lease])

    # --- besides the writers -----------------------------------------------------------------

    def _watch(self) -> None:
        stream = self.store.watch_stream()
        stream.create(kvstore.model.WatchRequest(b"\0", b"\0", self._since))
        while True:
            found = stream.next()
            if found is None:
                raise AssertionError("the watch ended")
            _, response = found
            if response.canceled:
                raise AssertionError(f"the watch was canceled: {response}")
            for event in response.events:
                kv = event.kv
                row = None if event.type == kvstore.EventType.DELETE else row_of(kv)
                self.tell(event=[kv.mod_revision, kv.key.decode(), row])
            if response.events:
                self._told = response.events[-1].kv.mod_revision
                self.tell(told=self._told)

    def _tend(self) -> None:
        chance = random.Random(self._seed)
        while True:
            what = chance.choice(["compact", "compact", "defragment", "snapshot", "checkpoint"])
            if what == "compact":
                self._compact(self._told - chance.randrange(30), physical=chance.random() < 0.5)
            else:
                with suppress(kvstore.Overloaded):  # the writers here leave it little memory
                    getattr(self.store, what)()
            self.tell(done=what)

    def _compact(self, revision: int, *, physical: bool) -> None:
        """Compact only what has been reported: the checker could not see the rest any more."""
        if revision <= max(self.store.compact_revision, 1):
            return
        self.tell(compacting=revision)
        try:
            self.store.compact(revision, physical=physical)
        except Compacted:
            return
        self.tell(compacted=revision)

    def _read(self) -> None:
        while True:
            revision = self.store.revision
            try:
                rows = [kv.mod_revision for kv in self.store.scan(prefix=b"", revision=revision, page_rows=7)]
            except Compacted:
                continue
            if any(mod_revision > revision for mod_revision in rows):
                raise AssertionError(f"a scan at revision {revision} showed a later one")


class Worker:
    """Draws one step after another. Keys are few, so workers meet."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._chance = random.Random(f"{seed} {name}")
        self._numbers = itertools.count()
        self._leases: list[int] = []
        """Granted by this worker in this life."""

    def next_step(self) -> Step:
        chance, name = self._chance, f"{self._name}.{next(self._numbers)}"
        do = chance.choices(
            ["put", "txn", "delete", "prefix", "ttl", "grant", "leased", "revoke"],
            [40, 20, 12, 2, 3, 4, 12, 3],
        )[0]
        size = chance.choice([30, 30, 200, 2000]) if chance.random() < 0.97 else 40_000
        if do in ("leased", "revoke") and not self._leases:
            do = "grant"
        match do:
            case "grant":
                self._leases.append(chance.getrandbits(62) + 1)
                return Step(name, "grant", lease=self._leases[-1])
            case "revoke":
                return Step(name, "revoke", lease=self._leases.pop())
            case "leased":
                return Step(name, "put", (self._key(),), size, self._leases[-1])
            case "txn":
                return Step(name, "txn", tuple(chance.sample(KEYS, chance.randrange(2, 6))), size)
            case "prefix":
                return Step(name, "prefix", (chance.choice(["a/", "b/1"]),))
        return Step(name, do, (self._key(),), size if do != "delete" else 0)

    def _key(self) -> str:
        return self._chance.choice(KEYS)


KEYS = [f"{folder}/{number}" for folder in "ab" for number in range(15)] + ["k" * 700]


def transaction(step: Step) -> list[Any]:
    *put, deleted = (key.encode() for key in step.keys)
    return [*(ops.put(key, _value(step)) for key in put), ops.delete(deleted)]


def _value(step: Step) -> bytes:
    return value_of(step.id, step.size)


def perform(store: Store, step: Step) -> tuple[bool, int]:
    """Perform a step. Returns whether it certainly made a revision, and the revision of the response."""
    key = step.keys[0].encode() if step.keys else b""
    match step.do:
        case "put":
            return True, store.put(key, _value(step), lease=step.lease).revision
        case "ttl":
            return True, store.put(key, _value(step), ttl=2).revision
        case "txn":
            return True, store.txn(success=transaction(step)).revision
        case "grant":
            return False, store.grant_lease(3600, step.lease).revision
        case "revoke":
            return False, store.revoke_lease(step.lease).revision
        case "prefix":
            deleted = store.delete(prefix=key)
            return deleted.deleted > 0, deleted.revision
    deleted = store.delete(key)
    return deleted.deleted > 0, deleted.revision


async def perform_async(store: AsyncStore, step: Step) -> tuple[bool, int]:
    """The same on an event loop."""
    key = step.keys[0].encode() if step.keys else b""
    match step.do:
        case "put":
            return True, (await store.put(key, _value(step), lease=step.lease)).revision
        case "ttl":
            return True, (await store.put(key, _value(step), ttl=2)).revision
        case "txn":
            return True, (await store.txn(success=transaction(step))).revision
        case "grant":
            return False, (await store.grant_lease(3600, step.lease)).revision
        case "revoke":
            return False, (await store.revoke_lease(step.lease)).revision
        case "prefix":
            deleted = await store.delete(prefix=key)
            return deleted.deleted > 0, deleted.revision
    deleted = await store.delete(key)
    return deleted.deleted > 0, deleted.revision
