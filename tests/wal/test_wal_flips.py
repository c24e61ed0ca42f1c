"""One flipped bit anywhere in the log: it is told from a torn write and from nothing, named, and flipped back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crc32c import crc32c

from kvstore import layout
from kvstore.errors import Corruption
from kvstore.testing.recording_disk import UnsyncedDisk
from kvstore.wal import Log, LogOptions
from kvstore.wal import format as fmt
from kvstore.wal.inspect import repair, scan_segment
from tests.wal.logs import content, opens_or_refuses, outcome, overwrite, read_back, small_log, variants

SECTOR_BYTES = 512


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def killed_log(wal: Path, *entries: bytes) -> Path:
    """A log that was not closed, so zeros lie behind its end; its one segment."""
    log = Log.create(UnsyncedDisk(), wal, 1, 2, options=LogOptions(wal_file_size_bytes=16_000))
    for number, entry in enumerate(entries):
        log.append([entry], number)
    path = layout.segments(wal)[0].path
    left = path.read_bytes()
    log.close()
    path.write_bytes(left)
    return path


def test_every_flipped_bit_is_named_and_flipped_back(tmp_path: Path) -> None:
    """Whatever bit of whatever segment: a repair finds that very bit, and afterwards all bytes are as before."""
    wal, entries = small_log(tmp_path)

    def flips(data: bytes) -> Iterator[tuple[str, bytes]]:
        for bit in range(0, content(data) * 8, 3):
            yield f"{bit}", flipped(data, bit)

    before = {file.path: file.path.read_bytes() for file in layout.segments(wal)}
    for path, name in variants(wal, flips):
        plan = repair(UnsyncedDisk(), wal)
        assert plan.flip is not None and f"{plan.flip.offset * 8 + plan.flip.bit}" == name, (path, name)
        assert path.read_bytes() == before[path]
    assert outcome(wal) == entries


def test_a_flipped_bit_behind_the_end_costs_nothing(tmp_path: Path) -> None:
    """Wherever in the zeros: the log opens whole and goes on (regression: in the last sector it was refused)."""
    path = killed_log(tmp_path / "wal", b"first", b"second" * 30)
    left = path.read_bytes()
    assert len(left) > content(left) + 1000
    for bit in range((content(left) + 7 & ~7) * 8, (content(left) + 1000) * 8, 5):
        overwrite(path, flipped(left, bit))
        assert outcome(path.parent) == [b"first", b"second" * 30], bit
        assert repair(UnsyncedDisk(), path.parent, dry_run=True).is_torn
    assert read_back(path.parent) == [b"first", b"second" * 30]


def test_a_flipped_bit_behind_a_segment_that_is_not_the_last_is_flipped_back(tmp_path: Path) -> None:
    """There it is refused, for what is missing would be in the middle; a repair gives nothing up."""
    wal, entries = small_log(tmp_path)
    first = layout.segments(wal)[0].path
    first.write_bytes(first.read_bytes() + bytes(200))
    assert outcome(wal) == entries
    overwrite(first, flipped(first.read_bytes(), (first.stat().st_size - 50) * 8))
    assert opens_or_refuses(wal) is None
    assert repair(UnsyncedDisk(), wal).set_aside == ()
    assert outcome(wal) == entries


def test_a_flipped_bit_of_a_record_with_empty_sectors_is_no_torn_write(tmp_path: Path) -> None:
    """Zeros in a value look like sectors that were not written; a bit that flipped beside them does not (regression:
    the record, which had been acknowledged, was cut)."""
    path = killed_log(tmp_path / "wal", b"first", b"a" * 700 + bytes(3000) + b"z" * 700)
    left = path.read_bytes()
    start = [found.offset for found in scan_segment(path) if found.batch][-1]
    for bit in range(start * 8, content(left) * 8, 97):
        overwrite(path, flipped(left, bit))
        assert opens_or_refuses(path.parent) is None, bit - start * 8


def log_ending_in(wal: Path, *, in_a_sector_of_its_own: bool) -> tuple[Path, bytes]:
    """A log whose last record ends in a byte with one bit, with seven bytes of padding behind it; and the entry."""
    metadata = fmt.Metadata(1, 2, 1, 1000)
    head, chain = fmt.segment_head(metadata, 0)
    seed = fmt.segment_seed(1, 1)
    for number in range(1_000_000):
        entry = (b"%d" % number).ljust(300 + number % 600, b".")
        data = fmt.encode_batch(1, 5, [entry])
        frame = fmt.encode_frame(seed, len(head), fmt.BATCH, crc32c(data, chain), len(head), data)
        last = len(head) + len(frame) - 8
        if frame[-8:] == b"\x80".ljust(8, b"\0") and (last % SECTOR_BYTES == 0) == in_a_sector_of_its_own:
            wal.mkdir()
            path = wal / layout.segment_name(1, 1)
            path.write_bytes((head + frame).ljust(4096, b"\0"))
            return path, entry
    raise AssertionError("no such record came up")


def test_a_flipped_bit_in_the_last_byte_is_no_write_that_stopped_early(tmp_path: Path) -> None:
    """The record ends in zeros then, as an unfinished one does (regression: it was cut)."""
    path, entry = log_ending_in(tmp_path / "wal", in_a_sector_of_its_own=False)
    assert outcome(path.parent) == [entry]
    overwrite(path, flipped(path.read_bytes(), content(path.read_bytes()) * 8 - 1))
    assert opens_or_refuses(path.parent) is None
    assert repair(UnsyncedDisk(), path.parent).flip is not None
    assert outcome(path.parent) == [entry]


def test_a_sector_that_was_not_written_is_no_flipped_bit(tmp_path: Path) -> None:
    """Where that bit is all that a sector has of the record, it may as well never have been written: it is cut."""
    path, _ = log_ending_in(tmp_path / "wal", in_a_sector_of_its_own=True)
    overwrite(path, flipped(path.read_bytes(), content(path.read_bytes()) * 8 - 1))
    assert outcome(path.parent) == []
    assert read_back(path.parent) == []


def test_two_flipped_bits_are_not_one(tmp_path: Path) -> None:
    """No bit is blamed that is not alone to blame."""
    path = killed_log(tmp_path / "wal", b"first", b"second" * 30, b"third")
    left = path.read_bytes()
    start = [found.offset for found in scan_segment(path) if found.batch][1]
    for first, second in ((64, 65), (70, 700), (400, 900), (1, 800), (1500, 1501)):
        overwrite(path, flipped(flipped(left, start * 8 + first), start * 8 + second))
        with pytest.raises(Corruption) as refused:
            list(Log.open(UnsyncedDisk(), path.parent, read_only=True).replay())
        assert "flips it back" not in str(refused.value), (first, second)
