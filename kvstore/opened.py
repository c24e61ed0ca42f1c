"""A snapshot file as a read-only store.

The file is opened in place (snapshot/formats.py), and read by an engine that can do nothing else (reads.py).
"""

from __future__ import annotations

import os
from typing import Any

from kvstore.backend import Backend
from kvstore.clock import Clock
from kvstore.core import ReadCore
from kvstore.files import OSDisk, disk_full_is_typed
from kvstore.keyvalue import value_view
from kvstore.life import Life, Phase
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import LATEST
from kvstore.mvcc.state import State
from kvstore.mvcc.validate import check_key
from kvstore.options import Options
from kvstore.reads import ReadEngine
from kvstore.snapshot.formats import inspect, open_any
from kvstore.snapshot.manifest import Member
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.store import Store


class Snapshot(Store):
    """A snapshot file as a store. Every write raises ``ReadOnly``."""

    def __init__(self, engine: ReadEngine, info: SnapshotInfo) -> None:
        super().__init__(engine)
        self.info = info

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of the cluster that the snapshot was taken from."""
        return self.info.members

    def view(self, key: bytes) -> memoryview | None:
        """The value of ``key`` at the snapshot's revision without a copy, or None: for values of many kilobytes.

        The view is of the file itself where the backend allows (LMDB, keys of up to 511 bytes), elsewhere of a copy. It
        stays valid as long as it or a slice of it is referenced, even after the snapshot is closed.
        """
        self.engine.check_readable()
        check_key(key)
        row = self.engine.backend.view(LATEST, key)
        return None if row is None else value_view(row)

    def __repr__(self) -> str:
        return f"<kvstore.Snapshot {self.info.path} at revision {self.info.revision}>"


def file_core(state: State, lessor: Lessor, cluster_id: int, member_id: int) -> ReadCore:
    """The core of an engine over a file that is not a data directory."""
    return ReadCore(
        options=Options(read_only=True, background=False),
        disk=OSDisk(),
        directory=None,
        state=state,
        lessor=lessor,
        cluster_id=cluster_id,
        member_id=member_id,
        clock=Clock(),
        life=Life(Phase.READ_ONLY),
    )


@disk_full_is_typed()
def open_snapshot(path: str | os.PathLike[str], *, verify: bool = False) -> Snapshot:
    """Open a snapshot file read-only. ``verify``: check every byte first.

    Raises ``NotAStore``, ``TooNew``, ``Corruption``, ``MissingDependency``.
    """
    info = inspect(os.path.abspath(path), verified=verify)
    backend = open_any(info.path)
    try:
        state = State(backend)
        lessor = LeasesOnDemand(backend)
        engine = ReadEngine(file_core(state, lessor, info.cluster_id, info.member_id))
    except BaseException:
        backend.close()
        raise
    return Snapshot(engine, info)


class LeasesOnDemand(Lessor):
    """The leases of a file that nothing writes, read when first asked for: most readers never ask."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        """Reached only until they have been read."""
        if name not in ("leases", "_deadlines"):
            raise AttributeError(name)
        self.leases = {}
        self.adopt(Lessor.loaded(self._backend))
        return getattr(self, name)
