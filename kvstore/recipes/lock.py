"""A lock between sessions: at most one of those that stand in the ``line`` of a name has the turn.

What it does not promise: that nobody else acts at the same time. A lock is a lease. Whoever is paused for longer than
the TTL (a stopped process, a collection of garbage, a machine that sleeps) holds nothing when it goes on, and finds out
only with its next step. So what must not be done twice is guarded where it is done:

* in this store, by a transaction that compares ``lock.is_owner``;
* elsewhere, by handing ``lock.token`` to a resource that remembers the highest it has seen, and refuses lower ones.
  Tokens rise from holder to holder.

It belongs to a session, not to a thread: a session does not get it twice. It is fair, in the order of asking.
"""

from __future__ import annotations

from kvstore.model import Compare
from kvstore.recipes.errors import LeaseLost
from kvstore.recipes.faces import AsyncBlock, Block, Steps, blocking
from kvstore.recipes.line import Line
from kvstore.recipes.session import AsyncSession, Session, SessionSteps


class HeldSteps(Steps):
    """Something that is held by having one of the places at the head of a line."""

    def __init__(self, session: SessionSteps, name: bytes, places: int) -> None:
        self._line = Line(session, name)
        self._places = places

    @property
    def key(self) -> bytes:
        """The key that stands in the line."""
        return self._line.key

    @property
    def token(self) -> int:
        """The fencing token: a revision, higher than that of any holder before. Raises ``NotHeld``."""
        return self._line.token

    @property
    def is_owner(self) -> Compare:
        """A compare for a transaction: true while this is held. Raises ``NotHeld``."""
        return self._line.is_owner

    async def acquire_(self, timeout: float | None = None) -> int:
        """Wait until it is held; returns the fencing token. ``timeout``: seconds.

        Raises ``TimeoutError``, ``LeaseLost``, ``AlreadyHeld``.
        """
        await self._line.acquire(b"", self._places, timeout)
        return self.token

    async def try_acquire_(self) -> bool:
        """Take it if it is free now. Returns whether it was. Raises ``LeaseLost``, ``AlreadyHeld``."""
        return await self._line.try_acquire(b"", self._places)

    async def release_(self) -> None:
        """Give it back. Raises ``NotHeld``; ``LeaseLost`` if it was lost while it was thought to be held."""
        await self._line.release()

    async def check_(self) -> None:
        """Ask the store whether it is held still. Raises ``NotHeld``, ``LeaseLost``."""
        await self._line.check()

    async def enter_block(self) -> None:
        await self.acquire_()

    async def leave_block(self, error: BaseException | None) -> None:
        try:
            await self.release_()
        except LeaseLost as loss:
            if error is None:
                raise
            if not isinstance(error, LeaseLost):
                error.add_note(str(loss))


class AsyncLock(HeldSteps, AsyncBlock):
    """``async with AsyncLock(session, b"name") as lock``"""

    def __init__(self, session: AsyncSession, name: bytes) -> None:
        super().__init__(session, name, places=1)

    acquire = HeldSteps.acquire_
    try_acquire = HeldSteps.try_acquire_
    release = HeldSteps.release_
    check = HeldSteps.check_


class Lock(HeldSteps, Block):
    """``with Lock(session, b"name") as lock``"""

    def __init__(self, session: Session, name: bytes) -> None:
        super().__init__(session, name, places=1)

    acquire = blocking(HeldSteps.acquire_)
    try_acquire = blocking(HeldSteps.try_acquire_)
    release = blocking(HeldSteps.release_)
    check = blocking(HeldSteps.check_)
