"""A file of a damaged store, a piece at a time: nothing is mapped, so neither a disk that fails nor a file that shrinks
ends the process.

    scan    looks for rows: what the disk does not give back is zeros, in which nothing is found, and is counted
    read    what was found, once more: raises ``DiskFailed``
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from kvstore.errors import DiskFailed


class Pieces:
    """Open until ``stack`` ends."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.stack = stack
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, self._fd)
        self.size_bytes = os.fstat(self._fd).st_size
        self.failed = 0
        """How many pieces the disk did not give back."""

    def scan(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to ``end``, or to the end of the file."""
        end = min(end, self.size_bytes)
        if start >= end:
            return b""
        try:
            found = os.pread(self._fd, end - start, start)
        except OSError:
            self.failed += 1
            found = b""
        return found if len(found) == end - start else found.ljust(end - start, b"\0")

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to ``end``."""
        try:
            return os.pread(self._fd, end - start, start)
        except OSError as error:
            raise DiskFailed(f"{self.path} at byte {start}: {error.strerror}", error.errno or 0) from error
