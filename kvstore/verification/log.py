"""The log by itself: every frame of every segment, the chain of checksums through all of them, the joins from
segment to segment, dense indexes, and entries that can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvstore import layout
from kvstore.errors import Corruption, DiskFailed, KVStoreError
from kvstore.mvcc import effects
from kvstore.verification.report import LOG, Collector
from kvstore.wal.reader import SegmentReader
from kvstore.wal.replay import Replay
from kvstore.wal.tail import what_is_cut
from kvstore.wire import WireError, fields

ATTEMPTS = 50
"""If there is a writer, it may release a segment while the log is being read; then the log is read again."""


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What was learnt about the log."""

    is_sound: bool
    first_index: int = 0
    last_index: int = 0
    """The last entry that can be reached from the first."""
    cluster_id: int = 0
    member_id: int = 0


def check_log(wal_dir: Path, found: Collector, *, is_live: bool) -> LogFacts | None:
    """Check the log. Returns None if there is no log at all."""
    for attempt in range(ATTEMPTS):
        segments = layout.segments(wal_dir)
        if not segments:
            return None
        try:
            return _read(wal_dir, segments, found, is_live=is_live)
        except FileNotFoundError:
            if not is_live or attempt == ATTEMPTS - 1:
                raise
    return None


def _read(wal_dir: Path, segments: list[layout.NumberedFile], found: Collector, *, is_live: bool) -> LogFacts:
    first = segments[0].index
    total = sum(file.path.stat().st_size for file in segments)
    replay = Replay(None, wal_dir, first - 1, None, segments)
    is_sound, done = True, 0
    entries = 0
    try:
        for batch in replay.batches():
            for index, entry in enumerate(batch.entries, batch.first_index):
                is_sound &= _check_entry(index, entry, found)
                done += len(entry)
            entries += len(batch.entries)
            found.step("log", min(done, total), total)
        if not is_live:
            _note_torn_tail(replay, found)
    except Corruption as damage:
        is_sound = False
        reason = (
            damage.reason
            if "last good entry" in damage.reason
            else (f"{damage.reason}; the last good entry is {replay.last_index}")
        )
        found.add(LOG, reason, path=damage.path or wal_dir, offset=damage.offset)
    except DiskFailed:
        raise  # what could not be read may be sound
    except KVStoreError as error:
        is_sound = False
        found.add_error(LOG, error, wal_dir)
    found.counts["log segments"] += len(segments)
    found.counts["log entries"] += entries
    ids = (replay.metadata.cluster_id, replay.metadata.member_id) if replay.metadata else _ids(segments[0])
    return LogFacts(is_sound, first, replay.last_index, *ids)


def _ids(segment: layout.NumberedFile) -> tuple[int, int]:
    try:
        with SegmentReader(segment.path) as reader:
            _, metadata = reader.head(segment.cluster_id, segment.index)
            return metadata.cluster_id, metadata.member_id
    except KVStoreError:
        return 0, 0


def _check_entry(index: int, entry: bytes, found: Collector) -> bool:
    try:
        kinds = {number for number, _ in fields(entry)}
    except WireError as error:
        found.add(LOG, f"entry {index}: {error}")
        return False
    if unknown := kinds - set(range(effects.REVISION, effects.ROW + 1)):
        found.add(LOG, f"entry {index} has an effect of unknown kind {min(unknown)}")
        return False
    return True


def _note_torn_tail(replay: Replay, found: Collector) -> None:
    with SegmentReader(replay.path) as reader:
        if reader.content_end(replay.end) != replay.end:
            found.notes.append(
                f"{replay.path}, behind the last entry (byte {replay.end}): {what_is_cut(reader, replay.end)}; "
                "nothing there was acknowledged, and the next opening cuts it"
            )
