"""Importing: a data directory of ours from an etcd snapshot or a stopped etcd's data directory.

    database --view--> rows of our tables, table by table in key order --> new backend
    log      --replay--> entries that the database does not hold yet --> the same backend

It is built beside the target, or inside an empty one (``snapshot/building.py``), and put in place when it is complete
and synced. Every kept revision, the numbers of every version, leases with the time they have left, and the store's
identity are imported. Log indexes continue where etcd's ended. The copy is compared with the source by HashKV at its
newest revision.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend, Progress, Row, find_backend
from kvstore.errors import Corruption, DiskFull
from kvstore.files import Disk, OSDisk, free_bytes
from kvstore.foreign import Imported, ImportOptions
from kvstore.layout import DataDir
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    ALARM,
    ATTACHMENT,
    CHANGES,
    FORMAT_VERSION,
    HISTORY,
    LATEST,
    LEASE,
    META,
    META_APPLIED_INDEX,
    TABLES,
    pack_u64,
)
from kvstore.mvcc.state import State
from kvstore.options import BadOption
from kvstore.replay import CHECKPOINT_BYTES
from kvstore.snapshot.building import building_directory, check_target
from kvstore.snapshot.transfer import copy_rows
from kvstore.wal import Log

from . import rows
from .bbolt_check import check_freelist
from .beside_keys import carried_bucket, identity
from .data_dir import EtcdDataDir
from .data_dir_store import open_view
from .etcd_file import EtcdFile
from .log_replay import LogReplay
from .snapshot_format import check_file
from .view import EtcdView

NOSPACE = b"NOSPACE"
REVISION_MAX = 1 << 62
"""No etcd has come this far. Beyond it a store could not count its revisions for much longer."""

FIRST_INDEX = 1
"""The log index of a file without one: a log that begins with entry 1 would be taken for all of the history."""


class _Source:
    """What is imported: a view of the database, the log entries after it, and the identity of the store."""

    def __init__(
        self, path: Path, view: Backend, directory: EtcdDataDir | None, ids: tuple[int, int], name: str
    ) -> None:
        self.path = path
        self.view = view
        self.directory = directory
        """The data directory, if there is a log."""
        self.cluster_id, self.member_id = ids
        self.name = name


@contextmanager
def _open_source(path: Path, options: ImportOptions, now_ms: int) -> Iterator[_Source]:
    if path.is_dir():
        with EtcdDataDir(path, options.wal_dir or None) as directory:
            if directory.file is not None:
                _check_freelist(directory.file)
            view = open_view(directory, now_ms)
            ids = directory.cluster_id, directory.node_id
            yield _Source(path, view, directory, ids, "")
        return
    with EtcdFile(path) as file:
        if options.skip_hash_check:
            _check_freelist(file)
        else:
            _check_hash(file)
        cluster_id, member_id, name = identity(file)
        yield _Source(path, EtcdView(file, now_ms), None, (cluster_id, member_id), name)


def _check_hash(file: EtcdFile) -> None:
    if file.file.trailer is None:
        raise Corruption(
            "the snapshot has no SHA-256 at its end: it was cut short, or is a database file of a data directory "
            "(then import the directory, or skip the hash check)",
            file.path,
            file.file.file_bytes,
        )
    check_file(file)


def _check_freelist(file: EtcdFile) -> None:
    """Check the freelist. No checksum covers it and no row needs it, but etcd does not start with a damaged one, and it
    is a sign of more damage."""
    for damage in check_freelist(file.file):
        told = f"{damage.reason}: etcd would stop or overwrite pages in use. The keys are readable: kvstore inspect"
        raise Corruption(told, damage.path, damage.offset)


def import_store(
    source: Path,
    data_dir: Path,
    options: ImportOptions,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Imported:
    """Import a store. Raises ``NotAStore``, ``Corruption``, ``StoreLocked`` (a server runs on it), ``WrongStore`` (the
    target exists), ``DiskFull``."""
    disk = disk or OSDisk()
    kind = find_backend(options.backend)
    if not kind.persistent:
        raise BadOption(f"backend {kind.name} keeps nothing on disk: import into lmdb or sqlite")
    target = Path(os.path.abspath(data_dir))
    check_target(target)
    now_ms = time.time_ns() // 1_000_000
    with (
        _open_source(Path(source), options, now_ms) as found,
        building_directory(disk, target) as directory,
    ):
        _check_room(found, directory)
        backend = kind.open(directory.db, TABLES)
        try:
            imported = _Import(found, backend, options, now_ms, progress).run(target)
        finally:
            backend.close()
        for path in layout.helpers(directory.db):
            disk.remove(path)
        _finish(disk, directory, imported, found)
    return imported


def _check_room(source: _Source, directory: DataDir) -> None:
    needed, free = source.view.in_use_bytes(), free_bytes(directory.root)
    if free < needed:
        raise DiskFull(f"{source.path} needs about {needed} bytes; {directory.root} has room for {free}")


def _finish(disk: Disk, directory: DataDir, imported: Imported, source: _Source) -> None:
    """Begin a log after etcd's last entry, and make everything durable."""
    disk.sync_file(directory.db)
    Log.create(
        disk,
        directory.wal,
        imported.cluster_id,
        imported.member_id,
        first_index=imported.counts["log index"] + 1,
        extra=source.name.encode("utf-8", "replace"),
    ).close()
    for folder in (directory.snap, directory.wal, directory.root):
        disk.sync_dir(folder)


class _Import:
    """One import under way."""

    def __init__(
        self,
        source: _Source,
        backend: Backend,
        options: ImportOptions,
        now_ms: int,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._backend = backend
        self._options = options
        self._now_ms = now_ms
        self._progress = progress or (lambda done, total: None)
        self._notes: list[str] = []

    def run(self, target: Path) -> Imported:
        view = self._source.view
        if isinstance(view, EtcdView):
            view.index(lambda done, total: self._progress(done, 2 * total))
        copy_rows(view, self._backend, lambda done, total: self._progress(total + done, 2 * total))
        state = State(self._backend)
        self._verify(state)
        self._replay(state)
        ids = self._write_identity(state)
        if self._options.skip_hash_check and self._source.directory is None:
            self._notes.append("NO HASH WAS CHECKED: damage inside a value would not have been noticed")
        self._backend.sync()
        return Imported(
            data_dir=target,
            backend=self._backend.name,
            revision=state.head,
            compact_revision=state.head_compacted,
            cluster_id=ids[0],
            member_id=ids[1],
            counts=self._counts() | {"log index": state.index or FIRST_INDEX},
            notes=tuple(self._notes),
        )

    def _verify(self, state: State) -> None:
        """Compare the HashKV of the copy with the source's."""
        if state.head > REVISION_MAX:
            reason = (
                f"the newest revision is {state.head}, and {REVISION_MAX} is the last that can be imported"
            )
            raise Corruption(reason, self._source.path)
        view = self._source.view
        if not isinstance(view, EtcdView):
            return
        if view.index().marks:
            self._notes.append(
                "the snapshot was restored with a bumped revision: HashKV will differ from etcd's"
            )
            return
        revision = state.head
        if hash_kv(state, revision, state.head_compacted) != view.file.hash_kv(revision).hash:
            raise Corruption(f"HashKV at revision {revision} is not the source's", self._source.path)

    def _replay(self, state: State) -> None:
        directory = self._source.directory
        if directory is None:
            return
        replay = LogReplay(state, Lessor.loaded(self._backend), self._now_ms)
        replay.recover_members(directory)
        for entry in directory.pending():
            replay.apply(entry)
            if state.waiting_bytes > CHECKPOINT_BYTES:
                write_now(state, self._now_ms)
        write_now(state, self._now_ms)
        self._notes += directory.notes + replay.notes

    def _write_identity(self, state: State) -> tuple[int, int]:
        source, options = self._source, self._options
        ids = options.cluster_id or source.cluster_id or 1, options.member_id or source.member_id or 1
        with self._backend.write() as tx:
            members = carried_bucket(rows.MEMBERS, tx.scan(META))
            source.name = _name_of(ids[1], members, source.path) or source.name
            marks = Marks(format=FORMAT_VERSION, cluster_id=ids[0], member_id=ids[1], name=source.name)
            tx.put_many(META, marks.identity())
            if not state.index:
                tx.put_many(META, [(META_APPLIED_INDEX, pack_u64(FIRST_INDEX))])
            full = [key for key, _ in tx.scan(ALARM) if key[8:] == NOSPACE]
            tx.delete_many(ALARM, full)
        if full:
            self._notes.append("the alarm NOSPACE is not imported: it was about the space that etcd had")
        return ids

    def _counts(self) -> dict[str, int]:
        with self._backend.read() as tx:
            meta = tx.scan(META)
            counts = {
                "keys": tx.count(LATEST),
                "versions": tx.count(LATEST) + tx.count(HISTORY),
                "changes": tx.count(CHANGES),
                "leases": tx.count(LEASE),
                "leased keys": tx.count(ATTACHMENT),
            }
        names = {"members": rows.MEMBERS, "users": rows.AUTH_USERS, "roles": rows.AUTH_ROLES}
        return counts | {what: len(carried_bucket(bucket, meta)) for what, bucket in names.items()}


def _name_of(member_id: int, members: list[Row], path: Path) -> str:
    try:
        found = [rows.decode_member(value) for _, value in members]
    except rows.RowError as error:
        raise Corruption(f"bucket members: {error}", path) from None
    return next((member.name for member in found if member.id == member_id), "")
