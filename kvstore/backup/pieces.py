"""The log of a store, read as it grows, in pieces: runs of whole records of one segment, as bytes.

    held      the segments that are not at the target yet stay open, so that whoever writes the store may release
              them: what a descriptor refers to can be read to the end. That takes room on the disk, so there is a limit
              (follower.py)
    read      from a ``Place`` on, record by record, each checked as in a recovery, as far as it is durable

Reads only. An unfinished record at the end is left for the next time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kvstore import layout, wire
from kvstore.errors import Corruption, KVStoreError, StoreUnreachable, WrongStore
from kvstore.layout import NumberedFile
from kvstore.mvcc.effects import REVISION
from kvstore.wal import format as fmt
from kvstore.wal import tail
from kvstore.wal.reader import SegmentReader


class Gap(KVStoreError):
    """The log does not go on from the place any more: segments were released, or it is another history."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next piece begins: after the last record of the one before."""

    segment: int
    end: int
    chain: int
    last_offset: int
    last_chain: int
    last_first_index: int
    last_index: int
    revision: int
    time_ms: int


@dataclass(slots=True)
class Content:
    """A piece, read."""

    place: Place
    """Its end."""
    start: int
    chain_before: int
    first_index: int
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class HeldLog:
    """The segments of a log, kept open from when they are first seen until they are let go."""

    def __init__(self, wal_dir: Path, cluster_id: int) -> None:
        self._wal_dir = wal_dir
        self._cluster_id = cluster_id
        self._files: dict[int, NumberedFile] = {}

    def look(self) -> list[NumberedFile]:
        """Open what is new; all that is held, oldest first."""
        try:
            segments = layout.segments(self._wal_dir)
            if not segments and not self._wal_dir.is_dir():
                raise FileNotFoundError(2, "no such directory")
            for file in segments:
                if file.cluster_id != self._cluster_id:
                    raise WrongStore(f"{self._wal_dir} holds another store now", self._wal_dir)
                with suppress(FileNotFoundError):  # released meanwhile
                    self._hold(file)
        except OSError as error:
            raise StoreUnreachable(self._wal_dir, error.strerror or "is gone") from error
        return [self._files[index] for index in sorted(self._files)]

    def _hold(self, file: NumberedFile) -> None:
        held = self._files.get(file.index)
        if held is not None:
            if os.path.samestat(os.fstat(held.descriptor), os.stat(file.path)):
                return
            os.close(self._files.pop(file.index).descriptor)
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._files[file.index] = replace(file, descriptor=descriptor)

    def let_go(self, before: int) -> None:
        """Close the segments below the one that begins with entry ``before``."""
        for index in [index for index in self._files if index < before]:
            os.close(self._files.pop(index).descriptor)

    @property
    def released_bytes(self) -> int:
        """The room on the disk that only this keeps from being free."""
        states = [os.fstat(file.descriptor) for file in self._files.values()]
        return sum(state.st_size for state in states if state.st_nlink == 0)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1].descriptor)


def joint(files: list[NumberedFile], index: int, member_id: int) -> tuple[int, int, int] | None:
    """Where the log goes on after entry ``index``: the segment of the next; end and checksum of the record before.

    Two logs of which it is the same are the same up to there. None: this log, or this store's, has no such place.
    """
    segments = [file for file in files if file.index <= index + 1]
    if not segments:
        return None
    file = segments[-1]
    with SegmentReader(file.path, file.descriptor) as reader:
        _, metadata = reader.head(file.cluster_id, file.index)
        if metadata.member_id != member_id:
            return None
        last_index, at = file.index - 1, (reader.end, reader.chain)
        with suppress(fmt.BadFrame, wire.WireError):
            for frame in reader.frames():
                batch = fmt.decode_batch(frame.data)
                if batch.first_index > index:
                    break
                last_index, at = batch.last_index, (frame.end, frame.crc)
    return (file.index, *at) if last_index >= index else None


def read_pieces(
    files: list[NumberedFile],
    index: int,
    revision: int,
    place: Place | None,
    most_bytes: int,
    member_id: int = 0,
) -> Iterator[Content]:
    """The pieces after ``place``; if that is None, from the segment on that has the entry after ``index``.

    ``revision``: the store's at ``index``. A piece has ``most_bytes``, or one longer record. ``member_id``: the
    store's; 0: not known. Raises ``Gap``, ``Corruption``.
    """
    first = place.segment if place else max((f.index for f in files if f.index <= index + 1), default=-1)
    needed = [file for file in files if file.index >= first]
    if place and (not needed or needed[0].index != first):
        needed = [file for file in files if file.index > place.last_index]
        first = place.last_index + 1
    if not needed or needed[0].index != first:
        raise Gap(f"the segments of the log after entry {place.last_index if place else index} are gone")
    last_index = place.last_index if place else first - 1
    chain = place.chain if place else None
    revision = place.revision if place else revision
    for file in needed:
        with SegmentReader(file.path, file.descriptor) as reader:
            begun = _begin(reader, file, place, last_index, chain, member_id)
            builder = _Builder(file.index, *begun, last_index, revision)
            yield from builder.read(reader, is_last=file is needed[-1], most_bytes=most_bytes)
            last_index, chain, revision = builder.last_index, reader.chain, builder.revision


def _begin(
    reader: SegmentReader,
    file: NumberedFile,
    place: Place | None,
    last_index: int,
    chain: int | None,
    member_id: int,
) -> tuple[int, int]:
    """Move the reader to where the next piece begins: (offset, the log's checksum there)."""
    continued, metadata = reader.head(file.cluster_id, file.index)
    if member_id not in (0, metadata.member_id):
        raise Gap(f"{reader.path} is the log of a store that was made anew")
    if place is None or file.index != place.segment:
        if metadata.first_index != last_index + 1 or (chain is not None and continued != chain):
            raise Gap(f"{reader.path} does not continue the log at entry {last_index + 1}")
        return 0, continued
    mark = fmt.Mark(place.segment, place.last_offset, place.last_chain, place.last_first_index)
    if not reader.skip_to(mark) or next(reader.frames()).end != place.end or reader.chain != place.chain:
        raise Gap(f"{reader.path} has another record at byte {place.last_offset} than the backup")
    return place.end, place.chain


class _Builder:
    """Gathers the records of one segment into pieces."""

    def __init__(self, segment: int, start: int, chain_before: int, last_index: int, revision: int) -> None:
        self._segment = segment
        self._start = start
        self._chain_before = chain_before
        self._first_index = last_index + 1
        self._place: Place | None = None
        self.last_index = last_index
        self.revision = revision

    def read(self, reader: SegmentReader, *, is_last: bool, most_bytes: int) -> Iterator[Content]:
        chain = reader.chain
        try:
            for frame in reader.frames():
                self._take(reader, frame, chain)
                chain = frame.crc
                if frame.end - self._start >= most_bytes:
                    yield self._content(reader)
        except fmt.BadFrame as bad:
            proof = tail.why_damaged(reader, bad.offset) if is_last else "a later segment exists"
            if proof and not (is_last and reader.good_frame()):
                raise Corruption(f"{bad.reason}; {proof}", reader.path, bad.offset) from None
        if self._place is not None:
            yield self._content(reader)

    def _take(self, reader: SegmentReader, frame: fmt.Frame, chain: int) -> None:
        try:
            batch = fmt.decode_batch(frame.data)
            if frame.kind != fmt.BATCH or batch.first_index != self.last_index + 1:
                raise wire.WireError(f"entry {batch.first_index} follows entry {self.last_index}")
            self.revision = _revision_after(batch, self.revision)
        except wire.WireError as error:
            raise Corruption(str(error), reader.path, frame.offset) from None
        self.last_index = batch.last_index
        self._place = Place(
            self._segment,
            frame.end,
            frame.crc,
            frame.offset,
            chain,
            batch.first_index,
            batch.last_index,
            self.revision,
            batch.time_ms,
        )

    def _content(self, reader: SegmentReader) -> Content:
        place = self._place
        assert place is not None
        data = reader.read(self._start, place.end - self._start)
        if len(data) != place.end - self._start:
            raise Corruption("the segment was cut short while it was read", reader.path, self._start)
        content = Content(place, self._start, self._chain_before, self._first_index, data)
        self._start, self._chain_before = place.end, place.chain
        self._first_index, self._place = place.last_index + 1, None
        return content


def _revision_after(batch: fmt.Batch, revision: int) -> int:
    """The store's revision after a batch: that of its last entry that changes keys."""
    for entry in reversed(batch.entries):
        number, value = next(iter(wire.fields(entry)), (0, 0))
        if number == REVISION and isinstance(value, int):
            return max(revision, value)
    return revision
