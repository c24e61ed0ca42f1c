"""``kvstore serve`` as a process: ready, stopped, killed, refused."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import serve as verb

import kvstore
from kvstore import backup
from kvstore.network import logs
from kvstore.network.config import load
from kvstore.network.flags import FLAGS
from tests.harness.command_line import run, run_apart
from tests.network.processes import READY, etcdctl, run_etcdctl, serve

FREE = "--listen-client-urls=http://127.0.0.1:0"


@pytest.fixture
def own_signals() -> Iterator[None]:
    """For what sets signal handlers in the test's own process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# --- from start to stop ---------------------------------------------------------------------


WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from kvstore.tools.main import main; main()"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_either_loop_serves(tmp_path: Path, loop: str) -> None:
    """uvloop is taken where it is installed; calls are answered, and signals heard, by both."""
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    with serve(tmp_path / "d", code=WITHOUT_UVLOOP if loop == "asyncio" else "") as server:
        assert server.ctl("put", "k", "v")["header"]["revision"] == 2
        assert server.ctl("get", "k")["count"] == 1
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_server_is_ready_and_stops_when_it_is_told_to(tmp_path: Path, number: int, backend: str) -> None:
    """The ready line names the real port; SIGTERM and SIGINT end it with 0, and the store is closed."""
    with serve(tmp_path / "d", f"--backend={backend}") as server:
        assert server.endpoint.startswith("http://127.0.0.1:")
        assert server.ctl("put", "k", "v")["header"]["revision"] == 2
        assert server.stop(number) == 0
        assert server.log[-1]["msg"] == "closed"
    with kvstore.open(tmp_path / "d", backend) as store:
        assert store.revision == 2
        assert store.get(b"k").value == b"v"  # type: ignore[union-attr]


def test_a_served_store_is_backed_up_as_it_is_written(tmp_path: Path) -> None:
    """What was written before the server ended is in the backup."""
    with serve(tmp_path / "d", f"--backup-to={tmp_path / 'to'}", "--backup-keep=48h") as server:
        assert server.ctl("put", "k", "v")["header"]["revision"] == 2
        assert server.stop() == 0
    assert backup.restore(tmp_path / "to", tmp_path / "made").revision == 2


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL, and a new process on the directory: the same data at the same revision."""
    with serve(tmp_path / "d") as server:
        for number in range(5):
            server.ctl("put", f"k{number}", "v")
        before = server.ctl("get", "", "--prefix")
        server.stop(signal.SIGKILL)
    with serve(tmp_path / "d") as server:
        after = server.ctl("get", "", "--prefix")
        assert after["kvs"] == before["kvs"]
        assert after["header"]["revision"] == before["header"]["revision"] == 6


def test_an_existing_store_knows_its_backend(tmp_path: Path) -> None:
    """Without --backend the files decide; with another one it is refused."""
    with kvstore.open(tmp_path / "d", "sqlite") as store:
        store.put(b"k", b"v")
    with serve(tmp_path / "d") as server:
        assert server.ctl("get", "k")["count"] == 1
    with serve(tmp_path / "d", "--backend=lmdb") as server:
        assert server.ended() == 1
        assert "is a store on sqlite" in server.log[-1]["error"]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """A call that does not end holds the first one up for its grace; the second one does not wait: exit 1."""
    client = pytest.importorskip("h2.connection", reason="h2 is the client here").H2Connection()
    with serve(tmp_path / "d") as server:
        host, _, port = server.endpoint.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            client.initiate_connection()
            path = "/etcdserverpb.KV/Put"
            headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
            client.send_headers(1, [*headers.items(), ("content-type", "application/grpc")])
            client.ping(b"are you?")
            connection.sendall(client.data_to_send())
            while not any("PingAckReceived" in type(event).__name__ for event in _events(client, connection)):
                pass
            server.send(signal.SIGTERM)
            server.until("received SIGTERM")
            assert server.stop(signal.SIGTERM) == 1
            assert server.log[-1]["msg"] == "received SIGTERM"


def _events(client: Any, connection: socket.socket) -> list[Any]:
    events: list[Any] = client.receive_data(connection.recv(65536))
    return events


def test_a_store_that_takes_no_writes_any_more_ends_its_server(
    tmp_path: Path, own_signals: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed sync poisons the store: exit 1, and whoever supervises it starts it again."""
    process = verb.Process(load([f"--data-dir={tmp_path / 'd'}", FREE], {}))
    poisoned = OSError(5, "the disk has failed")
    threading.Timer(0.1, process._store.engine.core.life.poison, [poisoned]).start()
    assert process.run() == 1
    assert "takes no writes any more" in caplog.text


def test_systemd_hears_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    """READY=1 and STOPPING=1, in this order, from a process that has NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        with serve(tmp_path / "d", NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            assert systemd.recv(100) == b"READY=1"
            server.until(READY)
            assert server.stop() == 0
            assert systemd.recv(100) == b"STOPPING=1"


# --- one process only -----------------------------------------------------------------------


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    """A restart may overlap: it says that it waits, and serves once the store is free."""
    with kvstore.open(tmp_path / "d") as store:
        store.put(b"k", b"v")
        with serve(tmp_path / "d") as server:
            waiting = server.until("waiting for it")
            assert f"in use by process {os.getpid()}" in waiting["error"]
            store.close()
            assert server.ctl("get", "k")["count"] == 1


def test_a_second_process_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When its patience has run out: exit 1, and the holder is named."""
    monkeypatch.setattr(verb, "LOCK_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(logs, "start", lambda _settings: None)  # the log stays pytest's
    with kvstore.open(tmp_path / "d"):
        assert verb.run([f"--data-dir={tmp_path / 'd'}", FREE]) == 1
    assert f"in use by process {os.getpid()}" in caplog.records[-1].error  # type: ignore[attr-defined]


def test_an_address_in_use_ends_it(tmp_path: Path) -> None:
    """Exit 1, with the URL; the store was closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with serve(tmp_path / "d", f"--listen-client-urls={url}") as server:
            assert server.ended() == 1
            assert f"cannot listen at {url}: Address already in use" in server.log[-1]["error"]
    kvstore.open(tmp_path / "d").close()


def test_a_directory_of_etcd_is_refused_with_the_way_in(tmp_path: Path, project: Path) -> None:
    """It is left as it is, and the error has the command that imports it."""
    etcd_dir = tmp_path / "default.etcd"
    (etcd_dir / "member" / "snap").mkdir(parents=True)
    (etcd_dir / "member" / "wal").mkdir()
    with serve(etcd_dir) as server:
        assert server.ended() == 1
        assert f"kvstore import etcd {etcd_dir} --data-dir NEW" in server.log[-1]["error"]
    assert sorted(os.listdir(etcd_dir)) == ["member"]


def test_damage_is_found_before_it_is_served(tmp_path: Path) -> None:
    """--initial-corrupt-check looks at every byte first: exit 1, saying where."""
    with kvstore.open(tmp_path / "d") as store:
        for number in range(100):
            store.put(b"k%d" % number, b"v" * 100)
    (segment,) = (tmp_path / "d" / "wal").glob("*.wal")
    content = bytearray(segment.read_bytes())
    content[content.index(b"v" * 100)] ^= 1
    segment.write_bytes(content)
    with serve(tmp_path / "d", "--initial-corrupt-check") as server:
        assert server.ended() == 1
        assert segment.name in server.log[-1]["error"]


# --- the command line -----------------------------------------------------------------------


def test_wrong_flags_end_with_2(tmp_path: Path) -> None:
    """On stderr, in one line, before anything is opened or made."""
    done = run(tmp_path / "d", "serve", "--listen-client-url=http://127.0.0.1:0")
    assert done.code == 2
    assert done.err.startswith(
        "Error: there is no flag --listen-client-url; did you mean --listen-client-urls?"
    )
    assert done.err.count("\n") == 1
    assert not (tmp_path / "d").exists()
    assert run(tmp_path / "d", "serve", "--config-file=/absent").code == 1


def test_help_lists_every_flag(tmp_path: Path) -> None:
    """With its default; ignored and refused ones too. ``kvstore --help`` has the verb."""
    out = run(tmp_path, "serve", "--help").out.decode()
    for flag in {flag.name for flag in FLAGS.values()} - {"help", "version"}:
        assert flag in out, flag
    assert "--max-wals '5'" in out
    assert "serve" in run(tmp_path, "--help").out.decode()
    assert kvstore.__version__ in run(tmp_path, "serve", "--version").out.decode()


def test_grpc_needs_no_package_of_an_extra(tmp_path: Path) -> None:
    """Without typer, h11 and PyYAML a store is served; a client in HTTP/1.1 is told what is missing."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys({lacks}));from kvstore.tools.main import main; main()"
    )
    lacks = ["typer", "rich", "h11", "yaml", "bcrypt", "prometheus_client", "cryptography", "uvloop"]
    with serve(tmp_path / "d", code=code.format(lacks=lacks)) as server:
        assert server.ctl("put", "k", "v")["header"]["revision"] == 2
        host, _, port = server.endpoint.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 501"
        server.until("HTTP/1.1 needs a package")
        assert server.stop() == 0


def test_options_before_the_verb_reach_it(tmp_path: Path) -> None:
    """--data-dir and --backend may stand there, as with every verb; the flags are still etcd's."""
    with kvstore.open(tmp_path / "d", "sqlite"):
        pass
    done = run_apart(
        tmp_path / "other", "--data-dir", str(tmp_path / "d"), "--backend=lmdb", "serve", FREE, "-pre-vote"
    )
    assert done.code == 1
    assert "is a store on sqlite" in done.err
    assert "--pre-vote" in done.err


# --- sockets and TLS ------------------------------------------------------------------------


def test_unix_sockets_are_served_and_taken_over(tmp_path: Path) -> None:
    """A socket that a killed server left behind does not keep the next one from starting; stopping removes it."""
    path = tmp_path / "kv.sock"
    with serve(tmp_path / "d", f"--listen-client-urls=unix://{path}") as server:
        server.ctl("put", "k", "v")
        server.stop(signal.SIGKILL)
    assert path.exists()
    with serve(tmp_path / "d", f"--listen-client-urls=unix://{path}") as server:
        assert server.ctl("get", "k")["count"] == 1
        assert server.stop() == 0
    assert not path.exists()


def test_clients_need_certificates_where_they_are_asked_for(tmp_path: Path) -> None:
    """https with a CA for clients: one that has a certificate is served, one without is not."""
    from tests.network.certificates import Authority

    authority = Authority(tmp_path)
    ours, alice = authority.sign("server", "127.0.0.1"), authority.sign("alice")
    flags = [f"--cert-file={ours.cert}", f"--key-file={ours.key}", f"--trusted-ca-file={authority.file}"]
    with serve(
        tmp_path / "d", "--listen-client-urls=https://127.0.0.1:0", "--client-cert-auth", *flags
    ) as server:
        trust = ("--cacert", authority.file)
        shown = (*trust, "--cert", alice.cert, "--key", alice.key)
        assert server.ctl("put", "k", "v", *shown)["header"]["revision"] == 2
        refused = run_etcdctl(server.endpoint, "put", "k", "w", *trust, "--command-timeout=500ms")
        assert refused.returncode != 0
        assert server.ctl("get", "k", *shown)["kvs"][0]["mod_revision"] == 2


def test_a_certificate_of_its_own_is_made_and_kept(tmp_path: Path) -> None:
    """--auto-tls: clients that trust the file reach it, also after a restart."""
    pytest.importorskip("cryptography", reason="certificates are made with the package cryptography")
    flags = ("--listen-client-urls=https://127.0.0.1:0", "--auto-tls")
    cert = tmp_path / "d" / "tls" / "cert.pem"
    with serve(tmp_path / "d", *flags) as server:
        server.ctl("put", "k", "v", "--cacert", str(cert))
        assert server.stop() == 0
    pinned = tmp_path / "pinned.pem"
    shutil.copy(cert, pinned)
    with serve(tmp_path / "d", *flags) as server:
        assert server.ctl("get", "k", "--cacert", str(pinned))["count"] == 1
    assert kvstore.verify(tmp_path / "d").findings == ()


def test_metrics_listeners_speak_no_grpc(tmp_path: Path) -> None:
    """Where only metrics are served, a client for keys finds nobody; where gRPC alone is, it is served."""
    flags = ("--listen-client-http-urls=http://127.0.0.1:0", "--listen-metrics-urls=http://127.0.0.1:0")
    with serve(tmp_path / "d", *flags) as server:
        server.until(READY)
        grpc, http, metrics = server.log[-1]["addresses"]
        assert etcdctl(grpc, "put", "k", "v")["header"]["revision"] == 2
        for other in (http, metrics):
            assert run_etcdctl(other, "put", "k", "v", "--command-timeout=500ms").returncode != 0


def test_what_is_there_when_serving_begins_is_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is spared it, once what is garbage by then has gone; and it looks less often than it would."""
    told: list[str] = []
    thresholds: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: told.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: told.append("freeze"))
    monkeypatch.setattr(gc, "set_threshold", thresholds.append)
    verb.collect_rarely()
    assert told == ["collect", "freeze"]
    assert thresholds == [verb.OBJECTS_BETWEEN_COLLECTIONS]
