"""The ``Engine`` protocol: etcd's RPCs as Python calls.

``Store`` and ``AsyncStore`` are sugar over this. ``LocalEngine`` implements it on a data directory; a wire
endpoint or a client of a remote etcd can stand in its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kvstore.model import (
    Alarm,
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
    WatchRequest,
)

if TYPE_CHECKING:
    from kvstore.watch import Watch, WatchStream


class Engine(Protocol):
    """What a store is made of. Every call may raise the errors of ``kvstore.errors``."""

    def range(self, request: RangeRequest) -> RangeResponse: ...

    def put(self, request: PutRequest) -> PutResponse: ...

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse: ...

    def txn(self, request: TxnRequest) -> TxnResponse: ...

    def compact(self, revision: int, physical: bool = False) -> CompactionResponse: ...

    def lease_grant(self, ttl_seconds: int, lease: int = 0) -> LeaseGrantResponse: ...

    def lease_revoke(self, lease: int) -> LeaseRevokeResponse: ...

    def lease_keep_alive(self, lease: int) -> LeaseKeepAliveResponse: ...

    def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse: ...

    def lease_leases(self) -> LeaseLeasesResponse: ...

    def watch(self, request: WatchRequest) -> Watch: ...

    def watch_stream(self) -> WatchStream: ...

    def hash_kv(self, revision: int = 0) -> HashKVResponse: ...

    def alarms(self) -> tuple[Alarm, ...]: ...

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]: ...

    def defragment(self) -> None: ...

    def snapshot(self, path: Path | None = None) -> Any: ...

    def status(self) -> Any: ...

    def close(self) -> None: ...
