"""What can be read of a damaged log of etcd's: the entries that follow a database without a gap, to be applied to it.

    frames    sound sound | damage | seed sound sound | zeros
                                     ^ the next place where two frames in a row are chained by their checksums

The CRC of a record runs on from the record before. After damage the first record that is found cannot be checked by
it; it serves as the seed for those after, and its own content is not used.

Entries say what was asked for. What came of it depends on everything before: so only entries that follow the database
with none missing are applied, and only to a database of which nothing is missing. The others are counted;
``kvstore wal dump`` shows them.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from kvstore.backend import Backend
from kvstore.errors import Corruption
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.state import State
from kvstore.replay import CHECKPOINT_BYTES

from . import messages
from .log_replay import LogReplay
from .wal_content import LogEntry
from .wal_frame import (
    CRC,
    ENTRY,
    METADATA,
    SNAPSHOT,
    STATE,
    EndOfSegment,
    Frame,
    FrameError,
    Record,
    crc_of,
    read_frame,
)
from .wal_read import list_segments, record_starts

SEGMENT_BYTES = 64_000_000
"""What the last segment of a log has from the start, unless it was cut or copied without the zeros at its end."""


class SalvagedLog:
    """The entries of a log whose checksums hold, and what else was found."""

    def __init__(self, wal_dir: Path) -> None:
        self.entries: dict[int, LogEntry] = {}
        self.commit = 0
        self.cluster_id = self.node_id = 0
        self.unread: list[str] = []
        self.records = 0
        self._snapshots: list[int] = []
        segments = list_segments(wal_dir)
        for before, segment in zip([None, *segments], segments, strict=False):
            if before is not None and segment.sequence != before.sequence + 1:
                self.unread.append(
                    f"{segment.path.name}: segments between {before.path.name} and it are missing"
                )
            self._segment(segment.path)
        last = segments[-1].path
        if last.stat().st_size < SEGMENT_BYTES:
            self.unread.append(
                f"{last.name}: {last.stat().st_size} bytes, and etcd lays out {SEGMENT_BYTES}: its end may be missing"
            )

    def _segment(self, path: Path) -> None:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                self.unread.append(f"{path.name}: an empty file")
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for offset, record in self._sound(data, path):
                    self.records += 1
                    self._add(record, path, offset)

    def _sound(self, data: mmap.mmap, path: Path) -> Iterator[tuple[int, Record]]:
        """(offset, record) of each record whose checksum holds."""
        at, chain, end = 0, None, len(data)
        while True:
            try:
                frame = read_frame(data, at, end, False)
                if frame.record.type == CRC and at == 0:
                    chain = frame.record.crc
                elif chain is None or crc_of(frame.record.data, chain) != frame.record.crc:
                    raise FrameError("checksum mismatch")
                yield at, frame.record
            except (EndOfSegment, FrameError) as error:
                seed = _next_chained(data, at + 1)
                if seed is None and isinstance(error, EndOfSegment):
                    return
                until = "to its end" if seed is None else f"to {seed[0]}"
                reason = str(error) or "zeros where records should be"
                self.unread.append(f"{path.name}: bytes {at} {until}: {reason}")
                if seed is None:
                    return
                _, frame = seed
            chain = frame.record.crc
            at = frame.end

    def _add(self, record: Record, path: Path, offset: int) -> None:
        try:
            if record.type == ENTRY:
                found = messages.Entry.FromString(record.data)
                for index in [index for index in self.entries if index > found.Index]:
                    del self.entries[index]
                kind = messages.enum_name("EntryType", found.Type)
                self.entries[found.Index] = LogEntry(found.Index, found.Term, kind, found.Data, path, offset)
            elif record.type == STATE:
                self.commit = max(self.commit, messages.HardState.FromString(record.data).commit)
            elif record.type == SNAPSHOT:
                self._snapshots.append(messages.WalSnapshot.FromString(record.data).index)
            elif record.type == METADATA:
                identity = messages.Metadata.FromString(record.data)
                self.cluster_id, self.node_id = identity.ClusterID, identity.NodeID
        except DecodeError:
            self.unread.append(f"{path.name}: byte {offset}: a record that does not hold what it says")

    @property
    def begins_with_a_restore(self) -> bool:
        """Whether its cluster was made from a snapshot, whose keys no entry has."""
        first = min(
            (entry.index for entry in self.entries.values() if entry.type == "EntryNormal"), default=0
        )
        return any(0 < index < first or (index and not first) for index in self._snapshots)

    def makes_all(self, index: int) -> bool:
        """Whether nothing but the log is needed for a store that had at least entry ``index``."""
        last = max(self.entries, default=0)
        has_gap = self.unread or self.begins_with_a_restore or len(self.entries) != last
        return not has_gap and last >= index

    def after(self, index: int, *, alone: bool) -> tuple[list[LogEntry], int]:
        """Committed entries that follow ``index`` without a gap, and how many there are beyond the gap.

        ``alone``: the member is its cluster's only one, and commits whatever it has.
        """
        last = max(self.entries, default=0) if alone else self.commit
        following = []
        while (entry := self.entries.get(index + 1)) is not None and entry.index <= last:
            following.append(entry)
            index += 1
        return following, sum(1 for each in self.entries if index < each <= last)


def _next_chained(data: mmap.mmap, at: int) -> tuple[int, Frame] | None:
    """The next frame that the one after it continues."""
    at += -at % 8
    for start in record_starts(data, at):
        try:
            frame = read_frame(data, start, len(data), False)
            after = read_frame(data, frame.end, len(data), False).record
        except (EndOfSegment, FrameError):
            continue
        if after.type != CRC and after.data and crc_of(after.data, frame.record.crc) == after.crc:
            return start, frame
    return None


def apply_entries(backend: Backend, entries: list[LogEntry]) -> list[str]:
    """Apply entries to a backend. Returns notes; stops, with a note, at the first that cannot be applied."""
    now_ms = time.time_ns() // 1_000_000
    state = State(backend)
    replay = LogReplay(state, Lessor.loaded(backend), now_ms)
    notes: list[str] = []
    try:
        for entry in entries:
            replay.apply(entry)
            if state.waiting_bytes > CHECKPOINT_BYTES:
                write_now(state, now_ms)
    except Corruption as damage:
        notes.append(f"{damage.reason}: it and what follows are not applied")
    write_now(state, now_ms)
    return notes + list(replay.notes)
