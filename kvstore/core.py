"""What the parts of an open store share. Data, no behaviour: what a part does with it, its own module says.

ReadCore    all that reading takes: a snapshot, a store that is open read-only, a file of etcd's
Core        a data directory that is ours to write: its log and lock as well, and what wakes background work
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
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.state import State
from kvstore.options import Options
from kvstore.store_lock import StoreLock
from kvstore.wal import Log

COMMIT, DEFRAGMENT, SNAPSHOT = "commit", "defragment", "snapshot"
"""Work whose duration is a metric: what ``timed`` is told."""


def untimed(_work: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadCore:
    """What an engine reads from."""

    options: Options
    disk: Disk
    directory: DataDir | None
    """None: it is a file, not a data directory."""
    state: State
    lessor: Lessor
    cluster_id: int
    member_id: int
    clock: Clock
    life: Life

    @property
    def backend(self) -> Backend:
        """A defragmentation puts another one in place."""
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
    """Rung when the prompt jobs should not wait for their turn."""
    upkeep_wanted: Bell = field(default_factory=Bell)
    """The same for compaction and defragment."""
    timed: Callable[[str], AbstractContextManager[None]] = untimed
    """Around background work whose duration is a metric."""

    def want_work(self) -> None:
        self.work_wanted.ring()
