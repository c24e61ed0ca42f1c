"""Which backend a data directory uses. Its files tell, so the name need not be given again.

    snap/db            the backend's file. One that keeps nothing on disk has an empty file there as its marker
    else a snapshot    the newest one's backend, if it is such a kind (its marker may have been removed)

Without the marker, a store of the memory backend would look like a log whose backend is missing, and a backend of
another kind would be made for it.
"""

from __future__ import annotations

from contextlib import suppress

from kvstore.backend import Backend, find_backend, recognize_backend
from kvstore.errors import KVStoreError
from kvstore.files import Disk
from kvstore.layout import DataDir
from kvstore.mvcc.schema import TABLES


def backend_of(directory: DataDir) -> type[Backend] | None:
    """The kind of backend; None if no file tells."""
    if directory.db.is_file() and directory.db.stat().st_size:
        return recognize_backend(directory.db)
    snapshots = directory.snapshots()
    if snapshots:
        from kvstore.snapshot.reader import read_info
    for file in reversed(snapshots):
        with suppress(KVStoreError, OSError):
            kind = find_backend(read_info(file.path).backend)
            return None if kind.persistent else kind
    return None


def leave_mark(directory: DataDir, kind: type[Backend], disk: Disk) -> None:
    """Mark the store as kept by ``kind``, which keeps nothing on disk itself. Durable on return."""
    if directory.db.exists():
        return
    disk.remove(directory.db_temp)
    empty = kind.open(directory.db_temp, TABLES)
    try:
        empty.copy_to(directory.db_temp)
    finally:
        empty.close()
    disk.sync_file(directory.db_temp)
    disk.rename(directory.db_temp, directory.db)
    disk.sync_dir(directory.snap)
