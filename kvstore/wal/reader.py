"""Reading one segment: its frames in order, and what is found where a frame should be.

A segment is read through a window of at most about a megabyte, so memory is bounded by the window or
by one frame, whichever is larger, however large the file is. The window starts small, because often only
the head or the last frame is read. Nothing here changes a file, and nothing here decides what damage
means: that is ``tail``.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from types import TracebackType

from kvstore import wire
from kvstore.checksum import crc32c
from kvstore.errors import Corruption, DiskFailed, NotAStore, TooNew
from kvstore.files import DISK_FAILURES
from kvstore.wal import format as fmt

WINDOW_BYTES = 1 << 20
FIRST_WINDOW_BYTES = 4 << 10

_RECORD_START = re.compile(rb"(?=\x08[\x00-\x7f]\x10)")
_ZEROS = bytes(WINDOW_BYTES)


class _Window:
    """A part of a file in memory, moved to where it is needed."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        if descriptor >= 0:
            self._fd = os.dup(descriptor)
        else:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.size_bytes = os.fstat(self._fd).st_size
        self.buffer = b""
        self._base = 0
        self._next_bytes = FIRST_WINDOW_BYTES

    def at(self, offset: int, size: int) -> int:
        """Ensure ``size`` bytes at ``offset`` (fewer at the end of the file) are in ``buffer``; return their index."""
        at = offset - self._base
        if at < 0 or at + size > len(self.buffer):
            self._base = offset
            self.buffer = self.read(offset, max(size, self._next_bytes))
            self._next_bytes = min(4 * self._next_bytes, WINDOW_BYTES)
            return 0
        return at

    def read(self, offset: int, size: int) -> bytes:
        """The bytes at ``offset``, straight from the file."""
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            if error.errno in DISK_FAILURES:  # which says nothing of what is written there
                raise DiskFailed(
                    f"{self.path} at byte {offset}: {error.strerror}", error.errno or errno.EIO
                ) from error
            raise Corruption(f"cannot be read: {error.strerror}", self.path, offset) from error

    def measure(self) -> int:
        """The size of the file now."""
        self.size_bytes = os.fstat(self._fd).st_size
        return self.size_bytes

    def forget(self) -> None:
        """Drop the window: the next read goes to the file."""
        self.buffer = b""
        self._next_bytes = FIRST_WINDOW_BYTES

    def next_data(self, offset: int) -> int:
        """``offset``, or the end of the hole in the file that contains it; the size of the file if nothing follows."""
        try:
            found = os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            return self.size_bytes if error.errno == errno.ENXIO else offset
        return max(offset, found & ~7)

    def first_non_zero(self, offset: int) -> int:
        """The first non-zero offset from ``offset`` on; -1 if all is zero."""
        while (offset := self.next_data(offset)) < self.size_bytes:
            chunk = self.read(offset, WINDOW_BYTES)
            if not chunk:
                break
            if chunk != _ZEROS[: len(chunk)]:
                return offset + len(chunk) - len(chunk.lstrip(b"\0"))
            offset += len(chunk)
        return -1

    def content_end(self, offset: int) -> int:
        """The end of the non-zero bytes from ``offset`` on; ``offset`` if all is zero."""
        end = offset
        while (start := self.first_non_zero(offset)) >= 0:
            chunk = self.read(start, WINDOW_BYTES)
            end = start + len(chunk.rstrip(b"\0"))
            offset = start + len(chunk)
        return end

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SegmentReader:
    """The frames of one segment. ``end`` and ``chain`` follow the last good frame that was read."""

    def __init__(self, path: str | os.PathLike[str], descriptor: int = -1) -> None:
        """``descriptor``: of the file, if it is open already; it stays the caller's."""
        self._window = _Window(os.fspath(path), descriptor)
        self.path = self._window.path
        self.size_bytes = self._window.size_bytes
        self.end = 0
        self.chain = 0
        self.seed = 0

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._window.close()

    # --- the head -------------------------------------------------------------------------

    def head(self, cluster_id: int, first_index: int) -> tuple[int, fmt.Metadata]:
        """The chain value that the segment continues, and its metadata.

        The ids are those in the file's name. A file under a final name was synced with its head
        before it got the name, so a bad head is damage, unless nothing in the file is ours.
        """
        self.expect(cluster_id, first_index)
        try:
            return self._head()
        except fmt.BadFrame as bad:
            if not self._may_be_ours(cluster_id):
                raise NotAStore(
                    f"{self.path} is not a segment of this log: {bad.reason}", self.path
                ) from None
            raise Corruption(f"the head of the segment: {bad.reason}", self.path, bad.offset) from None

    def expect(self, cluster_id: int, first_index: int) -> None:
        """Set the segment whose frames are expected."""
        self.seed = fmt.segment_seed(cluster_id, first_index)

    def _head(self) -> tuple[int, fmt.Metadata]:
        first = self.frame_at(0)
        if first is None or first.kind != fmt.CRC:
            raise fmt.BadFrame(0, "a segment that does not begin with a crc record")
        self.end, self.chain = first.end, first.crc
        second = self.frame_at(first.end)
        if second is None or second.kind != fmt.METADATA:
            raise fmt.BadFrame(first.end, "a segment without metadata")
        if crc32c(second.data, first.crc) != second.crc:
            raise fmt.BadFrame(first.end, "the crc does not match")
        try:
            metadata = fmt.decode_metadata(second.data)
        except wire.WireError as error:
            raise fmt.BadFrame(first.end, f"metadata: {error}") from None
        if metadata.version > fmt.FORMAT_VERSION:
            raise TooNew(
                f"{self.path} has format {metadata.version}; this version reads up to {fmt.FORMAT_VERSION}",
                self.path,
            )
        self.end, self.chain = second.end, second.crc
        return first.crc, metadata

    def _may_be_ours(self, cluster_id: int) -> bool:
        """Whether a file with a bad head may be a segment: it shows a trace of one, or is empty."""
        if self.size_bytes < fmt.MIN_HEAD_BYTES or self._window.first_non_zero(0) < 0:
            return True
        if fmt.cluster_id_field(cluster_id) in self._window.read(0, fmt.MIN_HEAD_BYTES):
            return True
        return self._synced_at(0) is not None or next(self.later_frames(0), None) is not None

    # --- frames -----------------------------------------------------------------------------

    def frames(self) -> Iterator[fmt.Frame]:
        """The frames from ``end`` on, crcs verified; ends where only zeros follow.

        Raises ``BadFrame`` if there is something else. ``end`` and ``chain`` have moved past a
        frame when it is yielded.
        """
        while self.end < self.size_bytes:
            frame = self.frame_at(self.end)
            if frame is None:
                return
            if frame.kind not in fmt.KINDS:
                where = f"{self.path} at byte {self.end}"
                raise TooNew(f"{where}: a record of unknown type {frame.kind}", self.path)
            chain = crc32c(frame.data, self.chain)
            if chain != frame.crc:
                raise fmt.BadFrame(self.end, "the crc does not match")
            self.chain, self.end = chain, frame.end
            yield frame

    def frame_at(self, offset: int) -> fmt.Frame | None:
        """The frame at ``offset``, with its crc unchecked; None if only zeros follow."""
        window = self._window
        at = window.at(offset, 8)
        field = window.buffer[at : at + 8]
        length = int.from_bytes(field, "little")
        if not length:
            beyond = window.first_non_zero(offset)
            if beyond >= 0:
                raise fmt.BadFrame(offset, f"zeros, but the file goes on at byte {beyond}")
            return None
        if len(field) < 8:
            raise fmt.BadFrame(offset, "a frame that is cut short by the end of the file")
        size = fmt.frame_size(length, offset)
        if size > self.size_bytes - offset:
            raise fmt.BadFrame(offset, "a frame that runs past the end of the file")
        at = window.at(offset, size)
        if len(window.buffer) - at < size:
            raise fmt.BadFrame(offset, "the file was truncated while it was being read")
        return fmt.decode_frame(window.buffer, at, offset, size, self.seed)

    def frame_anew(self, offset: int) -> fmt.Frame | None:
        """``frame_at``, repeated once if the frame is bad: it may have been read while being written."""
        try:
            return self.frame_at(offset)
        except fmt.BadFrame:
            self._window.forget()
            self.size_bytes = self._window.measure()
            return self.frame_at(offset)

    def skip_to(self, mark: fmt.Mark) -> bool:
        """Continue with the frame that ``mark`` describes, if it is there and in order."""
        before = self.end, self.chain
        if mark.offset >= self.end:
            self.end, self.chain = mark.offset, mark.chain
            frame = self.good_frame()
            if frame and frame.kind == fmt.BATCH and fmt.first_index(frame.data) == mark.first_index:
                return True
        self.end, self.chain = before
        return False

    # --- evidence about a bad frame -----------------------------------------------------------

    def later_frames(self, offset: int) -> Iterator[tuple[int, int]]:
        """The (offset, synced) of every later frame whose header check holds at its place."""
        offset = (offset & ~7) + 8
        while (offset := self._window.next_data(offset)) < self.size_bytes:
            chunk = self._window.read(offset, WINDOW_BYTES + fmt.HEAD_BYTES)
            for found in _RECORD_START.finditer(chunk):
                at = found.start() - 8
                if at & 7 == 0 and 0 <= at < WINDOW_BYTES:
                    synced = self._synced_at(offset + at)
                    if synced is not None:
                        yield offset + at, synced
            offset += WINDOW_BYTES

    def _synced_at(self, offset: int, *, any_length: bool = False) -> int | None:
        """The ``synced`` of the header at ``offset``; None if there is no header there."""
        head = self._window.read(offset, fmt.HEAD_BYTES)
        try:
            return fmt.read_header(head, offset, self.seed, self._window.read, any_length=any_length)
        except fmt.BadFrame:
            return None

    def good_frame(self) -> fmt.Frame | None:
        """The frame at ``end``, read again; None if it is still bad."""
        self._window.forget()
        try:
            frame = self.frame_at(self.end)
        except fmt.BadFrame:
            return None
        return frame if frame and crc32c(frame.data, self.chain) == frame.crc else None

    def only_length_is_bad(self, offset: int) -> bool:
        """Whether the frame at ``offset`` is complete and only its length field is wrong."""
        return self._synced_at(offset, any_length=True) is not None and self._synced_at(offset) is None

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes (keep it small) at ``offset``, unchecked."""
        return self._window.read(offset, size)

    def content_end(self, offset: int) -> int:
        """The end of the non-zero bytes from ``offset`` on; ``offset`` if all is zero."""
        return self._window.content_end(offset)

    def only_byte(self, offset: int) -> tuple[int, int] | None:
        """(offset, value) of the only non-zero byte from ``offset`` on, if there is only one."""
        at = self._window.first_non_zero(offset)
        if at < 0 or self._window.content_end(offset) != at + 1:
            return None
        return at, self._window.read(at, 1)[0]
