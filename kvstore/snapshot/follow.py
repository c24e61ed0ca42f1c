"""Hashing, syncing and reading back a file while a backend is still writing it.

    copy      ████████████████████▒▒▒▒▒▒      by the backend, without the GIL
    digest    ██████████████▒▒                SHA-256 of all, a CRC-32C per chunk; right behind the copy
    settle    ████████▒▒                      per window: sync, then read from the disk and compare the CRCs

Where a backend writes its copy from front to back (``copies_in_order``) the three go on side by side, and taking a
snapshot lasts hardly longer than the slowest of them; otherwise the second begins when the first is done.

What is read back is what was digested, or ``finish`` raises ``Corruption`` with the offset.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crc32c import crc32c

from kvstore.backend import Progress
from kvstore.errors import Corruption, StoreClosed
from kvstore.files import Disk
from kvstore.snapshot.reader import CHUNK_BYTES

WINDOW_BYTES = 32 << 20
POLL_SECONDS = 0.002
PASSES = 3


class Meter:
    """Bytes copied, digested and read back, reported as one number. The callback may raise, to give up."""

    def __init__(self, progress: Progress | None, about_bytes: int) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done = [0] * PASSES
        self._total_bytes = about_bytes

    def report(self, number: int, done_bytes: int) -> None:
        """Pass ``number`` is that far."""
        if self._progress is None:
            return
        with self._lock:
            self._done[number] = min(done_bytes, self._total_bytes)
            self._progress(sum(self._done), PASSES * self._total_bytes)

    def copied(self, size_bytes: int) -> None:
        """The copy is finished: its true size is known."""
        with self._lock:
            self._total_bytes = max(size_bytes, *self._done)
        self.report(0, size_bytes)


class Follower:
    """Follows one file. ``start``; when it is written ``copied``; when it is sealed ``finish``; or ``abort``."""

    def __init__(self, disk: Disk, path: Path, meter: Meter, *, in_order: bool) -> None:
        self._disk = disk
        self._path = path
        self._meter = meter
        self._in_order = in_order
        self._copied = threading.Event()
        self._digested = threading.Event()
        self._aborted = False
        self._failure: BaseException | None = None
        self._size_bytes = -1
        self._crcs: list[int] = []
        self._settled_chunks = 0
        self._sha256 = hashlib.sha256()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"kvstore-snapshot-{name}", daemon=True)
            for name, work in (("digest", self._digest), ("settle", self._settle))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def copied(self) -> tuple[int, bytes]:
        """Nobody writes to the file any more: wait for its size and SHA-256."""
        self._size_bytes = self._path.stat().st_size
        self._meter.copied(self._size_bytes)
        self._copied.set()
        self._join()
        return self._size_bytes, self._sha256.digest()

    def finish(self, tail: bytes) -> None:
        """The file is synced, with ``tail`` behind it: read back what has not been read back yet."""
        self._read_back(len(self._crcs))
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._size_bytes)
            if file.read() != tail:
                raise Corruption("what is read back is not what was written", self._path, self._size_bytes)

    def abort(self) -> None:
        """Stop; the file is about to be removed."""
        self._aborted = True
        self._copied.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            if not self._aborted:
                self._failure = failure
            self._aborted = True
        finally:
            if work == self._digest:
                self._digested.set()

    def _check_aborted(self) -> None:
        if self._aborted:
            raise StoreClosed

    # --- digest -----------------------------------------------------------------------

    def _digest(self) -> None:
        self._wait_for(0)
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with open(self._path, "rb", buffering=0) as file:
            offset = 0
            while length := self._wait_for(offset):
                _read_exactly(file.fileno(), offset, buffer[:length], self._path)
                self._sha256.update(buffer[:length])
                self._crcs.append(crc32c(buffer[:length]))
                offset += length
                self._meter.report(1, offset)

    def _wait_for(self, offset: int) -> int:
        """The length of the chunk at ``offset`` once it is written; 0 at the end."""
        while not self._copied.wait(POLL_SECONDS):
            written = self._path.stat().st_size if self._path.exists() else 0
            self._meter.report(0, written)
            if self._in_order and written >= offset + CHUNK_BYTES:
                return CHUNK_BYTES
        self._check_aborted()
        return min(CHUNK_BYTES, self._size_bytes - offset)

    # --- settle -----------------------------------------------------------------------

    def _settle(self) -> None:
        """Whole windows, while the rest is still being written or digested."""
        while not self._digested.wait(POLL_SECONDS):
            ready = len(self._crcs)
            if (ready - self._settled_chunks) * CHUNK_BYTES >= WINDOW_BYTES:
                self._disk.sync_file(self._path)
                self._read_back(ready)

    def _read_back(self, chunks: int) -> None:
        """Compare the chunks up to that one with what the disk holds."""
        with mmap.mmap(-1, CHUNK_BYTES) as aligned, _from_disk(self._path) as fd:
            for number in range(self._settled_chunks, chunks):
                self._check_aborted()
                offset = number * CHUNK_BYTES
                length = min(CHUNK_BYTES, self._end() - offset)
                with memoryview(aligned) as buffer, buffer[:length] as chunk:
                    _read_exactly(fd, offset, buffer, self._path, at_least=length)
                    if crc32c(chunk) != self._crcs[number]:
                        raise Corruption("what is read back is not what was written", self._path, offset)
                self._meter.report(2, offset + length)
        self._settled_chunks = chunks

    def _end(self) -> int:
        return self._size_bytes if self._size_bytes >= 0 else len(self._crcs) * CHUNK_BYTES


@contextmanager
def _from_disk(path: Path) -> Iterator[int]:
    """A descriptor that reads past the page cache, or, where the file system cannot, after emptying it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        yield fd
    finally:
        os.close(fd)


def _read_exactly(fd: int, offset: int, buffer: memoryview, path: Path, at_least: int = 0) -> None:
    """Fill the buffer, or ``at_least`` so much of it at the end of the file."""
    needed, done = at_least or len(buffer), 0
    while done < needed:
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if not count:
            raise Corruption("the file has become shorter", path, offset + done)
        done += count
