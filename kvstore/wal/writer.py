"""Writing one segment.

    0            end                      filled
    | frames ... | zeros ...... : reserve |       the file ends at ``filled`` or a little later

Frames go where zeros already are: overwriting allocated blocks makes the sync of a group take half as
long as appending to the file, whose new size and blocks would have to be made durable too. Zeros
are written ("laid") some way ahead of ``end``: in the background by ``fill_ahead``, otherwise by
``append`` itself. So a full disk shows while zeros are laid, before a frame has been touched.

The last of the zeros are the *reserve*, for writes that make room: a write that takes room is not begun unless there
are zeros for it before the reserve (``room_bytes``, ``lay``), so deletes can still be logged on a full disk. At the
end of a segment the zeros extend past its limit for that, until the disk has room for the next segment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from kvstore import layout
from kvstore.checksum import crc32c
from kvstore.errors import DiskFull
from kvstore.files import Disk, File
from kvstore.wal import format as fmt

FIRST_FILL_BYTES = 64 << 10
FILL_BYTES = 4 << 20
"""As many zeros are laid at a time as there is log before them, up to this (and at least ``FIRST_FILL_BYTES``): a small
log stays a small file. Each time costs a journal commit of the file system, so a large log does it rarely."""
RESERVE_SHARE = 64
"""The reserve is this fraction of a segment (1 MB of 64), or half of the zeros ahead, whichever is less."""
BACKGROUND_STEP_BYTES = 1 << 20

_ZEROS = bytes(1 << 20)


def write_zeros(file: File, start: int, end: int) -> None:
    while start < end:
        size = min(len(_ZEROS), end - start)
        file.pwrite(_ZEROS if size == len(_ZEROS) else memoryview(_ZEROS)[:size], start)
        start += size


def prepare_segment(disk: Disk, path: str, metadata: fmt.Metadata, chain: int, size_limit_bytes: int) -> None:
    """Write a new segment that continues ``chain`` under a temporary name, durably.

    A failure here does no harm: the temporary file is removed at the next try or open. (On a full disk it is removed
    at once, because it holds room that others need.)
    """
    head, _ = fmt.segment_head(metadata, chain)
    temporary = path + layout.TEMP_SUFFIX
    disk.remove(temporary)
    file = disk.create(temporary)
    try:
        file.pwrite(head, 0)
        write_zeros(file, len(head), min(FIRST_FILL_BYTES, size_limit_bytes))
        file.sync()
    except DiskFull:
        disk.remove(temporary)
        raise
    finally:
        file.close()


def install_segment(disk: Disk, path: str) -> None:
    """Give a prepared segment its name. After a crash: the temporary file, or the whole segment."""
    disk.rename(path + layout.TEMP_SUFFIX, path)
    disk.sync_dir(os.path.dirname(path) or ".")


class SegmentWriter:
    """The last segment of a log: zeros from ``end`` up to the file's size.

    The caller serialises all calls except ``fill_ahead``.
    """

    def __init__(
        self, disk: Disk, path: str, metadata: fmt.Metadata, end: int, chain: int, size_limit_bytes: int
    ) -> None:
        self._disk = disk
        self._file = disk.open(path)
        self.size_limit_bytes = size_limit_bytes
        """A segment of this size is full."""
        self._seed = fmt.segment_seed(metadata.cluster_id, metadata.first_index)
        self._fill_lock = threading.Lock()  # guards filled and _closed, and the writing of zeros
        self.filled = os.stat(path).st_size
        self._closed = False
        self.path = path
        self.metadata = metadata
        self.first_index = metadata.first_index
        self.end = self.synced = end
        self.chain = chain

    def frame(
        self, first_index: int, time_ms: int, entries: Sequence[bytes], synced_by_itself: bool
    ) -> tuple[bytes, int]:
        """The next batch frame, and the chain after it."""
        end = self.end
        synced = end if synced_by_itself else self.synced
        if len(entries) == 1:
            return fmt.encode_lone(self._seed, end, self.chain, synced, first_index, time_ms, entries[0])
        data = fmt.encode_batch(first_index, time_ms, entries)
        chain = crc32c(data, self.chain)
        return fmt.encode_frame(self._seed, end, fmt.BATCH, chain, synced, data), chain

    def _ahead(self) -> tuple[int, int]:
        """How many zeros there should be ahead, and how many of those are the reserve."""
        ahead = min(max(self.end, FIRST_FILL_BYTES), FILL_BYTES)
        return ahead, min(ahead // 2, self.size_limit_bytes // RESERVE_SHARE)

    def _target(self) -> int:
        """The offset up to which there should be zeros."""
        ahead, reserve = self._ahead()
        return max(min(self.end + ahead, self.size_limit_bytes), self.end + 2 * reserve)

    @property
    def room_bytes(self) -> int:
        """How many zeros there are before the reserve."""
        return self.filled - self.end - self._ahead()[1]

    def has_room(self, size_bytes: int) -> bool:
        """Whether there are zeros for the next ``size_bytes``."""
        return self.end + size_bytes <= self.filled

    def make_room(self, size_bytes: int) -> None:
        """Lay zeros for the next ``size_bytes``. ``DiskFull`` leaves the segment unchanged."""
        with self._fill_lock:
            if not self._closed:
                self._lay(max(self.end + size_bytes, self._target()))

    def lay(self, size_bytes: int) -> None:
        """Make ``room_bytes`` at least ``size_bytes``, like ``make_room``."""
        if self.room_bytes < size_bytes:
            self.make_room(size_bytes + self._ahead()[1])

    def _lay(self, filled: int) -> None:
        if filled > self.filled:
            write_zeros(self._file, self.filled, filled)
            self.filled = filled

    def write(self, frame: bytes, start: int, chain: int, sync: bool) -> None:
        """Put a frame made by ``frame`` at ``start``, which was ``end`` then; durably, with ``sync``.

        It may be repeated. If the disk fails, the segment's state is unknown.
        """
        self._file.pwrite(frame, start)
        self.end = start + len(frame)
        self.chain = chain
        if sync:
            self.sync()

    def sync(self) -> None:
        self._file.sync()
        self.synced = self.end

    def fill_ahead(self) -> int:
        """Lay zeros in small steps if they run short. Returns how many steps it took. May run beside any other call."""
        if self.filled >= (self.end + self._target()) // 2:
            return 0
        steps = 0
        while self._fill_step():
            steps += 1
        return steps

    def _fill_step(self) -> bool:
        """Lays zeros through a descriptor of its own. A failed write-back is reported once to each descriptor, so
        this sync can never swallow the error that a writer's sync must see.
        """
        with self._fill_lock:
            target = self._target()
            if self._closed or self.filled >= target:
                return False
            filled = min(self.filled + BACKGROUND_STEP_BYTES, target)
            file = self._disk.open(self.path)
            try:
                write_zeros(file, self.filled, filled)
                file.sync()
            finally:
                file.close()
            self.filled = filled
            return True

    def trim(self) -> None:
        """Trim the zeros ahead; nothing may be appended after that.

        Call it with everything synced. It need not be durable: after a crash all, some or none of the zeros are there,
        and in each case the segment ends with its last frame.
        """
        with self._fill_lock:
            self._closed = True
            if self.filled > self.end:
                self._file.truncate(self.end)
                self.filled = self.end

    def close(self) -> None:
        with self._fill_lock:
            self._closed = True  # another writer may append from now on: no more zeros here
        self._file.close()
