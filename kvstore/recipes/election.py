"""An election: of the candidates in the ``line`` of a name the first leads, and says something by its key's value.

    campaign   enter with a value, and wait until one leads
    proclaim   change the value, while one leads
    resign     leave; the next candidate leads
    leader, observe   who leads, and what it says: for anybody, with a store instead of a session

What it does not promise: that the former leader knows. It is a lease, as a ``lock`` is: what a leader does in this
store is guarded by ``is_leader`` in its transactions, elsewhere by the fencing token. ``observe`` always comes to the
last value; of a leader that came and went while another one was looked at, or whose past was compacted, it may show
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import closing

from kvstore.aio import AsyncStore
from kvstore.errors import BadArgument, Compacted
from kvstore.keyvalue import KeyValue
from kvstore.model import Compare, EventType, RangeResponse, SortOrder, SortTarget
from kvstore.recipes.access import Access
from kvstore.recipes.faces import Steps, blocking, iterating
from kvstore.recipes.line import Line, checked_name
from kvstore.recipes.session import AsyncSession, Session, SessionSteps
from kvstore.store import Store

INFINITY = float("inf")


class ElectionSteps(Steps):
    """One of many leads, until it resigns or its session ends."""

    def __init__(self, of: SessionSteps | Store | AsyncStore, name: bytes) -> None:
        self._prefix = checked_name(name) + b"/"
        self._candidate = Line(of, name) if isinstance(of, SessionSteps) else None
        self._access = of.access if isinstance(of, SessionSteps) else Access(of)

    # --- to lead ----------------------------------------------------------------------

    @property
    def _line(self) -> Line:
        if self._candidate is None:
            raise BadArgument("a candidate needs a session: Election(session, name)")
        return self._candidate

    @property
    def key(self) -> bytes:
        """The candidate's key."""
        return self._line.key

    @property
    def token(self) -> int:
        """The fencing token: a revision, higher than that of any leader before. Raises ``NotHeld``."""
        return self._line.token

    @property
    def is_leader(self) -> Compare:
        """A compare for a transaction: true while this one leads. Raises ``NotHeld``."""
        return self._line.is_owner

    async def campaign_(self, value: bytes = b"", timeout: float | None = None) -> int:
        """Wait until this one leads; returns the fencing token. ``timeout``: seconds.

        Raises ``TimeoutError``, ``LeaseLost``, ``AlreadyHeld``.
        """
        await self._line.acquire(value, 1, timeout)
        return self.token

    async def proclaim_(self, value: bytes) -> int:
        """Say something else; returns the revision. Raises ``NotHeld``, ``LeaseLost``."""
        return (await self._line.say(value)).revision

    async def resign_(self) -> None:
        """Give it up. Raises ``NotHeld``, ``LeaseLost``."""
        await self._line.release()

    async def check_(self) -> None:
        """Ask the store whether this one leads still. Raises ``NotHeld``, ``LeaseLost``."""
        await self._line.check()

    # --- to look on -------------------------------------------------------------------

    async def leader_(self) -> KeyValue | None:
        """The leader's key and what it says; None if nobody leads."""
        found = await self._first()
        return found.kvs[0] if found.kvs else None

    async def _first(self) -> RangeResponse:
        return await self._access.range(
            prefix=self._prefix, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE, limit=1
        )

    async def observe_(self) -> AsyncGenerator[KeyValue, None]:
        """The leader now, and each time that another leads, or the same one says something else. Endless."""
        shown = 0
        while True:
            found = await self._first()
            if found.kvs and found.kvs[0].mod_revision != shown:
                shown = found.kvs[0].mod_revision
                yield found.kvs[0]
            if not found.kvs:
                await self._anything(found.revision)
                continue
            async for kv in self._said(found.kvs[0].key, found.revision):
                shown = kv.mod_revision
                yield kv

    async def _said(self, key: bytes, revision: int) -> AsyncGenerator[KeyValue, None]:
        """What a leader says after a revision, until its key is gone."""
        with closing(self._access.store.watch(key, start_revision=revision + 1)) as watch:
            while True:
                try:
                    event = await self._access.event(watch, INFINITY)
                except Compacted:
                    return
                if event is None or event.type == EventType.DELETE:
                    return
                yield event.kv

    async def _anything(self, revision: int) -> None:
        """Wait until a candidate has come."""
        with closing(
            self._access.store.watch(prefix=self._prefix, start_revision=revision + 1, no_delete=True)
        ) as watch:
            try:
                await self._access.event(watch, INFINITY)
            except Compacted:
                pass


class AsyncElection(ElectionSteps):
    """``AsyncElection(session, b"name")``; with a store instead of a session, to look on."""

    def __init__(self, of: AsyncSession | AsyncStore, name: bytes) -> None:
        super().__init__(of, name)

    campaign = ElectionSteps.campaign_
    proclaim = ElectionSteps.proclaim_
    resign = ElectionSteps.resign_
    check = ElectionSteps.check_
    leader = ElectionSteps.leader_
    observe = ElectionSteps.observe_


class Election(ElectionSteps):
    """``Election(session, b"name")``; with a store instead of a session, to look on."""

    def __init__(self, of: Session | Store, name: bytes) -> None:
        super().__init__(of, name)

    campaign = blocking(ElectionSteps.campaign_)
    proclaim = blocking(ElectionSteps.proclaim_)
    resign = blocking(ElectionSteps.resign_)
    check = blocking(ElectionSteps.check_)
    leader = blocking(ElectionSteps.leader_)
    observe = iterating(ElectionSteps.observe_)
