"""Our locks and elections in one line with those of a real etcdctl, which talks to the same store over the network."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

import kvstore
from kvstore.recipes import Election, Lock, Session
from tests.recipes.holders import Beside, until

pytestmark = pytest.mark.skipif(not shutil.which("etcdctl"), reason="no etcdctl on PATH")


class Shared(NamedTuple):
    store: kvstore.Store
    address: str


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A store that is used here and served."""
    with (
        kvstore.open(tmp_path_factory.mktemp("shared") / "data") as store,
        kvstore.serve(store, "http://127.0.0.1:0") as server,
    ):
        yield Shared(store, server.endpoints[0].removeprefix("http://"))


@contextmanager
def etcdctl(shared: Shared, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["etcdctl", "--endpoints", shared.address, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    """What it prints next."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip(b"\n")


def keys(shared: Shared, prefix: bytes) -> list[bytes]:
    return [kv.key for kv in shared.store.scan(prefix=prefix)]


def test_ours_waits_for_etcdctls_lock(shared: Shared) -> None:
    """Its key is made as ours; when it is told to end it unlocks, and ours has the turn."""
    with etcdctl(shared, "lock", "a") as process, Session(shared.store, 60) as session:
        theirs = line_of(process)
        kv = shared.store.get(theirs)
        assert kv is not None
        assert theirs == b"a/%x" % kv.lease
        lock = Lock(session, b"a")
        assert not lock.try_acquire()
        waiting = Beside(lock.acquire)
        until(lambda: len(keys(shared, b"a/")) == 2)
        process.terminate()
        assert waiting.result() > kv.create_revision
        assert keys(shared, b"a/") == [lock.key]


def test_etcdctls_lock_waits_for_ours(shared: Shared) -> None:
    """It prints its key when ours is released, and not before."""
    with Session(shared.store, 60) as session:
        lock = Lock(session, b"b")
        lock.acquire()
        with etcdctl(shared, "lock", "b") as process:
            printed = Beside(lambda: line_of(process))
            until(lambda: len(keys(shared, b"b/")) == 2)
            assert not printed.is_over
            lock.release()
            assert keys(shared, b"b/") == [printed.result()]


def test_a_holder_killed_with_9_is_followed_when_its_lease_ends(shared: Shared) -> None:
    """An etcdctl that cannot say goodbye: its key stays as long as its lease of two seconds, then ours has the turn."""
    with Session(shared.store, 60) as session:
        with etcdctl(shared, "lock", "--ttl", "2", "c") as process:
            theirs = line_of(process)
            waiting = Beside(Lock(session, b"c").acquire)
            until(lambda: len(keys(shared, b"c/")) == 2)
            process.kill()
            process.wait()
            assert shared.store.get(theirs) is not None
        waiting.result()
        assert shared.store.get(theirs) is None


def test_elections_are_one_election(shared: Shared) -> None:
    """Ours follows etcdctl's leader, whom it sees; an etcdctl that listens hears what ours says."""
    with Session(shared.store, 60) as session:
        ours = Election(session, b"e")
        with etcdctl(shared, "elect", "e", "theirs") as process:
            theirs = line_of(process)
            leader = ours.leader()
            assert leader is not None
            assert (leader.key, leader.value) == (theirs, b"theirs")
            waiting = Beside(lambda: ours.campaign(b"ours"))
            until(lambda: len(keys(shared, b"e/")) == 2)
            process.terminate()
            waiting.result()
        with etcdctl(shared, "elect", "--listen", "e") as listening:
            assert [line_of(listening), line_of(listening)] == [ours.key, b"ours"]
            ours.proclaim(b"ours, still")
            assert [line_of(listening), line_of(listening)] == [ours.key, b"ours, still"]
