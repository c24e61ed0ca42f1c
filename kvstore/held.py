"""A store's directories, held as they were when it was opened.

A path says where something was. While a store is open its directory may be renamed, a link on the path changed, or
another file system mounted on top; then the same path leads to other files. Open files are not affected: the log and
the backend are written through descriptors. Anything that would use the path again (the next segment, a snapshot, a
defragmentation, releasing segments) first checks that it still leads to the directory that was opened, and otherwise
raises ``StoreUnreachable`` with nothing changed. The log then continues in its current segment.

Files created in these directories belong to the directories' owner, even when root does the upkeep.
"""

from __future__ import annotations

import os

from kvstore.errors import StoreUnreachable
from kvstore.files import Disk, File, Path, hand_over, typed
from kvstore.layout import DataDir


class HeldFolders:
    """The folders of one data directory, by path."""

    def __init__(self, directory: DataDir) -> None:
        self._known = {
            os.fspath(path): _identity(os.stat(path))
            for path in (directory.root, directory.snap, directory.wal)
        }

    def check(self, path: Path) -> None:
        """Raise ``StoreUnreachable`` if ``path`` is one of the directories, or inside one, that was moved away."""
        path = os.fspath(path)
        folder = path if path in self._known else os.path.dirname(path)
        known = self._known.get(folder)
        if known is None:
            return
        try:
            found = _identity(os.stat(folder))
        except PermissionError as error:
            raise typed(error) from error
        except OSError as error:
            raise StoreUnreachable(folder, error.strerror or "cannot be reached") from error
        if found != known:
            raise StoreUnreachable(folder, "another directory is there now")

    def check_all(self) -> None:
        for folder in self._known:
            self.check(folder)

    def __contains__(self, folder: str) -> bool:
        return folder in self._known


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def check_held(disk: Disk) -> None:
    """Raise ``StoreUnreachable`` if a folder held by ``disk`` is no longer in its place.

    For files that are not opened through ``disk``.
    """
    folders: HeldFolders | None = getattr(disk, "folders", None)
    if folders is not None:
        folders.check_all()


class HeldDisk:
    """A ``Disk`` for the files of one store: see the module's docstring."""

    def __init__(self, disk: Disk, directory: DataDir) -> None:
        self._disk = disk
        self.folders = HeldFolders(directory)

    def create(self, path: Path, *, direct: bool = False) -> File:
        self.folders.check(path)
        file = self._disk.create(path, direct=True) if direct else self._disk.create(path)
        try:
            if os.path.dirname(path) in self.folders:
                hand_over(path)
        except BaseException:
            file.close()
            raise
        return file

    def open(self, path: Path) -> File:
        self.folders.check(path)
        return self._disk.open(path)

    def rename(self, source: Path, target: Path) -> None:
        self.folders.check(source)
        self.folders.check(target)
        self._disk.rename(source, target)
        if os.path.dirname(target) in self.folders:
            hand_over(target)

    def remove(self, path: Path) -> None:
        self.folders.check(path)
        self._disk.remove(path)

    def make_dir(self, path: Path) -> None:
        self._disk.make_dir(path)

    def remove_dir(self, path: Path) -> None:
        self.folders.check(path)
        self._disk.remove_dir(path)

    def sync_dir(self, path: Path) -> None:
        self.folders.check(path)
        self._disk.sync_dir(path)

    def sync_file(self, path: Path) -> None:
        self.folders.check(path)
        self._disk.sync_file(path)
