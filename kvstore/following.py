"""Moving a read-only handle: to the newest durable revision of a store that another process writes.

    look        an opening without a lock: the backend's newest commit, and the log after it (read_only.py)
    read        always at the revision that is published here; what the writer does does not change it
    refresh     read the log after what is known, sync it, apply it record by record, publish each

A handle moves when it is told to (``refresh``), or by itself with the option ``refresh_interval_seconds``; there is
one step, and one way to take it. So a reader between two calls always finds a whole revision, revisions come in order,
and a watch gets each of them. The file of the log is asked, not the operating system's notices: those do not come over
network file systems or from other containers, are lost when there are many, and a look at eight bytes is cheap.

What is published is durable: the writer may have written a record and not yet synced it, so the reader syncs what it
has read before it acts on it.

The writer moves changes into the backend, and what it has moved need not stay in memory here. If the log no longer goes
on from where the handle is (its segments were released), or another file has taken the backend's place (a
defragmentation), the handle looks again, and takes over the state that it finds, which has all that the old one had. A
watch then reads what it lacks from the store; ``Compacted`` ends it if that is gone. A handle that was not moved for
long may find its revision compacted: then reads say so, until a refresh.

Everything that fails leaves the handle where it was, and the next refresh tries again.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from kvstore import layout
from kvstore.backend import find_backend
from kvstore.bell import Bell
from kvstore.core import ReadCore
from kvstore.errors import Corruption, StoreUnreachable, WrongStore, said_of
from kvstore.files import Disk, disk_full_is_typed
from kvstore.layout import DataDir
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.state import State
from kvstore.replay import CHECKPOINT_BYTES, apply_log
from kvstore.shelter import begin, join, sheltered
from kvstore.wal.end import LogEnd
from kvstore.wal.format import Batch
from kvstore.wal.replay import Replay

logger = logging.getLogger("kvstore")
T = TypeVar("T")

CHUNK_BYTES = 4 << 20
"""Records that are read, synced and applied together."""
KEPT_BYTES = 256 << 10
"""Changes that stay in memory without a look at whether the backend has them."""
RETRY_SECONDS = 0.1
PAUSE_SECONDS = 0.00005
_CANNOT_SYNC = frozenset({errno.EROFS, errno.EINVAL, errno.ENOTSUP})
"""The errno values for a file that cannot be synced: it is on a medium that cannot be written."""

FileId = tuple[int, int]


class Look(NamedTuple):
    """What an opening without a lock has found."""

    state: State
    lessor: Lessor
    replay: Replay
    """The reading of the log, at its end."""
    file: FileId | None
    """The backend's file; None if the backend is in this process's memory."""


class Following:
    """Moves one handle. Its engine closes it before the backend."""

    def __init__(self, core: ReadCore, directory: DataDir, found: Look, look: Callable[[Look], Look]) -> None:
        self._life = core.life
        self._disk = core.disk
        self._state = core.state
        self._lessor = core.lessor
        self._cluster_id = core.cluster_id
        self._directory = directory
        self._has_file = find_backend(core.options.backend).persistent
        self._interval_seconds = core.options.refresh_interval_seconds
        self._look = look
        self._found = found
        self._mark = found.replay.last_mark
        self._end = LogEnd(found.replay)
        self._is_torn_apart = False
        """Whether a record failed half way: only a new look shows what is right."""
        self._moves = 0
        """Grows before and after each change of what the handle knows: odd in between."""
        self._moving = threading.Lock()
        self._bell = Bell()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.listeners: list[Callable[[int], None]] = []
        """Called with each revision that is published."""
        self._last_error = ""
        """Why the handle did not move by itself when it last tried."""

    @property
    def is_automatic(self) -> bool:
        """Whether the handle moves by itself."""
        return self._interval_seconds > 0

    @property
    def errors(self) -> list[str]:
        """Why the handle did not move when it last tried by itself."""
        return [f"the handle cannot move: {self._last_error}"] if self._last_error else []

    # --- the step ---------------------------------------------------------------------

    def refresh(self) -> int:
        """Move to the newest durable revision, and return it. Nothing has changed if this raises."""
        self._life.check_readable()
        with disk_full_is_typed():
            if not self._is_torn_apart and not self._end.has_moved() and not self._is_replaced:
                return self._state.published
        return self._move()

    @sheltered
    def _move(self) -> int:
        with self._moving, disk_full_is_typed():
            self._life.check_readable()
            try:
                if self._is_torn_apart:
                    self._begin_anew()
                elif self._end.has_moved():
                    self._read_on()
                self._let_go()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise StoreUnreachable(self._directory.root, error.strerror or "is gone") from error
            return self._state.published

    def at_rest(self, read: Callable[[], T]) -> T:
        """The answer of a ``read`` of the leases or of the newest state, made while nothing was changing."""
        while True:
            before = self._moves
            if before & 1 == 0:
                try:
                    answer = read()
                except Exception:
                    if self._moves == before:
                        raise
                else:
                    if self._moves == before:
                        return answer
            time.sleep(PAUSE_SECONDS)

    def _read_on(self) -> None:
        """Apply what the log has after the state; from the backend, if the log does not go on there any more."""
        try:
            replay = Replay(None, self._directory.wal, self._state.index, self._mark, self._segments())
            waiting: list[Batch] = []
            size_bytes = 0
            for batch in replay.batches():
                waiting.append(batch)
                size_bytes += sum(map(len, batch.entries))
                if size_bytes > CHUNK_BYTES:
                    self._apply(waiting)
                    self._let_go()
                    waiting, size_bytes = [], 0
            self._apply(waiting)
            self._note_end(replay)
        except (Corruption, FileNotFoundError) as error:
            logger.info(
                "the log does not go on from entry %d, so the backend does: %s", self._state.index, error
            )
            self._begin_anew()

    def _segments(self) -> list[layout.NumberedFile]:
        segments = layout.segments(self._directory.wal)
        if not segments:
            raise StoreUnreachable(self._directory.wal, "the log is gone")
        for file in segments:
            if file.cluster_id != self._cluster_id:
                raise self._not_the_same()
        return segments

    def _apply(self, batches: list[Batch]) -> None:
        if not batches:
            return
        sync_log(self._disk, self._directory.wal)
        for batch in batches:
            self._moves += 1
            try:
                self._is_torn_apart = True
                apply_log((batch,), self._state, self._lessor)
                self._is_torn_apart = False
                self._publish()
            finally:
                self._moves += 1

    def _publish(self) -> None:
        state = self._state
        state.publish(state.head, state.head_compacted)
        for listen in self.listeners:
            listen(state.published)

    def _note_end(self, replay: Replay) -> None:
        self._mark = replay.last_mark or self._mark
        self._end = LogEnd(replay)  # the one before closes with its last reference

    # --- the backend ------------------------------------------------------------------

    def _let_go(self) -> None:
        """Drop the changes that the backend has, and notice when another file has taken its place."""
        state = self._state
        if self._is_replaced:
            self._begin_anew()
        if self._found.file is None:
            if state.waiting_bytes > CHECKPOINT_BYTES:
                write_now(state, 0)
        elif sum(generation.size_bytes for generation in state.generations) > KEPT_BYTES:
            with state.backend.read() as tx:
                applied_index = Marks.read(tx).applied_index
            if not self._is_replaced:  # otherwise the view was perhaps of the next file
                state.covered(applied_index)

    @property
    def _is_replaced(self) -> bool:
        """Whether the name of the backend's file leads to another one than that which is read."""
        return self._has_file and file_id(self._directory.db) != self._found.file

    def _begin_anew(self) -> None:
        """Look again, and take over what is found."""
        self._segments()
        found = self._look(self._found)
        try:
            self._check_same(found)
        except BaseException:
            if found.state.backend is not self._state.backend:
                found.state.backend.close()
            raise
        self._moves += 1
        try:
            self._state.move_to(found.state)
            self._lessor.adopt(found.lessor)
            self._found = found._replace(state=self._state, lessor=self._lessor)
            self._is_torn_apart = False
            self._mark = None
            self._note_end(found.replay)
            self._publish()
        finally:
            self._moves += 1

    def _check_same(self, found: Look) -> None:
        """Raise ``WrongStore`` if what is there now is not what this handle has read."""
        metadata = found.replay.metadata
        if metadata is None or metadata.cluster_id != self._cluster_id:
            raise self._not_the_same()
        if found.state.head < self._state.published:
            raise WrongStore(
                f"{self._directory.root} is at revision {found.state.head}, and this handle has seen "
                f"{self._state.published}: an older copy is there now; open it again",
                self._directory.root,
            )

    def _not_the_same(self) -> WrongStore:
        return WrongStore(
            f"{self._directory.root} holds another store now; open it again", self._directory.root
        )

    # --- by itself --------------------------------------------------------------------

    def begin(self) -> None:
        """Start the thread that moves the handle, if it is to move by itself. Raises ``NoThread``."""
        if not self.is_automatic:
            return
        self._thread = begin(self._run, "kvstore-follow")

    def _run(self) -> None:
        while not self._stopping:
            wait_seconds = self._interval_seconds
            try:
                self.refresh()
                self._last_error = ""
            except Exception as error:
                if not self._stopping:
                    self._note(error)
                wait_seconds = max(wait_seconds, RETRY_SECONDS)
            self._bell.wait(wait_seconds)

    def _note(self, error: Exception) -> None:
        if self._last_error != said_of(error):
            logger.warning("%s: the handle cannot move: %s", self._directory.root, said_of(error))
        self._last_error = said_of(error)

    def stop(self) -> None:
        """Move no more. By then the handle refuses reads."""
        self._stopping = True
        self._bell.ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            join(self._thread)
        with self._moving:
            pass  # no thread is moving it now


def file_id(path: Path) -> FileId | None:
    """What tells a file from the one that had its name before; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def sync_log(disk: Disk, wal_dir: Path) -> None:
    """Sync what another process has written to the log: all but the newest segment were synced when they ended."""
    try:
        disk.sync_file(layout.segments(wal_dir)[-1].path)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
