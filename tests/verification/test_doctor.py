"""Doctor: what it looks at, what it advises, and that it leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import doctor
from kvstore.tools.command import ExitCode

from kvstore import NotAStore, Options, Store
from kvstore.files import OSDisk
from kvstore.observe import surroundings as ground
from kvstore.observe.doctor import diagnose
from kvstore.observe.facts import Fact, Level
from kvstore.observe.surroundings import find_mount, has_fast_commit_bug, judge_file_system
from kvstore.recovery import open_engine
from kvstore.testing.recording_disk import UnsyncedDisk
from tests.harness.command_line import command_line

OPTIONS = Options(background=False, low_disk_bytes=0, quota_backend_bytes=-1)


def open_store(path: Path, **options: Any) -> Store:
    return Store(open_engine(path, OPTIONS.with_(**options), UnsyncedDisk()))


def by_name(facts: list[Fact]) -> dict[str, Fact]:
    return {fact.name: fact for fact in facts}


def level_of(path: Path, name: str, **options: Any) -> Level:
    return by_name(diagnose(path, options=OPTIONS.with_(**options)))[name].level


@pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
def test_a_sound_store(tmp_path: Path, backend: str) -> None:
    """Versions, kernel, file system, room, sync latency, holder, log, snapshots, backend, checkpoint and clock."""
    with open_store(tmp_path / "s", backend=backend) as store:
        store.put(b"k", b"v")
        store.snapshot()
    before = sorted(path.name for path in (tmp_path / "s").rglob("*") if "-" not in path.name)
    facts = by_name(diagnose(tmp_path / "s", options=OPTIONS))
    assert sorted(path.name for path in (tmp_path / "s").rglob("*") if "-" not in path.name) == before
    assert "LMDB 0.9" in facts["backend lmdb"].value and "SQLite 3." in facts["backend sqlite"].value
    assert "ms median" in facts["sync"].value and "bytes free" in facts["room for the data"].value
    assert facts["held by"].value == "nobody" and facts["snapshots"].value == "1, the newest of revision 2"
    assert facts["backend"].value.startswith(backend) and facts["checkpoint"].value.startswith(
        "revision 2, log entry 1"
    )
    for name in ("log", "snapshots", "backend", "checkpoint", "clock"):
        assert facts[name].level == Level.OK, facts[name]


def test_a_place_for_a_store_and_no_place(tmp_path: Path) -> None:
    """An empty directory is looked at as the ground of a store to be; what is no directory is refused."""
    assert "held by" not in by_name(diagnose(tmp_path, options=OPTIONS))
    with pytest.raises(
        NotAStore, match="absent is not a directory: give that of a store, or an existing one"
    ):
        diagnose(tmp_path / "absent")


def test_an_open_store_is_not_harmed(tmp_path: Path) -> None:
    """The holder is named, and its files are left alone."""
    with open_store(tmp_path / "s", backend="sqlite") as store:
        facts = by_name(diagnose(tmp_path / "s", options=OPTIONS))
        assert facts["held by"].value.startswith("process ") and "this process" in facts["backend"].value
        store.put(b"k", b"v")
        store.checkpoint()


def test_what_it_warns_of(tmp_path: Path) -> None:
    """A clock set back, a full disk, a quota nearly used up, a lost log, a damaged snapshot or backend."""
    path = tmp_path / "s"
    with open_store(path, clock=lambda: 4e9) as store:
        store.put(b"k", b"v" * 50_000)
        snapshot = store.snapshot().path
    assert level_of(path, "clock") == Level.WARNING
    assert level_of(path, "clock", clock=lambda: 4e9 + 1) == Level.OK
    assert level_of(path, "room for the data", low_disk_bytes=1 << 60) == Level.WARNING
    assert level_of(path, "room for the data", quota_backend_bytes=1 << 60) == Level.ADVICE
    assert level_of(path, "quota", quota_backend_bytes=60_000) == Level.WARNING
    snapshot.write_bytes(snapshot.read_bytes()[:-3])
    assert level_of(path, "snapshots") == Level.WARNING
    snapshot.rename(snapshot.with_suffix(".broken"))
    assert level_of(path, "snapshots") == level_of(path, "set aside") == Level.ADVICE
    db = path / "snap" / "db"
    db.write_bytes(db.read_bytes()[:5000])
    assert level_of(path, "backend") == Level.WARNING
    for segment in (path / "wal").iterdir():
        segment.unlink()
    assert level_of(path, "log") == Level.WARNING


def test_syncs_that_do_nothing_are_noticed(tmp_path: Path) -> None:
    """A disk that answers a sync at once does not sync; one that cannot be written is said to be so."""
    facts = by_name(diagnose(tmp_path, options=OPTIONS, disk=UnsyncedDisk()))
    assert facts["sync"].level == Level.WARNING

    class Unwritable(OSDisk):
        def create(self, path: Any, *, direct: bool = False) -> Any:
            raise PermissionError(13, "no", str(path))

    assert by_name(diagnose(tmp_path, options=OPTIONS, disk=Unwritable()))["sync"].value == "not measured"


@pytest.mark.parametrize(
    ("release", "has_bug"),
    [
        ("5.4.0-generic", False),
        ("5.10.93", True),
        ("5.10.94-amd64", False),
        ("5.14.21", True),
        ("5.15.26", True),
        ("5.15.27", False),
        ("5.16.2", True),
        ("5.17.0", False),
        ("6.18", False),
        ("strange", False),
    ],
)
def test_kernels_with_the_fast_commit_bug(release: str, has_bug: bool) -> None:
    """5.10 up to 5.16, but for the series that were repaired."""
    assert has_fast_commit_bug(release) is has_bug


def test_the_mount_of_a_path_is_found() -> None:
    """The longest mount point above it, the last where several lie upon each other; blanks are written \\040."""
    mounts = [
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        "30 22 0:26 / /mnt/a\\040b rw - tmpfs tmpfs rw",
        "31 22 0:27 / /mnt/a\\040b rw - xfs /dev/vdb rw",
        "32 22 0:28 / /mnt/a rw - nfs4 server:/ rw",
    ]
    assert find_mount(mounts, Path("/mnt/a b/c")) == ("xfs", "/mnt/a b")
    assert find_mount(mounts, Path("/mnt/a/c")) == ("nfs4", "/mnt/a")
    assert find_mount(mounts, Path("/mnt")) == ("ext4", "/")
    assert ground.file_system_of(Path("/proc"))[0] == "proc"


def test_file_systems_to_beware_of() -> None:
    """In memory and over a network: warnings; in a container's layer: advice."""
    levels = {kind: judge_file_system(kind)[0] for kind in ("ext4", "xfs", "tmpfs", "nfs4", "overlay")}
    assert levels == {"ext4": "ok", "xfs": "ok", "tmpfs": "warning", "nfs4": "warning", "overlay": "advice"}


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A table with the advice below it, or JSON; exit code 1 where there is a warning."""
    cli = command_line(monkeypatch, capfd, doctor.register)
    with open_store(tmp_path / "s", clock=lambda: 4e9) as store:
        store.put(b"k", b"v")
    code, out, _ = cli("doctor", "--data-dir", str(tmp_path / "s"))
    assert code == ExitCode.FAILED and "\nwarning: clock: " in out
    code, out, _ = cli("doctor", "--json", "--data-dir", str(tmp_path / "s"))
    facts = {fact["name"]: fact for fact in json.loads(out)}
    assert facts["clock"]["level"] == "warning" and facts["Python"]["advice"] == ""
