"""etcd as a ``ForeignStores``: the entry point ``etcd`` in the group ``kvstore.foreign``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kvstore.backend import Progress
from kvstore.foreign import Exported, Imported, ImportOptions, LogRecord
from kvstore.store import Reader, Store

from .bbolt_read import is_bbolt
from .wal_read import is_log

if TYPE_CHECKING:
    from kvstore.salvage.evidence import Evidence


class EtcdStores:
    """Snapshots (``etcdctl snapshot save``), database files, and data directories of a stopped etcd."""

    name: ClassVar[str] = "etcd"

    def recognizes(self, path: Path) -> bool:
        if not path.is_dir():
            return is_bbolt(path)
        if path.name == "member":  # a store of ours may have that name too
            return is_bbolt(path / "snap" / "db") or is_log(path / "wal")
        return any((path / "member" / folder).is_dir() for folder in ("snap", "wal"))

    def open(self, path: Path, *, wal_dir: str = "") -> Store:
        if path.is_dir():
            from .data_dir_store import open_data_dir

            return open_data_dir(path, wal_dir)
        from kvstore.opened import open_snapshot

        return open_snapshot(path)

    def import_store(
        self, source: Path, data_dir: Path, options: ImportOptions, progress: Progress | None = None
    ) -> Imported:
        from .import_store import import_store

        return import_store(source, data_dir, options, progress)

    def export_store(self, store: Reader, path: Path, progress: Progress | None = None) -> Exported:
        from .export_store import export_store

        return export_store(store, path, progress)

    def evidence(self, source: Path, *, wal_dir: str = "") -> Evidence | None:
        from .salvage_sources import evidence

        return evidence(source, wal_dir)

    def look_at_pages(self, path: Path, page: int | None = None) -> dict[str, Any]:
        from . import bbolt_view

        return bbolt_view.look(path) if page is None else bbolt_view.page(path, page)

    def dump_log(self, path: Path, *, wal_dir: str = "") -> Iterator[LogRecord]:
        from .data_dir import find_log
        from .log_dump import dump_log

        return dump_log(find_log(path, wal_dir).absolute())  # it is read step by step
