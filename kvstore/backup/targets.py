"""Where backups go: named objects, each put whole. A folder, or whatever ``fsspec`` reaches (S3, GCS, SFTP ...).

    /backups/one, file:///backups/one       a folder: an object is written beside its name, synced, and renamed
    s3://bucket/one, gs://...               an object store, through the package fsspec and its driver for that scheme

A put may be lost or done late when it fails: who puts must be able to put the same again, or leave it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from kvstore import layout
from kvstore.backup.errors import NoSuchObject, TargetFailed
from kvstore.errors import MissingDependency, WrongStore
from kvstore.files import Disk, OSDisk
from kvstore.options import BadOption

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


class Target(Protocol):
    """Names are paths with ``/``, relative to the target. Every failure is a ``TargetFailed``."""

    def put(self, name: str, data: bytes) -> None:
        """Store an object, whole or not at all, durably; one of that name is replaced."""

    def get(self, name: str) -> bytes:
        """The content of an object. Raises ``NoSuchObject``."""

    def list(self) -> list[str]:
        """The names of all objects, in order."""

    def delete(self, name: str) -> None:
        """Remove an object; no error if it is gone already."""


def open_target(url: str | os.PathLike[str], disk: Disk | None = None) -> Target:
    """The target at a path or URL. Raises ``MissingDependency``, ``BadOption``."""
    text = os.fspath(url)
    if not text:
        raise BadOption("a backup needs a place: give a path, or a URL such as s3://bucket/folder")
    if not _SCHEME.match(text):
        return Folder(Path(os.path.abspath(text)), disk)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise BadOption(f"{text} names the host {parts.netloc}: a file:// URL has three slashes")
        return Folder(Path(unquote(parts.path)), disk)
    return ObjectStore(text)


@contextmanager
def _failures(what: str, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise TargetFailed(what, name, error) from error


class Folder:
    """Objects as files of a directory tree."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk = disk or OSDisk()
        if layout.is_in_a_store(root):
            raise WrongStore(f"{root} is a store's own directory; choose another place for its backup", root)

    def put(self, name: str, data: bytes) -> None:
        path = self._root / name
        with _failures("put", str(path)):
            self._make_folder(path.parent)
            temporary = layout.temporary(path)
            self._disk.remove(temporary)
            file = self._disk.create(temporary)
            try:
                file.pwrite(data, 0)
                file.sync()
            finally:
                file.close()
            self._disk.rename(temporary, path)
            self._disk.sync_dir(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder, durably."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        self._disk.make_dir(folder)
        self._disk.sync_dir(folder.parent)

    def get(self, name: str) -> bytes:
        path = self._root / name
        with _failures("get", str(path)):
            try:
                with open(path, "rb") as file:
                    return file.read()
            except FileNotFoundError:
                pass
        raise NoSuchObject(f"{path} is not there")

    def list(self) -> list[str]:
        with _failures("list", str(self._root)):
            return sorted(_names(self._root, ""))

    def delete(self, name: str) -> None:
        path = self._root / name
        with _failures("delete", str(path)):
            self._disk.remove(path)
            for folder in path.relative_to(self._root).parents[:-1]:
                if os.listdir(self._root / folder):
                    break
                self._disk.remove_dir(self._root / folder)


def _names(folder: Path, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _names(Path(entry.path), f"{prefix}{entry.name}/")
        elif not entry.name.endswith(layout.TEMP_SUFFIX):
            yield prefix + entry.name


class ObjectStore:
    """Objects of a store that fsspec has a driver for. Their puts are whole or nothing by themselves."""

    def __init__(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingDependency(
                "backups to an object store need the package fsspec: pip install 'kvstore-mvcc[backup]'"
            ) from error
        try:
            found: tuple[Any, str] = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise MissingDependency(f"fsspec needs one more package for {scheme}://: {error}") from error
        except ValueError as error:
            raise BadOption(f"{url}: {error}") from error
        self._fs, root = found
        self._root = root.rstrip("/")
        self._shown = f"{scheme}://{self._root.lstrip('/')}"  # the URL itself may hold a password

    def put(self, name: str, data: bytes) -> None:
        with _failures("put", f"{self._shown}/{name}"):
            self._fs.pipe_file(self._path(name), data)

    def get(self, name: str) -> bytes:
        with _failures("get", f"{self._shown}/{name}"):
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError:
                pass
        raise NoSuchObject(f"{self._shown}/{name} is not there")

    def list(self) -> list[str]:
        with _failures("list", self._shown):
            try:
                paths = self._fs.find(self._root)
            except FileNotFoundError:
                return []
            return sorted(path.removeprefix(self._root).lstrip("/") for path in paths)

    def delete(self, name: str) -> None:
        with _failures("delete", f"{self._shown}/{name}"), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
