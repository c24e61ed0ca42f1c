"""A cache as diskcache has it, and a mapping as shelve has it, on a store: ``Cache(store)``, or ``open_cache("data")``.

    cache.set("token", "abc", expire=60)      a lease: gone after a minute, also while nobody looks
    cache["user"] = {"name": "Ada"}           as JSON; what a key had before is in ``cache.store.history``
    cache.incr("hits")                        of several at the same time none is lost
    cache.add("lock", b"me", expire=10)       only if there is none
    for key in cache: ...                     in the order of their bytes, all of one revision

Values are str, bytes and what JSON has, and are read back as they were written (a tuple as a list). Any other type
takes a ``kvstore.Codec``. Nothing is ever pickled, so reading a cache runs nothing.

With ``size_limit`` (bytes), entries are evicted to make room before something is written: those that expire first, then
those that never do, the ones written longest ago first. The size is that of the values, and ``ENTRY_BYTES`` more for
each. It is measured, by a scan of the cache, when as much was written as there was room; a full one each time that a
tenth of it was written. Until then each process believes that it alone writes.

Without ``size_limit`` nothing is evicted: entries go when they expire or are deleted. What was evicted or replaced
stays in the history until it is compacted, which ``open_cache`` has done after ten minutes. A full store refuses
(``QuotaExceeded``).

``AsyncCache`` and ``open_cache_async`` are the same for asyncio.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, Unpack

import kvstore
from kvstore import compound
from kvstore.aio import AsyncStore
from kvstore.arguments import check_int, check_number, seconds, whole_seconds
from kvstore.codecs import TEXT, Codec
from kvstore.errors import RequestTooLarge
from kvstore.keyvalue import KeyValue
from kvstore.loops import in_thread
from kvstore.map_view import AsyncMapView, MapView
from kvstore.model import DeleteRangeRequest
from kvstore.options import OpenOptions
from kvstore.store import Store
from kvstore.twins import Twin, composed, twin

ENTRY_BYTES = 100
"""What an entry counts for beside its value: its key, and what the store keeps about it."""
RETENTION = "10m"
"""How much of the past a cache that has a store of its own keeps, unless it is told otherwise."""


def _encode(value: Any) -> bytes:
    """A letter that says what follows: s, UTF-8; b, bytes; j, JSON."""
    if isinstance(value, str):
        return b"s" + value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return b"b" + bytes(value)
    return b"j" + json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _decode(data: bytes) -> Any:
    kind, rest = data[:1], data[1:]
    if kind == b"b":
        return rest
    if kind not in (b"s", b"j"):
        raise ValueError("a value of a cache begins with s, b or j")
    return rest.decode() if kind == b"s" else json.loads(rest)


PLAIN: Codec[Any] = Codec(_encode, _decode)


class _Room:
    """The room below ``size_limit``. It is only guessed how much is left: never too much, if nobody else writes."""

    def __init__(self, store: Store, prefix: bytes, limit: int) -> None:
        self._store = store
        self._prefix = prefix
        self._limit = limit
        self._left = 0
        self._lock = threading.Lock()

    def take(self, entries: int, value_bytes: int) -> None:
        """Have room for entries, evicting others if need be. Raises ``RequestTooLarge`` if they can never fit."""
        size = value_bytes + entries * ENTRY_BYTES
        if size > self._limit:
            raise RequestTooLarge(size, self._limit, "size_limit")
        with self._lock:
            if size > self._left:
                self._left = self._made(max(size, self._limit // 10))
            self._left -= size

    def _made(self, wanted: int) -> int:
        """Measure, and evict until ``wanted`` bytes are free, or more."""
        due = {lease: place for place, lease in enumerate(self._store.leases())}
        entries = sorted(
            (due.get(kv.lease, len(due)), kv.mod_revision, kv.key, len(kv.value) + ENTRY_BYTES)
            for kv in self._store.scan(prefix=self._prefix)
        )
        left = self._limit - sum(size for *_, size in entries)
        evicted = []
        for _, _, key, size in entries:
            if left >= wanted:
                break
            evicted.append(DeleteRangeRequest(key))
            left += size
        compound.write_many(self._store._engine, evicted)
        return left


class Cache(MapView[str, Any]):
    """The keys under ``prefix`` of an open store, which stays the caller's to close: a view with diskcache's calls.

    Times to live are in seconds, at least the store's ``lease_min_ttl_seconds``. ``size_limit``: bytes, beyond which
    entries are evicted (see the module); 0: none.
    """

    def __init__(
        self, store: Store, prefix: str = "", codec: Codec[Any] = PLAIN, *, size_limit: int = 0
    ) -> None:
        super().__init__(store, prefix, keys=TEXT, values=codec)
        check_number("size_limit", size_limit)
        if size_limit:
            self._coded.make_room = _Room(store, self.prefix, size_limit).take

    @property
    def store(self) -> Store:
        """The store behind it."""
        return self._store

    def set(self, key: str, value: Any, expire: float | None = None) -> bool:
        """Set a key, for ``expire`` seconds if that is given."""
        self.put(key, value, ttl=None if expire is None else seconds("expire", expire))
        return True

    def add(self, key: str, value: Any, expire: float | None = None) -> bool:
        """Set a key that is not there. Returns whether it was not. (``expire`` is rounded up to whole seconds.)"""
        coded = self._coded
        ttl = 0 if expire is None else whole_seconds("expire", expire)
        return compound.add(self._store._engine, coded.key(key), coded.data(value), ttl) is None

    def incr(self, key: str, delta: int = 1, default: int | None = 0) -> int:
        """Add to a number and return the sum; it expires when it would have. ``default`` None: raise ``KeyError``."""
        check_int("delta", delta)
        coded = self._coded
        total = 0

        def add(kv: KeyValue | None) -> bytes:
            nonlocal total
            found = default if kv is None else coded.value(kv)
            if found is None and kv is None:
                raise KeyError(key)
            if not isinstance(found, int) or isinstance(found, bool):
                raise TypeError(f"{key!r} holds {found!r:.80}, not a whole number")
            total = found + delta
            return coded.data(total)

        compound.update(self._store._engine, coded.key(key), add)
        return total

    def decr(self, key: str, delta: int = 1, default: int | None = 0) -> int:
        """As ``incr``, downwards; below 0 too."""
        return self.incr(key, -delta, default)

    def pop(self, key: str, default: Any = None) -> Any:
        """Delete a key and return its value, or ``default``. (Of several at the same time one gets it.)"""
        return super().pop(key, default)

    def touch(self, key: str, expire: float | None = None) -> bool:
        """Let a key expire in ``expire`` seconds from now (None: never). Returns whether there is one."""
        ttl = None if expire is None else seconds("expire", expire)
        try:
            self._store.put(self._coded.key(key), ignore_value=True, ttl=ttl)
        except kvstore.KeyNotFound:
            return False
        return True

    def delete(self, key: str) -> bool:
        """Delete a key. Returns whether there was one."""
        return self._store.delete(self._coded.key(key)).deleted == 1

    def clear(self) -> int:  # type: ignore[override]  # as diskcache has it
        """Delete all of them, in one revision. Returns how many there were."""
        return self._store.delete(prefix=self.prefix).deleted

    def expires_in(self, key: str) -> float | None:
        """Seconds until a key expires; None if it never does. Raises ``KeyError``."""
        kv = self._store.get(self._coded.key(key))
        if kv is None:
            raise KeyError(key)
        return self._store.lease_time_to_live(kv.lease).ttl if kv.lease else None


class OwnCache(Cache):
    """A cache with a store of its own, closed with it. Made by ``open_cache``."""

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def sync(self) -> None:
        """Does nothing, as what was set is on disk: for programs written for shelve."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_cache(
    directory: str | os.PathLike[str],
    codec: Codec[Any] = PLAIN,
    *,
    size_limit: int = 0,
    **options: Unpack[OpenOptions],
) -> OwnCache:
    """The cache in ``directory``, made if there is none; ``options`` are those of ``kvstore.open``."""
    return OwnCache(kvstore.open(directory, **_forgetting(options)), codec=codec, size_limit=size_limit)


def _forgetting(options: OpenOptions) -> OpenOptions:
    """The options, with a bounded history: what was replaced or evicted would fill the store."""
    told = {"auto_compaction_retention", "auto_compaction_mode", "compaction_retention", "read_only"}
    if told & options.keys() or "KVSTORE_AUTO_COMPACTION_RETENTION" in os.environ:
        return options
    return {**options, "auto_compaction_retention": RETENTION}


class AsyncCache(AsyncMapView[str, Any], Twin):
    """``Cache`` for asyncio: the same calls, awaited. What changes something runs in the loop's executor."""

    def __init__(
        self, store: AsyncStore, prefix: str = "", codec: Codec[Any] = PLAIN, *, size_limit: int = 0
    ) -> None:
        super().__init__(store, prefix, keys=TEXT, values=codec)
        self._twin: Cache = Cache(store._twin, prefix, codec, size_limit=size_limit)

    @property
    def _blocking(self) -> Cache:
        return self._twin

    @property
    def store(self) -> AsyncStore:
        """The store behind it."""
        return self._writable

    set = composed(Cache.set)
    add = composed(Cache.add)
    put = composed(Cache.put)
    put_many = composed(Cache.put_many)
    decr = composed(Cache.decr)
    pop = composed(Cache.pop)  # type: ignore[assignment]  # as diskcache has it
    touch = composed(Cache.touch)
    delete = composed(Cache.delete)
    expires_in = composed(Cache.expires_in)

    @twin(Cache.incr)
    async def incr(self, key: str, delta: int = 1, default: int | None = 0) -> int:
        return await in_thread(partial(self._twin.incr, key, delta, default))

    @twin(Cache.clear)
    async def clear(self) -> int:  # type: ignore[override]  # likewise
        return await in_thread(self._twin.clear)


@asynccontextmanager
async def open_cache_async(
    directory: str | os.PathLike[str],
    codec: Codec[Any] = PLAIN,
    *,
    size_limit: int = 0,
    **options: Unpack[OpenOptions],
) -> AsyncIterator[AsyncCache]:
    """As ``open_cache``, for asyncio: ``async with open_cache_async("cache") as cache``."""
    async with kvstore.open_async(directory, **_forgetting(options)) as store:
        yield AsyncCache(store, codec=codec, size_limit=size_limit)
