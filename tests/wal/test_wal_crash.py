"""The log under power cuts, failing calls and damage: nothing acknowledged is lost without an error."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import layout
from kvstore.errors import Corruption, DiskFull, NotAStore, StorePoisoned
from kvstore.files import Disk
from kvstore.testing.crashes import every_crash, every_failure
from kvstore.testing.disk_images import LOST
from kvstore.testing.recording_disk import RecordingDisk, UnsyncedDisk
from kvstore.wal import Log
from kvstore.wal import format as fmt
from kvstore.wal.log import Durability
from tests.wal.logs import (
    OPTIONS,
    SIZES,
    Acknowledge,
    all_entries,
    check,
    check_every_flipped_bit,
    content,
    entry,
    opens_or_refuses,
    outcome,
    overwrite,
    read_back,
    small_log,
    variants,
    writer,
)


@pytest.mark.parametrize("durability", ["always", "interval", "off"])
def test_a_power_cut_in_any_call_loses_nothing_acknowledged(tmp_path: Path, durability: Durability) -> None:
    """Cut in every call of create, append, roll and close, in each way of losing what was not synced."""
    crashes = 0
    for crash in every_crash(tmp_path, writer(durability, SIZES)):
        check(crash, all_entries(SIZES))
        crashes += 1
    assert crashes > 150


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("short", [0, 7, 100, 600])
def test_a_failing_call_loses_nothing_acknowledged(tmp_path: Path, code: int, short: int) -> None:
    """Every call fails once, a write after some bytes of it: the log stops, and opens again."""
    for crash in every_failure(tmp_path, writer("always", SIZES), code, short_write_bytes=short, chances=1):
        check(crash, all_entries(SIZES))


def torn_log(scratch: Path) -> Path:
    """A directory whose log has a torn tail of several sectors after a durable start."""
    for crash in every_crash(scratch, writer("always", SIZES)):
        name = sorted(path.name for path in crash.directory.rglob("*.wal"))[-1:]
        if crash.what.startswith("sync wal") and str(crash.loss).startswith("all but") and name:
            kept = scratch / "torn"
            crash.directory.rename(kept)
            crash.directory.mkdir()
            return kept
    raise AssertionError("no torn tail came up")


def test_a_power_cut_during_recovery_is_recovered_from(tmp_path: Path) -> None:
    """Cut in every call of an open that itself has a torn tail to cut: the next open succeeds."""
    torn = torn_log(tmp_path / "make")
    expected = read_back(torn / "wal", read_only=True)

    calls = set()

    def recover(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        assert isinstance(disk, RecordingDisk)
        log = Log.open(disk, directory / "wal", options=OPTIONS)
        try:
            acknowledge([e for batch in log.replay() for e in batch.entries])
            log.close()
        finally:
            calls.add(disk.calls[-1].split()[0])  # the one that was cut
            log.close()

    for crash in every_crash(tmp_path / "again", recover, start=torn):
        assert read_back(crash.directory / "wal") == expected, str(crash)
        broken = list((crash.directory / "wal").glob("*.broken"))
        assert len(broken) == 1
    assert {"create", "pwrite", "sync", "rename", "sync_dir"} <= calls


def test_a_power_cut_while_releasing_leaves_the_newest_entries(tmp_path: Path) -> None:
    """Cut in every call of a release: what is after the released index is all there."""
    start = tmp_path / "start"
    writer("always", [[300]] * 30)(UnsyncedDisk(), start, lambda _: None)

    def release(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        log = Log.open(disk, directory / "wal", options=OPTIONS)
        try:
            list(log.replay())
            assert log.release(20, max_segments=1)
        finally:
            log.close()

    for crash in every_crash(tmp_path / "again", release, start=start):
        log = Log.open(UnsyncedDisk(), crash.directory / "wal", after_index=20)
        assert [batch.first_index for batch in log.replay()] == list(range(21, 31)), str(crash)
        log.close()


# --- what a handle does after a failure -----------------------------------------------------------


def test_a_failed_sync_poisons_the_log(tmp_path: Path) -> None:
    """After a failed sync every call raises StorePoisoned with the cause, and the entry is not counted."""
    probe = RecordingDisk(tmp_path / "probe")
    probed = Log.create(probe, Path(probe.root) / "wal", 1, 2)
    at = len(probe.calls) + 2
    probed.close()
    disk = RecordingDisk(tmp_path / "root", fail_at={at: errno.EIO})
    log = Log.create(disk, Path(disk.root) / "wal", 1, 2)
    with pytest.raises(OSError):
        log.append([b"x"], 1)
    for call in (lambda: log.append([b"y"], 2), log.sync, lambda: log.release(0)):
        with pytest.raises(StorePoisoned) as caught:
            call()
        assert isinstance(caught.value.__cause__, OSError)
    assert log.last_index == 0
    log.close()
    assert disk.calls[at - 1].startswith("sync ")


def test_a_full_disk_met_while_preparing_lets_the_append_be_tried_again(tmp_path: Path) -> None:
    """No room for zeros or for the next segment is DiskFull, not poison; nothing is lost or doubled."""
    plain = RecordingDisk(tmp_path / "plain")
    writer("always", SIZES)(plain, Path(plain.root), lambda _: None)
    refused = 0
    for call in range(len(plain.calls)):
        disk = RecordingDisk(tmp_path / f"{call}", fail_at={call + 1: errno.ENOSPC}, short_write_bytes=5)
        try:
            log = Log.create(disk, Path(disk.root) / "wal", 1, 2, options=OPTIONS)
        except DiskFull:
            continue
        written: list[bytes] = []
        for batch in SIZES:
            entries = [entry(len(written) + number, size) for number, size in enumerate(batch, 1)]
            try:
                log.append(entries, 5)
            except DiskFull:
                try:
                    log.append(entries, 5)
                except StorePoisoned:
                    break
                refused += 1
            written += entries
        log.close()
        disk.cut_power()
        left = disk.materialise(tmp_path / f"left-{call}", LOST)
        assert read_back(left / "wal")[: len(written)] == written, plain.calls[call]
    assert refused >= 3  # zeros; without room for the next segment appends go on in the last


# --- damage ------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Flip every bit that holds something, in every segment: each time opening is refused."""
    check_every_flipped_bit(tmp_path)


def test_every_cut_is_noticed_or_a_torn_tail(tmp_path: Path) -> None:
    """Cut every segment at every byte: refused, but in the last segment a prefix may be left."""
    wal, entries = small_log(tmp_path)
    last = layout.segments(wal)[-1]
    opened = set()
    for path, name in variants(
        wal, lambda data: ((f"cut at {at}", data[:at]) for at in range(content(data)))
    ):
        found = opens_or_refuses(wal)
        if found is None:
            continue
        assert path == last.path, f"{path.name} {name}"
        assert found == entries[: len(found)] and len(found) >= last.index - 1
        opened.add(len(found))
    assert opened == set(range(last.index - 1, len(entries)))


def frames_of(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 8 <= len(data) and (length := int.from_bytes(data[at : at + 8], "little")):
        size = fmt.frame_size(length, at)
        yield at, size
        at += size


def test_removed_and_doubled_records_are_noticed(tmp_path: Path) -> None:
    """Zero, cut out, double or swap whole records: nothing that had a successor is lost in silence."""
    wal, entries = small_log(tmp_path)
    last = layout.segments(wal)[-1].path

    def changes(data: bytes) -> Iterator[tuple[str, bytes]]:
        frames = list(frames_of(data))
        for position, (at, size) in enumerate(frames):
            before, frame, after = data[:at], data[at : at + size], data[at + size :]
            yield "zeroed", before + bytes(size) + after
            yield "zeroed length", before + bytes(8) + frame[8:] + after
            yield "removed", before + after
            yield "doubled", before + frame + frame + after
            yield "garbage after", before + frame + b"\xff" * 16 + after[16:]
            if position:
                previous, _ = frames[position - 1]
                yield "swapped", data[:previous] + frame + data[previous:at] + after

    for path, name in variants(wal, changes):
        found = opens_or_refuses(wal)
        if found is not None:
            assert path == last and found == entries[:-1], f"{path.name} {name}: {found}"
            assert name in ("zeroed", "removed"), name


def test_a_missing_segment_is_noticed(tmp_path: Path) -> None:
    """A gap, a missing beginning and a missing end that the backend had seen are each refused."""
    wal, entries = small_log(tmp_path)
    first, middle, last = (file.path for file in layout.segments(wal))
    for path in (first, middle):
        data = path.read_bytes()
        path.unlink()
        assert opens_or_refuses(wal) is None
        path.write_bytes(data)
    last.unlink()
    log = Log.open(UnsyncedDisk(), wal, after_index=len(entries), read_only=True)
    with pytest.raises(Corruption, match="but it had entries up to"):
        list(log.replay())


def test_a_foreign_file_is_not_ours(tmp_path: Path) -> None:
    """A file of another kind under a segment's name is NotAStore; an empty or zeroed one is damage."""
    wal = tmp_path / "wal"
    wal.mkdir()
    path = wal / layout.segment_name(0, 0)
    path.write_bytes(
        bytes.fromhex("0400000000000084 08041000 00000000 0600000000000082 080110001a0000 00") + bytes(99)
    )
    with pytest.raises(NotAStore):
        Log.open(UnsyncedDisk(), wal)
    for nothing in (b"", bytes(5), bytes(70000)):
        path.write_bytes(nothing)
        with pytest.raises(Corruption):
            Log.open(UnsyncedDisk(), wal)


def test_a_torn_tail_is_kept_aside(tmp_path: Path) -> None:
    """The segment as it was before its tail was cut lies beside it."""
    wal, entries = small_log(tmp_path)
    last = layout.segments(wal)[-1].path
    torn = last.read_bytes()[: content(last.read_bytes()) - 9]
    last.write_bytes(torn)
    assert read_back(wal) == entries[:-1]
    assert last.with_name(last.name + ".broken").read_bytes() == torn


def test_a_huge_sparse_segment_takes_no_time_and_no_memory(tmp_path: Path) -> None:
    """A file of a terabyte of nothing behind the frames is opened like any other, torn tail and all."""
    wal, entries = small_log(tmp_path)
    last = layout.segments(wal)[-1].path
    cut = content(last.read_bytes()) - 9
    for start in (content(last.read_bytes()), cut):
        with last.open("r+b") as file:
            file.truncate(start)
            file.truncate(1 << 40)
        assert outcome(wal) == (entries if start != cut else entries[:-1])
    assert read_back(wal) == entries[:-1]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 400), st.binary(max_size=40) | st.integers(1, 600).map(bytes)
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=150)
def test_any_overwriting_is_a_prefix_or_an_error(changes: list[tuple[int, int, bytes]]) -> None:
    """Whatever is written over the segments, the log opens to a prefix of its entries or is refused."""
    with tempfile.TemporaryDirectory() as directory:
        wal, entries = small_log(Path(directory))
        files = [file.path for file in layout.segments(wal)]
        for number, at, data in changes:
            old = files[number].read_bytes()
            overwrite(files[number], old[:at] + data + old[at + len(data) :])
        try:
            found = opens_or_refuses(wal)
        except NotAStore:
            return  # so much was overwritten that nothing tells whose segment it was
        if found is not None:
            assert found == entries[: len(found)]
            assert len(found) >= layout.segments(wal)[-1].index - 1
            assert read_back(wal) == found
