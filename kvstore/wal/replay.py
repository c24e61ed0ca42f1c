"""Reading a whole log: its segments in order, joined without a gap, to the end.

    segment 1..40       segment 41..87      segment 88..
    crc 0 | ... c1      crc c1 | ... c2     crc c2 | ... | 0 0 0

A segment continues its predecessor if its first index is the next one and its crc record carries on
the chain. Reading begins with the segment that holds the first entry asked for, or, with a ``Mark``,
at a frame inside it: what comes before the mark was read by an earlier open, or written since,
and its entries are not asked for. A mark that does not fit is ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from kvstore import layout, wire
from kvstore.errors import Corruption, NotAStore, WrongStore
from kvstore.files import Disk
from kvstore.wal import format as fmt
from kvstore.wal import tail
from kvstore.wal.bit_flip import Flip, find_flip
from kvstore.wal.format import Batch, Mark, Metadata
from kvstore.wal.reader import SegmentReader

logger = logging.getLogger(__name__)


def segments_from(
    wal_dir: Path, after_index: int, segments: list[layout.NumberedFile] | None = None
) -> list[layout.NumberedFile]:
    """The segments that hold the entries after ``after_index``, of those given or of all in the directory."""
    if segments is None:
        segments = layout.segments(wal_dir)
    if not segments:
        raise NotAStore(f"{wal_dir} holds no log", wal_dir)
    if len({file.cluster_id for file in segments}) > 1:
        raise WrongStore(f"{wal_dir} holds segments of several stores", wal_dir)
    start = sum(file.index <= after_index + 1 for file in segments) - 1
    if start < 0:
        raise Corruption(
            f"entries {after_index + 1} to {segments[0].index - 1} are missing", segments[0].path
        )
    return segments[start:]


class Replay:
    """One reading of a log. When ``batches`` is exhausted, the end is known: where to append.

    ``disk`` None reads only: nothing is changed, and an unfinished write at the end is left out.
    ``segments``: those to read, in order, if they are not simply all in the directory.
    """

    def __init__(
        self,
        disk: Disk | None,
        wal_dir: Path,
        after_index: int,
        mark: Mark | None,
        segments: list[layout.NumberedFile] | None = None,
    ) -> None:
        self._disk = disk
        self._wal_dir = wal_dir
        self._after_index = after_index
        self._mark = mark
        self._segments = segments
        self._store_ids: tuple[int, int] | None = None
        self.last_index = 0
        self.path = ""
        self.metadata: Metadata | None = None
        """The metadata of the last segment read."""
        self.end = 0
        self.chain = 0
        self.last_mark: Mark | None = None
        """The mark of the last batch read."""
        self.flip: Flip | None = None
        """The one bit that is to blame for the ``Corruption`` that was raised."""

    def batches(self) -> Iterator[Batch]:
        """The batches after ``after_index``; the first may begin inside a batch on disk."""
        segments = segments_from(self._wal_dir, self._after_index, self._segments)
        for number, file in enumerate(segments):
            with SegmentReader(file.path, file.descriptor) as reader:
                continued, metadata = self._head(reader, file)
                self._join(reader.path, continued, metadata)
                if number == 0:
                    self._skip(reader)
                yield from self._segment(reader, metadata, is_last=number == len(segments) - 1)
                self.path, self.metadata, self.end, self.chain = (
                    reader.path,
                    metadata,
                    reader.end,
                    reader.chain,
                )
        if self.last_index < self._after_index:
            raise Corruption(
                f"the log ends with entry {self.last_index}, but it had entries up to {self._after_index}",
                self.path,
                self.end,
            )

    def _head(self, reader: SegmentReader, file: layout.NumberedFile) -> tuple[int, Metadata]:
        try:
            return reader.head(file.cluster_id, file.index)
        except Corruption as damage:
            self.flip = find_flip(reader, damage.offset)
            raise Corruption(damage.reason + _hint(self.flip), damage.path, damage.offset) from None

    def _join(self, path: str, continued: int, metadata: Metadata) -> None:
        """Check that a segment continues the previous one."""
        store_ids = metadata.cluster_id, metadata.member_id
        if self._store_ids is None:
            self._store_ids = store_ids
            self.last_index = metadata.first_index - 1
        elif store_ids != self._store_ids:
            raise WrongStore(f"{path} belongs to another store", path)
        elif metadata.first_index > self.last_index + 1:
            missing = f"{self.last_index + 1} to {metadata.first_index - 1}"
            raise Corruption(f"entries {missing} before this segment are missing", path, 0)
        elif metadata.first_index <= self.last_index:
            raise Corruption(f"the segment repeats entries up to {self.last_index}", path, 0)
        elif self.chain != continued:
            raise Corruption("the crc does not continue that of the segment before", path, 0)

    def _skip(self, reader: SegmentReader) -> None:
        """Begin at the mark, if there is one for this segment and it is not too far on."""
        mark = self._mark
        if mark is None or mark.segment_index != self.last_index + 1:
            return
        if mark.first_index <= self._after_index + 1 and reader.skip_to(mark):
            self.last_index = mark.first_index - 1
        else:
            logger.info("%s: the mark does not fit; reading the segment from its start", reader.path)

    def _segment(self, reader: SegmentReader, metadata: Metadata, *, is_last: bool) -> Iterator[Batch]:
        chain = reader.chain
        try:
            for frame in reader.frames():
                batch = self._batch(reader, frame)
                self.last_mark = Mark(metadata.first_index, frame.offset, chain, batch.first_index)
                self.last_index, chain = batch.last_index, frame.crc
                skip = self._after_index + 1 - batch.first_index
                if skip <= 0:
                    yield batch
                elif skip < len(batch.entries):
                    yield Batch(batch.first_index + skip, batch.time_ms, batch.entries[skip:])
        except fmt.BadFrame as bad:
            self._judge(reader, bad, is_last=is_last)

    def _batch(self, reader: SegmentReader, frame: fmt.Frame) -> Batch:
        """The content of a frame with a valid crc."""
        if frame.kind != fmt.BATCH:
            raise Corruption(f"a {fmt.KINDS[frame.kind]} record among batches", reader.path, frame.offset)
        try:
            batch = fmt.decode_batch(frame.data)
        except wire.WireError as error:
            raise Corruption(str(error), reader.path, frame.offset) from None
        if batch.first_index != self.last_index + 1:
            raise Corruption(
                f"entry {batch.first_index} follows entry {self.last_index}", reader.path, frame.offset
            )
        return batch

    def _judge(self, reader: SegmentReader, bad: fmt.BadFrame, *, is_last: bool) -> None:
        """Cut a torn tail and return, or raise ``Corruption`` for damage."""
        proof = tail.why_damaged(reader, bad.offset) if is_last else "a later segment exists"
        if proof and self._disk is None and is_last and reader.good_frame():
            return  # the writing process has finished it meanwhile
        if proof:
            self.flip = find_flip(reader, bad.offset)
            reason = f"{bad.reason}; {proof}; the last good entry is {self.last_index}{_hint(self.flip)}"
            raise Corruption(reason, reader.path, bad.offset)
        if self._disk is not None:
            logger.warning(
                "%s: %s: %s at byte %d; cut after entry %d",
                reader.path,
                tail.what_is_cut(reader, bad.offset),
                bad.reason,
                bad.offset,
                self.last_index,
            )
            tail.cut(self._disk, reader, bad.offset)


def _hint(flip: Flip | None) -> str:
    return f"; {flip} has flipped: kvstore wal repair flips it back, and nothing is lost" if flip else ""
