"""Who waits for a turn: keys ``<name>/<lease>``, the oldest of which has it. Under locks and elections alike.

    enter   put the key of one's lease, unless it is there already
    turn    wait until every older key is gone: watch the newest of them until its delete, and look again
    leave   delete the key; the next one's turn has come

The steps are those of etcd's clients, so that these meet in the same queue, whether they lock by themselves or have it
done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from kvstore.errors import Code, Compacted, KVStoreError, WatchCanceled
from kvstore.etcdpb.status import status_of
from kvstore.keyvalue import KeyValue
from kvstore.model import (
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    EventType,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    Request,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
    WatchRequest,
    WatchResponse,
    prefix_end,
)
from kvstore.network.call import Call, Failed
from kvstore.network.endpoint import Endpoint

LEASE_SECONDS = 60
"""Of the lease that is granted to who brings none."""


async def as_unknown(service: Coroutine[Any, Any, None]) -> None:
    """Run a service of etcd's that is a client of its own server: of its errors only the texts come through."""
    try:
        await service
    except KVStoreError as error:
        raise Failed(Code.UNKNOWN, status_of(error)[1]) from error


class Place(NamedTuple):
    """One's place in a queue."""

    revision: int
    """At which it is this place."""
    create_revision: int
    """Of one's own key."""
    is_first: bool
    found: KeyValue | None
    """One's own key, if it was there."""


def _place(entered: TxnResponse) -> Place:
    own: Any
    first: Any
    own, first = entered.responses
    found = None if entered.succeeded else own.kvs[0]
    create_revision = entered.revision if found is None else found.create_revision
    is_first = first.kvs[0].create_revision == create_revision
    return Place(entered.revision, create_revision, is_first, found)


class Queue:
    """The keys under a name."""

    def __init__(self, endpoint: Endpoint, call: Call, name: bytes) -> None:
        """Every step is one of the call's user's; but what was put for him is taken back whoever he is by then."""
        self._endpoint = endpoint
        self._call = call
        self._prefix = name + b"/"
        self._end = prefix_end(self._prefix)

    # --- one's own key ----------------------------------------------------------------

    async def session(self, lease: int) -> int:
        """The lease to wait under, kept alive once: from then on its owner does that. If there is none, what needs it
        says so.
        """
        if not lease:
            granted = await self._asked(LeaseGrantRequest(LEASE_SECONDS))
            lease = granted.id
        await self._asked(LeaseKeepAliveRequest(lease))
        return lease

    def key(self, lease: int) -> bytes:
        return self._prefix + b"%x" % lease

    async def enter(self, key: bytes, value: bytes, lease: int) -> Place:
        """Get in line, if one is not in it."""
        first = self._first()
        request = TxnRequest(
            (Compare(key, CompareTarget.CREATE),),
            (PutRequest(key, value, lease), first),
            (RangeRequest(key), first),
        )
        entering = asyncio.ensure_future(self._asked(request))
        try:
            return _place(await asyncio.shield(entering))
        except asyncio.CancelledError:
            entering.add_done_callback(partial(self._leave_again, key))
            raise

    def _leave_again(self, key: bytes, entering: asyncio.Future[TxnResponse]) -> None:
        """Whose client has gone meanwhile must not be waited for."""
        if not entering.cancelled() and entering.exception() is None and entering.result().succeeded:
            self.leave(key, entering.result().revision)

    def leave(self, key: bytes, create_revision: int = 0) -> None:
        """Give the place up, without waiting for it: who calls this may be about to end.

        ``create_revision``: only the key that was made then.
        """
        leave: TxnRequest | DeleteRangeRequest = DeleteRangeRequest(key)
        if create_revision:
            leave = TxnRequest((made_at(key, create_revision),), (leave,))
        try:
            self._endpoint.ask_for(leave, lambda _response, _error: None)
        except (KVStoreError, RuntimeError):
            pass  # store or endpoint is closed: the lease ends it

    # --- the others -------------------------------------------------------------------

    async def first(self) -> RangeResponse:
        """Who has the turn."""
        return await self._read(self._first())

    def _first(self) -> RangeRequest:
        return RangeRequest(
            self._prefix, self._end, 1, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE
        )

    async def turn(self, create_revision: int) -> None:
        """Wait until no key is left that is older than the one made at that revision."""
        before = RangeRequest(
            self._prefix,
            self._end,
            1,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            max_create_revision=create_revision - 1,
        )
        while True:
            found = await self._read(before)
            if not found.kvs:
                return
            await self._gone(found.kvs[0].key, found.revision)

    async def _gone(self, key: bytes, revision: int) -> None:
        with (
            self.changes(WatchRequest(key, start_revision=revision)) as changes,
            suppress(Compacted),
        ):
            while True:
                response = await changes.next()
                if any(event.type == EventType.DELETE for event in response.events):
                    return

    async def first_put(self, revision: int) -> KeyValue:
        """The next of the keys that is put, from a revision on."""
        with self.changes(WatchRequest(self._prefix, self._end, revision, no_delete=True)) as changes:
            while True:
                response = await changes.next()
                if response.events:
                    return response.events[0].kv

    async def get(self, key: bytes) -> RangeResponse:
        return await self._read(RangeRequest(key))

    async def _read(self, request: RangeRequest) -> RangeResponse:
        read = partial(self._endpoint.engine.range, request)
        response: RangeResponse = await self._endpoint.worked(
            self._endpoint.reading(self._call, request, read)
        )
        return response

    async def _asked(self, request: Request) -> Any:
        return await self._endpoint.asked(self._endpoint.guarded(self._call, request))

    def changes(self, request: WatchRequest) -> Changes:
        """A watch. Raises what refuses it."""
        if self._endpoint.users_are_on:
            self._endpoint.users.check(self._call, request)
        return Changes(self._endpoint, request)


def made_at(key: bytes, create_revision: int) -> Compare:
    """That a key is still the one that was made at that revision."""
    return Compare(key, CompareTarget.CREATE, operand=create_revision)


class Changes:
    """A watch, for a coroutine."""

    def __init__(self, endpoint: Endpoint, request: WatchRequest) -> None:
        self._endpoint = endpoint
        self._rung = asyncio.Event()
        self._stream = endpoint.engine.watch_stream()
        self._stream.bell = endpoint.fanout.bell(self)
        self._stream.create(request)

    def pump(self, _count: int) -> bool:
        """There may be something to take."""
        self._rung.set()
        return False

    async def next(self) -> WatchResponse:
        """The next response. Raises ``Compacted``, and ``StoreClosed``."""
        stream = self._stream
        while True:
            self._rung.clear()
            if stream.fill(may_read=False):
                break
            if stream.needs_store():
                await self._endpoint.worked(stream.fill)
            else:
                await self._rung.wait()
        response = stream.first()
        stream.drop_first()
        if response.canceled:
            raise Compacted(response.compact_revision) if response.compact_revision else WatchCanceled()
        return response

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
