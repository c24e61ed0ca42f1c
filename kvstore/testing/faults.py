"""Faults for the tests of programs that use a store: what a disk does to every store on it, while a block runs.

    with disk_full():              # no room: what takes room is refused with DiskFull; reads and deletes go on
    with failed_sync():            # the next sync of a log fails: that store is poisoned, until it is opened again
    with slow_sync(0.05):          # every sync of a log takes that long
    with power_cut(path, at=9) as power:      # the power goes in the 9th call that changes something below ``path``
        program(path)
    for path in power.left(tmp_path):         # what may be left of it: open it, and look

They are faults of the machine: they hold for every store of this process that has a disk, however it was opened. None
of them touches a file outside the store, and each ends with its block. ``every_power_cut`` tries all the calls of a
program, one after the other.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from kvstore import files, reads, recovery
from kvstore.engine import LocalEngine
from kvstore.files import Disk, OSFile
from kvstore.testing.crashes import Crash, every_crash
from kvstore.testing.recording_disk import PowerCut, RecordingDisk, UnsyncedFile

__all__ = ["PowerCut", "Power", "disk_full", "every_power_cut", "failed_sync", "power_cut", "slow_sync"]

AnyFile = TypeVar("AnyFile", bound=OSFile)


@contextmanager
def disk_full(free_bytes: int = 0) -> Iterator[None]:
    """Leave only ``free_bytes`` on each disk, also for stores in memory; the option ``low_disk_bytes`` must not be 0.

    At the end there is room again, and every store has noticed.
    """
    with mock.patch.object(files, "free_bytes", lambda path: free_bytes):
        for engine in _open_engines():
            engine.room.measure()
        yield
    for engine in _open_engines():
        engine.room.tend()


@contextmanager
def failed_sync(number: int = 1, code: int = errno.EIO) -> Iterator[None]:
    """Have the ``number``-th sync of a log from here on, and all later ones, fail with the errno ``code``."""
    left = number

    def fail() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(code, os.strerror(code))

    with _before_syncs(fail):
        yield


@contextmanager
def slow_sync(seconds: float) -> Iterator[None]:
    """Have every sync of a log take ``seconds`` longer."""
    with _before_syncs(lambda: time.sleep(seconds)):
        yield


@contextmanager
def _before_syncs(fault: Callable[[], None]) -> Iterator[None]:
    with _before_sync(OSFile, fault), _before_sync(UnsyncedFile, fault):
        yield


@contextmanager
def _before_sync(kind: type[AnyFile], fault: Callable[[], None]) -> Iterator[None]:
    sync = kind.sync

    def faulty(file: AnyFile) -> None:
        with files.disk_full_is_typed():
            fault()
        sync(file)

    with mock.patch.object(kind, "sync", faulty):
        yield


def _open_engines() -> list[LocalEngine]:
    engines = [engine for engine in reads.open_engines if isinstance(engine, LocalEngine)]
    return [engine for engine in engines if not engine.life.refuses_writes or engine.life.is_stalled]


class Power:
    """The power of a machine with one data directory."""

    def __init__(self, disk: RecordingDisk) -> None:
        self.disk = disk

    @property
    def is_off(self) -> bool:
        """Whether it has gone."""
        return self.disk.is_off

    def left(self, scratch: Path) -> Iterator[Path]:
        """Each state that the cut may have left, as a directory below ``scratch``."""
        for number, loss in enumerate(self.disk.losses()):
            yield self.disk.materialise(scratch / f"left-{number}", loss)


@contextmanager
def power_cut(path: str | os.PathLike[str], at: int) -> Iterator[Power]:
    """Cut the power in the ``at``-th call that changes a file below ``path`` (0: at the end of the block).

    The block ends there: whatever it raises once the power is off is dropped. Every store that it opens is on this
    disk, so it must open none outside ``path``.
    """
    disk = RecordingDisk(path, cut_at=at)
    try:
        with _on(disk):
            yield Power(disk)
    except Exception:
        if not disk.is_off:
            raise
    disk.cut_power()


def every_power_cut(scratch: Path, program: Callable[[Path, Callable[[Any], None]], None]) -> Iterator[Crash]:
    """Run ``program(path, acknowledge)`` once for each of its calls to the disk, and cut the power there.

    Yields each state that may be left: ``crash.directory`` to open, ``crash.acknowledged`` for what the program had
    passed to ``acknowledge`` before: that must be there.
    """

    def workload(disk: Disk, path: Path, acknowledge: Callable[[Any], None]) -> None:
        with _on(disk):
            program(path, acknowledge)

    return every_crash(scratch, workload)


@contextmanager
def _on(disk: Disk) -> Iterator[None]:
    """Have every store that is opened here lie on ``disk``."""
    with mock.patch.object(recovery, "OSDisk", lambda: disk):
        yield
