"""Barriers: a gate that somebody closes and opens; and a meeting of a known number of sessions.

    Barrier         hold: the key is there.  release: it goes.  wait: until it is not there
    DoubleBarrier   enter: until ``count`` are in.  leave: until all who were in are out

A barrier's key is kept until it is released; held with a session, it goes with the session's lease too. (The keys are
those of etcd's Go recipes: ``<name>``, and ``<name>/waiters/<lease in hex>`` with ``<name>/ready``.)

What they do not promise: that everybody is there at the same moment. Who has entered may have died before another one
goes on; a double barrier counts who came, and lets out everybody whose companions are out or dead. While too few have
come nobody goes on: give ``enter`` a timeout. A ``wait`` that returns says that the barrier was down at some moment.
"""

from __future__ import annotations

from contextlib import closing

from kvstore.aio import AsyncStore
from kvstore.arguments import check_number
from kvstore.errors import Compacted, KVStoreError
from kvstore.model import SortOrder, SortTarget
from kvstore.ops import create_revision, delete, get, put, version
from kvstore.recipes.access import Access, Deadline
from kvstore.recipes.errors import KeyLost, NotHeld, TooManyClients
from kvstore.recipes.faces import AsyncBlock, Block, Steps, blocking
from kvstore.recipes.line import checked_name
from kvstore.recipes.session import AsyncSession, Session, SessionSteps
from kvstore.store import Store


class BarrierSteps:
    """Stops those who wait until somebody takes it away."""

    def __init__(self, of: SessionSteps | Store | AsyncStore, name: bytes) -> None:
        self._session = of if isinstance(of, SessionSteps) else None
        self._access = of.access if isinstance(of, SessionSteps) else Access(of)
        self._key = checked_name(name)

    async def hold_(self) -> bool:
        """Put the barrier up. Returns whether it was down, as far as is known."""
        if self._session is None:
            held = await self._access.txn([create_revision(self._key) == 0], [put(self._key)])
        else:
            held = await self._session.txn(
                [create_revision(self._key) == 0], [put(self._key, lease=self._session.lease)]
            )
        return held.succeeded

    async def release_(self) -> bool:
        """Take the barrier down, whoever has put it up. Returns whether it was up, as far as is known."""
        return (await self._access.txn([create_revision(self._key) > 0], [delete(self._key)])).succeeded

    async def wait_(self, timeout: float | None = None) -> None:
        """Wait until it is down. ``timeout``: seconds. Raises ``TimeoutError``."""
        deadline = Deadline(timeout)
        while (found := await self._access.range(self._key)).kvs:
            watch = self._access.store.watch(self._key, start_revision=found.revision + 1, no_put=True)
            with closing(watch):
                try:
                    await self._access.event(watch, deadline.left_seconds())
                except Compacted:
                    continue
                if deadline.left_seconds() > 0:
                    return  # it was deleted
            deadline.check()


class AsyncBarrier(BarrierSteps):
    """``AsyncBarrier(store, b"name")``, or with a session, whose end takes it down."""

    def __init__(self, of: AsyncSession | AsyncStore, name: bytes) -> None:
        super().__init__(of, name)

    hold = BarrierSteps.hold_
    release = BarrierSteps.release_
    wait = BarrierSteps.wait_


class Barrier(BarrierSteps):
    """``Barrier(store, b"name")``, or with a session, whose end takes it down."""

    def __init__(self, of: Session | Store, name: bytes) -> None:
        super().__init__(of, name)

    hold = blocking(BarrierSteps.hold_)
    release = blocking(BarrierSteps.release_)
    wait = blocking(BarrierSteps.wait_)


class DoubleBarrierSteps(Steps):
    """Lets a number of clients begin together, and end together."""

    def __init__(self, session: SessionSteps, name: bytes, count: int) -> None:
        check_number("count", count, 1)
        self._session = session
        self._count = count
        self._key = checked_name(name)
        self._waiters, self._ready = name + b"/waiters/", name + b"/ready"
        self._token = 0
        self._round = 0
        """The revision at which it began: whoever came later is not one's companion."""

    @property
    def key(self) -> bytes:
        """The key of this session."""
        return self._waiters + b"%x" % self._session.lease

    async def enter_(self, timeout: float | None = None) -> None:
        """Wait until ``count`` sessions have entered. ``timeout``: seconds.

        Raises ``TimeoutError``, ``LeaseLost``, ``AlreadyHeld``, and ``TooManyClients`` for whoever comes too many.
        """
        deadline, key = Deadline(timeout), self.key
        self._session.begin(key)
        try:
            token = await self._come(key)
            self._round = await self._begun(token, deadline)
        except BaseException:
            await self._go_unasked(key)
            raise
        self._token = token

    async def _come(self, key: bytes) -> int:
        """Create the key. The first to come removes what a former round has left, if its last one died."""
        coming = put(key, lease=self._session.lease)
        nobody_is_in = version(prefix=self._waiters) == 0
        came = await self._session.txn([nobody_is_in], [coming, delete(self._ready)])
        if came.succeeded:
            return came.response.revision
        came = await self._session.txn([create_revision(key) == 0], [coming], [get(key)])
        if came.succeeded:
            return came.response.revision
        return came.found()[0].create_revision

    async def _begun(self, token: int, deadline: Deadline) -> int:
        """Wait until all are in. Returns the revision at which somebody saw that first."""
        waiters = get(
            prefix=self._waiters, keys_only=True, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE
        )
        while True:
            looked = await self._session.txn(
                [create_revision(self.key) == token], [waiters, get(self._ready)]
            )
            if not looked.succeeded:
                raise self._lost()
            came, ready = looked.found(0), looked.found(1)
            if ready and ready[0].create_revision > token:
                return ready[0].create_revision
            if ready or token not in [kv.create_revision for kv in came[: self._count]]:
                raise TooManyClients(f"{self._count} sessions came to {self._key!r} before")
            if len(came) >= self._count:
                await self._session.txn([create_revision(self._ready) == 0], [put(self._ready)])
            else:
                await self._changed(looked.response.revision, deadline)

    async def leave_(self, timeout: float | None = None) -> None:
        """Leave, and wait until all who were in have left, or are dead. ``timeout``: seconds.

        Raises ``NotHeld``, ``TimeoutError``, ``LeaseLost``.
        """
        if not self._token:
            raise NotHeld(f"{self._key!r} was not entered")
        deadline, token, self._token = Deadline(timeout), self._token, 0
        await self._go(self.key, token)
        companions = get(prefix=self._waiters, keys_only=True, max_create_revision=self._round)
        while True:
            looked = await self._session.txn(success=[companions])
            if not looked.found():
                await self._end_round()
                return
            await self._changed(looked.response.revision, deadline)

    async def _go(self, key: bytes, token: int) -> None:
        try:
            went = await self._session.txn([create_revision(key) == token], [delete(key)])
        finally:
            self._session.end(key)
        if not went.succeeded and not went.doubt:
            raise self._lost()

    async def _end_round(self) -> None:
        """Take away the sign that it has begun, unless those of the next one have done so."""
        nobody_is_in = version(prefix=self._waiters) == 0
        await self._session.txn(
            [nobody_is_in, create_revision(self._ready) == self._round], [delete(self._ready)]
        )

    async def _go_unasked(self, key: bytes) -> None:
        try:
            await self._session.txn([create_revision(key) > 0], [delete(key)])
        except KVStoreError:
            pass  # the lease ends it
        finally:
            self._session.end(key)

    async def _changed(self, revision: int, deadline: Deadline) -> None:
        """Wait until somebody has come or gone."""
        try:
            await self._session.event(deadline, prefix=self._waiters, start_revision=revision + 1)
        except Compacted:
            pass

    def _lost(self) -> KeyLost:
        return KeyLost(self._session.lease, f"its key {self.key!r} is gone")

    async def enter_block(self) -> None:
        await self.enter_()

    async def leave_block(self, error: BaseException | None) -> None:
        if error is None:
            await self.leave_()
        else:
            await self._go_unasked(self.key)


class AsyncDoubleBarrier(DoubleBarrierSteps, AsyncBlock):
    """``async with AsyncDoubleBarrier(session, b"name", count=3)``"""

    def __init__(self, session: AsyncSession, name: bytes, count: int) -> None:
        super().__init__(session, name, count)

    enter = DoubleBarrierSteps.enter_
    leave = DoubleBarrierSteps.leave_


class DoubleBarrier(DoubleBarrierSteps, Block):
    """``with DoubleBarrier(session, b"name", count=3)``"""

    def __init__(self, session: Session, name: bytes, count: int) -> None:
        super().__init__(session, name, count)

    enter = blocking(DoubleBarrierSteps.enter_)
    leave = blocking(DoubleBarrierSteps.leave_)
