"""Namespaces: the prefix goes before what goes in, and off what comes out; nothing reaches beyond."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvstore
from kvstore.errors import BadArgument, EmptyKey, KVStoreError, Unsupported
from kvstore.model import FROM_KEY, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, prefix_end
from kvstore.protocol import Engine
from kvstore.recipes import AsyncNamespace, Lock, Namespace, Queue, Session
from tests.harness.drawn_requests import deletes, puts, ranges, txns
from tests.harness.watching import TIMEOUT_SECONDS

PREFIXES = (b"ns/", b"a", b"\xff", b"\0", b"\xff\xff")


def asked(engine: Engine, request: Any) -> Any:
    """The answer to a request, or the error's class and words."""
    try:
        if isinstance(request, PutRequest):
            return engine.put(request)
        if isinstance(request, RangeRequest):
            return engine.range(request)
        if isinstance(request, DeleteRangeRequest):
            return engine.delete_range(request)
        return engine.txn(request)
    except KVStoreError as error:
        return type(error), error.etcd_text


def deletes_from_a_key(request: Any) -> bool:
    """Whether a transaction deletes "from a key": etcd does not see that this covers a put beside it.

    In a namespace it is a range with an end, whose puts are seen: there, as in etcd's own namespaces, the transaction
    is refused.
    """
    if isinstance(request, TxnRequest):
        return any(map(deletes_from_a_key, request.success + request.failure))
    return isinstance(request, DeleteRangeRequest) and request.range_end == FROM_KEY


@settings(max_examples=20)
@given(st.sampled_from(PREFIXES), st.lists(st.one_of(puts, puts, deletes, ranges, txns), max_size=12))
def test_a_namespace_answers_as_a_store_of_its_own(prefix: bytes, requests: list[Any]) -> None:
    """The same requests to a store, and to a namespace among other keys: the same answers, errors and events."""
    with (
        tempfile.TemporaryDirectory() as folder,
        kvstore.open(Path(folder) / "own", "memory", background=False) as own,
        kvstore.open(Path(folder) / "whole", "memory", background=False) as whole,
    ):
        part = Namespace(whole, prefix)
        beyond = [key for key in (prefix[:-1], prefix, prefix_end(prefix)) if key]
        for key in beyond:  # as many revisions in both
            whole.put(key, b"older")
            whole.put(key, b"not yours")
            own.put(b"mine")
            own.delete(b"mine")
        start = own.revision + 1
        for store in (own, whole):
            store.compact(start - 1)
            for lease in (1, 2, -7):
                store.grant_lease(1000, lease)
        for request in requests:
            if isinstance(request, TxnRequest) and deletes_from_a_key(request):
                continue
            assert asked(part._engine, request) == asked(own._engine, request), request
        assert list(part.scan(prefix=b"")) == list(own.scan(prefix=b""))
        assert [whole.get(key).value for key in beyond] == [b"not yours"] * len(beyond)  # type: ignore[union-attr]
        assert list(part.diff(start - 1)) == list(own.diff(start - 1))
        for lease in (1, 2, -7):
            held = [face.lease_time_to_live(lease, keys=True).keys for face in (own, part)]
            assert held[0] == held[1]
        if own.revision >= start:
            assert events_since(part, start) == events_since(own, start)


def events_since(store: kvstore.Store, start: int) -> list[kvstore.Event]:
    """All events up to now."""
    end, events = store.revision, list[kvstore.Event]()
    with store.watch(prefix=b"", start_revision=start, prev_kv=True) as watch:
        while not events or events[-1].kv.mod_revision < end:
            events.append(watch.get(TIMEOUT_SECONDS))
    return events


def test_keys_lie_under_the_prefix(store: kvstore.Store) -> None:
    """As etcd's namespace has them; history and compares too, and a namespace in a namespace."""
    part = Namespace(store, b"app/")
    part.put(b"k", b"1")
    part.put(b"k", b"2")
    assert [(kv.key, kv.value) for kv in part.history(b"k")] == [(b"k", b"1"), (b"k", b"2")]
    assert part.txn([kvstore.value(b"k") == b"2"], [kvstore.ops.delete(prefix=b"")]).succeeded
    Namespace(part, b"inner/").put(b"k")
    assert [kv.key for kv in store.scan(prefix=b"")] == [b"app/inner/k"]
    assert b"inner/k" in part
    with pytest.raises(EmptyKey):
        part.txn(success=[kvstore.ops.put(b"")])
    with pytest.raises(BadArgument, match="prefix"):
        Namespace(store, b"")


def test_closing_a_namespace_closes_nothing(store: kvstore.Store) -> None:
    """Its store goes on; what only that can do is asked of it."""
    with Namespace(store, b"app/") as part:
        part.put(b"k", ttl=60)
        with pytest.raises(Unsupported):
            part.put_nowait(b"k")
    assert store.get(b"app/k") is not None


def test_recipes_work_in_a_namespace(store: kvstore.Store) -> None:
    """Their keys lie under its prefix."""
    part = Namespace(store, b"app/")
    with Session(part, 60) as session, Lock(session, b"lock") as lock:
        assert store.get(b"app/" + lock.key) is not None
        queue = Queue(session, b"q")
        queue.put(b"job")
        queue.claim().acknowledge()
    assert [kv.key for kv in store.scan(prefix=b"")] == [b"app/q/last"]


def test_a_namespace_for_tasks(scratch: Path) -> None:
    """The same, awaited, watches included."""

    async def main() -> None:
        async with kvstore.open_async(scratch / "data") as store:
            part = AsyncNamespace(store, b"app/")
            async with part.watch(prefix=b"") as events:
                await part.put(b"k", b"v")
                await store.put(b"k", b"w")
                await part.delete(b"k")
                assert [(await anext(events)).kv.key for _ in range(2)] == [b"k", b"k"]
            assert [kv async for kv in part.scan(prefix=b"")] == []
            assert (await part.range(prefix=b"")).count == 0

    asyncio.run(main())
