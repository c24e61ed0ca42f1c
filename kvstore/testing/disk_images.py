"""What a power cut leaves of files: the two images of each, live and durable, and the ways of losing data."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

SECTOR_BYTES = 512


@dataclass(frozen=True)
class Loss:
    """One way of losing what was not synced.

    ``version(i, n, k)``: which version survives of the i-th of n sectors that are not durable and has k
    versions: 0 is the durable one, k the newest. ``entries(n)``: how many of n changes of directories
    survive, oldest first.
    """

    name: str
    version: Callable[[int, int, int], int]
    entries: Callable[[int], int]

    def __repr__(self) -> str:
        return self.name


KEPT = Loss("kept", lambda i, n, k: k, lambda n: n)
LOST = Loss("lost", lambda i, n, k: 0, lambda n: 0)
ENTRIES_ONLY = Loss("entries kept, data lost", lambda i, n, k: 0, lambda n: n)
DATA_ONLY = Loss("data kept, entries lost", lambda i, n, k: k, lambda n: 0)


def first_sectors(count: int) -> Loss:
    """Only the first sectors reached the disk."""
    return Loss(f"first {count} sectors", lambda i, n, k: k if i < count else 0, lambda n: n)


def last_sectors(count: int) -> Loss:
    """Only the last sectors reached the disk, which writes in its own order."""
    return Loss(f"last {count} sectors", lambda i, n, k: k if i >= n - count else 0, lambda n: n)


def all_but(sector: int) -> Loss:
    """One sector did not reach the disk."""
    return Loss(f"all but sector {sector}", lambda i, n, k: 0 if i == sector else k, lambda n: n)


def by_chance(seed: int) -> Loss:
    """Any version of any sector, any number of entries."""
    chance = random.Random(seed)
    return Loss(f"chance {seed}", lambda i, n, k: chance.randint(0, k), lambda n: chance.randint(0, n))


class Content:
    """The live and the durable image of one file that is written through this disk."""

    def __init__(self, data: bytes = b"") -> None:
        self.live = bytearray(data)
        self.durable = bytes(data)
        self.dirty: dict[int, list[bytes]] = {}  # sector -> its versions since the last sync
        self.doomed: dict[int, list[bytes]] = {}  # the same, for sectors that a failed sync gave up

    def write(self, data: bytes, offset: int) -> None:
        if offset > len(self.live):
            self._resize(offset)
        self.live[offset : offset + len(data)] = data
        self._touch(offset, offset + len(data))

    def truncate(self, size: int) -> None:
        self._resize(size)

    def _resize(self, size: int) -> None:
        old = len(self.live)
        del self.live[size:]
        self.live.extend(bytes(max(0, size - old)))
        self._touch(min(size, old), max(size, old))

    def _touch(self, start: int, end: int) -> None:
        for sector in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            at = sector * SECTOR_BYTES
            self.dirty.setdefault(sector, []).append(bytes(self.live[at : at + SECTOR_BYTES]))

    def sync(self) -> None:
        if self.doomed:
            self.durable = self.image({**self.doomed, **self.dirty}, dict.fromkeys(self.doomed, 0))
        else:
            self.durable = bytes(self.live)
        self.dirty.clear()

    def sync_failed(self) -> None:
        self.doomed.update(self.dirty)
        self.dirty.clear()

    def at_risk(self) -> dict[int, list[bytes]]:
        """The sectors that are not durable."""
        return {**self.doomed, **self.dirty}

    def image(self, at_risk: dict[int, list[bytes]], chosen: dict[int, int]) -> bytes:
        """The file if the ``chosen`` version of each sector survives (the newest if none is chosen)."""
        versions = {sector: chosen.get(sector, len(had)) for sector, had in at_risk.items()}
        if all(version == len(at_risk[sector]) for sector, version in versions.items()):
            return bytes(self.live)
        image = bytearray(self.durable)
        for sector, version in sorted(versions.items()):
            if version:
                at, data = sector * SECTOR_BYTES, at_risk[sector][version - 1]
                image.extend(bytes(max(0, at + len(data) - len(image))))
                image[at : at + len(data)] = data
        return bytes(image)
