"""What is found by name: entry points of the packages that are installed.

    kvstore.backends      lmdb, sqlite, memory: classes with the interface ``Backend`` (backend.py)
    kvstore.snapshots     who opens snapshot files that are none of ours: ``SnapshotFormat`` (snapshot/formats.py)
    kvstore.foreign       who reads, moves in and writes stores of other programs: ``ForeignStores`` (foreign.py)
    kvstore.migrations    steps from one format of our files to the next: ``Migration`` (offline/migration.py)

A package of somebody else's joins in by an entry of its own; nothing here knows what is in a group.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kvstore.errors import MissingDependency, OpenError

BACKENDS = "kvstore.backends"
SNAPSHOTS = "kvstore.snapshots"
FOREIGN = "kvstore.foreign"
MIGRATIONS = "kvstore.migrations"

_KINDS = {
    BACKENDS: "backend",
    SNAPSHOTS: "format of snapshots",
    FOREIGN: "other store",
    MIGRATIONS: "migration",
}


def names(group: str) -> list[str]:
    """Those that are installed, sorted."""
    return sorted(_installed(group))


@cache
def find(group: str, name: str) -> Any:
    """What a package offers under that name. Raises ``OpenError`` with what is installed, and ``MissingDependency``."""
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
    """All that are installed, by name."""
    return [find(group, name) for name in names(group)]


@cache
def _installed(group: str) -> dict[str, EntryPoint]:
    """Looked up once: it reads the metadata of every installed package, many times what opening a store takes."""
    return {point.name: point for point in entry_points(group=group)}
