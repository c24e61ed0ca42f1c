"""A semaphore between sessions: at most ``places`` of those that stand in the ``line`` of a name have the turn.

All who use a name must give the same number of places: it is written nowhere. A session has one place at most.

What it does not promise: what a ``lock`` does not. Whoever pauses for longer than the TTL may be one too many, and
finds out with its next step.
"""

from __future__ import annotations

from kvstore.arguments import check_number
from kvstore.recipes.faces import AsyncBlock, Block, blocking
from kvstore.recipes.lock import HeldSteps
from kvstore.recipes.session import AsyncSession, Session, SessionSteps


class SemaphoreSteps(HeldSteps):
    """A number of holders at a time."""

    def __init__(self, session: SessionSteps, name: bytes, places: int) -> None:
        check_number("places", places, 1)
        super().__init__(session, name, places)


class AsyncSemaphore(SemaphoreSteps, AsyncBlock):
    """``async with AsyncSemaphore(session, b"name", places=3)``"""

    def __init__(self, session: AsyncSession, name: bytes, places: int) -> None:
        super().__init__(session, name, places)

    acquire = HeldSteps.acquire_
    try_acquire = HeldSteps.try_acquire_
    release = HeldSteps.release_
    check = HeldSteps.check_


class Semaphore(SemaphoreSteps, Block):
    """``with Semaphore(session, b"name", places=3)``"""

    def __init__(self, session: Session, name: bytes, places: int) -> None:
        super().__init__(session, name, places)

    acquire = blocking(HeldSteps.acquire_)
    try_acquire = blocking(HeldSteps.try_acquire_)
    release = blocking(HeldSteps.release_)
    check = blocking(HeldSteps.check_)
