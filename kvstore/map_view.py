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

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast, overload

from kvstore import compound
from kvstore.aio import AsyncReader, AsyncStore, AsyncView
from kvstore.arguments import Seconds, check_callable, check_number, pairs, whole_seconds
from kvstore.codecs import TEXT, Codec, decoded, encoded
from kvstore.compound import PutManyResponse, Write
from kvstore.keyvalue import KeyValue
from kvstore.loops import in_thread
from kvstore.model import DeleteRangeRequest, PutRequest
from kvstore.store import Reader, Store, View

_NONE: Any = object()
"""No such argument was given."""

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


def _check_store(store: object, wanted: type) -> None:
    if not isinstance(store, wanted):
        hint = {Store: ": use MapView", AsyncStore: ": use AsyncMapView"}.get(type(store), "")
        raise TypeError(f"store must be {_KINDS[wanted]}, not {store!r:.80}{hint}")


_KINDS = {Store: "a kvstore.Store", Reader: "a kvstore.Store or View", AsyncReader: "a kvstore.AsyncStore"}


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
        self.make_room: Callable[[int, int], None] = lambda entries, value_bytes: None
        """Called before that many entries are written, with the size of their values."""

    def key(self, key: K) -> bytes:
        return self.prefix + encoded(self.keys, key, "key")

    def data(self, value: V) -> bytes:
        """A value that is about to be written."""
        data = encoded(self.values, value, "value")
        self.make_room(1, len(data))
        return data

    def puts(self, items: Mapping[K, V] | Iterable[tuple[K, V]]) -> dict[bytes, bytes]:
        """Many that are."""
        given = pairs("items", items)
        puts = {self.key(key): encoded(self.values, value, "value") for key, value in given}
        self.make_room(len(puts), sum(map(len, puts.values())))
        return puts

    def name(self, kv: KeyValue) -> K:
        return decoded(self.keys, kv.key[len(self.prefix) :], kv.key, "name")

    def value(self, kv: KeyValue) -> V:
        return decoded(self.values, kv.value, kv.key, "value")

    def version(self, kv: KeyValue) -> Version[V]:
        if not kv.version:
            return Version(kv.mod_revision, None, deleted=True)
        return Version(kv.mod_revision, self.value(kv))

    def maybe(self, kv: KeyValue | None) -> V | None:
        return None if kv is None else self.value(kv)


class ReadMapView(Mapping[K, V], Generic[K, V]):
    """The reading half: what a view of the past is."""

    _over: type = Reader

    def __init__(self, store: Store | View, prefix: str | bytes, *, keys: Codec[K], values: Codec[V]) -> None:
        _check_store(store, self._over)
        self._store = store
        self._coded: _Coded[K, V] = _Coded(prefix, keys, values)

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

    def items(self) -> ItemsView[K, V]:
        """Keys with their values, as a dictionary has them: iterated as by ``scan``."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values, in the order of their keys: iterated as by ``scan``."""
        return _Values(self)

    def scan(self, *, reverse: bool = False, limit: int = 0) -> Iterator[tuple[K, V]]:
        """Keys with their values, in the order of their bytes, all of one revision, a page at a time."""
        coded = self._coded
        for kv in self._store.scan(prefix=self.prefix, reverse=reverse, limit=limit):
            yield coded.name(kv), coded.value(kv)

    def __repr__(self) -> str:
        return f"<kvstore.{type(self).__name__} of {self.prefix!r} in {self._store!r}>"


class _Items(ItemsView[K, V]):
    _mapping: ReadMapView[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping.scan()


class _Values(ValuesView[V]):
    _mapping: ReadMapView[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.scan())


class MapView(ReadMapView[K, V], MutableMapping[K, V]):
    """A mapping of the keys under a prefix (empty: of all keys). Every change is durable when the statement has ended.

    ``keys``, ``values``: their codecs; text, unless given.
    """

    _store: Store
    _over = Store

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
        return self._store.put(coded.key(key), coded.data(value), ttl=ttl, lease=lease).revision

    def put_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], *, lease: int = 0) -> PutManyResponse:
        """Set any number of keys: one revision while they fit the limits (``Store.put_many``)."""
        return self._store.put_many(self._coded.puts(items), lease=lease)

    @overload  # type: ignore[override]  # a Mapping is enough
    def update(self, other: Mapping[K, V], /, **named: V) -> None: ...
    @overload
    def update(self, other: Iterable[tuple[K, V]] = ..., /, **named: V) -> None: ...
    def update(self, other: Any = (), /, **named: V) -> None:
        """Set many keys: one revision while they fit the limits, as ``put_many``."""
        self.put_many(dict(other) | named)

    def setdefault(self, key: K, default: V, *, ttl: Seconds | None = None) -> V:
        """The value of a key. If there is none, ``default`` is put, for a while if ``ttl`` (seconds) is given.

        Of several at the same time one is put, and all get that. ``ttl`` is rounded up to whole seconds.
        """
        coded = self._coded
        seconds = 0 if ttl is None else whole_seconds("ttl", ttl)
        there = compound.add(self._store._engine, coded.key(key), coded.data(default), seconds)
        return default if there is None else coded.value(there)

    def get_or_put(self, key: K, make: Callable[[], V], *, ttl: Seconds | None = None) -> V:
        """The value of a key. If there is none, what ``make()`` returns is put, as ``setdefault`` does.

        ``make`` is called only then; by several callers, if they find nothing at the same time.
        """
        check_callable("make", make)
        found = self._store.get(self._coded.key(key))
        return self.setdefault(key, make(), ttl=ttl) if found is None else self._coded.value(found)

    def modify(self, key: K, change: Callable[[V | None], V]) -> V:
        """Put what ``change`` makes of a key's value (None: there is none), and return it. A lease of the key stays.

        If somebody else was faster, it is called again with what is there then: no change is lost. So it should do
        nothing but compute.
        """
        check_callable("change", change)
        coded = self._coded
        made: list[V] = []

        def encode(kv: KeyValue | None) -> bytes:
            made.append(change(coded.maybe(kv)))
            return coded.data(made[-1])

        compound.update(self._store._engine, coded.key(key), encode)
        return made[-1]

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, /, default: V) -> V: ...
    @overload
    def pop(self, key: K, /, default: D) -> V | D: ...
    def pop(self, key: K, /, default: Any = _NONE) -> Any:
        """Delete a key and return its value, or ``default``. Raises ``KeyError`` without one. (One caller gets it.)"""
        coded = self._coded
        gone = compound.take(self._store._engine, coded.key(key), lambda kv: (coded.value(kv),))
        if gone is not None:
            return gone[0]
        if default is _NONE:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Delete the first key and return it with its value, to one caller. Raises ``KeyError`` if there is none."""
        coded = self._coded
        while (
            first := next(self._store.scan(prefix=self.prefix, limit=1, keys_only=True), None)
        ) is not None:
            gone = compound.take(self._store._engine, first.key, lambda kv: (coded.name(kv), coded.value(kv)))
            if gone is not None:
                return gone
        raise KeyError("the mapping is empty")

    @overload
    def restore(self, revision: int, /) -> int: ...
    @overload
    def restore(self, revision: int, /, key: K) -> int: ...
    def restore(self, revision: int, /, key: Any = _NONE) -> int:
        """Put everything back as it was at a revision, or one key: keys of later go. Returns the revision of that.

        One revision while it fits the limits, as ``put_many``; it is part of the history, and can be undone as well.
        What comes back has no lease. Raises ``Compacted`` or ``FutureRevision``.
        """
        check_number("revision", revision, 1)
        done, _ = compound.write_many(self._store._engine, self._as_it_was(revision, key))
        return done or self._store.revision

    def _as_it_was(self, revision: int, key: Any) -> list[Write]:
        if key is _NONE:
            changes = [(at.key, at.before) for at in self._store.diff(revision, prefix=self.prefix)]
        else:
            name = self._coded.key(key)
            was, now = self._store.get(name, revision=revision), self._store.get(name)
            changes = [(name, was)] if (was and was.value) != (now and now.value) else []
        return [PutRequest(name, was.value) if was else DeleteRangeRequest(name) for name, was in changes]

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
        _check_store(store, AsyncReader)
        self._store = store
        self._coded: _Coded[K, V] = _Coded(prefix, keys, values)

    @property
    def prefix(self) -> bytes:
        """What all keys begin with in the store."""
        return self._coded.prefix

    @property
    def _writable(self) -> AsyncStore:
        if not isinstance(self._store, AsyncStore):
            raise TypeError("a view of the past can be read only")
        return self._store

    @property
    def _blocking(self) -> MapView[K, V]:
        """The same mapping for a thread, which makes what takes several requests."""
        coded = self._coded
        return MapView(self._writable._twin, coded.prefix, keys=coded.keys, values=coded.values)

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
        done = await self._writable.put(coded.key(key), coded.data(value), ttl=ttl, lease=lease)
        return done.revision

    async def put_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], *, lease: int = 0
    ) -> PutManyResponse:
        """Set any number of keys: one revision while they fit the limits (``Store.put_many``)."""
        return await self._writable.put_many(self._coded.puts(items), lease=lease)

    async def setdefault(self, key: K, default: V, *, ttl: Seconds | None = None) -> V:
        """The value of a key. If there is none, ``default`` is put, for a while if ``ttl`` (seconds) is given.

        Of several at the same time one is put, and all get that. ``ttl`` is rounded up to whole seconds.
        """
        return await in_thread(partial(self._blocking.setdefault, key, default, ttl=ttl))

    async def get_or_put(
        self, key: K, make: Callable[[], V | Awaitable[V]], *, ttl: Seconds | None = None
    ) -> V:
        """The value of a key. If there is none, what ``make()`` returns is put (awaited, if need be), as by
        ``setdefault``.

        ``make`` is called only then; by several callers, if they find nothing at the same time.
        """
        check_callable("make", make)
        found = await self._store.get(self._coded.key(key))
        if found is not None:
            return self._coded.value(found)
        made = make()
        value = cast(V, await made if isinstance(made, Awaitable) else made)
        return await self.setdefault(key, value, ttl=ttl)

    async def modify(self, key: K, change: Callable[[V | None], V]) -> V:
        """Put what ``change`` makes of a key's value (None: there is none), and return it. A lease of the key stays.

        If somebody else was faster, it is called again with what is there then: no change is lost. So it should do
        nothing but compute. It is called in a thread.
        """
        return await in_thread(partial(self._blocking.modify, key, change))

    @overload
    async def pop(self, key: K, /) -> V: ...
    @overload
    async def pop(self, key: K, /, default: V) -> V: ...
    @overload
    async def pop(self, key: K, /, default: D) -> V | D: ...
    async def pop(self, key: K, /, default: Any = _NONE) -> Any:
        """Delete a key and return its value, or ``default``. Raises ``KeyError`` without one. (One caller gets it.)"""
        return await in_thread(partial(self._blocking.pop, key, default))

    @overload
    async def restore(self, revision: int, /) -> int: ...
    @overload
    async def restore(self, revision: int, /, key: K) -> int: ...
    async def restore(self, revision: int, /, key: Any = _NONE) -> int:
        """Put everything back as it was at a revision, or one key: keys of later go. Returns the revision of that.

        One revision while it fits the limits, as ``put_many``; it is part of the history, and can be undone as well.
        What comes back has no lease. Raises ``Compacted`` or ``FutureRevision``.
        """
        return await in_thread(partial(self._blocking.restore, revision, key))

    async def incr(self: AsyncMapView[K, int], key: K, by: int = 1) -> int:
        """Add to a number, 0 if there is none, and return the sum. Of several at the same time none is lost."""
        return await in_thread(partial(self._blocking.incr, key, by))

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
        return f"<kvstore.{type(self).__name__} of {self.prefix!r} in {self._store!r}>"
