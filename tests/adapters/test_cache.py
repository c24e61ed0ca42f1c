"""A cache as diskcache has it, a mapping as shelve has it, and what comes over from both."""

from __future__ import annotations

import asyncio
import pickle
import shelve
import threading
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.adapters.cache import ENTRY_BYTES, AsyncCache, Cache, open_cache, open_cache_async
from kvstore.adapters.conversion import from_diskcache, from_shelf
from kvstore.testing.fake_clock import FakeClock

VALUES: list[Any] = ["text", "", b"\0bytes", 0, -1, 2.5, True, None, [1, {"a": None}], {"ключ": "значение"}]


@pytest.fixture
def clock() -> FakeClock:
    """The cache's time."""
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Iterator[Cache]:
    """A cache beside other keys of its store."""
    with kvstore.open_memory(clock=clock) as store:
        store.put(b"c", b"mine")
        store.put(b"c0", b"mine")
        yield Cache(store, "c/")
        assert store.get(b"c") is not None and store.get(b"c0") is not None


def test_values_are_read_as_they_were_written(cache: Cache) -> None:
    """Text, bytes and what JSON has, each as itself."""
    for number, value in enumerate(VALUES):
        cache[str(number)] = value
    for number, value in enumerate(VALUES):
        found = cache[str(number)]
        assert found == value and type(found) is type(value)
    with pytest.raises(TypeError):
        cache["x"] = date(2026, 1, 1)
    assert "x" not in cache


def test_it_is_a_mapping(cache: Cache) -> None:
    """What ``dict`` can do, in the order of keys."""
    cache.update({"b": 2, "a": 1})
    assert list(cache) == ["a", "b"] and len(cache) == 2 and dict(cache.items()) == {"a": 1, "b": 2}
    assert cache.get("c", 3) == 3 and cache.setdefault("c", 4) == 4
    del cache["a"]
    with pytest.raises(KeyError):
        del cache["a"]
    with pytest.raises(KeyError):
        _ = cache["a"]
    with pytest.raises(TypeError, match="takes str"):
        cache[1] = 1  # type: ignore[index]
    assert "1" not in cache
    assert cache.clear() == 2 and not cache


def test_entries_expire_and_are_touched(cache: Cache, clock: FakeClock) -> None:
    """Each by its own time; ``touch`` begins anew, or ends the expiry."""
    cache.set("a", 1, expire=10)
    cache.set("b", 1, expire=9.5)
    cache.set("c", 1)
    assert cache.expires_in("a") == 10 and cache.expires_in("c") is None
    clock.advance(9)
    assert cache.touch("a", expire=10) and cache.touch("b") and not cache.touch("none", 5)
    clock.advance(9)
    assert set(cache) == {"a", "b", "c"} and cache["a"] == 1
    clock.advance(1)
    assert set(cache) == {"b", "c"}


def test_add_sets_only_what_is_not_there(cache: Cache, clock: FakeClock) -> None:
    """Like a lock that ends by itself; a refused one leaves no lease."""
    assert cache.add("lock", "one", expire=10)
    assert not cache.add("lock", "two", expire=10)
    assert cache["lock"] == "one" and len(cache.store.leases()) == 1
    clock.advance(10)
    assert cache.add("lock", "two")


def test_counting_loses_nothing_and_keeps_the_expiry(cache: Cache, clock: FakeClock) -> None:
    """Of several threads at once, and for a number that has a time to live."""
    cache.set("n", 0, expire=100)

    def count() -> None:
        for _ in range(50):
            cache.incr("n", 2)
            cache.decr("n")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache["n"] == 200 and cache.expires_in("n") == 100
    assert cache.incr("new", default=5) == 6
    with pytest.raises(KeyError):
        cache.incr("none", default=None)
    cache["text"] = "x"
    with pytest.raises(TypeError, match="whole number"):
        cache.incr("text")


def test_pop_gives_a_value_once(cache: Cache) -> None:
    """To one of those who ask."""
    cache["a"] = None
    assert cache.pop("a", "none") is None
    assert cache.pop("a", "none") == "none" and cache.pop("a") is None


def test_a_codec_of_ones_own(cache: Cache) -> None:
    """Any ``kvstore.Codec``; a value that it cannot read names its key."""
    codec = kvstore.Codec(
        lambda day: day.isoformat().encode(), lambda data: date.fromisoformat(data.decode())
    )
    dates = Cache(cache.store, "dates/", codec)
    dates["birth"] = date(1815, 12, 10)
    assert dates["birth"] == date(1815, 12, 10) and len(cache) == 0
    cache.store.put(b"dates/none", b"?")
    with pytest.raises(kvstore.UndecodableValue, match="none"):
        _ = dates["none"]


def test_a_cache_of_its_own_is_there_the_next_time(tmp_path: Path) -> None:
    """As with ``shelve.open``."""
    with open_cache(tmp_path / "data") as cache:
        cache["a"] = [1]
        cache.sync()
    with open_cache(tmp_path / "data", durability="off") as cache:
        assert cache["a"] == [1]


# --- a size limit --------------------------------------------------------------------------------


def replaced(value: str, _: object) -> str:
    return value


def size_of(cache: Cache) -> int:
    return sum(len(kv.value) + ENTRY_BYTES for kv in cache.store.scan(prefix=cache.prefix))


def test_a_cache_stays_below_its_size(cache: Cache) -> None:
    """However it is written; the newest entry is there, and other keys of the store are not counted or touched."""
    small = Cache(cache.store, "c/", size_limit=10_000)
    for number in range(200):
        key, value = str(number), "v" * (number * 7 % 1000)
        match number % 5:
            case 0:
                small.set(key, value)
            case 1:
                small.add(key, value, expire=60)
            case 2:
                small.update({key: value, f"{number}b": "b"})
            case 3:
                small.get_or_put(key, partial(str, value))
            case _:
                small.modify(key, partial(replaced, value))
        assert size_of(small) <= 10_000 and small[key] == value
    for _ in range(200):
        small.incr("n")
    assert small["n"] == 200 and size_of(small) <= 10_000


def test_what_expires_first_is_evicted_first(cache: Cache) -> None:
    """Then what never does, longest written first; no more than is needed."""
    small = Cache(cache.store, "c/", size_limit=2_000)
    for name, expire in (("never", None), ("late", 500), ("soon", 5), ("newer", None), ("later", 900)):
        small.set(name, "v" * 199, expire)  # 300 bytes, with the letter that says what it is
    small.set("more", "v" * 599)
    assert set(small) == {"never", "late", "newer", "later", "more"}
    small.set("large", "v" * 899)
    assert set(small) == {"newer", "more", "large"}
    small.clear()
    for number in range(6):
        small.set(str(number), "v" * 199)
    assert len(small) == 6


def test_what_can_never_fit_is_refused(cache: Cache) -> None:
    """One value, or many at once: with both sizes, and nothing is evicted for it."""
    small = Cache(cache.store, "c/", size_limit=1_000)
    small.set("a", 1)
    with pytest.raises(kvstore.RequestTooLarge, match="size_limit allows 1000") as refused:
        small.set("b", "v" * 1_000)
    assert (refused.value.size, refused.value.limit, refused.value.option) == (1_101, 1_000, "size_limit")
    with pytest.raises(kvstore.RequestTooLarge):
        small.put_many({str(number): "v" for number in range(10)})
    assert dict(small) == {"a": 1}
    with pytest.raises(kvstore.BadArgument, match="size_limit must be at least 0"):
        Cache(cache.store, "c/", size_limit=-1)


def test_a_cache_of_its_own_forgets_the_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten minutes, unless it is told otherwise: what is replaced again and again must not fill its store."""
    monkeypatch.delenv("KVSTORE_AUTO_COMPACTION_RETENTION", raising=False)
    for name, kept in (("name", "10m"), ("auto_compaction_retention", "2h"), ("compaction_retention", "3h")):
        options: Any = {name: kept}
        with open_cache(tmp_path / "data", **options) as cache:
            assert cache.store.engine.options.auto_compaction_retention == kept
    monkeypatch.setenv("KVSTORE_AUTO_COMPACTION_RETENTION", "4h")
    with open_cache(tmp_path / "data") as cache:
        assert cache.store.engine.options.auto_compaction_retention == "4h"


def test_times_and_steps_are_refused_by_their_name(cache: Cache) -> None:
    """By diskcache's names for them."""
    wrong: Any = cache
    for write in (wrong.set, wrong.add):
        with pytest.raises(TypeError, match="expire must be seconds"):
            write("a", 1, expire="x")
    with pytest.raises(TypeError, match="expire must be seconds"):
        wrong.touch("a", expire="x")
    with pytest.raises(TypeError, match="delta must be an int, not '1'"):
        wrong.incr("a", "1")
    assert len(cache) == 0


def test_tasks_have_the_same_cache(tmp_path: Path) -> None:
    """Every call of ``Cache`` that is diskcache's, awaited, with the same answers; also with a limit."""
    calls = {name for name in vars(Cache) if not name.startswith("_")}
    assert calls <= set(vars(AsyncCache))

    async def main() -> None:
        async with open_cache_async(tmp_path / "data", size_limit=5_000) as cache:
            assert await cache.set("a", [1], expire=60) and await cache.get("a") == [1]
            assert await cache.add("b", 1) and not await cache.add("b", 2)
            assert await cache.incr("n", 2) == 2 and await cache.decr("n") == 1
            assert await cache.touch("a") and await cache.expires_in("a") is None
            assert await cache.pop("a") == [1] and await cache.pop("a") is None
            assert await cache.get_or_put("c", lambda: "made", ttl=60) == "made"
            assert await cache.delete("c") and not await cache.delete("c")
            await asyncio.gather(*(cache.put(str(number), "v" * 500) for number in range(30)))
            assert 0 < await cache.count() < 30
            await cache.put_many({"x": 1, "y": 2})
            assert await cache.contains("x") and await cache.clear() > 0 and await cache.count() == 0
            assert await cache.store.get(b"x") is None

    asyncio.run(main())


# --- conversion ----------------------------------------------------------------------------------


def test_a_shelf_comes_over(cache: Cache, tmp_path: Path) -> None:
    """All that a codec takes; the rest is named, with the reason."""
    with shelve.open(str(tmp_path / "shelf")) as shelf:  # noqa: S301  # written here
        shelf.update({"a": "text", "b": [1, 2], "day": date(2026, 1, 1)})
    converted = from_shelf(tmp_path / "shelf", cache, loads=pickle.loads)
    assert converted.copied == 2 and dict(cache.items()) == {"a": "text", "b": [1, 2]}
    assert [key for key, _ in converted.left] == ["day"] and "codec" in converted.left[0][1]
    with pytest.raises(kvstore.NotAStore):
        from_shelf(tmp_path / "none", cache, loads=pickle.loads)


def test_a_diskcache_comes_over_with_its_times_and_without_its_pickles(cache: Cache, tmp_path: Path) -> None:
    """Rows and files, text and bytes; a pickle only when the caller says how to read it."""
    diskcache = pytest.importorskip("diskcache", reason="diskcache is not installed (the extra bench)")
    large_text, large_bytes = "t" * 100_000, b"b" * 100_000
    with diskcache.Cache(str(tmp_path), cull_limit=0) as old:
        for key, value in {"text": "x", "bytes": b"y", "n": 7, "T": large_text, "B": large_bytes}.items():
            old.set(key, value)
        old.set("soon", 1, expire=1000)
        old.set("late", 1, expire=-1)
        old.set("pickled", {"a": [1]})
        old.set(5, "number")
        old.set(("tuple",), "other")
    converted = from_diskcache(tmp_path, cache)
    assert dict(cache.items()) == {
        "text": "x",
        "bytes": b"y",
        "n": 7,
        "T": large_text,
        "B": large_bytes,
        "soon": 1,
    }
    assert converted.copied == 6 and converted.expired == 1
    assert {key for key, _ in converted.left} > {"pickled", "5"} and len(converted.left) == 3
    left = cache.expires_in("soon")
    assert left is not None and 900 < left <= 1000
    assert from_diskcache(tmp_path, cache, loads=pickle.loads).copied == 7
    assert cache["pickled"] == {"a": [1]}


def test_what_is_no_diskcache_is_refused(cache: Cache, tmp_path: Path) -> None:
    """An empty folder, and a file that is something else."""
    with pytest.raises(kvstore.NotAStore, match="holds no diskcache"):
        from_diskcache(tmp_path, cache)
    (tmp_path / "cache.db").write_bytes(b"something else" * 100)
    with pytest.raises(kvstore.NotAStore, match="not the table"):
        from_diskcache(tmp_path, cache)
