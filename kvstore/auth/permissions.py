"""Permissions: spans of keys.

A span is [start, end), without an end up to the last key. What a user may read, or write, is a list of spans that
neither overlap nor touch (``merged``); a request is allowed where each span that it touches lies within one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kvstore.model import (
    FROM_KEY,
    DeleteRangeRequest,
    KeysOfLease,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)

READ, WRITE, READWRITE = 0, 1, 2
"""As in authpb.Permission."""

Span = tuple[bytes, bytes | None]
"""[start, end); None: to the last key."""

Need = tuple[int, Span]
"""``READ`` or ``WRITE``, and where."""


def point(key: bytes) -> Span:
    return key, key + b"\0"


def span_of(key: bytes, range_end: bytes) -> Span:
    if not range_end:
        return point(key)
    return key, None if range_end == FROM_KEY else range_end


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same keys in as few spans as possible, ascending."""
    found: list[Span] = []
    for start, end in sorted(spans, key=lambda span: span[0]):
        if found and (found[-1][1] is None or start <= found[-1][1]):
            last = found[-1][1]
            found[-1] = found[-1][0], None if last is None or end is None else max(last, end)
        else:
            found.append((start, end))
    return found


def covers(spans: list[Span], wanted: Span) -> bool:
    """Whether one of the spans, which are merged, holds all of another."""
    start, end = wanted
    return any(
        low <= start and (high is None or (end is not None and start < high and end <= high))
        for low, high in spans
    )


# --- what a request touches ------------------------------------------------------------------------


def needs(request: Any, keys_of_lease: KeysOfLease) -> Iterator[Need]:
    """What the user of a request must be allowed. Nothing, for a request that touches no key."""
    find = _NEEDS.get(type(request))
    if find is not None:
        yield from find(request, keys_of_lease)


def _of_range(request: RangeRequest | WatchRequest, _: KeysOfLease) -> Iterator[Need]:
    """A watch without a key begins with the first that there can be."""
    yield READ, span_of(request.key or FROM_KEY, request.range_end)


def _of_put(request: PutRequest, keys_of_lease: KeysOfLease) -> Iterator[Need]:
    """Of the other keys of its lease too, as who ends the lease deletes them."""
    yield WRITE, point(request.key)
    if request.prev_kv:
        yield READ, point(request.key)
    for key in keys_of_lease(request.lease) if request.lease else ():
        yield WRITE, point(key)


def _of_delete(request: DeleteRangeRequest, _: KeysOfLease) -> Iterator[Need]:
    span = span_of(request.key, request.range_end)
    yield WRITE, span
    if request.prev_kv:
        yield READ, span


def _of_txn(request: TxnRequest, keys_of_lease: KeysOfLease) -> Iterator[Need]:
    """Both branches, whichever will be taken."""
    for compare in request.compare:
        yield READ, span_of(compare.key, compare.range_end)
    for op in (*request.success, *request.failure):
        yield from needs(op, keys_of_lease)


def _of_lease(
    request: LeaseRevokeRequest | LeaseKeepAliveRequest, keys_of_lease: KeysOfLease
) -> Iterator[Need]:
    for key in keys_of_lease(request.id):
        yield WRITE, point(key)


def _of_leases(_: LeaseLeasesRequest, keys_of_lease: KeysOfLease) -> Iterator[Need]:
    for key in keys_of_lease(None):
        yield READ, point(key)


def _of_time_to_live(request: LeaseTimeToLiveRequest, keys_of_lease: KeysOfLease) -> Iterator[Need]:
    for key in keys_of_lease(request.id) if request.keys else ():
        yield READ, point(key)


_NEEDS: dict[type, Callable[[Any, KeysOfLease], Iterator[Need]]] = {
    RangeRequest: _of_range,
    WatchRequest: _of_range,
    PutRequest: _of_put,
    DeleteRangeRequest: _of_delete,
    TxnRequest: _of_txn,
    LeaseRevokeRequest: _of_lease,
    LeaseKeepAliveRequest: _of_lease,
    LeaseLeasesRequest: _of_leases,
    LeaseTimeToLiveRequest: _of_time_to_live,
}
