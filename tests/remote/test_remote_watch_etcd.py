"""Watches and keep-alives of an etcd, over connections that are cut."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from random import Random

import pytest

from kvstore.errors import Compacted, LeaseNotFound
from kvstore.ops import put
from tests.etcd.etcd_servers import etcd
from tests.harness.checkers.store_model import ChangeLog
from tests.harness.checkers.watch_validators import WatchRequest
from tests.harness.cutting_proxy import Fault
from tests.harness.watching import TIMEOUT_SECONDS, model_event, take
from tests.remote.watched import (
    LAST_KEY,
    Elsewhere,
    Recorder,
    address_of,
    judged,
    read_until,
    write_some,
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """An etcd, which all tests here write to."""
    path = tmp_path_factory.mktemp("etcd")
    with etcd(path / "data", path / "log") as started, Elsewhere(address_of(started.endpoint)) as elsewhere:
        yield elsewhere


@pytest.fixture
def elsewhere(server: Elsewhere) -> Elsewhere:
    server.proxy.refuse(False)
    server.proxy.forget_plans()
    return server


def test_watches_keep_their_promises_while_connections_fail(elsewhere: Elsewhere) -> None:
    """What comes over cut connections is what an undisturbed watch sees, and the nine judges find nothing."""
    writer, remote, random = elsewhere.direct(), elsewhere.connect(), Random(7)
    first = writer.revision + 1
    whole = WatchRequest(b"\0", b"\0", first, prev_kv=True)
    some = WatchRequest(b"a", b"c", first, filters=frozenset({"delete"}))
    recorders = [
        Recorder(remote.watch(prefix=b"", start_revision=first, prev_kv=True)),
        Recorder(remote.watch(b"a", b"c", start_revision=first, no_delete=True)),
    ]
    for round_ in range(6):
        elsewhere.proxy.plan(
            Fault("down", random.randrange(100, 3000)), Fault("up", random.randrange(30, 300))
        )
        write_some(writer, 20, round_)
        elsewhere.proxy.cut("reset" if round_ % 2 else "cut")
    last = writer.txn([], [put(b"a", b"last"), put(LAST_KEY, b"")]).revision
    with writer.watch(prefix=b"", start_revision=first) as undisturbed:
        truth = [event for response in read_until(undisturbed, last) for event in response.events]
    log = ChangeLog([model_event(event) for event in truth], 0)
    for request, recorder in zip((whole, some), recorders, strict=True):
        assert judged(log, request, recorder.up_to(last)) == []


def test_a_large_transaction_comes_whole(elsewhere: Elsewhere) -> None:
    """In fragments on the wire, which a cut may fall between."""
    writer, remote = elsewhere.direct(), elsewhere.connect(timeout_seconds=30)
    first = writer.revision + 1
    for number in range(5):
        writer.put(b"large", b"%d" % number * 900_000)
    last = writer.revision
    for size in (1_000, 700_000, 1_500_000, 2_600_000):
        elsewhere.proxy.plan(Fault("down", size))
        elsewhere.proxy.cut()
        with remote.watch(b"large", start_revision=first) as watch:
            responses = read_until(watch, last)
        values = [event.kv.value for response in responses for event in response.events]
        assert values == [b"%d" % number * 900_000 for number in range(5)]


def test_a_watch_from_now_on_misses_nothing(elsewhere: Elsewhere) -> None:
    """Also what is written before the server has heard of it."""
    writer, remote = elsewhere.direct(), elsewhere.connect()
    for _ in range(5):
        with remote.watch(b"now") as watch:
            elsewhere.proxy.cut()
            writer.put(b"now", b"1")
            writer.put(b"now", b"2")
            assert [event.kv.value for event in take(watch, 2)] == [b"1", b"2"]


def test_a_notice_is_never_ahead_of_events(elsewhere: Elsewhere) -> None:
    """An etcd of this age sends it so; what it is worth then is what has come."""
    writer, remote = elsewhere.direct(), elsewhere.connect()
    first = writer.revision + 1
    for number in range(300):
        writer.put(b"notice", b"%d" % number)
    with remote.watch(b"notice", start_revision=first) as watch:
        seen = 0
        while seen < 300:
            watch.request_progress()
            response = watch.get_response(TIMEOUT_SECONDS)
            if response.events:
                seen += len(response.events)
            assert response.revision <= first + seen - 1


def test_a_compaction_during_a_cut_ends_the_watch(elsewhere: Elsewhere) -> None:
    """With the revision that is the oldest now."""
    writer, remote = elsewhere.direct(), elsewhere.connect()
    first = writer.put(b"k", b"1").revision
    with remote.watch(b"k", start_revision=first) as watch:
        assert watch.get(TIMEOUT_SECONDS).kv.value == b"1"
        elsewhere.proxy.refuse()
        elsewhere.proxy.cut()
        for _ in range(4):
            last = writer.put(b"k", b"2").revision
        writer.compact(last)
        elsewhere.proxy.refuse(False)
        with pytest.raises(Compacted) as caught:
            watch.get(TIMEOUT_SECONDS)
        assert caught.value.compact_revision == last


def test_a_slow_consumer_gets_everything(elsewhere: Elsewhere) -> None:
    """The server is told to stop, and to go on, again and again."""
    writer, remote = elsewhere.direct(), elsewhere.connect(watch_buffer=1_000)
    first = writer.revision + 1
    write_some(writer, 100)
    last = writer.put(LAST_KEY, b"").revision
    with remote.watch(prefix=b"", start_revision=first) as watch:
        found = [event for response in read_until(watch, last) for event in response.events]
    with writer.watch(prefix=b"", start_revision=first) as undisturbed:
        assert found == [event for response in read_until(undisturbed, last) for event in response.events]


def test_leases_live_on_over_connections_that_are_cut(elsewhere: Elsewhere) -> None:
    """After every number of bytes; one that is revoked has no time left."""
    writer, remote = elsewhere.direct(), elsewhere.connect()
    lease = writer.grant_lease(600).id
    for size in range(1, 300, 50):
        elsewhere.proxy.plan(Fault("down", size), Fault("up", size + 17, "reset"))
        elsewhere.proxy.cut()
        assert remote.keep_alive(lease).ttl == 600
    writer.revoke_lease(lease)
    with pytest.raises(LeaseNotFound):
        remote.keep_alive(lease)
