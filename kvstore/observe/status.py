"""What a store says about itself: ``status`` (facts) and ``health`` (is anything wrong?).

Everything here is read without locks from the current state, so asking costs writers nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import layout
from kvstore._version import __version__
from kvstore.core import BackupStatus, ReadCore, ReplicaStatus
from kvstore.model import Alarm
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import parse_u64
from kvstore.mvcc.state import State
from kvstore.readers import ForeignReader

if TYPE_CHECKING:
    from kvstore.watch import Hub


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A log segment or a snapshot; ``index`` is a segment's first log index, a snapshot's last."""

    name: str
    index: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Status:
    """Facts about a store. Sizes in bytes; ``quota_bytes`` 0: no quota."""

    version: str
    """kvstore's version."""
    data_dir: str
    """The store's directory."""
    backend: str
    """The backend's name."""
    cluster_id: str
    """The id of the store's cluster, which is in all its files."""
    member_id: str
    """The id of this member."""
    name: str
    """The member's name."""
    phase: str
    """The phase of the handle: see ``life.py``."""
    revision: int
    """The newest revision."""
    compact_revision: int
    """The revision below which the past is gone."""
    size_bytes: int
    """The backend's file."""
    in_use_bytes: int
    """What of it holds something."""
    waiting_bytes: int
    """Changes in memory that no checkpoint has moved into the backend yet (the log has them)."""
    quota_bytes: int
    """The size beyond which writes are refused."""
    applied_index: int
    """The last entry whose effects are in the backend."""
    last_index: int
    """The last entry of the log."""
    compaction_debt: int
    """Revisions below the compaction mark whose rows are still to be deleted."""
    wal: tuple[StoredFile, ...]
    """The segments of the log."""
    snapshots: tuple[StoredFile, ...]
    """The snapshots in the directory, oldest first."""
    pending: int
    """Writes that are planned but not durable yet."""
    readers: tuple[ForeignReader, ...]
    """Other processes that have the backend open, and how many commits behind they read."""
    watchers: int
    """How many watches."""
    watch_streams: int
    """How many streams they are on."""
    slow_watchers: int
    """Watches that read the past from the store because they have fallen behind the live events."""
    leases: int
    """How many leases there are."""
    alarms: tuple[str, ...]
    """The alarms that are raised."""
    failure: str
    """What poisoned the store, which then refuses writes until it is reopened. Empty: not poisoned."""
    errors: tuple[str, ...]
    """What is wrong now, a line each."""
    set_aside: tuple[str, ...]
    """Damaged files that an opening or a repair set aside; their replacements are sound."""
    backups: tuple[BackupStatus, ...] = ()
    """Those that go on in this process (``kvstore.backup.follow``)."""
    replica: ReplicaStatus | None = None
    """How far it is behind its source, if it is a replica that is open in this process."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Health:
    """``healthy`` is false if writes are refused or background work fails; ``reasons`` say why."""

    healthy: bool
    """Whether writes are accepted."""
    reasons: tuple[str, ...]
    """Why not."""


def status_of(core: ReadCore, hub: Hub | None) -> Status:
    """What every open store can report; ``LocalEngine.status`` adds what only a store open for writing knows."""
    state, directory, life = core.state, core.directory, core.life
    with core.backend.read() as tx:
        name = Marks.read(tx).name
    return Status(
        version=__version__,
        data_dir=str(directory.root) if directory else "",
        backend=core.backend.name,
        cluster_id=f"{core.cluster_id:016x}",
        member_id=f"{core.member_id:016x}",
        name=name,
        phase=life.phase.value,
        revision=state.published,
        compact_revision=state.compacted,
        size_bytes=core.backend.size_bytes(),
        in_use_bytes=core.backend.in_use_bytes(),
        waiting_bytes=sum(generation.size_bytes for generation in state.generations),
        quota_bytes=core.options.quota_bytes,
        applied_index=state.applied_index,
        last_index=state.index,
        compaction_debt=0,
        wal=_stored(layout.segments(directory.wal)) if directory else (),
        snapshots=_stored(directory.snapshots()) if directory else (),
        pending=0,
        readers=tuple(core.backend.foreign_readers()),
        watchers=hub.watchers if hub is not None else 0,
        watch_streams=hub.streams if hub is not None else 0,
        slow_watchers=hub.slow if hub is not None else 0,
        leases=len(core.lessor.leases),
        alarms=tuple(f"{alarm.alarm} (member {alarm.member_id:016x})" for alarm in alarms_of(state)),
        failure=repr(life.failure) if life.failure is not None else "",
        errors=tuple(life.reasons()),
        set_aside=tuple(path.name for path in directory.set_aside()) if directory else (),
        backups=tuple(ask() for ask in core.backups),
        replica=core.follows[0]() if core.follows else None,
    )


def alarms_of(state: State) -> tuple[Alarm, ...]:
    """The alarms that are raised."""
    return tuple(
        Alarm(parse_u64(key[:8]), key[8:].decode("ascii", "replace")) for key in sorted(state.alarms)
    )


def health_of(state: State, errors: Iterable[str]) -> Health:
    reasons = (*(f"alarm {alarm.alarm}" for alarm in alarms_of(state)), *errors)
    return Health(not reasons, reasons)


def _stored(files: list[layout.NumberedFile]) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(file.path.name, file.index, _size(file.path)) for file in files)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # released just now
        return 0
