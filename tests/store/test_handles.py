"""Handles of a store: one at a time, for one process, until it is closed."""

from __future__ import annotations

import gc
import os
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import (
    Store,
    StoreClosed,
    StoreLocked,
)
from tests.store.folders import PATIENCE_SECONDS, PERSISTENT

BACKENDS = [*PERSISTENT, "memory"]


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program, *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


CALLS: list[Callable[[Store], Any]] = [
    lambda store: store.get(b"k"),
    lambda store: store.get(b"k", revision=2),
    lambda store: store.range(b"k"),
    lambda store: list(store.scan(prefix=b"")),
    lambda store: list(store.history(b"k")),
    lambda store: list(store.diff(1)),
    lambda store: store.at(2),
    lambda store: store.count(prefix=b""),
    lambda store: store.hash_kv(),
    lambda store: store.put(b"k"),
    lambda store: store.put_nowait(b"k"),
    lambda store: store.delete(b"k"),
    lambda store: store.txn(success=[kvstore.ops.put(b"k")]),
    lambda store: store.txn(success=[kvstore.ops.get(b"k")]),
    lambda store: store.grant_lease(10),
    lambda store: store.revoke_lease(1),
    lambda store: store.keep_alive(1),
    lambda store: store.lease_time_to_live(1),
    lambda store: store.leases(),
    lambda store: store.compact(2),
    lambda store: store.checkpoint(),
    lambda store: store.alarms(),
    lambda store: store.snapshot(),
]


# --- closed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closed_store_refuses_every_call(scratch: Path, backend: str) -> None:
    """Every method raises StoreClosed; closing again does nothing; iterators begun before end with it."""
    store = kvstore.open(scratch / "data", backend)
    store.put(b"k")
    store.put(b"l")
    begun = store.scan(prefix=b"", page_rows=1)
    next(begun)
    store.close()
    store.close()
    for number, call in enumerate(CALLS):
        with pytest.raises(StoreClosed):
            call(store)
            pytest.fail(f"call {number} went through")
    with pytest.raises(StoreClosed):
        list(begun)


HAMMER = """
import sys, threading, kvstore
store = kvstore.open(sys.argv[1], sys.argv[2], backend_batch_interval_seconds=0.001)
for number in range(2000):
    store.put_nowait(b"%05d" % number, b"v" * 100)
unexpected, begun = [], threading.Barrier(9)

def work(call):
    begun.wait()
    try:
        while True:
            call()
    except kvstore.StoreClosed:
        pass
    except BaseException as error:
        unexpected.append(repr(error))

calls = [
    lambda: store.get(b"00500"),
    lambda: store.get(b"absent" * 200),
    lambda: list(store.scan(prefix=b"00", page_rows=50)),
    lambda: store.range(b"00500", revision=600),
    lambda: store.hash_kv(),
    lambda: list(store.history(b"00500")),
    lambda: store.put(b"k", b"v"),
    lambda: store.txn(success=[kvstore.ops.put(b"k"), kvstore.ops.get(b"l")]),
]
threads = [threading.Thread(target=work, args=(call,)) for call in calls]
for thread in threads:
    thread.start()
begun.wait()
threading.Event().wait(float(sys.argv[3]))
store.close()
for thread in threads:
    thread.join(20)
print(unexpected, [thread.is_alive() for thread in threads].count(True))
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("after_seconds", [0.0, 0.1])
def test_closing_under_load_ends_everybody_with_a_typed_error(
    scratch: Path, backend: str, after_seconds: float
) -> None:
    """Threads that read and write while the store is closed get StoreClosed: no crash, no hang, nothing untyped."""
    ended = run_python(HAMMER, scratch / "data", backend, after_seconds)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[] 0"), ended.stderr
    with kvstore.open(scratch / "data", backend) as store:
        assert store.count(prefix=b"0") == 2000


def test_a_closed_store_is_free_although_descriptors_are_closed_later(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a process patched by gevent, whose ``os.close`` waits for its own loop; regular files it closes at once."""
    close, later = os.close, []

    def close_later(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            close(fd)
        else:
            later.append(fd)

    monkeypatch.setattr(os, "close", close_later)
    try:
        kvstore.open(scratch / "data").close()
        kvstore.open(scratch / "data").close()
    finally:
        for fd in later:
            close(fd)


def test_a_forgotten_store_gives_a_warning(scratch: Path) -> None:
    """A store that is collected without having been closed emits ResourceWarning."""
    store = kvstore.open(scratch / "data")
    engine = store.engine
    with pytest.warns(ResourceWarning, match="not closed"):
        del store
        gc.collect()
    engine.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kvstore.open(scratch / "data").close()
        gc.collect()


# --- one at a time -------------------------------------------------------------------------------


def test_a_second_process_is_told_who_holds_the_store(scratch: Path) -> None:
    """StoreLocked names the process that has it open; when that one is gone, so is the lock."""
    program = (
        "import sys, kvstore\n"
        "try: kvstore.open(sys.argv[1])\n"
        "except kvstore.StoreLocked as error: print(error.pid, error.host, error.retryable)"
    )
    with kvstore.open(scratch / "data") as store:
        store.put(b"k")
        ended = run_python(program, scratch / "data")
        assert ended.stdout.split() == [str(os.getpid()), os.uname().nodename, "True"], ended.stderr
        assert store.put(b"k").revision == 3
    killed = subprocess.Popen(
        [sys.executable, "-c", "import sys, kvstore, time; s = kvstore.open(sys.argv[1]);"
         " print('open', flush=True); time.sleep(60)", str(scratch / "data")],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert killed.stdout is not None
    with killed.stdout:
        killed.stdout.readline()
        with pytest.raises(StoreLocked, match=f"process {killed.pid}"):
            kvstore.open(scratch / "data")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    with kvstore.open(scratch / "data") as store:
        assert store.revision == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_handle_in_the_same_process_is_refused(scratch: Path, backend: str) -> None:
    """So is one under another name of the directory; the first handle does not notice."""
    with kvstore.open(scratch / "data", backend) as store:
        os.symlink(scratch / "data", scratch / "other name")
        for name in ("data", "other name", "data/../data"):
            with pytest.raises(StoreLocked):
                kvstore.open(scratch / name, backend)
        assert store.put(b"k").revision == 2
    kvstore.open(scratch / "other name", backend).close()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_a_forked_child_cannot_use_or_damage_the_store(scratch: Path, backend: str, leave: str) -> None:
    """In the child every call raises ForkedStore; its exit leaves the parent's files and lock alone."""
    program = f"""
import gc, os, sys, kvstore
from tests.store.test_handles import CALLS
store = kvstore.open(sys.argv[1], {backend!r})
for number in range(500):
    store.put(b"%d" % number)
store.checkpoint()
begun = store.scan(prefix=b"", page_rows=1)
next(begun)
child = os.fork()
if not child:
    wrong = 0
    for call in [*CALLS, lambda store: list(begun)]:
        try:
            call(store)
            wrong += 1
        except kvstore.ForkedStore:
            pass
    store.close()
    try:
        kvstore.open(sys.argv[1], {backend!r})
        wrong += 100
    except kvstore.StoreLocked:
        pass
    del store, begun
    gc.collect()
    {leave}(wrong)
_, status = os.waitpid(child, 0)
assert status == 0, status
for number in range(500):
    store.put(b"%d" % number, b"again")
store.checkpoint()
assert len(list(begun)) == 499
try:
    kvstore.open(sys.argv[1], {backend!r})
    raise AssertionError("the child's exit has taken the lock")
except kvstore.StoreLocked:
    store.close()
with kvstore.open(sys.argv[1], {backend!r}) as store:
    assert store.count(prefix=b"") == 500 and store.get(b"7").value == b"again"
"""
    ended = run_python(program, scratch / "data")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_forked_child_reads_its_parents_store_or_is_told_how(scratch: Path, backend: str) -> None:
    """SQLite can open a file again; LMDB cannot, and the error says what does."""
    program = f"""
import os, sys, kvstore
with kvstore.open(sys.argv[1], {backend!r}) as store:
    store.put(b"k", b"v")
    child = os.fork()
    if not child:
        try:
            with kvstore.open(sys.argv[1], {backend!r}, read_only=True) as reader:
                print("read", reader.get(b"k").value, flush=True)
        except kvstore.ForkedStore as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    store.put(b"k", b"w")
"""
    ended = run_python(program, scratch / "data")
    assert ended.returncode == 0, ended.stderr
    if backend == "sqlite":
        assert ended.stdout == "read b'v'\n"
    else:
        assert "(multiprocessing: 'spawn' or 'forkserver'), fork before the store is opened" in ended.stdout
        assert "shared=True" in ended.stdout


def test_a_forked_child_opens_a_shared_store_for_itself(scratch: Path) -> None:
    """On LMDB too: it is a client of whoever serves, its parent among them."""
    program = """
import os, sys, kvstore
with kvstore.open(sys.argv[1], "lmdb", shared=True) as store:
    store.put(b"k", b"v")
    if not (child := os.fork()):
        with kvstore.open(sys.argv[1], shared=True) as own:
            own.put(b"child", own.get(b"k").value)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(b"child").value == b"v"
"""
    ended = run_python(program, scratch / "data")
    assert ended.returncode == 0, ended.stderr


def test_a_child_may_open_another_store(scratch: Path) -> None:
    """fork forbids the parent's handle, not the library."""
    program = """
import os, sys, kvstore
store = kvstore.open(sys.argv[1] + "/parent")
if not (child := os.fork()):
    with kvstore.open(sys.argv[1] + "/child") as own:
        own.put(b"k")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
store.close()
with kvstore.open(sys.argv[1] + "/child") as own:
    assert own.get(b"k") is not None
"""
    ended = run_python(program, scratch)
    assert ended.returncode == 0, ended.stderr
