"""Faults that were found in the engine, each kept as the smallest case that showed it."""

from __future__ import annotations

from pathlib import Path

from kvstore.files import OSDisk
from kvstore.wal import Log
from tests.recording_disk import RecordingDisk

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
