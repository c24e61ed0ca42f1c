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
    changes: int
    versions: int


class DefragmentEstimate(NamedTuple):
    """What a defragment would do. Until it is done it takes ``needed_bytes`` of the disk's ``free_bytes``."""

    size_bytes: int
    in_use_bytes: int
    needed_bytes: int
    free_bytes: int

    @property
    def reclaimable_bytes(self) -> int:
        return max(self.size_bytes - self.in_use_bytes, 0)

    @property
    def free_share(self) -> float:
        return self.reclaimable_bytes / self.size_bytes if self.size_bytes else 0.0


def estimate_defragment(backend: Backend, directory: DataDir | None) -> DefragmentEstimate:
    """The sizes involved. Changes nothing."""
    in_use = backend.in_use_bytes()
    free = files.free_bytes(directory.snap) if directory is not None else 0
    return DefragmentEstimate(backend.size_bytes(), in_use, in_use + MARGIN_BYTES, free)
