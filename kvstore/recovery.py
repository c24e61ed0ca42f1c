"""Opening a store: recovery is the ordinary path.

    1  take the lock, find out what is in the directory, remove what an interrupted run left half made
    2  open the backend: it is at some applied index A, whole (a missing one is created, with A = 0; a damaged one is
       set aside and replaced from the newest good snapshot, see ``snapshot.rescue``). A backend that is not where it
       was written may be a copy of files in use, and is checked first (``store_lock``). A small one of a store that
       was not closed is checked before it is mapped, because mapping a damaged one could end the process
    3  replay the log after A (replay.py); when that fills the memory allowed for it, checkpoint in between
    4  everything replayed is durable, so it is published

A clean close leaves nothing to replay. After a crash there is at most the work of the last few checkpoints.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kvstore import layout
from kvstore.backend import Backend, check_closed, find_backend
from kvstore.clock import Clock
from kvstore.core import Core, untimed
from kvstore.directory import check_backend, check_format, make_directories
from kvstore.errors import (
    Corruption,
    NotAStore,
    OpenError,
    SpaceError,
    StoreLocked,
    WrongStore,
)
from kvstore.files import Disk, OSDisk, disk_full_is_typed, hand_over_all
from kvstore.held import HeldDisk
from kvstore.layout import DataDir
from kvstore.life import Life, Phase
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    FORMAT_VERSION,
    META,
    REVISION_END,
    TABLES,
)
from kvstore.mvcc.state import State
from kvstore.options import BadOption, Options
from kvstore.read_only import open_read_only
from kvstore.reads import ReadEngine
from kvstore.recognition import leave_mark
from kvstore.replay import replay
from kvstore.store_lock import Said, StoreLock, place_of
from kvstore.wal import Log, LogOptions

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

logger = logging.getLogger("kvstore")


FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.002, 0.032
"""Between two attempts to lock a store that is in use. A lock that waited in the kernel could not be given up."""

OpenedEngine: TypeAlias = "LocalEngine | ReadEngine"


def open_engine(
    data_dir: str | os.PathLike[str],
    options: Options,
    disk: Disk | None = None,
    check: Callable[[], None] | None = None,
    make: Callable[[Core], LocalEngine] | None = None,
) -> OpenedEngine:
    """Open the store in ``data_dir``, creating it if the directory is absent or empty.

    Waits up to ``lock_timeout_seconds`` for another process that has it open; ``check`` is called meanwhile, and may
    raise to give up. ``make`` makes another kind of engine than the usual one: a replica's.
    """
    directory = DataDir.at(data_dir, options.wal_dir or None)
    deadline = time.monotonic() + options.lock_timeout_seconds
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        try:
            with disk_full_is_typed():
                return _open_engine(directory, options, disk or OSDisk(), make)
        except StoreLocked:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise
        if check is not None:
            check()
        time.sleep(min(pause_seconds, left_seconds))
        pause_seconds = min(2 * pause_seconds, LAST_PAUSE_SECONDS)


def _open_engine(
    directory: DataDir,
    options: Options,
    disk: Disk,
    make: Callable[[Core], LocalEngine] | None,
) -> OpenedEngine:
    _check_archive(directory, options)
    if options.read_only:
        return open_read_only(directory, options, measured(disk, options))
    if make is None and directory.replica_mark.exists():
        raise WrongStore(
            f"{directory.root} is a replica of another store: open it with read_only=True, or have it promoted first "
            f"(`kvstore replica promote {directory.root}`)",
            directory.root,
        )
    make_directories(directory, disk)
    disk = measured(HeldDisk(disk, directory), options)
    lock = StoreLock(directory)
    opened = ExitStack()  # if one of them fails to close, the others are still closed
    opened.callback(lock.release)
    try:
        lock.acquire()
        for path in (*layout.temporaries(directory.snap), *layout.temporaries(directory.wal)):
            disk.remove(path)
        has_backend = directory.db.exists()
        has_log = bool(layout.segments(directory.wal))
        is_new = not has_backend and not has_log and not directory.snapshots()
        if is_new:  # the log comes first: a half-made backend beside a log is replaced
            log = _make_log(directory, options, disk, options.cluster_id, options.member_id)
            opened.callback(log.close)
        state = _open_state(directory, options, disk, lock.before, has_log)
        opened.callback(state.backend.close)
        if not has_backend:  # its name must be durable before the log releases what the backend holds
            disk.sync_dir(directory.snap)
        if not is_new:
            log = _open_log(directory, options, disk, state, has_log)
            opened.callback(log.close)
        engine = _recover(directory, options, disk, lock, log, state, make or local_engine)
        lock.note_open()
        for folder in (directory.snap, directory.wal):  # files that backends have made themselves
            hand_over_all(folder)
    except BaseException:
        opened.close()
        raise
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return engine


def measured(disk: Disk, options: Options) -> Disk:
    """The disk; one that measures, if the options ask for it."""
    if not options.metrics:
        return disk
    from kvstore.observe.measuring import MeasuredDisk

    return MeasuredDisk(disk)


def _check_archive(directory: DataDir, options: Options) -> None:
    """Raises ``BadOption`` if ``archive_dir`` is a folder of a store."""
    archive = options.archive_dir
    if not archive:
        return
    place = Path(os.path.realpath(archive))
    if place in (directory.root, directory.snap, Path(os.path.realpath(directory.wal))):
        raise BadOption(
            f"archive_dir must not be a folder of the store itself: {archive}; choose another place"
        )
    if layout.is_in_a_store(place):
        raise BadOption(f"archive_dir must not be a folder of another store: {archive}; choose another place")


# --- backend ---------------------------------------------------------------------------


def _open_state(directory: DataDir, options: Options, disk: Disk, said: Said, has_log: bool) -> State:
    """The state at the backend's applied index; from a snapshot or the whole log if the backend is lost."""
    from kvstore.snapshot import rescue  # which a handle for reading only does without

    kind = find_backend(options.backend)
    check_backend(directory, kind)
    if not kind.persistent:
        state = _load_state(directory, kind, rescue.memory_file(directory, kind), has_log)
        leave_mark(directory, kind, disk)
        return state
    if missing := rescue.check_missing(directory):
        rescue.replace_backend(directory, kind, disk, missing)
    try:
        return _load_known(directory, kind, said, has_log)
    except (Corruption, NotAStore) as damage:
        rescue.replace_backend(directory, kind, disk, damage)
        return _load_state(directory, kind, directory.db, has_log)


def _load_known(directory: DataDir, kind: type[Backend], said: Said, has_log: bool) -> State:
    """The state of a backend that is known to be what was written here, or has been checked."""
    if not (has_log and directory.db.exists() and directory.db.stat().st_size):
        return _load_state(directory, kind, directory.db, has_log)
    from kvstore.verification.copied import check_copied, is_closed

    check_backend(directory, kind)
    is_here = said.place == place_of(directory)
    if not said.is_known(directory):
        check_copied(directory, kind)
        return _load_state(directory, kind, directory.db, has_log)
    state = _load_state(directory, kind, directory.db, has_log)
    if is_here or is_closed(directory, state.backend, said.closed):
        return state
    state.backend.close()
    check_copied(directory, kind)
    return _load_state(directory, kind, directory.db, has_log)


def _load_state(directory: DataDir, kind: type[Backend], path: Path, has_log: bool) -> State:
    has_content = directory.db.exists() and directory.db.stat().st_size
    if has_content and has_log and not Log.was_closed(directory.wal):
        check_closed(kind, path, only_small=True)
    backend = kind.open(path, TABLES)
    try:
        return State(backend, marks=check_format(backend, path))
    except BaseException:
        backend.close()
        raise


def _check_cluster(cluster_id: int, options: Options) -> None:
    if options.cluster_id and cluster_id and options.cluster_id != cluster_id:
        raise WrongStore(f"the store has cluster id {cluster_id:016x}, not {options.cluster_id:016x}")


# --- log -------------------------------------------------------------------------------


def _log_options(options: Options) -> LogOptions:
    return LogOptions(
        wal_file_size_bytes=options.wal_file_size,
        wal_buffer_size_bytes=options.wal_buffer_size,
        durability=options.durability,  # type: ignore[arg-type]  # Options has checked the literal
    )


def _make_log(directory: DataDir, options: Options, disk: Disk, cluster_id: int, member_id: int) -> Log:
    return Log.create(
        disk,
        directory.wal,
        cluster_id or options.cluster_id or random.getrandbits(63) + 1,
        member_id or options.member_id or random.getrandbits(63) + 1,
        extra=options.name.encode(),
        options=_log_options(options),
    )


def _open_log(directory: DataDir, options: Options, disk: Disk, state: State, has_log: bool) -> Log:
    """The log beside a backend; a new one if the backend holds nothing."""
    if has_log:
        mark, settings = state.marks.log_mark, _log_options(options)
        try:
            return Log.open(disk, directory.wal, after_index=state.applied_index, mark=mark, options=settings)
        except Corruption as damage:
            raise Corruption(damage.reason, damage.path, damage.offset, state.head) from damage
    if state.applied_index:
        raise Corruption(
            f"the log is gone, but the backend has {state.applied_index} entries of it "
            "(if it is elsewhere, set the option wal_dir)",
            directory.wal,
            last_good_revision=state.head,
        )
    _check_cluster(state.marks.cluster_id, options)
    return _make_log(directory, options, disk, state.marks.cluster_id, state.marks.member_id)


def _recover(
    directory: DataDir,
    options: Options,
    disk: Disk,
    lock: StoreLock,
    log: Log,
    state: State,
    make: Callable[[Core], LocalEngine],
) -> LocalEngine:
    cluster_id, member_id = log.metadata.cluster_id, log.metadata.member_id
    known = state.marks.cluster_id
    _check_cluster(known, options)
    if known and known != cluster_id:
        raise WrongStore(
            f"the log of cluster {cluster_id:016x} lies beside a backend of {known:016x}", directory.wal
        )
    _check_cluster(cluster_id, options)
    if not known:
        _write_identity(state, cluster_id, member_id, options.name)
    lessor = Lessor.loaded(state.backend)
    last_record_ms = 0 if log.is_ready else replay(log, state, lessor, options.overlay_limit)
    if log.synced_index < state.index and options.durability == "always":
        raise OpenError("the log was replayed, but is not durable")
    core = Core(
        options=options,
        disk=disk,
        directory=directory,
        lock=lock,
        log=log,
        state=state,
        lessor=lessor,
        cluster_id=cluster_id,
        member_id=member_id,
        clock=Clock(options.clock),
        life=Life(),
        timed=timed(disk),
    )
    engine = make(core)
    if options.lease_restart_policy == "pause":
        from kvstore.upkeep.leasing import last_alive_ms

        engine.leasing.resume(last_alive_ms(core, last_record_ms))
    elif options.lease_restart_policy == "renew":
        engine.leasing.renew()
    with suppress(SpaceError):  # then they live longer
        engine.leasing.clamp()
    if state.head >= REVISION_END:
        core.life.move(Phase.EXHAUSTED)
    return engine


def timed(disk: Disk) -> Callable[[str], AbstractContextManager[None]]:
    """What times background work: the metrics, if the disk measures."""
    measured = getattr(disk, "measured", None)
    return untimed if measured is None else measured.time


def local_engine(core: Core) -> LocalEngine:
    """The engine over a core; one that measures, if the options ask for it."""
    if not core.options.metrics:
        from kvstore.engine import LocalEngine  # which a handle for reading only does without

        return LocalEngine(core)
    from kvstore.observe.measuring import MeasuredEngine

    return MeasuredEngine(core)


def _write_identity(state: State, cluster_id: int, member_id: int, name: str) -> None:
    marks = Marks(format=FORMAT_VERSION, cluster_id=cluster_id, member_id=member_id, name=name)
    with state.backend.write() as tx:
        tx.put_many(META, marks.identity())
