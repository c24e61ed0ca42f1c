"""``transact``: a function that reads and writes is carried out as if nobody else were there.

    fn(txn)   reads at one revision, and sees its own puts and deletes; nothing is written yet
    commit    one transaction: if no key that was read has changed, and no key came into a range that was read,
              everything is written, as one revision. Otherwise fn runs again, on what is there by then

So ``fn`` may run several times: it should change nothing but through ``txn``. Transactions are strictly serializable
among each other and with all other writes. One that only reads commits nothing.

What it does not promise: progress while others keep changing what it reads (``TooManyConflicts`` after ``tries``), and
more than ``max_txn_ops`` keys read or written.

**Unknown outcomes.** A key that is written is compared as well, read or not, so a commit is made at most once, however
often it is sent. Whether it was: told by what came after the compared version of a key. Another transaction may have
written the very same there, so where that is found, the unknown outcome is raised after all; with a ``mark``, a key of
one's own that gets a new token with each commit, it is always told.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kvstore.aio import AsyncStore
from kvstore.arguments import check_bytes, check_callable, check_number
from kvstore.errors import Compacted, KVStoreError
from kvstore.keyvalue import KeyValue
from kvstore.model import Compare
from kvstore.ops import delete, get, mod_revision, put
from kvstore.recipes.access import Access, Settled, answer_of, backoff_seconds
from kvstore.recipes.errors import TooManyConflicts
from kvstore.recipes.faces import blocking, run
from kvstore.store import Store

T = TypeVar("T")
TRIES_MAX = 100


class TransactionSteps:
    """What one run of the function has read and written."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._revision = 0
        self._read: dict[bytes, KeyValue | None] = {}
        self._prefixes: set[bytes] = set()
        self._written: dict[bytes, bytes | None] = {}

    # --- for the function -------------------------------------------------------------

    async def get_(self, key: bytes) -> bytes | None:
        """The value of a key; None if it does not exist."""
        if key in self._written:
            return self._written[key]
        kv = await self.version_of(key)
        return None if kv is None else kv.value

    async def range_(self, prefix: bytes) -> dict[bytes, bytes]:
        """The keys that begin with a prefix, in order, and their values."""
        found = await self._access.range(prefix=prefix, revision=self._revision)
        self._revision = self._revision or found.revision
        self._prefixes.add(prefix)
        self._read |= {kv.key: kv for kv in found.kvs}
        values: dict[bytes, bytes | None] = {kv.key: kv.value for kv in found.kvs}
        values |= {key: value for key, value in self._written.items() if key.startswith(prefix)}
        return {key: value for key, value in sorted(values.items()) if value is not None}

    def put(self, key: bytes, value: bytes, /) -> None:
        """Write a key at the end."""
        check_bytes("key", key)
        check_bytes("value", value)
        self._written[key] = value

    def delete(self, key: bytes, /) -> None:
        """Delete a key at the end."""
        check_bytes("key", key)
        self._written[key] = None

    @property
    def revision(self) -> int:
        """At which it reads; 0 before the first read."""
        return self._revision

    # --- for the commit ---------------------------------------------------------------

    async def version_of(self, key: bytes) -> KeyValue | None:
        """A key at the revision of all reads."""
        if key not in self._read:
            found = await self._access.range(key, revision=self._revision)
            self._revision = self._revision or found.revision
            self._read[key] = next(iter(found.kvs), None)
        return self._read[key]

    async def commit(self) -> Settled:
        """Write what was put, if nothing that was read has changed since."""
        for key in self._written:
            await self.version_of(key)
        unchanged: list[Compare] = [mod_revision(key) == _revision(kv) for key, kv in self._read.items()]
        unchanged += [mod_revision(prefix=prefix) < self._revision + 1 for prefix in self._prefixes]
        writes: list[Any] = [
            delete(key) if value is None else put(key, value) for key, value in self._written.items()
        ]
        return await self._access.txn(unchanged, writes)

    async def was_made(self, settled: Settled, mark: bytes | None) -> bool:
        """Whether a commit whose compares were false was made by an earlier try of it. If not, it never will be."""
        if settled.doubt is None:
            return False
        if mark is not None:
            return await self._is_marked(mark, settled.doubt)
        await self._check_overtaken(settled.doubt)
        key = next((key for key, value in self._written.items() if value is not None), None)
        if key is None:
            raise settled.doubt
        newest = await self._access.get(key)
        if _revision(newest) != _revision(self._read[key]):
            after = await self._access.successor(key, _revision(self._read[key]), newest, settled.doubt)
            if after.value == self._written[key]:
                raise settled.doubt  # it may be another's: who writes the same is not told apart
        return False

    async def _is_marked(self, mark: bytes, doubt: KVStoreError) -> bool:
        """Whether the commit's token came next into the key ``mark``; if not, another one goes there and bars it."""
        revision = _revision(self._read[mark])
        barred = await self._access.txn(
            [mod_revision(mark) == revision], [put(mark, secrets.token_hex(8).encode())], [get(mark)]
        )
        if barred.succeeded:
            return False
        newest = next(iter(barred.found()), None)
        after = await self._access.successor(mark, revision, newest, doubt)
        return after.value == self._written[mark]

    async def _check_overtaken(self, doubt: KVStoreError) -> None:
        """Raise ``doubt`` unless a key has changed for good: a try that is still on its way finds that too."""
        for key, kv in self._read.items():
            if kv is not None and _revision(await self._access.get(key)) != kv.mod_revision:
                return
        raise doubt


def _revision(kv: KeyValue | None) -> int:
    return 0 if kv is None else kv.mod_revision


class AsyncTransaction(TransactionSteps):
    """What the function of ``transact_async`` reads and writes with."""

    get = TransactionSteps.get_
    range = TransactionSteps.range_


class Transaction(TransactionSteps):
    """What the function of ``transact`` reads and writes with."""

    get = blocking(TransactionSteps.get_)
    range = blocking(TransactionSteps.range_)


def transact(
    store: Store, fn: Callable[[Transaction], T], *, mark: bytes | None = None, tries: int = TRIES_MAX
) -> T:
    """Carry out ``fn``, and return what it returned in the run that was committed.

    Raises what ``fn`` raises (nothing is written then), ``TooManyConflicts``, ``TooManyOps``.
    """
    access = Access(store)
    return run(_transact(access, lambda: Transaction(access), fn, mark, tries))


async def transact_async(
    store: AsyncStore,
    fn: Callable[[AsyncTransaction], Awaitable[T]],
    *,
    mark: bytes | None = None,
    tries: int = TRIES_MAX,
) -> T:
    """As ``transact``; ``fn`` is a coroutine function."""
    access = Access(store)
    return await _transact(access, lambda: AsyncTransaction(access), fn, mark, tries)


async def _transact(
    access: Access,
    begin: Callable[[], Any],
    fn: Callable[[Any], T | Awaitable[T]],
    mark: bytes | None,
    tries: int,
) -> T:
    check_callable("fn", fn)
    check_number("tries", tries, 1)
    for number in range(tries):
        txn = begin()
        try:
            answer = await answer_of(fn(txn))
            if not txn._written:
                return answer
            if mark is not None:
                txn.put(mark, secrets.token_hex(8).encode())
            settled = await txn.commit()
        except Compacted:
            continue  # what was read is gone: read anew
        if settled.succeeded or await txn.was_made(settled, mark):
            return answer
        await access.pause(backoff_seconds(number))
    raise TooManyConflicts(f"others changed what was read, in each of {tries} tries")
