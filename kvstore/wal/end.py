"""The end of a log that another process writes: has it moved? Asked many times a second, so it costs a few calls.

    the frame after the last one read     eight zero bytes where it would begin: nothing has come
    the next segment                      there is none: nothing has come
    a write that was not finished         the writer is at it, or was killed: look again for a while, and then only if
                                          the file has changed

Answers "yes" too often rather than too rarely: reading on shows whether it is so.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from kvstore import layout
from kvstore.wal.replay import Replay

UNFINISHED_SECONDS = 1.0


class LogEnd:
    """Where a replay ended. Holds the segment open as long as it is referenced."""

    def __init__(self, replay: Replay) -> None:
        assert replay.metadata is not None
        self._path = replay.path
        self._next = str(
            Path(replay.path).with_name(
                layout.segment_name(replay.metadata.cluster_id, replay.last_index + 1)
            )
        )
        self._offset = replay.end
        self._fd = os.open(replay.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._since = time.monotonic()
        self._unfinished = self._state() if self._has_more() else None
        """The file's time and size, if something that is no whole frame follows the last one."""

    def has_moved(self) -> bool:
        """Whether there may be more to read. Raises ``OSError`` if the file cannot be read."""
        if self._has_more():
            is_young = time.monotonic() - self._since < UNFINISHED_SECONDS
            return self._unfinished is None or is_young or self._state() != self._unfinished
        if self._next != self._path and os.path.exists(self._next):
            return True
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:  # released
            return True

    def _has_more(self) -> bool:
        return any(os.pread(self._fd, 8, self._offset))

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_mtime_ns, status.st_size

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)
