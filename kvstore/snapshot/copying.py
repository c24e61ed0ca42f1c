"""Copying a backend into a file that is hashed on the way, and compared with what the disk gives back.

If a backend can write its copy from front to back (``copy_into``), it writes into a pipe, in C and without the GIL:

    backend ══pipe══> digest ────────> write ────────────────> read back
                      SHA-256 of all,  past the page cache,    from the disk, and compared
                      a CRC-32C of     and then synced         by the CRC-32Cs
                      each chunk

each on a thread of its own. At most ``BUFFERS`` chunks are in flight, and none wait in the page cache, so a sync of the
log never queues behind many of them. While there are writes (``Traffic``), most of the disk's time is left to them.

Otherwise the backend writes the file itself (``copy_to``), which is then digested, synced and read back.

If the bytes read back differ from those digested, ``finish`` raises ``Corruption`` with the offset. Without
``reads_back`` the last step falls away, and what the disk holds is first checked by whoever verifies the file.
"""

from __future__ import annotations

import _thread
import fcntl
import hashlib
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import BuiltinFunctionType

from kvstore.backend import Progress
from kvstore.checksum import crc32c
from kvstore.errors import Corruption, NoThread
from kvstore.files import BLOCK_BYTES, Disk, File, forget_cached, is_direct

CHUNK_BYTES = 1 << 20
PIECE_BYTES = 128 << 10
"""The most that is asked of the disk at once while it is busy."""
BUSY_SHARE = 4
"""While the disk is busy, the copy uses it for at most 1 / N of the time."""
BUFFERS = 8
PIPE_BYTES = 1 << 20

IsBusy = Callable[[], bool]
"""Whether writers need the disk."""


def nobody() -> bool:
    return False


def threads_are_real() -> bool:
    """Whether one thread may wait for another on a pipe.

    Under gevent's ``monkey.patch_all`` threads are greenlets of one thread, which such a wait would stop forever.
    """
    return isinstance(_thread.start_new_thread, BuiltinFunctionType)


class Meter:
    """Bytes copied, digested or written, and read back, if they are: one number. The callback may raise to give up."""

    def __init__(self, progress: Progress | None, about_bytes: int, *, reads_back: bool) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done = [0] * (3 if reads_back else 2)
        self._total_bytes = about_bytes

    def report(self, number: int, done_bytes: int) -> None:
        """Report that pass ``number`` has come this far."""
        if self._progress is None:
            return
        with self._lock:
            self._done[number] = min(done_bytes, self._total_bytes)
            self._progress(sum(self._done), len(self._done) * self._total_bytes)

    def copied(self, size_bytes: int) -> None:
        """The copy is finished, so its true size is known."""
        with self._lock:
            self._total_bytes = max(size_bytes, *self._done)
        self.report(0, size_bytes)


class Copying:
    """One copy. ``fill`` writes the file, or the caller does if it cannot; then come ``digest`` and ``finish``."""

    def __init__(
        self, disk: Disk, path: Path, meter: Meter, is_busy: IsBusy = nobody, *, reads_back: bool
    ) -> None:
        self._disk = disk
        self._path = path
        self._meter = meter
        self._is_busy = is_busy
        self._reads_back = reads_back
        self._sha256 = hashlib.sha256()
        self._crcs: list[int] = []
        """Of the chunks that are to be read back."""
        self._read_back_chunks = 0
        self._size_bytes = 0
        self._failure: BaseException | None = None
        self._turn = threading.Lock()
        """Held by the stage that uses the disk while the disk is busy."""

    # --- through a pipe ---------------------------------------------------------------

    def fill(self, copy_into: Callable[[int], bool]) -> bool:
        """Write to the file what ``copy_into`` writes into a pipe. Returns false, with no file, if it cannot now."""
        if not threads_are_real():
            return False
        digested: SimpleQueue[memoryview | None] = SimpleQueue()
        written: SimpleQueue[int | None] = SimpleQueue()
        free: SimpleQueue[memoryview] = SimpleQueue()
        stages: list[threading.Thread] = []
        copied = False
        file = self._disk.create(self._path, direct=True)
        try:
            readable, writable = os.pipe()
        except BaseException:
            file.close()
            raise
        try:
            if hasattr(fcntl, "F_SETPIPE_SZ"):  # elsewhere a pipe is as large as it is
                fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            for _ in range(BUFFERS):
                free.put(_aligned())
            stages.append(self._stage("digest", self._digest_pipe, readable, free, digested))
            stages.append(self._stage("write", self._write_chunks, file, free, digested, written))
            if self._reads_back:
                stages.append(self._stage("read-back", self._read_back_behind, is_direct(file), written))
            copied = copy_into(writable)
        except BaseException as failure:
            self._fail(failure)
        finally:
            os.close(writable)
            for thread in stages:
                thread.join()
            if not stages:  # the first stage closes it
                os.close(readable)
            file.close()
        if self._failure is not None:
            raise self._failure
        if not copied:
            self._disk.remove(self._path)
        return copied

    def _stage(self, name: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as failure:
                self._fail(failure)

        thread = threading.Thread(target=run, name=f"kvstore-snapshot-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThread from error
        return thread

    def _fail(self, failure: BaseException) -> None:
        """Keep the first failure, from which the others follow: every stage lets the rest pass."""
        if self._failure is None:
            self._failure = failure

    def _digest_pipe(
        self, readable: int, free: SimpleQueue[memoryview], digested: SimpleQueue[memoryview | None]
    ) -> None:
        try:
            while self._failure is None:
                buffer = free.get()
                length = _read_pipe(readable, buffer)
                if length:
                    self._take(buffer[:length])
                    self._meter.report(0, self._size_bytes)
                    digested.put(buffer[:length])
                if length < len(buffer):
                    if self._size_bytes:
                        self._meter.copied(self._size_bytes)
                    return
        except BaseException as failure:
            self._fail(failure)  # before the pipe breaks, which makes its writer fail
        finally:
            os.close(readable)
            digested.put(None)

    def _take(self, chunk: memoryview) -> None:
        self._sha256.update(chunk)
        if self._reads_back:
            self._crcs.append(crc32c(chunk))
        self._size_bytes += len(chunk)

    def _write_chunks(
        self,
        file: File,
        free: SimpleQueue[memoryview],
        digested: SimpleQueue[memoryview | None],
        written: SimpleQueue[int | None],
    ) -> None:
        offset = 0
        try:
            while (chunk := digested.get()) is not None:
                if self._failure is None:
                    try:
                        for at, end in self._pieces(len(chunk)):
                            file.pwrite(chunk[at:end], offset + at)
                    except BaseException as failure:
                        self._fail(failure)
                    offset += len(chunk)
                    self._report(1, offset)
                    written.put(offset)
                free.put(memoryview(chunk.obj))  # the whole buffer that the chunk is a part of
            if self._failure is None:
                file.sync()
        finally:
            written.put(None)

    def _report(self, number: int, done_bytes: int) -> None:
        try:
            self._meter.report(number, done_bytes)
        except BaseException as given_up:
            self._fail(given_up)

    def _read_back_behind(self, at_once: bool, written: SimpleQueue[int | None]) -> None:
        """Read back chunk by chunk; unless ``at_once``, they are still in the page cache, and it is done at the end."""
        if not at_once:
            return
        with _from_disk(self._path) as fd:
            buffer = _aligned()
            while (offset := written.get()) is not None:
                if self._failure is None:
                    self._read_back(fd, buffer, -(-offset // CHUNK_BYTES))

    def _pieces(self, length: int) -> Iterator[tuple[int, int]]:
        """(start, end) of what to ask of the disk at once. While it is busy, one small piece, then a pause."""
        at = 0
        while at < length:
            if self._is_busy():
                with self._turn:
                    end = min(at + PIECE_BYTES, length)
                    begin = time.perf_counter()
                    yield at, end
                    time.sleep((time.perf_counter() - begin) * (BUSY_SHARE - 1))
            else:
                end = length
                yield at, end
            at = end

    # --- a finished file --------------------------------------------------------------

    def digest(self) -> tuple[int, bytes]:
        """(size, SHA-256) of the finished copy."""
        if not self._size_bytes:
            self._digest_file()
        return self._size_bytes, self._sha256.digest()

    def _digest_file(self) -> None:
        size_bytes = self._path.stat().st_size
        self._meter.copied(size_bytes)
        buffer = _aligned()
        with open(self._path, "rb", buffering=0) as file:
            while self._size_bytes < size_bytes:
                chunk = buffer[: min(CHUNK_BYTES, size_bytes - self._size_bytes)]
                _read_exactly(file.fileno(), self._size_bytes, chunk, self._path)
                self._take(chunk)
                self._meter.report(1, self._size_bytes)

    # --- reading back -----------------------------------------------------------------

    def finish(self, tail: bytes) -> None:
        """The file is synced, with ``tail`` at its end: read back the rest."""
        if self._read_back_chunks < len(self._crcs):
            with _from_disk(self._path) as fd:
                self._read_back(fd, _aligned(), len(self._crcs))
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._size_bytes)
            if file.read() != tail:
                raise Corruption(
                    "read-back check failed: the disk returned other bytes than were written",
                    self._path,
                    self._size_bytes,
                )

    def _read_back(self, fd: int, buffer: memoryview, chunks: int) -> None:
        """Compare the first ``chunks`` chunks with what the disk holds."""
        for number in range(self._read_back_chunks, chunks):
            offset = number * CHUNK_BYTES
            length = min(CHUNK_BYTES, self._size_bytes - offset)
            for at, end in self._pieces(length):
                whole = buffer[at : at + -(-(end - at) // BLOCK_BYTES) * BLOCK_BYTES]
                _read_exactly(fd, offset + at, whole, self._path, at_least=end - at)
            if crc32c(buffer[:length]) != self._crcs[number]:
                raise Corruption(
                    "read-back check failed: the disk returned other bytes than were written",
                    self._path,
                    offset,
                )
            self._meter.report(2, offset + length)
        self._read_back_chunks = chunks


def _aligned() -> memoryview:
    """A page-aligned buffer for one chunk, as direct disk access demands."""
    return memoryview(mmap.mmap(-1, CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _read_pipe(fd: int, buffer: memoryview) -> int:
    """Fill the buffer; with fewer bytes only at the end."""
    done = 0
    while done < len(buffer):
        count = os.readv(fd, [buffer[done:]])
        if not count:
            break
        done += count
    return done


@contextmanager
def _from_disk(path: Path) -> Iterator[int]:
    """A descriptor that reads past the page cache, or, if the file system cannot, after emptying it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except (OSError, AttributeError):  # the file system cannot, or the system
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        forget_cached(fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _read_exactly(fd: int, offset: int, buffer: memoryview, path: Path, at_least: int = 0) -> None:
    """Fill the buffer, or at the end of the file ``at_least`` this much of it."""
    needed, done = at_least or len(buffer), 0
    while done < needed:
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if not count:
            raise Corruption("the file was truncated while it was being read", path, offset + done)
        done += count
