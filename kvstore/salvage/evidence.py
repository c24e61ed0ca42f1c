"""What a damaged file was found to say: facts, each with how sure it is, and how far the reading was complete.

A *fact* is one change of one key: "at revision 7.0, key a was put, with this value and these numbers", or "was
deleted". Facts never contradict later ones, for nothing overwrites a revision. So an old copy of a page, left behind in
free space, still tells the truth about its revisions, and three questions are separate:

    is the fact true?             its level
    is it still in the store?     a compaction may have removed it: only the covered ranges say
    is it the newest of its key?  only if nothing that came later is missing

Levels, from the surest:

    CHECKSUM     a checksum over exactly these bytes (SHA-256 of a snapshot, CRC of a log record) holds
    CONSISTENT   no checksum covers it, but it is where the file's own structure says it must be, and every rule
                 that can be tried without a checksum holds. Damage inside a value passes all of them: a flipped
                 bit, or an overflow page of a large value, which carries no number of its own
    ALONE        it decodes as a row, and nothing else in the file vouches for it

Only the first is *sure*.

A row that is longer than its place stays in the source until it is needed (``Kept``): so a salvage has of each fact
some hundred bytes in memory, however long values are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from kvstore.backend import Backend, Row
from kvstore.keyvalue import split_row

Revision = tuple[int, int]
"""(main, sub)."""

NEVER_COMPACTED = -1
SHORT_BYTES = 160
"""A row of so many bytes takes no more memory than where it is."""


class Level(IntEnum):
    """How sure a fact is."""

    ALONE = 1
    CONSISTENT = 2
    CHECKSUM = 3

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Level.ALONE: "decodes as a row; nothing else in the file vouches for it",
    Level.CONSISTENT: "where the file's structure says it must be; no checksum covers its bytes",
    Level.CHECKSUM: "a checksum over exactly these bytes holds",
}


class Kept(Protocol):
    """Where a row is."""

    def read(self) -> bytes:
        """The row, read again."""


class Source(Protocol):
    """A file that can still be read."""

    def read(self, start: int, end: int) -> bytes:
        """Its bytes from ``start`` up to, not including, ``end``."""


class InFile(NamedTuple):
    """A row whose bytes follow each other in a file."""

    source: Source
    start: int
    end: int

    def read(self) -> bytes:
        return self.source.read(self.start, self.end)


def shorter(row: bytes, place: Kept) -> bytes | Kept:
    """What takes less memory."""
    return row if len(row) <= SHORT_BYTES else place


class Fact(NamedTuple):
    """One change of one key."""

    revision: Revision
    key: bytes
    kept: bytes | Kept | None
    """etcd's ``KeyValue``, as a row of ours or of etcd's has it, or where that is; None: the key was deleted."""
    level: Level
    place: str
    """Where it was read, for the report."""

    @property
    def is_delete(self) -> bool:
        return self.kept is None

    @property
    def key_value(self) -> bytes | None:
        """etcd's ``KeyValue``; None: the key was deleted."""
        kept = self.kept
        if kept is None:
            return None
        return split_row(kept if isinstance(kept, bytes) else kept.read())[1]


class Covered(NamedTuple):
    """Revisions from ``start`` up to, not including, ``end`` (None: to the newest) of which every fact was read."""

    start: Revision
    end: Revision | None


class LeaseFound(NamedTuple):
    """A lease, with the seconds that it had left, or was granted."""

    id: int
    ttl_seconds: int
    left_seconds: int


@dataclass(slots=True)
class Evidence:
    """All that was read of a source."""

    source: str
    kind: str
    facts: list[Fact] = field(default_factory=list)
    covered: list[Covered] = field(default_factory=list)
    compacted: int = NEVER_COMPACTED
    """The highest compaction that any part of the file names."""
    newest: int = 0
    """The newest revision that the file names elsewhere than in its facts; 0: it does not."""
    leases: list[LeaseFound] = field(default_factory=list)
    carried: list[Row] = field(default_factory=list)
    """Rows of ``meta`` that a store only keeps for who serves it: users, roles, members."""
    index: int = 0
    cluster_id: int = 0
    member_id: int = 0
    name: str = ""
    unread: list[str] = field(default_factory=list)
    """What could not be read, a line each."""
    lost_later: list[str] = field(default_factory=list)
    """What could not be read of a log after the facts: whatever it was, it came later."""
    replay: Callable[[Backend], list[str]] | None = None
    """Applies the log after the facts to a backend that holds them; returns notes. Only used if nothing is missing."""
    warnings: list[str] = field(default_factory=list)
    """What must be known before the result is used, such as that no checksum was checked."""
    figures: dict[str, int] = field(default_factory=dict)
    """Counts of pages or records, by what became of them."""
    sources: ExitStack = field(default_factory=ExitStack)
    """What the facts are read from: open until the new store is built."""
