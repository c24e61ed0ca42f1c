"""The methods of ``Store``, the same on five engines: two local ones, our endpoint, an etcd, and a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KeyValue
from kvstore.model import EventType, LeaseKeepAliveResponse, RangeResponse
from tests.harness.watching import take

ENGINES = ("local lmdb", "local sqlite", "endpoint", "etcd", "cluster")


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[kvstore.Store]:
    """A store, perhaps with keys of other tests."""
    if request.param.startswith("local"):
        with kvstore.open(tmp_path / "store", backend=request.param.split()[1]) as opened:
            yield opened
    elif request.param == "endpoint":
        with (
            kvstore.open(tmp_path / "store") as served,
            kvstore.serve(served, f"unix://{tmp_path}/kv.sock") as server,
            kvstore.connect(server.endpoints[0]) as remote,
        ):
            yield remote
    else:
        url = request.getfixturevalue(f"{request.param}_url")
        with kvstore.connect(url) as remote:
            yield remote


def numbers(versions: Any) -> list[tuple[int, int, bytes]]:
    return [(kv.version, kv.mod_revision, kv.value) for kv in versions]


def test_put_get_delete(store: kvstore.Store) -> None:
    """The calls that nearly all programs are made of, with everything they may ask for."""
    first = store.put(b"pgd", b"1").revision
    assert store.get(b"pgd") == KeyValue(b"pgd", b"1", first, first, 1)
    second = store.put(b"pgd", b"2", prev_kv=True)
    assert second.prev_kv is not None
    assert second.prev_kv.value == b"1"
    assert store.get(b"pgd", revision=first) == KeyValue(b"pgd", b"1", first, first, 1)
    assert b"pgd" in store
    assert store.put(b"pgd", b"").revision == second.revision + 1
    assert store.get(b"pgd") == KeyValue(b"pgd", b"", first, second.revision + 1, 3)
    deleted = store.delete(b"pgd", prev_kv=True)
    assert (deleted.deleted, deleted.prev_kvs[0].version) == (1, 3)
    assert store.get(b"pgd") is None
    assert store.revision == deleted.revision


def test_ranges_and_views(store: kvstore.Store) -> None:
    """Limits, orders, counts, pages and the past."""
    for number in range(25):
        revision = store.put(b"rv/%02d" % number, b"v").revision
    store.delete(prefix=b"rv/1")
    found = store.range(prefix=b"rv/", limit=3, sort_order=kvstore.SortOrder.DESCEND)
    assert ([kv.key for kv in found.kvs], found.more, found.count) == (
        [b"rv/24", b"rv/23", b"rv/22"],
        True,
        15,
    )
    assert store.count(prefix=b"rv/") == 15
    assert [kv.key for kv in store.scan(prefix=b"rv/", page_rows=4)] == [
        b"rv/%02d" % number for number in (*range(10), *range(20, 25))
    ]
    view = store.at(revision)
    assert view.count(prefix=b"rv/") == 25
    assert [kv.key for kv in view.scan(prefix=b"rv/", page_rows=7)] == [b"rv/%02d" % n for n in range(25)]
    with pytest.raises(kvstore.FutureRevision):
        store.at(revision + 1000)


def test_transactions(store: kvstore.Store) -> None:
    """Compares, branches, nested ones, and what each operation answers."""
    store.put(b"tx", b"1")
    inner = kvstore.ops.txn([kvstore.value(b"tx") == b"1"], [kvstore.ops.get(b"tx")], [])
    done = store.txn(
        [kvstore.version(b"tx") > 0, kvstore.lease(b"tx") == 0],
        [inner, kvstore.ops.put(b"tx", b"2", prev_kv=True), kvstore.ops.delete(b"tx2")],
        [kvstore.ops.get(b"tx")],
    )
    assert done.succeeded
    responses: tuple[Any, ...] = done.responses
    nested, put, deleted = responses
    assert nested.responses[0].kvs[0].value == b"1"
    assert put.prev_kv.value == b"1"
    assert deleted.deleted == 0
    lost = store.txn([kvstore.value(b"tx") == b"1"], [kvstore.ops.put(b"tx", b"3")], [kvstore.ops.get(b"tx")])
    assert not lost.succeeded
    (read,) = lost.responses
    assert isinstance(read, RangeResponse)
    assert read.kvs[0].value == b"2"


def test_errors_are_those_of_a_local_store(store: kvstore.Store) -> None:
    """The same classes, before anything is sent where it can be told, else as the server says."""
    with pytest.raises(kvstore.EmptyKey):
        store.put(b"", b"v")
    with pytest.raises(TypeError, match="value must be bytes"):
        store.put(b"k", "text")  # type: ignore[arg-type]
    with pytest.raises(kvstore.LeaseNotFound):
        store.put(b"k", b"v", lease=12345)
    with pytest.raises(kvstore.KeyNotFound):
        store.put(b"absent", ignore_value=True)
    with pytest.raises(kvstore.DuplicateKey):
        store.txn(success=[kvstore.ops.put(b"k"), kvstore.ops.put(b"k")])
    with pytest.raises(kvstore.TooManyOps):
        store.txn(success=[kvstore.ops.put(b"k%d" % number) for number in range(129)])
    with pytest.raises(kvstore.RequestTooLarge):
        store.put(b"k", b"v" * 2_000_000)
    with pytest.raises(kvstore.FutureRevision):
        store.get(b"k", revision=store.revision + 1000)


def test_leases(store: kvstore.Store) -> None:
    """Granted, attached, kept alive, looked at, revoked; and a put with a time to live of its own."""
    granted = store.grant_lease(60)
    store.put(b"le", b"v", lease=granted.id)
    kept = store.keep_alive(granted.id)
    assert isinstance(kept, LeaseKeepAliveResponse)
    assert kept.ttl == 60
    left = store.lease_time_to_live(granted.id, keys=True)
    assert (left.granted_ttl, left.keys) == (60, (b"le",))
    assert granted.id in store.leases()
    store.revoke_lease(granted.id)
    assert store.get(b"le") is None
    assert store.lease_time_to_live(granted.id).ttl == -1
    with pytest.raises(kvstore.LeaseNotFound):
        store.keep_alive(granted.id)
    with pytest.raises(kvstore.LeaseNotFound):
        store.revoke_lease(granted.id)
    store.put(b"le", b"v", ttl=60)
    found = store.get(b"le")
    assert found is not None
    assert store.lease_time_to_live(found.lease).granted_ttl == 60
    store.revoke_lease(found.lease)


def test_the_past_of_a_key(store: kvstore.Store) -> None:
    """Each version and each end, whether the key exists now or not; from a compaction on, the version that lived."""
    revisions = [store.put(b"hi", b"%d" % number).revision for number in range(3)]
    revisions.append(store.delete(b"hi").revision)
    revisions.append(store.put(b"hi", b"again").revision)
    all_of_it = [
        (1, revisions[0], b"0"),
        (2, revisions[1], b"1"),
        (3, revisions[2], b"2"),
        (0, revisions[3], b""),
        (1, revisions[4], b"again"),
    ]
    assert numbers(store.history(b"hi", since=revisions[0])) == all_of_it
    assert numbers(store.history(b"hi", since=revisions[1], until=revisions[3])) == all_of_it[1:4]
    assert numbers(store.history(b"hi", since=revisions[4] + 1)) == []
    gone = store.delete(b"hi").revision
    assert numbers(store.history(b"hi", since=revisions[4])) == [*all_of_it[4:], (0, gone, b"")]
    store.compact(revisions[1])
    assert store.compact_revision == revisions[1]
    assert numbers(store.history(b"hi")) == [*all_of_it[1:], (0, gone, b"")]
    with pytest.raises(kvstore.Compacted):
        store.get(b"hi", revision=revisions[0])


def test_differences(store: kvstore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two revisions, read a page at a time."""
    monkeypatch.setattr("kvstore.network.remote.differences.PAGE_ROWS", 2)
    for number in range(7):
        older = store.put(b"di/%d" % number, b"old").revision
    store.put(b"di/1", b"new")
    store.delete(b"di/3")
    store.put(b"di/9", b"new")
    found = [(change.key, change.before, change.after) for change in store.diff(older, prefix=b"di/")]
    assert [(key, old and old.value, new and new.value) for key, old, new in found] == [
        (b"di/1", b"old", b"new"),
        (b"di/3", b"old", None),
        (b"di/9", None, b"new"),
    ]
    assert list(store.diff(older, older, prefix=b"di/")) == []


def test_watches(store: kvstore.Store) -> None:
    """From the past on and from now on, with what was there before, without what was not asked for."""
    first = store.put(b"wa/1", b"old").revision
    store.put(b"wb", b"beside")
    with (
        store.watch(prefix=b"wa/", start_revision=first, prev_kv=True) as whole,
        store.watch(b"wa/1", no_put=True) as ends,
    ):
        second = store.put(b"wa/1", b"new").revision
        third = store.txn(success=[kvstore.ops.delete(b"wa/1"), kvstore.ops.put(b"wa/2", b"v")]).revision
        seen = [(event.type, event.kv.key, event.kv.mod_revision) for event in take(whole, 4)]
        (ended,) = take(ends, 1)
    assert seen == [
        (EventType.PUT, b"wa/1", first),
        (EventType.PUT, b"wa/1", second),
        (EventType.DELETE, b"wa/1", third),
        (EventType.PUT, b"wa/2", third),
    ]
    assert (ended.type, ended.kv.key, ended.kv.mod_revision) == (EventType.DELETE, b"wa/1", third)


def test_a_watch_of_what_was_compacted(store: kvstore.Store) -> None:
    """It ends with the oldest revision that is left."""
    first = store.put(b"wc", b"1").revision
    last = store.put(b"wc", b"2").revision
    store.compact(last)
    with store.watch(b"wc", start_revision=first) as watch, pytest.raises(kvstore.Compacted) as caught:
        take(watch, 1)
    assert caught.value.compact_revision == last


def test_a_lease_that_runs_out_takes_its_keys_along(store: kvstore.Store) -> None:
    """A watch sees them go."""
    with store.watch(b"lo", no_put=True) as watch:
        store.put(b"lo", b"v", ttl=1)
        assert take(watch, 1)[0].kv.key == b"lo"
    assert store.get(b"lo") is None
