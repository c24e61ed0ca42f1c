"""Moving out: a bbolt file, SHA-256 at its end, that ``etcdctl snapshot restore`` takes as one of its own.

    latest, history --rows that lived at the compaction--> sorted by revision (in runs on disk) --+
    changes         --rows after the compaction, already in order---------------------------------+--> bucket key
    lease, carried rows of meta ----------------------------------------------------------------------> the others

etcd keeps no row below its compaction but the newest of each key that lived then; above it, everything. Tombstones
have keys of 18 bytes. One at exactly the compaction is left out: only later versions of etcd keep it, none hashes it.

Both compaction marks say that nothing is left to do. ``term`` and ``confState`` are there as 3.5 wants them to find
out what schema the file has; ``snapshot restore`` replaces members, indexes and term anyhow.
"""

from __future__ import annotations

import heapq
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from kvstore.backend import Progress, Row
from kvstore.engine import LocalEngine
from kvstore.errors import DiskFull
from kvstore.files import free_bytes
from kvstore.foreign import Exported
from kvstore.keyvalue import encode_key_value, row_mod_revision, split_row
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.schema import META
from kvstore.mvcc.state import State
from kvstore.store import Store

from . import rows
from .bbolt_write import write_bbolt
from .beside_keys import CARRIED_BUCKETS, carried_bucket
from .rows import Lease, encode_lease, encode_revision, encode_u64

PAGE_ROWS = 2000
RUN_BYTES = 32 << 20
ROW_OVERHEAD_BYTES = 200
_REPORT_EVERY_ROWS = 1 << 13
_LENGTHS = struct.Struct("<II")


def export_store(store: Store, path: Path, progress: Progress | None = None) -> Exported:
    """Write the store as it is now to the new file ``path``. Raises ``FileExistsError``, ``DiskFull``."""
    path = Path(path)
    if os.path.lexists(path):
        raise FileExistsError(17, "nothing is written over an existing file", os.fspath(path))
    engine = store.engine
    state = engine.state
    revision, compacted = state.published, state.compacted
    _check_room(state, path)
    counts = {"rows": 0, "leases": 0}
    with ExitStack() as files:
        old_rows = _old_rows(state, compacted, path.absolute().parent, files)
        key_rows = _counted(
            chain(old_rows, _new_rows(state, compacted, revision)),
            counts,
            revision,
            progress,
        )
        leases = _lease_rows(engine)
        counts["leases"] = len(leases)
        meta = _all_meta(state)
        buckets: dict[bytes, Iterable[Row]] = {name: carried_bucket(name, meta) for name in CARRIED_BUCKETS}
        buckets |= {
            rows.ALARM: [],
            rows.KEY: key_rows,
            rows.LEASE: leases,
            rows.META: sorted(_meta_rows(engine, compacted)),
        }
        size_bytes = write_bbolt(path, sorted(buckets.items()))
    return Exported(
        path=path,
        size_bytes=size_bytes,
        revision=revision,
        compact_revision=compacted,
        counts=counts,
        notes=("alarms stay behind: they are about the room that this store has",) if state.alarms else (),
    )


def _check_room(state: State, path: Path) -> None:
    needed, free = state.backend.in_use_bytes(), free_bytes(path.absolute().parent)
    if free < needed:
        raise DiskFull(f"{path} needs about {needed} bytes, there is room for {free}")


def _counted(
    key_rows: Iterable[Row], counts: dict[str, int], revision: int, progress: Progress | None
) -> Iterator[Row]:
    for count, row in enumerate(key_rows, 1):
        yield row
        counts["rows"] = count
        if progress is not None and count % _REPORT_EVERY_ROWS == 0:
            progress(rows.decode_revision(row[0])[0], revision)


# --- rows of the bucket ``key`` ----------------------------------------------------------------


def _new_rows(state: State, compacted: int, revision: int) -> Iterator[Row]:
    """What happened after the compaction, in order."""
    first = max(compacted + 1, 1)
    while first <= revision:
        page, covered = change_page(state, first, revision, PAGE_ROWS)
        for main, sub, key, row in page:
            if row is None:
                yield encode_revision(main, sub, True), encode_key_value(key, 0, 0, 0, b"", 0)
            else:
                yield encode_revision(main, sub), split_row(row)[1]
        first = covered + 1


def _old_rows(state: State, compacted: int, folder: Path, files: ExitStack) -> Iterator[Row]:
    """What lived at the compaction, by revision: sorted in runs that fit in memory, then merged."""
    runs: list[BinaryIO] = []
    run: list[Row] = []
    run_bytes = 0
    for row in _living(state, compacted) if compacted > 0 else ():
        run.append(row)
        run_bytes += len(row[1]) + ROW_OVERHEAD_BYTES
        if run_bytes >= RUN_BYTES:
            file = files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  # the stack closes it
            _write_run(run, file)
            runs.append(file)
            run, run_bytes = [], 0
    run.sort()
    return heapq.merge(run, *map(_read_run, runs))


def _living(state: State, revision: int) -> Iterator[Row]:
    """Rows of the keys that lived at a revision, in key order."""
    at: bytes | None = b""
    while at is not None:
        page, at = state.page(at, None, revision)
        for _, row in page:
            sub, key_value = split_row(row)
            yield encode_revision(row_mod_revision(row), sub), key_value


def _write_run(run: list[Row], file: BinaryIO) -> None:
    run.sort()
    for key, value in run:
        file.write(_LENGTHS.pack(len(key), len(value)) + key + value)
    file.seek(0)


def _read_run(file: BinaryIO) -> Iterator[Row]:
    while lengths := file.read(_LENGTHS.size):
        key_bytes, value_bytes = _LENGTHS.unpack(lengths)
        row = file.read(key_bytes + value_bytes)
        yield row[:key_bytes], row[key_bytes:]


# --- the other buckets ---------------------------------------------------------------------------


def _lease_rows(engine: LocalEngine) -> list[Row]:
    """Leases with the time they have left."""
    now_ms = engine.now_ms()
    found = []
    for lease in list(engine.lessor.leases.values()):
        left = max(1, -((now_ms - lease.deadline_ms) // 1000))
        found.append(encode_lease(Lease(lease.id, lease.ttl_seconds, min(left, lease.ttl_seconds))))
    return sorted(found)


def _all_meta(state: State) -> list[Row]:
    """The rows of ``meta``, those not yet in the backend included."""
    pending = [generation.rows.get(META, {}) for generation in reversed(state.generations)]
    with state.backend.read() as tx:
        found: dict[bytes, bytes | None] = dict(tx.scan(META))
    for changed in pending:
        found.update(changed)
    return sorted((key, value) for key, value in found.items() if value is not None)


def _meta_rows(engine: LocalEngine, compacted: int) -> Iterator[Row]:
    yield rows.CONSISTENT_INDEX, encode_u64(max(engine.state.applied_index, 1))
    yield rows.TERM, encode_u64(1)
    yield rows.CONF_STATE, b'{"voters":[%d],"auto_leave":false}' % engine.member_id
    if compacted >= 0:
        yield rows.SCHEDULED_COMPACT, encode_revision(compacted)
        yield rows.FINISHED_COMPACT, encode_revision(compacted)
