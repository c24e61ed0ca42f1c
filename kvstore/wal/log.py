"""The log: segments in order, one writer.

    log = Log.create(disk, wal_dir, cluster_id, member_id)
    log = Log.open(disk, wal_dir, after_index=applied)
    for batch in log.replay(): ...            # what the backend does not hold yet; to the end
    first = log.append([b"entry", ...], time_ms)   # durable when it returns (durability "always")
    log.release(index)                        # entries up to index are no longer needed

Every entry has an index: 1, 2, 3 … without gaps over the life of a store. A segment is named after
the index of its first entry.

What is on disk after a crash, call by call ("whole" means every frame of it, synced):

    create    no segment, or a temporary file, or one whole segment without entries
    append    all acknowledged batches, and of the one in flight: nothing, a torn frame that the
              next open cuts, or all of it, unacknowledged
    roll      the full segment, whole; and a temporary file, or the next segment, whole
    release   a gapless run of the newest segments, and maybe some older ones: never read again
    close     everything, with or without the preallocated zeros in the last segment

After a failed write or sync the log is poisoned: what is on disk is unknown, and a second sync could
report success for data that the first one lost, so every later call raises ``StorePoisoned`` until
the log is reopened. If the disk is full while there is nothing to lose (zeros, the next segment), that is
``DiskFull``, and the same append may be retried later.

Callers serialise their calls; only ``fill_ahead``, ``room_bytes``, ``lay`` and ``give_up`` may run beside
them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from kvstore import layout
from kvstore.errors import (
    DiskFull,
    NoDescriptor,
    ReadOnly,
    RequestTooLarge,
    StateError,
    StoreClosed,
    StorePoisoned,
    StoreUnreachable,
    WrongStore,
)
from kvstore.files import Disk, is_disk_failure
from kvstore.wal import format as fmt
from kvstore.wal.archive import archive_segment
from kvstore.wal.format import Batch, Mark, Metadata
from kvstore.wal.reader import SegmentReader
from kvstore.wal.replay import Replay, segments_from
from kvstore.wal.writer import SegmentWriter, install_segment, prepare_segment

Durability = Literal["always", "interval", "off"]


class LogOptions(NamedTuple):
    """How the log is written.

    ``durability``: "always" syncs every append before it returns. With "interval" and "off" the
    caller decides when to sync: entries since the last sync are LOST in a power cut (not in a crash
    of the process), though never out of order.
    """

    wal_file_size_bytes: int = 64_000_000
    """A segment that has reached this size is followed by a new one."""
    wal_buffer_size_bytes: int = 32_000_000
    """The entries of one append may add up to at most this; a single entry may be larger."""
    durability: Durability = "always"


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment on disk. ``last_index`` is ``first_index`` - 1 if it has no entries."""

    path: Path
    first_index: int
    last_index: int
    size_bytes: int


_Append = tuple[SegmentWriter, bytes, int, int, tuple[int, int, int, int], int]
"""(segment, frame, where it starts, chain after it, mark, index of its last entry): an append in progress."""


class Log:
    """A write-ahead log, open for appending or only for reading. Made by ``create`` or ``open``."""

    def __init__(
        self,
        disk: Disk,
        wal_dir: Path,
        metadata: Metadata,
        after_index: int,
        options: LogOptions,
        *,
        read_only: bool = False,
        start: Mark | None = None,
    ) -> None:
        self._disk = disk
        self._wal_dir = wal_dir
        self._after_index = after_index
        self._options = options
        self._always = options.durability == "always"
        self._read_only = read_only
        self._start = start
        self._mark: tuple[int, int, int, int] | None = None
        """The fields of a ``Mark``."""
        self._writer: SegmentWriter | None = None
        self._begun: tuple[str, Metadata, int] | None = None
        """(path, metadata, chain) of the next segment, while the roll to it is half done."""
        self._closed = False
        self._failure: BaseException | None = None
        self.unfinished: _Append | None = None
        """An append that was interrupted; ``resume`` finishes it."""
        self.metadata = metadata
        """The metadata of the first segment that was read: which store the log belongs to."""
        self.last_index = metadata.first_index - 1
        self.synced_index = self.last_index
        self.appended_bytes = 0
        """Bytes of frames that this handle has written."""

    # --- making and opening -----------------------------------------------------------------

    @classmethod
    def create(
        cls,
        disk: Disk,
        wal_dir: str | os.PathLike[str],
        cluster_id: int,
        member_id: int,
        *,
        first_index: int = 1,
        extra: bytes = b"",
        options: LogOptions | None = None,
    ) -> Log:
        """A new log in a directory that holds none, ready for appending."""
        options = options or LogOptions()
        wal_dir = Path(wal_dir)
        if layout.segments(wal_dir):
            raise WrongStore(f"{wal_dir} already holds a log", wal_dir)
        disk.make_dir(wal_dir)
        disk.sync_dir(wal_dir.parent)
        metadata = Metadata(cluster_id, member_id, first_index, time.time_ns() // 1_000_000, extra)
        path = str(wal_dir / layout.segment_name(cluster_id, first_index))
        prepare_segment(disk, path, metadata, 0, options.wal_file_size_bytes)
        install_segment(disk, path)
        log = cls(disk, wal_dir, metadata, first_index - 1, options)
        log._writer = log._open_writer(path, metadata, 0)
        return log

    @classmethod
    def open(
        cls,
        disk: Disk,
        wal_dir: str | os.PathLike[str],
        *,
        after_index: int = 0,
        read_only: bool = False,
        mark: bytes = b"",
        options: LogOptions | None = None,
    ) -> Log:
        """The log of a directory, to be replayed from the entry after ``after_index``.

        ``mark`` is an earlier value of ``log.mark``, from a time when no entry after ``after_index`` had been
        appended: replay then begins there, not at the beginning of the segment.
        """
        wal_dir = Path(wal_dir)
        first = segments_from(wal_dir, after_index)[0]
        if not read_only:
            for path in layout.temporaries(wal_dir):
                disk.remove(path)
        with SegmentReader(first.path) as reader:
            _, metadata = reader.head(first.cluster_id, first.index)
        return cls(
            disk,
            wal_dir,
            metadata,
            after_index,
            options or LogOptions(),
            read_only=read_only,
            start=Mark.decode(mark),
        )

    @staticmethod
    def was_closed(wal_dir: Path) -> bool:
        """Whether the log ends in a frame: closing trims the zeros ahead, while a crash mostly leaves them."""
        with SegmentReader(layout.segments(wal_dir)[-1].path) as reader:
            return any(reader.read(max(reader.size_bytes - 8, 0), 8))

    # --- replay -----------------------------------------------------------------------------

    def replay(self) -> Iterator[Batch]:
        """The batches after ``after_index``, in order; the first may begin inside a batch on disk.

        Run it to its end: only then is the end of the log known, a torn tail cut, what was read made
        durable, and the log ready for appending.
        """
        self._check_usable()
        if self._writer is not None:
            raise StateError("the log has been replayed already")
        disk = None if self._read_only else self._disk
        replay = Replay(disk, self._wal_dir, self._after_index, self._start)
        is_durable = disk is None
        for batch in replay.batches():
            if not is_durable:
                self._make_durable()
                is_durable = True
            self.last_index = batch.last_index
            yield batch
        self.last_index = replay.last_index
        self._mark = replay.last_mark
        if not self._read_only:
            self._resume(replay)

    def _make_durable(self) -> None:
        """Sync what there is to read, before anything acts on it.

        An interrupted process may have left entries only in the page cache. From now on they are applied, a
        checkpoint may take them into the backend while the replay is still going on, and the next frame will
        say that everything before it was synced. Only the last segment can hold such entries.

        If nothing follows ``after_index`` there is nothing to sync: the caller has kept those entries
        elsewhere, which it did only after they were durable here. A segment's name is durable before the
        segment gets entries, and the zeros over a torn tail are synced when it is cut.
        """
        self._disk.sync_file(layout.segments(self._wal_dir)[-1].path)
        self._disk.sync_dir(self._wal_dir)

    def _resume(self, replay: Replay) -> None:
        """Continue after the last frame."""
        assert replay.metadata is not None
        if replay.metadata.first_index > self.last_index:  # perhaps interrupted just after it got its name
            self._disk.sync_dir(self._wal_dir)
        self._writer = SegmentWriter(
            self._disk,
            replay.path,
            replay.metadata,
            replay.end,
            replay.chain,
            self._options.wal_file_size_bytes,
        )
        self.synced_index = self.last_index

    # --- appending --------------------------------------------------------------------------

    def append(self, entries: Sequence[bytes], time_ms: int) -> int:
        """Write entries as one batch. Returns the index of the first. Durable on return if "always".

        If anything but the disk interrupts it, ``resume`` finishes it.
        """
        writer = self._ready_writer()
        count = len(entries)
        if count != 1:
            self._check_batch(entries)
        if writer.end >= writer.size_limit_bytes:
            writer = self._finish_roll() if self._begun else self._roll_unless_full(writer)
        first = self.last_index + 1
        mark = (writer.first_index, writer.end, writer.chain, first)
        frame, chain = writer.frame(first, time_ms, entries, self._always)
        if len(frame) > fmt.MAX_RECORD_BYTES:
            raise RequestTooLarge
        if not writer.has_room(len(frame)):
            with self._poisoned(but=DiskFull):
                writer.make_room(len(frame))
        self.unfinished = writer, frame, writer.end, chain, mark, first + count - 1
        self.resume()
        return first

    def has_place_for(self, size_bytes: int) -> bool:
        """Whether an append of this size is one write onto this segment's zeros and one sync (or is sure to fail)."""
        writer = self._writer
        if writer is None or self._failure is not None:
            return True
        end = writer.end
        return (
            end < writer.size_limit_bytes and end + size_bytes + fmt.FRAME_OVERHEAD_BYTES_MAX <= writer.filled
        )

    def resume(self) -> None:
        """Finish the interrupted append, if there is one: the same bytes go to the same place."""
        unfinished = self.unfinished
        if unfinished is None:
            return
        if self._closed or self._failure is not None:
            self._check_usable()
        writer, frame, start, chain, mark, last_index = unfinished
        try:  # as ``_poisoned``, without its generator: every write comes here
            writer.write(frame, start, chain, self._always)
        except BaseException as error:
            if is_disk_failure(error):
                self._failure = error
            raise
        self._mark = mark
        if self.last_index < last_index:
            self.appended_bytes += len(frame)
        self.last_index = last_index
        if self._always:
            self.synced_index = last_index
        self.unfinished = None

    def _check_batch(self, entries: Sequence[bytes]) -> None:
        if not entries:
            raise ValueError("a batch without entries")
        if sum(map(len, entries)) > self._options.wal_buffer_size_bytes:
            raise RequestTooLarge

    def sync(self) -> None:
        """Make everything appended so far durable."""
        writer = self._ready_writer()
        if writer.synced == writer.end:
            return
        with self._poisoned():
            writer.sync()
        self.synced_index = self.last_index

    def fill_ahead(self) -> int:
        """Write zeros ahead of the end, in small steps. Returns the number of steps.

        For a background thread: appends onto zeros are faster, and then need not write the zeros themselves.
        """
        writer = self._writer
        if writer is None or self._failure is not None:
            return 0
        try:
            return writer.fill_ahead()
        except (DiskFull, FileNotFoundError, StoreUnreachable, NoDescriptor):
            # no room: append says so if it matters. No file: rolled and released, or out of reach
            return 0

    @property
    def room_bytes(self) -> int:
        """How many bytes a write that takes room may append without ``lay``."""
        return self._writer.room_bytes if self._writer is not None else 0

    def lay(self, size_bytes: int) -> None:
        """Make ``room_bytes`` at least ``size_bytes``. Raises ``DiskFull``; the log is then as it was."""
        self._ready_writer().lay(size_bytes)

    def _roll_unless_full(self, full: SegmentWriter) -> SegmentWriter:
        """The next segment; if the disk has no room for one, the full one, which may have some of its reserve left.

        Also the full one if the log's directory was moved (the open files belong to the right store), and if no file
        can be opened.
        """
        try:
            return self._roll(full)
        except (DiskFull, StoreUnreachable, NoDescriptor):
            if self._failure is not None or self._begun is not None:  # it failed half way
                raise
            return full

    def _roll(self, full: SegmentWriter) -> SegmentWriter:
        """Begin the next segment. The full one is durable before the next gets its name."""
        self.sync()
        metadata = full.metadata._replace(
            first_index=self.last_index + 1, created_ms=time.time_ns() // 1_000_000
        )
        path = str(self._wal_dir / layout.segment_name(metadata.cluster_id, metadata.first_index))
        with self._poisoned(but=DiskFull):
            prepare_segment(self._disk, path, metadata, full.chain, self._options.wal_file_size_bytes)
            self._disk.rename(path + layout.TEMP_SUFFIX, path)
        self._begun = path, metadata, full.chain
        with self._poisoned():
            full.trim()
            full.close()  # this frees a descriptor for the next step, unless another thread takes it
        return self._finish_roll()

    def _finish_roll(self) -> SegmentWriter:
        """Switch to the segment that has got its name. If no file can be opened, the next append tries again."""
        assert self._begun is not None
        with self._poisoned():
            self._disk.sync_dir(self._wal_dir)
            self._writer = self._open_writer(*self._begun)
        self._begun = None
        return self._writer

    def _open_writer(self, path: str, metadata: Metadata, chain: int) -> SegmentWriter:
        head, chain = fmt.segment_head(metadata, chain)
        return SegmentWriter(self._disk, path, metadata, len(head), chain, self._options.wal_file_size_bytes)

    # --- releasing --------------------------------------------------------------------------

    def release(
        self, index: int, *, max_segments: int = 0, archive_dir: str | os.PathLike[str] | None = None
    ) -> list[Path]:
        """Remove segments without entries after ``index``, oldest first. Returns those removed.

        ``max_segments`` is how many to keep in any case, counting the needed ones (0: all). With ``archive_dir`` they
        are moved there instead (``archive``). The last segment always stays.
        """
        removed = self.releasable(index, max_segments=max_segments)
        self.give_up(removed, archive_dir)
        return removed

    def releasable(self, index: int, *, max_segments: int = 0) -> list[Path]:
        """What ``release`` would remove."""
        self._ready_writer()
        segments = layout.segments(self._wal_dir)
        released = [file.path for file, following in pairwise(segments) if following.index <= index + 1]
        surplus = len(segments) - max_segments if max_segments else 0
        return released[: max(0, surplus)]

    def give_up(self, segments: Sequence[Path], archive_dir: str | os.PathLike[str] | None = None) -> None:
        """Remove or archive segments that are ``releasable``. May take long; appends may run meanwhile."""
        for path in segments:
            if archive_dir is None:
                self._disk.remove(path)
            else:
                archive_segment(self._disk, path, Path(archive_dir), self._check_open)
        if segments:
            self._disk.sync_dir(self._wal_dir)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed

    # --- state ------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the log may be appended to: it is new, or has been replayed to its end."""
        return self._writer is not None

    @property
    def durable_index(self) -> int:
        """The last entry that is as durable as the options ask for."""
        return self.synced_index if self._options.durability == "always" else self.last_index

    @property
    def failure(self) -> BaseException | None:
        """What poisoned the log, if anything did."""
        return self._failure

    @property
    def mark(self) -> bytes:
        """The place of the last batch, for a later ``open``; empty if there is none yet."""
        return Mark(*self._mark).encode() if self._mark else b""

    def segments(self) -> list[SegmentInfo]:
        """The segments on disk, oldest first."""
        files = [
            file for file in layout.segments(self._wal_dir) if file.cluster_id == self.metadata.cluster_id
        ]
        if not files:
            raise StoreUnreachable(self._wal_dir, "the log does not exist")
        last_indexes = [following.index - 1 for following in files[1:]] + [self.last_index]
        return [
            SegmentInfo(file.path, file.index, last_index, file.path.stat().st_size)
            for file, last_index in zip(files, last_indexes, strict=True)
        ]

    def close(self) -> None:
        """Make everything durable and close the files. Safe to call again, and after a failure.

        The zeros ahead are trimmed: the next open has none to read, and finds the end at once.
        """
        if self._closed:
            return
        self._closed = True
        writer = self._writer
        if writer is None:
            return
        try:
            if self._failure is None:
                if writer.synced != writer.end:
                    writer.sync()
                writer.trim()
        finally:
            writer.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreClosed
        if self._failure is not None:
            raise StorePoisoned from self._failure

    def _ready_writer(self) -> SegmentWriter:
        if self._closed or self._failure is not None:
            self._check_usable()
        if self._writer is None:
            raise ReadOnly if self._read_only else StateError("replay the log to its end first")
        return self._writer

    @contextmanager
    def _poisoned(self, but: type[BaseException] | tuple[()] = ()) -> Iterator[None]:
        """If a call of the disk fails inside, the state of the disk is unknown. ``but``: an error that does no harm."""
        try:
            yield
        except but:
            raise
        except BaseException as error:
            if is_disk_failure(error):
                self._failure = error
            raise
