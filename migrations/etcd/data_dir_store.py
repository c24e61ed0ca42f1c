"""A stopped etcd's data directory as a read-only store: its database in place, and on top of it, in memory, what only
the log has. Nothing is written, not even where a server would repair a torn tail.
"""

from __future__ import annotations

import logging
import os
import time

from kvstore.backend import Backend, Row, find_backend
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import META_CLUSTER_ID, META_MEMBER_ID, TABLES, pack_u64
from kvstore.mvcc.state import State
from kvstore.opened import file_core
from kvstore.reads import ReadEngine
from kvstore.snapshot.manifest import Member
from kvstore.store import Store

from .data_dir import EtcdDataDir
from .log_replay import LogReplay
from .view import EtcdView

logger = logging.getLogger("kvstore")


def identity_rows(directory: EtcdDataDir) -> list[Row]:
    """The ids that the log gives."""
    return [
        (META_CLUSTER_ID, pack_u64(directory.cluster_id)),
        (META_MEMBER_ID, pack_u64(directory.node_id)),
    ]


def open_view(directory: EtcdDataDir, now_ms: int) -> Backend:
    """The database, or an empty backend in memory if the directory has none."""
    if directory.file is not None:
        return EtcdView(directory.file, now_ms, identity_rows(directory))
    return find_backend("memory").open(directory.snap_dir / "none", TABLES)


def replay_pending(directory: EtcdDataDir, state: State, replay: LogReplay) -> int:
    """Apply the entries after the database, and publish them. Returns how many there were."""
    for note in directory.notes:
        logger.warning("%s: %s", directory.path, note)
    replay.recover_members(directory)
    pending = directory.pending()
    for entry in pending:
        replay.apply(entry)
    state.publish(state.head, state.head_compacted)
    return len(pending)


class EtcdDataDirStore(Store):
    """A data directory as a store. Every write raises ``ReadOnly``."""

    kind = "etcd"

    def __init__(self, engine: ReadEngine, members: tuple[Member, ...]) -> None:
        super().__init__(engine)
        self.members = members


def open_data_dir(path: str | os.PathLike[str], wal_dir: str = "") -> Store:
    """Open a data directory. Raises ``NotAStore``, ``Corruption``, ``StoreLocked`` (a server is running on it)."""
    directory = EtcdDataDir(path, wal_dir or None)
    now_ms = time.time_ns() // 1_000_000
    try:
        backend = open_view(directory, now_ms)
        state = State(backend)
        lessor = Lessor.loaded(backend)
        replay = LogReplay(state, lessor, now_ms)
        replay_pending(directory, state, replay)
        members = tuple(Member(member.id, member.name) for member in replay.members())
    except BaseException:
        directory.close()
        raise
    core = file_core(state, lessor, directory.cluster_id, directory.node_id)
    return EtcdDataDirStore(ReadEngine(core), members)
