"""What a type checker must accept and know in programs that use kvstore. Never run: the linters read it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import kvstore
from kvstore import AsyncScan, AsyncStore, Event, KeyValue, Scan, Store, View


def reads(folder: Path) -> None:
    with kvstore.open(folder, "sqlite", durability="interval", clock=lambda: 0.0) as store:
        assert_type(store, Store)
        assert_type(store.get(b"key"), KeyValue | None)
        assert_type(store.get(b"key", revision=2), KeyValue | None)
        assert_type(store.range(prefix=b"k", limit=5).kvs[0], KeyValue)
        assert_type(store.scan(prefix=b"k"), Scan)
        assert_type([kv.value for kv in store.scan(prefix=b"k", reverse=True)], list[bytes])
        assert_type(store.at(2), View)
        assert_type(store.count(prefix=b"k"), int)
        assert_type([kv.value for kv in store.history(b"key")], list[bytes])
        assert_type([change.after for change in store.diff(1, 2)], list[KeyValue | None])
        assert_type(b"key" in store, bool)
        assert_type(store.leases(), tuple[int, ...])


def writes(store: Store) -> None:
    assert_type(store.put(b"key", b"value", ttl=5).revision, int)
    assert_type(store.put(b"key", prev_kv=True).prev_kv, KeyValue | None)
    assert_type(store.delete(prefix=b"k").deleted, int)
    done = store.txn(
        compare=[kvstore.version(b"key") == 1, kvstore.value(b"key") != b"v", kvstore.lease(b"key") > 0],
        success=[
            kvstore.ops.put(b"key", b"w"),
            kvstore.ops.get(b"key"),
            kvstore.ops.txn(success=[kvstore.ops.delete(b"a")]),
        ],
        failure=(kvstore.ops.delete(prefix=b"k"),),
    )
    assert_type(done.succeeded, bool)
    lease = store.grant_lease(10).id
    assert_type(store.lease_time_to_live(lease, keys=True).keys, tuple[bytes, ...])
    assert_type(store.snapshot().path, Path)


def objects(store: Store) -> None:
    settings = kvstore.MapView(store, "settings/")
    assert_type(settings["theme"], str)
    counts = kvstore.MapView(store, "counts/", values=kvstore.INTEGER)
    assert_type(counts.get("a"), int | None)
    assert_type(counts.incr("a"), int)
    assert_type([version.value for version in counts.history("a")], list[int | None])
    assert_type(counts.pop("a"), int)
    assert_type(counts.pop("a", None), int | None)
    assert_type(counts.setdefault("a", 1), int)
    assert_type(counts.get_or_put("a", lambda: 1, ttl=5), int)
    assert_type(counts.modify("a", lambda number: (number or 0) + 1), int)
    assert_type(counts.restore(2, "a"), int)
    assert_type(counts.popitem(), tuple[str, int])
    counts.update({"b": 2}, c=3)
    points = kvstore.MapView(store, keys=kvstore.INTEGER, values=kvstore.Codec(str.encode, bytes.decode))
    assert_type(dict(points.scan()), dict[int, str])
    assert_type(store.put_many({b"a": bytearray(b"1")}).revisions, int)
    assert_type(store.incr(b"n"), int)
    assert_type(store.wait(store.put_nowait(b"k")).revision, int)
    assert_type(store.scan(prefix=b"k", reverse=True, limit=1, keys_only=True).revision, int)
    assert_type(store.at(store.revision_at(store.time_of(2))).count(prefix=b"k"), int)


def errors(store: Store) -> int:
    try:
        return store.put(b"key").revision
    except kvstore.Compacted as compacted:
        return assert_type(compacted.compact_revision, int)
    except kvstore.RequestTooLarge as large:
        assert_type((large.size, large.limit, large.option, large.etcd_text), tuple[int, int, str, str])
        return 0
    except kvstore.KVStoreError as error:
        assert_type(error.retryable, bool)
        return 0


def watches(store: Store) -> None:
    with store.watch(prefix=b"k", start_revision=2, prev_kv=True) as events:
        for event in events:
            assert_type(event, Event)
            assert_type(event.kv.mod_revision, int)
            assert_type(event.prev_kv, KeyValue | None)


async def fetch() -> int:
    return 1


async def asynchronous(folder: Path) -> None:
    async with kvstore.open_async(folder) as store:
        assert_type(store, AsyncStore)
        assert_type((await store.put(b"key", b"value")).revision, int)
        assert_type(await store.get(b"key"), KeyValue | None)
        assert_type(store.scan(prefix=b"k"), AsyncScan)
        async with store.watch(prefix=b"k") as events:
            async for event in events:
                assert_type(event, Event)
        numbers = kvstore.AsyncMapView(store, "n/", values=kvstore.INTEGER)
        assert_type(await numbers.get("a"), int | None)
        assert_type(await numbers.get("a", 0), int)
        assert_type(await numbers.get_or_put("a", fetch, ttl=5), int)
        assert_type(await numbers.pop("a", None), int | None)
        assert_type(await store.at(2), kvstore.AsyncView)
    assert_type(await kvstore.open_async("data"), AsyncStore)
