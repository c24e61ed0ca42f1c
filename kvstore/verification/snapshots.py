"""Snapshot files: the name, the manifest, every byte of the copy, and the tables inside."""

from __future__ import annotations

from pathlib import Path

from kvstore import layout
from kvstore.backend import Backend
from kvstore.errors import TooNew, TooOld
from kvstore.layout import DataDir
from kvstore.mvcc.schema import CHANGES, LATEST, LEASE
from kvstore.snapshot import formats as opened
from kvstore.snapshot.hash_state import state_after_check
from kvstore.snapshot.manifest import Manifest
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.verification.report import DAMAGE, SNAPSHOT, Collector
from kvstore.verification.small import check_alarms, check_leases, check_marks
from kvstore.verification.tables import check_versions


def check_snapshots(directory: DataDir, found: Collector, *, with_tables: bool) -> list[SnapshotInfo]:
    """Check all snapshots. Returns the intact ones, oldest first."""
    whole = []
    for file in directory.snapshots():
        try:
            info = _check_file(file, found, with_tables=with_tables)
        except FileNotFoundError:
            continue  # the writer has just removed it
        if info is not None:
            whole.append(info)
    return whole


def _check_file(file: layout.NumberedFile, found: Collector, *, with_tables: bool) -> SnapshotInfo | None:
    info = check_snapshot(file.path, found, with_tables=with_tables)
    if info is not None and (info.index, info.cluster_id) != (file.index, file.cluster_id):
        found.add(SNAPSHOT, "the name does not match the content", path=file.path)
        return None
    return info


def check_snapshot(path: Path, found: Collector, *, with_tables: bool) -> SnapshotInfo | None:
    """Check a snapshot file. Returns it if it is intact."""
    found.counts["snapshots"] += 1
    try:
        info = opened.inspect(path, lambda done, total: found.step(f"snapshot {path.name}", done, total))
        backend = opened.open_any(info.path)
    except (*DAMAGE, TooNew, TooOld) as error:  # a snapshot that cannot be used is worth a finding
        found.add_error(SNAPSHOT, error, path)
        return None
    if caution := state_after_check(info).caution:
        found.cautions.append(caution)
    try:
        _check_counts(backend, info, path, found)
        if with_tables and opened.find_format(path) is None:
            inside = Collector(found.steps, SNAPSHOT, path)
            check_tables(backend, inside)
            found.take(inside)
    finally:
        backend.close()
    return info


def _check_counts(backend: Backend, manifest: Manifest, path: Path, found: Collector) -> None:
    with backend.read() as tx:
        counts = tx.count(LATEST), tx.count(CHANGES), tx.count(LEASE)
    if counts != (manifest.keys, manifest.changes, manifest.leases):
        found.add(SNAPSHOT, "the copy does not hold as many rows as the manifest says", path=path)


def check_tables(backend: Backend, found: Collector) -> None:
    """Check the tables of one commit against each other."""
    with backend.read() as tx:
        marks = check_marks(tx, found)
        check_versions(tx, marks, found)
        check_leases(tx, found)
        check_alarms(tx, found)
