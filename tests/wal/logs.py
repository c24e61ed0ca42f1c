"""Logs to be damaged: how they are written, read back, and what their reader has to say."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from kvstore import layout
from kvstore.errors import Corruption
from kvstore.files import Disk
from kvstore.testing.crashes import Crash
from kvstore.testing.recording_disk import UnsyncedDisk
from kvstore.wal import Log, LogOptions
from kvstore.wal import format as fmt
from kvstore.wal.log import Durability

OPTIONS = LogOptions(wal_file_size_bytes=1300)
Acknowledge = Callable[[list[bytes]], None]


def entry(number: int, size: int = 0) -> bytes:
    return b"entry %d " % number + b"v" * size


def read_back(wal: Path, *, read_only: bool = False) -> list[bytes]:
    """Every entry of the log. Having opened it, append to it, and read it all again, before it is closed and after."""
    log = Log.open(UnsyncedDisk(), wal, read_only=read_only, options=OPTIONS)
    entries = [entry for batch in log.replay() for entry in batch.entries]
    assert log.last_index == len(entries)
    if not read_only:
        log.append([b"appended after recovery"], 1)
        assert _all(wal, read_only=True) == [*entries, b"appended after recovery"]
    log.close()
    if not read_only:
        assert _all(wal, read_only=False) == [*entries, b"appended after recovery"]
    return entries


def _all(wal: Path, *, read_only: bool) -> list[bytes]:
    log = Log.open(UnsyncedDisk(), wal, read_only=read_only, options=OPTIONS)
    entries = [entry for batch in log.replay() for entry in batch.entries]
    log.close()
    return entries


def writer(durability: Durability, sizes: list[list[int]]) -> Callable[[Disk, Path, Acknowledge], None]:
    """A workload: create, append batches of entries of these sizes, rolling on the way, close."""
    options = LogOptions(wal_file_size_bytes=1300, durability=durability)

    def run(disk: Disk, directory: Path, acknowledge: Acknowledge) -> None:
        log = Log.create(disk, directory / "wal", 1, 2, options=options)
        numbers = itertools.count(1)
        unsynced: list[bytes] = []
        try:
            acknowledge([])
            for position, batch in enumerate(sizes):
                entries = [entry(next(numbers), size) for size in batch]
                log.append(entries, 5)
                unsynced += entries
                if durability != "always" and position % 4 == 3:
                    log.sync()
                if log.synced_index == log.last_index:
                    acknowledge(unsynced)
                    unsynced = []
                if position % 2:
                    log.fill_ahead()
        finally:
            log.close()
        acknowledge(unsynced)

    return run


SIZES = [[30], [100, 0, 600], [700], [10], [10], [2000], [1, 2, 3], [500], [600, 100]]


def all_entries(sizes: list[list[int]]) -> list[bytes]:
    return [entry(number, size) for number, size in enumerate(itertools.chain(*sizes), 1)]


def check(crash: Crash, written: list[bytes]) -> None:
    """All that was acknowledged is there, and what else there is, is a prefix of what was written."""
    wal = crash.directory / "wal"
    acknowledged = list(itertools.chain(*crash.acknowledged))
    if not layout.segments(wal):
        assert not crash.acknowledged, f"the log is gone: {crash}"
        return
    entries = read_back(wal)
    assert entries == written[: len(entries)], f"not what was written: {crash}"
    assert entries[: len(acknowledged)] == acknowledged, f"acknowledged entries are lost: {crash}"


def small_log(directory: Path) -> tuple[Path, list[bytes]]:
    """Three segments of small entries, one of which looks like a frame; the entries."""
    frame = fmt.encode_frame(
        fmt.segment_seed(1, 1), 96, fmt.BATCH, 123, 96, fmt.encode_batch(2, 1, [b"fake"])
    )
    entries = [
        b"first",
        frame * 2,
        b"third" * 20,
        b"",
        b"fifth" * 9,
        frame,
        b"seventh" * 7,
        b"eighth" * 5,
        b"ninth",
    ]
    wal = directory / "wal"
    log = Log.create(UnsyncedDisk(), wal, 1, 2, options=LogOptions(wal_file_size_bytes=250))
    for number, data in enumerate(entries):
        log.append([data], 1000 + number)
    log.close()
    assert len(layout.segments(wal)) == 3
    return wal, entries


def outcome(wal: Path) -> list[bytes] | None:
    """What the log opens to, read-only; None for a typed error that names the file."""
    log = Log.open(UnsyncedDisk(), wal, read_only=True)
    try:
        return [entry for batch in log.replay() for entry in batch.entries]
    except Corruption as error:
        assert error.path and error.offset >= 0
        return None
    finally:
        log.close()


def variants(wal: Path, change: Callable[[bytes], Iterator[tuple[str, bytes]]]) -> Iterator[tuple[Path, str]]:
    """Each segment in each changed form, the last one first; the original is put back afterwards."""
    for file in reversed(layout.segments(wal)):
        original = file.path.read_bytes()
        for name, changed in change(original):
            overwrite(file.path, changed)
            yield file.path, name
        overwrite(file.path, original)


def overwrite(path: Path, data: bytes) -> None:
    """Like write_bytes, but in place: several times as fast where it is done thousands of times."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def opens_or_refuses(wal: Path) -> list[bytes] | None:
    try:
        return outcome(wal)
    except Corruption as error:
        assert error.path
        return None


def content(data: bytes) -> int:
    return len(data.rstrip(b"\0"))


def check_every_flipped_bit(directory: Path) -> None:
    """Each flipped bit that holds something is refused, in every segment."""
    wal, entries = small_log(directory)
    assert outcome(wal) == entries

    def flips(data: bytes) -> Iterator[tuple[str, bytes]]:
        for bit in range(content(data) * 8):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            yield f"bit {bit}", bytes(changed)

    for path, name in variants(wal, flips):
        assert opens_or_refuses(wal) is None, f"{path.name} {name}"
