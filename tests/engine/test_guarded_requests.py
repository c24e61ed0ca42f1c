"""Requests that a guard has to let through when they are planned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import RequestError, RequestTooLarge
from kvstore.model import GuardedRequest, LeaseRevokeRequest, PutRequest, RowsRequest
from kvstore.mvcc import size
from tests.harness.watching import open_store


class Guard:
    """Lets requests through until ``closed``, and keeps what it was shown."""

    def __init__(self) -> None:
        self.closed = False
        self.shown: list[tuple[Any, dict[bytes, bytes], list[bytes]]] = []
        self.lease = 0

    def __call__(self, request: Any, found: Mapping[bytes, bytes], keys_of_lease: Any) -> None:
        keys: Collection[bytes] = keys_of_lease(self.lease)
        self.shown.append((request, dict(found), sorted(keys)))
        if self.closed:
            raise RequestError("closed")


def test_a_guard_sees_what_was_planned_before(tmp_path: Path) -> None:
    """The rows and the lease's keys as they are when the request's turn comes; what it refuses leaves no trace."""
    with open_store(tmp_path, "lmdb") as store:
        engine, guard = store.engine, Guard()
        guard.lease = store.grant_lease(60).id
        put = PutRequest(b"k", b"v", guard.lease)
        a_row = RowsRequest(lambda _: ({b"etcd/a": b"1"}, None))
        tickets = [
            engine.submit(request)
            for request in (a_row, GuardedRequest(put, guard), GuardedRequest(put, guard))
        ]
        assert [engine.wait(ticket).revision for ticket in tickets[1:]] == [2, 3]
        assert guard.shown == [(put, {b"etcd/a": b"1"}, []), (put, {b"etcd/a": b"1"}, [b"k"])]
        guard.closed = True
        index = engine.state.index
        with pytest.raises(RequestError, match="closed"):
            engine.ask(GuardedRequest(put, guard))
        assert (engine.state.index, store.revision) == (index, 3)


def test_what_no_store_would_do_is_refused_before_the_guard(tmp_path: Path) -> None:
    """So a client learns of its mistake whoever it is. The name of a user counts for the size of a request."""
    with open_store(tmp_path, "lmdb", max_request_bytes=1000) as store:
        guard = Guard()
        for request, error in (
            (PutRequest(b""), "key is not provided"),
            (PutRequest(b"k", b"v" * 990), "large"),
        ):
            with pytest.raises(RequestError, match=error):
                store.engine.ask(GuardedRequest(request, guard))
        fits = PutRequest(b"k", b"v" * 950)
        store.engine.ask(GuardedRequest(fits, guard, 10))
        with pytest.raises(RequestTooLarge):
            store.engine.ask(GuardedRequest(fits, guard, 100))
        assert len(guard.shown) == 1


def test_a_lease_is_let_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces its revocation takes: it is never left half done for want of a permission."""
    with open_store(tmp_path, "lmdb") as store:
        lease, guard = store.grant_lease(60).id, Guard()
        for number in range(20):
            store.put(b"k%02d" % number, lease=lease)
        monkeypatch.setattr(size, "ENTRY_BYTES_MAX", 400)
        monkeypatch.setattr(size, "REMOVAL_BYTES_MAX", 100)
        store.engine.ask(GuardedRequest(LeaseRevokeRequest(lease), guard))
        assert store.range(prefix=b"k").count == 0
        assert len(guard.shown) == 1
