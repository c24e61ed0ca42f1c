"""The log as its users see it: append, replay, roll, release, close."""

from __future__ import annotations

import errno
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import files, layout
from kvstore.errors import (
    Corruption,
    NotAStore,
    ReadOnly,
    RequestTooLarge,
    StateError,
    StoreClosed,
    TooNew,
    WrongStore,
)
from kvstore.testing.recording_disk import RecordingDisk, UnsyncedDisk
from kvstore.wal import Batch, Log, LogOptions
from kvstore.wal import format as fmt
from kvstore.wal.log import Durability

SMALL = LogOptions(wal_file_size_bytes=400, wal_buffer_size_bytes=1000)
CLUSTER, MEMBER = 0xABCDEF, 0x77


def make(wal_dir: Path, batches: list[list[bytes]], options: LogOptions = SMALL) -> Log:
    log = Log.create(UnsyncedDisk(), wal_dir, CLUSTER, MEMBER, extra=b"who", options=options)
    for number, entries in enumerate(batches):
        log.append(entries, 1000 + number)
    return log


def reopen(wal_dir: Path, after_index: int = 0, *, read_only: bool = False) -> tuple[Log, list[Batch]]:
    log = Log.open(UnsyncedDisk(), wal_dir, after_index=after_index, read_only=read_only, options=SMALL)
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
    log = Log.create(UnsyncedDisk(), tmp_path / "wal", CLUSTER, MEMBER, first_index=501, options=SMALL)
    assert log.append([b"x"], 1) == 501
    log.close()
    log, replayed = reopen(tmp_path / "wal", 500)
    assert replayed == [Batch(501, 1, [b"x"])]
    log.close()
    with pytest.raises(Corruption, match="entries 500 to 500 are missing"):
        Log.open(UnsyncedDisk(), tmp_path / "wal", after_index=499)


# --- batches, options, states ------------------------------------------------------------------


def test_a_batch_larger_than_the_buffer_is_refused_but_a_single_entry_is_not(tmp_path: Path) -> None:
    """The caller splits groups at wal_buffer_size; one entry that is larger by itself is written."""
    log = make(tmp_path / "wal", [])
    with pytest.raises(RequestTooLarge):
        log.append([b"x" * 600, b"y" * 600], 1)
    with pytest.raises(ValueError, match="without entries"):
        log.append([], 1)
    assert log.append([b"z" * 5000], 1) == 1
    log.close()
    log, replayed = reopen(tmp_path / "wal")
    assert replayed[0].entries == [b"z" * 5000]
    log.close()


def test_a_handle_refuses_what_its_state_does_not_allow(tmp_path: Path) -> None:
    """Append before replay, replay twice, append when read-only or closed: each a typed error."""
    wal = tmp_path / "wal"
    make(wal, numbered(3)).close()
    log = Log.open(UnsyncedDisk(), wal)
    with pytest.raises(StateError, match="replay"):
        log.append([b"x"], 1)
    list(log.replay())
    with pytest.raises(StateError, match="already"):
        list(log.replay())
    log.close()
    log.close()
    with pytest.raises(StoreClosed):
        log.append([b"x"], 1)
    log, replayed = reopen(wal, read_only=True)
    assert len(replayed) == 3
    with pytest.raises(ReadOnly):
        log.append([b"x"], 1)
    log.close()


def test_a_directory_holds_one_log(tmp_path: Path) -> None:
    """Creating over a log, opening nothing, and segments of two stores side by side are refused."""
    make(tmp_path / "wal", numbered(1)).close()
    with pytest.raises(WrongStore):
        Log.create(UnsyncedDisk(), tmp_path / "wal", 1, 2)
    with pytest.raises(NotAStore):
        Log.open(UnsyncedDisk(), tmp_path / "empty")
    Log.create(UnsyncedDisk(), tmp_path / "other", CLUSTER + 1, MEMBER).close()
    (segment,) = (tmp_path / "other").iterdir()
    segment.rename(tmp_path / "wal" / segment.name)
    with pytest.raises(WrongStore, match="several stores"):
        Log.open(UnsyncedDisk(), tmp_path / "wal")


def test_who_the_log_belongs_to_is_in_every_segment(tmp_path: Path) -> None:
    """Cluster, member and the maker's bytes are there after the first segment is gone."""
    wal = tmp_path / "wal"
    log = make(wal, numbered(30))
    assert log.release(30, max_segments=1)
    log.close()
    log = Log.open(UnsyncedDisk(), wal, after_index=29)
    assert (log.metadata.cluster_id, log.metadata.member_id, log.metadata.extra) == (CLUSTER, MEMBER, b"who")
    log.close()


def test_a_segment_of_another_member_is_refused(tmp_path: Path) -> None:
    """A segment with the right name and the wrong member id belongs to another store."""
    wal = tmp_path / "wal"
    make(wal, numbered(30)).close()
    last = max(wal.iterdir())
    first_index = int(last.name[17:33], 16)
    last.unlink()
    Log.create(UnsyncedDisk(), tmp_path / "other", CLUSTER, MEMBER + 1, first_index=first_index).close()
    (tmp_path / "other" / last.name).rename(last)
    with pytest.raises(WrongStore, match="another store"):
        reopen(wal)


def test_a_later_format_is_too_new(tmp_path: Path) -> None:
    """A segment of a later format version is TooNew, not damage."""
    wal = tmp_path / "wal"
    wal.mkdir()
    metadata = fmt.Metadata(CLUSTER, MEMBER, 1, 0, version=2)
    path = wal / layout.segment_name(CLUSTER, 1)
    path.write_bytes(fmt.segment_head(metadata, 0)[0] + bytes(100))
    with pytest.raises(TooNew, match="format 2"):
        Log.open(UnsyncedDisk(), wal)


def test_a_record_type_of_a_later_format_is_too_new(tmp_path: Path) -> None:
    """A sound record of a type that is not known here is TooNew, not damage."""
    wal = tmp_path / "wal"
    make(wal, []).close()
    (path,) = wal.iterdir()
    head, chain = fmt.segment_head(Log.open(UnsyncedDisk(), wal).metadata, 0)
    seed = fmt.segment_seed(CLUSTER, 1)
    frame = fmt.encode_frame(seed, len(head), 9, crc32c(b"new", chain), len(head), b"new")
    path.write_bytes(head + frame + bytes(100))
    with pytest.raises(TooNew, match="type 9"):
        reopen(wal)


def test_stale_temporary_files_are_removed_at_open(tmp_path: Path) -> None:
    """What an interrupted roll or copy left behind goes away, and does not stand in its way."""
    wal = tmp_path / "wal"
    make(wal, numbered(2)).close()
    for index in range(4):
        (wal / (layout.segment_name(CLUSTER, index) + ".tmp")).write_bytes(b"half")
    log, _ = reopen(wal)
    assert not list(wal.glob("*.tmp"))
    (wal / (layout.segment_name(CLUSTER, 3) + ".tmp")).write_bytes(b"half")
    for entries in numbered(20):
        log.append(entries, 1)
    log.close()
    assert len(reopen(wal, read_only=True)[1]) == 22


@pytest.mark.parametrize("durability", ["interval", "off"])
def test_lazy_durability_syncs_when_told_and_when_closed(tmp_path: Path, durability: str) -> None:
    """``synced_index`` follows sync(), rolling and close, not append."""
    disk = RecordingDisk(tmp_path / "root")
    options = LogOptions(durability=durability)  # type: ignore[arg-type]  # parametrized with its values
    log = Log.create(disk, Path(disk.root) / "wal", CLUSTER, MEMBER, options=options)
    log.append([b"a"], 1)
    log.append([b"b"], 1)
    assert (log.last_index, log.synced_index) == (2, 0)
    log.sync()
    assert log.synced_index == 2
    syncs = sum(call.startswith("sync ") for call in disk.calls)
    log.sync()
    assert sum(call.startswith("sync ") for call in disk.calls) == syncs, "nothing to sync, yet it did"
    log.append([b"c"], 1)
    log.close()
    left = disk.materialise(tmp_path / "left")
    assert [batch.entries for batch in reopen(left / "wal", read_only=True)[1]] == [[b"a"], [b"b"], [b"c"]]


def test_an_append_is_one_write_and_one_sync(tmp_path: Path) -> None:
    """A durable append costs one pwrite and one sync, whatever the number of its entries."""
    disk = RecordingDisk(tmp_path / "root")
    log = Log.create(disk, Path(disk.root) / "wal", CLUSTER, MEMBER)
    before = len(disk.calls)
    log.append([b"x" * 100] * 50, 1)
    assert [call.split()[0] for call in disk.calls[before:]] == ["pwrite", "sync"]
    log.close()


# --- laying zeros ------------------------------------------------------------------------------


def test_zeros_are_laid_ahead_and_appends_use_them(tmp_path: Path) -> None:
    """After fill_ahead a run of appends extends nothing; a small log stays a small file."""
    disk = RecordingDisk(tmp_path / "root")
    log = Log.create(disk, Path(disk.root) / "wal", CLUSTER, MEMBER)
    assert log.segments()[0].size_bytes <= 64 << 10
    log.append([bytes(60_000)], 1)
    assert log.fill_ahead() > 0
    assert log.fill_ahead() == 0
    before = len(disk.calls)
    log.append([bytes(20_000)], 1)
    log.append([bytes(20_000)], 1)
    assert [call.split()[0] for call in disk.calls[before:]] == ["pwrite", "sync"] * 2
    log.close()
    assert log.fill_ahead() == 0
    log, replayed = reopen(Path(disk.root) / "wal")
    assert len(replayed) == 3
    log.close()


def test_a_closed_log_has_no_zeros_ahead_and_accepts_appends(tmp_path: Path) -> None:
    """Closing gives the zeros back: the file ends with its last frame; the next handle goes on there."""
    log = make(tmp_path, [[b"one"], [b"two"]], LogOptions())
    (segment,) = log.segments()
    log.close()
    size = segment.path.stat().st_size
    assert size < segment.size_bytes
    assert any(segment.path.read_bytes()[-8:])  # padding takes 7 bytes at most
    for third in (b"three", b"four"):
        log, _ = reopen(tmp_path)
        assert segment.path.stat().st_size == size
        log.append([third], 3)
        log.close()
        assert segment.path.stat().st_size > size
        size = segment.path.stat().st_size
    _, batches = reopen(tmp_path)
    assert [batch.entries for batch in batches] == [[b"one"], [b"two"], [b"three"], [b"four"]]


@pytest.mark.parametrize("applied", [0, 1, 2])
def test_only_what_the_caller_has_not_kept_is_synced_at_open(tmp_path: Path, applied: int) -> None:
    """Entries to be acted on are synced before the first is handed out; without any, opening syncs nothing."""
    make(tmp_path, [[b"one"], [b"two"]]).close()
    disk = RecordingDisk(tmp_path)
    log = Log.open(disk, tmp_path, after_index=applied, options=SMALL)
    for _ in log.replay():
        assert [call.split()[0] for call in disk.calls][:2] == ["sync_file", "sync_dir"]
    assert any(call.startswith("sync") for call in disk.calls) == (applied < 2)
    log.close()


def test_laying_zeros_beside_appends_never_touches_them(tmp_path: Path) -> None:
    """Zeros laid by another thread all the while leave every entry as it was, over many rolls."""
    options = LogOptions(wal_file_size_bytes=1_000_000, durability="off")
    log = Log.create(UnsyncedDisk(), tmp_path / "wal", CLUSTER, MEMBER, options=options)
    running = True

    def lay() -> None:
        while running:
            log.fill_ahead()

    thread = threading.Thread(target=lay)
    thread.start()
    for number in range(400):
        log.append([b"%d" % number + b"x" * 10_000], 1)
    running = False
    thread.join()
    log.close()
    log, replayed = reopen(tmp_path / "wal")
    assert [batch.entries[0][:-10_000] for batch in replayed] == [b"%d" % number for number in range(400)]
    log.close()


# --- releasing -----------------------------------------------------------------------------------


def test_release_keeps_what_is_needed_and_the_newest(tmp_path: Path) -> None:
    """Whole segments at or below the index go, oldest first, down to max_segments; never the last."""
    wal = tmp_path / "wal"
    log = make(wal, numbered(40))
    infos = log.segments()
    assert infos[0].first_index == 1 and infos[-1].last_index == 40
    for info, following in pairwise(infos):
        assert info.last_index + 1 == following.first_index
    assert log.release(40) == [], "max_segments 0 keeps all"
    assert log.release(infos[1].last_index - 1, max_segments=1) == [infos[0].path]
    assert log.release(infos[1].last_index, max_segments=1) == [infos[1].path]
    assert log.release(40, max_segments=3) == [info.path for info in infos[2:-3]]
    assert len(log.release(1000, max_segments=1)) == 2
    assert [info.path for info in log.segments()] == [infos[-1].path]
    log.append([b"still works"], 1)
    log.close()
    with pytest.raises(Corruption, match="entries 1 to"):
        Log.open(UnsyncedDisk(), wal)
    log, replayed = reopen(wal, 40)
    assert [batch.entries for batch in replayed] == [[b"still works"]]
    log.close()


def test_released_segments_can_be_archived(tmp_path: Path) -> None:
    """With an archive directory they are moved there, and together with the rest are the whole log."""
    wal, archive = tmp_path / "wal", tmp_path / "archive"
    log = make(wal, numbered(40))
    removed = log.release(40, max_segments=1, archive_dir=archive)
    log.close()
    assert [path.name for path in removed] == sorted(path.name for path in archive.iterdir())
    for path in wal.iterdir():
        path.rename(archive / path.name)
    assert len(reopen(archive)[1]) == 40


class OtherFileSystem(UnsyncedDisk):
    """A disk whose archive lies on another file system."""

    def rename(self, source: files.Path, target: files.Path) -> None:
        if "archive" in str(target) and "archive" not in str(source):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        super().rename(source, target)


def test_an_archive_may_be_on_another_file_system(tmp_path: Path) -> None:
    """Where a rename cannot reach, the segment is copied and then removed."""
    wal, archive = tmp_path / "wal", tmp_path / "archive"
    log = Log.create(OtherFileSystem(), wal, CLUSTER, MEMBER, options=SMALL)
    for entries in numbered(40):
        log.append(entries, 1)
    originals = {path.name: path.read_bytes() for path in wal.iterdir()}
    removed = log.release(40, max_segments=1, archive_dir=archive)
    log.close()
    assert len(removed) == len(originals) - 1
    assert {path.name: path.read_bytes() for path in archive.iterdir()}.items() <= originals.items()
    assert [path.name for path in wal.iterdir()] == [max(originals)]


# --- marks -----------------------------------------------------------------------------------------


def test_a_mark_gives_the_same_replay(tmp_path: Path) -> None:
    """Every mark, with every index to begin after, gives what a replay without it gives."""
    wal = tmp_path / "wal"
    log = Log.create(UnsyncedDisk(), wal, CLUSTER, MEMBER, options=SMALL)
    marks = [log.mark]
    for number in range(25):
        log.append([b"a%d" % number, b"b%d" % number], number)
        marks.append(log.mark)
    log.close()
    for mark in [*marks, b"nonsense", b"\xff" * 32, marks[3][:-1] + b"\x01"]:
        for after in range(0, 51, 3):
            log = Log.open(UnsyncedDisk(), wal, after_index=after, mark=mark, options=SMALL)
            entries = [entry for batch in log.replay() for entry in batch.entries]
            assert entries == [b"%c%d" % (b"ab"[i % 2], i // 2) for i in range(after, 50)]
            assert log.mark == marks[-1]
            log.close()


def test_a_mark_spares_reading_what_lies_before_it(tmp_path: Path) -> None:
    """With a mark the log opens past damage in entries that are not asked for; without, it is refused."""
    wal = tmp_path / "wal"
    log = Log.create(UnsyncedDisk(), wal, CLUSTER, MEMBER)
    for entries in numbered(10):
        log.append(entries, 1)
    mark = log.mark
    log.append([b"last"], 1)
    log.close()
    (path,) = wal.iterdir()
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corruption):
        reopen(wal, 10)
    log = Log.open(UnsyncedDisk(), wal, after_index=10, mark=mark)
    assert [batch.entries for batch in log.replay()] == [[b"last"]]
    assert log.append([b"more"], 1) == 12
    log.close()


# --- beside a writer, and in any order ------------------------------------------------------------------


def test_a_reader_beside_a_writer_sees_a_prefix(tmp_path: Path) -> None:
    """Opened read-only at any time, the log is whole up to some batch, and is not changed."""
    wal = tmp_path / "wal"
    log = make(wal, [])
    for number, entries in enumerate(numbered(30), 1):
        log.append(entries, 1)
        before = {path.name: path.read_bytes() for path in wal.iterdir()}
        assert len(reopen(wal, read_only=True)[1]) == number
        assert {path.name: path.read_bytes() for path in wal.iterdir()} == before
    log.close()


@given(
    st.lists(
        st.one_of(
            st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.sampled_from(["reopen", "fill"])
        )
    ),
    st.integers(1, 2000),
    st.sampled_from(["always", "interval", "off"]),
)
@settings(max_examples=60)
def test_any_run_of_appends_comes_back(
    steps: list[list[bytes] | str], size: int, durability: Durability
) -> None:
    """Whatever is appended, with whatever segment size and reopening, is what is replayed."""
    options = LogOptions(wal_file_size_bytes=size, durability=durability)
    with tempfile.TemporaryDirectory() as directory:
        wal = Path(directory) / "wal"
        log = Log.create(UnsyncedDisk(), wal, 1, 2, options=options)
        written: list[list[bytes]] = []
        for step in [*steps, "reopen"]:
            if step == "fill":
                log.fill_ahead()
            elif step == "reopen":
                log.close()
                log = Log.open(UnsyncedDisk(), wal, options=options)
                assert [batch.entries for batch in log.replay()] == written
            elif isinstance(step, list):
                log.append(step, 1)
                written.append(step)
        log.close()
