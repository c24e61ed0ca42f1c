"""AsyncStore: tasks share syncs, are woken together, may be cancelled, and all hear of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import kvstore
from kvstore import AsyncStore, StoreClosed, StorePoisoned
from kvstore.files import Disk, OSDisk
from kvstore.model import Alarm
from kvstore.options import Options
from kvstore.recovery import open_engine
from tests.harness.gated_disk import GatedDisk

TASKS = 64


@asynccontextmanager
async def opened(path: Path, disk: Disk, backend: str = "memory") -> AsyncIterator[AsyncStore]:
    store = AsyncStore(open_engine(path, Options(background=False, backend=backend), disk))
    try:
        yield store
    finally:
        await store.close()


async def waiting_for_sync(disk: GatedDisk) -> None:
    await asyncio.to_thread(disk.wait_for_sync)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "memory"])
def test_the_twin_answers_as_the_store_does(scratch: Path, backend: str) -> None:
    """Every kind of call, awaited."""

    async def main() -> None:
        async with kvstore.open_async(scratch / "data", backend) as store:
            first = (await store.put(b"a/1", b"x")).revision
            await store.txn(success=[kvstore.ops.put(b"a/2", b"y"), kvstore.ops.put(b"b", b"z")])
            kv = await store.get(b"a/1")
            assert kv is not None
            assert kv.value == b"x"
            assert await store.get(b"b", revision=first) is None
            assert [kv.key async for kv in store.scan(prefix=b"a/")] == [b"a/1", b"a/2"]
            assert await store.count(prefix=b"") == 3
            assert (await store.delete(prefix=b"a/", prev_kv=True)).deleted == 2
            assert [kv.version async for kv in store.history(b"a/1")] == [1, 0]
            assert [change.key async for change in store.diff(first)] == [b"a/1", b"b"]
            assert await store.at(first).get(b"a/1") == kv
            lease = (await store.grant_lease(30)).id
            assert (await store.keep_alive(lease)).ttl == 30
            assert await store.leases() == (lease,)
            await store.put(b"leased", lease=lease)
            await store.revoke_lease(lease)
            assert await store.get(b"leased") is None
            assert (await store.range(b"b")).kvs[0].value == b"z"
            estimate = await store.compaction_estimate(store.revision)
            assert (estimate.changes, estimate.versions) == (6, 3)
            await store.compact(store.revision)
            assert store.compact_revision == store.revision
            await store.checkpoint()
            saved = await store.snapshot(scratch / "copy.snap")
            assert saved.revision == store.revision
            assert (await store.defragment_estimate()).size_bytes > 0
            assert (await store.status()).revision == store.revision
            assert (await store.health()).healthy
            assert await store.alarms() == await store.disarm(Alarm(1, "NOSPACE")) == ()
            assert (await store.hash_kv()).hash_revision == store.revision
            with pytest.raises(kvstore.Compacted):
                await store.get(b"b", revision=1)
        with pytest.raises(StoreClosed):
            await store.put(b"k")

    asyncio.run(main())


def test_the_twin_has_every_call_of_the_store() -> None:
    """What ``Store`` can do ``AsyncStore`` can."""

    def calls(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert calls(kvstore.Store) - calls(AsyncStore) == set()


def test_tasks_share_a_sync(scratch: Path) -> None:
    """64 tasks that put while a sync is under way need one more, and their revisions follow their order."""

    async def main() -> None:
        disk = GatedDisk()
        async with opened(scratch / "data", disk) as store:
            disk.hold()
            first = asyncio.create_task(store.put(b"first"))
            await asyncio.sleep(0)
            await waiting_for_sync(disk)
            tasks = [asyncio.create_task(store.put(b"%d" % number)) for number in range(TASKS)]
            while len(store.engine.writer.asked) < TASKS:
                await asyncio.sleep(0)
            assert not first.done()
            before = disk.syncs
            disk.release()
            answers = await asyncio.gather(first, *tasks)
            assert [answer.revision for answer in answers] == list(range(2, TASKS + 3))
            assert disk.syncs - before == 2

    asyncio.run(main())


def test_a_cancelled_task_does_not_disturb_the_others(scratch: Path) -> None:
    """Its write was planned, so it happens; nobody else notices."""

    async def main() -> None:
        disk = GatedDisk()
        async with opened(scratch / "data", disk) as store:
            disk.hold()
            tasks = [asyncio.create_task(store.put(b"%d" % number)) for number in range(TASKS)]
            await asyncio.sleep(0)
            await waiting_for_sync(disk)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.sleep(0)
            disk.release()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for number, outcome in enumerate(outcomes):
                if number % 2:
                    assert not isinstance(outcome, BaseException)
                    assert outcome.revision == number + 2
                else:
                    assert isinstance(outcome, asyncio.CancelledError)
            assert (await store.put(b"after")).revision == TASKS + 2
            assert await store.count(prefix=b"") == TASKS + 1

    asyncio.run(main())


def test_a_failed_sync_reaches_every_task(scratch: Path) -> None:
    """All waiting tasks get StorePoisoned with the cause, and so do later ones; nothing was lost before."""

    async def main() -> None:
        disk = GatedDisk()
        async with opened(scratch / "data", disk) as store:
            await store.put(b"acknowledged")
            disk.hold()
            tasks = [asyncio.create_task(store.put(b"%d" % number)) for number in range(TASKS)]
            await asyncio.sleep(0)
            await waiting_for_sync(disk)
            disk.failing = True
            disk.release()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for outcome in outcomes:
                assert isinstance(outcome, StorePoisoned) and isinstance(outcome.__cause__, OSError)
            with pytest.raises(StorePoisoned):
                await store.txn(success=[kvstore.ops.put(b"later")])
            assert await store.get(b"acknowledged") is not None
            assert store.revision == 2
        async with opened(scratch / "data", OSDisk()) as again:
            assert await again.get(b"acknowledged") is not None

    asyncio.run(main())


def test_reading_goes_on_while_a_sync_is_under_way(scratch: Path) -> None:
    """The loop is not blocked by the disk, and readers see what is durable."""

    async def main() -> None:
        disk = GatedDisk()
        async with opened(scratch / "data", disk) as store:
            await store.put(b"k", b"old")
            disk.hold()
            task = asyncio.create_task(store.put(b"k", b"new"))
            await asyncio.sleep(0)
            await waiting_for_sync(disk)
            kv = await store.get(b"k")
            assert kv is not None
            assert (kv.value, [kv.value async for kv in store.scan(prefix=b"")]) == (b"old", [b"old"])
            disk.release()
            await task
            kv = await store.get(b"k")
            assert kv is not None
            assert kv.value == b"new"

    asyncio.run(main())
