"""A cache as diskcache has it, and a mapping as shelve has it, on a store: ``Cache(store)``, or ``open_cache("data")``.

    cache.set("token", "abc", expire=60)      a lease: gone after a minute, also while nobody looks
    cache["user"] = {"name": "Ada"}           as JSON; what a key had before is in ``cache.store.history``
    cache.incr("hits")                        of several at the same time none is lost
    cache.add("lock", b"me", expire=10)       only if there is none
    for key in cache: ...                     in the order of their bytes, all of one revision

Values are str, bytes and what JSON has, and are read back as they were written (a tuple as a list). Any other type
takes a ``kvstore.Codec``. Nothing is ever pickled, so reading a cache runs nothing.

Nothing is evicted to make room: entries go when they expire or are deleted. A full store refuses (``QuotaExceeded``).
"""

from __future__ import annotations

import json
import os
from typing import Any, Self, Unpack

import kvstore
from kvstore import compound, ops
from kvstore.codecs import TEXT, Codec
from kvstore.keyvalue import KeyValue
from kvstore.map_view import MapView
from kvstore.options import OpenOptions
from kvstore.store import Store


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


class Cache(MapView[str, Any]):
    """The keys under ``prefix`` of an open store, which stays the caller's to close: a view with diskcache's calls.

    Times to live are in seconds, at least the store's ``lease_min_ttl_seconds``.
    """

    def __init__(self, store: Store, prefix: str = "", codec: Codec[Any] = PLAIN) -> None:
        super().__init__(store, prefix, keys=TEXT, values=codec)

    @property
    def store(self) -> Store:
        """The store behind it."""
        return self._store

    def set(self, key: str, value: Any, expire: float | None = None) -> bool:
        """Set a key, for ``expire`` seconds if that is given."""
        self.put(key, value, ttl=expire)
        return True

    def add(self, key: str, value: Any, expire: float | None = None) -> bool:
        """Set a key that is not there. Returns whether it was not. (``expire`` is rounded up to whole seconds.)"""
        coded = self._coded
        name = coded.key(key)
        lease = 0 if expire is None else self._store.grant_lease(expire).id
        put = ops.put(name, coded.values.encode(value), lease=lease)
        added = self._store.txn(compare=[ops.version(name) == 0], success=[put]).succeeded
        if lease and not added:
            self._store.revoke_lease(lease)
        return added

    def incr(self, key: str, delta: int = 1, default: int | None = 0) -> int:
        """Add to a number and return the sum; it expires when it would have. ``default`` None: raise ``KeyError``."""
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
            return coded.values.encode(total)

        compound.update(self._store._engine, coded.key(key), add)
        return total

    def decr(self, key: str, delta: int = 1, default: int | None = 0) -> int:
        """As ``incr``, downwards; below 0 too."""
        return self.incr(key, -delta, default)

    def pop(self, key: str, default: Any = None) -> Any:
        """Delete a key and return its value, or ``default``. (Of several at the same time one gets it.)"""
        gone = self._store.delete(self._coded.key(key), prev_kv=True).prev_kvs
        return self._coded.value(gone[0]) if gone else default

    def touch(self, key: str, expire: float | None = None) -> bool:
        """Let a key expire in ``expire`` seconds from now (None: never). Returns whether there is one."""
        try:
            self._store.put(self._coded.key(key), ignore_value=True, ttl=expire)
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
    directory: str | os.PathLike[str], codec: Codec[Any] = PLAIN, **options: Unpack[OpenOptions]
) -> OwnCache:
    """The cache in ``directory``, made if there is none; ``options`` are those of ``kvstore.open``."""
    return OwnCache(kvstore.open(directory, **options), codec=codec)
