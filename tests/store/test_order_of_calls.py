"""Writes of one task are made in the order of its calls, whichever they are, and whether or not they are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import AsyncStore, ops
from kvstore.options import Options
from kvstore.recovery import open_engine
from tests.harness.gated_disk import GatedDisk


@pytest.fixture(params=["memory", "lmdb", "sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def busy(path: Path, backend: str) -> AsyncIterator[tuple[AsyncStore, GatedDisk]]:
    """A store that syncs a write, so that others can only be put down until ``disk.release()``."""
    disk = GatedDisk()
    async with AsyncStore(open_engine(path, Options(background=False, backend=backend), disk)) as store:
        disk.hold()
        first = asyncio.ensure_future(store.put(b"first"))
        await asyncio.sleep(0)
        await asyncio.to_thread(disk.wait_for_sync)
        try:
            yield store, disk
        finally:
            disk.release()
        await first


def begun(*calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(call) for call in calls]


def test_one_that_is_not_waited_for_does_not_overtake(scratch: Path, backend: str) -> None:
    """``put_nowait`` plans on the spot, and with it whatever its task has put down before."""

    async def main() -> None:
        async with busy(scratch / "data", backend) as (store, disk):
            tasks = begun(store.put(b"k", b"1"), store.put(b"lease", lease=9), store.delete(b"first"))
            await asyncio.sleep(0)
            ticket = store.put_nowait(b"k", b"2")
            tasks += begun(store.put(b"k", b"3"))
            await asyncio.sleep(0)
            disk.release()
            assert (await store.wait(ticket)).revision == 5
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers.pop(1), kvstore.LeaseNotFound)
            assert [answer.revision for answer in answers if not isinstance(answer, BaseException)] == [
                3,
                4,
                6,
            ]
            found = await store.get(b"k")
            assert found is not None and (found.value, found.version) == (b"3", 3)

    asyncio.run(main())


def test_nor_is_one_of_a_range_overtaken(scratch: Path, backend: str) -> None:
    """Deletes and transactions of ranges are put down as any other write is."""

    async def main() -> None:
        async with busy(scratch / "data", backend) as (store, disk):
            tasks = begun(
                store.put(b"k/1"),
                store.delete(prefix=b"k/"),
                store.put(b"k/1"),
                store.txn(success=[ops.delete(prefix=b"k/"), ops.put(b"n")]),
                store.put(b"k/2"),
            )
            await asyncio.sleep(0)
            disk.release()
            answers = await asyncio.gather(*tasks)
            assert [answer.revision for answer in answers] == [3, 4, 5, 6, 7]
            assert [kv.key async for kv in store.scan(prefix=b"k/")] == [b"k/2"]

    asyncio.run(main())
