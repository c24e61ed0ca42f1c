"""The store for py-key-value-aio: what its protocols promise, and the same answers as its own simplest store gives."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import kvstore

pytest.importorskip("key_value.aio", reason="py-key-value-aio is not installed (the extra adapters)")

from key_value.aio.errors import SerializationError
from key_value.aio.protocols import key_value as protocols
from key_value.aio.stores.simple import SimpleStore

from kvstore.adapters.key_value import KeyValueStore

NAMES = ["", "a", "b", "a::b", "1:", "12:x", "ключ", "\0", "a\0", "k" * 300]


def on_memory(scenario: Callable[[KeyValueStore, kvstore.AsyncStore], Awaitable[None]]) -> None:
    """Run a scenario on a new store."""

    async def run() -> None:
        async with kvstore.open_memory_async() as store, KeyValueStore(store, prefix=b"kv/") as entries:
            await scenario(entries, store)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(4))
def test_random_calls_are_answered_as_the_simplest_store_answers_them(seed: int) -> None:
    """Puts, gets, deletes, of one and of many, in collections and keys with awkward names."""
    chance = random.Random(seed)

    async def scenario(entries: KeyValueStore, _: kvstore.AsyncStore) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = SimpleStore()
        written = [name for name in NAMES if "::" not in name and name]  # theirs joins the two names with ::
        for _step in range(150):
            key, collection = chance.choice(written), chance.choice(["one", "two", "two2", "ключи"])
            some = chance.sample(written, 3)
            value = {"n": chance.randrange(9), "list": [1, {"x": None}]}
            call = chance.choice(
                ["put", "get", "delete", "put_many", "get_many", "delete_many", "ttl", "keys"]
            )
            answers = []
            for store in (entries, theirs):
                if call == "put":
                    await store.put(key, value, collection=collection)
                    answer: object = None
                elif call == "put_many":
                    await store.put_many(some, [value, {}, value], collection=collection)
                    answer = None
                elif call == "get_many":
                    answer = await store.get_many(some, collection=collection)
                elif call == "delete_many":
                    answer = await store.delete_many(some, collection=collection)
                elif call == "keys":
                    answer = sorted(await store.keys(collection))
                else:
                    answer = await getattr(store, call)(key, collection=collection)
                answers.append(answer)
            assert answers[0] == answers[1], (call, key, collection)

    on_memory(scenario)


def test_any_two_names_are_apart() -> None:
    """No collection and key can be taken for another pair."""

    async def scenario(entries: KeyValueStore, _: kvstore.AsyncStore) -> None:
        pairs = [(collection, key) for collection in NAMES if collection for key in NAMES]
        for collection, key in pairs:
            await entries.put(key, {"is": [collection, key]}, collection=collection)
        for collection, key in pairs:
            assert await entries.get(key, collection=collection) == {"is": [collection, key]}
        assert sorted(await entries.collections()) == sorted(name for name in NAMES if name)
        assert len(await entries.collections(limit=3)) == 3
        for name in filter(None, NAMES):
            assert sorted(await entries.keys(name)) == sorted(NAMES)

    on_memory(scenario)


def test_entries_end_with_their_ttl_and_leave_nothing_behind() -> None:
    """To a fraction of a second for who asks; then the lease takes the row."""

    async def scenario(entries: KeyValueStore, store: kvstore.AsyncStore) -> None:
        await entries.put("k", {"a": 1}, ttl=0.01)
        await entries.put_many(["x", "y"], [{}, {}], ttl=3600)
        value, left = await entries.ttl("x")
        assert value == {} and left is not None and 3590 < left <= 3600
        await asyncio.sleep(0.02)
        assert await entries.get("k") is None and await entries.ttl("k") == (None, None)
        rows = (await store.range(prefix=b"kv/")).kvs
        assert all(row.lease for row in rows) and len({row.lease for row in rows}) == 2

    on_memory(scenario)


def test_collections_and_stores_are_destroyed_alone() -> None:
    """What lies beside the prefix stays."""

    async def scenario(entries: KeyValueStore, store: kvstore.AsyncStore) -> None:
        await store.put(b"kv", b"mine")
        await store.put(b"kv0", b"mine")
        for collection in ("one", "two"):
            await entries.put("k", {}, collection=collection)
        assert await entries.destroy_collection("one") and not await entries.destroy_collection("one")
        assert await entries.collections() == ["two"]
        assert await entries.destroy()
        assert await store.count(prefix=b"") == 2

    on_memory(scenario)


def test_it_is_what_the_protocols_ask_for() -> None:
    """Each of them, as the library checks it."""

    async def scenario(entries: KeyValueStore, _: kvstore.AsyncStore) -> None:
        for name in (
            "AsyncKeyValueProtocol",
            "AsyncEnumerateKeysProtocol",
            "AsyncEnumerateCollectionsProtocol",
        ):
            assert isinstance(entries, getattr(protocols, name))
        with pytest.raises((SerializationError, TypeError)):
            await entries.put("k", {"a": object()})
        assert await entries.get("k") is None

    on_memory(scenario)


def test_a_directory_is_opened_at_first_use_and_closed_with_it(tmp_path: Path) -> None:
    """What was put is there the next time; an open store that was given is left open."""

    async def scenario() -> None:
        async with KeyValueStore(directory=tmp_path / "data") as entries:
            await entries.put("k", {"a": 1})
        async with KeyValueStore(directory=tmp_path / "data") as entries:
            assert await entries.get("k") == {"a": 1}
        async with kvstore.open_async(tmp_path / "data") as store:
            async with KeyValueStore(store) as entries:
                assert await entries.collections() == ["default_collection"]
            assert await store.count(prefix=b"") == 1
        with pytest.raises(TypeError, match="either"):
            KeyValueStore()

    asyncio.run(scenario())
