"""After a fork: what a child may do with a store that its parent has open, and what it cannot do to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvstore.readers import HANDLE, has_readers, held
from tests.store.folders import PERSISTENT
from tests.store.handles import BACKENDS, run_python


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_a_forked_child_cannot_use_or_damage_the_store(scratch: Path, backend: str, leave: str) -> None:
    """In the child every call raises ForkedStore; its exit leaves the parent's files and lock alone."""
    program = f"""
import gc, os, sys, kvstore
from tests.store.handles import CALLS
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


@pytest.mark.parametrize("backend", PERSISTENT)
@pytest.mark.parametrize("of_parent", ["writer", "reader"])
def test_a_forked_child_reads_its_parents_store(scratch: Path, backend: str, of_parent: str) -> None:
    """Through a handle of its own, beside the parent's, with which it moves along; and so does a child of the child."""
    program = f"""
import os, sys, threading, kvstore
from kvstore.readers import has_readers
path = sys.argv[1]
with kvstore.open(path, {backend!r}) as store:
    for number in range(300):
        store.put(b"%d" % number, bytes(1000))
store = kvstore.open(path, read_only={of_parent == "reader"})
begun = store.scan(prefix=b"", page_rows=1)
next(begun)

def child(depth):
    with kvstore.open(path, read_only=True) as reader:
        assert reader.count(prefix=b"") == 300 + written
        assert reader.get(b"7").value == bytes(1000)
        for refused in (kvstore.StoreLocked,) if {backend == "lmdb"} else ():
            try:
                kvstore.open(path, read_only=True)
                raise AssertionError("the same file twice in one process")
            except refused as error:
                assert error.pid == os.getpid(), error
        if depth and not (grandchild := os.fork()):
            child(depth - 1)
            sys.exit(0)
        if depth:
            assert os.waitpid(grandchild, 0)[1] == 0
        assert len(list(reader.scan(prefix=b""))) == 300 + written
    with kvstore.open(path, read_only=True) as reader:  # again
        assert reader.get(b"7").version == 1

written = 0
for _ in range(3):
    if not (pid := os.fork()):
        child(1)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    if {of_parent == "writer"}:
        store.put(b"more %d" % written)
        written += 1
        store.checkpoint()
assert len(list(begun)) == 299
store.close()
"""
    ended = run_python(program, scratch / "data")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_forked_child_writes_its_parents_store_once_it_is_closed(scratch: Path, backend: str) -> None:
    """As a program does that becomes a daemon; until then the store is the parent's."""
    program = f"""
import os, sys, kvstore
path = sys.argv[1]
store = kvstore.open(path, {backend!r})
store.put(b"k", b"parent's")
store.checkpoint()
is_refused, has_refused = os.pipe()
is_closed, has_closed = os.pipe()
if not (pid := os.fork()):
    try:
        kvstore.open(path)
        raise AssertionError("two writers")
    except kvstore.StoreLocked as error:
        assert error.pid == os.getppid(), error
    os.write(has_refused, b"1")
    os.read(is_closed, 1)
    with kvstore.open(path) as own:
        assert own.get(b"k").value == b"parent's"
        own.put(b"k", b"child's")
        own.checkpoint()
        own.defragment()
        own.put(b"k2", b"child's")
    sys.exit(0)
os.read(is_refused, 1)
store.close()
os.write(has_closed, b"1")
assert os.waitpid(pid, 0)[1] == 0
with kvstore.open(path) as store:
    assert [kv.value for kv in store.scan(prefix=b"k")] == [b"child's"] * 2
"""
    ended = run_python(program, scratch / "data")
    assert ended.returncode == 0, ended.stderr


def test_where_lmdb_cannot_be_told_a_forked_child_is_told_how(scratch: Path) -> None:
    """A py-lmdb that keeps its list of open files elsewhere: it refuses the file, and the error says what to do."""
    program = """
import os, sys, kvstore
with kvstore.open(sys.argv[1], "lmdb") as store:
    import kvstore.backends.lmdb_fork
    kvstore.backends.lmdb_fork._envid = None
    if not (pid := os.fork()):
        try:
            kvstore.open(sys.argv[1], read_only=True)
        except kvstore.ForkedStore as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
    ended = run_python(program, scratch / "data")
    assert ended.returncode == 0, ended.stderr
    assert "(multiprocessing: 'spawn' or 'forkserver'), fork before the store is opened" in ended.stdout
    assert "shared=True" in ended.stdout


def test_a_forked_child_neither_keeps_nor_releases_its_parents_locks(tmp_path: Path) -> None:
    """What a reader's lock keeps from the writer lasts as long as the reader, whatever its children do with theirs."""
    lock = held(tmp_path, HANDLE)
    lives, ends = os.pipe()
    released, has_released = os.pipe()
    if not (child := os.fork()):
        lock.release()
        os.write(has_released, b"1")
        os.read(lives, 1)
        os._exit(0)
    try:
        os.read(released, 1)
        assert has_readers(tmp_path)
        lock.close()
        assert not has_readers(tmp_path)
    finally:
        os.write(ends, b"1")
        os.waitpid(child, 0)
        for descriptor in (lives, ends, released, has_released):
            os.close(descriptor)


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
