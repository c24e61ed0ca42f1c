"""The new data directory: rows of the tables from what was judged to be true, and a log that begins after them.

Built beside the target and put in its place when it is complete and synced (``snapshot/building.py``), as a restore is.
Leases come with the time that the source gives them; a key whose lease was not found has none in the new store, so that
nothing deletes it.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from kvstore import layout
from kvstore.backend import Backend, Row, find_backend
from kvstore.errors import Corruption
from kvstore.files import Disk
from kvstore.keyvalue import decode_row, encode_key_value, make_row, row_numbers
from kvstore.mvcc.hashkv import hash_kv
from kvstore.mvcc.lessor import TTL_MAX_SECONDS, Lease
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import (
    ATTACHMENT,
    CHANGES,
    CREATE,
    DELETE,
    FORMAT_VERSION,
    HISTORY,
    LATEST,
    LEASE,
    META,
    REVISION_END,
    TABLES,
    UPDATE,
    history_key,
    lease_key,
    revision_key,
)
from kvstore.mvcc.state import State
from kvstore.options import BadOption
from kvstore.recognition import leave_mark
from kvstore.salvage.evidence import Evidence, Fact, LeaseFound, Level
from kvstore.salvage.judging import Judgment
from kvstore.scratch import scratch
from kvstore.snapshot.building import building_directory
from kvstore.wal import Log

BATCH_BYTES = 4 << 20
ROW_OVERHEAD_BYTES = 250
MIN_TTL_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Built:
    """What the new store holds, after the log was applied to what was judged."""

    marks: Marks
    levels: dict[bytes, tuple[Level, bool]]
    """Of each live key: its level, and whether a later change of it may be lost."""
    notes: list[str]
    hash_kv: int
    """etcd's HashKV of the new store at its newest revision."""


def build(disk: Disk, target: Path | None, backend: str, evidence: Evidence, found: Judgment) -> Built:
    """Make the data directory; with None, only find out what it would hold, in a temporary place."""
    kind = find_backend(backend)
    if not kind.persistent:
        raise BadOption(f"backend {kind.name} keeps nothing on disk: salvage into lmdb or sqlite")
    if found.revision >= REVISION_END:
        raise Corruption(
            f"the newest revision found is {found.revision}, which no store reaches", evidence.source
        )
    if target is None:
        with (
            scratch(disk, Path(tempfile.gettempdir())) as folder,
            closing(kind.open(folder / "db", TABLES)) as made,
        ):
            return _fill(made, evidence, found)
    with building_directory(disk, target) as directory:
        made = kind.open(directory.db, TABLES)
        try:
            built = _fill(made, evidence, found)
            made.sync()
        finally:
            made.close()
        disk.sync_file(directory.db)
        for path in layout.helpers(directory.db):
            disk.remove(path)
        leave_mark(directory, kind, disk)
        Log.create(
            disk,
            directory.wal,
            built.marks.cluster_id,
            built.marks.member_id,
            first_index=built.marks.applied_index + 1,
            extra=built.marks.name.encode(),
        ).close()
        for folder in (directory.snap, directory.wal, directory.root):
            disk.sync_dir(folder)
    return built


def _fill(backend: Backend, evidence: Evidence, found: Judgment) -> Built:
    """Write what was judged, and apply the log after it, if there is one and nothing before it is missing."""
    freed = _free_of_lost_leases(evidence, found)
    marks = _write(backend, evidence, found)
    may_be_older = bool(evidence.lost_later)
    levels = {fact.key: (fact.level, may_be_older or found.may_be_older(fact)) for fact in found.live()}
    notes = (
        [f"leases of {freed} keys: they are in the new store without one, and nothing deletes them"]
        if freed
        else []
    )
    if evidence.replay is not None and not found.is_complete:
        notes.append("the log after it is not applied: what its entries did depends on what is missing")
        levels = {key: (level, True) for key, (level, _) in levels.items()}
    elif evidence.replay is not None:
        notes += evidence.replay(backend)
    with backend.read() as tx:
        after = Marks.read(tx)
        changed = tx.scan(CHANGES, revision_key(marks.revision + 1, 0)) if notes or evidence.replay else []
        for _, kind_and_key in changed:
            if tx.get(LATEST, kind_and_key[1:]) is None:
                levels.pop(kind_and_key[1:], None)
            else:
                levels[kind_and_key[1:]] = Level.CHECKSUM, may_be_older or len(notes) > bool(freed)
    if not after.applied_index:  # so that the new log is not taken for all of the history
        after = after._replace(applied_index=1)
        with backend.write() as tx:
            tx.put_many(META, after.rows())
    return Built(after, levels, notes, hash_kv(State(backend), after.revision, after.compacted))


def _free_of_lost_leases(evidence: Evidence, found: Judgment) -> int:
    """Take the lease from each live key whose lease was not found. Returns how many there are."""
    known = {0} | {lease.id for lease in evidence.leases}
    freed = 0
    for facts in found.by_key.values():
        key_value = facts[-1].key_value
        if key_value is not None and row_numbers(key_value)[3] not in known:
            facts[-1] = facts[-1]._replace(kept=WithoutLease(facts[-1]))
            freed += 1
    return freed


class WithoutLease(NamedTuple):
    """A fact's row, with no lease."""

    fact: Fact

    def read(self) -> bytes:
        key, create, mod, version, value, _ = decode_row(self.fact.key_value or b"")
        return encode_key_value(key, create, mod, version, value, 0)


def _write(backend: Backend, evidence: Evidence, found: Judgment) -> Marks:
    now_ms = time.time_ns() // 1_000_000
    leases = {lease.id: lease for lease in evidence.leases}
    live = list(found.live())
    _put(backend, LATEST, ((fact.key, _row(fact)) for fact in live))
    _put(backend, HISTORY, _history(found))
    _put(backend, CHANGES, _changes(found))
    _put(backend, LEASE, sorted((lease_key(each.id), _lease(each, now_ms)) for each in leases.values()))
    attached = ((row_numbers(fact.key_value or b"")[3], fact.key) for fact in live)
    attachments = [(lease_key(lease) + key, b"") for lease, key in attached if lease in leases]
    _put(backend, ATTACHMENT, sorted(attachments))
    marks = Marks(
        format=FORMAT_VERSION,
        cluster_id=evidence.cluster_id or random.SystemRandom().getrandbits(63) | 1,
        member_id=evidence.member_id or random.SystemRandom().getrandbits(63) | 1,
        name=evidence.name or "default",
        applied_index=evidence.index,
        revision=found.revision,
        compacted=found.compacted,
        finished=found.compacted,
    )
    _put(backend, META, sorted([*marks.rows(), *evidence.carried]))
    return marks


def _lease(found: LeaseFound, now_ms: int) -> bytes:
    return Lease(found.id, _ttl(found.ttl_seconds), now_ms + 1000 * _ttl(found.left_seconds)).encode()


def _put(backend: Backend, table: str, rows: Iterable[Row]) -> None:
    """Rows that ascend, some at a time."""
    batch: list[Row] = []
    batch_bytes = 0
    for row in rows:
        batch.append(row)
        batch_bytes += len(row[1]) + ROW_OVERHEAD_BYTES
        if batch_bytes >= BATCH_BYTES:
            _append(backend, table, batch)
            batch, batch_bytes = [], 0
    _append(backend, table, batch)


def _append(backend: Backend, table: str, rows: list[Row]) -> None:
    with backend.write() as tx:
        tx.put_many(table, rows, append=True)


def _ttl(seconds: int) -> int:
    return min(max(seconds, MIN_TTL_SECONDS), TTL_MAX_SECONDS)


def _row(fact: Fact) -> bytes:
    key_value = fact.key_value
    if key_value is None:
        raise ValueError("a delete has no row")
    return make_row(key_value, fact.revision[1])


def _history(found: Judgment) -> Iterator[Row]:
    for key in sorted(found.by_key):
        for fact, after in pairwise(found.by_key[key]):
            if not fact.is_delete:
                yield history_key(key, *after.revision), _row(fact)


def _changes(found: Judgment) -> Iterator[Row]:
    kept = (fact for facts in found.by_key.values() for fact in facts if fact.revision[0] > found.compacted)
    for fact in sorted(kept, key=attrgetter("revision")):
        key_value = fact.key_value
        if key_value is None:
            kind = DELETE
        else:
            kind = CREATE if row_numbers(key_value)[2] == 1 else UPDATE
        yield revision_key(*fact.revision), kind + fact.key
