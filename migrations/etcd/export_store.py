"""Exporting: a bbolt file with its SHA-256 at the end, which ``etcdctl snapshot restore`` accepts as etcd's own.

    latest, history, changes --sorted by revision (``key_rows``)--> bucket key
    lease, alarm, carried rows of meta ---------------------------> the others

Both compaction marks say that nothing is left to do. ``term`` and ``confState`` are there because 3.5 needs them to
find the file's schema; ``snapshot restore`` replaces members, indexes and term anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from kvstore.backend import Progress, Row
from kvstore.errors import DiskFull
from kvstore.files import free_bytes
from kvstore.foreign import Exported
from kvstore.mvcc.schema import META
from kvstore.mvcc.state import State
from kvstore.reads import Reads
from kvstore.row_sort import RUN_BYTES, RowSorter
from kvstore.store import Reader

from . import rows
from .bbolt_write import write_bbolt
from .beside_keys import CARRIED_BUCKETS, carried_bucket
from .key_rows import KeyRows
from .rows import Alarm, Lease, encode_alarm, encode_lease, encode_revision, encode_u64


def export_store(store: Reader, path: Path, progress: Progress | None = None) -> Exported:
    """Write the store as it is now to the new file ``path``. Raises ``FileExistsError``, ``DiskFull``."""
    path = Path(path)
    if os.path.lexists(path):
        raise FileExistsError(17, "an existing file is never overwritten", os.fspath(path))
    engine = store.engine
    state = engine.state
    revision, compacted = state.published, state.compacted
    _check_room(state, path)
    report = _reporter(progress, 2 * state.backend.in_use_bytes())  # read once, passed on once
    counts = {"rows": 0}
    with RowSorter(path.absolute().parent) as sorter:
        in_order = KeyRows(state, revision, compacted, report).in_order(sorter)
        beside = {
            rows.ALARM: _alarm_rows(engine),
            rows.LEASE: _lease_rows(engine),
            rows.META: sorted(_meta_rows(engine, compacted)),
        }
        buckets: dict[bytes, Iterable[Row]] = {rows.KEY: _counted(in_order, counts, report), **beside}
        meta = _all_meta(state)
        buckets |= {name: carried_bucket(name, meta) for name in CARRIED_BUCKETS}
        size_bytes = write_bbolt(path, sorted(buckets.items()), disk=engine.disk)
    return Exported(
        path=path,
        size_bytes=size_bytes,
        revision=revision,
        compact_revision=compacted,
        counts=counts | {"leases": len(beside[rows.LEASE]), "alarms": len(beside[rows.ALARM])},
        notes=(ALARMS_NOTE,) if beside[rows.ALARM] else (),
    )


ALARMS_NOTE = (
    "an etcd restored from it starts with these alarms and refuses writes until `etcdctl alarm disarm`"
)


def _check_room(state: State, path: Path) -> None:
    """Check for room for the file, and as much again if rows have to be sorted on disk."""
    in_use, free = state.backend.in_use_bytes(), free_bytes(path.absolute().parent)
    needed = in_use if in_use < RUN_BYTES else 2 * in_use
    if free < needed:
        raise DiskFull(f"{path} needs about {needed} bytes, there is room for {free}")


def _reporter(progress: Progress | None, total_bytes: int) -> Callable[[int], None]:
    """Adds up the bytes, and never reports more than the total, which is an estimate."""
    done_bytes = 0

    def report(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        if progress is not None:
            progress(min(done_bytes, total_bytes), total_bytes)

    return report


def _counted(
    pages: Iterable[list[Row]], counts: dict[str, int], report: Callable[[int], None]
) -> Iterator[Row]:
    def count(page: list[Row]) -> list[Row]:
        counts["rows"] += len(page)
        report(sum([len(value) for _, value in page]))
        return page

    return chain.from_iterable(map(count, pages))


# --- the other buckets -----------------------------------------------------------------------------


def _lease_rows(engine: Reads) -> list[Row]:
    """Leases with the time they have left."""
    now_ms = engine.now_ms()
    found = []
    for lease in list(engine.lessor.leases.values()):
        left = max(1, -((now_ms - lease.deadline_ms) // 1000))
        found.append(encode_lease(Lease(lease.id, lease.ttl_seconds, min(left, lease.ttl_seconds))))
    return sorted(found)


def _alarm_rows(engine: Reads) -> list[Row]:
    return sorted(encode_alarm(Alarm(alarm.member_id, alarm.alarm)) for alarm in engine.alarms())


def _all_meta(state: State) -> list[Row]:
    """The rows of ``meta``, including those not yet in the backend."""
    pending = [generation.rows.get(META, {}) for generation in reversed(state.generations)]
    with state.backend.read() as tx:
        found: dict[bytes, bytes | None] = dict(tx.scan(META))
    for changed in pending:
        found.update(changed)
    return sorted((key, value) for key, value in found.items() if value is not None)


def _meta_rows(engine: Reads, compacted: int) -> Iterator[Row]:
    yield rows.CONSISTENT_INDEX, encode_u64(max(engine.state.applied_index, 1))
    yield rows.TERM, encode_u64(1)
    yield rows.CONF_STATE, b'{"voters":[%d],"auto_leave":false}' % engine.member_id
    if compacted >= 0:
        yield rows.SCHEDULED_COMPACT, encode_revision(compacted)
        yield rows.FINISHED_COMPACT, encode_revision(compacted)
