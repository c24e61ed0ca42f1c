"""A store that several processes have open: who serves it, who comes next, and who is told that it cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import kvstore
from kvstore.files import FolderLock
from kvstore.layout import DataDir
from kvstore.network.shared import SharedEngine
from kvstore.testing.fake_clock import FakeClock
from tests import PROJECT
from tests.harness.watching import take
from tests.remote.watched import until

PROGRAM = """
import os, sys, kvstore
store = kvstore.open(sys.argv[1], sys.argv[2], shared=True)
print("open", flush=True)
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
store.close()
"""


class Peer:
    """Another process that has the store open, and does what it is told."""

    def __init__(self, path: Path, backend: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, path, backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, expression: str) -> str:
        assert self.process.stdin is not None
        print(expression, file=self.process.stdin, flush=True)
        return self.heard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


def engine_of(store: kvstore.Store) -> SharedEngine:
    engine: Any = store._engine
    assert isinstance(engine, SharedEngine)
    return engine


def serves(store: kvstore.Store) -> bool:
    return engine_of(store)._seat.local is not None


@pytest.fixture(params=["lmdb", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[kvstore.Store]]:
    """Three handles of one store: each has a seat of its own, as in processes of their own. The first one serves."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(kvstore.open(tmp_path / "data", request.param, shared=True))
            for _ in range(3)
        ]


def test_the_first_serves_and_all_write(stores: list[kvstore.Store]) -> None:
    """What one writes the others read at once."""
    assert [serves(store) for store in stores] == [True, False, False]
    for number, store in enumerate(stores):
        store.put(b"k", b"%d" % number)
        assert [each.get(b"k").value for each in stores] == [b"%d" % number] * 3  # type: ignore[union-attr]


def test_another_takes_over_when_the_first_one_closes(stores: list[kvstore.Store]) -> None:
    """Its watches, leases and writes go on."""
    _, second, third = stores
    watch = third.watch(prefix=b"")
    lease = second.grant_lease(60).id
    second.put(b"a", lease=lease)
    stores[0].close()
    second.put(b"b")
    assert third.get(b"a").lease == lease  # type: ignore[union-attr]
    assert third.keep_alive(lease).ttl == 60
    assert [event.kv.key for event in take(watch, 2)] == [b"a", b"b"]
    assert sorted([serves(second), serves(third)]) == [False, True]


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_takeover_after_a_change_of_directory_is_of_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Relative paths mean what they meant when the store was opened, for its log and archive too."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"wal_dir": "log", "archive_dir": "archive"}
    first = kvstore.open("data", backend, shared=True, **places)  # type: ignore[arg-type]
    with kvstore.open("data", backend, shared=True, **places) as second:  # type: ignore[arg-type]
        first.put(b"a", b"1")
        os.chdir("elsewhere")
        first.close()
        assert second.get(b"a").value == b"1"  # type: ignore[union-attr]
        second.put(b"b")
        assert serves(second)
    assert not os.listdir(tmp_path / "elsewhere")


def test_a_takeover_gives_leases_their_whole_ttl(tmp_path: Path) -> None:
    """As etcd does when it has another leader: nobody's lease is shorter for a pause that is not its holder's."""
    clock = FakeClock()
    with kvstore.open(tmp_path / "data", "sqlite", shared=True, clock=clock) as store:
        lease = store.grant_lease(1000).id
        clock.advance(600)
        assert store.lease_time_to_live(lease).ttl == 400
    with kvstore.open(tmp_path / "data", "sqlite", shared=True, clock=clock) as store:
        assert store.lease_time_to_live(lease).ttl == 1000


def test_processes_that_start_at_one_moment_share_a_new_store(tmp_path: Path) -> None:
    """One of them makes it, and the others wait until it can be asked; killed, the one that serves is replaced."""
    with ExitStack() as running:
        peers = [running.enter_context(Peer(tmp_path / "data", "lmdb")) for _ in range(3)]
        assert [peer.heard() for peer in peers] == ["open"] * 3
        for number, peer in enumerate(peers):
            assert peer.tell(f"store.put(b'k', b'{number}').revision") == str(number + 2)
        serving = [peer.tell("store._engine._seat.local is not None") for peer in peers]
        assert sorted(serving) == ["False", "False", "True"]
        server = peers.pop(serving.index("True"))
        server.process.kill()
        server.process.wait()
        assert [peer.tell("store.get(b'k').value") for peer in peers] == [repr(b"2")] * 2


def test_a_server_that_is_stopped_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """Nobody takes its place, since it would write when it goes on."""
    with Peer(tmp_path / "data", "sqlite") as peer:
        assert peer.heard() == "open"
        with kvstore.open(tmp_path / "data", "sqlite", shared=True) as store:
            store.put(b"k", b"before")
            peer.process.send_signal(signal.SIGSTOP)
            done = threading.Event()

            def write() -> None:
                store.put(b"k", b"after")
                done.set()

            writing = threading.Thread(target=write)
            writing.start()
            assert not done.wait(0.3)
            assert not serves(store)
            peer.process.send_signal(signal.SIGCONT)
            writing.join()
            assert done.is_set() and store.get(b"k").value == b"after"  # type: ignore[union-attr]


def test_a_forked_child_keeps_nobody_from_the_seat(tmp_path: Path) -> None:
    """It has the descriptors of a parent that served and was killed; its own handle refuses every call."""
    with Peer(tmp_path / "data", "sqlite") as peer, ExitStack() as after:
        assert peer.heard() == "open"
        with kvstore.open(tmp_path / "data", "sqlite", shared=True) as store:
            store.put(b"k", b"before")
            child = int(peer.tell("os.fork() or [__import__('time').sleep(600)]"))
            after.callback(os.kill, child, signal.SIGKILL)
            peer.process.kill()
            peer.process.wait()
            with suppress(kvstore.OutcomeUnknown):  # it may have reached the one that was killed
                store.put(b"k", b"between")
            store.put(b"k", b"after")
            assert serves(store)


def test_calls_in_a_forked_child_say_so(tmp_path: Path) -> None:
    """Whether its parent served or not."""
    with ExitStack() as opened:
        for _ in range(2):
            store = opened.enter_context(kvstore.open(tmp_path / "data", "sqlite", shared=True))
            store.put(b"k")
            child = os.fork()
            if not child:
                refused = 0
                for call in (
                    partial(store.get, b"k"),
                    partial(store.put, b"k"),
                    partial(store.grant_lease, 5),
                ):
                    try:
                        call()
                    except kvstore.ForkedStore:
                        refused += 1
                store.close()
                os._exit(refused)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            store.put(b"k")


def test_a_store_that_cannot_be_written_any_more_is_opened_anew(stores: list[kvstore.Store]) -> None:
    """After a failed write only reopening shows what is on disk: who serves does that, for all."""
    local = engine_of(stores[0])._seat.local
    assert local is not None
    stores[1].put(b"k", b"v")
    local.life.poison(OSError("no more"))
    until(lambda: any(serves(store) and engine_of(store)._seat.local is not local for store in stores))
    for store in stores:
        assert store.get(b"k").value == b"v"  # type: ignore[union-attr]
        store.put(b"k", b"v")


def test_the_socket_is_its_users_alone(tmp_path: Path) -> None:
    """Mode 0600; it goes with whoever serves, and one that was left behind is replaced."""
    directory = DataDir.at(tmp_path / "data")
    directory.root.mkdir()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(os.fspath(directory.socket))
    directory.snap.mkdir()
    with kvstore.open(directory.root, shared=True):
        assert stat.S_IMODE(directory.socket.stat().st_mode) == 0o600
    assert not directory.socket.exists()


def test_a_path_may_be_longer_than_that_of_a_socket(tmp_path: Path) -> None:
    """The socket is reached through a descriptor of the directory."""
    folder = tmp_path / ("d" * 120)
    with kvstore.open(folder, shared=True) as first, kvstore.open(folder, shared=True) as second:
        first.put(b"k", b"v")
        assert second.get(b"k").value == b"v"  # type: ignore[union-attr]
        assert DataDir.at(folder).socket.exists()
        first.close()
        second.put(b"k", b"w")
        assert serves(second)


def test_who_does_not_share_is_told_so(tmp_path: Path) -> None:
    """A writer alone and writers that share keep each other out; readers disturb nobody."""
    path = tmp_path / "data"
    with kvstore.open(path), pytest.raises(kvstore.StoreLocked, match=f"process {os.getpid()}"):
        kvstore.open(path, shared=True)
    with kvstore.open(path, shared=True) as store:
        with pytest.raises(kvstore.StoreLocked):
            kvstore.open(path)
        store.put(b"k", b"v")
    with kvstore.open(path) as alone:
        assert alone.get(b"k").value == b"v"  # type: ignore[union-attr]
        waiting = threading.Timer(0.2, alone.close)
        waiting.start()
        kvstore.open(path, shared=True, lock_timeout_seconds=30).close()
        waiting.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_store_that_another_user_serves_is_refused() -> None:
    """At once, and in words, not by a wait for a server that would never answer."""
    program = """
import os, sys, kvstore
kvstore.open(sys.argv[2], "sqlite", shared=True).close()  # all modules are loaded: this user may not read them
os.setuid(65534)
try:
    kvstore.open(sys.argv[1], "sqlite", shared=True)
except kvstore.OpenError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder, kvstore.open(Path(folder, "data"), "sqlite", shared=True):
        for path in (folder, f"{folder}/data", f"{folder}/data/snap", f"{folder}/data/wal"):
            os.chmod(path, 0o755)
        found = subprocess.run(
            [sys.executable, "-c", program, f"{folder}/data", f"{folder}/other"],
            check=False,
            capture_output=True,
            text=True,
            cwd=PROJECT,
        )
        assert "is shared by a process of another user" in found.stdout, found.stderr


def test_one_that_is_just_opening_the_store_is_waited_for(tmp_path: Path) -> None:
    """Whoever holds the seat and does not answer yet is recovering: that is no reason to give up."""
    path = tmp_path / "data"
    kvstore.open(path).close()
    opening = FolderLock(DataDir.at(path).snap)
    assert opening.acquire()
    with pytest.raises(kvstore.StoreLocked):
        kvstore.open(path, shared=True, timeout_seconds=0.1)
    done = threading.Timer(0.2, opening.release)
    done.start()
    with kvstore.open(path, shared=True) as store:
        assert serves(store)
    done.join()


def test_a_read_only_handle_reads_beside_those_that_share(tmp_path: Path) -> None:
    """It needs no seat."""
    with kvstore.open(tmp_path / "data", "sqlite", shared=True) as store:
        store.put(b"k", b"v")
        with kvstore.open(tmp_path / "data", "sqlite", read_only=True) as reader:
            assert reader.get(b"k").value == b"v"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"read_only": True}, kvstore.BadOption, "read_only and shared exclude each other"),
        ({"nonsense": 1}, kvstore.BadOption, "nonsense"),
        ({"timeout_seconds": -1}, kvstore.BadOption, "timeout_seconds"),
        ({"backend": "sqlite"}, kvstore.WrongStore, "backend='lmdb'"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Before anything is served, whoever serves already."""
    with kvstore.open(tmp_path / "data", shared=True), pytest.raises(error, match=words):
        kvstore.open(tmp_path / "data", shared=True, **options)


def test_what_only_an_unshared_store_has_is_refused_whoever_serves(stores: list[kvstore.Store]) -> None:
    """Who serves is chance, and no program should depend on it."""
    for store in stores:
        calls = (
            store.checkpoint,
            store.metrics,
            partial(getattr, store, "engine"),
            partial(store.put_nowait, b"k"),
        )
        for call in calls:
            with pytest.raises(kvstore.Unsupported, match="shared"):
                call()


def test_tasks_share_a_store(tmp_path: Path) -> None:
    """open_async is the same; a takeover is a pause for them, too."""

    async def use() -> None:
        first = await kvstore.open_async(tmp_path / "data", shared=True)
        async with kvstore.open_async(tmp_path / "data", shared=True) as second:
            watch = second.watch(b"k")
            await asyncio.gather(*(store.put(b"k", b"v") for store in (first, second)))
            await first.close()
            await second.put(b"k", b"w")
            assert [(await anext(watch)).kv.value for _ in range(3)] == [b"v", b"v", b"w"]
            found = await second.get(b"k")
            assert found is not None and found.value == b"w"

    asyncio.run(use())


def test_a_closed_handle_refuses_every_call(stores: list[kvstore.Store]) -> None:
    """Also the one that served, and calls that wait meanwhile."""
    watches = [store.watch(b"k") for store in stores]
    for store, watch in zip(stores, watches, strict=True):
        store.close()
        with pytest.raises(kvstore.StoreClosed):
            store.get(b"k")
        with pytest.raises(kvstore.StoreClosed):
            store.put(b"k")
        with pytest.raises(kvstore.StoreClosed):
            watch.get(1)
        store.close()
