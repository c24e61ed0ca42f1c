"""An endpoint as a source: etcd's API, whoever answers. The network is found by name, as ``kvstore.connect`` finds it.

    Maintenance.Snapshot     a store from scratch, checked by its SHA-256
    Watch                    of all keys, from the newest revision here on: that one comes twice, and is compared, so
                             that another history under the same name is noticed
    Range, linearizable      how far the cluster is
    LeaseLeases, TimeToLive  leases: TTL and time left, ``LEASES_MOST`` at a time. Their keys are told by the watch
    compact revision         followed

Users and roles come with a snapshot, and only with it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstore.errors import Compacted, Unavailable, WatchTimeout, WrongStore
from kvstore.files import Disk
from kvstore.keyvalue import decode_row, split_row
from kvstore.model import (
    FROM_KEY,
    CompactionRequest,
    LeasesCopyRequest,
    RevisionRequest,
    WatchRequest,
)
from kvstore.mvcc.overlay import ChangedRow
from kvstore.protocol import EmbeddedEngine, Engine
from kvstore.replica.engine import ReplicaEngine
from kvstore.replica.upstream import Behind, Costly, Seen
from kvstore.served import find_network
from kvstore.snapshot.restore import NewStore, Restored, restore
from kvstore.watch import Watch
from kvstore.watch.events import Events

LEASES_MOST = 500
"""Leases whose time is asked for in one go; of more, the others are next."""
SCHEMES = ("etcd", "etcds", "http", "https", "unix", "unixs")
SILENT_SECONDS = 30.0
"""In which a watch has to say what its first revision was."""
_GONE = (1, 1)
"""TTL and time left of a lease that the source no longer has: the deletes of its keys are on their way."""


def is_endpoint(url: object) -> bool:
    """Whether it is the URL of a server."""
    return isinstance(url, str) and url.partition("://")[0] in SCHEMES and "://" in url


class Endpoint:
    """A cluster of etcd's, or a store that is served. Raises what ``kvstore.connect`` does."""

    follows_entries = False

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._engine: Engine = find_network().connect(url, **options)
        self._url = url
        self._watch: Watch | None = None
        self._ready: list[tuple[int, list[ChangedRow]]] = []
        """The changes of revisions that came with the first one."""
        self._replica: ReplicaEngine | None = None
        self._next_lease = 0

    def identify(self) -> int:
        return self._engine.cluster_id

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._engine.close()

    # --- from scratch -----------------------------------------------------------------

    def fetch(self, folder: Path) -> None:
        embedded: Any = self._engine
        embedded.snapshot(folder / "snapshot", None)

    def build(self, folder: Path, data_dir: Path, new: NewStore, disk: Disk) -> Restored:
        return restore(folder / "snapshot", data_dir, new, disk=disk)

    # --- what comes next --------------------------------------------------------------

    def begin(self, engine: ReplicaEngine) -> None:
        newest, here = self._engine.revision, engine.revision
        if newest < here:
            raise WrongStore(
                f"{self._url} is at revision {newest}, and the replica at {here}: it is another store, or was restored "
                "from a backup; make a new replica of it"
            )
        self._replica = engine
        is_compacted = here <= max(engine.compact_revision, self._engine.compact_revision, 1)
        first = here + 1 if is_compacted else here
        self._watch = self._engine.watch(WatchRequest(FROM_KEY, FROM_KEY, first, progress_notify=True))
        if not is_compacted:
            self._compare_first(engine, here)

    def take(self, timeout_seconds: float) -> list[Costly]:
        ready, self._ready = self._ready or self._revisions(timeout_seconds), []
        return [self._costly(main, changes) for main, changes in ready]

    def _revisions(self, timeout_seconds: float) -> list[tuple[int, list[ChangedRow]]]:
        """The changes of each revision that came."""
        assert self._watch is not None
        try:
            events = self._watch.get_response(timeout_seconds).events
        except WatchTimeout:
            return []
        except Compacted as error:
            raise Behind(f"the source is compacted up to revision {error.compact_revision}") from error
        changes: Sequence[ChangedRow] = events.changes if isinstance(events, Events) else ()
        return [(main, list(group)) for main, group in itertools.groupby(changes, lambda change: change[0])]

    def _compare_first(self, engine: ReplicaEngine, here: int) -> None:
        """Raise ``WrongStore`` unless the source tells of the newest revision here what is here."""
        deadline = time.monotonic() + SILENT_SECONDS
        while not self._ready:
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._url} does not tell what revision {here} was")
            self._ready = self._revisions(SILENT_SECONDS)
        main, told = self._ready.pop(0)
        if main != here or _content(told) != _content(_changes_at(engine, here)):
            raise WrongStore(
                f"{self._url} has other changes at revision {here} than the replica: it is another history, as after "
                "a restore from a backup; make a new replica of it"
            )

    def _costly(self, main: int, changes: list[ChangedRow]) -> Costly:
        plain = [(at, sub, key, row and split_row(row)[1]) for at, sub, key, row in changes]
        assert self._replica is not None
        known = self._replica.lessor.leases
        leases = {
            lease: self._lease(lease)
            for lease in {decode_row(row)[5] for _, _, _, row in plain if row}
            if lease and lease not in known
        }
        size_bytes = sum(len(key) + len(row or b"") for _, _, key, row in plain)
        return Costly(RevisionRequest(main, plain, leases), size_bytes)

    def _lease(self, ident: int) -> tuple[int, int]:
        """(granted TTL, seconds left)."""
        found = self._engine.lease_time_to_live(ident)
        return (found.granted_ttl, found.ttl) if found.ttl >= 0 and found.granted_ttl else _GONE

    # --- what no watch tells ----------------------------------------------------------

    def look(self) -> Seen:
        at_ms = time.time_ns() // 1_000_000
        return Seen(self._engine.revision, at_ms)

    def tend(self, engine: ReplicaEngine) -> list[Costly]:
        found = [Costly(self._leases(engine), 0)]
        revision = min(self._engine.compact_revision, engine.state.head)
        if revision > max(engine.state.head_compacted, 0):
            found.append(Costly(CompactionRequest(revision), 0))
        return found

    def _leases(self, engine: ReplicaEngine) -> LeasesCopyRequest:
        known = list(engine.lessor.leases)  # before the source is asked: what comes later is not gone
        there = sorted(self._engine.lease_leases().leases)
        begin = self._next_lease if self._next_lease < len(there) else 0
        asked = there[begin : begin + LEASES_MOST]
        self._next_lease = begin + len(asked)
        leases = {ident: self._lease(ident) for ident in asked}
        alive = {ident: times for ident, times in leases.items() if times is not _GONE}
        return LeasesCopyRequest(alive, tuple(set(known).difference(there)))


def _content(changes: Sequence[ChangedRow]) -> list[Any]:
    """What changes have done, without their place."""
    return [(key, row and decode_row(split_row(row)[1])) for _, _, key, row in changes]


def _changes_at(engine: EmbeddedEngine, revision: int) -> Sequence[ChangedRow]:
    """What a revision, which is not compacted, has changed."""
    with Watch(engine.watch_stream(), WatchRequest(FROM_KEY, FROM_KEY, revision)) as watch:
        events = watch.get_response().events
        assert isinstance(events, Events)
        return [change for change in events.changes if change[0] == revision]
