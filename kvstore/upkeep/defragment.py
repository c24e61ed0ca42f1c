"""Online defragment: giving free pages back to the file system while readers and writers go on.

    1  db.tmp <- all rows, in order, a handful at a time; synced, compared           in a crash: removed at open
    2  the old file takes in all that its helpers hold (settle), and they are
       removed; the directory is synced                                              in a crash: the old file, whole
    3  db.tmp -> db; the directory is synced                                         in a crash: either file, whole
    4  the new file is opened; new reads go there

Rows in order fill their pages, so the new file is smaller than any copy of pages would be. Checkpoints and compaction
wait meanwhile; writes do not: they go to the log and the overlay. Should they fill it (``overlay_limit``) before
the copy is done, the defragment is given up (``Overloaded``), and nobody has waited.

Both files hold the same commit, so it does not matter which of them a read finds. A reader keeps a reference to the
backend that it reads from. The old backend closes when the last of them is gone, and its file, whose name is
already taken, vanishes with it. Nobody waits, and no read pays for a lock. A file system can take 100 ms to free a
large file, in which no sync of the log gets through; so where no reader is left, the old file is cut shorter
step by step before it goes. Readers of other processes lock the folder for as long as they have a file open
(``readers``), before they look up its name: who may have the old file is known once the name is the new one's. As
long as there is any, the old file is not touched, and they read it to the end.

The helpers belong to the old file and must not meet the new one: SQLite would play its log into whatever file
bears the name. So the log is gone before the new file comes, and the old one is whole without it. LMDB's lock file
goes after the rename: until then another process could bring it back and hold it when we open the new file.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kvstore import files, layout
from kvstore.backend import Backend, Progress
from kvstore.errors import Corruption, DiskFull, Overloaded, ReadOnly
from kvstore.held import check_held
from kvstore.mvcc.schema import META, TABLES
from kvstore.readers import has_readers
from kvstore.snapshot.transfer import copy_rows
from kvstore.upkeep.background import DEFRAGMENT, Courtesy

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine

logger = logging.getLogger("kvstore")

MARGIN_BYTES = 4 << 20
FREED_BYTES = 4 << 20
BATCH_BYTES = 256 << 10
"""Of a commit into the new file: its sync holds up the sync of a put or two, for no longer than that."""


class DefragmentEstimate(NamedTuple):
    """What a defragment would do. ``needed_bytes`` of ``free_bytes`` on the disk are taken until it is done."""

    size_bytes: int
    in_use_bytes: int
    needed_bytes: int
    free_bytes: int

    @property
    def reclaimable_bytes(self) -> int:
        return max(self.size_bytes - self.in_use_bytes, 0)

    @property
    def free_share(self) -> float:
        return self.reclaimable_bytes / self.size_bytes if self.size_bytes else 0.0


class Defragmented(NamedTuple):
    """Sizes of the backend's file before and after."""

    before_bytes: int
    after_bytes: int


class Defragmenter:
    """Defragments the backend of one engine."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._name = engine.directory.db_temp.name if engine.directory is not None else ""
        self.count: int = 0

    def estimate(self) -> DefragmentEstimate:
        """The sizes that matter. Changes nothing."""
        backend, directory = self._engine.backend, self._engine.directory
        in_use = backend.in_use_bytes()
        free = files.free_bytes(directory.snap) if directory is not None else 0
        return DefragmentEstimate(backend.size_bytes(), in_use, in_use + MARGIN_BYTES, free)

    def run_if_worthwhile(self) -> Defragmented | None:
        """Defragment if as much is free as the options ask for."""
        options = self._engine.options
        if not options.auto_defragment_ratio or not self._engine.backend.persistent:
            return None
        found = self.estimate()
        if found.reclaimable_bytes < max(options.auto_defragment_min, 1):
            return None
        return self.run() if found.free_share >= options.auto_defragment_ratio else None

    def run(self, progress: Progress | None = None) -> Defragmented:
        """Defragment. Raises ``DiskFull`` before anything is written if there is no room for the copy, and
        ``Overloaded`` if writers filled the memory meanwhile.
        """
        engine = self._engine
        engine.check_readable()
        if engine.log is None or engine.directory is None:
            raise ReadOnly
        before = engine.backend.size_bytes()
        if not engine.backend.persistent:
            return Defragmented(before, before)
        with engine.checkpointing, engine.timed(DEFRAGMENT):
            check_held(engine.disk)
            engine.checkpointer.run()
            found = self.estimate()
            if found.free_bytes < found.needed_bytes:
                raise DiskFull(
                    f"defragmenting takes about {found.needed_bytes} bytes for a while; "
                    f"{engine.directory.snap} has room for {found.free_bytes}"
                )
            self._copy(engine.directory.db_temp, progress)
            self._swap(engine.directory)
            after = engine.backend.size_bytes()
        engine.space.measure()
        self.count += 1
        logger.info("defragmented: %d bytes, %d before", after, before)
        return Defragmented(before, after)

    def _copy(self, target: Path, progress: Progress | None) -> None:
        """A synced, compared copy at ``target``, or nothing."""
        engine = self._engine
        self._remove_temporaries(target.parent)
        try:
            copy = type(engine.backend).open(target, TABLES)
            try:
                copy_rows(engine.backend, copy, progress, pause=_GivesWay(engine), batch_bytes=BATCH_BYTES)
                _compare(engine.backend, copy, target)
                helpers = copy.settle()
            finally:
                copy.close()
            for path in (*helpers, *type(copy).stale_helpers(target)):
                engine.disk.remove(path)
            engine.disk.sync_file(target)
        except BaseException:
            self._remove_temporaries(target.parent)
            raise

    def _remove_temporaries(self, folder: Path) -> None:
        for path in layout.temporaries(folder):
            if path.name.startswith(self._name):
                self._engine.disk.remove(path)

    def _swap(self, directory: layout.DataDir) -> None:
        engine = self._engine
        old = engine.backend
        try:
            helpers = old.settle()
            size_bytes = directory.db.stat().st_size
            old_file = engine.disk.open(directory.db)
        except BaseException:
            self._remove_temporaries(directory.snap)
            raise
        try:
            for path in helpers:
                engine.disk.remove(path)
            engine.disk.sync_dir(directory.snap)
            engine.disk.rename(directory.db_temp, directory.db)
            for path in old.stale_helpers(directory.db):
                engine.disk.remove(path)
            engine.disk.sync_dir(directory.snap)
            new = type(old).open(directory.db, TABLES)
        except (
            BaseException
        ) as failure:  # the name may be the new file's: nothing more may go into the old one
            old_file.close()
            engine.poison(failure)
            raise
        readers = weakref.ref(old)
        is_read_elsewhere = has_readers(directory.snap)
        with engine.writer.still():
            engine.state.backend = new
        engine.note_open()
        del old
        _free(old_file, size_bytes, in_use=lambda: is_read_elsewhere or readers() is not None)


def _free(file: files.File, size_bytes: int, in_use: Callable[[], bool]) -> None:
    """Let go of a file that has no name any more, in small steps if nobody reads it."""
    with closing(file):
        while size_bytes > 0 and not in_use():
            begin = time.perf_counter()
            size_bytes = max(0, size_bytes - FREED_BYTES)
            file.truncate(size_bytes)
            time.sleep(time.perf_counter() - begin)


class _GivesWay:
    """Between two handfuls of rows: leaves the GIL to others, and gives up before writers have to wait for memory."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._courtesy = Courtesy(engine)

    def __call__(self) -> None:
        if self._engine.overloaded:
            raise Overloaded
        self._courtesy()


def _compare(original: Backend, copy: Backend, path: Path) -> None:
    """Whether a copy is of the same commit, from the first row of each table to the last."""
    with original.read() as theirs, copy.read() as ours:
        if theirs.scan(META) != ours.scan(META):
            raise Corruption("the copy is not of the commit that was copied", path)
        for table in TABLES:
            for backwards in (False, True):
                if theirs.scan(table, limit=1, reverse=backwards) != ours.scan(
                    table, limit=1, reverse=backwards
                ):
                    raise Corruption(f"the copy has other rows than the original in table {table!r}", path)
