"""The snapshots of one store: when to take one, which to keep, and which log segments they make superfluous.

    take     by hand, or automatically when enough was written since the last (``due``)
    keep     the newest ``max_snapshots``; an older one is removed only after a newer one is in place
    release  log segments below an index that the synced backend and the oldest kept snapshot cover: they are removed,
             or moved to the archive

An automatic snapshot by count also waits until the log since the last one has outgrown the backend. So copying never
costs more than about as much again as writing, however large the store and however small its entries.

A backend that keeps nothing on disk (memory) depends on the newest snapshot and the log after it: without a snapshot
no segment is released.

Automatic snapshots run on a thread of their own: the copy may take a while, and checkpoints must not wait behind it
for longer than the copy itself. So does archiving: the archive may be on a file system that hangs or is not mounted.
A failure is logged and the work tried again after a pause; it never harms the store. A segment that cannot be archived
stays with the log, which grows meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kvstore import invariants, layout
from kvstore.backend import Progress
from kvstore.core import SNAPSHOT, Core
from kvstore.errors import KVStoreError, StoreClosed, said_of
from kvstore.files import is_disk_failure
from kvstore.held import check_held
from kvstore.invariants import hold
from kvstore.layout import DataDir
from kvstore.pacing import Traffic
from kvstore.snapshot.reader import SnapshotInfo, read_info
from kvstore.snapshot.writer import check_target, copy_backend, seal
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.write.room import Room
from kvstore.write.writer import Writer

logger = logging.getLogger("kvstore")

RETRY_SECONDS = 60.0
ARCHIVE_RETRY_SECONDS = 5.0
ARCHIVE_WAIT_SECONDS = 2.0
"""How long ``close`` waits for a segment on its way to the archive."""


class SnapshotKeeper:
    """Takes, keeps and removes the snapshots of one store."""

    def __init__(self, core: Core, writer: Writer, checkpointer: Checkpointer, room: Room) -> None:
        self._core = core
        self._writer = writer
        self._checkpointer = checkpointer
        self._room = room
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
        """The newest snapshot in the store's own folder."""
        self.last_error: Exception | None = None
        self._bytes_before = 0
        """Log bytes since the last snapshot that earlier runs wrote, minus those that this run wrote before it."""
        self._since_ms = core.clock.elapsed_ms()
        """When the last snapshot was taken, by the clock that cannot be set."""
        self._find_last()

    def _find_last(self) -> None:
        for file in reversed(self.files()):
            try:
                self.last = read_info(file.path)
            except (KVStoreError, OSError) as error:
                logger.warning("a snapshot cannot be used: %s", error)
                continue
            waited_ms = self._core.clock.now_ms() - self.last.created_ms
            self._since_ms -= max(waited_ms, 0)  # it may come from a clock that was wrong
            break
        index = self.last.index if self.last else 0
        segments = self._core.log.segments()[:-1]  # the last is filled with zeros ahead
        self._bytes_before = sum(segment.size_bytes for segment in segments if segment.last_index > index)

    def files(self) -> list[layout.NumberedFile]:
        """Snapshots in the store's own folder, oldest first."""
        return own_snapshots(self._core.directory, self._core.cluster_id)

    # --- taking -----------------------------------------------------------------------

    def take(
        self, path: str | os.PathLike[str] | None = None, progress: Progress | None = None
    ) -> SnapshotInfo:
        """Write a snapshot of everything durable now, to ``path`` or to the store's own folder; see ``writer``."""
        core = self._core
        core.life.check_readable()
        if path is None:
            check_held(core.disk)
        with self._taking:
            log_bytes = core.log.appended_bytes
            with core.timed(SNAPSHOT):
                info = self._write(None if path is None else Path(path), progress)
            if path is None:
                self.last, self.last_error = info, None
                self._since_ms, self._bytes_before = core.clock.elapsed_ms(), -log_bytes
                self.prune(core.options.max_snapshots)
        logger.info("snapshot %s: revision %d, %d bytes", info.path, info.revision, info.size_bytes)
        return info

    def _write(self, path: Path | None, progress: Progress | None) -> SnapshotInfo:
        core = self._core
        with core.checkpointing:
            self._checkpointer.run()
            target = path or core.directory.snapshot(core.cluster_id, core.state.applied_index)
            if path is not None:
                check_target(core.directory, path)
            now_ms = core.clock.now_ms()
            is_busy = Traffic(core.state, core.options.overlay_limit)
            copy = copy_backend(
                core.disk,
                core.backend,
                target,
                now_ms,
                progress,
                is_busy=is_busy,
                reads_back=core.options.snapshot_read_back,
            )
        return seal(core.disk, copy, target)

    def prune(self, keep: int) -> list[layout.NumberedFile]:
        """Remove the ``surplus``; returns what was removed."""
        core = self._core
        surplus = surplus_of(self.files(), keep)
        for file in surplus:
            core.disk.remove(file.path)
        if surplus:
            core.disk.sync_dir(core.directory.snap)
        return surplus

    # --- automatically ----------------------------------------------------------------

    @property
    def entries_since(self) -> int:
        """Log entries since the last snapshot."""
        return self._core.state.index - (self.last.index if self.last else 0)

    @property
    def log_bytes_since(self) -> int:
        """Bytes of log since the last snapshot."""
        return max(0, self._bytes_before + self._core.log.appended_bytes)

    def due(self) -> bool:
        """Whether the options ask for a snapshot now."""
        options, entries, log_bytes = self._core.options, self.entries_since, self.log_bytes_since
        if not entries:
            return False
        if options.snapshot_size and log_bytes >= options.snapshot_size:
            return True
        waited_ms = self._core.clock.elapsed_ms() - self._since_ms
        if options.snapshot_interval_seconds and waited_ms >= options.snapshot_interval_seconds * 1000:
            return True
        if not options.snapshot_count or entries < options.snapshot_count:
            return False
        return log_bytes > self._core.backend.size_bytes()

    def tend(self) -> None:
        """Begin a snapshot on its own thread if one is due; release segments that are no longer needed."""
        if not _is_alive(self._thread) and time.monotonic() >= self._not_before and self.due():
            self._thread = _begin(self._run, "kvstore-snapshot")
        if not self._core.options.archive_dir:
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
        """Give up an automatic snapshot that is under way, and an archive that does not respond."""
        self._stopping = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._archiver is not None:
            self._archiver.join(ARCHIVE_WAIT_SECONDS)
            if self._archiver.is_alive():
                archive = self._core.options.archive_dir
                logger.warning(
                    "%s does not answer: closed without archiving, the log keeps the segment", archive
                )

    # --- the log ----------------------------------------------------------------------

    def release(self) -> list[Path]:
        """Release segments that neither the backend nor a kept snapshot needs. Returns them."""
        core = self._core
        with self._releasing:
            if not self._may_release():
                return []
            with core.checkpointing:
                index = core.state.applied_index
                if core.backend.persistent:
                    self._sync_backend(core.directory.snap)
            covered = self.covered_index(index)
            segments = self._releasable(covered)
            if invariants.ON:
                self._check_released(segments, covered)
            if not core.options.archive_dir:
                core.log.give_up(segments)
                return segments
            for segment in segments:
                if self._stopping:
                    raise StoreClosed
                core.log.give_up([segment], core.options.archive_dir)
            self.archive_error = None
            return segments

    def _check_released(self, segments: list[Path], covered: int) -> None:
        with self._writer.log_lock:
            last = {segment.path: segment.last_index for segment in self._core.log.segments()}
        for path in segments:
            hold(5, last[path] <= covered, f"{path.name} goes, whose entries after {covered} are needed")

    def _releasable(self, index: int) -> list[Path]:
        most = self._most_segments
        if not most:
            return []
        with self._writer.log_lock:
            return self._core.log.releasable(index, max_segments=most)

    def _sync_backend(self, folder: Path) -> None:
        """Make the backend durable, and its name too, which may come from an interrupted rename."""
        try:
            self._core.backend.sync()
            self._core.disk.sync_dir(folder)
        except BaseException as failure:  # a later sync could succeed without the data that this one lost
            if is_disk_failure(failure):
                self._core.life.poison(failure)
            raise

    def covered_index(self, applied_index: int) -> int:
        """The entry up to which the log is not needed, given a backend that durably holds ``applied_index``."""
        oldest = next((file.index for file in self.files()), None)
        if not self._core.backend.persistent:
            return oldest or 0
        return applied_index if oldest is None else min(applied_index, oldest)

    @property
    def _most_segments(self) -> int:
        """How many segments to keep, needed or not; 0: all. On a disk short of room, only those that are needed."""
        most: int = self._core.options.max_wals
        return min(most, 1) if self._room.is_short else most

    def _may_release(self) -> bool:
        """Whether syncing the backend could free anything."""
        return bool(self._releasable(self.covered_index(self._core.state.applied_index)))


def own_snapshots(directory: DataDir, cluster_id: int) -> list[layout.NumberedFile]:
    """Snapshots of this store in its own folder, oldest first."""
    return [file for file in directory.snapshots() if file.cluster_id == cluster_id]


def surplus_of(files: list[layout.NumberedFile], keep: int) -> list[layout.NumberedFile]:
    """The snapshots beyond the newest ``keep`` (0: keep all), oldest first."""
    return files[:-keep] if keep else []


def _begin(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()
