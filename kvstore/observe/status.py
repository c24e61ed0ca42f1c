"""What a store says about itself: ``status`` (facts), ``health`` (is anything wrong).

Everything here is read without locks from what is there at the moment, so that asking costs writers nothing.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import layout
from kvstore.backend import foreign_readers
from kvstore.errors import DiskFull
from kvstore.mvcc.schema import META, META_NAME
from kvstore.readers import ForeignReader

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A log segment or a snapshot: its first, respectively last, log index."""

    name: str
    index: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Status:
    """Facts about a store. Sizes in bytes; ``quota_bytes`` 0: none."""

    version: str
    data_dir: str
    backend: str
    cluster_id: str
    member_id: str
    name: str
    revision: int
    compact_revision: int
    size_bytes: int
    in_use_bytes: int
    waiting_bytes: int
    """Changes in memory that no checkpoint has carried into the backend yet (the log has them)."""
    quota_bytes: int
    applied_index: int
    last_index: int
    compaction_debt: int
    """Revisions below the compaction mark whose rows are still to be deleted."""
    wal: tuple[StoredFile, ...]
    snapshots: tuple[StoredFile, ...]
    pending: int
    """Writes that are planned and not durable yet."""
    readers: tuple[ForeignReader, ...]
    """Other processes that have the backend open, and how far behind they hold on to what was replaced since."""
    watchers: int
    watch_streams: int
    slow_watchers: int
    """Watches that read the past from the store instead of being handed what happens."""
    leases: int
    alarms: tuple[str, ...]
    failure: str
    """What poisoned the store: it refuses writes until it is reopened. Empty: nothing did."""
    errors: tuple[str, ...]
    set_aside: tuple[str, ...]
    """Damaged files that an opening or a repair has set aside; what took their place is whole."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Health:
    """``healthy`` is false where writes are refused or work in the background fails; ``reasons`` say why."""

    healthy: bool
    reasons: tuple[str, ...]


def status_of(engine: LocalEngine) -> Status:
    from kvstore import __version__

    engine.check_readable()
    state, directory = engine.state, engine.directory
    hub = engine.hub
    return Status(
        version=__version__,
        data_dir=str(directory.root) if directory else "",
        backend=engine.backend.name,
        cluster_id=f"{engine.cluster_id:016x}",
        member_id=f"{engine.member_id:016x}",
        name=(engine.backend.get(META, META_NAME) or b"").decode(errors="replace"),
        revision=state.published,
        compact_revision=state.compacted,
        size_bytes=engine.backend.size_bytes(),
        in_use_bytes=engine.backend.in_use_bytes(),
        waiting_bytes=sum(generation.size_bytes for generation in state.generations),
        quota_bytes=engine.options.quota_bytes,
        applied_index=state.applied_index,
        last_index=state.index,
        compaction_debt=engine.compaction.debt_revisions,
        wal=_stored(layout.segments(directory.wal)) if directory else (),
        snapshots=_stored(directory.snapshots()) if directory else (),
        pending=max(state.index - engine.log.last_index, 0) if engine.log is not None else 0,
        readers=tuple(foreign_readers(engine.backend)),
        watchers=hub.watchers if hub is not None else 0,
        watch_streams=hub.streams if hub is not None else 0,
        slow_watchers=hub.slow if hub is not None else 0,
        leases=len(engine.lessor.leases),
        alarms=tuple(f"{alarm.alarm} (member {alarm.member_id:016x})" for alarm in engine.alarms()),
        failure=repr(engine.failure) if engine.failure is not None else "",
        errors=tuple(_errors(engine)),
        set_aside=tuple(path.name for path in directory.set_aside()) if directory else (),
    )


def health_of(engine: LocalEngine) -> Health:
    reasons = [*(f"alarm {alarm.alarm}" for alarm in engine.alarms()), *_errors(engine)]
    return Health(not reasons, tuple(reasons))


def _errors(engine: LocalEngine) -> list[str]:
    found = []
    if engine.failure is not None:
        found.append(f"refuses writes until it is reopened: {engine.failure!r}")
    stalled = engine.writer.stalled
    if stalled is not None:
        is_full = isinstance(stalled, DiskFull)
        found.append("the disk is full: writes wait for room" if is_full else f"writes wait: {stalled}")
    if engine.snapshots.last_error is not None:
        found.append(f"no snapshot was taken: {engine.snapshots.last_error}")
    if engine.snapshots.archive_error is not None:
        found.append(f"the log grows, its segments cannot be archived: {engine.snapshots.archive_error}")
    return [*found, *engine.background.errors]


def _stored(files: list[layout.NumberedFile]) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(file.path.name, file.index, _size(file.path)) for file in files)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # released at this moment
        return 0
