"""``Store``: the synchronous face of an engine. Bytes in, bytes out, immutable answers.

Every method may raise the errors of ``kvstore.errors``; those named in a docstring are the ones to expect.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, cast, overload

from kvstore import compound, ops
from kvstore.arguments import (
    Data,
    Seconds,
    as_bytes,
    check_bounds,
    check_bytes,
    check_callable,
    check_number,
    check_path,
    pairs,
    seconds,
    time_ms,
    whole_seconds,
)
from kvstore.backend import Progress
from kvstore.errors import KVStoreError, LeaseNotFound
from kvstore.keyvalue import KeyValue
from kvstore.model import (
    Alarm,
    Change,
    CompactionResponse,
    Compare,
    DeleteRangeResponse,
    Event,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    Op,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SortOrder,
    TxnResponse,
    put_request,
)
from kvstore.protocol import EmbeddedEngine, Engine, embedded, is_embedded, unsupported
from kvstore.scans import Scan

if TYPE_CHECKING:
    from kvstore.compound import PutManyResponse
    from kvstore.engine import LocalEngine
    from kvstore.observe.estimates import CompactionEstimate, DefragmentEstimate
    from kvstore.observe.measuring import MeasuredEngine
    from kvstore.observe.status import Health, Status
    from kvstore.reads import ReadEngine
    from kvstore.snapshot.reader import SnapshotInfo
    from kvstore.upkeep.defragment import Defragmented
    from kvstore.watch import CallbackWatch, Watch
    from kvstore.watch.iterators import ResponseStream
    from kvstore.write.ticket import Ticket

    _these_are_engines: tuple[type[EmbeddedEngine], ...] = (LocalEngine, MeasuredEngine, ReadEngine)
    # A RemoteEngine is an Engine: kvstore/network/remote/engine.py says so, since nothing here knows the network.


class Reader:
    """The reads, at the newest revision or at a past one. Base of ``Store`` and ``View``."""

    def __init__(self, engine: Engine, at_revision: int = 0) -> None:
        self._engine = engine
        self._at = at_revision

    @property
    def engine(self) -> LocalEngine:
        """The engine of an embedded store, for a look behind the API. Raises ``Unsupported`` for other stores.

        A read-only store has a ``kvstore.reads.ReadEngine``, the reading half.
        """
        from kvstore.reads import Reads

        if not isinstance(self._engine, Reads):
            raise unsupported(self._engine, "engine")
        return cast("LocalEngine", self._engine)

    def range(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        revision: int = 0,
        limit: int = 0,
        sort_order: int = 0,
        sort_target: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
        counted: bool = True,
    ) -> RangeResponse:
        """etcd's Range over a key, ``[key, range_end)`` or a prefix.

        Revision 0 is the newest; a limit or bound of 0 means none. ``counted`` false: if there are more keys than the
        limit, they are not counted (a step for each), and ``count`` is -1; another store than an embedded one may count
        them all the same. Raises ``Compacted`` or ``FutureRevision``, ``EmptyKey``, ``InvalidSortOption``,
        ``BadArgument``.
        """
        start, end = ops.key_range(key, range_end, prefix)
        if (
            revision
            or limit
            or min_mod_revision
            or max_mod_revision
            or min_create_revision
            or max_create_revision
        ):
            check_bounds(
                revision=revision,
                limit=limit,
                min_mod_revision=min_mod_revision,
                max_mod_revision=max_mod_revision,
                min_create_revision=min_create_revision,
                max_create_revision=max_create_revision,
            )
        request = RangeRequest(
            start,
            end,
            limit,
            revision or self._at,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            min_mod_revision,
            max_mod_revision,
            min_create_revision,
            max_create_revision,
        )
        if not counted and is_embedded(self._engine):
            return cast(EmbeddedEngine, self._engine).page(request)
        return self._engine.range(request)

    def scan(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        revision: int = 0,
        reverse: bool = False,
        limit: int = 0,
        keys_only: bool = False,
        page_rows: int = 1000,
    ) -> Scan:
        """The same keys as an iterator, in ascending order, all at one revision (``scan(...).revision``) however long
        it takes.

        ``reverse``: the greatest key first. ``limit``: at most this many (0: all). ``keys_only``: without values. Holds
        one page in memory at a time. Iteration raises ``Compacted`` if a compaction passes the revision.
        """
        start, end = ops.key_range(key, range_end, prefix)
        check_number("revision", revision)
        check_number("limit", limit)
        check_number("page_rows", page_rows, 1)
        order = SortOrder.DESCEND if reverse else SortOrder.NONE
        request = RangeRequest(
            start, end, revision=revision or self._at, sort_order=order, keys_only=keys_only
        )
        return Scan(self._engine, request, limit, page_rows)

    def count(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        revision: int = 0,
    ) -> int:
        """The number of keys in the range, at the newest revision or at a past one."""
        return self.range(key, range_end, prefix=prefix, revision=revision, count_only=True).count

    def __contains__(self, key: bytes) -> bool:
        return self.count(key) == 1


class View(Reader):
    """The store as it was at one revision. Holds no resources; usable until that revision is compacted."""

    @property
    def revision(self) -> int:
        """The revision of this view."""
        return self._at

    def get(self, key: bytes) -> KeyValue | None:
        """The key at this revision, or None. Raises ``Compacted``."""
        return self._engine.get_at(key, self._at)

    def check(self) -> None:
        """Raise ``Compacted`` or ``FutureRevision`` if this revision cannot be read."""
        self.range(b"\0", count_only=True)

    def diff(
        self,
        newer: int = 0,
        *,
        key: bytes | None = None,
        range_end: bytes | None = None,
        prefix: bytes | None = b"",
    ) -> Iterator[Change]:
        """What has changed since this view, up to ``newer`` (0: the newest revision), in key order.

        Raises ``Compacted``.
        """
        start, end = ops.key_range(key, range_end, None if key is not None else prefix)
        check_number("newer", newer)
        return embedded(self._engine, "diff").diff(self._at, newer, start, end)

    def __repr__(self) -> str:
        return f"<kvstore.View at revision {self._at}>"


def renewed(lease: int, response: LeaseKeepAliveResponse) -> LeaseKeepAliveResponse:
    """The answer to a keep-alive. Raises ``LeaseNotFound`` if it says that the lease is gone."""
    if response.ttl <= 0:
        raise LeaseNotFound(lease)
    return response


class Store(Reader):
    """An open store. Thread-safe; use it as a context manager or call ``close``."""

    # --- reading ----------------------------------------------------------------------

    def get(self, key: bytes, *, revision: int = 0) -> KeyValue | None:
        """The key at the newest revision, or at a past one; None if it did not exist.

        Raises ``Compacted`` or ``FutureRevision``.
        """
        if not revision:
            return self._engine.get(key)
        check_number("revision", revision)
        return self._engine.get_at(key, revision)

    def at(self, revision: int) -> View:
        """A view of the past. Raises ``Compacted`` or ``FutureRevision`` now rather than later."""
        check_number("revision", revision, 1)
        view = View(self._engine, revision)
        view.check()
        return view

    def history(self, key: bytes, *, since: int = 0, until: int = 0) -> Iterator[KeyValue]:
        """Every kept version of ``key``, oldest first; a delete shows as a ``KeyValue`` with version 0.

        ``since`` and ``until`` bound the mod_revision (0: no bound). Lazy, a page at a time; the cost is that of the
        versions between them. Iteration raises ``Compacted`` if a later compaction overtakes it.
        """
        check_bounds(since=since, until=until)
        return embedded(self._engine, "history").history(key, since, until)

    def diff(
        self,
        older: int,
        newer: int = 0,
        *,
        key: bytes | None = None,
        range_end: bytes | None = None,
        prefix: bytes | None = b"",
    ) -> Iterator[Change]:
        """The differences between two revisions (``newer`` 0: the newest), in key order. Raises ``Compacted``."""
        start, end = ops.key_range(key, range_end, None if key is not None else prefix)
        check_number("older", older, 1)
        check_number("newer", newer)
        return embedded(self._engine, "diff").diff(older, newer, start, end)

    def time_of(self, revision: int) -> float:
        """When a revision was written: seconds since 1970, by the clock of the machine at that time.

        Only the log knows: as far back as segments are kept (``max_wals``, ``archive_dir``). Raises ``TimeUnknown``,
        ``FutureRevision``.
        """
        check_number("revision", revision, 1)
        return embedded(self._engine, "time_of").time_of(revision) / 1000

    def revision_at(self, time: float | datetime) -> int:
        """The newest revision at a time (seconds since 1970, or a datetime): ``store.at(store.revision_at(noon))``.

        As far back as ``time_of``. Raises ``TimeUnknown``.
        """
        return embedded(self._engine, "revision_at").revision_at(time_ms("time", time))

    def times(self, *, since: int = 0, until: int = 0) -> Iterator[tuple[int, float]]:
        """(revision, time) of each revision that the log still has, oldest first; the bounds are those of ``history``.

        With ``dict(store.times())`` every version in ``history`` has its time.
        """
        check_bounds(since=since, until=until)
        rows = embedded(self._engine, "times").times(since, until)
        return ((revision, written_ms / 1000) for revision, written_ms in rows)

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """etcd's HashKV. Raises ``Compacted`` or ``FutureRevision``."""
        check_number("revision", revision)
        return self._engine.hash_kv(revision)

    @property
    def revision(self) -> int:
        """The newest durable revision; 1 for an empty store."""
        return self._engine.revision

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; -1 if nothing was ever compacted."""
        return self._engine.compact_revision

    def refresh(self) -> int:
        """Move a read-only handle to the newest durable revision of the process that writes; returns the revision.

        Other threads read one whole revision before and another one after. If it raises, the handle is where it was,
        and it may be called again: ``WrongStore``, ``StoreUnreachable``, ``Corruption``, ``DiskFailed``. A store that
        is open for writing is at its newest revision already.
        """
        return embedded(self._engine, "refresh").refresh()

    # --- writing ----------------------------------------------------------------------

    def put(
        self,
        key: bytes,
        value: Data = b"",
        *,
        lease: int = 0,
        ttl: Seconds | None = None,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> PutResponse:
        """Write a key; durable on return.

        ``value``: bytes, or a bytearray or memoryview, which is copied. ``ttl``: the key is deleted automatically after
        this many seconds (at least ``lease_min_ttl``; another store than an embedded one rounds them up). It gets its
        own lease, granted in the same log entry (``get(key).lease`` is its id); another put, with or without ``ttl``,
        or a delete, ends that lease.

        Raises ``EmptyKey``, ``LeaseNotFound``, ``KeyNotFound`` (ignore_* on an absent key), ``QuotaExceeded``,
        ``RequestTooLarge``, ``BadArgument``.
        """
        if type(value) is not bytes:
            value = as_bytes("value", value)
        ttl_seconds: float = 0
        if ttl is not None:
            ttl_seconds = seconds("ttl", ttl)
        request = put_request((key, value, lease, prev_kv, ignore_value, ignore_lease))
        return self._engine.put(request, ttl_seconds)

    def put_many(
        self, items: Mapping[bytes, Data] | Iterable[tuple[bytes, Data]], *, lease: int = 0
    ) -> PutManyResponse:
        """Put any number of keys: in one revision, if they fit the limits of a transaction.

        If not, they take several, in order (the response says how many), and a failure leaves the first ones written.
        Of a key that is given twice, the last value counts. Raises as ``put``.
        """
        puts: dict[bytes, bytes] = {}
        for key, value in pairs("items", items):
            check_bytes("key", key)
            puts[key] = as_bytes("value", value)
        return compound.put_many(self._engine, puts, lease)

    def incr(self, key: bytes, by: int = 1) -> int:
        """Add to the key's value, a decimal number (``b"41"``; 0 if there is no such key), and return the sum.

        Concurrent calls all count. A lease of the key stays. Raises ``BadArgument`` if the value is not a number.
        """
        ops.key_range(key, None, None)
        return compound.incr(self._engine, key, by)

    def put_nowait(self, key: bytes, value: Data = b"", *, lease: int = 0) -> Ticket:
        """Begin a put, and return a ticket for it: ``wait(ticket)`` returns once it is durable.

        For many writes from one thread that share a sync. They take effect in the order in which they were begun; a
        reader sees each once it is durable. A ticket becomes durable even if it is never waited for.
        """
        engine = embedded(self._engine, "put_nowait")
        ticket = engine.submit(PutRequest(key, as_bytes("value", value), lease))
        engine.flush_soon()
        return ticket

    def wait(self, ticket: Ticket) -> PutResponse:
        """Wait until a put begun with ``put_nowait`` is durable; returns its response. Raises what ``put`` raises."""
        from kvstore.write.ticket import Ticket

        engine = embedded(self._engine, "wait")
        if not isinstance(ticket, Ticket):
            raise TypeError(f"ticket must be what put_nowait returned, not {ticket!r:.80}")
        response: PutResponse = engine.wait(ticket)
        return response

    def delete(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        prev_kv: bool = False,
    ) -> DeleteRangeResponse:
        """Delete a key, ``[key, range_end)`` or a prefix, in one revision; durable on return."""
        return self._engine.delete_range(ops.delete(key, range_end=range_end, prefix=prefix, prev_kv=prev_kv))

    def txn(
        self, compare: Iterable[Compare] = (), success: Iterable[Op] = (), failure: Iterable[Op] = ()
    ) -> TxnResponse:
        """Run ``success`` if every compare holds, else ``failure``, as one revision; durable on return.

        Raises ``TooManyOps``, ``DuplicateKey``, ``Compacted``, ``FutureRevision``, and whatever its ops raise; nothing
        was written then.
        """
        return self._engine.txn(ops.txn(compare, success, failure))

    # --- watching ---------------------------------------------------------------------

    @overload
    def watch(
        self,
        key: bytes | None = ...,
        range_end: bytes | None = ...,
        *,
        prefix: bytes | None = ...,
        start_revision: int = ...,
        resume: tuple[int, int] | None = ...,
        prev_kv: bool = ...,
        no_put: bool = ...,
        no_delete: bool = ...,
        progress_notify: bool = ...,
        callback: None = ...,
    ) -> Watch: ...
    @overload
    def watch(
        self,
        key: bytes | None = ...,
        range_end: bytes | None = ...,
        *,
        prefix: bytes | None = ...,
        start_revision: int = ...,
        resume: tuple[int, int] | None = ...,
        prev_kv: bool = ...,
        no_put: bool = ...,
        no_delete: bool = ...,
        progress_notify: bool = ...,
        callback: Callable[[Event], object],
    ) -> CallbackWatch: ...
    def watch(
        self,
        key: bytes | None = None,
        range_end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        start_revision: int = 0,
        resume: tuple[int, int] | None = None,
        prev_kv: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
        progress_notify: bool = False,
        callback: Callable[[Event], object] | None = None,
    ) -> Watch | CallbackWatch:
        """Changes of a key, ``[key, range_end)`` or a prefix, in order, as they happen: an iterator of events.

        ``start_revision``: the first revision wanted, past or future (0: the next one). ``resume``: use this instead
        to continue where another watch stopped (``Watch.resume``), even in the middle of a revision. ``prev_kv``: each
        event carries the previous version, unless that is compacted. Iteration raises ``Compacted`` if a compaction
        has passed the watch, ``StoreClosed`` if the store is closed. Raises ``NoThread`` if no thread can be started.

        ``callback``: called for each event on a thread of its own, instead of iterating.
        """
        check_callable("callback", callback, is_optional=True)
        watch = self._engine.watch(
            ops.watch(
                key, range_end, prefix, start_revision, resume, prev_kv, no_put, no_delete, progress_notify
            )
        )
        if callback is None:
            return watch
        from kvstore.watch import CallbackWatch

        return CallbackWatch(watch, callback)

    def watch_stream(self) -> ResponseStream:
        """Many watches with one consumer: ``create``, ``cancel``, and ``next`` for (watch id, response)."""
        return self._engine.watch_stream()

    # --- leases -----------------------------------------------------------------------

    def grant_lease(self, ttl: Seconds, lease: int = 0) -> LeaseGrantResponse:
        """Grant a lease of ``ttl`` seconds, rounded up; of ``lease_min_ttl`` if that is more. The response has its TTL.

        ``lease`` 0 picks an id. Raises ``LeaseExists``, ``LeaseTTLTooLarge``, ``BadArgument``.
        """
        return self._engine.lease_grant(whole_seconds("ttl", ttl), lease)

    def revoke_lease(self, lease: int) -> LeaseRevokeResponse:
        """End a lease and delete its keys, in one revision (several, if they do not fit one log entry).

        Raises ``LeaseNotFound``.
        """
        return self._engine.lease_revoke(lease)

    def keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        """Renew a lease for its full TTL. Raises ``LeaseNotFound`` if it has expired, or there never was one."""
        return renewed(lease, self._renew(lease))

    def _renew(self, lease: int) -> LeaseKeepAliveResponse:
        return self._engine.lease_keep_alive(lease)

    def lease_time_to_live(self, lease: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Seconds left (-1: no such lease), and its keys on request."""
        return self._engine.lease_time_to_live(lease, keys)

    def leases(self) -> tuple[int, ...]:
        """Ids of all leases, the next to expire first."""
        return self._engine.lease_leases().leases

    # --- upkeep -----------------------------------------------------------------------

    def compact(
        self, revision: int, *, physical: bool = False, progress: Progress | None = None
    ) -> CompactionResponse:
        """Drop versions superseded at or before ``revision``; it and everything newer stays readable.

        ``physical``: return only when the rows are deleted; ``progress`` is called with (done, total) revisions.
        Raises ``Compacted``, ``FutureRevision``.
        """
        check_number("revision", revision)
        check_callable("progress", progress, is_optional=True)
        return self._engine.compact(revision, physical, progress)

    def compaction_estimate(self, revision: int) -> CompactionEstimate:
        """What ``compact(revision)`` would delete. Deletes nothing. Raises as ``compact``."""
        check_number("revision", revision)
        return embedded(self._engine, "compaction_estimate").compaction_estimate(revision)

    def defragment(self, *, progress: Progress | None = None) -> Defragmented:
        """Give free space back to the file system while readers and writers go on.

        ``progress`` is called with (done, total) bytes. Raises ``DiskFull``, before anything is written, if there is
        no room for the copy.
        """
        check_callable("progress", progress, is_optional=True)
        return embedded(self._engine, "defragment").defragment(progress)

    def defragment_estimate(self) -> DefragmentEstimate:
        """What ``defragment`` would reclaim, and the room it needs. Changes nothing."""
        return embedded(self._engine, "defragment_estimate").defragment_estimate()

    def checkpoint(self) -> bool:
        """Move the changes held in memory into the backend now. Returns whether there were any."""
        self._engine.check_readable()
        return embedded(self._engine, "checkpoint").checkpoint()

    def snapshot(
        self, path: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
    ) -> SnapshotInfo:
        """Write a verified copy of everything durable now, while reads and writes go on. Returns what it holds.

        ``path`` None: in the store's own folder, where the newest ``max_snapshots`` are kept and recovery finds
        them. ``progress`` is called with (done, total) bytes. Raises ``DiskFull``, ``Corruption``.
        """
        if path is not None:
            check_path("path", path)
            path = os.path.abspath(path)
        check_callable("progress", progress, is_optional=True)
        return embedded(self._engine, "snapshot").snapshot(path, progress)

    def status(self) -> Status:
        """Facts: version, sizes, revisions, files, watches, leases, alarms, last errors."""
        return self._engine.status()

    def health(self) -> Health:
        """Whether writes are accepted, and the reason if not."""
        return self._engine.health()

    def metrics(self) -> str:
        """All metrics in Prometheus' text format; durations and call counts only with the option ``metrics``.

        To add them to your own registry: ``kvstore.metrics.collector``. Raises ``MissingDependency``.
        """
        from kvstore.metrics import render

        return render(self)

    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms that are raised."""
        return self._engine.alarms()

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        """Clear an alarm. Returns the alarms that were cleared. (``NOSPACE`` clears itself once there is room.)"""
        if not isinstance(alarm, Alarm):
            raise TypeError(f"alarm must be one of store.alarms(), not {alarm!r:.80}")
        return self._engine.disarm(alarm)

    def close(self) -> None:
        """Close the store. Idempotent; every other method raises ``StoreClosed`` afterwards."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        raise TypeError("an open store cannot be copied: use this one, from any thread, or open another")

    def __deepcopy__(self, _: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an open store cannot be pickled: send its path, and open it there with read_only=True, or serve it "
            "(kvstore.serve)"
        )

    def __del__(self) -> None:
        # Only a warning: closing waits for the disk and for locks, which a garbage collection must not do.
        try:
            self._engine.check_readable()
        except (AttributeError, KVStoreError):
            return  # never opened, closed, or the parent's
        warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<kvstore.Store {self._engine.where}>"
