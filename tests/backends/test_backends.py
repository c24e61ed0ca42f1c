"""What is particular to one backend, and that all of them agree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import apsw
import lmdb
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kvstore.backends import lmdb as lmdb_module
from kvstore.backends import lmdb_tx, sqlite
from kvstore.backends.lmdb import LMDBBackend
from kvstore.backends.lmdb_file import parse_meta
from kvstore.backends.long_keys import SLICE
from kvstore.backends.memory import MemoryBackend
from kvstore.backends.memory_file import header
from kvstore.backends.sqlite import SQLiteBackend

from kvstore.backend import Backend, backend_names, find_backend, recognize_backend
from kvstore.errors import (
    Corruption,
    DiskFull,
    MissingDependency,
    NotAStore,
    OpenError,
    StateError,
    StoreLocked,
    TooNew,
    WrongStore,
)
from tests import PROJECT
from tests.backends.mirror_backend import Disagreement, MirrorBackend

TABLES = ["latest", "meta"]
KINDS: list[type[Backend]] = [LMDBBackend, SQLiteBackend, MemoryBackend]
PERSISTENT = [kind for kind in KINDS if kind.persistent]


class TinyMap(LMDBBackend):
    """LMDB that has to enlarge its map again and again."""

    map_bytes = 1 << 16


class Mirror(MirrorBackend):
    kinds: ClassVar[list[type[Backend]]] = [TinyMap, SQLiteBackend, MemoryBackend]


def put(db: Backend | Mirror, rows: list[tuple[bytes, bytes]]) -> None:
    with db.write() as tx:
        tx.put_many("latest", rows)


def copy_of(kind: type[Backend], path: Path) -> Path:
    db = kind.open(path.with_name("live"), TABLES)
    put(db, [(b"%d" % n, b"v" * 100) for n in range(200)])
    db.copy_to(path)
    db.close()
    for file in path.parent.glob("live*"):
        file.unlink()
    return path


def flip(path: Path, at: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


# --- found by name, told apart --------------------------------------------------------------


def test_backends_are_found_by_name() -> None:
    """The three are installed under their names; another name is refused with the list."""
    assert {"lmdb", "memory", "sqlite"} <= set(backend_names())
    assert [find_backend(kind.name) for kind in KINDS] == KINDS
    with pytest.raises(OpenError, match="lmdb, memory, sqlite"):
        find_backend("punched-cards")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_files_of_backends_are_told_apart(kind: type[Backend], other: type[Backend], tmp_path: Path) -> None:
    """Each recognises its own files, and calls those of the others by their name."""
    path = copy_of(other, tmp_path / "copy")
    assert recognize_backend(path) is other
    assert kind.recognizes(path) is (kind is other)
    if kind is not other:
        for how in ({}, {"read_only": True}, {"immutable": True}):
            with pytest.raises(WrongStore, match=other.name):
                kind.open(path, TABLES, **how)


def test_an_lmdb_file_of_another_application_is_not_ours(tmp_path: Path) -> None:
    """A valid LMDB file without our mark is refused, and not written to."""
    path = tmp_path / "db"
    with lmdb.open(os.fspath(path), subdir=False) as environment, environment.begin(write=True) as tx:
        tx.put(b"theirs", b"1")
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="another application"):
        LMDBBackend.open(path, TABLES)
    assert path.read_bytes() == before


def test_an_sqlite_file_of_another_application_is_not_ours(tmp_path: Path) -> None:
    """A valid SQLite file without our application id is refused, and not written to."""
    path = tmp_path / "db"
    connection = apsw.Connection(os.fspath(path))
    connection.execute("CREATE TABLE latest (k, v)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="another application"):
        SQLiteBackend.open(path, TABLES)
    assert path.read_bytes() == before


def test_a_newer_lmdb_file_is_too_new(tmp_path: Path) -> None:
    """A later mark of ours, a later data format, and LMDB 1.0's layout are all called too new."""
    path = copy_of(LMDBBackend, tmp_path / "copy")
    with lmdb.open(os.fspath(path), subdir=False) as environment, environment.begin(write=True) as tx:
        tx.put(b"kvstore", b"2")
    with pytest.raises(TooNew, match="format 2"):
        LMDBBackend.open(path, TABLES)
    flip(path, 20, b"\2")
    with pytest.raises(TooNew, match="data format 2"):
        LMDBBackend.open(path, TABLES)
    later = tmp_path / "later"
    lmdb.open(os.fspath(later), subdir=False, lib_version=1).close()
    with pytest.raises(TooNew, match=r"LMDB 1\.0"):
        LMDBBackend.open(later, TABLES)


def test_a_newer_sqlite_file_is_too_new(tmp_path: Path) -> None:
    """A later user version is called too new."""
    path = copy_of(SQLiteBackend, tmp_path / "copy")
    flip(path, 60, b"\0\0\0\2")
    with pytest.raises(TooNew, match="format 2"):
        SQLiteBackend.open(path, TABLES)


def test_a_newer_memory_file_is_too_new(tmp_path: Path) -> None:
    """A later format with a good checksum is too new; with a bad one it is damaged."""
    path = copy_of(MemoryBackend, tmp_path / "copy")
    whole = path.read_bytes()
    flip(path, 8, b"\2")
    with pytest.raises(Corruption):
        MemoryBackend.open(path, TABLES)
    path.write_bytes(header(1, 1, version=2) + whole[28:])
    with pytest.raises(TooNew, match="format 2"):
        MemoryBackend.open(path, TABLES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_damaged_file_names_it(kind: type[Backend], tmp_path: Path) -> None:
    """Corruption carries the path."""
    path = copy_of(kind, tmp_path / "copy")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(Corruption, match="copy") as caught:
        kind.open(path, TABLES, immutable=True)
    assert caught.value.path == os.fspath(path)


@pytest.mark.parametrize("page", [0, 1])
def test_an_overwritten_lmdb_meta_page_is_damage(page: int, tmp_path: Path) -> None:
    """Either meta page missing is damage, not a foreign file."""
    path = copy_of(LMDBBackend, tmp_path / "copy")
    flip(path, page * 4096, bytes(200))
    with pytest.raises(Corruption, match="meta page"):
        LMDBBackend.open(path, TABLES)


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    """A process that died while it made the file may leave it empty: the next one makes it anew."""
    for kind in PERSISTENT:
        path = tmp_path / kind.name
        path.touch()
        db = kind.open(path, TABLES)
        put(db, [(b"a", b"1")])
        assert db.get("latest", b"a") == b"1"
        db.close()


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An SQLite that can corrupt databases in WAL mode is not used."""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(MissingDependency, match=r"3\.51\.3"):
        SQLiteBackend.open(tmp_path / "db", TABLES)
    assert not (tmp_path / "db").exists()


def test_an_sqlite_without_carray_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An SQLite that lacks the extension which looks up many keys at once is refused at open, not at the first read."""
    monkeypatch.setattr(apsw, "compile_options", ("THREADSAFE=1",))
    with pytest.raises(MissingDependency, match="carray"):
        SQLiteBackend.open(tmp_path / "db", TABLES)


def test_a_schema_that_could_run_statements_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trigger smuggled into an SQLite file is found at open, which then waits for no reader: there is none."""
    monkeypatch.setattr(sqlite, "CLOSE_WAIT_SECONDS", 1e6)
    path = copy_of(SQLiteBackend, tmp_path / "copy")
    connection = apsw.Connection(os.fspath(path))
    connection.execute("CREATE TRIGGER t AFTER INSERT ON latest BEGIN DELETE FROM meta; END")
    connection.close()
    with pytest.raises(Corruption, match="not a table of kvstore"):
        SQLiteBackend.open(path, TABLES)


def test_lmdb_meta_pages_that_make_no_sense_are_refused() -> None:
    """A page of zeros, one cut short, and one with an impossible page size have no meta."""
    for data in (bytes(152), b"short"):
        with pytest.raises(ValueError, match="meta page"):
            parse_meta(data, 0)


# --- LMDB ---------------------------------------------------------------------------------------


def test_the_map_grows_by_itself(tmp_path: Path) -> None:
    """Batches many times the size of the map are written whole, seen by reads inside them too."""
    db = TinyMap.open(tmp_path / "db", TABLES)
    for batch in range(4):
        with db.write() as tx:
            for part in range(5):
                tx.put_many("latest", [(b"%d-%d-%d" % (batch, part, n), b"x" * 500) for n in range(500)])
                tx.put_many("latest", [(b"l" * 700 + b"%d%d" % (batch, part), b"x")])
            tx.delete_many("latest", [b"%d-%d-%d" % (batch, 0, n) for n in range(500)])
            assert tx.count("latest") == (batch + 1) * 2005
    assert db.get("latest", b"3-4-499") == b"x" * 500
    db.check()
    db.close()
    with lmdb.open(os.fspath(tmp_path / "db"), subdir=False, readonly=True) as environment:
        assert environment.info()["last_pgno"] * 4096 > 16 * TinyMap.map_bytes


def test_a_growing_map_waits_for_views(tmp_path: Path) -> None:
    """A batch that needs a larger map is held until the open view is closed, and the view stays whole."""
    db = TinyMap.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    view = db.read()
    writer = threading.Thread(target=put, args=(db, [(b"%d" % n, b"x" * 4000) for n in range(500)]))
    writer.start()
    try:
        while not db._growing:
            time.sleep(0.001)
        assert view.scan("latest") == [(b"a", b"1")]
        assert writer.is_alive()
    finally:
        view.close()
        writer.join()
    assert db.get("latest", b"499") == b"x" * 4000
    db.close()


def test_reads_go_on_while_the_map_grows(tmp_path: Path) -> None:
    """Point reads and views in other threads never fail because the map is exchanged under them."""
    db = TinyMap.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    stop, errors = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                assert db.get("latest", b"a") == b"1"
                with db.read() as view:
                    assert view.get("latest", b"a") == b"1"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for batch in range(8):
            put(db, [(b"%d-%d" % (batch, n), b"x" * 4000) for n in range(100 << (batch // 2))])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    db.close()
    assert errors == []


def test_a_view_that_is_in_the_way_for_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten view cannot hold a writer for ever: it ends with a typed error, and the batch goes in."""
    monkeypatch.setattr(lmdb_module, "GROW_WAIT_SECONDS", 0.01)
    db = TinyMap.open(tmp_path / "db", TABLES)
    view = db.read()
    put(db, [(b"%d" % n, b"x" * 4000) for n in range(500)])
    with pytest.raises(StateError):
        view.scan("latest")
    view.close()
    assert db.get("latest", b"1") == b"x" * 4000
    db.close()


def test_a_refused_map_is_asked_for_again_at_half_the_size(tmp_path: Path) -> None:
    """Where addresses are scarce, the store opens with a smaller map."""
    run = in_python(
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))\n"
        "db = kind.open(path, TABLES)\n"
        "with db.write() as tx: tx.put_many('latest', [(b'a', b'1')])\n"
        "print(db.get('latest', b'a'), db.environment.info()['map_size'] < 1 << 32)\n",
        LMDBBackend,
        tmp_path / "db",
    )
    assert run == "b'1' True\n"


def test_an_lmdb_file_opens_once_in_a_process(tmp_path: Path) -> None:
    """A second opening in the same process would break the locks of the first, and is refused."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    with pytest.raises(StoreLocked):
        LMDBBackend.open(tmp_path / "db", TABLES, read_only=True)
    put(db, [(b"a", b"1")])
    db.close()


def test_deleting_long_keys_leaves_nothing(tmp_path: Path) -> None:
    """The tree of long keys is empty again when its keys are gone, with no links left over."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    keys = [
        b"a" * size + tail for size in range(600, 6 * SLICE, SLICE // 2) for tail in (b"", b"b", b"c" * 900)
    ]
    put(db, [(key, b"v") for key in keys])
    with db.write() as tx:
        tx.delete_many("latest", keys[::2])
        assert tx.scan("latest") == [(key, b"v") for key in sorted(keys[1::2])]
        tx.delete_many("latest", keys)
    with db.environment.begin() as tx:
        assert tx.stat(db.long["latest"])["entries"] == 0
    db.close()


def test_a_damaged_tree_of_long_keys_is_a_typed_error(tmp_path: Path) -> None:
    """A row of the tree that makes no sense, or a link in a circle, raises ``Corruption``."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    key = b"a" * 2000
    put(db, [(key, b"v")])
    deep = bytes(8) + b"a" * SLICE + b"\0"
    circle = b"\1" + bytes(8)
    for damage in (b"", b"\0", b"\0\xff\xff\xff\xff", b"\1", b"\1" + bytes(9), b"\7" * 20, circle):
        with db.environment.begin(write=True) as tx:
            tx.put(deep, damage, db=db.long["latest"])
        with pytest.raises(Corruption, match="long key"), db.read() as view:
            view.scan("latest")
        if damage != circle:  # a lookup ends with its key
            with pytest.raises(Corruption, match="long key"):
                db.get("latest", key)
    db.close()


# --- SQLite -------------------------------------------------------------------------------------


def test_threads_that_end_leave_no_connections(tmp_path: Path) -> None:
    """There are as many connections as there were reads at one time, however many threads there were."""
    db = SQLiteBackend.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    for _ in range(30):
        thread = threading.Thread(target=db.get, args=("latest", b"a"))
        thread.start()
        thread.join()
    assert len(db._connections) == 2  # the writer's, and one that every thread borrowed
    db.close()


def test_no_read_pins_the_log(tmp_path: Path) -> None:
    """After any kind of read the whole log can move into the file: no statement was left half-way."""
    db = SQLiteBackend.open(tmp_path / "db", TABLES)
    put(db, [(b"%d" % n, b"x") for n in range(100)])
    db.get("latest", b"1")
    with db.read() as view:
        view.get("latest", b"1")
        view.get_many("latest", [b"1", b"2"])
        view.scan("latest", limit=3)
        view.count("latest", b"5")
    put(db, [(b"new", b"x")])
    assert db._writer is not None
    total, moved = db._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    assert total == moved > 0
    db.close()


def test_sync_keeps_the_log_short(tmp_path: Path) -> None:
    """With a sync after every batch the log does not grow with what was written."""
    db = SQLiteBackend.open(tmp_path / "db", TABLES)
    for batch in range(30):
        put(db, [(b"%d" % n, b"%d" % batch * 300) for n in range(300)])
        db.sync()
    assert (tmp_path / "db-wal").stat().st_size < 2 << 20
    db.close()
    assert not (tmp_path / "db-wal").exists()


def test_a_name_of_a_table_is_only_a_name(tmp_path: Path) -> None:
    """Names with quotes and spaces are tables like any other."""
    table = 'a "quoted"; DROP TABLE latest'
    for kind in KINDS:
        db = kind.open(tmp_path / kind.name, [*TABLES, table])
        with db.write() as tx:
            tx.put_many(table, [(b"a", b"1")])
        assert db.get(table, b"a") == b"1"
        assert db.get("latest", b"a") is None
        db.close()


# --- the disk -----------------------------------------------------------------------------------


def in_python(code: str, kind: type[Backend], path: Path) -> str:
    preamble = (
        "import importlib, sys\nfrom pathlib import Path\nfrom kvstore.errors import *\n"
        f"kind = getattr(importlib.import_module({kind.__module__!r}), {kind.__name__!r})\n"
        f"path = Path({os.fspath(path)!r}); TABLES = {TABLES!r}\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", preamble + code], cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout


@pytest.mark.parametrize("kind", PERSISTENT)
def test_a_full_disk_is_a_typed_error(kind: type[Backend], tmp_path: Path) -> None:
    """A batch or copy that finds no room raises ``DiskFull``; what was committed stays, and there is a next time."""
    out = in_python(
        "import resource\n"
        "db = kind.open(path, TABLES)\n"
        "with db.write() as tx: tx.put_many('latest', [(b'a', b'1')])\n"
        "db.sync()\n"
        "unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, unlimited[1]))\n"
        "try:\n"
        "    with db.write() as tx: tx.put_many('latest', [(b'%d' % n, b'x' * 4000) for n in range(2000)])\n"
        "except DiskFull: print('batch')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)\n"
        "with db.read() as view: print(view.scan('latest'))\n"
        "with db.write() as tx: tx.put_many('latest', [(b'%d' % n, b'x' * 4000) for n in range(2000)])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, unlimited[1]))\n"
        "try: db.copy_to(path.with_name('copy'))\n"
        "except DiskFull: print('copy', path.with_name('copy').exists())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)\n"
        "db.check(); db.close()\n",
        kind,
        tmp_path / "db",
    )
    assert out == "batch\n[(b'a', b'1')]\ncopy False\n"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        folder.rmdir()
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


@pytest.mark.parametrize("kind", PERSISTENT)
def test_a_full_file_system_is_a_typed_error(kind: type[Backend], small_disk: Path) -> None:
    """The same on a file system that really is full."""
    db = kind.open(small_disk / "db", TABLES)
    put(db, [(b"a", b"1")])
    with pytest.raises(DiskFull):
        put(db, [(b"%d" % n, b"x" * 4000) for n in range(2000)])
    with db.read() as view:
        assert view.scan("latest") == [(b"a", b"1")]
    put(db, [(b"b", b"2")])
    db.check()
    db.close()


@pytest.mark.parametrize("kind", PERSISTENT)
def test_a_copy_takes_the_place_of_a_file_that_others_read(kind: type[Backend], tmp_path: Path) -> None:
    """With its stale helpers removed, a copy renamed over the file is complete, whoever still reads the old one."""
    path = tmp_path / "db"
    db = kind.open(path, TABLES)
    for n in range(200):
        put(db, [(b"%d" % n, b"x" * 100)])
    reader = (
        "db = kind.open(path, TABLES, read_only=True)\n"
        "print(len(db.get('latest', b'0')), flush=True); input()\n"
        "with db.read() as view: print(view.count('latest'), flush=True)\n"
    )
    preamble = (
        "import importlib, sys\nfrom pathlib import Path\n"
        f"kind = getattr(importlib.import_module({kind.__module__!r}), {kind.__name__!r})\n"
        f"path = Path({os.fspath(path)!r}); TABLES = {TABLES!r}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", preamble + reader],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "100\n"
        db.copy_to(tmp_path / "copy")
        db.close()
        for file in kind.stale_helpers(path):
            file.unlink(missing_ok=True)
        os.replace(tmp_path / "copy", path)
        db = kind.open(path, TABLES)
        for n in range(200, 250):
            put(db, [(b"%d" % n, b"y" * 100)])
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.read() == "200\n"
    with db.read() as view:
        assert view.count("latest") == 250
    db.check()
    db.close()
    db = kind.open(path, TABLES)
    assert db.get("latest", b"249") == b"y" * 100
    db.close()


def test_an_sqlite_log_that_is_still_needed_is_not_stale(tmp_path: Path) -> None:
    """While another process holds an old view, the log keeps commits, and removing it is refused."""
    path = tmp_path / "db"
    db = SQLiteBackend.open(path, TABLES)
    put(db, [(b"a", b"1")])
    other = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM latest").fetchall()
    put(db, [(b"b", b"2")])
    db.close()
    with pytest.raises(StoreLocked):
        SQLiteBackend.stale_helpers(path)
    other.close(True)
    db = SQLiteBackend.open(path, TABLES)
    assert db.get("latest", b"b") == b"2"
    db.close()


# --- all agree ----------------------------------------------------------------------------------

SHAPES = st.sampled_from([1, 2, SLICE - 1, SLICE, SLICE + 1, 509, 510, 511, 512, 513, 2 * SLICE, 1600, 3000])
KEYS = st.one_of(
    st.binary(min_size=1, max_size=4),
    st.builds(
        lambda byte, size, tail: (bytes([byte]) * size + tail)[:3010],
        st.sampled_from([0, 97, 255]),
        SHAPES,
        st.sampled_from([b"", b"\0", b"\1", b"a", b"\xff", b"\0" * SLICE, b"b" * 600]),
    ),
)
ROWS = st.lists(st.tuples(KEYS, st.binary(max_size=40)), max_size=12)
BOUNDS = st.one_of(st.just(b""), KEYS)


class BackendsAgree(RuleBasedStateMachine):
    """Random batches, reads, copies and reopenings, through all backends at once."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.db = Mirror.open(self.folder / "db", TABLES)
        self.copies = 0

    @rule(rows=ROWS, deleted=st.lists(KEYS, max_size=4), table=st.sampled_from(TABLES), fails=st.booleans())
    def batch(self, rows: list[tuple[bytes, bytes]], deleted: list[bytes], table: str, fails: bool) -> None:
        try:
            with self.db.write() as tx:
                tx.put_many(table, rows)
                tx.delete_many(table, deleted)
                tx.scan(table)
                if fails:
                    raise InterruptedError
        except InterruptedError:
            pass

    @rule(data=st.data())
    def delete_what_is_there(self, data: st.DataObject) -> None:
        with self.db.read() as view:
            keys = [key for key, _ in view.scan("latest")]
        if keys:
            with self.db.write() as tx:
                tx.delete_many("latest", data.draw(st.lists(st.sampled_from(keys), max_size=6)))

    @rule(start=BOUNDS, end=st.none() | BOUNDS, limit=st.integers(0, 5), reverse=st.booleans())
    def scan(self, start: bytes, end: bytes | None, limit: int, reverse: bool) -> None:
        with self.db.read() as view:
            view.scan("latest", start, end, limit=limit, reverse=reverse)
            view.count("latest", start, end)

    @rule(keys=st.lists(KEYS, max_size=5))
    def get(self, keys: list[bytes]) -> None:
        with self.db.read() as view:
            view.get_many("latest", keys)
        for key in keys:
            self.db.get("latest", key)

    @rule()
    def carry_on_from_a_copy(self) -> None:
        self.copies += 1
        copy = self.folder / f"copy{self.copies}"
        self.db.copy_to(copy)
        with self.db.read() as view:
            before = [view.scan(table) for table in TABLES]
        self.db.check()
        self.db.close()
        self.db = Mirror.open(copy, TABLES)
        with self.db.read() as view:
            assert [view.scan(table) for table in TABLES] == before

    @invariant()
    def same_rows(self) -> None:
        with self.db.read() as view:
            rows = view.scan("latest")
            assert view.scan("latest", reverse=True) == rows[::-1]
            assert rows == sorted(rows)

    def teardown(self) -> None:
        self.db.close()
        shutil.rmtree(self.folder)


BackendsAgree.TestCase.settings = settings(
    max_examples=60, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
)
TestBackendsAgree = BackendsAgree.TestCase


def test_the_mirror_sees_a_difference(tmp_path: Path) -> None:
    """A row that one backend has and another has not is reported, whoever asks for it."""
    db = Mirror.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    put(db.backends[1], [(b"b", b"2")])
    with pytest.raises(Disagreement, match="SQLiteBackend"):
        db.get("latest", b"b")
    with db.read() as view:
        assert view.get("latest", b"a") == b"1"
        for ask in (lambda: view.scan("latest"), lambda: view.count("latest")):
            with pytest.raises(Disagreement):
                ask()
    db.close()


class _CountedCursor:
    """A cursor that counts the rows that are read from it."""

    def __init__(self, cursor: lmdb.Cursor[bytes]) -> None:
        self._cursor = cursor
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def iternext(self) -> Iterator[tuple[bytes, bytes]]:
        for row in self._cursor.iternext():
            self.rows += 1
            yield row


def test_a_long_scan_reads_little_beyond_its_end(tmp_path: Path) -> None:
    """However many rows a scan returns, it reads less than one chunk past them."""
    keys = [b"%05d" % number for number in range(3000)]
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    with db.write() as batch:
        batch.put_many("latest", [(key, b"v") for key in keys])
    with db.environment.begin() as tx:
        for end in (1, 64, 65, 1000, 1984):
            cursor = _CountedCursor(tx.cursor(db.short["latest"]))
            rows = lmdb_tx._scan(cast(Any, cursor), b"", keys[end], 0, False)
            assert [key for key, _ in rows] == keys[:end]
            assert cursor.rows <= end + lmdb_tx.CHUNK_ROWS
    db.close()
