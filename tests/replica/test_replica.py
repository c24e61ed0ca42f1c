"""A replica answers as its source does, at the source's revisions, whatever happens to either or to the way between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvstore.tools.command import ExitCode
from kvstore.tools.replica import run

import kvstore
from kvstore import Store, replica
from kvstore.errors import (
    IsReplica,
    NotAStore,
    NoThread,
    StoreClosed,
    StoreLocked,
    Unavailable,
    Unsupported,
    WrongStore,
)
from kvstore.network.remote.page import fetch
from kvstore.observe.doctor import diagnose_served
from kvstore.observe.facts import Level
from kvstore.ops import get, put
from kvstore.replica.replica import Replica
from kvstore.testing.fake_clock import FakeClock
from tests.backup.places import held_back
from tests.etcd.etcd_servers import etcd
from tests.harness.cutting_proxy import CuttingProxy, Fault
from tests.harness.mirrored import needs_etcd, rows, write
from tests.harness.ports import free_ports
from tests.network.served_store import until


@pytest.fixture
def socket(tmp_path: Path) -> str:
    """A URL that a server can come back to."""
    return f"unix://{tmp_path}/s"


@pytest.fixture
def source(tmp_path: Path, socket: str) -> Iterator[Store]:
    with kvstore.open(tmp_path / "source") as store, kvstore.serve(store, socket):
        yield store


def store_of(following: Replica) -> Store:
    assert following.store is not None
    return following.store


def same(following: Replica, source: Store) -> None:
    """Caught up, it has what the source has: keys, numbers, hash."""
    assert following.catch_up() == source.revision
    assert rows(store_of(following)) == rows(source)
    assert store_of(following).hash_kv().hash == source.hash_kv(source.revision).hash


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_reads_of_any_revision_are_the_sources(
    source: Store, socket: str, tmp_path: Path, backend: str
) -> None:
    """Also after a restart, which goes on where it stood and asks for no snapshot."""
    first = write(source)
    for seeds in (1, 0):
        with replica.new_replica(socket, tmp_path / "replica", options={"backend": backend}) as following:
            same(following, source)
            write(source)
            same(following, source)
            assert following.seeds == seeds
            for revision in range(first, source.revision, 13):
                assert rows(store_of(following), revision) == rows(source, revision)


@needs_etcd
def test_an_etcd_is_followed(tmp_path: Path) -> None:
    """The same with a real etcd, compactions and leases included."""
    with (
        etcd(tmp_path / "etcd", tmp_path / "log") as server,
        kvstore.connect(server.endpoint) as source,
        replica.new_replica(server.endpoint, tmp_path / "replica") as following,
    ):
        write(source)
        same(following, source)
        between = write(source)
        source.compact(between)
        source.put(b"k", b"after the compaction")
        same(following, source)
        assert store_of(following).compact_revision == between
        assert set(source.leases()) == set(store_of(following).leases())


def test_a_watch_of_a_replica_gets_every_revision_once(source: Store, socket: str, tmp_path: Path) -> None:
    """Whole transactions, in order, as they come."""
    with replica.follow(socket, tmp_path / "replica", interval_seconds=0.05) as following:
        until(lambda: following.store)
        with (
            store_of(following).watch(prefix=b"", start_revision=source.revision + 1) as there,
            source.watch(prefix=b"", start_revision=source.revision + 1) as here,
        ):
            last = write(source)
            for watch in (there, here):
                watch.request_progress()
            events = {watch: [watch.get(60)] for watch in (there, here)}
            for watch, got in events.items():
                while got[-1].kv.mod_revision < last:
                    got.append(watch.get(60))
            assert events[there] == events[here]


def check_refusals(store: Store, lease: int) -> None:
    """Every kind of write is refused, with one error; a transaction that only reads is answered."""
    for refused in (
        lambda: store.put(b"k", b"w"),
        lambda: store.delete(b"k"),
        lambda: store.txn([], [put(b"k", b"w")]),
        lambda: store.compact(2),
        lambda: store.grant_lease(60),
        lambda: store.revoke_lease(lease),
    ):
        with pytest.raises(IsReplica) as raised:
            refused()
        assert raised.value.code == kvstore.Code.FAILED_PRECONDITION
        assert raised.value.etcd_text == "etcdserver: rpc not supported for learner"
    assert store.txn([], [get(b"k")]).succeeded
    assert store.lease_time_to_live(lease).granted_ttl == 60


def test_a_replica_refuses_writes_and_its_clients_are_told(
    source: Store, socket: str, tmp_path: Path
) -> None:
    """Every kind of write, here and over the network; transactions that only read are answered."""
    source.put(b"k", b"v")
    lease = source.grant_lease(60).id
    with replica.new_replica(socket, tmp_path / "replica") as following:
        following.catch_up()
        with (
            kvstore.serve(store_of(following), f"unix://{tmp_path}/r") as server,
            kvstore.connect(server.endpoints[0]) as remote,
            kvstore.connect(f"unix://{tmp_path}/r") as other,
        ):
            for store in (store_of(following), remote, other):
                check_refusals(store, lease)
        assert source.get(b"k") == store_of(following).get(b"k")


def test_nothing_is_lost_or_doubled_over_connections_that_are_cut(source: Store, tmp_path: Path) -> None:
    """Cut at every stage: in the snapshot, in the watch, with RST, and for a while altogether."""
    with kvstore.serve(source, "http://127.0.0.1:0") as server:
        host, port = server.endpoints[0].removeprefix("http://").rsplit(":", 1)
        with CuttingProxy(host, int(port)) as proxy:
            url = "etcd://{}:{}".format(*proxy.address)
            source.put(b"large", bytes(300_000))
            proxy.plan(*(Fault("down", after) for after in (0, 200, 2_000, 100_000)))
            with replica.follow(
                url, tmp_path / "replica", interval_seconds=0.05, connect={"timeout_seconds": 2}
            ) as following:
                for number in range(6):
                    last = write(source)
                    if number == 3:
                        proxy.refuse()
                    proxy.cut("reset" if number % 2 else "cut")
                    proxy.refuse(False)
                    proxy.plan(Fault("down", 300 * number))
                proxy.forget_plans()
                until(lambda: following.status().revision == last)
                assert rows(store_of(following)) == rows(source)
                assert store_of(following).hash_kv().hash == source.hash_kv().hash


def test_a_source_that_is_away_leaves_a_replica_that_answers(socket: str, tmp_path: Path) -> None:
    """It says how far it is, in status, health and metrics; and goes on when the source is back."""
    with kvstore.open(tmp_path / "source") as source:
        with kvstore.serve(source, socket):
            last = write(source)
            following = replica.follow(
                socket, tmp_path / "replica", connect={"timeout_seconds": 0.2}, interval_seconds=0.05
            )
            until(lambda: following.status().complete_at_ms)
        with following:
            until(lambda: following.status().error)
            store, complete_at_ms = store_of(following), following.status().complete_at_ms
            assert rows(store) == rows(source)
            said = store.status().replica
            assert said is not None
            assert (said.source, said.revision, said.complete_at_ms) == (socket, last, complete_at_ms)
            assert not store.health().healthy
            assert "the replica waits" in store.health().reasons[0]
            assert "kvstore_replica_failing 1\n" in store.metrics()
            assert f"kvstore_replica_revision {last}\n" in store.metrics()
            write(source)
            with kvstore.serve(source, socket):
                until(lambda: following.status().revision == source.revision)
                until(lambda: not following.status().error)
                assert following.status().complete_at_ms > complete_at_ms
                assert store.health().healthy


def test_leases_end_when_the_source_says_so(source: Store, socket: str, tmp_path: Path) -> None:
    """A replica's own clock ends none, however late it is; the source's deletes do."""
    clock = FakeClock()
    lease = source.grant_lease(60).id
    source.put(b"leased", b"v", lease=lease)
    with replica.new_replica(socket, tmp_path / "replica", options={"clock": clock}) as following:
        following.catch_up()
        store = store_of(following)
        clock.advance(3600)
        assert store.get(b"leased") is not None
        assert store.leases() == (lease,)
        source.revoke_lease(lease)
        following.catch_up()
        assert store.get(b"leased") is None
        assert store.leases() == ()


def test_a_promoted_replica_is_a_store_of_its_own(source: Store, socket: str, tmp_path: Path) -> None:
    """It takes writes at the next revision, has another cluster id, and its leases count again from their TTL."""
    path, clock = tmp_path / "replica", FakeClock()
    lease = source.grant_lease(60).id
    source.put(b"leased", b"v", lease=lease)
    with replica.new_replica(socket, path) as following:
        with pytest.raises(NotAStore, match="not a replica"):
            replica.promote(path)
        following.catch_up()
        with pytest.raises(
            StoreLocked, match=rf"process {os.getpid()} on .*to promote it.*end that one first"
        ):
            replica.promote(path)
        assert run(["promote", str(path)]) == ExitCode.CANNOT_OPEN
    with pytest.raises(WrongStore, match="promote"):
        kvstore.open(path)
    assert replica.promote(path) == source.revision
    with kvstore.open(path) as store:
        assert store.engine.cluster_id != source.engine.cluster_id
        assert rows(store) == rows(source)
        found = store.lease_time_to_live(lease)
        assert found.ttl > 50
        assert store.put(b"k", b"v").revision == source.revision + 1
    clock.now_seconds = 2e9
    with kvstore.open(path, clock=clock) as store:
        until(lambda: store.get(b"leased") is None)
    with pytest.raises(NotAStore, match="not a replica"):
        replica.promote(path)
    with pytest.raises(WrongStore, match="no replica"):
        replica.new_replica(socket, path)


def test_promotion_does_not_fence_the_source(source: Store, socket: str, tmp_path: Path) -> None:
    """Both take writes then, and give one revision to two things; a replica of the one does not follow the other."""
    for name in ("first", "second"):
        with replica.new_replica(socket, tmp_path / name) as following:
            following.catch_up()
    replica.promote(tmp_path / "first")
    with kvstore.open(tmp_path / "first") as store, kvstore.serve(store, f"unix://{tmp_path}/t"):
        assert store.put(b"k", b"here").revision == source.put(b"k", b"there").revision
        with (
            replica.new_replica(f"unix://{tmp_path}/t", tmp_path / "second") as following,
            pytest.raises(WrongStore, match="a directory of its own"),
        ):
            following.step()


def test_a_backups_copy_is_not_promoted(source: Store, socket: str, tmp_path: Path) -> None:
    """It has the cluster id of its source, which two stores that take writes must not share."""
    from kvstore import backup

    with backup.new_follower(socket, tmp_path / "backup", data_dir=tmp_path / "copy") as following:
        following.step()
    with pytest.raises(Unsupported, match="restore"):
        replica.promote(tmp_path / "copy")


def test_what_the_source_compacted_before_it_came_is_said_to_be_missing(socket: str, tmp_path: Path) -> None:
    """The store is made anew, and served again; the numbers are in the status, also after a restart."""
    path, opened = tmp_path / "replica", []

    def serve(store: Store) -> kvstore.Server:
        opened.append(store.revision)
        return kvstore.serve(store, f"unix://{tmp_path}/r")

    with kvstore.open(tmp_path / "source") as source, kvstore.serve(source, socket):
        first = write(source)
        with replica.new_replica(socket, path, serve=serve) as following:
            following.catch_up()
        write(source)
        second = write(source)
        source.compact(second)
        for seeds in (1, 0):
            with replica.new_replica(socket, path, serve=serve) as following:
                same(following, source)
                assert following.seeds == seeds
                assert following.status().missing == ((first + 1, second - 1),)
                with kvstore.connect(f"unix://{tmp_path}/r") as client:
                    assert client.revision == second
    assert opened == [first, first, second, second]


def test_an_address_that_is_taken_is_tried_again(source: Store, socket: str, tmp_path: Path) -> None:
    """The store is opened again for that, not made anew."""
    failures = [OSError("taken"), OSError("taken")]

    def serve(store: Store) -> kvstore.Server:
        if failures:
            raise failures.pop()
        return kvstore.serve(store, f"unix://{tmp_path}/r")

    with replica.new_replica(socket, tmp_path / "replica", serve=serve) as following:
        for _ in range(2):
            with pytest.raises(OSError, match="taken"):
                following.catch_up()
        same(following, source)
        assert following.seeds == 1
        with kvstore.connect(f"unix://{tmp_path}/r") as client:
            assert client.revision == source.revision


def test_a_store_that_is_no_replica_is_left_alone(source: Store, socket: str, tmp_path: Path) -> None:
    """Nor is a replica of one source given another, or followed twice at once."""
    with kvstore.open(tmp_path / "own") as store:
        store.put(b"k", b"v")
    with pytest.raises(WrongStore, match="no replica"):
        replica.new_replica(socket, tmp_path / "own")
    (tmp_path / "member" / "snap").mkdir(parents=True)
    (tmp_path / "member" / "snap" / "db").write_bytes(b"somebody else's")
    with pytest.raises(WrongStore, match="exists"):
        replica.new_replica(socket, tmp_path / "member")
    assert [path.name for path in (tmp_path / "member").iterdir()] == ["snap"]
    with kvstore.open(tmp_path / "own") as other, kvstore.serve(other, f"unix://{tmp_path}/t"):
        with replica.new_replica(socket, tmp_path / "replica") as following:
            following.catch_up()
            with pytest.raises(StoreLocked):
                replica.new_replica(socket, tmp_path / "replica")
        with (
            replica.new_replica(f"unix://{tmp_path}/t", tmp_path / "replica") as following,
            pytest.raises(WrongStore, match="a directory of its own"),
        ):
            following.step()
        assert rows(other)[0][0] == b"k"


def test_a_crash_at_any_step_of_seeding_is_made_good(
    source: Store, socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of the store is there: the next process removes it, and makes it whole."""
    write(source)
    for name in ("_clear", "_put_mark", "_open", "_empty"):
        for nth in (1, 2):
            path, calls = tmp_path / f"{name}-{nth}", list[int]()
            true = getattr(Replica, name)

            def dies(self: Replica, *arguments: object, nth: int = nth, calls: list[int] = calls) -> None:
                calls.append(1)
                if len(calls) == nth:
                    raise KeyboardInterrupt
                true(self, *arguments)  # noqa: B023

            with monkeypatch.context() as patch:
                patch.setattr(Replica, name, dies)
                dying = replica.new_replica(socket, path)
                try:
                    dying.catch_up()
                except KeyboardInterrupt:
                    pass
                dying.close()
            with replica.new_replica(socket, path) as following:
                same(following, source)


def test_a_closed_replica_takes_no_step(
    source: Store, socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by hand nor by a thread that begins only then: the directory may be another's by now."""
    let_go = held_back(monkeypatch, "kvstore-replica")
    closed = replica.follow(socket, tmp_path / "replica")
    closed.close()
    with pytest.raises(StoreClosed):
        closed.catch_up()
    with replica.new_replica(socket, tmp_path / "replica") as following:
        let_go()
        assert closed.store is None
        same(following, source)
        closed.close()


def test_a_replica_without_a_thread_leaves_the_directory_free(
    source: Store, socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none can be started, that is said, and nothing stays locked."""

    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("kvstore.shelter.start", fails)
        with pytest.raises(NoThread):
            replica.follow(socket, tmp_path / "replica")
    with replica.new_replica(socket, tmp_path / "replica") as following:
        same(following, source)


def test_a_killed_replica_goes_on_where_it_stood(source: Store, socket: str, tmp_path: Path) -> None:
    """The command: killed while it follows and serves; the next one has everything, and serves it."""
    (port,) = free_ports(1)
    url, path = f"http://127.0.0.1:{port}", tmp_path / "replica"
    command = [sys.executable, "-m", "kvstore", "replica", "--from", socket, "--data-dir", str(path)]
    write(source)

    def has_all() -> bool:
        try:
            with kvstore.connect(url, timeout_seconds=1) as client:
                return client.revision == source.revision
        except Unavailable:
            return False

    with subprocess.Popen([*command, "--listen", url, "--interval", "0.1s"]) as process:
        until(has_all)
        write(source)
        process.kill()
    write(source)
    with subprocess.Popen([*command, "--listen", url]) as process:
        until(has_all)
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            assert f"kvstore_replica_revision {source.revision}\n" in answer.read().decode()
        with kvstore.connect(url) as client:
            assert rows(client) == rows(source)
        process.terminate()
        assert process.wait(60) == 0
    promoting = [sys.executable, "-m", "kvstore", "replica", "promote", str(path), "--json"]
    done = subprocess.run(promoting, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["revision"] == source.revision


def test_a_replica_whose_source_is_gone_answers_and_says_so(tmp_path: Path, socket: str) -> None:
    """Reads and readiness as ever; health, status and a page of its own say what is wrong, until it is back."""
    url = f"unix://{tmp_path}/replica.sock"
    with (
        kvstore.open(tmp_path / "source") as source,
        replica.new_replica(
            socket, tmp_path / "replica", serve=lambda store: kvstore.serve(store, url)
        ) as made,
    ):
        source.put(b"k", b"v")
        with kvstore.serve(source, socket):
            made.catch_up()
        with kvstore.connect(url) as client:
            assert client.health().healthy and page_of(tmp_path, "/readyz/replica") == (200, "ok\n")
            with pytest.raises(Unavailable):
                made.catch_up()
            assert client.count(b"k") == 1
            (reason,) = client.health().reasons
            assert reason.startswith("the replica waits: ") and client.status().errors == (reason,)
            (found,) = [fact for fact in diagnose_served(client) if fact.name == "background"]
            assert found.level == Level.WARNING and found.advice == reason
            status, text = page_of(tmp_path, "/readyz/replica")
            assert status == 503 and text.startswith("[-]replica failed: ")
            assert page_of(tmp_path, "/readyz")[0] == page_of(tmp_path, "/health")[0] == 200
            with kvstore.serve(source, socket):
                made.catch_up()
            assert client.health().healthy and page_of(tmp_path, "/readyz/replica")[0] == 200


def page_of(folder: Path, path: str) -> tuple[int, str]:
    """(status, text) of a page of the replica at the socket in ``folder``."""
    page = fetch(f"unix://{folder}/replica.sock", path, {})
    return page.status, page.text
