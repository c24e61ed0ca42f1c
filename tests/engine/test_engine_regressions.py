"""Faults that were found in the engine, each kept as the smallest case that showed it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import kvstore
from kvstore import Store
from kvstore.files import OSDisk
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.testing.disk_images import LOST
from kvstore.testing.recording_disk import RecordingDisk
from kvstore.wal import Log, LogOptions
from tests.harness.gated_disk import GatedDisk

SECTOR_BYTES = 512


def last_write_offset(disk: RecordingDisk) -> int:
    call = [call for call in disk.calls if call.startswith("pwrite")][-1]
    return int(call.split()[-1].split("+")[0])


def test_a_torn_record_whose_length_ends_a_sector_is_cut(tmp_path: Path) -> None:
    """The disk wrote the second sector of a record and not the first, which held the length field alone: the record
    looks complete, and is torn all the same."""
    for size in range(600):
        disk = RecordingDisk(tmp_path / str(size))
        log = Log.create(disk, tmp_path / str(size) / "wal", 1, 2)
        log.append([b"v" * size], 0)
        log.append([b"w" * 100], 0)
        log.close()
        offset = last_write_offset(disk)
        if offset % SECTOR_BYTES == SECTOR_BYTES - 8:
            break
    assert offset % SECTOR_BYTES == SECTOR_BYTES - 8
    path = next((tmp_path / str(size) / "wal").glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[offset : offset + 8] = bytes(8)
    path.write_bytes(data)
    again = Log.open(OSDisk(), path.parent)
    assert [entry for batch in again.replay() for entry in batch.entries] == [b"v" * size]
    again.close()


def test_a_segment_whose_name_was_not_durable_gets_it_before_entries(tmp_path: Path) -> None:
    """A process is killed between the rename that names a new segment and the sync of the folder. The next one has
    nothing to replay, and still makes the name durable before it acknowledges anything in that segment."""
    options = LogOptions(wal_file_size_bytes=600)

    def filled(disk: RecordingDisk) -> Log:
        log = Log.create(disk, Path(disk.root) / "wal", 1, 2, options=options)
        log.append([b"v" * 600], 0)
        return log

    trial = RecordingDisk(tmp_path / "trial")
    log = filled(trial)
    log.append([b"rolls"], 0)
    log.close()
    naming = max(at for at, call in enumerate(trial.calls) if call.startswith("rename")) + 2
    assert trial.calls[naming - 1].startswith("sync_dir")
    disk = RecordingDisk(tmp_path / "root", fail_at={naming: errno.EIO})
    log = filled(disk)
    with pytest.raises(OSError, match="sync_dir"):
        log.append([b"rolls"], 0)
    log.close()
    again = Log.open(disk, tmp_path / "root" / "wal", after_index=1, options=options)
    assert list(again.replay()) == []
    again.append([b"acknowledged"], 0)
    left = disk.materialise(tmp_path / "left", LOST)
    again.close()
    after = Log.open(OSDisk(), left / "wal", options=options)
    assert [entry for batch in after.replay() for entry in batch.entries] == [b"v" * 600, b"acknowledged"]
    after.close()


def test_a_failing_close_still_gives_the_lock_back(scratch: Path) -> None:
    """Closing raises what the disk said, once; the directory can be opened again by the same process."""
    disk = GatedDisk()
    store = Store(open_engine(scratch / "data", Options(background=False, durability="off"), disk))
    store.put(b"k")
    disk.failing = True
    with pytest.raises(OSError, match="dying"):
        store.close()
    store.close()
    with kvstore.open(scratch / "data") as again:
        assert again.get(b"k") is not None
