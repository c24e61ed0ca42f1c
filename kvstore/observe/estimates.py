"""What an operation would do, before it is done."""

from __future__ import annotations

from typing import NamedTuple

from kvstore import files
from kvstore.backend import Backend
from kvstore.layout import DataDir

MARGIN_BYTES = 4 << 20


class CompactionEstimate(NamedTuple):
    """What a compaction to ``revision`` would delete."""

    revision: int
    """The revision that was asked about."""
    changes: int
    """How many rows of the index of changes it would delete."""
    versions: int
    """How many versions of keys."""


class DefragmentEstimate(NamedTuple):
    """What a defragment would do. Until it is done it takes ``needed_bytes`` of the disk's ``free_bytes``."""

    size_bytes: int
    """The backend's file as it is."""
    in_use_bytes: int
    """What of it holds something."""
    needed_bytes: int
    """The room on the disk that defragmenting takes meanwhile."""
    free_bytes: int
    """The room that the disk has."""

    @property
    def reclaimable_bytes(self) -> int:
        """How much shorter the file would become."""
        return max(self.size_bytes - self.in_use_bytes, 0)

    @property
    def free_share(self) -> float:
        """The part of the file that would go, from 0 to 1."""
        return self.reclaimable_bytes / self.size_bytes if self.size_bytes else 0.0


def estimate_defragment(backend: Backend, directory: DataDir | None) -> DefragmentEstimate:
    """The sizes involved. Changes nothing."""
    in_use = backend.in_use_bytes()
    free = files.free_bytes(directory.snap) if directory is not None else 0
    return DefragmentEstimate(backend.size_bytes(), in_use, in_use + MARGIN_BYTES, free)
