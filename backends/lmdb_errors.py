"""Errors of LMDB as errors of this library."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb

from kvstore.errors import (
    Corruption,
    DiskFailed,
    DiskFull,
    EmptyKey,
    ForkedStore,
    KVStoreError,
    NoDescriptor,
    ReadOnly,
    StateError,
    StoreLocked,
    TooNew,
)
from kvstore.files import DISK_FAILURES, NO_DESCRIPTORS, unreachable

from .lmdb_fork import is_barred
from .room import is_full

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)


def typed(error: lmdb.Error, path: Path) -> KVStoreError | OSError:
    """Our error for an error of LMDB's."""
    text = f"{path}: {error}"
    if error.code in _NO_ROOM or isinstance(error, (lmdb.MapFullError, lmdb.DiskError)):
        return DiskFull(text)
    if error.code == errno.EIO and is_full(path):
        return DiskFull(text)
    if isinstance(error, _DAMAGE) or error.code == errno.EFAULT:  # a page number beyond the file
        return Corruption(str(error), path)
    if isinstance(error, lmdb.VersionMismatchError):
        return TooNew(text, path)
    if isinstance(error, lmdb.ReadonlyError):
        if str(error).startswith(os.fspath(path)):  # it could not be opened
            return unreachable(path, errno.EACCES)
        return ReadOnly(text)
    if "already open in this process" in str(error):
        if is_barred(path):
            return ForkedStore(
                f"{path}: LMDB cannot open a file that was open when this process was forked; open it in a process "
                "that starts afresh (multiprocessing: 'spawn' or 'forkserver'), fork before the store is opened, or "
                "open it with shared=True in both"
            )
        return StoreLocked(path, os.getpid())
    if isinstance(error, lmdb.BadValsizeError):
        return EmptyKey()
    if "closed/deleted/dropped" in str(error):
        return StateError(f"{path}: the transaction is over")
    if error.code in NO_DESCRIPTORS:
        return NoDescriptor(path)
    if error.code in DISK_FAILURES:
        return DiskFailed(f"{path}: {error}", error.code)
    if error.code in errno.errorcode:
        return OSError(error.code, os.strerror(error.code), os.fspath(path))
    return KVStoreError(text)
