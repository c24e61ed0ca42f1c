"""The snapshots of one store: when to take one, which to keep, and which log segments they make superfluous.

    take     by hand, or automatically when enough was written since the last (``due``)
    keep     the newest ``max_snapshots``; an older one is removed only after a newer one is in place
    release  log segments below an index that the synced backend and the oldest kept snapshot cover: they are removed,
             or moved to the archive

An automatic snapshot by count also waits until the log since the last one has outgrown the backend. So copying
is never more than about the same again as writing, however large the store and however small its entries.

A backend that keeps nothing (memory) lives on the newest snapshot and the log after it: without a snapshot no
segment is given up.

Automatic snapshots run on a thread of their own: the copy may take a while, and checkpoints must not wait behind it
for longer than the copy itself. So does archiving: the archive may be a file system that hangs, or is not there.
What fails is logged and tried again after a pause; it never harms the store. A segment that cannot be archived stays
with the log, which grows meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import layout
from kvstore.backend import Progress
from kvstore.errors import KVStoreError, ReadOnly, StoreClosed
from kvstore.files import is_disk_failure
from kvstore.held import check_held
from kvstore.snapshot.live_copy import take_beside
from kvstore.snapshot.reader import SnapshotInfo, read_info
from kvstore.snapshot.writer import take_snapshot
from kvstore.upkeep.background import SNAPSHOT, said_of

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

logger = logging.getLogger("kvstore")

RETRY_SECONDS = 60.0
ARCHIVE_RETRY_SECONDS = 5.0
ARCHIVE_WAIT_SECONDS = 2.0
"""As long does ``close`` wait for a segment on its way to the archive."""


class SnapshotKeeper:
    """Takes, keeps and removes the snapshots of an engine."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._taking = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        self._releasing = threading.Lock()
        self._archiver: threading.Thread | None = None
        self._archive_not_before = 0.0
        self.archive_error: BaseException | None = None
        """Why the last segment was not archived."""
        self.last: SnapshotInfo | None = None
        """The newest snapshot in the store's own place."""
        self.last_error: Exception | None = None
        self._bytes_before = 0
        """Log bytes since the last snapshot that earlier runs wrote, minus those that this run wrote before it."""
        self._since_ms = engine.clock.elapsed_ms()
        """When the last snapshot was taken, by the time that only goes on."""
        if engine.directory is not None and engine.log is not None:
            self._find_last()

    def _find_last(self) -> None:
        for file in reversed(self.files()):
            try:
                self.last = read_info(file.path)
            except (KVStoreError, OSError) as error:
                logger.warning("a snapshot cannot be used: %s", error)
                continue
            waited_ms = max(
                self._engine.now_ms() - self.last.created_ms, 0
            )  # or it comes from a clock that was wrong
            self._since_ms -= waited_ms
            break
        index = self.last.index if self.last else 0
        log = self._engine.log
        segments = log.segments()[:-1] if log is not None else []  # the last is filled with zeros ahead
        self._bytes_before = sum(segment.size_bytes for segment in segments if segment.last_index > index)

    def files(self) -> list[layout.NumberedFile]:
        """Snapshots in the store's own place, oldest first."""
        directory = self._engine.directory
        if directory is None:
            return []
        return [file for file in directory.snapshots() if file.cluster_id == self._engine.cluster_id]

    # --- taking -----------------------------------------------------------------------

    def take(
        self, path: str | os.PathLike[str] | None = None, progress: Progress | None = None
    ) -> SnapshotInfo:
        """Write a snapshot of everything durable now; see ``writer``."""
        engine = self._engine
        engine.check_readable()
        if engine.log is None:
            if path is None or engine.directory is None:
                raise ReadOnly
            return take_beside(engine, Path(path), progress)
        if path is None:
            check_held(engine.disk)
        with self._taking:
            log_bytes = engine.log.appended_bytes
            with engine.timed(SNAPSHOT):
                info = take_snapshot(engine, None if path is None else Path(path), progress)
            if path is None:
                self.last, self.last_error = info, None
                self._since_ms, self._bytes_before = engine.clock.elapsed_ms(), -log_bytes
                self.prune(engine.options.max_snapshots)
        logger.info("snapshot %s: revision %d, %d bytes", info.path, info.revision, info.size_bytes)
        return info

    def surplus(self, keep: int) -> list[layout.NumberedFile]:
        """The snapshots that are too many where the newest ``keep`` (0: all) are wanted, oldest first."""
        return self.files()[:-keep] if keep else []

    def prune(self, keep: int) -> list[layout.NumberedFile]:
        """Remove the ``surplus``; what was removed."""
        engine = self._engine
        if engine.log is None or engine.directory is None:
            raise ReadOnly
        surplus = self.surplus(keep)
        for file in surplus:
            engine.disk.remove(file.path)
        if surplus:
            engine.disk.sync_dir(engine.directory.snap)
        return surplus

    # --- automatically ----------------------------------------------------------------

    @property
    def entries_since(self) -> int:
        """Log entries since the last snapshot."""
        return self._engine.state.index - (self.last.index if self.last else 0)

    @property
    def log_bytes_since(self) -> int:
        """Bytes of log since the last snapshot."""
        log = self._engine.log
        return max(0, self._bytes_before + (log.appended_bytes if log is not None else 0))

    def due(self) -> bool:
        """Whether the options ask for a snapshot now."""
        options, entries, log_bytes = self._engine.options, self.entries_since, self.log_bytes_since
        if not entries:
            return False
        if options.snapshot_size and log_bytes >= options.snapshot_size:
            return True
        waited_ms = self._engine.clock.elapsed_ms() - self._since_ms
        if options.snapshot_interval_seconds and waited_ms >= options.snapshot_interval_seconds * 1000:
            return True
        if not options.snapshot_count or entries < options.snapshot_count:
            return False
        return log_bytes > self._engine.backend.size_bytes()

    def tend(self) -> None:
        """Begin a snapshot on its own thread if one is due; release what is no longer needed."""
        if not _is_alive(self._thread) and time.monotonic() >= self._not_before and self.due():
            self._thread = _begin(self._run, "kvstore-snapshot")
        if not self._engine.options.archive_dir:
            self.release()
        elif (
            not _is_alive(self._archiver)
            and time.monotonic() >= self._archive_not_before
            and self._may_release()
        ):
            self._archiver = _begin(self._archive, "kvstore-archive")

    def _run(self) -> None:
        try:
            self.take(progress=self._stop_if_asked)
        except StoreClosed:
            pass
        except Exception as error:
            self.last_error = error
            self._not_before = time.monotonic() + RETRY_SECONDS
            logger.warning("no snapshot was taken: %s", said_of(error))

    def _archive(self) -> None:
        try:
            self.release()
        except StoreClosed:
            pass
        except Exception as error:
            self._archive_not_before = time.monotonic() + ARCHIVE_RETRY_SECONDS
            if str(error) != str(self.archive_error):
                logger.warning("a segment was not archived, the log keeps it: %s", said_of(error))
            self.archive_error = error

    def _stop_if_asked(self, done: int, total: int) -> None:
        if self._stopping:
            raise StoreClosed

    def stop(self) -> None:
        """Give up an automatic snapshot that is under way, and an archive that does not answer."""
        self._stopping = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._archiver is not None:
            self._archiver.join(ARCHIVE_WAIT_SECONDS)
            if self._archiver.is_alive():
                archive = self._engine.options.archive_dir
                logger.warning(
                    "%s does not answer: closed without archiving, the log keeps the segment", archive
                )

    # --- the log ----------------------------------------------------------------------

    def release(self) -> list[Path]:
        """Give up segments that neither the backend nor a kept snapshot needs; which they were."""
        engine = self._engine
        log, directory = engine.log, engine.directory
        if log is None or directory is None:
            return []
        with self._releasing:
            if not self._may_release():
                return []
            with engine.checkpointing:
                index = engine.state.applied_index
                if engine.backend.persistent:
                    self._sync_backend(directory.snap)
            segments = self._releasable(self.covered_index(index))
            if not engine.options.archive_dir:
                log.give_up(segments)
                return segments
            for segment in segments:
                if self._stopping:
                    raise StoreClosed
                log.give_up([segment], engine.options.archive_dir)
            self.archive_error = None
            return segments

    def _releasable(self, index: int) -> list[Path]:
        engine = self._engine
        most = self._most_segments
        if engine.log is None or not most:
            return []
        with engine.writer.log_lock:
            return engine.log.releasable(index, max_segments=most)

    def _sync_backend(self, folder: Path) -> None:
        """Make the backend durable, and its name too: it may have come by a rename that was interrupted."""
        try:
            self._engine.backend.sync()
            self._engine.disk.sync_dir(folder)
        except BaseException as failure:  # a later sync could succeed without the data that this one lost
            if is_disk_failure(failure):
                self._engine.poison(failure)
            raise

    def covered_index(self, applied_index: int) -> int:
        """The entry up to which the log is not needed, with a backend that durably holds ``applied_index``."""
        oldest = next((file.index for file in self.files()), None)
        if not self._engine.backend.persistent:
            return oldest or 0
        return applied_index if oldest is None else min(applied_index, oldest)

    @property
    def _most_segments(self) -> int:
        """How many to keep, needed or not; 0: all. On a disk without room none that nobody needs."""
        engine = self._engine
        return min(engine.options.max_wals, 1) if engine.space.is_short else engine.options.max_wals

    def _may_release(self) -> bool:
        """Whether syncing the backend could free anything."""
        return bool(self._releasable(self.covered_index(self._engine.state.applied_index)))


def _begin(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()
