"""Players that put a recorded conversation through another face of the store than its engine.

SyncPlayer        Store's methods                     PastPlayer        reads: the view at the revision
AsyncPlayer       AsyncStore's, awaited               BesidePlayer      reads: opened read-only beside the writer
RemotePlayer, AsyncRemotePlayer                       SnapshotPlayer    reads: a snapshot, opened where it lies
                  both of ``kvstore.connect``

etcd takes some arguments for something else than they say (revision -1, a TTL of 0), and answers a keep-alive of a lost
lease: refused here, the engine is asked.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

from kvstore.tools.lab.conversation import RECORDED, Exchange, Message, Request, refusal, watched
from kvstore.tools.lab.replay import Pace, Player, Result, replay_options

import kvstore
from kvstore import AsyncStore, Event, Store
from kvstore.calls import answer
from kvstore.errors import BadArgument, KVStoreError, LeaseNotFound
from kvstore.model import (
    CompactionRequest,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)
from kvstore.mvcc.plan import is_read_only
from kvstore.protocol import Engine
from kvstore.recovery import open_engine

WAIT_SECONDS = 60.0
SILENT_SECONDS = 0.05
"""For what should not come."""


def call(store: Any, request: Request) -> Any:
    """The method of a ``Store``, or of its asynchronous twin, for a request."""
    match request:
        case RangeRequest():
            return store.range(**request._asdict())
        case PutRequest():
            return store.put(**request._asdict())
        case DeleteRangeRequest():
            return store.delete(**request._asdict())
        case TxnRequest(compare, success, failure):
            return store.txn(compare, success, failure)
        case CompactionRequest(revision, physical):
            return store.compact(revision, physical=physical)
        case LeaseGrantRequest(ttl_seconds, lease):
            return store.grant_lease(ttl_seconds, lease)
        case LeaseRevokeRequest(lease):
            return store.revoke_lease(lease)
        case LeaseKeepAliveRequest(lease):
            return store.keep_alive(lease)
        case LeaseTimeToLiveRequest(lease, keys):
            return store.lease_time_to_live(lease, keys=keys)
        case HashKVRequest(revision):
            return store.hash_kv(revision)
    raise TypeError(f"no method for {request!r}")


def named(request: WatchRequest) -> dict[str, Any]:
    """The arguments of ``watch``; where in a revision it starts is no part of etcd's requests."""
    named = request._asdict()
    assert not named.pop("start_sub")
    return named


class SyncPlayer(Player):
    """``Store``'s methods, and its iterator of events."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.store = Store(self.engine)

    def call(self, request: Request) -> object:
        try:
            return call(self.store, request)
        except (BadArgument, LeaseNotFound):
            return super().call(request)

    def watch(self, request: WatchRequest) -> Message:
        if request.start_revision < 0:
            return super().watch(request)
        store = self.store
        with store.watch(**named(request)) as watch:
            if request.start_revision > store.revision:
                return watched([], None)
            watch.request_progress()
            events: list[Event] = []
            for response in watch.responses():
                events += response.events
                if response.canceled or response.revision >= store.revision:
                    return watched(events, response if response.canceled else None)
        raise AssertionError("the watch ended without a word")


class AsyncPlayer(Player):
    """``AsyncStore``'s methods, each awaited on the player's own loop."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._loop = asyncio.new_event_loop()
        self.store = self._run(self._open_store())

    async def _open_store(self) -> AsyncStore:
        return AsyncStore(self.engine)

    def call(self, request: Request) -> object:
        try:
            return self._run(self._call(request))
        except (BadArgument, LeaseNotFound):
            return super().call(request)

    def watch(self, request: WatchRequest) -> Message:
        return super().watch(request) if request.start_revision < 0 else self._run(self._watch(request))

    def close(self) -> None:
        super().close()
        self._run(self._loop.shutdown_default_executor())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _call(self, request: Request) -> Any:
        return await call(self.store, request)

    async def _watch(self, request: WatchRequest) -> Message:
        store = self.store
        async with store.watch(**named(request)) as watch:
            if request.start_revision > store.revision:
                return watched([], None)
            watch.request_progress()
            events: list[Event] = []
            async for response in watch.responses():
                events += response.events
                if response.canceled or response.revision >= store.revision:
                    return watched(events, response if response.canceled else None)
        raise AssertionError("the watch ended without a word")


class PastPlayer(SyncPlayer):
    """Reads ask the view at the revision that they name, or at the newest."""

    def call(self, request: Request) -> object:
        if isinstance(request, RangeRequest):
            view = self.store.at(max(request.revision, 0) or self.store.revision)
            return call(view, request._replace(revision=0))
        return super().call(request)


class ReaderPlayer(Player):
    """Every few reads are answered by somebody who opens what the store has written."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._reads = 0

    def ask(self, request: Request) -> Message:
        self._reads += _is_read(request)
        if _is_read(request) and self._reads % 8 == 0:
            return self.ask_reader(request)
        return super().ask(request)

    def ask_reader(self, request: Request) -> Message:
        raise NotImplementedError


class BesidePlayer(ReaderPlayer):
    """Another process looks at the writer's directory."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def ask_reader(self, request: Request) -> Message:
        assert self.engine.directory is not None
        where = self.engine.directory.root, self.engine.options.backend
        return self._process.submit(_ask_beside, *where, request).result()

    def close(self) -> None:
        self._process.shutdown()
        super().close()


class SnapshotPlayer(ReaderPlayer):
    """The reader looks at a snapshot taken for it."""

    def __init__(self, folder: Path, *arguments: Any) -> None:
        super().__init__(folder, *arguments)
        self._folder = folder

    def ask_reader(self, request: Request) -> Message:
        path = self._folder / f"{self._reads}.snap"
        self.engine.snapshots.take(path)
        with kvstore.open_snapshot(path) as snapshot:
            return _ask(snapshot.engine, request)


class RemotePlayer(SyncPlayer):
    """``Store``'s methods, of a store that is somewhere else: new, and not to be closed with the player.

    What a watch has delivered at its end nobody can be asked: an etcd of this age says so too early. It is read until
    as many events have come as were recorded, or it is canceled as recorded, and then for a moment more.
    """

    def __init__(self, url: str) -> None:
        self._pace = Pace()
        self._played = 0
        self._stream = None
        self._due_events = 0
        self.store = kvstore.connect(url, timeout_seconds=WAIT_SECONDS)
        self.engine = cast(Any, self.store)._engine

    def play(self, conversation: Iterable[Exchange]) -> Result:
        return super().play(self._told(conversation))

    def _told(self, conversation: Iterable[Exchange]) -> Iterator[Exchange]:
        for exchange in conversation:
            due = exchange.response or {}
            self._due_events = 1 << 60 if "canceled" in due else len(due.get("events", ()))
            yield exchange

    def call(self, request: Request) -> object:
        if isinstance(request, LeaseLeasesRequest):
            return LeaseLeasesResponse(self.store.revision, tuple(sorted(self.store.leases())))
        return super().call(request)

    def watch(self, request: WatchRequest) -> Message:
        events: list[Event] = []
        with self.engine.watch(request) as watch:
            while True:
                try:
                    is_due = len(events) < self._due_events
                    response = watch.get_response(WAIT_SECONDS if is_due else SILENT_SECONDS)
                except TimeoutError:
                    return watched(events, None)
                events += response.events
                if response.canceled:
                    return watched(events, response)

    def close(self) -> None:
        self.store.close()


class AsyncRemotePlayer(RemotePlayer):
    """The same with ``AsyncStore``'s methods, each awaited on the player's own loop."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._loop = asyncio.new_event_loop()
        self._async_store = self._loop.run_until_complete(kvstore.connect_async(url))

    def call(self, request: Request) -> object:
        if isinstance(request, LeaseLeasesRequest):
            return super().call(request)
        try:
            return self._loop.run_until_complete(self._call(request))
        except (BadArgument, LeaseNotFound):
            return super().call(request)

    async def _call(self, request: Request) -> Any:
        return await call(self._async_store, request)

    def close(self) -> None:
        self._loop.run_until_complete(self._async_store.close())
        self._loop.close()
        super().close()


def _ask_beside(data_dir: Path, backend: str, request: Request) -> Message:
    with Store(open_engine(data_dir, replay_options(backend, read_only=True))) as store:
        return _ask(store.engine, request)


def _ask(engine: Engine, request: Request) -> Message:
    try:
        return RECORDED.answer(answer(engine, request))
    except KVStoreError as error:
        return refusal(error)


def _is_read(request: Request) -> bool:
    return isinstance(request, (RangeRequest, HashKVRequest)) or (
        isinstance(request, TxnRequest) and is_read_only(request)
    )
