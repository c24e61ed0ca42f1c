"""``kvstore.serve`` and ``kvstore.serve_async``: the same store, served and used here."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.served import Server
from tests.network.processes import etcdctl, run_etcdctl

FREE = "http://127.0.0.1:0"


def threads_of_serving() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("kvstore-serve")]


def test_a_store_is_served_and_used_at_once(tmp_path: Path) -> None:
    """What a client writes, the program reads, and the reverse; a watch of the program sees both."""
    with kvstore.open(tmp_path / "d") as store:
        with kvstore.serve(store, FREE) as server, store.watch(b"", range_end=b"\0") as watch:
            (endpoint,) = server.endpoints
            etcdctl(endpoint, "put", "theirs", "1")
            store.put(b"ours", b"2")
            assert [watch.get(timeout=60).kv.key for _ in range(2)] == [b"theirs", b"ours"]
            assert etcdctl(endpoint, "get", "", "--prefix")["count"] == 2
        assert store.put(b"after", b"3").revision == 4


def test_stopping_lets_the_store_go_on_and_leaves_nothing(tmp_path: Path) -> None:
    """``stop`` may be called again; no thread stays, nobody is answered any more, and serving can begin anew."""
    with kvstore.open(tmp_path / "d") as store:
        before = threads_of_serving()
        server = kvstore.serve(store, [FREE, f"unix://{tmp_path / 'kv.sock'}"])
        tcp, unix = server.endpoints
        assert unix == f"unix://{tmp_path / 'kv.sock'}"
        for endpoint in (tcp, unix):
            etcdctl(endpoint, "put", "k", "v")
        server.stop()
        server.stop(0)
        assert run_etcdctl(tcp, "get", "k", "--command-timeout=300ms").returncode != 0
        assert not (tmp_path / "kv.sock").exists()
        with kvstore.serve(store, tcp) as again:
            assert again.endpoints == (tcp,)
            assert etcdctl(tcp, "get", "k")["count"] == 1
        assert threads_of_serving() == before


@pytest.mark.parametrize("turns", range(6))
def test_who_is_being_accepted_is_let_go(tmp_path: Path, turns: int) -> None:
    """Wherever between the system's queue and a connection a client is when the server stops: no socket is left to
    Python's collector."""

    async def run() -> None:
        async with await kvstore.serve_async(store, f"unix://{tmp_path}/s") as server:
            clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for client in clients:
                client.connect(server.endpoints[0].removeprefix("unix://"))
            for _ in range(turns):
                await asyncio.sleep(0)
        for client in clients:
            with client:
                client.settimeout(10)
                with suppress(ConnectionResetError):
                    while client.recv(1000):  # until its end
                        pass

    with kvstore.open(tmp_path / "d") as store:
        asyncio.run(run())
    gc.collect()  # an unclosed socket warns, and a warning fails the test


def test_several_servers_may_serve_one_store(tmp_path: Path) -> None:
    """Each has its own address and says which etcd it is."""
    with (
        kvstore.open(tmp_path / "d", "memory", name="m1") as store,
        kvstore.serve(store, FREE, etcd_version="3.4") as old,
        kvstore.serve(store, FREE, etcd_version="3.6") as new,
    ):
        etcdctl(old.endpoints[0], "put", "k", "v")
        assert etcdctl(new.endpoints[0], "get", "k")["count"] == 1
        (status,) = etcdctl(new.endpoints[0], "endpoint", "status")
        assert status["Status"]["version"].startswith("3.6.")
        (member,) = etcdctl(new.endpoints[0], "member", "list")["members"]
        assert (member["name"], member["clientURLs"]) == ("m1", list(new.endpoints))


async def ask(endpoint: str, *arguments: str) -> Any:
    return await asyncio.to_thread(etcdctl, endpoint, *arguments)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_store_is_served_on_a_running_loop(tmp_path: Path, is_async: bool) -> None:
    """``serve_async`` takes an ``AsyncStore`` or a ``Store``; it is ready once it is awaited."""

    async def main() -> None:
        if is_async:
            async with (
                kvstore.open_async(tmp_path / "d") as store,
                await kvstore.serve_async(store, FREE) as server,
            ):
                await ask(server.endpoints[0], "put", "k", "v")
                kv = await store.get(b"k")
                assert kv is not None
                assert kv.value == b"v"
        else:
            with kvstore.open(tmp_path / "d") as plain:
                server = await kvstore.serve_async(plain, FREE)
                await ask(server.endpoints[0], "put", "k", "v")
                await server.stop()
                assert plain.revision == 2

    asyncio.run(main())
    gc.collect()


def connect_h2(endpoint: str) -> tuple[Any, socket.socket]:
    """A client of HTTP/2 that has read the server's settings."""
    client = pytest.importorskip("h2.connection", reason="h2 is the client here").H2Connection()
    host, _, port = endpoint.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    client.initiate_connection()
    connection.sendall(client.data_to_send())
    while not client.receive_data(connection.recv(65536)):
        pass
    return client, connection


def test_a_connection_has_as_many_calls_as_was_said(tmp_path: Path) -> None:
    """--max-concurrent-streams is what clients are told."""
    with (
        kvstore.open(tmp_path / "d", "memory") as store,
        kvstore.serve(store, FREE, max_concurrent_streams=7) as server,
    ):
        client, connection = connect_h2(server.endpoints[0])
        with connection:
            assert client.remote_settings.max_concurrent_streams == 7


@pytest.mark.parametrize(("least_seconds", "is_sent_away"), [(0.0, False), (3600.0, True)])
def test_clients_may_ping_as_often_as_was_said(
    tmp_path: Path, least_seconds: float, is_sent_away: bool
) -> None:
    """--grpc-keepalive-min-time: while a call is open, those that ping faster get GOAWAY, others all their answers."""
    with (
        kvstore.open(tmp_path / "d", "memory") as store,
        kvstore.serve(store, FREE, keepalive_min_time_seconds=least_seconds) as server,
    ):
        client, connection = connect_h2(server.endpoints[0])
        with connection:
            headers = {":method": "POST", ":scheme": "http", ":path": "/etcdserverpb.Watch/Watch"}
            wanted = [*headers.items(), (":authority", "x"), ("content-type", "application/grpc")]
            client.send_headers(1, wanted)
            for _ in range(6):
                client.ping(b"are you?")
            connection.sendall(client.data_to_send())
            seen: list[str] = []
            while "ConnectionTerminated" not in seen and seen.count("PingAckReceived") < 6:
                data = connection.recv(65536)
                assert data
                seen += [type(event).__name__ for event in client.receive_data(data)]
            assert ("ConnectionTerminated" in seen) is is_sent_away


def test_a_silent_client_is_asked_and_let_go(tmp_path: Path) -> None:
    """--grpc-keepalive-interval and -timeout: one that answers pings stays connected, one that does not is cut."""
    with (
        kvstore.open(tmp_path / "d", "memory") as store,
        kvstore.serve(
            store, FREE, keepalive_interval_seconds=0.02, keepalive_timeout_seconds=10.0
        ) as patient,
        kvstore.serve(
            store, FREE, keepalive_interval_seconds=0.02, keepalive_timeout_seconds=0.02
        ) as impatient,
    ):
        client, connection = connect_h2(patient.endpoints[0])
        with connection:
            pings = 0
            while pings < 2:  # the second comes when the first has been answered for as long as a timeout
                data = connection.recv(65536)
                assert data
                pings += sum(type(event).__name__ == "PingReceived" for event in client.receive_data(data))
                connection.sendall(client.data_to_send())  # with the answers
        _client, connection = connect_h2(impatient.endpoints[0])
        with connection:
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                pass


@pytest.mark.parametrize(
    ("urls", "options", "said"),
    [
        ([], {}, "where is the store to be served"),
        ("tcp://127.0.0.1:0", {}, "URL scheme must be"),
        ("https://127.0.0.1:0", {}, "needs cert_file and key_file"),
        (FREE, {"etcd_version": "4.0"}, "etcd_version must be one of 3.4, 3.5, 3.6"),
        (FREE, {"max_wals": 3}, "unknown option 'max_wals'"),
        (FREE, {"auto": True}, "unknown option 'auto'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, urls: Any, options: dict[str, Any], said: str
) -> None:
    """Before anything listens."""
    before = threads_of_serving()
    with kvstore.open(tmp_path / "d", "memory") as store:
        with pytest.raises(kvstore.BadOption) as caught:
            kvstore.serve(store, urls, **options)
        assert said in str(caught.value)
    assert threads_of_serving() == before


def test_an_address_in_use_is_told_to_the_caller(tmp_path: Path) -> None:
    """From the thread in which it failed; the store is as it was."""
    with kvstore.open(tmp_path / "d", "memory") as store, kvstore.serve(store, FREE) as server:
        with pytest.raises(OSError, match="Address already in use"):
            kvstore.serve(store, server.endpoints)
        store.put(b"k", b"v")


def test_a_store_that_cannot_be_written_is_not_served(tmp_path: Path) -> None:
    """Neither one that was opened for reading, nor a snapshot: clients of etcd expect to write."""
    with kvstore.open(tmp_path / "d") as store:
        store.snapshot(tmp_path / "s")
    for opened in (kvstore.open(tmp_path / "d", read_only=True), kvstore.open_snapshot(tmp_path / "s")):
        with opened, pytest.raises(kvstore.Unsupported, match="open for writing"):
            kvstore.serve(opened, FREE)


def test_the_fixture_for_tests_of_programs_serves(
    kvstore_server: Server, kvstore_store: kvstore.Store
) -> None:
    """Three lines instead of a container with etcd."""
    etcdctl(kvstore_server.endpoints[0], "put", "k", "v")
    assert kvstore_store.get(b"k").value == b"v"  # type: ignore[union-attr]
