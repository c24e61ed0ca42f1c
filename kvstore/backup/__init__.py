"""Backups that go on: a store's log and snapshots, continuously in another place, and back from there to any moment.

    with kvstore.open("data") as store, kvstore.backup.follow(store, "s3://bucket/jobs") as following:
        ...
        following.status().lag_seconds

    kvstore.backup.restore("s3://bucket/jobs", "as-it-was", to_time=time.time() - 300)

targets      a folder, or what fsspec reaches
sealing      objects that are encrypted
catalogue    what lies at a target
pieces       the log, read as it grows
sources      an open store, or the directory of one that another process writes
follower     bringing one to the other
cluster      the same for a cluster elsewhere, by way of a replica of it
followed     what a replica takes from a target
keeping      which generations to keep
restoring    the way back

``import kvstore.backup``: ``import kvstore`` does not load it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvstore.backup.catalogue import Broken, Catalogue, Generation, Verified
from kvstore.backup.cluster import ClusterFollower
from kvstore.backup.errors import NoSuchObject, NotCovered, TargetFailed, WrongKey
from kvstore.backup.follower import Follower, Settings
from kvstore.backup.follower import prune as _prune
from kvstore.backup.keeping import Keep
from kvstore.backup.restoring import restore_from, verify_from
from kvstore.backup.sealing import read_key
from kvstore.backup.sources import source_of
from kvstore.backup.targets import Target, open_target
from kvstore.core import BackupStatus
from kvstore.options import BadOption
from kvstore.replica.endpoint import is_endpoint
from kvstore.snapshot.restore import NewStore, Restored
from kvstore.store import Store
from kvstore.verification.report import Report

__all__ = [
    "BackupStatus",
    "Broken",
    "ClusterFollower",
    "Follower",
    "Generation",
    "Keep",
    "NoSuchObject",
    "NotCovered",
    "Settings",
    "Status",
    "Target",
    "TargetFailed",
    "Verified",
    "WrongKey",
    "follow",
    "follower",
    "open_target",
    "prune",
    "read_key",
    "restore",
    "status",
    "verify",
]

Place = str | os.PathLike[str] | Target
"""A path, a URL, or a target of your own."""


def _shelf(place: Place, key: bytes | None) -> Catalogue:
    return Catalogue(open_target(place) if isinstance(place, str | os.PathLike) else place, key)


def new_follower(
    source: Store | str | os.PathLike[str],
    to: Place,
    *,
    key: bytes | None = None,
    options: Mapping[str, Any] | None = None,
    data_dir: str | os.PathLike[str] = "",
    connect: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Follower | ClusterFollower:
    """A follower that has not begun: call ``step`` for one step, ``run`` for all. See ``follow``."""
    if isinstance(source, str) and is_endpoint(source):
        chosen = Settings(**settings)
        place = os.fspath(data_dir)
        return ClusterFollower(source, _shelf(to, key), chosen, place, connect or {}, options or {})
    if data_dir or connect:
        raise BadOption("data_dir and connect are for the backup of a cluster: give its URL as the source")
    return Follower(source_of(source, dict(options or {})), _shelf(to, key), Settings(**settings))


def follow(
    source: Store | str | os.PathLike[str],
    to: Place,
    *,
    key: bytes | None = None,
    options: Mapping[str, Any] | None = None,
    data_dir: str | os.PathLike[str] = "",
    connect: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Follower | ClusterFollower:
    """Back up a store continuously, on a thread of its own, until the answer is closed.

    ``source``: an open store, or the data directory of one that another process may be writing (``options``: of its
    opening, such as ``wal_dir``); or the URL of an etcd cluster or a served store, such as ``etcd://h1,h2,h3``. Of
    that a copy is kept in ``data_dir`` (empty: a temporary one; ``options``: of the copy, such as ``backend``), and
    ``connect`` has options of ``kvstore.connect``.

    ``key``: 32 bytes to encrypt with. ``settings``: the fields of ``Settings``. What goes wrong later is in
    ``status()``, is logged, and is tried again. Raises ``NotAStore``, ``MissingDependency``, ``BadOption``,
    ``NoThread``.
    """
    made = new_follower(source, to, key=key, options=options, data_dir=data_dir, connect=connect, **settings)
    try:
        made.begin()
    except BaseException:
        made.close()
        raise
    return made


@dataclass(frozen=True, slots=True)
class Status:
    """What is at a target."""

    generations: list[Generation]
    """Oldest first."""
    broken: list[Broken]
    """Those of which nothing can be restored."""
    revision: int
    complete_at_ms: int
    """The last success: what was durable then is there. 0: nothing is."""
    lag_seconds: float
    """The time since; -1: there is no backup."""
    verified: Verified | None
    """The last verification; None: there was none."""


def status(place: Place, *, key: bytes | None = None) -> Status:
    """What can be restored. Damage is in the answer. Raises ``TargetFailed``, ``WrongKey``, ``TooNew``."""
    shelf = _shelf(place, key)
    found, verified = shelf.contents(), shelf.verified()
    generations = found.generations
    if not generations:
        return Status([], found.broken, 0, 0, -1, verified)
    complete_at_ms = max(generation.complete_at_ms for generation in generations)
    lag_seconds = max(0.0, time.time() - complete_at_ms / 1000)
    return Status(generations, found.broken, generations[-1].revision, complete_at_ms, lag_seconds, verified)


def restore(
    place: Place,
    data_dir: str | os.PathLike[str],
    *,
    to_revision: int = 0,
    to_time: float = 0.0,
    generation: str = "",
    key: bytes | None = None,
    work_dir: str | os.PathLike[str] = "",
    **new: Any,
) -> Restored:
    """Make the new store ``data_dir`` from a backup: its newest state, or that of a revision or time (since 1970).

    ``generation``: only from that one. ``work_dir``: where the backup is fetched to, default beside ``data_dir``.
    ``new``: as for ``kvstore.restore``. Raises ``NotCovered``, ``WrongKey``, ``Corruption``, ``TargetFailed``.
    """
    return restore_from(
        _shelf(place, key),
        data_dir,
        to_revision=to_revision,
        to_time=to_time,
        generation=generation,
        work_dir=work_dir,
        new=NewStore(**new),
    )


def verify(
    place: Place, *, generation: str = "", key: bytes | None = None, work_dir: str | os.PathLike[str] = ""
) -> Report:
    """Restore the newest generation, or that one, into a scratch directory, check every row, and remove it again.

    What is damaged at the target is raised; what is wrong in the store that was restored is in the report, whose
    ``path`` is the generation's name. What came of it is left at the target, for ``status``, and for whoever follows:
    to be done now and then, best on another machine.
    """
    return verify_from(_shelf(place, key), generation=generation, work_dir=work_dir)


def prune(place: Place, keep: str, *, key: bytes | None = None) -> list[str]:
    """Delete the generations that ``keep`` (such as ``48h,14d``) does not ask for. Returns their names."""
    return _prune(_shelf(place, key), Keep.parse(keep), time.time_ns() // 1_000_000)
