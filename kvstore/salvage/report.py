"""The report of a salvage: what is in the new store, how sure it is, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kvstore.salvage.evidence import Level

SHOWN_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What was salvaged. ``keys`` counts live keys by level."""

    source: str
    kind: str
    data_dir: Path | None
    backend: str
    revision: int
    compact_revision: int
    hash_kv: int
    """etcd's HashKV at that revision."""
    horizon: int
    """No change above this revision is missing; -1: none at all is missing."""
    keys: dict[Level, int]
    may_be_older: int
    """Live keys that may have been changed or deleted by what was lost."""
    levels: dict[bytes, tuple[Level, bool]] = field(repr=False)
    """Of each live key: the level of its value, and whether a later change of it may be lost."""
    missing: tuple[tuple[int, int], ...]
    """Ranges of revisions (first, last) of which something is missing; last -1: no end is known."""
    figures: dict[str, int]
    warnings: tuple[str, ...]
    unread: tuple[str, ...]
    contradictions: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, as far as anything can show."""
        return not (self.missing or self.unread or self.contradictions)

    def sure(self, key: bytes) -> bool:
        """Whether the key's value is covered by a checksum, and no later change of it can be missing."""
        return self.levels.get(key, (Level.ALONE, True)) == (Level.CHECKSUM, False)

    def lines(self, shown: int = SHOWN_LINES) -> Iterator[str]:
        """The report as text; ``shown``: how many lines of what could not be read (0: all)."""
        for warning in self.warnings:
            yield f"WARNING: {warning}"
        yield f"{self.source}: {self.kind}"
        if self.data_dir is not None:
            yield f"new store {self.data_dir} ({self.backend}), revision {self.revision}, HashKV {self.hash_kv}"
        if self.compact_revision >= 0:
            yield f"history is kept from revision {self.compact_revision} on"
        total = sum(self.keys.values())
        yield f"{total:>12,} live keys"
        for level in sorted(Level, reverse=True):
            yield f"{self.keys.get(level, 0):>12,} {level.name.lower():<11} {level.meaning}"
        if self.may_be_older:
            yield f"{self.may_be_older:>12,} of them may have been changed or deleted by something that was lost"
        for what, count in self.figures.items():
            yield f"{count:>12,} {what}"
        if self.is_complete:
            yield "nothing is missing, as far as the file can show"
            return
        yield "could not be read:"
        yield from _some([_range(*each) for each in self.missing], shown)
        yield from _some(list(self.unread), shown)
        yield from _some(list(self.contradictions), shown)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for JSON; without the levels of single keys."""
        found = {name: value for name, value in asdict(self).items() if name != "levels"}
        found["data_dir"] = None if self.data_dir is None else str(self.data_dir)
        found["keys"] = {level.name.lower(): count for level, count in self.keys.items()}
        found["is_complete"] = self.is_complete
        return found


def _range(first: int, last: int) -> str:
    if last < 0:
        return f"revisions from {first} on: nothing says whether there were any"
    return f"revision {first}" if first == last else f"revisions {first} to {last}"


def _some(lines: list[str], shown: int) -> Iterator[str]:
    shown = shown or len(lines)
    yield from (f"  {line}" for line in lines[:shown])
    if len(lines) > shown:
        yield f"  ... and {len(lines) - shown} more"
