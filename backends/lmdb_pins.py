"""What the writer of an LMDB file keeps for readers that are not in LMDB's table of readers.

LMDB reuses a page when no view in its table is old enough to see it. Other processes instead lock a commit in the
directory (``kvstore.readers``): first the newest that they know, or a lower one; then they begin the view; then they
lock the commit that it is of. So the locks are checked before each batch, and while there are any, views of the
writer's own stay open:

    old   as old as every lock that there was when it was opened: no page that those read is reused
    new   opened later; once no lock is older than it, it takes the place of ``old``

A view that begins after the check is of the newest commit or of the one in progress, and LMDB keeps the newest whole
until the batch after. A pin of commit P also keeps P - 1: pages that commit P freed are not reused.

A pin ends with its process. The next writer cannot pin a commit that is no longer the newest: if some process still
reads an older one, the file is left to that process, and a copy takes its name.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import lmdb

from kvstore import layout
from kvstore.files import OSDisk
from kvstore.readers import Readers

READER_WAIT_SECONDS = 2.0  # most reads are over sooner; then the file is copied
COPIED_BYTES = 1 << 20


class Pins:
    """The views that a writer keeps open for readers of other processes."""

    def __init__(self, environment: lmdb.Environment, readers: Readers) -> None:
        self.readers = readers
        self._environment = environment
        self._pins: list[lmdb.Transaction[bytes]] = []  # at most ``old`` and ``new``

    def keep(self) -> None:
        """Keep what is being read now. Called before each batch."""
        oldest = self.readers.oldest()
        if oldest is None:
            self._pins = []
            return
        if len(self._pins) == 2 and oldest + 1 >= self._pins[1].id():
            self._pins = self._pins[1:]
        if len(self._pins) < 2:
            pin = self._environment.begin()
            if not self._pins or pin.id() != self._pins[-1].id():
                self._pins = [*self._pins, pin]

    def let_go(self) -> bool:
        """End all pins if none is needed now."""
        if self.readers.oldest() is not None:
            return False
        self._pins = []
        return True

    def close(self) -> None:
        self._pins = []
        self.readers.close()


def leave_file_to_readers(path: Path, newest: int) -> None:
    """Replace a file by a copy if another process reads a commit of it that cannot be pinned any more."""
    readers = Readers(path.parent)
    try:
        deadline = time.monotonic() + READER_WAIT_SECONDS
        while (oldest := readers.oldest()) is not None and oldest < newest - 1:
            if time.monotonic() > deadline:
                _replace_by_copy(path)
                return
            time.sleep(0.001)
    finally:
        readers.close()


def _replace_by_copy(path: Path) -> None:
    disk, temporary = OSDisk(), layout.temporary(path)
    disk.remove(temporary)
    with open(path, "rb", buffering=0) as source:
        copy = disk.create(temporary)
        try:
            offset = 0
            while data := os.pread(source.fileno(), COPIED_BYTES, offset):
                copy.pwrite(data, offset)
                offset += len(data)
            copy.sync()
        finally:
            copy.close()
    disk.rename(temporary, path)
    disk.remove(path.with_name(path.name + "-lock"))
    disk.sync_dir(path.parent)
