"""Any path that holds a store, as a read-only store: ours, a snapshot of ours, or one that an adapter recognizes.

Opening changes nothing, and works while another process writes a store of ours.
"""

from __future__ import annotations

from pathlib import Path

from kvstore.errors import NotAStore
from kvstore.foreign import recognize_foreign
from kvstore.layout import DataDir
from kvstore.opened import open_snapshot
from kvstore.snapshot.hash_state import HashState, hash_state
from kvstore.store import Store

from ..command import Settings


def open_path(path: Path, settings: Settings) -> Store:
    """Open a path. Raises ``NotAStore``, ``TooNew``, ``Corruption``, ``StoreLocked``, ``FileNotFoundError``."""
    if not path.is_dir():
        return open_snapshot(path)
    foreign = recognize_foreign(path)
    if foreign is not None:
        return foreign.open(path)
    if DataDir.at(path).snap.is_dir():
        settings.data_dir = str(path)
        return settings.open(read_only=True)
    raise NotAStore(f"{path} is neither a store of ours nor of a known other kind", path)


def hash_of(path: Path) -> HashState | None:
    """Whether the file's hash holds. None: a data directory of ours, which has checksums in its log alone."""
    if not path.is_dir():
        return hash_state(path)
    return None if recognize_foreign(path) is None else HashState.NONE


def kind_of(store: Store) -> str:
    """What was opened, in words."""
    backend = store.engine.backend.name
    if store.engine.directory is not None:
        return f"data directory on {backend}"
    return str(getattr(store, "kind", "etcd" if backend == "etcd" else f"snapshot on {backend}"))
