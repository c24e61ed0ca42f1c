"""Whether the SHA-256 that a snapshot file carries was checked, and what to say where it was not."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path

from kvstore.snapshot.formats import find_format, inspect
from kvstore.snapshot.reader import SnapshotInfo, chunks

HASHED_BYTES_MAX = 256 << 20
"""Whoever only looks into a larger file does not wait for its hash: half a second."""


class HashState(StrEnum):
    """From the best to the worst."""

    MATCHES = "matches"
    SKIPPED = "not checked"
    NONE = "none"
    DIFFERS = "does not match"

    @property
    def caution(self) -> str:
        """What has to be said above everything that rests on the file; empty if its bytes are as they were written."""
        return _CAUTIONS[self]


_CAUTIONS = {
    HashState.MATCHES: "",
    HashState.SKIPPED: "THE HASH WAS NOT CHECKED: the file is large; `kvstore verify FILE` checks every byte of it",
    HashState.NONE: (
        "NO HASH WAS CHECKED: the file carries none (a copy of member/snap/db never has one; a snapshot that was cut "
        "short has lost it), so damage inside a value is not noticed"
    ),
    HashState.DIFFERS: (
        "THE HASH DOES NOT MATCH: the file is damaged, and any value in it may be wrong; `kvstore salvage FILE` says "
        "what is sure"
    ),
}


def worst(one: HashState | None, other: HashState) -> HashState:
    """Of several files that one answer rests on."""
    return other if one is None else max(one, other, key=list(HashState).index)


def hash_state(path: Path, bytes_max: int = HASHED_BYTES_MAX) -> HashState:
    """Of a snapshot file of any kind, up to that size."""
    info = inspect(path, verified=False)
    if not info.sha256:
        return HashState.NONE
    if info.size_bytes > bytes_max:
        return HashState.SKIPPED
    is_ours = find_format(path) is None
    return _compared(info, info.backend_bytes if is_ours else info.size_bytes - len(info.sha256))


def _compared(info: SnapshotInfo, hashed_bytes: int) -> HashState:
    digest = hashlib.sha256()
    for _, chunk in chunks(info.path, hashed_bytes):
        digest.update(chunk)
    return HashState.MATCHES if digest.digest() == info.sha256 else HashState.DIFFERS


def state_after_check(info: SnapshotInfo) -> HashState:
    """Of a file that has passed ``inspect(verified=True)``."""
    return HashState.MATCHES if info.sha256 else HashState.NONE
