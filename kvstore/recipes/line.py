"""A line of sessions under a name: keys ``<name>/<lease in hex>``, in the order in which they were created.

    enter   create the key of one's lease
    turn    wait until fewer than ``places`` older keys are left: one, and it is a lock; more, and it is a semaphore
    leave   delete the key; the next one's turn has come

The keys are those of etcd's clients (Go's concurrency.Mutex and Election, ``etcdctl lock`` and ``elect``), so that all
of them stand in the same line. Where there is one place, each watches the key before its own, so that one key's going
wakes one.

A session stands in a line at most once. Its key is its own and is only ever created, so entering may be repeated after
an unknown outcome: whoever finds the key there is in.
"""

from __future__ import annotations

from kvstore.arguments import check_bytes
from kvstore.errors import BadArgument, Compacted, KVStoreError
from kvstore.model import Compare, SortOrder, SortTarget, TxnResponse, prefix_end
from kvstore.ops import create_revision, delete, get, put
from kvstore.recipes.access import Deadline
from kvstore.recipes.errors import KeyLost, NotHeld
from kvstore.recipes.session import SessionSteps


def checked_name(name: bytes) -> bytes:
    check_bytes("name", name)
    if not name:
        raise BadArgument("name must not be empty: it begins the keys of the recipe")
    return name


class Line:
    """One session's place in a line."""

    def __init__(self, session: SessionSteps, name: bytes) -> None:
        if not isinstance(session, SessionSteps):
            raise TypeError(
                f"session must be a kvstore.recipes.Session, as of `with Session(store, ttl=10) as session`, "
                f"not {session!r:.80}"
            )
        self._session = session
        self.prefix = checked_name(name) + b"/"
        self._token = 0

    @property
    def key(self) -> bytes:
        return self.prefix + b"%x" % self._session.lease

    @property
    def token(self) -> int:
        """The revision that created the key. Raises ``NotHeld``."""
        if not self._token:
            raise NotHeld(f"{self.prefix[:-1]!r} is not held here")
        return self._token

    @property
    def is_owner(self) -> Compare:
        """True in a transaction while the key is there."""
        return create_revision(self.key) == self.token

    # --- in and out -------------------------------------------------------------------

    async def acquire(self, value: bytes, places: int, timeout: float | None) -> None:
        """Enter, and wait for one's turn. Leaves again if that does not come."""
        deadline = Deadline(timeout)
        token = await self._enter(value)
        try:
            while not await self._has_turn(token, places, deadline, wait=True):
                pass
        except BaseException:
            await self._leave_unasked(token)
            raise
        self._token = token

    async def try_acquire(self, value: bytes, places: int) -> bool:
        """Enter if it is one's turn at once. Returns whether it was."""
        token = await self._enter(value)
        try:
            has_turn = await self._has_turn(token, places, Deadline(None), wait=False)
        except BaseException:
            await self._leave_unasked(token)
            raise
        if has_turn:
            self._token = token
        else:
            await self._leave(token)
        return has_turn

    async def release(self) -> None:
        """Leave. Raises ``NotHeld``; ``LeaseLost`` and ``KeyLost`` if it was not one's own any more."""
        token, self._token = self.token, 0
        await self._leave(token)

    async def check(self) -> None:
        """Ask the store whether the key is there. Raises ``NotHeld``, ``LeaseLost``, ``KeyLost``."""
        settled = await self._session.txn([self.is_owner])
        if not settled.succeeded:
            raise self._lost()

    async def say(self, value: bytes) -> TxnResponse:
        """Change the key's value, while it is there. Raises ``NotHeld``, ``LeaseLost``, ``KeyLost``."""
        settled = await self._session.txn([self.is_owner], [put(self.key, value, lease=self._session.lease)])
        if not settled.succeeded:
            raise self._lost()
        return settled.response

    # --- the steps --------------------------------------------------------------------

    async def _enter(self, value: bytes) -> int:
        key = self.key
        self._session.begin(key)
        try:
            entered = await self._session.txn(
                [create_revision(key) == 0], [put(key, value, lease=self._session.lease)], [get(key)]
            )
        except BaseException:
            await self._leave_unasked(0)  # it may have been created all the same
            raise
        if entered.succeeded:
            return entered.response.revision
        return entered.found()[0].create_revision

    async def _has_turn(self, token: int, places: int, deadline: Deadline, *, wait: bool) -> bool:
        older = get(
            prefix=self.prefix,
            max_create_revision=token - 1,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            limit=places,
            keys_only=True,
        )
        looked = await self._session.txn([create_revision(self.key) == token], [older])
        if not looked.succeeded:
            raise self._lost()
        before = looked.found()
        if len(before) < places:
            return True
        if wait:
            span = (before[0].key, None) if places == 1 else (self.prefix, prefix_end(self.prefix))
            await self._deleted(span, looked.response.revision, deadline)
        return False

    async def _deleted(self, span: tuple[bytes, bytes | None], revision: int, deadline: Deadline) -> None:
        key, range_end = span
        try:
            await self._session.event(
                deadline, key=key, range_end=range_end, start_revision=revision + 1, no_put=True
            )
        except Compacted:
            pass  # it may have been deleted: the caller looks again

    async def _leave(self, token: int) -> None:
        """``token`` 0: whatever it is."""
        key = self.key
        is_there = create_revision(key) == token if token else create_revision(key) > 0
        try:
            left = await self._session.txn([is_there], [delete(key)])
        finally:
            self._session.end(key)
        if not left.succeeded and not left.doubt:
            raise self._lost()

    async def _leave_unasked(self, token: int) -> None:
        """Leave where something else is being raised."""
        try:
            await self._leave(token)
        except KVStoreError:
            pass  # the lease ends it

    def _lost(self) -> KeyLost:
        return KeyLost(self._session.lease, f"its key {self.key!r} is gone")
