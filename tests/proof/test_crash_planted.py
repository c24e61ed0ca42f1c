"""The crash harness finds what it is there to find: faults planted in the engine break a promise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import layout
from kvstore.errors import KVStoreError
from kvstore.mvcc import checkpoint
from kvstore.mvcc.overlay import Generation
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, pack_u64
from kvstore.testing import crashes
from kvstore.wal import log as wal_log
from kvstore.wal.writer import SegmentWriter
from tests.harness.crash_points import explorer
from tests.harness.crash_points.explorer import OPTIONS, BrokenPromise, Explorer, Workload
from tests.harness.crash_points.workloads import puts, releasing, transactions

Patch = pytest.MonkeyPatch


def skip_syncs(patch: Patch) -> None:
    """A group is acknowledged without a sync."""

    def sync(self: SegmentWriter) -> None:
        self.synced = self.end

    patch.setattr(SegmentWriter, "sync", sync)


def applied_index_first(patch: Patch) -> None:
    """A checkpoint commits the applied index, then the rows that it stands for."""
    write_generation = checkpoint.write_generation

    def write(backend: Any, generation: Generation, now_ms: int, pause: Callable[[], None]) -> None:
        with backend.write() as tx:
            tx.put_many(META, [(META_APPLIED_INDEX, pack_u64(generation.last_index))])
        write_generation(backend, generation, now_ms, pause)

    patch.setattr(checkpoint, "write_generation", write)


def rename_without_sync(patch: Patch) -> None:
    """A new segment gets its name, and the directory is not synced."""

    def install(disk: Any, path: str) -> None:
        disk.rename(path + layout.TEMP_SUFFIX, path)

    patch.setattr(wal_log, "install_segment", install)


def unnamed_backend(patch: Patch) -> None:
    """Syncs of the folder of the backend are left out, so that its name may be lost."""
    from tests.harness.crash_points.disk import CrashingDisk

    sync_dir = CrashingDisk.sync_dir

    def sync(self: CrashingDisk, path: Any) -> None:
        if os.path.basename(path) != "snap":
            sync_dir(self, path)

    patch.setattr(CrashingDisk, "sync_dir", sync)


def release_too_much(patch: Patch) -> None:
    """Segments are given up without a sync of the backend that has taken over what is in them."""
    from kvstore.upkeep.snapshots import SnapshotKeeper

    patch.setattr(SnapshotKeeper, "_sync_backend", lambda self, folder: None)


FAULTS: list[tuple[Callable[[Patch], None], Workload]] = [
    (skip_syncs, puts),
    (applied_index_first, transactions),
    (rename_without_sync, puts),
    (unnamed_backend, releasing),
    (release_too_much, releasing),
]


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize(("plant", "workload"), FAULTS, ids=lambda case: case.__name__)
def test_a_planted_fault_breaks_a_promise(
    scratch: Path,
    monkeypatch: Patch,
    plant: Callable[[Patch], None],
    workload: Workload,
    backend: str,
) -> None:
    """With the fault the harness reports a broken promise (without it, test_crash_points passes)."""
    plant(monkeypatch)
    with pytest.raises((BrokenPromise, KVStoreError)) as found:
        Explorer(scratch, OPTIONS.with_(backend=backend)).run(workload)
    error: BaseException | None = found.value
    while error is not None and not isinstance(error, BrokenPromise):
        error = error.__cause__
    assert isinstance(error, BrokenPromise), f"something else failed: {found.value!r}"


def test_a_broken_promise_names_the_call_that_shows_it_again(scratch: Path, monkeypatch: Patch) -> None:
    """What its crash left is kept as it was, and the call alone breaks the promise in the same way."""
    skip_syncs(monkeypatch)
    monkeypatch.setattr(crashes, "KEEP", str(scratch / "kept"))
    with pytest.raises(BrokenPromise) as first:
        Explorer(scratch / "first", OPTIONS).run(puts)
    (note,) = first.value.__notes__
    (named,) = re.findall(r"at call (\d+)", note)
    (kept,) = (scratch / "kept").glob(f"call-{named}-*")
    assert (kept / "wal").is_dir()
    monkeypatch.setattr(explorer, "CALL", int(named))
    with pytest.raises(BrokenPromise) as again:
        Explorer(scratch / "again", OPTIONS).run(puts)
    cluster_id = re.compile(r"[0-9a-f]{16}")
    assert str(again.value) == str(first.value)
    assert cluster_id.sub("", again.value.__notes__[0]) == cluster_id.sub("", note)
