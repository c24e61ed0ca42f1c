"""Where a store lies: paths, locks, archives, owners, and copies of the directory."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import BadOption, Corruption, StoreLocked, StoreUnreachable, backup, layout, loops, shelter
from kvstore.store_lock import place_of
from kvstore.wal.archive import log_segments

BACKENDS = ("lmdb", "sqlite")
EVERYWHERE = (*BACKENDS, "memory")
SERVICE = 65534
SMALL: dict[str, Any] = {"wal_file_size": 20_000, "max_wals": 1, "max_snapshots": 1}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be root and another user")


def content(path: Path) -> dict[str, bytes]:
    """Every file of a store but the lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "LOCK"
    }


def write(path: Path, backend: str, value: bytes, count: int = 100, **options: object) -> int:
    """Put ``count`` keys, with segments given up on the way; the revision after that."""
    with kvstore.open(path, backend, **{**SMALL, **options}) as store:
        for number in range(count):
            store.put(b"k%05d" % number, value * 300)
            if number % 50 == 0:
                store.snapshot()
        store.snapshot()
        store.engine.snapshots.release()
        return store.revision


# --- held as it was opened -----------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Two folders A and B; the process is in A, and can go to B."""
    for name in "AB":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "A")
    yield tmp_path


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_a_change_of_the_working_directory_moves_nothing(elsewhere: Path, backend: str) -> None:
    """A store of relative paths stays where it was opened, its log and archive too; its namesake elsewhere is whole."""
    write(elsewhere / "B" / "data", backend, b"b", wal_dir=elsewhere / "B" / "log")
    before = content(elsewhere / "B")
    with kvstore.open("data", backend, wal_dir="log", archive_dir="archive", **SMALL) as store:
        os.chdir(elsewhere / "B")
        for number in range(300):
            store.put(b"k%d" % number, b"a" * 200)
        store.snapshot()
        store.engine.snapshots.release()
        store.compact(store.revision, physical=True)
        store.defragment()
    assert content(elsewhere / "B") == before
    assert layout.segments(elsewhere / "A" / "archive")
    with kvstore.open(elsewhere / "A" / "data", backend, wal_dir=elsewhere / "A" / "log") as store:
        assert store.count(prefix=b"k") == 300


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_paths_of_asynchronous_calls_are_those_of_the_call(
    elsewhere: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of the moment when it is awaited, or when its thread begins."""
    start = shelter.start

    def begin_elsewhere(thread: threading.Thread) -> None:
        os.chdir(elsewhere / "B")
        start(thread)

    async def use() -> None:
        opening = kvstore.open_async("data", backend, wal_dir="log")
        os.chdir(elsewhere / "B")
        store = await opening
        os.chdir(elsewhere / "A")
        await store.put(b"k", b"v")
        monkeypatch.setattr(loops, "start", begin_elsewhere)
        await store.snapshot("copy")
        await store.close()

    asyncio.run(use())
    assert not os.listdir(elsewhere / "B")
    assert {"data", "log", "copy"} <= set(os.listdir(elsewhere / "A"))


def test_a_relative_socket_is_that_of_the_moment_of_connecting(elsewhere: Path) -> None:
    """For connecting again, and for a connection that is awaited later."""

    async def count() -> int:
        connecting = kvstore.connect_async("unix://kv.sock")
        os.chdir(elsewhere / "B")
        async with connecting as client:
            return await client.count(prefix=b"")

    with kvstore.open_memory() as store:
        server = kvstore.serve(store, "unix://kv.sock")
        with kvstore.connect("unix://kv.sock") as client:
            client.put(b"k")
            assert asyncio.run(count()) == 1
            server.stop()
            with kvstore.serve(store, f"unix://{elsewhere / 'A' / 'kv.sock'}"):
                assert client.count(prefix=b"") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_of_the_working_directory_moves_no_copy(elsewhere: Path, backend: str) -> None:
    """Snapshots, being taken or open, verifications and backups are where they were asked for."""
    write(elsewhere / "A" / "data", backend, b"a", wal_dir=elsewhere / "A" / "log")

    def go_away(*_: object) -> None:
        os.chdir(elsewhere / "B")

    with kvstore.open("data", backend, wal_dir="log") as store:
        store.snapshot("copy", progress=go_away)
    os.chdir(elsewhere / "A")
    with kvstore.open_snapshot("copy") as snapshot:
        go_away()
        assert snapshot.get(b"k00000") is not None
        assert bytes(snapshot.view(b"k00000") or b"") == b"a" * 300
    os.chdir(elsewhere / "A")
    os.mkdir("scratch")
    assert kvstore.verify("data", deep=True, wal_dir="log", scratch_dir="scratch", progress=go_away).ok
    os.chdir(elsewhere / "A")
    following = backup.new_follower("data", "backup", options={"wal_dir": "log"}, work_dir="scratch")
    go_away()
    following.step()
    following.close()
    assert not os.listdir(elsewhere / "B")
    assert not os.listdir(elsewhere / "A" / "scratch")
    assert backup.restore(elsewhere / "A" / "backup", elsewhere / "new").revision == 101


def test_a_link_on_the_way_may_be_turned(tmp_path: Path) -> None:
    """A store is where the links led when it was opened."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "one")
    with kvstore.open(tmp_path / "current" / "data", **SMALL) as store:
        (tmp_path / "current").unlink()
        (tmp_path / "current").symlink_to(tmp_path / "two")
        for number in range(300):
            store.put(b"k%d" % number, b"v" * 200)
        store.snapshot()
    assert not list((tmp_path / "two").iterdir())
    with kvstore.open(tmp_path / "one" / "data") as store:
        assert store.count(prefix=b"k") == 300


@pytest.mark.parametrize("there", ["a copy", "another store", "nothing"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_directory_that_is_renamed_while_open(tmp_path: Path, backend: str, there: str) -> None:
    """Writes go on in the right files; what needs the path is ``StoreUnreachable``; what lies there is untouched."""
    path, moved = tmp_path / "data", tmp_path / "moved"
    write(path, backend, b"v")
    if there == "a copy":
        shutil.copytree(path, tmp_path / "other")
    elif there == "another store":
        write(tmp_path / "other", backend, b"o")
    store = kvstore.open(path, backend, **SMALL, background=False)
    path.rename(moved)
    if there != "nothing":
        (tmp_path / "other").rename(path)
    before = content(path)
    for number in range(300):
        store.put(b"m%d" % number, b"v" * 200)
    store.checkpoint()
    assert store.get(b"m7") is not None
    for upkeep in (store.snapshot, store.defragment):
        with pytest.raises(StoreUnreachable, match="put the directory back"):
            upkeep()
    store.status()
    store.close()
    assert content(path) == before
    with kvstore.open(moved, backend) as store:
        assert store.count(prefix=b"m") == 300
    assert kvstore.verify(moved).ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_names_need_not_be_utf_8(tmp_path: Path, backend: str) -> None:
    """A store, its log, archive, snapshots and a restore below a name in Latin-1."""
    top = tmp_path / os.fsdecode(b"caf\xe9")
    revision = write(top / "data", backend, b"v", archive_dir=top / "archive")
    with kvstore.open(top / "data", backend) as store:
        store.defragment()
        store.snapshot(top / "a.snap")
        with pytest.raises(StoreLocked):
            kvstore.open(top / "data", backend)
    kvstore.restore(top / "a.snap", top / "new")
    with kvstore.open(top / "new", backend) as store:
        assert store.revision == revision
    assert kvstore.verify(top / "data", deep=True).ok


# --- the lock ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_without_its_lock_file_a_store_is_still_locked(tmp_path: Path, backend: str) -> None:
    """Whoever removes LOCK of an open store, or lays another over it, lets nobody in."""
    with kvstore.open(tmp_path / "data", backend) as store:
        store.put(b"k", b"v")
        (tmp_path / "data" / "LOCK").unlink()
        for _ in range(2):
            with pytest.raises(StoreLocked):
                kvstore.open(tmp_path / "data", backend)
            (tmp_path / "data" / "LOCK").write_text("{}")
        (tmp_path / "data").rename(tmp_path / "renamed")
        with pytest.raises(StoreLocked):
            kvstore.open(tmp_path / "renamed", backend)
    with kvstore.open(tmp_path / "renamed", backend) as store:
        assert store.get(b"k") is not None


# --- archives ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_archive_is_shared_with_the_store_that_was_restored(tmp_path: Path, backend: str) -> None:
    """Each finds its own segments there."""
    archive = tmp_path / "archive"
    revision = write(tmp_path / "one", backend, b"1", 200, archive_dir=archive, max_snapshots=5)
    for name, before in (("two", "one"), ("three", "two")):
        kvstore.restore(tmp_path / before, tmp_path / name, archives=[archive], to_revision=revision - 30)
        revision = write(tmp_path / name, backend, name.encode(), 200, archive_dir=archive, max_snapshots=5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_with_the_same_archive_replaces_nothing(tmp_path: Path, backend: str) -> None:
    """Segments of a copy that went on are kept apart, and both are restored to what each was."""
    archive, original, copy = tmp_path / "archive", tmp_path / "original", tmp_path / "copy"
    write(original, backend, b"1", 20, archive_dir=archive)
    shutil.copytree(original, copy)
    revisions = {original: write(original, backend, b"2", 200, archive_dir=archive)}
    before = content(archive)
    assert before
    revisions[copy] = write(copy, backend, b"33", 300, archive_dir=archive)
    after = content(archive)
    assert {name: after.get(name) for name in before} == before
    assert len(after) > len(before)
    for path, value in ((original, b"2"), (copy, b"33")):
        kvstore.restore(path, tmp_path / "back", archives=[archive], to_revision=revisions[path] - 60)
        with kvstore.open(tmp_path / "back", backend) as store:
            assert store.get(b"k00050").value == value * 300  # type: ignore[union-attr]  # it is there
        shutil.rmtree(tmp_path / "back")
        chosen = log_segments([path / "wal", archive])
        assert chosen[0].index == 1
        assert [file.index for file in chosen] == sorted({file.index for file in chosen})


def test_an_archive_may_not_be_a_folder_of_a_store(tmp_path: Path) -> None:
    """Not of this one, nor of another, whatever path leads there."""
    write(tmp_path / "other", "lmdb", b"v")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "wal")
    for archive in ("data", "data/wal", "data/snap", "data/../data/wal", "link", "other/wal", "other"):
        with pytest.raises(BadOption, match="archive_dir must not be a folder of"):
            kvstore.open(tmp_path / "data", archive_dir=tmp_path / archive)


# --- copies of the directory ---------------------------------------------------------------


def hot_copy(tmp_path: Path, backend: str, *, whole_log: bool) -> Path:
    """A copy whose backend has pages of two moments, as one made while the store was in use."""
    path, copy = tmp_path / "data", tmp_path / "copy"
    options = {} if whole_log else SMALL
    store = kvstore.open(path, backend, background=False, **options)
    for number in range(2000):
        store.put_nowait(b"k%05d" % number, b"v" * 100)
        if number % 100 == 0:
            store.put(b"first", b"v")
    store.checkpoint()
    store.engine.snapshots.release()
    shutil.copytree(path, copy)
    for number in range(0, 2000, 2):
        store.put_nowait(b"k%05d" % number, b"w" * 100)
    store.put(b"last", b"v")
    store.checkpoint()
    store.engine.backend.sync()
    late = (path / "snap" / "db").read_bytes()
    shutil.rmtree(copy / "wal")
    shutil.copytree(path / "wal", copy / "wal")
    early = (copy / "snap" / "db").read_bytes()
    half = len(early) // 8192 * 4096
    (copy / "snap" / "db").write_bytes(late[:half] + early[half:])
    for helper in layout.helpers(copy / "snap" / "db"):  # what they held has been moved into the file
        helper.unlink()
    store.close()
    return copy


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_made_while_in_use_is_refused(tmp_path: Path, backend: str) -> None:
    """Where the log does not reach back it is ``Corruption`` that says what it is, for readers too."""
    copy = hot_copy(tmp_path, backend, whole_log=False)
    for read_only in (True, False):
        with pytest.raises(Corruption, match=r"copy that was made while .*snapshot save"):
            kvstore.open(copy, backend, read_only=read_only)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_made_while_in_use_is_rebuilt_of_the_whole_log(tmp_path: Path, backend: str) -> None:
    """Where the log has everything the backend is made anew of it."""
    copy = hot_copy(tmp_path, backend, whole_log=True)
    with kvstore.open(copy, backend) as store:
        values = [kv.value[:1] for kv in store.scan(prefix=b"k")]
    assert values == [b"w", b"v"] * 1000
    assert kvstore.verify(copy, deep=True).ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_of_one_moment_is_a_store(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a store that was closed, or of a killed one: looked through at most, and opened as it is."""
    store = kvstore.open(tmp_path / "data", backend, background=False)
    for number in range(300):
        store.put(b"k%d" % number, b"v")
        if number == 200:
            store.checkpoint()
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    store.close()
    shutil.copytree(tmp_path / "data", tmp_path / "closed")
    with caplog.at_level(logging.WARNING):
        for name in ("killed", "closed"):
            with kvstore.open(tmp_path / name, backend) as copy:
                assert copy.count(prefix=b"k") == 300
                directory = layout.DataDir.at(tmp_path / name)
                assert json.loads(directory.lock.read_text())["place"] == place_of(directory)
    assert not caplog.records


# --- restoring where there is a directory --------------------------------------------------


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_a_restore_fills_an_empty_directory_in_its_place(tmp_path: Path, backend: str) -> None:
    """It stays the same directory, which may be the root of a file system; what an interrupted one left is cleared."""
    write(tmp_path / "data", backend, b"v")
    target = tmp_path / "new"
    for folder in (".restoring/snap", ".restoring/wal", "lost+found"):
        (target / folder).mkdir(parents=True)
    (target / ".restoring" / "snap" / "db").write_text("half")
    before = target.stat().st_ino
    with pytest.raises(kvstore.NotAStore):
        kvstore.open(target, backend)
    kvstore.restore(tmp_path / "data", target, backend=backend)
    assert target.stat().st_ino == before
    assert sorted(os.listdir(target)) == ["lost+found", "snap", "wal"]
    with kvstore.open(target, backend) as store:
        assert store.count(prefix=b"k") == 100
    with pytest.raises(kvstore.WrongStore):
        kvstore.restore(tmp_path / "data", target, backend=backend)


MOUNT = """
import os, subprocess, sys
from pathlib import Path
import kvstore
top, backend = Path(sys.argv[1]), sys.argv[2]
for name in ("volume", "root"):
    (top / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / name], check=True)
(top / "root" / "data").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "root" / "data"], check=True)
subprocess.run(["mount", "-o", "remount,ro", top / "root"], check=True)
for target in (top / "volume", top / "root" / "data"):
    kvstore.restore(top / "a.snap", target)
    with kvstore.open(target, backend) as store:
        assert store.count(prefix=b"k") == 100
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restore_onto_a_mount_point(tmp_path: Path, backend: str) -> None:
    """A volume, also one below a folder that cannot be written."""
    how = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*how, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no mount namespace is to be had here")
    write(tmp_path / "data", backend, b"v")
    with kvstore.open(tmp_path / "data", backend) as store:
        store.snapshot(tmp_path / "a.snap")
    subprocess.run([*how, sys.executable, "-c", MOUNT, tmp_path, backend], check=True)


# --- rights --------------------------------------------------------------------------------


@pytest.fixture
def without_rights() -> list[str]:
    """What to put before a command, so that the system refuses it what a file's mode does not allow."""
    if os.geteuid():
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the system refuses root nothing, and setpriv does not change that: {error}")
    return command


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_a_place_that_this_user_may_not_use_is_named(
    scratch: Path, backend: str, without_rights: list[str]
) -> None:
    """Opened, or already open: the error names place and remedy; writes go on, nothing is poisoned or lost."""
    program = [sys.executable, "-m", "tests.harness.without_rights", str(scratch / "data"), backend]
    done = subprocess.run([*without_rights, *program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr[-2000:]


# --- upkeep by root ------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("backend", BACKENDS)
def test_upkeep_by_root_leaves_the_files_to_their_owner(tmp_path: Path, backend: str) -> None:
    """Whatever root does to a store of somebody else, all of its files belong to that one afterwards."""
    path = tmp_path / "data"
    write(path, backend, b"v")
    for file in (path, *path.rglob("*")):
        os.chown(file, SERVICE, SERVICE)
    write(path, backend, b"w", 200)
    with kvstore.open(path, backend, **SMALL) as store:
        store.compact(store.revision, physical=True)
        store.defragment()
        store.snapshot()
    assert kvstore.verify(path).ok
    (path / "LOCK").unlink()
    kvstore.open(path, backend).close()
    assert {file.stat().st_uid for file in (path, *path.rglob("*"))} == {SERVICE}
    (tmp_path / "new").mkdir()
    os.chown(tmp_path / "new", SERVICE, SERVICE)
    kvstore.restore(path, tmp_path / "new")
    assert {file.stat().st_uid for file in (tmp_path / "new").rglob("*")} == {SERVICE}


# --- beside a busy writer ------------------------------------------------------------------

BUSY = """
import sys, kvstore
options = {"wal_file_size": 20_000, "max_wals": 1, "max_snapshots": 2, "backend_batch_interval_seconds": 0.01}
store = kvstore.open(sys.argv[1], sys.argv[2], auto_defragment_ratio=0, **options)
number = 0
while True:
    number += 1
    store.put(b"k%d" % (number % 500), b"%08d" % number * 20)
    if number % 300 == 0:
        store.snapshot()
    if number == 300:
        print("ready", flush=True)
    if number % 50 == 0 and number > 300:
        store.engine.snapshots.release()
    if number % 1000 == 0:
        store.compact(number - 500)  # or it grows, and each look takes longer than the one before
"""


def look_beside(tmp_path: Path, backend: str, rounds: int) -> None:
    path = tmp_path / "data"
    writer = subprocess.Popen([sys.executable, "-c", BUSY, path, backend], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(rounds):
            with kvstore.open(path, backend, read_only=True) as store:
                assert store.count(prefix=b"k") <= 500
            assert kvstore.verify(path).findings == ()
            kvstore.restore(path, tmp_path / "new")
            shutil.rmtree(tmp_path / "new")
            assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_called_damaged_beside_a_busy_writer(tmp_path: Path, backend: str) -> None:
    """Opening read-only, verifying and restoring while segments and snapshots come and go."""
    look_beside(tmp_path, backend, 3)


@pytest.mark.soak
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_called_damaged_beside_a_busy_writer_for_long(tmp_path: Path, backend: str) -> None:
    """The same, a thousand times."""
    look_beside(tmp_path, backend, 1000)
