"""The calls of ``kvstore.protocol.Engine`` as calls of etcd's API: what is asked, and what the answer means.

Written once for both faces. A method that asks once returns what ``_ask`` makes of it, one that asks several times is a
generator of what it asks, carried out by ``_run``; the synchronous engine waits in both, the asynchronous one returns
an awaitable. Lazy reads are generators too, which also yield pages of their items (``_pages``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, NamedTuple

from kvstore.backend import Progress
from kvstore.errors import (
    Compacted,
    KVStoreError,
    LeaseExists,
    LeaseNotFound,
    LeaseProvided,
    OutcomeUnknown,
    RequestError,
    Unsupported,
)
from kvstore.model import (
    Alarm,
    AlarmRequest,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
)
from kvstore.mvcc.plan import is_read_only
from kvstore.network.remote import encoding, methods, past
from kvstore.network.remote.calls import Call
from kvstore.network.remote.client import Client
from kvstore.network.remote.differences import Side, differences
from kvstore.observe.status import Health, Status

ANY_KEY = b"\0"
"""Asked for where only the header of the answer is wanted: one key costs a server the least."""


class Uncertain(NamedTuple):
    """An answer, and whether an earlier attempt at the call may have been carried out, too."""

    answer: Any
    error: KVStoreError | None
    is_uncertain: bool


class Look(NamedTuple):
    """A call whose error is part of the answer: yields an ``Uncertain``."""

    call: Call


class Job(NamedTuple):
    """Work on the client's loop."""

    begin: Callable[[], Coroutine[Any, Any, Any]]


Steps = Generator[Call | Look | Job, Any, Any]


class Asking:
    """What both faces of a store elsewhere are made of. ``Any`` is the response, or an awaitable of it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._range_method = methods.SERIALIZABLE_RANGE if client.options.serializable else methods.RANGE

    def _ask(self, call: Call) -> Any:
        raise NotImplementedError

    def _run(self, steps: Steps) -> Any:
        raise NotImplementedError

    def _pages(self, steps: Generator[Any, Any, None]) -> Any:
        raise NotImplementedError

    # --- reads --------------------------------------------------------------------------

    def get(self, key: bytes) -> Any:
        message = encoding.get_message(key)
        if self._range_method is methods.SERIALIZABLE_RANGE:
            message = encoding.serializable(message)
        return self._ask(Call(self._client, self._range_method, message, encoding.one_row))

    def get_at(self, key: bytes, revision: int) -> Any:
        call = self._range(RangeRequest(key, revision=revision))
        call.make = encoding.one_row
        return self._ask(call)

    def range(self, request: RangeRequest) -> Any:
        return self._ask(self._range(request))

    def _range(self, request: RangeRequest) -> Call:
        message = encoding.range_request(request)
        if self._client.options.serializable:
            message = encoding.serializable(message)
        return Call(self._client, self._range_method, message, encoding.range_response, request)

    def scan(self, key: bytes, range_end: bytes, revision: int = 0, page_rows: int = 1000) -> Any:
        self._client.check()
        return self._pages(self._scan(key, range_end, revision, page_rows))

    def _scan(self, key: bytes, range_end: bytes, revision: int, page_rows: int) -> Generator[Any, Any, None]:
        """Pages of a range. The first one's revision is that of all."""
        while True:
            page: RangeResponse = yield self._range(RangeRequest(key, range_end, page_rows, revision))
            yield list(page.kvs)
            if not page.more or not page.kvs:
                return
            revision = revision or page.revision
            key = page.kvs[-1].key + b"\0"

    def history(self, key: bytes, first_revision: int = 0, last_revision: int = 0) -> Any:
        encoding.get_message(key)
        self._client.check()
        return self._pages(self._history(key, first_revision, last_revision))

    def _history(self, key: bytes, first: int, last: int) -> Generator[Any, Any, None]:
        """Pages of the kept versions of a key."""
        newest: RangeResponse = yield self._linearizable(RangeRequest(key, revision=last))
        last = last or newest.revision
        if first > last:
            return
        final = newest.kvs[0].mod_revision if newest.kvs else 0
        if final and final < first:
            return
        span = past.Span(key, max(first, 1), last, final)
        is_last = False
        while not is_last:
            try:
                versions, is_last = yield Job(partial(past.page, self._client, span))
            except Compacted as error:
                if (first and first >= error.compact_revision) or span.next > max(first, 1):
                    raise  # overtaken on the way
                versions = yield self._range(RangeRequest(key, revision=error.compact_revision))
                span.next = error.compact_revision + 1
                is_last = bool(final) and final < span.next
                yield [kv for kv in versions.kvs if kv.mod_revision >= first]
                continue
            yield versions

    def diff(self, older: int, newer: int, key: bytes, range_end: bytes) -> Any:
        self._client.check()
        return self._pages(self._diff(older, newer, key, range_end))

    def _diff(self, older: int, newer: int, key: bytes, range_end: bytes) -> Generator[Any, Any, None]:
        """Pages of what differs: both revisions are read, a page of each at a time."""
        if not newer:
            newest: RangeResponse = yield self._newest()
            newer = newest.revision
        before, after = Side(key, range_end, older), Side(key, range_end, newer)
        while True:
            for side in (before, after):
                while not side.rows and not side.is_at_end:
                    side.add((yield self._range(side.request())))
            if not before.rows and not after.rows:
                return
            yield list(differences(before, after))

    def hash_kv(self, revision: int = 0) -> Any:
        message = encoding.encode(HashKVRequest(revision))
        return self._ask(
            Call(self._client, methods.HASH_KV, message, partial(encoding.hash_kv_response, revision))
        )

    # --- writes -------------------------------------------------------------------------

    def put(self, request: PutRequest, ttl_seconds: float = 0) -> Any:
        if ttl_seconds:
            return self._run(self._put_with_ttl(request, math.ceil(ttl_seconds)))
        return self._ask(self._put(request))

    def _put(self, request: PutRequest) -> Call:
        message = encoding.put_message(request)
        return Call(self._client, methods.PUT, message, encoding.put_response, request)

    def _put_with_ttl(self, request: PutRequest, ttl_seconds: int) -> Steps:
        """Two requests: a lease, and the put. If there is no put, there should be no lease, either."""
        if request.lease or request.ignore_lease:
            raise LeaseProvided
        encoding.put_message(request)
        granted: LeaseGrantResponse = yield from self._grant(ttl_seconds, 0)
        try:
            response: PutResponse = yield self._put(request._replace(lease=granted.id))
        except OutcomeUnknown:
            raise  # the key may be there: its lease will end it
        except KVStoreError:
            yield from self._revoke_quietly(granted.id)
            raise
        return response

    def _revoke_quietly(self, lease: int) -> Steps:
        """The lease of a put that was refused. If it is not revoked, it runs out."""
        yield Look(self._revoke_call(lease))

    def delete_range(self, request: DeleteRangeRequest) -> Any:
        message = encoding.delete_request(request)
        return self._ask(Call(self._client, methods.DELETE_RANGE, message, encoding.delete_response, request))

    def txn(self, request: TxnRequest) -> Any:
        message = encoding.txn_request(request)
        method = methods.READ_TXN if is_read_only(request) else methods.TXN
        return self._ask(Call(self._client, method, message, encoding.txn_response, request))

    def compact(self, revision: int, physical: bool = False, progress: Progress | None = None) -> Any:
        if progress is not None:
            raise Unsupported(
                f"{self._client.target}: a server does not say how far a compaction is; call compact without progress"
            )
        return self._run(self._compact(revision, physical))

    def _compact(self, revision: int, physical: bool) -> Steps:
        request = CompactionRequest(revision, physical)
        call = Call(self._client, methods.COMPACT, encoding.encode(request), encoding.compaction_response)
        found: Uncertain = yield Look(call)
        if found.error is None:
            return found.answer
        if isinstance(found.error, Compacted) and found.is_uncertain:  # by an earlier attempt
            newest: RangeResponse = yield self._newest()
            return CompactionResponse(newest.revision)
        raise found.error

    def _compact_revision(self) -> Steps:
        """A watch from a revision that is compacted is told which is not."""
        found: Uncertain = yield Look(self._range(RangeRequest(ANY_KEY, revision=1)))
        if found.error is None:
            return -1
        if not isinstance(found.error, Compacted):
            raise found.error
        seconds = self._client.options.timeout_seconds
        revision: int = yield Job(partial(past.compact_revision, self._client, seconds))
        return revision

    def _newest(self) -> Call:
        """A read that only the header of is wanted."""
        return self._linearizable(RangeRequest(ANY_KEY))

    def _linearizable(self, request: RangeRequest) -> Call:
        """A read that is as new as can be, whatever the option says."""
        return Call(
            self._client, methods.RANGE, encoding.range_request(request), encoding.range_response, request
        )

    # --- leases -------------------------------------------------------------------------

    def lease_grant(self, ttl_seconds: int, lease: int = 0) -> Any:
        return self._run(self._grant(ttl_seconds, lease))

    def _grant(self, ttl_seconds: int, lease: int) -> Steps:
        """With an id of our own, a grant can be repeated: if it exists by then, an earlier attempt has made it."""
        is_ours = not lease
        while True:
            wanted = lease or random.SystemRandom().randrange(1, 1 << 63)
            request = LeaseGrantRequest(ttl_seconds, wanted)
            found: Uncertain = yield Look(
                Call(self._client, methods.LEASE_GRANT, encoding.encode(request), encoding.grant_response)
            )
            if found.error is None:
                return found.answer
            if not isinstance(found.error, LeaseExists):
                raise found.error
            if found.is_uncertain:
                left = yield self._time_to_live(wanted, False)
                return LeaseGrantResponse(left.revision, wanted, left.granted_ttl)
            if not is_ours:
                raise found.error

    def lease_revoke(self, lease: int) -> Any:
        return self._run(self._revoke(lease))

    def _revoke(self, lease: int) -> Steps:
        found: Uncertain = yield Look(self._revoke_call(lease))
        if found.error is None:
            return found.answer
        if isinstance(found.error, LeaseNotFound) and found.is_uncertain:  # by an earlier attempt
            newest: RangeResponse = yield self._newest()
            return LeaseRevokeResponse(newest.revision)
        raise found.error

    def _revoke_call(self, lease: int) -> Call:
        message = encoding.encode(LeaseRevokeRequest(lease))
        return Call(self._client, methods.LEASE_REVOKE, message, encoding.revoke_response)

    def lease_keep_alive(self, lease: int) -> Any:
        return self._run(self._keep_alive(lease))

    def _keep_alive(self, lease: int) -> Steps:
        client = self._client
        answer = yield Job(lambda: client.keepalives.keep_alive(lease, client.options.timeout_seconds))
        return answer

    def lease_time_to_live(self, lease: int, keys: bool = False) -> Any:
        return self._ask(self._time_to_live(lease, keys))

    def _time_to_live(self, lease: int, keys: bool) -> Call:
        message = encoding.encode(LeaseTimeToLiveRequest(lease, keys))
        return Call(self._client, methods.LEASE_TIME_TO_LIVE, message, encoding.time_to_live_response)

    def lease_leases(self) -> Any:
        return self._ask(Call(self._client, methods.LEASE_LEASES, b"", encoding.leases_response))

    # --- alarms, status -----------------------------------------------------------------

    def alarms(self) -> Any:
        return self._ask(Call(self._client, methods.ALARM, b"", encoding.alarms))

    def raise_alarm(self, alarm: Alarm) -> Any:
        return self._ask(self._alarm(alarm, _nothing, on=True))

    def disarm(self, alarm: Alarm) -> Any:
        return self._ask(self._alarm(alarm, encoding.alarms, on=False))

    def _alarm(self, alarm: Alarm, make: Callable[[Any], Any], on: bool) -> Call:
        message = encoding.encode(AlarmRequest(alarm.member_id, alarm.alarm, on))
        return Call(self._client, methods.ALARM, message, make)

    def status(self) -> Any:
        """What the server that is asked says of itself. What only a store on this machine knows is empty, or 0."""
        return self._run(self._status())

    def _status(self) -> Steps:
        alarms = yield Call(self._client, methods.ALARM, b"", encoding.alarms)
        found = yield Call(self._client, methods.STATUS, b"", as_it_is)
        return _status_of(found, alarms, str(self._client.target))

    def _errors(self) -> Steps:
        """What the server that is asked says is wrong with it, but for its alarms."""
        found: Uncertain = yield Look(Call(self._client, methods.STATUS, b"", as_it_is))
        return _errors_in(found.answer) if found.error is None else ()

    def health(self) -> Any:
        """Whether a majority answers, no alarm is raised, and the server that is asked has nothing to complain of."""
        return self._run(self._health())

    def _health(self) -> Steps:
        reasons = []
        found: Uncertain = yield Look(self._newest())
        if found.error is not None and not isinstance(found.error, RequestError):
            reasons.append(str(found.error))
        else:
            alarms: Uncertain = yield Look(Call(self._client, methods.ALARM, b"", encoding.alarms))
            if alarms.error is None:
                reasons += [f"alarm {alarm.alarm}" for alarm in alarms.answer]
            reasons += yield from self._errors()
        return Health(not reasons, tuple(reasons))


def as_it_is(answer: Any) -> Any:
    return answer


def _nothing(_answer: Any) -> None:
    return None


def _status_of(found: Any, alarms: tuple[Alarm, ...], where: str) -> Status:
    return Status(
        version=found.version,
        data_dir=where,
        backend="",
        cluster_id=f"{found.header.cluster_id:016x}",
        member_id=f"{found.header.member_id:016x}",
        name="",
        phase="open",
        revision=found.header.revision,
        compact_revision=0,
        size_bytes=found.dbSize,
        in_use_bytes=found.dbSizeInUse,
        waiting_bytes=0,
        quota_bytes=found.dbSizeQuota,
        applied_index=found.raftAppliedIndex or found.raftIndex,
        last_index=found.raftIndex,
        compaction_debt=0,
        wal=(),
        snapshots=(),
        pending=0,
        readers=(),
        watchers=0,
        watch_streams=0,
        slow_watchers=0,
        leases=0,
        alarms=tuple(f"{alarm.alarm} (member {alarm.member_id:016x})" for alarm in alarms),
        failure="",
        errors=_errors_in(found),
        set_aside=(),
    )


def _errors_in(found: Any) -> tuple[str, ...]:
    """Of a server's status, without the alarms, which stand there, too."""
    return tuple(error for error in found.errors if not error.startswith("memberID:"))
