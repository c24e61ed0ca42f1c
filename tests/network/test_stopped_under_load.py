"""A server that is stopped or killed while clients write: what was acknowledged is there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from tests.network.processes import Serve, serve
from tests.network.served_store import PUT, RANGE, WATCH, get
from tests.network.wire import Refused, Wire

UNAVAILABLE = 14
WRITERS = 4


class Writer(threading.Thread):
    """Writes a number after the other to a key of its own, until it is told that there is no more to be had."""

    def __init__(self, server: Serve, name: bytes, first: int) -> None:
        super().__init__()
        self._server = server
        self.key = name
        self.acknowledged = first
        self.begun = first
        self.refusal: Refused | None = None
        self.wrote = threading.Event()

    def run(self) -> None:
        try:
            with connected(self._server) as wire:
                while wire.http2.can_request:
                    self.begun += 1
                    request = pb.PutRequest(key=self.key, value=b"%d" % self.begun)
                    wire.call(PUT, request.SerializeToString())
                    self.acknowledged = self.begun
                    self.wrote.set()
        except Refused as refusal:
            self.refusal = refusal
        except OSError:
            pass


@contextmanager
def connected(server: Serve) -> Iterator[Wire]:
    host, port = server.endpoint.removeprefix("http://").split(":")
    with Wire(host, int(port)) as wire:
        yield wire


@contextmanager
def writing(server: Serve, numbers: dict[bytes, int]) -> Iterator[list[Writer]]:
    """Writers that are in the middle of it."""
    assert server.endpoint, "it is ready: its log is not for several threads to read"
    writers = [Writer(server, b"k%d" % each, numbers.get(b"k%d" % each, 0)) for each in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        assert writer.wrote.wait(60)
    yield writers
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()


def stored(server: Serve, key: bytes) -> int:
    with connected(server) as wire:
        kvs = pb.RangeResponse.FromString(wire.call(RANGE, get(key))).kvs
        return int(kvs[0].value) if kvs else 0


def kill_and_look(folder: Path, backend: str, times: int) -> None:
    """Kill a server under load, again and again; each time nothing that was acknowledged is missing."""
    numbers: dict[bytes, int] = {}
    for _ in range(times):
        with serve(folder, f"--backend={backend}") as server:
            for key, number in numbers.items():
                assert stored(server, key) == number
            with writing(server, numbers) as writers:
                server.send(signal.SIGKILL)
            server.process.wait(60)
        with serve(folder, f"--backend={backend}") as server:
            for writer in writers:
                numbers[writer.key] = stored(server, writer.key)
                assert writer.acknowledged <= numbers[writer.key] <= writer.begun


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_kill_loses_nothing_acknowledged(tmp_path: Path, backend: str) -> None:
    """Seen from outside, by clients of the server before and of the one after."""
    kill_and_look(tmp_path / "d", backend, 2)


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_kills_lose_nothing_acknowledged(tmp_path: Path, backend: str) -> None:
    """The same, many times."""
    kill_and_look(tmp_path / "d", backend, 40)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_stop_ends_everything_in_order(tmp_path: Path, backend: str) -> None:
    """SIGTERM: writes that were begun are answered, watches end with 14, and it exits with 0."""
    with serve(tmp_path / "d", f"--backend={backend}") as server, connected(server) as watcher:
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w")).SerializeToString()
        watch = watcher.begin(WATCH, create, ended=False)
        assert pb.WatchResponse.FromString(watcher.next(watch)).created
        with writing(server, {}) as writers:
            server.send(signal.SIGTERM)
            with pytest.raises(Refused) as ended:
                watcher.next(watch)
        assert (ended.value.code, ended.value.text) == (UNAVAILABLE, "etcdserver: server stopped")
        assert server.ended() == 0
    with kvstore.open(tmp_path / "d", backend) as store:
        for writer in writers:
            assert writer.refusal is None
            assert store.get(writer.key).value == b"%d" % writer.acknowledged  # type: ignore[union-attr]
