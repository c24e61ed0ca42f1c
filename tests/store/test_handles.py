"""Handles of a store: one at a time, for one process, until it is closed; and what is no store is told apart."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore import (
    BadOption,
    Corruption,
    NotAStore,
    OpenError,
    Store,
    StoreClosed,
    StoreLocked,
    TooNew,
    WrongStore,
)
from kvstore.backend import find_backend
from kvstore.mvcc.schema import FORMAT_VERSION, META, META_FORMAT, TABLES, pack_u64

PERSISTENT = ["lmdb", "sqlite"]
BACKENDS = [*PERSISTENT, "memory"]
PATIENCE_SECONDS = 60.0


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program, *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those by which a database keeps track of its readers."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.endswith(("-lock", "-shm"))
    }


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
        assert (
            "(multiprocessing: 'spawn' or 'forkserver'), or fork before the store is opened" in ended.stdout
        )


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


# --- read-only -----------------------------------------------------------------------------------


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


# --- what is not the store that was asked for -----------------------------------------------------


def test_another_backend_is_named(scratch: Path) -> None:
    """WrongStore says which backend the store is on, whichever is asked for."""
    for made in PERSISTENT:
        kvstore.open(scratch / made, made).close()
        for asked in PERSISTENT:
            if asked != made:
                with pytest.raises(WrongStore, match=made):
                    kvstore.open(scratch / made, asked)
        kvstore.open(scratch / made, made).close()


def test_an_unknown_backend_is_refused_with_the_list(scratch: Path) -> None:
    """The error names what is installed, and leaves nothing behind."""
    with pytest.raises(OpenError, match="lmdb, memory, sqlite"):
        kvstore.open(scratch / "data", "bolt")


def test_a_foreign_directory_is_left_alone(scratch: Path) -> None:
    """A directory with other files in it, and a file, are NotAStore; not a byte of them changes."""
    (scratch / "photos").mkdir()
    (scratch / "photos" / "cat.jpg").write_bytes(b"meow")
    (scratch / "file").write_bytes(b"text")
    for name in ("photos", "file"):
        with pytest.raises(NotAStore):
            kvstore.open(scratch / name)
    assert contents(scratch) == {"photos/cat.jpg": b"meow", "file": b"text"}
    with pytest.raises((NotAStore, FileNotFoundError)):
        kvstore.open(scratch / "absent", read_only=True)
    assert not (scratch / "absent").exists()


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_newer_format_is_not_touched(scratch: Path, backend: str) -> None:
    """TooNew, and the files are as they were."""
    kvstore.open(scratch / "data", backend).close()
    opened = find_backend(backend).open(scratch / "data" / "snap" / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(META, [(META_FORMAT, pack_u64(FORMAT_VERSION + 1))])
    opened.sync()
    opened.close()
    before = contents(scratch)
    with pytest.raises(TooNew):
        kvstore.open(scratch / "data", backend)
    assert contents(scratch) == before


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_backend_without_its_log_is_corruption(scratch: Path, backend: str) -> None:
    """Where the log is gone, opening says so, instead of beginning a new one."""
    with kvstore.open(scratch / "data", backend) as store:
        store.put(b"k")
    shutil.rmtree(scratch / "data" / "wal")
    with pytest.raises(Corruption, match="log"):
        kvstore.open(scratch / "data", backend)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_log_without_its_backend_is_enough(scratch: Path, backend: str) -> None:
    """A complete log rebuilds the backend, the past included."""
    with kvstore.open(scratch / "data", backend) as store:
        for number in range(20):
            store.put(b"k%d" % (number % 3), b"%d" % number)
        expected = store.hash_kv()
    for path in (scratch / "data" / "snap").iterdir():
        path.unlink()
    with kvstore.open(scratch / "data", backend) as store:
        assert store.hash_kv() == expected
        kv = store.get(b"k0", revision=2)
        assert kv is not None
        assert kv.value == b"0"


@pytest.mark.parametrize("backend", PERSISTENT)
def test_the_log_of_another_store_is_refused(scratch: Path, backend: str) -> None:
    """A log folder of another cluster is WrongStore, and neither store is changed."""
    for name in ("one", "two"):
        with kvstore.open(scratch / name, backend) as store:
            store.put(b"k", name.encode())
    shutil.rmtree(scratch / "one" / "wal")
    shutil.copytree(scratch / "two" / "wal", scratch / "one" / "wal")
    before = contents(scratch)
    with pytest.raises(WrongStore):
        kvstore.open(scratch / "one", backend)
    assert contents(scratch) == before


@pytest.mark.parametrize("folder", ["wal", "snap"])
def test_symbolic_links_inside_are_not_followed(scratch: Path, folder: str) -> None:
    """A folder of the store that is a link to elsewhere is refused; nothing is written there."""
    (scratch / "elsewhere").mkdir()
    (scratch / "data").mkdir()
    (scratch / "data" / folder).symlink_to(scratch / "elsewhere")
    with pytest.raises(NotAStore, match="symbolic link"):
        kvstore.open(scratch / "data")
    assert list((scratch / "elsewhere").iterdir()) == []


def test_files_are_for_their_owner_alone(scratch: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with kvstore.open(scratch / "data") as store:
            store.put(b"k")
            store.snapshot()
    finally:
        os.umask(before)
    for path in [scratch / "data", *(scratch / "data").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


# --- options -------------------------------------------------------------------------------------


def test_options_come_from_the_environment(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVSTORE_<NAME> sets an option; an argument of open goes before it."""
    monkeypatch.setenv("KVSTORE_BACKEND", "sqlite")
    monkeypatch.setenv("KVSTORE_MAX_TXN_OPS", "2")
    monkeypatch.setenv("KVSTORE_WAL_DIR", str(scratch / "log"))
    with kvstore.open(scratch / "data", max_wals=7) as store:
        assert store.engine.backend.name == "sqlite"
        assert (store.engine.options.max_txn_ops, store.engine.options.max_wals) == (2, 7)
        assert list((scratch / "log").glob("*.wal"))
    with kvstore.open(scratch / "other", "memory", wal_dir="", max_txn_ops=3) as store:
        assert (store.engine.backend.name, store.engine.options.max_txn_ops) == ("memory", 3)


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "sometimes"},
        {"wal_file_size": 0},
        {"max_wals": -1},
        {"no_such_option": 1},
        {"auto_defragment_ratio": 1.0},
        {"lease_restart_policy": "forget"},
    ],
    ids=str,
)
def test_a_bad_option_is_refused_before_anything_is_touched(scratch: Path, options: dict[str, Any]) -> None:
    """BadOption names the option."""
    with pytest.raises(BadOption, match=next(iter(options))):
        kvstore.open(scratch / "data", **options)
    assert not (scratch / "data").exists()


def test_a_bad_environment_variable_is_named(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one whose text is no value of its option."""
    monkeypatch.setenv("KVSTORE_MAX_WALS", "many")
    with pytest.raises(BadOption, match="KVSTORE_MAX_WALS"):
        kvstore.open(scratch / "data")


BAD_ARGUMENTS: list[Callable[[Any], Any]] = [
    lambda store: store.put("text"),
    lambda store: store.put(b"k", "text"),
    lambda store: store.put(b"k", lease="1"),
    lambda store: store.grant_lease("10"),
    lambda store: store.grant_lease(10, "1"),
    lambda store: store.grant_lease(10, 1 << 64),
    lambda store: store.compact("2"),
    lambda store: store.compact(1.5),
    lambda store: store.txn(success=[kvstore.ops.get(b"k", revision=cast(Any, "2"))]),
    lambda store: store.txn(success=[kvstore.ops.put(b"k"), kvstore.ops.get(b"l", limit=cast(Any, "2"))]),
    lambda store: store.txn(success=["put"]),
    lambda store: store.txn(compare=[kvstore.version(b"k") == "1"]),
    lambda store: store.txn(compare=[kvstore.version(b"k") > 1.5]),
    lambda store: store.txn(compare=[kvstore.value(b"k") > 1]),
]


@pytest.mark.parametrize("number", range(len(BAD_ARGUMENTS)))
def test_an_argument_of_the_wrong_type_harms_nothing(scratch: Path, number: int) -> None:
    """The caller's mistake is a TypeError (or an error of ours), and the store goes on."""
    with kvstore.open(scratch / "data", "memory") as store:
        store.put(b"k")
        with pytest.raises((TypeError, kvstore.RequestError)):
            BAD_ARGUMENTS[number](store)
        assert store.put(b"k").revision == 3
