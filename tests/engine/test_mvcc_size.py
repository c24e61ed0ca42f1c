"""How large a request is: etcd's count, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from kvstore import RequestTooLarge
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.etcdpb.requests import to_message
from kvstore.etcdpb.sizes import request_bytes
from kvstore.model import Compare, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from kvstore.mvcc.size import check_size
from tests.harness.drawn_requests import SLOW, deletes, puts, txns
from tests.harness.watching import BACKENDS, open_store

LIMIT = 1_572_864
KINDS = {PutRequest: "put", DeleteRangeRequest: "delete_range", TxnRequest: "txn"}


def logged(request: Any) -> bytes:
    """etcd's log entry of the request."""
    write = {KINDS[type(request)]: to_message(request)}
    data: bytes = etcdserverpb.InternalRaftRequest(header={"ID": 1 << 62}, **write).SerializeToString()
    return data


@given(request=puts | deletes | txns)
@settings(suppress_health_check=SLOW)
def test_the_size_is_that_of_etcds_message(request: Any) -> None:
    """Counted without making the message, it is its length."""
    assert request_bytes(request) == len(logged(request))


@pytest.mark.parametrize(
    ("make", "largest"),
    [
        (lambda size: PutRequest(b"large", b"v" * size), 1_572_836),
        (lambda size: PutRequest(b"l", b"v" * size, lease=2**63 - 1), 1_572_830),
        (lambda size: DeleteRangeRequest(b"l" * size), 1_572_843),
        (lambda size: TxnRequest(success=(PutRequest(b"l", b"v" * size),)), 1_572_832),
        (
            lambda size: TxnRequest(
                (Compare(b"q", 2, 2, 5),), (TxnRequest(failure=(PutRequest(b"l", b"v" * size),)),)
            ),
            1_572_813,
        ),
    ],
)
def test_the_largest_request(make: Any, largest: int) -> None:
    """Figures of a real etcd: this much is accepted, and one byte more is not."""
    check_size(make(largest), LIMIT)
    with pytest.raises(RequestTooLarge):
        check_size(make(largest + 1), LIMIT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_transaction_that_only_reads_may_be_larger(scratch: Path, backend: str) -> None:
    """As in etcd: only what would be logged has a largest size."""
    with open_store(scratch, backend, max_request_bytes=100) as store:
        large = b"k" * 200
        assert store.engine.txn(TxnRequest(success=(RangeRequest(large),))).succeeded
        assert store.engine.range(RangeRequest(large)).count == 0
        for write in (PutRequest(large), DeleteRangeRequest(large)):
            with pytest.raises(RequestTooLarge):
                store.engine.txn(TxnRequest(failure=(write,)))
        with pytest.raises(RequestTooLarge):
            store.engine.put(PutRequest(large))
        with pytest.raises(RequestTooLarge):
            store.engine.delete_range(DeleteRangeRequest(large))
