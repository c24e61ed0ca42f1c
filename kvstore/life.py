"""The life of a handle: what it is at the moment, and what that lets its callers do. One table (``PHASES``).

    opened ----> OPEN <----> STALLED      the log takes nothing (a full disk, mostly); it ends by itself
                  |             |
                  +--> POISONED +         a write or sync of the disk failed: only a new opening knows what is there
                  |
                  +--> CLOSING --> CLOSED

    READ_ONLY    opened to be read, as snapshots are
    EXHAUSTED    opened at the last revision that there is
    FORKED       in a child process, whatever it was in the parent

Everybody asks here: reads and writes for the error that refuses them, background work whether it is of any use, and
``health`` for the reason. Whether the threads of background work have begun yet is their own affair
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
"""Makes the error that a caller gets."""


class Phase(Enum):
    """What a handle is."""

    OPEN = "open"
    STALLED = "stalled"
    POISONED = "poisoned"
    EXHAUSTED = "exhausted"
    READ_ONLY = "read-only"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"


class Row(NamedTuple):
    """A row of the table. None: it is served."""

    reads: type[KVStoreError] | None
    writes: type[KVStoreError] | None
    has_upkeep: bool
    """Whether background work goes on."""
    following: frozenset[Phase] = frozenset()
    """What a handle can become from here, by name of the phase."""


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
    """The life of one handle. Each change is safe to be interrupted, and to be made again."""

    def __init__(self, phase: Phase = Phase.OPEN) -> None:
        self.phase = phase
        self.failure: BaseException | None = None
        """What poisoned the store; final."""
        self.stalled_by: KVStoreError | None = None
        """Why the log takes nothing."""
        self.read_refusal: Refusal | None = None
        self.write_refusal: Refusal | None = None
        self._become(phase)

    def move(self, phase: Phase) -> bool:
        """Become ``phase``, if the table allows that from here; whether it is that now."""
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
        """Refuse writes until the store is opened anew: memory and disk may disagree. The first failure counts."""
        if self.failure is None:
            self.failure = failure
        self.move(Phase.POISONED)

    def stall(self, obstacle: KVStoreError) -> None:
        """Nothing is planned until the log takes something again."""
        self.stalled_by = obstacle
        self.move(Phase.STALLED)

    def resume(self) -> None:
        """The stall is over."""
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
        """Why writes are not accepted that a healthy store would take."""
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
        """Raise what refuses reads."""
        if self.read_refusal is not None:
            raise self.read_refusal()

    def check_loggable(self) -> None:
        """Raise what keeps planned writes from the log, also while the store is closing."""
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
