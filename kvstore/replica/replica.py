"""A replica: a data directory that follows a source, revision by revision.

    open    take the lock; the store, if there is one
    step    connect · seed, if there is no store, or the source no longer has what comes next · take over what came ·
            look how far the source is
    run     steps until told to stop, after a pause where one failed

What is taken over is logged and synced before anybody sees it, as any write is. So a replica that is killed has an
exact prefix of the source's history, and goes on after it: its newest revision says where. While the source is away
the replica goes on answering; only ``lag_seconds`` grows.

Seeding is making the store from scratch. The snapshot is fetched while the old store, if there is one, still answers;
then that is closed, removed, and built anew. The mark (``mark``) says so first: after a crash in between, the next
opening begins at the removal.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from kvstore import layout
from kvstore.core import ReplicaStatus
from kvstore.errors import StoreClosed, WrongStore, said_of
from kvstore.files import Disk, FileLock, OSDisk, hand_over
from kvstore.layout import DataDir
from kvstore.ongoing import Ongoing
from kvstore.options import BadOption, Options, check_bounds
from kvstore.recognition import backend_of
from kvstore.recovery import open_engine
from kvstore.replica import mark as marks
from kvstore.replica.engine import ReplicaEngine, replica_engine, replica_options
from kvstore.replica.mark import Mark, locked
from kvstore.replica.upstream import Behind, Costly, Seen, Upstream
from kvstore.served import Server
from kvstore.snapshot.building import check_target
from kvstore.snapshot.restore import NewStore
from kvstore.store import Store

logger = logging.getLogger("kvstore.replica")

TEND_SECONDS = 10.0
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 30.0
LAG_SECONDS_MAX = 300.0
"""A backup is heard of at least every half minute, an endpoint each time it is asked."""

Connect = Callable[[], Upstream]
Serve = Callable[[Store], Server]


class Replica(Ongoing):
    """Follows one source, into one data directory. ``status``, ``stop`` and ``close`` may be called from any thread."""

    thread_name = "kvstore-replica"
    logger = logger
    retry_seconds_max = RETRY_SECONDS_MAX

    def __init__(
        self,
        connect: Connect,
        source: str | os.PathLike[str],
        data_dir: str | os.PathLike[str],
        *,
        interval_seconds: float = 1.0,
        max_lag_seconds: float = LAG_SECONDS_MAX,
        keeps_cluster_id: bool = False,
        options: Options | None = None,
        serve: Serve | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Take the directory, and open the store that is in it.

        ``keeps_cluster_id``: the store has the source's cluster id, as what is backed up must (else one of its own).
        ``options``: of the store. ``max_lag_seconds``: as of ``kvstore.replica.follow``. ``serve``: puts the store on
        the network, each time it was opened. Raises ``StoreLocked``, ``WrongStore`` (a store that is no replica, or
        another source's), and what opening does.
        """
        check_bounds("interval_seconds", interval_seconds, 0.01, 86_400)
        check_bounds("max_lag_seconds", max_lag_seconds, 0, 366 * 86_400)
        super().__init__(pause_seconds=0, retry_seconds=RETRY_SECONDS)  # a step waits for what comes
        self._connect = connect
        self._source = os.fspath(source)
        self._interval_seconds = interval_seconds
        self._max_lag_seconds = max_lag_seconds
        self._keeps_cluster_id = keeps_cluster_id
        self._options = replica_options(options or Options())
        if self._options.wal_dir:
            raise BadOption("a replica has its log in its own directory: leave wal_dir out")
        self._serve = serve
        self._disk = disk or OSDisk()
        self.directory = DataDir.at(data_dir)
        self.waits = f"{self.directory.root} waits"
        self.seeds = 0
        """How often the store was made from scratch."""
        self.store: Store | None = None
        """The store, while it is open; another one after each seeding."""
        self.server: Server | None = None
        self._upstream: Upstream | None = None
        self._has_begun = False
        self._wanted: tuple[Seen, float] | None = None
        """What the source was seen to have, and when."""
        self._caught_up_at = float("-inf")
        """When it was looked what the source has, all of which is here."""
        self._revision = self._source_revision = 0
        self._complete_at_ms = 0
        self._began_ms = _now_ms()
        self._tended_at = self._looked_at = float("-inf")
        self._error = ""
        self._stepping = threading.RLock()
        self._is_closed = False
        self._lock = self._take()
        try:
            self._mark = self._own_mark()
            if self._mark is not None and self._mark.is_seeded:
                self._open()
        except BaseException:
            self._lock.release()
            raise

    # --- the directory ----------------------------------------------------------------

    def _take(self) -> FileLock:
        root, folder = self.directory.root, self.directory.replica
        if marks.read(self.directory) is None:
            if layout.is_in_a_store(root):
                raise WrongStore(f"{root} is a store, and no replica: choose a new directory for one", root)
            check_target(root)
        for path in (root, folder):
            if not path.is_dir():
                self._disk.make_dir(path)
                hand_over(path)
                self._disk.sync_dir(path.parent)
        return locked(self.directory)

    def _own_mark(self) -> Mark | None:
        mark = marks.read(self.directory)
        if mark is not None and mark.is_promoted:
            raise WrongStore(f"the promotion of {self.directory.root} was interrupted: repeat it")
        if mark is not None and mark.source != self._source and mark.is_seeded:
            logger.info("%s followed %s before", self.directory.root, mark.source)
        return mark

    # --- the store --------------------------------------------------------------------

    @property
    def _engine(self) -> ReplicaEngine:
        assert self.store is not None
        return cast(ReplicaEngine, self.store.engine)

    def _open(self) -> None:
        kind = backend_of(self.directory)
        options = self._options if kind is None else self._options.with_(backend=kind.name)
        engine = open_engine(self.directory.root, options, self._disk, make=replica_engine)
        assert isinstance(engine, ReplicaEngine)
        engine.core.follows.append(self.status)
        self.store, self._revision = Store(engine), engine.revision
        try:
            self.server = self._serve(self.store) if self._serve is not None else None
        except BaseException:
            self._close_store()
            raise

    def _close_store(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.stop()
        store, self.store = self.store, None
        if store is not None:
            store.close()

    def _seed(self, upstream: Upstream) -> None:
        """Make the store from scratch."""
        folder = self.directory.replica_seed
        self._empty(folder)
        self._disk.make_dir(folder)
        logger.info("%s: fetching a snapshot of %s", self.directory.root, self._source)
        upstream.fetch(folder)
        source_cluster_id = upstream.identify()
        mark = replace(
            self._mark or Mark(source=self._source, source_cluster_id=0, store_cluster_id=0),
            source=self._source,
            source_cluster_id=source_cluster_id,
            is_seeded=False,
            had_revision=self._revision or (self._mark.had_revision if self._mark is not None else 0),
            follows_entries=upstream.follows_entries,
        )
        if not mark.store_cluster_id:
            own = source_cluster_id if self._keeps_cluster_id else random.getrandbits(63) + 1
            mark = replace(mark, store_cluster_id=own)
        self._close_store()
        self._put_mark(mark)
        self._clear(mark)
        new = NewStore(backend=self._options.backend, cluster_id=mark.store_cluster_id)
        made = upstream.build(folder, self.directory.root, new, self._disk)
        first, last = mark.had_revision + 1, made.revision - 1
        if mark.had_revision and first <= last:
            mark = replace(mark, missing=(*mark.missing, (first, last)))
            logger.warning(
                "%s: revisions %d to %d are missing: the source no longer had them",
                self.directory.root,
                first,
                last,
            )
        self._put_mark(replace(mark, is_seeded=True, had_revision=0))
        self._empty(folder)
        self.seeds += 1
        self._open()

    def _put_mark(self, mark: Mark) -> None:
        marks.write(self._disk, self.directory, mark)
        self._mark = mark

    def _clear(self, mark: Mark) -> None:
        """Remove the replica's store, or what there is of it."""
        segments = layout.segments(self.directory.wal)
        for file in (*segments, *self.directory.snapshots()):
            if file.cluster_id != mark.store_cluster_id:
                raise WrongStore(f"{file.path} belongs to another store; nothing was removed", file.path)
        for folder in (self.directory.snap, self.directory.wal):
            self._empty(folder)
        self._disk.remove(self.directory.lock)

    def _empty(self, folder: Any) -> None:
        """Remove a folder with the files in it."""
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(folder)):
                self._disk.remove(folder / name)
            self._disk.sync_dir(folder)
            self._disk.remove_dir(folder)
            self._disk.sync_dir(folder.parent)

    # --- one step ---------------------------------------------------------------------

    def step(self, timeout_seconds: float = 0.0) -> None:
        """Take over what has come, or comes in time. Raises what either side raises, and ``StoreClosed``."""
        with self._stepping:
            if self._is_closed:
                raise StoreClosed("the replica is closed")
            try:
                self._step(timeout_seconds)
                self._error = ""
            except Exception as error:
                self._error = said_of(error)
                self._disconnect()
                raise

    def _step(self, timeout_seconds: float) -> None:
        upstream = self._upstream
        if upstream is None:
            upstream = self._upstream = self._connect()
            self._check_source(upstream)
        try:
            self._go_on(upstream, timeout_seconds)
        except Behind as behind:
            if self.store is not None:
                logger.warning("%s: a new snapshot is needed: %s", self.directory.root, behind)
            self._has_begun, self._wanted = False, None
            self._seed(upstream)
            self._go_on(upstream, 0.0)

    def _go_on(self, upstream: Upstream, timeout_seconds: float) -> None:
        if self._mark is None or not self._mark.is_seeded:
            raise Behind("there is no store yet")
        if self.store is None:
            self._open()
        if self._mark.follows_entries is not upstream.follows_entries:
            raise Behind(f"{self._source} is followed in another way than what was followed before")
        if not self._has_begun:
            upstream.begin(self._engine)
            self._has_begun = True
        self._apply(upstream.take(timeout_seconds))
        self._look(upstream)

    def _check_source(self, upstream: Upstream) -> None:
        found = upstream.identify()
        if self._mark is not None and self._mark.is_seeded and self._mark.source_cluster_id != found:
            raise WrongStore(
                f"{self._source} is cluster {found:016x}, and {self.directory.root} a replica of "
                f"{self._mark.source_cluster_id:016x}: give each source a directory of its own"
            )

    def _apply(self, requests: list[Costly]) -> None:
        """Have what came durable, in order."""
        engine, ticket = self._engine, None
        try:
            for request, cost_bytes in requests:
                ticket = engine.replicate(request, cost_bytes)
        finally:
            if ticket is not None:
                engine.wait(ticket)
        self._see()

    def _look(self, upstream: Upstream) -> None:
        now = time.monotonic()
        if now - self._tended_at >= TEND_SECONDS:
            self._tend(upstream)
        if now - self._looked_at >= self._interval_seconds:
            seen = upstream.look()
            self._looked_at = now
            if seen is not None:
                self._source_revision = seen.revision
                self._wanted = self._wanted or (seen, now)
        self._see()

    def _tend(self, upstream: Upstream) -> None:
        self._apply(upstream.tend(self._engine))
        self._engine.core.want_work()
        self._tended_at = time.monotonic()

    def _see(self) -> None:
        """Note that everything is here that was looked for."""
        self._revision = self._engine.revision
        if self._wanted is None:
            return
        seen, looked_at = self._wanted
        if self._revision >= seen.revision:
            self._complete_at_ms, self._wanted = max(seen.at_ms, self._complete_at_ms), None
            self._caught_up_at = looked_at

    def _disconnect(self) -> None:
        upstream, self._upstream = self._upstream, None
        self._has_begun, self._wanted = False, None
        if upstream is not None:
            with suppress(Exception):
                upstream.close()

    def catch_up(self) -> int:
        """Take over everything that the source has by now; the revision. Raises what ``step`` does."""
        began_at = time.monotonic()
        self._looked_at, self._tended_at = float("-inf"), began_at
        self.step()
        while self._caught_up_at < began_at and not self._stopping:
            self._looked_at = float("-inf")
            self.step(RETRY_SECONDS)
        self._tended_at = float("-inf")
        self.step()
        assert self.store is not None
        return self.store.revision

    # --- by itself --------------------------------------------------------------------

    def _take_step(self) -> None:
        self.step(self._interval_seconds)

    def status(self) -> ReplicaStatus:
        """How far it is. Asks nobody."""
        lag_seconds = max(0, _now_ms() - (self._complete_at_ms or self._began_ms)) / 1000
        return ReplicaStatus(
            source=self._source,
            revision=self._revision,
            source_revision=self._source_revision,
            complete_at_ms=self._complete_at_ms,
            lag_seconds=lag_seconds,
            missing=self._mark.missing if self._mark is not None else (),
            error=self._error or self._said_of_lag(lag_seconds),
        )

    def _said_of_lag(self, lag_seconds: float) -> str:
        """A source that is gone may leave a backup behind, which answers as ever, and says nothing new."""
        if not self._max_lag_seconds or lag_seconds <= self._max_lag_seconds:
            return ""
        gone = "is it, and whoever brings the backup there, alive?"
        return f"nothing new of {self._source} for {lag_seconds:.0f} s: {gone}"

    @property
    def complete_at_ms(self) -> int:
        """What the source had durably written by then is here, durable; 0: nothing was looked for yet."""
        return self._complete_at_ms

    @property
    def source_cluster_id(self) -> int:
        """0: it has not been reached yet."""
        return self._mark.source_cluster_id if self._mark is not None else 0

    def close(self) -> None:
        """End, and close the store. Idempotent."""
        self.end()
        with self._stepping:
            self._is_closed = True
            self._disconnect()
            try:
                self._close_store()
            finally:
                self._lock.release()

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
