"""The life of a handle: the phase it is in, and what its callers may do in that phase. One table (``PHASES``).

    opened ----> OPEN <----> STALLED      the log accepts nothing (usually a full disk); ends by itself
                  |             |
                  +--> POISONED +         a write or sync failed: only reopening shows what is on disk
                  |
                  +--> CLOSING --> CLOSED

    READ_ONLY    opened for reading only, as snapshots are
    EXHAUSTED    opened at the last possible revision
    FORKED       in a child process, whatever it was in the parent

Everything asks here: reads and writes for the error that refuses them, background work whether it should run, and
``health`` for the reason. Whether the background threads have started yet is tracked elsewhere
(``upkeep/background.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from kvstore.errors import (
    DiskFull,
    ForkedStore,
    KVStoreError,
    ReadOnly,
    RevisionsExhausted,
    StoreClosed,
    StorePoisoned,
    again,
)

Refusal = Callable[[], KVStoreError]
"""Makes the error that a refused caller gets."""


class Phase(Enum):
    """The phase of a handle."""

    OPEN = "open"
    STALLED = "stalled"
    POISONED = "poisoned"
    EXHAUSTED = "exhausted"
    READ_ONLY = "read-only"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"


class Row(NamedTuple):
    """A row of the table. None: the call is served."""

    reads: type[KVStoreError] | None
    writes: type[KVStoreError] | None
    has_upkeep: bool
    """Whether background work runs."""
    following: frozenset[Phase] = frozenset()
    """The phases that may follow, by name."""


_END = frozenset({Phase.CLOSING, Phase.CLOSED, Phase.FORKED})
PHASES: dict[Phase, Row] = {
    Phase.OPEN: Row(None, None, True, _END | {Phase.STALLED, Phase.POISONED, Phase.EXHAUSTED}),
    Phase.STALLED: Row(None, DiskFull, True, _END | {Phase.OPEN, Phase.POISONED}),
    Phase.POISONED: Row(None, StorePoisoned, False, _END),
    Phase.EXHAUSTED: Row(None, RevisionsExhausted, True, _END | {Phase.POISONED}),
    Phase.READ_ONLY: Row(None, ReadOnly, False, _END),
    Phase.CLOSING: Row(None, StoreClosed, False, frozenset({Phase.CLOSED, Phase.FORKED})),
    Phase.CLOSED: Row(StoreClosed, StoreClosed, False, frozenset({Phase.FORKED})),
    Phase.FORKED: Row(ForkedStore, ForkedStore, False),
}


class Life:
    """The life of one handle. Each change may safely be interrupted and repeated."""

    def __init__(self, phase: Phase = Phase.OPEN) -> None:
        self.phase = phase
        self.failure: BaseException | None = None
        """What poisoned the store; final."""
        self.stalled_by: KVStoreError | None = None
        """Why the log accepts nothing."""
        self.read_refusal: Refusal | None = None
        self.write_refusal: Refusal | None = None
        self._become(phase)

    def move(self, phase: Phase) -> bool:
        """Move to ``phase`` if the table allows it from here. Returns whether the handle is in that phase now."""
        if phase is self.phase:
            return True
        if phase not in PHASES[self.phase].following:
            return False
        self._become(phase)
        return True

    def _become(self, phase: Phase) -> None:
        row = PHASES[phase]
        makers: dict[type[KVStoreError], Refusal] = {StorePoisoned: self.poisoned, DiskFull: self.stalled}
        self.write_refusal = None if row.writes is None else makers.get(row.writes, row.writes)
        self.read_refusal = row.reads
        self.phase = phase

    def poison(self, failure: BaseException) -> None:
        """Refuse writes until the store is reopened: memory and disk may disagree. The first failure is kept."""
        if self.failure is None:
            self.failure = failure
        self.move(Phase.POISONED)

    def stall(self, obstacle: KVStoreError) -> None:
        """Plan nothing until the log accepts entries again."""
        self.stalled_by = obstacle
        self.move(Phase.STALLED)

    def resume(self) -> None:
        """End the stall."""
        self.stalled_by = None
        self.move(Phase.OPEN)

    @property
    def is_stalled(self) -> bool:
        return self.stalled_by is not None

    @property
    def refuses_writes(self) -> bool:
        return self.write_refusal is not None

    @property
    def has_upkeep(self) -> bool:
        return PHASES[self.phase].has_upkeep

    def reasons(self) -> list[str]:
        """The reasons why writes are refused that a healthy store would accept."""
        found = []
        if self.failure is not None:
            found.append(f"refuses writes until it is reopened: {self.failure!r}")
        if self.stalled_by is not None:
            is_full = isinstance(self.stalled_by, DiskFull)
            found.append(
                "the disk is full: writes wait for room" if is_full else f"writes wait: {self.stalled_by}"
            )
        return found

    def check_readable(self) -> None:
        """Raise the error that refuses reads, if any."""
        if self.read_refusal is not None:
            raise self.read_refusal()

    def check_loggable(self) -> None:
        """Raise the error that keeps planned writes out of the log, if any. A store that is closing still logs."""
        if self.failure is not None:
            raise self.poisoned()
        if self.stalled_by is not None:
            raise self.stalled()

    def poisoned(self) -> StorePoisoned:
        error = StorePoisoned(f"{StorePoisoned.message} (first failure: {self.failure!r})")
        error.__cause__ = self.failure
        return error

    def stalled(self) -> KVStoreError:
        obstacle = self.stalled_by or DiskFull()
        error = again(obstacle)
        error.__cause__ = obstacle
        return error
