"""Handles of a store: one at a time, for one process, until it is closed."""

from __future__ import annotations

import gc
import os
import signal
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import kvstore
from kvstore import (
    StoreClosed,
    StoreLocked,
)
from tests.store.handles import BACKENDS, CALLS, run_python

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
