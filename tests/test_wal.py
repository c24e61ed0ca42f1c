"""The log as its users see it: append, replay, roll, release, close."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.errors import (
    Corruption,
    NotAStore,
    ReadOnly,
    RequestTooLarge,
    StateError,
    StoreClosed,
    WrongStore,
)
from kvstore.files import OSDisk
from kvstore.wal import Batch, Log, LogOptions

SMALL = LogOptions(wal_file_size_bytes=400, wal_buffer_size_bytes=1000)
CLUSTER, MEMBER = 0xABCDEF, 0x77


def make(wal_dir: Path, batches: list[list[bytes]], options: LogOptions = SMALL) -> Log:
    log = Log.create(OSDisk(), wal_dir, CLUSTER, MEMBER, extra=b"who", options=options)
    for number, entries in enumerate(batches):
        log.append(entries, 1000 + number)
    return log


def reopen(wal_dir: Path, after_index: int = 0, *, read_only: bool = False) -> tuple[Log, list[Batch]]:
    log = Log.open(OSDisk(), wal_dir, after_index=after_index, read_only=read_only, options=SMALL)
    return log, list(log.replay())


def numbered(count: int, size: int = 40) -> list[list[bytes]]:
    return [[b"%06d" % number + b"x" * size] for number in range(count)]


def test_what_was_appended_is_replayed_in_order_over_many_segments(tmp_path: Path) -> None:
    """Batches come back with their indexes, times and entries, whatever segment they lie in."""
    wal = tmp_path / "wal"
    batches = [[b"%d-%d" % (i, j) for j in range(i % 4 + 1)] for i in range(60)]
    log = make(wal, batches)
    assert len(log.segments()) > 3
    log.close()
    log, replayed = reopen(wal)
    assert [batch.entries for batch in replayed] == batches
    assert [batch.time_ms for batch in replayed] == [1000 + i for i in range(60)]
    index = 1
    for batch in replayed:
        assert batch.first_index == index
        index = batch.last_index + 1
    assert log.last_index == log.synced_index == index - 1
    log.close()


def test_appending_goes_on_after_a_reopen(tmp_path: Path) -> None:
    """Indexes and the crc chain continue across handles."""
    wal = tmp_path / "wal"
    make(wal, []).close()
    for number in range(25):
        log, replayed = reopen(wal)
        assert len(replayed) == number
        assert log.append([b"entry"], number) == number + 1
        log.close()


def test_replay_begins_after_the_index_asked_for_even_inside_a_batch(tmp_path: Path) -> None:
    """A batch that straddles ``after_index`` is cut; whole segments before it are not read."""
    wal = tmp_path / "wal"
    make(wal, [[b"a%d" % i, b"b%d" % i, b"c%d" % i] for i in range(40)]).close()
    for after in range(121):
        log, replayed = reopen(wal, after)
        entries = [entry for batch in replayed for entry in batch.entries]
        assert len(entries) == 120 - after
        if replayed:
            assert replayed[0].first_index == after + 1
        log.close()


def test_a_log_may_begin_at_any_index(tmp_path: Path) -> None:
    """The first entry of a log made with ``first_index`` has that index."""
    log = Log.create(OSDisk(), tmp_path / "wal", CLUSTER, MEMBER, first_index=501, options=SMALL)
    assert log.append([b"x"], 1) == 501
    log.close()
    log, replayed = reopen(tmp_path / "wal", 500)
    assert replayed == [Batch(501, 1, [b"x"])]
    log.close()
    with pytest.raises(Corruption, match="entries 500 to 500 are missing"):
        Log.open(OSDisk(), tmp_path / "wal", after_index=499)
