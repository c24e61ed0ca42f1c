"""Keys under a prefix as a mapping of Python objects, and the store's calls that it is made of."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore import AsyncMapView, BadArgument, Codec, MapView, Store
from kvstore.codecs import BYTES, INTEGER, JSON, TEXT, struct
from kvstore.model import PutRequest
from kvstore.protocol import Engine
from kvstore.recipes import Namespace
from kvstore.testing.fake_clock import FakeClock
from tests.harness.watching import BACKENDS, open_store


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


class FarAway:
    """An engine with nothing but what an etcd has, as far as reading and writing goes."""

    def __init__(self, engine: Any) -> None:
        self.range, self.put, self.txn, self.get = engine.range, engine.put, engine.txn, engine.get
        self.where = "far away"
        self._engine = engine
        self._is_open = True

    def check_readable(self) -> None:
        if not self._is_open:
            raise kvstore.StoreClosed

    def close(self) -> None:
        self._is_open = False

    @property
    def revision(self) -> int:
        return cast(int, self._engine.revision)


class FarStore(Store):
    """There is nothing to close."""

    def __del__(self) -> None:
        pass


def far(store: Store) -> Store:
    return FarStore(cast(Engine, FarAway(store.engine)))


# --- the mapping ---------------------------------------------------------------------------


def test_a_mapping_is_what_a_dictionary_is(store: Store) -> None:
    """Setting, deleting, looking, counting and going through it, in the order of the keys; other keys are not in it."""
    store.put(b"other", b"x")
    settings = MapView(store, "settings/", values=JSON)
    settings["theme"] = "dark"
    settings.update({"size": 12, "é": [1, None, {"a": 1.5}]})
    assert store.get(b"settings/theme").value == b'"dark"'  # type: ignore[union-attr]
    assert dict(settings) == {"size": 12, "theme": "dark", "é": [1, None, {"a": 1.5}]}
    assert list(settings) == list(reversed(settings))[::-1] == ["size", "theme", "é"]
    assert (
        len(settings) == 3 and "theme" in settings and "none" not in settings and cast(Any, 5) not in settings
    )
    assert settings.get("none") is None and settings.get("none", 7) == 7
    assert settings.pop("size") == 12 and settings.setdefault("size", 13) == 13
    del settings["theme"]
    for gone in ("theme", "never"):
        with pytest.raises(KeyError, match=gone):
            settings[gone]
        with pytest.raises(KeyError, match=gone):
            del settings[gone]
    assert list(settings.items()) == list(settings.scan()) == list(dict(settings).items())
    assert list(settings.values()) == [13, [1, None, {"a": 1.5}]]
    assert ("é", [1, None, {"a": 1.5}]) in settings.items() and len(settings.values()) == 2
    assert list(settings.scan(reverse=True, limit=1)) == [("é", [1, None, {"a": 1.5}])]
    settings.clear()
    assert len(settings) == 0 and b"other" in store
    assert "settings/" in repr(settings)


def test_a_mapping_has_a_past(store: Store) -> None:
    """History, the whole of it at a revision, and what has changed since."""
    settings = MapView(store, "s/")
    first = settings.put("theme", "dark")
    settings["theme"] = "light"
    last = settings.put("new", "x")
    del settings["theme"]
    assert [(found.revision, found.value, found.deleted) for found in settings.history("theme")] == [
        (first, "dark", False),
        (first + 1, "light", False),
        (last + 1, None, True),
    ]
    before = settings.at(first)
    assert dict(before) == {"theme": "dark"} and not hasattr(before, "put")
    assert list(settings.diff(first)) == [("new", None, "x"), ("theme", "dark", None)]
    assert [change.key for change in store.at(first).diff(prefix=b"s/")] == [b"s/new", b"s/theme"]
    assert list(store.at(first).diff(first)) == []


def test_a_mapping_lies_in_any_store(store: Store) -> None:
    """In a part of one, in one that is elsewhere, and over all of it without a prefix."""
    inner = Namespace(store, b"app/")
    for face, prefix in ((inner, b"app/"), (far(store), b"")):
        numbers = MapView(face, "n/", values=INTEGER)
        numbers["a"] = 1
        assert numbers.incr("a") == 2 and numbers.put_many({"b": 3, "c": 4}).revisions == 1
        assert list(numbers.scan(reverse=True)) == [("c", 4), ("b", 3), ("a", 2)]
        assert store.get(prefix + b"n/a").value == b"2"  # type: ignore[union-attr]
    assert list(MapView(inner)) == ["n/a", "n/b", "n/c"] and len(MapView(store)) == 6


def test_what_a_codec_cannot_take_or_read_names_itself(store: Store) -> None:
    """A value of the wrong type writes nothing; one that somebody else wrote is told apart by its key."""
    texts, numbers = MapView(store, "t/"), MapView(store, "n/", values=INTEGER)
    wrong: Any = texts
    with pytest.raises(TypeError, match="takes str, not int"):
        wrong["k"] = 5
    with pytest.raises(TypeError, match="Codec"):
        MapView(store, "t/", values=cast(Any, str))
    with pytest.raises(TypeError, match="prefix must be str or bytes, not int"):
        MapView(store, cast(Any, 5))
    with pytest.raises(TypeError):
        MapView(store, "j/", values=JSON)["k"] = cast(Any, b"bytes")
    assert store.revision == 1
    store.put(b"t/k", b"\xff")
    store.put(b"n/k", b"x")
    with pytest.raises(kvstore.UndecodableValue, match="b't/k'") as refused:
        print(texts["k"])
    assert refused.value.key == b"t/k" and isinstance(refused.value, ValueError)

    def no_memory(_: bytes) -> str:
        raise MemoryError

    with pytest.raises(MemoryError):  # which says nothing of the value
        print(MapView(store, "t/", values=Codec(str.encode, no_memory))["k"])
    with pytest.raises(BadArgument, match=r"b'n/k' is no number: b'x'"):
        numbers.incr("k")
    store.put(b"b/\xff", b"raw")
    assert dict(MapView(store, b"b/", keys=BYTES, values=BYTES)) == {b"\xff": b"raw"}


def test_codecs_of_ones_own(store: Store) -> None:
    """A pair of functions, for keys and for values; msgspec's types where it is installed."""
    days = Codec[int](lambda day: b"%03d" % day, int)
    log = MapView(store, "days/", keys=days, values=TEXT)
    log[12], log[2], log[100] = "a", "b", "c"
    assert list(log) == [2, 12, 100]
    try:
        import msgspec  # type: ignore[import-not-found]  # it need not be installed
    except ImportError:
        with pytest.raises(kvstore.MissingDependency, match="pip install msgspec"):
            struct(dict)
        return
    users = MapView(store, "u/", values=struct(dict[str, int]))
    users["ann"] = {"age": 3}
    assert users["ann"] == {"age": 3} and msgspec.json.decode(b"{}") == {}
    store.put(b"u/bob", b'{"age": "x"}')
    with pytest.raises(kvstore.UndecodableValue):
        print(users["bob"])


def test_the_asynchronous_mapping_does_the_same(tmp_path: Path) -> None:
    """Awaited, and iterated with ``async for``."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            counts = AsyncMapView(store, "c/", values=INTEGER)
            first = await counts.put("a", 1)
            assert (await counts.put_many({"b": 2, "c": 3})).revisions == 1
            assert sorted(await asyncio.gather(*(counts.incr("a") for _ in range(5)))) == [2, 3, 4, 5, 6]
            assert [pair async for pair in counts.scan(reverse=True, limit=2)] == [("c", 3), ("b", 2)]
            assert (await counts.get("a"), await counts.get("z"), await counts.get("z", 0)) == (6, None, 0)
            assert await counts.contains("a") and not await counts.contains("z") and await counts.count() == 3
            assert await counts.delete("b") and not await counts.delete("b")
            assert [found.value async for found in counts.history("b")] == [2, None]
            changes = [change async for change in counts.diff(first)]
            assert changes == [("a", 1, 6), ("c", None, 3)]
            assert await counts.at(first).get("a") == 1
            with pytest.raises(TypeError, match="read only"):
                await counts.at(first).put("a", 2)
            await counts.clear()
            assert await counts.count() == 0 and "c/" in repr(counts)

    asyncio.run(main())


# --- many puts, counters, scans: also over an engine that has only what an etcd has --------


def test_many_puts_are_one_revision_while_they_fit(store: Store) -> None:
    """128 to a transaction, and no more bytes than a request may have: the answer tells how many it took."""
    for face in (store, far(store)):
        before = store.revision
        done = face.put_many({b"%d" % number: b"v" for number in range(128)})
        assert done == (before + 1, 128, 1)
        assert face.put_many((b"%d" % number, bytearray(b"w")) for number in range(300)) == (
            before + 4,
            300,
            3,
        )
        assert face.put_many({b"l%d" % number: b"v" * 1_000_000 for number in range(3)}).revisions == 3
        assert face.put_many([(b"k", b"1"), (b"k", b"2")]).puts == 1
        assert store.get(b"k").value == b"2"  # type: ignore[union-attr]
        assert face.put_many({}) == (store.revision, 0, 0)


def test_many_puts_refuse_before_the_first(store: Store) -> None:
    """What can never be written is found out before anything is."""
    items = {b"%03d" % number: b"v" for number in range(200)} | {b"large": b"v" * 2_000_000}
    with pytest.raises(kvstore.RequestTooLarge, match=r"b'large'.*max_request_bytes") as refused:
        store.put_many(items)
    error = refused.value
    assert (error.size, error.limit, error.option) == (2_000_005, 1_572_864, "max_request_bytes")
    assert error.key == b"large" and error.etcd_text == "etcdserver: request is too large"
    with pytest.raises(TypeError, match="value must be bytes, not str"):
        store.put_many({b"a": b"1", b"b": cast(Any, "x")})
    assert store.revision == 1


def test_no_increment_is_lost(store: Store) -> None:
    """Threads that count at once; the key keeps its lease."""
    lease = store.grant_lease(60).id
    store.put(b"n", b"40", lease=lease)
    faces = [store, far(store), store, far(store)]
    threads = [
        threading.Thread(target=lambda face=face: [face.incr(b"n") for _ in range(20)]) for face in faces
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.incr(b"n", -120) == 0
    kv = store.get(b"n")
    assert kv is not None and (kv.value, kv.lease) == (b"0", lease)


def test_a_scan_knows_its_revision(store: Store) -> None:
    """Forwards and from the end, with a limit and without values; then a watch from there misses nothing."""
    for number in range(25):
        store.put(b"%02d" % number, b"v")
    for face in (store, far(store)):
        rows = face.scan(prefix=b"", page_rows=4)
        revision = rows.revision
        store.put(b"later", b"x")
        assert [kv.key for kv in rows] == [b"%02d" % number for number in range(25)]
        assert revision == rows.revision == store.revision - 1
        back = face.scan(prefix=b"", page_rows=4, reverse=True, limit=9, revision=revision, keys_only=True)
        assert [(kv.key, kv.value) for kv in back] == [(b"%02d" % (24 - number), b"") for number in range(9)]
        assert next(face.scan(prefix=b"", limit=1)).key == b"00"
        assert next(face.scan(b"05", b"\0", reverse=True, revision=revision)).key == b"24"
        store.delete(b"later")
    for reverse in (False, True):
        with pytest.raises(
            kvstore.FutureRevision, match="revision 99 was asked for, the newest is"
        ) as refused:
            store.scan(prefix=b"", revision=99, reverse=reverse)
        assert (refused.value.revision, refused.value.newest) == (99, store.revision)
    assert (store.count(prefix=b"", revision=2), store.count(prefix=b"", revision=3)) == (1, 2)


def test_an_asynchronous_scan_knows_its_revision(tmp_path: Path) -> None:
    """At once in an embedded store; elsewhere from its first key on. ``at`` may be awaited."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            await store.put(b"a", b"1")
            await store.put(b"b", b"2")
            rows = store.scan(prefix=b"", reverse=True)
            assert rows.revision == 3
            assert [kv.key async for kv in rows] == [b"b", b"a"]
            engine = FarAway(store.engine)
            elsewhere = kvstore.AsyncStore(cast(Engine, engine))
            rows = elsewhere.scan(prefix=b"")
            with pytest.raises(RuntimeError, match="first key"):
                print(rows.revision)
            assert (await anext(rows)).key == b"a" and rows.revision == 3
            assert (await (await elsewhere.at(2)).range(prefix=b"")).count == 1
            with pytest.raises(kvstore.FutureRevision):
                await elsewhere.at(9)
            assert (await (await store.at(2)).count(prefix=b"")) == 1
            await elsewhere.close()
            with pytest.raises(kvstore.StoreClosed):
                elsewhere.scan(prefix=b"")
            ticket = store.put_nowait(b"c", memoryview(b"3"))
            assert (await store.wait(ticket)).revision == 4

    asyncio.run(main())


# --- values, copies ------------------------------------------------------------------------


def test_a_value_may_be_any_buffer(store: Store) -> None:
    """It is copied: what becomes of the buffer afterwards is no matter. A str is refused, and told what to use."""
    buffer = bytearray(b"abc")
    store.put(b"k", buffer)
    store.put(b"m", memoryview(buffer)[1:])
    store.txn(success=[kvstore.ops.put(b"t", buffer)])
    buffer[0] = 0
    assert [kv.value for kv in store.scan(prefix=b"")] == [b"abc", b"bc", b"abc"]
    for call in (
        lambda: store.put(b"k", cast(Any, "text")),
        lambda: store.put(cast(Any, "k")),
        lambda: store.get(cast(Any, "k")),
        lambda: store.range(prefix=cast(Any, "k")),
        lambda: store.watch(prefix=cast(Any, "k")),
        lambda: store.delete(cast(Any, "k")),
        lambda: store.incr(cast(Any, "k")),
    ):
        with pytest.raises(
            TypeError, match=r"must be bytes, not str: use a view with a codec \(kvstore.MapView\)"
        ):
            call()
    with pytest.raises(TypeError, match="prefix must be bytes, not str"):
        kvstore.prefix_end(cast(Any, "k"))


def test_an_open_store_is_not_copied(store: Store) -> None:
    """Two handles that share their parts would be no two stores; the error says what to do."""
    engine = FarAway(store.engine)
    for each in (store, kvstore.AsyncStore(cast(Engine, engine))):
        for make in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be copied: use this one"):
                make(each)
        with pytest.raises(TypeError, match="cannot be pickled: send its path"):
            pickle.dumps(each)
    engine.close()


# --- one step, whoever else is at it ------------------------------------------------------------


def at_once(*calls: Callable[[], object]) -> None:
    """Each in a thread of its own, as nearly at the same time as can be."""
    together = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        together.wait()
        call()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_several_that_set_a_default_one_does(store: Store) -> None:
    """All get that one's value, of ``setdefault`` and of ``get_or_put``, which makes none where there is one."""
    found: list[str] = []
    names = MapView(store, "n/")
    at_once(*(partial(lambda name: found.append(names.setdefault("k", name)), str(n)) for n in range(8)))
    assert set(found) == {names["k"]} and store.get(b"n/k").version == 1  # type: ignore[union-attr]
    assert names.get_or_put("k", lambda: pytest.fail("it is there")) == names["k"]
    assert names.get_or_put("new", lambda: "made") == names["new"] == "made"
    assert store.leases() == ()


def test_a_default_may_have_a_time_to_live() -> None:
    """It goes by itself; who came too late leaves no lease behind."""
    clock = FakeClock()
    with kvstore.open_memory(clock=clock) as store:
        pages = MapView(store, "p/")
        assert pages.get_or_put("/", lambda: "<html>", ttl=5) == "<html>"
        assert pages.setdefault("/", "other", ttl=50) == "<html>" and len(store.leases()) == 1
        clock.advance(5)
        assert "/" not in pages and pages.get_or_put("/", lambda: "new") == "new"
        with pytest.raises(BadArgument, match="ttl must be more than 0 seconds"):
            pages.setdefault("x", "y", ttl=0)
    engine = kvstore.open_memory()
    beaten = Beaten(engine)
    assert MapView(beaten, "p/").setdefault("k", "mine", ttl=50) == "theirs"
    assert engine.leases() == ()
    engine.close()


class Beaten(Store):
    """A store in which somebody else is always a little faster."""

    def __init__(self, store: Store) -> None:
        engine = store.engine
        far = FarAway(engine)
        super().__init__(cast(Engine, far))
        far.txn = self._txn
        self._real = engine
        for name in ("lease_grant", "lease_revoke"):
            setattr(far, name, getattr(engine, name))

    def _txn(self, request: Any) -> Any:
        self._real.put(PutRequest(b"p/k", b"theirs"))
        return self._real.txn(request)

    def __del__(self) -> None:
        pass


def test_no_modification_is_lost(store: Store) -> None:
    """Lists that grow from several threads; what the function raises changes nothing, and a lease stays."""
    carts = MapView(store, "carts/", values=Codec[list[int]](lambda cart: repr(cart).encode(), json.loads))

    def add(number: int) -> None:
        for _ in range(5):
            carts.modify("ada", lambda cart: [*(cart or []), number])

    at_once(*(partial(add, number) for number in range(4)))
    assert sorted(carts["ada"]) == [number for number in range(4) for _ in range(5)]
    with pytest.raises(ZeroDivisionError):
        carts.modify("ada", lambda cart: [1 // 0])
    lease = store.grant_lease(60).id
    carts.put("bob", [1], lease=lease)
    assert carts.modify("bob", lambda cart: [*(cart or []), 2]) == [1, 2] == carts["bob"]
    assert store.get(b"carts/bob").lease == lease  # type: ignore[union-attr]


def test_what_is_popped_goes_to_one(store: Store) -> None:
    """Each value once, by name and by ``popitem``; what cannot be read is still there afterwards."""
    jobs = MapView(store, "jobs/", values=INTEGER)
    jobs.update({"a": 1}, b=2)
    jobs.update([("c", 3)])
    taken: list[Any] = []
    at_once(*[lambda: taken.append(jobs.pop("a", None))] * 6)
    assert sorted(taken, key=str) == [1, *[None] * 5]
    with pytest.raises(KeyError, match="'a'"):
        jobs.pop("a")
    assert jobs.popitem() == ("b", 2)
    taken.clear()
    at_once(*[lambda: taken.append(jobs.pop("c", 0))] * 4)
    assert sorted(taken) == [0, 0, 0, 3]
    with pytest.raises(KeyError, match="empty"):
        jobs.popitem()
    store.put(b"jobs/x", b"text")
    for call in (lambda: jobs.pop("x"), jobs.popitem):
        with pytest.raises(kvstore.UndecodableValue):
            call()
    assert store.get(b"jobs/x").value == b"text"  # type: ignore[union-attr]


def test_an_update_is_one_revision(store: Store) -> None:
    """As many keys as a transaction takes: nobody sees half of it."""
    settings = MapView(store, "s/")
    before = store.revision
    settings.update({str(number): "x" for number in range(100)}, more="y")
    assert store.revision == before + 1 and len(settings) == 101
    settings.update()
    assert store.revision == before + 1


@pytest.mark.parametrize("count", [3, 300])
def test_everything_or_one_key_is_put_back(store: Store, count: int) -> None:
    """Changed, new and deleted keys, in one revision while they fit; other keys of the store stay; and back again."""
    store.put(b"other", b"1")
    view = MapView(store, "v/", values=INTEGER)
    view.put_many({f"{number:03}": number for number in range(count)})
    then = store.revision
    was = dict(view.scan())
    store.put(b"other", b"2")
    view.update({f"{number:03}": -1 for number in range(0, count, 2)}, new=5)
    del view["001"]
    now, changed = dict(view.scan()), store.revision
    assert view.restore(then, "000") == store.revision and view["000"] == 0 and view["002"] == -1
    assert view.restore(then, "000") == store.revision == changed + 1
    assert view.restore(then, "new") == store.revision and "new" not in view
    view.restore(changed)
    assert dict(view.scan()) == now
    before = store.revision
    assert view.restore(then) == store.revision and dict(view.scan()) == was
    assert store.revision == before + (1 if count == 3 else 2)
    assert store.get(b"other").value == b"2"  # type: ignore[union-attr]
    assert view.restore(then) == store.revision == view.restore(store.revision)
    with pytest.raises(kvstore.FutureRevision):
        view.restore(store.revision + 1)
    with pytest.raises(BadArgument, match="revision must be at least 1"):
        view.restore(0)


def test_tasks_have_the_same_steps(tmp_path: Path) -> None:
    """What a mapping does in one step, ``AsyncMapView`` does, awaited; ``make`` may be a coroutine function."""
    dictionary = {"keys", "items", "values", "update", "popitem", "get", "put", "clear"}
    public = {name for name in dir(MapView) if not name.startswith("_")} - dictionary
    assert public <= {name for name in dir(AsyncMapView) if not name.startswith("_")}

    async def make() -> int:
        return 7

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory") as store:
            view = AsyncMapView(store, "v/", values=INTEGER)
            first = await view.put("a", 1)
            assert (
                await asyncio.gather(*(view.setdefault("k", n) for n in range(4)))
                == [await view.get("k")] * 4
            )
            assert (await view.get_or_put("b", make), await view.get_or_put("b", lambda: 9)) == (7, 7)
            assert await view.get_or_put("c", lambda: 9, ttl=60) == 9 and len(await store.leases()) == 1
            assert await view.modify("a", lambda number: (number or 0) + 1) == 2
            assert await view.pop("a") == 2 and await view.pop("a", None) is None
            with pytest.raises(KeyError):
                await view.pop("a")
            assert await view.restore(first, "a") == store.revision and await view.get("a") == 1
            await view.restore(first)
            assert [pair async for pair in view.scan()] == [("a", 1)]
            with pytest.raises(TypeError, match="read only"):
                await view.at(first).modify("a", lambda _: 1)

    asyncio.run(main())


def test_a_view_is_of_a_store(store: Store) -> None:
    """A path, or the other kind of store, is refused at once, and told which class takes it."""
    with pytest.raises(TypeError, match=r"store must be a kvstore.Store, not 'data'"):
        MapView(cast(Any, "data"))
    with pytest.raises(TypeError, match=r"must be a kvstore.AsyncStore, not .*: use MapView"):
        AsyncMapView(cast(Any, store))
    asynchronous = kvstore.AsyncStore(cast(Engine, FarAway(store.engine)))
    with pytest.raises(TypeError, match=r"must be a kvstore.Store, not .*: use AsyncMapView"):
        MapView(cast(Any, asynchronous))
    asyncio.run(asynchronous.close())
    with pytest.raises(TypeError, match=r"must be a kvstore.Store, not <kvstore.View"):
        MapView(cast(Any, store.at(1)))


def test_what_does_not_fit_a_view_names_the_argument(store: Store) -> None:
    """Key or value, what is wrong with it, and that another codec is the remedy; nothing is written."""
    texts: Any = MapView(store, "t/")
    documents: Any = MapView(store, "j/", values=JSON)
    for call, kind, text in (
        (lambda: texts.put(5, "v"), TypeError, "key 5 does not fit this view.*takes str, not int.*keys="),
        (lambda: texts.put("k", b"v"), TypeError, "value b'v' does not fit this view.*values="),
        (
            lambda: documents.put("k", {1, 2}),
            TypeError,
            r"value \{1, 2\} does not fit.*not JSON serializable",
        ),
        (lambda: documents.put("k", float("nan")), BadArgument, "value nan does not fit"),
        (lambda: texts.put("\ud800", "v"), BadArgument, "key '.ud800' does not fit"),
        (lambda: texts.put_many(5), TypeError, "items must be a mapping, or pairs of key and value, not 5"),
        (lambda: texts.put_many(["ab"]), TypeError, "items must be .*: 'ab' is no pair"),
        (lambda: texts.incr("a", by="1"), TypeError, "by must be an int, not '1'"),
        (
            lambda: MapView(store, values=Codec[str](cast(Any, str), bytes.decode)).put("a", "b"),
            TypeError,
            "encode to bytes",
        ),
    ):
        with pytest.raises(kind, match=text):
            call()
    assert store.revision == 1
