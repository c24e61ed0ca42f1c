"""Readers in other processes: no operation of the writer harms one, whatever it does, and none holds up the writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.backend import find_backend
from kvstore.errors import Busy, StoreLocked
from kvstore.mvcc.schema import TABLES
from kvstore.offline.backend_move import move_backend
from kvstore.readers import FROZEN, HANDLE, ByteLock, Readers, has_readers, held, view_byte
from kvstore.store import Store
from kvstore.verification import heal, verify
from tests.harness.watching import open_store

PERSISTENT = ("lmdb", "sqlite")
KEYS = 150

READER = r"""
import sys, kvstore
from kvstore.errors import KVStoreError

path, backend, how = sys.argv[1:]

def content(store):
    return {kv.key: kv.row for kv in store.scan(prefix=b"k")}

def look(store, wanted):
    found = content(store)
    assert found == wanted, f"{len(found)} rows, {len(wanted)} wanted"
    for key in list(wanted)[::37]:
        assert store.get(key).row == wanted[key]
    assert store.count(prefix=b"k") == len(wanted)

def may_be(error):
    return error.retryable or type(error).__name__ in ("Compacted", "WrongStore", "NotAStore")

def rounds():
    import threading
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        yield

looked = 0
if how == "opening":
    print("ready", flush=True)
    for _ in rounds():
        try:
            with kvstore.open(path, backend, read_only=True) as store:
                rows = content(store)
                assert len(rows) == 150 and len({kv.value for kv in store.scan(prefix=b"k")}) == 1
                looked += 1
        except KVStoreError as error:
            assert may_be(error), repr(error)
elif how == "reading":
    with kvstore.open(path, backend, read_only=True) as store:
        wanted = content(store)
        print("ready", flush=True)
        for _ in rounds():
            try:
                look(store, wanted)
                looked += 1
            except KVStoreError as error:
                assert may_be(error), repr(error)
                break
else:
    store = kvstore.open(path, backend, read_only=True)
    view = store.engine.backend.read()
    rows = view.scan("latest")
    print("ready", flush=True)
    sys.stdin.read()
    assert view.scan("latest") == rows
    view.close()
    store.close()
    looked += 1
assert looked or how == "reading"
"""


def write(store: Store, number: int) -> None:
    """All keys, with one value, in one revision."""
    value = b"%06d" % number * 300
    store.txn(success=[kvstore.ops.put(b"k%03d" % key, value) for key in range(KEYS)])
    store.checkpoint()


def overwritten(store: Store) -> None:
    for number in range(8):
        write(store, number)


def compacted(store: Store) -> None:
    overwritten(store)
    store.compact(store.revision, physical=True)


def defragmented(store: Store) -> None:
    compacted(store)
    try:
        store.defragment()
    except Busy as error:  # SQLite: a stopped view of an older commit stands in the way
        assert error.retryable


def copied(store: Store) -> None:
    overwritten(store)
    store.snapshot()


OPERATIONS: list[Callable[[Store], None]] = [overwritten, compacted, defragmented, copied, overwritten]


@contextmanager
def reader(path: Path, backend: str, how: str) -> Iterator[subprocess.Popen[str]]:
    arguments = [sys.executable, "-c", READER, str(path / "data"), backend, how]
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    """Let the reader come to its end, which is a good one if it exits with 0."""
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, (process.returncode, error)


def at_work(path: Path, backend: str, rounds: int) -> None:
    """Every operation on an open store, and what is done to a closed one."""
    for number in range(rounds):
        with open_store(path, backend, low_disk_bytes=0, max_txn_ops=1000) as store:
            for operation in OPERATIONS:
                operation(store)
            write(store, 100 + number)
        assert verify(path / "data").ok
        heal(path / "data")
        with open_store(path, backend, low_disk_bytes=0, max_txn_ops=1000) as store:
            overwritten(store)
            assert store.count(prefix=b"k") == KEYS


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that holds an old view holds it to the end of its test: a defragmentation need not wait long for it."""
    monkeypatch.setattr(sys.modules[find_backend("sqlite").__module__], "SETTLE_SECONDS", 0.5)


def fill(path: Path, backend: str) -> Path:
    with open_store(path, backend, low_disk_bytes=0, max_txn_ops=1000) as store:
        overwritten(store)
        store.snapshot()
    return path


@pytest.fixture
def filled(tmp_path: Path, backend: str) -> Path:
    """A directory with a store: all keys have one value."""
    return fill(tmp_path, backend)


@pytest.fixture
def filled_in_memory(scratch: Path, backend: str) -> Path:
    """The same where syncs take no time: a reader that looks only before and after does not mind how long it takes."""
    return fill(scratch, backend)


@pytest.mark.parametrize("rounds", [1, pytest.param(40, marks=pytest.mark.soak)])
@pytest.mark.parametrize("how", ["opening", "reading", "viewing"])
@pytest.mark.parametrize("backend", PERSISTENT)
def test_no_operation_harms_a_reader(
    request: pytest.FixtureRequest, backend: str, how: str, rounds: int
) -> None:
    """Whatever the writer does to the open or closed store, each reader's answers stay those of its revision."""
    filled: Path = request.getfixturevalue("filled_in_memory" if how == "viewing" else "filled")
    with reader(filled, backend, how) as process:
        at_work(filled, backend, rounds)
        end(process)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_stopped_reader_reads_on_where_it_was(filled_in_memory: Path, backend: str) -> None:
    """A reader that is stopped inside a view finds its rows again, after writers came and went."""
    with reader(filled_in_memory, backend, "viewing") as process:
        process.send_signal(signal.SIGSTOP)
        at_work(filled_in_memory, backend, 1)
        process.send_signal(signal.SIGCONT)
        end(process)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_killed_reader_holds_nothing(filled: Path, backend: str) -> None:
    """The file does not grow for a reader that was killed inside a view."""
    with open_store(filled, backend, low_disk_bytes=0, max_txn_ops=1000) as store:
        with reader(filled, backend, "viewing") as process:
            assert [each.pid for each in store.status().readers] == [process.pid]
        assert store.status().readers == ()
        for _ in range(3):
            compacted(store)
        before = store.engine.backend.size_bytes()
        for _ in range(5):
            compacted(store)
        assert store.engine.backend.size_bytes() <= before * 1.5


def test_a_file_that_is_read_since_an_earlier_writer_is_left_to_the_reader(tmp_path: Path) -> None:
    """LMDB: the next writer cannot keep the pages of an older commit, so it goes on in a copy."""
    db = tmp_path / "data" / "snap" / "db"
    with open_store(tmp_path, "lmdb", low_disk_bytes=0, max_txn_ops=1000) as store:
        overwritten(store)
        with reader(tmp_path, "lmdb", "viewing") as process:
            process.send_signal(signal.SIGSTOP)
            overwritten(store)
            file = db.stat().st_ino
            store.close()
            with open_store(tmp_path, "lmdb", low_disk_bytes=0, max_txn_ops=1000) as again:
                assert db.stat().st_ino != file
                for _ in range(3):
                    compacted(again)
                assert again.count(prefix=b"k") == KEYS
                again.engine.backend.check()
            process.send_signal(signal.SIGCONT)
            end(process)


def test_a_map_does_not_grow_under_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB: growing ends what the writer keeps for readers, so the checkpoint waits for them, as ``Busy``."""
    kind = find_backend("lmdb")
    monkeypatch.setattr(kind, "map_bytes", 1 << 20)
    monkeypatch.setattr(sys.modules[kind.__module__], "GROW_WAIT_SECONDS", 0.05)
    with open_store(tmp_path, "lmdb", low_disk_bytes=0, max_txn_ops=1000) as store:
        store.put(b"x", b"v")
        store.checkpoint()
        with reader(tmp_path, "lmdb", "viewing") as process:
            with pytest.raises(kvstore.Busy):
                overwritten(store)
            assert store.count(prefix=b"k") == KEYS
            end(process)
        overwritten(store)
        assert store.health().healthy


def test_status_says_how_far_behind_a_reader_is(tmp_path: Path) -> None:
    """A reader stopped in a view keeps pages from being used again; ``status`` has its pid and how many commits."""
    with open_store(tmp_path, "lmdb", low_disk_bytes=0, max_txn_ops=1000) as store:
        overwritten(store)
        with reader(tmp_path, "lmdb", "viewing") as process:
            process.send_signal(signal.SIGSTOP)
            overwritten(store)
            (found,) = store.status().readers
            assert found.pid == process.pid and found.commits_behind >= 8


def test_a_defragmentation_names_the_reader_that_stands_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite: a view of an older commit, stopped. It may be tried again, and works once the reader has gone on."""
    monkeypatch.setattr(sys.modules[find_backend("sqlite").__module__], "SETTLE_SECONDS", 0.0)
    with open_store(tmp_path, "sqlite", low_disk_bytes=0, max_txn_ops=1000) as store:
        overwritten(store)
        with reader(tmp_path, "sqlite", "viewing") as process:
            process.send_signal(signal.SIGSTOP)
            overwritten(store)
            with pytest.raises(Busy, match=f"process {process.pid}: let it go on, or end it") as caught:
                store.defragment()
            assert caught.value.retryable
            write(store, 99)
            process.send_signal(signal.SIGCONT)
            end(process)
        store.defragment()
        assert store.engine.life.failure is None


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_reader_outlives_a_move_to_another_backend(filled: Path, backend: str) -> None:
    """It reads the old file to its end, or is told that the file is another backend's: never that it is damaged."""
    with reader(filled, backend, "reading") as process:
        move_backend(filled / "data", "sqlite" if backend == "lmdb" else "lmdb")
        time.sleep(0.1)  # some rounds of reading; how many does not matter
        end(process)


def test_a_connection_made_while_the_file_is_replaced_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite opens the log by name, later than the file: never the log of the next file with the old file."""
    with open_store(tmp_path, "sqlite", low_disk_bytes=0, max_txn_ops=1000) as store:
        overwritten(store)
        backend = find_backend("sqlite").open(tmp_path / "data" / "snap" / "db", TABLES, read_only=True)
        try:
            replaced: list[object] = []
            connect = type(backend)._connect  # type: ignore[attr-defined]

            def late(self: object, cache_bytes: int) -> object:
                connection = connect(self, cache_bytes)
                if self is backend and not replaced:
                    replaced.append(store.defragment())
                    write(store, 77)
                return connection

            with backend.read():  # the pool is empty: the next view needs a connection
                monkeypatch.setattr(type(backend), "_connect", late)
                with backend.read() as view:
                    assert replaced and view.count("latest") == KEYS
                    assert b"000077" in view.scan("latest", limit=1)[0][1]
        finally:
            backend.close()


# --- the locks ---------------------------------------------------------------------------


def test_locks_name_the_oldest_view(tmp_path: Path) -> None:
    """The lowest locked commit is found whatever the order of locking, and goes with its descriptor."""
    readers = Readers(tmp_path)
    assert readers.oldest() is None
    locks = []
    for commit in (9, 4, 7, 4):
        locks.append(ByteLock(tmp_path))
        locks[-1].take(view_byte(commit))
    assert [view.commit for view in readers.commits()] == [4, 7, 9]
    locks[1].close()
    assert readers.oldest() == 4
    locks[3].take(view_byte(8))
    assert readers.oldest() == 7
    del locks
    assert readers.oldest() is None


def test_only_a_handle_that_is_open_is_a_reader(tmp_path: Path) -> None:
    """A handle's lock counts from before it opens the file until it is closed."""
    assert not has_readers(tmp_path)
    lock = held(tmp_path, HANDLE)
    assert has_readers(tmp_path)
    lock.close()
    assert not has_readers(tmp_path)


def test_the_old_file_is_cut_only_where_no_other_process_reads(tmp_path: Path) -> None:
    """A file that another process has open keeps its length after a defragmentation."""
    for backend in PERSISTENT:
        with open_store(tmp_path / backend, backend, low_disk_bytes=0, max_txn_ops=1000) as store:
            compacted(store)
            db = tmp_path / backend / "data" / "snap" / "db"
            with reader(tmp_path / backend, backend, "reading") as process, open(db, "rb") as old:
                size_bytes = os.fstat(old.fileno()).st_size
                store.defragment()
                assert os.fstat(old.fileno()).st_size >= size_bytes
                end(process)
            with open(db, "rb") as old:
                store.defragment()
                assert os.fstat(old.fileno()).st_size == 0


def test_a_defragmentation_meets_a_reader_that_asks_whether_it_may_freeze_the_file(tmp_path: Path) -> None:
    """That reader lets go when it finds the writer, so the writer puts its new file in place beside it, and goes on."""
    with open_store(tmp_path, "sqlite", low_disk_bytes=0, max_txn_ops=1000) as store:
        compacted(store)
        with closing(held(tmp_path / "data" / "snap", FROZEN)):
            store.defragment()
        store.put(b"k", b"v")
        assert store.status().failure == ""


def test_a_writer_opens_beside_a_reader_that_asks_whether_it_may_freeze_the_file(tmp_path: Path) -> None:
    """It waits a moment for the reader to find it; one that has the file frozen stays, and is named."""
    open_store(tmp_path, "sqlite").close()
    asking = held(tmp_path / "data" / "snap", FROZEN)
    threading.Timer(0.1, asking.close).start()
    open_store(tmp_path, "sqlite").close()
    with closing(held(tmp_path / "data" / "snap", FROZEN)), pytest.raises(StoreLocked) as locked:
        open_store(tmp_path, "sqlite")
    assert locked.value.pid == os.getpid()


def test_a_read_held_up_while_a_defragmentation_replaces_the_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had begun to look whether the file is the one that was opened. (Found by the crash loop.)"""
    with open_store(tmp_path, "sqlite", low_disk_bytes=0, max_txn_ops=1000) as store:
        compacted(store)
        backend: Any = store.engine.backend
        samestat = os.path.samestat

        def held_up(opened: os.stat_result, _: os.stat_result) -> bool:
            monkeypatch.setattr(os.path, "samestat", samestat)
            store.defragment()
            return samestat(opened, os.stat(backend.path))

        monkeypatch.setattr(os.path, "samestat", held_up)
        backend._check_place()
        assert store.engine.backend is not backend
        with backend.read() as view:
            assert view.count("latest") == KEYS


# --- namespaces --------------------------------------------------------------------------


def _can_unshare() -> bool:
    try:
        command = ["unshare", "-m", "-p", "-f", "true"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_namespaces = pytest.mark.skipif(
    not _can_unshare(), reason="mount and pid namespaces need root and unshare"
)


def on_read_only_mount(path: Path, *command: str) -> list[str]:
    mount = f'mount --bind "{path}" "{path}" && mount -o remount,ro,bind "{path}" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mount, "sh", *command]


@needs_namespaces
@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_reader_on_a_read_only_mount_beside_a_writer(filled: Path, backend: str) -> None:
    """Without a way to write its place in a table, it still sees one revision at a time, whole."""
    command = [sys.executable, "-c", READER, str(filled / "data"), backend, "opening"]
    with open_store(filled, backend, low_disk_bytes=0, max_txn_ops=1000) as store:
        process = subprocess.Popen(
            on_read_only_mount(filled / "data", *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            for _ in range(3):
                for operation in OPERATIONS:
                    operation(store)
            end(process)
        finally:
            process.kill()


AT_REST = r"""
import sys, kvstore
from kvstore.options import Options
from kvstore.verification import verify
path, backend, target = sys.argv[1:]
with kvstore.open(path, backend, read_only=True) as store:
    assert store.count(prefix=b"k") == 150 and store.get(b"k007").value.startswith(b"000007")
    list(store.history(b"k001")), store.hash_kv(), store.snapshot(target)
assert verify(path, options=Options(backend=backend)).ok
"""


@needs_namespaces
@pytest.mark.parametrize("is_opened_once", [True, False], ids=["closed", "restored"])
@pytest.mark.parametrize("backend", [*PERSISTENT, "memory"])
def test_a_store_at_rest_on_a_read_only_mount_is_read(
    filled: Path, tmp_path: Path, backend: str, is_opened_once: bool
) -> None:
    """It is read, verified and copied, with a lock file and helpers beside it or without any."""
    from kvstore.snapshot.restore import restore

    data = filled / "data"
    if not is_opened_once:
        data = tmp_path / "restored"
        restore(filled / "data", data)
    command = [sys.executable, "-c", AT_REST, str(data), backend, str(tmp_path / "copy.snap")]
    done = subprocess.run(on_read_only_mount(data, *command), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy.snap").exists()


@needs_namespaces
@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_writer_keeps_away_from_a_file_that_is_read_as_it_is(
    filled: Path, tmp_path: Path, backend: str
) -> None:
    """SQLite without helpers on a read-only mount: the writer gets ``StoreLocked`` until that reader is gone."""
    from kvstore.snapshot.restore import restore

    data = tmp_path / "at rest" / "data"
    data.parent.mkdir()
    restore(filled / "data", data)
    command = on_read_only_mount(data, sys.executable, "-c", READER, str(data), "sqlite", "viewing")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(StoreLocked) as locked:
            open_store(tmp_path / "at rest", "sqlite")
        assert locked.value.pid == process.pid
        process.communicate(timeout=60)
        assert process.returncode == 0
    open_store(tmp_path / "at rest", "sqlite").close()


@needs_namespaces
@pytest.mark.parametrize("backend", PERSISTENT)
def test_the_same_pid_in_two_pid_namespaces(filled: Path, backend: str) -> None:
    """Writer and reader are both process 1 of their containers."""
    own = ["unshare", "-p", "-f", "--kill-child", sys.executable, "-c"]
    writer = (
        "import sys, os, kvstore\n"
        "assert os.getpid() == 1\n"
        "with kvstore.open(sys.argv[1], sys.argv[2]) as store:\n"
        "    store.put(b'x', b'')\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
        "    store.put(b'y', b'')\n"
    )
    read = (
        "import sys, os, kvstore\n"
        "assert os.getpid() == 1\n"
        "with kvstore.open(sys.argv[1], sys.argv[2], read_only=True) as store:\n"
        "    assert store.count(prefix=b'k') == 150\n"
    )
    data = str(filled / "data")
    process = subprocess.Popen([*own, writer, data, backend], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        for _ in range(3):
            done = subprocess.run([*own, read, data, backend], check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()


# --- locks of other tools ----------------------------------------------------------------

SHELL = r"""
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_lock_of_somebodys_shell_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that finds SQLite's lock taken raises ``Busy``; writes go on, and the next one is good."""
    monkeypatch.setattr(sys.modules[find_backend("sqlite").__module__], "BUSY_TIMEOUT_MS", 50)
    with open_store(tmp_path, "sqlite") as store:
        store.put(b"a", b"1")
        command = [sys.executable, "-c", SHELL, str(tmp_path / "data" / "snap" / "db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
            assert shell.stdout is not None and shell.stdout.readline() == b"ready\n"
            for _ in range(2):
                with pytest.raises(kvstore.Busy) as busy:
                    store.checkpoint()
                assert busy.value.retryable
                store.put(b"b", b"2")
            shell.communicate()
        assert store.checkpoint() and store.health().healthy
        store.put(b"c", b"3")
    with open_store(tmp_path, "sqlite") as store:
        assert [kv.key for kv in store.scan(prefix=b"")] == [b"a", b"b", b"c"]
