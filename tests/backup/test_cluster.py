"""Backups of what is elsewhere: an etcd, or a store that is served. What is restored is what the source had then."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store, backup
from kvstore.backup.errors import NotCovered, TargetFailed
from kvstore.errors import Unavailable, WrongStore
from kvstore.foreign import find_foreign
from kvstore.served import Server
from kvstore.store import Reader
from tests.backup.places import Place, held_back
from tests.etcd.etcd_cluster import running_cluster
from tests.etcd.etcd_servers import etcd
from tests.etcd.etcd_servers import restore as etcd_restore
from tests.harness.mirrored import Rows, needs_etcd, rows, write
from tests.network.served_store import until


@pytest.fixture
def socket(tmp_path: Path) -> str:
    """A URL that a server can come back to."""
    return f"unix://{tmp_path}/s"


def serve(store: Store, url: str) -> Server:
    return kvstore.serve(store, url)


@pytest.fixture
def source(tmp_path: Path, socket: str) -> Iterator[Store]:
    with kvstore.open(tmp_path / "source") as store, serve(store, socket):
        yield store


def restored(place: Any, tmp_path: Path, revision: int = 0) -> Rows:
    made = backup.restore(place, tmp_path / f"restored-{revision}", to_revision=revision)
    with kvstore.open(made.data_dir, read_only=True) as store:
        assert store.revision == revision or not revision
        return rows(store)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_every_revision_of_a_served_store_can_be_had_again(
    source: Store, socket: str, tmp_path: Path, backend: str
) -> None:
    """Keys, numbers and leases of each revision from the snapshot on, across a second process that goes on."""
    place, copy = Place(), tmp_path / "copy"
    first = write(source)
    for _ in range(2):
        with backup.new_follower(socket, place, data_dir=copy, options={"backend": backend}) as following:
            following.step()
            last = write(source)
            following.step()
            assert following.status().revision == last
            assert following.status().lag_seconds < 60
    (generation,) = backup.status(place).generations
    assert (generation.snapshot.revision, generation.revision) == (first, last)
    for revision in range(first + 1, last, 11):
        assert restored(place, tmp_path, revision) == rows(source, revision)
    assert restored(place, tmp_path) == rows(source)


def test_what_a_watch_does_not_tell_is_there_too(source: Store, socket: str, tmp_path: Path) -> None:
    """Leases have their TTL and their keys, and a compaction is followed."""
    lease = source.grant_lease(700).id
    place = Place()
    with backup.new_follower(socket, place) as following:
        following.step()
        source.put(b"k", b"", lease=lease)
        other = source.grant_lease(800).id
        source.put(b"other", b"", lease=other)
        following.step()
    made = backup.restore(place, tmp_path / "restored")
    with kvstore.open(made.data_dir) as store:
        assert sorted(store.leases()) == sorted([lease, other])
        for ident, ttl, key in ((lease, 700, b"k"), (other, 800, b"other")):
            found = store.lease_time_to_live(ident, keys=True)
            assert (found.granted_ttl, found.keys) == (ttl, (key,))
            assert ttl - 60 < found.ttl <= ttl


@needs_etcd
def test_an_etcd_comes_back_as_it_was_at_any_revision(tmp_path: Path) -> None:
    """Write, follow, write on, delete; restore to a revision between; a real etcd runs on that, and all keys, numbers
    and its HashKV are what the first etcd answers at that revision."""
    place = tmp_path / "backup"
    with (
        etcd(tmp_path / "etcd", tmp_path / "log") as server,
        kvstore.connect(server.endpoint) as source,
        backup.new_follower(server.endpoint, place, data_dir=tmp_path / "copy") as following,
    ):
        write(source)
        following.step()
        between = write(source)
        source.put(b"after", b"")
        source.delete(prefix=b"")
        following.step()
        assert following.status().revision == source.revision
        expected, hash_kv = server.dump(between), server.hash_kv(between)["hash"]
    made = backup.restore(place, tmp_path / "restored", to_revision=between)
    with kvstore.open(made.data_dir, read_only=True) as store:
        assert store.hash_kv().hash == hash_kv
        find_foreign("etcd").export_store(Reader(store.engine), tmp_path / "snapshot")
    etcd_restore(tmp_path / "snapshot", tmp_path / "etcd-2", "default", "http://localhost:2380")
    with etcd(tmp_path / "etcd-2", tmp_path / "log-2") as server:
        assert server.dump(between) == expected
        assert server.hash_kv(between)["hash"] == hash_kv
        leases = {each["id"] for each in server.ctl("lease", "list")["leases"]}
        assert {row[-1] for row in expected} - {0} <= leases


@needs_etcd
def test_a_cluster_is_followed_across_kills_of_its_leader(tmp_path: Path) -> None:
    """Whoever leads: nothing is missing, nothing twice."""
    place = Place()
    with (
        running_cluster(tmp_path) as cluster,
        kvstore.connect(cluster.url, timeout_seconds=60) as source,
        backup.new_follower(
            cluster.url, place, interval_seconds=0.05, connect={"timeout_seconds": 60}
        ) as following,
    ):
        following.begin()
        first = write(source)
        until(lambda: following.status().revision >= first)
        cluster.leader().kill()
        second = write(source)
        until(lambda: following.status().revision >= second)
        between, newest = rows(source, first), rows(source)
    assert restored(place, tmp_path, first) == between
    assert restored(place, tmp_path) == newest


def test_a_source_that_is_away_is_followed_when_it_is_back(socket: str, tmp_path: Path) -> None:
    """Meanwhile the lag grows and the error is said; the target claims nothing."""
    place = Place()
    with (
        kvstore.open(tmp_path / "source") as store,
        backup.new_follower(
            socket, place, data_dir=tmp_path / "copy", connect={"timeout_seconds": 0.2}
        ) as following,
    ):
        with pytest.raises(Unavailable):
            following.step()
        with serve(store, socket):
            write(store)
            following.step()
        complete_at_ms = following.status().complete_at_ms
        write(store)
        with pytest.raises(Unavailable):
            following.step()
        said = following.status()
        assert (said.complete_at_ms, bool(said.error)) == (complete_at_ms, True)
        assert backup.status(place).complete_at_ms == complete_at_ms
        with serve(store, socket):
            following.step()
            assert following.status().error == ""
            assert restored(place, tmp_path) == rows(store)


def test_a_compaction_past_what_came_makes_a_gap_that_is_said(socket: str, tmp_path: Path) -> None:
    """While nobody followed, the source was compacted: a new generation, and the revisions between are refused."""
    place = Place()
    with kvstore.open(tmp_path / "source") as store, serve(store, socket):
        first = write(store)
        with backup.new_follower(socket, place, data_dir=tmp_path / "copy") as following:
            following.step()
        between = write(store)
        second = write(store)
        store.compact(second)
        with backup.new_follower(socket, place, data_dir=tmp_path / "copy") as following:
            following.step()
            assert isinstance(following, backup.ClusterFollower)
            assert following.replica.status().missing == ((first + 1, second - 1),)
            third = write(store)
            following.step()
        assert [each.snapshot.revision for each in backup.status(place).generations] == [first, second]
        with pytest.raises(NotCovered):
            backup.restore(place, tmp_path / "never", to_revision=between)
        assert restored(place, tmp_path, third - 1) == rows(store, third - 1)
        assert restored(place, tmp_path, first)


def test_another_cluster_behind_the_same_url_is_refused(source: Store, socket: str, tmp_path: Path) -> None:
    """Neither the copy nor the target takes anything of it, with the copy or without."""
    place, other_socket = Place(), f"unix://{tmp_path}/t"
    with backup.new_follower(socket, place, data_dir=tmp_path / "copy") as following:
        following.step()
    objects = dict(place.objects)
    with kvstore.open(tmp_path / "other") as other, serve(other, other_socket):
        write(other)
        for copy in (tmp_path / "copy", ""):
            with (
                backup.new_follower(other_socket, place, data_dir=copy) as following,
                pytest.raises(WrongStore),
            ):
                following.step()
    assert place.objects == objects


def test_another_history_of_the_same_cluster_is_refused(socket: str, tmp_path: Path) -> None:
    """A source that was put back to an older state and went another way: behind what is here, at it, and beyond it."""
    with kvstore.open(tmp_path / "source") as store:
        write(store)
    shutil.copytree(tmp_path / "source", tmp_path / "older")
    place = Place()

    def follow(path: Path, writes: int) -> None:
        with (
            kvstore.open(path) as store,
            serve(store, socket),
            backup.new_follower(socket, place, data_dir=tmp_path / "copy") as following,
        ):
            for number in range(writes):
                store.put(b"k", b"%b %d" % (path.name.encode(), number))
            following.step()

    follow(tmp_path / "source", 3)
    objects = dict(place.objects)
    for writes in (1, 2, 3):
        with pytest.raises(WrongStore):
            follow(tmp_path / "older", writes)
    assert place.objects == objects
    follow(tmp_path / "source", 3)


def test_a_killed_process_is_continued_by_the_next(source: Store, socket: str, tmp_path: Path) -> None:
    """The command, killed while it follows: the next one goes on with the copy, in the same generation."""
    place, copy = tmp_path / "backup", tmp_path / "copy"
    command = [sys.executable, "-m", "kvstore", "backup", "follow", "--from", socket, "--to", str(place)]
    command += ["--data-dir", str(copy), "--interval", "0.05s"]
    with subprocess.Popen(command) as process:
        until(lambda: backup.status(place).revision == source.revision)
        first = write(source)
        until(lambda: backup.status(place).revision >= first - 20)
        process.kill()
    last = write(source)
    done = subprocess.run([*command, "--once", "--json"], capture_output=True, check=True, timeout=120)
    said = json.loads(done.stdout)
    (generation,) = backup.status(place).generations
    assert (said["revision"], said["generation"]) == (last, generation.name)
    assert restored(place, tmp_path, first) == rows(source, first)
    assert restored(place, tmp_path) == rows(source)


def test_what_came_from_a_cluster_is_at_the_target_when_it_is_closed(
    source: Store, socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the thread was stopped before it has begun; it ends by itself once it does."""
    place, let_go = Place(), held_back(monkeypatch, "kvstore-backup")
    last = write(source)
    following = backup.new_follower(socket, place, data_dir=tmp_path / "copy")
    assert isinstance(following, backup.ClusterFollower)
    following.replica.catch_up()
    following.begin()
    following.close()
    assert backup.status(place).revision == last
    assert restored(place, tmp_path) == rows(source)
    let_go()
    with backup.new_follower(socket, place, data_dir=tmp_path / "copy") as another:
        another.step()  # the directory is free
    assert backup.status(place).revision == last


def test_a_target_that_is_away_gets_everything_later(source: Store, socket: str, tmp_path: Path) -> None:
    """The copy goes on meanwhile, so that not even a compaction of the source loses a revision."""
    place = Place()
    with backup.new_follower(socket, place, data_dir=tmp_path / "copy") as following:
        following.step()
        place.is_away = True
        between = write(source)
        with pytest.raises(TargetFailed):
            following.step()
        expected = rows(source, between)
        write(source)
        source.compact(source.revision)
        place.is_away = False
        following.step()
    assert restored(place, tmp_path, between) == expected
    assert restored(place, tmp_path) == rows(source)
