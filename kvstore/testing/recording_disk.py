"""A disk that can lie: a ``Disk`` on a real directory, of which a power cut may leave any allowed state.

Every call that changes something is carried out (without real syncs) and remembered, in two images:

    live       what a program reads back, and what a killed process leaves behind
    durable    what is sure to survive a power cut: file contents up to the last sync of the file,
               directory entries up to the last ``sync_dir`` of their directory

Between the two is what a power cut may take or leave, each part on its own:

    sectors    every 512-byte sector that was written since the last sync of its file, in any of the
               versions that it has had since then
    entries    names made, renamed or removed since the last ``sync_dir``; a prefix of them survives

A ``Loss`` says which. ``losses()`` lists those worth trying in the present state.

Calls are numbered from 1. ``cut_at=N`` cuts the power in the middle of call N: a write or rename has
happened but is not durable, a sync has promised nothing. From then on every call raises ``PowerCut``.
``fail_at={N: errno}`` makes calls fail: a write leaves ``short_write_bytes`` of its data behind, and a
failed sync loses for good what it should have synced: as on Linux, the next sync "succeeds", but
the data does not come back.

Files that others write (LMDB, SQLite) are taken as they are at the time of the cut. If the
program has renamed one without ``sync_file`` before, a loss may leave it empty.

``crashes`` runs a workload once for each of its calls, and cuts it there.
"""

from __future__ import annotations

import errno as errors
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from kvstore.errors import DiskFull
from kvstore.files import File, OSDisk, OSFile
from kvstore.layout import DataDir
from kvstore.store_lock import place_of
from kvstore.testing.disk_images import (
    DATA_ONLY,
    ENTRIES_ONLY,
    KEPT,
    LOST,
    Content,
    Loss,
    all_but,
    by_chance,
    first_sectors,
    last_sectors,
)

AnyPath = str | os.PathLike[str]


class PowerCut(OSError):
    """The machine is off: no call reaches the disk any more."""


@dataclass(eq=False)
class _Node:
    """A file: with ``content`` if written here, otherwise written by others, on the real disk at ``real``."""

    real: str
    content: Content | None = None
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
            if self.node is _DIRECTORY:
                inside = [name for name in names if name.startswith(self.source + "/")]
                names.update({self.target + name[len(self.source) :]: names.pop(name) for name in inside})
        if self.node is None:
            names.pop(self.target, None)
        else:
            names[self.target] = self.node


_DIRECTORY = _Node("")


# --- the disk ------------------------------------------------------------------------------------


def say_where_it_lies(root: Path) -> None:
    """Mark the store as being in its place. What is left after a cut is a copy here, but stands for the files
    themselves; so the opening must do what it does after a cut, not what it does with a copy."""
    for db in root.rglob("snap/db"):
        directory = DataDir.at(db.parent.parent)
        directory.lock.write_text(json.dumps({"place": place_of(directory)}))


class RecordingDisk:
    """See the module's docstring. ``calls`` lists the calls: ``"pwrite wal/… 120+300"``, ``"sync_dir wal"``."""

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
        self._aside = self.root + ".aside"  # links to files whose name a rename or remove has taken
        os.makedirs(self.root, exist_ok=True)
        self._take_in_what_is_there()

    # --- Disk ------------------------------------------------------------------------------

    def create(self, path: AnyPath, *, direct: bool = False) -> File:
        with self._call("create", path):
            file = self._os.create(path)
            node = _Node(os.path.abspath(path), Content())
            self._change(_Change(self._name(path), node))
            return _RecordingFile(self, file, node)

    def open(self, path: AnyPath) -> File:
        with self._lock:
            self._check_power()
            node = self._node(path)
            if node.content is None:
                node.content = Content(Path(path).read_bytes())
            return _RecordingFile(self, self._os.open(path), node)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        with self._call("rename", source, self._name(target)):
            if self._live.get(self._name(source)) is _DIRECTORY:
                self._rename_directory(source, target)
                return
            node = self._node(source)
            self._put_aside(target)
            self._os.rename(source, target)
            node.real = os.path.abspath(target)
            self._change(_Change(self._name(target), node, self._name(source)))

    def _rename_directory(self, source: AnyPath, target: AnyPath) -> None:
        self._os.rename(source, target)
        old, new = os.path.abspath(source) + "/", os.path.abspath(target) + "/"
        for node in self._nodes():
            if node.real.startswith(old):
                node.real = new + node.real[len(old) :]
        self._change(_Change(self._name(target), _DIRECTORY, self._name(source)))

    def remove_dir(self, path: AnyPath) -> None:
        with self._call("remove_dir", path):
            if os.path.isdir(path):
                self._os.remove_dir(path)
                self._change(_Change(self._name(path), None))

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
                if change.source is not None:  # the source's own older changes are settled with it
                    at = self._changes.index(change)
                    self._changes[:at] = [old for old in self._changes[:at] if old.target != change.source]
                change.apply(self._durable)
                self._changes.remove(change)

    def sync_file(self, path: AnyPath) -> None:
        with self._call("sync_file", path):
            node = self._node(path)
            node.synced = True
            if node.content is not None and Path(path).read_bytes() != node.content.live:
                node.content = None  # a backend has gone on writing what was written here
            if node.content is not None:
                node.content.sync()

    # --- the power cut -----------------------------------------------------------------------

    def cut_power(self) -> None:
        """From now on every call raises ``PowerCut``."""
        with self._lock:
            self.is_off = True

    def losses(self, *, chances: int = 4, most_sectors: int = 12) -> list[Loss]:
        """The ways of losing data that differ in the present state; torn writes at every sector (up to
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
                    continue  # a file without its directory cannot be reached
                if node is _DIRECTORY:
                    (target / name).mkdir(exist_ok=True)
                else:
                    (target / name).write_bytes(node.bytes_left(chosen.get(id(node)), loss))
            say_where_it_lies(target)
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
        """Every file that has a name, or may get one back."""
        found: dict[int, _Node] = {}
        for names in (self._durable, self._live):
            found.update((id(node), node) for node in names.values() if node is not None)
        found.update((id(change.node), change.node) for change in self._changes if change.node)
        return list(found.values())

    def _copy_foreign(self, target: Path) -> None:
        """Copy the files that this disk was never asked about, as they are."""
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
        """The file of that name; one that others have made is registered, with a durable name."""
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
        """Keep the bytes of a file, written by others, that loses its name: a cut may bring the name back."""
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
    """One numbered call: fails before it begins, or cuts the power once its effect is there."""

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


class UnsyncedFile(OSFile):
    def sync(self) -> None:
        pass


class UnsyncedDisk(OSDisk):
    """The real disk without the syncs, for tests in which no power is cut."""

    def create(self, path: AnyPath, *, direct: bool = False) -> OSFile:
        return UnsyncedFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def open(self, path: AnyPath) -> OSFile:
        return UnsyncedFile(path, os.O_RDWR)

    def sync_dir(self, path: AnyPath) -> None:
        pass

    def sync_file(self, path: AnyPath) -> None:
        pass
