"""The disk that lies keeps its own promises: what was synced is there, what was not may be gone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import DiskFull
from kvstore.files import Disk
from kvstore.testing.crashes import every_crash, fingerprint
from kvstore.testing.disk_images import (
    DATA_ONLY,
    ENTRIES_ONLY,
    KEPT,
    LOST,
    Loss,
    all_but,
    first_sectors,
    last_sectors,
)
from kvstore.testing.recording_disk import PowerCut, RecordingDisk


def two_sectors(disk: RecordingDisk) -> None:
    """A durable file of 1024 x "a", over which 1024 x "b" was written without a sync."""
    file = disk.create(Path(disk.root) / "f")
    file.pwrite(b"a" * 1024, 0)
    file.sync()
    disk.sync_dir(disk.root)
    file.pwrite(b"b" * 1024, 0)
    file.close()


@pytest.mark.parametrize(
    ("loss", "left"),
    [
        (KEPT, b"b" * 1024),
        (LOST, b"a" * 1024),
        (first_sectors(1), b"b" * 512 + b"a" * 512),
        (last_sectors(1), b"a" * 512 + b"b" * 512),
        (all_but(0), b"a" * 512 + b"b" * 512),
    ],
    ids=repr,
)
def test_unsynced_sectors_are_kept_or_lost_one_by_one(tmp_path: Path, loss: Loss, left: bytes) -> None:
    """Each way of losing leaves exactly its sectors of what was not synced."""
    disk = RecordingDisk(tmp_path / "root")
    two_sectors(disk)
    assert (disk.materialise(tmp_path / "left", loss) / "f").read_bytes() == left


def test_entries_need_their_directory_synced(tmp_path: Path) -> None:
    """A created, renamed or removed name is durable only after sync_dir; data only after sync."""
    disk = RecordingDisk(tmp_path / "root")
    root = Path(disk.root)
    disk.create(root / "old").close()
    disk.sync_dir(root)
    file = disk.create(root / "new.tmp")
    file.pwrite(b"x", 0)
    disk.rename(root / "new.tmp", root / "new")
    disk.remove(root / "old")

    def left(name: str, loss: Loss) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in disk.materialise(tmp_path / name, loss).iterdir()}

    assert left("1", LOST) == {"old": b""}
    assert left("2", KEPT) == {"new": b"x"}
    assert left("3", ENTRIES_ONLY) == {"new": b""}
    assert left("4", DATA_ONLY) == {"old": b""}
    file.sync()
    disk.sync_dir(root)
    assert left("5", LOST) == {"new": b"x"}
    file.close()


def test_files_in_a_lost_directory_are_lost(tmp_path: Path) -> None:
    """A directory whose own name was never synced takes its files with it."""
    disk = RecordingDisk(tmp_path / "root")
    root = Path(disk.root)
    disk.make_dir(root / "a" / "b")
    disk.create(root / "a" / "b" / "f").close()
    disk.sync_dir(root / "a" / "b")
    disk.sync_dir(root / "a")
    assert list(disk.materialise(tmp_path / "1", LOST).iterdir()) == []
    disk.sync_dir(root)
    assert (disk.materialise(tmp_path / "2", LOST) / "a" / "b" / "f").exists()


def test_a_removed_directory_comes_back_unless_its_parent_is_synced(tmp_path: Path) -> None:
    """Removing a directory is durable like any other change of names."""
    disk = RecordingDisk(tmp_path / "root")
    root = Path(disk.root)
    disk.make_dir(root / "a")
    disk.sync_dir(root)
    disk.remove_dir(root / "a")
    disk.remove_dir(root / "a")
    assert (disk.materialise(tmp_path / "1", LOST) / "a").is_dir()
    disk.sync_dir(root)
    assert not (disk.materialise(tmp_path / "2", LOST) / "a").exists()


def test_a_failed_sync_is_not_made_good_by_the_next(tmp_path: Path) -> None:
    """What a failed sync should have written stays lost, though later syncs succeed."""
    disk = RecordingDisk(tmp_path / "root", fail_at={3: errno.EIO})
    root = Path(disk.root)
    file = disk.create(root / "f")
    file.pwrite(b"a" * 512, 0)
    with pytest.raises(OSError, match="sync f"):
        file.sync()
    file.pwrite(b"b" * 512, 512)
    file.sync()
    disk.sync_dir(root)
    assert (disk.materialise(tmp_path / "1", LOST) / "f").read_bytes() == bytes(512) + b"b" * 512
    file.close()


def test_a_failing_write_may_leave_its_beginning(tmp_path: Path) -> None:
    """A full disk raises DiskFull, and the short write is there to be read."""
    disk = RecordingDisk(tmp_path / "root", fail_at={2: errno.ENOSPC}, short_write_bytes=3)
    file = disk.create(Path(disk.root) / "f")
    with pytest.raises(DiskFull):
        file.pwrite(b"abcdef", 0)
    assert (Path(disk.root) / "f").read_bytes() == b"abc"
    file.close()


def test_after_the_cut_nothing_reaches_the_disk(tmp_path: Path) -> None:
    """The call in which the power goes, and each later one, raises PowerCut."""
    disk = RecordingDisk(tmp_path / "root", cut_at=2)
    root = Path(disk.root)
    file = disk.create(root / "f")
    with pytest.raises(PowerCut):
        file.pwrite(b"abc", 0)
    with pytest.raises(PowerCut):
        file.sync()
    with pytest.raises(PowerCut):
        disk.create(root / "g")
    file.close()
    assert disk.calls == ["create f", "pwrite f 0+3"]


def test_somebody_elses_file_comes_back_when_a_rename_over_it_is_lost(tmp_path: Path) -> None:
    """Files written beside the disk are as they are; renamed unsynced ones may turn out empty."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "db").write_bytes(b"old")
    disk = RecordingDisk(root)
    (root / "db.tmp").write_bytes(b"new")
    disk.rename(root / "db.tmp", root / "db")
    assert (disk.materialise(tmp_path / "1", LOST) / "db").read_bytes() == b"old"
    assert (disk.materialise(tmp_path / "2", ENTRIES_ONLY) / "db").read_bytes() == b""
    disk.sync_file(root / "db")
    assert (disk.materialise(tmp_path / "3", ENTRIES_ONLY) / "db").read_bytes() == b"new"


def test_a_renamed_directory_takes_its_files_along(tmp_path: Path) -> None:
    """Until the parent is synced a cut leaves the old name or the new one, with what was synced inside."""
    disk = RecordingDisk(tmp_path / "root")
    root = Path(disk.root)
    disk.make_dir(root / "a")
    disk.sync_dir(root)
    file = disk.create(root / "a" / "f")
    file.pwrite(b"abc", 0)
    file.sync()
    file.close()
    disk.sync_dir(root / "a")
    disk.rename(root / "a", root / "b")
    assert (disk.materialise(tmp_path / "1", LOST) / "a" / "f").read_bytes() == b"abc"
    assert (disk.materialise(tmp_path / "2", KEPT) / "b" / "f").read_bytes() == b"abc"
    disk.sync_dir(root)
    left = disk.materialise(tmp_path / "3", LOST)
    assert (left / "b" / "f").read_bytes() == b"abc"
    assert not (left / "a").exists()
    disk.remove(root / "b" / "f")
    disk.remove_dir(root / "b")
    disk.sync_dir(root)
    assert not any(disk.materialise(tmp_path / "4", KEPT).iterdir())


def unsafe_replace(disk: Disk, directory: Path, acknowledge: Callable[[Any], None]) -> None:
    """Replace a file the wrong way: no sync of the data before the rename, none of the directory after."""
    file = disk.create(directory / "f.tmp")
    file.pwrite(b"new", 0)
    file.close()
    disk.rename(directory / "f.tmp", directory / "f")
    acknowledge("replaced")


def test_a_missing_sync_is_caught(tmp_path: Path) -> None:
    """Trying every crash finds both faults of a replacement without syncs."""
    start = tmp_path / "start"
    start.mkdir()
    (start / "f").write_bytes(b"old")
    seen = {
        (bool(crash.acknowledged), (crash.directory / "f").read_bytes())
        for crash in every_crash(tmp_path / "scratch", unsafe_replace, start=start)
    }
    assert (True, b"old") in seen, "the rename was never lost"
    assert (True, b"") in seen, "the data was never lost"


def test_a_state_is_yielded_once_for_what_was_acknowledged(tmp_path: Path) -> None:
    """Cuts that leave the same files are one crash; once more is acknowledged, they have to be looked at again."""

    def workload(disk: Disk, directory: Path, acknowledge: Callable[[Any], None]) -> None:
        file = disk.create(directory / "f")
        file.pwrite(b"new", 0)
        file.sync()
        disk.sync_dir(directory)
        file.close()
        acknowledge("written")
        disk.sync_dir(directory)

    left = [
        (fingerprint(crash.directory), len(crash.acknowledged)) for crash in every_crash(tmp_path, workload)
    ]
    assert len(set(left)) == len(left)
    (last,) = [state for state, acknowledged in left if acknowledged]
    assert (last, 0) in left
    assert len({state for state, _ in left}) == 3, "no file, an empty one, the whole"


def test_a_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    """Another name, another byte, an empty folder: each makes a difference; where a lock file says it lies, none."""
    prints = []
    for number, (name, content, folder) in enumerate(
        [("f", b"a", ""), ("g", b"a", ""), ("f", b"b", ""), ("f", b"a", "empty")]
    ):
        root = tmp_path / f"{number}"
        (root / folder).mkdir(parents=True)
        (root / name).write_bytes(content)
        prints.append(fingerprint(root))
        (root / "LOCK").write_text(f"{number}")
        assert fingerprint(root) != prints[-1], "there is a lock file now"
    assert len(set(prints)) == 4
    before = fingerprint(tmp_path / "0")
    (tmp_path / "0" / "LOCK").write_text("elsewhere")
    assert fingerprint(tmp_path / "0") == before
