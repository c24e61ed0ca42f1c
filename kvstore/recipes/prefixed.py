"""An engine over the keys of another one that begin with a prefix: put before what goes in, cut off what comes out.

    request   --inside-->  request of the whole store  --> engine
    response  <--outside-- response of the whole store <--

Bounds: what has no end ends with the prefix. The key that is the prefix alone belongs to nobody, as no key is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from kvstore.backend import Progress
from kvstore.bell import Ringing
from kvstore.errors import EmptyKey
from kvstore.keyvalue import KeyValue, KeyValues
from kvstore.model import (
    FROM_KEY,
    Alarm,
    Change,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchPosition,
    WatchRequest,
    WatchResponse,
    prefix_end,
)
from kvstore.protocol import Engine, embedded
from kvstore.watch.events import Events
from kvstore.watch.iterators import ResponseStream, Watch
from kvstore.watch.stream import Numbered
from kvstore.wire import read_varint, varint

if TYPE_CHECKING:
    from kvstore.observe.status import Health, Status

_KEY_TAG = 0x0A


class Prefix:
    """The way in and out."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._length = len(prefix)
        self._end = prefix_end(prefix)

    # --- in ---------------------------------------------------------------------------

    def key(self, key: bytes) -> bytes:
        if not key:
            raise EmptyKey
        return self.prefix + key

    def end(self, range_end: bytes) -> bytes:
        if not range_end:
            return b""
        return self._end if range_end == FROM_KEY else self.prefix + range_end

    def inside(self, request: Any) -> Any:
        """A request of any kind that names keys."""
        if request is None:
            return None
        if isinstance(request, TxnRequest):
            return TxnRequest(*(tuple(map(self.inside, part)) for part in request))
        if isinstance(request, PutRequest):
            return request._replace(key=self.key(request.key))
        return request._replace(key=self.key(request.key), range_end=self.end(request.range_end))

    # --- out --------------------------------------------------------------------------

    def row(self, row: bytes) -> bytes:
        """A stored row without the prefix in its key, and without its sub revision."""
        at = 0 if row[0] == _KEY_TAG else read_varint(row, 1)[1]
        key_length, at = read_varint(row, at + 1)
        return b"\n%b%b" % (varint(key_length - self._length), row[at + self._length :])

    def kv(self, kv: KeyValue) -> KeyValue:
        return KeyValue.from_row(self.row(kv.row))

    def maybe(self, kv: KeyValue | None) -> KeyValue | None:
        return None if kv is None else self.kv(kv)

    def kvs(self, kvs: KeyValues) -> KeyValues:
        return KeyValues([self.row(row) for row in kvs.rows])

    def outside(self, response: Any) -> Any:
        """A response to a request of any kind that names keys."""
        if isinstance(response, RangeResponse):
            return response._replace(kvs=self.kvs(response.kvs))
        if isinstance(response, PutResponse):
            return response._replace(prev_kv=self.maybe(response.prev_kv))
        if isinstance(response, DeleteRangeResponse):
            return response._replace(prev_kvs=self.kvs(response.prev_kvs))
        if isinstance(response, TxnResponse):
            return response._replace(responses=tuple(map(self.outside, response.responses)))
        return response

    def watched(self, response: WatchResponse) -> WatchResponse:
        events = response.events
        if not isinstance(events, Events):
            return response  # there are none
        cut = self._length
        changes = [
            (main, sub, key[cut:], None if row is None else self.row(row))
            for main, sub, key, row in events.changes
        ]
        before = None if events.before is None else [self.maybe(kv) for kv in events.before]
        return response._replace(events=Events(changes, before))

    def suffixes(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple(
            key[self._length :] for key in keys if key.startswith(self.prefix) and key != self.prefix
        )


class PrefixedEngine:
    """The engine of a namespace."""

    def __init__(self, engine: Engine, prefix: bytes) -> None:
        self.options: Any = getattr(engine, "options", None)
        self._engine = engine
        self._prefix = Prefix(prefix)

    # --- what it is -------------------------------------------------------------------

    @property
    def cluster_id(self) -> int:
        return self._engine.cluster_id

    @property
    def member_id(self) -> int:
        return self._engine.member_id

    @property
    def where(self) -> str:
        return f"{self._engine.where}, keys under {self._prefix.prefix!r}"

    @property
    def revision(self) -> int:
        return self._engine.revision

    @property
    def compact_revision(self) -> int:
        return self._engine.compact_revision

    # --- reads ------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        return self._prefix.maybe(self._engine.get(self._prefix.key(key)))

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        return self._prefix.maybe(self._engine.get_at(self._prefix.key(key), revision))

    def range(self, request: RangeRequest) -> RangeResponse:
        response: RangeResponse = self._prefix.outside(self._engine.range(self._prefix.inside(request)))
        return response

    def scan(
        self, key: bytes, range_end: bytes, revision: int = 0, page_rows: int = 1000
    ) -> Iterator[KeyValue]:
        start, end = self._prefix.key(key), self._prefix.end(range_end)
        return map(self._prefix.kv, self._engine.scan(start, end, revision, page_rows))

    def history(self, key: bytes, first_revision: int = 0, last_revision: int = 0) -> Iterator[KeyValue]:
        whole = embedded(self._engine, "history")
        return map(self._prefix.kv, whole.history(self._prefix.key(key), first_revision, last_revision))

    def diff(self, older: int, newer: int, key: bytes, range_end: bytes) -> Iterator[Change]:
        start, end = self._prefix.key(key), self._prefix.end(range_end)
        maybe = self._prefix.maybe
        for name, before, after in embedded(self._engine, "diff").diff(older, newer, start, end):
            yield Change(name[len(self._prefix.prefix) :], maybe(before), maybe(after))

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        return self._engine.hash_kv(revision)

    # --- writes -----------------------------------------------------------------------

    def put(self, request: PutRequest, ttl_seconds: float = 0) -> PutResponse:
        response: PutResponse = self._prefix.outside(
            self._engine.put(self._prefix.inside(request), ttl_seconds)
        )
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response: DeleteRangeResponse = self._prefix.outside(
            self._engine.delete_range(self._prefix.inside(request))
        )
        return response

    def txn(self, request: TxnRequest) -> TxnResponse:
        response: TxnResponse = self._prefix.outside(self._engine.txn(self._prefix.inside(request)))
        return response

    def compact(
        self, revision: int, physical: bool = False, progress: Progress | None = None
    ) -> CompactionResponse:
        return self._engine.compact(revision, physical, progress)

    # --- leases -----------------------------------------------------------------------

    def lease_grant(self, ttl_seconds: int, lease: int = 0) -> LeaseGrantResponse:
        return self._engine.lease_grant(ttl_seconds, lease)

    def lease_revoke(self, lease: int) -> LeaseRevokeResponse:
        return self._engine.lease_revoke(lease)

    def lease_keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        return self._engine.lease_keep_alive(lease)

    def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse:
        response = self._engine.lease_time_to_live(lease, keys)
        return response._replace(keys=self._prefix.suffixes(response.keys))

    def lease_leases(self) -> LeaseLeasesResponse:
        return self._engine.lease_leases()

    # --- watches ----------------------------------------------------------------------

    def watch(self, request: WatchRequest) -> Watch:
        return Watch(self.watch_stream(), request)

    def watch_stream(self) -> ResponseStream:
        return PrefixedStream(self._engine.watch_stream(), self._prefix)

    # --- the handle -------------------------------------------------------------------

    def alarms(self) -> tuple[Alarm, ...]:
        return self._engine.alarms()

    def raise_alarm(self, alarm: Alarm) -> None:
        self._engine.raise_alarm(alarm)

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        return self._engine.disarm(alarm)

    def status(self) -> Status:
        return self._engine.status()

    def health(self) -> Health:
        return self._engine.health()

    def check_readable(self) -> None:
        self._engine.check_readable()

    def close(self) -> None:
        """Nothing: the store is its owner's to close."""


class PrefixedStream:
    """The stream of a namespace's watches."""

    def __init__(self, stream: ResponseStream, prefix: Prefix) -> None:
        self._stream = stream
        self._prefix = prefix

    @property
    def bell(self) -> Ringing:
        return self._stream.bell

    @bell.setter
    def bell(self, bell: Ringing) -> None:
        self._stream.bell = bell

    def __len__(self) -> int:
        return len(self._stream)

    def create(self, request: WatchRequest, watch_id: int = 0) -> int:
        return self._stream.create(self._prefix.inside(request), watch_id)

    def cancel(self, watch_id: int) -> bool:
        return self._stream.cancel(watch_id)

    def request_progress(self) -> None:
        self._stream.request_progress()

    def close(self) -> None:
        self._stream.close()

    def start(self, watch_id: int) -> WatchPosition | None:
        return self._stream.start(watch_id)

    def lag(self, watch_id: int) -> int:
        return self._stream.lag(watch_id)

    @overload
    def next(self, timeout_seconds: None = None) -> Numbered: ...
    @overload
    def next(self, timeout_seconds: float) -> Numbered | None: ...
    def next(self, timeout_seconds: float | None = None) -> Numbered | None:
        numbered: Numbered | None = self._stream.next(timeout_seconds)
        return numbered and (numbered[0], self._prefix.watched(numbered[1]))

    def wait(self, timeout_seconds: float | None = None) -> bool:
        return self._stream.wait(timeout_seconds)

    def first(self) -> WatchResponse:
        return self._prefix.watched(self._stream.first())

    def drop_first(self) -> None:
        self._stream.drop_first()

    def fill(self, may_read: bool = True) -> bool:
        return self._stream.fill(may_read)

    def needs_store(self) -> bool:
        return self._stream.needs_store()

    def idle(self) -> bool:
        return self._stream.idle()

    def until_tick(self, left: float | None) -> float | None:
        return self._stream.until_tick(left)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
