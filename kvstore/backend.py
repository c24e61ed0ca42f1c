"""The backend interface: ordered maps of bytes in named tables, with atomic batches.

A backend keeps the committed state. It knows nothing of revisions, leases or logs:

    backend.get("latest", b"k")                      one point read of the newest commit
    with backend.read() as tx:                       a consistent view of one commit
        tx.get(...), tx.get_many(...), tx.scan(...)
    with backend.write() as tx:                      one atomic batch: all of it, or none
        tx.put_many(...), tx.delete_many(...)

What it must promise:

* keys are any bytes but none at all, in exact unsigned byte order, and values any bytes; how long they may be,
  ``mvcc/size.py`` decides for all backends;
* a commit is atomic: after a crash a prefix of the commits is there, each one whole. The last few may be
  missing (the log brings them back) until ``sync`` has returned;
* readers never block the writer, nor the writer readers. There is one writer at a time (the engine's);
* reads may come from any thread.

A class inherits what it cannot do better from ``BackendDefaults``, and its views from ``ReadTxDefaults``. Backends are
found by name through the entry-point group ``kvstore.backends`` (plugins.py). A third-party backend only has to pass
``kvstore.testing.backend_contract``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

from kvstore import plugins
from kvstore.readers import ForeignReader

Row = tuple[bytes, bytes]
Progress = Callable[[int, int], None]
"""Called with (done, total) in bytes or rows; total 0 = unknown."""


class ReadTx(Protocol):
    """A view of one commit. Cheap; close it soon, because a long one keeps old pages alive."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of ``keys`` (ascending order is fastest), None for absent ones."""

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        """Rows with start <= key < end (None: to the last key), at most ``limit`` (0: all).

        Ascending; with ``reverse`` descending, beginning at the greatest key below ``end``.
        """

    def count(self, table: str, start: bytes = b"", end: bytes | None = None) -> int:
        """How many rows have start <= key < end."""

    def first_values(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of the first row at or after each key (ascending order is fastest), None if there is none."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WriteTx(ReadTx, Protocol):
    """One batch. Leaving the ``with`` block commits it; an exception drops it whole. Its reads see its writes."""

    def put_many(self, table: str, rows: Iterable[Row], *, append: bool = False) -> None:
        """Insert or replace rows. ``append``: keys ascend and are greater than all present ones (faster)."""

    def delete_many(self, table: str, keys: Iterable[bytes]) -> None:
        """Delete keys; absent ones are not an error."""

    def delete_ranges(self, table: str, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        """Delete all rows with start <= key < end for any of the ``ranges``. Returns how many there were.

        Costs one seek per range, and whatever it deletes.
        """

    def delete_all(self, table: str) -> int:
        """Delete all rows of a table. Returns how many there were. Far cheaper than deleting them one by one."""


class Backend(Protocol):
    """An open backend file."""

    name: ClassVar[str]
    persistent: ClassVar[bool]
    """False: nothing survives ``close`` (the engine then replays its whole log at open)."""
    streams: ClassVar[bool]
    """False: ``copy_into`` is never possible."""

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        """Open the file at ``path``, creating it (0600) with ``tables`` if it is absent and not ``read_only``.

        ``immutable``: nothing writes the file (a snapshot), so open it through mmap without lock files
        and ignore bytes after the backend's own end. Raises ``NotAStore``, ``TooNew``, ``Corruption``,
        ``WrongStore`` (a file of another of our backends), ``MissingDependency``, ``FileNotFoundError``.
        """

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the first bytes of the file are this backend's (damage further inside does not matter)."""

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        """Files beside the closed file ``path`` that must be removed before another file takes its name.

        Raises ``StoreLocked`` if they still hold commits because another process has the file open.
        """

    @classmethod
    def check_closed(cls, path: Path) -> None:
        """Check a file that is not open anywhere, with plain reads, if mapping a damaged one could end the process.

        Raises ``Corruption``.
        """

    @classmethod
    def versions(cls) -> dict[str, str]:
        """The versions of the libraries behind the backend, by name."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """A point read of the newest commit, without the cost of ``read()``."""

    def first_value(self, table: str, key: bytes) -> bytes | None:
        """The value of the first row at or after ``key``, in the same way. The newest commit need not be that of
        an earlier ``get``: either may see one that ended while they were called.
        """

    def view(self, table: str, key: bytes) -> memoryview | None:
        """The value of ``key`` as a view that stays valid as long as it is referenced.

        Avoids a copy where the backend can (in a file that nothing writes).
        """

    def foreign_readers(self) -> list[ForeignReader]:
        """Other processes that read the file that this process writes."""

    def read(self) -> ReadTx: ...

    def write(self) -> WriteTx: ...

    def sync(self) -> None:
        """Make every commit so far durable. If this raises, the backend's state is unknown."""

    def settle(self) -> list[Path]:
        """Fold all commits into the file itself, durably. Returns the side files that are no longer needed.

        Once those are removed, another file may be renamed over this one. The backend then goes on serving views
        of its last commit. It must not be written any more, and closes its files when the last reference to it is
        gone. Waits a while for views that are in the way; raises ``Busy`` if they stay.
        """

    def copy_to(self, path: Path) -> None:
        """Write a compact, consistent copy of the newest commit to the new file ``path``.

        Runs beside readers and the writer, outside the GIL as far as possible; the caller syncs.
        """

    def copy_into(self, fd: int) -> bool:
        """Write the same copy to ``fd``, which may be a pipe, from front to back, each byte once.

        This lets a snapshot be hashed, written and read back while it is being copied. There are no commits meanwhile.
        Returns False, with nothing written, if that is not possible now.
        """

    def size_bytes(self) -> int:
        """Size of the file(s)."""

    def in_use_bytes(self) -> int:
        """The part of ``size_bytes`` that holds live rows: what a copy would take, roughly."""

    def check(self, progress: Progress | None = None) -> None:
        """Walk the whole file; raise ``Corruption`` at the first damage."""

    def close(self) -> None:
        """Close. Idempotent. The engine makes sure that no other call is under way."""


class ReadTxDefaults:
    """Fallbacks for a view that can do no better."""

    __slots__ = ()

    def first_values(self: ReadTx, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """One scan for each key."""
        scans = (self.scan(table, key, limit=1) for key in keys)
        return [rows[0][1] if rows else None for rows in scans]


class BackendDefaults:
    """Fallbacks for a backend that can do no better, or has nothing to report."""

    __slots__ = ()
    streams: ClassVar[bool] = False

    @classmethod
    def check_closed(cls, path: Path) -> None:
        """Does nothing: no damage of the file can end the process."""

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Empty: there is no library behind it."""
        return {}

    def first_value(self: Backend, table: str, key: bytes) -> bytes | None:
        """From a view."""
        with self.read() as tx:
            return tx.first_values(table, [key])[0]

    def view(self: Backend, table: str, key: bytes) -> memoryview | None:
        """A view of a copy."""
        value = self.get(table, key)
        return None if value is None else memoryview(value)

    def foreign_readers(self) -> list[ForeignReader]:
        """Empty: none are known."""
        return []

    def copy_into(self, fd: int) -> bool:
        """Never possible."""
        return False


WALKED_BYTES_MAX = 1 << 20
"""A file up to this size is checked whenever there is reason to: checking a page takes tens of microseconds."""


def check_closed(kind: type[Backend], path: Path, *, only_small: bool = False) -> None:
    """Check a closed file before it is mapped, when a damaged one could end the process.

    ``only_small``: skip a file that would take long. Raises ``Corruption``.
    """
    if not only_small or path.stat().st_size <= WALKED_BYTES_MAX:
        kind.check_closed(path)


def backend_names() -> list[str]:
    """The names of the installed backends."""
    return plugins.names(plugins.BACKENDS)


def find_backend(name: str) -> type[Backend]:
    """The backend class called ``name``; raises ``OpenError`` with a list of what is installed."""
    backend: type[Backend] = plugins.find(plugins.BACKENDS, name)
    return backend


_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\3\4": "zip",
}


def packed_hint(path: Path) -> str:
    """For the error that a file is nothing of ours: what to do first if another program has packed it."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        first = file.read(8)
        for magic, name in _PACKED.items():
            if first.startswith(magic):
                return f": it is packed with {name}; unpack it first"
    return ""


def recognize_backend(path: Path) -> type[Backend] | None:
    """The backend that the file at ``path`` belongs to, or None."""
    backend: type[Backend]
    for backend in plugins.each(plugins.BACKENDS):
        if backend.recognizes(path):
            return backend
    return None
