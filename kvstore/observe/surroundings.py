"""What a store stands on: libraries, kernel, file system, free space, and how long a sync takes."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path

from kvstore import files, implementation, layout
from kvstore.backend import backend_names, find_backend
from kvstore.errors import KVStoreError, MissingDependency
from kvstore.files import Disk
from kvstore.layout import DataDir
from kvstore.observe import complaints
from kvstore.observe.facts import Fact, Level
from kvstore.options import Options

SYNCS = 50
SYNC_BYTES = 4096

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
OVER_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "glusterfs", "fuse.glusterfs", "afs"}
)
LAYERED = frozenset({"overlay", "aufs"})


def surroundings(directory: DataDir, options: Options, disk: Disk) -> Iterator[Fact]:
    """All of it. Writes one small file beside the log, to measure syncs, and removes it."""
    yield from _versions()
    yield _kernel(directory.root)
    for name, path in (("data", directory.root), ("log", directory.wal)):
        if path.is_dir() and (name == "data" or not _same_device(path, directory.root)):
            yield _file_system(name, path)
            yield _room(name, path, options)
    yield _sync_latency(directory.wal if directory.wal.is_dir() else directory.root, disk)


# --- versions ----------------------------------------------------------------------------


def _versions() -> Iterator[Fact]:
    from kvstore._version import __version__

    yield Fact("kvstore", __version__)
    yield Fact("implementation", implementation.name)
    yield Fact("Python", platform.python_version())
    for name in backend_names():
        try:
            kind = find_backend(name)
        except MissingDependency as error:
            yield Fact(f"backend {name}", "not installed", Level.ADVICE, str(error))
            continue
        shown = ", ".join(f"{library} {version}" for library, version in kind.versions().items())
        yield Fact(f"backend {name}", shown or "installed")


# --- the machine -------------------------------------------------------------------------


def _kernel(path: Path) -> Fact:
    release = platform.release()
    if file_system_of(path)[0] == "ext4" and has_fast_commit_bug(release):
        advice = "ext4 with fast commits can lose synced data on this kernel; use 5.10.94, 5.15.27 or later"
        return Fact("kernel", release, Level.WARNING, advice)
    return Fact("kernel", release)


def has_fast_commit_bug(release: str) -> bool:
    """Whether this is a kernel 5.10 to 5.16 from before the fix for ext4's fast commits reached its series."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if match is None:
        return False
    major, minor, patch = (int(part or 0) for part in match.groups())
    repaired = {10: 94, 15: 27}
    return major == 5 and 10 <= minor <= 16 and patch < repaired.get(minor, 1 << 30)


def file_system_of(path: Path) -> tuple[str, str]:
    """(type, mount point) of the file system of ``path``; empty if the system does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "", ""
    return find_mount(mounts, path.resolve())


def find_mount(mounts: list[str], path: Path) -> tuple[str, str]:
    """The line of /proc/self/mountinfo with the longest mount point above ``path``; the last one of equals."""
    best = ("", "")
    for line in mounts:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        if path.is_relative_to(point) and len(point) >= len(best[1]):
            best = after.split(" ")[0], point
    return best


def _same_device(path: Path, other: Path) -> bool:
    return path.stat().st_dev == other.stat().st_dev


def _file_system(name: str, path: Path) -> Fact:
    kind, point = file_system_of(path)
    value = f"{kind or 'unknown'} at {point or '?'}"
    level, advice = judge_file_system(kind)
    return Fact(f"file system of the {name}", value, level, advice)


def judge_file_system(kind: str) -> tuple[Level, str]:
    if kind in IN_MEMORY:
        return Level.WARNING, "it is in memory: everything is lost when the machine stops"
    if kind in OVER_NETWORK:
        return (
            Level.WARNING,
            "locks, memory maps and syncs are unreliable over a network: use a local disk",
        )
    if kind in LAYERED:
        return (
            Level.ADVICE,
            "inside a container's own layer: it is deleted with the container; mount a volume",
        )
    return Level.OK, ""


def _room(name: str, path: Path, options: Options) -> Fact:
    free = files.free_bytes(path)
    value = f"{free:,} bytes free"
    if free < options.low_disk_bytes:
        return Fact(
            f"room for the {name}", value, Level.WARNING, "writes are refused (low_disk_bytes): make room"
        )
    if options.quota_bytes and free < options.quota_bytes:
        advice = f"less than the quota ({options.quota_bytes:,} bytes): the disk will fill up first"
        return Fact(f"room for the {name}", value, Level.ADVICE, advice)
    return Fact(f"room for the {name}", value)


def _sync_latency(folder: Path, disk: Disk) -> Fact:
    """Median and 99th percentile of syncs like the log's."""
    path = layout.temporary(folder / "doctor")
    try:
        seconds = sorted(_syncs(path, disk))
    except (OSError, KVStoreError) as error:
        return Fact("sync", "not measured", Level.ADVICE, f"cannot write a file in {folder}: {error}")
    return complaints.sync(seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100])


def _syncs(path: Path, disk: Disk) -> Iterator[float]:
    disk.remove(path)
    file = disk.create(path)
    try:
        file.pwrite(bytes(SYNCS * SYNC_BYTES), 0)
        file.sync()
        for number in range(SYNCS):
            file.pwrite(os.urandom(SYNC_BYTES), number * SYNC_BYTES)
            began = time.perf_counter()
            file.sync()
            yield time.perf_counter() - began
    finally:
        file.close()
        disk.remove(path)
