"""A replica: the store of somebody else, followed revision by revision into a data directory of its own.

    with kvstore.replica.follow("etcd://h1,h2,h3", "copy") as replica:
        replica.store.get(b"k")         # at the revisions of the source
        replica.status().lag_seconds

    kvstore.replica.promote("copy")     # from now on a store like any other, which takes writes

replica      its life: open, seed, step after step
upstream     what it follows: the interface
endpoint     etcd's API, whoever answers (kvstore/backup/followed.py: a backup)
engine       a store whose only writer is what it follows
planning     how that is planned
mark         the file that says whose a directory is
promotion    the end of following

``import kvstore.replica``: ``import kvstore`` does not load it. No consensus: one source, and any number of replicas
that are a little behind it (docs/replica.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from kvstore.arguments import as_it_is_now, places_as_they_are_now
from kvstore.backup.catalogue import Catalogue
from kvstore.backup.followed import Shelf
from kvstore.backup.targets import Target, open_target
from kvstore.core import ReplicaStatus
from kvstore.options import BadOption, Options
from kvstore.replica.endpoint import Endpoint, is_endpoint
from kvstore.replica.promotion import promote
from kvstore.replica.replica import LAG_SECONDS_MAX, Connect, Replica, Serve

Source = str | os.PathLike[str] | Target
"""The URL of an endpoint; the path or URL of a backup, or a target of your own."""

__all__ = ["Replica", "ReplicaStatus", "follow", "new_replica", "promote"]


def new_replica(
    source: Source,
    data_dir: str | os.PathLike[str],
    *,
    connect: Mapping[str, Any] | None = None,
    key: bytes | None = None,
    options: Mapping[str, Any] | None = None,
    interval_seconds: float = 1.0,
    max_lag_seconds: float = LAG_SECONDS_MAX,
    serve: Serve | None = None,
) -> Replica:
    """A replica that has not begun: call ``step`` for one step, ``catch_up`` for all there is. See ``follow``."""
    return Replica(
        _connect(source, connect or {}, key),
        source if isinstance(source, str | os.PathLike) else type(source).__name__,
        data_dir,
        interval_seconds=interval_seconds,
        max_lag_seconds=max_lag_seconds,
        options=Options.load(options or {}),
        serve=serve,
    )


def _connect(source: Source, connect: Mapping[str, Any], key: bytes | None) -> Connect:
    if isinstance(source, str) and is_endpoint(source):
        if key is not None:
            raise BadOption("key is for a backup that is followed: an endpoint has none")
        return partial(Endpoint, os.fspath(as_it_is_now(source)), places_as_they_are_now(connect))
    if connect:
        raise BadOption(
            "connect is for an endpoint that is followed: a backup's place is configured elsewhere"
        )
    target = open_target(source) if isinstance(source, str | os.PathLike) else source
    return lambda: Shelf(Catalogue(target, key), str(source))


def follow(
    source: Source,
    data_dir: str | os.PathLike[str],
    *,
    connect: Mapping[str, Any] | None = None,
    key: bytes | None = None,
    options: Mapping[str, Any] | None = None,
    interval_seconds: float = 1.0,
    max_lag_seconds: float = LAG_SECONDS_MAX,
    serve: Serve | None = None,
) -> Replica:
    """Follow a source on a thread of its own, until the answer is closed. Its ``store`` is there once it is seeded.

    ``source``: the URL of an etcd cluster or of a served store, ``etcd://h1:2379,h2,h3`` (``connect``: options of
    ``kvstore.connect``); or a path or URL that a backup goes to, or its ``Target`` (``key``: it is encrypted with that;
    ``kvstore.backup``). ``options``: of the store. ``interval_seconds``: how often the source is asked how far it is.
    ``max_lag_seconds``: beyond it ``status().error`` and ``health()`` say so; 0: never. ``serve``: called with the
    store each time it was opened (after a seeding it is another one), to put it on the network. What goes wrong
    later is in ``status()``, is logged, and is tried again. Raises ``StoreLocked``, ``WrongStore`` (a store that is
    no replica), ``BadOption``, ``NoThread``.
    """
    made = new_replica(
        source,
        data_dir,
        connect=connect,
        key=key,
        options=options,
        interval_seconds=interval_seconds,
        max_lag_seconds=max_lag_seconds,
        serve=serve,
    )
    try:
        made.begin()
    except BaseException:
        made.close()
        raise
    return made
