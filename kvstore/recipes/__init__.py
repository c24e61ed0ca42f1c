"""Recipes: what programs build on a store to work together, on every engine, for threads and for asyncio.

    session     a lease that is kept alive, and tells when it is lost. Under it:
    line        who waits for a turn: ``lock``, ``semaphore``, ``election``
    queue       jobs, claimed under a session's lease
    barrier     a gate, and a meeting of a known number
    numbered    writes under numbers that are given once: ``sequence``, and a queue's order
    transact    a function as a transaction
    namespace   a part of a store as a store (its engine: ``prefixed``)

Each is written once, as coroutines over ``access``; ``faces`` says how that makes two classes. Each module opens with
what its recipe does not promise; the ``errors`` are common to all.
"""

from __future__ import annotations

from kvstore.recipes.barrier import AsyncBarrier, AsyncDoubleBarrier, Barrier, DoubleBarrier
from kvstore.recipes.election import AsyncElection, Election
from kvstore.recipes.errors import (
    AlreadyHeld,
    KeyLost,
    LeaseLost,
    NotHeld,
    TooManyClients,
    TooManyConflicts,
)
from kvstore.recipes.lock import AsyncLock, Lock
from kvstore.recipes.namespace import AsyncNamespace, Namespace
from kvstore.recipes.queue import AsyncJob, AsyncQueue, DeadJob, Job, Queue
from kvstore.recipes.semaphore import AsyncSemaphore, Semaphore
from kvstore.recipes.sequence import AsyncSequence, Sequence
from kvstore.recipes.session import AsyncSession, Session
from kvstore.recipes.transact import AsyncTransaction, Transaction, transact, transact_async

__all__ = [
    "AlreadyHeld",
    "AsyncBarrier",
    "AsyncDoubleBarrier",
    "AsyncElection",
    "AsyncJob",
    "AsyncLock",
    "AsyncNamespace",
    "AsyncQueue",
    "AsyncSemaphore",
    "AsyncSequence",
    "AsyncSession",
    "AsyncTransaction",
    "Barrier",
    "DeadJob",
    "DoubleBarrier",
    "Election",
    "Job",
    "KeyLost",
    "LeaseLost",
    "Lock",
    "Namespace",
    "NotHeld",
    "Queue",
    "Semaphore",
    "Sequence",
    "Session",
    "TooManyClients",
    "TooManyConflicts",
    "Transaction",
    "transact",
    "transact_async",
]
