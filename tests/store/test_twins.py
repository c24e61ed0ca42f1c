"""The asynchronous twins: the same calls, parameters, types and words as the synchronous ones, and no blocked loop."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import AsyncStore, AsyncView, Store, View
from kvstore.model import RangeRequest, WatchRequest
from kvstore.watch import Watch, WatchStream
from kvstore.watch.asynchronous import AsyncWatch, AsyncWatchStream
from tests import PROJECT
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS

PAIRS = [(Store, AsyncStore), (View, AsyncView), (Watch, AsyncWatch), (WatchStream, AsyncWatchStream)]

NEEDLESS = {
    Store: set(),
    View: set(),
    Watch: set(),
    WatchStream: {
        # What the iterators and the asynchronous stream take it apart with.
        "bell",
        "drop_first",
        "fill",
        "first",
        "idle",
        "needs_store",
        "refuse",
        "start",
        "take",
        "until_tick",
    },
}
"""Calls that the asynchronous twin does without."""

WRAPPED = {
    "View": "AsyncView",
    "Scan": "AsyncScan",
    "Watch": "AsyncWatch",
    "Watch | CallbackWatch": "AsyncWatch",
    "ResponseStream": "AsyncWatchStream",
    "Iterator[KeyValue]": "AsyncIterator[KeyValue]",
    "Iterator[Change]": "AsyncIterator[Change]",
    "Iterator[tuple[int, float]]": "AsyncIterator[tuple[int, float]]",
    "Iterator[WatchResponse]": "AsyncIterator[WatchResponse]",
}
"""What a twin hands out instead of something whose use would block."""

CALLBACK = "\n\n``callback``: called for each event on a thread of its own, instead of iterating."


def calls(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def pairs() -> list[tuple[type, type, str]]:
    return [(sync, twin, name) for sync, twin in PAIRS for name in sorted(calls(sync) & calls(twin))]


def named(pair: Any) -> str | None:
    return pair if isinstance(pair, str) else getattr(pair, "__name__", None)


@pytest.mark.parametrize(("sync", "twin"), PAIRS, ids=named)
def test_twins_have_the_same_calls(sync: type, twin: type) -> None:
    """All of them, but for those that a task has no use for."""
    assert calls(sync) - calls(twin) == NEEDLESS[sync]
    assert calls(twin) - calls(sync) == set()


@pytest.mark.parametrize(("sync", "twin", "name"), pairs(), ids=named)
def test_twins_take_and_give_the_same(sync: type, twin: type, name: str) -> None:
    """Names, kinds, defaults and types of parameters, and the type of the answer, awaited or iterated."""
    theirs, ours = inspect.getattr_static(sync, name), inspect.getattr_static(twin, name)
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        theirs, ours = theirs.fget, ours.fget
    wanted, given = inspect.signature(theirs), inspect.signature(ours)
    parameters = [parameter for parameter in wanted.parameters.values() if parameter.name != "callback"]
    assert list(given.parameters.values()) == parameters
    answer = str(wanted.return_annotation)
    assert given.return_annotation == WRAPPED.get(answer, answer)


@pytest.mark.parametrize(("sync", "twin", "name"), pairs(), ids=named)
def test_twins_say_the_same(sync: type, twin: type, name: str) -> None:
    """Every public call has a docstring, and its twin has the same one."""
    words = inspect.cleandoc(
        inspect.getattr_static(sync, name).__doc__ or ""
    )  # 3.13 leaves no indentation anyway
    assert words
    if (sync, name) == (Store, "watch"):
        assert CALLBACK in words
        words = words.replace(CALLBACK, "")
    assert inspect.cleandoc(inspect.getattr_static(twin, name).__doc__) == words


# --- what a type checker says --------------------------------------------------------------

TYPED = """
import kvstore


async def use(store: kvstore.AsyncStore) -> None:
    await store.range(prefix=b"a", limit=3)
    await store.range(prefx=b"a")  # refused
    await store.range("text")  # refused
    await store.put(b"k", b"v", ttl=30, prev_kv=True)
    await store.put(b"k", 1)  # refused
    await store.put(b"k", tll=30)  # refused
    (await store.put(b"k")).revision + 1
    (await store.put(b"k")).deleted  # refused
    store.put(b"k").revision  # refused
    await store.delete(prefix=b"a")
    await store.delete(prefix="a")  # refused
    await store.txn(success=[kvstore.ops.put(b"k")])
    await store.txn(then=[kvstore.ops.put(b"k")])  # refused
    kv = await store.get(b"k", revision=3)
    kv.value  # refused
    await store.get(b"k", revison=3)  # refused
    await store.compact(3, physical=True, progress=lambda done, total: None)
    await store.compact(3, progress=lambda done: None)  # refused
    await store.defragment(progress=None)
    (await store.snapshot("copy.snap", progress=None)).revision
    async for found in store.scan(prefix=b"a", page_rows=10):
        found.key.upper()
    for found in store.scan(prefix=b"a"):  # refused
        pass
    async for change in store.diff(1, 2, prefix=b"a"):
        change.before
    store.diff(1, wrong=2)  # refused
    async for version in store.history(b"k", since=2):
        version.mod_revision + 1
    store.history(b"k", snce=2)  # refused
    view = store.at(3)
    found_then = await view.get(b"k")
    found_then.value  # refused
    view.get(b"k").value  # refused
    await view.range(prefix=b"a", prefx=b"a")  # refused
    (await view.count(prefix=b"a")) + 1
    async with store.watch(prefix=b"a", resume=(3, 0)) as events:
        async for event in events:
            event.kv.key.upper()
        (await events.get(timeout=1)).kv
        await events.get(timeot=1)  # refused
    store.watch(b"a", callback=print)  # refused
    async with store.watch_stream() as stream:
        watch_id, response = await stream.next()
        perhaps = await stream.next(0.5)
        perhaps[0]  # refused
    (await store.grant_lease(30)).ttl + 1
    await store.grant_lease("30")  # refused
    (await store.leases())[0] + 1


def use_sync(store: kvstore.Store) -> None:
    store.range(prefx=b"a")  # refused
    store.snapshot(progress=None)
    store.revision + 1
    store.revision = 3  # refused
"""


def test_a_type_checker_sees_wrong_calls(tmp_path: Path) -> None:
    """``mypy --strict`` refuses exactly the lines of ``TYPED`` that are marked."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    source = tmp_path / "typed.py"
    source.write_text(TYPED)
    config = str(PROJECT / "pyproject.toml")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", config, str(source)]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    errors = [line for line in ran.stdout.splitlines() if " error: " in line]
    refused = {int(line.split(":")[1]) for line in errors if line.split(":")[0].endswith("typed.py")}
    marked = {number for number, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# refused")}
    assert refused == marked, ran.stdout + ran.stderr


# --- nothing that is handed out blocks the loop ---------------------------------------------


def on_its_own(twin: Callable[[], Any], release: threading.Event) -> Any:
    """What a call answers that cannot go on before the loop has."""

    async def main() -> Any:
        task = asyncio.ensure_future(twin())
        await asyncio.sleep(0.01)
        assert not task.done()
        release.set()
        return await asyncio.wait_for(task, TIMEOUT_SECONDS)

    return asyncio.run(main())


async def listed(rows: Any) -> list[Any]:
    return [row async for row in rows]


LONG: dict[str, tuple[str, Callable[[AsyncStore], Any]]] = {
    "get of a view": ("get_at", lambda store: store.at(2).get(b"k")),
    "range of a view": ("range", lambda store: store.at(2).range(prefix=b"")),
    "count of a view": ("range", lambda store: store.at(2).count(prefix=b"")),
    "scan of a view": ("scan", lambda store: listed(store.at(2).scan(prefix=b""))),
    "range": ("range", lambda store: store.range(prefix=b"")),
    "count": ("range", lambda store: store.count(prefix=b"")),
    "scan": ("scan", lambda store: listed(store.scan(prefix=b""))),
    "history": ("history", lambda store: listed(store.history(b"k"))),
    "diff": ("diff", lambda store: listed(store.diff(1))),
    "txn over a range": ("txn", lambda store: store.txn(success=[kvstore.ops.get(prefix=b"")])),
    "txn in a txn": (
        "decide",
        lambda store: store.txn(success=[kvstore.ops.txn([], [kvstore.ops.delete(prefix=b"k")])]),
    ),
    "txn that compares a range": ("txn", lambda store: store.txn([kvstore.version(prefix=b"k") > 0])),
    "txn that compares a range and writes": (
        "decide",
        lambda store: store.txn([kvstore.version(prefix=b"k") > 0], [kvstore.ops.put(b"k")]),
    ),
    "delete of a range": ("decide", lambda store: store.delete(prefix=b"k")),
    "hash_kv": ("hash_kv", lambda store: store.hash_kv()),
}


@pytest.mark.parametrize("what", LONG)
def test_a_call_that_takes_a_while_leaves_the_loop_free(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held up until the loop has gone on; on the loop it could never come to its end."""
    method, call = LONG[what]
    release = threading.Event()
    with kvstore.open(tmp_path / "data", "memory", background=False) as store:
        store.put(b"k", b"v")
        engine, loops_thread = store.engine, threading.get_ident()
        doer: Any = engine.planner if method == "decide" else engine
        real = getattr(doer, method)

        def wait() -> None:
            assert threading.get_ident() != loops_thread
            assert release.wait(TIMEOUT_SECONDS)

        def held(*arguments: Any) -> Any:
            request = arguments[0] if arguments else None
            if isinstance(request, RangeRequest) and not request.range_end:  # what ``at`` looks at: one key
                return real(*arguments)
            wait()
            return real(*arguments)

        def held_rows(*arguments: Any) -> Iterator[Any]:
            wait()
            yield from real(*arguments)

        lazy = method in ("scan", "history", "diff")
        monkeypatch.setattr(doer, method, held_rows if lazy else held)
        shared = AsyncStore(engine)
        assert on_its_own(lambda: call(shared), release)


def noted(calls: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which also leaves its name in ``calls``."""

    def noting(*arguments: Any) -> Any:
        calls.append(name)
        return call(*arguments)

    return noting


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lazy_read_begins_with_its_first_item(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calling ``scan``, ``history``, ``diff`` reads nothing, so a task may call them: rows are looked up later."""
    with kvstore.open(tmp_path / "data", backend, background=False) as store:
        store.put(b"k", b"1")
        store.checkpoint()
        looks: list[str] = []
        state = store.engine.state
        for owner, name in ((state, "look"), (state.backend, "read")):
            monkeypatch.setattr(owner, name, noted(looks, name, getattr(owner, name)))
        rows = [store.scan(prefix=b""), store.history(b"k"), store.diff(1)]
        assert not looks
        assert [len(list(each)) for each in rows] == [1, 1, 1]
        assert looks


def test_a_lazy_read_is_of_the_revision_of_its_call(tmp_path: Path) -> None:
    """``scan``, ``history`` and ``diff`` show what was there when they were called, asynchronous or not."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            await store.put(b"k", b"1")
            rows, versions, changes = store.scan(prefix=b""), store.history(b"k"), store.diff(1)
            await store.put(b"k", b"2")
            await store.put(b"l")
            assert [(kv.key, kv.value) for kv in await listed(rows)] == [(b"k", b"1")]
            assert [kv.value for kv in await listed(versions)] == [b"1"]
            assert [change.key for change in await listed(changes)] == [b"k"]
            with pytest.raises(kvstore.FutureRevision):
                store.scan(prefix=b"", revision=9)
            with pytest.raises(TypeError, match="prefx"):
                store.scan(prefx=b"")  # type: ignore[call-arg]

    asyncio.run(main())


def test_a_view_is_of_its_revision(tmp_path: Path) -> None:
    """``at`` refuses at once what cannot be seen; the view answers as of then."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            await store.put(b"a", b"1")
            await store.put(b"b", b"2")
            view = store.at(2)
            assert isinstance(view, AsyncView)
            assert (view.revision, repr(view)) == (2, "<kvstore.AsyncView at revision 2>")
            assert await view.get(b"b") is None
            assert [kv.key for kv in (await view.range(prefix=b"")).kvs] == [b"a"]
            assert [kv.key async for kv in view.scan(prefix=b"")] == [b"a"]
            assert await view.count(prefix=b"") == 1
            with pytest.raises(kvstore.FutureRevision):
                store.at(4)
            await store.compact(3)
            with pytest.raises(kvstore.Compacted):
                store.at(2)
            with pytest.raises(kvstore.Compacted):
                await view.get(b"a")

    asyncio.run(main())


def test_a_transaction_nested_too_deep_is_refused_as_by_the_store(tmp_path: Path) -> None:
    """However deep: looking whether it is large finds an end."""
    request = kvstore.ops.txn()
    for _ in range(5000):
        request = kvstore.ops.txn(success=[request])

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            with pytest.raises(kvstore.TooManyOps):
                await store.txn(success=[request])

    asyncio.run(main())


# --- what the twin had not ------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_upkeep_tells_its_progress(tmp_path: Path, backend: str) -> None:
    """``progress`` of compact, defragment and snapshot is called, in their thread."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", backend, background=False) as store:
            for number in range(20):
                await store.put(b"k%d" % (number % 3), b"v" * 1000)
            for work in (
                lambda tell: store.compact(20, physical=True, progress=tell),
                lambda tell: store.defragment(progress=tell),
                lambda tell: store.snapshot(tmp_path / "copy.snap", progress=tell),
            ):
                told: list[tuple[int, int, int]] = []

                def tell(done: int, total: int, told: list[tuple[int, int, int]] = told) -> None:
                    told.append((done, total, threading.get_ident()))

                await work(tell)
                assert told
                assert all(0 <= done <= total and thread != loops for done, total, thread in told)

    loops = threading.get_ident()
    asyncio.run(main())


def test_a_scan_takes_the_rows_of_a_page(tmp_path: Path) -> None:
    """As few at a time as one, for values of many megabytes."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            for number in range(600):
                await store.put(b"%03d" % number)
            for page_rows in (1, 7, 1000):
                keys = [kv.key async for kv in store.scan(prefix=b"", page_rows=page_rows)]
                assert keys == [b"%03d" % number for number in range(600)]
            with pytest.raises(kvstore.BadArgument, match="page_rows"):
                store.scan(prefix=b"", page_rows=0)

    asyncio.run(main())


def test_a_watch_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    """``get``, ``get_response`` of a watch, ``next``, ``wait`` of a stream: what comes in time, and the time's end."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            async with store.watch(prefix=b"") as events:
                with pytest.raises(TimeoutError):
                    await events.get(timeout=0.01)
                await store.put(b"a", b"1")
                assert (await events.get(timeout=TIMEOUT_SECONDS)).kv.value == b"1"
                await store.txn(success=[kvstore.ops.put(b"a", b"2"), kvstore.ops.put(b"b", b"2")])
                response = await events.get_response(timeout=TIMEOUT_SECONDS)
                assert [event.kv.key for event in response.events] == [b"a", b"b"]
                with pytest.raises(TimeoutError):
                    await events.get_response(timeout=0.01)
            with pytest.raises(kvstore.WatchCanceled):
                await events.get(timeout=0.01)
            async with store.watch_stream() as stream:
                assert stream.create(WatchRequest(b"a", start_revision=2)) == 0
                found = [await stream.next(TIMEOUT_SECONDS) for _ in range(2)]
                assert [each and len(each[1].events) for each in found] == [0, 2]
                assert stream.lag(0) == 0
                assert not await stream.wait(0.01)
                assert await stream.next(0.01) is None

    asyncio.run(main())
