"""What a type checker must refuse in programs that use kvstore. Never run.

Each line is wrong in one way, which its comment names. As strict mypy also refuses a comment that is not needed, the
linters fail once a mistake passes.
"""

from __future__ import annotations

import kvstore
from kvstore import Options


def names() -> None:
    kvstore.opne("x")  # type: ignore[attr-defined]
    print(kvstore.Stroe)  # type: ignore[attr-defined]
    Options(backnd="lmdb")  # type: ignore[call-arg]


def serving(store: kvstore.Store) -> None:
    kvstore.serve(store, "http://127.0.0.1:0", has_iu=True)  # type: ignore[call-arg]


def values(store: kvstore.Store) -> None:
    store.put("key", b"value")  # type: ignore[arg-type]
    store.put(b"key", "value")  # type: ignore[arg-type]
    store.put(b"key", b"value", ttl="10")  # type: ignore[arg-type]
    store.get(b"key", rev=2)  # type: ignore[call-arg]
    print(store.get(b"key").value)  # type: ignore[union-attr]
    store.range(prefx=b"key")  # type: ignore[call-arg]
    store.revision = 5  # type: ignore[misc]
    store.compact()  # type: ignore[call-arg]


def options() -> None:
    kvstore.open("data", durabilty="always")  # type: ignore[call-arg]
    kvstore.open("data", durability="allways")  # type: ignore[arg-type]
    kvstore.connect("etcd://host", tiemout_seconds=1)  # type: ignore[call-arg]
    kvstore.connect("etcd://host", prefer="follower")  # type: ignore[arg-type]
    kvstore.restore("a.snap", "data", backnd="lmdb")  # type: ignore[call-arg]
    kvstore.verify("data", durabilty="off")  # type: ignore[call-arg]
    kvstore.open_async("data", wal_file_size="large")  # type: ignore[arg-type]


def objects(store: kvstore.Store) -> None:
    counts = kvstore.MapView(store, "counts/", values=kvstore.INTEGER)
    counts["a"] = "1"  # type: ignore[assignment]
    counts[5] = 1  # type: ignore[index]
    counts.setdefault("a")  # type: ignore[call-arg]
    counts.get_or_put("a", lambda: "1")  # type: ignore[arg-type, return-value]
    counts.modify("a", lambda number: number + 1)  # type: ignore[operator]
    kvstore.MapView(store, "texts/").incr("a")  # type: ignore[misc]
    store.scan(prefix=b"k", revers=True)  # type: ignore[call-arg]
    store.put_many({"a": b"1"})  # type: ignore[arg-type]


def transactions(store: kvstore.Store) -> None:
    store.txn(compare=[kvstore.version(b"key")])  # type: ignore[list-item]
    store.txn(compare=kvstore.version(b"key") == 1)  # type: ignore[arg-type]
    store.txn(success=["put"])  # type: ignore[list-item]
    store.txn(success=[kvstore.ops.get(b"key", limt=1)])  # type: ignore[call-arg]


def watches(store: kvstore.Store) -> None:
    for event in store.watch(prefix=b"key"):
        print(event.value)  # type: ignore[attr-defined]
    store.watch(b"key", start_revison=2)  # type: ignore[call-overload]


async def asynchronous(store: kvstore.AsyncStore) -> None:
    await store.put("key")  # type: ignore[arg-type]
    store.put(b"key")  # type: ignore[unused-coroutine]
    await store.range(prefx=b"key")  # type: ignore[call-arg]
    print((await store.get(b"key")).value)  # type: ignore[union-attr]
    async with kvstore.open("data"):  # type: ignore[attr-defined]
        pass
