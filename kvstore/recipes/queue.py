"""A queue of jobs: put, claim, acknowledge.

    put ---> items/<priority>/<number> <------------- retry: the claim goes, at once or after a delay
                  |                                      |
                claim ---> claims/<...> under the session's lease ---> acknowledge: item and claim go, together
                  |                            |
                  |                     the lease ends: the claim goes, and the next one gets the job
                  v
             more than ``tries_max`` claims: dead/<...>, for people to look at

Lower priorities come first; within one, the order is that of the puts. A claimed job is invisible, not gone: its claim
is a key of the session that works on it.

**At least once.** A job that was put is in the queue until it was acknowledged, which happens once, or is dead; it is
never lost. It may be *worked on* more than once: when a worker dies or pauses for longer than its lease, another one
gets the job. ``acknowledge`` then raises ``LeaseLost``. What must not be done twice is done in a transaction that
compares ``job.is_owner``.

What it does not promise: order of completion; order among jobs that are retried; a fair share for each worker. Each
waiting worker looks when anything changes, so this is for some hundred workers, not for some hundred thousand.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

from kvstore.aio import AsyncStore
from kvstore.arguments import Seconds, check_bytes, check_number, whole_seconds
from kvstore.codecs import BYTES, Codec, decoded, encoded
from kvstore.errors import BadArgument, Compacted
from kvstore.model import Compare, prefix_end
from kvstore.ops import create_revision, delete, get, mod_revision, put, version
from kvstore.recipes.access import Access, Deadline, Settled
from kvstore.recipes.errors import KeyLost, LeaseLost
from kvstore.recipes.faces import AsyncBlock, Block, Steps, blocking
from kvstore.recipes.line import checked_name
from kvstore.recipes.numbered import take_numbers
from kvstore.recipes.session import AsyncSession, Session, SessionSteps
from kvstore.store import Store

P = TypeVar("P")

PRIORITY_MAX = 0xFFFF
LOOK_AT_ONCE = 32
DELAYED = b"delayed"
"""Says a claim that is nobody's, and goes with its lease."""


class Names:
    """The keys of a queue. ``ident``: what a job's keys end with, ``b"0064/000000000000002a"``."""

    def __init__(self, name: bytes) -> None:
        base = checked_name(name)
        self.all = base + b"/"
        self.last = base + b"/last"
        self.items, self.claims = base + b"/items/", base + b"/claims/"
        self.tries, self.dead = base + b"/tries/", base + b"/dead/"


class PutJob(Generic[P]):
    """A job as it lies in the queue."""

    def __init__(self, queue: QueueSteps[Any, P], ident: bytes, data: bytes) -> None:
        self._queue = queue
        self.ident = ident
        """What ``revive`` and ``discard`` take."""
        self.data = data
        """What was put, as bytes."""

    @property
    def payload(self) -> P:
        """What was put. Raises ``UndecodableValue``, if that was by another codec: it is then tried, and given up."""
        queue = self._queue
        return decoded(queue.codec, self.data, queue.names.items + self.ident, "payload")


class DeadJob(PutJob[P]):
    """A job that was tried too often."""


class JobSteps(PutJob[P], Steps):
    """A job that is claimed. As a context manager it is acknowledged at the end of the block, or retried after an
    error.
    """

    def __init__(
        self, queue: QueueSteps[Any, P], ident: bytes, data: bytes, tries: int, claim_revision: int
    ) -> None:
        super().__init__(queue, ident, data)
        self.tries = tries
        """How often it was claimed, this time included."""
        self.token = claim_revision
        """The fencing token: a revision, higher than that of any claim of this job before."""
        self._is_over = False

    @property
    def is_owner(self) -> Compare:
        """A compare for a transaction: true while the job is claimed by this session, and not acknowledged."""
        return mod_revision(self._queue.names.claims + self.ident) == self.token

    async def acknowledge_(self) -> None:
        """It is done: take it out of the queue. Raises ``LeaseLost`` if another may be working on it."""
        names = self._queue.names
        await self._give_up([delete(names.items + self.ident), *self._forget()], _item_is_gone)

    async def retry_(self, delay: Seconds | None = None) -> None:
        """Give it back, to be claimed again at once or after ``delay`` seconds; to the dead after its last try."""
        names, ident = self._queue.names, self.ident
        if self.tries >= self._queue.tries_max:
            await self._give_up(
                [delete(names.items + ident), put(names.dead + ident, self.data), *self._forget()],
                _item_is_gone,
            )
        elif delay is None:
            await self._give_up([delete(names.claims + ident)], lambda settled: not settled.found())
        else:
            lease = await self._queue.delay_lease(delay)
            await self._give_up(
                [put(names.claims + ident, DELAYED, lease=lease)],
                lambda settled: all(kv.lease == lease for kv in settled.found()),
            )

    def _forget(self) -> list[Any]:
        return [delete(self._queue.names.claims + self.ident), delete(self._queue.names.tries + self.ident)]

    async def _give_up(self, writes: Sequence[Any], was_done: Callable[[Settled], bool]) -> None:
        """End the claim. ``was_done`` says from claim and item whether an earlier try has, if that is in doubt."""
        if self._is_over:
            raise BadArgument("the job was acknowledged or given back before")
        session, names = self._queue.session, self._queue.names
        claim = names.claims + self.ident
        settled = await session.txn([self.is_owner], writes, [get(claim), get(names.items + self.ident)])
        if not settled.succeeded and not (settled.doubt and was_done(settled)):
            raise KeyLost(session.lease, f"the claim {claim!r} is gone")
        self._is_over = True

    async def leave_block(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        try:
            await (self.acknowledge_() if error is None else self.retry_())
        except LeaseLost as loss:
            if error is None:
                raise
            if not isinstance(error, LeaseLost):
                error.add_note(str(loss))


J = TypeVar("J", bound=JobSteps[Any])


class QueueSteps(Generic[J, P]):
    """Jobs in order, each claimed by one worker at a time."""

    _job: type[Any]

    def __init__(
        self, of: SessionSteps | Store | AsyncStore, name: bytes, tries_max: int, codec: Codec[P]
    ) -> None:
        check_number("tries_max", tries_max, 1)
        if not isinstance(codec, Codec):
            raise TypeError(f"codec must be a kvstore.Codec, not {codec!r:.80}")
        self.codec = codec
        self.names = Names(name)
        self.tries_max = tries_max
        self._session = of if isinstance(of, SessionSteps) else None
        self._access = of.access if isinstance(of, SessionSteps) else Access(of)

    @property
    def session(self) -> SessionSteps:
        """The session whose lease claims hang on."""
        if self._session is None:
            raise BadArgument("a worker needs a session: Queue(session, name)")
        return self._session

    # --- producers --------------------------------------------------------------------

    async def put_(self, payload: P, *, priority: int = 100, delay: Seconds | None = None) -> bytes:
        """Add a job; returns its ident. ``priority``: 0 (first) to 65535; ``delay``: seconds until it can be had."""
        data = encoded(self.codec, payload, "payload", "queue", "codec")
        check_number("priority", priority)
        if priority > PRIORITY_MAX:
            raise BadArgument(f"priority must be at most {PRIORITY_MAX}, not {priority}")
        lease = 0 if delay is None else await self.delay_lease(delay)

        def writes(number: int) -> list[Any]:
            ident = _ident(priority, number)
            delayed = [put(self.names.claims + ident, DELAYED, lease=lease)] if lease else []
            return [put(self.names.items + ident, data), *delayed]

        return _ident(priority, await take_numbers(self._access, self.names.last, 1, writes))

    async def delay_lease(self, delay: Seconds) -> int:
        """A lease that nobody renews."""
        return (await self._access.grant(whole_seconds("delay", delay)))[0]

    # --- workers ----------------------------------------------------------------------

    async def claim_(self, timeout: float | None = None) -> J:
        """The first job, waited for. ``timeout``: seconds. Raises ``TimeoutError``, ``LeaseLost``."""
        deadline = Deadline(timeout)
        while True:
            revision, job = await self._look()
            if job is not None:
                return job
            await self._change(revision, deadline)

    async def try_claim_(self) -> J | None:
        """The first job, if there is one now. Raises ``LeaseLost``."""
        return (await self._look())[1]

    async def _look(self) -> tuple[int, J | None]:
        """Claim the first job that can be had. If there is none: the revision at which that was so."""
        while True:
            revision, free = await self._free()
            for ident in free:
                job = await self._claim(ident)
                if job is not None:
                    return revision, job
            if not free:
                return revision, None

    async def _free(self) -> tuple[int, list[bytes]]:
        """The first jobs that nobody has claimed, and the revision at which that was so."""
        names, limit = self.names, LOOK_AT_ONCE
        while True:
            looked = await self.session.txn(
                success=[
                    get(prefix=names.claims, keys_only=True),
                    get(prefix=names.items, keys_only=True, limit=limit),
                ]
            )
            claims, items = looked.found(0), looked.found(1)
            claimed = {kv.key[len(names.claims) :] for kv in claims}
            idents = [kv.key[len(names.items) :] for kv in items]
            free = [ident for ident in idents if ident not in claimed]
            if free or len(items) < limit:
                return looked.response.revision, free
            limit = len(claimed) + LOOK_AT_ONCE

    async def _claim(self, ident: bytes) -> J | None:
        names, session = self.names, self.session
        item, claim, tries = names.items + ident, names.claims + ident, names.tries + ident
        token = secrets.token_hex(8).encode()
        reads = [get(claim), get(item), get(tries)]
        settled = await session.txn(
            [create_revision(item) > 0, create_revision(claim) == 0, version(tries) < self.tries_max],
            [put(claim, token, lease=session.lease), put(tries), *reads],
            reads,
        )
        claims, items, counts = (settled.found(op) for op in (-3, -2, -1))
        if settled.succeeded or (claims and claims[0].value == token):
            job: J = self._job(self, ident, items[0].value, counts[0].version, claims[0].create_revision)
            return job
        if items and not claims and counts and counts[0].version >= self.tries_max:
            await self._bury(ident, items[0].value)
        return None

    async def _bury(self, ident: bytes, payload: bytes) -> None:
        """Put a job to the dead: whoever had its last try did not say what became of it."""
        names = self.names
        item, claim, tries = names.items + ident, names.claims + ident, names.tries + ident
        await self.session.txn(
            [create_revision(item) > 0, create_revision(claim) == 0],
            [delete(item), delete(tries), put(names.dead + ident, payload)],
        )

    async def _change(self, revision: int, deadline: Deadline) -> None:
        """Wait until there may be another job."""
        names = self.names
        try:
            await self.session.event(
                deadline,
                lambda event: event.kv.key.startswith((names.items, names.claims)),
                key=names.claims,
                range_end=prefix_end(names.items),
                start_revision=revision + 1,
            )
        except Compacted:
            pass

    # --- people -----------------------------------------------------------------------

    async def count_(self) -> int:
        """Jobs in the queue, the claimed ones included, the dead ones not."""
        return (await self._access.range(prefix=self.names.items, count_only=True)).count

    async def dead_(self) -> list[DeadJob[P]]:
        """The jobs that were given up."""
        found = await self._access.range(prefix=self.names.dead)
        return [DeadJob(self, kv.key[len(self.names.dead) :], kv.value) for kv in found.kvs]

    async def revive_(self, ident: bytes) -> bool:
        """Put a dead job back where it was, as if it was never tried. Returns whether it was among the dead."""
        check_bytes("ident", ident)
        dead = self.names.dead + ident
        kv = await self._access.get(dead)
        if kv is None:
            return False
        revived = await self._access.txn(
            [create_revision(dead) == kv.create_revision],
            [delete(dead), put(self.names.items + ident, kv.value)],
        )
        return revived.succeeded or revived.doubt is not None

    async def discard_(self, ident: bytes) -> bool:
        """Delete a dead job. Returns whether it was there."""
        check_bytes("ident", ident)
        dead = self.names.dead + ident
        gone = await self._access.txn([create_revision(dead) > 0], [delete(dead)])
        return gone.succeeded or gone.doubt is not None


def _item_is_gone(settled: Settled) -> bool:
    return not settled.found(1)


def _ident(priority: int, number: int) -> bytes:
    return b"%04x/%016x" % (priority, number)


class AsyncJob(JobSteps[P], AsyncBlock):
    """``async with await queue.claim() as job``"""

    acknowledge = JobSteps.acknowledge_
    retry = JobSteps.retry_


class Job(JobSteps[P], Block):
    """``with queue.claim() as job``"""

    acknowledge = blocking(JobSteps.acknowledge_)
    retry = blocking(JobSteps.retry_)


class AsyncQueue(QueueSteps[AsyncJob[P], P]):
    """``AsyncQueue(session, b"name")``; with a store instead of a session, to put. ``codec``: of what is put."""

    _job = AsyncJob

    @overload
    def __init__(
        self: AsyncQueue[bytes], of: AsyncSession | AsyncStore, name: bytes, *, tries_max: int = ...
    ) -> None: ...
    @overload
    def __init__(
        self, of: AsyncSession | AsyncStore, name: bytes, *, tries_max: int = ..., codec: Codec[P]
    ) -> None: ...
    def __init__(
        self, of: AsyncSession | AsyncStore, name: bytes, *, tries_max: int = 10, codec: Codec[Any] = BYTES
    ) -> None:
        super().__init__(of, name, tries_max, codec)

    claim = QueueSteps[AsyncJob[P], P].claim_
    try_claim = QueueSteps[AsyncJob[P], P].try_claim_
    put = QueueSteps[AsyncJob[P], P].put_
    count = QueueSteps.count_
    dead = QueueSteps[AsyncJob[P], P].dead_
    revive = QueueSteps.revive_
    discard = QueueSteps.discard_


class Queue(QueueSteps[Job[P], P]):
    """``Queue(session, b"name")``; with a store instead of a session, to put. ``codec``: of what is put."""

    _job = Job

    @overload
    def __init__(self: Queue[bytes], of: Session | Store, name: bytes, *, tries_max: int = ...) -> None: ...
    @overload
    def __init__(
        self, of: Session | Store, name: bytes, *, tries_max: int = ..., codec: Codec[P]
    ) -> None: ...
    def __init__(
        self, of: Session | Store, name: bytes, *, tries_max: int = 10, codec: Codec[Any] = BYTES
    ) -> None:
        super().__init__(of, name, tries_max, codec)

    claim = blocking(QueueSteps[Job[P], P].claim_)
    try_claim = blocking(QueueSteps[Job[P], P].try_claim_)
    put = blocking(QueueSteps[Job[P], P].put_)
    count = blocking(QueueSteps.count_)
    dead = blocking(QueueSteps[Job[P], P].dead_)
    revive = blocking(QueueSteps.revive_)
    discard = blocking(QueueSteps.discard_)
