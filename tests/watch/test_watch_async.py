"""Watches of an asynchronous store."""

import asyncio
from pathlib import Path

import pytest

import kvstore
from kvstore.model import WatchRequest
from kvstore.watch.asynchronous import AsyncWatch
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, revisions


@pytest.mark.parametrize("backend", BACKENDS)
def test_events_come_from_the_past_and_then_live(tmp_path: Path, backend: str) -> None:
    """An asynchronous iteration begins at the start revision and goes on with what is written meanwhile."""

    async def main() -> list[int]:
        async with kvstore.open_async(tmp_path / "data", backend) as store:
            for _ in range(20):
                await store.put(b"k", b"v")
            seen = []
            async with store.watch(prefix=b"k", start_revision=2) as events:
                async for event in events:
                    seen.append(event.kv.mod_revision)
                    if len(seen) == 60:
                        return seen
                    if len(seen) >= 20:
                        await store.put(b"k", b"v")
            return seen

    assert asyncio.run(main()) == list(range(2, 62))


def test_many_watches_on_one_loop(tmp_path: Path) -> None:
    """Each of a hundred tasks gets exactly its own key's events."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:

            async def consume(key: bytes, watch: AsyncWatch) -> list[bytes]:
                values = []
                async with watch as events:
                    async for event in events:
                        assert event.kv.key == key
                        values.append(event.kv.value)
                        if len(values) == 5:
                            return values
                return values

            keys = [b"k%d" % number for number in range(100)]
            tasks = [asyncio.ensure_future(consume(key, store.watch(key))) for key in keys]
            for round_ in range(5):
                await asyncio.gather(*(store.put(key, b"%d" % round_) for key in keys))
            for values in await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT_SECONDS):
                assert values == [b"0", b"1", b"2", b"3", b"4"]

    asyncio.run(main())


@pytest.mark.parametrize("watch_buffer", [1, 1 << 20])
def test_a_canceled_wait_loses_no_event(tmp_path: Path, watch_buffer: int) -> None:
    """A consumer whose waiting is cut off by time limits again and again still sees every event once."""

    async def main() -> list[int]:
        async with kvstore.open_async(tmp_path / "data", "lmdb", watch_buffer=watch_buffer) as store:
            seen: list[int] = []
            async with store.watch(prefix=b"k") as events:
                writer = asyncio.ensure_future(write(store))
                while len(seen) < 200:
                    try:
                        event = await asyncio.wait_for(anext(events), 0.0005)
                    except TimeoutError:
                        continue
                    seen.append(event.kv.mod_revision)
                await writer
            return seen

    async def write(store: kvstore.AsyncStore) -> None:
        for number in range(200):
            await store.put(b"k%d" % (number % 3), b"v")

    assert asyncio.run(main()) == list(range(2, 202))


def test_prev_kv_and_whole_responses(tmp_path: Path) -> None:
    """``responses`` gives transactions whole, and prev_kv what was before."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "sqlite") as store:
            await store.put(b"a", b"1")
            async with store.watch(prefix=b"", prev_kv=True) as events:
                await store.txn(success=[kvstore.ops.put(b"a", b"2"), kvstore.ops.put(b"b", b"2")])
                async for response in events.responses():
                    assert revisions(response.events) == [3, 3]
                    assert [kv and kv.value for kv in (e.prev_kv for e in response.events)] == [b"1", None]
                    break

    asyncio.run(main())


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_watches_on_one_stream(tmp_path: Path, backend: str) -> None:
    """A task consumes watches of the past, of now and of the future together, each in order and with its own id."""

    async def main() -> dict[int, list[int]]:
        seen: dict[int, list[int]] = {}
        async with kvstore.open_async(tmp_path / "data", backend) as store:
            for _ in range(20):
                await store.put(b"k", b"v")
            await store.checkpoint()
            async with store.watch_stream() as stream:
                for start in (2, 0, 25):
                    stream.create(WatchRequest(b"k", start_revision=start))
                for _ in range(10):
                    await store.put(b"k", b"v")
                while sum(map(len, seen.values())) < 30 + 10 + 7:
                    watch_id, response = await asyncio.wait_for(stream.next(), TIMEOUT_SECONDS)
                    seen.setdefault(watch_id, []).extend(revisions(response.events))
                assert stream.cancel(1)
                assert (await stream.next())[1].canceled
            with pytest.raises(kvstore.WatchCanceled):
                await stream.next()
        return seen

    assert asyncio.run(main()) == {
        0: list(range(2, 32)),
        1: list(range(22, 32)),
        2: list(range(25, 32)),
    }


def test_the_ends(tmp_path: Path) -> None:
    """Closing the watch stops the iteration, a compaction and a closed store raise their errors."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            for _ in range(4):
                await store.put(b"k", b"v")
            async with store.watch(b"k") as events:
                asyncio.get_running_loop().call_later(0.02, events.close)
                assert [event async for event in events] == []
            await store.compact(4)
            with pytest.raises(kvstore.Compacted):
                await anext(store.watch(b"k", start_revision=2))
            waiting = asyncio.ensure_future(anext(store.watch(b"k")))
            await asyncio.sleep(0.02)
        with pytest.raises(kvstore.StoreClosed):
            await asyncio.wait_for(waiting, TIMEOUT_SECONDS)

    asyncio.run(main())
