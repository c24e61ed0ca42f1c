"""Doctor: examines the environment of a store without touching the store, and gives advice in plain words.

    versions      of this library, of Python, of the backends' libraries
    environment   kernel, file system, free space, how long a sync takes
    store         which process has it open, how far the backend is behind the log, clocks, room under the quota

A fact has a level: ``ok``; ``advice``: something could be better; ``warning``: something will cause trouble.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kvstore import files, layout
from kvstore.backend import backend_names, check_closed, find_backend, recognize_backend
from kvstore.directory import hold_still
from kvstore.errors import KVStoreError, MissingDependency, NotAStore, StoreLocked
from kvstore.files import Disk, OSDisk, disk_full_is_typed
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import TABLES
from kvstore.options import Options
from kvstore.snapshot.reader import read_info
from kvstore.wal.format import Mark
from kvstore.wal.reader import SegmentReader

SYNCS = 50
SYNC_BYTES = 4096
SLOW_SYNC_SECONDS = 0.02
FAST_SYNC_SECONDS = 0.00002
"""A disk that syncs faster than this keeps nothing."""
CLOCK_SLACK_MS = 1000
LONG_REPLAY_BYTES = 256 << 20

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
OVER_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "glusterfs", "fuse.glusterfs", "afs"}
)
LAYERED = frozenset({"overlay", "aufs"})


class Level(StrEnum):
    OK = "ok"
    ADVICE = "advice"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was examined."""

    name: str
    value: str
    level: Level = Level.OK
    advice: str = ""


@disk_full_is_typed()
def diagnose(
    data_dir: str | os.PathLike[str], *, options: Options | None = None, disk: Disk | None = None
) -> list[Fact]:
    """Examine the store in ``data_dir``, or the place where one will be. Raises ``NotAStore``.

    Writes one small file beside the log, to measure how long a sync takes, and removes it.
    """
    options = options or Options()
    directory = DataDir.at(data_dir, options.wal_dir or None)
    if not directory.root.is_dir():
        raise NotAStore(f"{directory.root} is not a directory", directory.root)
    is_store = directory.snap.is_dir()
    facts = [*_versions(), _kernel(directory.root)]
    for name, path in (("data", directory.root), ("log", directory.wal)):
        if path.is_dir() and (name == "data" or not _same_device(path, directory.root)):
            facts += [_file_system(name, path), _room(name, path, options)]
    facts.append(_sync_latency(directory.wal if directory.wal.is_dir() else directory.root, disk or OSDisk()))
    if is_store:
        facts += _store(directory, options)
    return facts


# --- versions ----------------------------------------------------------------------------


def _versions() -> Iterator[Fact]:
    from kvstore._version import __version__

    yield Fact("kvstore", __version__)
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
    median, slow = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    value = f"{median * 1000:.2f} ms median, {slow * 1000:.2f} ms 99th percentile"
    if median < FAST_SYNC_SECONDS:
        return Fact("sync", value, Level.WARNING, "implausibly fast: something here does not sync at all")
    if slow > SLOW_SYNC_SECONDS:
        return Fact(
            "sync", value, Level.ADVICE, "every write waits for one sync: group writes, or use a faster disk"
        )
    return Fact("sync", value)


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


# --- the store ---------------------------------------------------------------------------


def _store(directory: DataDir, options: Options) -> Iterator[Fact]:
    holder = _holder(directory)
    if holder is None:
        yield Fact("held by", "nobody")
    else:
        yield Fact("held by", f"process {holder.pid} on {holder.host}" if holder.pid else "another process")
    yield _log(directory)
    yield _snapshots(directory)
    yield from _backend(directory, options, holder)
    yield from _left_behind(directory)


def _holder(directory: DataDir) -> StoreLocked | None:
    """The process that has the store open."""
    try:
        hold_still(directory)()
    except StoreLocked as held:
        return held
    except PermissionError:
        pass
    return None


def _log(directory: DataDir) -> Fact:
    segments = layout.segments(directory.wal)
    size_bytes = sum(file.path.stat().st_size for file in segments)
    value = f"{len(segments)} segments, {size_bytes:,} bytes"
    if not segments:
        return Fact(
            "log", value, Level.WARNING, "there is no log; kvstore verify tells whether anything is missing"
        )
    if size_bytes > LONG_REPLAY_BYTES and len(segments) > 2:
        advice = "segments are kept for the oldest snapshot or because of max_wals; taking snapshots shortens the log"
        return Fact("log", value, Level.ADVICE, advice)
    return Fact("log", value)


def _snapshots(directory: DataDir) -> Fact:
    found = directory.snapshots()
    if not found:
        advice = "a damaged backend can be rebuilt only while the log reaches back to the first entry: take a snapshot"
        return Fact("snapshots", "none", Level.ADVICE, advice)
    try:
        newest = read_info(found[-1].path)
    except (KVStoreError, OSError) as error:
        return Fact("snapshots", f"{len(found)}", Level.WARNING, f"the newest cannot be used: {error}")
    return Fact("snapshots", f"{len(found)}, the newest of revision {newest.revision:,}")


def _backend(directory: DataDir, options: Options, holder: StoreLocked | None) -> Iterator[Fact]:
    if (
        holder is not None and holder.pid == os.getpid()
    ):  # opening and closing its files again could drop the first one's locks
        yield Fact("backend", "open in this process: see Store.status")
        return
    kind = recognize_backend(directory.db) if directory.db.is_file() else None
    if kind is None:
        yield Fact("backend", "none yet")
        return
    try:
        if holder is None:
            check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
    except (KVStoreError, OSError) as error:
        yield Fact("backend", kind.name, Level.WARNING, f"it cannot be opened: {error}; see kvstore verify")
        return
    try:
        with backend.read() as tx:
            marks = Marks.read(tx)
        size_bytes, live_bytes = backend.size_bytes(), backend.in_use_bytes()
    finally:
        backend.close()
    yield _size(kind.name, size_bytes, live_bytes, options)
    yield _behind(directory, marks)
    yield _clock(marks.closed_ms, int((options.clock or time.time)() * 1000))


def _size(name: str, size_bytes: int, live_bytes: int, options: Options) -> Fact:
    value = f"{name}, {size_bytes:,} bytes, {live_bytes:,} in use"
    if options.quota_bytes and live_bytes > options.quota_bytes * 0.8:
        advice = f"more than 80 % of the quota ({options.quota_bytes:,} bytes): compact, delete, or raise it"
        return Fact("backend", value, Level.WARNING, advice)
    if size_bytes > 2 * live_bytes and size_bytes > options.auto_defragment_min:
        return Fact(
            "backend", value, Level.ADVICE, "more than half of it is free: defragment to give it back"
        )
    return Fact("backend", value)


def _behind(directory: DataDir, marks: Marks) -> Fact:
    """How much log the next opening replays."""
    mark = Mark.decode(marks.log_mark)
    newer = 0
    segments = layout.segments(directory.wal)
    for file, following in zip(segments, [*segments[1:], None], strict=True):
        if following is None or following.index > marks.applied_index + 1:
            with SegmentReader(file.path) as reader:
                begin = mark.offset if mark is not None and mark.segment_index == file.index else 0
                newer += max(reader.content_end(0) - begin, 0)
    value = (
        f"revision {marks.revision:,}, log entry {marks.applied_index:,}; "
        f"the next opening reads {newer:,} bytes of log"
    )
    if newer > LONG_REPLAY_BYTES:
        return Fact("checkpoint", value, Level.ADVICE, "checkpoints are lagging: opening will take a while")
    return Fact("checkpoint", value)


def _clock(written_ms: int, now_ms: int) -> Fact:
    if written_ms > now_ms + CLOCK_SLACK_MS:
        ahead = (written_ms - now_ms) / 1000
        advice = "the clock was set back: leases live that much longer, and times in the log are out of order"
        return Fact("clock", f"{ahead:.0f} s behind the store's last checkpoint", Level.WARNING, advice)
    return Fact("clock", "not behind the store's last checkpoint")


def _left_behind(directory: DataDir) -> Iterator[Fact]:
    """Files that were set aside and are the user's to delete."""
    broken = directory.set_aside()
    if broken:
        advice = (
            "damaged files that were set aside; delete them once they are no longer needed: "
            + ", ".join(map(str, broken))
        )
        yield Fact("set aside", f"{len(broken)} files", Level.ADVICE, advice)
