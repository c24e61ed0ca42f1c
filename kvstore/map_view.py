"""The keys under a prefix as a mapping of Python objects, on any store: ``MapView``, and ``AsyncMapView`` for asyncio.

    settings = kvstore.MapView(store, "settings/", values=kvstore.JSON)
    settings["theme"] = "dark"            put(b"settings/theme", b'"dark"')
    "theme" in settings, len(settings)    one look-up; one count
    for name in settings: ...             in the order of the keys' bytes, all of one revision
    settings.at(revision)["theme"]        the same mapping in the past: it can be read only

A view holds nothing and caches nothing: each call is one of the store's, and what others write is seen at once. It
works over whatever is a ``Store``: also one that is elsewhere, and one that is a part of another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, NamedTuple, TypeVar, overload

from kvstore import compound
from kvstore.aio import AsyncStore, AsyncView
from kvstore.arguments import Seconds
from kvstore.codecs import TEXT, Codec
from kvstore.compound import PutManyResponse
from kvstore.errors import UndecodableValue
from kvstore.keyvalue import KeyValue
from kvstore.loops import in_thread
from kvstore.store import Store, View

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class Version(NamedTuple, Generic[V]):
    """A value that a key had: from ``revision`` on. ``value`` None and ``deleted``: it was deleted then."""

    revision: int
    """The revision that wrote it, or deleted the key."""
    value: V | None
    """The value; None where the key was deleted."""
    deleted: bool = False
    """Whether this is a deletion."""


class Changed(NamedTuple, Generic[K, V]):
    """A key that differs between two revisions; None where it did not exist."""

    key: K
    """The key, decoded."""
    before: V | None
    """Its value at the earlier revision; None if there was none."""
    after: V | None
    """Its value at the later one; likewise."""


class _Coded(Generic[K, V]):
    """Keys and values on their way in and out."""

    def __init__(self, prefix: str | bytes, keys: Codec[K], values: Codec[V]) -> None:
        if not isinstance(prefix, str | bytes):
            raise TypeError(f"prefix must be str or bytes, not {type(prefix).__name__}")
        for name, codec in (("keys", keys), ("values", values)):
            if not isinstance(codec, Codec):
                raise TypeError(f"{name} must be a kvstore.Codec, not {codec!r:.80}")
        self.prefix = prefix.encode() if isinstance(prefix, str) else prefix
        self.keys = keys
        self.values = values

    def key(self, key: K) -> bytes:
        return self.prefix + self.keys.encode(key)

    def name(self, kv: KeyValue) -> K:
        return _decoded(self.keys, kv.key[len(self.prefix) :], kv.key, "name")

    def value(self, kv: KeyValue) -> V:
        return _decoded(self.values, kv.value, kv.key, "value")

    def version(self, kv: KeyValue) -> Version[V]:
        if not kv.version:
            return Version(kv.mod_revision, None, deleted=True)
        return Version(kv.mod_revision, self.value(kv))

    def maybe(self, kv: KeyValue | None) -> V | None:
        return None if kv is None else self.value(kv)


def _decoded(codec: Codec[D], data: bytes, key: bytes, what: str) -> D:
    try:
        return codec.decode(data)
    except Exception as error:
        raise UndecodableValue(key, f"its {what} {data!r:.80} cannot be decoded: {error}") from error


class ReadMapView(Mapping[K, V], Generic[K, V]):
    """The reading half: what a view of the past is."""

    def __init__(self, store: Store | View, prefix: str | bytes, *, keys: Codec[K], values: Codec[V]) -> None:
        self._store = store
        self._coded = _Coded(prefix, keys, values)

    @property
    def prefix(self) -> bytes:
        """What all keys begin with in the store."""
        return self._coded.prefix

    def __getitem__(self, key: K) -> V:
        kv = self._store.get(self._coded.key(key))
        if kv is None:
            raise KeyError(key)
        return self._coded.value(kv)

    def __contains__(self, key: object) -> bool:
        try:
            encoded = self._coded.key(key)  # type: ignore[arg-type]  # whatever it is: no key of another type is here
        except (TypeError, ValueError, AttributeError):
            return False
        return encoded in self._store

    def __len__(self) -> int:
        return self._store.count(prefix=self.prefix)

    def __iter__(self) -> Iterator[K]:
        return map(self._coded.name, self._store.scan(prefix=self.prefix, keys_only=True))

    def __reversed__(self) -> Iterator[K]:
        return map(self._coded.name, self._store.scan(prefix=self.prefix, keys_only=True, reverse=True))

    def scan(self, *, reverse: bool = False, limit: int = 0) -> Iterator[tuple[K, V]]:
        """Keys with their values, in the order of their bytes, all of one revision. (``items()`` asks one by one.)"""
        coded = self._coded
        for kv in self._store.scan(prefix=self.prefix, reverse=reverse, limit=limit):
            yield coded.name(kv), coded.value(kv)

    def __repr__(self) -> str:
        return f"<kvstore.{type(self).__name__} of {self.prefix!r} in {self._store!r}>"


class MapView(ReadMapView[K, V], MutableMapping[K, V]):
    """A mapping of the keys under a prefix (empty: of all keys). Every change is durable when the statement has ended.

    ``keys``, ``values``: their codecs; text, unless given.
    """

    _store: Store

    @overload
    def __init__(self: MapView[str, str], store: Store, prefix: str | bytes = ...) -> None: ...
    @overload
    def __init__(
        self: MapView[str, V], store: Store, prefix: str | bytes = ..., *, values: Codec[V]
    ) -> None: ...
    @overload
    def __init__(
        self, store: Store, prefix: str | bytes = ..., *, keys: Codec[K], values: Codec[V]
    ) -> None: ...
    def __init__(
        self,
        store: Store,
        prefix: str | bytes = b"",
        *,
        keys: Codec[Any] = TEXT,
        values: Codec[Any] = TEXT,
    ) -> None:
        super().__init__(store, prefix, keys=keys, values=values)

    def __setitem__(self, key: K, value: V) -> None:
        self.put(key, value)

    def __delitem__(self, key: K) -> None:
        if not self._store.delete(self._coded.key(key)).deleted:
            raise KeyError(key)

    def put(self, key: K, value: V, *, ttl: Seconds | None = None, lease: int = 0) -> int:
        """Set a key, for a while if ``ttl`` (seconds) or a lease is given. Returns the revision."""
        coded = self._coded
        return self._store.put(coded.key(key), coded.values.encode(value), ttl=ttl, lease=lease).revision

    def put_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], *, lease: int = 0) -> PutManyResponse:
        """Set any number of keys: one revision while they fit the limits (``Store.put_many``)."""
        coded = self._coded
        given = items.items() if isinstance(items, Mapping) else items
        return self._store.put_many(
            {coded.key(key): coded.values.encode(value) for key, value in given}, lease=lease
        )

    def incr(self: MapView[K, int], key: K, by: int = 1) -> int:
        """Add to a number, 0 if there is none, and return the sum. Of several at the same time none is lost."""
        coded = self._coded
        return compound.incr(self._store._engine, coded.key(key), by, coded.values)

    def clear(self) -> None:
        """Delete all of them, in one revision."""
        self._store.delete(prefix=self.prefix)

    def at(self, revision: int) -> ReadMapView[K, V]:
        """The mapping as it was. Raises ``Compacted`` or ``FutureRevision``."""
        coded = self._coded
        return ReadMapView(self._store.at(revision), coded.prefix, keys=coded.keys, values=coded.values)

    def history(self, key: K) -> Iterator[Version[V]]:
        """Every kept value of a key, oldest first, each with its revision; also that it was deleted."""
        return map(self._coded.version, self._store.history(self._coded.key(key)))

    def diff(self, older: int, newer: int = 0) -> Iterator[Changed[K, V]]:
        """What differs between two revisions (``newer`` 0: the newest), in key order. Raises ``Compacted``."""
        coded = self._coded
        for change in self._store.diff(older, newer, prefix=self.prefix):
            name = coded.name(KeyValue(change.key))
            yield Changed(name, coded.maybe(change.before), coded.maybe(change.after))


class AsyncMapView(Generic[K, V]):
    """The keys under a prefix as Python objects, for asyncio: ``MapView`` with methods in place of ``[]``, ``in``.

    The arguments are those of ``MapView``.
    """

    @overload
    def __init__(
        self: AsyncMapView[str, str], store: AsyncStore | AsyncView, prefix: str | bytes = ...
    ) -> None: ...
    @overload
    def __init__(
        self: AsyncMapView[str, V],
        store: AsyncStore | AsyncView,
        prefix: str | bytes = ...,
        *,
        values: Codec[V],
    ) -> None: ...
    @overload
    def __init__(
        self, store: AsyncStore | AsyncView, prefix: str | bytes = ..., *, keys: Codec[K], values: Codec[V]
    ) -> None: ...
    def __init__(
        self,
        store: AsyncStore | AsyncView,
        prefix: str | bytes = b"",
        *,
        keys: Codec[Any] = TEXT,
        values: Codec[Any] = TEXT,
    ) -> None:
        self._store = store
        self._coded = _Coded(prefix, keys, values)

    @property
    def prefix(self) -> bytes:
        """What all keys begin with in the store."""
        return self._coded.prefix

    @property
    def _writable(self) -> AsyncStore:
        if not isinstance(self._store, AsyncStore):
            raise TypeError("a view of the past can be read only")
        return self._store

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: V | D) -> V | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, or ``default``."""
        kv = await self._store.get(self._coded.key(key))
        return default if kv is None else self._coded.value(kv)

    async def contains(self, key: K) -> bool:
        """Whether there is such a key."""
        return await self._store.count(self._coded.key(key)) == 1

    async def count(self) -> int:
        """How many keys there are."""
        return await self._store.count(prefix=self.prefix)

    async def scan(self, *, reverse: bool = False, limit: int = 0) -> AsyncIterator[tuple[K, V]]:
        """Keys with their values, in the order of the keys' bytes, all of one revision."""
        coded = self._coded
        async for kv in self._store.scan(prefix=self.prefix, reverse=reverse, limit=limit):
            yield coded.name(kv), coded.value(kv)

    async def put(self, key: K, value: V, *, ttl: Seconds | None = None, lease: int = 0) -> int:
        """Set a key, for a while if ``ttl`` (seconds) or a lease is given. Returns the revision."""
        coded = self._coded
        done = await self._writable.put(coded.key(key), coded.values.encode(value), ttl=ttl, lease=lease)
        return done.revision

    async def put_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], *, lease: int = 0
    ) -> PutManyResponse:
        """Set any number of keys: one revision while they fit the limits (``Store.put_many``)."""
        coded = self._coded
        given = items.items() if isinstance(items, Mapping) else items
        puts = {coded.key(key): coded.values.encode(value) for key, value in given}
        return await self._writable.put_many(puts, lease=lease)

    async def incr(self: AsyncMapView[K, int], key: K, by: int = 1) -> int:
        """Add to a number, 0 if there is none, and return the sum. Of several at the same time none is lost."""
        coded, engine = self._coded, self._writable._twin._engine
        return await in_thread(lambda: compound.incr(engine, coded.key(key), by, coded.values))

    async def delete(self, key: K) -> bool:
        """Delete a key. Returns whether there was one."""
        return (await self._writable.delete(self._coded.key(key))).deleted == 1

    async def clear(self) -> None:
        """Delete all of them, in one revision."""
        await self._writable.delete(prefix=self.prefix)

    def at(self, revision: int) -> AsyncMapView[K, V]:
        """The mapping as it was: it can be read only."""
        coded = self._coded
        view = self._writable.at(revision)
        return AsyncMapView(view, coded.prefix, keys=coded.keys, values=coded.values)

    async def history(self, key: K) -> AsyncIterator[Version[V]]:
        """Every kept value of a key, oldest first, each with its revision; also that it was deleted."""
        async for kv in self._writable.history(self._coded.key(key)):
            yield self._coded.version(kv)

    async def diff(self, older: int, newer: int = 0) -> AsyncIterator[Changed[K, V]]:
        """What differs between two revisions (``newer`` 0: the newest), in key order. Raises ``Compacted``."""
        coded = self._coded
        async for change in self._writable.diff(older, newer, prefix=self.prefix):
            name = coded.name(KeyValue(change.key))
            yield Changed(name, coded.maybe(change.before), coded.maybe(change.after))

    def __repr__(self) -> str:
        return f"<kvstore.AsyncMapView of {self.prefix!r} in {self._store!r}>"
