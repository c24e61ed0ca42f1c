"""Trying every crash: a workload is run once for each of its calls, and that call fails or loses power.

for crash in every_crash(tmp_path, workload):     # workload(disk, directory, acknowledge)
    ... open crash.directory, compare with crash.acknowledged ...

Many crashes leave the same files (a cut before a sync and one after it, say), and what follows from the same files is
the same. So a state is yielded once, unless more was acknowledged meanwhile.

To look at one that failed: ``KVSTORE_KEEP=folder`` keeps what the crash left, as it was before it was opened, and
``KVSTORE_CALL=number`` tries only the crashes of that call (the message names it).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore import layout
from kvstore.files import Disk
from kvstore.testing.disk_images import Loss
from kvstore.testing.recording_disk import RecordingDisk

Workload = Callable[[Disk, Path, Callable[[Any], None]], None]

KEEP = os.environ.get("KVSTORE_KEEP")
CALL = int(os.environ.get("KVSTORE_CALL", "0"))


@dataclass(frozen=True)
class Crash:
    """What one power cut left, and what had been acknowledged before it."""

    directory: Path
    acknowledged: list[Any] = field(repr=False)
    call: int
    what: str
    loss: Loss

    def __str__(self) -> str:
        return f"call {self.call} ({self.what}), {self.loss}"


def every_crash(
    scratch: Path, workload: Workload, *, chances: int = 4, most_sectors: int = 12, start: Path | None = None
) -> Iterator[Crash]:
    """Run ``workload(disk, directory, acknowledge)`` once for each of its calls, cut the power in that
    call, and yield every state that may be left, each once: see ``RecordingDisk.losses`` for ``chances`` and
    ``most_sectors``. ``start``: a directory; each run begins with a copy of it.

    Directories are removed after their turn. What the workload raises after the cut is ignored
    (it is ``PowerCut`` or follows from it); what it raises without a cut is passed on.
    """
    ways = {"chances": chances, "most_sectors": most_sectors}
    return _every(scratch, workload, lambda root, call: RecordingDisk(root, cut_at=call), ways, start)


def every_failure(
    scratch: Path,
    workload: Workload,
    code: int,
    *,
    short_write_bytes: int = 0,
    chances: int = 4,
    most_sectors: int = 12,
    start: Path | None = None,
) -> Iterator[Crash]:
    """The same with a call that fails with the errno ``code``; the power is cut when the workload has
    ended, on its own or with that error. A failed write leaves ``short_write_bytes`` of its data behind."""

    def disk(root: Path, call: int) -> RecordingDisk:
        return RecordingDisk(root, fail_at={call: code}, short_write_bytes=short_write_bytes)

    ways = {"chances": chances, "most_sectors": most_sectors}
    return _every(scratch, workload, disk, ways, start)


def _every(
    scratch: Path,
    workload: Workload,
    make_disk: Callable[[Path, int], RecordingDisk],
    ways: dict[str, int],
    start: Path | None,
) -> Iterator[Crash]:
    yielded: dict[bytes, list[list[Any]]] = {}
    """What was acknowledged, for each state that was yielded."""
    for call in [CALL] if CALL else itertools.count(1):
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
        for number, loss in enumerate(disk.losses(**ways)):
            left = disk.materialise(scratch / f"left-{call}-{number}", loss)
            what = disk.calls[min(call, len(disk.calls)) - 1]
            known = yielded.setdefault(fingerprint(left), [])
            if acknowledged not in known:
                known.append(list(acknowledged))
                with kept(left, f"call-{call}-{number}"):
                    yield Crash(left, list(acknowledged), call, what, loss)
            shutil.rmtree(left)
        shutil.rmtree(root)
        shutil.rmtree(f"{root}.aside", ignore_errors=True)
        if len(disk.calls) < call:
            return


def fingerprint(directory: Path) -> bytes:
    """A hash of all files and folders in a directory, by name. A store's lock file counts as empty: what it says is of
    this copy alone (``recording_disk.say_where_it_lies``).
    """
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        content = path.read_bytes() if path.is_file() and path.name != layout.LOCK else b""
        name = os.fsencode(path.relative_to(directory))
        found.update(b"%d %d %b%b" % (len(name), len(content), name, content))
    return found.digest()


@contextmanager
def kept(left: Path, name: str) -> Iterator[None]:
    """With ``KVSTORE_KEEP``, keep a copy of the directory in that folder unless the block completes."""
    if KEEP is None:
        yield
        return
    Path(KEEP).mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=KEEP))
    shutil.copytree(left, copy, dirs_exist_ok=True)
    yield
    shutil.rmtree(copy)
