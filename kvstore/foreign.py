"""Stores of other programs: the interface through which their files are read, imported and written.

An adapter is an entry point in the group ``kvstore.foreign``, found by name (``etcd``) or by the files it recognizes.

    open           a read-only store over the files in place
    import_store   makes one of our data directories from them
    export_store   writes one of our stores as a file of theirs
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from kvstore import plugins
from kvstore.backend import Progress

if TYPE_CHECKING:
    from kvstore.salvage.evidence import Evidence
    from kvstore.store import Reader, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Options of an import."""

    backend: str = "lmdb"
    wal_dir: str = ""
    """The other store's log directory, if it is not in its usual place."""
    skip_hash_check: bool = False
    """Accept a file that has no checksum, or a wrong one."""
    cluster_id: int = 0
    member_id: int = 0
    """Zero: keep the other store's ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was imported."""

    data_dir: Path
    backend: str
    revision: int
    compact_revision: int
    cluster_id: int
    member_id: int
    counts: dict[str, int] = field(default_factory=dict)
    """Counts of keys, versions, leases, and whatever else the other store had."""
    notes: tuple[str, ...] = ()
    """What could not be carried over, or was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    size_bytes: int
    revision: int
    compact_revision: int
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class LogRecord(NamedTuple):
    """A record of another store's log: its place, and its content both as text and as plain values."""

    path: Path
    offset: int
    size_bytes: int
    kind: str
    text: str
    detail: dict[str, Any]


class ForeignStores(Protocol):
    """The stores of one other program."""

    name: ClassVar[str]

    def recognizes(self, path: Path) -> bool:
        """Whether the file or directory is of this kind; damage further inside does not matter."""

    def open(self, path: Path, *, wal_dir: str = "") -> Store:
        """Open as a read-only store. Raises ``NotAStore``, ``TooNew``, ``Corruption``, ``StoreLocked``."""

    def import_store(
        self, source: Path, data_dir: Path, options: ImportOptions, progress: Progress | None = None
    ) -> Imported:
        """Make the new data directory ``data_dir``: all of it, or nothing."""

    def export_store(self, store: Reader, path: Path, progress: Progress | None = None) -> Exported:
        """Write a file: all of it, or nothing."""

    def evidence(self, source: Path, *, wal_dir: str = "") -> Evidence | None:
        """What can be read of a damaged file or directory, for ``kvstore.salvage``; None if nothing in it looks like
        this kind. Raises ``StoreLocked``."""

    def look_at_pages(self, path: Path, page: int | None = None) -> dict[str, Any]:
        """One page of a file, or (None) what the whole file is and what is wrong with it, as plain values. Works on
        damaged files."""

    def dump_log(self, path: Path, *, wal_dir: str = "") -> Iterator[LogRecord]:
        """Every record of the log in a data directory. Raises ``Corruption`` if it is damaged."""


def foreign_names() -> list[str]:
    return plugins.names(plugins.FOREIGN)


def find_foreign(name: str) -> ForeignStores:
    """The adapter called ``name``; raises ``OpenError`` with a list of what is installed."""
    adapter: ForeignStores = plugins.find(plugins.FOREIGN, name)()
    return adapter


def recognize_foreign(path: str | os.PathLike[str]) -> ForeignStores | None:
    """The adapter whose store is at ``path``, or None."""
    for kind in plugins.each(plugins.FOREIGN):
        adapter: ForeignStores = kind()
        if adapter.recognizes(Path(path)):
            return adapter
    return None
