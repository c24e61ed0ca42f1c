"""Dump and repair: a damaged log is described, and cut only when asked to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kvstore import layout
from kvstore.errors import Corruption, NotAStore
from kvstore.files import Disk
from kvstore.testing.crashes import every_crash
from kvstore.testing.recording_disk import UnsyncedDisk
from kvstore.wal import Log, LogOptions
from kvstore.wal.inspect import repair, scan_segment

OPTIONS = LogOptions(wal_file_size_bytes=400)
ENTRIES = [b"entry %d " % number + b"v" * 60 for number in range(1, 21)]


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    """A log of 20 entries, four to a segment."""
    log = Log.create(UnsyncedDisk(), tmp_path / "wal", 1, 2, options=OPTIONS)
    for number, entry in enumerate(ENTRIES, 1):
        log.append([entry], number)
    log.close()
    return tmp_path / "wal"


def segments(wal: Path) -> list[Path]:
    return [file.path for file in layout.segments(wal)]


def change(path: Path, offset: int, data: bytes) -> None:
    old = path.read_bytes()
    path.write_bytes(old[:offset] + data + old[offset + len(data) :])


def spoil(path: Path, offset: int) -> None:
    """Change more than one bit of a byte: a single one is known, and flipped back."""
    change(path, offset, bytes([path.read_bytes()[offset] ^ 0b111]))


def contents(wal: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in wal.iterdir()}


def entries_of(wal: Path) -> list[bytes]:
    log = Log.open(UnsyncedDisk(), wal, options=OPTIONS)
    entries = [entry for batch in log.replay() for entry in batch.entries]
    log.close()
    return entries


def test_a_scan_shows_every_frame(wal: Path) -> None:
    """Offsets, types, sync marks, indexes, times and entries, in order and without a problem."""
    found = [frame for path in segments(wal) for frame in scan_segment(path)]
    assert not any(frame.problem for frame in found)
    batches = [frame.batch for frame in found if frame.batch]
    assert [batch.entries[0] for batch in batches] == ENTRIES
    assert [(batch.first_index, batch.time_ms) for batch in batches] == [(n, n) for n in range(1, 21)]
    first = list(scan_segment(segments(wal)[0]))
    assert [frame.kind for frame in first[:3]] == ["crc", "metadata", "batch"]
    assert first[1].metadata is not None and first[1].metadata.cluster_id == 1
    for frame, following in pairwise(first):
        assert frame.offset + frame.size_bytes == following.offset
        assert frame.kind != "batch" or frame.synced == frame.offset


def test_a_scan_goes_on_past_a_bad_place(wal: Path) -> None:
    """A zeroed frame and a flipped byte are described, and the frames after them are shown."""
    path = segments(wal)[1]
    frames = list(scan_segment(path))
    change(path, frames[2].offset, bytes(frames[2].size_bytes))
    spoil(path, frames[4].offset + 40)
    problems = {frame.offset: frame.problem for frame in scan_segment(path) if frame.problem}
    assert list(problems) == [frames[2].offset, frames[4].offset]
    assert "zeros" in problems[frames[2].offset] and "crc" in problems[frames[4].offset]
    assert [f.offset for f in scan_segment(path) if f.batch] == [frames[3].offset, frames[5].offset]


def test_a_scan_of_anything_ends(wal: Path, tmp_path: Path) -> None:
    """Garbage, nothing, and headers that claim gigabytes are scanned in one pass."""
    path = tmp_path / layout.segment_name(1, 1)
    claim = (1 << 29).to_bytes(8, "little") + b"\x08\x02\x10\x00\x1a\xff\xff\xff\xff\x01"
    for data in (b"", bytes(3), b"\xff" * 5000, claim.ljust(24, b"\0") * 20_000):
        path.write_bytes(data)
        assert all(frame.problem for frame in scan_segment(path))
    with pytest.raises(NotAStore):
        list(scan_segment(tmp_path / "notes.txt"))


def test_a_sound_log_needs_no_repair(wal: Path) -> None:
    """Nothing is reported, and nothing is changed."""
    before = contents(wal)
    report = repair(UnsyncedDisk(), wal)
    assert (report.reason, report.last_good_index, report.set_aside) == ("", 20, ())
    assert contents(wal) == before


def damage_inside(wal: Path) -> int:
    path = segments(wal)[2]
    spoil(path, list(scan_segment(path))[3].offset + 30)
    return 9


def damage_a_head(wal: Path) -> int:
    spoil(segments(wal)[2], 40)
    return 8


def empty_the_last(wal: Path) -> int:
    segments(wal)[-1].write_bytes(b"")
    return 16


def remove_one(wal: Path) -> int:
    segments(wal)[2].unlink()
    return 8


def tear_the_tail(wal: Path) -> int:
    path = segments(wal)[-1]
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-20])
    return 19


@pytest.mark.parametrize("harm", [damage_inside, damage_a_head, empty_the_last, remove_one, tear_the_tail])
def test_repair_keeps_the_sound_prefix_and_sets_the_rest_aside(
    wal: Path, harm: Callable[[Path], int]
) -> None:
    """After repair the log opens to the entries before the damage; no byte of the rest is gone."""
    good = harm(wal)
    before = contents(wal)
    plan = repair(UnsyncedDisk(), wal, dry_run=True)
    assert contents(wal) == before, "a dry run changed something"
    assert plan.last_good_index == good and plan.reason
    assert repair(UnsyncedDisk(), wal) == plan
    assert entries_of(wal) == ENTRIES[:good]
    after = contents(wal)
    for name, data in before.items():
        kept = after.get(name + ".broken", after.get(name, b""))
        assert kept.rstrip(b"\0") == data.rstrip(b"\0"), name
    assert repair(UnsyncedDisk(), wal).reason == ""
    if harm is damage_inside:
        assert plan.last_lost_index == 20


def test_what_cannot_be_repaired_is_refused(wal: Path) -> None:
    """A bad head of the only segment left, and an end that is missing, leave nothing to cut."""
    with pytest.raises(Corruption, match="it had entries up to 25"):
        repair(UnsyncedDisk(), wal, after_index=25)
    change(segments(wal)[0], 3, b"?")
    before = contents(wal)
    with pytest.raises(Corruption):
        repair(UnsyncedDisk(), wal)
    assert contents(wal) == before


def test_a_power_cut_during_repair_leaves_a_repairable_log(wal: Path, tmp_path: Path) -> None:
    """Cut in every call of a repair: a second repair comes to the same end."""
    good = damage_inside(wal)
    start = tmp_path / "start"
    start.mkdir()
    wal.rename(start / "wal")

    def workload(disk: Disk, directory: Path, acknowledge: Callable[[Any], None]) -> None:
        repair(disk, directory / "wal")

    for crash in every_crash(tmp_path / "again", workload, start=start, chances=2):
        repair(UnsyncedDisk(), crash.directory / "wal")
        assert entries_of(crash.directory / "wal") == ENTRIES[:good], str(crash)
