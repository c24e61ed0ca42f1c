"""Online defragment: giving free pages back to the file system while readers and writers go on.

    1  db.tmp <- all rows, in order, a handful at a time; synced, compared           in a crash: removed at open
    2  the old file absorbs its side files (settle), and they are removed;
       the directory is synced                                                       in a crash: the old file, whole
    3  db.tmp -> db; the directory is synced                                         in a crash: either file, whole
    4  the new file is opened; new reads go there

Rows in order fill their pages, so the new file is smaller than any copy of pages would be. Checkpoints and compaction
wait meanwhile. Writes do not: they go to the log and the overlay. If they fill it (``overlay_limit``) before the copy
is done, the defragment is given up (``Overloaded``) before any writer has to wait.

Both files hold the same commit, so it does not matter which of them a read finds. A reader keeps a reference to the
backend that it reads from. The old backend closes when the last reader is gone, and its file, whose name is already
taken, vanishes with it. Nothing waits for that, and no read pays for a lock. A file system can take 100 ms to free a
large file, and no sync of the log gets through meanwhile; so if no reader is left, the old file is shortened step by
step before it goes. Readers in other processes lock the folder while they have a file open (``readers``), and they
take the lock before they look up the name: once the name is the new file's, it is known which of them may have the
old one. As long as there are any, the old file is not touched, and they read it to the end.

The side files belong to the old file and must not meet the new one: SQLite would replay its log into whatever file
bears the name. So that log is removed before the new file comes, and the old file is whole without it. LMDB's lock
file is removed after the rename: until then another process could bring it back and hold it when we open the new file.

From the removal of the side files on, the exchange is finished: if memory or descriptors are short at any step of it,
the step is taken again.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from kvstore import files, layout
from kvstore.backend import Backend, Progress
from kvstore.core import DEFRAGMENT, Core
from kvstore.errors import Corruption, DiskFull, NoDescriptor
from kvstore.files import is_disk_failure
from kvstore.held import check_held
from kvstore.mvcc.schema import META, TABLES
from kvstore.observe.estimates import estimate_defragment
from kvstore.pacing import GivesWay
from kvstore.readers import has_readers
from kvstore.snapshot.transfer import copy_rows
from kvstore.upkeep.checkpointing import Checkpointer
from kvstore.write.room import Room
from kvstore.write.writer import Writer

logger = logging.getLogger("kvstore")

T = TypeVar("T")
FREED_BYTES = 4 << 20
DESCRIPTORS = 16
"""That there must be before the files are exchanged, which takes half as many."""
BATCH_BYTES = 256 << 10
"""The size of one commit into the new file: its sync delays the syncs of a put or two, and no longer than that."""
PATIENCE_SECONDS = 30.0
RETRY_SECONDS = 0.05


class Defragmented(NamedTuple):
    """Sizes of the backend's file before and after."""

    before_bytes: int
    """The backend's file before."""
    after_bytes: int
    """And after."""


class Defragmenter:
    """Defragments the backend of one store."""

    def __init__(self, core: Core, writer: Writer, checkpointer: Checkpointer, room: Room) -> None:
        self._core = core
        self._writer = writer
        self._checkpointer = checkpointer
        self._room = room
        self.count: int = 0

    def run_if_worthwhile(self) -> Defragmented | None:
        """Defragment if the share of free space is as large as the options ask for."""
        options, backend = self._core.options, self._core.backend
        if not options.auto_defragment_ratio or not backend.persistent:
            return None
        found = estimate_defragment(backend, self._core.directory)
        if found.reclaimable_bytes < max(options.auto_defragment_min, 1):
            return None
        return self.run() if found.free_share >= options.auto_defragment_ratio else None

    def run(self, progress: Progress | None = None) -> Defragmented:
        """Defragment. Raises ``DiskFull``, before anything is written, if there is no room for the copy, and
        ``Overloaded`` if writers fill the memory meanwhile.
        """
        core = self._core
        core.life.check_readable()
        before = core.backend.size_bytes()
        if not core.backend.persistent:
            return Defragmented(before, before)
        with core.checkpointing, core.timed(DEFRAGMENT):
            check_held(core.disk)
            self._checkpointer.run()
            found = estimate_defragment(core.backend, core.directory)
            if found.free_bytes < found.needed_bytes:
                raise DiskFull(
                    f"defragmenting takes about {found.needed_bytes} bytes for a while; "
                    f"{core.directory.snap} has room for {found.free_bytes}"
                )
            files.check_descriptors(DESCRIPTORS)
            self._copy(core.directory.db_temp, progress)
            self._swap()
            after = core.backend.size_bytes()
        self._room.measure()
        self.count += 1
        logger.info("defragmented: %d bytes, %d before", after, before)
        return Defragmented(before, after)

    def _copy(self, target: Path, progress: Progress | None) -> None:
        """A synced, compared copy at ``target``, or nothing."""
        disk, backend = self._core.disk, self._core.backend
        self._remove_temporaries()
        try:
            copy = type(backend).open(target, TABLES)
            try:
                pause = GivesWay(self._core.state, self._core.options.overlay_limit)
                copy_rows(backend, copy, progress, pause=pause, batch_bytes=BATCH_BYTES)
                _compare(backend, copy, target)
                helpers = copy.settle()
            finally:
                copy.close()
            for path in (*helpers, *type(copy).stale_helpers(target)):
                disk.remove(path)
            disk.sync_file(target)
        except BaseException:
            self._remove_temporaries()
            raise

    def _remove_temporaries(self) -> None:
        directory = self._core.directory
        for path in layout.temporaries(directory.snap):
            if path.name.startswith(directory.db_temp.name):
                self._core.disk.remove(path)

    def _swap(self) -> None:
        core, disk, directory = self._core, self._core.disk, self._core.directory
        old = core.backend
        try:
            files.check_descriptors(DESCRIPTORS)
            helpers = old.settle()
            size_bytes = directory.db.stat().st_size
            old_file = disk.open(directory.db)
        except BaseException:
            self._remove_temporaries()
            raise
        readers = weakref.ref(old)
        try:
            new, is_read_elsewhere = _finished(lambda: self._exchange(helpers))
            _finished(lambda: self._adopt(new))
        except (
            BaseException
        ) as failure:  # the name may already be the new file's: the old one must not be written any more
            old_file.close()
            core.life.poison(failure)
            raise
        core.lock.note_open()
        del old
        _free(old_file, size_bytes, in_use=lambda: is_read_elsewhere or readers() is not None)

    def _exchange(self, helpers: list[Path]) -> tuple[Backend, bool]:
        """Put the copy into the place of the backend's file. Returns it, opened, and whether other processes read the
        old one. May be repeated."""
        disk, directory, kind = self._core.disk, self._core.directory, type(self._core.backend)
        if directory.db_temp.exists():
            for path in helpers:
                disk.remove(path)
            disk.sync_dir(directory.snap)
            disk.rename(directory.db_temp, directory.db)
        for path in kind.stale_helpers(directory.db):
            disk.remove(path)
        disk.sync_dir(directory.snap)
        is_read_elsewhere = has_readers(directory.snap)
        return kind.open(directory.db, TABLES), is_read_elsewhere

    def _adopt(self, new: Backend) -> None:
        with self._writer.still():
            self._core.state.use_backend(new)


def _finished(step: Callable[[], T]) -> T:
    """Take a step that has to be taken: until there is what it lacks, and no longer than ``PATIENCE_SECONDS``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return step()
        except (MemoryError, NoDescriptor, OSError) as error:
            if is_disk_failure(error) or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


def _free(file: files.File, size_bytes: int, in_use: Callable[[], bool]) -> None:
    """Free a file that has no name any more, in small steps if nothing reads it."""
    with closing(file):
        while size_bytes > 0 and not in_use():
            begin = time.perf_counter()
            size_bytes = max(0, size_bytes - FREED_BYTES)
            file.truncate(size_bytes)
            time.sleep(time.perf_counter() - begin)


def _compare(original: Backend, copy: Backend, path: Path) -> None:
    """Check that a copy is of the same commit, from the first row of each table to the last."""
    with original.read() as theirs, copy.read() as ours:
        if theirs.scan(META) != ours.scan(META):
            raise Corruption("the copy is not of the commit that was copied", path)
        for table in TABLES:
            for backwards in (False, True):
                if theirs.scan(table, limit=1, reverse=backwards) != ours.scan(
                    table, limit=1, reverse=backwards
                ):
                    raise Corruption(f"the copy has other rows than the original in table {table!r}", path)
