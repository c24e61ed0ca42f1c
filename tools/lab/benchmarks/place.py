"""The directory that a run works in: fresh folders, and stores that are built once and shared by rows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class Place:
    """A directory of its own inside ``parent`` (None: where temporary files go), removed at the end."""

    def __init__(self, parent: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kvstore-bench-", dir=parent))
        self._count = 0

    def fresh(self, name: str) -> Path:
        """A new, empty directory."""
        self._count += 1
        path = self.root / f"{self._count:04}-{name.replace('/', '-')}"
        path.mkdir()
        return path

    def once(self, name: str, build: Callable[[Path], None]) -> Path:
        """A directory that ``build`` fills the first time it is asked for."""
        path = self.root / f"built-{name}"
        if not path.exists():
            unfinished = self.fresh(name)
            build(unfinished)
            unfinished.rename(path)
            os.sync()
        return path

    def copy_of(self, source: Path) -> Path:
        """A copy of a directory that is not open; synced, because otherwise its user's first sync would do that."""
        target = self.fresh(source.name)
        shutil.copytree(source, target, dirs_exist_ok=True)
        os.sync()
        return target

    def remove(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove(self.root)
