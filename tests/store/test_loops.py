"""Event loops come and go: what becomes of a store whose callers do not wait for their answers.

A loop may end, be closed, or be another one the next time, while writes are on their way; a task may be canceled in
any call. Neither harms the store, nor anybody else who uses it.
"""

from __future__ import annotations

import _thread
import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import AsyncStore, loops
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store
from tests.harness.gated_disk import GatedDisk
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(TIMEOUT_SECONDS)
    return not thread.is_alive()


def until_there_is_no(name: str) -> None:
    """Return when no thread of that name is left."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, name
        time.sleep(0.001)


def open_when_free(path: Path, backend: str) -> Store:
    """Open a store as soon as whoever has it lets it go."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return kvstore.open(path, backend)
        except kvstore.StoreLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# --- loops that come and go ---------------------------------------------------------------


def test_a_store_goes_on_in_the_next_loop(tmp_path: Path, backend: str) -> None:
    """Opened in one ``asyncio.run``, used in a second, closed in a third: writes, reads, watches, leases."""

    async def use(store: AsyncStore) -> bytes:
        async with store.watch(prefix=b"k") as events:
            await store.put(b"k", b"2")
            await store.grant_lease(60)
            assert [kv.value async for kv in store.scan(prefix=b"k")] == [b"2"]
            event = await asyncio.wait_for(anext(events), TIMEOUT_SECONDS)
            return event.kv.value

    async def opened() -> AsyncStore:
        store = await kvstore.open_async(tmp_path / "data", backend)
        await store.put(b"k", b"1")
        return store

    store = asyncio.run(opened())
    assert asyncio.run(use(store)) == b"2"
    asyncio.run(store.close())
    with kvstore.open(tmp_path / "data", backend) as again:
        assert again.count(prefix=b"k") == 1


def test_every_thread_has_a_loop_of_its_own(tmp_path: Path, backend: str) -> None:
    """One store, a loop per thread: each task is woken in its own loop."""
    with kvstore.open(tmp_path / "data", backend) as store:
        shared = AsyncStore(store.engine)

        async def write(number: int) -> None:
            puts = [shared.put(b"%d/%d" % (number, at)) for at in range(50)]
            await asyncio.wait_for(asyncio.gather(*puts), TIMEOUT_SECONDS)

        threads = [
            in_thread(lambda number=number: asyncio.run(write(number)))  # type: ignore[misc]
            for number in range(4)
        ]
        assert all(map(ended, threads))
        assert store.count(prefix=b"") == 200


def test_tasks_that_nobody_waits_for_do_not_harm_others(tmp_path: Path, backend: str) -> None:
    """``asyncio.run`` is left again and again with puts on their way; threads go on writing to the same store."""
    with kvstore.open(tmp_path / "data", backend) as store:
        stopped = threading.Event()
        shared = AsyncStore(store.engine)

        def write(number: int) -> None:
            while not stopped.is_set():
                store.put(b"thread/%d" % number)

        async def leave() -> None:
            tasks = [asyncio.ensure_future(shared.put(b"task/%d" % at)) for at in range(20)]
            await asyncio.sleep(0)
            assert len(tasks) == 20

        writers = [in_thread(lambda number=number: write(number)) for number in range(2)]  # type: ignore[misc]
        for _ in range(40):
            asyncio.run(leave())
        stopped.set()
        assert all(map(ended, writers))
        store.put(b"after")
        assert store.count(prefix=b"task/") == 20


def test_a_loop_closes_while_its_put_is_being_synced(scratch: Path) -> None:
    """The leader, a thread with a put of its own, finds nobody to wake, and goes on; closing ends."""
    disk = GatedDisk()
    store = Store(open_engine(scratch / "data", Options(background=False, backend="memory"), disk))
    shared = AsyncStore(store.engine)

    async def leave() -> None:
        task = asyncio.ensure_future(shared.put(b"task"))
        await asyncio.sleep(0)
        disk.wait_for_sync()
        assert not task.done()

    disk.hold()
    asyncio.run(leave())
    waiting = in_thread(lambda: store.put(b"thread"))
    disk.release()
    assert ended(waiting)
    assert store.get(b"task") is not None
    assert store.get(b"thread") is not None
    closing = in_thread(store.close)
    assert ended(closing)


def test_a_new_loop_closes_what_an_unfinished_one_has_left(tmp_path: Path, backend: str) -> None:
    """The application fails with puts on their way; closing in a new loop ends, and the store opens again."""
    for attempt in range(5):
        held: list[AsyncStore] = []

        async def fail(held: list[AsyncStore] = held, attempt: int = attempt) -> None:
            store = await kvstore.open_async(tmp_path / "data", backend)
            held.append(store)
            tasks = [asyncio.ensure_future(store.put(b"%d" % at, b"v" * 5000)) for at in range(100)]
            await asyncio.sleep(0.001 * attempt)
            raise ValueError(len(tasks))

        with pytest.raises(ValueError, match="100"):
            asyncio.run(fail())
        assert ended(in_thread(lambda held=held: asyncio.run(held[0].close())))  # type: ignore[misc]
    with kvstore.open(tmp_path / "data", backend) as again:
        again.put(b"k")


def test_a_wake_up_that_fails_is_made_up_for(tmp_path: Path) -> None:
    """No memory to wake a loop: nobody else notices, and its tasks are told with the next group."""

    async def main(store: Store, shared: AsyncStore) -> None:
        loop: Any = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        failures: list[int] = []

        def fail_once(*arguments: Any, **options: Any) -> Any:
            if not failures and threading.current_thread().name == "kvstore-flusher":
                failures.append(1)
                raise MemoryError
            return wake(*arguments, **options)

        loop.call_soon_threadsafe = fail_once
        first = asyncio.ensure_future(shared.put(b"first"))
        await asyncio.sleep(0)
        while not failures:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(store.put, b"other")
        await asyncio.wait_for(shared.put(b"second"), TIMEOUT_SECONDS)
        answer = await asyncio.wait_for(first, TIMEOUT_SECONDS)
        assert answer.revision == 2

    with kvstore.open(tmp_path / "data", "memory") as store:
        asyncio.run(main(store, shared := AsyncStore(store.engine)))
    assert shared.revision == 4


# --- opening, and those who do not wait for it --------------------------------------------


async def entered(opening: Any) -> None:
    async with opening:
        await asyncio.sleep(TIMEOUT_SECONDS)


async def awaited(opening: Any) -> None:
    store = await opening
    try:
        await asyncio.sleep(TIMEOUT_SECONDS)
    finally:
        await store.close()


Way = Callable[[Any], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("way", [entered, awaited])
def test_an_opening_that_is_canceled_leaves_no_open_store(
    tmp_path: Path, backend: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread goes on to open is closed again: another one can open it."""
    kvstore.open(tmp_path / "data", backend).close()
    canceled = threading.Event()
    open_now = kvstore._engine

    def open_late(*arguments: Any) -> Any:
        canceled.wait()
        return open_now(*arguments)

    async def main() -> None:
        task = asyncio.ensure_future(way(kvstore.open_async(tmp_path / "data", backend)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        canceled.set()

    monkeypatch.setattr(kvstore, "_engine", open_late)
    asyncio.run(main())
    monkeypatch.undo()
    until_there_is_no("kvstore-async")
    open_when_free(tmp_path / "data", backend).close()


@pytest.mark.parametrize("way", [entered, awaited])
def test_an_opening_that_is_canceled_as_it_ends(
    tmp_path: Path, backend: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is open, its task about to be told, and is canceled first: it is closed again."""
    told = threading.Event()
    call_soon = loops.call_soon

    def tell(*arguments: Any) -> None:
        call_soon(*arguments)
        told.set()

    monkeypatch.setattr(loops, "call_soon", tell)

    async def main() -> None:
        task = asyncio.ensure_future(way(kvstore.open_async(tmp_path / "data", backend)))
        await asyncio.sleep(0)
        assert told.wait(TIMEOUT_SECONDS)  # and the loop has not seen it yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    open_when_free(tmp_path / "data", backend).close()


def test_a_loop_that_ends_while_it_opens_a_store(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is closed by the time the store is open: it is closed again."""
    kvstore.open(tmp_path / "data", backend).close()
    over = threading.Event()
    open_now = kvstore._engine

    def open_late(*arguments: Any) -> Any:
        over.wait()
        return open_now(*arguments)

    async def main() -> None:
        task = asyncio.ensure_future(entered(kvstore.open_async(tmp_path / "data", backend)))
        await asyncio.sleep(0)
        assert not task.done()

    monkeypatch.setattr(kvstore, "_engine", open_late)
    asyncio.run(main())
    monkeypatch.undo()
    over.set()
    until_there_is_no("kvstore-async")
    open_when_free(tmp_path / "data", backend).close()


@pytest.mark.parametrize("milliseconds", range(0, 20, 3))
def test_an_opening_under_a_time_limit(tmp_path: Path, milliseconds: int) -> None:
    """Whenever the time is up: in the opening, in the body, in the closing."""

    async def main() -> None:
        try:
            async with (
                asyncio.timeout(milliseconds / 1000),
                kvstore.open_async(tmp_path / "data", "lmdb") as store,
            ):
                await store.put(b"k", b"v")
        except TimeoutError:
            pass

    asyncio.run(main())
    open_when_free(tmp_path / "data", "lmdb").close()


# --- threads ------------------------------------------------------------------------------


def test_opening_and_closing_wait_for_nobodys_thread(tmp_path: Path, backend: str) -> None:
    """All threads of the loop's executor are taken until the store is closed, and it can be."""

    async def main() -> None:
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        closed = threading.Event()
        taken = [loop.run_in_executor(None, closed.wait) for _ in range(4)]
        async with asyncio.timeout(TIMEOUT_SECONDS):
            store = await kvstore.open_async(tmp_path / "data", backend)
            await store.put(b"k")
            await store.snapshot(tmp_path / "k.snap")
            await store.close()
        closed.set()
        await asyncio.gather(*taken)

    asyncio.run(main())


def test_without_threads_the_loop_does_it_itself(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be had: every call is answered, and made once; with threads again, all goes on."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    def starve() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        monkeypatch.setattr(_thread, "start_new_thread", refuse)

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            store = await kvstore.open_async(tmp_path / "data", backend, background=False)
            assert (await store.put(b"k", b"v")).revision == 2
            assert (await store.range(prefix=b"k")).count == 1
            assert [kv.value async for kv in store.scan(prefix=b"k")] == [b"v"]
            await store.grant_lease(60)
            assert (await store.delete(prefix=b"k")).deleted == 1
            assert await store.checkpoint()
            monkeypatch.undo()
            assert (await store.put(b"k", b"w")).revision == 4
            assert await store.count(prefix=b"k") == 1
            assert len(await store.leases()) == 1
            starve()
            await store.close()
            monkeypatch.undo()  # asyncio ends with a thread of its own

    starve()
    asyncio.run(main())
    kvstore.open(tmp_path / "data", backend).close()
