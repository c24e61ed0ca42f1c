"""What a program feels that writes now and then: paced puts, an idle store, starting."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from . import child, ours
from .contest import Absent, Contest, Sample, row
from .entrants import ETCD, KEYS, add_etcd, add_ours, etcd_store, peer_store
from .etcd_server import EtcdServer, binary
from .peers import PEERS, RawLoop
from .workload import Workload, key

PACES = (1000, 10)
"""Puts a second."""
PACED_PEERS = ("lmdb", "sqlite3", "diskcache")
STARTS = 5
IDLE_SECONDS = 5

PEER_PROGRAMS = {
    "sqlite3": "import sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/db'); "
    "db.execute('select value from kv where key = ?', (sys.argv[2].encode(),)).fetchone()",
    "lmdb": "import lmdb, sys; env = lmdb.open(sys.argv[1]); env.begin().get(sys.argv[2].encode())",
    "diskcache": "import diskcache, sys; diskcache.Cache(sys.argv[1]).get(sys.argv[2].encode())",
}
OUR_PROGRAM = (
    "import kvstore, sys; store = kvstore.open(sys.argv[1], sys.argv[3]); "
    "store.get(sys.argv[2].encode()); store.close()"
)


@row("put-paced", "a durable put at 1,000 a second, and at 10", "µs CPU")
def put_paced(contest: Contest) -> None:
    """CPU of a durable put by one thread that sleeps in between, at 1,000 and at 10 puts a second, background work
    included; "sleep alone" puts nothing, the raw loop writes and syncs as many bytes, peers commit each put."""
    settings, keys = contest.settings, contest.settings.count(KEYS)

    def measure(pace: int, backend: str, path: Path, keys: int) -> Sample:
        workload = Workload(keys)
        with ours.open_store(settings, path, backend) as store:
            return _paced(pace, settings.seconds, lambda: store.put(*workload.pair()))

    def raw(pace: int) -> Sample:
        path, workload = contest.place.fresh("raw"), Workload(keys)
        loop = RawLoop(path, settings.sync_delay_ms / 1000, settings.count(RawLoop.FILE_BYTES, 1 << 20))
        try:
            return _paced(pace, settings.seconds, lambda: loop.put(*workload.pair()))
        finally:
            loop.close()
            contest.place.remove(path)

    def measure_peer(pace: int, name: str, path: Path) -> Sample:
        peer, workload = PEERS[name](path), Workload(keys)
        try:
            return _paced(pace, settings.seconds, lambda: peer.put(*workload.pair()))
        finally:
            peer.close()

    for pace in PACES:
        suffix = f", {pace:,}/s"
        add_ours(contest, partial(measure, pace), keys, suffix)
        contest.add(f"raw pwrite+fdatasync{suffix}", partial(raw, pace))
        contest.add(f"sleep alone{suffix}", partial(_paced, pace, settings.seconds, lambda: None))
        for name in PACED_PEERS:
            if (path := peer_store(contest, name, keys)) is not None:
                contest.add(f"{name}{suffix}", partial(measure_peer, pace, name, path), own_syncs=True)


def _paced(pace: int, seconds: float, work: Callable[[], object]) -> Sample:
    """CPU of one call in µs, when ``pace`` of them are made in a second."""
    count = max(5, int(pace * seconds))
    work()
    cpu, begin = time.process_time(), time.perf_counter()
    for number in range(1, count + 1):
        work()
        time.sleep(max(begin + number / pace - time.perf_counter(), 0))
    return Sample((time.process_time() - cpu) / count * 1e6)


@row("idle", "an open store that nobody uses", "ms CPU/s")
def idle(contest: Contest) -> None:
    """CPU, and voluntary switches as wake-ups, in a second of a process that has opened a store of 100,000 keys and
    does nothing for five; with a watch; after a put. etcd: of its process."""
    keys = contest.settings.count(KEYS)
    seconds = min(IDLE_SECONDS, 5 * contest.settings.seconds)

    def measure(watched: bool, written: bool, backend: str, path: Path, keys: int) -> Sample:
        asked = {"watched": watched, "written": written, "seconds": seconds}
        cpu, wake_ups = child.results("idle", path=str(path), backend=backend, keys=keys, **asked)
        return Sample(cpu * 1000, {"wake_ups_per_s": wake_ups})

    def measure_etcd(path: Path) -> Sample:
        with EtcdServer(path) as server:
            time.sleep(child.SETTLE_SECONDS)
            before = server.cpu_seconds()
            time.sleep(seconds)
            return Sample((server.cpu_seconds() - before) / seconds * 1000)

    add_ours(contest, partial(measure, False, False), keys)
    add_ours(contest, partial(measure, True, False), keys, ", a watch")
    add_ours(contest, partial(measure, False, True), keys, ", after a put")
    if (path := etcd_store(contest, keys)) is not None:
        add_etcd(contest, ETCD, partial(measure_etcd, path))


@row("start", "starting: a process that gets one key", "ms CPU")
def start(contest: Contest) -> None:
    """User and system time of a process from its start to its end, the median of five: bare Python, importing kvstore,
    a program that opens a store of 100,000 keys, gets one and closes, the command ``kvstore get``, the same programs
    with peers, and ``etcdctl version``, which asks no server."""
    keys = contest.settings.count(KEYS)
    wanted = key(keys // 2).decode()
    python = [sys.executable, "-c"]

    def ours_program(backend: str, path: Path, _keys: int) -> Sample:
        return _cpu_ms([*python, OUR_PROGRAM, os.fspath(path), wanted, backend])

    def ours_command(_backend: str, path: Path, _keys: int) -> Sample:
        return _cpu_ms(
            [sys.executable, "-m", "kvstore.tools.main", "--data-dir", os.fspath(path), "get", wanted]
        )

    contest.add("python -c pass", partial(_cpu_ms, [*python, "pass"]))
    contest.add("import kvstore", partial(_cpu_ms, [*python, "import kvstore"]))
    add_ours(contest, ours_program, keys)
    for name in add_ours(contest, ours_command, keys, ", kvstore get"):
        contest.goal(name, "python -c pass", at_most=3)
    for name, program in PEER_PROGRAMS.items():
        if (path := peer_store(contest, name, keys)) is not None:
            contest.add(name, partial(_cpu_ms, [*python, program, os.fspath(path), wanted]))
    try:
        contest.add("etcdctl version", partial(_cpu_ms, [binary("etcdctl"), "version"]))
    except Absent as reason:
        contest.skip("etcdctl version", str(reason))


def _cpu_ms(command: list[str]) -> Sample:
    """Milliseconds of CPU that a process takes."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{command[1:]} failed: {done.stderr[-200:]!r}")
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000

    return Sample(median(once() for _ in range(STARTS)))
