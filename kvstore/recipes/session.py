"""A session: a lease that is kept alive while a block runs, and that tells when it is lost.

    open ----> [ renewed each third of its TTL, from a thread or a task ] ----> close: the lease is revoked
                          |
                          | not renewed for a whole TTL (a pause, a store out of reach), or the lease is gone
                          v
                        lost, for good: told to ``on_lost`` and the log, raised by the next use and at the block's end

The time is counted here, from before a renewal was asked for, by a clock that nobody can set and that goes on while the
machine sleeps. So where the store counts time at the same pace, a session never calls itself alive when its lease has
ended.

What it does not promise: that the program notices in time. Between ``check`` and the next line the process may be
stopped for longer than the TTL. Whoever must never act on a lost lease compares, in the transaction that acts, what the
lease holds (``Lock.is_owner``), or hands a fencing token to a resource that refuses older ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from kvstore.aio import AsyncStore
from kvstore.arguments import Seconds, check_callable, whole_seconds
from kvstore.errors import KVStoreError, LeaseNotFound, OutcomeUnknown, StoreClosed, WatchCanceled
from kvstore.model import Compare, Event
from kvstore.recipes.access import Access, AnyStore, AnyWatch, Deadline, Settled, answer_of
from kvstore.recipes.errors import AlreadyHeld, LeaseLost, NotHeld
from kvstore.recipes.faces import AsyncBlock, Block, Steps, blocking
from kvstore.store import Store

logger = logging.getLogger("kvstore")
OnLost = Callable[[LeaseLost], object]
TTL_SECONDS = 60
"""As etcd's sessions."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_seconds() -> float:
    """Since some fixed moment, the machine's sleep included."""
    return time.clock_gettime(_CLOCK)


class SessionSteps(Steps):
    """What sessions of both kinds do."""

    def __init__(self, store: AnyStore, ttl: Seconds, on_lost: OnLost | None) -> None:
        """``ttl``: whole seconds, of which the store may make more. ``on_lost`` is called once, from the thread or
        task that notices, and should not take long.
        """
        self.access = Access(store)
        check_callable("on_lost", on_lost, is_optional=True)
        self._ttl_seconds = whole_seconds("ttl", ttl)
        self._on_lost = on_lost
        self._lease = 0
        self._until_seconds = 0.0
        """When the lease may have ended, in ``elapsed_seconds``."""
        self._loss: LeaseLost | None = None
        self._is_closed = False
        self._ended = self.access.flag()
        self._give_up_keeping: Callable[[], object] = lambda: None
        self._watches: dict[int, AnyWatch] = {}
        self._keys: dict[bytes, object] = {}

    # --- what it is -------------------------------------------------------------------

    @property
    def lease(self) -> int:
        """The id of the lease. Raises ``NotHeld`` before the session is open."""
        if not self._lease:
            raise NotHeld("the session is not open: write `with Session(store) as session`")
        return self._lease

    @property
    def ttl_seconds(self) -> int:
        """What the lease has after a renewal."""
        return self._ttl_seconds

    @property
    def is_lost(self) -> bool:
        """Whether it was lost. Never true for one that was closed in time."""
        self._look_at_time()
        return self._loss is not None

    def left_seconds(self) -> float:
        """How long the lease lasts if it is not renewed any more; not above 0 where it may have ended."""
        return self._until_seconds - elapsed_seconds()

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease is lost or may be, ``NotHeld`` if the session is not open. Asks nobody."""
        self._look_at_time()
        if self._loss is not None:
            raise LeaseLost(*self._loss.reasons)
        if self._is_closed or not self._lease:
            raise NotHeld("the session is closed" if self._is_closed else "the session is not open")

    def _look_at_time(self) -> None:
        if self._lease and not self._is_closed and self.left_seconds() <= 0:
            self.lose("it was not renewed for its whole TTL")

    def lose(self, reason: str) -> None:
        """Take the lease for lost, and tell everybody."""
        if self._loss is not None or self._is_closed:
            return
        self._loss = loss = LeaseLost(self._lease, reason)
        self._ended.set()
        logger.warning("recipes: %s", loss)
        for watch in tuple(self._watches.values()):
            watch.close()  # who waits for an event looks again, and is told
        if self._on_lost is not None:
            try:
                self._on_lost(loss)
            except Exception:
                logger.exception("recipes: on_lost failed")

    # --- its life ---------------------------------------------------------------------

    async def open_(self) -> None:
        """Grant the lease and begin to renew it. Entering a block does that."""
        if self._lease:
            raise AlreadyHeld("the session was opened before: make another one")
        began = elapsed_seconds()
        self._lease, self._ttl_seconds = await self.access.grant(self._ttl_seconds)
        self._until_seconds = began + self._ttl_seconds
        self._give_up_keeping = self.access.spawn(self._keep, "kvstore-session")

    async def _keep(self) -> None:
        pause_seconds = self._ttl_seconds / 3
        while not await self._ended.wait(pause_seconds):
            try:
                await self.renew_()
                pause_seconds = self._ttl_seconds / 3
            except (LeaseLost, NotHeld):
                return
            except Exception:  # the store is out of reach, or has no room: there may be time for another try
                pause_seconds = max(min(self._ttl_seconds / 20, self.left_seconds()), 0.001)

    async def renew_(self) -> None:
        """Renew the lease now. Raises ``LeaseLost``, and what keeps the store from answering."""
        self.check()
        began = elapsed_seconds()
        try:
            renewed = await answer_of(self.access.store.keep_alive(self._lease))
        except StoreClosed:
            self.lose("the store was closed before the session")
            raise
        except LeaseNotFound:
            self.lose("the store has no such lease any more")
        else:
            self._until_seconds = began + renewed.ttl
        self.check()

    async def close_(self) -> None:
        """Stop renewing and revoke the lease, which deletes its keys. Raises ``LeaseLost`` if it was lost before."""
        self._look_at_time()
        if self._is_closed or not self._lease:
            return
        self._ended.set()
        self._give_up_keeping()
        await self._revoke()
        self._is_closed = True
        if self._loss is not None:
            raise LeaseLost(*self._loss.reasons)

    async def _revoke(self) -> None:
        doubts: list[KVStoreError] = []
        try:
            await self.access.until_known(lambda: self.access.store.revoke_lease(self._lease), doubts)
        except LeaseNotFound:
            if not doubts:
                self.lose("the store has no such lease any more")
        except StoreClosed:
            self.lose("the store was closed before the session")
        except OutcomeUnknown:
            pass  # nobody renews it: it ends by itself
        except KVStoreError:
            self._is_closed = True
            raise

    async def enter_block(self) -> None:
        await self.open_()

    async def leave_block(self, error: BaseException | None) -> None:
        try:
            await self.close_()
        except KVStoreError as loss:
            if error is None:
                raise
            if not isinstance(error, LeaseLost):
                error.add_note(str(loss))

    # --- for the recipes that stand on it ---------------------------------------------

    async def txn(
        self,
        compare: Iterable[Compare] = (),
        success: Iterable[Any] = (),
        failure: Iterable[Any] = (),
    ) -> Settled:
        """As ``Access.txn``, under the lease."""
        self.check()
        try:
            return await self.access.txn(compare, success, failure)
        except LeaseNotFound:
            self.lose("the store has no such lease any more")
            self.check()
            raise

    async def event(
        self, deadline: Deadline, wanted: Callable[[Event], bool] | None = None, **request: Any
    ) -> Event:
        """The first event of a watch (that is wanted), waited for as long as there is time and the lease lives.

        Raises ``TimeoutError``, ``LeaseLost``; ``Compacted``: it may have passed.
        """
        with closing(self.access.store.watch(**request)) as watch:
            self._watches[id(watch)] = watch  # whoever loses the lease closes it
            try:
                while True:
                    self.check()
                    deadline.check()
                    left_seconds = min(self.left_seconds(), deadline.left_seconds())
                    event = await self.access.event(watch, left_seconds)
                    if event is not None and (wanted is None or wanted(event)):
                        return event
            except WatchCanceled:
                self.check()
                raise
            finally:
                del self._watches[id(watch)]

    def begin(self, key: bytes) -> None:
        """Note that a key of this session is in use. Raises ``AlreadyHeld``."""
        mark = object()
        if self._keys.setdefault(key, mark) is not mark:
            raise AlreadyHeld(
                f"this session holds or waits for {key!r} already: whatever else wants it, "
                "another thread or task too, needs a session of its own"
            )

    def end(self, key: bytes) -> None:
        """Stop keeping the lease alive."""
        self._keys.pop(key, None)


class AsyncSession(SessionSteps, AsyncBlock):
    """``async with AsyncSession(store, ttl=10) as session``"""

    def __init__(
        self, store: AsyncStore, ttl: Seconds = TTL_SECONDS, *, on_lost: OnLost | None = None
    ) -> None:
        super().__init__(store, ttl, on_lost)

    open = SessionSteps.open_
    renew = SessionSteps.renew_
    close = SessionSteps.close_


class Session(SessionSteps, Block):
    """``with Session(store, ttl=10) as session``"""

    def __init__(self, store: Store, ttl: Seconds = TTL_SECONDS, *, on_lost: OnLost | None = None) -> None:
        super().__init__(store, ttl, on_lost)

    open = blocking(SessionSteps.open_)
    renew = blocking(SessionSteps.renew_)
    close = blocking(SessionSteps.close_)
