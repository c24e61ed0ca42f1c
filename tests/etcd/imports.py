"""Importing etcd's files, for the tests of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kvstore
from kvstore.foreign import Imported, ImportOptions, find_foreign
from tests.etcd.etcd_samples import text

ETCD = find_foreign("etcd")


def import_etcd(source: Path, data_dir: Path, backend: str = "lmdb", **options: Any) -> Imported:
    return ETCD.import_store(source, data_dir, ImportOptions(backend=backend, **options))


def events(store: kvstore.Store, first_revision: int) -> list[list[Any]]:
    """Everything that a watch from a revision delivers."""
    found: list[list[Any]] = []
    with store.watch(prefix=b"", start_revision=first_revision) as watched:
        for event in watched:
            kv = event.kv
            if event.type == kvstore.EventType.DELETE:
                found.append(["DELETE", text(kv.key), "", 0, kv.mod_revision, 0, 0])
            else:
                numbers = [kv.create_revision, kv.mod_revision, kv.version, kv.lease]
                found.append(["PUT", text(kv.key), text(kv.value), *numbers])
            if kv.mod_revision == store.revision and len(found) >= expected_events(store, first_revision):
                return found
    return found


def expected_events(store: kvstore.Store, first_revision: int) -> int:
    from kvstore.mvcc.changes import change_page

    total, first = 0, first_revision
    while first <= store.revision:
        page, covered = change_page(store.engine.state, first, store.revision, 1000)
        total, first = total + len(page), covered + 1
    return total
