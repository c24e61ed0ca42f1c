"""The ten commonest complaints: each is provoked in earnest, and a healthy store has none."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import doctor
from kvstore.tools.command import ExitCode

import kvstore
from kvstore.backend import find_backend
from kvstore.errors import QuotaExceeded
from kvstore.files import File, OSDisk
from kvstore.mvcc.schema import META, META_FORMAT, TABLES, pack_u64
from kvstore.observe import complaints, processes, surroundings
from kvstore.observe.doctor import diagnose, diagnose_served
from kvstore.observe.facts import Fact, Level
from kvstore.observe.scrape import Scrape
from kvstore.options import Options
from tests.harness.command_line import command_line
from tests.network.served_store import until

OPTIONS = Options(low_disk_bytes=0, quota_backend_bytes=-1)
TEN = {
    "sync",
    "quota",
    "space",
    "watchers",
    "clock",
    "held by",
    "map",
    "leases",
    "readers",
    "version",
}
WRITER = r"""
import sys, kvstore
store = kvstore.open(sys.argv[1], backend=sys.argv[2], background=False, low_disk_bytes=0)
print("ready", flush=True)
for line in sys.stdin:
    for number in range(int(line)):
        store.put(b"k", b"v" * 10000)
        store.checkpoint()
    print("done", flush=True)
"""
READER = r"""
import sys, kvstore
store = kvstore.open(sys.argv[1], backend=sys.argv[2], read_only=True)
view = store.engine.backend.read()
view.get("latest", b"k")
print("ready", flush=True)
sys.stdin.read()
"""

backends = pytest.mark.parametrize("backend", ("lmdb", "sqlite"))


def store_at(path: Path, backend: str = "lmdb", **options: Any) -> kvstore.Store:
    return kvstore.open(path, backend=backend, background=False, low_disk_bytes=0, **options)


def facts_of(path: Path, **options: Any) -> dict[str, Fact]:
    return {fact.name: fact for fact in diagnose(path, options=OPTIONS.with_(**options))}


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours that has said that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@backends
def test_a_healthy_store_has_none(tmp_path: Path, backend: str) -> None:
    """Closed or served: all facts that are complaints are ok. (How fast this machine syncs is its own affair.)"""
    path = tmp_path / "s"
    with store_at(path, backend) as store:
        store.put(b"k", b"v", lease=store.grant_lease(600).id)
        store.snapshot()
        with (
            kvstore.serve(store, "http://127.0.0.1:0") as server,
            kvstore.connect(server.endpoints[0]) as far,
        ):
            served = {fact.name: fact for fact in diagnose_served(far, store.metrics())}
    facts = facts_of(path)
    for found in (facts, served):
        assert [found[name] for name in TEN & set(found) - {"sync"} if found[name].level != Level.OK] == []
    assert set(facts) >= TEN - {"watchers", "version"} and set(served) >= {
        "quota",
        "space",
        "watchers",
        "leases",
    }


def test_a_disk_that_is_slow_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs of the log's kind are timed where the log is; the file that they were of is gone."""
    monkeypatch.setattr(surroundings, "SYNCS", 3)

    class SlowFile:
        def __init__(self, file: File) -> None:
            self.pwrite, self.close = file.pwrite, file.close

        def sync(self) -> None:
            import time

            time.sleep(2 * complaints.SLOW_SYNC_SECONDS)

    class SlowDisk(OSDisk):
        def create(self, path: Any, *, direct: bool = False) -> Any:
            return SlowFile(super().create(path, direct=direct))

    (found,) = [fact for fact in diagnose(tmp_path, disk=SlowDisk()) if fact.name == "sync"]
    assert found.level == Level.ADVICE and "wal_dir" in found.advice
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::kvstore.NearlyFull")
@backends
def test_a_quota_that_is_near_and_one_that_is_reached(tmp_path: Path, backend: str) -> None:
    """Above four fifths it is told before it hurts; once writes were refused, the alarm is, whatever the quota now."""
    path, quota_bytes = tmp_path / "s", 1 << 20
    with store_at(path, backend, quota_backend_bytes=quota_bytes) as store, pytest.raises(QuotaExceeded):
        for number in range(1000):
            store.put(b"%d" % number, bytes(20_000))
    assert "writes that cost room are refused" in facts_of(path)["quota"].advice
    near = facts_of(path, quota_backend_bytes=quota_bytes * 10 // 9)
    assert near["quota"].level == Level.WARNING


def test_what_makes_room_in_an_etcd() -> None:
    """Compacting alone does not: its quota counts the file. Of ours, live bytes count."""
    for size_bytes, alarms in ((99, ["NOSPACE"]), (90, [])):
        assert "then defragment" in complaints.quota(size_bytes, 100, alarms, counts_file=True).advice
        assert "defragment" not in complaints.quota(size_bytes, 100, alarms).advice


@pytest.mark.parametrize("policy", ["heals", "sticky"])
@pytest.mark.filterwarnings("ignore::kvstore.NearlyFull")
@backends
def test_an_alarm_that_outlasts_its_cause(tmp_path: Path, backend: str, policy: str) -> None:
    """Once there is room, the alarm goes with the store's closing, or doctor says that nothing else refuses writes."""
    path, options = tmp_path / "s", {"quota_backend_bytes": 1 << 20, "nospace_policy": policy}
    with store_at(path, backend, **options) as store, pytest.raises(QuotaExceeded):
        for _ in range(1000):
            store.put(b"k", bytes(20_000))
    assert "compact old revisions" in facts_of(path, **options)["quota"].advice
    with store_at(path, backend, **options) as store:
        store.compact(store.revision, physical=True)
    found = facts_of(path, **options)["quota"]
    if policy == "heals":
        assert found.level == Level.OK
    else:
        assert found.level == Level.WARNING and "there is room" in found.advice
        with store_at(path, backend, **options) as store:
            store.disarm(store.alarms()[0])
        assert facts_of(path, **options)["quota"].level == Level.OK


@backends
def test_space_that_is_not_given_back(tmp_path: Path, backend: str) -> None:
    """Pages of what was deleted stay in the file: the advice is what gives them back, and it does."""
    path = tmp_path / "s"
    with store_at(path, backend) as store:
        for number in range(20):
            store.put(b"%d" % number, bytes(100_000))
        store.checkpoint()
        store.delete(prefix=b"")
        store.compact(store.revision, physical=True)
        store.checkpoint()
    assert "kvstore defragment" in facts_of(path, auto_defragment_min=100_000)["space"].advice
    with store_at(path, backend) as store:
        store.defragment()
    assert facts_of(path, auto_defragment_min=100_000)["space"].level == Level.OK


def test_too_many_watchers_and_slow_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the endpoint, from the server's own page."""
    monkeypatch.setattr(complaints, "MANY_WATCHERS", 10)
    monkeypatch.setattr(complaints, "MANY_SLOW_WATCHERS", 10)
    with store_at(tmp_path / "s", watch_buffer=4096) as store:
        watches = [store.watch(b"k") for _ in range(11)]
        with (
            kvstore.serve(store, "http://127.0.0.1:0") as server,
            kvstore.connect(server.endpoints[0]) as far,
        ):

            def level() -> Level:
                (found,) = [each for each in diagnose_served(far, store.metrics()) if each.name == "watchers"]
                return found.level

            assert level() == Level.ADVICE
            for _ in range(100):
                store.put(b"k", bytes(1000))
            until(lambda: level() == Level.WARNING)
        for watch in watches:
            watch.close()


@backends
def test_a_clock_that_was_set_back_while_the_store_was_written(tmp_path: Path, backend: str) -> None:
    """The times in the log tell, long after the clock has caught up."""
    now = [4e9]
    with store_at(tmp_path / "s", backend, clock=lambda: now[0]) as store:
        store.put(b"k", b"1")
        now[0] -= 3600
        store.put(b"k", b"2")
    now[0] += 7200
    found = facts_of(tmp_path / "s", clock=lambda: now[0])["clock"]
    assert found.level == Level.ADVICE and "3600 s" in found.value


def test_clocks_that_disagree() -> None:
    """Of a server and of this machine: which is ahead."""
    assert complaints.clocks(100).level == complaints.clocks(-100).level == Level.WARNING
    assert "ahead of" in complaints.clocks(100).value and "behind" in complaints.clocks(-100).value


@backends
def test_a_store_in_use_its_readers_and_a_process_that_is_stopped(tmp_path: Path, backend: str) -> None:
    """Who holds the lock, with its command; who left a view open; and that the holder was stopped."""
    path = tmp_path / "s"
    with child(WRITER, str(path), backend) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        print(3, file=writer.stdin, flush=True)
        writer.stdout.readline()
        found = facts_of(path)
        assert f"process {writer.pid} (" in found["held by"].value and found["held by"].level == Level.OK
        assert found["readers"].level == Level.OK
        assert complaints.readers([], 1, False).value == "1 other process has the file open"
        assert found["map"].level == Level.OK and ("bytes" in found["map"].value) == (backend == "lmdb")
        with child(READER, str(path), backend) as reader:
            print(2 * complaints.FAR_BEHIND_COMMITS, file=writer.stdin, flush=True)
            writer.stdout.readline()
            found = facts_of(path)
            assert f"process {reader.pid} (" in found["readers"].value
            assert found["readers"].level == (Level.WARNING if backend == "lmdb" else Level.ADVICE)
            reader.send_signal(signal.SIGSTOP)
            until(lambda: processes.is_stopped(reader.pid))
            assert facts_of(path)["readers"].level == Level.WARNING
        writer.send_signal(signal.SIGSTOP)
        until(lambda: processes.is_stopped(writer.pid))
        assert "kill -CONT" in facts_of(path)["held by"].advice


def test_a_map_that_cannot_grow(tmp_path: Path) -> None:
    """LMDB, where a process may have few addresses: half of what it got is full."""
    with store_at(tmp_path / "s") as store:
        for number in range(24):
            store.put(b"%d" % number, bytes(1_000_000))
    code = (
        "import resource, sys; from kvstore.observe.doctor import diagnose; from kvstore.options import Options;"
        "pages = int(open('/proc/self/statm').read().split()[0]); limit = pages * 4096 + (60 << 20);"
        "import kvstore.backends.lmdb;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        "print([f.level.value for f in diagnose(sys.argv[1], options=Options(low_disk_bytes=0)) if f.name == 'map'])"
    )
    assert resource.getpagesize() == 4096
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "s"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "['warning']\n", done.stderr
    assert facts_of(tmp_path / "s")["map"].level == Level.OK


@backends
def test_leases_that_pile_up(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without keys are counted, in the files and over the endpoint; many are told, even if they have keys."""
    path = tmp_path / "s"
    with store_at(path, backend) as store:
        for _ in range(complaints.MANY_IDLE_LEASES + 1):
            store.grant_lease(600)
        with (
            kvstore.serve(store, "http://127.0.0.1:0") as server,
            kvstore.connect(server.endpoints[0]) as far,
        ):
            served = {fact.name: fact for fact in diagnose_served(far)}
    for found in (served["leases"], facts_of(path)["leases"]):
        assert found.level == Level.WARNING and "101 of them without keys" in found.value
    with store_at(path, backend) as store:
        for number, lease in enumerate(store.leases()):
            store.put(b"%d" % number, b"v", lease=lease)
    assert facts_of(path)["leases"].level == Level.OK
    monkeypatch.setattr(complaints, "MANY_LEASES", 100)
    assert facts_of(path)["leases"].level == Level.ADVICE


@backends
def test_a_store_of_a_newer_version(tmp_path: Path, backend: str) -> None:
    """It is not called damaged: what helps is the newer program."""
    path = tmp_path / "s"
    with store_at(path, backend) as store:
        store.put(b"k", b"v")
    db = find_backend(backend).open(path / "snap" / "db", TABLES)
    with db.write() as tx:
        tx.put_many(META, [(META_FORMAT, pack_u64(99))])
    db.close()
    found = facts_of(path)
    assert found["version"].level == Level.WARNING and "format 99" in found["version"].value
    assert "content" not in found


def test_a_page_of_metrics_is_read() -> None:
    """Sums over labels, a quantile over buckets of several series, and what is no sample is passed over."""
    page = Scrape(
        '# HELP a b\na{x="}",y="\\""} 1\na 2.5\nhalf a line\na not-a-number\n'
        'h_bucket{le="0.1"} 98\nh_bucket{le="1.0"} 99\nh_bucket{x="1",le="+Inf"} 100\n'
    )
    assert page.sum("a") == 3.5 and page.sum("b") is None
    assert page.quantile(0.98, "h") == 0.1 and page.quantile(0.99, "h") == 1.0
    assert page.quantile(0.995, "h") == float("inf") and page.quantile(0.5, "a") is None


def test_the_command_asks_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its page of metrics and its clock come with it, over TCP and over a Unix socket."""
    cli = command_line(monkeypatch, capfd, doctor.register)
    socket = f"unix://{os.path.relpath(tmp_path)}/sock"
    with (
        store_at(tmp_path / "s", metrics=True) as store,
        kvstore.serve(store, ["http://127.0.0.1:0", socket]) as server,
    ):
        for url in server.endpoints:
            code, out, _ = cli("doctor", "--json", "--endpoint", url)
            facts = {fact["name"]: fact for fact in json.loads(out)}
            assert code == ExitCode.OK and facts["clock"]["value"] == "as ours"
            assert {"quota", "space", "leases", "watchers", "readers"} <= set(
                facts
            ) and "metrics" not in facts
        code, out, _ = cli("doctor", "--endpoint", server.endpoints[0])
        assert code == ExitCode.OK and "watchers\t0, 0 of them slow" in out
