"""A store of py-key-value-aio on a store of ours: ``KeyValueStore(directory="data")``, or over an open ``AsyncStore``.

    row      <prefix><length of the collection>:<collection><key>, both in UTF-8: any two names, in the order of keys
    value    the library's own JSON, which says when the entry ends
    lease    one for each put with a TTL, so that what nobody reads goes as well; at most two seconds later

Entries end to the millisecond, as their JSON says. ``keys`` may still name one until its lease has ended.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from math import ceil

import kvstore
from kvstore.aio import AsyncStore
from kvstore.errors import MissingDependency
from kvstore.model import prefix_end

try:
    from key_value.aio.stores.base import (
        BaseContextManagerStore,
        BaseDestroyCollectionStore,
        BaseDestroyStore,
        BaseEnumerateCollectionsStore,
        BaseEnumerateKeysStore,
        ManagedEntry,
    )
except ImportError:
    raise MissingDependency(
        "this adapter needs py-key-value-aio: pip install 'kvstore-mvcc[adapters]'"
    ) from None

TTL_SECONDS_MAX = 9_000_000_000
KEYS_MAX = 10_000
"""What the library asks for at most in one listing."""


class KeyValueStore(
    BaseEnumerateKeysStore,
    BaseEnumerateCollectionsStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseContextManagerStore,
):
    """All of the library's protocols: get, put, delete, TTLs, and lists and ends of keys and collections.

    ``store``: an open one, which stays the caller's to close; or ``directory``: opened at the first use, closed with
    this. ``prefix``: where in the store the entries lie. Every put is durable when it returns.
    """

    def __init__(
        self,
        store: AsyncStore | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        prefix: bytes = b"",
        default_collection: str | None = None,
    ) -> None:
        if (store is None) == (directory is None):
            raise TypeError("give either an open store or a directory")
        if store is not None and not isinstance(store, AsyncStore):
            raise TypeError(f"store must be a kvstore.AsyncStore, not {store!r:.80}")
        self._given = store
        self._store = store
        self._directory = directory
        self._prefix = prefix
        super().__init__(
            default_collection=default_collection, client_provided_by_user=store is not None, stable_api=True
        )

    async def _setup(self) -> None:
        if self._given is None:
            assert self._directory is not None
            self._store = await self._exit_stack.enter_async_context(kvstore.open_async(self._directory))

    @property
    def _open(self) -> AsyncStore:
        if self._store is None:
            raise kvstore.StoreClosed
        return self._store

    def _collection(self, collection: str) -> bytes:
        name = collection.encode()
        return b"%b%d:%b" % (self._prefix, len(name), name)

    def _row(self, collection: str, key: str) -> bytes:
        return self._collection(collection) + key.encode()

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        kv = await self._open.get(self._row(collection, key))
        return None if kv is None else self._serialization_adapter.load_json(json_str=kv.value.decode())

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        await self._open.put(
            self._row(collection, key),
            self._encoded(collection, key, managed_entry),
            ttl=_lease_seconds(managed_entry.ttl),
        )

    async def _put_managed_entries(
        self,
        *,
        collection: str,
        keys: Sequence[str],
        managed_entries: Sequence[ManagedEntry],
        ttl: float | None,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        """All at once: they share a lease, and the sync of the log."""
        seconds = _lease_seconds(ttl)
        lease = (await self._open.grant_lease(seconds)).id if seconds else 0
        entries = dict(zip(keys, managed_entries, strict=True))
        puts = [
            self._open.put(self._row(collection, key), self._encoded(collection, key, entry), lease=lease)
            for key, entry in entries.items()
        ]
        await asyncio.gather(*puts)

    def _encoded(self, collection: str, key: str, entry: ManagedEntry) -> bytes:
        return self._serialization_adapter.dump_json(entry=entry, key=key, collection=collection).encode()

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return (await self._open.delete(self._row(collection, key))).deleted == 1

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        begin = self._collection(collection)
        found = await self._open.range(prefix=begin, keys_only=True, limit=_limit(limit))
        return [kv.key[len(begin) :].decode() for kv in found.kvs]

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        """One look-up for each: from the first row of a collection to the first after its last."""
        names: list[str] = []
        start, end = self._prefix or b"\0", prefix_end(self._prefix) if self._prefix else b"\0"
        while len(names) < _limit(limit):
            found = (await self._open.range(start, end, keys_only=True, limit=1)).kvs
            if not found:
                break
            length, _, rest = found[0].key[len(self._prefix) :].partition(b":")
            names.append(rest[: int(length)].decode())
            start = prefix_end(self._collection(names[-1]))
        return names

    async def _delete_collection(self, *, collection: str) -> bool:
        return (await self._open.delete(prefix=self._collection(collection))).deleted > 0

    async def _delete_store(self) -> bool:
        return (await self._open.delete(prefix=self._prefix)).deleted > 0


def _lease_seconds(ttl: float | None) -> int | None:
    """The lease of an entry with this TTL: never shorter."""
    return None if ttl is None else min(max(ceil(ttl), 1), TTL_SECONDS_MAX)


def _limit(limit: int | None) -> int:
    return min(limit or KEYS_MAX, KEYS_MAX)
