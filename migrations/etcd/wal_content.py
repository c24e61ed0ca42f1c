"""What an etcd log says, read as etcd does at its start: metadata, hard state, entries after a snapshot.

An entry replaces the one with its index and all after that: a new leader overwrites what its predecessor
could not commit. ``read_wal`` starts at a snapshot, given by index and term, which a snapshot record of
the log must confirm (index 0 is in every log that begins at the beginning).

``repair_wal`` copies a log without its torn tail. It never touches the original.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.errors import Corruption
from kvstore.files import Disk, OSDisk

from . import messages
from .wal_frame import CRC, ENTRY, METADATA, SNAPSHOT, STATE
from .wal_read import Segment, WalEnd, WalReader, WalRecord, list_segments, select_segments

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """A raft snapshot that the log knows of."""

    index: int = 0
    term: int = 0
    voters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A raft entry and its place."""

    index: int
    term: int
    type: str
    data: bytes = field(repr=False)
    path: Path
    offset: int

    @property
    def kind(self) -> str:
        """``put``, ``txn``, ...; ``v2``; ``empty`` (of a new leader); ``conf_change``, ``conf_change_v2``."""
        if self.type == "EntryConfChange":
            return "conf_change"
        if self.type == "EntryConfChangeV2":
            return "conf_change_v2"
        return messages.request_kind(self.request()) if self.data else "empty"

    def request(self) -> Any:
        """The decoded message; None for an empty entry. ``Corruption`` if it is not one."""
        decode = {
            "EntryNormal": messages.decode_request,
            "EntryConfChange": messages.ConfChange.FromString,
            "EntryConfChangeV2": messages.ConfChangeV2.FromString,
        }.get(self.type)
        if decode is None:
            raise Corruption(f"entry {self.index} is of unknown type {self.type}", self.path, self.offset)
        if not self.data:
            return None
        try:
            return decode(self.data)
        except DecodeError:
            raise Corruption(f"entry {self.index} holds no request", self.path, self.offset) from None


@dataclass(frozen=True, slots=True)
class WalContent:
    """A log from one snapshot on."""

    segments: list[Segment]
    node_id: int
    cluster_id: int
    metadata: bytes
    term: int
    vote: int
    commit: int
    start: SnapshotMark
    entries: list[LogEntry]
    snapshots: list[SnapshotMark]
    end: WalEnd

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else self.start.index


def read_wal(
    wal_dir: str | os.PathLike[str], start: SnapshotMark | None = None, as_etcd: bool = False
) -> WalContent:
    """Read the log from a snapshot on (None: from the beginning)."""
    start = start or SnapshotMark()
    reader = WalReader(select_segments(list_segments(wal_dir), start.index), as_etcd)
    replay = _Replay(start)
    for record in reader:
        replay.add(record)
    return replay.content(reader)


def valid_snapshots(wal_dir: str | os.PathLike[str], as_etcd: bool = False) -> list[SnapshotMark]:
    """The snapshots that the whole log, from its oldest segment, records as committed, in its order."""
    marks: list[SnapshotMark] = []
    commit = 0
    for record in WalReader(_without_gaps(list_segments(wal_dir)), as_etcd):
        if record.type == SNAPSHOT:
            marks.append(_snapshot_mark(record))
        elif record.type == STATE:
            commit = _decode(messages.HardState, record).commit
    return [mark for mark in marks if mark.index <= commit]


def _without_gaps(segments: list[Segment]) -> list[Segment]:
    return select_segments(segments, segments[0].first_index)


def repair_wal(
    wal_dir: str | os.PathLike[str],
    into_dir: str | os.PathLike[str],
    *,
    as_etcd: bool = False,
    disk: Disk | None = None,
) -> WalEnd:
    """Copy the log into a new directory without its torn tail. Returns where that tail began, and why.

    What etcd would not repair is ``Corruption`` here too. With ``as_etcd`` a log that ends early is cut
    there even if more of it follows: that is then lost in the copy, as etcd would lose it.
    """
    disk = disk or OSDisk()
    target = Path(into_dir)
    segments = _without_gaps(list_segments(wal_dir))
    reader = WalReader(segments, as_etcd)
    for _record in reader:
        pass
    end = _end(reader)
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty")
    disk.make_dir(target)
    for segment in segments:
        size_bytes = end.offset if segment.path == end.path else segment.path.stat().st_size
        _copy(segment.path, target / segment.path.name, size_bytes, disk)
    disk.sync_dir(target)
    return end


def _copy(source: Path, target: Path, size_bytes: int, disk: Disk) -> None:
    file = disk.create(target)
    try:
        with open(source, "rb") as original:
            at = 0
            while at < size_bytes:
                chunk = original.read(min(_COPY_BYTES, size_bytes - at))
                if not chunk:
                    raise OSError(f"{source} was truncated while it was being read")
                file.pwrite(chunk, at)
                at += len(chunk)
        file.sync()
    finally:
        file.close()


class _Replay:
    """Collects what records say, in order."""

    def __init__(self, start: SnapshotMark) -> None:
        self.start = start
        self.confirmed = False
        self.metadata: bytes | None = None
        self.state: Any = messages.HardState()
        self.entries: list[LogEntry] = []
        self.snapshots: list[SnapshotMark] = []

    def add(self, record: WalRecord) -> None:
        if record.type == ENTRY:
            self._entry(record)
        elif record.type == STATE:
            self.state = _decode(messages.HardState, record)
        elif record.type == METADATA:
            if self.metadata not in (None, record.data):
                raise Corruption("the log's metadata changes here", record.path, record.offset)
            self.metadata = record.data
        elif record.type == SNAPSHOT:
            self._snapshot(record)
        elif record.type != CRC:
            raise Corruption(f"a record of unknown type {record.type}", record.path, record.offset)

    def _entry(self, record: WalRecord) -> None:
        found = _decode(messages.Entry, record)
        place = found.Index - self.start.index - 1
        if place < 0:
            return
        if place > len(self.entries):
            after = self.start.index + len(self.entries)
            reason = f"entry {found.Index} follows entry {after}: the entries between are missing"
            raise Corruption(reason, record.path, record.offset)
        del self.entries[place:]
        type_name = messages.enum_name("EntryType", found.Type)
        entry = LogEntry(found.Index, found.Term, type_name, found.Data, record.path, record.offset)
        self.entries.append(entry)

    def _snapshot(self, record: WalRecord) -> None:
        mark = _snapshot_mark(record)
        self.snapshots.append(mark)
        if mark.index == self.start.index:
            if mark.term != self.start.term:
                reason = f"snapshot {mark.index} is of term {mark.term}, not {self.start.term}"
                raise Corruption(reason, record.path, record.offset)
            self.confirmed = True

    def content(self, reader: WalReader) -> WalContent:
        end = _end(reader)
        if self.metadata is None:
            raise Corruption("the log has no metadata record", end.path, end.offset)
        if not self.confirmed:
            raise Corruption(f"the log has no record of snapshot {self.start.index}", end.path)
        try:
            identity = messages.Metadata.FromString(self.metadata)
        except DecodeError:
            identity = messages.Metadata()  # not etcd's own, such as a test's
        state = self.state
        return WalContent(
            segments=list(reader.segments),
            node_id=identity.NodeID,
            cluster_id=identity.ClusterID,
            metadata=self.metadata,
            term=state.term,
            vote=state.vote,
            commit=state.commit,
            start=self.start,
            entries=self.entries,
            snapshots=self.snapshots,
            end=end,
        )


def _end(reader: WalReader) -> WalEnd:
    if reader.end is None:
        raise RuntimeError("the log was not read to its end")
    return reader.end


def _snapshot_mark(record: WalRecord) -> SnapshotMark:
    found = _decode(messages.WalSnapshot, record)
    return SnapshotMark(found.index, found.term, tuple(found.conf_state.voters))


def _decode(message: Any, record: WalRecord) -> Any:
    try:
        return message.FromString(record.data)
    except DecodeError:
        raise Corruption("a record does not hold what it says", record.path, record.offset) from None


def iter_records(wal_dir: str | os.PathLike[str], as_etcd: bool = False) -> Iterator[WalRecord]:
    """Every record of a directory's log, from its oldest segment on."""
    yield from WalReader(_without_gaps(list_segments(wal_dir)), as_etcd)
