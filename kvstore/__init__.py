"""kvstore: an embedded, durable, ordered, multi-version key-value store with etcd's semantics.

    import kvstore

    with kvstore.open("data") as store:
        revision = store.put(b"k", b"v").revision
        store.put(b"k", b"w")
        store.get(b"k").value                       # b"w"
        store.get(b"k", revision=revision).value    # b"v"

A write that has returned is on disk. Every write has a revision, and the past stays readable until compacted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from kvstore import _platform as _platform
from kvstore._version import __version__ as __version__
from kvstore.shelter import Sheltered, import_sheltered

if TYPE_CHECKING:  # what is loaded on first use
    from kvstore import metrics as metrics
    from kvstore import ops as ops
    from kvstore.aio import AsyncStore, AsyncView
    from kvstore.backend import Progress
    from kvstore.codecs import BYTES, INTEGER, JSON, TEXT, Codec, Json
    from kvstore.compound import PutManyResponse
    from kvstore.errors import (
        BadArgument,
        Busy,
        Code,
        Compacted,
        CorruptCluster,
        Corruption,
        DeadlineExceeded,
        DiskFailed,
        DiskFull,
        DuplicateKey,
        EmptyKey,
        ForkedStore,
        FutureRevision,
        InvalidSortOption,
        IsReplica,
        KeyNotFound,
        KVStoreError,
        LeaseExists,
        LeaseNotFound,
        LeaseProvided,
        LeaseTTLTooLarge,
        MissingDependency,
        NearlyFull,
        NoDescriptor,
        NotAStore,
        NoThread,
        OpenError,
        OutcomeUnknown,
        Overloaded,
        PermissionDenied,
        QuotaExceeded,
        ReadOnly,
        Reentered,
        RequestError,
        RequestTooLarge,
        RevisionsExhausted,
        SpaceError,
        StateError,
        StoreClosed,
        StoreLocked,
        StorePoisoned,
        StoreUnreachable,
        TimeUnknown,
        TooManyOps,
        TooNew,
        TooOld,
        Unauthenticated,
        Unavailable,
        UndecodableValue,
        Unsupported,
        ValueProvided,
        WatchCanceled,
        WatchTimeout,
        WrongStore,
    )
    from kvstore.former import delete, get, put, txn
    from kvstore.implementation import __impl__ as __impl__
    from kvstore.keyvalue import KeyValue, KeyValues
    from kvstore.map_view import AsyncMapView, Changed, MapView, ReadMapView, Version
    from kvstore.model import (
        FROM_KEY,
        Alarm,
        Change,
        CompactionResponse,
        Compare,
        DeleteRangeResponse,
        Event,
        EventType,
        HashKVResponse,
        LeaseGrantResponse,
        LeaseKeepAliveResponse,
        LeaseRevokeResponse,
        LeaseTimeToLiveResponse,
        Op,
        PutResponse,
        RangeResponse,
        SortOrder,
        SortTarget,
        TxnResponse,
        WatchPosition,
        WatchRequest,
        WatchResponse,
        prefix_end,
    )
    from kvstore.observe.estimates import CompactionEstimate, DefragmentEstimate
    from kvstore.observe.facts import Fact
    from kvstore.observe.status import Health, Status
    from kvstore.opened import Snapshot
    from kvstore.ops import create_revision, lease, mod_revision, value, version
    from kvstore.options import BadOption, OpenOptions, Options, SharedOptions
    from kvstore.protocol import Engine
    from kvstore.recovery import OpenedEngine
    from kvstore.scans import AsyncScan, Scan
    from kvstore.served import AnyStore, AsyncServer, ConnectOptions, ServeOptions, Server
    from kvstore.snapshot.reader import SnapshotInfo
    from kvstore.snapshot.restore import Restored, RestoreOptions
    from kvstore.store import Store, View
    from kvstore.upkeep.defragment import Defragmented
    from kvstore.verification.report import Report, Steps
    from kvstore.watch.asynchronous import AsyncWatch, AsyncWatchStream
    from kvstore.watch.iterators import CallbackWatch, Watch
    from kvstore.watch.stream import WatchStream
    from kvstore.write.ticket import Ticket

logging.getLogger("kvstore").addHandler(logging.NullHandler())  # silent unless the program sets up logging

if not os.path.isdir(os.path.join(__path__[0], "backends")):  # a checkout, where it lies beside this folder
    __path__.append(os.path.dirname(__path__[0]))

__all__ = [
    "Alarm",
    "AsyncMapView",
    "AsyncScan",
    "AsyncServer",
    "AsyncStore",
    "AsyncView",
    "AsyncWatch",
    "AsyncWatchStream",
    "BYTES",
    "BadArgument",
    "BadOption",
    "Busy",
    "CallbackWatch",
    "Change",
    "Changed",
    "Code",
    "Codec",
    "Compacted",
    "CompactionEstimate",
    "CompactionResponse",
    "Compare",
    "CorruptCluster",
    "Corruption",
    "DeadlineExceeded",
    "DefragmentEstimate",
    "Defragmented",
    "DeleteRangeResponse",
    "DiskFailed",
    "DiskFull",
    "DuplicateKey",
    "EmptyKey",
    "Event",
    "EventType",
    "FROM_KEY",
    "Fact",
    "ForkedStore",
    "FutureRevision",
    "HashKVResponse",
    "Health",
    "INTEGER",
    "InvalidSortOption",
    "IsReplica",
    "JSON",
    "Json",
    "KVStoreError",
    "KeyNotFound",
    "KeyValue",
    "KeyValues",
    "LeaseExists",
    "LeaseGrantResponse",
    "LeaseKeepAliveResponse",
    "LeaseNotFound",
    "LeaseProvided",
    "LeaseRevokeResponse",
    "LeaseTTLTooLarge",
    "LeaseTimeToLiveResponse",
    "MapView",
    "MissingDependency",
    "NearlyFull",
    "NoDescriptor",
    "NoThread",
    "NotAStore",
    "Op",
    "OpenError",
    "OpenOptions",
    "Options",
    "OutcomeUnknown",
    "Overloaded",
    "PermissionDenied",
    "PutManyResponse",
    "PutResponse",
    "QuotaExceeded",
    "RangeResponse",
    "ReadMapView",
    "ReadOnly",
    "Reentered",
    "Report",
    "RequestError",
    "RequestTooLarge",
    "Restored",
    "RevisionsExhausted",
    "Scan",
    "Server",
    "Snapshot",
    "SnapshotInfo",
    "SortOrder",
    "SortTarget",
    "SpaceError",
    "StateError",
    "Status",
    "Store",
    "StoreClosed",
    "StoreLocked",
    "StorePoisoned",
    "StoreUnreachable",
    "TEXT",
    "Ticket",
    "TimeUnknown",
    "TooManyOps",
    "TooNew",
    "TooOld",
    "TxnResponse",
    "Unauthenticated",
    "Unavailable",
    "UndecodableValue",
    "Unsupported",
    "ValueProvided",
    "Version",
    "View",
    "Watch",
    "WatchCanceled",
    "WatchPosition",
    "WatchRequest",
    "WatchResponse",
    "WatchStream",
    "WatchTimeout",
    "WrongStore",
    "connect",
    "connect_async",
    "create_revision",
    "delete",
    "doctor",
    "get",
    "lease",
    "mod_revision",
    "open",
    "open_async",
    "open_memory",
    "open_memory_async",
    "open_snapshot",
    "prefix_end",
    "put",
    "restore",
    "serve",
    "serve_async",
    "txn",
    "value",
    "verify",
    "version",
]


def open(
    data_dir: str | os.PathLike[str],
    backend: str | None = None,
    *,
    shared: bool = False,
    **options: Unpack[SharedOptions],
) -> Store:
    """Open the store in ``data_dir``, creating it if the directory is absent or empty.

    ``backend``: ``"lmdb"``, ``"sqlite"`` or ``"memory"``; if none is named, that of the store that is there, for a new
    one ``"lmdb"``. ``options``: the fields of ``Options``.

    ``shared``: other processes may open it in the same way, and all may write. One of them serves the others, on a
    socket in the directory; when it leaves or dies, another takes over (docs/remote.md). ``user``, ``password`` and
    ``timeout_seconds`` are those of ``connect``.

    Raises ``StoreLocked`` (held by another process; waits ``lock_timeout_seconds`` for it), ``NotAStore``,
    ``WrongStore`` (another backend's), ``TooNew``, ``Corruption``, ``BadOption``, ``BadArgument`` (a URL, which is for
    ``connect``).
    """
    opening: Sheltered[Store] = Sheltered(
        lambda: _open(data_dir, backend, shared, dict(options), opening.check),
        undo=lambda store: store.close(),
    )
    try:
        return opening.run()
    except BaseException:
        opening.abandon()
        raise


def _open(
    data_dir: str | os.PathLike[str],
    backend: str | None,
    shared: bool,
    options: dict[str, Any],
    check: Callable[[], None],
) -> Store:
    from kvstore.store import Store

    return Store(_engine(data_dir, backend, shared, options, check))


class _OpenAsync:
    """Result of ``open_async`` and ``connect_async``: awaitable, and an asynchronous context manager."""

    _NOT_OPEN = "not open yet: write `async with` in front of it, or await it to get the store"

    def __init__(self, engine: Callable[[Callable[[], None]], Engine]) -> None:
        self._engine = engine
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return self._open().__await__()

    async def _open(self) -> AsyncStore:
        from kvstore.aio import close_soon
        from kvstore.loops import Awaited

        opening: Awaited[AsyncStore] = Awaited(lambda: self._opened(opening.check), close_soon)
        return await opening.wait()

    def _opened(self, check: Callable[[], None]) -> AsyncStore:
        from kvstore.aio import AsyncStore

        return AsyncStore(self._engine(check))

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, *_: object) -> None:
        if self._store is not None:
            await self._store.close()

    if not TYPE_CHECKING:  # a type checker says by itself that there is no such thing

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"no {name!r}: {self._NOT_OPEN}")

        def __enter__(self) -> NoReturn:
            raise TypeError(self._NOT_OPEN)

        def __exit__(self, *_: object) -> None: ...


def open_async(
    data_dir: str | os.PathLike[str],
    backend: str | None = None,
    *,
    shared: bool = False,
    **options: Unpack[SharedOptions],
) -> _OpenAsync:
    """As ``open``, for asyncio: ``async with kvstore.open_async("data") as store`` or ``await`` it.

    Relative paths are those of now, whenever it is awaited.
    """
    from kvstore.arguments import as_it_is_now, places_as_they_are_now

    place = as_it_is_now(data_dir)
    return _OpenAsync(partial(_engine, place, backend, shared, places_as_they_are_now(options)))


def _engine(
    data_dir: str | os.PathLike[str],
    backend: str | None,
    shared: bool,
    options: dict[str, Any],
    check: Callable[[], None],
) -> OpenedEngine | Engine:
    from kvstore.arguments import check_path
    from kvstore.errors import BadArgument
    from kvstore.options import SHARED_ONLY, Options

    check_path("data_dir", data_dir)
    if isinstance(data_dir, str) and data_dir.partition("://")[0] in _SCHEMES:
        raise BadArgument(
            f"{data_dir} is the URL of a store that is served, not a directory: use kvstore.connect"
        )
    given = {"backend": backend, **options}
    if shared:
        asking = {name: given.pop(name) for name in SHARED_ONLY if name in given}
        given.setdefault("lease_restart_policy", os.environ.get("KVSTORE_LEASE_RESTART_POLICY", "renew"))
    chosen = Options.load(given)
    if backend is None and os.environ.get("KVSTORE_BACKEND") is None:
        chosen = _as_found(data_dir, chosen)
    if shared:
        from kvstore.served import find_network

        return find_network().share(data_dir, chosen, asking, check)
    from kvstore.recovery import open_engine

    return open_engine(data_dir, chosen, check=check)


_SCHEMES = ("etcd", "etcds", "http", "https", "unix", "unixs")


def _as_found(data_dir: str | os.PathLike[str], chosen: Options) -> Options:
    """The options, with the backend of the store that is there already, if its files tell."""
    from kvstore.errors import KVStoreError
    from kvstore.layout import DataDir
    from kvstore.recognition import backend_of

    try:
        there = backend_of(DataDir.at(data_dir, chosen.wal_dir))
    except (OSError, KVStoreError):
        there = None  # opening says what is wrong
    return chosen if there is None else chosen.with_(backend=there.name)


def open_memory(**options: Unpack[OpenOptions]) -> Store:
    """A new store in memory, which touches no disk and is gone when it is closed. All else is as with ``open``.

    ``options``: the fields of ``Options`` but for those about files. Raises ``BadOption``. Times of revisions are not
    known, for there is no log; ``snapshot`` needs a path.
    """
    from kvstore.in_memory import open_in_memory
    from kvstore.store import Store

    return Store(open_in_memory(dict(options)))


def open_memory_async(**options: Unpack[OpenOptions]) -> _OpenAsync:
    """As ``open_memory``, for asyncio: ``async with kvstore.open_memory_async() as store`` or ``await`` it."""

    def engine(_check: Callable[[], None]) -> OpenedEngine:
        from kvstore.in_memory import open_in_memory

        return open_in_memory(dict(options))

    return _OpenAsync(engine)


def open_snapshot(path: str | os.PathLike[str], *, verify: bool = False) -> Snapshot:
    """Open a snapshot file in place as a read-only store. ``verify``: check every byte first.

    Raises ``NotAStore``, ``TooNew``, ``Corruption``.
    """
    from kvstore import opened
    from kvstore.arguments import check_path

    check_path("path", path)
    return opened.open_snapshot(path, verify=verify)


def restore(
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    *,
    archives: Sequence[str | os.PathLike[str]] = (),
    to_revision: int = 0,
    to_time: float = 0.0,
    progress: Progress | None = None,
    **new: Unpack[RestoreOptions],
) -> Restored:
    """Make the new store ``data_dir`` from a snapshot file, or from a data directory with its snapshots and log.

    ``to_revision`` or ``to_time`` (seconds since 1970): stop there; ``archives``: more folders with log segments.
    ``new``: backend, cluster_id, member_id, name, bump_revision, mark_compacted of the new store.
    Raises ``OpenError`` (the target exists, the point is not covered), ``NotAStore``, ``Corruption``, ``DiskFull``.
    """
    from kvstore.arguments import check_path
    from kvstore.snapshot import restore as restoring

    check_path("source", source)
    check_path("data_dir", data_dir)
    return restoring.restore(
        source,
        data_dir,
        restoring.NewStore(**new),
        archives=archives,
        to_revision=to_revision,
        to_time=to_time,
        progress=progress,
    )


def verify(
    path: str | os.PathLike[str],
    *,
    deep: bool = False,
    scratch_dir: str | os.PathLike[str] | None = None,
    progress: Steps | None = None,
    backend: str | None = None,
    **options: Unpack[OpenOptions],
) -> Report:
    """Look for damage in a snapshot file or a data directory, even while another process writes to it.

    ``deep``: compare every row with what the snapshot and the log say it should be. ``progress`` is called with
    (what, done, total); ``options``: the fields of ``Options``. Damage is in the report, not raised.
    """
    from kvstore import verification
    from kvstore.arguments import check_path
    from kvstore.options import Options

    check_path("path", path)
    chosen = Options.load({"backend": backend, **options})
    return verification.verify(path, deep=deep, options=chosen, scratch_dir=scratch_dir, progress=progress)


def serve(store: AnyStore, urls: str | Sequence[str], **options: Unpack[ServeOptions]) -> Server:
    """Serve an open store to clients of etcd's API v3, from a thread of its own; it can be used here all the same.

    ``urls``: where, such as ``http://127.0.0.1:0`` (any free port; ``server.endpoints`` has the real one), https, unix
    or unixs. ``options``: ``etcd_version`` (``"3.5"``), ``cert_file``, ``key_file``, ``trusted_ca_file`` and whatever
    else docs/serving.md lists. Raises ``BadOption``, ``Unsupported`` (a store that cannot be written), ``OSError``.
    """
    from kvstore.served import find_network

    return find_network().serve(store, urls, **options)


async def serve_async(
    store: AnyStore, urls: str | Sequence[str], **options: Unpack[ServeOptions]
) -> AsyncServer:
    """As ``serve``, on the loop that is running: ``async with await kvstore.serve_async(store, urls) as server``."""
    from kvstore.served import find_network

    return await find_network().serve_async(store, urls, **options)


def connect(url: str, **options: Unpack[ConnectOptions]) -> Store:
    """Connect to a store that is served elsewhere: by another process with ``serve``, or by a cluster of etcd.

    ``url``: ``etcd://h1:2379,h2,h3``, ``etcds://…`` (TLS), ``unix:///run/kv.sock``, unixs. ``options``: user, password,
    ca, cert, key, timeout_seconds and whatever else docs/remote.md lists. Raises ``Unavailable`` (no server answers in
    time), ``Unauthenticated``, ``BadArgument`` (the URL), ``BadOption``.
    """
    opening = Sheltered(lambda: _connect(url, dict(options)), undo=lambda store: store.close())
    try:
        return opening.run()
    except BaseException:
        opening.abandon()
        raise


def _connect(url: str, options: dict[str, Any]) -> Store:
    from kvstore.served import find_network
    from kvstore.store import Store

    return Store(find_network().connect(url, **options))


def connect_async(url: str, **options: Unpack[ConnectOptions]) -> _OpenAsync:
    """As ``connect``, for asyncio: ``async with kvstore.connect_async(url) as store`` or ``await`` it."""
    from kvstore.arguments import as_it_is_now, places_as_they_are_now

    place, held = as_it_is_now(url), places_as_they_are_now(options)

    def engine(_check: Callable[[], None]) -> Engine:
        from kvstore.served import find_network

        return find_network().connect(place, **held)

    return _OpenAsync(engine)


def doctor(
    data_dir: str | os.PathLike[str], *, backend: str | None = None, **options: Unpack[OpenOptions]
) -> list[Fact]:
    """Facts about a store's environment, with advice: versions, file system, sync speed, free space, clocks."""
    import_sheltered("kvstore.observe.doctor")
    from kvstore.arguments import check_path
    from kvstore.observe.doctor import diagnose
    from kvstore.options import Options

    check_path("data_dir", data_dir)
    return diagnose(data_dir, options=Options.load({"backend": backend, **options}))


if not TYPE_CHECKING:  # a type checker sees the imports above, and that there is no kvstore.opne
    _NAMES = {
        "kvstore.aio": "AsyncStore AsyncView",
        "kvstore.codecs": "BYTES INTEGER JSON TEXT Codec Json",
        "kvstore.compound": "PutManyResponse",
        "kvstore.errors": """
            BadArgument Busy Code Compacted CorruptCluster Corruption DeadlineExceeded DiskFailed
            DiskFull DuplicateKey EmptyKey ForkedStore FutureRevision InvalidSortOption IsReplica KeyNotFound
            KVStoreError LeaseExists LeaseNotFound LeaseProvided LeaseTTLTooLarge MissingDependency
            NearlyFull NoDescriptor NotAStore NoThread OpenError OutcomeUnknown Overloaded
            PermissionDenied QuotaExceeded ReadOnly Reentered RequestError RequestTooLarge
            RevisionsExhausted SpaceError StateError StoreClosed StoreLocked StorePoisoned
            StoreUnreachable TimeUnknown TooManyOps TooNew TooOld Unauthenticated Unavailable
            UndecodableValue Unsupported ValueProvided WatchCanceled WatchTimeout WrongStore
        """,
        "kvstore.former": "delete get put txn",
        "kvstore.implementation": "__impl__",
        "kvstore.keyvalue": "KeyValue KeyValues",
        "kvstore.map_view": "MapView ReadMapView AsyncMapView Version Changed",
        "kvstore.model": """
            FROM_KEY Alarm Change CompactionResponse Compare DeleteRangeResponse Event EventType
            HashKVResponse LeaseGrantResponse LeaseKeepAliveResponse LeaseRevokeResponse
            LeaseTimeToLiveResponse Op PutResponse RangeResponse SortOrder SortTarget TxnResponse
            WatchPosition WatchRequest WatchResponse prefix_end
        """,
        "kvstore.observe.estimates": "CompactionEstimate DefragmentEstimate",
        "kvstore.observe.facts": "Fact",
        "kvstore.observe.status": "Status Health",
        "kvstore.opened": "Snapshot",
        "kvstore.ops": "create_revision lease mod_revision value version",
        "kvstore.options": "BadOption OpenOptions Options SharedOptions",
        "kvstore.scans": "Scan AsyncScan",
        "kvstore.served": "AsyncServer ConnectOptions ServeOptions Server",
        "kvstore.snapshot.reader": "SnapshotInfo",
        "kvstore.snapshot.restore": "RestoreOptions Restored",
        "kvstore.store": "Store View",
        "kvstore.upkeep.defragment": "Defragmented",
        "kvstore.verification.report": "Report",
        "kvstore.watch.asynchronous": "AsyncWatch AsyncWatchStream",
        "kvstore.watch.iterators": "Watch CallbackWatch",
        "kvstore.watch.stream": "WatchStream",
        "kvstore.write.ticket": "Ticket",
    }
    """What is loaded on first use, by where it comes from."""

    _LATER = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __dir__() -> list[str]:
        """With the names that were not loaded yet: a prompt completes them."""
        return sorted({*globals(), *__all__})

    def __getattr__(name: str) -> Any:
        """Load a name on first use: importing this package stays light."""
        if name in ("metrics", "ops"):
            return import_module(f"kvstore.{name}")
        if name not in _LATER:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
            )
        module = _LATER[name]
        if module not in sys.modules:  # one that is there needs no thread, for which there may be no memory
            import_sheltered(module)
        found = globals()[name] = getattr(import_module(module), name)
        return found
