"""Directories for work that leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvstore.files import Disk


@contextmanager
def scratch(disk: Disk, beside: Path) -> Iterator[Path]:
    """A new directory that is removed with the files in it."""
    folder = beside / f"kvstore-{os.urandom(4).hex()}"
    disk.make_dir(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            remove_tree(disk, folder)


def remove_tree(disk: Disk, folder: Path) -> None:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(disk, Path(entry.path))
        else:
            disk.remove(entry.path)
    disk.remove_dir(folder)
