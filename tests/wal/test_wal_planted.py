"""The crash tests are awake: each fault planted in the log makes one of them fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore import layout
from kvstore.files import Disk
from kvstore.testing.crashes import every_crash
from kvstore.wal import format as fmt
from kvstore.wal import log, writer
from kvstore.wal import tail as recovery
from kvstore.wal.log import Durability
from tests.wal import logs

Plant = Callable[[pytest.MonkeyPatch], None]


def append_without_sync(patch: pytest.MonkeyPatch) -> None:
    def pretend(self: writer.SegmentWriter) -> None:
        self.synced = self.end

    patch.setattr(writer.SegmentWriter, "sync", pretend)


def rename_without_directory_sync(patch: pytest.MonkeyPatch) -> None:
    def install(disk: Disk, path: str) -> None:
        disk.rename(path + layout.TEMP_SUFFIX, path)

    patch.setattr(log, "install_segment", install)


def segment_named_before_it_is_synced(patch: pytest.MonkeyPatch) -> None:
    def prepare(disk: Disk, path: str, metadata: fmt.Metadata, chain: int, size: int) -> None:
        file = disk.create(path + layout.TEMP_SUFFIX)
        file.pwrite(fmt.segment_head(metadata, chain)[0], 0)
        file.close()

    patch.setattr(log, "prepare_segment", prepare)


def roll_without_syncing_the_full_segment(patch: pytest.MonkeyPatch) -> None:
    sync, roll = log.Log.sync, log.Log._roll

    def careless(self: log.Log, full: writer.SegmentWriter) -> writer.SegmentWriter:
        patch.setattr(log.Log, "sync", lambda self: None)
        try:
            return roll(self, full)
        finally:
            patch.setattr(log.Log, "sync", sync)

    patch.setattr(log.Log, "_roll", careless)


def frames_that_claim_an_unsynced_past(patch: pytest.MonkeyPatch) -> None:
    frame = writer.SegmentWriter.frame
    patch.setattr(
        writer.SegmentWriter,
        "frame",
        lambda self, first_index, time_ms, entries, _: frame(self, first_index, time_ms, entries, True),
    )


def torn_tail_taken_for_damage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "why_damaged", lambda reader, offset: "always")


def torn_tail_left_in_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "cut", lambda disk, reader, offset: None)


def crc_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    from kvstore.wal import reader

    def frames(self: reader.SegmentReader) -> Iterator[fmt.Frame]:
        while self.end < self.size_bytes and (frame := self.frame_at(self.end)) is not None:
            self.end, self.chain = frame.end, frame.crc
            yield frame

    patch.setattr(reader.SegmentReader, "frames", frames)


POWER_CUTS: list[tuple[Plant, Durability]] = [
    (append_without_sync, "always"),
    (rename_without_directory_sync, "always"),
    (segment_named_before_it_is_synced, "always"),
    (roll_without_syncing_the_full_segment, "off"),
    (frames_that_claim_an_unsynced_past, "interval"),
    (torn_tail_taken_for_damage, "always"),
    (torn_tail_left_in_place, "always"),
    (crc_not_looked_at, "always"),
]


@pytest.mark.parametrize(
    ("plant", "durability"), POWER_CUTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_planted_fault_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant, durability: Durability
) -> None:
    """Some power cut shows it: an acknowledged entry is missing, or the log does not open."""
    plant(monkeypatch)
    caught = None
    for crash in every_crash(tmp_path, logs.writer(durability, logs.SIZES)):
        try:
            logs.check(crash, logs.all_entries(logs.SIZES))
        except Exception as error:  # whatever a fault leads to; without one, none is raised
            caught = error
            break
    assert caught is not None


def test_a_length_taken_for_the_end_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes any bad frame of the last segment for a torn tail fails the flipped bits."""
    monkeypatch.setattr(recovery, "why_damaged", lambda reader, offset: None)
    with pytest.raises(AssertionError, match="bit"):
        logs.check_every_flipped_bit(tmp_path)
