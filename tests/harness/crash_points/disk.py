"""A disk that stops at every call to look at what a power cut would leave there, and can kill the process.

    moment      just before a sync takes effect, just after any other call has: the power may go here
    Killed      raised out of a call: the process dies there, and what it wrote is in the page cache

LMDB and SQLite write their files themselves. ``recorded`` makes a backend class of either that keeps a copy of its
files after each commit: any copy since the last ``sync`` may be what a power cut leaves, and so may pages of the
next commit on top of it, as long as the marks that make them current are missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvstore.testing.recording_disk import AnyPath, RecordingDisk

Files = dict[str, bytes]
"""A backend's files: name -> content."""

LMDB_PAGE_BYTES = 4096
SQLITE_WAL_HEADER_BYTES = 32


class Killed(BaseException):
    """The process is dead: nothing it would have done after this call happens."""


class CrashingDisk(RecordingDisk):
    """``on_moment(call)`` is called at every moment; ``kill_at`` are calls in which the process dies."""

    def __init__(self, root: AnyPath, on_moment: Callable[[str], None], kill_at: frozenset[int]) -> None:
        super().__init__(root)
        self._on_moment = on_moment
        self._kill_at = kill_at
        self.is_dead = False
        self.images = Images(self)

    def _call(self, what: str, path: AnyPath, detail: str = "") -> Any:
        if self.is_dead:
            raise Killed
        return _Moment(self, super()._call(what, path, detail), what.startswith("sync"))

    def moment(self) -> None:
        self._on_moment(self.calls[-1])
        if len(self.calls) in self._kill_at:
            self.is_dead = True
            raise Killed

    def take_in(self, path: Path) -> None:
        """Know a file that the backend writes and syncs itself: renamed away, it is lost no more than that."""
        self._node(path).synced = True

    def is_being_replaced(self, name: str) -> bool:
        """Whether a rename over the file is not durable yet: a power cut may bring back the one before."""
        return any(change.target == name and change.source is not None for change in self._changes)

    def restart(self) -> None:
        """The next process begins; what the dead one wrote is still in the page cache."""
        self.is_dead = False

    def spare(self) -> None:
        """No more kills."""
        self.restart()
        self._kill_at = frozenset()


class _Moment:
    """One call, stopped at its moment."""

    def __init__(self, disk: CrashingDisk, call: Any, before: bool) -> None:
        self._disk = disk
        self._call = call
        self._before = before

    def __enter__(self) -> None:
        self._call.__enter__()
        if self._before:
            self._stop()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and not self._before:
            self._stop()
        self._call.__exit__(kind, *rest)

    def _stop(self) -> None:
        try:
            self._disk.moment()
        except BaseException as error:
            self._call.__exit__(type(error), error, None)
            raise


# --- the backend's files -------------------------------------------------------------------------


class Images:
    """What a power cut may leave of the backend's files."""

    def __init__(self, disk: CrashingDisk) -> None:
        self._disk = disk
        self._root = root = Path(disk.root)
        self._commits: list[Files] = []
        self._inode = 0
        self.is_entry_durable = (root / "snap" / "db").exists()

    def committed(self) -> None:
        if self._inode != self._current_inode():  # another file has its name
            self._inode = self._current_inode()
            self._commits = []
        self._disk.take_in(self._root / "snap" / "db")
        files = self._read()
        if not self._commits or self._commits[-1] != files:
            self._commits.append(files)

    def synced(self) -> None:
        """Everything before is durable: older states cannot come back."""
        self._commits = [self._read()]

    def _current_inode(self) -> int:
        path = self._root / "snap" / "db"
        return path.stat().st_ino if path.exists() else 0

    def _read(self) -> Files:
        names = ("db", "db-wal")
        return {
            name: (self._root / "snap" / name).read_bytes()
            for name in names
            if (self._root / "snap" / name).exists()
        }

    def choices(self, chance: random.Random, *, all_commits: bool) -> list[tuple[str, Files | None]]:
        """Newest first. No files: the name itself is lost; None: what the disk says (the file is being replaced)."""
        commits = list(enumerate(self._commits))
        if not commits or self._inode != self._current_inode():
            return [("the disk's own view of the backend", None)]
        chosen = [commits[-1]] + (commits[-2::-1] if all_commits else commits[:1])
        found: list[tuple[str, Files | None]] = [(f"commit {number}", files) for number, files in chosen]
        if len(commits) > 1:
            number = chance.randrange(len(commits) - 1)
            torn = torn_commit(self._commits[number], self._commits[number + 1], chance)
            found.append((f"commit {number}, the next one torn", torn))
        if self._disk.is_being_replaced("snap/db"):
            found.append(("the disk's own view of the backend", None))
        if not self.is_entry_durable:
            found.append(("no backend", {}))
        return found


def torn_commit(old: Files, new: Files, chance: random.Random) -> Files:
    """``old`` with some of what ``new`` wrote, but not what would make it current."""
    if "db-wal" in old or "db-wal" in new:  # SQLite: the log grows; a part of the growth is there
        before, after = old.get("db-wal", b""), new.get("db-wal", b"")
        if old["db"] != new["db"] or not after.startswith(before[:SQLITE_WAL_HEADER_BYTES]):
            return old
        if after[: len(before)] != before:
            return old
        return {**old, "db-wal": after[: chance.randrange(len(before), max(len(after), len(before) + 1))]}
    pages = bytearray(
        old["db"].ljust(len(new["db"]), b"\0")
    )  # LMDB: any pages but the two marks at the front
    for at in range(2 * LMDB_PAGE_BYTES, len(pages), LMDB_PAGE_BYTES):
        if chance.random() < 0.5:
            pages[at : at + LMDB_PAGE_BYTES] = new["db"][at : at + LMDB_PAGE_BYTES]
    return {"db": bytes(pages[: len(pages)])}


def recorded(kind: Any, disk: CrashingDisk) -> Any:
    """``kind``, whose commits and syncs are noted by ``disk``. It stands still while the process is dead."""

    class Recorded(kind):  # type: ignore[misc]  # the base is known only now
        @classmethod
        def open(cls, path: Path, tables: Any, **how: Any) -> Any:
            if disk.is_dead:
                raise Killed
            backend = super().open(path, tables, **how)
            disk.images.committed()
            return backend

        def write(self) -> Any:
            if disk.is_dead:
                raise Killed
            return _RecordedWrite(super().write(), disk)

        def sync(self) -> None:
            if disk.is_dead:
                raise Killed
            super().sync()
            disk.images.synced()

    return Recorded


class _RecordedWrite:
    def __init__(self, tx: Any, disk: CrashingDisk) -> None:
        self._tx = tx
        self._disk = disk

    def __enter__(self) -> Self:
        self._tx.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tx.__exit__(kind, error, trace)
        if kind is None:
            self._disk.images.committed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)
