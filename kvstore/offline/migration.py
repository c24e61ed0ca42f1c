"""Migrations: from one format of our own files to the next, and back.

A format is the number under ``meta/format`` in the backend. A step is a module of ``migrations/``, an entry point in
the group ``kvstore.migrations``, that knows how rows change between two neighbouring formats:

    format 1 --step.up--> format 2 --step.up--> format 3
             <--down-----           <--down-----

A step and the new number go into the backend in ONE transaction: after a crash the store has either the old format or
the new one, and running the migration again continues from there. Only a store that was closed cleanly, whose log holds
nothing that the backend lacks, is migrated: only the version that wrote log entries understands them.

    in place        the backend itself is changed
    out of place    a copy in a new data directory is changed, and compared with the original by HashKV

There are four refusals: ``NotAStore``, ``TooOld`` (no step leads on from its format), ``TooNew``, ``Corruption``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvstore import layout, plugins
from kvstore.backend import Backend, ReadTx, WriteTx, recognize_backend
from kvstore.directory import refuse_links, take_lock
from kvstore.errors import Corruption, DiskFull, NotAStore, OpenError, TooNew, TooOld
from kvstore.files import Disk, OSDisk, disk_full_is_typed, free_bytes
from kvstore.layout import DataDir
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    FORMAT_VERSION,
    META,
    META_FORMAT,
    TABLES,
    pack_u64,
)
from kvstore.mvcc.state import State
from kvstore.snapshot.building import building_directory, check_target
from kvstore.wal import Log


class Migration(Protocol):
    """A step between two neighbouring formats."""

    older: int
    newer: int
    summary: str
    """What changes, in one sentence."""

    def up(self, tx: WriteTx) -> None:
        """Change rows of format ``older`` to format ``newer``."""

    def down(self, tx: WriteTx) -> None:
        """The reverse. Raises ``OpenError`` if the older format cannot express what is there."""

    def hash_kv(self, tx: ReadTx) -> int:
        """HashKV at the newest revision of a store in format ``older``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps from the format found to the format wanted, in order."""

    data_dir: Path
    backend: str
    found: int
    wanted: int
    steps: tuple[Migration, ...]
    wal_dir: str = ""
    """The log directory; empty: inside the data directory."""


def installed_steps() -> list[Migration]:
    return [step() for step in plugins.each(plugins.MIGRATIONS)]


@disk_full_is_typed()
def plan(
    data_dir: str | os.PathLike[str],
    wanted: int = FORMAT_VERSION,
    steps: Sequence[Migration] | None = None,
    *,
    wal_dir: str | os.PathLike[str] = "",
) -> Plan:
    """What would be done; changes nothing. Raises ``NotAStore``, ``TooOld``, ``TooNew``, ``Corruption``."""
    directory = DataDir.at(data_dir, wal_dir)
    refuse_links(directory)
    kind = _kind_of(directory)
    backend = kind.open(directory.db, TABLES, read_only=True)
    try:
        found = _format_of(backend, directory.db)
    finally:
        backend.close()
    known = installed_steps() if steps is None else steps
    path = _path(found, wanted, known, directory.db)
    held = os.path.abspath(wal_dir) if wal_dir else ""
    return Plan(Path(os.path.abspath(data_dir)), kind.name, found, wanted, path, held)


@disk_full_is_typed()
def migrate(
    planned: Plan, *, into: str | os.PathLike[str] | None = None, disk: Disk | None = None
) -> list[Migration]:
    """Carry out a plan, in place or ``into`` a new data directory. Returns the steps that were done."""
    disk = disk or OSDisk()
    directory = DataDir.at(planned.data_dir, planned.wal_dir)
    lock = take_lock(directory)
    try:
        _check_closed(disk, directory)
        if into is None:
            _run(directory, planned.steps, planned.wanted)
        else:
            _run_out_of_place(disk, directory, Path(os.path.abspath(into)), planned)
    finally:
        lock.release()
    return list(planned.steps)


def _kind_of(directory: DataDir) -> type[Backend]:
    if not directory.db.is_file():
        raise NotAStore(f"{directory.root} holds no store", directory.root)
    kind = recognize_backend(directory.db)
    if kind is None:
        raise NotAStore(f"{directory.db} is not a file of any installed backend", directory.db)
    if not kind.persistent:
        raise NotAStore(
            f"{directory.root} is a store on {kind.name}, which has no file to migrate", directory.root
        )
    return kind


def _format_of(backend: Backend, path: Path) -> int:
    with backend.read() as tx:
        found = Marks.read(tx).format
    if found is None:
        raise Corruption("the format mark is missing from the backend", path)
    return found


def _path(found: int, wanted: int, steps: Iterable[Migration], path: Path) -> tuple[Migration, ...]:
    """The steps from one format to another."""
    ups = {step.older: step for step in steps}
    downs = {step.newer: step for step in ups.values()}
    chosen: list[Migration] = []
    at = found
    while at != wanted:
        step = ups.get(at) if at < wanted else downs.get(at)
        if step is None:
            reason = f"{path} has format {found}; no migration leads from format {at} to {wanted}"
            raise TooOld(reason, path) if found < wanted else TooNew(reason, path)
        chosen.append(step)
        at = step.newer if at < wanted else step.older
    return tuple(chosen)


def _check_closed(disk: Disk, directory: DataDir) -> None:
    """Refuse a store whose log holds entries that the backend lacks."""
    backend = _kind_of(directory).open(directory.db, TABLES, read_only=True)
    try:
        with backend.read() as tx:
            applied = Marks.read(tx).applied_index
    finally:
        backend.close()
    if not layout.segments(directory.wal):
        raise OpenError(f"{directory.wal} holds no log; if it is elsewhere, set the option wal_dir")
    log = Log.open(disk, directory.wal, after_index=applied, read_only=True)
    try:
        pending = sum(len(batch.entries) for batch in log.replay())
    finally:
        log.close()
    if pending:
        raise OpenError(
            f"{directory.root} was not closed cleanly, {pending} entries are in its log alone: "
            "open and close it with the version that wrote it",
            directory.root,
        )


def _run(directory: DataDir, steps: Sequence[Migration], wanted: int) -> None:
    """Run each step in one transaction with its new format mark."""
    backend = _kind_of(directory).open(directory.db, TABLES)
    try:
        for step in steps:
            with backend.write() as tx:
                is_up = Marks.read(tx).format == step.older
                (step.up if is_up else step.down)(tx)
                tx.put_many(META, [(META_FORMAT, pack_u64(step.newer if is_up else step.older))])
        backend.sync()
    finally:
        backend.close()


def _run_out_of_place(disk: Disk, directory: DataDir, target: Path, planned: Plan) -> None:
    """Change and verify a copy of the store; the original stays as it is."""
    check_target(target)
    kind = _kind_of(directory)
    with building_directory(disk, target) as copy:
        source = kind.open(directory.db, TABLES, read_only=True)
        try:
            needed, free = source.in_use_bytes(), free_bytes(copy.root)
            if free < needed:
                raise DiskFull(f"the copy needs about {needed} bytes; {copy.root} has room for {free}")
            expected = _fingerprint(source, planned.found, planned.steps)
            source.copy_to(copy.db)
        finally:
            source.close()
        _run(copy, planned.steps, planned.wanted)
        _verify(copy, kind, planned, expected)
        disk.sync_file(copy.db)
        _copy_log(disk, directory, copy)
        for folder in (copy.snap, copy.wal, copy.root):
            disk.sync_dir(folder)


def _verify(copy: DataDir, kind: type[Backend], planned: Plan, expected: int) -> None:
    changed = kind.open(copy.db, TABLES, read_only=True)
    try:
        found = _fingerprint(changed, planned.wanted, planned.steps)
    finally:
        changed.close()
    if found != expected:
        raise Corruption(f"HashKV is {found} after the migration, {expected} before", copy.db)


def _fingerprint(backend: Backend, version: int, steps: Sequence[Migration]) -> int:
    """HashKV at the newest revision of a store in any of the formats on the way."""
    if version == FORMAT_VERSION:
        state = State(backend)
        return hash_kv(state, state.head, state.head_compacted)
    for step in steps:
        if step.older == version:
            with backend.read() as tx:
                return step.hash_kv(tx)
    raise TooNew(f"no migration knows how to hash format {version}")


def _copy_log(disk: Disk, directory: DataDir, copy: DataDir) -> None:
    """Copy the segments as they are: a log that continues from the same index."""
    for segment in layout.segments(directory.wal):
        file = disk.create(copy.wal / segment.path.name)
        try:
            with open(segment.path, "rb") as original:
                offset = 0
                while chunk := original.read(1 << 20):
                    file.pwrite(chunk, offset)
                    offset += len(chunk)
            file.sync()
        finally:
            file.close()
