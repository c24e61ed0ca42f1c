"""Promotion: a replica becomes a store of its own, which takes writes.

    locked ──> the mark says so: it follows nobody any more ──> leases have their whole TTL again ──> the mark goes

Each step is durable, and all can be repeated: after a crash in between, only a promotion goes on. Nobody asks the
source, and nobody tells it: if it still runs, it still takes writes.
"""

from __future__ import annotations

import os
from dataclasses import replace

from kvstore.errors import NotAStore, Unsupported
from kvstore.files import Disk, OSDisk
from kvstore.layout import DataDir
from kvstore.options import Options
from kvstore.recognition import backend_of
from kvstore.recovery import local_engine, open_engine
from kvstore.replica import mark as marks


def promote(data_dir: str | os.PathLike[str], disk: Disk | None = None) -> int:
    """Have a replica that nobody has open become a store like any other; its revision.

    Its cluster id is its own, as it always was. Raises ``NotAStore`` (it is no replica, or not complete),
    ``StoreLocked`` (it is being followed), ``Unsupported`` (the copy of a backup, whose cluster id is the source's).
    """
    disk = disk or OSDisk()
    directory = DataDir.at(data_dir)
    mark = marks.read(directory)
    if mark is None:
        raise NotAStore(f"{directory.root} is not a replica", directory.root)
    lock = marks.locked(directory)
    try:
        if not mark.is_seeded:
            raise NotAStore(f"{directory.root} is a replica that is not complete yet", directory.root)
        if mark.store_cluster_id == mark.source_cluster_id:
            raise Unsupported(
                f"{directory.root} is the copy that a backup is made of, with the cluster id of its source: restore "
                "the backup into a new directory instead"
            )
        marks.write(disk, directory, replace(mark, is_promoted=True))
        kind = backend_of(directory)
        options = Options(backend=kind.name if kind else Options().backend, lease_restart_policy="renew")
        engine = open_engine(directory.root, options, disk, make=local_engine)
        revision = engine.revision
        engine.close()
        marks.remove(disk, directory)
        return revision
    finally:
        lock.release()
