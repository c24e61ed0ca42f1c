"""What is found by name: the entry points of installed packages.

    kvstore.backends      lmdb, sqlite, memory: classes with the interface ``Backend`` (backend.py)
    kvstore.snapshots     openers of snapshot files that are not ours: ``SnapshotFormat`` (snapshot/formats.py)
    kvstore.foreign       adapters that read, import and write other programs' stores: ``ForeignStores`` (foreign.py)
    kvstore.network       servers of stores: ``Network`` (served.py)
    kvstore.migrations    steps from one format of our files to the next: ``Migration`` (offline/migration.py)

A third-party package joins in with an entry point of its own; nothing here knows what is in a group.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kvstore.errors import MissingDependency, OpenError

BACKENDS = "kvstore.backends"
SNAPSHOTS = "kvstore.snapshots"
FOREIGN = "kvstore.foreign"
NETWORK = "kvstore.network"
MIGRATIONS = "kvstore.migrations"

_KINDS = {
    BACKENDS: "backend",
    SNAPSHOTS: "format of snapshots",
    FOREIGN: "other store",
    NETWORK: "network protocol",
    MIGRATIONS: "migration",
}


def names(group: str) -> list[str]:
    """The names that are installed, sorted."""
    return sorted(_installed(group))


@cache
def find(group: str, name: str) -> Any:
    """What is installed under a name. Raises ``OpenError``, which lists what is, and ``MissingDependency``."""
    point = _installed(group).get(name)
    if point is None:
        there = ", ".join(names(group)) or "none"
        raise OpenError(
            f"no {_KINDS[group]} {name!r}; installed are: {there}. Another one comes with a package that has an entry "
            f"in the group {group!r}"
        )
    try:
        return point.load()
    except ImportError as error:
        raise MissingDependency(f"the {_KINDS[group]} {name!r} needs a package: {error}") from error


def found(group: str) -> list[Any]:
    """Everything that is installed, sorted by name."""
    return [find(group, name) for name in names(group)]


@cache
def _installed(group: str) -> dict[str, EntryPoint]:
    """Looked up once: it reads the metadata of every installed package, which takes far longer than opening a store."""
    return {point.name: point for point in entry_points(group=group)}
