"""A real disk whose log syncs a test can hold back, count and fail."""

from __future__ import annotations

import errno
import threading
from typing import Any

from kvstore.files import OSDisk, OSFile, Path

PATIENCE_SECONDS = 60.0


class GatedDisk(OSDisk):
    """After ``hold()`` syncs of the log wait, until ``release()`` or ``release_one()``; ``failing``: they raise EIO."""

    def __init__(self) -> None:
        self.syncs = 0
        self.failing = False
        self._is_held = False
        self._passes = threading.Semaphore(0)
        self._waiting = threading.Semaphore(0)

    def open(self, path: Path) -> OSFile:
        file = super().open(path)
        return _GatedFile(self, file) if str(path).endswith(".wal") else file  # type: ignore[return-value]  # a File

    def hold(self) -> None:
        self._is_held = True

    def release_one(self) -> None:
        """Let the sync that waits pass, and hold the next."""
        self._passes.release()

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._passes.release()  # there is one sync of the log at a time

    def wait_for_sync(self) -> None:
        """Return when a sync of the log waits at the gate."""
        assert self._waiting.acquire(timeout=PATIENCE_SECONDS), "no sync came"

    def pass_gate(self) -> None:
        if self._is_held:
            self._waiting.release()
            assert self._passes.acquire(timeout=PATIENCE_SECONDS), "the gate was never opened"
        self.syncs += 1
        if self.failing:
            raise OSError(errno.EIO, "the disk is dying")


class _GatedFile:
    def __init__(self, disk: GatedDisk, file: OSFile) -> None:
        self._disk = disk
        self._file = file

    def sync(self) -> None:
        self._disk.pass_gate()
        self._file.sync()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
