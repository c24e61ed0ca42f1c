"""Every error this library raises, grouped by when you meet it.

    KVStoreError
    |-- RequestError              the request was refused; nothing was written
    |   |-- EmptyKey, KeyNotFound, ValueProvided, LeaseProvided, InvalidSortOption
    |   |-- TooManyOps, DuplicateKey, RequestTooLarge
    |   |-- Compacted, FutureRevision
    |   |-- LeaseNotFound, LeaseExists, LeaseTTLTooLarge
    |   |-- TimeUnknown           the log no longer says when that was
    |   |-- UndecodableValue      a view's codec cannot read what is there
    |   |-- BadArgument           a value that means nothing; the message names the argument
    |   |-- PermissionDenied, Unauthenticated  a server with users: not allowed to, or not known
    |   `-- WatchCanceled
    |-- SpaceError                no room; nothing was written
    |   |-- QuotaExceeded, DiskFull
    |-- DiskFailed                a read or write failed (also an OSError); nothing is damaged
    |-- OpenError                 the store or file could not be opened
    |   |-- StoreLocked           another process (or handle) holds it
    |   |-- NotAStore             "not ours": some other file or directory
    |   |-- TooNew                "newer than us": written by a later format
    |   |-- TooOld                "older than us": a migration brings it forward
    |   |-- WrongStore            ours, but not this one: other backend, other cluster
    |   `-- MissingDependency     the backend's package is absent or too old
    |-- Corruption                "damaged": path, offset and last good revision say where
    `-- StateError                the handle cannot do this, now or ever
        |-- StoreClosed, StorePoisoned, ForkedStore, RevisionsExhausted
        |-- ReadOnly
        |   `-- IsReplica         its source takes the writes
        |-- CorruptCluster        until the alarm CORRUPT is cleared
        |-- Unsupported           only a store on this machine can; the message says what to do instead
        |-- StoreUnreachable      its directory was renamed or removed, or this user may not use it
        |-- NoThread, NoDescriptor  not now: no thread, or no file descriptor, is available
        |-- WatchTimeout          nothing came from a watch in time (also a TimeoutError)
        |-- Overloaded            not now: writers need the memory
        |-- Busy                  not now: another process locks or reads the backend's file
        |-- Unavailable           not now: no server can be reached that answers; nothing was written
        |-- DeadlineExceeded      no answer to a read in time
        |-- OutcomeUnknown        no answer to a write: it was made, or it was not
        `-- Reentered             not here: this thread is in the middle of a write

``code`` is the gRPC status code that etcd answers with, so one handler serves both; ``etcd_text`` is etcd's message, to
the letter, where etcd has one. ``retryable`` says whether the same call may succeed later as it stands. ``str(error)``
begins with etcd's text, and goes on with what is wrong and what to do (``remedy``); the numbers in it are attributes.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum


class Code(IntEnum):
    """gRPC status codes, as etcd uses them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class KVStoreError(Exception):
    """The root of the tree. ``str(error)`` is the message."""

    code: Code = Code.UNKNOWN
    """gRPC's code for it, as etcd answers."""
    retryable: bool = False
    """Whether the same call may succeed later, with nothing done about it."""
    message: str = "kvstore error"
    """What is said if nothing else is."""
    remedy: str = ""
    """What to do about it; empty: that is plain, or not known."""

    def __init__(self, message: str | None = None, *, detail: str = "") -> None:
        text = message if message is not None else self.message
        self.etcd_text = text if text.startswith("etcdserver: ") else ""
        """What etcd says in its place; empty: etcd has no such error."""
        super().__init__("; ".join(filter(None, (": ".join(filter(None, (text, detail))), self.remedy))))


# --- the request was wrong -------------------------------------------------------------


class RequestError(KVStoreError):
    """The request was refused before anything was written."""

    code = Code.INVALID_ARGUMENT


class EmptyKey(RequestError):
    """A key is empty."""

    message = "etcdserver: key is not provided"
    remedy = 'a key has at least one byte (prefix=b"" stands for every key)'


class KeyNotFound(RequestError):
    """``ignore_value``/``ignore_lease`` on an absent ``key``, or an empty transaction op."""

    message = "etcdserver: key not found"

    def __init__(self, message: str | None = None, *, key: bytes = b"") -> None:
        super().__init__(message, detail=_about(key, "there is nothing to keep the value or lease of"))
        self.key = key


class ValueProvided(RequestError):
    """A value was given where the present one is to be kept."""

    message = "etcdserver: value is provided"
    remedy = "give either a value or ignore_value"


class LeaseProvided(RequestError):
    """A lease was given where the present one is to be kept."""

    message = "etcdserver: lease is provided"
    remedy = "give one of lease, ttl and ignore_lease"


class InvalidSortOption(RequestError):
    """A sort order or target that does not exist."""

    message = "etcdserver: invalid sort option"
    remedy = "sort_order is a SortOrder, sort_target a SortTarget"


class TooManyOps(RequestError):
    """More than ``limit`` operations (``option``): ``size`` of them, in the transaction or in one nested in it."""

    message = "etcdserver: too many operations in txn request"
    option = "max_txn_ops"
    remedy = (
        "write them in several transactions (put_many does); how many the server takes is its --max-txn-ops"
    )

    def __init__(self, size: int = 0, limit: int = 0) -> None:
        if limit:
            self.remedy = "write them in several (put_many does), or open the store with a larger max_txn_ops"
        super().__init__(detail=f"{size} of them, {self.option} allows {limit}" if size else "")
        self.size = size
        self.limit = limit


class DuplicateKey(RequestError):
    """Two operations of one transaction write ``key``."""

    message = "etcdserver: duplicate key given in txn request"

    def __init__(self, key: bytes = b"") -> None:
        super().__init__(detail=_about(key, "is written twice"))
        self.key = key


class RequestTooLarge(RequestError):
    """The request takes ``size`` bytes, and ``option`` allows ``limit`` (also ``size_bytes``, ``limit_bytes``).

    ``key``: what it puts, if that is one key.
    """

    message = "etcdserver: request is too large"
    remedy = "split it (put_many does), or start the server with a larger --max-request-bytes"

    def __init__(
        self, size_bytes: int = 0, limit_bytes: int = 0, limit: str = "max_request_bytes", key: bytes = b""
    ) -> None:
        if limit_bytes:
            is_option = limit == "max_request_bytes"
            self.remedy = (
                "split it, or open the store (connect to it) with a larger max_request_bytes"
                if is_option
                else ""
            )
        of = f" for key {key!r:.80}" if key else ""
        super().__init__(
            detail=f"it takes {size_bytes} bytes{of}; {limit} allows {limit_bytes}" if limit_bytes else ""
        )
        self.size = self.size_bytes = size_bytes
        self.limit = self.limit_bytes = limit_bytes
        self.option = limit
        self.key = key


class Compacted(RequestError):
    """The ``revision`` has been compacted; ``compact_revision`` is the oldest one still kept. (0: not known.)"""

    code = Code.OUT_OF_RANGE
    message = "etcdserver: mvcc: required revision has been compacted"

    def __init__(self, compact_revision: int = 0, revision: int = 0) -> None:
        asked = f"revision {revision} was asked for, " if revision else ""
        super().__init__(
            detail=f"{asked}the oldest revision still kept is {compact_revision}"
            if compact_revision > 0
            else ""
        )
        self.compact_revision = compact_revision
        self.revision = revision


class FutureRevision(RequestError):
    """The ``revision`` is not there yet; ``newest`` is. (0: not known.)"""

    code = Code.OUT_OF_RANGE
    message = "etcdserver: mvcc: required revision is a future revision"

    def __init__(self, revision: int = 0, newest: int = 0) -> None:
        super().__init__(
            detail=f"revision {revision} was asked for, the newest is {newest}" if revision else ""
        )
        self.revision = revision
        self.newest = newest


class BadArgument(RequestError, ValueError):
    """An argument has a meaningless value, which etcd would silently read as something else."""

    message = "an argument has a meaningless value"


class UndecodableValue(RequestError, ValueError):
    """A codec cannot read what is stored under ``key``: it was written by something else, or by another codec."""

    message = "a value cannot be decoded"
    remedy = "read it as bytes (store.get), or with the codec that it was written with"

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(f"key {key!r:.80}: {reason}")
        self.key = key


class TimeUnknown(RequestError):
    """The log no longer has what was written then, and the times are only there."""

    code = Code.OUT_OF_RANGE
    message = "the log of that time is not kept"
    remedy = "more of it is kept with max_wals=0, or moved to archive_dir"


class LeaseNotFound(RequestError):
    """There is no such ``lease``, or not any more."""

    code = Code.NOT_FOUND
    message = "etcdserver: requested lease not found"

    def __init__(self, lease: int = 0) -> None:
        if lease:
            self.remedy = "it has expired, was revoked, or never was: grant another"
        super().__init__(detail=f"lease {lease} ({lease & (1 << 64) - 1:x})" if lease else "")
        self.lease = lease


class LeaseExists(RequestError):
    """There is a lease of this id (``lease``)."""

    code = Code.FAILED_PRECONDITION
    message = "etcdserver: lease already exists"

    def __init__(self, lease: int = 0) -> None:
        if lease:
            self.remedy = "leave the id out, and one that is free is picked"
        super().__init__(detail=f"lease {lease}" if lease else "")
        self.lease = lease


class LeaseTTLTooLarge(RequestError):
    """A TTL of ``size`` seconds, where ``limit`` are the most."""

    code = Code.OUT_OF_RANGE
    message = "etcdserver: too large lease TTL"

    def __init__(self, size: float = 0, limit: int = 0) -> None:
        super().__init__(detail=f"{size} seconds, the most are {limit}" if limit else "")
        self.size = size
        self.limit = limit


class WatchCanceled(RequestError):
    """The watch has ended; ``compact_revision`` is non-zero if a compaction ended it."""

    code = Code.CANCELLED
    message = "etcdserver: watch canceled"

    def __init__(self, message: str | None = None, compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class PermissionDenied(RequestError):
    """The user may not do that."""

    code = Code.PERMISSION_DENIED
    message = "etcdserver: permission denied"


class Unauthenticated(RequestError):
    """The server does not know who is asking, or does not believe it."""

    code = Code.UNAUTHENTICATED
    message = "etcdserver: invalid auth token"


# --- no room ---------------------------------------------------------------------------


class SpaceError(KVStoreError):
    """No room for this write. Reads, deletes, compaction and lease revocation still work."""

    code = Code.RESOURCE_EXHAUSTED
    retryable = True


class QuotaExceeded(SpaceError):
    """The write would exceed the quota: ``used_bytes`` of ``quota_bytes`` are used (also ``size``, ``limit``)."""

    message = "etcdserver: mvcc: database space exceeded"
    option = "quota_backend_bytes"
    remedy = (
        "drop the past with store.compact(store.revision) (auto_compaction_retention does that by itself), delete "
        "keys, or open the store with a larger quota_backend_bytes (`kvstore inspect stats` shows what takes up the "
        "space)"
    )

    def __init__(self, used_bytes: int = 0, quota_bytes: int = 0) -> None:
        super().__init__(
            detail=f"{used_bytes} of {quota_bytes} bytes are used by keys and their past"
            if quota_bytes
            else ""
        )
        self.size = self.used_bytes = used_bytes
        self.limit = self.quota_bytes = quota_bytes


class NearlyFull(UserWarning):
    """A warning, not an error: ``used_bytes`` of ``quota_bytes`` are used, and at the quota writes will be refused."""

    def __init__(self, used_bytes: int, quota_bytes: int) -> None:
        super().__init__(
            f"{used_bytes} of the {quota_bytes} bytes of quota_backend_bytes are used by keys and their past, and then "
            "writes will be refused: drop the past with store.compact(store.revision) (auto_compaction_retention does "
            "that by itself), delete keys, or raise the quota"
        )
        self.used_bytes = used_bytes
        self.quota_bytes = quota_bytes


class DiskFull(SpaceError):
    """The file system is out of room (ENOSPC, EDQUOT or the low-disk mark)."""

    message = "no space left on the store's file system"


class DiskFailed(KVStoreError, OSError):
    """The disk failed to read or write (EIO and the like). Nothing is known to be damaged: check the disk.

    Close the store and reopen it once the disk works; every acknowledged write is in the log. A failed write or sync
    poisons the store, a failed read does not.
    """

    code = Code.UNAVAILABLE

    def __init__(self, message: str, number: int = errno.EIO) -> None:
        super().__init__(f"the disk has failed: {message}")
        self.errno = number


# --- opening ---------------------------------------------------------------------------


class OpenError(KVStoreError):
    """The store or file could not be opened; it was left untouched."""

    code = Code.FAILED_PRECONDITION

    def __init__(self, message: str | None = None, path: str | os.PathLike[str] = "") -> None:
        super().__init__(message)
        self.path = os.fspath(path)


class StoreLocked(OpenError):
    """Another process, or another handle of this one, has the store open."""

    code = Code.UNAVAILABLE
    retryable = True

    def __init__(
        self, path: str | os.PathLike[str], pid: int = 0, host: str = "", *, is_replica: bool = False
    ) -> None:
        if is_replica:
            self.remedy = (
                "meanwhile the replica can be read (read_only=True); to promote it, or to follow with another process, "
                "end that one first"
            )
        elif pid == os.getpid():
            self.remedy = "that is this process: use the handle that it has, from any thread"
        elif pid:
            self.remedy = (
                "meanwhile it can be read (read_only=True; `kvstore get` and its like); to write it from both, open it "
                "with shared=True in both, or have that process serve it and connect to that (`kvstore --endpoint`)"
            )
        holder = f"process {pid} on {host or 'this host'}" if pid else "another process"
        super().__init__(f"{os.fspath(path)} is in use by {holder}", path)
        self.pid = pid
        self.host = host


class NotAStore(OpenError):
    """Not ours: the path holds something else."""


class TooNew(OpenError):
    """Written by a newer format than this version reads."""


class TooOld(OpenError):
    """Written in an older format; ``kvstore migrate format`` upgrades it where a migration exists."""


class WrongStore(OpenError):
    """Ours, but not the store asked for: another backend, another cluster, a mixed directory."""


class MissingDependency(OpenError):
    """The package behind a backend is missing, or too old to be safe."""


# --- damage ----------------------------------------------------------------------------


class Corruption(KVStoreError):
    """Bytes on disk are damaged. Nothing was changed or dropped.

    ``path`` and ``offset`` (bytes from the start of the file; -1: unknown) say where; ``last_good_revision`` (0:
    unknown) is the last revision before the damage that is known to be intact.
    """

    code = Code.DATA_LOSS

    def __init__(
        self,
        reason: str,
        path: str | os.PathLike[str] = "",
        offset: int = -1,
        last_good_revision: int = 0,
    ) -> None:
        where = os.fspath(path) or "store"
        if offset >= 0:
            where += f" at byte {offset}"
        text = f"{where}: {reason}"
        if last_good_revision:
            text += f" (last good revision {last_good_revision})"
        super().__init__(text)
        self.reason = reason
        self.path = os.fspath(path)
        self.offset = offset
        self.last_good_revision = last_good_revision


# --- the handle ------------------------------------------------------------------------


class StateError(KVStoreError):
    """This handle cannot do that, now or ever."""

    code = Code.UNAVAILABLE


class StoreClosed(StateError):
    """The store has been closed."""

    message = "the store is closed"
    remedy = "open it again, or close it later"


class StorePoisoned(StateError):
    """An earlier write or sync failed, so what is on disk is unknown until the store is reopened.

    The first failure is the ``__cause__``. Reads still answer from what was durable before it.
    """

    message = "an earlier write to disk failed; reopen the store"


class ForkedStore(StateError):
    """The handle was opened by this process's parent. Open the store in this process, too."""

    message = (
        "this handle belongs to the parent process; open the store here with read_only=True, "
        "or in both with shared=True"
    )


class Overloaded(StateError):
    """Background work was given up because it kept writers waiting. It left nothing behind."""

    retryable = True
    message = "given up: writers need the memory; retry when there are fewer writes"


class WatchTimeout(StateError, TimeoutError):
    """Nothing came from a watch within ``timeout_seconds``. It goes on, and nothing is lost: ask again."""

    code = Code.DEADLINE_EXCEEDED
    retryable = True
    message = "nothing came from the watch in time"

    def __init__(self, timeout_seconds: float = 0) -> None:
        super().__init__(detail=f"{timeout_seconds:g} seconds")
        self.timeout_seconds = timeout_seconds


class NoThread(StateError):
    """No thread could be started. Nothing was begun; everything works again once threads are available."""

    retryable = True
    message = (
        "cannot start a thread: the limit is reached (RLIMIT_NPROC, or pids.max of the container); "
        "retry when fewer are running"
    )


class NoDescriptor(StateError):
    """No file descriptor was available. Nothing was begun; everything works again once some are free."""

    retryable = True
    message = (
        "cannot open a file: all file descriptors are in use (RLIMIT_NOFILE of the process, or fs.file-max of the "
        "system); retry when some are free"
    )

    def __init__(self, path: str | os.PathLike[str] = "") -> None:
        path = os.fspath(path)
        super().__init__(f"{path}: {self.message}" if path else None)
        self.path = path


class Reentered(StateError):
    """A signal handler or finalizer interrupted a write on this thread, and tried to make another one.

    Each would wait for the other forever. Nothing was written.
    """

    retryable = True
    message = (
        "a signal handler or finalizer interrupted a write to this store on the same thread and cannot write "
        "until it has ended; set a flag or raise an exception there, and write afterwards"
    )


class StoreUnreachable(StateError):
    """A directory of the open store is no longer where it was opened, or this user may not use something in it.

    It was renamed, removed or mounted over, or its permissions were changed.

    Work on open files goes on; anything that would open a file by its path is refused, and nothing is changed.
    ``path`` names the file or directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reason: str,
        remedy: str = "put the directory back, or close the store and open it where it is now",
    ) -> None:
        path = os.fspath(path)
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path = path


class Busy(StateError):
    """Another process, or an older view in this one, locks or reads the backend's file.

    Nothing was changed; background work retries by itself.
    """

    retryable = True
    message = "another process is using the backend's file"


class ReadOnly(StateError):
    """The store is open for reading only."""

    code = Code.FAILED_PRECONDITION
    message = "the store is open read-only"
    remedy = "write with a handle that was opened without read_only; what a snapshot holds, in a store restored from it"


class IsReplica(ReadOnly):
    """A replica takes no writes: its source does. (etcd's learners answer the same.)"""

    message = "etcdserver: rpc not supported for learner"
    remedy = "this store is a replica: write to its source, or promote it (`kvstore replica promote`)"


class CorruptCluster(StateError):
    """The alarm CORRUPT is on: no key is changed until the cause is found and the alarm cleared (``disarm``)."""

    code = Code.DATA_LOSS
    message = "etcdserver: corrupt cluster"


class Unsupported(StateError):
    """This kind of store cannot do that. The message says what to do instead."""

    code = Code.UNIMPLEMENTED
    message = "only a store on this machine can do this"


class Unavailable(StateError):
    """No server that can answer was reached in time. The call did nothing; it may succeed later."""

    retryable = True
    message = "no server can be reached"


class DeadlineExceeded(StateError):
    """A read got no answer in time."""

    code = Code.DEADLINE_EXCEEDED
    retryable = True
    message = "no answer in time"


class OutcomeUnknown(StateError):
    """A write went out and no answer came back: it was made, or was not, or is still to be made.

    It is not repeated, since that might make it twice. To be able to repeat, write in a transaction that compares the
    ``mod_revision`` of what was read before, and read again.
    """

    message = "no answer to a write, which may have been made"


class RevisionsExhausted(StateError):
    """This store has used up all 63-bit revisions. It can still be read and exported."""

    code = Code.FAILED_PRECONDITION
    message = "all 63-bit revisions are used up: the store can be read and exported, but no longer written"


def _about(key: bytes, what: str) -> str:
    return f"key {key!r:.80}: {what}" if key else ""


def said_of(error: BaseException) -> str:
    """The message of an error, or the name of its class if it has none."""
    return str(error) or type(error).__name__


def again(error: KVStoreError) -> KVStoreError:
    """A copy of the error for another caller, with a traceback of its own."""
    made = type(error).__new__(type(error))
    made.args = error.args
    made.__dict__.update(error.__dict__)
    return made
