"""What is found by name: what comes with this package, and the entry points of other installed ones.

    kvstore.backends      lmdb, sqlite, memory: classes with the interface ``Backend`` (backend.py)
    kvstore.snapshots     openers of snapshot files that are not ours: ``SnapshotFormat`` (snapshot/formats.py)
    kvstore.foreign       adapters that read, import and write other programs' stores: ``ForeignStores`` (foreign.py)
    kvstore.network       servers of stores: ``Network`` (served.py)
    kvstore.migrations    steps from one format of our files to the next: ``Migration`` (offline/migration.py)

A third-party package joins in with an entry point of its own. What comes with this one is listed here instead: to find
entry points, Python reads the metadata of every installed package, which takes far longer than opening a store. So
that is done only for a name that is not ours, or to go through all there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kvstore.errors import MissingDependency, OpenError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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

_OURS = {
    BACKENDS: {
        "lmdb": "kvstore.backends.lmdb:LMDBBackend",
        "memory": "kvstore.backends.memory:MemoryBackend",
        "sqlite": "kvstore.backends.sqlite:SQLiteBackend",
    },
    SNAPSHOTS: {"etcd": "kvstore.migrations.etcd.snapshot_format:EtcdSnapshots"},
    FOREIGN: {"etcd": "kvstore.migrations.etcd.foreign:EtcdStores"},
    NETWORK: {"etcd": "kvstore.network.serving:EtcdNetwork"},
}
"""What comes with this package, as an entry point would say it."""


def names(group: str) -> list[str]:
    """The names that are installed, sorted."""
    return sorted({*_OURS.get(group, ()), *_installed(group)})


@cache
def find(group: str, name: str) -> Any:
    """What is installed under a name. Raises ``OpenError``, which lists what is, and ``MissingDependency``."""
    ours = _OURS.get(group, {}).get(name, "")
    load = partial(_load, ours) if ours else getattr(_installed(group).get(name), "load", None)
    if load is None:
        there = ", ".join(names(group)) or "none"
        raise OpenError(
            f"no {_KINDS[group]} {name!r}; installed are: {there}. Another one comes with a package that has an entry "
            f"in the group {group!r}"
        )
    try:
        return load()
    except ImportError as error:
        raise MissingDependency(f"the {_KINDS[group]} {name!r} needs a package: {error}") from error


def each(group: str) -> Iterator[Any]:
    """Everything that is installed: ours, then other packages', which are looked up only if it comes to them."""
    ours = _OURS.get(group, {})
    for name in ours:
        yield find(group, name)
    for name in sorted(_installed(group)):
        if name not in ours:
            yield find(group, name)


def _load(place: str) -> Any:
    module, _colon, name = place.partition(":")
    return getattr(import_module(module), name)


@cache
def _installed(group: str) -> dict[str, EntryPoint]:
    """What other packages have, looked up once."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}
