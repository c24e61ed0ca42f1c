"""What the parts of an open store share. Data, no behaviour: each part's own module says what it does with it.

ReadCore    everything reading needs: for a snapshot, a store that is open read-only, an etcd file
Core        a data directory that we write: also its log and lock, and the bells that wake background work
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from kvstore.backend import Backend
from kvstore.bell import Bell
from kvstore.clock import Clock
from kvstore.files import Disk
from kvstore.layout import DataDir
from kvstore.life import Life
from kvstore.mvcc.key_count import KeyCount
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.state import State
from kvstore.options import Options
from kvstore.store_lock import StoreLock
from kvstore.wal import Log

COMMIT, DEFRAGMENT, SNAPSHOT = "commit", "defragment", "snapshot"
"""Kinds of work whose duration is a metric; the argument of ``timed``."""


def untimed(_work: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How far a continuous backup has come."""

    generation: str
    """Its name; empty: there is none yet."""
    revision: int
    """The newest revision at the target."""
    complete_at_ms: int
    """Everything that was durable at this time is at the target; 0: nothing is yet."""
    lag_seconds: float
    """How long ago that was; if nothing is there yet, since the backup began."""
    held_bytes: int
    """The disk space of segments that the store has released and the target does not have yet."""
    error: str
    """Why the last step failed; empty: it did not."""
    verified_at_ms: int = 0
    """When the newest generation was restored and checked last, by whoever does that; 0: never."""
    damage: str = ""
    """What was found then; empty: all was well."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How far a replica is behind its source."""

    source: str
    revision: int
    """The newest revision here."""
    source_revision: int
    """The newest revision that was seen at the source; 0: the source was not reached yet."""
    complete_at_ms: int
    """Everything that was durable at the source at this time is here; 0: not known yet."""
    lag_seconds: float
    """How long ago that was; if it is not known yet, since the replica began."""
    missing: tuple[tuple[int, int], ...]
    """(first, last) of the revisions that the source had compacted before they came here."""
    error: str
    """Why the last step failed, or that nothing new has come for too long; empty: neither."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadCore:
    """What an engine reads from."""

    options: Options
    disk: Disk
    directory: DataDir | None
    """None for a file, which has no data directory."""
    state: State
    lessor: Lessor
    cluster_id: int
    member_id: int
    clock: Clock
    life: Life
    backups: list[Callable[[], BackupStatus]] = field(default_factory=list)
    """Each tells of a continuous backup that this process makes."""
    follows: list[Callable[[], ReplicaStatus]] = field(default_factory=list)
    """Tells how far the store has followed its source, if it is a replica."""
    keys: KeyCount = field(default_factory=KeyCount)

    @property
    def backup_errors(self) -> list[str]:
        """Why backups, or the replica, have stopped moving, or are damaged: a line for each."""
        found = [ask() for ask in self.backups]
        backups = [f"the backup waits: {each.error}" for each in found if each.error]
        backups += [
            f"the backup was verified, and is damaged: {each.damage}" for each in found if each.damage
        ]
        return backups + [f"the replica waits: {said.error}" for ask in self.follows if (said := ask()).error]

    @property
    def backend(self) -> Backend:
        """The current backend. A defragmentation replaces it."""
        return self.state.backend


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Core(ReadCore):
    """What an engine writes to."""

    directory: DataDir
    log: Log
    lock: StoreLock
    checkpointing: threading.RLock = field(default_factory=threading.RLock)
    """One checkpoint, copy or compaction step at a time; held by background work only, and taken before all others."""
    work_wanted: Bell = field(default_factory=Bell)
    """Rung when the prompt jobs should run without waiting for their turn."""
    upkeep_wanted: Bell = field(default_factory=Bell)
    """The same for compaction and defragment."""
    timed: Callable[[str], AbstractContextManager[None]] = untimed
    """Wraps background work whose duration is a metric."""

    def want_work(self) -> None:
        self.work_wanted.ring()
