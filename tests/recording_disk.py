"""A disk that can lie: a ``Disk`` on a real directory, of which a power cut may leave any allowed state.

Every call that changes something is carried out (without real syncs) and remembered, in two images:

    live       what a program reads back, and what a killed process leaves behind
    durable    what is promised to survive a power cut: file contents up to the last sync of the
               file, directory entries up to the last ``sync_dir`` of their directory

Between the two lies what a power cut may take or leave, each part for itself:

    sectors    every 512-byte sector that was written since the last sync of its file, in any of the
               versions that it has had since then
    entries    names made, renamed or removed since the last ``sync_dir``; a prefix of them survives

A ``Loss`` says which. ``losses()`` lists those worth trying in the present state.

Calls are numbered from 1. ``cut_at=N`` cuts the power in the middle of call N: a write or rename has
happened but is not durable, a sync has promised nothing. From then on every call raises ``PowerCut``.
``fail_at={N: errno}`` makes calls fail: a write leaves ``short_write_bytes`` of it behind, and a
failed sync loses what it should have synced for good: as on Linux, the next sync "succeeds", but
the data does not come back.

Files that others write (LMDB, SQLite) are taken as they are at the time of the cut. Where the
program has renamed one without ``sync_file`` before, a loss may leave it empty.

    for crash in every_crash(tmp_path, workload):     # workload(disk, directory, acknowledge)
        ... open crash.directory, compare with crash.acknowledged ...
"""

from __future__ import annotations

import errno as errors
import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore.errors import DiskFull
from kvstore.files import Disk, File, OSDisk, OSFile

SECTOR_BYTES = 512
AnyPath = str | os.PathLike[str]


class PowerCut(OSError):
    """The machine is off: no call reaches the disk any more."""


# --- what a power cut takes ------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """One way of losing what was not synced.

    ``version(i, n, k)``: of the i-th of n sectors that are not durable, which has k versions, the
    version that survives: 0 the durable one, k the newest. ``entries(n)``: how many of n changes of
    directories survive, the oldest first.
    """

    name: str
    version: Callable[[int, int, int], int]
    entries: Callable[[int], int]

    def __repr__(self) -> str:
        return self.name


KEPT = Loss("kept", lambda i, n, k: k, lambda n: n)
LOST = Loss("lost", lambda i, n, k: 0, lambda n: 0)
ENTRIES_ONLY = Loss("entries kept, data lost", lambda i, n, k: 0, lambda n: n)
DATA_ONLY = Loss("data kept, entries lost", lambda i, n, k: k, lambda n: 0)


def first_sectors(count: int) -> Loss:
    """Only the first sectors reached the disk."""
    return Loss(f"first {count} sectors", lambda i, n, k: k if i < count else 0, lambda n: n)


def last_sectors(count: int) -> Loss:
    """Only the last sectors reached the disk: it writes in its own order."""
    return Loss(f"last {count} sectors", lambda i, n, k: k if i >= n - count else 0, lambda n: n)


def all_but(sector: int) -> Loss:
    """One sector did not reach the disk."""
    return Loss(f"all but sector {sector}", lambda i, n, k: 0 if i == sector else k, lambda n: n)


def by_chance(seed: int) -> Loss:
    """Any version of any sector, any number of entries."""
    chance = random.Random(seed)
    return Loss(f"chance {seed}", lambda i, n, k: chance.randint(0, k), lambda n: chance.randint(0, n))


# --- files and their two images ----------------------------------------------------------------


class _Content:
    """The live and the durable image of one file that is written through this disk."""

    def __init__(self, data: bytes = b"") -> None:
        self.live = bytearray(data)
        self.durable = bytes(data)
        self.dirty: dict[int, list[bytes]] = {}  # sector -> its versions since the last sync
        self.doomed: dict[int, list[bytes]] = {}  # the same, of sectors that a failed sync gave up

    def write(self, data: bytes, offset: int) -> None:
        if offset > len(self.live):
            self._resize(offset)
        self.live[offset : offset + len(data)] = data
        self._touch(offset, offset + len(data))

    def truncate(self, size: int) -> None:
        self._resize(size)

    def _resize(self, size: int) -> None:
        old = len(self.live)
        del self.live[size:]
        self.live.extend(bytes(max(0, size - old)))
        self._touch(min(size, old), max(size, old))

    def _touch(self, start: int, end: int) -> None:
        for sector in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            at = sector * SECTOR_BYTES
            self.dirty.setdefault(sector, []).append(bytes(self.live[at : at + SECTOR_BYTES]))

    def sync(self) -> None:
        if self.doomed:
            self.durable = self.image({**self.doomed, **self.dirty}, dict.fromkeys(self.doomed, 0))
        else:
            self.durable = bytes(self.live)
        self.dirty.clear()

    def sync_failed(self) -> None:
        self.doomed.update(self.dirty)
        self.dirty.clear()

    def at_risk(self) -> dict[int, list[bytes]]:
        """The sectors that are not durable."""
        return {**self.doomed, **self.dirty}

    def image(self, at_risk: dict[int, list[bytes]], chosen: dict[int, int]) -> bytes:
        """The file if the ``chosen`` version of each sector survives (not chosen: the newest)."""
        versions = {sector: chosen.get(sector, len(had)) for sector, had in at_risk.items()}
        if all(version == len(at_risk[sector]) for sector, version in versions.items()):
            return bytes(self.live)
        image = bytearray(self.durable)
        for sector, version in sorted(versions.items()):
            if version:
                at, data = sector * SECTOR_BYTES, at_risk[sector][version - 1]
                image.extend(bytes(max(0, at + len(data) - len(image))))
                image[at : at + len(data)] = data
        return bytes(image)


@dataclass(eq=False)
class _Node:
    """A file: with ``content`` if written here, else somebody else's, on the real disk at ``real``."""

    real: str
    content: _Content | None = None
    synced: bool = True

    def bytes_left(self, chosen: dict[int, int] | None, loss: Loss) -> bytes:
        if self.content is not None:
            return self.content.image(self.content.at_risk(), chosen or {})
        if not self.synced and loss.version(0, 1, 1) == 0:
            return b""
        return Path(self.real).read_bytes()


@dataclass(eq=False)
class _Change:
    """A change of directory entries that is not durable yet: ``target`` now names ``node`` (or nothing)."""

    target: str
    node: _Node | None
    source: str | None = None

    def in_directory(self, directory: str) -> bool:
        return directory in {os.path.dirname(name) or "." for name in (self.target, self.source) if name}

    def apply(self, names: dict[str, _Node | None]) -> None:
        if self.source is not None:
            names.pop(self.source, None)
        if self.node is None:
            names.pop(self.target, None)
        else:
            names[self.target] = self.node


_DIRECTORY = _Node("")


# --- the disk ------------------------------------------------------------------------------------


class RecordingDisk:
    """See the module. ``calls`` lists what was called: ``"pwrite wal/… 120+300"``, ``"sync_dir wal"``."""

    def __init__(
        self,
        root: AnyPath,
        *,
        cut_at: int = 0,
        fail_at: dict[int, int] | None = None,
        short_write_bytes: int = 0,
    ) -> None:
        self.root = os.path.abspath(root)
        self.calls: list[str] = []
        self.is_off = False
        self._cut_at = cut_at
        self._fail_at = fail_at or {}
        self._short_write_bytes = short_write_bytes
        self._os = OSDisk()
        self._lock = threading.RLock()
        self._durable: dict[str, _Node | None] = {}
        self._live: dict[str, _Node | None] = {}
        self._changes: list[_Change] = []
        self._aside = self.root + ".aside"  # links to files that a rename or remove took the name of
        os.makedirs(self.root, exist_ok=True)
        self._take_in_what_is_there()

    # --- Disk ------------------------------------------------------------------------------

    def create(self, path: AnyPath) -> File:
        with self._call("create", path):
            file = self._os.create(path)
            node = _Node(os.path.abspath(path), _Content())
            self._change(_Change(self._name(path), node))
            return _RecordingFile(self, file, node)

    def open(self, path: AnyPath) -> File:
        with self._lock:
            self._check_power()
            node = self._node(path)
            if node.content is None:
                node.content = _Content(Path(path).read_bytes())
            return _RecordingFile(self, self._os.open(path), node)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        with self._call("rename", source, self._name(target)):
            node = self._node(source)
            self._put_aside(target)
            self._os.rename(source, target)
            node.real = os.path.abspath(target)
            self._change(_Change(self._name(target), node, self._name(source)))

    def remove(self, path: AnyPath) -> None:
        with self._call("remove", path):
            if os.path.lexists(path):
                self._node(path)
                self._put_aside(path)
                self._os.remove(path)
                self._change(_Change(self._name(path), None))

    def make_dir(self, path: AnyPath) -> None:
        with self._call("make_dir", path):
            missing = []
            directory = os.path.abspath(path)
            while not os.path.isdir(directory):
                missing.append(directory)
                directory = os.path.dirname(directory)
            self._os.make_dir(path)
            for directory in reversed(missing):
                self._change(_Change(self._name(directory), _DIRECTORY))

    def sync_dir(self, path: AnyPath) -> None:
        with self._call("sync_dir", path):
            name = self._name(path)
            if not os.path.isdir(path):
                raise FileNotFoundError(errors.ENOENT, "no such directory", os.fspath(path))
            for change in [change for change in self._changes if change.in_directory(name)]:
                if change.source is not None:  # the source's own, older changes are settled with it
                    at = self._changes.index(change)
                    self._changes[:at] = [old for old in self._changes[:at] if old.target != change.source]
                change.apply(self._durable)
                self._changes.remove(change)

    def sync_file(self, path: AnyPath) -> None:
        with self._call("sync_file", path):
            node = self._node(path)
            node.synced = True
            if node.content is not None:
                node.content.sync()

    # --- the power cut -----------------------------------------------------------------------

    def cut_power(self) -> None:
        """From now on every call raises ``PowerCut``."""
        with self._lock:
            self.is_off = True

    def losses(self, *, chances: int = 4, most_sectors: int = 12) -> list[Loss]:
        """The ways of losing that differ in the present state; torn writes at every sector (up to
        ``most_sectors`` of them, spread evenly), and ``chances`` random ones."""
        sectors = sum(len(node.content.at_risk()) for node in self._nodes() if node.content)
        found = [KEPT]
        if sectors or self._changes:
            found.append(LOST)
        if sectors and self._changes:
            found += [ENTRIES_ONLY, DATA_ONLY]
        if sectors > 1:
            step = -(-sectors // most_sectors)
            for count in range(1, sectors, step):
                found += [first_sectors(count), last_sectors(count)]
            found += [all_but(sector) for sector in range(1, sectors - 1, step)]
        if sectors + len(self._changes) > 1:
            found += [by_chance(seed) for seed in range(chances)]
        return found

    def materialise(self, target: AnyPath, loss: Loss = LOST) -> Path:
        """Write into a new directory ``target`` what the power cut leaves of ``root``."""
        with self._lock:
            target = Path(target)
            names = dict(self._durable)
            for change in self._changes[: loss.entries(len(self._changes))]:
                change.apply(names)
            chosen = self._choose(loss)
            target.mkdir(parents=True)
            self._copy_foreign(target)
            for name, node in sorted(names.items()):
                if node is None or not (target / name).parent.is_dir():
                    continue  # a file without its directory is out of reach
                if node is _DIRECTORY:
                    (target / name).mkdir(exist_ok=True)
                else:
                    (target / name).write_bytes(node.bytes_left(chosen.get(id(node)), loss))
            return target

    def _choose(self, loss: Loss) -> dict[int, dict[int, int]]:
        """For each file, the version of each sector at risk that survives."""
        at_risk = [
            (node, sector, len(versions))
            for node in self._nodes()
            if node.content is not None
            for sector, versions in sorted(node.content.at_risk().items())
        ]
        chosen: dict[int, dict[int, int]] = {}
        for number, (node, sector, versions) in enumerate(at_risk):
            survivor = loss.version(number, len(at_risk), versions)
            chosen.setdefault(id(node), {})[sector] = survivor
        return chosen

    def _nodes(self) -> list[_Node]:
        """Every file that has, or may come back with, a name."""
        found: dict[int, _Node] = {}
        for names in (self._durable, self._live):
            found.update((id(node), node) for node in names.values() if node is not None)
        found.update((id(change.node), change.node) for change in self._changes if change.node)
        return list(found.values())

    def _copy_foreign(self, target: Path) -> None:
        """Files that this disk has never been asked about are as they are."""
        for folder, _, files in os.walk(self.root):
            for file in files:
                path = Path(folder) / file
                name = self._name(path)
                if name not in self._live and name not in self._durable:
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target / name)

    # --- inside ------------------------------------------------------------------------------

    def _name(self, path: AnyPath) -> str:
        return os.path.relpath(os.path.abspath(path), self.root)

    def _node(self, path: AnyPath) -> _Node:
        """The file of that name; one that somebody else has made is taken in, with a durable name."""
        name = self._name(path)
        node = self._live.get(name)
        if node is None:
            if not os.path.lexists(path):
                raise FileNotFoundError(errors.ENOENT, "no such file", os.fspath(path))
            node = self._take_in(name, synced=False)
        assert node is not _DIRECTORY, f"directories are made and synced here, nothing else: {name}"
        return node

    def _take_in(self, name: str, *, synced: bool) -> _Node:
        node = _Node(os.path.join(self.root, name), synced=synced)
        self._live[name] = self._durable[name] = node
        return node

    def _take_in_what_is_there(self) -> None:
        for folder, directories, files in os.walk(self.root):
            for directory in directories:
                name = self._name(os.path.join(folder, directory))
                self._live[name] = self._durable[name] = _DIRECTORY
            for file in files:
                self._take_in(self._name(os.path.join(folder, file)), synced=True)

    def _change(self, change: _Change) -> None:
        change.apply(self._live)
        self._changes.append(change)

    def _put_aside(self, path: AnyPath) -> None:
        """Keep the bytes of somebody else's file whose name goes: a cut may bring the name back."""
        if not os.path.lexists(path):
            return
        node = self._node(path)
        if node.content is None:
            os.makedirs(self._aside, exist_ok=True)
            node.real = os.path.join(self._aside, str(len(os.listdir(self._aside))))
            os.link(path, node.real)

    def _check_power(self) -> None:
        if self.is_off:
            raise PowerCut(errors.EIO, "the power is off")

    def _call(self, what: str, path: AnyPath, detail: str = "") -> _Call:
        return _Call(self, f"{what} {self._name(path)} {detail}".rstrip())


class _Call:
    """One numbered call: fails beforehand, or cuts the power when its effect is there."""

    def __init__(self, disk: RecordingDisk, text: str) -> None:
        self._disk = disk
        self._text = text

    def __enter__(self) -> None:
        disk = self._disk
        disk._lock.acquire()
        try:
            disk._check_power()
            disk.calls.append(self._text)
            number = len(disk.calls)
            if number == disk._cut_at and self._text.split()[0].startswith("sync"):
                disk.is_off = True
                disk._check_power()
            if code := disk._fail_at.get(number):
                no_room = code in (errors.ENOSPC, errors.EDQUOT, errors.EFBIG)
                raise (DiskFull if no_room else OSError)(
                    *([os.strerror(code)] if no_room else [code, self._text])
                )
        except BaseException:
            disk._lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        disk = self._disk
        try:
            if kind is None and len(disk.calls) == disk._cut_at:
                disk.is_off = True
                disk._check_power()
        finally:
            disk._lock.release()


class _RecordingFile:
    """A file open for writing on a ``RecordingDisk``."""

    def __init__(self, disk: RecordingDisk, file: File, node: _Node) -> None:
        assert node.content is not None
        self._disk = disk
        self._file = file
        self._node = node
        self._content = node.content

    @property
    def path(self) -> str:
        return self._file.path

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        try:
            with self._disk._call("pwrite", self._node.real, f"{offset}+{len(data)}"):
                self._write(data, offset)
        except PowerCut:
            raise
        except OSError:
            self._write_short(data, offset)
            raise
        except DiskFull:
            self._write_short(data, offset)
            raise

    def _write_short(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        short = data[: self._disk._short_write_bytes]
        if short:
            self._write(short, offset)

    def _write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._file.pwrite(data, offset)
        self._content.write(bytes(data), offset)

    def truncate(self, size_bytes: int) -> None:
        with self._disk._call("truncate", self._node.real, str(size_bytes)):
            self._file.truncate(size_bytes)
            self._content.truncate(size_bytes)

    def sync(self) -> None:
        try:
            with self._disk._call("sync", self._node.real):
                self._content.sync()
        except PowerCut:
            raise
        except (OSError, DiskFull):
            self._content.sync_failed()
            raise

    def close(self) -> None:
        self._file.close()


# --- a disk in a hurry --------------------------------------------------------------------------


class _UnsyncedFile(OSFile):
    def sync(self) -> None:
        pass


class UnsyncedDisk(OSDisk):
    """The real disk without the waiting, for tests in which no power is cut."""

    def create(self, path: AnyPath) -> OSFile:
        return _UnsyncedFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def open(self, path: AnyPath) -> OSFile:
        return _UnsyncedFile(path, os.O_RDWR)

    def sync_dir(self, path: AnyPath) -> None:
        pass

    def sync_file(self, path: AnyPath) -> None:
        pass


# --- trying every crash ----------------------------------------------------------------------------

Workload = Callable[[Disk, Path, Callable[[Any], None]], None]


@dataclass(frozen=True)
class Crash:
    """What one power cut has left, and what had been acknowledged before it."""

    directory: Path
    acknowledged: list[Any] = field(repr=False)
    call: int
    what: str
    loss: Loss

    def __str__(self) -> str:
        return f"call {self.call} ({self.what}), {self.loss}"


def every_crash(
    scratch: Path, workload: Workload, *, chances: int = 4, start: Path | None = None
) -> Iterator[Crash]:
    """Run ``workload(disk, directory, acknowledge)`` once for each of its calls, cut the power in that
    call, and yield every state that may be left. ``start`` is a directory to begin with a copy of.

    Directories are removed after their turn. What the workload raises after the cut is passed over
    (it is ``PowerCut`` or follows from it); what it raises without a cut is passed on.
    """
    return _every(scratch, workload, lambda root, call: RecordingDisk(root, cut_at=call), chances, start)


def every_failure(
    scratch: Path,
    workload: Workload,
    code: int,
    *,
    short_write_bytes: int = 0,
    chances: int = 4,
    start: Path | None = None,
) -> Iterator[Crash]:
    """The same with a call that fails with the errno ``code``; the power is cut when the workload has
    ended, by itself or by that error. A failed write leaves ``short_write_bytes`` of it behind."""

    def disk(root: Path, call: int) -> RecordingDisk:
        return RecordingDisk(root, fail_at={call: code}, short_write_bytes=short_write_bytes)

    return _every(scratch, workload, disk, chances, start)


def _every(
    scratch: Path,
    workload: Workload,
    make_disk: Callable[[Path, int], RecordingDisk],
    chances: int,
    start: Path | None,
) -> Iterator[Crash]:
    for call in itertools.count(1):
        root = scratch / f"run-{call}"
        if start is not None:
            shutil.copytree(start, root)
        disk = make_disk(root, call)
        acknowledged: list[Any] = []
        try:
            workload(disk, root, acknowledged.append)
        except Exception:
            if len(disk.calls) < call:
                raise
        disk.cut_power()
        for number, loss in enumerate(disk.losses(chances=chances)):
            left = disk.materialise(scratch / f"left-{call}-{number}", loss)
            what = disk.calls[min(call, len(disk.calls)) - 1]
            yield Crash(left, list(acknowledged), call, what, loss)
            shutil.rmtree(left)
        shutil.rmtree(root)
        shutil.rmtree(f"{root}.aside", ignore_errors=True)
        if len(disk.calls) < call:
            return
