"""The faces on an engine that has what an etcd has, and nothing else: what they can do, and how they say what not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore import AsyncStore, Code, Store, Unsupported
from kvstore.engine import LocalEngine
from kvstore.model import WatchRequest
from kvstore.protocol import EmbeddedEngine, Engine
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS

WHERE = "etcd://h1:2379"


def members(protocol: type) -> set[str]:
    """What a protocol names itself, without those that it extends."""
    return {name for name in vars(protocol) if not name.startswith("_")}


class Elsewhere:
    """An engine of which nothing can be reached but what ``Engine`` names. It counts who waited for it where."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.asked_by: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        if name not in members(Engine):
            raise AttributeError(name)
        self.asked_by.add(threading.get_ident())
        return WHERE if name == "where" else getattr(self._engine, name)


@pytest.fixture(params=BACKENDS)
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with kvstore.open(tmp_path / "data", request.param, background=False) as store:
        yield cast(Engine, Elsewhere(store.engine))


def test_the_store_is_served_by_what_an_etcd_has(elsewhere: Engine) -> None:
    """Every call of ``Store`` that etcd has one for works on an engine with nothing else."""
    store = Store(elsewhere)
    assert repr(store) == f"<kvstore.Store {WHERE}>"
    with store.watch(prefix=b"") as events, store.watch_stream() as stream:
        stream.create(WatchRequest(b"b"))
        first = store.put(b"a", b"1", ttl=60).revision
        store.txn([kvstore.version(b"a") == 1], success=[kvstore.ops.put(b"b", b"2"), kvstore.ops.get(b"a")])
        assert [events.get(TIMEOUT_SECONDS).kv.key for _ in range(2)] == [b"a", b"b"]
        assert [len(stream.next()[1].events) for _ in range(2)] == [0, 1]
    kv = store.get(b"a")
    assert kv is not None
    assert store.get(b"a", revision=first) == kv
    assert b"b" in store
    assert store.count(prefix=b"") == store.range(prefix=b"").count == len(list(store.scan(prefix=b""))) == 2
    assert store.at(first).count(prefix=b"") == 1
    lease = store.grant_lease(60).id
    assert store.keep_alive(lease).ttl == 60
    assert set(store.leases()) == {kv.lease, lease}
    assert store.lease_time_to_live(kv.lease, keys=True).keys == (b"a",)
    assert store.revoke_lease(lease).revision == store.revision
    assert store.delete(b"b").deleted == 1
    assert store.compact(store.revision, physical=True).revision == store.revision == store.compact_revision
    assert store.hash_kv().hash_revision == store.revision
    assert store.alarms() == store.disarm(kvstore.model.Alarm(1, "NOSPACE")) == ()
    assert store.health().healthy
    assert store.status().revision == store.revision
    store.close()
    with pytest.raises(kvstore.StoreClosed):
        store.get(b"a")


def test_the_asynchronous_store_is_served_by_it_too(elsewhere: Engine) -> None:
    """Also without tickets: each of its answers may be long in coming, so it is waited for in a thread."""

    async def main() -> None:
        async with AsyncStore(elsewhere) as store:
            cast(Elsewhere, elsewhere).asked_by.clear()
            revision = (await store.put(b"a", b"1")).revision
            await store.txn(success=[kvstore.ops.put(b"b", b"2")])
            assert (await store.delete(b"b")).deleted == 1
            kv = await store.get(b"a")
            assert kv is not None
            assert kv.mod_revision == revision
            assert await store.alarms() == ()
            assert (await store.grant_lease(60)).ttl == 60
            assert threading.get_ident() not in cast(Elsewhere, elsewhere).asked_by
            assert [kv.key async for kv in store.scan(prefix=b"")] == [b"a"]
            async with store.watch(b"a", start_revision=revision) as events:
                assert (await events.get(TIMEOUT_SECONDS)).kv == kv
            with pytest.raises(Unsupported, match="snapshot"):
                await store.snapshot()
            with pytest.raises(Unsupported, match="history"):
                store.history(b"a")

    asyncio.run(main())


LOCAL: dict[str, Callable[[Store], Any]] = {
    "history": lambda store: store.history(b"a"),
    "diff": lambda store: store.diff(1),
    "time_of": lambda store: store.time_of(1),
    "revision_at": lambda store: store.revision_at(1.0),
    "times": lambda store: store.times(),
    "refresh": lambda store: store.refresh(),
    "put_nowait": lambda store: store.put_nowait(b"a"),
    "wait": lambda store: store.wait(cast(Any, None)),
    "checkpoint": lambda store: store.checkpoint(),
    "compaction_estimate": lambda store: store.compaction_estimate(1),
    "defragment": lambda store: store.defragment(),
    "defragment_estimate": lambda store: store.defragment_estimate(),
    "snapshot": lambda store: store.snapshot(),
    "engine": lambda store: store.engine,
}


@pytest.mark.parametrize("call", LOCAL)
def test_what_only_a_local_store_has_is_refused_by_name(tmp_path: Path, call: str) -> None:
    """One error for all of them: it says what is open, what it has not, and what to do instead."""
    with kvstore.open(tmp_path / "data", "memory", background=False) as local:
        store = Store(cast(Engine, Elsewhere(local.engine)))
        with pytest.raises(Unsupported) as refused:
            LOCAL[call](store)
        what, instead = str(refused.value).split("; ", 1)
        assert what == f"{WHERE}: only a store on this machine has {call!r}"
        assert len(instead) > 20
        assert refused.value.code == Code.UNIMPLEMENTED
        assert not refused.value.retryable
        assert local.revision == 1


def test_every_local_call_is_tried_here() -> None:
    """``LOCAL`` reaches all that ``EmbeddedEngine`` adds, but for what no synchronous store asks it."""
    begun = {"submit", "ask", "ask_soon", "lead_alone", "flush_soon", "error_of"}
    room = {"overloaded", "check_room"}
    served = {"row", "page", "past_keys", "range_pages", "carried", "begin_term", "check", "watch_stream"}
    assert members(EmbeddedEngine) - begun - room - served == set(LOCAL) - {"engine", "put_nowait"}


def test_the_local_engine_has_it_all(tmp_path: Path) -> None:
    """Both protocols, measured or not. (That they fit in their types, mypy says.)"""
    for metrics in (False, True):
        with kvstore.open(tmp_path / str(metrics), "memory", metrics=metrics, background=False) as store:
            for name in members(Engine) | members(EmbeddedEngine):
                assert hasattr(store.engine, name), name
            assert repr(store) == f"<kvstore.Store {tmp_path / str(metrics)} (memory) at revision 1>"
