"""What a salvage of a store of ours has in memory, and what it does where the disk fails or the log is short."""

import errno
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import StoreLocked
from kvstore.layout import DataDir, segments
from kvstore.salvage import salvage
from kvstore.verification import verify

VALUES, VALUE_BYTES = 300, 100_000
PEAK_BYTES = 15_000_000
"""Half of the values, and three times what is written at once."""


@pytest.fixture(scope="module", params=["lmdb", "sqlite"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 MB in long values, all of them still in the log."""
    path: Path = tmp_path_factory.mktemp("large") / request.param
    with kvstore.open(path, backend=request.param, durability="off") as store:
        for number in range(VALUES):
            store.put(b"key %d" % number, (b"%03d" % number).ljust(VALUE_BYTES, b"."))
            store.put(b"short", b"%d" % number)
    return path


def whole(path: Path) -> None:
    """Nothing is changed."""


def without_log(path: Path) -> None:
    shutil.rmtree(path / "wal")


def without_backend(path: Path) -> None:
    shutil.rmtree(path / "snap")


def cut(path: Path) -> None:
    """Only pages are left, and they are looked at one by one."""
    without_log(path)
    os.truncate(DataDir.at(path).db, DataDir.at(path).db.stat().st_size - 8192)


@pytest.mark.parametrize("target", ["new", None])
@pytest.mark.parametrize("damage", [whole, without_log, without_backend, cut])
def test_values_stay_where_they_are(
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    target: str | None,
) -> None:
    """However much there is of them; for a report alone, too."""
    monkeypatch.setattr("kvstore.row_sort.RUN_BYTES", 1 << 20)
    broken = Path(shutil.copytree(large, tmp_path / large.name))
    damage(broken)
    tracemalloc.start()
    try:
        found = salvage(broken, target and tmp_path / target, backend=large.name)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(found.keys.values()) > VALUES / 2
    assert peak_bytes < PEAK_BYTES


def test_a_report_leaves_nothing_behind(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it makes on the way is removed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert salvage(large, None, backend=large.name).is_complete
    assert not list(tmp_path.iterdir())


def test_what_the_disk_does_not_give_back_is_left_out(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range of a damaged file cannot be read: the rest is found, and the report says so."""
    broken = Path(shutil.copytree(large, tmp_path / large.name))
    cut(broken)
    pread = os.pread

    def failing(fd: int, count: int, at: int) -> bytes:
        if 1_000_000 <= at < 3_000_000:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, count, at)

    monkeypatch.setattr("kvstore.salvage.pieces.os.pread", failing)
    found = salvage(DataDir.at(broken).db, tmp_path / "new", backend=large.name)
    assert any("the disk does not give back" in line for line in found.unread)
    assert VALUES / 2 < sum(found.keys.values()) < VALUES
    monkeypatch.undo()
    assert verify(tmp_path / "new").ok


def test_a_store_that_is_open_is_left_alone(tmp_path: Path) -> None:
    """By its directory, and by its file."""
    with kvstore.open(tmp_path / "store", durability="off") as store:
        store.put(b"a", b"1")
        for source in (tmp_path / "store", DataDir.at(tmp_path / "store").db):
            with pytest.raises(StoreLocked):
                salvage(source, None)
    assert salvage(tmp_path / "store", None).is_complete
    kvstore.open(tmp_path / "store").close()  # the lock was given back


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_log_without_entries_after_the_backend_is_complete(tmp_path: Path, backend: str) -> None:
    """As a restore, an import and a salvage leave it."""
    with kvstore.open(tmp_path / "store", backend=backend, durability="off") as store:
        store.put(b"a", b"1")
    for place in ("1", "2"):
        source = tmp_path / ("store" if place == "1" else "1")
        found = salvage(source, tmp_path / place, backend=backend)
        assert found.is_complete and not found.may_be_older, found.unread


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """A closed store whose log has several segments, all of it in the backend."""
    path = tmp_path / "rotated"
    with kvstore.open(path, durability="off", wal_file_size=1 << 16) as store:
        for number in range(40):
            store.put(b"%d" % number, bytes(10_000))
    assert len(segments(DataDir.at(path).wal)) > 3
    return path


def test_a_log_that_ends_before_the_backend_has_lost_something(rotated: Path) -> None:
    """Its last segments are gone: what they had after the backend is not known."""
    for file in segments(DataDir.at(rotated).wal)[-2:]:
        file.path.unlink()
    found = salvage(rotated, None)
    assert not found.is_complete and found.may_be_older == 40
    assert any("the log ends with entry" in line for line in found.unread)
    assert not any(map(found.sure, found.levels))


def test_a_gap_before_a_segment_without_entries_is_seen(rotated: Path) -> None:
    """The segment's head says which entry it would begin with."""
    last = segments(DataDir.at(rotated).wal)[-1].path
    os.truncate(last, 88)  # its head
    segments(DataDir.at(rotated).wal)[-2].path.unlink()
    found = salvage(rotated, None)
    assert any("are missing" in line for line in found.unread)
