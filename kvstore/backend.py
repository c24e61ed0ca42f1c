"""The backend interface: ordered maps of bytes in named tables, with atomic batches.

A backend keeps the committed state. It knows nothing of revisions, leases or logs:

    backend.get("latest", b"k")                      one point read of the newest commit
    with backend.read() as tx:                       a consistent view of one commit
        tx.get(...), tx.get_many(...), tx.scan(...)
    with backend.write() as tx:                      one atomic batch: all of it, or none
        tx.put_many(...), tx.delete_many(...)

What it must promise:

* keys are any bytes up to ``KEY_BYTES_MAX``, not empty, in exact unsigned byte order; values are any bytes;
* a commit is atomic: after a crash a prefix of the commits is there, each whole. The last few may be
  missing (the log brings them back) until ``sync`` has returned;
* readers never block the writer, nor the writer readers. There is one writer at a time (the engine's);
* reads may come from any thread.

Backends are found by name through the entry-point group ``kvstore.backends``. A third party passes
``kvstore.testing.backend_contract`` with its own class and is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

from kvstore.errors import OpenError
from kvstore.readers import ForeignReader

ENTRY_POINT_GROUP = "kvstore.backends"

KEY_BYTES_MAX = (
    2 * 1024 * 1024 + 1024
)  # a request's limit, doubled by escaping never in practice, plus a revision

Row = tuple[bytes, bytes]
Progress = Callable[[int, int], None]
"""Called with (done, total) in bytes or rows; total 0 = unknown."""


class ReadTx(Protocol):
    """A view of one commit. Cheap; close it soon (a long one keeps old pages alive)."""

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

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WriteTx(ReadTx, Protocol):
    """One batch. Leaving the ``with`` block commits it; an exception drops it whole. Reads see the batch."""

    def put_many(self, table: str, rows: Iterable[Row], *, append: bool = False) -> None:
        """Insert or replace rows. ``append``: keys ascend and are greater than all present (faster)."""

    def delete_many(self, table: str, keys: Iterable[bytes]) -> None:
        """Delete keys; absent ones are no error."""

    def delete_ranges(self, table: str, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        """Delete all rows with start <= key < end of any of the ``ranges``. Returns how many there were.

        Costs what it deletes, and a seek for each range.
        """

    def delete_all(self, table: str) -> int:
        """Delete all rows of a table. Returns how many there were. Far cheaper than deleting each."""


class Backend(Protocol):
    """An open backend file."""

    name: ClassVar[str]
    persistent: ClassVar[bool]
    """False: nothing is kept across ``close`` (the engine then replays its whole log at open)."""

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        """Open the file at ``path``, creating it (0600) with ``tables`` when it is absent and not ``read_only``.

        ``immutable``: nobody writes the file (a snapshot): open it through mmap without lock files
        and ignore bytes after the backend's own end. Raises ``NotAStore``, ``TooNew``, ``Corruption``,
        ``WrongStore`` (a file of another of our backends), ``MissingDependency``, ``FileNotFoundError``.
        """

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the first bytes of the file are this backend's (damage elsewhere does not matter)."""

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        """Files beside the closed file ``path`` that must go before another file takes its name.

        Raises ``StoreLocked`` if they still hold commits because another process has the file open.
        """

    def get(self, table: str, key: bytes) -> bytes | None:
        """A point read of the newest commit, without the cost of ``read()``."""

    def read(self) -> ReadTx: ...

    def write(self) -> WriteTx: ...

    def sync(self) -> None:
        """Make every commit so far durable. If this raises, the backend's state is unknown."""

    def settle(self) -> list[Path]:
        """Fold all commits into the file itself, durably. Returns the side files that are no longer needed.

        Once those are removed, another file may be renamed over this one. The backend then goes on serving views
        of its last commit. It must not be written any more, and closes its files when the last reference to it is
        gone. Waits a while for views that are in the way; raises ``StoreLocked`` if they stay.
        """

    def copy_to(self, path: Path) -> None:
        """Write a compact, consistent copy of the newest commit to the new file ``path``.

        Runs beside readers and the writer, outside the GIL as far as possible; the caller syncs.

        A class that can write it from front to back, each byte once, may have another method beside it,
        ``copy_into(fd) -> bool``, where ``fd`` may be a pipe: a snapshot is then hashed, written and read
        back while it is being copied. It returns False, with nothing written, if it cannot this time. There are no
        commits meanwhile.
        """

    def size_bytes(self) -> int:
        """Size of the file(s)."""

    def in_use_bytes(self) -> int:
        """The part of ``size_bytes`` that holds live rows: what a copy would take, roughly."""

    def check(self, progress: Progress | None = None) -> None:
        """Walk the whole file; raise ``Corruption`` at the first damage."""

    def close(self) -> None:
        """Idempotent. The engine makes sure that no other call is under way."""


def first_values(tx: ReadTx, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
    """The value of the first row at or after each key (ascending order is fastest); None if there is none.

    A backend that can do better than one scan per key has a method ``first_values(table, keys)``.
    """
    own = getattr(tx, "first_values", None)
    if own is not None:
        found: list[bytes | None] = own(table, keys)
        return found
    scans = (tx.scan(table, key, limit=1) for key in keys)
    return [rows[0][1] if rows else None for rows in scans]


WALKED_BYTES_MAX = 1 << 20
"""A file up to this size is checked whenever there is a reason to: checking a page takes tens of microseconds."""


def check_closed(kind: type[Backend], path: Path, *, only_small: bool = False) -> None:
    """Check a closed file before it is mapped: a damaged one could end the process then.

    Raises ``Corruption``. A backend that maps its file has a method ``check_closed(path)``.
    """
    look = getattr(kind, "check_closed", None)
    if look is not None and not (only_small and path.stat().st_size > WALKED_BYTES_MAX):
        look(path)


def view(backend: Backend, table: str, key: bytes) -> memoryview | None:
    """The value of ``key`` as a view that stays valid as long as it is referenced.

    A backend that can give one without a copy (of a file that is not written) has a method ``view(table, key)``.
    """
    own = getattr(backend, "view", None)
    if own is not None:
        found: memoryview | None = own(table, key)
        return found
    value = backend.get(table, key)
    return None if value is None else memoryview(value)


def foreign_readers(backend: Backend) -> list[ForeignReader]:
    """Other processes that read the backend's file, of a backend that has a method ``foreign_readers()``."""
    own = getattr(backend, "foreign_readers", None)
    return [] if own is None else list(own())


@cache
def _installed() -> dict[str, EntryPoint]:
    """Looked up once: it reads the metadata of every installed package, many times what opening a store takes."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def backend_names() -> list[str]:
    """The installed backends."""
    return sorted(_installed())


@cache
def find_backend(name: str) -> type[Backend]:
    """The backend class called ``name``; raises ``OpenError`` that lists what is installed."""
    if name in _installed():
        backend: type[Backend] = _installed()[name].load()
        return backend
    raise OpenError(f"no backend {name!r}; installed are: {', '.join(backend_names()) or 'none'}")


def recognize_backend(path: Path) -> type[Backend] | None:
    """The backend whose file is at ``path``, or None."""
    for name in backend_names():
        backend = find_backend(name)
        if backend.recognizes(path):
            return backend
    return None
