"""Snapshots, restores and rescues under power cuts at every call: something whole is left, and no litter."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.files import Disk, OSDisk
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.snapshot.reader import verify
from kvstore.snapshot.restore import NewStore, restore
from kvstore.store import Store
from kvstore.testing.crashes import every_crash, every_failure
from tests.harness.plain import value_of
from tests.harness.sweeps import torn_writes

every = pytest.mark.parametrize("backend", ("lmdb", "sqlite", "memory"))
both = pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
Acknowledge = Callable[[Any], None]


def open_store(path: Path, backend: str, disk: Disk | None = None, **options: Any) -> Store:
    settings = {"background": False, "wal_file_size": 1000, "max_wals": 1, "max_snapshots": 1, **options}
    return Store(open_engine(path, Options(backend=backend, **settings), disk or OSDisk()))


def life(path: Path, backend: str) -> None:
    """A store with a snapshot and something after it."""
    with open_store(path, backend) as store:
        for number in range(8):
            store.put(b"k%d" % (number % 3), b"%d" % number * 100)
        store.snapshot()
        store.put(b"k0", b"after")


def values(store: Store) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in store.scan(prefix=b"")}


@torn_writes
@every
def test_a_cut_while_snapshots_are_taken_and_segments_released(
    scratch: Path, backend: str, most_sectors: int
) -> None:
    """The store opens with all that was acknowledged, every snapshot there is whole, temporary files are gone."""
    life(scratch / "start", backend)

    def work(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        store = open_store(directory, backend, disk)
        try:
            acknowledge(("value", values(store)[b"k0"]))
            for number in range(2):
                value = b"%d" % number * 700
                store.put(b"k0", value)
                acknowledge(("value", value))
                acknowledge(("snapshot", store.snapshot().revision))
                store.engine.snapshots.release()
        finally:
            store.close()

    crashes = 0
    left = every_crash(scratch / "runs", work, chances=2, most_sectors=most_sectors, start=scratch / "start")
    for crash in left:
        crashes += 1
        snap = crash.directory / "snap"
        revisions = [verify(path).revision for path in snap.glob("*.snap")]
        wanted = [value for kind, value in crash.acknowledged if kind == "snapshot"]
        assert revisions, crash
        assert not wanted or max(revisions) >= wanted[-1], crash
        with open_store(crash.directory, backend) as store:
            acknowledged = [value for kind, value in crash.acknowledged if kind == "value"]
            assert not acknowledged or value_of(store, b"k0") in (acknowledged[-1], b"0" * 700, b"1" * 700), (
                crash
            )
            if acknowledged and acknowledged[-1] == b"1" * 700:
                assert value_of(store, b"k0") == b"1" * 700, crash
            assert [name for name in os.listdir(snap) if ".tmp" in name] == [], crash
    assert crashes > 60


@torn_writes
@every
def test_a_cut_while_a_store_is_restored(scratch: Path, backend: str, most_sectors: int) -> None:
    """Under the target's name there is nothing or the whole store, and the restore can be run again."""
    life(scratch / "start" / "source", backend)

    def work(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        restore(directory / "source", directory / "new", NewStore(backend=backend), disk=disk)
        acknowledge("restored")

    crashes = 0
    left = every_crash(scratch / "runs", work, chances=2, most_sectors=most_sectors, start=scratch / "start")
    for crash in left:
        crashes += 1
        new = crash.directory / "new"
        if not new.exists():
            assert not crash.acknowledged, crash
            restore(crash.directory / "source", new, NewStore(backend=backend))
        with open_store(new, backend) as store:
            assert values(store)[b"k0"] == b"after", crash
            store.put(b"k0", b"and on")
        assert sorted(os.listdir(crash.directory)) == ["new", "source"], crash
    assert crashes > 40


@every
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_while_a_store_is_restored(scratch: Path, backend: str, code: int) -> None:
    """The error is raised, nothing half made is left, the source is as it was."""
    life(scratch / "start" / "source", backend)
    raised = []

    def work(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        try:
            restore(directory / "source", directory / "new", NewStore(backend=backend), disk=disk)
        except (kvstore.DiskFull, OSError) as error:
            raised.append(error)
            assert not layout.building(directory / "new").exists() or "remove" in str(error)
            raise

    for crash in every_failure(scratch / "runs", work, code, chances=0, start=scratch / "start"):
        with open_store(crash.directory / "source", backend) as store:
            assert values(store)[b"k0"] == b"after", crash
    assert len(raised) > 10


@every
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_while_a_snapshot_is_taken(scratch: Path, backend: str, code: int) -> None:
    """The error is raised, no snapshot and no temporary file appears, and the next attempt works."""
    failures = 0
    for number in range(1, 30):
        directory = scratch / f"{number}"
        life(directory, backend)
        disk = FailingDisk(code)
        with open_store(directory, backend, disk) as store:
            store.put(b"k0", b"more")
            store.checkpoint()
            disk.fail_after = number
            before = store.engine.snapshots.files()
            try:
                store.snapshot()
            except (kvstore.DiskFull, OSError):
                failures += 1
                assert disk.fail_after == 0
                assert not layout.temporaries(directory / "snap") or disk.failed == "remove"
            disk.fail_after = 0
            assert store.snapshot().revision == store.revision
            assert len(before) == 1
            store.put(b"k0", b"and on")
        shutil.rmtree(directory)
        if failures < number:
            break
    assert failures >= 5


class FailingDisk(OSDisk):
    """Of the calls that concern snapshots the one with that number fails."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.fail_after = 0
        self.failed = ""

    def _count(self, what: str) -> None:
        if self.fail_after:
            self.fail_after -= 1
            if not self.fail_after:
                self.failed = what
                raise OSError(self.code, what)

    def open(self, path: Any) -> Any:
        self._count("open")
        return super().open(path)

    def rename(self, source: Any, target: Any) -> None:
        self._count("rename")
        super().rename(source, target)

    def remove(self, path: Any) -> None:
        self._count("remove")
        super().remove(path)

    def sync_dir(self, path: Any) -> None:
        self._count("sync_dir")
        super().sync_dir(path)

    def sync_file(self, path: Any) -> None:
        self._count("sync_file")
        super().sync_file(path)


@torn_writes
@both
def test_a_cut_while_a_damaged_backend_is_replaced(scratch: Path, backend: str, most_sectors: int) -> None:
    """Cut at any call, the next open ends with the whole store all the same."""
    life(scratch / "start", backend)
    with open(scratch / "start" / "snap" / "db", "r+b") as file:
        file.write(b"\xde\xad" * 6000)

    def work(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        with open_store(directory, backend, disk) as store:
            acknowledge(values(store)[b"k0"])

    crashes = 0
    left = every_crash(scratch / "runs", work, chances=2, most_sectors=most_sectors, start=scratch / "start")
    for crash in left:
        crashes += 1
        with open_store(crash.directory, backend) as store:
            assert values(store)[b"k0"] == b"after", crash
            assert values(store)[b"k1"] == b"7" * 100, crash
        assert not layout.temporaries(crash.directory / "snap"), crash
    assert crashes > 5
