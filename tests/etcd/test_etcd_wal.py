"""etcd's log: its bytes, its chain over segments, the overwrite rule, torn tails, hostile files."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from kvstore.migrations.etcd import messages
from kvstore.migrations.etcd.wal_content import (
    SnapshotMark,
    iter_records,
    read_wal,
    repair_wal,
    valid_snapshots,
)
from kvstore.migrations.etcd.wal_frame import (
    CRC,
    ENTRY,
    METADATA,
    SNAPSHOT,
    STATE,
    TornFrame,
    crc_of,
    read_frame,
)
from kvstore.migrations.etcd.wal_read import list_segments, parse_segment_name, segment_name, select_segments

from kvstore.errors import Corruption, KVStoreError, NotAStore
from tests.etcd.etcd_log import LogWriter, encode_frame

FIRST = segment_name(0, 0)


def fresh_log(entries: Iterable[int] = ()) -> LogWriter:
    writer = LogWriter()
    writer.snapshot(0, 0)
    for index in entries:
        writer.entry(index, data=value(index))
        writer.state(index)
    return writer


def value(index: int) -> bytes:
    request = messages.InternalRaftRequest()
    request.put.key = b"key%d" % index
    request.put.value = b"v" * (index * 37 % 800)
    return bytes(request.SerializeToString())


def save(directory: Path, data: bytes, name: str = FIRST, room: int = 0) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_bytes(data + bytes(room))
    return path


# --- bytes --------------------------------------------------------------------------------------


def test_frames_are_etcds_to_the_byte() -> None:
    """The frames of a fresh log, as etcd writes them, chain and padding included."""
    assert encode_frame(CRC, 0, None).hex() == "04000000000000840804100000000000"
    assert encode_frame(METADATA, 0, None).hex() == "04000000000000840801100000000000"
    empty_mark = bytes.fromhex("08001000")
    crc = crc_of(empty_mark, 0)
    assert crc == 0x81E6D9A0
    assert encode_frame(SNAPSHOT, crc, empty_mark).hex() == "0e00000000000082080510a0b39b8f081a04080010000000"
    with_data = b"\x08\x00\x10\x00\x18\x01\x22\x08waldata1"
    crc = crc_of(with_data, crc)
    assert crc == 0xF0B705BA
    assert encode_frame(ENTRY, crc, with_data).hex() == (
        "1a00000000000086080210ba8bdc850f1a10080010001801220877616c6461746131000000000000"
    )


def test_a_frame_without_padding_is_read() -> None:
    """The older framing, without padding, is still understood."""
    frame = read_frame(bytes.fromhex("0e00000000000000" + "08011099b5e4d0031a0408effd02"), 0, 22)
    assert (frame.record.type, frame.record.data, frame.end) == (METADATA, bytes.fromhex("08effd02"), 22)
    assert frame.record.crc == crc_of(frame.record.data, 0)


def test_a_frame_cut_anywhere_is_torn() -> None:
    """Each proper prefix of a frame is a torn frame, never another record and never a crash."""
    whole = encode_frame(ENTRY, 7, b"some data")
    for size in range(1, len(whole)):
        with pytest.raises(TornFrame):
            read_frame(whole, 0, size)


def test_etcds_own_fixture(shared: Path, tmp_path: Path) -> None:
    """The log that etcd's own tests keep as the bytes of a new one."""
    data = (shared / "etcd-testdata" / "TestNew.wal").read_bytes()
    save(tmp_path / "wal", data)
    records = list(iter_records(tmp_path / "wal"))
    assert [record.type for record in records] == [CRC, METADATA, SNAPSHOT]
    content = read_wal(tmp_path / "wal")
    assert content.metadata == b"somedata"
    assert (content.entries, content.commit, content.end.torn) == ([], 0, "")
    writer = LogWriter(b"somedata")
    writer.record(SNAPSHOT, bytes.fromhex("08001000"))
    assert bytes(writer.out) == data


# --- which files ----------------------------------------------------------------------------------


def test_names_of_segments() -> None:
    """Two times 16 lower-case hex digits; anything else is no segment."""
    assert parse_segment_name(segment_name(1, 0x5A)) == (1, 0x5A)
    for name in ("01.wal", "abc", FIRST + ".broken", "0.tmp", FIRST.upper(), FIRST[1:]):
        assert parse_segment_name(name) is None


def test_the_right_segments_are_chosen(tmp_path: Path) -> None:
    """The last segment that starts at or before the index, all after it, and none may be missing."""
    for sequence, index in ((0, 0), (1, 10), (2, 20), (3, 30)):
        save(tmp_path, b"", segment_name(sequence, index))
    save(tmp_path, b"", "0.tmp")
    segments = list_segments(tmp_path)
    assert [each.sequence for each in select_segments(segments, 25)] == [2, 3]
    assert [each.sequence for each in select_segments(segments, 10)] == [1, 2, 3]
    assert [each.sequence for each in select_segments(segments, 99)] == [3]
    with pytest.raises(Corruption, match="missing"):
        select_segments([segments[0], segments[2]], 5)
    with pytest.raises(Corruption, match="reaches back"):
        select_segments(segments[2:], 5)
    (tmp_path / "other").mkdir()
    with pytest.raises(NotAStore):
        list_segments(tmp_path / "other")


def two_segments(directory: Path) -> LogWriter:
    writer = fresh_log(range(1, 6))
    save(directory, bytes(writer.out))
    writer.head()
    writer.state(5)
    for index in range(6, 9):
        writer.entry(index, data=value(index))
        writer.state(index)
    save(directory, bytes(writer.out), segment_name(1, 6), room=4096)
    return writer


def test_the_chain_runs_on_through_segments(tmp_path: Path) -> None:
    """Two segments are one log; without the first record's checksum matching they are none."""
    two_segments(tmp_path)
    content = read_wal(tmp_path)
    assert [entry.index for entry in content.entries] == list(range(1, 9))
    assert [entry.kind for entry in content.entries] == ["put"] * 8
    assert content.entries[7].request().put.key == b"key8"
    assert (content.commit, content.end.path.name) == (8, segment_name(1, 6))
    other = fresh_log([1])
    other.head()
    save(tmp_path, bytes(other.out), segment_name(1, 6))
    with pytest.raises(Corruption, match="chain"):
        read_wal(tmp_path)


def test_a_torn_frame_in_an_earlier_segment_is_damage(tmp_path: Path) -> None:
    """Only the last segment may end torn."""
    two_segments(tmp_path)
    path = tmp_path / FIRST
    path.write_bytes(path.read_bytes()[:-3])
    for as_etcd in (False, True):
        with pytest.raises(Corruption) as found:
            read_wal(tmp_path, as_etcd=as_etcd)
        assert found.value.path == str(path)


# --- what they say ----------------------------------------------------------------------------------


def test_a_newer_entry_replaces_the_older_and_all_after_it(tmp_path: Path) -> None:
    """Entries that a new leader overwrote are gone, as raft demands."""
    writer = fresh_log([1, 2, 3, 4])
    writer.entry(3, term=2, data=value(30))
    writer.state(3, term=2)
    save(tmp_path, bytes(writer.out))
    content = read_wal(tmp_path)
    assert [(entry.index, entry.term) for entry in content.entries] == [(1, 1), (2, 1), (3, 2)]
    assert content.entries[2].request().put.key == b"key30"


def test_a_log_is_read_from_a_snapshot_on(tmp_path: Path) -> None:
    """Entries up to the snapshot are left out; the snapshot must be one that the log knows, term included."""
    writer = fresh_log([1, 2, 3])
    writer.snapshot(2, 1)
    writer.snapshot(99, 1)
    writer.entry(4)
    save(tmp_path, bytes(writer.out))
    content = read_wal(tmp_path, SnapshotMark(2, 1))
    assert [(entry.index, entry.kind) for entry in content.entries] == [(3, "put"), (4, "empty")]
    assert [mark.index for mark in valid_snapshots(tmp_path)] == [0, 2]
    with pytest.raises(Corruption, match="term"):
        read_wal(tmp_path, SnapshotMark(2, 7))
    with pytest.raises(Corruption, match="no record of snapshot"):
        read_wal(tmp_path, SnapshotMark(3, 1))


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        (METADATA, b"\x08\x01", "metadata changes"),
        (9, b"data", "unknown type 9"),
        (ENTRY, b"\xff\xff", "does not hold"),
        (STATE, b"\xff\xff", "does not hold"),
        (SNAPSHOT, b"\xff\xff", "does not hold"),
        (ENTRY, messages.Entry(Term=1, Index=7).SerializeToString(), "missing"),
        (ENTRY, messages.Entry(Term=1, Index=(1 << 64) - 1).SerializeToString(), "missing"),
    ],
)
def test_records_that_make_no_sense_are_refused(tmp_path: Path, kind: int, data: bytes, reason: str) -> None:
    """Sound frames with impossible contents are damage at their place."""
    writer = fresh_log([1])
    offset = len(writer.out)
    writer.record(kind, data)
    save(tmp_path, bytes(writer.out))
    with pytest.raises(Corruption, match=reason) as found:
        read_wal(tmp_path)
    assert found.value.offset == offset


def test_an_entry_that_holds_no_request_is_refused_when_asked(tmp_path: Path) -> None:
    """The log is readable around an entry whose data is no request; the entry says where it is."""
    writer = fresh_log()
    writer.entry(1, data=b"\xff\xff\xff")
    save(tmp_path, bytes(writer.out))
    (entry,) = read_wal(tmp_path).entries
    with pytest.raises(Corruption, match="entry 1 holds no request"):
        entry.request()


def test_requests_of_old_servers_are_told_apart(tmp_path: Path) -> None:
    """A bare v2 request, each method of it, is not taken for a request of today."""
    for method in (b"GET", b"PUT", b"POST", b"DELETE", b"QGET", b"SYNC"):
        request = messages.V2Request(ID=7, Method=method, Path=b"/0/version", Val=b"3.4.0", Time=5)
        assert messages.request_kind(messages.decode_request(request.SerializeToString())) == "v2"


# --- torn or lost -------------------------------------------------------------------------------------


def test_a_tail_cut_at_any_byte_loses_only_what_was_cut(tmp_path: Path) -> None:
    """Wherever a crash cuts the file, all whole records before are read and the copy is repaired."""
    writer = fresh_log(range(1, 4))
    data = bytes(writer.out)
    header_end = writer.starts[3]
    for size in range(header_end, len(data)):
        path = save(tmp_path / "wal", data[:size])
        whole = [start for start in writer.starts if start <= size][-1]
        end = read_wal(path.parent).end
        assert (end.offset, bool(end.torn)) == (whole, whole != size)
    repair_wal(path.parent, tmp_path / "copy")
    assert (tmp_path / "copy" / FIRST).read_bytes() == data[:whole]
    with pytest.raises(FileExistsError):
        repair_wal(path.parent, tmp_path / "copy")


def test_a_sector_never_written_is_torn_and_a_flipped_bit_is_not(tmp_path: Path) -> None:
    """In the last record a whole zero sector is a crash's doing; a wrong bit is damage."""
    writer = fresh_log([1])
    last = len(writer.out)
    writer.entry(2, data=b"x" * 4096)
    torn = bytearray(writer.out)
    torn[last + 1024 - last % 512 : last + 1536 - last % 512] = bytes(512)
    content = read_wal(save(tmp_path / "torn", bytes(torn)).parent)
    assert (len(content.entries), content.end.offset) == (1, last)
    assert "sector" in content.end.torn
    flipped = bytearray(writer.out)
    flipped[last + 2000] ^= 1
    with pytest.raises(Corruption, match="checksum"):
        read_wal(save(tmp_path / "flipped", bytes(flipped)).parent, as_etcd=True)


@pytest.mark.parametrize("room", [0, 1 << 16])
def test_a_record_lost_in_the_middle_is_noticed(tmp_path: Path, room: int) -> None:
    """Whichever record of an earlier write is zeroed, what follows it is not silently given up."""
    writer = fresh_log(range(1, 12))
    starts = [*writer.starts, len(writer.out)]
    for number in range(3, len(starts) - 4):
        start, end = starts[number], starts[number + 1]
        zeroed = bytearray(writer.out)
        zeroed[start:end] = bytes(end - start)
        assert (
            len(read_wal(save(tmp_path / "wal", bytes(zeroed), room=room).parent, as_etcd=True).entries) < 11
        )
        with pytest.raises(Corruption) as found:
            read_wal(tmp_path / "wal")
        assert found.value.offset == start


def test_a_hole_in_the_last_write_is_a_crash(tmp_path: Path) -> None:
    """A disk may keep the end of a write that was never synced without its beginning: cut there, as etcd does."""
    writer = fresh_log([1, 2])
    before = len(writer.out)
    writer.state(2)  # not synced by itself
    for index in range(3, 7):
        writer.entry(index, data=bytes([index]) * 2000)
    writer.state(6)
    whole = bytes(writer.out)
    for first in range(before // 512 + 1, len(whole) // 512):
        torn = whole[: first * 512] + bytes(512) + whole[first * 512 + 512 :]
        for as_etcd in (True, False):
            content = read_wal(save(tmp_path, torn).parent, as_etcd=as_etcd)
            assert 2 <= len(content.entries) < 6
    writer.entry(7)
    writer.state(7)
    lost = bytearray(writer.out)
    at = writer.starts[-5]
    lost[at : at + 2000] = bytes(2000)
    with pytest.raises(Corruption, match="more of it follows"):
        read_wal(save(tmp_path, bytes(lost)).parent)


def test_stale_bytes_behind_the_end_are_no_loss(tmp_path: Path) -> None:
    """Text, old values and single look-alike records behind the end prove nothing and stop nobody."""
    writer = fresh_log([1, 2, 3])
    alone = encode_frame(ENTRY, 1234, messages.Entry(Term=1, Index=2, Data=b"old").SerializeToString())
    behind = bytes(64) + b"some text that was here before" + bytes(34) + alone + b"\x08\x02\x10" * 50
    content = read_wal(save(tmp_path, bytes(writer.out) + behind).parent)
    assert len(content.entries) == 3


def test_random_damage_to_logs_ends_in_typed_errors(tmp_path: Path) -> None:
    """Flips, overwrites and cuts anywhere in two segments: a shorter log or a typed error, nothing else."""
    chance = random.Random(11)
    two_segments(tmp_path / "wal")
    originals = {path: path.read_bytes() for path in (tmp_path / "wal").iterdir()}
    for _round in range(1500):
        path = chance.choice(sorted(originals))
        data = bytearray(originals[path])
        for _change in range(chance.choice((1, 1, 3))):
            at = chance.randrange(len(data))
            width = chance.choice((1, 8, 64))
            data[at : at + width] = chance.choice((chance.randbytes(width), bytes(width), b"\xff" * width))
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data) + 1)))])
        for as_etcd in (False, True):
            try:
                content = read_wal(tmp_path / "wal", as_etcd=as_etcd)
                assert [entry.index for entry in content.entries] == list(range(1, len(content.entries) + 1))
            except KVStoreError:
                pass
        path.write_bytes(originals[path])


def test_a_flood_of_look_alikes_is_cut_short(tmp_path: Path) -> None:
    """Many overlapping records that each claim the rest of the file do not make the search quadratic."""
    writer = fresh_log([1])
    room = 1 << 22
    claim = (room // 2).to_bytes(7, "little") + b"\0" + b"\x08\x02\x10\x01\x1a\xff\xff\x01"
    data = bytes(writer.out) + bytes(16) + claim * (room // len(claim))
    with pytest.raises(Corruption):
        read_wal(save(tmp_path, data).parent)
