"""What all backends do alike: they are found, tell their files apart, meet a full disk, and agree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import lmdb
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kvstore.backends.lmdb import LMDBBackend
from kvstore.backends.long_keys import SLICE
from kvstore.backends.memory import MemoryBackend
from kvstore.backends.memory_file import header
from kvstore.backends.sqlite import SQLiteBackend

from kvstore.backend import Backend, backend_names, find_backend, recognize_backend
from kvstore.errors import (
    Corruption,
    DiskFull,
    NotAStore,
    OpenError,
    TooNew,
    WrongStore,
)
from tests import PROJECT
from tests.backends.files import KINDS, TABLES, Mirror, copy_of, flip, in_python, put
from tests.backends.mirror_backend import Disagreement

PERSISTENT = [kind for kind in KINDS if kind.persistent]


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


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    """A process that died while it made the file may leave it empty: the next one makes it anew."""
    for kind in PERSISTENT:
        path = tmp_path / kind.name
        path.touch()
        db = kind.open(path, TABLES)
        put(db, [(b"a", b"1")])
        assert db.get("latest", b"a") == b"1"
        db.close()


# --- the disk -----------------------------------------------------------------------------------


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
