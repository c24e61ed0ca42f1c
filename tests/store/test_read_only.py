"""Handles for reading only: they see all that is durable, stay at their revision, and disturb no writer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import kvstore
from tests.store.folders import PATIENCE_SECONDS, PERSISTENT, contents

READER = """
import sys, kvstore
reader = kvstore.open(sys.argv[1], sys.argv[2], read_only=True)
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except kvstore.KVStoreError as error:
        print(type(error).__name__, flush=True)
reader.close()
"""


class OtherProcess:
    """A read-only handle in a process of its own (LMDB does not open a file twice in one)."""

    def __init__(self, path: Path, backend: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READER, str(path), backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def ask(self, expression: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> OtherProcess:
        assert self.ask("1") == "1"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_read_only_handle_sees_all_that_is_durable(scratch: Path, backend: str) -> None:
    """Beside a live writer it sees every acknowledged write, refuses writes, and changes no byte."""
    with kvstore.open(scratch / "data", backend, background=False) as store:
        store.put(b"in the backend", b"1")
        store.checkpoint()
        lease = store.grant_lease(60).id
        revision = store.put(b"in the log", b"2", lease=lease).revision
        before = contents(scratch / "data")
        with OtherProcess(scratch / "data", backend) as reader:
            assert reader.ask("reader.revision") == str(revision)
            assert reader.ask("list(reader.scan(prefix=b''))") == repr(list(store.scan(prefix=b"")))
            assert reader.ask("reader.hash_kv()") == repr(store.hash_kv())
            assert reader.ask("reader.leases()") == repr((lease,))
            count = "reader.txn(success=[kvstore.ops.get(b'in the log')]).responses[0].count"
            assert reader.ask(count) == "1"
            for write in (
                "reader.put(b'k')",
                "reader.delete(b'in the log')",
                "reader.txn(success=[kvstore.ops.put(b'k')])",
                "reader.grant_lease(10)",
                "reader.compact(2)",
            ):
                assert reader.ask(write) == "ReadOnly", write
        assert contents(scratch / "data") == before
        assert store.put(b"k").revision == revision + 1


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_read_only_handle_stays_at_its_revision(scratch: Path, backend: str) -> None:
    """What the writer does later, checkpoints included, changes no answer; what it compacts away is refused."""
    with kvstore.open(scratch / "data", backend, background=False) as store:
        for number in range(5):
            store.put(b"%d" % number, b"old")
        store.checkpoint()
        store.put(b"5", b"old")
        with OtherProcess(scratch / "data", backend) as reader:
            expected = list(store.scan(prefix=b""))
            hashed = store.hash_kv()
            for number in range(0, 6, 2):
                store.put(b"%d" % number, b"new")
            store.delete(b"1")
            store.put(b"6", b"new")
            store.checkpoint()
            assert reader.ask("list(reader.scan(prefix=b''))") == repr(expected)
            assert reader.ask("[reader.get(b'%d' % number) for number in range(6)]") == repr(expected)
            assert reader.ask("reader.get(b'6')") == "None"
            assert reader.ask("reader.count(prefix=b'')") == "6"
            assert reader.ask("reader.hash_kv()") == repr(hashed)
            store.compact(store.revision, physical=True)
            store.checkpoint()
            store.engine.run_compaction()
            for read in ("reader.get(b'1')", "list(reader.scan(prefix=b''))", "reader.hash_kv()"):
                assert reader.ask(read) == "Compacted", read


WRITER = """
import itertools, sys, kvstore
store = kvstore.open(sys.argv[1], sys.argv[2], backend_batch_interval_seconds=0.001, wal_file_size=4000, max_wals=1)
for number in itertools.count():
    revision = store.put(b"k%d" % (number % 50), b"%d" % number).revision
    print(revision, flush=True)
"""


@pytest.mark.parametrize("backend", PERSISTENT)
def test_read_only_handles_beside_a_busy_writer(scratch: Path, backend: str) -> None:
    """Opened again and again while another process writes, rolls, checkpoints and releases: each sees one state,
    with everything acknowledged before."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(scratch / "data"), backend],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    acknowledged = [0]
    assert writer.stdout is not None

    def listen() -> None:
        for line in writer.stdout or ():
            acknowledged[0] = int(line)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        while acknowledged[0] < 60:
            assert writer.poll() is None
        for _ in range(40):
            at_least = acknowledged[0]
            with kvstore.open(scratch / "data", backend, read_only=True) as reader:
                assert reader.revision >= at_least
                rows = list(reader.scan(prefix=b""))
                assert sorted(kv.mod_revision for kv in rows) == list(
                    range(reader.revision - 49, reader.revision + 1)
                )
                assert all(reader.get(kv.key) == kv for kv in rows)
    finally:
        writer.kill()
        listener.join()
        writer.stdout.close()
        writer.wait()
