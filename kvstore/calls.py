"""Requests of every kind as calls of an engine: one dispatch, for code that is given requests, not method names.

The player of recorded conversations uses it, and so does a server. It works on any ``Engine``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.model import (
    CompactionRequest,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    PutWithTTLRequest,
    RangeRequest,
    TxnRequest,
)
from kvstore.protocol import Engine

_CALLS: dict[type, Callable[[Engine, Any], Any]] = {
    RangeRequest: lambda engine, request: engine.range(request),
    PutRequest: lambda engine, request: engine.put(request),
    PutWithTTLRequest: lambda engine, request: engine.put(request.put, request.ttl_seconds),
    DeleteRangeRequest: lambda engine, request: engine.delete_range(request),
    TxnRequest: lambda engine, request: engine.txn(request),
    CompactionRequest: lambda engine, request: engine.compact(request.revision, request.physical),
    HashKVRequest: lambda engine, request: engine.hash_kv(request.revision),
    LeaseGrantRequest: lambda engine, request: engine.lease_grant(request.ttl, request.id),
    LeaseRevokeRequest: lambda engine, request: engine.lease_revoke(request.id),
    LeaseKeepAliveRequest: lambda engine, request: engine.lease_keep_alive(request.id),
    LeaseTimeToLiveRequest: lambda engine, request: engine.lease_time_to_live(request.id, request.keys),
    LeaseLeasesRequest: lambda engine, request: engine.lease_leases(),
}


def answer(engine: Engine, request: Any) -> Any:
    """The engine's response. Raises what the call raises; ``TypeError`` if ``request`` is not a request."""
    try:
        call = _CALLS[type(request)]
    except KeyError:
        raise TypeError(f"not a request: {request!r}") from None
    return call(engine, request)
