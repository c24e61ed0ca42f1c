"""What recipes ask of a store, whichever kind it is: see ``faces`` for how one coroutine serves both.

**Unknown outcomes.** A write to a store on the network may end in ``OutcomeUnknown``: the connection broke, and the
write was made, or will be made in a moment, or never. ``Access`` repeats it, and so a recipe may only make writes that
come to the same when they are made twice: each compares something that the write itself changes. The second of two
then finds its compares false, and the recipe reads whether the first was its own: ``Settled.doubt`` says that it must.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from itertools import count
from typing import Any, NamedTuple, Protocol, TypeVar

from kvstore.aio import AsyncStore
from kvstore.arguments import check_timeout
from kvstore.bell import Gate
from kvstore.errors import Compacted, KVStoreError, LeaseExists, NoThread, OutcomeUnknown
from kvstore.keyvalue import KeyValue, KeyValues
from kvstore.model import Compare, Event, LeaseGrantResponse, RangeResponse, TxnResponse
from kvstore.recipes.faces import run
from kvstore.shelter import start
from kvstore.store import Store
from kvstore.watch.asynchronous import AsyncWatch
from kvstore.watch.iterators import Watch

T = TypeVar("T")
AnyStore = Store | AsyncStore
AnyWatch = Watch | AsyncWatch
REPEATS_MAX = 10


def backoff_seconds(tries: int) -> float:
    """A random time, twice as long with each try, and at most half a second."""
    return random.uniform(0.5, 1.0) * min(0.001 * (1 << min(tries, 9)), 0.5)


class Deadline:
    """The end of a call that has ``timeout`` seconds; None: no end."""

    def __init__(self, timeout: float | None) -> None:
        check_timeout("timeout", timeout)
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def left_seconds(self) -> float:
        return float("inf") if self._end is None else self._end - time.monotonic()

    def check(self) -> None:
        if self.left_seconds() <= 0:
            raise TimeoutError(f"not in time: {self._timeout} seconds")


class Settled(NamedTuple):
    """A transaction that was answered. ``doubt``: why nobody knows what became of an earlier try of the same."""

    response: TxnResponse
    doubt: KVStoreError | None

    @property
    def succeeded(self) -> bool:
        return self.response.succeeded

    def found(self, op: int = 0) -> KeyValues:
        """What a range among the ops of the branch that ran has found."""
        answer: Any = self.response.responses[op]
        kvs: KeyValues = answer.kvs
        return kvs


class Flag(Protocol):
    """Set once, waited for with a limit."""

    def set(self) -> None: ...

    async def wait(self, timeout_seconds: float) -> bool:
        """Whether it is set, by then."""


class _ThreadFlag:
    def __init__(self) -> None:
        self._gate = Gate()
        self.set = self._gate.open

    async def wait(self, timeout_seconds: float) -> bool:
        return self._gate.wait(timeout_seconds)


class _TaskFlag:
    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.set = self._event.set

    async def wait(self, timeout_seconds: float) -> bool:
        try:
            return await asyncio.wait_for(self._event.wait(), timeout_seconds)
        except TimeoutError:
            return False


class Access:
    """A store, for a recipe."""

    def __init__(self, store: AnyStore) -> None:
        if not isinstance(store, AnyStore):
            raise TypeError(
                f"store must be a kvstore.Store or AsyncStore, or a session on one, not {store!r:.80}"
            )
        self.store = store
        self.is_async = not isinstance(store, Store)

    # --- requests ---------------------------------------------------------------------

    async def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        return await answer_of(self.store.get(key, revision=revision))

    async def range(self, key: bytes | None = None, **options: Any) -> RangeResponse:
        return await answer_of(self.store.range(key, **options))

    async def txn(
        self,
        compare: Iterable[Compare] = (),
        success: Iterable[Any] = (),
        failure: Iterable[Any] = (),
    ) -> Settled:
        """A transaction that may be repeated: it changes what it compares."""
        parts = tuple(compare), tuple(success), tuple(failure)
        doubts: list[KVStoreError] = []
        response = await self.until_known(lambda: self.store.txn(*parts), doubts)
        return Settled(response, doubts[-1] if doubts else None)

    async def until_known(self, write: Callable[[], T | Awaitable[T]], doubts: list[KVStoreError]) -> T:
        """Make a write, again and again while its outcome is unknown. ``doubts`` gets the reasons."""
        for tries in count(1):
            try:
                return await answer_of(write())
            except OutcomeUnknown as error:
                if tries > REPEATS_MAX:
                    raise
                doubts.append(error)
            await self.pause(backoff_seconds(tries + 3))
        raise AssertionError  # the count has no end

    async def grant(self, ttl_seconds: int) -> tuple[int, int]:
        """A new lease, and its TTL. Its number is chosen here, so that a repeat finds it."""
        while True:
            lease = secrets.randbits(62) + 1
            doubts: list[KVStoreError] = []
            try:
                granted = await self.until_known(partial(self._grant, ttl_seconds, lease), doubts)
                return lease, granted.ttl
            except LeaseExists:
                if doubts:
                    known = await answer_of(self.store.lease_time_to_live(lease))
                    return lease, known.granted_ttl

    def _grant(self, ttl_seconds: int, lease: int) -> LeaseGrantResponse | Awaitable[LeaseGrantResponse]:
        return self.store.grant_lease(ttl_seconds, lease)

    async def successor(
        self, key: bytes, mod_revision: int, newest: KeyValue | None, doubt: KVStoreError
    ) -> KeyValue:
        """The version of a key that came after the one of ``mod_revision``; ``newest`` is its newest version.

        Raises ``doubt`` if that cannot be told any more: it was compacted, or the key was deleted since.
        """
        if newest is None:
            raise doubt
        after = newest
        while after.mod_revision != mod_revision:
            try:
                before = await self.get(key, after.mod_revision - 1)
            except Compacted:
                raise doubt from None
            if (before.mod_revision if before else 0) == mod_revision:
                return after
            if before is None:
                raise doubt
            after = before
        raise doubt  # nothing came after it, and yet a compare with it was false

    # --- watches ----------------------------------------------------------------------

    async def event(self, watch: AnyWatch, left_seconds: float) -> Event | None:
        """The next event of a watch; None when the time is up."""
        try:
            return await answer_of(
                watch.get(None if left_seconds == float("inf") else max(left_seconds, 0.0))
            )
        except TimeoutError:
            return None

    # --- time, threads and tasks ------------------------------------------------------

    async def pause(self, seconds: float) -> None:
        if self.is_async:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    def flag(self) -> Flag:
        return _TaskFlag() if self.is_async else _ThreadFlag()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> Callable[[], object]:
        """Do something beside: in a task, or in a thread. Returns what gives it up, for a task."""
        if self.is_async:
            task = asyncio.get_running_loop().create_task(work(), name=name)
            return task.cancel
        try:
            start(threading.Thread(target=lambda: run(work()), name=name, daemon=True))
        except RuntimeError as error:
            raise NoThread from error
        return lambda: None  # the thread is told otherwise


async def answer_of(answer: T | Awaitable[T]) -> T:
    """An answer, waited for where that is still to be done."""
    return await answer if isinstance(answer, Awaitable) else answer
