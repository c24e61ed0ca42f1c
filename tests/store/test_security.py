"""What a store's files may not do to its user, and other users not to the files."""

from __future__ import annotations

import ast
import hashlib
import os
import random
import resource
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import KVStoreError
from kvstore.offline.migration import migrate, plan
from kvstore.snapshot.manifest import encode_tail
from kvstore.snapshot.reader import read_info
from kvstore.verification import heal

BACKENDS = ["lmdb", "sqlite"]
ALL_BACKENDS = [*BACKENDS, "memory"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, str]:
    """Everything below ``root`` that others could look at or change."""
    found = {}
    for path in [root, *root.rglob("*")]:
        mode = path.lstat().st_mode
        if stat.S_IMODE(mode) != (0o700 if stat.S_ISDIR(mode) else 0o600):
            found[str(path.relative_to(root))] = oct(mode)
    return found


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_everything_a_store_makes_is_for_its_owner_alone(tmp_path: Path, backend: str) -> None:
    """Segments, snapshots, copies, archives and the backend's helpers are 0600, folders 0700, at any umask."""
    root = tmp_path / "root"
    with umask(0):
        root.mkdir(mode=0o700)
        options: dict[str, Any] = {"wal_file_size": 2000, "max_wals": 1, "archive_dir": str(root / "archive")}
        with kvstore.open(root / "store", backend, **options) as store:
            for number in range(40):
                store.put(b"%d" % number, b"v" * 200)
            store.compact(20, physical=True)
            store.snapshot()
            store.snapshot(root / "copy.snap")
            store.defragment()
            store.checkpoint()
            assert modes(root) == {}
        kvstore.restore(root / "copy.snap", root / "restored")
        with kvstore.open(root / "restored", backend) as store:
            store.put(b"k")
            assert modes(root) == {}
    assert modes(root) == {}


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_what_recovery_makes_is_for_its_owner_alone(tmp_path: Path, backend: str) -> None:
    """Copies set aside and a backend that was replaced are 0600 too."""
    with kvstore.open(tmp_path / "store", backend) as store:
        store.put(b"k", b"v" * 100)
        store.snapshot()
        store.put(b"in the torn record", b"v" * 100)
    segment = next((tmp_path / "store" / "wal").iterdir())
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-20])
    if backend != "memory":
        db = tmp_path / "store" / "snap" / "db"
        db.write_bytes(b"\xff" * db.stat().st_size)
    with umask(0), kvstore.open(tmp_path / "store", backend) as store:
        assert store.get(b"k") is not None
    assert modes(tmp_path / "store") == {}


# --- links and paths ------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file of somebody else; it must be the same afterwards."""
    path = tmp_path / "outside"
    path.write_bytes(b"precious" * 1000)
    yield path
    assert path.read_bytes() == b"precious" * 1000


def names_in(store: Path, place: str) -> Path:
    """The file that ``place`` stands for in a store."""
    match place:
        case "segment":
            return next((store / "wal").iterdir())
        case "next segment":
            segment = next((store / "wal").iterdir())
            return segment.with_name(segment.name + ".tmp")
        case "snapshot":
            return next((store / "snap").glob("*.snap"))
    return store / place


PLACES = [
    "LOCK",
    "snap/db",
    "snap/db.tmp",
    "snap/db-lock",
    "snap/db-wal",
    "segment",
    "next segment",
    "snapshot",
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_the_data_directory_is_not_written_through(
    tmp_path: Path, outside: Path, place: str, backend: str
) -> None:
    """Whatever file of the store is a symbolic link: the target stays as it is, and failures are typed."""
    directory = tmp_path / "store"
    with kvstore.open(directory, backend) as store:
        store.put(b"k", b"v")
        store.snapshot()
    path = names_in(directory, place)
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    try:
        with kvstore.open(directory, backend, background=False) as store:
            store.put(b"k", b"w")
            store.checkpoint()
            store.defragment()
    except KVStoreError:
        pass


UPKEEP: dict[str, Callable[[Path], object]] = {
    "verify": kvstore.verify,
    "verify deeply": lambda path: kvstore.verify(path, deep=True),
    "heal": heal,
    "doctor": kvstore.doctor,
    "migrate": lambda path: migrate(plan(path)),
}


@pytest.mark.parametrize("what", UPKEEP)
@pytest.mark.parametrize("place", ["LOCK", "snap/db", "snap/db-lock", "snap/db-wal"])
def test_upkeep_does_not_write_through_a_link(tmp_path: Path, outside: Path, place: str, what: str) -> None:
    """Whoever looks at a store, mends or changes it refuses links as opening does (regression: liblmdb wrote through
    the one in place of its lock file)."""
    for backend in BACKENDS:
        directory = tmp_path / backend
        with kvstore.open(directory, backend, background=False) as store:
            store.put(b"k", b"v")
        path = directory / place
        path.unlink(missing_ok=True)
        path.symlink_to(outside)
        with pytest.raises(kvstore.NotAStore, match="symbolic link"):
            UPKEEP[what](directory)


@pytest.mark.parametrize("place", ["target", "target.restoring", "target.restoring/snap"])
def test_a_restore_does_not_follow_links(tmp_path: Path, place: str) -> None:
    """A link where a restore builds or where it is to end is refused or removed, never followed."""
    with kvstore.open(tmp_path / "store") as store:
        store.put(b"k", b"v")
        store.snapshot(tmp_path / "copy.snap")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"1")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(elsewhere)
    try:
        kvstore.restore(tmp_path / "copy.snap", tmp_path / "target")
    except (KVStoreError, OSError) as error:
        assert isinstance(error, KVStoreError), f"an untyped error: {error!r}"
    assert sorted(path.name for path in elsewhere.iterdir()) == ["precious"]


def test_names_in_a_snapshot_are_not_paths(tmp_path: Path) -> None:
    """Names in a manifest (of the backend, of the member) choose no file and no module."""
    with kvstore.open(tmp_path / "store", name="../../../tmp/evil") as store:
        store.put(b"k", b"v")
        store.snapshot(tmp_path / "copy.snap")
    before = sorted(tmp_path.rglob("*"))
    kvstore.restore(tmp_path / "copy.snap", tmp_path / "restored")
    made = set(tmp_path.rglob("*")) - set(before)
    assert all(tmp_path / "restored" in [path, *path.parents] for path in made)


@pytest.mark.parametrize("name", ["os", "../evil", "kvstore.backends.lmdb:LMDBBackend", "lmdb\0"])
def test_a_backend_is_only_found_among_the_installed(tmp_path: Path, name: str) -> None:
    """The name of a backend is looked up, never imported."""
    with pytest.raises(KVStoreError):
        kvstore.open(tmp_path / "store", name)


# --- code -----------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve"}
SAFE_IN_YAML = {"safe_load", "YAMLError"}
"""All that may be used of a module that can build any object."""
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def offences(tree: ast.AST) -> list[str]:
    """Ways to make code out of bytes."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in FORBIDDEN_MODULES | {"yaml"}:
                found.append(str(node.module))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml":
            found += [f"yaml.{node.attr}"] * (node.attr not in SAFE_IN_YAML)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] * (node.func.id in FORBIDDEN_CALLS)
    return found


def test_nothing_turns_bytes_into_code(project: Path) -> None:
    """No module of the package imports pickle or its like, or calls eval or exec."""
    for folder in ("kvstore", "backends", "migrations", "tools"):
        for path in (project / folder).rglob("*.py"):
            if "benchmarks" not in path.parts:  # other stores, measured, may do as they like
                assert offences(ast.parse(path.read_text())) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "exec(x)",
        "yaml.load(x)",
        "from yaml import load",
    ],
)
def test_code_out_of_bytes_is_seen(line: str) -> None:
    """The search above finds what it is for."""
    assert offences(ast.parse(line))


def test_a_hostile_schema_is_not_run(tmp_path: Path) -> None:
    """An SQLite file with triggers of somebody else is set aside before a statement runs."""
    apsw = pytest.importorskip("apsw")
    with kvstore.open(tmp_path / "store", "sqlite") as store:
        store.put(b"k", b"v")
        store.snapshot()
    db = tmp_path / "store" / "snap" / "db"
    connection = apsw.Connection(str(db))
    connection.execute("CREATE TABLE loot(x)")
    connection.execute("CREATE TRIGGER t AFTER INSERT ON latest BEGIN INSERT INTO loot VALUES (1); END")
    connection.close()
    with kvstore.open(tmp_path / "store", "sqlite") as store:
        store.put(b"l", b"w")
        store.checkpoint()
        assert store.get(b"k") is not None
    connection = apsw.Connection(str(db))
    assert not connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('t', 'loot')").fetchall()
    connection.close()


# --- hostile files --------------------------------------------------------------------------------

HOSTILE = """
import random, shutil, sys
from pathlib import Path
import kvstore
from kvstore.errors import KVStoreError
from tests.store.test_security import resealed, spoiled
good, count, backend = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
chance = random.Random(backend)
seen = set()
for number in range(count):
    path = good.with_name("hostile.snap")
    path.write_bytes(resealed(good, spoiled(good, chance)))
    target = good.with_name("restored")
    try:
        with kvstore.open_snapshot(path, verify=True) as snapshot:
            for revision in (2, 100, snapshot.revision):
                list(snapshot.scan(prefix=b"", revision=revision))
            list(snapshot.history(b"k7"))
            snapshot.hash_kv()
        seen.add("read")
        kvstore.restore(path, target)
        with kvstore.open(target, backend, background=False) as store:
            store.put(b"k7", b"w" * 5000)
            store.checkpoint()
            store.compact(store.revision)
            store.defragment()
        seen.add("restored")
    except KVStoreError:
        seen.add("refused")
    shutil.rmtree(target, ignore_errors=True)
print(*sorted(seen))
"""


def spoiled(snapshot: Path, chance: random.Random) -> bytes:
    """The backend copy of a snapshot with a few changes, most of them where pages have their structure."""
    copy = bytearray(snapshot.read_bytes()[: read_info(snapshot).backend_bytes])
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(0, len(copy), 4096) + chance.choice(
            (chance.randrange(48), chance.randrange(4096))
        )
        match chance.randrange(3):
            case 0:
                copy[at] ^= 1 << chance.randrange(8)
            case 1:
                copy[at : at + 2] = chance.randbytes(2)
            case 2:
                copy[at : at + 8] = chance.choice(
                    (b"\xff" * 8, bytes(8), chance.randrange(40).to_bytes(8, "little"))
                )
    return bytes(copy[: read_info(snapshot).backend_bytes])


def resealed(snapshot: Path, copy: bytes) -> bytes:
    """A snapshot of that content whose checksums are all right, as somebody hostile would make it."""
    info = read_info(snapshot)
    return copy + encode_tail(replace(info, sha256=hashlib.sha256(copy).digest(), backend_bytes=len(copy)))


def try_hostile_snapshots(project: Path, folder: Path, backend: str, count: int) -> None:
    with kvstore.open(folder / "store", backend, background=False) as store:
        for number in range(300):
            store.put(b"k%d" % (number % 90), b"v" * (number * 7 % 400))
        store.put(b"long" * 300, b"x" * 9000)
        store.checkpoint()
        store.delete(prefix=b"k1")
        store.snapshot(folder / "good.snap")
    command = [sys.executable, "-c", HOSTILE, str(folder / "good.snap"), str(count), backend]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-3000:]}"
    assert done.stdout.split() == ["read", "refused", "restored"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hostile_snapshot_cannot_end_the_process(project: Path, tmp_path: Path, backend: str) -> None:
    """Changed anywhere, with checksums that are right: verified or restored, it is refused or read (regression: LMDB
    followed its page numbers out of the file)."""
    try_hostile_snapshots(project, tmp_path, backend, 60)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", BACKENDS)
def test_thousands_of_hostile_snapshots(project: Path, tmp_path: Path, backend: str) -> None:
    """The same, 3000 times."""
    try_hostile_snapshots(project, tmp_path, backend, 3000)


# --- memory ---------------------------------------------------------------------------------------

MEMORY_MAX_BYTES = 700_000_000

PROBE = """
import resource, sys, kvstore
from kvstore import verification
from kvstore.errors import KVStoreError
{load}
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + {most}, size + {most}))
try:
    {action}
except KVStoreError as error:
    print("typed", type(error).__name__)
else:
    print("fine")
"""


def probe(action: str, load: str = "") -> str:
    """Run ``action`` in a process of bounded memory; how it ended."""
    code = PROBE.format(action=action, load=textwrap.dedent(load), most=MEMORY_MAX_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("length", [1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_huge_length_in_the_log_allocates_nothing(tmp_path: Path, length: int) -> None:
    """A frame that claims to be huge is a typed error, or a torn tail, in bounded memory."""
    with kvstore.open(tmp_path / "store", "memory") as store:
        store.put(b"k", b"v")
    segment = next((tmp_path / "store" / "wal").iterdir())
    content = bytearray(segment.read_bytes())
    for at in (0, content.rstrip(b"\0").__len__() + 7 & ~7):  # the first frame, and one behind the last
        damaged = content[:]
        damaged[at : at + 8] = length.to_bytes(8, "little")
        segment.write_bytes(damaged)
        assert probe(f"kvstore.open({str(tmp_path / 'store')!r}, 'memory', background=False).close()")


def sparse(path: Path, size_bytes: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size_bytes)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_huge_sparse_snapshot_is_refused_in_bounded_memory(tmp_path: Path, backend: str) -> None:
    """A snapshot of many sparse gigabytes with a footer's bytes anywhere is not read into memory."""
    with kvstore.open(tmp_path / "store", backend) as store:
        store.put(b"k", b"v")
        store.snapshot(tmp_path / "copy.snap")
    tail = (tmp_path / "copy.snap").read_bytes()[-400:]
    sparse(tmp_path / "copy.snap", 1 << 36)
    assert probe(f"kvstore.open_snapshot({str(tmp_path / 'copy.snap')!r})").startswith("typed")
    with open(tmp_path / "copy.snap", "ab") as file:
        file.write(tail)
    assert probe(f"kvstore.open_snapshot({str(tmp_path / 'copy.snap')!r})").startswith("typed")


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_huge_lock_file_is_not_read(tmp_path: Path, backend: str) -> None:
    """The text of the holder is bounded, whatever lies there."""
    with kvstore.open(tmp_path / "store", backend):
        pass
    sparse(tmp_path / "store" / "LOCK", 1 << 36)
    assert probe(f"kvstore.open({str(tmp_path / 'store')!r}, {backend!r}).close()") == "fine"


def test_the_limit_itself_bites() -> None:
    """The probe's limit is real: a gigabyte is refused."""
    with pytest.raises(AssertionError, match="MemoryError"):
        probe("bytearray(1_000_000_000)")
    assert resource.RLIMIT_AS
