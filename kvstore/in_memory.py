"""A store that touches no disk: all that a store does, without files, and gone when it is closed.

The engine is the ordinary one over the memory backend. What would lie in a directory has a stand-in:

    log         numbers the entries and forgets them: nothing will read them again
    lock        no other process can open the store
    directory   a place that cannot exist: there is nothing to be found
    disk        the real one, for a snapshot to a path of the caller's; there is no folder of the store's own
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvstore.backend import find_backend
from kvstore.clock import Clock
from kvstore.core import Core
from kvstore.engine import LocalEngine
from kvstore.errors import StoreClosed, Unsupported
from kvstore.files import OSDisk
from kvstore.held import HeldFolders
from kvstore.layout import DataDir
from kvstore.life import Life
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import FORMAT_VERSION, META, TABLES
from kvstore.mvcc.state import State
from kvstore.options import BadOption, Options
from kvstore.recovery import local_engine, measured, timed
from kvstore.store_lock import StoreLock
from kvstore.wal import Log, LogOptions, Metadata
from kvstore.wal.log import SegmentInfo

NOWHERE = DataDir(Path(os.devnull, "memory"), Path(os.devnull, "memory", "wal"))

OF_FILES = frozenset(
    "backend wal_dir archive_dir read_only refresh_interval_seconds lock_timeout_seconds durability "
    "sync_interval_seconds wal_file_size max_wals snapshot_count snapshot_interval_seconds snapshot_size "
    "max_snapshots lease_restart_policy".split()
)
"""The options that say something about files, or about the next opening."""


def open_in_memory(given: dict[str, Any]) -> LocalEngine:
    """A new, empty store. Raises ``BadOption`` for an option that has no meaning without files."""
    options = Options.load(given)
    known = {name: value for name, value in given.items() if value is not None}
    for name in sorted(known):
        field = name if name in OF_FILES else f"{name}_seconds"
        if field in OF_FILES:
            raise BadOption(f"{name} has no meaning for a store in memory: leave it out, or use kvstore.open")
    options = options.with_(
        backend="memory",
        durability="always",
        snapshot_count=0,
        snapshot_interval_seconds=0.0,
        snapshot_size=0,
    )
    core = _core(options)
    engine = local_engine(core)
    engine.start()
    return engine


def _core(options: Options) -> Core:
    cluster_id = options.cluster_id or random.getrandbits(63) + 1
    member_id = options.member_id or random.getrandbits(63) + 1
    backend = find_backend("memory").open(NOWHERE.db, TABLES)
    marks = Marks(format=FORMAT_VERSION, cluster_id=cluster_id, member_id=member_id, name=options.name)
    with backend.write() as tx:
        tx.put_many(META, marks.identity())
    disk = measured(_Disk(), options)
    return Core(
        options=options,
        disk=disk,
        directory=NOWHERE,
        lock=_Lock(NOWHERE),
        log=_Log(
            Metadata(cluster_id, member_id, 1, time.time_ns() // 1_000_000, options.name.encode()), options
        ),
        state=State(backend, marks=marks),
        lessor=Lessor(),
        cluster_id=cluster_id,
        member_id=member_id,
        clock=Clock(options.clock),
        life=Life(),
        timed=timed(disk),
    )


class _Log(Log):
    """Numbers entries, and keeps none."""

    def __init__(self, metadata: Metadata, options: Options) -> None:
        sizes = LogOptions(wal_buffer_size_bytes=options.wal_buffer_size)
        super().__init__(OSDisk(), NOWHERE.wal, metadata, 0, sizes)

    def append(self, entries: Sequence[bytes], time_ms: int) -> int:
        if self._closed:
            raise StoreClosed
        if len(entries) != 1:
            self._check_batch(entries)
        first = self.last_index + 1
        self.last_index = self.synced_index = first + len(entries) - 1
        return first

    def has_place_for(self, size_bytes: int) -> bool:
        return True

    @property
    def room_bytes(self) -> int:
        return 1 << 62

    def lay(self, size_bytes: int) -> None:
        """There is always room."""

    def sync(self) -> None:
        """There is nothing to sync."""

    def releasable(self, index: int, *, max_segments: int = 0) -> list[Path]:
        return []

    def segments(self) -> list[SegmentInfo]:
        return []

    @property
    def is_ready(self) -> bool:
        return True


class _Lock(StoreLock):
    """No other process can open it."""

    def note_open(self) -> None:
        """There is no file to say so."""

    def note_closed(self, index: int) -> None:
        """There is no file to say so."""


class _NoFolders(HeldFolders):
    """The store has no folder, so nothing can be written there."""

    def __init__(self) -> None:
        self._known = {}

    def check_all(self) -> None:
        raise Unsupported(
            "a store in memory has no folder for snapshots: give a path, as in store.snapshot(path)"
        )


class _Disk(OSDisk):
    """For what the caller wants elsewhere."""

    folders = _NoFolders()
