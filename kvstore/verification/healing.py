"""Healing a store that verification found damaged. Nothing is thrown away: what is replaced is set aside.

    the backend is damaged     it is rebuilt from a snapshot and the log after it, or the whole log (snapshot/rescue.py)
    it is ahead of its log     it is sound, and the log ends before it: the log was cut, or entries never reached it.
                               The backend has everything that is left, so it stays; a new log begins after it
                               (wal/restart.py)
    the log is damaged, or     the backend has what the damaged segments held, so they are not needed: they are set
     lacks entries, that a     aside, and the log begins after them
     sound backend holds

A backend that is both ahead and damaged is rebuilt too; what only it held is then lost. A log that is damaged beyond
what the backend holds cannot be healed: what follows the damage would be lost. ``kvstore wal repair`` says how much.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, check_closed
from kvstore.directory import take_lock
from kvstore.errors import Corruption, NotAStore, OpenError, TooNew, WrongStore
from kvstore.files import Disk, OSDisk, disk_full_is_typed
from kvstore.held import HeldDisk
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import FORMAT_VERSION, TABLES
from kvstore.options import Options
from kvstore.snapshot import rescue
from kvstore.verification.log import check_log
from kvstore.verification.report import DAMAGE, Collector
from kvstore.verification.run import kind_of
from kvstore.verification.small import newer_format, read_marks
from kvstore.verification.snapshots import check_tables
from kvstore.wal import restart
from kvstore.wal.replay import Replay


@dataclass(frozen=True, slots=True)
class Healed:
    """What was done."""

    what: str
    """One sentence, with what it cost."""
    aside: tuple[Path, ...]
    """The files that were replaced, at their new place."""


@disk_full_is_typed()
def heal(
    data_dir: str | os.PathLike[str], *, options: Options | None = None, disk: Disk | None = None
) -> Healed:
    """Heal a damaged backend, or a log that ends before its backend; the next opening replays the log.

    The store must not be open. With nothing changed raises ``Corruption`` if what is left does not suffice, and
    ``TooNew`` for the store of a newer version, which is not damaged.
    """
    options = options or Options()
    directory = DataDir.at(data_dir, options.wal_dir or None)
    if not directory.snap.is_dir():
        raise NotAStore(f"{directory.root} is not a store", directory.root)
    lock = take_lock(directory)
    try:
        kind, held = kind_of(directory, options), HeldDisk(disk or OSDisk(), directory)
        if not kind.persistent:
            raise OpenError(
                f"{directory.root} is a store on {kind.name}, which has no file to heal", directory.root
            )
        log, marks = check_log(directory.wal, Collector(), is_live=False), _marks_if_sound(directory, kind)
        if log is not None and marks is not None:
            if marks.cluster_id != log.cluster_id:
                raise WrongStore(
                    f"the log of cluster {log.cluster_id:016x} lies beside a backend of {marks.cluster_id:016x}",
                    directory.wal,
                )
            if log.is_sound and marks.applied_index > log.last_index:
                return _begin_log_anew(held, directory, marks, log.last_index)
            if not log.is_sound and (unneeded := _unneeded(directory, marks.applied_index)):
                return _set_aside(held, unneeded, marks)
        base = rescue.newest_usable(directory, kind)
        if marks is not None and log is not None and not log.is_sound and base is None:
            raise _behind(directory, marks)
        damage = Corruption("the backend cannot be rebuilt: neither snapshots nor log suffice", directory.db)
        rescue.replace_backend(directory, kind, held, damage)
        aside = _unneeded(directory, base.index) if base is not None else []
        restart.set_aside(held, aside)
    finally:
        lock.release()
    return Healed(
        f"the backend is rebuilt; the damaged one is now {directory.db_broken}",
        (directory.db_broken, *map(_aside, aside)),
    )


def _behind(directory: DataDir, marks: Marks) -> Corruption:
    return Corruption(
        f"the backend is whole up to entry {marks.applied_index}, the log is damaged behind that, and no snapshot "
        "helps: kvstore wal repair says what can be put right, and what is lost",
        directory.wal,
        last_good_revision=marks.revision,
    )


def _marks_if_sound(directory: DataDir, kind: type[Backend]) -> Marks | None:
    """The marks of the backend, if it is intact."""
    if not (directory.db.is_file() and directory.db.stat().st_size):
        return None
    try:
        check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
    except DAMAGE:
        return None
    try:
        with backend.read() as tx:
            marks = read_marks(tx)
            if newer := newer_format(tx):
                raise TooNew(
                    f"{directory.db} has format {newer}; this version reads {FORMAT_VERSION}", directory.db
                )
        found = Collector()
        backend.check()
        check_tables(backend, found)
        return None if found.total else marks
    except DAMAGE:
        return None
    finally:
        backend.close()


def _unneeded(directory: DataDir, applied_index: int) -> list[Path]:
    """The segments up to the last damage, or the last gap, if the backend has everything that they held."""
    segments = layout.segments(directory.wal)
    places = {str(file.path): at for at, file in enumerate(segments)}
    begin = 0
    while begin < len(segments):
        rest = segments[begin:]
        try:
            for _ in Replay(None, directory.wal, rest[0].index - 1, None, rest).batches():
                pass
        except Corruption as damage:
            begin = max(places.get(damage.path, 0), begin + 1)
            continue
        is_held = rest[0].index <= applied_index + 1
        return [file.path for file in segments[:begin]] if is_held else []
    return []


def _aside(segment: Path) -> Path:
    return Path(str(segment) + layout.BROKEN_SUFFIX)


def _set_aside(disk: Disk, segments: list[Path], marks: Marks) -> Healed:
    restart.set_aside(disk, segments)
    return Healed(
        f"{len(segments)} segments of the log, damaged or with entries missing, are set aside: nothing is lost, for "
        f"backend has all they held (it has entries up to {marks.applied_index}). What was before cannot be restored "
        "from them any more: take a snapshot now",
        tuple(map(_aside, segments)),
    )


def _begin_log_anew(disk: Disk, directory: DataDir, marks: Marks, last_index: int) -> Healed:
    old = tuple(_aside(file.path) for file in layout.segments(directory.wal))
    restart.begin_anew(disk, directory.wal, marks.applied_index, marks.cluster_id, marks.member_id)
    return Healed(
        f"the log ended with entry {last_index}; a new one begins after entry {marks.applied_index}, up to which the "
        f"backend has everything (revision {marks.revision}), so nothing is lost. Older snapshots and archives "
        "cannot be continued with the new log: take a snapshot now",
        old,
    )
